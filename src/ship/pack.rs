//! Packing one window: what is live at its end, in order of (inode, offset), cut into chunks, chunks into segments, and an
//! index that says where each object went.

use super::ShipError;
use crate::format::checkpoint::Birth;
use crate::format::chunk::ChunkHeader;
use crate::format::ids::{Lsn, OBJECT_BYTES_MAX, ObjectId, SegmentKind, SegmentNo, Uuid};
use crate::format::publication::{WindowEntry, WindowSegment};
use crate::format::store_segment::SegmentBuilder;
use crate::format::window::{IndexEntry, WindowIndex};
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
    segment_objects: u32,
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
            segment_objects: 0,
            done: Vec::new(),
            chunk: Vec::with_capacity(OBJECT_BYTES_MAX),
            in_chunk: Vec::new(),
        }
    }

    fn add(&mut self, birth: &Birth, data: &[u8]) -> Result<(), ShipError> {
        if self.chunk.len() + data.len() > OBJECT_BYTES_MAX {
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
        if self
            .segment
            .as_ref()
            .is_some_and(|(_, b)| b.finished_len() + self.chunk.len() as u64 > self.window.segment_bytes as u64)
        {
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
            self.segment_objects += 1;
            self.entries.push(IndexEntry {
                object: birth.object,
                segment,
                chunk_offset,
                chunk: header,
                offset_in_chunk,
                len,
                birth_ino: birth.ino,
                birth_offset: birth.offset,
            });
        }
        self.chunk.clear();
        Ok(())
    }

    fn end_segment(&mut self) -> Result<(), ShipError> {
        let Some((no, builder)) = self.segment.take() else { return Ok(()) };
        let bytes: Bytes = builder.finish().into();
        let objects = std::mem::take(&mut self.segment_objects);
        self.done.push(WindowSegment { segment: no, bytes: bytes.len() as u64, objects });
        (self.upload)(no, bytes)
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
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;
    use crate::checkpoint::jobs::segments_for;
    use crate::format::ids::InodeNo;
    use std::collections::BTreeMap;

    #[test]
    fn a_window_never_needs_more_numbers_than_are_planned_nor_far_fewer() {
        let random = SeededRandom::new(3);
        let data = Bytes::from(vec![7; OBJECT_BYTES_MAX]);
        for round in 0..400 {
            let segment_bytes = 4096 << random.below(8);
            // Of one kind, or mixed; the worst are those of which just one fits.
            let len_max = [300, 20_000, 33_000, OBJECT_BYTES_MAX as u64][round % 4];
            let len_min = [1, 1, 32_700, 1][round / 4 % 4].min(len_max);
            let birth = |n: u64| Birth {
                ino: InodeNo(2),
                offset: n << 16,
                object: ObjectId { lsn: Lsn { epoch: 1, pos: n + 1 }, n: 0 },
                len: u32::try_from(len_min + random.below(len_max - len_min + 1)).expect("short"),
            };
            let births: Vec<Birth> = (0..1 + random.below(120)).map(birth).collect();
            let planned = segments_for(&births, segment_bytes);
            let numbers = (0..planned as u64).map(|number| SegmentNo { epoch: 1, number }).collect();
            let (start, end) = (Lsn::ZERO, Lsn { epoch: 1, pos: 1000 });
            let window = Window { filesystem: Uuid(1), start, end, numbers, segment_bytes };
            let lens: BTreeMap<ObjectId, usize> =
                births.iter().map(|birth| (birth.object, birth.len as usize)).collect();
            let mut read = |id: &ObjectId| Ok(data.slice(..lens[id]));
            let (entry, _) = pack(&window, &births, &mut read, &mut |_, _| Ok(())).expect("numbers are enough");
            assert!(planned <= 3 * entry.segments.len() + 1, "{planned} planned, {} used", entry.segments.len());
        }
    }
}
