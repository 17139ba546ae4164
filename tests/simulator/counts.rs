//! What a part of a run did; work shared among all cores until the time is over; and the number of distinct states in memory that
//! does not grow.

#[path = "../counted/mod.rs"]
mod counted;

pub use counted::Counts;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bits of [`Distinct`]: 128 MiB, of which only touched pages are taken.
const BITS: u64 = 1 << 30;

/// Counts distinct hashes. Two that fall on one bit count once: what it says is never too much.
#[derive(Default)]
pub struct Distinct(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    bits: Vec<u64>,
    count: u64,
}

impl Distinct {
    /// Counts those not seen before.
    pub fn add(&self, hashes: impl IntoIterator<Item = u128>) {
        let mut seen = self.0.lock();
        if seen.bits.is_empty() {
            seen.bits = vec![0; usize::try_from(BITS / 64).expect("64-bit")];
        }
        for hash in hashes {
            let bit = ((hash >> 64) as u64 ^ hash as u64) % BITS;
            let word = &mut seen.bits[usize::try_from(bit / 64).expect("64-bit")];
            let new = *word >> (bit % 64) & 1 == 0;
            *word |= 1 << (bit % 64);
            seen.count += u64::from(new);
        }
    }

    pub fn count(&self) -> u64 {
        self.0.lock().count
    }
}

/// When a run has to come to its end, by `SKYLOG_SIM_SECONDS`.
pub fn deadline() -> Option<Instant> {
    crate::env("SKYLOG_SIM_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds))
}

/// Does the jobs 0, 1, 2, … on all cores until there are no more, or until the time is over.
pub fn each(jobs: u64, until: Option<Instant>, job: impl Fn(u64) + Sync) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while until.is_none_or(|until| Instant::now() < until) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= jobs {
                        break;
                    }
                    job(number);
                }
            });
        }
    });
}

#[test]
fn what_is_counted_as_distinct_is() {
    let distinct = Distinct::default();
    let hash = |n: u64| skylog::media::sim::hash_of(&n.to_le_bytes());
    distinct.add((0..100_000).map(hash));
    distinct.add((50_000..150_000).map(hash));
    let count = distinct.count();
    assert!((149_000..=150_000).contains(&count), "{count}");
}
