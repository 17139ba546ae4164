//! Store segments of chunks: what reading one gave. [`Depth::Data`] reads every byte; [`Depth::Metadata`] reads header, directory
//! and footer, and compares the length, in two requests for most segments.

use super::files::Place;
use super::{Check, Depth};
use crate::format::chunk::ChunkHeader;
use crate::format::ids::{SegmentKind, SegmentNo};
use crate::format::names;
use crate::format::object_table::Tables;
use crate::format::store_segment::{
    SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES, SegmentFooter, SegmentHeader, StoreSegment,
};
use crate::store::{Store, StoreError};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Bytes at the end of a segment that are read first: the directory of 1,364 chunks with the footer.
const TAIL_BYTES: u64 = 64 << 10;

/// A segment of a window, and what must be true of it.
pub(super) struct Expected {
    pub no: SegmentNo,
    /// `None` when all that was in it is dead.
    pub bytes: Option<u64>,
    pub objects: u32,
    pub live_bytes: u64,
    pub live_objects: u32,
}

/// What reading a segment gave.
#[derive(Default)]
pub(super) struct Found {
    /// Its chunks by offset, if its directory can be read.
    pub chunks: Option<BTreeMap<u64, ChunkHeader>>,
    /// Chunks that are damaged, and how.
    pub damaged: BTreeMap<u64, String>,
    /// What it says of itself, if all of it was read.
    pub tables: Option<Tables>,
    /// Why nothing of it can be read.
    pub lost: Option<String>,
    pub objects: u32,
    pub live_objects: u32,
    pub dead_bytes: u64,
    /// Extents that lost their data, first and how many, by the offset of the chunk; 0 when all is lost.
    pub victims: BTreeMap<u64, (Place, u64)>,
}

/// What the bytes of a segment say.
pub(super) struct Read {
    segment: StoreSegment,
    len: u64,
    damaged: BTreeMap<u64, String>,
    tables: Option<Tables>,
}

/// Reads a segment as deep as the check goes; `None` if nobody needs it.
pub(super) fn read_segment(store: &dyn Store, depth: Depth, expected: &Expected) -> Option<Result<Read, String>> {
    let bytes = expected.bytes?;
    Some(match depth {
        Depth::Data => read_whole(store, expected.no),
        Depth::Metadata => read_ends(store, expected.no, bytes),
    })
}

/// Takes in what reading a segment gave.
pub(super) fn take_segment(check: &mut Check<'_>, expected: &Expected, read: Option<Result<Read, String>>) -> Found {
    let (Some(bytes), Some(read)) = (expected.bytes, read) else { return Found::default() };
    let mut found = Found::default();
    match read {
        Ok(Read { segment, len, damaged, tables }) => {
            if len != bytes {
                let what = format!("has {len} bytes, {bytes} are recorded");
                check.problem(names::segment(expected.no), what);
            }
            if check.depth == Depth::Metadata {
                let stored = segment.entries.iter().map(|entry| u64::from(entry.chunk.stored_len));
                check.report.figures.unread_bytes += stored.sum::<u64>();
            }
            (found.damaged, found.tables) = (damaged, tables);
            found.take(check, expected.no, &segment);
        }
        Err(what) => found.lost = Some(what),
    }
    check.report.figures.segments += 1;
    check.report.figures.chunks += found.chunks.as_ref().map_or(0, |chunks| chunks.len() as u64);
    found
}

impl Found {
    fn take(&mut self, check: &Check<'_>, no: SegmentNo, segment: &StoreSegment) {
        let header = segment.header;
        if (header.uuid, header.segment, header.kind) != (check.uuid, no, SegmentKind::Chunks) {
            return self.lost = Some(format!("is segment {} of filesystem {}", header.segment, header.uuid));
        }
        self.chunks = Some(segment.entries.iter().map(|entry| (entry.offset, entry.chunk)).collect());
    }
}

/// Every byte.
fn read_whole(store: &dyn Store, no: SegmentNo) -> Result<Read, String> {
    let bytes = store.get(&names::segment(no)).map_err(what_of)?;
    let segment = StoreSegment::parse(&bytes).map_err(|e| e.to_string())?;
    let (mut bodies, mut damaged) = (Vec::with_capacity(segment.entries.len()), BTreeMap::new());
    for (i, entry) in segment.entries.iter().enumerate() {
        let body = segment.body(&bytes, i);
        if let Err(e) = &body {
            damaged.insert(entry.offset, e.to_string());
        }
        bodies.push(body.ok());
    }
    let tables = Some(Tables::among(segment.header.uuid, no, &bodies));
    Ok(Read { segment, len: bytes.len() as u64, damaged, tables })
}

/// The same without the bodies. A range that asks for one byte more than there should be tells the length, too.
fn read_ends(store: &dyn Store, no: SegmentNo, recorded: u64) -> Result<Read, String> {
    let name = names::segment(no);
    let (mut len, mut from) = (recorded, recorded.saturating_sub(TAIL_BYTES));
    let mut tail = store.get_some(&name, from..len.saturating_add(1)).map_err(what_of)?;
    if tail.len() as u64 != len - from {
        len = store.size(&name).map_err(what_of)?;
        from = len.saturating_sub(TAIL_BYTES);
        tail = store.get_range(&name, from..len).map_err(what_of)?;
    }
    if len < (SEGMENT_HEADER_BYTES + SEGMENT_FOOTER_BYTES) as u64 {
        return Err(format!("has {len} bytes, too few for a segment"));
    }
    let footer = SegmentFooter::decode(&tail[tail.len() - SEGMENT_FOOTER_BYTES..], len).map_err(|e| e.to_string())?;
    let directory = range_with(store, &name, footer.directory_range(), from, &tail)?;
    let entries = footer.decode_directory(&directory).map_err(|e| e.to_string())?;
    let header = range_with(store, &name, 0..SEGMENT_HEADER_BYTES as u64, from, &tail)?;
    let header = SegmentHeader::decode(&header).map_err(|e| e.to_string())?;
    match (footer.segment, footer.kind) == (header.segment, header.kind) {
        true => {
            let segment = StoreSegment { header, footer, entries };
            Ok(Read { segment, len, damaged: BTreeMap::new(), tables: None })
        }
        false => Err("has header and footer of different segments".to_owned()),
    }
}

/// A range of an object of which `tail`, from `from` to the end, is at hand.
fn range_with(
    store: &dyn Store,
    name: &str,
    range: std::ops::Range<u64>,
    from: u64,
    tail: &Bytes,
) -> Result<Bytes, String> {
    match range.start.checked_sub(from) {
        Some(start) => Ok(tail.slice(start as usize..(range.end - from) as usize)),
        None => store.get_range(name, range).map_err(what_of),
    }
}

pub(super) fn what_of(error: StoreError) -> String {
    match error {
        StoreError::NotFound { .. } => "is missing".to_owned(),
        other => other.to_string(),
    }
}
