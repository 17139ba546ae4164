//! What a volume tells of itself.

use super::pressure::{self, WhenFull};
use super::{Shared, Volume};
use crate::base::clock::Time;
use crate::base::metrics::Latencies;
use crate::cache::CacheStats;
use crate::journal::{self, Fill};
use crate::locate::ReaderStats;
use crate::store::{RequestKind, StoreFigures};
use serde::Serialize;
use std::collections::BTreeMap;

/// What `status` shows.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The daemon's process.
    pub pid: u32,
    /// The filesystem.
    pub uuid: String,
    /// `active`, `offline` until a store that was away at the mount answers, `read-only` after a failed sync or write,
    /// `fenced` after a takeover; of a follower `following`, or `stale` while its lease is lost.
    pub state: &'static str,
    /// When batches become durable without anyone asking.
    pub policy: String,
    /// When an fsync returns: `local`, or `store`.
    pub durability: String,
    /// The newest batch,
    pub last: String,
    /// the newest durable one,
    pub durable: String,
    /// the newest one in the store with its window,
    pub shipped: String,
    /// and the newest one in the store.
    pub stored: String,
    /// Fsyncs that wait for the store.
    pub waiting_fsyncs: u64,
    /// How long the newest log increment was on its way into the store, microseconds.
    pub log_round_trip_us: u64,
    /// Bytes of journal segments in use.
    pub journal_used_bytes: u64,
    /// Bytes the journal may use.
    pub journal_capacity_bytes: u64,
    /// Bytes in the journal that the store does not have yet; an upper bound.
    pub unshipped_bytes: u64,
    /// What is done about a journal that fills up: `none`, `shipping`, `slowing` (answers to writers are held back), or `full`.
    pub pressure: &'static str,
    /// Why, in one sentence.
    pub pressure_reason: Option<String>,
    /// What operations that add do when the journal is full: `wait`, or fail by `enospc`.
    pub when_full: WhenFull,
    /// `ok`; `away since` when, and why; or `offline` until a store that was away at the mount answers.
    pub store_state: String,
    /// Mounts that follow this one, as far as that was asked: before something was deleted from the store.
    pub followers: Vec<FollowerStatus>,
    /// Operations that wait for a store that does not answer.
    pub waiting_for_store: u64,
    /// The newest checkpoint.
    pub checkpoint: u64,
    /// Seconds since it was made.
    pub checkpoint_age_s: u64,
    /// Windows that wait to be shipped.
    pub windows_waiting: u64,
    /// Memory of changes since the checkpoint.
    pub overlay_bytes: u64,
    /// What the files take; nothing when that is not counted.
    pub used_bytes: Option<u64>,
    /// Inodes, the root and open files without a name too.
    pub used_inodes: Option<u64>,
    /// What the files may take; nothing without a limit.
    pub limit_bytes: Option<u64>,
    /// Most inodes; nothing without a limit.
    pub limit_inodes: Option<u64>,
    /// What is said above a limit: `enospc` or `edquot`.
    pub on_limit: &'static str,
    /// Copies of store objects on local disk, if there are any.
    pub cache: Option<CacheStats>,
    /// Of a hundred reads from these copies, those that found what they asked for; nothing before the first.
    pub cache_hit_percent: Option<u64>,
    /// Reading what has no copy yet.
    pub reading: Option<ReaderStats>,
    /// Requests to a remote store.
    pub store_requests: Option<StoreRequests>,
    /// The newest error that is not over.
    pub last_error: Option<String>,
    /// Everything counted since the mount.
    pub counters: Counters,
}

/// See [`Status::followers`].
#[derive(Clone, Debug, Serialize)]
pub struct FollowerStatus {
    /// Process and machine.
    pub name: String,
    /// The oldest checkpoint that it reads; 0 for any.
    pub checkpoint: u64,
    /// How many seconds ago its newest lease was seen.
    pub seen_s_ago: u64,
}

/// See [`Status::counters`].
#[derive(Clone, Debug, Serialize)]
pub struct Counters {
    /// Batches that the mount replayed over its checkpoint,
    pub replayed_batches: u64,
    /// bytes of journal it read for them,
    pub replayed_bytes: u64,
    /// and milliseconds that took.
    pub replay_ms: u64,
    /// Successful disk syncs of the journal.
    pub syncs: u64,
    /// Waiters that they answered.
    pub synced_waiters: u64,
    /// The longest of them, microseconds.
    pub sync_max_us: u64,
    /// Those that took two seconds or longer.
    pub slow_syncs: u64,
    /// How long the journal has been waiting for its disk, milliseconds.
    pub disk_busy_ms: u64,
    /// Checkpoints that failed since the last one that was made.
    pub checkpoint_failures: u32,
    /// Journal segments used again.
    pub segments_recycled: u64,
    /// Checkpoints made.
    pub checkpoints: u64,
    /// Windows shipped.
    pub windows_shipped: u64,
    /// Log increments published, for fsyncs that wait for the store,
    pub log_increments: u64,
    /// their bytes,
    pub log_bytes: u64,
    /// fsyncs that were answered when the store had all,
    pub stored_fsyncs: u64,
    /// and with EIO because it did not take it in time.
    pub timed_out_fsyncs: u64,
    /// Store objects deleted.
    pub objects_deleted: u64,
    /// Operations that were parked.
    pub parked: u64,
    /// Requests that ended in a panic and were answered with EIO.
    pub panics: u64,
    /// Operations answered with EIO because what they needed could not be read.
    pub unreadable: u64,
    /// Operations answered with EIO because the store did not answer in time.
    pub timed_out: u64,
    /// Operations whose answer was held back to slow writers down.
    pub slowed: u64,
    /// Operations that a full journal refused.
    pub refused: u64,
    /// Tree nodes found in memory,
    pub node_hits: u64,
    /// and not.
    pub node_misses: u64,
}

/// See [`Status::store_requests`]. Each try counts.
#[derive(Clone, Debug, Serialize)]
pub struct StoreRequests {
    /// All of them,
    pub total: u64,
    /// and by method.
    #[serde(flatten)]
    pub by_method: BTreeMap<&'static str, u64>,
    /// Those beyond the first for the same thing.
    pub retries: u64,
    /// Those that failed. That something is not there is no failure.
    pub failures: u64,
    /// Bytes of bodies sent,
    pub sent_bytes: u64,
    /// and received.
    pub received_bytes: u64,
    /// How the newest failure went,
    pub last_failure: Option<String>,
    /// and how many seconds ago that was.
    pub last_failure_age_s: Option<u64>,
}

impl StoreRequests {
    fn new(figures: StoreFigures, now: Time) -> StoreRequests {
        let last = figures.last_failure.as_ref();
        StoreRequests {
            total: figures.requests_begun(),
            by_method: RequestKind::ALL.iter().map(|kind| (kind.word(), figures.of(*kind).begun)).collect(),
            retries: figures.retries,
            failures: figures.failures.iter().sum(),
            sent_bytes: figures.bytes_up,
            received_bytes: figures.bytes_down,
            last_failure: last.map(|last| format!("{}: {}", last.kind.word(), last.words)),
            last_failure_age_s: last.map(|last| u64::try_from(now.secs - last.at.secs).unwrap_or(0)),
        }
    }
}

impl Volume {
    /// All that a remote store counts.
    pub fn store_figures(&self) -> Option<StoreFigures> {
        self.store_counters.as_ref().map(|counters| counters.figures())
    }

    /// How long syncs of the journal took.
    pub fn sync_latency(&self) -> Latencies {
        self.journal_stats().sync_latency
    }

    /// A follower has no journal: nothing in it.
    fn journal_stats(&self) -> journal::Stats {
        self.shared.db.journal_of_writer().map_or_else(Default::default, |journal| journal.stats())
    }

    /// Why nothing of it can be published any more, if another writer has taken over.
    pub fn fenced(&self) -> Option<String> {
        self.shared.fenced.lock().clone()
    }

    /// What `status` shows.
    pub fn status(&self) -> Status {
        let Shared { db, figures, parking, pressure, fenced, ship_error, clock, .. } = &*self.shared;
        let (journal, stats) = (db.journal_of_writer(), self.journal_stats());
        let follower = self.follow_status();
        let figures = figures.lock().clone();
        let fenced = fenced.lock().clone();
        let state = match (&fenced, &stats.latched, &follower) {
            (_, _, Some(follower)) if follower.is_lost => "stale",
            (_, _, Some(_)) => "following",
            (Some(_), _, _) => "fenced",
            (None, Some(_), _) => "read-only",
            (None, None, _) if figures.offline => "offline",
            (None, None, _) => "active",
        };
        let last_error = fenced
            .or(stats.latched)
            .or_else(|| ship_error.lock().clone())
            .or(figures.last_error)
            .or(figures.deletion_refused)
            .or_else(|| follower.and_then(|follower| follower.figures.error))
            .or_else(|| parking.damage())
            .or(stats.last_error);
        let now = clock.now().as_nanos();
        let sync = self.shared.fsyncs();
        let stored = journal.map_or(figures.shipped, |journal| journal.tail().published().end().max(figures.shipped));
        let (usage, limit) = db.usage();
        let (when_full, hindrance) = (self.shared.patience.lock().when_full, self.shared.hindrance());
        let holds_back = pressure.holds_back(clock.elapsed());
        let (step, pressure_reason) = pressure::describe(
            &journal.map_or_else(Fill::default, |journal| journal.fill()),
            hindrance.as_ref(),
            when_full,
            holds_back,
        );
        let some = |limit: u64| (limit > 0).then_some(limit);
        let cache = self.cache.as_ref().map(|cache| cache.stats());
        let now_elapsed = clock.elapsed();
        let followers = figures.followers.into_iter().map(|follower| FollowerStatus {
            name: follower.name,
            checkpoint: follower.checkpoint,
            seen_s_ago: now_elapsed.saturating_sub(follower.seen).as_secs(),
        });
        Status {
            pid: std::process::id(),
            uuid: self.filesystem.to_string(),
            state,
            policy: journal.map_or_else(|| "none".to_owned(), |journal| journal.policy().to_string()),
            durability: self.durability().to_string(),
            last: db.last().to_string(),
            durable: journal.map_or_else(|| db.last(), |journal| journal.durable()).to_string(),
            shipped: figures.shipped.to_string(),
            stored: stored.to_string(),
            waiting_fsyncs: sync.waiting as u64,
            log_round_trip_us: u64::try_from(sync.round_trip.as_micros()).unwrap_or(u64::MAX),
            journal_used_bytes: stats.used_bytes,
            journal_capacity_bytes: stats.capacity_bytes,
            unshipped_bytes: if self.is_drained() { 0 } else { stats.used_bytes + stats.queue_bytes },
            pressure: step.word(),
            pressure_reason,
            when_full,
            store_state: match (figures.offline, self.shared.health.outage()) {
                (true, None) => "offline".to_owned(),
                (true, Some(outage)) => format!("offline, {outage}"),
                (false, _) => self.shared.health.to_string(),
            },
            followers: followers.collect(),
            waiting_for_store: parking.waiting_for_store(),
            checkpoint: figures.checkpoint,
            checkpoint_age_s: u64::try_from((now - figures.checkpoint_wall) / 1_000_000_000).unwrap_or(0),
            windows_waiting: figures.windows_waiting,
            overlay_bytes: db.overlay_bytes(),
            used_bytes: usage.map(|usage| usage.bytes()),
            used_inodes: usage.map(|usage| usage.inodes),
            limit_bytes: some(limit.bytes),
            limit_inodes: some(limit.inodes),
            on_limit: limit.on_limit.word(),
            cache_hit_percent: cache.as_ref().and_then(hit_percent),
            cache,
            reading: db.locate().reader().map(|reader| reader.stats()),
            store_requests: self.store_figures().map(|figures| StoreRequests::new(figures, clock.now())),
            last_error,
            counters: Counters {
                replayed_batches: self.replay.batches,
                replayed_bytes: self.replay.bytes,
                replay_ms: u64::try_from(self.replay.took.as_millis()).unwrap_or(u64::MAX),
                syncs: stats.syncs,
                synced_waiters: stats.synced_waiters,
                sync_max_us: stats.sync_max_nanos / 1000,
                slow_syncs: stats.slow_syncs,
                disk_busy_ms: stats.busy_nanos / 1_000_000,
                checkpoint_failures: figures.checkpoint_failures,
                segments_recycled: stats.recycled,
                checkpoints: figures.checkpoints,
                windows_shipped: figures.windows_shipped,
                log_increments: sync.increments,
                log_bytes: sync.bytes,
                stored_fsyncs: sync.answered,
                timed_out_fsyncs: sync.timed_out,
                objects_deleted: figures.objects_deleted,
                parked: parking.parked(),
                panics: parking.panics(),
                unreadable: parking.unreadable(),
                timed_out: parking.timed_out(),
                slowed: pressure.slowed(),
                refused: pressure.refused(),
                node_hits: db.cache().hits(),
                node_misses: db.cache().misses(),
            },
        }
    }
}

fn hit_percent(cache: &CacheStats) -> Option<u64> {
    (cache.hits * 100).checked_div(cache.hits + cache.misses)
}
