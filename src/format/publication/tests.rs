//! Numbered objects: the trip, damage, limits.

use super::*;
use crate::format::batch::encode_head;
use crate::format::checkpoint::Settle;
use crate::format::faults::assert_damage_is_found;
use crate::format::ids::{NodePtr, ObjectId, SegmentNo};

const LSN: Lsn = Lsn { epoch: 2, pos: 40 };

fn publication(body: Body) -> Publication {
    let (uuid, state, nonce) = (Uuid(1), Uuid(2), Nonce(3));
    let (start, end) = (Lsn { epoch: 1, pos: 30 }, LSN);
    Publication { uuid, state, nonce, epoch: 2, generation: 5, number: 6, wall: -7, checkpoint: 8, start, end, body }
}

fn windows() -> Vec<WindowEntry> {
    let segment = |number| WindowSegment { segment: SegmentNo { epoch: 2, number }, bytes: 8 << 20, objects: 128 };
    let segments = vec![segment(1), segment(2)];
    vec![WindowEntry { start: Lsn { epoch: 1, pos: 30 }, end: LSN, segments, objects: 256 }]
}

fn settlement() -> Vec<Settle> {
    vec![Settle { object: ObjectId { lsn: LSN, n: 1 }, delta: -2 }]
}

fn bodies() -> [Body; 3] {
    let segment = SegmentNo { epoch: 2, number: 9 };
    let root = NodePtr { segment, offset: 108, len: 700, crc: 5 };
    let heads = [LSN, LSN.next(2)].map(|lsn| encode_head(lsn, 0, &[], &[], false));
    [
        Body::Base(Base {
            roots: [None, Some(root)],
            windows: windows(),
            node_segments: vec![(segment, 4096)],
            settlement: settlement(),
        }),
        Body::Increment(Increment { windows: windows(), settlement: settlement(), batches: heads.concat().into() }),
        Body::Closing(Closing { next_epoch: 3, owner: "host, pid 7".into() }),
    ]
}

fn decode(bytes: &[u8]) -> Result<Publication, FormatError> {
    Publication::decode(&Bytes::copy_from_slice(bytes))
}

#[test]
fn publications_survive_the_trip() {
    for body in bodies() {
        assert_eq!(decode(&publication(body.clone()).encode()), Ok(publication(body)));
    }
}

#[test]
fn an_increment_gives_its_batches_in_order_and_stops_at_damage() {
    let [_, Body::Increment(mut increment), _] = bodies() else { panic!("the second is an increment") };
    let lsns: Result<Vec<Lsn>, _> = increment.batches().map(|batch| batch.map(|batch| batch.lsn)).collect();
    assert_eq!(lsns, Ok(vec![LSN, LSN.next(2)]));
    increment.batches = increment.batches.slice(..increment.batches.len() - 1);
    let kinds: Vec<bool> = increment.batches().map(|batch| batch.is_ok()).collect();
    assert_eq!(kinds, [true, false]);
}

#[test]
fn promise_s4_every_flipped_bit_and_every_cut_of_a_publication_is_found() {
    for body in bodies() {
        assert_damage_is_found(&publication(body).encode(), decode);
    }
}

#[test]
fn promise_g1_publication_faults_are_told_apart() {
    let [base, increment, closing] = bodies();
    let good = publication(closing).encode();
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        decode(&bytes)
    };
    assert!(matches!(changed(at::MAGIC, 0), Err(FormatError::Magic { .. })));
    assert_eq!(changed(at::VERSION, 2), Err(FormatError::Version { supported: 1, found: 2 }));
    assert!(matches!(changed(at::WALL, 1), Err(FormatError::Checksum { .. })));
    assert!(matches!(decode(&good[..good.len() - 1]), Err(FormatError::TooShort { .. })));
    assert!(matches!(decode(&[&good[..], b"x"].concat()), Err(FormatError::TooBig { .. })));

    let resealed = |body: Body, at: usize, to: u8| {
        let mut bytes = publication(body).encode();
        bytes[at] = to;
        seal(&mut bytes, super::at::CRC);
        decode(&bytes)
    };
    assert_eq!(resealed(base.clone(), at::KIND, 4), Err(FormatError::Kind { found: 4 }));
    let window_count = at::SIZE + 2 * 24;
    assert!(matches!(resealed(base, window_count, 99), Err(FormatError::TooBig { found: 99, .. })));
    assert!(matches!(resealed(increment, at::SIZE + 4 + 12, 0), Err(FormatError::Value(_))));
    let twice = Increment { windows: [windows(), windows()].concat(), settlement: vec![], batches: Bytes::new() };
    let two_windows = publication(Body::Increment(twice)).encode();
    assert_eq!(decode(&two_windows), Err(FormatError::TooBig { limit: 1, found: 2 }));
}
