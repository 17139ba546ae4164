//! Layer 4: where an object is now, and reading it there.
//!
//! An object is in the journal's queue, else in a journal segment, else in the store segment that its window's index
//! names. Event threads use [`Locate::resident`], which never waits for disk or store; fetchers use [`Locate::fetch`].
//!
//! A store on the same machine is read directly: the system's page cache is its cache. One that is far away is read through a
//! [`SegmentReader`] and the cache files.

mod indexes;
mod memory;
mod reader;
mod windows;

pub use reader::{Body, ReadError, ReaderStats, SegmentReader};
pub use windows::Windows;

use crate::cache::{Cache, CacheKey, Class};
use crate::format::ids::{Lsn, ObjectId, SegmentNo};
use crate::format::names;
use crate::format::window::{IndexEntry, WindowIndex};
use crate::journal::{Journal, JournalError};
use crate::store::{Store, StoreError};
use bytes::Bytes;
use indexes::Indexes;
use memory::{ByteLru, MemoryKey};
use parking_lot::Mutex;
use std::sync::Arc;

/// Why an object could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// No place knows the object.
    #[error("object {object} is neither in the journal nor in a shipped window")]
    Nowhere {
        /// The object.
        object: ObjectId,
    },
    /// Stored bytes are not what they should be.
    #[error("{place}: {reason}")]
    Damaged {
        /// Store object or journal segment.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal could not be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl From<ReadError> for LocateError {
    fn from(e: ReadError) -> LocateError {
        match e {
            ReadError::Store(e) => LocateError::Store(e),
            ReadError::Damaged { place, reason } => LocateError::Damaged { place, reason },
        }
    }
}

impl LocateError {
    /// Whether the store did not answer, so that nothing is known of the object, and another try may succeed.
    pub fn is_away(&self) -> bool {
        matches!(self, LocateError::Store(e) if e.is_away())
    }
}

/// The location index and the readers of file data.
pub struct Locate {
    /// Nothing where there is no log: whoever only reads what is published.
    journal: Option<Arc<Journal>>,
    store: Arc<dyn Store>,
    windows: Windows,
    data: Mutex<ByteLru<Bytes>>,
    indexes: Indexes,
    /// Only for a store that is far away.
    reader: Option<Arc<SegmentReader>>,
}

/// Where the nearest copy of an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nearest {
    /// Its chunk is in the cache, or the store is on this machine.
    Here,
    /// It is in the journal, on local disk.
    InJournal,
    /// In the store alone.
    InStore,
}

/// What became of the wish to have an object at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warmed {
    /// Its chunk is in the cache.
    Cached,
    /// It is in the journal, on local disk.
    InJournal,
    /// There is no cache: the store is on this machine.
    NoCache,
    /// The cache had no room for it.
    NoRoom,
}

/// What became of the wish to drop the local copy of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evicted {
    /// Nothing of its chunk is in memory or in the cache any more, where what was dropped took so many bytes. What lay beside
    /// it in one cache file is gone with it.
    Dropped(u64),
    /// It is in the journal, which is no copy.
    InJournal,
    /// There is no cache: the store is on this machine.
    NoCache,
}

/// Bytes of memory that reading may keep.
#[derive(Clone, Copy, Debug)]
pub struct CacheBytes {
    /// For file data.
    pub data: u64,
    /// For window indexes.
    pub indexes: u64,
}

impl Locate {
    /// A reader over a journal and a store, which it reads through `reader` if there is one; windows are added by whoever
    /// owns the space tree.
    pub fn new(
        journal: Option<Arc<Journal>>,
        store: Arc<dyn Store>,
        cache: CacheBytes,
        reader: Option<Arc<SegmentReader>>,
    ) -> Locate {
        Locate {
            journal,
            store,
            windows: Windows::default(),
            data: Mutex::new(ByteLru::new(cache.data)),
            indexes: Indexes::new(cache.indexes),
            reader,
        }
    }

    /// The reader of a store that is far away.
    pub fn reader(&self) -> Option<&Arc<SegmentReader>> {
        self.reader.as_ref()
    }

    fn cache(&self) -> Option<&Cache> {
        self.reader.as_ref().map(|reader| &**reader.cache())
    }

    fn journalled(&self, object: &ObjectId) -> Result<Option<Bytes>, JournalError> {
        self.journal.as_ref().map_or(Ok(None), |journal| journal.read(object))
    }

    /// The table of shipped windows.
    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    /// The object's bytes if they are in memory: ours, or what the system holds of a local file.
    pub fn resident(&self, object: &ObjectId) -> Option<Bytes> {
        self.kept(object)
            .or_else(|| self.journal.as_ref()?.read_resident(object))
            .or_else(|| self.shipped_resident(object))
    }

    /// The object's bytes if they are in our own memory.
    fn kept(&self, object: &ObjectId) -> Option<Bytes> {
        self.journal
            .as_ref()
            .and_then(|journal| journal.resident(object))
            .or_else(|| self.data.lock().get(&MemoryKey::Object(*object)))
    }

    /// The object's bytes from wherever they are. Blocks on disk and store.
    pub fn fetch(&self, object: &ObjectId) -> Result<Bytes, LocateError> {
        if let Some(bytes) = self.kept(object) {
            return Ok(bytes);
        }
        let bytes = match self.journalled(object)? {
            Some(bytes) => bytes,
            None => self.read_shipped(object)?,
        };
        self.data.lock().put(MemoryKey::Object(*object), bytes.clone(), bytes.len() as u64);
        Ok(bytes)
    }

    /// The object's bytes, if a store that is far away need not be asked for them. Waits for the local disk, and for nobody
    /// who waits for the store.
    pub fn fetch_near(&self, object: &ObjectId) -> Option<Bytes> {
        let local = self.kept(object).or_else(|| self.journalled(object).ok().flatten());
        local.or_else(|| {
            let reader = self.reader.as_ref()?;
            let window = self.windows.of(object.lsn)?;
            let (segment, row) = self.indexes.near(&*self.store, reader.cache(), window, object)?;
            let kept = self.data.lock().get(&MemoryKey::Chunk(segment, row.chunk_offset));
            let chunk = kept.or_else(|| reader.near(segment, Class::Data, &body(&row)))?;
            cut(&chunk, &row)
        })
    }

    /// The bytes of objects, in their order, as [`Locate::fetch`]; but chunks that lie side by side are read together. Those
    /// are not kept: who reads so much at once reads on, and each would keep the memory of all.
    pub fn fetch_all(&self, objects: &[ObjectId]) -> Result<Vec<Bytes>, LocateError> {
        if let [object] = objects {
            return Ok(vec![self.fetch(object)?]);
        }
        let mut fetched = Vec::with_capacity(objects.len());
        let mut run = Run::default();
        for object in objects {
            let local = match self.kept(object) {
                None => self.journalled(object)?,
                kept => kept,
            };
            if let Some(bytes) = local {
                self.read_run(&mut run, &mut fetched)?;
                fetched.push(bytes);
                continue;
            }
            let (segment, row) = self.find(object)?.ok_or(LocateError::Nowhere { object: *object })?;
            if !fills_chunk(&row) {
                self.read_run(&mut run, &mut fetched)?;
                fetched.push(self.read_row(object, segment, &row)?);
                continue;
            }
            if !run.continues(segment, &row) {
                self.read_run(&mut run, &mut fetched)?;
            }
            run.rows.push((segment, row));
        }
        self.read_run(&mut run, &mut fetched)?;
        Ok(fetched)
    }

    /// Reads the chunks of a run by one request, verifies each, and begins another run.
    fn read_run(&self, run: &mut Run, fetched: &mut Vec<Bytes>) -> Result<(), LocateError> {
        let (Some((segment, first)), Some((_, last))) = (run.rows.first(), run.rows.last()) else { return Ok(()) };
        if let Some(reader) = &self.reader {
            let bodies: Vec<Body> = run.rows.iter().map(|(_, row)| body(row)).collect();
            fetched.extend(reader.read(*segment, Class::Data, &bodies)?);
            run.rows.clear();
            return Ok(());
        }
        let (name, start) = (names::segment(*segment), first.chunk_offset);
        let bytes = self.store.get_range(&name, start..body(last).range().end)?;
        for (_, row) in run.rows.drain(..) {
            let index = |offset: u64| usize::try_from(offset - start).expect("a run is short");
            let range = body(&row).range();
            let chunk = bytes.slice(index(range.start)..index(range.end));
            verify(&name, &body(&row), &chunk)?;
            fetched.push(chunk);
        }
        Ok(())
    }

    /// The object's bytes for shipping: as [`Locate::fetch`], but they are not kept, since nobody asked for them.
    pub fn fetch_for_ship(&self, object: &ObjectId) -> Result<Bytes, LocateError> {
        if let Some(bytes) = self.kept(object) {
            return Ok(bytes);
        }
        match self.journalled(object)? {
            Some(bytes) => Ok(bytes),
            None => self.read_shipped(object),
        }
    }

    /// Where a shipped object lies; `None` if no window has it.
    pub fn find(&self, object: &ObjectId) -> Result<Option<(SegmentNo, IndexEntry)>, LocateError> {
        let Some((start, end)) = self.windows.of(object.lsn) else { return Ok(None) };
        self.indexes.find(&*self.store, self.cache(), (start, end), object)
    }

    /// A window's index, whole. It is not kept: nobody asks for all of it twice.
    pub fn index(&self, start: Lsn, end: Lsn) -> Result<WindowIndex, LocateError> {
        let name = names::window(start, end);
        let bytes = self.store.get(&name)?;
        WindowIndex::decode(&bytes).map_err(|e| LocateError::Damaged { place: name, reason: e.to_string() })
    }

    fn read_shipped(&self, object: &ObjectId) -> Result<Bytes, LocateError> {
        let (segment, row) = self.find(object)?.ok_or(LocateError::Nowhere { object: *object })?;
        self.read_row(object, segment, &row)
    }

    fn read_row(&self, object: &ObjectId, segment: SegmentNo, row: &IndexEntry) -> Result<Bytes, LocateError> {
        let chunk = self.chunk(segment, row)?;
        cut(&chunk, row).ok_or_else(|| LocateError::Damaged {
            place: names::segment(segment),
            reason: format!("object {object} does not lie in its chunk of {} bytes", chunk.len()),
        })
    }

    /// A shipped object whose chunk is in memory, ours or the system's.
    fn shipped_resident(&self, object: &ObjectId) -> Option<Bytes> {
        let window = self.windows.of(object.lsn)?;
        let (segment, row) = self.indexes.resident(window, object)?;
        let kept = self.data.lock().get(&MemoryKey::Chunk(segment, row.chunk_offset));
        let chunk = kept.or_else(|| match &self.reader {
            Some(reader) => reader.resident(segment, Class::Data, &body(&row)),
            None => {
                let read = self.store.get_resident(&names::segment(segment), body(&row).range())?;
                body(&row).is(&read).then_some(read)
            }
        })?;
        cut(&chunk, &row)
    }

    /// A chunk, verified.
    fn chunk(&self, segment: SegmentNo, row: &IndexEntry) -> Result<Bytes, LocateError> {
        let key = MemoryKey::Chunk(segment, row.chunk_offset);
        if let Some(bytes) = self.data.lock().get(&key) {
            return Ok(bytes);
        }
        let bytes = self.read_chunk(segment, &body(row))?;
        // Other objects that lie in it will be asked for next; one that fills it is kept by its own name.
        if !fills_chunk(row) {
            self.data.lock().put(key, bytes.clone(), bytes.len() as u64);
        }
        Ok(bytes)
    }

    fn read_chunk(&self, segment: SegmentNo, body: &Body) -> Result<Bytes, LocateError> {
        if let Some(reader) = &self.reader {
            let mut read = reader.read(segment, Class::Data, std::slice::from_ref(body))?;
            return Ok(read.pop().unwrap_or_default());
        }
        let name = names::segment(segment);
        let bytes = self.store.get_range(&name, body.range())?;
        verify(&name, body, &bytes)?;
        Ok(bytes)
    }

    /// Where an object is, without bringing it. Blocks on disk and store, to find out which chunk that is.
    pub fn nearest(&self, object: &ObjectId) -> Result<Nearest, LocateError> {
        let Some(reader) = &self.reader else { return Ok(Nearest::Here) };
        Ok(match self.find_shipped(object)? {
            None => Nearest::InJournal,
            Some((segment, row)) if reader.holds(segment, &body(&row)) => Nearest::Here,
            Some(_) => Nearest::InStore,
        })
    }

    /// Brings the chunk of an object into the cache, and all that is needed to find it. Blocks on disk and store.
    pub fn warm(&self, object: &ObjectId) -> Result<Warmed, LocateError> {
        let Some(reader) = &self.reader else { return Ok(Warmed::NoCache) };
        let Some((segment, row)) = self.find_shipped(object)? else { return Ok(Warmed::InJournal) };
        match reader.warm(segment, Class::Data, &body(&row))? {
            true => Ok(Warmed::Cached),
            false => Ok(Warmed::NoRoom),
        }
    }

    /// Drops the chunk of an object from memory and cache. Blocks on disk and store, to find out which chunk that is.
    pub fn evict(&self, object: &ObjectId) -> Result<Evicted, LocateError> {
        let Some(reader) = &self.reader else { return Ok(Evicted::NoCache) };
        let Some((segment, row)) = self.find_shipped(object)? else { return Ok(Evicted::InJournal) };
        let mut data = self.data.lock();
        data.remove(&MemoryKey::Object(*object));
        data.remove(&MemoryKey::Chunk(segment, row.chunk_offset));
        drop(data);
        Ok(Evicted::Dropped(reader.evict(segment, &body(&row).framed())))
    }

    /// Where an object lies in the store; `None` while the journal alone has it.
    fn find_shipped(&self, object: &ObjectId) -> Result<Option<(SegmentNo, IndexEntry)>, LocateError> {
        match self.find(object)? {
            Some(found) => Ok(Some(found)),
            None if self.journalled(object)?.is_some() => Ok(None),
            None => Err(LocateError::Nowhere { object: *object }),
        }
    }

    /// An object of the store is deleted; so are its copies.
    pub fn forget(&self, name: &str) {
        let Some(reader) = &self.reader else { return };
        match names::parse(name) {
            Some(names::Parsed::Segment(segment)) => reader.forget(segment),
            Some(names::Parsed::Window(start, end)) => {
                reader.cache().remove(CacheKey::Window(start, end), 0..u64::MAX);
            }
            Some(names::Parsed::Lease(..)) | None => {}
        }
    }
}

/// The most that is read by one request.
const RUN_BYTES_MAX: u64 = 2 << 20;
/// What may lie between two chunks of a run: the header of the second.
const RUN_GAP_MAX: u64 = 512;

/// Chunks that lie side by side, each one object.
#[derive(Default)]
struct Run {
    rows: Vec<(SegmentNo, IndexEntry)>,
}

impl Run {
    fn continues(&self, segment: SegmentNo, row: &IndexEntry) -> bool {
        let (Some((_, first)), Some((in_segment, last))) = (self.rows.first(), self.rows.last()) else { return false };
        let (end, next) = (body(last).range().end, body(row).range());
        let beside = end <= next.start && next.start - end <= RUN_GAP_MAX;
        *in_segment == segment && beside && next.end - first.chunk_offset <= RUN_BYTES_MAX
    }
}

/// The chunk that a row names.
fn body(row: &IndexEntry) -> Body {
    Body { offset: row.chunk_offset, len: row.chunk.stored_len, crc: row.chunk.crc }
}

fn fills_chunk(row: &IndexEntry) -> bool {
    row.offset_in_chunk == 0 && row.len == row.chunk.raw_len
}

/// A row's object out of its chunk: a copy, unless it is all of it, so that a small object does not keep its whole chunk in memory.
fn cut(chunk: &Bytes, row: &IndexEntry) -> Option<Bytes> {
    if fills_chunk(row) {
        return Some(chunk.clone());
    }
    let from = row.offset_in_chunk as usize;
    chunk.get(from..from + row.len as usize).map(Bytes::copy_from_slice)
}

/// A chunk that fails its checksum is never used.
fn verify(name: &str, body: &Body, bytes: &[u8]) -> Result<(), LocateError> {
    if body.is(bytes) {
        return Ok(());
    }
    let found = crc32c::crc32c(bytes);
    let reason = format!("chunk at {}: checksum is {found:08x}, expected {:08x}", body.offset, body.crc);
    Err(LocateError::Damaged { place: name.to_owned(), reason })
}
