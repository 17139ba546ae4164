//! What a merge writes, and what the tree looks like after it.

use crate::format::ids::{InodeNo, Lsn, ObjectId};
use crate::format::inode::Extent;
use crate::format::key;
use crate::format::node::Node;
use crate::map::testing::*;
use crate::map::*;
use std::collections::BTreeMap;

fn numbered(numbers: impl IntoIterator<Item = u32>) -> Overlay {
    let edits: Vec<_> = numbers.into_iter().map(|i| put(&i.to_be_bytes(), format!("value {i}").as_bytes())).collect();
    overlay(&edits)
}

fn build(nodes: &MemoryNodes, shape: Shape, layer: &Overlay) -> Option<NodePtr> {
    merge_into(nodes, None, shape, None, &[layer]).0
}

/// Nodes by level, as (bytes, entries).
fn levels(nodes: &MemoryNodes, root: Option<NodePtr>) -> BTreeMap<u8, Vec<(usize, usize)>> {
    let mut levels: BTreeMap<u8, Vec<(usize, usize)>> = BTreeMap::new();
    walk(root, nodes, &mut |ptr, node| {
        let count = match node {
            Node::Leaf(leaf) => leaf.len(),
            Node::Interior(interior) => interior.len(),
        };
        levels.entry(node.level()).or_default().push((ptr.len as usize, count));
    })
    .unwrap();
    levels
}

fn assert_filled(nodes: &MemoryNodes, root: Option<NodePtr>, shape: Shape) {
    let levels = levels(nodes, root);
    for (level, found) in &levels {
        let is_root = level + 1 == u8::try_from(levels.len()).unwrap();
        assert!(!is_root || found.len() == 1);
        for (bytes, count) in found {
            assert!(*bytes <= shape.node_bytes * 4 / 3, "a node of {bytes} bytes at level {level}");
            assert!(is_root || *bytes >= shape.node_bytes / 4, "a node of {bytes} bytes at level {level}");
            assert!(*level == 0 || *count >= 2, "an interior node of one child");
        }
    }
}

#[test]
fn a_bulk_build_fills_its_nodes() {
    let nodes = MemoryNodes::default();
    let shape = Shape { node_bytes: 1024 };
    let root = build(&nodes, shape, &numbered(0..50_000));
    assert_filled(&nodes, root, shape);
    assert_eq!(entries(&nodes, root).len(), 50_000);
    let leaves = &levels(&nodes, root)[&0];
    let full = leaves.iter().filter(|(bytes, _)| *bytes > 900).count();
    assert!(full + 2 >= leaves.len(), "{full} of {} leaves are full", leaves.len());
}

#[test]
fn one_changed_key_writes_one_node_a_level() {
    let nodes = MemoryNodes::default();
    let shape = Shape { node_bytes: 1024 };
    let root = build(&nodes, shape, &numbered(0..50_000));
    let depth = levels(&nodes, root).len() as u64;
    assert!(depth >= 3);
    for i in [0, 1, 777, 25_000, 49_999] {
        let before = nodes.reads();
        let layer = overlay(&[put(&u32::to_be_bytes(i), b"another")]);
        let (_, deltas, written) = merge_into(&nodes, None, shape, root, &[&layer]);
        assert_eq!((deltas.len(), written), (1, depth));
        assert!(nodes.reads() - before <= 2 * depth, "{} nodes read", nodes.reads() - before);
    }
}

#[test]
fn what_changes_nothing_writes_nothing() {
    let nodes = MemoryNodes::default();
    let shape = Shape { node_bytes: 1024 };
    let root = build(&nodes, shape, &numbered((0..50_000).map(|i| i * 2)));
    let nothing = [
        put(&2u32.to_be_bytes(), b"value 2"),
        delete(&777u32.to_be_bytes()),
        delete_range(&3001u32.to_be_bytes(), &3002u32.to_be_bytes()),
        delete_range(&[0xff], &[0xff, 0xff]),
    ];
    assert_eq!(merge_into(&nodes, None, shape, root, &[&overlay(&nothing)]), (root, vec![], 0));
    assert_eq!(merge_into(&nodes, None, shape, root, &[]), (root, vec![], 0));
    assert_eq!(merge_into(&nodes, None, shape, None, &[&overlay(&nothing[1..])]), (None, vec![], 0));
}

#[test]
fn neighbours_that_empty_are_joined_and_an_empty_tree_is_none() {
    let nodes = MemoryNodes::default();
    let shape = Shape { node_bytes: 1024 };
    let mut root = build(&nodes, shape, &numbered(0..20_000));
    let mut left = 20_000;
    for keep_every in [3u32, 9, 27, 81, 2187] {
        let thinned: Vec<_> =
            (0..20_000u32).filter(|i| i % keep_every != 0).map(|i| delete(&i.to_be_bytes())).collect();
        let (next, deltas, _) = merge_into(&nodes, None, shape, root, &[&overlay(&thinned)]);
        root = next;
        assert_filled(&nodes, root, shape);
        left -= deltas.len();
        assert_eq!(entries(&nodes, root).len(), left);
    }
    let all_gone = overlay(&[delete_range(&[0], &[0xff])]);
    let (root, deltas, written) = merge_into(&nodes, None, shape, root, &[&all_gone]);
    assert_eq!((root, deltas.len(), written), (None, left, 0));
}

#[test]
fn a_deleted_range_names_every_key_in_it_and_shares_what_lies_around() {
    let nodes = MemoryNodes::default();
    let shape = Shape { node_bytes: 1024 };
    let root = build(&nodes, shape, &numbered(0..50_000));
    let gone = overlay(&[delete_range(&10_000u32.to_be_bytes(), &40_000u32.to_be_bytes())]);
    let (root, deltas, written) = merge_into(&nodes, None, shape, root, &[&gone]);
    let keys: Vec<Vec<u8>> = deltas.iter().map(|(key, _, _)| key.clone()).collect();
    assert_eq!(keys, (10_000..40_000u32).map(|i| i.to_be_bytes().to_vec()).collect::<Vec<_>>());
    assert!(deltas.iter().all(|(_, old, new)| old.is_some() && new.is_none()));
    assert!(written < 12, "{written} nodes written");
    assert_eq!(entries(&nodes, root).len(), 20_000);
    assert_filled(&nodes, root, shape);
}

fn extent(lsn_pos: u64, n: u32) -> Bytes {
    let object = ObjectId { lsn: Lsn { epoch: 1, pos: lsn_pos }, n };
    Extent { len: 65536, object, object_offset: 0 }.encode()
}

/// A file written in order, 16 extents a batch.
fn extents(count: u64) -> Vec<(Bytes, Bytes)> {
    let extent_at = |i: u64| (key::extent(InodeNo(7), i << 16), extent(1 + i / 16, u32::try_from(i % 16).unwrap()));
    (0..count).map(extent_at).collect()
}

#[test]
fn runs_of_extents_stay_short_through_merges_and_splits() {
    let nodes = MemoryNodes::default();
    let shape = Shape { node_bytes: 1024 };
    let mut model: BTreeMap<Bytes, Bytes> = extents(16_000).into_iter().collect();
    let edits: Vec<_> = model.iter().map(|(key, value)| put(key, value)).collect();
    let root = build(&nodes, shape, &overlay(&edits));
    assert!(entries(&nodes, root).into_iter().eq(model.clone()));
    let bytes: usize = levels(&nodes, root)[&0].iter().map(|(bytes, _)| bytes).sum();
    assert!(bytes < 16_000 * 8, "{bytes} bytes for 16000 extents in runs of 16");

    // Overwrites and holes in the middle of runs.
    let mut edits = Vec::new();
    for i in (5..16_000u64).step_by(37) {
        let at = key::extent(InodeNo(7), i << 16);
        let new = extent(100_000 + i, 0);
        edits.push(put(&at, &new));
        model.insert(at, new);
    }
    let (from, to) = (key::extent(InodeNo(7), 1003 << 16), key::extent(InodeNo(7), 2005 << 16));
    edits.push(delete_range(&from, &to));
    model.retain(|key, _| *key < from || *key >= to);
    let (root, deltas, _) = merge_into(&nodes, None, shape, root, &[&overlay(&edits)]);
    assert!(entries(&nodes, root).into_iter().eq(model.clone()));
    assert!(deltas.is_sorted_by(|a, b| a.0 < b.0));
    assert_filled(&nodes, root, shape);
}

#[test]
fn keys_with_nothing_in_common_do_not_make_a_far_too_long_node() {
    let nodes = MemoryNodes::default();
    let shape = Shape { node_bytes: 1024 };
    let name = |directory: u8, i: u32| [&[directory; 200][..], &i.to_be_bytes()].concat();
    let mut edits: Vec<_> = (0..3000).map(|i| put(&name(b'm', i), b"v")).collect();
    for other in [b'a', b'z'] {
        edits.push(put(&name(other, 1), b"v"));
    }
    let mut root = build(&nodes, shape, &overlay(&edits));
    let stray: Vec<_> =
        (0..3000).step_by(50).map(|i| put(&[&name(b'm', i)[..100], &[i as u8]].concat(), b"v")).collect();
    for edit in stray {
        root = merge_into(&nodes, None, shape, root, &[&overlay(&[edit])]).0;
    }
    let longest = levels(&nodes, root).values().flatten().map(|(bytes, _)| *bytes).max().unwrap();
    assert!(longest <= 3 * shape.node_bytes, "a node of {longest} bytes");
    entries(&nodes, root);
}

#[test]
fn large_values_have_a_leaf_each() {
    let nodes = MemoryNodes::default();
    let edits: Vec<_> = (0..40u32).map(|i| put(&i.to_be_bytes(), &vec![7; (i as usize % 3) * 32_768])).collect();
    let root = build(&nodes, Shape::default(), &overlay(&edits));
    assert_eq!(entries(&nodes, root).len(), 40);
    assert!(levels(&nodes, root)[&0].iter().all(|(bytes, _)| *bytes < 80 << 10));
}

#[test]
fn reachable_segments_are_those_of_all_nodes_and_no_leaf_is_read() {
    let nodes = MemoryNodes::default();
    let shape = Shape { node_bytes: 1024 };
    let mut root = build(&nodes, shape, &numbered(0..20_000));
    for i in [3u32, 19_000, 10_000] {
        root = merge_into(&nodes, None, shape, root, &[&overlay(&[put(&i.to_be_bytes(), b"new")])]).0;
    }
    let mut expected = std::collections::BTreeSet::new();
    walk(root, &nodes, &mut |ptr, _| expected.extend([ptr.segment])).unwrap();
    let before = nodes.reads();
    assert_eq!(reachable_segments(root, &nodes).unwrap(), expected);
    assert_eq!(expected.len(), 4);
    let interiors: usize =
        levels(&nodes, root).iter().filter(|(level, _)| **level > 0).map(|(_, found)| found.len()).sum();
    let walked: usize = levels(&nodes, root).values().map(Vec::len).sum();
    assert_eq!(nodes.reads() - before, (interiors + 2 * walked) as u64);
}

#[test]
fn verify_names_each_damaged_node_and_reads_the_rest() {
    let nodes = MemoryNodes::default();
    let root = build(&nodes, Shape { node_bytes: 1024 }, &numbered(0..5000));
    let mut leaves = Vec::new();
    walk(root, &nodes, &mut |ptr, node| leaves.extend(matches!(node, Node::Leaf(_)).then_some(*ptr))).unwrap();
    nodes.damage(&leaves[1]);
    nodes.damage(&leaves[3]);
    let mut read = 0;
    let problems = verify(root, &nodes, &mut |_, _| read += 1);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains(&format!("offset {}", leaves[1].offset)), "{problems:?}");
    assert!(read > 4800 && read < 5000);
}
