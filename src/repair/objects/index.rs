//! A window's index, read block by block: what of it is good counts, whatever of it is damaged.

use crate::format::ids::{Lsn, SegmentNo, Uuid};
use crate::format::names;
use crate::format::publication::WindowEntry;
use crate::format::window::{IndexEntry, WindowHeader};
use crate::repair::RepairError;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::ops::Range;

/// Bytes that are read at a time; the longest header has fewer.
const PIECE_BYTES: u64 = 16 << 20;

/// What is left of an index.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The segments that it names.
    pub segments: Vec<SegmentNo>,
    /// Records of its good blocks.
    pub entries: Vec<IndexEntry>,
    /// What is wrong with it.
    pub fault: Option<String>,
}

impl Index {
    fn note(&mut self, what: impl Into<String>) {
        self.fault.get_or_insert(what.into());
    }

    /// Takes what of the blocks is good.
    fn read_blocks(&mut self, pieces: &mut Pieces<'_>, header: &WindowHeader) -> Result<(), RepairError> {
        self.segments.clone_from(&header.segments);
        for number in 0..header.blocks() {
            let range = header.block_range(number);
            let bytes = pieces.get(range.clone())?;
            match header.decode_block(number, &bytes) {
                Ok(entries) => self.entries.extend(entries),
                Err(e) => self.note(format!("block {number}: {e}")),
            }
            if (bytes.len() as u64) < range.end - range.start {
                // Whatever it says of itself: there is no more of it.
                break;
            }
        }
        let end = header.index_len();
        if !pieces.get(end..end.saturating_add(1))?.is_empty() {
            self.note("has bytes behind its end");
        }
        let belongs = |entry: &IndexEntry| header.start < entry.object.lsn && entry.object.lsn <= header.end;
        if !self.entries.iter().all(belongs) {
            self.note("has objects of other windows");
            self.entries.retain(belongs);
        }
        if !self.entries.is_sorted_by(|a, b| a.object < b.object) {
            self.note("has records that are not in order");
        }
        if header.segments.iter().collect::<BTreeSet<_>>().len() != header.segments.len() {
            self.note("names a segment twice");
        }
        Ok(())
    }
}

/// Reads the index of a window; `None` if there is none. `listed` is what a publication says of the window.
pub(super) fn read_index(
    store: &dyn Store,
    uuid: Uuid,
    (start, end): (Lsn, Lsn),
    listed: Option<&WindowEntry>,
) -> Result<Option<Index>, RepairError> {
    let mut pieces = Pieces { store, name: names::window(start, end), start: 0, bytes: Bytes::new() };
    let first = match pieces.get(0..PIECE_BYTES) {
        Ok(first) => first,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let mut index = Index::default();
    match WindowHeader::decode(&first) {
        Ok(header) if (header.uuid, header.start, header.end) == (uuid, start, end) => {
            index.read_blocks(&mut pieces, &header)?;
        }
        Ok(header) => {
            index.note(format!("is of window {}-{} of filesystem {}", header.start, header.end, header.uuid));
        }
        Err(e) => {
            let len = if (first.len() as u64) < PIECE_BYTES { first.len() as u64 } else { store.size(&pieces.name)? };
            let mut guesses = WindowHeader::guesses(&first, uuid, (start, end), len);
            guesses.extend(listed.map(|listed| header_of(uuid, listed)));
            for guess in guesses {
                let mut other = Index::default();
                other.read_blocks(&mut pieces, &guess)?;
                if other.entries.len() > index.entries.len() {
                    index = other;
                }
            }
            index.fault = Some(e.to_string());
        }
    }
    Ok(Some(index))
}

fn header_of(uuid: Uuid, listed: &WindowEntry) -> WindowHeader {
    let segments = listed.segments.iter().map(|segment| segment.segment).collect();
    WindowHeader { uuid, start: listed.start, end: listed.end, segments, count: listed.objects }
}

/// Reads a store object in large pieces.
struct Pieces<'a> {
    store: &'a dyn Store,
    name: String,
    /// Where in the object the newest piece starts.
    start: u64,
    bytes: Bytes,
}

impl Pieces<'_> {
    /// What there is of a range.
    fn get(&mut self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let len = self.bytes.len() as u64;
        if range.start < self.start || range.end > self.start + len {
            // One byte more tells where it ends.
            let to = range.end.max(range.start.saturating_add(PIECE_BYTES)).saturating_add(1);
            (self.start, self.bytes) = (range.start, self.store.get_some(&self.name, range.start..to)?);
        }
        let at = |at: u64| usize::try_from(at - self.start).unwrap_or(usize::MAX).min(self.bytes.len());
        Ok(self.bytes.slice(at(range.start)..at(range.end)))
    }
}
