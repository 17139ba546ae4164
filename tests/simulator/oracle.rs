//! What must be true of every crash: recovery finds exactly the state after some operation that was promised or begun, from
//! the local disk and from the store alone; it may be done twice, or be crashed itself; and life goes on after it.

use crate::audit::{check_accounts, check_trees};
use crate::book::{Line, Note, digest};
use crate::cached::Walk;
use crate::crash::{Limited, quietly};
use crate::figures::Figures;
use crate::model::Model;
use crate::model::driver::Driver;
use crate::model::op::{At, Call, Op, ROOT};
use crate::repairs::{Target, repair_again, repair_on};
use crate::run::Recorded;
use crate::world::{Instance, Machine, cache_disk, next_time};
use skylog::base::clock::{Clock, SimClock};
use skylog::media::Media;
use skylog::media::sim::{CallLog, Image, SimDisk, StoreCall};
use skylog::store::Store;
use skylog::store::sim::{Crash, Recording, SimStore, StoreImage};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// How deep recoveries are crashed: the recovery from a crash, and the recovery from a crash of that.
const DEPTH: u32 = 2;

/// Why a state is wrong.
pub type Violation = String;

/// What a mount found, by a number for its tree.
type Found = Result<u64, Violation>;

/// Judges the crashes of one history.
pub struct Judge<'a> {
    recorded: &'a Recorded,
    adrift: bool,
    /// What was found from a whole state, and from a store alone, by hash.
    local: HashMap<u128, Found>,
    remote: HashMap<u128, Result<Option<u64>, Violation>>,
    /// Stores of which a takeover was crashed.
    taken: HashSet<u128>,
    /// Of so many states, one is looked at more closely.
    pub sample: u128,
    pub figures: Figures,
    pub distinct: HashSet<u128>,
}

impl<'a> Judge<'a> {
    /// A judge who has seen nothing yet.
    pub fn new(recorded: &'a Recorded, sample: u128) -> Judge<'a> {
        Judge {
            recorded,
            adrift: recorded.adrift(),
            local: HashMap::new(),
            remote: HashMap::new(),
            taken: HashSet::new(),
            sample,
            figures: Figures::default(),
            distinct: HashSet::new(),
        }
    }

    /// Judges one crash under what had been promised at that moment, with some state of the cache files of then.
    pub fn judge(&mut self, crash: &Crash, note: Note, cached: &Walk<'_>) -> Result<(), Violation> {
        self.figures.judged += 1;
        if !self.local.contains_key(&crash.hash) {
            let found = quietly(|| self.recover(crash, note, cached)).and_then(|found| found);
            self.local.insert(crash.hash, found);
            self.distinct.insert(crash.hash);
            self.figures.bytes_lost += crash.bytes_lost;
            self.figures.names_lost += crash.names_lost;
            self.figures.late_puts += u64::from(crash.late.is_some());
        }
        let local = self.local[&crash.hash].clone()?;
        self.expect("recovered", local, note, note.synced)?;
        let store = &crash.store;
        if !self.remote.contains_key(&store.hash()) {
            let found = quietly(|| self.take_over(store, note));
            self.remote.insert(store.hash(), found);
        }
        let found = self.remote[&store.hash()].clone().map_err(|e| format!("from the store alone: {e}"))?;
        let Some(found) = found else { return Ok(()) };
        self.expect("taken over from the store alone", found, note, note.shipped)?;
        let (line, to) = (self.line(note), note.started);
        match line.find_first(found, note.shipped, to) > line.find(local, note.synced, to) {
            true => Err("the store knows operations that the disk does not".to_owned()),
            false => Ok(()),
        }
    }

    fn line(&self, note: Note) -> &Line {
        &self.recorded.lines[note.line]
    }

    fn expect(&self, how: &str, found: u64, note: Note, least: usize) -> Result<(), Violation> {
        if self.line(note).find(found, least, note.started).is_some() {
            return Ok(());
        }
        let elsewhere = self.line(note).find(found, 0, usize::MAX);
        let what = elsewhere.map_or("no state there ever was".to_owned(), |n| format!("the state after operation {n}"));
        Err(format!("{how}: {what}, expected {least}..={} ({note:?})", note.started))
    }

    fn machine(&self, disk: &Image, store: &StoreImage) -> Machine {
        let log = CallLog::new();
        let clock = Arc::new(SimClock::default());
        clock.advance(self.recorded.machine.clock.elapsed());
        Machine {
            disk: SimDisk::from_image(disk, &log),
            cache: cache_disk(),
            store: SimStore::from_image(store, &log),
            clock,
            tuning: self.recorded.machine.tuning.clone(),
            tolerant: false,
        }
    }

    fn mount(&mut self, machine: &Machine, seed: u128) -> Instance {
        self.figures.recoveries += 1;
        machine.mount(seed as u64).unwrap_or_else(|e| panic!("the mount failed: {e}"))
    }

    /// Mounts after a crash. In the middle of a repair it is repaired first.
    fn come_back(&mut self, machine: &Machine, seed: u128, note: Note) -> Instance {
        if note.repair.is_some() {
            repair_again(machine, seed as u64);
            self.figures.again += 1;
        }
        self.mount(machine, seed)
    }

    /// What another machine finds; nothing where it does not have all that it takes.
    fn take_over(&mut self, store: &StoreImage, note: Note) -> Option<u64> {
        let machine = self.machine(&Image::default(), store);
        let damaged = note.repair.filter(|target| target.is_stored() && !is_clean(&machine));
        match damaged {
            None => check_clean("the store", &machine, false),
            Some(target) if target.costs_the_store_nothing() => drop(repair_on(&machine, store.hash() as u64)),
            Some(_) => return None,
        }
        let mut instance = self.mount(&machine, store.hash());
        Some(digest(&instance.tree()))
    }

    /// What is found on disk and in the store; a closer look now and then.
    fn recover(&mut self, crash: &Crash, note: Note, cached: &Walk<'_>) -> Found {
        let seed = crash.hash;
        let cache = cached.image((seed >> 32) as u64);
        let machine = self.machine(&crash.disk, &crash.store).with_cache(&cache);
        let late_first = seed >> 8 & 1 == 0;
        let land = |first: bool| crash.late.iter().filter(|_| first == late_first).for_each(|c| machine.store.land(c));
        land(true);
        let closer = seed % self.sample == 0;
        if closer && note.repair.is_none() {
            check_clean("before recovery", &machine, true);
        }
        let mut instance = self.come_back(&machine, seed, note);
        land(false);
        let found = digest(&instance.tree());
        let recovered = machine.disk.log().len();
        self.figures.add_cache(&instance);
        if closer {
            check_trees(&instance);
            drop(instance);
            self.go_on(&machine, found, note, crash.late.as_ref())?;
            let again = Again { found, calls: recovered, late: crash.late.is_some(), cache, depth: 1 };
            self.crash_again(&machine, again, note)?;
            if note.repair.is_some_and(Target::is_stored) {
                return Ok(found);
            }
            self.crash_take_over(&crash.store, note)?;
            crash.late.iter().try_for_each(|late| self.take_over_before(crash, late, note))?;
        }
        Ok(found)
    }

    /// A call of the dead writer arrives after another machine has taken over from the store alone.
    fn take_over_before(&mut self, crash: &Crash, late: &StoreCall, note: Note) -> Result<(), Violation> {
        let machine = self.machine(&Image::default(), &crash.store);
        let mut instance = self.mount(&machine, 6);
        machine.store.land(late);
        let found = digest(&instance.tree());
        let Some(n) = self.line(note).find(found, note.shipped, note.started) else {
            return Err("taken over before a late call: a state that never was, or before what was shipped".to_owned());
        };
        let mut model = Model::clone(&self.line(note).models[n]);
        write(&mut instance, &mut model);
        instance.drain(&mut |_| {});
        check_clean("after a late call to a store that was taken over", &machine, true);
        self.move_on(&machine, model)
    }

    /// Recovering twice changes nothing; what is written and synced afterwards is there after the next crash, and in the store
    /// after the next shipping; the accounts are right.
    fn go_on(&mut self, machine: &Machine, found: u64, note: Note, late: Option<&StoreCall>) -> Result<(), Violation> {
        let mut again = self.mount(machine, 2);
        same("recovering again", digest(&again.tree()), found)?;
        let Some(n) = self.line(note).find(found, note.synced, note.started) else { return Ok(()) };
        let mut model = Model::clone(&self.line(note).models[n]);
        write(&mut again, &mut model);
        let expected = digest(&model.tree());
        while !self.synced(&mut again) {}
        drop(again);
        let mut after = self.mount(machine, 3);
        same("after a write, a sync and a crash", digest(&after.tree()), expected)?;
        after.drain(&mut |_| {});
        check_trees(&after);
        check_accounts(&after, late.is_some() || self.adrift);
        check_clean("after everything was shipped", machine, true);
        drop(after);
        self.figures.drained += 1;
        self.move_on(machine, model)
    }

    /// Another machine goes on from the store alone, before it has read what there is; and another one after that.
    fn move_on(&mut self, machine: &Machine, mut model: Model) -> Result<(), Violation> {
        let other = self.machine(&Image::default(), &machine.store.image());
        let mut moved = self.mount(&other, 4);
        write(&mut moved, &mut model);
        moved.drain(&mut |_| {});
        check_trees(&moved);
        let expected = digest(&model.tree());
        same("from the store alone, after everything was shipped", digest(&moved.tree()), expected)?;
        let third = self.machine(&Image::default(), &other.store.image());
        let mut moved = self.mount(&third, 5);
        same("from the store alone, after another had taken over", digest(&moved.tree()), expected)
    }

    fn synced(&mut self, instance: &mut Instance) -> bool {
        let db = instance.mounted.db.clone();
        db.journal().when_durable(db.last(), Box::new(|_| {}));
        instance.mounted.writer.step();
        db.journal().durable() == db.last()
    }

    /// Crashes of the recovery itself find the same: nothing that it started from can be lost any more. Only what is late
    /// may be found or not. So do crashes of the recovery from one of these.
    fn crash_again(&mut self, machine: &Machine, again: Again, note: Note) -> Result<(), Violation> {
        let Again { found, calls, late, cache, depth } = again;
        let recording = Recording::of(&machine.disk, &machine.store);
        let mut seen = HashSet::new();
        let mut deeper: Option<(u128, Machine, usize)> = None;
        for crash in recording.crashes_between(&Limited::recovery(), 0..=calls) {
            if !seen.insert(crash.hash) {
                continue;
            }
            let machine = self.machine(&crash.disk, &crash.store).with_cache(&cache);
            let mut instance = self.come_back(&machine, crash.hash, note);
            crash.late.iter().for_each(|call| machine.store.land(call));
            let what = format!("after crash {depth} of recovery, at call {} ({:?})", crash.after, crash.plan);
            let tree = digest(&instance.tree());
            if late { self.expect(&what, tree, note, note.synced) } else { same(&what, tree, found) }?;
            self.distinct.insert(crash.hash);
            self.figures.judged += 1;
            let calls = machine.disk.log().len();
            if depth < DEPTH && calls > 0 && crash.late.is_none() {
                // Any of them: the one with the smallest hash.
                let best = deeper.take().filter(|(hash, ..)| *hash < crash.hash);
                deeper = best.or(Some((crash.hash, machine, calls)));
            }
        }
        self.figures.recovery_calls += calls as u64;
        if depth > 1 {
            self.figures.deeper_calls += calls as u64;
        }
        match deeper {
            Some((_, machine, calls)) => {
                self.crash_again(&machine, Again { found, calls, late, cache, depth: depth + 1 }, note)
            }
            None => Ok(()),
        }
    }

    /// A takeover from the store alone is crashed: whoever goes on, from what it left on its disk or from the store alone, finds
    /// what it would have found.
    fn crash_take_over(&mut self, store: &StoreImage, note: Note) -> Result<(), Violation> {
        if !self.taken.insert(store.hash()) {
            return Ok(());
        }
        let machine = self.machine(&Image::default(), store);
        let mut instance = self.mount(&machine, 7);
        let calls = machine.disk.log().len();
        let found = digest(&instance.tree());
        drop(instance);
        self.expect("taken over from the store alone, to be crashed", found, note, note.shipped)?;
        let recording = Recording::of(&machine.disk, &machine.store);
        let (mut seen, mut stores) = (HashSet::new(), HashSet::new());
        for crash in recording.crashes_between(&Limited::recovery(), 0..=calls) {
            if !seen.insert(crash.hash) {
                continue;
            }
            let machine = self.machine(&crash.disk, &crash.store);
            let mut instance = self.mount(&machine, crash.hash);
            crash.late.iter().for_each(|call| machine.store.land(call));
            let what = format!("after a crash of a takeover, at call {} ({:?})", crash.after, crash.plan);
            same(&what, digest(&instance.tree()), found)?;
            self.distinct.insert(crash.hash);
            self.figures.judged += 1;
            if stores.insert(crash.store.hash()) {
                let machine = self.machine(&Image::default(), &crash.store);
                let mut instance = self.mount(&machine, 8);
                crash.late.iter().for_each(|call| machine.store.land(call));
                same(&format!("{what}, by another"), digest(&instance.tree()), found)?;
            }
        }
        self.figures.takeover_calls += calls as u64;
        Ok(())
    }
}

/// A recovery that is to be crashed: what it found, how many calls it made, whether a call was late, the cache files that it
/// began with, and how many crashes came before this one and it.
struct Again {
    found: u64,
    calls: usize,
    late: bool,
    cache: Image,
    depth: u32,
}

/// Whether `skylog check` finds nothing in the store.
fn is_clean(machine: &Machine) -> bool {
    let store: Arc<dyn Store> = Arc::new(machine.store.clone());
    skylog::check::check(&store, None, skylog::check::Depth::Data, &mut |_, _, _| {}).is_clean()
}

/// `skylog check` finds nothing, with the state directory or without.
pub fn check_clean(when: &str, machine: &Machine, state: bool) {
    let store: Arc<dyn Store> = Arc::new(machine.store.clone());
    let state = state.then(|| Arc::new(machine.disk.clone()) as Arc<dyn Media>);
    let report = skylog::check::check(&store, state, skylog::check::Depth::Data, &mut |_, _, _| {});
    assert!(report.is_clean(), "check, {when}: {:?}, skipped {:?}", report.problems, report.skipped);
}

fn same(when: &str, found: u64, expected: u64) -> Result<(), Violation> {
    if found == expected { Ok(()) } else { Err(format!("{when}: the tree is another one")) }
}

/// A new file with something in it.
fn write(instance: &mut Instance, model: &mut Model) {
    let path = format!("/written after the crash, at {}", model.step());
    let make = Call::Create { path: path.clone(), mode: 0o640 };
    let fill = Call::Write { at: At::Path(path), offset: 100, len: 5000, fill: 9 };
    let mut driver = Driver::default();
    for call in [make, fill] {
        let op = Op { who: ROOT, call };
        let found = driver.apply(instance, next_time(model), &op);
        assert_eq!(found, model.apply(&op), "after recovery: {op:?}");
    }
}
