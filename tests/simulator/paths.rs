//! Failing calls on every path that is not a history: a mount over what another left, a takeover, a mount without the store, a
//! follower, salvage, `check`, and the making of a filesystem. Each starts from a filesystem in which every kind of file and object is
//! there ([`crate::flips::Whole`]); each call fails, in each way, once and for ever. Nobody is given anything wrong, nothing panics, and
//! when all is well again everything is there.

use crate::crash::quietly;
use crate::failing::{DISK_FAULTS, STORE_FAULTS, count, every};
use crate::flips::{End, Whole};
use crate::model::driver::{Driver, Mount};
use crate::model::op::Who;
use crate::world::Machine;
use skylog::base::clock::{SimClock, Time};
use skylog::base::random::SeededRandom;
use skylog::check::{Depth, check};
use skylog::follow::{self, Opened};
use skylog::fs::{self, Cx, DiskSpace, Fs, Stop};
use skylog::media::Media;
use skylog::media::sim::{CallLog, DiskFault, Nth, SimDisk};
use skylog::recovery::{MkfsOptions, MountError, World, mkfs};
use skylog::salvage::Salvage;
use skylog::store::Store;
use skylog::store::sim::{SimStore, StoreFault};
use skylog::volume::resolve;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What is done while calls fail. Says what was wrong.
type Path = fn(&Whole, &Machine) -> Result<(), String>;

/// Lets the nth call to disk or store fail for n = 1, 2, … until a path does not get that far.
fn each_call(name: &str, whole: &Whole, start: &dyn Fn() -> Machine, usual: u64, path: Path) {
    let all = DISK_FAULTS.map(Fault::Disk).into_iter().chain(STORE_FAULTS.map(Fault::Store));
    each_call_of(name, whole, start, usual, &all.collect::<Vec<_>>(), path);
}

fn each_call_of(name: &str, whole: &Whole, start: &dyn Fn() -> Machine, usual: u64, faults: &[Fault], path: Path) {
    let mut failed = BTreeMap::<String, u64>::new();
    let mut trials = 0;
    for (&fault, forever) in faults.iter().flat_map(|fault| [(fault, false), (fault, true)]) {
        for nth in (1..).step_by(every(usual)) {
            let machine = start();
            fault.ask(&machine, nth, forever);
            let went = quietly(|| path(whole, &machine)).and_then(|went| went);
            went.unwrap_or_else(|e| panic!("{name}: call {nth} {fault:?}, for ever {forever}: {e}"));
            let struck = machine.disk.failed() + machine.store.failed();
            *failed.entry(format!("{fault:?}")).or_default() += struck;
            trials += 1;
            if struck == 0 {
                break;
            }
        }
    }
    println!("{name}: {trials} trials, calls that failed: {failed:?}");
    // Not every path looks at what a crash leaves.
    count(trials, 0, failed.values().sum());
    assert!(failed.values().sum::<u64>() > 20, "{name}: that proves little");
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Disk(DiskFault),
    Store(StoreFault),
    /// Calls on names that start so.
    On(&'static str),
    StoreOn(&'static str),
}

impl Fault {
    fn ask(self, machine: &Machine, nth: u64, forever: bool) {
        match self {
            Fault::Disk(how) if forever => machine.disk.fail(Nth::new(nth).forever(), how),
            Fault::Disk(how) => machine.disk.fail(Nth::new(nth), how),
            Fault::On(names) if forever => machine.disk.fail(Nth::new(nth).on(names).forever(), DiskFault::Failed),
            Fault::On(names) => machine.disk.fail(Nth::new(nth).on(names), DiskFault::Failed),
            Fault::StoreOn(names) if forever => {
                machine.store.fail(Nth::new(nth).on(names).forever(), StoreFault::Refused)
            }
            Fault::StoreOn(names) => machine.store.fail(Nth::new(nth).on(names), StoreFault::Refused),
            Fault::Store(how) if forever => machine.store.fail(Nth::new(nth).forever(), how),
            Fault::Store(how) => machine.store.fail(Nth::new(nth), how),
        }
    }
}

fn heal(machine: &Machine) {
    machine.disk.heal();
    machine.store.heal();
    machine.store.set_down(false);
    machine.store.land_adrift();
}

/// Mounts, reads, and goes on for a while; then all is well again.
fn mounted(whole: &Whole, machine: &Machine, least: usize) -> Result<(), String> {
    if let Ok(mut instance) = machine.mount(4) {
        whole.is_right("with failing calls", &mut instance, least)?;
        machine.store.set_down(false);
        instance.mounted.checkpointer.wanted().checkpoint();
        for _ in 0..40 {
            instance.step_all();
            machine.clock.advance(Duration::from_millis(200));
        }
        whole.is_right("with failing calls, after some time", &mut instance, least)?;
        // It may not be there to be closed any more.
        let _ = instance.mounted.writer.close();
    }
    heal(machine);
    let store = machine.store.image();
    for (how, disk) in [("after a kill", machine.disk.image()), ("after a power cut", machine.disk.image_durable())] {
        let least = if disk.file("MANIFEST").is_some() { least } else { whole.remote() };
        whole.is_whole(how, &disk, &store, least)?;
    }
    whole.is_whole("from the store alone", &Default::default(), &store, whole.remote())
}

fn remount(whole: &Whole, machine: &Machine) -> Result<(), String> {
    mounted(whole, machine, whole.local())
}

fn takeover(whole: &Whole, machine: &Machine) -> Result<(), String> {
    mounted(whole, machine, whole.remote())
}

/// It reads only, and does not call clean what it could not read.
fn checked(whole: &Whole, machine: &Machine) -> Result<(), String> {
    let before = (machine.disk.image().hash(), machine.store.image().hash());
    let store: Arc<dyn Store> = Arc::new(machine.store.clone());
    let state = || Some(Arc::new(machine.disk.clone()) as Arc<dyn Media>);
    for state in [state(), None] {
        let struck = machine.disk.failed() + machine.store.failed();
        let report = check(&store, state, Depth::Data, &mut |_, _, _| {});
        if machine.disk.failed() + machine.store.failed() > struck && report.is_clean() {
            return Err("it says that all is clean, and could not read all".to_owned());
        }
    }
    heal(machine);
    if (machine.disk.image().hash(), machine.store.image().hash()) != before {
        return Err("a check has written".to_owned());
    }
    whole.is_clean("afterwards", machine)
}

/// What it finds, or says that it does not know all.
fn salvaged(whole: &Whole, machine: &Machine) -> Result<(), String> {
    let before = machine.disk.image().hash();
    let open = || {
        let (store, state) = (Arc::new(machine.store.clone()), Arc::new(machine.disk.clone()));
        Salvage::open(store, state, &mut |_, _| {})
    };
    if let Ok(salvage) = open() {
        let found = salvage.findings();
        heal(machine);
        let all = open().map_err(|e| format!("all is well: {e}"))?.findings();
        let names = |findings: &skylog::salvage::Findings| format!("{:?} {:?}", findings.found, findings.removed);
        if found.unknown.is_empty() && names(&found) != names(&all) {
            return Err("less was found, and nothing is said to be unknown".to_owned());
        }
    }
    heal(machine);
    match machine.disk.image().hash() == before {
        true => whole.is_clean("afterwards", machine),
        false => Err("a salvage has written".to_owned()),
    }
}

/// A mount that follows.
struct Reader {
    opened: Opened,
    fs: Fs,
}

impl Mount for Reader {
    fn run<T>(&mut self, who: Who, now: Time, mut op: impl FnMut(&Fs, &Cx) -> Result<T, Stop>) -> Result<T, i32> {
        let seen = self.opened.db.seen();
        let mut cx = Cx { uid: who.uid, gid: who.gid, now, caller: who.caller(), seen, ..Cx::default() };
        for _ in 0..1000 {
            match op(&self.fs, &cx) {
                Ok(value) => return Ok(value),
                Err(Stop::Error(e)) => return Err(e.errno()),
                Err(Stop::Wait(wait)) => {
                    let Opened { db, nodes, .. } = &self.opened;
                    // What cannot be had is an error in the end.
                    resolve(&wait, db, nodes, &mut cx.pins).map_err(|_| libc::EIO)?;
                }
            }
        }
        panic!("an operation waits for ever");
    }
}

/// It shows what is published, or nothing.
fn followed(whole: &Whole, machine: &Machine) -> Result<(), String> {
    let disk = Arc::new(machine.disk.clone());
    let world = World {
        media: disk.clone(),
        cache_media: disk,
        store: Arc::new(machine.store.clone()),
        clock: machine.clock.clone(),
        random: Arc::new(SeededRandom::new(11)),
        known: None,
    };
    for _ in 0..2 {
        if let Ok(opened) = follow::open(&world, &machine.tuning) {
            let options = fs::Options { write_bytes_max: 1 << 20, space: Box::new(DiskSpace::default) };
            let fs = Fs::new(opened.db.clone(), options);
            let mut reader = Reader { opened, fs };
            for _ in 0..4 {
                let found = Driver::default().readable(&mut reader);
                whole.shows("a follower", &found)?;
                machine.clock.advance(Duration::from_secs(1));
                reader.opened.renewal.step();
                while reader.opened.follower.step() != follow::Progress::Idle {}
            }
        }
        heal(machine);
    }
    whole.is_whole("afterwards", &Default::default(), &machine.store.image(), whole.remote())
}

#[test]
fn any_call_of_a_mount_may_fail() {
    for (seed, end) in [(1, End::Closed), (2, End::Killed)] {
        let whole = Whole::new(seed, end);
        each_call("mount", &whole, &|| whole.machine_here(), 5, remount);
    }
}

#[test]
fn any_call_of_a_mount_without_the_store_may_fail() {
    let whole = Whole::new(2, End::Killed);
    let start = || {
        let machine = whole.machine_here();
        machine.store.set_down(true);
        machine
    };
    each_call("mount without the store", &whole, &start, 7, remount);
}

#[test]
fn any_call_of_a_takeover_may_fail() {
    let whole = Whole::new(1, End::Closed);
    each_call("takeover", &whole, &|| whole.machine_elsewhere(), 5, takeover);
    let whole = Whole::new(4, End::TakenOver);
    each_call("first mount after a takeover", &whole, &|| whole.machine_here(), 7, remount);
}

#[test]
fn any_call_of_a_check_may_fail() {
    let whole = Whole::new(2, End::Killed);
    // Of a node, one of its two places is enough; and numbers behind the end of a generation are asked for ahead, and nobody needs the
    // answer. What a bad answer costs, the ring of flips looks at.
    let local = ["MANIFEST", "ckpt/", "journal/"].map(Fault::On);
    let remote = ["skylog.json", "win"].map(Fault::StoreOn);
    let faults = [local.as_slice(), &remote].concat();
    each_call_of("check", &whole, &|| whole.machine_here(), 1, &faults, checked);
}

#[test]
fn any_call_of_a_salvage_may_fail() {
    let whole = Whole::new(2, End::Killed);
    each_call("salvage", &whole, &|| whole.machine_here(), 2, salvaged);
}

#[test]
fn any_call_of_a_follower_may_fail() {
    let whole = Whole::new(1, End::Closed);
    each_call("follower", &whole, &|| whole.machine_elsewhere(), 2, followed);
}

/// What was not made can be made, and what was said to be made is.
#[test]
fn any_call_of_a_mkfs_may_fail() {
    let (mut left, mut late) = (0, 0);
    for (how, forever) in STORE_FAULTS.into_iter().flat_map(|how| [(how, false), (how, true)]) {
        for nth in 1.. {
            let store = SimStore::new(&CallLog::new());
            let options = || MkfsOptions { segment_size: 64 << 10, ..MkfsOptions::default() };
            let which = Nth::new(nth);
            store.fail(if forever { which.forever() } else { which }, how);
            let made = mkfs(&store, &SimClock::default(), &SeededRandom::new(nth), options());
            let struck = store.failed();
            store.heal();
            store.land_adrift();
            let again = mkfs(&store, &SimClock::default(), &SeededRandom::new(99), options());
            let what = format!("call {nth} {how:?}, for ever {forever}: {made:?}, then {again:?}");
            let whole = skylog::recovery::superblock(&store).is_ok();
            match (&made, &again) {
                (_, Ok(_)) => assert!(made.is_err(), "{what}"),
                (Ok(_), Err(MountError::Occupied(_))) => assert!(whole, "{what}"),
                // A store that stayed away could not be tidied up: `destroy` is named, or all of it is there.
                (Err(_), Err(MountError::Occupied(_))) => left += 1,
                _ => panic!("{what}"),
            }
            if whole {
                let machine = Machine { store, disk: SimDisk::new(&CallLog::new()), ..crate::flips::empty_machine() };
                match machine.mount(1) {
                    Ok(mut instance) => assert_eq!(instance.tree().len(), 1, "{what}"),
                    // A superblock that came when the rest was tidied up: the mount says that it was never completed.
                    Err(MountError::Damaged { .. }) if how == StoreFault::Adrift && made.is_err() => late += 1,
                    Err(e) => panic!("{what}: {e}"),
                }
            }
            if struck == 0 {
                break;
            }
        }
    }
    println!("of the filesystems that were not made, {left} left something, {late} a superblock that came late");
}
