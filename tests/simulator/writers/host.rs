//! One machine: a thread that does what it is told, a command at a time, and may be stopped in the middle of each.

use super::stage::Stage;
use super::truth::{Held, LifeNo};
use super::turns::DIRECTOR;
use super::wire::Wire;
use crate::crash::quietly;
use crate::model::driver::{Driver, Mount};
use crate::model::generate::{Generator, Sizes};
use crate::model::op::{Call, Op, Outcome, Who};
use crate::model::{Model, time_of};
use parking_lot::Mutex;
use skylog::base::clock::Time;
use skylog::base::random::SeededRandom;
use skylog::checkpoint::jobs::Job;
use skylog::format::ids::InodeNo;
use skylog::fs::{self, Cx, DiskSpace, Fs, Options};
use skylog::map::Wait;
use skylog::media::sim::SimDisk;
use skylog::recovery::{MountError, Mounted, World, mount};
use skylog::ship::{ShipError, syncer};
use skylog::volume::resolve;
use std::sync::Arc;

/// What one write may have, as the volume decides for segments of this size.
const WRITE_BYTES_MAX: usize = 8 << 10;
/// Rounds after which an operation gives up, or a drain is stuck.
const ROUNDS_MAX: u32 = 3000;
/// Tries of something that the store did not give.
const TRIES: u32 = 3;

/// What a machine is told to do.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    Mount,
    Op,
    Writer,
    Checkpointer,
    Shipper,
    Syncer,
    /// So many steps of each of them.
    Go(usize),
    /// Asks for a checkpoint.
    Want,
    Fsync,
    /// Another durability.
    Switch,
    /// Everything is shipped and reclaimed, unless another has taken over.
    Drain,
    /// Ends the mount cleanly.
    Close,
    /// Forgets the mount, which is dead.
    Drop,
    /// Ends the thread.
    End,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    Fine,
    /// The mount was refused: taken over from, or an old copy.
    Refused,
    /// The mount failed, and may be tried again.
    Failed,
    /// Nobody knows whether the operation happened: the process is to end.
    Trouble,
    /// The journal ended cleanly.
    Closed,
}

/// Between the director and a machine.
pub struct Slot {
    pub command: Option<Command>,
    pub outcome: Option<Result<Done, String>>,
    pub disk: SimDisk,
    pub held: Option<Held>,
    pub life: Option<LifeNo>,
    pub wire: Option<Arc<Wire>>,
    /// It knows that another has taken over.
    pub fenced: bool,
}

/// A mounted filesystem.
struct Instance {
    stage: Arc<Stage>,
    wire: Arc<Wire>,
    life: LifeNo,
    mounted: Mounted,
    fs: Arc<Fs>,
    job: Option<Job>,
    fenced: bool,
}

/// A machine.
pub struct Host {
    stage: Arc<Stage>,
    me: usize,
    slot: Arc<Mutex<Slot>>,
    instance: Option<Instance>,
    driver: Driver,
}

impl Host {
    pub fn new(stage: &Arc<Stage>, me: usize, slot: &Arc<Mutex<Slot>>) -> Host {
        Host { stage: stage.clone(), me, slot: slot.clone(), instance: None, driver: Driver::default() }
    }

    /// The machine's thread.
    pub fn live(mut self) {
        self.stage.turns.wait(self.me);
        loop {
            let command = self.slot.lock().command.take().expect("it is told something");
            if matches!(command, Command::End) {
                self.instance = None;
                return self.stage.turns.leave(DIRECTOR);
            }
            let outcome = quietly(|| self.obey(command));
            self.slot.lock().outcome = Some(outcome);
            self.stage.turns.hand(self.me, DIRECTOR);
        }
    }

    fn obey(&mut self, command: Command) -> Done {
        match command {
            Command::Mount => return self.mount(),
            Command::Drop => {
                self.instance = None;
                return Done::Fine;
            }
            Command::Close => return self.close(),
            Command::Op => return self.op(),
            _ => {}
        }
        let instance = self.instance.as_mut().expect("mounted");
        match command {
            Command::Writer => drop(instance.mounted.writer.step()),
            Command::Checkpointer => drop(instance.mounted.checkpointer.step()),
            Command::Shipper => drop(instance.ship()),
            Command::Syncer => drop(instance.sync()),
            Command::Go(times) => instance.go(times),
            Command::Switch => {
                let tail = instance.mounted.db.journal().tail();
                tail.set_open(!tail.is_open());
            }
            Command::Want => instance.mounted.checkpointer.wanted().checkpoint(),
            Command::Fsync => instance.fsync(),
            Command::Drain => instance.drain(),
            _ => unreachable!("done above"),
        }
        let fenced = instance.note();
        self.slot.lock().fenced = fenced;
        Done::Fine
    }

    fn mount(&mut self) -> Done {
        self.instance = None;
        self.driver = Driver::default();
        let stage = self.stage.clone();
        let (disk, held) = {
            let slot = self.slot.lock();
            let local = slot.disk.image().file("MANIFEST").is_some();
            assert!(!local || slot.held.is_some(), "a manifest that nobody wrote");
            (slot.disk.clone(), slot.held.clone().filter(|_| local))
        };
        let life = stage.truth.lock().begin(held.as_ref());
        stage.tell(|| format!("  machine {} begins life {life} on {held:?}", self.me));
        let wire = Wire::new(&stage, self.me, life);
        {
            let mut slot = self.slot.lock();
            slot.life = Some(life);
            slot.wire = Some(wire.clone());
            slot.fenced = false;
        }
        let deletes = stage.truth.lock().deletes;
        let closings = stage.truth.lock().closings;
        let world = World {
            media: Arc::new(disk.clone()),
            cache_media: Arc::new(disk),
            store: wire.clone(),
            clock: stage.clock.clone(),
            random: Arc::new(SeededRandom::new(stage.seed())),
            known: skylog::rig::known(&stage.store),
        };
        let mounted = match mount(&world, &stage.tuning, &mut |_, _| {}) {
            Ok(mounted) => mounted,
            Err(e) => {
                let truth = stage.truth.lock();
                let moved = truth.deletes > deletes || truth.closings > closings;
                let superseded = truth.is_superseded(life);
                let old = truth.life(life).old;
                drop(truth);
                return self.refused(&e, superseded, old, moved || wire.failed() > 0 || wire.is_dead());
            }
        };
        let space = Box::new(|| DiskSpace { total: 1 << 40, free: 1 << 39, available: 1 << 39 });
        let fs = Arc::new(Fs::new(mounted.db.clone(), Options { write_bytes_max: WRITE_BYTES_MAX, space }));
        let mut instance =
            Instance { stage: stage.clone(), wire: wire.clone(), life, mounted, fs, job: None, fenced: false };
        if wire.is_dead() {
            return Done::Failed;
        }
        wire.set_calm(true);
        let down = wire.is_down();
        wire.set_down(false);
        let found = Driver::default().tree(&mut instance);
        wire.set_down(down);
        wire.set_calm(false);
        let mut truth = stage.truth.lock();
        let found = match found {
            Ok(tree) => crate::book::digest(&tree),
            Err(errno) => {
                assert!(truth.is_superseded(life), "mounted, and cannot be read: errno {errno}");
                return Done::Refused;
            }
        };
        truth.mounted(life, held.as_ref(), found, instance.mounted.db.last());
        drop(truth);
        stage.count(|figures| match held {
            Some(_) => figures.restarts += 1,
            None => figures.takeovers += 1,
        });
        let root = Who { uid: 0, gid: 0 };
        let free = |fs: &Fs, cx: &Cx| fs.free_orphans(cx);
        while instance.run(root, Time::default(), free).is_ok_and(|(freed, _)| freed > 0) {}
        instance.mounted.db.journal().tail().set_open(!stage.one_in(4));
        self.instance = Some(instance);
        Done::Fine
    }

    /// A mount failed; there must be a reason.
    fn refused(&self, e: &MountError, superseded: bool, old: bool, trouble: bool) -> Done {
        match e {
            MountError::Fenced(_) => {
                assert!(superseded, "refused as taken over from, and nobody has: {e}");
                self.stage.count(|figures| figures.refused_fenced += 1);
                Done::Refused
            }
            MountError::OldState { .. } => {
                assert!(old, "refused as an old copy, and is none: {e}");
                self.stage.count(|figures| figures.refused_old += 1);
                Done::Refused
            }
            e => {
                assert!(trouble, "a mount failed without any trouble: {e}");
                self.stage.count(|figures| figures.interrupted += 1);
                Done::Failed
            }
        }
    }

    fn op(&mut self) -> Done {
        let stage = self.stage.clone();
        let instance = self.instance.as_mut().expect("mounted");
        let life = instance.life;
        let mut model = stage.truth.lock().start(life);
        let op = Generator::over(&stage.random, model.clone(), Sizes::SMALL).op();
        let now = time_of(model.step() + 1);
        let expected = model.apply(&op);
        stage.truth.lock().expect(life, model.clone());
        let (before, failed) = (instance.mounted.db.last(), instance.wire.failed());
        let found = self.driver.apply(instance, now, &op);
        let last = instance.mounted.db.last();
        stage.tell(|| format!("  life {life}: {op:?} at {before}, {last}: {found:?}"));
        let troubled = matches!(found, Err(libc::EIO | libc::EROFS | libc::EAGAIN)) && found != expected;
        if instance.wire.is_dead() {
            return Done::Trouble;
        }
        if !troubled {
            assert_eq!(found, expected, "{op:?}");
            let born = self.born(&op, &expected, &model);
            stage.truth.lock().done(life, last, last != before, born);
            stage.count(|figures| figures.operations += 1);
            return Done::Fine;
        }
        let latched = instance.mounted.db.journal().stats().latched.is_some();
        let reason = latched || instance.wire.failed() > failed || stage.truth.lock().is_superseded(life);
        assert!(reason || found == Err(libc::EAGAIN), "{op:?}: {found:?}, and there was no trouble");
        let simple = !matches!(op.call, Call::Close { .. } | Call::Forget | Call::Open { .. });
        if last == before && simple {
            stage.truth.lock().refused(life);
            return Done::Fine;
        }
        Done::Trouble
    }

    /// What an operation made, and which number that got.
    fn born(&mut self, op: &Op, outcome: &Result<Outcome, i32>, model: &Model) -> Option<(u64, InodeNo)> {
        outcome.as_ref().ok()?;
        let path = match &op.call {
            Call::Create { path, .. } | Call::Mkdir { path, .. } | Call::Mknod { path, .. } => path,
            Call::Symlink { path, .. } => path,
            Call::Rename { from, flags, .. } if flags & libc::RENAME_WHITEOUT != 0 => from,
            _ => return None,
        };
        let id = *model.ids().get(path)?;
        let instance = self.instance.as_mut()?;
        let number = Driver::default().number(instance, path).ok()?;
        (id >= model.step() * 8).then_some((id, number))
    }

    fn close(&mut self) -> Done {
        let mut instance = self.instance.take().expect("mounted");
        match instance.mounted.writer.close() {
            Ok(()) => Done::Closed,
            Err(_) => Done::Trouble,
        }
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
                self.mounted.desk.report(report);
                self.job = None;
            }
            Err(e) if e.ends_writing() => self.ends(&e),
            Err(e) if self.stage.one_in(2) => {
                self.mounted.desk.report(e.into_report());
                self.job = None;
            }
            Err(_) => {}
        }
        true
    }

    /// One step of who publishes what fsyncs wait for.
    fn sync(&mut self) -> bool {
        if self.fenced {
            return false;
        }
        match self.mounted.syncer.step() {
            Ok(step) => step == syncer::Step::Worked,
            Err(e) if e.ends_writing() => {
                self.ends(&e);
                true
            }
            Err(_) => true,
        }
    }

    fn ends(&mut self, e: &ShipError) {
        if !self.wire.is_dead() {
            let truth = self.stage.truth.lock();
            let right = match e {
                ShipError::Fenced { .. } => truth.is_superseded(self.life),
                ShipError::OldState { .. } => truth.life(self.life).old,
                _ => false,
            };
            assert!(right, "life {} ends: {e}", self.life);
            drop(truth);
            self.stage.count(|figures| figures.fenced += 1);
        }
        self.mounted.db.journal().latch(e.to_string());
        self.mounted.syncer.stored().end(&e.to_string());
        self.fenced = true;
    }

    /// An fsync, which the store is to answer: with log increments, or else when its window is recorded as shipped.
    fn fsync(&mut self) {
        let (db, life, wire, stage) = (&self.mounted.db, self.life, self.wire.clone(), self.stage.clone());
        let (journal, lsn) = (db.journal().clone(), db.last());
        stage.count(|figures| figures.asked += 1);
        if !journal.tail().is_open() {
            stage.truth.lock().ask(life, lsn);
            self.mounted.checkpointer.wanted().checkpoint();
            return journal.when_synced(lsn, Box::new(|_| {}));
        }
        let n = stage.truth.lock().line(life).len();
        let answered = move |result: Result<(), String>| {
            if result.is_ok() && !wire.is_dead() {
                stage.truth.lock().acknowledge(life, n);
                stage.count(|figures| {
                    figures.acknowledged += 1;
                    figures.stored += 1;
                });
            }
        };
        let stored = self.mounted.syncer.stored();
        let local = move |synced: Result<(), String>| match synced {
            Ok(()) => stored.when_stored(lsn, Box::new(answered)),
            Err(reason) => answered(Err(reason)),
        };
        journal.when_synced(lsn, Box::new(local));
    }

    /// Notes what is durable and answers fsyncs; whether it knows that it is fenced.
    fn note(&mut self) -> bool {
        if self.wire.is_dead() {
            return self.fenced;
        }
        let mut truth = self.stage.truth.lock();
        truth.durable(self.life, self.mounted.db.journal().durable());
        let shipped = self.mounted.checkpointer.figures().lock().shipped;
        let answered = truth.answer(self.life, shipped);
        drop(truth);
        self.stage.count(|figures| figures.acknowledged += answered);
        self.fenced
    }

    fn go(&mut self, times: usize) {
        for _ in 0..times {
            self.mounted.writer.step();
            self.mounted.checkpointer.step();
            self.sync();
            self.ship();
            self.note();
        }
    }

    fn drain(&mut self) {
        let mut idle = 0;
        for _ in 0..ROUNDS_MAX {
            if self.fenced {
                return;
            }
            if self.mounted.db.files_changed() {
                self.mounted.checkpointer.wanted().checkpoint();
            }
            let journal = self.mounted.writer.step() == skylog::journal::Progress::Worked;
            let checkpointer = self.mounted.checkpointer.step() == skylog::checkpoint::Progress::Worked;
            let syncer = self.sync();
            let shipper = self.ship();
            self.note();
            if journal || checkpointer || syncer || shipper {
                idle = 0;
                continue;
            }
            self.stage.clock.advance(std::time::Duration::from_millis(400));
            idle = if self.mounted.checkpointer.is_drained() { idle + 1 } else { 0 };
            if idle > 4 {
                return;
            }
        }
        let error = self.mounted.checkpointer.figures().lock().clone();
        panic!("it cannot be drained: {error:?}, {:?}", self.mounted.db.journal().stats());
    }
}

impl Mount for Instance {
    fn run<T>(&mut self, who: Who, now: Time, mut op: impl FnMut(&Fs, &Cx) -> Result<T, fs::Stop>) -> Result<T, i32> {
        let mut cx = Cx { uid: who.uid, gid: who.gid, now, caller: who.caller(), ..Cx::default() };
        let fs = self.fs.clone();
        let mut failures = 0;
        for _ in 0..ROUNDS_MAX {
            let wait = match op(&fs, &cx) {
                Ok(value) => return Ok(value),
                Err(fs::Stop::Error(error)) => return Err(error.errno()),
                // Nobody makes room meanwhile: the operation is given up.
                Err(fs::Stop::Wait(Wait::Pressure)) => return Err(libc::EAGAIN),
                Err(fs::Stop::Wait(wait)) => wait,
            };
            if resolve(&wait, &self.mounted.db, &self.mounted.nodes, &mut cx.pins).is_err() {
                failures += 1;
                if failures > TRIES || self.wire.is_dead() {
                    return Err(libc::EIO);
                }
            }
        }
        panic!("an operation waits for ever");
    }
}
