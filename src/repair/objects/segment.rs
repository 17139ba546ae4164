//! One store segment of chunks, whole in memory: whether all of it is as it was written, and what it says of itself.

use crate::format::chunk::ChunkHeader;
use crate::format::ids::{SegmentKind, SegmentNo, Uuid};
use crate::format::object_table::{TableOf, Tables};
use crate::format::store_segment::{SegmentEntry, StoreSegment, read_frame, walk_frames};
use crate::format::window::IndexEntry;
use bytes::Bytes;
use std::collections::BTreeMap;

/// What reading a segment gave.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// What is wrong with it, if anything is.
    pub fault: Option<String>,
    /// With which window it was shipped, by its tables.
    pub of: Option<TableOf>,
    /// What its tables say is in it.
    pub entries: Vec<IndexEntry>,
}

/// Looks at every byte.
pub(super) fn scan(uuid: Uuid, no: SegmentNo, bytes: &Bytes) -> Scan {
    let (entries, fault) = match StoreSegment::parse(bytes) {
        Ok(segment) if (segment.header.uuid, segment.header.segment) != (uuid, no) => {
            let fault = format!("is segment {} of filesystem {}", segment.header.segment, segment.header.uuid);
            return Scan { fault: Some(fault), ..Scan::default() };
        }
        Ok(segment) if segment.header.kind != SegmentKind::Chunks => {
            return Scan { fault: Some("holds nodes, not contents of files".to_owned()), ..Scan::default() };
        }
        Ok(segment) => (segment.entries, None),
        Err(e) => (walk_frames(no, SegmentKind::Chunks, bytes).unwrap_or_default(), Some(e.to_string())),
    };
    let mut scan = Scan { fault, ..Scan::default() };
    let bodies = scan.verify(no, &entries, bytes);
    let tables = Tables::among(uuid, no, &bodies);
    let chunks: BTreeMap<u64, ChunkHeader> =
        entries.iter().take(tables.first).map(|entry| (entry.offset, entry.chunk)).collect();
    for record in &tables.records {
        let reach = u64::from(record.offset_in_chunk) + u64::from(record.len);
        match chunks.get(&record.chunk_offset).filter(|chunk| reach <= u64::from(chunk.raw_len)) {
            None => scan.note(format!("its object table has object {} where no chunk is", record.object)),
            Some(chunk) => scan.entries.push(IndexEntry {
                object: record.object,
                segment: 0,
                chunk_offset: record.chunk_offset,
                chunk: *chunk,
                offset_in_chunk: record.offset_in_chunk,
                len: record.len,
                birth_ino: record.birth_ino,
                birth_offset: record.birth_offset,
            }),
        }
    }
    scan.of = tables.of;
    scan
}

impl Scan {
    fn note(&mut self, what: String) {
        self.fault.get_or_insert(what);
    }

    /// The bodies; `None` for one that is damaged, or whose frame is.
    fn verify(&mut self, no: SegmentNo, entries: &[SegmentEntry], bytes: &Bytes) -> Vec<Option<Bytes>> {
        let mut damaged = 0;
        let mut first = None;
        let mut bodies = Vec::with_capacity(entries.len());
        for entry in entries {
            let body = body(no, entry, bytes);
            if let Err(what) = &body {
                damaged += 1;
                first.get_or_insert_with(|| format!("chunk at {}: {what}", entry.offset));
            }
            bodies.push(body.ok());
        }
        match first {
            Some(what) if damaged > 1 => {
                self.note(format!("{damaged} of {} chunks are damaged, the first: {what}", bodies.len()))
            }
            Some(what) => self.note(what),
            None => {}
        }
        bodies
    }
}

fn body(no: SegmentNo, entry: &SegmentEntry, bytes: &Bytes) -> Result<Bytes, String> {
    let range = entry.framed_range();
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    let framed = bytes.slice(index(range.start)..index(range.end));
    let chunk = read_frame(no, SegmentKind::Chunks, range.start, &framed).map_err(|e| format!("its frame: {e}"))?;
    if chunk != entry.chunk {
        return Err("its frame says something else than the directory".to_owned());
    }
    let body = bytes.slice(index(entry.offset)..index(range.end));
    chunk.verify(&body).map_err(|e| e.to_string())?;
    Ok(body)
}

/// Tells whether chunks are whole by what an index or a table says of them, each once.
pub(super) struct Chunks<'a> {
    bytes: &'a Bytes,
    known: BTreeMap<u64, (ChunkHeader, bool)>,
}

impl<'a> Chunks<'a> {
    pub fn new(bytes: &'a Bytes) -> Chunks<'a> {
        Chunks { bytes, known: BTreeMap::new() }
    }

    /// Whether the chunk of an object is there, and the object in it.
    pub fn has(&mut self, entry: &IndexEntry) -> bool {
        match self.known.get(&entry.chunk_offset) {
            Some((chunk, whole)) if *chunk == entry.chunk => *whole,
            _ => {
                let whole = is_whole(self.bytes, entry);
                self.known.insert(entry.chunk_offset, (entry.chunk, whole));
                whole
            }
        }
    }
}

fn is_whole(bytes: &Bytes, entry: &IndexEntry) -> bool {
    let range = || {
        let start = usize::try_from(entry.chunk_offset).ok()?;
        bytes.get(start..start.checked_add(entry.chunk.stored_len as usize)?)
    };
    range().is_some_and(|stored| entry.chunk.verify(stored).is_ok())
}
