//! More leases than anybody looks at.

use crate::{honest, life};
use skylog::base::clock::SimClock;
use skylog::base::random::SeededRandom;
use skylog::check::{Depth, check};
use skylog::format::ids::{InodeNo, Uuid};
use skylog::format::lease::{FOLLOWER_SECONDS, LEASE_NUMBER_MAX, Lease, LeaseKind, LeaseState, Owner};
use skylog::format::names::{self, LEASES};
use skylog::media::Media;
use skylog::media::sim::{CallLog, SimDisk};
use skylog::recovery::{Holding, MountError, Mounted, Tuning, World, mount, superblock};
use skylog::repair::{Means, repair};
use skylog::rig::{Rig, known, small};
use skylog::ship::leases::{HOLDERS_KEPT, NUMBERS_KEPT};
use skylog::store::Store;
use skylog::store::sim::SimStore;
use std::sync::Arc;

/// Puts `count` followers that have ended into a store.
fn put_ended(store: &SimStore, filesystem: Uuid, count: usize) {
    (1..=count as u128).for_each(|who| put(store, filesystem, who, LeaseKind::Follower, LeaseState::Released));
}

fn put(store: &SimStore, filesystem: Uuid, who: u128, kind: LeaseKind, state: LeaseState) {
    let lease = Lease {
        filesystem,
        who: Uuid(who),
        number: 1,
        kind,
        state,
        owner: Owner::of_test("elsewhere"),
        since: 0,
        wall: 0,
        seconds: if kind == LeaseKind::Follower { FOLLOWER_SECONDS } else { 0 },
        checkpoint: 0,
        epoch: u32::from(kind == LeaseKind::Writer),
    };
    store.put(&names::lease(lease.who, 1), lease.encode().into()).expect("put");
}

/// The honest store with `count` followers that have ended, and behind them a writer that lives.
fn crowded(count: usize) -> SimStore {
    let (store, base) = (honest().store(), honest().base);
    put_ended(&store, base.uuid, count);
    put(&store, base.uuid, u128::MAX, LeaseKind::Writer, LeaseState::Held);
    store
}

fn mount_as(store: &SimStore, holding: Holding) -> Result<Mounted, MountError> {
    mount_on(&SimDisk::new(&CallLog::new()), store, holding)
}

fn mount_on(disk: &SimDisk, store: &SimStore, holding: Holding) -> Result<Mounted, MountError> {
    let disk = Arc::new(disk.clone());
    let world = World {
        media: disk.clone(),
        cache_media: disk,
        store: Arc::new(store.clone()),
        clock: Arc::new(SimClock::default()),
        random: Arc::new(SeededRandom::new(5)),
        known: known(store),
    };
    mount(&world, &Tuning { owner: Owner::of_test("here"), holding, ..small() }, &mut |_, _| {})
}

fn refusal(store: &SimStore) -> String {
    let refused = mount_as(store, Holding::Asks).err().expect("somebody may hold it");
    refused.to_string()
}

#[test]
fn a_holder_behind_more_leases_than_are_looked_at_loses_nothing_without_a_word() {
    let known = refusal(&crowded(HOLDERS_KEPT - 1));
    assert!(known.contains("held by process 1 on elsewhere"), "{known}");
    let store = crowded(HOLDERS_KEPT);
    let gets = store.gets();
    let unknown = refusal(&store);
    assert!(unknown.contains(LEASES) && unknown.contains("more than 4096 holders"), "{unknown}");
    assert!(unknown.contains("--takeover"), "{unknown}");
    assert!(store.gets() - gets < HOLDERS_KEPT as u64 + 20, "{} requests", store.gets() - gets);

    let shared: Arc<dyn Store> = Arc::new(store.clone());
    let report = check(&shared, None, Depth::Metadata, &mut |_, _, _| {});
    assert!(report.notes.iter().any(|note| note.contains("more than 4096 holders")), "{:?}", report.notes);

    mount_as(&store, Holding::TakesOver).expect("that was meant");
    assert_eq!(store.list(&names::lease(Uuid(u128::MAX), 0)[..39]).expect("listed").len(), 1, "nobody looked at it");
}

#[test]
fn a_crowd_that_has_ended_is_noted_and_nothing_is_repaired_for_it() {
    let mut rig = Rig::new(3, &small());
    rig.run(|fs, cx| fs.create(cx, InodeNo::ROOT, b"file", 0o644)).expect("created");
    rig.drain();
    put_ended(&rig.store, superblock(&rig.store).expect("readable").uuid, HOLDERS_KEPT + 1);
    let state: Arc<dyn Media> = Arc::new(SimDisk::from_image(&rig.disk.image(), &CallLog::new()));
    for (state, holding) in [(Some(state), Holding::Asks), (None, Holding::TakesOver)] {
        let means = Means {
            store: Arc::new(rig.store.clone()),
            state,
            clock: Arc::new(SimClock::default()),
            random: Arc::new(SeededRandom::new(5)),
            owner: Owner::of_test("here"),
            holding,
            not_append_only: false,
            segment_bytes: small().policy.segment_bytes,
            shape: small().policy.shape,
        };
        let before = rig.store.image().hash();
        let report = repair(&means, false, &mut |_, _, _| {}).expect("there is nothing to do");
        assert!(report.was_clean() && report.base.is_none(), "{:?}", report.before.problems);
        let [note] = &report.before.notes[..] else { panic!("{:?}", report.before.notes) };
        assert!(note.contains("more than 4096 holders") && note.contains("ten minutes"), "{note}");
        assert_eq!(rig.store.image().hash(), before, "{holding:?}");
    }
}

#[test]
fn a_crowd_of_leases_and_of_numbers_is_survived() {
    let store = crowded(HOLDERS_KEPT + 100);
    for number in 2..NUMBERS_KEPT as u64 * 20 {
        store.put(&names::lease(Uuid(1), number), "no lease".into()).expect("put");
    }
    let lived = life::live(&store);
    assert!(lived.read > 10 && lived.changed > 10, "{lived:?}");
}

#[test]
fn numbers_of_leases_at_their_ends_are_survived() {
    for number in [LEASE_NUMBER_MAX - 1, LEASE_NUMBER_MAX, LEASE_NUMBER_MAX + 1, u64::MAX - 1, u64::MAX] {
        let store = honest().store();
        let name = names::lease(Uuid(7), number);
        store.put(&name, "no lease".into()).expect("put");
        let lived = life::live(&store);
        assert!(lived.read > 10 && lived.changed > 10, "{number}: {lived:?}");
        // Names that are not ours are none of ours to judge. What is at the last number is not read.
        let said = lived.refused.iter().any(|why| why.contains(&name));
        assert_eq!(said, number < LEASE_NUMBER_MAX, "{number}: {:?}", lived.refused);
    }
}

#[test]
fn whoever_holds_a_filesystem_says_so_below_numbers_at_their_ends() {
    let store = honest().store();
    let disk = SimDisk::new(&CallLog::new());
    drop(mount_on(&disk, &store, Holding::Asks).expect("nobody holds it"));
    let [said] = &store.list(LEASES).expect("listed")[..] else { panic!("one holder") };
    let first = Lease::decode(&store.get(said).expect("there")).expect("whole");
    for number in [LEASE_NUMBER_MAX, LEASE_NUMBER_MAX - 1, u64::MAX] {
        store.put(&names::lease(first.who, number), "no lease".into()).expect("put");
    }
    drop(mount_on(&disk, &store, Holding::TakesOver).expect("its own"));
    let foreign = names::lease(first.who, u64::MAX);
    assert_eq!(store.list(LEASES).expect("listed"), [names::lease(first.who, first.number + 1), foreign]);
}
