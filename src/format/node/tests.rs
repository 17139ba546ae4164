//! Nodes against a sorted list.

use super::*;
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
