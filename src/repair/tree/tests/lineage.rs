//! What a writer that was taken over put into the store and did not publish.

use super::history::{built, file_edits};
use super::*;
use crate::base::random::SeededRandom;
use crate::format::ids::Nonce;
use crate::format::publication::{Base, Body, Publication};
use crate::map::reachable_segments;

/// Puts all node files into the store.
fn ship(built: &Built) {
    for file in built.disk.list("nodes").expect("listed") {
        let no = crate::checkpoint::nodes::parse_node_file(&file).expect("a segment");
        built.store.put(&names::segment(no), read_file(&built.disk, &node_file(no)).expect("read")).expect("put");
    }
}

fn publish(built: &Built, generation: u64) {
    ship(built);
    let mut segments = std::collections::BTreeSet::new();
    for root in built.roots {
        segments.extend(reachable_segments(root, &built.nodes()).expect("whole"));
    }
    let sized = |no: &SegmentNo| (*no, built.store.size(&names::segment(*no)).expect("there"));
    let node_segments = segments.iter().map(sized).collect();
    let base = Publication {
        uuid: UUID,
        state: Uuid(u128::from(built.epoch)),
        nonce: Nonce(1),
        epoch: built.epoch,
        generation,
        number: 0,
        wall: 0,
        checkpoint: generation,
        start: Lsn::ZERO,
        end: Lsn::ZERO,
        body: Body::Base(Base { roots: built.roots, node_segments, ..Base::default() }),
    };
    built.store.put(&names::publication(generation, 0), base.encode().into()).expect("put");
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
