//! Windows packed into segments: sizes, numbers, tables.

use super::*;
use crate::base::random::SeededRandom;
use crate::checkpoint::jobs::segments_for;
use crate::format::ids::InodeNo;
use crate::format::object_table::Tables;
use crate::format::store_segment::StoreSegment;
use std::collections::BTreeMap;

/// A window of objects with these lengths; half of them were born under an extent that is shorter.
fn packed(lens: &[usize], segment_bytes: usize) -> (usize, WindowEntry, WindowIndex, Vec<(SegmentNo, Bytes)>) {
    let data = Bytes::from(vec![7; OBJECT_BYTES_MAX]);
    let birth = |n: usize| Birth {
        ino: InodeNo(2),
        offset: (n as u64) << 16,
        object: ObjectId { lsn: Lsn { epoch: 1, pos: n as u64 + 1 }, n: 0 },
        len: if n % 2 == 0 { 1 } else { u32::try_from(lens[n]).expect("short") },
    };
    let births: Vec<Birth> = (0..lens.len()).map(birth).collect();
    let planned = segments_for(&births, segment_bytes, OBJECT_BYTES_MAX);
    let numbers = (0..planned as u64).map(|number| SegmentNo { epoch: 1, number }).collect();
    let (start, end) = (Lsn::ZERO, Lsn { epoch: 1, pos: 1 << 20 });
    let window = Window { filesystem: Uuid(1), start, end, numbers, segment_bytes };
    let lens: BTreeMap<ObjectId, usize> = births.iter().map(|birth| birth.object).zip(lens.iter().copied()).collect();
    let mut segments = Vec::new();
    let (entry, index) = pack(&window, &births, &mut |id| Ok(data.slice(..lens[id])), &mut |no, bytes| {
        segments.push((no, bytes));
        Ok(())
    })
    .expect("numbers are enough");
    (planned, entry, WindowIndex::decode(&index).expect("valid"), segments)
}

/// The tables of all segments say what the index says.
fn assert_tables_agree(index: &WindowIndex, segments: &[(SegmentNo, Bytes)]) {
    for (no, bytes) in segments {
        let parsed = StoreSegment::parse(bytes).expect("valid");
        parsed.verify(bytes).expect("whole");
        let tables = Tables::of_segment(&parsed, bytes);
        let of = tables.of.expect("every segment has a table");
        assert_eq!((of.uuid, of.segment, of.start, of.end), (index.uuid, *no, index.start, index.end));
        let mut expected: Vec<TableRecord> =
            index.entries.iter().filter(|entry| index.segments[entry.segment as usize] == *no).map(record_of).collect();
        expected.sort_by_key(|record| (record.chunk_offset, record.offset_in_chunk));
        assert!(tables.records == expected, "segment {no}");
    }
}

fn record_of(entry: &IndexEntry) -> TableRecord {
    let IndexEntry { object, chunk_offset, offset_in_chunk, len, birth_ino, birth_offset, .. } = *entry;
    TableRecord { object, chunk_offset, offset_in_chunk, len, birth_ino, birth_offset }
}

#[test]
fn a_window_never_needs_more_numbers_than_are_planned_nor_far_fewer() {
    let birth = |len: usize| Birth {
        ino: InodeNo(2),
        offset: 0,
        object: ObjectId { lsn: Lsn { epoch: 1, pos: 1 }, n: 0 },
        len: u32::try_from(len).expect("short"),
    };
    let random = SeededRandom::new(3);
    for round in 0..400 {
        let segment_bytes = 4096 << random.below(8);
        // Of one kind, or mixed; the worst are those of which just one fits.
        let len_max = [300, 20_000, 33_000, OBJECT_BYTES_MAX as u64][round % 4];
        let len_min = [1, 1, 32_700, OBJECT_BYTES_MAX as u64][round / 4 % 4].min(len_max);
        let len = |_| (len_min + random.below(len_max - len_min + 1)) as usize;
        let lens: Vec<usize> = (0..1 + random.below(120)).map(len).collect();
        let (planned, entry, index, segments) = packed(&lens, segment_bytes);
        assert!(entry.segments.len() <= planned && planned <= lens.len());
        let births: Vec<Birth> = lens.iter().map(|len| birth(*len)).collect();
        let planned = segments_for(&births, segment_bytes, 0);
        assert!((entry.segments.len()..=3 * entry.segments.len() + 1).contains(&planned), "{planned} planned");
        assert_tables_agree(&index, &segments);
        // One that holds more than a chunk keeps to its size.
        for (_, bytes) in &segments {
            let bodies = StoreSegment::parse(bytes).expect("valid").entries.len();
            assert!(bytes.len() <= segment_bytes || bodies == 2, "{} of {segment_bytes} bytes", bytes.len());
        }
    }
}

#[test]
fn only_where_a_whole_object_was_born_is_known() {
    let (_, _, index, segments) = packed(&[100; 20], 1 << 20);
    assert_tables_agree(&index, &segments);
    for entry in &index.entries {
        let n = entry.object.lsn.pos - 1;
        let expected = if n % 2 == 0 { BIRTH_UNKNOWN } else { n << 16 };
        assert_eq!((entry.birth_ino, entry.birth_offset), (InodeNo(2), expected), "object {n}");
    }
}

#[test]
fn a_segment_of_very_many_small_objects_has_several_tables() {
    let lens = vec![1; 3 * TABLE_OBJECTS_MAX + 5];
    let (_, entry, index, segments) = packed(&lens, 1 << 20);
    assert_eq!((entry.segments.len(), entry.objects as usize), (1, lens.len()));
    assert_eq!(StoreSegment::parse(&segments[0].1).expect("valid").entries.len(), 4 + 4);
    assert_tables_agree(&index, &segments);
    let (_, entry, index, segments) = packed(&lens, 128 << 10);
    assert_eq!(entry.segments.len(), 3, "the tables count towards the size");
    assert_tables_agree(&index, &segments);
}

#[test]
fn what_tables_take_is_little() {
    for (len, most) in [(4096, 1.3), (OBJECT_BYTES_MAX, 0.4)] {
        let lens = vec![len; (12 << 20) / len];
        let (_, entry, _, segments) = packed(&lens, 16 << 20);
        let parsed = StoreSegment::parse(&segments[0].1).expect("valid");
        let tables = Tables::of_segment(&parsed, &segments[0].1);
        let data = (lens.len() * len) as f64;
        let bytes: usize =
            parsed.entries[tables.first..].iter().map(|e| e.chunk.stored_len as usize + BODY_OVERHEAD_BYTES).sum();
        let (percent, all) = (bytes as f64 / data * 100.0, (entry.segments[0].bytes as f64 / data - 1.0) * 100.0);
        println!("objects of {len} bytes: tables {percent:.3} %, all but the data {all:.3} %");
        assert!(percent < most && bytes as u64 == tables_len(lens.len()));
    }
}
