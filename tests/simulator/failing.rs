//! Every call fails once: the first, the second, … of a short history, in each way in which a disk or a store can fail, once
//! or for ever. Whatever the user was told, what was promised before is there when disk and store are well again: on the same disk, on
//! what a power cut leaves of it, and from the store alone.
//!
//! An ordinary run takes every so many-th call; `SKYLOG_SIM_CALLS=1` takes each. Other paths than a history's are in [`crate::paths`].

use crate::book::{Line, digest};
use crate::counts::Counts;
use crate::crash::quietly;
use crate::model::Model;
use crate::model::driver::Driver;
use crate::model::generate::{Generator, Sizes};
use crate::model::op::{Call, Op, ROOT};
use crate::world::{Actor, Instance, Machine, cache_disk, new_model, new_store, next_time, tuning};
use skylog::base::clock::SimClock;
use skylog::base::random::SeededRandom;
use skylog::cache::Limits;
use skylog::format::ids::Lsn;
use skylog::journal::SyncPolicy;
use skylog::media::sim::{CallLog, DiskFault, DiskOp, Image, Nth, SimDisk};
use skylog::store::sim::{SimStore, StoreFault};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Operations of each mount of a history.
const OPS: u64 = 24;
/// Every way in which a disk fails,
pub const DISK_FAULTS: [DiskFault; 4] = [DiskFault::Failed, DiskFault::NoSpace, DiskFault::Short, DiskFault::Done];
/// and a store.
pub const STORE_FAULTS: [StoreFault; 6] = [
    StoreFault::Refused,
    StoreFault::AnswerLost,
    StoreFault::Adrift,
    StoreFault::Away,
    StoreFault::Cut,
    StoreFault::Flipped,
];

/// A history on disk and store that may fail: two mounts, each with fsyncs, checkpoints and windows, the first ended by an unmount or by
/// a kill.
struct Trial {
    machine: Machine,
    random: SeededRandom,
    line: Line,
    /// The newest batch after each operation that succeeded.
    lsns: Vec<Lsn>,
    /// How many operations someone was told are durable here,
    synced: Arc<AtomicUsize>,
    /// and in the store,
    stored: Arc<AtomicUsize>,
    /// and how many were begun.
    started: usize,
    /// Whether fsyncs wait for the store.
    waits: bool,
}

impl Trial {
    fn new(seed: u64) -> Trial {
        let random = SeededRandom::new(seed);
        let tuning = tuning(&random);
        let (log, clock) = (CallLog::new(), Arc::new(SimClock::default()));
        let store = SimStore::from_image(&new_store(&log, &clock, &random).image(), &log);
        let machine = Machine { disk: SimDisk::new(&log), cache: cache_disk(), store, clock, tuning, tolerant: true };
        let mut line = Line::default();
        line.push(new_model());
        let (synced, stored) = Default::default();
        Trial { machine, random, line, lsns: vec![Lsn::ZERO], synced, stored, started: 0, waits: seed % 2 == 0 }
    }

    /// Goes on until something fails, or to the end.
    fn run(&mut self) {
        if !self.live(1) {
            return;
        }
        self.live(2);
    }

    /// One mount; whether all of it went well.
    fn live(&mut self, seed: u64) -> bool {
        let Ok(mut instance) = self.machine.mount(seed) else { return false };
        instance.mounted.db.journal().tail().set_open(self.waits);
        if seed > 1 && !self.find(&mut instance) {
            return false;
        }
        *self.lsns.last_mut().expect("there is one") = instance.mounted.db.last();
        let done = self.ops(&mut instance, seed);
        for _ in 0..60 {
            instance.step_all();
            self.machine.clock.advance(Duration::from_millis(250));
        }
        let durable = instance.mounted.db.journal().durable();
        let upto = self.lsns.partition_point(|lsn| *lsn <= durable).saturating_sub(1);
        self.synced.fetch_max(upto, Ordering::Relaxed);
        // Half of the histories are killed here.
        if seed == 1 && self.random.below(2) == 0 {
            return done;
        }
        let closed = instance.mounted.writer.close().is_ok();
        if closed {
            self.synced.fetch_max(self.lsns.len() - 1, Ordering::Relaxed);
        }
        done && closed
    }

    /// What a later mount shows stays.
    fn find(&mut self, instance: &mut Instance) -> bool {
        let Ok(tree) = Driver::default().tree(instance) else { return false };
        let synced = self.synced.load(Ordering::Relaxed);
        let n = self.line.find(digest(&tree), synced, self.started);
        let n = n.unwrap_or_else(|| panic!("mounted again: no state between {synced} and {}", self.started));
        self.line = self.line.cut(n);
        self.lsns.truncate(n + 1);
        self.lsns.resize(n + 1, instance.mounted.db.last());
        self.synced.store(n, Ordering::Relaxed);
        self.stored.fetch_min(n, Ordering::Relaxed);
        self.started = n;
        true
    }

    fn ops(&mut self, instance: &mut Instance, seed: u64) -> bool {
        let mut driver = Driver::default();
        for n in 0..OPS {
            if n == 12 {
                let policy = [SyncPolicy::EverySecond, SyncPolicy::Always, SyncPolicy::None];
                instance.mounted.db.journal().set_policy(policy[usize::try_from(seed % 3).expect("few")]);
            }
            if !self.op(instance, &mut driver) {
                return false;
            }
            for _ in 0..self.random.below(4) {
                instance.step_all();
                self.machine.clock.advance(Duration::from_millis(100));
            }
            if n % 3 == 2 {
                self.promise(instance);
            }
            if n % 6 == 5 {
                instance.mounted.checkpointer.wanted().checkpoint();
                steps(instance, 12);
            }
        }
        true
    }

    /// An fsync: who waits for it is told of success only if it is true.
    fn promise(&self, instance: &mut Instance) {
        let n = self.line.len();
        let (synced, all) = (self.synced.clone(), self.stored.clone());
        let (db, stored) = (instance.mounted.db.clone(), instance.mounted.syncer.stored());
        let (lsn, waits) = (db.last(), self.waits);
        let then = move |result: Result<(), String>| {
            if result.is_err() {
                return;
            }
            synced.fetch_max(n, Ordering::Relaxed);
            if waits {
                let told = move |result: Result<(), String>| {
                    if result.is_ok() {
                        all.fetch_max(n, Ordering::Relaxed);
                    }
                };
                stored.when_stored(lsn, Box::new(told));
            }
        };
        db.journal().when_synced(lsn, Box::new(then));
    }

    fn op(&mut self, instance: &mut Instance, driver: &mut Driver) -> bool {
        let mut model = Model::clone(self.line.last());
        let op = Generator::over(&self.random, model.clone(), Sizes::SMALL).op();
        let now = next_time(&model);
        self.started += 1;
        let expected = model.apply(&op);
        let found = driver.apply(instance, now, &op);
        self.line.push(model);
        match found {
            found if found == expected => {
                self.lsns.push(instance.mounted.db.last());
                true
            }
            // It may have happened or not; it was promised to nobody.
            Err(libc::EIO | libc::EROFS | libc::ENOSPC) => false,
            other => panic!("operation {}: {op:?}: {other:?}, expected {expected:?}", self.started),
        }
    }

    /// All is well again; what a disk holds is mounted.
    fn recover(&self, how: &str, disk: &Image) {
        let log = CallLog::new();
        let store = SimStore::from_image(&self.machine.store.image(), &log);
        let machine = self.machine.clone().with_cache(&self.machine.cache.image());
        let machine = Machine { disk: SimDisk::from_image(disk, &log), store, tolerant: false, ..machine };
        let mut instance = machine.mount(2).unwrap_or_else(|e| panic!("{how}: the mount failed: {e}"));
        let found = digest(&instance.tree());
        let (from, to) = (self.synced.load(Ordering::Relaxed), self.started);
        assert!(self.line.find(found, from, to).is_some(), "{how}: no state between {from} and {to}");
        instance.drain(&mut |_| {});
        drop(instance);
        let disk = SimDisk::new(&log);
        let mut moved = Machine { disk, ..machine }.mount(3).expect("mounts from the store alone");
        assert_eq!(digest(&moved.tree()), found, "{how}: from the store alone, after everything was shipped");
    }

    /// What the same disk, which has lived on, leads to: memory may hold what a sync that failed has lost, until somebody gives it
    /// up. What is shown then, and what is done after it, is there after a power cut.
    fn live_on(&self) {
        let machine = Machine { tolerant: false, ..self.machine.clone() };
        let mut instance = machine.mount(5).unwrap_or_else(|e| panic!("on the same disk: the mount failed: {e}"));
        let found = digest(&instance.tree());
        let (from, to) = (self.synced.load(Ordering::Relaxed), self.started);
        let n = self.line.find(found, from, to);
        let n = n.unwrap_or_else(|| panic!("on the same disk: no state between {from} and {to}"));
        let mut model = Model::clone(&self.line.models[n]);
        model.crash();
        let make = Op { who: ROOT, call: Call::Create { path: "/after the failure".to_owned(), mode: 0o600 } };
        let made = Driver::default().apply(&mut instance, next_time(&model), &make);
        assert_eq!(made, model.apply(&make), "on the same disk: {make:?}");
        let db = instance.mounted.db.clone();
        while db.journal().durable() < db.last() {
            db.journal().when_durable(db.last(), Box::new(|_| {}));
            instance.step(Actor::Writer);
        }
        drop(instance);
        let log = CallLog::new();
        let disk = SimDisk::from_image(&machine.disk.image_durable(), &log);
        let store = SimStore::from_image(&machine.store.image(), &log);
        let mut after = Machine { disk, store, ..machine }.mount(6).expect("mounts after the power cut");
        assert_eq!(digest(&after.tree()), digest(&model.tree()), "on the same disk, synced, after a power cut");
    }

    /// The disk is lost: the store has all that somebody was told it has.
    fn without_disk(&self) {
        let log = CallLog::new();
        let store = SimStore::from_image(&self.machine.store.image(), &log);
        let machine = Machine { disk: SimDisk::new(&log), store, tolerant: false, ..self.machine.clone() };
        let found = digest(&machine.mount(8).expect("mounts from the store alone").tree());
        let (from, to) = (self.stored.load(Ordering::Relaxed), self.started);
        assert!(self.line.find(found, from, to).is_some(), "from the store alone: no state between {from} and {to}");
    }

    fn judge(&self) {
        self.machine.disk.heal();
        self.machine.cache.heal();
        self.machine.store.heal();
        self.machine.store.land_adrift();
        self.recover("after a kill", &self.machine.disk.image());
        self.recover("after a power cut", &self.machine.disk.image_durable());
        self.without_disk();
        self.live_on();
    }
}

fn steps(instance: &mut Instance, count: u32) {
    for _ in 0..count {
        instance.step_all();
    }
}

/// One history in which the nth call fails, and all that follows; how many calls failed.
fn trial(seed: u64, ask: &dyn Fn(&mut Machine), struck: fn(&Machine) -> u64) -> Result<u64, String> {
    quietly(|| {
        let mut trial = Trial::new(seed);
        ask(&mut trial.machine);
        trial.run();
        let struck = struck(&trial.machine);
        trial.judge();
        struck
    })
}

/// Lets the nth call fail for n = 1, 2, … until a history does not get that far.
fn each_call<F: Copy + std::fmt::Debug>(
    faults: &[F],
    every: usize,
    ask: impl Fn(&mut Machine, u64, bool, F),
    struck: fn(&Machine) -> u64,
) {
    let (mut failed, mut trials, begin) = (BTreeMap::<String, u64>::new(), 0, std::time::Instant::now());
    for (&how, forever) in faults.iter().flat_map(|how| [(how, false), (how, true)]) {
        for nth in (1..).step_by(every) {
            let struck = trial(nth % 7 + 1, &|machine| ask(machine, nth, forever, how), struck);
            let struck = struck.unwrap_or_else(|e| panic!("call {nth} {how:?}, for ever {forever}: {e}"));
            *failed.entry(format!("{how:?}{}", if forever { " for ever" } else { "" })).or_default() += struck;
            trials += 1;
            if struck == 0 {
                break;
            }
        }
    }
    println!("{trials} histories in {} ms, calls that failed: {failed:?}", begin.elapsed().as_millis());
    // Each was judged as a kill leaves it and as a power cut does: `Trial::judge`.
    count(trials, 2 * trials, failed.values().sum());
    let all = failed.len() == 2 * faults.len() && failed.values().all(|count| *count > 0);
    assert!(all && failed.values().sum::<u64>() > 40, "{failed:?}: that proves little");
}

/// Says what was tried, and how many states after a crash were judged.
pub fn count(trials: u64, states: u64, faults: u64) {
    Counts { part: "failing calls", histories: trials, states, kills: states, faults, ..Counts::default() }.print();
}

/// Where a canary looks for a failing call that does harm.
#[derive(Clone, Copy, Debug)]
pub enum Search {
    /// Calls on journal slots.
    Journal,
    /// Calls that make a manifest durable.
    Manifest,
}

/// Fails one call after the other; how many trials there were, with what was wrong in the last of them.
pub fn search(search: Search) -> Result<u64, (u64, String)> {
    let (ops, on): (&[DiskOp], _) = match search {
        Search::Journal => (&[DiskOp::Sync, DiskOp::Write], "journal/"),
        Search::Manifest => (&[DiskOp::SyncDir, DiskOp::Rename], ""),
    };
    const SEEDS: u64 = 20;
    let mut trials = 0;
    for (&op, how) in ops.iter().flat_map(|op| [(op, DiskFault::Failed), (op, DiskFault::Short), (op, DiskFault::Done)])
    {
        for seed in 1..=SEEDS {
            for nth in 1.. {
                trials += 1;
                let ask = |machine: &mut Machine| machine.disk.fail(Nth::new(nth).of(op).on(on), how);
                match trial(seed, &ask, |machine| machine.disk.failed()) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(what) => return Err((trials, format!("call {nth} of {op:?} {how:?}: {what}"))),
                }
            }
        }
    }
    Ok(trials)
}

/// Of how many calls one is made to fail, unless the environment says otherwise.
pub fn every(usual: u64) -> usize {
    usize::try_from(crate::env("SKYLOG_SIM_CALLS").unwrap_or(usual)).expect("small")
}

#[test]
fn any_call_to_the_disk_may_fail() {
    let ask = |machine: &mut Machine, nth: u64, forever: bool, how: DiskFault| {
        let which = Nth::new(nth);
        machine.disk.fail(if forever { which.forever() } else { which }, how);
    };
    each_call(&DISK_FAULTS, every(3), ask, |machine| machine.disk.failed());
}

/// Nobody but the mount itself is told of it.
#[test]
fn any_call_to_the_disk_of_cache_files_may_fail() {
    let ask = |machine: &mut Machine, nth: u64, forever: bool, how: DiskFault| {
        let which = Nth::new(nth);
        machine.tuning.cache_files = Some(Limits { bytes_max: 24 << 10, free_bytes_min: 0 });
        machine.tolerant = false;
        machine.cache.fail(if forever { which.forever() } else { which }, how);
    };
    each_call(&DISK_FAULTS, every(3), ask, |machine| machine.cache.failed());
}

#[test]
fn any_call_to_the_store_may_fail() {
    let ask = |machine: &mut Machine, nth: u64, forever: bool, how: StoreFault| {
        let which = Nth::new(nth);
        machine.store.fail(if forever { which.forever() } else { which }, how);
    };
    each_call(&STORE_FAULTS, every(2), ask, |machine| machine.store.failed());
}
