//! Nodes against a sorted list.

use super::*;
use crate::format::faults::{assert_damage_is_found, assert_flips_are_found};
use crate::format::ids::{InodeNo, Lsn, ObjectId};
use crate::format::inode::Extent;
use crate::format::key;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn leaf(entries: &BTreeMap<Bytes, Bytes>) -> Leaf {
    let mut builder = LeafBuilder::new();
    for (k, v) in entries {
        let bound = builder.size_with(k, v);
        builder.push(k, v);
        assert!(builder.size() <= bound);
    }
    assert_eq!(builder.len(), entries.len());
    let size = builder.size();
    let bytes = builder.finish();
    assert_eq!(bytes.len(), size);
    match Node::decode(bytes.into()) {
        Ok(Node::Leaf(leaf)) => leaf,
        other => panic!("not a leaf: {other:?}"),
    }
}

fn assert_holds(leaf: &Leaf, entries: &BTreeMap<Bytes, Bytes>, probes: &[Bytes]) {
    let got: Vec<_> = (0..leaf.len()).map(|i| (leaf.key(i), leaf.value(i))).collect();
    let want: Vec<_> = entries.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    assert_eq!(got, want);
    for probe in probes.iter().chain(entries.keys()) {
        assert_eq!(leaf.lower_bound(probe), entries.range::<Bytes, _>(..probe).count(), "{probe:?}");
        assert_eq!(leaf.get(probe).as_ref(), entries.get(probe), "{probe:?}");
    }
}

fn short_bytes(max: usize) -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(0..4u8, 1..max).prop_map(Bytes::from)
}

/// Extents of a few files and batches, dense enough for runs, gaps, short extents and neighbours of other batches.
fn extents() -> impl Strategy<Value = BTreeMap<Bytes, Bytes>> {
    let one = (
        1..3u64,
        0..24u64,
        prop_oneof![9 => Just(4096u32), 1 => 1..4096u32],
        1..3u64,
        prop_oneof![9 => Just(0u32), 1 => Just(9)],
    );
    proptest::collection::vec(one, 1..60).prop_map(|all| {
        let entry = |(ino, block, len, pos, object_offset)| {
            let object = ObjectId { lsn: Lsn { epoch: 1, pos }, n: block as u32 };
            let value = Extent { len, object, object_offset }.encode();
            (key::extent(InodeNo(ino), block * 4096), value)
        };
        all.into_iter().map(entry).collect()
    })
}

proptest! {
    #[test]
    fn a_leaf_reads_as_the_sorted_list_it_was_built_from(
        entries in proptest::collection::btree_map(short_bytes(12), short_bytes(40), 1..60),
        probes in proptest::collection::vec(short_bytes(12), 0..20),
    ) {
        assert_holds(&leaf(&entries), &entries, &probes);
    }

    #[test]
    fn runs_of_extents_read_as_single_extents(
        entries in extents(),
        probes in proptest::collection::vec((1..3u64, 0..100_000u64, 0..20usize), 0..20),
    ) {
        let probe = |(ino, offset, len): (u64, u64, usize)| {
            let mut probe = key::extent(InodeNo(ino), offset).to_vec();
            probe.resize(len, 0);
            Bytes::from(probe)
        };
        let probes: Vec<Bytes> = probes.into_iter().map(probe).collect();
        assert_holds(&leaf(&entries), &entries, &probes);
    }

    #[test]
    fn an_interior_node_finds_the_child_that_covers_a_key(
        keys in proptest::collection::btree_set(short_bytes(12), 1..60),
        probes in proptest::collection::vec(short_bytes(12), 0..20),
    ) {
        let mut builder = InteriorBuilder::new(2);
        let child = |i: usize| NodePtr { segment: SegmentNo { epoch: 1, number: 2 }, offset: i as u32, len: 9, crc: 5 };
        for (i, k) in keys.iter().enumerate() {
            prop_assert_eq!(builder.len(), i);
            builder.push(k, child(i));
        }
        let Ok(Node::Interior(node)) = Node::decode(builder.finish().into()) else { panic!("not an interior node") };
        prop_assert_eq!((node.len(), node.level()), (keys.len(), 2));
        for (i, k) in keys.iter().enumerate() {
            prop_assert_eq!((node.first_key(i), node.child(i)), (k.clone(), child(i)));
        }
        for probe in &probes {
            let covered = keys.range::<Bytes, _>(..=probe).count().saturating_sub(1);
            prop_assert_eq!(node.child_for(probe), covered);
        }
    }
}

#[test]
fn a_file_written_in_order_takes_one_entry_per_batch() {
    let mut entries = BTreeMap::new();
    for block in 0..64u64 {
        let object = ObjectId { lsn: Lsn { epoch: 1, pos: 1 + block / 16 }, n: (block % 16) as u32 };
        let value = Extent { len: 65536, object, object_offset: 0 }.encode();
        entries.insert(key::extent(InodeNo(5), block << 16), value);
    }
    let mut builder = LeafBuilder::new();
    entries.iter().for_each(|(k, v)| builder.push(k, v));
    assert!(builder.size() < 4 * 60, "four runs, not 64 extents: {} bytes", builder.size());
    assert_holds(&leaf(&entries), &entries, &[]);
}

#[test]
fn values_are_slices_of_the_node() {
    let mut builder = LeafBuilder::new();
    builder.push(b"a", &[7; 100]);
    let bytes = Bytes::from(builder.finish());
    let Ok(Node::Leaf(leaf)) = Node::decode(bytes.clone()) else { panic!("not a leaf") };
    assert!(bytes.as_ptr_range().contains(&leaf.value(0).as_ptr()));
}

#[test]
fn a_node_is_read_only_under_the_pointer_that_names_its_bytes() {
    let mut builder = LeafBuilder::new();
    builder.push(b"a", b"1");
    let bytes = Bytes::from(builder.finish());
    let ptr = NodePtr::to(SegmentNo { epoch: 1, number: 1 }, 0, &bytes);
    assert!(Node::read(&ptr, bytes.clone()).is_ok());
    let mut flipped = bytes.to_vec();
    *flipped.last_mut().expect("bytes") ^= 1;
    assert!(matches!(Node::read(&ptr, flipped.into()), Err(FormatError::Checksum { .. })));
    assert!(matches!(Node::read(&ptr, bytes.slice(1..)), Err(FormatError::TooShort { .. })));
}

/// A leaf with plain entries and a run, and an interior node.
fn sample_nodes() -> [Bytes; 2] {
    let mut leaf = LeafBuilder::new();
    leaf.push(&key::inode(InodeNo(5)), b"attributes");
    for n in 0..3u32 {
        let object = ObjectId { lsn: Lsn { epoch: 1, pos: 2 }, n };
        let value = Extent { len: 65536, object, object_offset: 0 }.encode();
        leaf.push(&key::extent(InodeNo(5), u64::from(n) << 16), &value);
    }
    leaf.push(&key::inode(InodeNo(6)), b"attributes");
    let mut interior = InteriorBuilder::new(1);
    interior.push(b"aa", NodePtr { segment: SegmentNo { epoch: 1, number: 2 }, offset: 108, len: 9, crc: 5 });
    interior.push(b"ab", NodePtr { segment: SegmentNo { epoch: 1, number: 3 }, offset: 108, len: 9, crc: 5 });
    [leaf.finish().into(), interior.finish().into()]
}

fn read_all(node: &Node) {
    match node {
        Node::Leaf(leaf) => (0..leaf.len()).for_each(|i| assert_eq!(leaf.lower_bound(&leaf.key(i)), i)),
        Node::Interior(node) => (0..node.len()).for_each(|i| assert_eq!(node.child_for(&node.first_key(i)), i)),
    }
}

#[test]
fn promise_s4_every_flipped_bit_and_every_cut_of_a_node_is_found_under_its_pointer() {
    for bytes in sample_nodes() {
        let ptr = NodePtr::to(SegmentNo { epoch: 1, number: 1 }, 0, &bytes);
        assert_damage_is_found(&bytes, |bytes| Node::read(&ptr, Bytes::copy_from_slice(bytes)));
    }
}

#[test]
fn a_damaged_node_that_decodes_is_still_in_order_and_read_without_panic() {
    for bytes in sample_nodes() {
        let decode = |bytes: &[u8]| Node::decode(Bytes::copy_from_slice(bytes)).inspect(read_all);
        // The pointer has the checksum; magic, kind and count are checked without it.
        assert_flips_are_found(&bytes, |at| at < 5 || (8..12).contains(&at), decode);
        // The last value ends where the node ends, so a cut in it gives a shorter value.
        for len in 0..bytes.len() {
            let _ = decode(&bytes[..len]);
        }
    }
}

#[test]
fn promise_g1_node_faults_are_told_apart() {
    let [leaf, interior] = sample_nodes();
    let changed = |bytes: &Bytes, at: usize, to: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = to;
        Node::decode(bytes.into()).map(|_| ())
    };
    assert!(matches!(changed(&leaf, 0, 0), Err(FormatError::Magic { .. })));
    assert_eq!(changed(&leaf, 4, 3), Err(FormatError::Kind { found: 3 }));
    assert!(matches!(changed(&leaf, 5, 1), Err(FormatError::Value(_))));
    assert!(matches!(changed(&interior, 5, 0), Err(FormatError::Value(_))));
    assert!(matches!(changed(&leaf, 11, 0xff), Err(FormatError::TooBig { .. })));
    assert!(matches!(changed(&leaf, 8, 0), Err(FormatError::Value(_))));
    assert!(matches!(Node::decode(leaf.slice(..11)), Err(FormatError::TooShort { .. })));
    let most = NODE_BYTES_MAX as u64;
    let huge = Bytes::from(vec![0; NODE_BYTES_MAX + 1]);
    assert_eq!(Node::decode(huge).map(|_| ()), Err(FormatError::TooBig { limit: most, found: most + 1 }));
    // Both keys of the interior node end in a byte after the prefix "a": swapping the first makes them equal.
    let first_suffix = interior.iter().position(|&b| b == b'a').expect("the prefix") + 1 + 8 + 2;
    assert!(matches!(changed(&interior, first_suffix, b'b'), Err(FormatError::Key(_))));
}
