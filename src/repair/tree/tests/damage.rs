//! Nodes and segments that are damaged or gone.

use super::history::{built, file_edits};
use super::*;
use crate::base::random::SeededRandom;
use crate::format::store_segment::StoreSegment;

/// The keys of the newest tree that lie in leaves which are not whole.
fn damaged_keys(built: &Built) -> usize {
    let whole: Vec<NodePtr> = built.whole().iter().map(|(ptr, _)| *ptr).collect();
    built.leaves_now().iter().filter(|(ptr, _)| !whole.contains(ptr)).map(|(_, leaf)| leaf.len()).sum()
}

#[test]
fn one_damaged_node_costs_its_own_entries_at_most() {
    let mut levels = [0; 4];
    for seed in 0..3 {
        let original = built(seed);
        for (n, (ptr, node)) in original.tree().into_iter().enumerate() {
            let copy = if n % 2 == 0 { original.copy() } else { original.shipped(n % 4 == 1) };
            copy.flip(&ptr);
            let what = format!("seed {seed}, node {ptr:?} of level {}", node.level());
            let (left, lost) = copy.files();
            assert_eq!(lost.len(), 1, "{what}: {lost:?}");
            copy.judge(&left, &lost, &what);
            let gone = copy.models[0].keys().filter(|key| !left.contains_key(*key)).count();
            assert!(gone <= damaged_keys(&copy), "{what}");
            levels[usize::from(node.level())] += 1;
        }
    }
    assert!(levels[0] > 100 && levels[1] > 3 && levels[2] >= 3, "{levels:?}");
}

#[test]
fn a_damaged_interior_node_loses_no_entry() {
    for seed in 0..6 {
        let original = built(seed);
        for (ptr, node) in original.tree().into_iter().filter(|(_, node)| node.level() > 0) {
            let copy = original.copy();
            copy.flip(&ptr);
            let (left, lost) = copy.files();
            let what = format!("seed {seed}, level {}", node.level());
            copy.judge(&left, &lost, &what);
            for (key, value) in &copy.models[0] {
                assert_eq!(left.get(key), Some(value), "{what}: {key:?}");
            }
            assert!(lost[0].returned > 0 && lost[0].what.contains("damaged node"));
        }
    }
}

#[test]
fn a_missing_segment_costs_the_entries_of_its_leaves_at_most() {
    for seed in 0..4 {
        let original = built(seed);
        for no in original.segments() {
            for copy in [original.copy(), original.shipped(true), original.shipped(false)] {
                copy.drop_segment(no);
                let (left, lost) = copy.files();
                copy.judge(&left, &lost, &format!("seed {seed}, segment {no}"));
                assert!(lost.iter().all(|lost| lost.what.contains("missing")), "{lost:?}");
            }
        }
    }
}

#[test]
fn without_a_root_everything_is_found() {
    for seed in 0..12 {
        let built = built(seed);
        for built in [built.copy(), built.shipped(true), built.shipped(false)] {
            let trees = built.trees();
            for tree in [TreeId::Files, TreeId::Space] {
                let (left, lost) = left_of(&trees, tree, None, &[]);
                assert_eq!((lost.len(), lost[0].place.as_str()), (1, "root"));
                let model = &built.models[tree as usize];
                for (key, value) in model {
                    assert_eq!(left.get(key), Some(value), "seed {seed}, {tree:?}: {key:?}");
                }
                // What had been deleted at the ends comes back: there the newest tree has no word.
                let ends = model.keys().next().expect("some")..=model.keys().last().expect("some");
                for key in left.keys().filter(|key| !model.contains_key(*key)) {
                    assert!(!ends.contains(&key), "seed {seed}, {tree:?}: {key:?} is back from the dead");
                }
            }
        }
    }
}

/// Header, directory and footer are not needed to read a node that is pointed at, and one of them is enough to find all nodes.
#[test]
fn damage_around_the_nodes_costs_nothing() {
    let original = built(2);
    for no in original.segments() {
        let bytes = read_file(&original.disk, &node_file(no)).expect("read");
        let directory = StoreSegment::parse(&bytes).expect("whole").footer.directory_offset as usize;
        for at in (0..40).step_by(13).chain((directory..bytes.len()).step_by(61)).chain([bytes.len() - 20]) {
            let copy = if at % 2 == 0 { original.copy() } else { original.shipped(false) };
            copy.change(no, |bytes| bytes[at] ^= 0x20);
            assert_eq!(copy.files(), (copy.models[0].clone(), vec![]));
            let (left, _) = copy.left(None, &[]);
            for (key, value) in &copy.models[0] {
                assert_eq!(left.get(key), Some(value), "byte {at} of {no}: {key:?}");
            }
        }
    }
}

#[test]
fn a_segment_that_was_cut_gives_the_nodes_before_the_cut() {
    let original = built(3);
    for no in original.segments() {
        let len = read_file(&original.disk, &node_file(no)).expect("read").len();
        for keep in (0..len).step_by(len / 12 + 1) {
            for copy in [original.copy(), original.shipped(false)] {
                copy.change(no, |bytes| bytes.truncate(keep));
                let (left, lost) = copy.files();
                copy.judge(&left, &lost, &format!("segment {no} cut to {keep} of {len}"));
                let (left, lost) = copy.left(None, &[]);
                copy.judge(&left, &lost, &format!("segment {no} cut to {keep} of {len}, no root"));
            }
        }
    }
}

#[test]
fn a_damaged_frame_and_directory_cost_one_node() {
    let original = built(4);
    for no in original.segments() {
        let bytes = read_file(&original.disk, &node_file(no)).expect("read");
        let segment = StoreSegment::parse(&bytes).expect("whole");
        for entry in &segment.entries {
            let copy = original.copy();
            copy.change(no, |bytes| {
                bytes[entry.offset as usize - 20] ^= 1;
                bytes[segment.footer.directory_offset as usize] ^= 1;
            });
            let (left, lost) = copy.left(None, &[]);
            assert_eq!(lost.len(), 1);
            // The node behind the frame is whole, and found by those who know its place only.
            let hit = copy.leaves.iter().find(|(ptr, _)| (ptr.segment, u64::from(ptr.offset)) == (no, entry.offset));
            for (key, value) in &copy.models[0] {
                if hit.is_none_or(|(_, leaf)| !leaf.contains_key(key)) {
                    assert_eq!(left.get(key), Some(value), "frame at {} of {no}: {key:?}", entry.offset);
                }
            }
        }
    }
}

#[test]
fn one_whole_copy_of_a_node_is_enough() {
    let original = built(5).shipped(true);
    for (n, (ptr, _)) in original.tree().iter().enumerate() {
        let copy = original.copy();
        let whole = copy.copy();
        copy.flip(ptr);
        // The other place keeps what it had.
        let name = names::segment(ptr.segment);
        if n % 2 == 0 {
            copy.store.put(&name, whole.store.get(&name).expect("there")).expect("put");
        } else {
            let bytes = read_file(&whole.disk, &node_file(ptr.segment)).expect("read");
            copy.disk.remove(&node_file(ptr.segment)).expect("removed");
            copy.disk.create(&node_file(ptr.segment)).and_then(|f| f.write_at(&bytes, 0)).expect("written");
        }
        let trees = copy.trees();
        let (left, lost) = left_of(&trees, TreeId::Files, Some(copy.roots[0]), &[]);
        assert_eq!((left, lost), (copy.models[0].clone(), vec![]));
        let damaged: Vec<_> = trees.damaged().into_iter().map(|d| (d.place, d.local)).collect();
        let expected = if n % 2 == 0 { vec![(node_file(ptr.segment), true)] } else { vec![] };
        assert_eq!(damaged, expected, "what was read and is damaged is named");
    }
}

#[test]
fn many_damages_at_once_leave_all_that_is_whole() {
    for seed in 0..60 {
        let random = SeededRandom::new(7000 + seed);
        let original = built(seed % 6);
        let copy = if seed % 2 == 0 { original.copy() } else { original.shipped(seed % 4 == 1) };
        let mut all: Vec<NodePtr> = copy.leaves.iter().map(|(ptr, _)| *ptr).collect();
        all.extend(copy.tree().iter().map(|(ptr, _)| *ptr));
        for _ in 0..1 + random.below(12) {
            let ptr = all[random.below(all.len() as u64) as usize];
            match random.below(8) {
                0 => copy.drop_segment(ptr.segment),
                1 => copy.change(ptr.segment, |bytes| bytes.truncate(bytes.len() * 2 / 3)),
                _ => copy.change(ptr.segment, |bytes| {
                    if let Some(byte) = bytes.get_mut(ptr.offset as usize + ptr.len as usize / 3) {
                        *byte ^= 8;
                    }
                }),
            }
        }
        let (left, lost) = copy.files();
        copy.judge(&left, &lost, &format!("seed {seed}"));
        let (bare, lost) = copy.left(None, &[]);
        copy.judge(&bare, &lost, &format!("seed {seed}, no root"));
        let edits = file_edits(&random, &mut 90_000, 40);
        let (over, _) = copy.left(Some(copy.roots[0]), &edits);
        let mut expected = left;
        apply(&mut expected, &edits);
        assert_eq!(over, expected, "seed {seed}: later changes hold in what was found as well");
    }
}

#[test]
fn a_store_that_is_away_is_no_damage() {
    let built = built(1).shipped(false);
    built.store.set_down(true);
    let error = built.trees().each(TreeId::Files, Some(built.roots[0]), &Overlay::new(), &mut |_, _| {});
    assert!(matches!(error, Err(RepairError::Store(ref e)) if e.is_away()), "{error:?}");
    let error = built.trees().each(TreeId::Files, None, &Overlay::new(), &mut |_, _| {});
    assert!(matches!(error, Err(RepairError::Store(_))), "{error:?}");
    built.store.set_down(false);
    assert_eq!(built.files(), (built.models[0].clone(), vec![]));
}
