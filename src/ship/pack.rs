//! Packing one window: what is live at its end, in order of (inode, offset), cut into chunks, chunks into segments, and an
//! index that says where each object went. Each segment ends with tables that say the same of it, for repair.

use super::ShipError;
use crate::format::checkpoint::Birth;
use crate::format::chunk::ChunkHeader;
use crate::format::ids::{Lsn, OBJECT_BYTES_MAX, ObjectId, SegmentKind, SegmentNo, Uuid};
use crate::format::object_table::{ObjectTable, TABLE_OBJECTS_MAX, TableOf, TableRecord, table_count, tables_len};
use crate::format::publication::{WindowEntry, WindowSegment};
use crate::format::store_segment::{BODY_OVERHEAD_BYTES, SegmentBuilder};
use crate::format::window::{BIRTH_UNKNOWN, IndexEntry, WindowIndex};
use bytes::Bytes;

/// A window to pack.
pub struct Window {
    /// The filesystem.
    pub filesystem: Uuid,
    /// The batches after this one
    pub start: Lsn,
    /// up to and with this one.
    pub end: Lsn,
    /// Numbers it may use for its segments.
    pub numbers: Vec<SegmentNo>,
    /// Bytes at which a segment is full.
    pub segment_bytes: usize,
}

/// Receives each finished segment.
pub type Upload<'a> = dyn FnMut(SegmentNo, Bytes) -> Result<(), ShipError> + 'a;

/// Packs `births`, reading each object through `read`, and hands segments to `upload` as they fill. Returns the window's
/// entry and its index.
pub fn pack(
    window: &Window,
    births: &[Birth],
    read: &mut dyn FnMut(&ObjectId) -> Result<Bytes, ShipError>,
    upload: &mut Upload<'_>,
) -> Result<(WindowEntry, Bytes), ShipError> {
    let mut packer = Packer::new(window, upload);
    for birth in births {
        packer.add(birth, &read(&birth.object)?)?;
    }
    packer.finish()
}

struct Packer<'a, 'u> {
    window: &'a Window,
    upload: &'a mut Upload<'u>,
    numbers: std::slice::Iter<'a, SegmentNo>,
    segments: Vec<SegmentNo>,
    entries: Vec<IndexEntry>,
    segment: Option<(SegmentNo, SegmentBuilder)>,
    /// The objects in that one.
    records: Vec<TableRecord>,
    done: Vec<WindowSegment>,
    chunk: Vec<u8>,
    in_chunk: Vec<(Birth, u32, u32)>,
}

impl<'a, 'u> Packer<'a, 'u> {
    fn new(window: &'a Window, upload: &'a mut Upload<'u>) -> Packer<'a, 'u> {
        Packer {
            window,
            upload,
            numbers: window.numbers.iter(),
            segments: Vec::new(),
            entries: Vec::new(),
            segment: None,
            records: Vec::new(),
            done: Vec::new(),
            chunk: Vec::with_capacity(OBJECT_BYTES_MAX),
            in_chunk: Vec::new(),
        }
    }

    fn add(&mut self, birth: &Birth, data: &[u8]) -> Result<(), ShipError> {
        if self.chunk.len() + data.len() > OBJECT_BYTES_MAX || self.in_chunk.len() == TABLE_OBJECTS_MAX {
            self.end_chunk()?;
        }
        let small = |n: usize| u32::try_from(n).expect("a chunk is small");
        self.in_chunk.push((*birth, small(self.chunk.len()), small(data.len())));
        self.chunk.extend_from_slice(data);
        Ok(())
    }

    fn end_chunk(&mut self) -> Result<(), ShipError> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        if self.segment.as_ref().is_some_and(|(_, builder)| self.is_full(builder)) {
            self.end_segment()?;
        }
        if self.segment.is_none() {
            let no = *self.numbers.next().ok_or(ShipError::TooFewNumbers { window: self.window.end })?;
            self.segment = Some((no, SegmentBuilder::new(self.window.filesystem, no, SegmentKind::Chunks)));
            self.segments.push(no);
        }
        let (_, builder) = self.segment.as_mut().expect("just made");
        let header = ChunkHeader::raw(&self.chunk);
        let chunk_offset = builder.push(header, &self.chunk);
        let segment = u32::try_from(self.segments.len() - 1).expect("few segments in a window");
        for (birth, offset_in_chunk, len) in self.in_chunk.drain(..) {
            let Birth { ino: birth_ino, object, .. } = birth;
            // Of an extent that has a part of its object nobody knows later which part that was.
            let birth_offset = if birth.len == len { birth.offset } else { BIRTH_UNKNOWN };
            self.records.push(TableRecord { object, chunk_offset, offset_in_chunk, len, birth_ino, birth_offset });
            self.entries.push(IndexEntry {
                object,
                segment,
                chunk_offset,
                chunk: header,
                offset_in_chunk,
                len,
                birth_ino,
                birth_offset,
            });
        }
        self.chunk.clear();
        Ok(())
    }

    /// Whether the chunk does not fit into the segment any more, with the tables that come behind it.
    fn is_full(&self, builder: &SegmentBuilder) -> bool {
        let chunk = (BODY_OVERHEAD_BYTES + self.chunk.len()) as u64;
        let tables = tables_len(self.records.len() + self.in_chunk.len());
        builder.finished_len() + chunk + tables > self.window.segment_bytes as u64
    }

    fn end_segment(&mut self) -> Result<(), ShipError> {
        let Some((no, mut builder)) = self.segment.take() else { return Ok(()) };
        let records = std::mem::take(&mut self.records);
        self.push_tables(no, &mut builder, &records);
        let bytes: Bytes = builder.finish().into();
        let small = |n: usize| u32::try_from(n).expect("a segment holds less than 4 GiB");
        self.done.push(WindowSegment { segment: no, bytes: bytes.len() as u64, objects: small(records.len()) });
        (self.upload)(no, bytes)
    }

    fn push_tables(&self, segment: SegmentNo, builder: &mut SegmentBuilder, records: &[TableRecord]) {
        let Window { filesystem: uuid, start, end, .. } = *self.window;
        let small = |n: usize| u32::try_from(n).expect("few bodies in a segment");
        let (chunks, tables) = (small(builder.count()), small(table_count(records.len())));
        let of = TableOf { uuid, segment, start, end, chunks, tables };
        for (number, records) in (0..).zip(records.chunks(TABLE_OBJECTS_MAX)) {
            let table = ObjectTable { of, number, records: records.to_vec() }.encode();
            builder.push(ChunkHeader::raw(&table), &table);
        }
    }

    fn finish(mut self) -> Result<(WindowEntry, Bytes), ShipError> {
        self.end_chunk()?;
        self.end_segment()?;
        let objects = self.done.iter().map(|s| s.objects).sum();
        let entry = WindowEntry { start: self.window.start, end: self.window.end, segments: self.done, objects };
        self.entries.sort_unstable_by_key(|entry| entry.object);
        let index = WindowIndex {
            uuid: self.window.filesystem,
            start: self.window.start,
            end: self.window.end,
            segments: self.segments,
            entries: self.entries,
        };
        Ok((entry, index.encode().into()))
    }
}

#[cfg(test)]
mod tests;
