//! Trees to damage, and what is left of them when nothing is.

use super::*;
use crate::base::random::SeededRandom;
use crate::format::ids::InodeNo;
use crate::format::{key, space};

/// Keys as a map of files has them, of different lengths.
fn file_key(random: &SeededRandom) -> Bytes {
    let ino = InodeNo(1 + random.below(60));
    match random.below(3) {
        0 => key::inode(ino),
        1 => key::name(ino, format!("name-{}", random.below(8)).as_bytes()),
        _ => key::extent(ino, random.below(8) << 16),
    }
}

/// Every value is its own, so that nothing is taken for what it is not.
fn value(serial: &mut u64, random: &SeededRandom) -> Bytes {
    *serial += 1;
    let mut value = format!("value {serial} ").into_bytes();
    value.resize(value.len() + random.below(50) as usize, b'.');
    value.into()
}

pub fn file_edits(random: &SeededRandom, serial: &mut u64, count: u64) -> Vec<Edit> {
    let edit = |_| match random.below(10) {
        0..=5 => Edit::Put { key: file_key(random), value: value(serial, random) },
        6..=8 => Edit::Delete { key: file_key(random) },
        _ => {
            let ino = InodeNo(1 + random.below(60));
            let (from, to) = key::all_of(ino);
            Edit::DeleteRange { from, to }
        }
    };
    (0..count).map(edit).collect()
}

fn space_edits(random: &SeededRandom, serial: &mut u64, count: u64) -> Vec<Edit> {
    let key = |random: &SeededRandom| space::segment(SegmentNo { epoch: 1, number: random.below(40) });
    (0..count).map(|_| Edit::Put { key: key(random), value: value(serial, random) }).collect()
}

/// A large first checkpoint, then smaller ones that share most of it.
pub fn built(seed: u64) -> Built {
    let random = SeededRandom::new(seed);
    let (mut built, mut serial) = (Built::new(), 0);
    let first: Vec<Edit> =
        (0..700).map(|_| Edit::Put { key: file_key(&random), value: value(&mut serial, &random) }).collect();
    built.checkpoint([&first, &space_edits(&random, &mut serial, 60)]);
    for _ in 0..6 {
        let count = 2 + random.below(30);
        built.checkpoint([&file_edits(&random, &mut serial, count), &space_edits(&random, &mut serial, 3)]);
    }
    built
}

/// A tree of at least three levels, nodes of several checkpoints in it, several segments of one checkpoint.
#[test]
fn the_trees_of_these_tests_are_worth_testing() {
    let built = built(1);
    let levels: Vec<u8> = built.tree().iter().map(|(_, node)| node.level()).collect();
    assert!(levels.contains(&2), "{levels:?}");
    let segments: std::collections::BTreeSet<_> = built.tree().iter().map(|(ptr, _)| ptr.segment).collect();
    assert!(segments.len() > 4 && built.leaves.len() > built.now.len() + 10);
}

#[test]
fn what_is_not_damaged_is_as_it_was() {
    for seed in 0..10 {
        let built = built(seed);
        for built in [built.copy(), built.shipped(true), built.shipped(false)] {
            let trees = built.trees();
            let (files, lost) = left_of(&trees, TreeId::Files, Some(built.roots[0]), &[]);
            assert_eq!((&files, &lost[..]), (&built.models[0], &[][..]));
            let (space, lost) = left_of(&trees, TreeId::Space, Some(built.roots[1]), &[]);
            assert_eq!((&space, &lost[..]), (&built.models[1], &[][..]));
            assert_eq!(trees.damaged(), []);
        }
    }
}

#[test]
fn an_empty_tree_is_empty_and_not_lost() {
    let built = Built::new();
    assert_eq!(built.left(Some(None), &[]), (Model::new(), vec![]));
    let (left, lost) = built.left(None, &[]);
    assert!(left.is_empty() && lost.len() == 1 && lost[0].returned == 0);
}

#[test]
fn changes_over_the_tree_hold() {
    for seed in 0..20 {
        let (built, random) = (built(seed), SeededRandom::new(1000 + seed));
        let edits = file_edits(&random, &mut 10_000, 60);
        let (left, lost) = built.left(Some(built.roots[0]), &edits);
        let mut expected = built.models[0].clone();
        apply(&mut expected, &edits);
        assert_eq!((left, lost), (expected, vec![]), "seed {seed}");
        assert_eq!(built.left(Some(None), &edits).0, {
            let mut expected = Model::new();
            apply(&mut expected, &edits);
            expected
        });
    }
}
