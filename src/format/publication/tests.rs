//! Numbered objects: the trip, damage, limits.

use super::*;
use crate::format::batch::{Edit, TreeId, encode_edits, encode_head};
use crate::format::checkpoint::Settle;
use crate::format::chunk::ChunkHeader;
use crate::format::faults::assert_damage_is_found;
use crate::format::ids::{InodeNo, NodePtr, ObjectId, SegmentNo};
use crate::format::key;
use crate::format::space::{self, Mark};

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

/// A batch with its object, as the journal holds it.
fn whole(lsn: Lsn, edits: &[(TreeId, Edit)], object: &'static [u8]) -> Bytes {
    let headers = [ChunkHeader::raw(object)];
    let count = u32::try_from(edits.len()).expect("few");
    let head = encode_head(lsn, count, &encode_edits(edits), &headers[..usize::from(!object.is_empty())], true);
    [&head, object].concat().into()
}

fn file_edit() -> (TreeId, Edit) {
    (TreeId::Files, Edit::OwnExtent { ino: InodeNo(7), offset: 4096, n: 0 })
}

fn mark_edit() -> (TreeId, Edit) {
    (TreeId::Space, Edit::Put { key: space::mark(Mark::Inode), value: space::encode_number(90) })
}

fn space_edit() -> (TreeId, Edit) {
    (TreeId::Space, Edit::Put { key: space::mark(Mark::Segment), value: space::encode_number(90) })
}

fn log() -> Log {
    let batches = [whole(LSN, &[file_edit()], b"contents"), whole(LSN.next(2).next(2), &[mark_edit()], b"")];
    Log { batches: batches.concat().into() }
}

fn bodies() -> [Body; 5] {
    let segment = SegmentNo { epoch: 2, number: 9 };
    let root = NodePtr { segment, offset: 108, len: 700, crc: 5 };
    let heads = [LSN, LSN.next(2)].map(|lsn| encode_head(lsn, 0, &[], &[], false));
    [
        Body::Base(Base {
            roots: [None, Some(root)],
            windows: windows(),
            node_segments: vec![(segment, 4096)],
            settlement: settlement(),
            log: Log::default(),
        }),
        Body::Increment(Increment { windows: windows(), settlement: settlement(), batches: heads.concat().into() }),
        Body::Closing(Closing { next_epoch: 3, owner: "host, pid 7".into() }),
        Body::Log(log()),
        Body::Base(Base { node_segments: vec![(segment, 4096)], log: log(), ..Base::default() }),
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
    let [_, Body::Increment(mut increment), ..] = bodies() else { panic!("the second is an increment") };
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
    let [base, increment, closing, ..] = bodies();
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
    assert_eq!(resealed(base.clone(), at::KIND, 5), Err(FormatError::Kind { found: 5 }));
    let window_count = at::SIZE + 2 * 24;
    assert!(matches!(resealed(base, window_count, 99), Err(FormatError::TooBig { found: 99, .. })));
    assert!(matches!(resealed(increment, at::SIZE + 4 + 12, 0), Err(FormatError::Value(_))));
    let twice = Increment { windows: [windows(), windows()].concat(), settlement: vec![], batches: Bytes::new() };
    let two_windows = publication(Body::Increment(twice)).encode();
    assert_eq!(decode(&two_windows), Err(FormatError::TooBig { limit: 1, found: 2 }));
}

#[test]
fn a_log_gives_its_batches_with_their_data_and_stops_at_damage() {
    let batches: Vec<LogBatch> = log().batches().map(|batch| batch.expect("decodes")).collect();
    let lsns: Vec<Lsn> = batches.iter().map(|batch| batch.batch.lsn).collect();
    assert_eq!(lsns, [LSN, LSN.next(2).next(2)]);
    assert_eq!((&batches[0].object(0)[..], &batches[0].batch.edits[..]), (&b"contents"[..], &[file_edit()][..]));
    assert_eq!(batches.iter().map(|batch| &batch.encoded[..]).collect::<Vec<_>>().concat(), log().batches);
    assert_eq!(Log::default().batches().count(), 0);

    let ends_badly = |bytes: Vec<u8>| {
        let log = Log { batches: bytes.into() };
        let good: Vec<bool> = log.batches().map(|batch| batch.is_ok()).collect();
        assert_eq!(good, [true, false]);
    };
    let first = batches[0].encoded.to_vec();
    ends_badly([&first[..], &batches[1].encoded[..7]].concat());
    // Out of order.
    ends_badly([&first[..], &first].concat());
    // The object is missing, or is another.
    let head = encode_head(LSN.next(2), 0, &[], &[ChunkHeader::raw(b"data")], false);
    ends_badly([&first[..], &head].concat());
    let mut damaged = whole(LSN.next(2), &[file_edit()], b"contents").to_vec();
    *damaged.last_mut().expect("bytes") ^= 1;
    ends_badly([first, damaged].concat());
}

#[test]
fn a_log_carries_files_and_the_mark_of_inode_numbers() {
    let whole_batch = whole(LSN, &[file_edit(), mark_edit()], b"contents");
    assert_eq!(Log::part_of(&whole_batch), Ok(Some(whole_batch.clone())));
    // What follows the batch is not of it.
    assert_eq!(Log::part_of(&[&whole_batch[..], b"more"].concat().into()), Ok(Some(whole_batch.clone())));

    let mixed = whole(LSN, &[space_edit(), file_edit(), mark_edit()], b"contents");
    assert_eq!(Log::part_of(&mixed), Ok(Some(whole_batch)));

    let delete = (TreeId::Space, Edit::Delete { key: space::mark(Mark::Inode) });
    let range = (TreeId::Space, Edit::DeleteRange { from: Bytes::from_static(b"a"), to: Bytes::from_static(b"b") });
    assert_eq!(Log::part_of(&whole(LSN, &[space_edit(), delete, range], b"")), Ok(None));
    assert_eq!(Log::part_of(&whole(LSN, &[], b"")), Ok(None));

    let file_delete = (TreeId::Files, Edit::Delete { key: key::inode(InodeNo(7)) });
    assert!(Log::part_of(&whole(LSN, &[file_delete], b"")).is_ok_and(|part| part.is_some()));
    assert!(Log::part_of(&Bytes::from_static(b"not a batch")).is_err());
}
