//! How fast bytes may go one way: everyone who moves some is told how long to wait before the next.

use crate::base::clock::Clock;
use parking_lot::Mutex;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

/// What may go at once after a pause.
const BURST: Duration = Duration::from_millis(100);
/// Nobody moves more at once than goes in this time, so that many who share a slow line all go on.
const PIECE: Duration = Duration::from_millis(100);
/// And never more or less than that.
const PIECE_BYTES_MIN: u64 = 1 << 10;
const PIECE_BYTES_MAX: u64 = 256 << 10;

/// The pace of one way.
pub struct Pace {
    clock: Arc<dyn Clock>,
    bytes_per_second: Option<NonZeroU64>,
    /// When all that was taken so far has gone.
    gone: Mutex<Duration>,
}

impl Pace {
    pub fn new(clock: Arc<dyn Clock>, bytes_per_second: Option<NonZeroU64>) -> Pace {
        Pace { clock, bytes_per_second, gone: Mutex::default() }
    }

    /// Takes room for `bytes`, and says how long to wait before the next; zero without a limit.
    pub fn take(&self, bytes: usize) -> Duration {
        let Some(per_second) = self.bytes_per_second else { return Duration::ZERO };
        let nanos = u128::from(bytes as u64) * 1_000_000_000 / u128::from(per_second.get());
        let lasts = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let now = self.clock.elapsed();
        let mut gone = self.gone.lock();
        *gone = (*gone).max(now.saturating_sub(BURST)).saturating_add(lasts);
        gone.saturating_sub(now)
    }

    /// The most to move at once.
    pub fn piece_bytes(&self) -> usize {
        let most = match self.bytes_per_second {
            None => PIECE_BYTES_MAX,
            Some(rate) => {
                (rate.get() / 1000).saturating_mul(PIECE.as_millis() as u64).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX)
            }
        };
        usize::try_from(most).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SimClock;

    fn pace(bytes_per_second: u64) -> (Arc<SimClock>, Pace) {
        let clock = Arc::new(SimClock::default());
        clock.advance(Duration::from_secs(10));
        (clock.clone(), Pace::new(clock, NonZeroU64::new(bytes_per_second)))
    }

    #[test]
    fn bytes_of_many_go_at_the_limit_together() {
        let (clock, pace) = pace(1_000_000);
        let (begun, mut moved) = (clock.elapsed(), 0);
        while moved < 5_000_000 {
            // Two who take turns; both wait for what the other took.
            let _ = pace.take(50_000);
            clock.advance(pace.take(50_000));
            moved += 100_000;
        }
        let took = clock.elapsed() - begun;
        assert!(took >= Duration::from_millis(4900) && took <= Duration::from_secs(5), "{took:?}");
    }

    #[test]
    fn a_pause_saves_up_no_more_than_a_burst() {
        let (clock, pace) = pace(1_000_000);
        assert_eq!(pace.take(100_000), Duration::ZERO, "a burst");
        assert_eq!(pace.take(100_000), Duration::from_millis(100));
        clock.advance(Duration::from_secs(3600));
        assert_eq!(pace.take(300_000), Duration::from_millis(200));
    }

    #[test]
    fn no_limit_is_no_wait_and_a_low_one_makes_small_pieces() {
        let free = Pace::new(Arc::new(SimClock::default()), None);
        assert_eq!((free.take(usize::MAX), free.piece_bytes()), (Duration::ZERO, 256 << 10));
        assert_eq!((pace(100_000).1.piece_bytes(), pace(1).1.piece_bytes()), (10_000, 1 << 10));
    }
}
