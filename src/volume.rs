//! Layer 7: builds, starts and stops what a mount consists of; decides nothing.
//!
//! No operation ever waits on the thread that brought it. One that needs what is not in memory, or room that is not
//! there, is parked with nothing locked; a fetcher or the pressure gate runs it again from the top.
//!
//! Threads, and the order in which they end (each is joined before the next is told to):
//! gate and fetchers, checkpointer, shipper, cache, journal.

mod actors;
mod health;
mod park;
mod pressure;

pub use park::{Unresolved, resolve};
pub use pressure::{Patience, WhenFull};

use crate::base::clock::Clock;
use crate::cache::{Cache, CacheStats};
use crate::checkpoint::{Desk, Figures, Wanted, nodes::NodeStore};
use crate::format::ids::{Lsn, Uuid};
use crate::fs::{self, Cx, DiskSpace, Error, Fs, SetLimit};
use crate::journal::SyncPolicy;
use crate::map::Db;
use crate::recovery::{MountError, Mounted, ProgressFn, Replay, Tuning, World, mount};
use actors::Threads;
use health::{Health, Watched};
use park::Parking;
use parking_lot::Mutex;
use pressure::{Hindrance, Pressure};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What the two background actors and their callers share.
pub(crate) struct Shared {
    pub db: Arc<Db>,
    pub nodes: Arc<NodeStore>,
    pub desk: Arc<Desk>,
    pub fs: Fs,
    pub parking: Parking,
    pub figures: Arc<Mutex<Figures>>,
    pub wanted: Arc<Wanted>,
    pub clock: Arc<dyn Clock>,
    pub stopping: AtomicBool,
    /// Why the store takes nothing any more, if another writer has taken over.
    pub fenced: Mutex<Option<String>>,
    pub ship_error: Mutex<Option<String>>,
    /// The store has no room, so the journal's will not come back soon.
    pub store_full: AtomicBool,
    health: Arc<Health>,
    pressure: Pressure,
    patience: Mutex<Patience>,
    /// The mount is to go: nobody waits for what may not come.
    leaving: AtomicBool,
}

impl Shared {
    /// Gives answers whose time has come.
    fn answer_due(&self) {
        let now = self.clock.elapsed();
        let leaving = self.leaving.load(Ordering::SeqCst);
        let due = if leaving { self.pressure.all() } else { self.pressure.due(now) };
        due.into_iter().for_each(|answer| answer());
        let timeout = if leaving { Duration::ZERO } else { self.patience.lock().read_timeout };
        for task in self.parking.look_at_away(&self.health, now, timeout) {
            task.give_up(self);
        }
    }

    /// A job of the shipper that failed is not left to the rest of its pause.
    fn ship_again(&self) {
        self.wanted.retry();
        self.desk.wake();
    }

    /// Somebody waits for the journal to be emptied: a store that is away is asked again after the pause that reads leave it.
    fn hurry_shipping(&self) {
        if self.health.is_away() && self.health.may_be_asked() {
            self.ship_again();
        }
    }

    /// What keeps the journal from being emptied, if something does.
    fn hindrance(&self) -> Option<Hindrance> {
        if let Some(outage) = self.health.outage() {
            return Some(Hindrance::Away(outage));
        }
        if self.store_full.load(Ordering::Relaxed) {
            return Some(Hindrance::Full);
        }
        self.ship_error.lock().clone().map(Hindrance::Failing)
    }
}

/// A mounted filesystem.
pub struct Volume {
    filesystem: Uuid,
    replay: Replay,
    cache: Option<Arc<Cache>>,
    shared: Arc<Shared>,
    threads: Mutex<Option<Threads>>,
}

/// What `status` shows.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The daemon's process.
    pub pid: u32,
    /// The filesystem.
    pub uuid: String,
    /// `active`, `offline` until a store that was away at the mount answers, `read-only` after a failed sync or write,
    /// `fenced` after a takeover.
    pub state: &'static str,
    /// When batches become durable without anyone asking.
    pub policy: String,
    /// The newest batch,
    pub last: String,
    /// the newest durable one,
    pub durable: String,
    /// and the newest one in the store.
    pub shipped: String,
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
    /// The newest error that is not over.
    pub last_error: Option<String>,
    /// Everything counted since the mount.
    pub counters: Counters,
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

impl Volume {
    /// Mounts and starts all threads. Returns once the filesystem can be used.
    pub fn open(world: &World, tuning: &Tuning, progress: &mut ProgressFn<'_>) -> Result<Arc<Volume>, MountError> {
        let health = Arc::new(Health::new(world.clock.clone()));
        let store = Arc::new(Watched::new(world.store.clone(), health.clone()));
        let world = &World { store, ..world.clone() };
        let mounted = mount(world, tuning, progress)?;
        let (filesystem, replay) = (mounted.superblock.uuid, mounted.replay);
        let media = world.media.clone();
        let space = move || {
            let space = media.space();
            space.map_or_else(
                |_| DiskSpace::default(),
                |s| DiskSpace { total: s.total, free: s.free, available: s.available },
            )
        };
        let Mounted { db, nodes, cache, keeper, desk, writer, checkpointer, shipper, .. } = mounted;
        let write_bytes_max = write_bytes_max(&db);
        let options = fs::Options { write_bytes_max, space: Box::new(space) };
        let shared = Arc::new(Shared {
            fs: Fs::new(db.clone(), options),
            parking: Parking::new(world.clock.clone()),
            figures: checkpointer.figures(),
            wanted: checkpointer.wanted(),
            clock: world.clock.clone(),
            stopping: AtomicBool::new(false),
            fenced: Mutex::new(None),
            ship_error: Mutex::new(None),
            store_full: AtomicBool::new(false),
            health,
            pressure: Pressure::default(),
            patience: Mutex::default(),
            leaving: AtomicBool::new(false),
            db,
            nodes,
            desk,
        });
        let threads = Threads::start(&shared, writer, checkpointer, shipper, keeper);
        let volume = Arc::new(Volume { filesystem, replay, cache, shared, threads: Mutex::new(Some(threads)) });
        volume.free_orphans()?;
        Ok(volume)
    }

    /// Only a writer's recovery frees what had no name when the writer before it ended.
    fn free_orphans(&self) -> Result<(), MountError> {
        let Shared { fs, db, nodes, clock, .. } = &*self.shared;
        let mut cx = Cx { now: clock.now(), ..Cx::default() };
        loop {
            match fs.free_orphans(&cx) {
                Ok((0, _)) => return Ok(()),
                Ok(_) => {}
                Err(fs::Stop::Wait(wait)) => match resolve(&wait, db, nodes, &mut cx.pins) {
                    Ok(()) => {}
                    Err(e) if self.shared.figures.lock().offline => {
                        log::warn!(
                            "orphans could not be freed while the store is away, the next mount tries again: {e}"
                        );
                        return Ok(());
                    }
                    Err(e) => {
                        return Err(MountError::Damaged { place: "orphans".to_owned(), reason: e.to_string() });
                    }
                },
                Err(fs::Stop::Error(e)) => {
                    log::error!("orphans could not be freed, the next mount tries again: {e}");
                    return Ok(());
                }
            }
        }
    }

    /// Runs an operation that reads. `done` is called once, here or on another thread.
    pub fn start<T: 'static>(
        &self,
        cx: Cx,
        op: impl FnMut(&Fs, &mut Cx) -> Result<T, fs::Stop> + Send + 'static,
        done: impl FnOnce(Result<T, Error>) + Send + 'static,
    ) {
        park::start(&self.shared, cx, 0, op, done);
    }

    /// Runs what follows from an operation that was just answered, and nobody waits for. It may be a fetcher that answered it,
    /// so this never waits for others to end.
    pub fn follow(&self, cx: Cx, op: impl FnMut(&Fs, &mut Cx) -> Result<(), fs::Stop> + Send + 'static) {
        park::start_admitted(&self.shared, cx, 0, op, |_| ());
    }

    /// Runs an operation that changes something and brought `data_bytes` along. Under the policy `always` it is done when
    /// it is durable.
    pub fn start_changing<T: Send + 'static>(
        &self,
        cx: Cx,
        data_bytes: usize,
        op: impl FnMut(&Fs, &mut Cx) -> Result<(T, Lsn), fs::Stop> + Send + 'static,
        done: impl FnOnce(Result<T, Error>) + Send + 'static,
    ) {
        let journal = self.shared.db.journal().clone();
        park::start(&self.shared, cx, data_bytes, op, move |result| match result {
            Ok((value, lsn)) if journal.policy() == SyncPolicy::Always => {
                let acknowledge = move |synced: Result<(), String>| match synced {
                    Ok(()) => done(Ok(value)),
                    Err(reason) => {
                        log::error!("a change could not be made durable: {reason}");
                        done(Err(Error::Io));
                    }
                };
                journal.when_durable(lsn, Box::new(acknowledge));
            }
            Ok((value, _)) => done(Ok(value)),
            Err(e) => done(Err(e)),
        });
    }

    /// The same for an operation that adds: when the journal fills up faster than it is emptied, its answer is held back.
    pub fn start_adding<T: Send + 'static>(
        &self,
        cx: Cx,
        data_bytes: usize,
        op: impl FnMut(&Fs, &mut Cx) -> Result<(T, Lsn), fs::Stop> + Send + 'static,
        done: impl FnOnce(Result<T, Error>) + Send + 'static,
    ) {
        let weak = Arc::downgrade(&self.shared);
        self.start_changing(cx, data_bytes, op, move |result| match weak.upgrade() {
            Some(shared) if result.is_ok() => {
                if shared.pressure.answer(shared.clock.elapsed(), data_bytes, move || done(result)) {
                    shared.parking.wake_gate();
                }
            }
            _ => done(result),
        });
    }

    /// How long operations wait from now on.
    pub fn set_patience(&self, patience: Patience) {
        *self.shared.patience.lock() = patience;
    }

    /// What operations that add do from now on when the journal is full.
    pub fn set_when_full(&self, when_full: WhenFull) {
        self.shared.patience.lock().when_full = when_full;
    }

    /// Whether the mount is about to go: then operations are answered with an error that wait for room in a full journal,
    /// or for a store that does not answer.
    pub fn set_leaving(&self, leaving: bool) {
        self.shared.leaving.store(leaving, Ordering::SeqCst);
        self.shared.parking.wake_gate();
    }

    /// What keeps the journal from being emptied, if something does: one sentence without its full stop.
    pub fn hindrance(&self) -> Option<String> {
        self.shared.hindrance().map(|hindrance| hindrance.to_string())
    }

    /// Whether anybody waits: for room, for something to be fetched, or for a store that does not answer.
    pub fn has_waiting(&self) -> bool {
        self.shared.parking.holds_any() || self.shared.db.journal().fill().is_full
    }

    /// Calls `done` when everything that happened so far is durable, or why it never will be.
    pub fn sync(&self, done: impl FnOnce(Result<(), String>) + Send + 'static) {
        let db = &self.shared.db;
        db.journal().when_durable(db.last(), Box::new(done));
    }

    /// Bytes one write may have.
    pub fn write_bytes_max(&self) -> usize {
        write_bytes_max(&self.shared.db)
    }

    /// Counts a request that ended in a panic.
    pub fn count_panic(&self) {
        self.shared.parking.count_panic();
    }

    /// The wall clock.
    pub fn now(&self) -> crate::base::clock::Time {
        self.shared.clock.now()
    }

    /// Changes when batches become durable without anyone asking; what was pending is synced after the switch.
    pub fn set_policy(&self, policy: SyncPolicy) {
        self.shared.db.journal().set_policy(policy);
    }

    /// Changes at which age changes are checkpointed and shipped.
    pub fn set_ship_interval(&self, interval: Duration) {
        self.shared.wanted.set_interval(interval);
        self.shared.desk.wake();
    }

    /// Changes how much the files may take. `done` is called when that is durable, or why it will not be.
    pub fn set_limit(&self, set: SetLimit, done: impl FnOnce(Result<(), String>) + Send + 'static) {
        let journal = self.shared.db.journal().clone();
        let cx = Cx { now: self.now(), ..Cx::default() };
        let set = move |fs: &Fs, cx: &mut Cx| fs.set_limit(cx, set);
        park::start(&self.shared, cx, 0, set, move |result| match result {
            Ok((_, lsn)) => journal.when_durable(lsn, Box::new(done)),
            Err(e) => done(Err(e.to_string())),
        });
    }

    /// What `status` shows.
    pub fn status(&self) -> Status {
        let Shared { db, figures, parking, pressure, fenced, ship_error, clock, .. } = &*self.shared;
        let stats = db.journal().stats();
        let figures = figures.lock().clone();
        let fenced = fenced.lock().clone();
        let state = match (&fenced, &stats.latched) {
            (Some(_), _) => "fenced",
            (None, Some(_)) => "read-only",
            (None, None) if figures.offline => "offline",
            (None, None) => "active",
        };
        let last_error = fenced
            .or(stats.latched)
            .or_else(|| ship_error.lock().clone())
            .or(figures.last_error)
            .or_else(|| parking.damage())
            .or(stats.last_error);
        let now = clock.now().as_nanos();
        let (usage, limit) = db.usage();
        let (when_full, hindrance) = (self.shared.patience.lock().when_full, self.shared.hindrance());
        let holds_back = pressure.holds_back(clock.elapsed());
        let (step, pressure_reason) =
            pressure::describe(&db.journal().fill(), hindrance.as_ref(), when_full, holds_back);
        let some = |limit: u64| (limit > 0).then_some(limit);
        Status {
            pid: std::process::id(),
            uuid: self.filesystem.to_string(),
            state,
            policy: db.journal().policy().to_string(),
            last: db.last().to_string(),
            durable: db.journal().durable().to_string(),
            shipped: figures.shipped.to_string(),
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
            cache: self.cache.as_ref().map(|cache| cache.stats()),
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

    fn is_drained(&self) -> bool {
        !self.shared.db.files_changed() && self.shared.figures.lock().drained
    }

    /// Makes a checkpoint of everything and ships it. `progress` hears how many bytes of the journal are done, of how many,
    /// and ends the draining by an error.
    pub fn drain(&self, progress: &mut dyn FnMut(u64, u64) -> Result<(), String>) -> Result<(), String> {
        let total = self.shared.db.journal().stats().used_bytes;
        let written = self.shared.health.written();
        while !self.is_drained() {
            let status = self.status();
            if !matches!(status.state, "active" | "offline") {
                return Err(status.last_error.unwrap_or_else(|| status.state.to_owned()));
            }
            if self.shared.stopping.load(Ordering::SeqCst) {
                return Err("the volume is closing".to_owned());
            }
            self.shared.wanted.checkpoint();
            self.shared.hurry_shipping();
            self.shared.desk.wake();
            // The journal lets go of a window at a time; the store takes it piece by piece.
            let taken = self.shared.health.written().saturating_sub(written).min(total);
            progress(total.saturating_sub(status.unshipped_bytes).max(taken), total)?;
            std::thread::sleep(Duration::from_millis(20));
        }
        progress(total, total)
    }

    /// Ends everything in order. Operations that still wait are answered; what the journal holds stays there. The journal
    /// ends cleanly unless it has failed.
    pub fn close(&self) -> Result<(), String> {
        self.shared.stopping.store(true, Ordering::SeqCst);
        match self.threads.lock().take() {
            Some(threads) => threads.join(&self.shared),
            None => Ok(()),
        }
    }
}

/// A quarter of a journal segment holds any batch; a write is at most 1 MiB, a power of two, and leaves room for the rest of its
/// batch.
pub(crate) fn write_bytes_max(db: &Db) -> usize {
    let room = usize::try_from(db.journal().batch_bytes_max() / 2).unwrap_or(usize::MAX).min(1 << 20);
    1 << room.max(4096).ilog2()
}
