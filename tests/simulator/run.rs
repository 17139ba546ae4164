//! A history on its way: does one step after the other, and notes what is promised when. It leaves a recording of every call.

use crate::book::{Book, Line, Note, digest};
use crate::cached::Cached;
use crate::dice;
use crate::figures::Figures;
use crate::middle::Lost;
use crate::model::Model;
use crate::model::driver::Driver;
use crate::model::op::Op;
use crate::step::Step;
use crate::world::{Actor, Instance, Machine, cache_disk, new_model, new_store, next_time, tuning};
use skylog::base::clock::{Clock, SimClock};
use skylog::base::random::{Random, SeededRandom};
use skylog::format::ids::Lsn;
use skylog::journal::SyncPolicy;
use skylog::media::sim::{Call, CallLog, Nth, SimDisk};
use skylog::recovery::MountError;
use skylog::store::is_probe;
use skylog::store::sim::SimStore;
use std::sync::Arc;
use std::time::Duration;

/// Calls of one disk that are to be crashed.
pub struct Span {
    pub disk: SimDisk,
    /// The disk of cache files beside it.
    pub cached: Cached,
    /// Moments, both included.
    pub from: usize,
    pub to: usize,
}

/// A part of a history between two power cuts: one log.
pub struct Stage {
    pub store: SimStore,
    pub book: Arc<Book>,
    pub spans: Vec<Span>,
}

/// A history that was run.
pub struct Recorded {
    pub seed: u64,
    pub stages: Vec<Stage>,
    pub lines: Vec<Line>,
    /// A machine of the kind that was used; its clock shows the end.
    pub machine: Machine,
    pub figures: Figures,
}

impl Recorded {
    /// Whether a call to the store failed that may have arrived later.
    pub fn adrift(&self) -> bool {
        let logs = self.stages.iter().map(|stage| stage.store.log().calls());
        logs.flatten().any(|call| matches!(call, Call::Adrift(_)))
    }
}

/// A history on its way.
pub struct Runner {
    start: u64,
    pub log: Arc<CallLog>,
    pub machine: Machine,
    pub instance: Option<Instance>,
    /// A writer that lost the fence and may not know it yet; the newest batch it may hear of as published.
    pub rival: Option<(Instance, Lsn)>,
    pub lost: Lost,
    /// Something in the store was damaged once.
    pub is_harmed: bool,
    pub driver: Driver,
    pub book: Arc<Book>,
    /// An fsync waits for the store.
    pub stored: bool,
    /// Operations that stand still, with the paths that they have looked up.
    pub standing: Vec<(Op, Vec<String>)>,
    /// What has to be done after the last of these.
    pub deferred: Vec<Step>,
    lines: Vec<Line>,
    /// The newest batch after each operation of the newest line.
    lsns: Vec<Lsn>,
    pub stages: Vec<Stage>,
    spans: Vec<Span>,
    cached: Cached,
    span_from: usize,
    pub figures: Figures,
}

impl Runner {
    /// A new filesystem, mounted. Its sizes and its ids come from `random`, which `start` made.
    pub fn new(start: u64, random: &SeededRandom) -> Runner {
        let tuning = tuning(random);
        let (mkfs_log, log, clock) = (CallLog::new(), CallLog::new(), Arc::new(SimClock::default()));
        let made = new_store(&mkfs_log, &clock, random);
        let store = SimStore::from_image(&made.image(), &log);
        let machine = Machine { disk: SimDisk::new(&log), cache: cache_disk(), store, clock, tuning, tolerant: false };
        let book = Book::new(&log, Note::default());
        let cached = Cached::new(&machine.cache, &log);
        let mut line = Line::default();
        line.push(new_model());
        let mut runner = Runner {
            start,
            log,
            machine,
            instance: None,
            rival: None,
            lost: Lost::default(),
            is_harmed: false,
            driver: Driver::default(),
            book,
            stored: dice::waits_for_store(start),
            standing: Vec::new(),
            deferred: Vec::new(),
            lines: vec![line],
            lsns: vec![Lsn::ZERO],
            stages: Vec::new(),
            spans: Vec::new(),
            cached,
            span_from: 0,
            figures: Figures::default(),
        };
        runner.mount(random.u64());
        runner.figures.takeovers += 1;
        runner
    }

    /// Does one step.
    pub fn perform(&mut self, step: &Step) {
        match step {
            Step::Do(op) => self.do_op(op),
            Step::While { op, wait, steps } => self.do_while(op, *wait, steps),
            Step::Sync { wait } => self.sync(*wait),
            Step::Fsync { path } => self.fsync(path),
            Step::Checkpoint => self.instance().mounted.checkpointer.wanted().checkpoint(),
            Step::Policy(policy) => {
                self.instance().mounted.db.journal().set_policy(*policy);
                self.figures.switches += 1;
            }
            Step::Durability { store } => {
                self.stored = *store;
                self.instance().mounted.db.journal().tail().set_open(*store);
                self.figures.durabilities += 1;
            }
            Step::Act(actor) => self.step(*actor),
            Step::ActRival => self.step_rival(),
            Step::Sleep { ms } => self.machine.clock.advance(Duration::from_millis(*ms)),
            Step::Fail { nth, op, how } => self.machine.store.fail(Nth::new(*nth).of(*op), *how),
            Step::Down(down) => self.machine.store.set_down(*down),
            Step::Land => self.figures.late_puts += self.machine.store.land_adrift() as u64,
            Step::Heal => {
                self.machine.store.heal();
                self.machine.store.set_down(false);
            }
            Step::Drain => self.drain(),
            Step::Warm => self.warm(),
            Step::Evict => self.evict(),
            Step::Turn(turn) => self.turn(turn),
        }
    }

    pub fn line(&self) -> &Line {
        self.lines.last().expect("there is one from the start")
    }

    pub fn instance(&mut self) -> &mut Instance {
        self.instance.as_mut().expect("mounted")
    }

    /// Does a given operation.
    pub fn do_op(&mut self, op: &Op) {
        let mut model = Model::clone(self.line().last());
        let now = next_time(&model);
        let n = self.begin_op();
        let expected = model.apply(op);
        let instance = self.instance.as_mut().expect("mounted");
        let found = self.driver.apply(instance, now, op);
        assert_eq!(found, expected, "operation {n}: {op:?}");
        self.end_op(model);
    }

    /// Notes that an operation is begun, or goes on, and what number it gets if nothing comes before it.
    pub fn begin_op(&mut self) -> usize {
        let n = self.line().len() + 1;
        self.book.note(|note| note.started = n);
        n
    }

    /// Notes that one went through.
    pub fn end_op(&mut self, model: Model) {
        let instance = self.instance.as_ref().expect("mounted");
        let (journal, last) = (instance.mounted.db.journal().clone(), instance.mounted.db.last());
        self.lines.last_mut().expect("there is one from the start").push(model);
        self.lsns.push(last);
        self.figures.operations += 1;
        if journal.policy() == SyncPolicy::Always {
            self.promise(self.line().len(), false);
        }
        self.observe();
    }

    /// Asks for everything so far to be durable; noted when it is acknowledged. An fsync asks as the mount does for it.
    fn promise(&mut self, n: usize, fsync: bool) {
        let (book, line) = (self.book.clone(), self.book.last().line);
        let db = self.instance().mounted.db.clone();
        let acknowledged = move |result: Result<(), String>| {
            // A rival that lost the fence promises nothing to anyone of this line.
            if result.is_ok() && book.last().line == line {
                book.note(|note| note.synced = note.synced.max(n));
            }
        };
        match fsync {
            true => db.journal().when_synced(db.last(), Box::new(acknowledged)),
            false => db.journal().when_durable(db.last(), Box::new(acknowledged)),
        }
    }

    /// Asks for everything so far to be in the store, as an fsync with `--durability store` does.
    fn promise_stored(&mut self, n: usize) {
        let (book, line) = (self.book.clone(), self.book.last().line);
        let answered = move |result: Result<(), String>| {
            if result.is_ok() && book.last().line == line {
                book.note(|note| note.shipped = note.shipped.max(n));
            }
        };
        let instance = self.instance();
        let (lsn, stored) = (instance.mounted.db.last(), instance.mounted.syncer.stored());
        let local = move |synced: Result<(), String>| match synced {
            Ok(()) => stored.when_stored(lsn, Box::new(answered)),
            Err(reason) => answered(Err(reason)),
        };
        instance.mounted.db.journal().when_synced(lsn, Box::new(local));
        self.figures.stored_asked += 1;
    }

    /// A sync, as `fsync` asks for it; half of them are waited for.
    pub fn sync(&mut self, wait: bool) {
        let n = self.line().len();
        self.promise(n, true);
        if self.stored {
            self.promise_stored(n);
        }
        self.figures.syncs += 1;
        while wait && self.book.last().synced < n {
            self.instance().step(Actor::Writer);
        }
    }

    /// An fsync of one file or directory. It is opened for that: what is not there cannot be synced.
    fn fsync(&mut self, path: &str) {
        let path = path.strip_suffix('/').unwrap_or(path);
        let instance = self.instance.as_mut().expect("mounted");
        let there = self.driver.number(instance, path).is_ok();
        let whole = if path.is_empty() { "/" } else { path };
        assert_eq!(there, self.line().last().ids().contains_key(whole), "{path}");
        if there {
            self.sync(true);
        }
    }

    /// Notes what is durable and what is shipped.
    fn observe(&mut self) {
        self.cached.look();
        let instance = self.instance();
        let (durable, shipped) = (instance.mounted.db.journal().durable(), instance.shipped);
        let upto = |lsn: Lsn| self.lsns.partition_point(|at| *at <= lsn).saturating_sub(1);
        let (durable, shipped) = (upto(durable), upto(shipped));
        self.book.note(|note| {
            note.synced = note.synced.max(durable);
            note.shipped = note.shipped.max(shipped);
        });
    }

    /// What happened so far is not crashed.
    pub fn begin_here(&mut self) {
        self.span_from = self.log.len();
        self.cached = Cached::new(&self.machine.cache, &self.log);
    }

    /// One step of one actor.
    pub fn step(&mut self, actor: Actor) {
        let instance = self.instance();
        let used = instance.mounted.db.journal().stats().used_bytes;
        let copies = instance.mounted.nodes.has_too_many_copies();
        step_asking_first(instance, |instance| instance.step(actor));
        let copies_went = copies && !instance.mounted.nodes.has_too_many_copies();
        assert!(!instance.fenced, "the only writer was fenced");
        let reclaimed = instance.mounted.db.journal().stats().used_bytes < used;
        self.figures.reclaims += u64::from(reclaimed);
        self.figures.copies += u64::from(copies_went);
        self.observe();
    }

    fn step_rival(&mut self) {
        let Some((rival, shipped)) = &mut self.rival else { return };
        step_asking_first(rival, Instance::step_all);
        assert!(rival.shipped <= *shipped, "a writer that lost the fence published on");
    }

    /// Mounts, and goes on from what is found.
    pub fn mount(&mut self, seed: u64) {
        let mounted = match self.machine.mount(seed) {
            Err(MountError::NotLocal { .. }) if self.machine.store.is_down() => {
                self.machine.store.set_down(false);
                self.machine.mount(seed)
            }
            mounted => mounted,
        };
        let mut instance = mounted.unwrap_or_else(|e| panic!("the mount failed: {e}"));
        instance.mounted.db.journal().tail().set_open(self.stored);
        self.cached.look();
        let found = match self.machine.store.is_down() {
            // Reading everything would end the outage.
            true => self.found_online(),
            false => digest(&instance.tree()),
        };
        self.figures.offline += u64::from(instance.offline());
        let Note { line, synced, started, .. } = self.book.last();
        let n = self.lines[line].find(found, synced, started);
        let n = n.unwrap_or_else(|| panic!("mounted, and found no state between {synced} and {started}"));
        self.lines.push(self.lines[line].cut(n));
        let line = self.lines.len() - 1;
        self.lsns.truncate(n);
        self.lsns.push(instance.mounted.db.last());
        self.book.note(|note| *note = Note { line, synced: n, started: n, shipped: note.shipped.min(n), repair: None });
        self.instance = Some(instance);
        self.figures.mounts += 1;
    }

    /// What a mount finds that has the store.
    fn found_online(&self) -> u64 {
        let log = CallLog::new();
        let disk = SimDisk::from_image(&self.machine.disk.image(), &log);
        let store = SimStore::from_image(&self.machine.store.image(), &log);
        let cache = SimDisk::from_image(&self.machine.cache.image(), &CallLog::new());
        let machine = Machine { disk, cache, store, ..self.machine.clone() };
        let mut instance = machine.mount(1).expect("mounts with the store");
        digest(&instance.tree())
    }

    pub fn end_span(&mut self) {
        let to = self.log.len();
        let next = Cached::new(&self.machine.cache, &self.log);
        let cached = std::mem::replace(&mut self.cached, next);
        self.spans.push(Span { disk: self.machine.disk.clone(), cached, from: self.span_from, to });
        self.span_from = to;
    }

    pub fn end_stage(&mut self) {
        self.end_span();
        let spans = std::mem::take(&mut self.spans);
        self.figures.faults += self.machine.store.failed();
        self.stages.push(Stage { store: self.machine.store.clone(), book: self.book.clone(), spans });
    }

    /// Everything is checkpointed, shipped and reclaimed.
    pub fn drain(&mut self) {
        self.machine.store.heal();
        self.machine.store.set_down(false);
        let mut instance = self.instance.take().expect("mounted");
        let (book, lsns, cached) = (self.book.clone(), &self.lsns, &mut self.cached);
        let mut used = instance.mounted.db.journal().stats().used_bytes;
        let mut copies = instance.mounted.nodes.has_too_many_copies();
        let (mut reclaims, mut copies_went) = (0, 0);
        instance.drain(&mut |instance| {
            cached.look();
            let journal = instance.mounted.db.journal();
            let upto = |lsn: Lsn| lsns.partition_point(|at| *at <= lsn).saturating_sub(1);
            let (durable, shipped) = (upto(journal.durable()), upto(instance.shipped));
            book.note(|note| {
                note.synced = note.synced.max(durable);
                note.shipped = note.shipped.max(shipped);
            });
            reclaims += u64::from(journal.stats().used_bytes < used);
            used = journal.stats().used_bytes;
            let too_many = instance.mounted.nodes.has_too_many_copies();
            copies_went += u64::from(copies && !too_many);
            copies = too_many;
        });
        self.figures.reclaims += reclaims;
        self.figures.copies += copies_went;
        self.instance = Some(instance);
    }

    /// Whether there were two mounts, a checkpoint, a ship, a reclaim and a recycled segment.
    pub fn is_whole(&self) -> bool {
        let mut figures = self.figures.clone();
        figures.add(self.instance.as_ref().expect("mounted"));
        let Figures { mounts, checkpoints, windows, reclaims, recycled, .. } = figures;
        mounts > 1 && [checkpoints, windows, reclaims, recycled].iter().all(|count| *count > 0)
    }

    /// Ends the history as it is.
    pub fn end(mut self) -> Recorded {
        self.check_fence();
        let instance = self.instance.take().expect("mounted");
        self.figures.add(&instance);
        self.figures.histories += 1;
        drop(instance);
        self.end_stage();
        let Runner { start: seed, stages, lines, machine, figures, .. } = self;
        assert!(machine.clock.elapsed() < Duration::from_secs(100_000), "simulated time is short");
        Recorded { seed, stages, lines, machine, figures }
    }
}

/// Steps a mount. One that began without the store asks who the writer is before it changes anything there, or gives up
/// any of its journal.
fn step_asking_first(instance: &mut Instance, step: impl FnOnce(&mut Instance) -> bool) {
    let state = |instance: &Instance| {
        let journal = instance.mounted.db.journal().stats().used_bytes;
        instance.offline().then(|| (objects(&instance.machine.store), journal))
    };
    let before = state(instance);
    step(instance);
    if let (Some((names, journal)), Some((names_now, journal_now))) = (before, state(instance)) {
        assert_eq!(names, names_now, "the store was changed and not asked");
        assert!(journal_now >= journal, "what may be the only copy was reclaimed");
    }
}

/// All names in a store, but for probes.
fn objects(store: &SimStore) -> Vec<String> {
    store.image().names().filter(|name| !is_probe(name)).map(str::to_owned).collect()
}
