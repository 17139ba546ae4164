//! Time enters as an argument: production reads the system's clocks, the simulator steps a virtual one.

use nix::time::{ClockId, clock_gettime};
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
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

/// In UTC, as `2026-01-31T23:59:59Z` (days to date after Howard Hinnant's `civil_from_days`).
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, rest) = (self.secs.div_euclid(86_400), self.secs.rem_euclid(86_400));
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
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
    /// Time since some fixed moment. Never goes back. Stands still while the machine sleeps.
    fn elapsed(&self) -> Duration;
    /// The same, going on while the machine sleeps.
    fn elapsed_asleep(&self) -> Duration;
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
    fn elapsed_asleep(&self) -> Duration {
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every kernel that has FUSE has this clock");
        now.into()
    }
}

/// A clock that moves only when told to; for the simulator and tests.
#[derive(Default)]
pub struct SimClock {
    nanos: AtomicU64,
    asleep: AtomicU64,
    set: AtomicI64,
}

impl SimClock {
    /// Moves time forward.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).expect("a simulated step is short");
        self.nanos.fetch_add(by, Ordering::Relaxed);
    }

    /// The machine sleeps for some time.
    pub fn sleep(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).expect("a simulated sleep is short");
        self.asleep.fetch_add(by, Ordering::Relaxed);
    }

    /// Somebody sets the wall clock forward, or back if `nanos` is negative.
    pub fn set_wall(&self, nanos: i64) {
        self.set.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    /// 2026-01-01 plus the simulated time.
    fn now(&self) -> Time {
        let nanos = i64::try_from(self.elapsed_asleep().as_nanos()).expect("simulated time is short");
        Time::from_nanos(1_767_225_600_000_000_000 + nanos + self.set.load(Ordering::Relaxed))
    }
    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
    fn elapsed_asleep(&self) -> Duration {
        self.elapsed() + Duration::from_nanos(self.asleep.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_utc() {
        let utc = |secs| Time { secs, nanos: 0 }.to_string();
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_795_307_065), "2026-11-22T00:24:25Z");
    }

    #[test]
    fn times_before_1970_and_after_2038_survive_the_trip() {
        for (secs, nanos) in [(-1, 999_999_999), (-5, 0), (0, 1), (1 << 33, 7)] {
            let t = Time { secs, nanos };
            assert_eq!(Time::from(SystemTime::from(t)), t);
            assert_eq!(Time::from_nanos(t.as_nanos()), t);
        }
    }
}
