//! Time enters as an argument: production reads the system's clocks, the simulator steps a virtual one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A wall-clock time: seconds since 1970 (negative before) and nanoseconds within the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Whole seconds since 1970-01-01T00:00:00Z.
    pub secs: i64,
    /// Nanoseconds within the second, below 1,000,000,000.
    pub nanos: u32,
}

impl Time {
    /// Nanoseconds since 1970, saturating at the ends of `i64` (years 1677 and 2262).
    pub fn as_nanos(self) -> i64 {
        self.secs.saturating_mul(1_000_000_000).saturating_add(i64::from(self.nanos))
    }

    /// The time `nanos` nanoseconds after 1970.
    pub fn from_nanos(nanos: i64) -> Time {
        let secs = nanos.div_euclid(1_000_000_000);
        let rest = nanos.rem_euclid(1_000_000_000);
        Time { secs, nanos: u32::try_from(rest).expect("below a second") }
    }
}

impl From<SystemTime> for Time {
    fn from(t: SystemTime) -> Time {
        match t.duration_since(UNIX_EPOCH) {
            Ok(d) => Time { secs: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), nanos: d.subsec_nanos() },
            Err(e) => {
                let before = e.duration();
                let secs = -i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => Time { secs, nanos: 0 },
                    n => Time { secs: secs - 1, nanos: 1_000_000_000 - n },
                }
            }
        }
    }
}

impl From<Time> for SystemTime {
    fn from(t: Time) -> SystemTime {
        let nanos = Duration::from_nanos(u64::from(t.nanos));
        match u64::try_from(t.secs) {
            Ok(secs) => UNIX_EPOCH + Duration::from_secs(secs) + nanos,
            Err(_) => UNIX_EPOCH - Duration::from_secs(t.secs.unsigned_abs()) + nanos,
        }
    }
}

/// Where time comes from.
pub trait Clock: Send + Sync {
    /// The wall clock. May jump.
    fn now(&self) -> Time;
    /// Time since some fixed moment. Never goes back.
    fn elapsed(&self) -> Duration;
}

/// The machine's clocks.
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose `elapsed` starts now.
    #[expect(clippy::new_without_default, reason = "a clock that starts now has no default value")]
    pub fn new() -> SystemClock {
        SystemClock { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Time {
        SystemTime::now().into()
    }
    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A clock that moves only when told to; for the simulator and tests.
#[derive(Default)]
pub struct SimClock {
    nanos: AtomicU64,
}

impl SimClock {
    /// Moves time forward.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).expect("a simulated step is short");
        self.nanos.fetch_add(by, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    /// 2026-01-01 plus the simulated time.
    fn now(&self) -> Time {
        let nanos = self.nanos.load(Ordering::Relaxed);
        Time::from_nanos(1_767_225_600_000_000_000 + i64::try_from(nanos).expect("simulated time is short"))
    }
    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_after_2038_survive_the_trip() {
        for (secs, nanos) in [(-1, 999_999_999), (-5, 0), (0, 1), (1 << 33, 7)] {
            let t = Time { secs, nanos };
            assert_eq!(Time::from(SystemTime::from(t)), t);
            assert_eq!(Time::from_nanos(t.as_nanos()), t);
        }
    }
}
