//! How many requests a store is asked at once, and how long anything may take.

use super::RemoteOptions;
use super::refusal::Trouble;
use super::wire::{SLOW_BYTES_PER_SECOND, Wire};
use crate::store::counters::StoreCounters;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// Turns and deadlines of a store's requests.
pub struct Limits {
    uploads: Semaphore,
    downloads: Semaphore,
    counters: Arc<StoreCounters>,
    silence_max: Duration,
    up: u64,
    down: u64,
}

/// Which way most bytes of a request go.
#[derive(Clone, Copy)]
pub enum Way {
    Up,
    Down,
}

impl Limits {
    pub fn new(options: &RemoteOptions, wire: &Wire) -> Limits {
        // A line that is kept slow on purpose is shared by all who use it.
        let slow = |limit: Option<std::num::NonZeroU64>, sharers: usize| {
            let share = limit.map(|limit| limit.get() / (2 * sharers as u64));
            share.unwrap_or(SLOW_BYTES_PER_SECOND).clamp(1, SLOW_BYTES_PER_SECOND)
        };
        let (uploads, downloads) = (options.uploads.get(), options.downloads.get());
        Limits {
            uploads: Semaphore::new(uploads.min(Semaphore::MAX_PERMITS)),
            downloads: Semaphore::new(downloads.min(Semaphore::MAX_PERMITS)),
            counters: wire.counters.clone(),
            silence_max: options.request_timeout,
            up: slow(options.upload_bytes_per_second, uploads),
            down: slow(options.download_bytes_per_second, downloads),
        }
    }

    /// Runs `work`, which moves about `bytes`, when it is its turn, and not beyond its deadline.
    pub async fn run<T>(
        &self,
        way: Way,
        bytes: u64,
        work: impl Future<Output = Result<T, object_store::Error>>,
    ) -> Result<T, Trouble> {
        let _turn = self.turn(way).await?;
        self.within(way, bytes, work).await
    }

    /// The same at once: for what has its turn, or costs the store nothing.
    pub async fn within<T>(
        &self,
        way: Way,
        bytes: u64,
        work: impl Future<Output = Result<T, object_store::Error>>,
    ) -> Result<T, Trouble> {
        let deadline = self.deadline(way, bytes);
        timeout(deadline, work).await.map_err(|_| Trouble::Deadline(deadline))?.map_err(Trouble::Client)
    }

    /// No wait before a retry begins after the time that nothing may move, and the last try may take as long again; what
    /// moves may take its time.
    fn deadline(&self, way: Way, bytes: u64) -> Duration {
        let slow = match way {
            Way::Up => self.up,
            Way::Down => self.down,
        };
        self.silence_max * 5 / 2 + Duration::from_secs(bytes.div_ceil(slow))
    }

    /// Waits as long as those before get on.
    pub async fn turn(&self, way: Way) -> Result<SemaphorePermit<'_>, Trouble> {
        let turns = match way {
            Way::Up => &self.uploads,
            Way::Down => &self.downloads,
        };
        let patience = self.silence_max * 2;
        loop {
            let moved = self.counters.bytes_moved();
            if let Ok(turn) = timeout(patience, turns.acquire()).await {
                return Ok(turn.expect("nobody closes it"));
            }
            if self.counters.bytes_moved() == moved {
                return Err(Trouble::Queue(patience));
            }
        }
    }
}
