//! Which objects of files are whole, and where. Every index and every segment in the store is read, whatever is said of them.
//!
//! An object is named for ever by the batch that wrote it, so whoever has it whole has the right bytes: two windows that hold
//! the same object, because one was put and never published, or a repair was interrupted, do not contradict each other. The
//! place that counts is the one that costs least to keep: in a segment that is whole, in a window that a publication lists,
//! by an index that is whole, in the newest window.
//!
//! What was put in an epoch after the last one of which the store has a generation, or batches, windows, the trees or the state
//! directory say anything, was named by nobody, and is left out. That the generation of an epoch is gone proves nothing.
//!
//! **Memory** grows with the number of objects, some 150 bytes each, and holds one segment at a time. A store that does not answer
//! ends it: that is no damage.

mod index;
mod segment;

use super::{Damaged, RepairError, confirm, differs};
use crate::format::checkpoint::Birth;
use crate::format::ids::{InodeNo, Lsn, ObjectId, SegmentKind, SegmentNo, Uuid};
use crate::format::names::{self, Parsed};
use crate::format::publication::WindowEntry;
use crate::format::store_segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::format::window::IndexEntry;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use index::read_index;
use segment::{Chunks, Scan, scan};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

/// No segment is longer: 1 GiB is the largest size that can be asked for, and one chunk may come to it with its table.
const SEGMENT_BYTES_MAX: u64 = (1 << 30) + (1 << 20);

/// An object as an index or a table says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Where it is; `segment` means nothing here.
    pub entry: IndexEntry,
    /// Whether it is there.
    pub whole: bool,
    /// The segment's own table says so, too.
    pub in_table: bool,
}

/// A store segment of chunks.
#[derive(Debug)]
pub(crate) struct Segment {
    pub no: SegmentNo,
    /// Its length in bytes.
    pub len: u64,
    /// Why it is not to be kept.
    pub fault: Option<String>,
    /// The window it belongs to.
    pub window: Option<usize>,
    /// What is said to be in it.
    pub rows: Vec<Row>,
}

/// A window.
#[derive(Debug)]
pub(crate) struct Window {
    pub start: Lsn,
    pub end: Lsn,
    /// A publication lists it.
    named: bool,
    /// Its index is there and whole.
    pub whole: bool,
    /// The segments that its index names.
    pub segments: Vec<usize>,
    /// The records of its index, in order, if it is whole: segment and row.
    pub rows: Vec<(usize, usize)>,
}

/// Where a whole object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    object: ObjectId,
    pub segment: usize,
    pub row: usize,
}

/// The names in the store that a space map speaks of.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    pub segments: BTreeSet<SegmentNo>,
    pub windows: BTreeSet<(Lsn, Lsn)>,
    /// Numbers by generation.
    pub publications: BTreeMap<u64, BTreeSet<u64>>,
    /// What was put in later epochs is named by nobody, as far as is known: it was not looked at.
    pub epoch: u32,
}

/// Every object that is whole, and where it is.
#[derive(Debug, Default)]
pub struct Objects {
    pub(crate) segments: Vec<Segment>,
    pub(crate) windows: Vec<Window>,
    pub(crate) listed: Listed,
    /// Each whole object once, in order.
    places: Vec<Place>,
    /// Whole objects in the order of the inodes they were born in, and then of their Lsns.
    births: Vec<Birth>,
    /// Objects that are said to be somewhere, and are not: with the segment, in order.
    lost: Vec<(ObjectId, usize)>,
    damaged: Vec<Damaged>,
}

/// Finds all objects in the store of filesystem `uuid`. `windows` are those that publications list, and `epoch` the highest one of
/// which anything else says that something in it counts.
pub fn find_objects(
    store: &Arc<dyn Store>,
    uuid: Uuid,
    windows: &[WindowEntry],
    epoch: u32,
    progress: &mut dyn FnMut(&'static str, u64, u64),
) -> Result<Objects, RepairError> {
    let mut search =
        Search { store: &**store, uuid, numbers: BTreeMap::new(), of: Vec::new(), found: Objects::default() };
    search.list(epoch)?;
    search.read_windows(windows)?;
    search.read_segments(progress)?;
    search.find_windows();
    search.compare_tables();
    Ok(search.finish())
}

impl Objects {
    /// How long an object is that is whole.
    pub fn len_of(&self, object: &ObjectId) -> Option<u32> {
        self.place(object).map(|place| self.row(&place).entry.len)
    }

    /// Where the whole objects that were first written to an inode were in it, in the order in which they were written.
    pub fn births_of(&self, ino: InodeNo) -> Vec<Birth> {
        let first = self.births.partition_point(|birth| birth.ino < ino);
        self.births[first..].iter().take_while(|birth| birth.ino == ino).copied().collect()
    }

    /// Store objects that are not as they were written.
    pub fn damaged(&self) -> &[Damaged] {
        &self.damaged
    }

    /// Why an object is not whole, if anything is known of it.
    pub fn why(&self, object: &ObjectId) -> Option<String> {
        let at = self.lost.binary_search_by_key(object, |(lost, _)| *lost).ok()?;
        let segment = &self.segments[self.lost[at].1];
        let what = segment.fault.as_deref().unwrap_or("does not hold it");
        Some(format!("{}: {what}", names::segment(segment.no)))
    }

    pub(crate) fn place(&self, object: &ObjectId) -> Option<Place> {
        self.places.binary_search_by_key(object, |place| place.object).ok().map(|at| self.places[at])
    }

    pub(crate) fn row(&self, place: &Place) -> &Row {
        &self.segments[place.segment].rows[place.row]
    }

    /// Reads an object, and verifies it again.
    pub(crate) fn read(&self, store: &dyn Store, place: &Place) -> Result<Bytes, RepairError> {
        let entry = self.row(place).entry;
        let name = names::segment(self.segments[place.segment].no);
        let from = entry.chunk_offset;
        let chunk = store.get_range(&name, from..from + u64::from(entry.chunk.stored_len))?;
        if entry.chunk.verify(&chunk).is_err() {
            let what = "changed while the repair ran: something else writes here, or the store fails";
            return Err(RepairError::Refused(format!("{name} {what}")));
        }
        let start = entry.offset_in_chunk as usize;
        Ok(chunk.slice(start..start + entry.len as usize))
    }
}

impl Window {
    /// What makes it the better one of two that hold the same object.
    fn rank(&self) -> (bool, bool, Lsn) {
        (self.named, self.whole, self.end)
    }
}

struct Search<'a> {
    store: &'a dyn Store,
    uuid: Uuid,
    /// Which segment has a number.
    numbers: BTreeMap<SegmentNo, usize>,
    /// With which window each segment was shipped, by its tables.
    of: Vec<Option<(Lsn, Lsn)>>,
    found: Objects,
}

impl Search<'_> {
    fn list(&mut self, epoch: u32) -> Result<(), RepairError> {
        let listed = &mut self.found.listed;
        self.store.walk("gen", &mut |name| {
            let mut parts = name.split('/').skip(1).map(|part| part.parse().ok());
            if let Some((generation, number)) = parts.next().flatten().zip(parts.next().flatten()) {
                if names::publication(generation, number) == name {
                    listed.publications.entry(generation).or_default().insert(number);
                }
            }
            ControlFlow::Continue(())
        })?;
        for folder in ["seg", "win"] {
            self.store.walk(folder, &mut |name| {
                match names::parse(name) {
                    Some(Parsed::Segment(no)) => drop(listed.segments.insert(no)),
                    Some(Parsed::Window(start, end)) if start < end => drop(listed.windows.insert((start, end))),
                    _ => {}
                }
                ControlFlow::Continue(())
            })?;
        }
        let newest = listed.publications.keys().next_back().copied().unwrap_or(0);
        listed.epoch = epoch.max(u32::try_from(newest).unwrap_or(u32::MAX));
        Ok(())
    }

    /// Whether anything of an epoch may have been named.
    fn counts(&self, epoch: u32) -> bool {
        epoch <= self.found.listed.epoch
    }

    fn damaged(&mut self, place: String, what: String) {
        self.found.damaged.push(Damaged { place, local: false, what });
    }

    fn segment(&mut self, no: SegmentNo) -> usize {
        let Search { numbers, of, found, .. } = self;
        *numbers.entry(no).or_insert_with(|| {
            of.push(None);
            found.segments.push(Segment { no, len: 0, fault: None, window: None, rows: Vec::new() });
            found.segments.len() - 1
        })
    }

    fn read_windows(&mut self, named: &[WindowEntry]) -> Result<(), RepairError> {
        let named: BTreeMap<(Lsn, Lsn), &WindowEntry> =
            named.iter().filter(|w| w.objects > 0).map(|w| ((w.start, w.end), w)).collect();
        let listed = self.found.listed.windows.iter().filter(|(_, end)| self.counts(end.epoch));
        let all: BTreeSet<(Lsn, Lsn)> = listed.chain(named.keys()).copied().collect();
        for (start, end) in all {
            let entry = named.get(&(start, end)).copied();
            self.read_window((start, end), entry)?;
        }
        Ok(())
    }

    fn read_window(&mut self, (start, end): (Lsn, Lsn), listed: Option<&WindowEntry>) -> Result<(), RepairError> {
        let read = read_index(self.store, self.uuid, (start, end), listed)?;
        // One that is missing may have died long ago.
        let there = read.is_some();
        let index = read.unwrap_or_default();
        if let Some(what) = &index.fault {
            let again = read_index(self.store, self.uuid, (start, end), listed)?;
            if again.is_none_or(|again| again.fault != index.fault || again.entries != index.entries) {
                return Err(differs(&names::window(start, end)));
            }
            self.damaged(names::window(start, end), what.clone());
        }
        let whole = there && index.fault.is_none();
        let segments: Vec<usize> = index.segments.iter().map(|no| self.segment(*no)).collect();
        let mut rows = Vec::new();
        for entry in index.entries {
            let segment = segments[entry.segment as usize];
            let into = &mut self.found.segments[segment].rows;
            rows.push((segment, into.len()));
            into.push(Row { entry, whole: false, in_table: false });
        }
        if !whole {
            rows.clear();
        }
        let mut window = Window { start, end, named: listed.is_some(), whole, segments, rows };
        for listed in listed.iter().flat_map(|entry| &entry.segments).filter(|_| !whole) {
            let segment = self.segment(listed.segment);
            if !window.segments.contains(&segment) {
                window.segments.push(segment);
            }
        }
        self.found.windows.push(window);
        Ok(())
    }

    fn read_segments(&mut self, progress: &mut dyn FnMut(&'static str, u64, u64)) -> Result<(), RepairError> {
        let listed = self.found.listed.segments.iter().filter(|no| self.counts(no.epoch));
        let unnamed: Vec<SegmentNo> = listed.filter(|no| !self.numbers.contains_key(no)).copied().collect();
        let named: Vec<usize> = self.numbers.values().copied().collect();
        let total = (named.len() + unnamed.len()) as u64;
        let mut done = 0;
        for segment in named {
            progress("objects", done, total);
            self.read_segment(segment)?;
            done += 1;
        }
        for no in unnamed {
            progress("objects", done, total);
            if !self.is_of_nodes(no)? {
                let segment = self.segment(no);
                self.read_segment(segment)?;
            }
            done += 1;
        }
        Ok(())
    }

    fn is_of_nodes(&self, no: SegmentNo) -> Result<bool, RepairError> {
        match self.store.get_some(&names::segment(no), 0..SEGMENT_HEADER_BYTES as u64) {
            Ok(bytes) => Ok(SegmentHeader::decode(&bytes).is_ok_and(|header| header.kind == SegmentKind::Nodes)),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn read_segment(&mut self, number: usize) -> Result<(), RepairError> {
        let no = self.found.segments[number].no;
        let name = names::segment(no);
        let read = self.store.size(&name).and_then(|len| match len <= SEGMENT_BYTES_MAX {
            true => self.store.get(&name).map(Some),
            false => Ok(None),
        });
        let (bytes, scanned) = match read {
            Ok(Some(bytes)) => (bytes.clone(), scan(self.uuid, no, &bytes)),
            Ok(None) => {
                let fault = Some("is too large for a segment".to_owned());
                (Bytes::new(), Scan { fault, ..Scan::default() })
            }
            // It may have died long ago.
            Err(StoreError::NotFound { .. }) => {
                self.found.segments[number].fault = Some("is missing".to_owned());
                return Ok(());
            }
            Err(e) => return Err(e.into()),
        };
        if let Some(what) = &scanned.fault {
            if !bytes.is_empty() {
                confirm(self.store, &name, None, &bytes)?;
            }
            self.damaged(name, what.clone());
        }
        self.of[number] = scanned.of.map(|of| (of.start, of.end));
        let segment = &mut self.found.segments[number];
        segment.len = bytes.len() as u64;
        segment.fault = scanned.fault;
        segment.take(&bytes, scanned.entries);
        Ok(())
    }

    /// To which window each segment belongs: that whose index names it, else that with which it says it was shipped.
    fn find_windows(&mut self) {
        for window in 0..self.found.windows.len() {
            for at in 0..self.found.windows[window].segments.len() {
                let segment = self.found.windows[window].segments[at];
                let rank = |window: usize| self.found.windows[window].rank();
                if self.found.segments[segment].window.is_none_or(|other| rank(other) < rank(window)) {
                    self.found.segments[segment].window = Some(window);
                }
            }
        }
        for segment in 0..self.found.segments.len() {
            let Some((start, end)) = self.of[segment].filter(|_| self.found.segments[segment].window.is_none()) else {
                continue;
            };
            let windows = &mut self.found.windows;
            let holds = |w: &Window| w.start <= start && end <= w.end;
            let same = windows.iter().position(|w| (w.start, w.end) == (start, end));
            let window = same.or_else(|| windows.iter().position(|w| !w.whole && holds(w))).unwrap_or_else(|| {
                // Its index is gone, or never came to be.
                let (segments, rows) = (Vec::new(), Vec::new());
                windows.push(Window { start, end, named: false, whole: false, segments, rows });
                windows.len() - 1
            });
            self.found.segments[segment].window = Some(window);
        }
    }

    /// A segment whose tables say something else than the whole index that names it is not kept: nothing could be made anew of it.
    fn compare_tables(&mut self) {
        let mut faults: Vec<(usize, String)> = Vec::new();
        for window in self.found.windows.iter().filter(|window| window.whole) {
            let indexed: HashSet<ObjectId> = window
                .rows
                .iter()
                .map(|(segment, row)| self.found.segments[*segment].rows[*row].entry.object)
                .collect();
            let stray = |(segment, row): &(usize, usize)| {
                self.of[*segment].is_some() && {
                    let row = &self.found.segments[*segment].rows[*row];
                    row.whole && !row.in_table
                }
            };
            let strays = window.rows.iter().filter(|at| stray(at));
            faults.extend(strays.map(|(segment, _)| (*segment, "its object table lacks an object".to_owned())));
            for &segment in &window.segments {
                let own = self.found.segments[segment].rows.iter().filter(|row| row.in_table);
                if let Some(row) = own.into_iter().find(|row| !indexed.contains(&row.entry.object)) {
                    let what =
                        format!("its object table has object {}, which its window's index has not", row.entry.object);
                    faults.push((segment, what));
                }
            }
        }
        for (segment, what) in faults {
            if self.found.segments[segment].fault.is_none() {
                self.found.segments[segment].fault = Some(what.clone());
                self.damaged(names::segment(self.found.segments[segment].no), what);
            }
        }
    }

    fn finish(self) -> Objects {
        let mut found = self.found;
        let rank = |at: usize| {
            let segment: &Segment = &found.segments[at];
            let window = segment.window.map(|window| found.windows[window].rank());
            (segment.fault.is_none(), window, segment.no)
        };
        let ranks: Vec<_> = (0..found.segments.len()).map(rank).collect();
        let mut places = Vec::new();
        for (number, segment) in found.segments.iter().enumerate().filter(|(_, segment)| segment.window.is_some()) {
            let whole = segment.rows.iter().enumerate().filter(|(_, row)| row.whole);
            places.extend(whole.map(|(row, of)| Place { object: of.entry.object, segment: number, row }));
        }
        places.sort_by(|a, b| {
            let better = || ranks[b.segment].cmp(&ranks[a.segment]).then(a.row.cmp(&b.row));
            a.object.cmp(&b.object).then_with(better)
        });
        places.dedup_by_key(|place| place.object);
        found.places = places;
        let birth = |place: &Place| {
            let IndexEntry { object, len, birth_ino: ino, birth_offset: offset, .. } = found.row(place).entry;
            Birth { ino, offset, object, len }
        };
        // Without a table an older program wrote the segment, which said where an extent began in place of its object.
        found.births = found.places.iter().filter(|place| found.row(place).in_table).map(birth).collect();
        found.births.sort_by_key(|birth| (birth.ino, birth.object));
        found.lost = found.find_lost();
        found.damaged.sort();
        found
    }
}

impl Objects {
    fn find_lost(&self) -> Vec<(ObjectId, usize)> {
        let mut lost = Vec::new();
        for (number, segment) in self.segments.iter().enumerate() {
            let gone = segment.rows.iter().filter(|row| !row.whole).map(|row| row.entry.object);
            lost.extend(gone.filter(|object| self.place(object).is_none()).map(|object| (object, number)));
        }
        lost.sort_unstable();
        lost.dedup_by_key(|(object, _)| *object);
        lost
    }
}

impl Segment {
    /// Looks whether what indexes say of it is so, and takes up what only its tables say.
    fn take(&mut self, bytes: &Bytes, tables: Vec<IndexEntry>) {
        let mut chunks = Chunks::new(bytes);
        let said: HashSet<_> = tables.iter().map(key_of).collect();
        for row in &mut self.rows {
            row.whole = chunks.has(&row.entry);
            row.in_table = said.contains(&key_of(&row.entry));
        }
        let known: HashSet<_> = self.rows.iter().map(|row| key_of(&row.entry)).collect();
        for entry in tables.into_iter().filter(|entry| !known.contains(&key_of(entry))) {
            self.rows.push(Row { whole: chunks.has(&entry), entry, in_table: true });
        }
    }
}

type Key = (ObjectId, u64, u32, u32, InodeNo, u64);

/// All of a record that an index and a table both say.
fn key_of(entry: &IndexEntry) -> Key {
    let IndexEntry { object, chunk_offset, offset_in_chunk, len, birth_ino, birth_offset, .. } = *entry;
    (object, chunk_offset, offset_in_chunk, len, birth_ino, birth_offset)
}
