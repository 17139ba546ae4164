//! Segments that someone made who means harm: every checksum is right.

use super::*;
use crate::format::ids::{InodeNo, SegmentKind};
use crate::format::key;
use crate::format::node::{InteriorBuilder, LeafBuilder};
use crate::format::store_segment::{FRAME_BYTES, SEGMENT_HEADER_BYTES, SegmentBuilder};
use crate::store::Store;

const NO: SegmentNo = SegmentNo { epoch: 1, number: 1 };

fn leaf(inos: impl Iterator<Item = u64>) -> Vec<u8> {
    let mut builder = LeafBuilder::new();
    inos.for_each(|ino| builder.push(&key::inode(InodeNo(ino)), b"value"));
    builder.finish()
}

fn interior(level: u8, children: &[(u64, NodePtr)]) -> Vec<u8> {
    let mut builder = InteriorBuilder::new(level);
    children.iter().for_each(|(ino, ptr)| builder.push(&key::inode(InodeNo(*ino)), *ptr));
    builder.finish()
}

fn store_of(nodes: &[Vec<u8>]) -> (Trees, Vec<NodePtr>) {
    let mut builder = SegmentBuilder::new(UUID, NO, SegmentKind::Nodes);
    let ptrs = nodes.iter().map(|node| builder.push_node(node)).collect();
    let store = SimStore::new(&CallLog::new());
    store.put(&names::segment(NO), builder.finish().into()).expect("put");
    (Trees::new(UUID, None, Arc::new(store)), ptrs)
}

fn keys(found: &Model) -> Vec<u64> {
    found.keys().map(|key| u64::from_be_bytes(key[..8].try_into().expect("eight"))).collect()
}

#[test]
fn the_same_node_below_many_separators_is_read_once() {
    let shared = leaf(5..9);
    let first = store_of(std::slice::from_ref(&shared)).1[0];
    let children: Vec<(u64, NodePtr)> = (1..80).map(|ino| (ino, first)).collect();
    let mut nodes = vec![shared, interior(1, &children)];
    for level in 2..60u8 {
        let below = store_of(&nodes).1[usize::from(level) - 1];
        let children: Vec<(u64, NodePtr)> = (1..80).map(|ino| (ino, below)).collect();
        nodes.push(interior(level, &children));
    }
    let (trees, ptrs) = store_of(&nodes);
    let root = *ptrs.last().expect("a root");
    let (found, lost) = left_of(&trees, TreeId::Files, Some(Some(root)), &[]);
    // Under inode 1 there is the whole chain; what it leads to begins with inode 5, and is never where it should be.
    assert!(!lost.is_empty() && keys(&found).iter().all(|ino| (5..9).contains(ino)), "{found:?}");
}

#[test]
fn a_node_of_the_wrong_level_or_outside_of_its_range_is_lost_and_what_it_has_is_found_if_it_fits() {
    let nodes = [leaf(1..4), leaf(10..14), leaf(20..24)];
    let (_, ptrs) = store_of(&nodes);
    let cases = [
        ("level", 2, [(1, ptrs[0]), (10, ptrs[1]), (20, ptrs[2])]),
        ("first key", 1, [(1, ptrs[0]), (9, ptrs[1]), (20, ptrs[2])]),
        ("outside", 1, [(1, ptrs[0]), (10, ptrs[1]), (12, ptrs[2])]),
    ];
    for (what, level, children) in cases {
        let mut all = nodes.to_vec();
        all.push(interior(level, &children));
        let (trees, ptrs) = store_of(&all);
        let (found, lost) = left_of(&trees, TreeId::Files, Some(Some(ptrs[3])), &[]);
        assert!(!lost.is_empty(), "{what}");
        assert!(lost.iter().all(|lost| lost.what.contains("level") || lost.what.contains("key")), "{what}: {lost:?}");
        assert!(keys(&found).is_sorted() && !trees.damaged().is_empty(), "{what}");
    }
}

#[test]
fn a_node_that_leads_to_itself_ends() {
    // No node can hold its own checksum, so a circle needs a pointer that lies: what it points at is not what it says.
    let leaf = leaf(1..4);
    let behind = (SEGMENT_HEADER_BYTES + leaf.len() + 2 * FRAME_BYTES) as u32;
    let fake = NodePtr { segment: NO, offset: behind, len: 100, crc: 7 };
    let (trees, ptrs) = store_of(&[leaf, interior(1, &[(1, fake), (2, fake)])]);
    let (found, lost) = left_of(&trees, TreeId::Files, Some(Some(ptrs[1])), &[]);
    assert_eq!((keys(&found), lost.len()), (vec![1, 2, 3], 1), "{lost:?}");
}

#[test]
fn a_root_of_the_other_map_is_damage() {
    let (trees, ptrs) = store_of(&[leaf(1..4)]);
    let (found, lost) = left_of(&trees, TreeId::Space, Some(Some(ptrs[0])), &[]);
    assert!(found.is_empty() && lost.len() == 1, "{lost:?}");
}

/// Contents of files lie in segments of chunks. Someone who writes a node into a file gets no entry of the map by that.
#[test]
fn nodes_in_contents_of_files_are_not_found() {
    let mut builder = SegmentBuilder::new(UUID, NO, SegmentKind::Chunks);
    builder.push_node(&leaf(1..4));
    let whole = builder.finish();
    for damage in [None, Some(5), Some(whole.len() - 5)] {
        let mut bytes = whole.clone();
        damage.into_iter().for_each(|at| bytes[at] ^= 1);
        let store = SimStore::new(&CallLog::new());
        store.put(&names::segment(NO), bytes.into()).expect("put");
        let trees = Trees::new(UUID, None, Arc::new(store));
        assert!(left_of(&trees, TreeId::Files, None, &[]).0.is_empty(), "{damage:?}");
    }
}

#[test]
fn segments_of_another_filesystem_and_rubbish_are_gone_past() {
    let mut foreign = SegmentBuilder::new(Uuid(3), NO, SegmentKind::Nodes);
    foreign.push_node(&leaf(1..4));
    let rubbish = b"SKfr".repeat(3000);
    for bytes in [foreign.finish(), rubbish, Vec::new(), vec![0; 5]] {
        let store = SimStore::new(&CallLog::new());
        let other = SegmentNo { epoch: 1, number: 9 };
        store.put(&names::segment(other), bytes.into()).expect("put");
        let mut builder = SegmentBuilder::new(UUID, NO, SegmentKind::Nodes);
        builder.push_node(&leaf(7..9));
        store.put(&names::segment(NO), builder.finish().into()).expect("put");
        let trees = Trees::new(UUID, None, Arc::new(store));
        let (found, _) = left_of(&trees, TreeId::Files, None, &[]);
        assert_eq!(keys(&found), [7, 8]);
        assert_eq!(trees.damaged().len(), 1, "{:?}", trees.damaged());
    }
}

/// So many nodes are gone that they are no longer told of one by one. What is whole among them is given all the same.
#[test]
fn more_losses_than_are_told_one_by_one_cost_nothing_more() {
    let whole = leaf(90_000..90_003);
    let mut nodes = vec![whole];
    let first = store_of(&nodes).1[0];
    let gone =
        |ino: u64| NodePtr { segment: SegmentNo { epoch: 1, number: 5000 + ino % 2 }, offset: 40, len: 9, crc: 1 };
    let inos = |n: u64| (1 + n * 6000)..(1 + (n + 1) * 6000);
    for n in 0..12 {
        nodes.push(interior(1, &inos(n).map(|ino| (ino, gone(ino))).collect::<Vec<_>>()));
    }
    nodes.push(interior(1, &[(80_000, gone(0)), (90_000, first), (95_000, gone(1))]));
    let ptrs = store_of(&nodes).1;
    let children: Vec<(u64, NodePtr)> =
        (0..12).map(|n| 1 + n * 6000).chain([80_000]).zip(ptrs[1..].iter().copied()).collect();
    nodes.push(interior(2, &children));
    let (trees, ptrs) = store_of(&nodes);
    let mut found = Vec::new();
    let lost = trees.each(TreeId::Files, Some(ptrs.last().copied()), &Overlay::new(), &mut |key, _| found.push(key));
    let lost = lost.expect("nothing fails but by damage");
    assert_eq!(found, (90_000..90_003).map(|ino| key::inode(InodeNo(ino))).collect::<Vec<_>>());
    let together: Vec<&Lost> = lost.iter().filter(|lost| lost.what.contains("too much")).collect();
    assert!(!together.is_empty() && together.iter().map(|lost| lost.returned).sum::<u64>() == 3, "{together:?}");
    assert!((1 << 16..=(1 << 16) + 10_000).contains(&lost.len()), "{}", lost.len());
}

/// A folder or a link under the name of a file of nodes.
#[test]
fn what_is_no_file_in_the_state_directory_is_damage() {
    let folder = tempfile::tempdir().expect("made");
    let nodes = folder.path().join("nodes");
    std::fs::create_dir_all(nodes.join("0000000001-0000000000000007")).expect("made");
    std::os::unix::fs::symlink("/etc/passwd", nodes.join("0000000001-0000000000000008")).expect("made");
    let mut builder = SegmentBuilder::new(UUID, NO, SegmentKind::Nodes);
    let ptr = builder.push_node(&leaf(1..4));
    let store = SimStore::new(&CallLog::new());
    store.put(&names::segment(NO), builder.finish().into()).expect("put");
    let state = Arc::new(crate::media::LocalDisk::new(folder.path()));
    let trees = Trees::new(UUID, Some(state), Arc::new(store));
    for number in [7, 8] {
        let lost = NodePtr { segment: SegmentNo { epoch: 1, number }, ..ptr };
        let (found, lost) = left_of(&trees, TreeId::Files, Some(Some(lost)), &[]);
        assert_eq!((keys(&found), lost.len()), (vec![1, 2, 3], 1));
    }
}
