//! More leases than anybody looks at.

use crate::{honest, life};
use skylog::base::clock::SimClock;
use skylog::base::random::SeededRandom;
use skylog::check::{Depth, check};
use skylog::format::ids::Uuid;
use skylog::format::lease::{FOLLOWER_SECONDS, Lease, LeaseKind, LeaseState, Owner};
use skylog::format::names::{self, LEASES};
use skylog::media::sim::{CallLog, SimDisk};
use skylog::recovery::{Holding, MountError, Mounted, Tuning, World, mount};
use skylog::rig::{known, small};
use skylog::ship::leases::{HOLDERS_KEPT, NUMBERS_KEPT};
use skylog::store::Store;
use skylog::store::sim::SimStore;
use std::sync::Arc;

/// The honest store with `count` followers that have ended, and behind them a writer that lives.
fn crowded(count: usize) -> SimStore {
    let (store, base) = (honest().store(), honest().base);
    let ended = (1..=count as u128).map(|who| (who, LeaseKind::Follower, LeaseState::Released));
    for (who, kind, state) in ended.chain([(u128::MAX, LeaseKind::Writer, LeaseState::Held)]) {
        let lease = Lease {
            filesystem: base.uuid,
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
    store
}

fn mount_as(store: &SimStore, holding: Holding) -> Result<Mounted, MountError> {
    let disk = Arc::new(SimDisk::new(&CallLog::new()));
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
    let problems = check(&shared, None, Depth::Metadata, &mut |_, _, _| {}).problems;
    assert!(problems.iter().any(|problem| problem.to_string().contains("more than 4096 holders")), "{problems:?}");

    mount_as(&store, Holding::TakesOver).expect("that was meant");
    assert_eq!(store.list(&names::lease(Uuid(u128::MAX), 0)[..39]).expect("listed").len(), 1, "nobody looked at it");
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
