//! What the simulator found once, each as the shortest way to it; and the histories in which rare ones came up.

use crate::audit::{check_accounts, check_trees};
use crate::book::digest;
use crate::model::Model;
use crate::model::driver::Driver;
use crate::model::driver::Mount;
use crate::model::op::{At, Call, Op, ROOT, Who};
use crate::step::History;
use crate::world::{Instance, Machine, cache_disk, new_model, new_store, next_time, tuning};
use crate::{Scope, dice, judge_one, replay};
use skylog::base::clock::{SimClock, Time};
use skylog::base::random::SeededRandom;
use skylog::checkpoint::Replay;
use skylog::format::ids::InodeNo;
use skylog::format::names::publication;
use skylog::media::sim::{CallLog, Nth, SimDisk};
use skylog::recovery::MountError;
use skylog::store::sim::{SimStore, StoreFault, StoreOp};
use std::sync::Arc;

/// Seeds of histories that failed before something was put right.
const FOUND: [u64; 6] = [1008, 1107, 1125, 1163, 3021, 0];

#[test]
fn what_failed_once_fails_no_more() {
    for seed in FOUND {
        let scope = Scope { seed, histories: 1, crash: None, plans: 6, sample: 8 };
        let failures = judge_one(&scope, seed, dice::run_plain).failures;
        assert!(failures.is_empty(), "{}", failures[0]);
    }
}

/// Histories that failed once, as they were shrunk and printed. The first did so without the sync of a journal segment; the second
/// where one that overtook another was overtaken itself, and did something else than it would have done before. The third where a
/// repair died with its machine, and the next one, from the store alone, took for lost what only that machine had had.
pub const KEPT: [&str; 3] = [
    r#"
start 1
{"Do":{"who":{"uid":0,"gid":0},"call":{"Create":{"path":"/f","mode":384}}}}
{"Act":"Checkpointer"}
{"Act":"Writer"}
"#,
    r#"
start 20262210
{"Do":{"who":{"uid":1000,"gid":100},"call":{"Mkdir":{"path":"/e","mode":420}}}}
{"Do":{"who":{"uid":1000,"gid":100},"call":{"Mkdir":{"path":"/e/c","mode":1528}}}}
{"Do":{"who":{"uid":0,"gid":0},"call":{"Create":{"path":"/e/a","mode":2541}}}}
{"Do":{"who":{"uid":1000,"gid":100},"call":{"Symlink":{"path":"/e/c/f","target":[116,116]}}}}
{"Do":{"who":{"uid":0,"gid":0},"call":{"Mkdir":{"path":"/e/f","mode":1444}}}}
"Drain"
{"Do":{"who":{"uid":1000,"gid":100},"call":{"Unlink":{"path":"/e/a"}}}}
{"While":{"op":{"who":{"uid":1000,"gid":100},"call":{"Write":{"at":{"Path":"/e/c/e"},"offset":4821,"len":132,"fill":10}}},"wait":3,"steps":[{"While":{"op":{"who":{"uid":1000,"gid":100},"call":{"Write":{"at":{"Path":"/e/n"},"offset":1770,"len":0,"fill":81}}},"wait":1,"steps":[{"Do":{"who":{"uid":0,"gid":0},"call":{"Chmod":{"path":"/e/c","mode":1517}}}}]}},{"While":{"op":{"who":{"uid":0,"gid":0},"call":{"Rename":{"from":"/e/c","to":"/e/a","flags":2}}},"wait":1,"steps":[{"Do":{"who":{"uid":1000,"gid":100},"call":{"Create":{"path":"/e/a","mode":511}}}},{"While":{"op":{"who":{"uid":1000,"gid":100},"call":{"SetAcl":{"path":"/","default":true,"acl":{"classes":[1,4,3],"mask":5,"users":{"1000":3},"groups":{"1002":1}}}}},"wait":1,"steps":[{"Do":{"who":{"uid":1000,"gid":100},"call":{"Copy":{"from":{"Path":"/e/a"},"offset":5170,"to":{"Path":"/e/a"},"to_offset":0,"len":1536}}}},"Checkpoint"]}}]}},{"While":{"op":{"who":{"uid":0,"gid":0},"call":{"Create":{"path":"/e/a/f","mode":493}}},"wait":1,"steps":[{"While":{"op":{"who":{"uid":0,"gid":0},"call":{"SetAcl":{"path":"/e/b","default":false,"acl":{"classes":[6,3,7],"mask":3,"users":{"1000":2,"1002":5},"groups":{}}}}},"wait":1,"steps":[{"Do":{"who":{"uid":1000,"gid":100},"call":{"Readlink":{"path":"/e/a/f"}}}}]}},{"Sync":{"wait":true}}]}}]}}
"#,
    r#"
start 20301245
{"Do":{"who":{"uid":1000,"gid":100},"call":{"Create":{"path":"/f","mode":384}}}}
{"Act":"Checkpointer"}
{"Act":"Checkpointer"}
{"Act":"Writer"}
{"Do":{"who":{"uid":0,"gid":0},"call":{"Write":{"at":{"Path":"/f"},"offset":4721,"len":2021,"fill":96}}}}
{"Do":{"who":{"uid":0,"gid":0},"call":{"Create":{"path":"/e","mode":1023}}}}
{"Do":{"who":{"uid":1000,"gid":100},"call":{"Open":{"path":"/e","truncate":false,"slot":2}}}}
{"Act":"Checkpointer"}
"Checkpoint"
{"Act":"Checkpointer"}
{"Do":{"who":{"uid":1000,"gid":100},"call":{"Write":{"at":{"Slot":2},"offset":2172,"len":1870,"fill":32}}}}
{"Act":"Checkpointer"}
{"Act":"Checkpointer"}
{"Do":{"who":{"uid":1000,"gid":100},"call":{"SetAcl":{"path":"/","default":true,"acl":{"classes":[5,0,1],"mask":6,"users":{"1001":7},"groups":{}}}}}}
"Checkpoint"
{"Do":{"who":{"uid":1000,"gid":100},"call":{"Mkdir":{"path":"/a","mode":384}}}}
{"Act":"Checkpointer"}
{"Sleep":{"ms":300}}
{"Turn":{"Rival":{"seed":12313976252298855392}}}
"ActRival"
"ActRival"
"ActRival"
"ActRival"
"ActRival"
{"Turn":{"Takeover":{"seed":15639993256218972938}}}
{"Act":"Checkpointer"}
{"Act":"Writer"}
"ActRival"
{"Turn":{"Repair":{"harm":{"target":"Index","which":159150,"at":891483},"clean":false,"seed":6313788669226320213}}}
"#,
];

#[test]
fn what_was_shrunk_and_kept_fails_no_more() {
    let scope = Scope { seed: 1, histories: 1, crash: None, plans: 64, sample: 4 };
    for text in KEPT {
        assert_eq!(replay::failure(&History::parse(text), &scope), None, "{text}");
    }
}

/// A machine with a mounted filesystem, and the model of it.
struct Scene {
    machine: Machine,
    instance: Option<Instance>,
    model: Model,
    driver: Driver,
    mounts: u64,
}

impl Scene {
    fn new(increments_max: u64, increment_bytes_max: u64, queue_bytes_max: u64) -> Scene {
        let random = SeededRandom::new(1);
        let (log, clock) = (CallLog::new(), Arc::new(SimClock::default()));
        let mut tuning = tuning(&random);
        tuning.policy.replay = Replay::after(increments_max, increment_bytes_max);
        tuning.journal.queue_bytes_max = queue_bytes_max;
        tuning.limits.overlay_bytes_max = 1 << 20;
        let store = new_store(&log, &clock, &random);
        let machine = Machine { disk: SimDisk::new(&log), cache: cache_disk(), store, clock, tuning, tolerant: false };
        let mut scene = Scene { machine, instance: None, model: new_model(), driver: Driver::default(), mounts: 0 };
        scene.mount();
        scene
    }

    fn instance(&mut self) -> &mut Instance {
        self.instance.as_mut().expect("mounted")
    }

    /// The process dies and another one starts.
    fn mount(&mut self) {
        self.instance = None;
        self.driver = Driver::default();
        self.mounts += 1;
        self.instance = Some(self.machine.mount(self.mounts).expect("mounts"));
    }

    /// A new file, and a checkpoint wanted.
    fn write(&mut self, name: &str) {
        let path = format!("/{name}");
        let make = Call::Create { path: path.clone(), mode: 0o644 };
        let fill = Call::Write { at: At::Path(path), offset: 0, len: 5000, fill: 7 };
        self.apply(make);
        self.apply(fill);
        self.instance().mounted.checkpointer.wanted().checkpoint();
    }

    fn apply(&mut self, call: Call) {
        let op = Op { who: ROOT, call };
        let now = next_time(&self.model);
        let expected = self.model.apply(&op);
        let instance = self.instance.as_mut().expect("mounted");
        assert_eq!(self.driver.apply(instance, now, &op), expected);
    }

    fn step(&mut self, times: u32) {
        self.instance().step_times(times);
    }

    fn drain(&mut self) {
        self.instance().drain(&mut |_| {});
    }

    /// Drained, all accounts are right, and another machine finds the same.
    fn end(mut self) {
        self.drain();
        let instance = self.instance.take().expect("mounted");
        check_trees(&instance);
        check_accounts(&instance, false);
        drop(instance);
        let disk = SimDisk::new(self.machine.disk.log());
        let mut moved = Machine { disk, ..self.machine }.mount(99).expect("mounts from the store alone");
        assert_eq!(digest(&moved.tree()), digest(&self.model.tree()), "from the store alone");
    }
}

#[test]
fn node_segments_of_a_base_that_was_never_published_are_known() {
    let mut scene = Scene::new(1, 1 << 20, 64 << 10);
    scene.write("a");
    scene.drain();
    scene.machine.store.fail(Nth::new(1).of(StoreOp::Create).on("gen/").forever(), StoreFault::Refused);
    for name in ["b", "c", "d"] {
        scene.write(name);
        scene.step(40);
    }
    scene.mount();
    scene.machine.store.heal();
    scene.write("e");
    scene.end();
}

#[test]
fn a_generation_that_a_dead_life_closed_goes_on_with_a_base() {
    let mut scene = Scene::new(100, 1 << 10, 64 << 10);
    for name in ["a", "b", "c"] {
        scene.write(name);
        scene.drain();
        scene.machine.store.fail(Nth::new(2).of(StoreOp::Create).on("gen/").forever(), StoreFault::Refused);
        scene.write(&format!("{name}2"));
        scene.step(60);
        scene.machine.store.heal();
        scene.mount();
        scene.write(&format!("{name}3"));
        scene.drain();
    }
    scene.end();
}

#[test]
fn a_long_outage_ends_though_the_queue_is_small() {
    let mut scene = Scene::new(100, 1 << 20, 8 << 10);
    scene.machine.store.set_down(true);
    for n in 0..9 {
        scene.write(&format!("file {n}"));
        scene.step(30);
    }
    scene.machine.store.set_down(false);
    scene.end();
}

#[test]
fn a_base_over_nodes_that_nobody_read_here_is_published() {
    let mut scene = Scene::new(1, 1 << 20, 64 << 10);
    for n in 0..20 {
        scene.write(&format!("file {n}"));
    }
    scene.drain();
    scene.instance = None;
    scene.machine.disk = SimDisk::new(scene.machine.disk.log());
    scene.mount();
    scene.write("written by another");
    scene.drain();
    let folder = |name: &&str| name.starts_with("seg/");
    let before = scene.machine.store.image().names().filter(folder).count();
    scene.write("and again");
    scene.drain();
    let after = scene.machine.store.image().names().filter(folder).count();
    assert!(after <= before + 6, "nothing piles up: {before}, then {after} segments");
    scene.end();
}

#[test]
fn room_that_a_batch_did_not_use_is_given_back() {
    let mut scene = Scene::new(100, 1 << 20, 64 << 10);
    scene.write("file");
    for len in (1..8000).step_by(9) {
        let call = Call::Write { at: At::Path("/file".to_owned()), offset: 0, len, fill: 3 };
        scene.apply(call);
    }
    scene.end();
}

#[test]
fn a_machine_taken_over_from_is_refused_as_such_when_its_last_publication_is_deleted() {
    let mut scene = Scene::new(100, 1 << 20, 64 << 10);
    for name in ["a", "b"] {
        scene.write(name);
        scene.drain();
    }
    scene.write("c");
    let shipped = scene.instance().shipped;
    while scene.instance().shipped == shipped {
        scene.step(1);
    }
    let old = scene.machine.disk.image_durable();
    scene.instance = None;
    scene.machine.disk = SimDisk::new(scene.machine.disk.log());
    scene.mount();
    for name in ["d", "e", "f"] {
        scene.write(name);
        scene.drain();
    }
    let log = CallLog::new();
    let store = SimStore::from_image(&scene.machine.store.image(), &log);
    assert!(store.image().object(&publication(2, 1)).is_none(), "the new owner has deleted what it took over");
    let old = Machine { disk: SimDisk::from_image(&old, &log), store, ..scene.machine.clone() };
    assert!(matches!(old.mount(7), Err(MountError::Fenced(_))));
    scene.end();
}

#[test]
fn a_machine_whose_nodes_are_deleted_since_it_was_taken_over_from_is_refused_as_such() {
    let mut scene = Scene::new(1, 1 << 20, 64 << 10);
    let write_all = |scene: &mut Scene| {
        for n in 0..20 {
            scene.write(&format!("file {n}"));
            scene.drain();
        }
    };
    write_all(&mut scene);
    // This machine changes no file: the root of its map of files is in the store alone.
    scene.machine.disk = SimDisk::new(scene.machine.disk.log());
    scene.mount();
    let old = scene.machine.disk.image_durable();
    scene.machine.disk = SimDisk::new(scene.machine.disk.log());
    scene.mount();
    write_all(&mut scene);
    let log = CallLog::new();
    let store = SimStore::from_image(&scene.machine.store.image(), &log);
    let old = Machine { disk: SimDisk::from_image(&old, &log), store, ..scene.machine.clone() };
    let refused = old.mount(7).err();
    assert!(matches!(refused, Some(MountError::Fenced(_))), "{refused:?}");
    scene.end();
}

#[test]
fn an_old_copy_that_is_mounted_without_the_store_is_refused_by_it_later() {
    let mut scene = Scene::new(100, 1 << 20, 64 << 10);
    scene.write("a");
    scene.drain();
    let copy = scene.machine.disk.image();
    scene.write("b");
    scene.drain();
    scene.instance = None;
    scene.machine.disk = SimDisk::from_image(&copy, scene.machine.disk.log());
    let there = |scene: &Scene| SimStore::from_image(&scene.machine.store.image(), &CallLog::new());
    let refused =
        Machine { store: there(&scene), disk: SimDisk::from_image(&copy, &CallLog::new()), ..scene.machine.clone() };
    let refused = refused.mount(7).err();
    assert!(matches!(refused, Some(MountError::OldState { .. })), "{refused:?}");

    scene.machine.store.set_down(true);
    let mut old = scene.machine.mount(8).expect("mounts without the store");
    let root = Who { uid: 0, gid: 0 };
    for n in 0..3 {
        let made = old.run(root, Time::default(), |fs, cx| fs.mkdir(cx, InodeNo::ROOT, &[b'x' + n], 0o755));
        made.expect("with a number that was given before");
        old.mounted.checkpointer.wanted().checkpoint();
        old.step_times(20);
    }
    assert!(old.offline(), "the store was not needed");
    let before = scene.machine.store.image().hash();
    scene.machine.store.set_down(false);
    old.step_times(20);
    assert!(old.fenced, "however far it came since, it began with less than it had published");
    assert_eq!(scene.machine.store.image().hash(), before, "nothing in the store changed");
    let latched = old.mounted.db.journal().stats().latched.expect("it takes nothing more");
    assert!(latched.contains("old copy"), "{latched}");
}

/// What the machine had published and not yet recorded when it died is taken up once the store answers, and nothing twice.
#[test]
fn a_publication_that_a_dead_life_did_not_record_is_taken_up_when_the_store_is_back() {
    for increments_max in [1, 100] {
        let mut scene = Scene::new(increments_max, 1 << 20, 64 << 10);
        scene.write("a");
        scene.drain();
        scene.write("b");
        let shipped = scene.instance().shipped;
        while scene.instance().shipped == shipped {
            scene.step(1);
        }
        let disk = scene.machine.disk.image_durable();
        scene.instance = None;
        scene.machine.disk = SimDisk::from_image(&disk, scene.machine.disk.log());
        scene.machine.store.set_down(true);
        scene.mount();
        for name in ["c", "d"] {
            scene.write(name);
            scene.step(30);
        }
        assert!(scene.instance().offline());
        scene.machine.store.set_down(false);
        scene.end();
    }
}
