//! The index of a shipped window: where each of its objects is. Records lie in blocks in the order of their objects, so
//! that one object is found by reading a few blocks. The birth of each object is there for the cleaner and for repair.

use super::blocks::{self, Record};
use super::chunk::{CHUNK_BRIEF_BYTES, ChunkHeader, check_len};
use super::error::FormatError;
use super::ids::{InodeNo, Lsn, OBJECT_BYTES_MAX, ObjectId, SegmentNo, Uuid};
use super::wire::{
    LSN_BYTES, OBJECT_ID_BYTES, PutIds, Reader, SEGMENT_NO_BYTES, VERSION, check_seal, fits, layout, seal,
};
use crate::base::canary::Canary;
use bytes::BufMut;
use std::cmp::Ordering;
use std::ops::Range;

const MAGIC: u32 = u32::from_le_bytes(*b"SKwi");

layout! {
    /// The numbers of the segments follow, then blocks of records. The checksum is of the header with the segments; each
    /// block has its own.
    mod at, 60 bytes {
        MAGIC: 4, CRC: 4, VERSION: 2, RESERVED: 2, UUID: 16, START: super::LSN_BYTES, END: super::LSN_BYTES, COUNT: 4,
        SEGMENT_COUNT: 4,
    }
}
layout! {
    mod record_at, 68 bytes {
        OBJECT: super::OBJECT_ID_BYTES, SEGMENT: 4, CHUNK_OFFSET: 8, CHUNK: super::CHUNK_BRIEF_BYTES,
        OFFSET_IN_CHUNK: 4, LEN: 4, BIRTH_INO: 8, BIRTH_OFFSET: 8,
    }
}

/// Bytes of the header before the segments: enough to learn how long the header is.
pub const WINDOW_HEADER_BYTES: usize = at::SIZE;
/// The most segments in a window.
pub const WINDOW_SEGMENTS_MAX: u32 = 1 << 20;

/// Where an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The object.
    pub object: ObjectId,
    /// Which of the header's segments holds it.
    pub segment: u32,
    /// Where the chunk's stored bytes start in the segment.
    pub chunk_offset: u64,
    /// How to read the chunk. Its nonce is in the chunk's frame.
    pub chunk: ChunkHeader,
    /// Where in the opened chunk the object starts.
    pub offset_in_chunk: u32,
    /// The object's length in bytes.
    pub len: u32,
    /// The file in which it was born.
    pub birth_ino: InodeNo,
    /// Where in that file the object starts; [`BIRTH_UNKNOWN`] if the extent there had a part of it only.
    pub birth_offset: u64,
}

/// No file has such an offset. Earlier versions put where the extent starts instead; their segments have no object tables.
pub const BIRTH_UNKNOWN: u64 = u64::MAX;

impl Record for IndexEntry {
    const CHECKED: Canary = Canary::WindowBlockCrc;
    const BYTES: usize = record_at::SIZE;

    fn encode_to(&self, out: &mut Vec<u8>) {
        out.put_object(self.object);
        out.put_u32_le(self.segment);
        out.put_u64_le(self.chunk_offset);
        self.chunk.encode_brief_to(out);
        out.put_u32_le(self.offset_in_chunk);
        out.put_u32_le(self.len);
        out.put_u64_le(self.birth_ino.0);
        out.put_u64_le(self.birth_offset);
    }

    fn read(field: &mut Reader<'_>) -> Result<IndexEntry, FormatError> {
        let entry = IndexEntry {
            object: field.object()?,
            segment: field.u32()?,
            chunk_offset: field.u64()?,
            chunk: ChunkHeader::read_brief(field, OBJECT_BYTES_MAX)?,
            offset_in_chunk: field.u32()?,
            len: field.u32()?,
            birth_ino: InodeNo(field.u64()?),
            birth_offset: field.u64()?,
        };
        check_len(entry.len, OBJECT_BYTES_MAX)?;
        if u64::from(entry.offset_in_chunk) + u64::from(entry.len) > u64::from(entry.chunk.raw_len) {
            return Err(FormatError::Value("an object that reaches over the end of its chunk"));
        }
        Ok(entry)
    }
}

/// What starts a window index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowHeader {
    /// The filesystem.
    pub uuid: Uuid,
    /// Where the window starts; not in it.
    pub start: Lsn,
    /// Where it ends; in it.
    pub end: Lsn,
    /// The segments that hold its objects.
    pub segments: Vec<SegmentNo>,
    /// Objects in it.
    pub count: u32,
}

impl WindowHeader {
    /// The bytes of the header alone.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len() as usize);
        out.put_u32_le(MAGIC);
        out.put_u32_le(0);
        out.put_u16_le(VERSION);
        out.put_u16_le(0);
        out.put_u128_le(self.uuid.0);
        out.put_lsn(self.start);
        out.put_lsn(self.end);
        out.put_u32_le(self.count);
        out.put_u32_le(fits(self.segments.len()));
        self.segments.iter().for_each(|segment| out.put_segment(*segment));
        seal(&mut out, at::CRC);
        out
    }

    /// Reads the header from the start of an index. When too few bytes are given, the error says how many it needs.
    pub fn decode(bytes: &[u8]) -> Result<WindowHeader, FormatError> {
        let mut field = Reader::new(bytes);
        field.magic("a window index", MAGIC)?;
        let _crc = field.u32()?;
        field.version()?;
        field.zeros(2)?;
        let (uuid, start, end, count) = (field.uuid()?, field.lsn()?, field.lsn()?, field.u32()?);
        let segment_count = field.u32()?;
        if segment_count > WINDOW_SEGMENTS_MAX {
            return Err(FormatError::TooBig { limit: WINDOW_SEGMENTS_MAX.into(), found: segment_count.into() });
        }
        let segment_count = segment_count as usize;
        let len = at::SIZE + segment_count * SEGMENT_NO_BYTES;
        check_seal(Reader::new(bytes).take(len)?, at::CRC, Canary::WindowCrc)?;
        let segments = (0..segment_count).map(|_| field.segment()).collect::<Result<_, _>>()?;
        Ok(WindowHeader { uuid, start, end, segments, count })
    }

    /// What a damaged header may say: which segments, how many records. It is taken for that of window (`start`, `end`], and each
    /// of its two counts for the right one, from which and from the length of the whole index the other follows. Which one is
    /// right the blocks tell, which have checksums of their own, and the chunks.
    pub fn guesses(bytes: &[u8], uuid: Uuid, (start, end): (Lsn, Lsn), index_len: u64) -> Vec<WindowHeader> {
        let mut field = Reader::starting_at(bytes, at::COUNT);
        let (Ok(count), Ok(segment_count)) = (field.u32(), field.u32()) else { return Vec::new() };
        let Some(lists) = index_len.checked_sub(at::SIZE as u64) else { return Vec::new() };
        let names = |segments: u64| segments * SEGMENT_NO_BYTES as u64;
        let by_segments = lists.checked_sub(names(segment_count.into())).and_then(blocks::count_in::<IndexEntry>);
        let rest = lists.checked_sub(blocks::bytes_of::<IndexEntry>(count)).filter(|rest| rest % names(1) == 0);
        let by_segments = by_segments.map(|count| (count, u64::from(segment_count)));
        let by_count = rest.map(|rest| (count, rest / names(1))).filter(|guess| by_segments != Some(*guess));
        let header = |(count, segment_count): (u32, u64)| {
            let mut field = field;
            let limit = u64::from(WINDOW_SEGMENTS_MAX).min(field.remaining() as u64 / names(1));
            let segments = (0..segment_count).map(|_| field.segment());
            let segments = (segment_count <= limit).then(|| segments.collect::<Result<_, _>>().ok())??;
            Some(WindowHeader { uuid, start, end, segments, count })
        };
        by_segments.into_iter().chain(by_count).filter_map(header).collect()
    }

    /// Bytes of the whole index.
    pub fn index_len(&self) -> u64 {
        self.len() + blocks::bytes_of::<IndexEntry>(self.count)
    }

    /// Bytes of the header.
    #[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub fn len(&self) -> u64 {
        (at::SIZE + self.segments.len() * SEGMENT_NO_BYTES) as u64
    }

    /// Blocks of records.
    pub fn blocks(&self) -> u32 {
        blocks::block_count(self.count)
    }

    /// Where block `number` lies in the index.
    pub fn block_range(&self, number: u32) -> Range<u64> {
        let range = blocks::block_range::<IndexEntry>(number, self.count);
        self.len() + range.start..self.len() + range.end
    }

    /// Decodes block `number` from exactly its bytes.
    pub fn decode_block(&self, number: u32, bytes: &[u8]) -> Result<Vec<IndexEntry>, FormatError> {
        let entries = blocks::decode_block(bytes, self.end, number, self.count)?;
        self.check(&entries)?;
        Ok(entries)
    }

    /// Finds an object by reading blocks, fewer than a binary search takes in most. `read` gives the bytes of a range of the index,
    /// which [`WindowHeader::decode_block`] took before: of these only the records on the way are decoded.
    pub fn find<B: AsRef<[u8]>, E: From<FormatError>>(
        &self,
        object: ObjectId,
        mut read: impl FnMut(Range<u64>) -> Result<B, E>,
    ) -> Result<Option<IndexEntry>, E> {
        let (mut low, mut high) = (0, self.blocks());
        let (mut after, mut before) = (self.start.pos, self.end.pos.saturating_add(1));
        for guesses in 0.. {
            if low >= high {
                break;
            }
            // Objects lie about evenly over the batches, so a guess is mostly near; where it is not, halving gets there.
            let number = match guesses % 3 {
                2 => low + (high - low) / 2,
                _ => between(low, high, (after, before), object.lsn.pos),
            };
            let block = read(self.block_range(number))?;
            match find_in_block(object, block.as_ref())? {
                Found::Before(first) => (high, before) = (number, first),
                Found::Behind(last) => (low, after) = (number + 1, last),
                Found::Within(row) => return Ok(row),
            }
        }
        Ok(None)
    }

    fn check(&self, entries: &[IndexEntry]) -> Result<(), FormatError> {
        if !entries.is_sorted_by(|a, b| a.object < b.object) {
            return Err(FormatError::Key("index records are not in order"));
        }
        match entries.iter().find(|entry| entry.segment as usize >= self.segments.len()) {
            None => Ok(()),
            Some(_) => Err(FormatError::Value("an object in a segment that the index does not name")),
        }
    }
}

/// Where an object is as a block says.
enum Found {
    /// Before the block, which starts with an object of the batch at this position.
    Before(u64),
    /// Behind the block, which ends with an object of the batch at this position.
    Behind(u64),
    Within(Option<IndexEntry>),
}

/// Which of the blocks `low..high` likely holds what lies at `pos`, where `after` is before them all and `before` behind.
fn between(low: u32, high: u32, (after, before): (u64, u64), pos: u64) -> u32 {
    let (span, way) = (before.saturating_sub(after), pos.saturating_sub(after));
    if span == 0 {
        return low;
    }
    let blocks = u128::from(high - low);
    let number = u128::from(way) * blocks / u128::from(span);
    low + u32::try_from(number.min(blocks - 1)).expect("less than there are blocks")
}

fn find_in_block(object: ObjectId, block: &[u8]) -> Result<Found, FormatError> {
    let (mut low, mut high) = (0, blocks::records_of::<IndexEntry>(block));
    let count = high;
    let mut next = object.lsn.pos;
    let mut last = next;
    while low < high {
        let middle = low + (high - low) / 2;
        let row = blocks::record::<IndexEntry>(block, middle)?;
        match object.cmp(&row.object) {
            Ordering::Less => (high, next) = (middle, row.object.lsn.pos),
            Ordering::Greater => (low, last) = (middle + 1, row.object.lsn.pos),
            Ordering::Equal => return Ok(Found::Within(Some(row))),
        }
    }
    Ok(match low {
        0 => Found::Before(next),
        low if low == count => Found::Behind(last),
        _ => Found::Within(None),
    })
}

fn find_in(object: ObjectId, entries: &[IndexEntry]) -> Option<&IndexEntry> {
    entries.binary_search_by_key(&object, |entry| entry.object).ok().map(|i| &entries[i])
}

/// A whole index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowIndex {
    /// The filesystem.
    pub uuid: Uuid,
    /// Where the window starts; not in it.
    pub start: Lsn,
    /// Where it ends; in it.
    pub end: Lsn,
    /// The segments that hold its objects.
    pub segments: Vec<SegmentNo>,
    /// Its objects, in order.
    pub entries: Vec<IndexEntry>,
}

impl WindowIndex {
    /// The header of the index.
    pub fn header(&self) -> WindowHeader {
        let (segments, count) = (self.segments.clone(), fits(self.entries.len()));
        WindowHeader { uuid: self.uuid, start: self.start, end: self.end, segments, count }
    }

    /// The bytes of the index.
    ///
    /// # Panics
    /// When the records are not in order, or one names a segment that is not there.
    pub fn encode(&self) -> Vec<u8> {
        let header = self.header();
        assert_eq!(header.check(&self.entries), Ok(()), "an index is well formed");
        let mut out = header.encode();
        blocks::encode_blocks(self.end, &self.entries, &mut out);
        out
    }

    /// Reads the bytes of the index.
    pub fn decode(bytes: &[u8]) -> Result<WindowIndex, FormatError> {
        let header = WindowHeader::decode(bytes)?;
        let blocks = Reader::starting_at(bytes, header.len() as usize);
        let entries = blocks::decode_blocks(blocks, header.end, header.count)?;
        header.check(&entries)?;
        let WindowHeader { uuid, start, end, segments, .. } = header;
        Ok(WindowIndex { uuid, start, end, segments, entries })
    }

    /// The record of an object.
    pub fn find(&self, object: ObjectId) -> Option<&IndexEntry> {
        find_in(object, &self.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::faults::{assert_cuts_are_found, assert_damage_is_found};

    fn object(n: u32) -> ObjectId {
        ObjectId { lsn: Lsn { epoch: 1, pos: 5 + u64::from(n / 4) }, n: n % 4 }
    }

    fn index(count: u32) -> WindowIndex {
        let entry = |n: u32| IndexEntry {
            object: object(2 * n),
            segment: n % 2,
            chunk_offset: 108 + u64::from(n),
            chunk: ChunkHeader::raw(&[7; 5000]),
            offset_in_chunk: 4096,
            len: 904,
            birth_ino: InodeNo(7),
            birth_offset: u64::from(n) << 16,
        };
        let (start, end) = (Lsn { epoch: 1, pos: 4 }, Lsn { epoch: 1, pos: 900 });
        let segments = vec![SegmentNo { epoch: 1, number: 3 }, SegmentNo { epoch: 1, number: 4 }];
        WindowIndex { uuid: Uuid(1), start, end, segments, entries: (0..count).map(entry).collect() }
    }

    #[test]
    fn indexes_survive_the_trip() {
        for count in [0, 1, 64, 65, 300] {
            assert_eq!(WindowIndex::decode(&index(count).encode()), Ok(index(count)));
        }
    }

    #[test]
    fn an_object_is_found_by_reading_few_blocks() {
        for count in [0, 1, 64, 65, 1000] {
            let whole = index(count);
            let bytes = whole.encode();
            let header = WindowHeader::decode(&bytes).expect("valid");
            let most = header.blocks().checked_ilog2().map_or(0, |log| log + 1);
            for n in 0..2 * count + 2 {
                let mut reads = 0;
                let found = header.find(object(n), |range| {
                    reads += 1;
                    Ok::<_, FormatError>(&bytes[range.start as usize..range.end as usize])
                });
                assert_eq!(found, Ok(whole.find(object(n)).copied()));
                assert_eq!(found.is_ok_and(|found| found.is_some()), n % 2 == 0 && n / 2 < count);
                assert!(reads <= most, "{reads} of {} blocks", header.blocks());
            }
        }
    }

    #[test]
    fn promise_s4_every_flipped_bit_and_every_cut_of_an_index_is_found() {
        assert_damage_is_found(&index(3).encode(), WindowIndex::decode);
        assert_cuts_are_found(&index(66).encode(), WindowIndex::decode);
    }

    #[test]
    fn a_header_that_is_not_whole_says_how_much_it_needs() {
        let bytes = index(3).encode();
        let error = WindowHeader::decode(&bytes[..WINDOW_HEADER_BYTES]);
        assert_eq!(error, Err(FormatError::TooShort { need: 84, have: 60 }));
        assert_eq!(WindowHeader::decode(&bytes[..84]), Ok(index(3).header()));
    }

    #[test]
    fn a_damaged_header_is_guessed_if_one_of_its_counts_is_left() {
        for count in [0, 1, 63, 64, 65, 300] {
            let (whole, good) = (index(count).header(), index(count).encode());
            let guesses =
                |bytes: &[u8]| WindowHeader::guesses(bytes, Uuid(1), (whole.start, whole.end), bytes.len() as u64);
            for at in 0..at::SIZE {
                let mut bytes = good.clone();
                bytes[at] ^= 0xff;
                assert!(guesses(&bytes).contains(&whole), "byte {at} of {count} records");
            }
            for len in 0..good.len() {
                assert!(guesses(&good[..len]).len() <= 2);
            }
        }
    }

    #[test]
    fn promise_g1_index_faults_are_told_apart() {
        let good = index(1).encode();
        let changed = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            WindowIndex::decode(&bytes)
        };
        assert!(matches!(changed(at::MAGIC, 0), Err(FormatError::Magic { .. })));
        assert_eq!(changed(at::VERSION, 2), Err(FormatError::Version { supported: 1, found: 2 }));
        assert!(matches!(changed(at::SEGMENT_COUNT + 3, 1), Err(FormatError::TooBig { limit: 1048576, .. })));
        assert!(matches!(changed(at::UUID, 9), Err(FormatError::Checksum { .. })));
        let with = |change: fn(&mut IndexEntry)| {
            let mut index = index(2);
            change(&mut index.entries[1]);
            let mut bytes = index.header().encode();
            blocks::encode_blocks(index.end, &index.entries, &mut bytes);
            WindowIndex::decode(&bytes)
        };
        assert_eq!(with(|entry| entry.len = 0), Err(FormatError::TooShort { need: 1, have: 0 }));
        assert!(matches!(with(|entry| entry.len = 65537), Err(FormatError::TooBig { .. })));
        assert!(matches!(with(|entry| entry.len = 905), Err(FormatError::Value(_))));
        assert!(matches!(with(|entry| entry.segment = 2), Err(FormatError::Value(_))));
        assert!(matches!(with(|entry| entry.object = object(0)), Err(FormatError::Key(_))));
    }
}
