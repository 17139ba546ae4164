//! Takeovers of a filesystem whose increments hold more changes than a mount has in memory: trees are made of them on the way.

use super::tails::{Busy, assert_holds, get, put, remove};
use super::{Rig, small};
use crate::check::{Depth, check};
use crate::checkpoint::Replay;
use crate::checkpoint::nodes::{NODES, parse_node_file};
use crate::format::ids::SegmentNo;
use crate::format::names;
use crate::format::publication::{Body, Publication};
use crate::map::reachable_segments;
use crate::media::Media;
use crate::media::sim::{CallLog, SimDisk};
use crate::recovery::{Fetcher, Tuning, World, mount, read_remote, superblock};
use crate::store::Store;
use crate::store::sim::{SimStore, StoreImage};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What changes of increments may take in memory.
const BYTES_MAX: u64 = 16 << 10;

/// A writer that publishes no second base.
fn writer() -> Tuning {
    let mut tuning = small();
    tuning.policy.replay = Replay::after(100_000, 1 << 40);
    tuning
}

fn taker() -> Tuning {
    let mut tuning = small();
    tuning.fold_bytes = BYTES_MAX;
    tuning
}

/// Many windows; what is made in one is changed and removed in later ones.
fn filled(rounds: u64) -> Rig {
    let mut rig = Rig::new(5, &writer());
    fill(&mut rig, 0..rounds);
    rig
}

fn fill(rig: &mut Rig, rounds: std::ops::Range<u64>) {
    for round in rounds {
        for n in 0..12 {
            put(rig, &format!("file-{round}-{n}"), 200 + 700 * n);
        }
        if round > 1 {
            (0..4).for_each(|n| remove(rig, &format!("file-{}-{n}", round - 1)));
        }
        rig.drain();
    }
}

fn assert_filled(rig: &mut Rig, rounds: u64) {
    for round in 0..rounds {
        for n in 0..12 {
            let name = format!("file-{round}-{n}");
            match round > 0 && round + 1 < rounds && n < 4 {
                true => assert_eq!(get(rig, &name), None, "{name}"),
                false => assert_holds(rig, &name, 200 + 700 * n),
            }
        }
    }
}

fn assert_clean(store: &SimStore, disk: Option<&SimDisk>, when: &str) {
    let disk = disk.map(|disk| Arc::new(SimDisk::from_image(&disk.image_durable(), &CallLog::new())) as Arc<dyn Media>);
    let store: Arc<dyn Store> = Arc::new(SimStore::from_image(&store.image(), &CallLog::new()));
    let report = check(&store, disk, Depth::Data, &mut |_, _, _| {});
    assert!(report.is_clean(), "{when}: {:#?}", report.problems);
}

/// Bytes of changes that lie over the base.
fn changes(store: &SimStore) -> u64 {
    let uuid = superblock(store).expect("there is one").uuid;
    let remote = read_remote(store, uuid, &Fetcher::new(1)).expect("read");
    remote.overlays.iter().map(crate::map::Overlay::bytes).sum()
}

fn taken_over(image: &StoreImage, tuning: &Tuning) -> Rig {
    let log = CallLog::new();
    let (disk, store) = (SimDisk::new(&log), SimStore::from_image(image, &log));
    Rig::mount(log, disk, store, Arc::default(), 9, tuning).expect("taken over")
}

fn local_segments(rig: &Rig) -> BTreeSet<SegmentNo> {
    let names = rig.disk.list(NODES).expect("listed");
    names.iter().map(|name| parse_node_file(name).expect("a node segment")).collect()
}

/// Of the epoch that was won nothing is here but what the trees lie in, and of others copies only. Says what is here of it, and
/// how often trees were made on the way.
fn assert_tidy(rig: &Rig) -> (BTreeSet<SegmentNo>, u64) {
    let mut reached = BTreeSet::new();
    for root in rig.mounted.db.roots() {
        reached.extend(reachable_segments(root, &*rig.mounted.nodes).expect("whole"));
    }
    let epoch = rig.mounted.db.journal().manifest().current().epoch;
    let (found, copies): (BTreeSet<SegmentNo>, BTreeSet<_>) =
        local_segments(rig).into_iter().partition(|no| no.epoch == epoch);
    assert!(copies.iter().all(|no| rig.store.size(&names::segment(*no)).is_ok()), "{copies:?} in epoch {epoch}");
    assert_eq!(found, reached.into_iter().filter(|no| no.epoch == epoch).collect());
    (found, rig.mounted.taken_over.expect("taken over").folds)
}

#[test]
fn changes_that_take_too_much_memory_become_trees_on_the_way() {
    let rig = filled(12);
    let image = rig.store.image();
    assert!(changes(&rig.store) > 6 * BYTES_MAX, "{} bytes", changes(&rig.store));
    for fetches in [1, 16] {
        let mut other = taken_over(&image, &Tuning { fetches, ..taker() });
        assert!(assert_tidy(&other).1 > 3, "trees were made on the way");
        assert_filled(&mut other, 12);
        assert_clean(&other.store, Some(&other.disk), "taken over");
        fill(&mut other, 12..14);
        assert_clean(&other.store, Some(&other.disk), "went on");
        assert_clean(&other.store, None, "went on, the store alone");
        let mut third = taken_over(&other.store.image(), &taker());
        assert_filled(&mut third, 14);
    }
    // With enough memory for them all none is made.
    assert_eq!(assert_tidy(&taken_over(&image, &writer())).1, 0);
}

/// Who died between the closing object and its base has the epoch after the generation that is read, and may have used its names.
#[test]
fn trees_made_on_the_way_never_lie_in_an_epoch_that_somebody_else_has() {
    let rig = filled(12);
    let second = taken_over(&rig.store.image(), &taker());
    let epoch = second.mounted.db.journal().manifest().current().epoch;
    // Nothing was published by it but that.
    let mut third = taken_over(&second.store.image(), &taker());
    let (found, folds) = assert_tidy(&third);
    assert!(folds > 3, "trees were made on the way");
    assert!(found.iter().all(|no| no.epoch > epoch), "{found:?}, the second had {epoch}");
    assert_filled(&mut third, 12);
    fill(&mut third, 12..13);
    assert_clean(&third.store, Some(&third.disk), "went on");
    assert_filled(&mut taken_over(&third.store.image(), &taker()), 13);
}

/// The writer lives, and publishes a window whenever the number is to be won.
#[test]
fn windows_that_are_published_meanwhile_lie_over_trees_that_were_made_on_the_way() {
    let mut rig = filled(12);
    let before: BTreeSet<String> = rig.store.image().names().map(str::to_owned).collect();
    fill(&mut rig, 12..17);
    let log = CallLog::new();
    let store = SimStore::from_image(&rig.store.image(), &log);
    let mut publications = Vec::new();
    for name in rig.store.image().names().filter(|name| name.starts_with("gen/") && !before.contains(*name)) {
        publications.push(Publication::decode(&store.get(name).expect("there")).expect("whole"));
        store.delete(name).expect("deleted");
    }
    publications.reverse();
    let windows = publications.iter().filter(|publication| matches!(publication.body, Body::Increment(_))).count();
    assert!((3..8).contains(&windows), "{windows} windows");
    let disk = SimDisk::new(&log);
    let busy = Arc::new(Busy { store: store.clone(), publications: publications.into() });
    let world = World { media: Arc::new(disk.clone()), store: busy.clone(), ..rig.world.clone() };
    drop(mount(&world, &taker(), &mut |_, _| {}).expect("taken over"));
    assert!(busy.publications.lock().is_empty());
    let mut other = Rig::mount(log, disk, store, Arc::default(), 5, &taker()).expect("mounts");
    assert_filled(&mut other, 17);
    other.drain();
    assert_clean(&other.store, Some(&other.disk), "went on");
}
