//! Tables, alone and at the end of a segment.

use super::*;
use crate::format::chunk::ChunkHeader;
use crate::format::faults::assert_damage_is_found;
use crate::format::ids::SegmentKind;
use crate::format::store_segment::SegmentBuilder;

const SEGMENT: SegmentNo = SegmentNo { epoch: 1, number: 4 };

fn of(chunks: u32, tables: u32) -> TableOf {
    let (start, end) = (Lsn { epoch: 1, pos: 4 }, Lsn { epoch: 2, pos: 9000 });
    TableOf { uuid: Uuid(1), segment: SEGMENT, start, end, chunks, tables }
}

fn record(n: u32) -> TableRecord {
    TableRecord {
        object: ObjectId { lsn: Lsn { epoch: 1, pos: 5 + u64::from(n) }, n },
        chunk_offset: 108 + u64::from(n / 3) * 5000,
        offset_in_chunk: n % 3 * 500,
        len: 500,
        birth_ino: InodeNo(7),
        birth_offset: u64::from(n) << 16,
    }
}

fn table(number: u32, records: std::ops::Range<u32>) -> ObjectTable {
    ObjectTable { of: of(2, 2), number, records: records.map(record).collect() }
}

#[test]
fn tables_survive_the_trip() {
    for count in [1, 2, 7, TABLE_OBJECTS_MAX as u32] {
        let bytes = table(1, 0..count).encode();
        assert!(bytes.len() <= OBJECT_BYTES_MAX);
        assert_eq!(ObjectTable::decode(&bytes), Ok(table(1, 0..count)));
        assert_eq!(tables_len(count as usize), (bytes.len() + BODY_OVERHEAD_BYTES) as u64);
    }
}

#[test]
fn promise_s4_every_flipped_bit_and_every_cut_of_a_table_is_found() {
    assert_damage_is_found(&table(0, 0..4).encode(), ObjectTable::decode);
}

#[test]
fn promise_g1_table_faults_are_told_apart() {
    let with = |change: fn(&mut ObjectTable)| {
        let mut changed = table(0, 0..2);
        let good = changed.encode();
        change(&mut changed);
        // As `encode` writes it, which refuses to.
        let mut bytes = good[..at::CHUNKS].to_vec();
        bytes.put_u32_le(changed.of.chunks);
        bytes.put_u32_le(changed.of.tables);
        bytes.put_u32_le(changed.number);
        bytes.put_u32_le(fits(changed.records.len()));
        changed.records.iter().for_each(|record| record.encode_to(&mut bytes));
        seal(&mut bytes, at::CRC);
        ObjectTable::decode(&bytes)
    };
    assert!(with(|_| {}).is_ok());
    assert!(matches!(with(|t| t.number = 2), Err(FormatError::Value(_))));
    assert!(matches!(with(|t| t.of.chunks = 0), Err(FormatError::Value(_))));
    assert!(matches!(with(|t| t.records.clear()), Err(FormatError::Value(_))));
    assert!(matches!(with(|t| t.records.swap(0, 1)), Err(FormatError::Key(_))));
    assert!(matches!(with(|t| t.records[1].offset_in_chunk = 499), Err(FormatError::Key(_))));
    assert_eq!(with(|t| t.records[1].len = 0), Err(FormatError::TooShort { need: 1, have: 0 }));
    assert!(matches!(with(|t| t.records[1].len = 65537), Err(FormatError::TooBig { .. })));
    assert!(matches!(with(|t| t.records[1].offset_in_chunk = u32::MAX), Err(FormatError::Value(_))));
    assert!(matches!(with(|t| t.records[1].object.lsn = Lsn::ZERO), Err(FormatError::Value(_))));
    let mut bytes = table(0, 0..2).encode();
    bytes[at::COUNT + 3] = 1;
    assert!(matches!(ObjectTable::decode(&bytes), Err(FormatError::TooBig { limit: 2, .. })));
    bytes[at::COUNT + 3] = 0;
    bytes.push(0);
    assert!(matches!(ObjectTable::decode(&bytes), Err(FormatError::TooBig { .. })));
}

fn segment(bodies: &[Vec<u8>]) -> (StoreSegment, Bytes) {
    let mut builder = SegmentBuilder::new(Uuid(1), SEGMENT, SegmentKind::Chunks);
    for body in bodies {
        builder.push(ChunkHeader::raw(body), body);
    }
    let bytes = Bytes::from(builder.finish());
    (StoreSegment::parse(&bytes).expect("valid"), bytes)
}

#[test]
fn the_last_bodies_of_a_segment_are_its_tables() {
    let (chunk, first, second) = (vec![7; 1500], table(0, 0..4).encode(), table(1, 4..6).encode());
    let (parsed, bytes) = segment(&[chunk.clone(), chunk.clone(), first.clone(), second.clone()]);
    let tables = Tables::of_segment(&parsed, &bytes);
    let records: Vec<TableRecord> = (0..6).map(record).collect();
    assert_eq!(tables, Tables { of: Some(of(2, 2)), first: 2, records, damaged: 0 });

    let mut damaged = bytes.to_vec();
    damaged[parsed.entries[2].offset as usize + 90] ^= 1;
    let tables = Tables::of_segment(&parsed, &damaged.into());
    assert_eq!((tables.records.len(), tables.damaged), (2, 1), "the other one counts");
    let mut damaged = bytes.to_vec();
    damaged[parsed.entries[3].offset as usize + 90] ^= 1;
    let tables = Tables::of_segment(&parsed, &damaged.into());
    assert_eq!((tables.of, tables.first), (None, 4), "nothing says which are tables");
}

#[test]
fn what_a_user_wrote_is_no_table() {
    let (chunk, own) = (vec![7; 1500], table(1, 0..4).encode());
    let real = ObjectTable { of: of(3, 1), number: 0, records: vec![record(9)] };
    let (parsed, bytes) = segment(&[chunk.clone(), chunk.clone(), own.clone(), real.encode()]);
    let tables = Tables::of_segment(&parsed, &bytes);
    assert_eq!((tables.of, tables.records), (Some(of(3, 1)), vec![record(9)]));
    // Nor is it where it says itself that it lies elsewhere, or is in another segment.
    let (parsed, bytes) = segment(&[chunk.clone(), own.clone()]);
    assert_eq!(Tables::of_segment(&parsed, &bytes).of, None);
    let other = ObjectTable { of: TableOf { segment: SegmentNo { epoch: 1, number: 5 }, ..of(1, 1) }, ..real };
    let (parsed, bytes) = segment(&[chunk, other.encode()]);
    assert_eq!(Tables::of_segment(&parsed, &bytes).of, None);
}
