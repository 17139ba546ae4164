//! Layer 7: builds, starts and stops what a mount consists of; decides nothing.
//!
//! No operation ever waits on the thread that brought it. One that needs what is not in memory, or room that is not
//! there, is parked with nothing locked; a fetcher or the pressure gate runs it again from the top.
//!
//! Threads, and the order in which they end (each is joined before the next is told to):
//! gate and fetchers, checkpointer, shipper and syncer, cache, journal.

mod actors;
mod copies;
mod durability;
mod follower;
mod health;
mod park;
mod pressure;
mod status;

pub use copies::{Copies, Step};
pub use follower::FollowStatus;
pub use park::{Unresolved, resolve};
pub use pressure::{Patience, WhenFull};
pub use status::{Counters, Status, StoreRequests};

use crate::base::clock::Clock;
use crate::cache::Cache;
use crate::checkpoint::{Desk, Figures, Wanted, nodes::NodeStore};
use crate::format::ids::{Lsn, Uuid};
use crate::fs::{self, Cx, DiskSpace, Error, Fs, SetLimit};
use crate::journal::SyncPolicy;
use crate::map::Db;
use crate::recovery::{Hold, MountError, Mounted, ProgressFn, Replay, Tuning, World, mount};
use crate::ship::Stored;
use crate::store::StoreCounters;
use actors::Threads;
use follower::Following;
use health::{Health, Watched};
use park::Parking;
use parking_lot::Mutex;
use pressure::{Hindrance, Pressure};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
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
    /// Who waits until the store has what they wrote; not of a follower.
    pub stored: Option<Arc<Stored>>,
    pub clock: Arc<dyn Clock>,
    pub stopping: AtomicBool,
    /// What the store is told of who holds the filesystem.
    pub hold: Option<Hold>,
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
    /// Only of a follower.
    following: Option<Following>,
}

impl Shared {
    fn new(
        (db, nodes, desk): (Arc<Db>, Arc<NodeStore>, Arc<Desk>),
        fs: Fs,
        (figures, wanted): (Arc<Mutex<Figures>>, Arc<Wanted>),
        clock: Arc<dyn Clock>,
        health: Arc<Health>,
    ) -> Shared {
        Shared {
            db,
            nodes,
            desk,
            fs,
            parking: Parking::new(clock.clone()),
            figures,
            wanted,
            stored: None,
            clock,
            stopping: AtomicBool::new(false),
            hold: None,
            fenced: Mutex::new(None),
            ship_error: Mutex::new(None),
            store_full: AtomicBool::new(false),
            health,
            pressure: Pressure::default(),
            patience: Mutex::default(),
            leaving: AtomicBool::new(false),
            following: None,
        }
    }

    /// Whether there is a journal, and it is full.
    fn journal_is_full(&self) -> bool {
        self.db.journal_of_writer().is_some_and(|journal| journal.fill().is_full)
    }

    /// Whoever changes something, does no more; why.
    fn latch(&self, reason: String) {
        if let Some(journal) = self.db.journal_of_writer() {
            journal.latch(reason);
        }
    }

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
        self.look_at_fsyncs(now, timeout);
    }

    /// A job of the shipper that failed is not left to the rest of its pause.
    fn ship_again(&self) {
        self.wanted.retry();
        self.desk.wake();
        self.stored.iter().for_each(|stored| stored.retry());
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
    /// What a remote store counts.
    store_counters: Option<Arc<StoreCounters>>,
    shared: Arc<Shared>,
    threads: Mutex<Option<Threads>>,
}

impl Volume {
    /// Mounts and starts all threads. Returns once the filesystem can be used.
    pub fn open(world: &World, tuning: &Tuning, progress: &mut ProgressFn<'_>) -> Result<Arc<Volume>, MountError> {
        let health = Arc::new(Health::new(world.clock.clone()));
        let store_counters = world.store.counters();
        let store = Arc::new(Watched::new(world.store.clone(), health.clone()));
        let world = &World { store: store.clone(), ..world.clone() };
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
        let Mounted { db, nodes, cache, keeper, desk, writer, checkpointer, shipper, syncer, hold, .. } = mounted;
        let write_bytes_max = write_bytes_max(&db);
        let options = fs::Options { write_bytes_max, space: Box::new(space) };
        let shared = Shared::new(
            (db.clone(), nodes, desk),
            Fs::new(db, options),
            (checkpointer.figures(), checkpointer.wanted()),
            world.clock.clone(),
            health,
        );
        let shared = Arc::new(Shared { hold, stored: Some(syncer.stored()), ..shared });
        let threads = Threads::start(&shared, writer, checkpointer, shipper, syncer, keeper, store);
        let volume =
            Arc::new(Volume { filesystem, replay, cache, store_counters, shared, threads: Mutex::new(Some(threads)) });
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
        let Some(journal) = self.shared.db.journal_of_writer().cloned() else {
            return park::start(&self.shared, cx, data_bytes, op, |result| done(result.map(|(value, _)| value)));
        };
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
        self.shared.parking.holds_any() || self.shared.fsyncs().waiting > 0 || self.shared.journal_is_full()
    }

    /// Bytes one write may have.
    pub fn write_bytes_max(&self) -> usize {
        if self.is_follower() { follower::WRITE_BYTES_MAX } else { write_bytes_max(&self.shared.db) }
    }

    /// Counts a request that ended in a panic.
    pub fn count_panic(&self) {
        self.shared.parking.count_panic();
    }

    /// Time since some fixed moment, which only grows.
    pub fn elapsed(&self) -> Duration {
        self.shared.clock.elapsed()
    }

    /// The wall clock.
    pub fn now(&self) -> crate::base::clock::Time {
        self.shared.clock.now()
    }

    /// Changes when batches become durable without anyone asking; what was pending is synced after the switch.
    pub fn set_policy(&self, policy: SyncPolicy) {
        if let Some(journal) = self.shared.db.journal_of_writer() {
            journal.set_policy(policy);
        }
    }

    /// Changes at which age changes are checkpointed and shipped.
    pub fn set_ship_interval(&self, interval: Duration) {
        self.shared.wanted.set_interval(interval);
        self.shared.desk.wake();
    }

    /// Changes how much the files may take. `done` is called when that is durable, or why it will not be.
    pub fn set_limit(&self, set: SetLimit, done: impl FnOnce(Result<(), String>) + Send + 'static) {
        let journal = self.shared.db.journal_of_writer().cloned();
        let cx = Cx { now: self.now(), ..Cx::default() };
        let set = move |fs: &Fs, cx: &mut Cx| fs.set_limit(cx, set);
        park::start(&self.shared, cx, 0, set, move |result| match (result, journal) {
            (Ok((_, lsn)), Some(journal)) => journal.when_durable(lsn, Box::new(done)),
            (Ok(_), None) => done(Ok(())),
            (Err(e), _) => done(Err(e.to_string())),
        });
    }

    /// A follower has nothing that the store does not have.
    fn is_drained(&self) -> bool {
        self.is_follower() || !self.shared.db.files_changed() && self.shared.figures.lock().drained
    }

    /// Makes a checkpoint of everything and ships it. `progress` hears how many bytes of the journal are done, of how many,
    /// and ends the draining by an error.
    pub fn drain(&self, progress: &mut dyn FnMut(u64, u64) -> Result<(), String>) -> Result<(), String> {
        let total = self.shared.db.journal_of_writer().map_or(0, |journal| journal.stats().used_bytes);
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

    /// Says in the store that nobody holds the filesystem any more, for the next mount elsewhere. To be called after a drain, when no
    /// operation comes any more; the store is not waited for longer than `patience`.
    pub fn release(&self, patience: Duration) {
        let shared = self.shared.clone();
        // What has begun since the drain and changes no file keeps nobody from it.
        if shared.hold.is_none() || shared.db.files_changed() || shared.fenced.lock().is_some() {
            return;
        }
        let (tell, told) = mpsc::sync_channel(1);
        let release = move || {
            shared.hold.iter().for_each(Hold::release);
            tell.send(()).ok();
        };
        let started = thread::Builder::new().name("release".to_owned()).spawn(release);
        if started.is_err() || told.recv_timeout(patience).is_err() {
            log::warn!(
                "the store does not hear that this machine holds the filesystem no longer; elsewhere --takeover mounts it"
            );
        }
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
