//! Values of the space map carry no checksum of their own, so a flipped bit may give another valid value; none may panic.

use super::*;
use crate::format::faults::{assert_cuts_are_found, assert_flips_are_found};
use proptest::prelude::*;
use std::fmt::Debug;

const LSN: Lsn = Lsn { epoch: 2, pos: 900 };
const OBJECT: ObjectId = ObjectId { lsn: LSN, n: 3 };

fn keys() -> [Key; 9] {
    [
        Key::Mark(Mark::Inode),
        Key::Mark(Mark::Segment),
        Key::Segment(SegmentNo { epoch: 1, number: 7 }),
        Key::Window(LSN),
        Key::Count(OBJECT),
        Key::Pending(Bytes::from_static(b"seg/1/7")),
        Key::Waiting(OBJECT),
        Key::Settled,
        Key::Published,
    ]
}

#[test]
fn keys_survive_the_trip_and_cuts_are_found() {
    for key in keys() {
        let bytes = key.encode();
        assert_eq!(Key::decode(&bytes), Ok(key.clone()));
        assert_flips_are_found(&bytes, |_| false, Key::decode);
        let cut_is_a_shorter_name = matches!(key, Key::Pending(_));
        if !cut_is_a_shorter_name {
            assert_cuts_are_found(&bytes, Key::decode);
        }
    }
    assert!(keys().is_sorted_by_key(|key| key.encode()));
}

proptest! {
    #[test]
    fn any_bytes_decode_to_a_key_that_encodes_to_them_or_fail(bytes in proptest::collection::vec(0..10u8, 0..20)) {
        if let Ok(key) = Key::decode(&bytes) {
            prop_assert_eq!(&key.encode()[..], &bytes[..]);
        }
    }
}

#[test]
fn ranges_hold_their_kind_and_nothing_else() {
    let inside = |(from, to): (Bytes, Bytes), key: &Bytes| from <= *key && *key < to;
    for (i, key) in keys().iter().map(Key::encode).enumerate() {
        let found = [segments(), windows(), counts(), pendings(), waitings()].map(|range| inside(range, &key));
        assert_eq!(found, [i == 2, i == 3, i == 4, i == 5, i == 6], "key {i}");
    }
}

fn assert_value<T: Debug + PartialEq>(value: T, bytes: Bytes, decode: impl Fn(&[u8]) -> Result<T, FormatError>) {
    assert_eq!(decode(&bytes), Ok(value));
    assert_flips_are_found(&bytes, |_| false, &decode);
    assert_cuts_are_found(&bytes, &decode);
    assert!(decode(&[&bytes[..], &[0]].concat()).is_err(), "a byte too many");
}

#[test]
fn values_survive_the_trip_and_cuts_are_found() {
    let kind = SegmentKind::Nodes;
    let record = SegmentRecord { kind, bytes: 1 << 40, objects: 9, live_bytes: 5, live_objects: 6, window_end: LSN };
    assert_value(record, record.encode(), SegmentRecord::decode);
    let segments = vec![SegmentNo { epoch: 1, number: 7 }, SegmentNo { epoch: 2, number: 1 }];
    let record = WindowRecord { start: LSN, segments, live_objects: 8 };
    assert_value(record.clone(), record.encode(), WindowRecord::decode);
    let pending = Pending { since: -5, checkpoint: 7 };
    assert_value(pending, pending.encode(), Pending::decode);
    let settled = Settled { checkpoint: 4, cursor: 12 };
    assert_value(settled, settled.encode(), Settled::decode);
    let published = Published { end: LSN, checkpoint: 4, generation: 2, number: 9 };
    assert_value(published, published.encode(), Published::decode);
    assert_value(77, encode_number(77), decode_number);
    assert_value(78, encode_count(78), decode_count);
}

#[test]
fn promise_g1_space_faults_are_told_apart() {
    assert_eq!(Key::decode(&[]), Err(FormatError::TooShort { need: 1, have: 0 }));
    assert_eq!(Key::decode(&[9]), Err(FormatError::Kind { found: 9 }));
    assert_eq!(Key::decode(&[MARK, 3]), Err(FormatError::Kind { found: 3 }));
    assert!(matches!(Key::decode(&[SEGMENT, 1]), Err(FormatError::Key(_))));
    let name = vec![b'a'; KEY_BYTES_MAX];
    assert!(matches!(Key::decode(&pending(&name)), Err(FormatError::Key(_))));
    assert!(Key::decode(&pending(&name[1..])).is_ok());
    let huge = [&[0; 16][..], &[0xff; 4]].concat();
    assert!(matches!(WindowRecord::decode(&huge), Err(FormatError::TooBig { limit: 0, .. })));
}
