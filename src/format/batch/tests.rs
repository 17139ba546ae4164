//! Batches: the trip, damage, limits.

use super::*;
use crate::format::faults::assert_damage_is_found;
use proptest::prelude::*;

const LSN: Lsn = Lsn { epoch: 3, pos: 41 };

fn any_edit() -> impl Strategy<Value = (TreeId, Edit)> {
    let bytes = |least| proptest::collection::vec(any::<u8>(), least..30).prop_map(Bytes::from);
    let tree = prop_oneof![Just(TreeId::Files), Just(TreeId::Space)];
    (tree, 0..4u8, bytes(1), bytes(1), bytes(0), any::<(u64, u64)>()).prop_map(|(tree, which, a, b, value, numbers)| {
        match which {
            0 => (tree, Edit::Put { key: a, value }),
            1 => (tree, Edit::Delete { key: a }),
            2 => (tree, Edit::DeleteRange { from: a.clone().min(b.clone()), to: a.max(b) }),
            _ => (TreeId::Files, Edit::OwnExtent { ino: InodeNo(numbers.0), offset: numbers.1, n: 0 }),
        }
    })
}

/// The bytes of a batch as the journal holds it.
fn encode(edits: &[(TreeId, Edit)], objects: &[&[u8]]) -> Bytes {
    let headers: Vec<_> = objects.iter().map(|object| ChunkHeader::raw(object)).collect();
    let mut out = encode_head(LSN, fits(edits.len()), &encode_edits(edits), &headers, true);
    objects.iter().for_each(|object| out.extend_from_slice(object));
    out.into()
}

fn decode(bytes: &[u8]) -> Result<Batch, FormatError> {
    let buffer = Bytes::copy_from_slice(bytes);
    let (batch, _) = Batch::decode(&buffer, 0)?;
    batch.verify_payload(&buffer)?;
    Ok(batch)
}

fn sample() -> Vec<(TreeId, Edit)> {
    vec![
        (TreeId::Files, Edit::Put { key: key::inode(InodeNo(7)), value: Bytes::from_static(b"value") }),
        (TreeId::Space, Edit::Delete { key: Bytes::from_static(b"k") }),
        (TreeId::Files, Edit::OwnExtent { ino: InodeNo(7), offset: 4096, n: 1 }),
        (TreeId::Files, Edit::DeleteRange { from: Bytes::from_static(b"a"), to: Bytes::from_static(b"b") }),
    ]
}

proptest! {
    #[test]
    fn batches_survive_the_trip_wherever_they_lie(
        edits in proptest::collection::vec(any_edit(), 0..12),
        object in proptest::collection::vec(any::<u8>(), 1..50),
        before in 0..9usize,
    ) {
        let batch = encode(&edits, &[&object, b"second"]);
        let buffer = Bytes::from([&vec![9; before][..], &batch, b"after"].concat());
        let (decoded, used) = Batch::decode(&buffer, before).expect("valid");
        prop_assert_eq!(used, batch.len());
        prop_assert_eq!(decoded.lsn, LSN);
        prop_assert_eq!(&decoded.edits, &edits);
        let bytes = |i: usize| &buffer[decoded.objects[i].offset..][..decoded.objects[i].header.stored_len as usize];
        prop_assert_eq!((bytes(0), bytes(1)), (&object[..], &b"second"[..]));
        prop_assert_eq!(decoded.verify_payload(&buffer), Ok(()));
    }
}

#[test]
fn a_head_without_payload_carries_the_same_edits_and_objects() {
    let (batch, _) = Batch::decode(&encode(&sample(), &[b"one", b"two"]), 0).expect("valid");
    let bare = Bytes::from(encode_head(
        batch.lsn,
        fits(batch.edits.len()),
        &encode_edits(&batch.edits),
        &batch.headers(),
        false,
    ));
    let (decoded, used) = Batch::decode(&bare, 0).expect("valid");
    assert_eq!(used, bare.len());
    assert!(!decoded.payload_present && decoded.head_len == batch.head_len);
    assert_eq!((decoded.edits, decoded.lsn), (batch.edits.clone(), batch.lsn));
    assert_eq!(decoded.objects.iter().map(|o| o.header).collect::<Vec<_>>(), batch.headers());
}

#[test]
fn an_own_extent_becomes_the_put_of_the_extent_with_the_batch_s_name() {
    let objects = [ChunkHeader::raw(b"one"), ChunkHeader::raw(b"twotwo")];
    let edit = Edit::OwnExtent { ino: InodeNo(7), offset: 4096, n: 1 }.resolve(LSN, &objects);
    let extent = Extent { len: 6, object: ObjectId { lsn: LSN, n: 1 }, object_offset: 0 };
    assert_eq!(edit, Edit::Put { key: key::extent(InodeNo(7), 4096), value: extent.encode() });
}

#[test]
fn promise_s4_every_flipped_bit_and_every_cut_of_a_batch_is_found() {
    assert_damage_is_found(&encode(&sample(), &[b"first object", b"second"]), decode);
}

/// Makes the checksum right again after a change, to see what is refused besides damage.
fn resealed(change: impl FnOnce(&mut [u8])) -> Result<Batch, FormatError> {
    let mut bytes =
        encode_head(LSN, 4, &encode_edits(&sample()), &[ChunkHeader::raw(b"1"), ChunkHeader::raw(b"2")], false);
    change(&mut bytes);
    seal(&mut bytes, at::CRC);
    decode(&bytes)
}

#[test]
fn promise_g1_batch_faults_are_told_apart() {
    let head = encode(&sample(), &[b"1", b"2"]);
    assert!(matches!(decode(&[b"XXXX", &head[4..]].concat()), Err(FormatError::Magic { .. })));
    assert!(matches!(decode(&head[..20]), Err(FormatError::TooShort { .. })));
    assert!(matches!(decode(&[&head[..70], b"?", &head[71..]].concat()), Err(FormatError::Checksum { .. })));
    assert!(resealed(|_| {}).is_ok());
    assert_eq!(resealed(|b| b[at::FLAGS] = 2), Err(FormatError::Kind { found: 2 }));
    assert!(matches!(resealed(|b| b[at::RESERVED] = 1), Err(FormatError::Value(_))));
    assert!(matches!(resealed(|b| b[at::EDIT_COUNT + 2] = 1), Err(FormatError::TooBig { .. })));
    assert_eq!(resealed(|b| b[at::SIZE] = 9), Err(FormatError::Kind { found: 9 }));
    let key_len = at::SIZE + put_at::KEY_LEN;
    let too_long = FormatError::TooBig { limit: KEY_BYTES_MAX as u64, found: 0x0209 };
    assert_eq!(resealed(|b| b[key_len + 1] = 2), Err(too_long));
    assert_eq!(resealed(|b| b[key_len] = 0), Err(FormatError::TooShort { need: 1, have: 0 }));
    let value_len = at::SIZE + put_at::VALUE_LEN;
    assert!(matches!(resealed(|b| b[value_len + 3] = 1), Err(FormatError::TooBig { limit: 65536, .. })));
}

#[test]
fn an_extent_over_an_object_that_is_not_there_is_refused() {
    let edits = [(TreeId::Files, Edit::OwnExtent { ino: InodeNo(7), offset: 0, n: 1 })];
    assert!(matches!(decode(&encode(&edits, &[b"only one"])), Err(FormatError::Value(_))));
}

#[test]
fn huge_lengths_are_refused_without_being_believed() {
    let mut bytes = encode(&[], &[]).to_vec();
    bytes[at::EDITS_LEN..at::SIZE].fill(0xff);
    assert!(matches!(decode(&bytes), Err(FormatError::TooShort { .. })));
    assert!(matches!(Batch::decode(&bytes.into(), usize::MAX), Err(FormatError::TooShort { .. })));
}

#[test]
fn batches_are_found_between_bytes_that_are_none() {
    let (one, two) = (encode(&sample(), &[b"1", b"2"]), encode(&sample(), &[b"one", b"two"]));
    let all: Bytes = [&b"SKba SKbaSKba"[..], &one, b"SKba", &two[..50], &two, b"SK"].concat().into();
    let (mut at, mut found, mut budget) = (0, Vec::new(), 10_000);
    while let Some((batch, start, used)) = Batch::find(&all, at, &mut budget) {
        assert_eq!(Ok((batch, used)), Batch::decode(&all, start));
        found.push((start, used));
        at = start + used;
    }
    let second = 13 + one.len() + 4 + 50;
    assert_eq!(found, [(13, one.len()), (second, two.len())]);
    assert!(budget < 10_000, "heads that are none cost something");
    assert_eq!(Batch::find(&all, 14, &mut 10), None, "and not more than there is");
}
