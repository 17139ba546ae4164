//! A store segment: an immutable container of chunks or of tree nodes. Each body has a frame in front of it that says what
//! and where it is, so that good bodies can be told and saved around damage; a directory and a footer at the end find all
//! of them in two reads. Whoever names a body names the place after its frame.
//!
//! ```text
//! header | frame, body | frame, body | … | directory | footer
//! ```

use super::chunk::{CHUNK_HEADER_BYTES, ChunkHeader};
use super::error::FormatError;
use super::ids::{NodePtr, OBJECT_BYTES_MAX, SegmentKind, SegmentNo, Uuid};
use super::node::NODE_BYTES_MAX;
use super::wire::{PutIds, Reader, SEGMENT_NO_BYTES, VERSION, check_seal, fits, layout, same_crc, seal};
use crate::base::canary::Canary;
use bytes::{BufMut, Bytes};
use std::ops::Range;

const MAGIC: u32 = u32::from_le_bytes(*b"SKsg");
const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"SKfr");
const FOOTER_MAGIC: u32 = u32::from_le_bytes(*b"SKsf");

layout! {
    mod header_at, 40 bytes {
        MAGIC: 4, CRC: 4, VERSION: 2, KIND: 1, RESERVED: 1, UUID: 16, SEGMENT: super::SEGMENT_NO_BYTES,
    }
}
layout! {
    /// The offset is that of the body: where the frame ends.
    mod frame_at, 68 bytes {
        MAGIC: 4, CRC: 4, SEGMENT: super::SEGMENT_NO_BYTES, OFFSET: 8, CHUNK: super::CHUNK_HEADER_BYTES,
    }
}
layout! {
    mod entry_at, 48 bytes { OFFSET: 8, CHUNK: super::CHUNK_HEADER_BYTES }
}
layout! {
    mod footer_at, 40 bytes {
        MAGIC: 4, CRC: 4, SEGMENT: super::SEGMENT_NO_BYTES, DIRECTORY_OFFSET: 8, COUNT: 4, DIRECTORY_CRC: 4, KIND: 1,
        RESERVED: 3,
    }
}

/// Bytes of the header.
pub const SEGMENT_HEADER_BYTES: usize = header_at::SIZE;
/// Bytes in front of each body.
pub const FRAME_BYTES: usize = frame_at::SIZE;
/// Bytes of the footer, the last of the segment.
pub const SEGMENT_FOOTER_BYTES: usize = footer_at::SIZE;
/// Bytes of its entry in the directory, for each body.
pub const SEGMENT_ENTRY_BYTES: usize = entry_at::SIZE;
/// Bytes that a body takes beside itself.
pub const BODY_OVERHEAD_BYTES: usize = frame_at::SIZE + entry_at::SIZE;

fn body_bytes_max(kind: SegmentKind) -> usize {
    match kind {
        SegmentKind::Chunks => OBJECT_BYTES_MAX,
        SegmentKind::Nodes => NODE_BYTES_MAX,
    }
}

/// Where a body is and how to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentEntry {
    /// Where the body starts in the segment.
    pub offset: u64,
    /// How to read it.
    pub chunk: ChunkHeader,
}

impl SegmentEntry {
    fn end(&self) -> u64 {
        self.offset + u64::from(self.chunk.stored_len)
    }

    fn encode_to(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.offset);
        self.chunk.encode_to(out);
    }

    /// The bytes of the frame and the body.
    pub fn framed_range(&self) -> Range<u64> {
        self.offset - FRAME_BYTES as u64..self.end()
    }
}

/// Builds a segment. What is built so far can be taken away and written out at any time.
pub struct SegmentBuilder {
    segment: SegmentNo,
    kind: SegmentKind,
    bytes: Vec<u8>,
    /// Bytes already taken away.
    drained: u64,
    entries: Vec<SegmentEntry>,
}

impl SegmentBuilder {
    /// A segment without bodies.
    pub fn new(uuid: Uuid, segment: SegmentNo, kind: SegmentKind) -> SegmentBuilder {
        let mut bytes = Vec::new();
        bytes.put_u32_le(MAGIC);
        bytes.put_u32_le(0);
        bytes.put_u16_le(VERSION);
        bytes.put_u8(kind.code());
        bytes.put_u8(0);
        bytes.put_u128_le(uuid.0);
        bytes.put_segment(segment);
        seal(&mut bytes, header_at::CRC);
        SegmentBuilder { segment, kind, bytes, drained: 0, entries: Vec::new() }
    }

    /// Adds a chunk's stored bytes, which must be those the header describes. Returns where they start.
    pub fn push(&mut self, chunk: ChunkHeader, stored: &[u8]) -> u64 {
        debug_assert_eq!(chunk.verify(stored), Ok(()), "the header describes the bytes");
        assert!((1..=body_bytes_max(self.kind)).contains(&stored.len()), "a body of {} bytes", stored.len());
        let offset = self.position() + FRAME_BYTES as u64;
        let start = self.bytes.len();
        self.bytes.put_u32_le(FRAME_MAGIC);
        self.bytes.put_u32_le(0);
        self.bytes.put_segment(self.segment);
        self.bytes.put_u64_le(offset);
        chunk.encode_to(&mut self.bytes);
        seal(&mut self.bytes[start..], frame_at::CRC);
        self.bytes.put_slice(stored);
        self.entries.push(SegmentEntry { offset, chunk });
        offset
    }

    /// Adds a tree node. Returns the pointer to it.
    pub fn push_node(&mut self, node: &[u8]) -> NodePtr {
        let chunk = ChunkHeader::raw(node);
        let offset = u32::try_from(self.push(chunk, node)).expect("a node segment is below 4 GiB");
        NodePtr { segment: self.segment, offset, len: chunk.stored_len, crc: chunk.crc }
    }

    /// Bodies added.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    fn position(&self) -> u64 {
        self.drained + self.bytes.len() as u64
    }

    /// Length of the segment if it were finished now.
    pub fn finished_len(&self) -> u64 {
        self.position() + (self.entries.len() * entry_at::SIZE + footer_at::SIZE) as u64
    }

    /// Takes away what is built so far, to be written before what follows.
    pub fn drain(&mut self) -> Vec<u8> {
        self.drained = self.position();
        std::mem::take(&mut self.bytes)
    }

    /// Adds directory and footer. Returns all bytes since the last [`SegmentBuilder::drain`].
    pub fn finish(mut self) -> Vec<u8> {
        let directory_offset = self.position();
        let start = self.bytes.len();
        for entry in &self.entries {
            entry.encode_to(&mut self.bytes);
        }
        let directory_crc = crc32c::crc32c(&self.bytes[start..]);
        let start = self.bytes.len();
        self.bytes.put_u32_le(FOOTER_MAGIC);
        self.bytes.put_u32_le(0);
        self.bytes.put_segment(self.segment);
        self.bytes.put_u64_le(directory_offset);
        self.bytes.put_u32_le(fits(self.entries.len()));
        self.bytes.put_u32_le(directory_crc);
        self.bytes.put_u8(self.kind.code());
        self.bytes.put_bytes(0, 3);
        seal(&mut self.bytes[start..], footer_at::CRC);
        self.bytes
    }
}

/// What the header of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The filesystem.
    pub uuid: Uuid,
    /// The segment.
    pub segment: SegmentNo,
    /// What it packs.
    pub kind: SegmentKind,
}

impl SegmentHeader {
    /// Reads the header from the start of a segment.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, FormatError> {
        let mut field = Reader::new(bytes);
        field.magic("a store segment", MAGIC)?;
        let header = Reader::new(bytes).take(header_at::SIZE)?;
        let _crc = field.u32()?;
        field.version()?;
        check_seal(header, header_at::CRC, Canary::SegmentCrc)?;
        let kind = SegmentKind::from_code(field.u8()?)?;
        field.zeros(1)?;
        Ok(SegmentHeader { uuid: field.uuid()?, segment: field.segment()?, kind })
    }
}

/// What the footer of a segment says: where its directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFooter {
    /// The segment.
    pub segment: SegmentNo,
    /// What it packs.
    pub kind: SegmentKind,
    /// Where the directory starts.
    pub directory_offset: u64,
    /// Bodies in the segment.
    pub count: u32,
    directory_crc: u32,
}

impl SegmentFooter {
    /// Reads the last [`SEGMENT_FOOTER_BYTES`] of a segment of `segment_len` bytes.
    pub fn decode(bytes: &[u8], segment_len: u64) -> Result<SegmentFooter, FormatError> {
        let mut field = Reader::new(bytes);
        field.magic("the footer of a store segment", FOOTER_MAGIC)?;
        let footer = Reader::new(bytes).take(footer_at::SIZE)?;
        check_seal(footer, footer_at::CRC, Canary::SegmentFooterCrc)?;
        let _crc = field.u32()?;
        let (segment, directory_offset, count) = (field.segment()?, field.u64()?, field.u32()?);
        let (directory_crc, kind) = (field.u32()?, SegmentKind::from_code(field.u8()?)?);
        field.zeros(3)?;
        field.end()?;
        let footer = SegmentFooter { segment, kind, directory_offset, count, directory_crc };
        let tail = u64::from(count) * entry_at::SIZE as u64 + footer_at::SIZE as u64;
        match directory_offset.checked_add(tail) {
            Some(need) if need == segment_len => Ok(footer),
            Some(need) if need > segment_len => Err(FormatError::TooShort { need, have: segment_len }),
            Some(limit) => Err(FormatError::TooBig { limit, found: segment_len }),
            None => Err(FormatError::Value("a directory beyond every offset")),
        }
    }

    /// Where the directory lies in the segment.
    pub fn directory_range(&self) -> Range<u64> {
        let len = u64::from(self.count) * entry_at::SIZE as u64;
        self.directory_offset..self.directory_offset + len
    }

    /// Reads the directory from exactly its bytes. Bodies follow one another without gaps.
    pub fn decode_directory(&self, bytes: &[u8]) -> Result<Vec<SegmentEntry>, FormatError> {
        let range = self.directory_range();
        let (need, have) = (range.end - range.start, bytes.len() as u64);
        if have < need {
            return Err(FormatError::TooShort { need, have });
        }
        if have > need {
            return Err(FormatError::TooBig { limit: need, found: have });
        }
        same_crc(self.directory_crc, crc32c::crc32c(bytes), Canary::SegmentDirectoryCrc)?;
        let mut field = Reader::new(bytes);
        let mut entries = Vec::with_capacity(self.count as usize);
        let mut end = SEGMENT_HEADER_BYTES as u64;
        for _ in 0..self.count {
            let offset = field.u64()?;
            let chunk = ChunkHeader::read(&mut field, body_bytes_max(self.kind))?;
            if offset != end + FRAME_BYTES as u64 {
                return Err(FormatError::Value("a body that does not follow the one before"));
            }
            let entry = SegmentEntry { offset, chunk };
            end = entry.end();
            entries.push(entry);
        }
        if end != self.directory_offset {
            return Err(FormatError::Value("a directory that does not follow the last body"));
        }
        Ok(entries)
    }

    /// Takes the stored bytes of a body out of its frame and body, `framed`, which was read at
    /// [`SegmentEntry::framed_range`]. Checks that it is this body of this segment, and its checksum.
    pub fn open(&self, entry: &SegmentEntry, framed: &Bytes) -> Result<Bytes, FormatError> {
        if read_frame(self.segment, self.kind, entry.offset - FRAME_BYTES as u64, framed)? != entry.chunk {
            return Err(FormatError::Value("a body of another segment or another place"));
        }
        let stored = framed.slice(frame_at::SIZE..);
        entry.chunk.verify(&stored)?;
        Ok(stored)
    }
}

/// Reads the frame at the start of `bytes`, which lie at `at` in the segment. Checks that it is a frame of this segment and
/// this place; says how to read the body that follows it.
pub fn read_frame(segment: SegmentNo, kind: SegmentKind, at: u64, bytes: &[u8]) -> Result<ChunkHeader, FormatError> {
    let mut field = Reader::new(bytes);
    field.magic("the frame of a body", FRAME_MAGIC)?;
    let frame = Reader::new(bytes).take(frame_at::SIZE)?;
    check_seal(frame, frame_at::CRC, Canary::FrameCrc)?;
    let _crc = field.u32()?;
    let place = (field.segment()?, field.u64()?);
    let chunk = ChunkHeader::read(&mut field, body_bytes_max(kind))?;
    match place == (segment, at + FRAME_BYTES as u64) {
        true => Ok(chunk),
        false => Err(FormatError::Value("a body of another segment or another place")),
    }
}

/// The bodies of a segment of which header, directory or footer is damaged, if no frame is: they follow one another, and behind
/// the last comes the directory, as far as its first entry at least. Whatever the bodies hold, none is taken for a frame.
pub fn walk_frames(segment: SegmentNo, kind: SegmentKind, bytes: &[u8]) -> Option<Vec<SegmentEntry>> {
    let mut entries: Vec<SegmentEntry> = Vec::new();
    let mut at = SEGMENT_HEADER_BYTES as u64;
    loop {
        let rest = bytes.get(usize::try_from(at).ok()?..)?;
        let Ok(chunk) = read_frame(segment, kind, at, rest) else {
            let mut first = Vec::with_capacity(entry_at::SIZE);
            entries.first()?.encode_to(&mut first);
            return rest.starts_with(&first).then_some(entries);
        };
        let entry = SegmentEntry { offset: at + FRAME_BYTES as u64, chunk };
        at = entry.end();
        entries.push(entry);
    }
}

/// A whole segment in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSegment {
    /// What its header says.
    pub header: SegmentHeader,
    /// What its footer says.
    pub footer: SegmentFooter,
    /// Its bodies, in order.
    pub entries: Vec<SegmentEntry>,
}

impl StoreSegment {
    /// Reads header, footer and directory; the bodies are not verified.
    pub fn parse(bytes: &[u8]) -> Result<StoreSegment, FormatError> {
        let header = SegmentHeader::decode(bytes)?;
        let short = FormatError::TooShort {
            need: (SEGMENT_HEADER_BYTES + SEGMENT_FOOTER_BYTES) as u64,
            have: bytes.len() as u64,
        };
        let footer_at = bytes.len().checked_sub(SEGMENT_FOOTER_BYTES).filter(|&at| at >= SEGMENT_HEADER_BYTES);
        let footer_at = footer_at.ok_or(short)?;
        let footer = SegmentFooter::decode(&bytes[footer_at..], bytes.len() as u64)?;
        if (footer.segment, footer.kind) != (header.segment, header.kind) {
            return Err(FormatError::Value("header and footer of different segments"));
        }
        let range = footer.directory_range();
        let entries = footer.decode_directory(&bytes[range.start as usize..range.end as usize])?;
        Ok(StoreSegment { header, footer, entries })
    }

    /// The stored bytes of body `i`, verified.
    ///
    /// # Panics
    /// When there is no body `i`, or `bytes` are not those that were parsed.
    pub fn body(&self, bytes: &Bytes, i: usize) -> Result<Bytes, FormatError> {
        let entry = &self.entries[i];
        let range = entry.framed_range();
        self.footer.open(entry, &bytes.slice(range.start as usize..range.end as usize))
    }

    /// Verifies every body. The error says which one is damaged, and where it starts.
    pub fn verify(&self, bytes: &Bytes) -> Result<(), (u64, FormatError)> {
        for (i, entry) in self.entries.iter().enumerate() {
            self.body(bytes, i).map_err(|error| (entry.offset, error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
