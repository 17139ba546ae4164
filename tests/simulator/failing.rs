//! Every call fails once: the first, the second, … of a short history, in each way in which a disk or a store can fail, once
//! or for ever. Whatever the user was told, what was promised before is there when disk and store are well again.

use crate::book::{Line, digest};
use crate::crash::quietly;
use crate::model::Model;
use crate::model::driver::Driver;
use crate::model::generate::{Generator, Sizes};
use crate::world::{Instance, Machine, cache_disk, new_model, new_store, next_time, tuning};
use skylog::base::clock::SimClock;
use skylog::base::random::SeededRandom;
use skylog::cache::Limits;
use skylog::format::ids::Lsn;
use skylog::media::sim::{CallLog, DiskFault, Image, Nth, SimDisk};
use skylog::store::sim::{SimStore, StoreFault};
use std::sync::Arc;
use std::time::Duration;

/// Operations of the history.
const OPS: u64 = 24;

/// A history on disk and store that may fail.
struct Trial {
    machine: Machine,
    random: SeededRandom,
    line: Line,
    lsns: Vec<Lsn>,
    /// Operations that survive any crash, and operations begun.
    synced: usize,
    started: usize,
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
        Trial { machine, random, line, lsns: vec![Lsn::ZERO], synced: 0, started: 0 }
    }

    /// Goes on until an operation fails, or to the end.
    fn run(&mut self) {
        let Ok(mut instance) = self.machine.mount(1) else { return };
        self.lsns = vec![instance.mounted.db.last()];
        let mut driver = Driver::default();
        for n in 0..OPS {
            if !self.op(&mut instance, &mut driver) {
                break;
            }
            for _ in 0..self.random.below(4) {
                instance.step_all();
                self.machine.clock.advance(Duration::from_millis(100));
            }
            if n % 6 == 5 {
                instance.mounted.checkpointer.wanted().checkpoint();
                let db = instance.mounted.db.clone();
                db.journal().when_durable(db.last(), Box::new(|_| {}));
                steps(&mut instance, 12);
            }
        }
        steps(&mut instance, 60);
        let durable = instance.mounted.db.journal().durable();
        self.synced = self.lsns.partition_point(|lsn| *lsn <= durable).saturating_sub(1);
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
        let (from, to) = (self.synced, self.started);
        assert!(self.line.find(found, from, to).is_some(), "{how}: no state between {from} and {to}");
        instance.drain(&mut |_| {});
        drop(instance);
        let disk = SimDisk::new(&log);
        let mut moved = Machine { disk, ..machine }.mount(3).expect("mounts from the store alone");
        assert_eq!(digest(&moved.tree()), found, "{how}: from the store alone, after everything was shipped");
    }

    fn judge(&self) {
        self.recover("after a kill", &self.machine.disk.image());
        self.recover("after a power cut", &self.machine.disk.image_durable());
    }
}

fn steps(instance: &mut Instance, count: u32) {
    for _ in 0..count {
        instance.step_all();
    }
}

/// Lets the nth call fail for n = 1, 2, … until a history does not get that far.
fn each_call<F: Copy + std::fmt::Debug>(
    faults: &[F],
    ask: impl Fn(&mut Machine, u64, bool, F),
    struck: impl Fn(&Machine) -> u64,
) {
    let every = usize::try_from(crate::env("SKYLOG_SIM_CALLS").unwrap_or(1)).expect("small");
    let mut failed = 0;
    for (&how, forever) in faults.iter().flat_map(|how| [(how, false), (how, true)]) {
        for nth in (1..).step_by(every) {
            let one = || {
                let mut trial = Trial::new(nth % 7 + 1);
                ask(&mut trial.machine, nth, forever, how);
                trial.run();
                let struck = struck(&trial.machine);
                trial.machine.disk.heal();
                trial.machine.cache.heal();
                trial.machine.store.heal();
                trial.machine.store.land_adrift();
                trial.judge();
                struck
            };
            let struck = quietly(one).unwrap_or_else(|e| panic!("call {nth} {how:?}, for ever {forever}: {e}"));
            failed += struck;
            if struck == 0 {
                break;
            }
        }
    }
    println!("{failed} calls failed");
    assert!(failed > 100, "a run without failures proves nothing");
}

#[test]
fn any_call_to_the_disk_may_fail() {
    let faults = [DiskFault::Failed, DiskFault::NoSpace, DiskFault::Short, DiskFault::Done];
    let ask = |machine: &mut Machine, nth: u64, forever: bool, how: DiskFault| {
        let which = Nth::new(nth);
        machine.disk.fail(if forever { which.forever() } else { which }, how);
    };
    each_call(&faults, ask, |machine| machine.disk.failed());
}

/// Nobody but the mount itself is told of it.
#[test]
fn any_call_to_the_disk_of_cache_files_may_fail() {
    let faults = [DiskFault::Failed, DiskFault::NoSpace, DiskFault::Short, DiskFault::Done];
    let ask = |machine: &mut Machine, nth: u64, forever: bool, how: DiskFault| {
        let which = Nth::new(nth);
        machine.tuning.cache_files = Some(Limits { bytes_max: 24 << 10, free_bytes_min: 0 });
        machine.tolerant = false;
        machine.cache.fail(if forever { which.forever() } else { which }, how);
    };
    each_call(&faults, ask, |machine| machine.cache.failed());
}

#[test]
fn any_call_to_the_store_may_fail() {
    let faults = [StoreFault::Refused, StoreFault::AnswerLost, StoreFault::Adrift];
    let ask = |machine: &mut Machine, nth: u64, forever: bool, how: StoreFault| {
        let which = Nth::new(nth);
        machine.store.fail(if forever { which.forever() } else { which }, how);
    };
    each_call(&faults, ask, |machine| machine.store.failed());
}

#[test]
fn any_call_of_a_recovery_may_fail() {
    let mut failed = 0;
    for seed in 1..7 {
        let mut trial = Trial::new(seed);
        trial.run();
        let local = trial.machine.disk.image();
        for (disk, fault) in [&local, &Image::default()].into_iter().flat_map(|disk| [(disk, true), (disk, false)]) {
            for nth in 1.. {
                let struck = quietly(|| recover_failing(&trial, disk, fault, nth));
                let struck = struck.unwrap_or_else(|e| panic!("seed {seed}, call {nth}, of the disk {fault}: {e}"));
                failed += struck;
                if struck == 0 {
                    break;
                }
            }
        }
    }
    println!("{failed} calls failed");
    assert!(failed > 100, "a run without failures proves nothing");
}

/// A mount in which the nth call to disk or store fails, and another one in which none does.
fn recover_failing(trial: &Trial, disk: &Image, of_disk: bool, nth: u64) -> u64 {
    let log = CallLog::new();
    let store = SimStore::from_image(&trial.machine.store.image(), &log);
    let machine = Machine { disk: SimDisk::from_image(disk, &log), store, ..trial.machine.clone() };
    match of_disk {
        true => machine.disk.fail(Nth::new(nth), DiskFault::Failed),
        false => machine.store.fail(Nth::new(nth), StoreFault::AnswerLost),
    }
    if let Ok(mut instance) = machine.mount(4) {
        steps(&mut instance, 10);
    }
    let struck = machine.disk.failed() + machine.store.failed();
    machine.disk.heal();
    machine.store.heal();
    let after = Trial { machine, line: trial.line.clone(), random: SeededRandom::new(1), lsns: Vec::new(), ..*trial };
    let after = Trial { synced: if disk.names().count() == 0 { 0 } else { trial.synced }, ..after };
    after.judge();
    struck
}
