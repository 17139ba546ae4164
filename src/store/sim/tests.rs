//! The simulated store breaks the promises of a store on demand (that it keeps them else is tested with the others), and crashes together with a disk.

use super::*;
use crate::base::random::SeededRandom;
use crate::media::Media;
use crate::media::sim::{DiskFault, DiskOp, Limits, SimDisk};
use crate::store::probe_create;
use std::collections::{BTreeMap, BTreeSet};

fn world() -> (SimDisk, SimStore) {
    let log = CallLog::new();
    (SimDisk::new(&log), SimStore::new(&log))
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn promise_x4_the_probe_refuses_a_store_that_forgets_objects() {
    let (_, store) = world();
    store.fail(Nth::new(1).of(StoreOp::Create), StoreFault::Refused);
    assert!(probe_create(&store, &SeededRandom::new(1)).is_err());

    struct Overwrites(SimStore);
    impl Store for Overwrites {
        fn get(&self, name: &str) -> Result<Bytes, StoreError> {
            self.0.get(name)
        }
        fn get_some(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
            self.0.get_some(name, range)
        }
        fn size(&self, name: &str) -> Result<u64, StoreError> {
            self.0.size(name)
        }
        fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
            self.0.put(name, bytes)
        }
        fn create(&self, name: &str, bytes: Bytes) -> Result<Created, StoreError> {
            self.0.put(name, bytes).map(|()| Created::New)
        }
        fn delete(&self, name: &str) -> Result<(), StoreError> {
            self.0.delete(name)
        }
        fn walk(&self, prefix: &str, each: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(), StoreError> {
            self.0.walk(prefix, each)
        }
        fn publish_local(&self, file: &Path, name: &str) -> Result<bool, StoreError> {
            self.0.publish_local(file, name)
        }
    }
    let bad = Overwrites(world().1);
    let words = probe_create(&bad, &SeededRandom::new(1)).expect_err("noticed");
    assert!(words.contains("does not refuse to create an object twice"), "{words}");
    assert_eq!(bad.0.image().names().count(), 0);
}

#[test]
fn an_outage_changes_nothing_and_ends() {
    let (_, store) = world();
    store.put("a", bytes("x")).expect("put");
    store.set_down(true);
    assert!(store.get("a").is_err() && store.put("b", bytes("y")).is_err() && store.list("").is_err());
    store.set_down(false);
    assert_eq!(store.list("").expect("listed"), ["a"]);
    assert_eq!(store.log().len(), 1);
}

#[test]
fn a_call_is_refused_or_its_answer_lost_or_it_lands_later() {
    let (_, store) = world();
    store.fail(Nth::new(1).of(StoreOp::Put).on("seg/"), StoreFault::Refused);
    store.fail(Nth::new(2).of(StoreOp::Put).on("seg/"), StoreFault::AnswerLost);
    store.fail(Nth::new(3).of(StoreOp::Put).on("seg/"), StoreFault::Adrift);
    for name in ["win/1", "seg/1", "seg/2", "seg/3", "seg/4"] {
        assert_eq!(store.put(name, bytes("x")).is_ok(), ["win/1", "seg/4"].contains(&name), "{name}");
    }
    assert_eq!(store.list("seg").expect("listed"), ["seg/2", "seg/4"]);
    assert_eq!((store.failed(), store.land_adrift()), (3, 1));
    assert_eq!(store.list("seg").expect("listed"), ["seg/2", "seg/3", "seg/4"]);
    assert_eq!(store.land_adrift(), 0);
}

#[test]
fn a_create_that_lands_late_takes_nothing_from_another_writer() {
    let (_, store) = world();
    store.fail(Nth::new(1), StoreFault::Adrift);
    assert!(store.create("gen/1/5", bytes("ours")).is_err());
    assert_eq!(store.create("gen/1/5", bytes("theirs")).expect("answered"), Created::New);
    store.land_adrift();
    assert_eq!(store.get("gen/1/5").expect("there"), bytes("theirs"));
}

#[test]
fn the_hash_follows_the_objects() {
    let (_, store) = world();
    let empty = store.image().hash();
    store.put("a", bytes("x")).expect("put");
    let one = store.image().hash();
    store.put("a", bytes("y")).expect("put");
    assert_ne!(store.image().hash(), one);
    store.put("a", bytes("x")).expect("put");
    assert_eq!(store.image().hash(), one);
    store.delete("a").expect("deleted");
    assert_eq!(store.image().hash(), empty);
}

/// Calls before, file `a`, object names, whether something is late.
type Found = (usize, Option<Vec<u8>>, Vec<String>, bool);

fn states(recording: &Recording) -> BTreeSet<Found> {
    let state = |crash: Crash| {
        let file = crash.disk.file("a").map(|content| content.to_vec());
        (crash.after, file, crash.store.names().map(str::to_owned).collect(), crash.late.is_some())
    };
    recording.crashes(&Limits::default()).map(state).collect()
}

#[test]
fn a_crash_finds_disk_and_store_at_the_same_moment() {
    let (disk, store) = world();
    let file = disk.create("a").expect("new");
    disk.sync_dir("").expect("synced");
    file.write_at(b"x", 0).expect("written");
    store.put("o", bytes("1")).expect("put");
    file.sync().expect("synced");
    let states = states(&Recording::of(&disk, &store));
    let (empty, x) = (Some(Vec::new()), Some(b"x".to_vec()));
    let (none, o) = (Vec::new(), vec!["o".to_owned()]);
    let zero = Some(vec![0]);
    // The file grew without its byte; the two junk values are one state here.
    let junk = Some(vec![0xA5]);
    let mut expected = BTreeSet::from([
        (0, None, none.clone(), false),
        (1, None, none.clone(), false),
        (1, empty.clone(), none.clone(), false),
        (2, empty.clone(), none.clone(), false),
        (5, x.clone(), o.clone(), false),
    ]);
    for file in [empty, zero, junk, x] {
        expected.insert((3, file.clone(), none.clone(), false));
        expected.insert((3, file.clone(), none.clone(), true));
        expected.insert((4, file.clone(), o.clone(), false));
    }
    assert_eq!(states, expected);
}

#[test]
fn the_states_of_one_moment_are_distinct_and_a_part_of_a_run_gives_the_same() {
    let (disk, store) = world();
    for number in 0..6 {
        let file = disk.create(&format!("f{number}")).expect("new");
        file.write_at(&[number; 3000], 500).expect("written");
        store.put("o", vec![number].into()).expect("put");
    }
    let recording = Recording::of(&disk, &store);
    let limits = Limits { plans_max: 200, ..Limits::default() };
    let mut moments: BTreeMap<usize, Vec<u128>> = BTreeMap::new();
    for crash in recording.crashes(&limits) {
        moments.entry(crash.after).or_default().push(crash.hash);
    }
    assert_eq!(moments.keys().copied().collect::<Vec<_>>(), (0..=18).collect::<Vec<_>>());
    for (moment, hashes) in &moments {
        assert_eq!(BTreeSet::from_iter(hashes).len(), hashes.len(), "at {moment}");
    }
    let part: Vec<u128> = recording.crashes_between(&limits, 7..=9).map(|crash| crash.hash).collect();
    assert_eq!(part, moments.range(7..=9).flat_map(|(_, hashes)| hashes.clone()).collect::<Vec<_>>());
}

#[test]
fn what_is_adrift_at_a_crash_landed_or_lands_later_or_never() {
    let (disk, store) = world();
    store.fail(Nth::new(1), StoreFault::Adrift);
    assert!(store.put("o", bytes("1")).is_err());
    let recording = Recording::of(&disk, &store);
    let found: Vec<Crash> = recording.crashes(&Limits::default()).filter(|crash| crash.after == 1).collect();
    let seen: BTreeSet<(usize, bool)> = found.iter().map(|c| (c.store.names().count(), c.late.is_some())).collect();
    assert_eq!(seen, BTreeSet::from([(0, false), (0, true), (1, false)]));

    store.put("o", bytes("1")).expect("tried again");
    store.delete("o").expect("deleted");
    let recording = Recording::of(&disk, &store);
    let late = recording.crashes(&Limits::default()).find(|crash| crash.after == 3 && crash.late.is_some());
    let late = late.expect("the first put is still on its way");
    let next = SimStore::from_image(&late.store, &CallLog::new());
    next.land(late.late.as_ref().expect("late"));
    assert_eq!(next.get("o").expect("landed"), bytes("1"));

    store.land_adrift();
    let recording = Recording::of(&disk, &store);
    assert!(recording.crashes_between(&Limits::default(), 4..=4).all(|crash| crash.late.is_none()));
}

#[test]
fn each_machine_has_a_disk_of_its_own_beside_one_store() {
    let log = CallLog::new();
    let (a, b, store) = (SimDisk::new(&log), SimDisk::new(&log), SimStore::new(&log));
    a.create("a").expect("new");
    log.mark(7);
    store.put("o", bytes("1")).expect("put");
    b.create("b").expect("new");
    a.fail(Nth::new(1).of(DiskOp::SyncDir), DiskFault::Failed);
    assert!(a.sync_dir("").is_err());
    let recording = Recording::of(&b, &store);
    assert_eq!(recording.marks(1).count(), 0);
    assert_eq!(recording.marks(2).collect::<Vec<_>>(), [7]);
    assert!(recording.crashes(&Limits::default()).all(|crash| crash.disk.file("a").is_none()));
    assert!(recording.crashes(&Limits::default()).any(|crash| crash.disk.file("b").is_some()));
}
