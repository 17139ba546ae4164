//! One machine of the simulated world: the product's own mount over a simulated disk and store, every actor stepped by hand.

use crate::model::driver::{Driver, Mount};
use crate::model::op::Who;
use crate::model::{Model, Tree, time_of};
use serde::{Deserialize, Serialize};
use skylog::base::clock::{Clock, SimClock, Time};
use skylog::base::random::SeededRandom;
use skylog::cache;
use skylog::checkpoint::jobs::{Job, Report};
use skylog::checkpoint::{self, Policy, Replay};
use skylog::format::ids::Lsn;
use skylog::format::lease::Owner;
use skylog::fs::{self, Cx, DiskSpace, Fs, Options};
use skylog::journal;
use skylog::locate::CacheBytes;
use skylog::map::{Limits, Shape, Wait};
use skylog::media::sim::{CallLog, Image, SimDisk};
use skylog::recovery::{Holding, MkfsOptions, MountError, Mounted, Tuning, World, mkfs, mount};
use skylog::ship::ShipError;
use skylog::ship::syncer::Step;
use skylog::store::sim::SimStore;
use skylog::volume::resolve;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a journal segment: the smallest there is.
const SEGMENT_BYTES: u32 = 64 << 10;
/// What one write may have, as the volume decides for segments of this size.
const WRITE_BYTES_MAX: usize = 8 << 10;
/// Rounds after which an operation that waits for room, or a drain, is stuck.
const ROUNDS_MAX: u32 = 3000;

/// Sizes that make much happen in little space; some of them differ from history to history.
pub fn tuning(random: &SeededRandom) -> Tuning {
    let pick = |of: &[u64]| of[usize::try_from(random.below(of.len() as u64)).expect("few")];
    let tuning = Tuning {
        journal: journal::Config {
            segment_bytes: SEGMENT_BYTES,
            journal_bytes: pick(&[4, 6, 10]) * u64::from(SEGMENT_BYTES),
            queue_bytes_max: pick(&[16, 64]) << 10,
            reserve_bytes: pick(&[64, 128]) << 10,
        },
        limits: Limits { overlay_bytes_max: pick(&[16, 64]) << 10, inode_step: pick(&[1, 8]) },
        node_cache_bytes: pick(&[0, 4 << 10, 1 << 20]),
        cache: CacheBytes { data: pick(&[0, 16 << 10, 1 << 20]), indexes: pick(&[0, 1 << 20]) },
        cache_files: None,
        fold_bytes: 0,
        fetches: 1,
        policy: Policy {
            age_max: Duration::from_secs(pick(&[2, 20])),
            grace: Duration::from_millis(pick(&[0, 500])),
            replay: Replay::after(pick(&[2, 3, 100]), pick(&[2 << 10, 1 << 20])),
            segment_bytes: usize::try_from(pick(&[4, 16])).expect("small") << 10,
            uploads: 1,
            shape: Shape { node_bytes: 512 },
        },
        owner: Owner::of_test("simulator"),
        holding: Holding::Untold,
    };
    Tuning { cache_files: cache_files(tuning.cache.data), fold_bytes: fold_bytes(tuning.limits), ..tuning }
}

/// In half of the histories a takeover makes trees of every few changes. Drawn with the limit of the overlays, not apart, as cache
/// files are with the memory.
fn fold_bytes(limits: Limits) -> u64 {
    match limits.overlay_bytes_max {
        16_384 => 512,
        most => most,
    }
}

/// How much of a disk cache files may take, if there are any: room for three, or for ten. Drawn with the memory for
/// data, not apart: then a seed still means the history that it always meant.
fn cache_files(memory: u64) -> Option<cache::Limits> {
    let bytes_max = match memory {
        0 => 12 << 10,
        1_048_576 => 40 << 10,
        _ => return None,
    };
    Some(cache::Limits { bytes_max, free_bytes_min: 0 })
}

/// An empty disk for cache files. Its calls are in a log of their own, see [`crate::cached`].
pub fn cache_disk() -> SimDisk {
    SimDisk::new(&CallLog::new())
}

/// A store with a new, empty filesystem in it.
pub fn new_store(log: &Arc<CallLog>, clock: &SimClock, random: &SeededRandom) -> SimStore {
    let store = SimStore::new(log);
    let options = MkfsOptions { segment_size: SEGMENT_BYTES, ..MkfsOptions::default() };
    mkfs(&store, clock, random, options).expect("an empty store takes a filesystem");
    store
}

/// The model of a filesystem made at the beginning of simulated time.
pub fn new_model() -> Model {
    Model::new(SimClock::default().now().as_nanos())
}

/// What a machine has.
#[derive(Clone)]
pub struct Machine {
    pub disk: SimDisk,
    /// The disk of cache files.
    pub cache: SimDisk,
    pub store: SimStore,
    pub clock: Arc<SimClock>,
    pub tuning: Tuning,
    /// Operations and shipping may fail: their calls are made to.
    pub tolerant: bool,
}

/// Something that can be stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Actor {
    Writer,
    Checkpointer,
    Shipper,
    /// Who publishes what fsyncs wait for.
    Syncer,
    /// Who writes and removes cache files, and who fetches ahead.
    Keeper,
}

/// All of them, in the order in which they work best.
const ACTORS: [Actor; 5] = [Actor::Writer, Actor::Checkpointer, Actor::Shipper, Actor::Syncer, Actor::Keeper];

/// A mounted filesystem.
pub struct Instance {
    pub machine: Machine,
    pub mounted: Mounted,
    pub fs: Arc<Fs>,
    /// A job the shipper has not done yet.
    job: Option<Job>,
    /// Another writer has taken over.
    pub fenced: bool,
    /// What is published and acknowledged in this mount, and how much of it.
    pub shipped: Lsn,
    pub bases: u64,
}

impl Machine {
    /// The same with other cache files.
    pub fn with_cache(self, image: &Image) -> Machine {
        Machine { cache: SimDisk::from_image(image, &CallLog::new()), ..self }
    }

    /// Mounts, and frees what a dead writer left open.
    pub fn mount(&self, seed: u64) -> Result<Instance, MountError> {
        let world = World {
            media: Arc::new(self.disk.clone()),
            cache_media: Arc::new(self.cache.clone()),
            store: Arc::new(self.store.clone()),
            clock: self.clock.clone(),
            random: Arc::new(SeededRandom::new(seed)),
            known: skylog::rig::known(&self.store),
        };
        let mounted = mount(&world, &self.tuning, &mut |_, _| {})?;
        let space = Box::new(|| DiskSpace { total: 1 << 40, free: 1 << 39, available: 1 << 39 });
        let options = Options { write_bytes_max: WRITE_BYTES_MAX, space };
        let fs = Arc::new(Fs::new(mounted.db.clone(), options));
        let shipped = Lsn::ZERO;
        let machine = self.clone();
        let mut instance = Instance { machine, mounted, fs, job: None, fenced: false, shipped, bases: 0 };
        let root = Who { uid: 0, gid: 0 };
        let free = |fs: &Fs, cx: &Cx| fs.free_orphans(cx);
        while instance.run(root, Time::default(), free).is_ok_and(|(freed, _)| freed > 0) {}
        Ok(instance)
    }
}

impl Drop for Instance {
    /// Nobody waits for a process that is gone. Those who did hold what they waited for.
    fn drop(&mut self) {
        self.mounted.db.journal().latch("the process is gone".to_owned());
        self.mounted.syncer.stored().end("the process is gone");
    }
}

impl Instance {
    /// One step of one actor; whether it did something.
    pub fn step(&mut self, actor: Actor) -> bool {
        match actor {
            Actor::Writer => self.mounted.writer.step() == journal::Progress::Worked,
            Actor::Checkpointer => self.mounted.checkpointer.step() == checkpoint::Progress::Worked,
            Actor::Shipper => self.ship(),
            Actor::Syncer => self.sync(),
            Actor::Keeper => {
                let kept = self.mounted.keeper.as_mut().is_some_and(|keeper| keeper.step() == cache::Progress::Worked);
                let reader = self.mounted.db.locate().reader();
                reader.is_some_and(|reader| reader.fetch_ahead(Duration::ZERO)) || kept
            }
        }
    }

    /// One try of the shipper's job, if it has one.
    fn ship(&mut self) -> bool {
        if self.fenced {
            return false;
        }
        if self.job.is_none() {
            self.job = self.mounted.desk.take_job();
        }
        let Some(job) = &self.job else { return false };
        match self.mounted.shipper.run(job) {
            Ok(report) => {
                self.note(&report);
                self.mounted.desk.report(report);
                self.job = None;
            }
            Err(e) if e.ends_writing() => self.end_writing(&e),
            Err(ShipError::Store(_) | ShipError::Locate(_) | ShipError::Probe(_)) => {}
            Err(e) => assert!(self.machine.tolerant, "shipping failed: {e}"),
        }
        true
    }

    /// One step of who publishes what fsyncs wait for.
    fn sync(&mut self) -> bool {
        if self.fenced {
            return false;
        }
        match self.mounted.syncer.step() {
            Ok(step) => return step == Step::Worked,
            Err(e) if e.ends_writing() => self.end_writing(&e),
            Err(ShipError::Store(_)) => {}
            Err(e) => assert!(self.machine.tolerant, "a log increment failed: {e}"),
        }
        true
    }

    fn end_writing(&mut self, e: &ShipError) {
        self.mounted.db.journal().latch(e.to_string());
        self.mounted.syncer.stored().end(&e.to_string());
        self.fenced = true;
    }

    fn note(&mut self, report: &Report) {
        if let Report::Shipped(shipped) = report {
            self.shipped = shipped.windows.iter().map(|window| window.end).fold(self.shipped, Lsn::max);
            self.bases += u64::from(shipped.base.is_some());
        }
    }

    /// One step of each actor; whether any did something.
    pub fn step_all(&mut self) -> bool {
        let worked = ACTORS.map(|actor| self.step(actor));
        worked.contains(&true)
    }

    /// So many steps of each.
    pub fn step_times(&mut self, times: u32) {
        for _ in 0..times {
            self.step_all();
        }
    }

    /// Makes everything durable, checkpointed, shipped, recorded and reclaimed, and calls `stepped` on the way.
    pub fn drain(&mut self, stepped: &mut dyn FnMut(&Instance)) {
        let mut idle = 0;
        for _ in 0..ROUNDS_MAX {
            if self.mounted.db.files_changed() {
                self.mounted.checkpointer.wanted().checkpoint();
            }
            let worked = self.step_all();
            stepped(self);
            if worked {
                idle = 0;
                continue;
            }
            self.machine.clock.advance(Duration::from_millis(400));
            idle = if self.mounted.checkpointer.is_drained() { idle + 1 } else { 0 };
            if idle > 4 {
                return;
            }
        }
        let figures = self.mounted.checkpointer.figures();
        let error = figures.lock().last_error.clone();
        panic!("the filesystem cannot be drained: {error:?}, {:?}", self.mounted.db.journal().stats());
    }

    /// Whether the store has not answered since the mount.
    pub fn offline(&self) -> bool {
        self.mounted.checkpointer.figures().lock().offline
    }

    /// Everything there is.
    pub fn tree(&mut self) -> Tree {
        Driver::default().tree(self).expect("the tree can be read")
    }

    /// Ends the mount cleanly.
    pub fn close(mut self) {
        self.mounted.writer.close().expect("the journal closes");
    }
}

/// An operation that waits, and what it has waited for so far.
#[derive(Default)]
pub struct Waiting {
    pub cx: Cx,
    rounds: u32,
    failed: Option<Wait>,
    healed: bool,
}

impl Waiting {
    pub fn new(who: Who, now: Time) -> Waiting {
        let cx = Cx { uid: who.uid, gid: who.gid, now, caller: who.caller(), ..Cx::default() };
        Waiting { cx, ..Waiting::default() }
    }
}

impl Instance {
    /// One try of an operation; what it waits for, if it does.
    pub fn attempt<T>(
        &self,
        waiting: &Waiting,
        op: &mut impl FnMut(&Fs, &Cx) -> Result<T, fs::Stop>,
    ) -> Result<Result<T, i32>, Wait> {
        match op(&self.fs, &waiting.cx) {
            Ok(value) => Ok(Ok(value)),
            Err(fs::Stop::Error(error)) if self.machine.tolerant => Ok(Err(error.errno())),
            Err(fs::Stop::Error(error)) => Ok(Err(errno(&error))),
            Err(fs::Stop::Wait(wait)) => Err(wait),
        }
    }

    /// Brings what an operation waits for; the errno with which it is given up.
    pub fn bring(&mut self, waiting: &mut Waiting, wait: Wait) -> Result<(), i32> {
        waiting.rounds += 1;
        if waiting.rounds == ROUNDS_MAX {
            if self.machine.tolerant {
                return Err(libc::ENOSPC);
            }
            let stats = self.mounted.db.journal().stats();
            panic!("an operation waits for ever: {stats:?}, drained {}", self.mounted.checkpointer.is_drained());
        }
        if wait == Wait::Pressure {
            if waiting.rounds == ROUNDS_MAX / 4 {
                // Room comes from the store: an outage must end some time.
                self.machine.store.set_down(false);
            }
            self.step_all();
            self.machine.clock.advance(Duration::from_millis(50));
            return Ok(());
        }
        match resolve(&wait, &self.mounted.db, &self.mounted.nodes, &mut waiting.cx.pins) {
            Ok(()) => waiting.failed = None,
            Err(_) if self.machine.tolerant => {
                if waiting.failed.replace(wait.clone()) == Some(wait) {
                    return Err(libc::EIO);
                }
            }
            Err(_) if !waiting.healed => {
                // An outage may fail reads; nothing else may.
                waiting.healed = true;
                self.machine.store.heal();
                self.machine.store.set_down(false);
            }
            Err(reason) if waiting.failed.as_ref() == Some(&wait) => panic!("{wait:?} cannot be had: {reason}"),
            Err(_) => waiting.failed = Some(wait),
        }
        Ok(())
    }
}

impl Mount for Instance {
    fn run<T>(&mut self, who: Who, now: Time, mut op: impl FnMut(&Fs, &Cx) -> Result<T, fs::Stop>) -> Result<T, i32> {
        let mut waiting = Waiting::new(who, now);
        loop {
            match self.attempt(&waiting, &mut op) {
                Ok(result) => return result,
                Err(wait) => self.bring(&mut waiting, wait)?,
            }
        }
    }
}

/// The errno of an expected error. Damage and read-only are never expected.
fn errno(error: &fs::Error) -> i32 {
    match error.errno() {
        libc::EIO | libc::EROFS => panic!("an operation failed: {error}"),
        errno => errno,
    }
}

/// The time of the next operation on a model.
pub fn next_time(model: &Model) -> i64 {
    time_of(model.step() + 1)
}
