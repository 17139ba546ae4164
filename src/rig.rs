//! A whole filesystem on simulated disk and store, for tests: the product's own code, every actor stepped by hand, no
//! thread, no real time.

use crate::base::clock::{Clock, SimClock};
use crate::base::random::SeededRandom;
use crate::cache;
use crate::checkpoint::{Policy, Progress, Replay};
use crate::format::ids::{Lsn, Uuid};
use crate::format::lease::Owner;
use crate::format::manifest::Manifest;
use crate::format::names::SUPERBLOCK;
use crate::format::superblock::Superblock;
use crate::format::usage::Usage;
use crate::fs::{self, Cx, DiskSpace, Fs};
use crate::journal;
use crate::locate::{CacheBytes, Locate, ReaderStats};
use crate::map::{Db, Limits, NodeCache, Shape, Start, Wait};
use crate::media::Media;
use crate::media::sim::{CallLog, SimDisk};
use crate::recovery::{Holding, Known, MkfsOptions, MountError, Mounted, Tuning, World, mkfs, mount};
use crate::ship::syncer::Step;
use crate::store::sim::SimStore;
use crate::volume::resolve;
use std::sync::Arc;
use std::time::Duration;

/// The filesystem and what it stands on.
pub struct Rig {
    /// Where disk and store log their calls.
    pub log: Arc<CallLog>,
    /// The disk of the state directory.
    pub disk: SimDisk,
    /// The store.
    pub store: SimStore,
    /// Time, which moves by [`Rig::advance`] only.
    pub clock: Arc<SimClock>,
    /// The same as the product sees it.
    pub world: World,
    /// What is mounted.
    pub mounted: Mounted,
    /// Its files.
    pub fs: Arc<Fs>,
}

/// Sizes that make much happen in little space.
pub fn small() -> Tuning {
    Tuning {
        journal: journal::Config {
            segment_bytes: 64 << 10,
            journal_bytes: 512 << 10,
            queue_bytes_max: 256 << 10,
            reserve_bytes: 128 << 10,
        },
        limits: Limits { overlay_bytes_max: 1 << 20, inode_step: 16 },
        node_cache_bytes: 1 << 20,
        cache: CacheBytes { data: 1 << 20, indexes: 1 << 20 },
        cache_files: None,
        fold_bytes: 1 << 20,
        fetches: 1,
        policy: Policy {
            age_max: Duration::from_secs(5),
            grace: Duration::ZERO,
            replay: Replay::after(3, 1 << 20),
            segment_bytes: 32 << 10,
            uploads: 1,
            shape: Shape { node_bytes: 512 },
        },
        owner: Owner::of_test("rig"),
        holding: Holding::Untold,
    }
}

/// The maps over a journal alone, with nothing in them: no store, no checkpoints. A root directory is counted, and for the
/// caller to put. Its queue holds whatever a test writes, so
/// nothing waits unless the test writes very much; then the writer must be stepped.
///
/// # Panics
/// When it cannot be made: nothing fails here.
pub fn bare() -> (Arc<Db>, journal::Writer) {
    let log = CallLog::new();
    let media: Arc<dyn Media> = Arc::new(SimDisk::new(&log));
    let clock = Arc::new(SimClock::default());
    let segment_bytes = 32 << 20;
    let config =
        journal::Config { segment_bytes, journal_bytes: 256 << 20, queue_bytes_max: u64::MAX / 4, reserve_bytes: 0 };
    let manifest = Manifest::new(Uuid(1), Uuid(2), 1, 1);
    let manifest = journal::ManifestStore::create(media.clone(), manifest).expect("a manifest is made");
    let random = Arc::new(SeededRandom::new(1));
    let nothing = journal::Replayed::nothing(media.clone(), Lsn::ZERO);
    let (journal, writer) = journal::open(media, clock, random, manifest, nothing, config).expect("a journal is made");
    let cache = CacheBytes { data: 1 << 20, indexes: 1 << 20 };
    let locate = Arc::new(Locate::new(Some(journal.clone()), Arc::new(SimStore::new(&log)), cache, None));
    let limits = Limits { overlay_bytes_max: u64::MAX / 4, inode_step: 1024 };
    let start = Start { usage: Some(Usage::EMPTY), ..Start::default() };
    let db = Db::new(1, start, journal, locate, Arc::new(NodeCache::new(1 << 20)), limits);
    (Arc::new(db), writer)
}

/// A new store with a new, empty filesystem in it.
pub fn new_store(log: &Arc<CallLog>, clock: &SimClock, random: &SeededRandom) -> Result<SimStore, MountError> {
    let store = SimStore::new(log);
    mkfs(&store, clock, random, MkfsOptions { segment_size: 64 << 10, ..MkfsOptions::default() })?;
    Ok(store)
}

/// The configuration in a store, also when it is down.
pub fn known(store: &SimStore) -> Option<Known> {
    store.image().object(SUPERBLOCK).and_then(|bytes| Superblock::decode(bytes).ok()).map(Known::Before)
}

impl Rig {
    /// A new filesystem, mounted.
    ///
    /// # Panics
    /// When it cannot be made: nothing fails here unless told to.
    pub fn new(seed: u64, tuning: &Tuning) -> Rig {
        let log = CallLog::new();
        let clock = Arc::new(SimClock::default());
        let store = new_store(&log, &clock, &SeededRandom::new(seed)).expect("a new store takes a filesystem");
        let disk = SimDisk::new(&log);
        Rig::mount(log, disk, store, clock, seed + 1, tuning).expect("a new filesystem can be mounted")
    }

    /// Mounts what is on disk and in the store.
    pub fn mount(
        log: Arc<CallLog>,
        disk: SimDisk,
        store: SimStore,
        clock: Arc<SimClock>,
        seed: u64,
        tuning: &Tuning,
    ) -> Result<Rig, MountError> {
        let world = World {
            media: Arc::new(disk.clone()),
            cache_media: Arc::new(disk.clone()),
            store: Arc::new(store.clone()),
            clock: clock.clone(),
            random: Arc::new(SeededRandom::new(seed)),
            known: known(&store),
        };
        let mounted = mount(&world, tuning, &mut |_, _| {})?;
        let space = Box::new(|| DiskSpace { total: 1 << 40, free: 1 << 39, available: 1 << 39 });
        let write_bytes_max = crate::volume::write_bytes_max(&mounted.db);
        let fs = Arc::new(Fs::new(mounted.db.clone(), fs::Options { write_bytes_max, space }));
        let mut rig = Rig { log, disk, store, clock, world, mounted, fs };
        while rig.run(|fs, cx| fs.free_orphans(cx)).is_ok_and(|(freed, _)| freed > 0) {}
        Ok(rig)
    }

    /// Runs an operation to its end, as root, now; fetches what it waits for and steps the actors when it needs room.
    pub fn run<T>(&mut self, mut op: impl FnMut(&Fs, &mut Cx) -> Result<T, fs::Stop>) -> Result<T, fs::Error> {
        let mut cx = Cx { now: self.clock.now(), ..Cx::default() };
        let fs = self.fs.clone();
        for _ in 0..100_000 {
            match op(&fs, &mut cx) {
                Ok(value) => return Ok(value),
                Err(fs::Stop::Error(e)) => return Err(e),
                Err(fs::Stop::Wait(wait)) => self.wait(&wait, &mut cx)?,
            }
        }
        panic!("an operation waits for ever");
    }

    fn wait(&mut self, wait: &Wait, cx: &mut Cx) -> Result<(), fs::Error> {
        if *wait == Wait::Pressure {
            self.step();
            self.advance(Duration::from_millis(50));
            return Ok(());
        }
        resolve(wait, &self.mounted.db, &self.mounted.nodes, &mut cx.pins).map_err(|reason| {
            log::error!("{reason}");
            fs::Error::Io
        })
    }

    /// Moves time.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// One step of each actor; whether any of them did something.
    pub fn step(&mut self) -> bool {
        let journal = self.step_journal();
        let checkpointer = self.step_checkpointer();
        let shipper = self.step_shipper();
        let syncer = self.step_syncer();
        let keeper = self.step_keeper();
        let ahead = self.step_ahead();
        journal || checkpointer || shipper || syncer || keeper || ahead
    }

    /// Fetches ahead what reading made worth it, if there are cache files.
    pub fn step_ahead(&mut self) -> bool {
        self.mounted.db.locate().reader().is_some_and(|reader| reader.fetch_ahead(Duration::ZERO))
    }

    /// What was read through the cache files, if there are any.
    pub fn reader_stats(&self) -> Option<ReaderStats> {
        self.mounted.db.locate().reader().map(|reader| reader.stats())
    }

    /// One step of the keeper of cache files, if there are any.
    pub fn step_keeper(&mut self) -> bool {
        self.mounted.keeper.as_mut().is_some_and(|keeper| keeper.step() == cache::Progress::Worked)
    }

    /// One step of the journal's writer.
    pub fn step_journal(&mut self) -> bool {
        self.mounted.writer.step() == journal::Progress::Worked
    }

    /// One step of the owner of checkpoints and space.
    pub fn step_checkpointer(&mut self) -> bool {
        self.mounted.checkpointer.step() == Progress::Worked
    }

    /// One job of the shipper, if there is one.
    pub fn step_shipper(&mut self) -> bool {
        let Some(job) = self.mounted.desk.take_job() else { return false };
        let report = self.mounted.shipper.run(&job).unwrap_or_else(|e| {
            log::warn!("ship: {e}");
            e.into_report()
        });
        self.mounted.desk.report(report);
        true
    }

    /// One step of who publishes what fsyncs wait for.
    pub fn step_syncer(&mut self) -> bool {
        match self.mounted.syncer.step() {
            Ok(step) => step == Step::Worked,
            Err(e) => {
                log::warn!("sync: {e}");
                false
            }
        }
    }

    /// Bytes of all objects in the store.
    pub fn store_bytes(&self) -> u64 {
        let names = self.world.store.list("").unwrap_or_default();
        names.iter().filter_map(|name| self.world.store.size(name).ok()).sum()
    }

    /// Steps all actors until none has anything to do.
    ///
    /// # Panics
    /// When they never come to rest.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.step() {
                return;
            }
        }
        panic!("the actors never come to rest");
    }

    /// Makes everything durable, checkpointed, shipped and recorded.
    ///
    /// # Panics
    /// When that does not happen.
    pub fn drain(&mut self) {
        for _ in 0..100 {
            self.mounted.checkpointer.wanted().checkpoint();
            self.settle();
            if self.mounted.checkpointer.is_drained() {
                return;
            }
            self.advance(Duration::from_secs(1));
        }
        panic!("the filesystem cannot be drained");
    }

    /// Ends the mount cleanly and mounts again.
    ///
    /// # Panics
    /// When the journal cannot be closed.
    pub fn remount(mut self, seed: u64, tuning: &Tuning) -> Result<Rig, MountError> {
        self.mounted.writer.close().expect("the journal closes");
        let Rig { log, disk, store, clock, .. } = self;
        Rig::mount(log, disk, store, clock, seed, tuning)
    }
}

#[cfg(test)]
mod accounted;
#[cfg(test)]
mod copies;
#[cfg(test)]
mod far;
#[cfg(test)]
mod folds;
#[cfg(test)]
mod followers;
#[cfg(test)]
mod found;
#[cfg(test)]
mod gathered;
#[cfg(test)]
mod generations;
#[cfg(test)]
mod holds;
#[cfg(test)]
mod leases;
#[cfg(test)]
mod mounts;
#[cfg(test)]
mod tails;
#[cfg(test)]
mod tests;
