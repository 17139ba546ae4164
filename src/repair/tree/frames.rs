//! The bodies of one segment of nodes, also where it is damaged: by its directory if that is whole, else from frame to frame.
//!
//! A frame says how long its body is, so the bytes of a body are never looked through for frames, which users could have written
//! there. Only behind a damaged frame the next one is looked for byte by byte: it takes two damages in one segment, the other
//! one of the directory, and a user who knew where, to have something found there that is none.

use super::super::RepairError;
use super::copies::{Copies, Side};
use crate::format::FormatError;
use crate::format::ids::{SegmentKind, SegmentNo};
use crate::format::node::NODE_BYTES_MAX;
use crate::format::store_segment::{
    FRAME_BYTES, SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES, SegmentEntry, SegmentFooter, SegmentHeader, read_frame,
};
use bytes::Bytes;
use std::ops::Range;

/// What is read at once.
const WINDOW_BYTES: u64 = 1 << 20;
/// A longer directory is not believed: that of a segment of 16 MiB has 100 KiB.
const DIRECTORY_BYTES_MAX: u64 = 64 << 20;
/// Offsets of nodes are below it.
const SEGMENT_BYTES_MAX: u64 = 1 << 32;
/// What every frame begins with.
const FRAME_MAGIC: &[u8] = b"SKfr";

/// One copy of a segment, read through a window.
pub(super) struct Segment<'a> {
    copies: &'a Copies,
    side: Side,
    no: SegmentNo,
    header: Result<SegmentHeader, FormatError>,
    len: u64,
    from: u64,
    window: Bytes,
    /// What was found to be wrong first.
    pub what: Option<String>,
}

impl<'a> Segment<'a> {
    /// `None` when there is no such copy, or it says that no nodes are in it.
    pub fn open(copies: &'a Copies, side: Side, no: SegmentNo) -> Result<Option<Segment<'a>>, RepairError> {
        let Some(bytes) = copies.range(side, no, 0..SEGMENT_HEADER_BYTES as u64)? else { return Ok(None) };
        let header = SegmentHeader::decode(&bytes);
        if header.as_ref().is_ok_and(|header| header.kind == SegmentKind::Chunks) {
            return Ok(None);
        }
        let len = copies.len(side, no)?;
        Ok(len.map(|len| Segment { copies, side, no, header, len, from: 0, window: Bytes::new(), what: None }))
    }

    /// Gives every body that is whole, with its offset.
    pub fn bodies(&mut self, each: &mut dyn FnMut(u32, Bytes)) -> Result<(), RepairError> {
        let footer = self.footer()?;
        match (self.header.clone(), &footer) {
            (Ok(header), _) if (header.uuid, header.segment) != (self.copies.uuid, self.no) => {
                self.wrong(format!("is segment {} of filesystem {}", header.segment, header.uuid));
                return Ok(());
            }
            (Err(_), Some(footer)) if footer.kind == SegmentKind::Chunks => return Ok(()),
            // What is in the folder of nodes is of nodes. In the store it could be a segment of contents, and what a user wrote.
            (Err(e), None) if self.side == Side::Store => {
                self.wrong(format!("neither header nor footer can be read: {e}"));
                return Ok(());
            }
            (Err(e), _) => self.wrong(format!("damaged header: {e}")),
            _ => {}
        }
        match self.directory(footer)? {
            Some(entries) => entries.iter().try_for_each(|entry| self.body(entry, each)),
            None => self.by_frames(each),
        }
    }

    fn footer(&mut self) -> Result<Option<SegmentFooter>, RepairError> {
        let start = self.len.saturating_sub(SEGMENT_FOOTER_BYTES as u64);
        let footer = SegmentFooter::decode(&self.at(start..self.len)?, self.len);
        match footer {
            Ok(footer) if footer.segment == self.no => return Ok(Some(footer)),
            Ok(footer) => self.wrong(format!("has the footer of segment {}", footer.segment)),
            Err(e) => self.wrong(format!("damaged footer: {e}")),
        }
        Ok(None)
    }

    fn directory(&mut self, footer: Option<SegmentFooter>) -> Result<Option<Vec<SegmentEntry>>, RepairError> {
        let Some(footer) = footer else { return Ok(None) };
        let range = footer.directory_range();
        if range.end - range.start > DIRECTORY_BYTES_MAX {
            self.wrong("a directory that is too long".to_owned());
            return Ok(None);
        }
        match footer.decode_directory(&self.at(range)?) {
            Ok(entries) => return Ok(Some(entries)),
            Err(e) => self.wrong(format!("damaged directory: {e}")),
        }
        Ok(None)
    }

    /// Gives a body if it is whole.
    fn body(&mut self, entry: &SegmentEntry, each: &mut dyn FnMut(u32, Bytes)) -> Result<(), RepairError> {
        let body = self.at(entry.offset..entry.offset + u64::from(entry.chunk.stored_len))?;
        match (entry.chunk.verify(&body), u32::try_from(entry.offset)) {
            (Ok(()), Ok(offset)) => each(offset, body),
            (Ok(()), Err(_)) => self.wrong("a node beyond 4 GiB".to_owned()),
            (Err(e), _) => self.wrong(format!("damaged node at offset {}: {e}", entry.offset)),
        }
        Ok(())
    }

    fn by_frames(&mut self, each: &mut dyn FnMut(u32, Bytes)) -> Result<(), RepairError> {
        let mut at = SEGMENT_HEADER_BYTES as u64;
        let end = self.len.min(SEGMENT_BYTES_MAX);
        while at < end {
            let frame = self.at(at..at + FRAME_BYTES as u64)?;
            at = match read_frame(self.no, SegmentKind::Nodes, at, &frame) {
                Ok(chunk) => {
                    let offset = at + FRAME_BYTES as u64;
                    self.body(&SegmentEntry { offset, chunk }, each)?;
                    offset + u64::from(chunk.stored_len)
                }
                Err(_) => self.next_frame(at + 1, end)?,
            };
        }
        Ok(())
    }

    /// Where something begins, from `at` on, that looks like a frame.
    fn next_frame(&mut self, mut at: u64, end: u64) -> Result<u64, RepairError> {
        while at < end {
            let bytes = self.at(at..(at + NODE_BYTES_MAX as u64).min(end))?;
            if let Some(found) = bytes.windows(FRAME_MAGIC.len()).position(|four| four == FRAME_MAGIC) {
                return Ok(at + found as u64);
            }
            if bytes.len() < FRAME_MAGIC.len() {
                break;
            }
            // One that lies over the end of what was looked at is found from there.
            at += (bytes.len() + 1 - FRAME_MAGIC.len()) as u64;
        }
        Ok(end)
    }

    /// What there is of a range: less if the copy ends within.
    fn at(&mut self, range: Range<u64>) -> Result<Bytes, RepairError> {
        let has = |from: u64, window: &Bytes| from <= range.start && range.end <= from + window.len() as u64;
        if !has(self.from, &self.window) {
            let end = range.end.max(range.start + WINDOW_BYTES).min(self.len.max(range.start));
            self.from = range.start;
            self.window = self.copies.range(self.side, self.no, range.start..end)?.unwrap_or_default();
        }
        let place = |at: u64| usize::try_from(at - self.from).map_or(self.window.len(), |at| at.min(self.window.len()));
        Ok(self.window.slice(place(range.start)..place(range.end)))
    }

    fn wrong(&mut self, what: String) {
        self.what.get_or_insert(what);
    }
}
