//! What looks like a part of the filesystem's past and is none: what a writer that was taken over put into the store and did not
//! publish, and what a merge left that never became a checkpoint.

use super::history::{built, file_edits};
use super::*;
use crate::base::random::SeededRandom;
use crate::format::ids::Nonce;
use crate::format::publication::{Base, Body, Closing, Publication};
use crate::map::reachable_segments;

/// Puts all node files into the store.
fn ship(built: &Built) {
    for file in built.disk.list("nodes").expect("listed") {
        let no = crate::checkpoint::nodes::parse_node_file(&file).expect("a segment");
        built.store.put(&names::segment(no), read_file(&built.disk, &node_file(no)).expect("read")).expect("put");
    }
}

fn put(built: &Built, generation: u64, number: u64, body: Body) {
    let publication = Publication {
        uuid: UUID,
        state: Uuid(u128::from(built.epoch)),
        nonce: Nonce(1),
        epoch: built.epoch,
        generation,
        number,
        wall: 0,
        checkpoint: generation,
        start: Lsn::ZERO,
        end: Lsn::ZERO,
        body,
    };
    built.store.put(&names::publication(generation, number), publication.encode().into()).expect("put");
}

fn publish(built: &Built, generation: u64) {
    ship(built);
    let mut segments = std::collections::BTreeSet::new();
    for root in built.roots {
        segments.extend(reachable_segments(root, &built.nodes()).expect("whole"));
    }
    let sized = |no: &SegmentNo| (*no, built.store.size(&names::segment(*no)).expect("there"));
    let node_segments = segments.iter().map(sized).collect();
    put(built, generation, 0, Body::Base(Base { roots: built.roots, node_segments, ..Base::default() }));
}

/// A filesystem that was taken over in generation 2, and what the writer of before had in the store by then.
fn taken_over(seed: u64) -> Built {
    let random = SeededRandom::new(seed);
    let mut serial = 500_000;
    let mut built = built(seed);
    publish(&built, 1);
    let mut loser = built.copy();
    for _ in 0..3 {
        loser.checkpoint([&file_edits(&random, &mut serial, 25), &[]]);
    }
    ship(&loser);
    for name in loser.store.list("seg").expect("listed") {
        built.store.put(&name, loser.store.get(&name).expect("there")).expect("put");
    }
    (built.epoch, built.number) = (2, 100);
    for _ in 0..2 {
        built.checkpoint([&file_edits(&random, &mut serial, 4), &[]]);
    }
    publish(&built, 2);
    let disk = built.disk.list("nodes").expect("listed");
    disk.iter().for_each(|file| built.disk.remove(&format!("nodes/{file}")).expect("removed"));
    built
}

#[test]
fn what_was_never_published_is_not_found() {
    for seed in 0..6 {
        let original = taken_over(seed);
        assert_eq!(original.files(), (original.models[0].clone(), vec![]));
        for (ptr, node) in original.tree().into_iter().filter(|(_, node)| node.level() > 0) {
            let copy = original.copy();
            copy.flip(&ptr);
            let (left, lost) = copy.files();
            let what = format!("seed {seed}, {ptr:?} of level {}", node.level());
            copy.judge(&left, &lost, &what);
            for (key, value) in &copy.models[0] {
                assert_eq!(left.get(key), Some(value), "{what}: {key:?}");
            }
        }
    }
}

/// A base that cannot be read may have named what no other does: nothing that it may have named is left out.
#[test]
fn a_damaged_base_costs_no_node_that_it_named() {
    for seed in 0..4 {
        for change in [true, false] {
            let built = taken_over(seed);
            let newest = names::publication(2, 0);
            // Of a generation of which nothing else is there nobody can say that it had a base.
            put(&built, 2, 1, Body::Closing(Closing { next_epoch: 3, owner: "another".to_owned() }));
            match change {
                true => built.store.put(&newest, Bytes::from_static(b"damaged")).expect("put"),
                false => built.store.delete(&newest).expect("deleted"),
            }
            for root in [Some(built.roots[0]), None] {
                let (left, _) = built.left(root, &[]);
                for (key, value) in &built.models[0] {
                    assert_eq!(left.get(key), Some(value), "seed {seed}: {key:?}");
                }
            }
        }
    }
}

/// Trees that a repair made and did not come to publish, while the base that it was made for is damaged.
#[test]
fn what_an_interrupted_repair_left_is_not_found() {
    for seed in 0..4 {
        for generations in 1..3 {
            let original = built(seed);
            publish(&original, 1);
            original.store.put(&names::publication(1, 0), Bytes::from_static(b"damaged")).expect("put");
            let mut repair = original.copy();
            (repair.epoch, repair.number) = (2, 0);
            repair.checkpoint([&file_edits(&SeededRandom::new(seed), &mut 800_000, 50), &[]]);
            ship(&repair);
            let body = Body::Closing(Closing { next_epoch: 2, owner: "a repair".to_owned() });
            (1..=generations).for_each(|n| put(&repair, n, u64::from(n == 1), body.clone()));
            let alone = Built { store: repair.store.clone(), ..original.shipped(false) };
            let (left, lost) = alone.left(None, &[]);
            alone.judge(&left, &lost, &format!("seed {seed}"));
            for (key, value) in &alone.models[0] {
                assert_eq!(left.get(key), Some(value), "seed {seed}: {key:?}");
            }
            // In the state directory they may be a tree that is not published yet.
            let (left, _) = repair.left(None, &[]);
            for (key, value) in &repair.models[0] {
                assert_eq!(left.get(key), Some(value), "seed {seed}, beside its state: {key:?}");
            }
        }
    }
}

/// A merge that failed half way, or whose checkpoint never counted, may leave nodes between those that count. It is not asked
/// for a leaf that is older and was in the tree all the time.
#[test]
fn what_a_failed_merge_left_is_not_asked_for_what_stayed_in_the_tree() {
    let mut pairs = 0;
    for seed in 0..3 {
        let random = SeededRandom::new(9000 + seed);
        let (mut original, mut serial) = (built(seed), 700_000);
        let (mut failed, before) = (original.copy(), original.number);
        failed.checkpoint([&file_edits(&random, &mut serial, 60), &[]]);
        for file in failed.disk.list("nodes").expect("listed") {
            let name = format!("nodes/{file}");
            if original.disk.open(&name).is_err() {
                let bytes = read_file(&failed.disk, &name).expect("read");
                original.disk.create(&name).and_then(|f| f.write_at(&bytes, 0)).expect("written");
            }
        }
        original.number = failed.number;
        for _ in 0..3 {
            original.checkpoint([&file_edits(&random, &mut serial, 12), &[]]);
        }
        for (ptr, node) in original.tree() {
            let Node::Interior(interior) = node else { continue };
            let children = (0..interior.len()).map(|i| interior.child(i)).filter(|_| interior.level() == 1);
            for child in children.filter(|child| child.segment.number <= before) {
                let copy = original.copy();
                copy.flip(&ptr);
                copy.flip(&child);
                let (left, lost) = copy.files();
                copy.judge(&left, &lost, &format!("seed {seed}, {ptr:?} and {child:?}"));
                pairs += 1;
            }
        }
    }
    assert!(pairs > 60, "{pairs}");
}
