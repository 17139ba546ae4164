//! Layer 3: copies of store objects on local disk, never more than a limit.
//!
//! A cache file holds a **run**: contiguous bytes of one store object, from some offset on. One map in memory finds the run
//! that covers a range. What is put was verified by its reader; what is read back the reader verifies again, for no cache
//! file is synced and a crash may leave anything in it. A copy is never the only place of anything: whatever goes wrong here
//! is a miss.
//!
//! Node segments in the state directory that the store has are copies too, which others keep ([`Cache::set_node_files`]); they
//! count towards the same limit.
//!
//! Rules: what the files take, in whole blocks, is never above the limit, so room is made before a byte is written. The
//! disk keeps a minimum free. What is being read or written is not evicted. Only the [`Keeper`] writes and removes files,
//! so nobody who reads or puts waits for that.
//!
//! No run of the map lies inside another of the same object, so in the order of their starts their ends are in order too, and
//! the last that starts before a place reaches furthest beyond it.

mod keeper;
mod name;
mod open_files;
mod state;
#[cfg(test)]
mod tests;

pub use keeper::{Keeper, Progress};
pub use name::is_cache_file;

use crate::base::clock::Clock;
use crate::format::ids::{Lsn, SegmentNo, Uuid};
use crate::media::{File, Media};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use serde::Serialize;
use state::{Piece, RunKey, Source, State};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// The folder of cache files, below the root of its disk.
pub const CACHE: &str = "cache";

/// The least limit that works well: two of the largest runs that reading ahead puts, beside two of nodes and indexes.
pub const BYTES_MIN: u64 = 16 << 20;

/// A cache has at most so many runs, or one for each [`RUN_BYTES_MEAN_MIN`] of its limit if that is more: each takes memory,
/// some 215 bytes, however short it is.
pub const RUNS_MAX: u64 = 1 << 17;
/// See [`RUNS_MAX`].
pub const RUN_BYTES_MEAN_MIN: u64 = 128 << 10;

/// Runs in memory that no file holds yet, bytes in whole blocks; what comes above that is dropped.
pub const PENDING_BYTES_MAX: u64 = 32 << 20;

/// Most cache files kept open.
pub const OPEN_MAX: usize = 64;

/// What a file of so many bytes takes of a limit: whole blocks, and its name.
pub fn bytes_on_disk(len: u64) -> u64 {
    state::weight(len) + state::NAME_BYTES
}

/// How much of a disk the cache may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all cache files and of node files that are copies, in whole blocks. Never exceeded.
    pub bytes_max: u64,
    /// Bytes of the disk that the cache leaves free, whoever fills it.
    pub free_bytes_min: u64,
}

/// What a run is for. Data goes before nodes and indexes, unless these have more than half of the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// File data.
    Data,
    /// Tree nodes.
    Nodes,
    /// Indexes of shipped windows.
    Indexes,
}

/// A store object that has runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CacheKey {
    /// A store segment.
    Segment(SegmentNo),
    /// The index of the window from the first Lsn (not in it) to the second (in it).
    Window(Lsn, Lsn),
}

/// What `status` and metrics show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CacheStats {
    /// Bytes of all cache files and of node files that are copies, in whole blocks;
    pub used_bytes: u64,
    /// those of them that node files take.
    pub node_file_bytes: u64,
    /// The limit for that.
    pub limit_bytes: u64,
    /// Runs, those in memory too.
    pub runs: u64,
    /// Bytes in memory that no file holds yet, in whole blocks.
    pub pending_bytes: u64,
    /// Reads that found all they asked for,
    pub hits: u64,
    /// and that did not.
    pub misses: u64,
    /// Runs removed for room.
    pub evicted: u64,
    /// Runs not kept: too much was pending, or the disk had no room or failed.
    pub dropped: u64,
    /// Runs that could not be read back, or were not what was put.
    pub damaged: u64,
    /// The newest error of the disk, until a run is written again.
    pub last_error: Option<String>,
}

/// Copies of store objects on local disk.
pub struct Cache {
    media: Arc<dyn Media>,
    /// A leaf of the lock order; never held across a call to the disk.
    state: Mutex<State>,
    work: Condvar,
}

impl Cache {
    /// Takes up what earlier mounts of this filesystem left in [`CACHE`], down to the limit; what another filesystem left is
    /// removed. Fails when the folder cannot be made or read.
    pub fn open(
        media: Arc<dyn Media>,
        clock: Arc<dyn Clock>,
        filesystem: Uuid,
        limits: Limits,
    ) -> io::Result<(Arc<Cache>, Keeper)> {
        let mut state = State::new(limits.bytes_max);
        keeper::take_up(&*media, filesystem, &mut state)?;
        let cache = Arc::new(Cache { media, state: Mutex::new(state), work: Condvar::new() });
        let mut keeper = Keeper::new(cache.clone(), clock, limits);
        keeper.shrink();
        Ok((cache, keeper))
    }

    /// The bytes of a range of an object, if all of it is there; they are as good as the disk. May wait for the local disk.
    pub fn read(&self, key: CacheKey, range: Range<u64>) -> Option<Bytes> {
        let found = self.state.lock().pin(key, &range);
        let read = found.and_then(|pieces| self.read_pieces(pieces));
        self.state.lock().count(read.is_some());
        read
    }

    /// The same if no disk must be waited for. Counts no miss: who misses here reads.
    pub fn read_resident(&self, key: CacheKey, range: Range<u64>) -> Option<Bytes> {
        let pieces = Pinned { pieces: self.state.lock().pin(key, &range)?, cache: self };
        let read = collect(&pieces.pieces, |piece, buf| match &piece.source {
            Source::Open(file) => file.read_resident_at(buf, piece.at).then_some(()),
            Source::Memory(_) | Source::Closed => None,
        })?;
        self.state.lock().count(true);
        Some(read)
    }

    /// Whether all of a range is there.
    pub fn holds(&self, key: CacheKey, range: Range<u64>) -> bool {
        self.state.lock().holds(key, &range)
    }

    /// Keeps verified bytes of an object from offset `start` on. Returns at once, and they can be read at once; they are
    /// dropped when too much is pending. A slice keeps the whole buffer it is cut from in memory until it is written.
    pub fn put(&self, key: CacheKey, class: Class, start: u64, bytes: Bytes) {
        let mut state = self.state.lock();
        state.put(RunKey { key, start }, class, bytes);
        self.wake(&mut state);
    }

    /// Forgets every run that overlaps a range of an object, and removes its file. Returns what they took, bytes in whole
    /// blocks.
    pub fn remove(&self, key: CacheKey, range: Range<u64>) -> u64 {
        let mut state = self.state.lock();
        let (_, bytes) = state.remove(key, &range);
        self.wake(&mut state);
        bytes
    }

    /// The same for runs that are not what was put, which is counted.
    pub fn remove_damaged(&self, key: CacheKey, range: Range<u64>) {
        let mut state = self.state.lock();
        let (removed, _) = state.remove(key, &range);
        state.damaged(removed);
        self.wake(&mut state);
    }

    /// Node segments in the state directory that the store has take so many bytes now, by [`bytes_on_disk`]. They count as soon as
    /// the keeper has made room for them; less counts at once.
    pub fn set_node_files(&self, bytes: u64) {
        let mut state = self.state.lock();
        if state.set_node_files(bytes) {
            self.wake(&mut state);
        }
    }

    /// Bytes that those may take: half of what all copies may, so that there is always room for data.
    pub fn node_files_max(&self) -> u64 {
        self.state.lock().node_files_max()
    }

    /// What it holds and what happened so far.
    pub fn stats(&self) -> CacheStats {
        self.state.lock().stats()
    }

    /// Waits until the keeper may have work, or for `patience`.
    pub fn wait_for_work(&self, patience: Duration) {
        let mut state = self.state.lock();
        if !state.woken {
            self.work.wait_for(&mut state, patience);
        }
        state.woken = false;
    }

    fn wake(&self, state: &mut State) {
        state.woken = true;
        self.work.notify_all();
    }

    fn read_pieces(&self, pieces: Vec<Piece>) -> Option<Bytes> {
        let pinned = Pinned { pieces, cache: self };
        collect(&pinned.pieces, |piece, buf| {
            let file = self.file(piece).map_err(|e| self.unreadable(piece, &e)).ok()?;
            file.read_at(buf, piece.at).map_err(|e| self.unreadable(piece, &e)).ok()
        })
    }

    /// The open file of a pinned piece.
    fn file(&self, piece: &Piece) -> io::Result<Arc<dyn File>> {
        if let Source::Open(file) = &piece.source {
            return Ok(file.clone());
        }
        let file = self.media.open(&name::of(&piece.run, piece.class))?;
        // What makes place is closed when the lock is given back.
        let _closed = self.state.lock().opened(piece.run, file.clone());
        Ok(file)
    }

    /// A run that cannot be read is a miss, and gone: the bytes are fetched again, and lie elsewhere then.
    fn unreadable(&self, piece: &Piece, error: &io::Error) {
        let mut state = self.state.lock();
        // That this process has too much open says nothing of the file.
        if !matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) {
            let (removed, _) = state.remove(piece.run.key, &(piece.run.start..piece.run.start + 1));
            state.damaged(removed);
        }
        if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) {
            state.error(format!("{CACHE}/{}: {error}", name::file(&piece.run, piece.class)));
        }
        self.wake(&mut state);
    }
}

/// Pieces that are being read: until it is dropped their files stay.
struct Pinned<'a> {
    pieces: Vec<Piece>,
    cache: &'a Cache,
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        // Closed first: a removed file takes room until then.
        let runs: Vec<RunKey> = self.pieces.drain(..).filter(Piece::is_pinned).map(|piece| piece.run).collect();
        let mut state = self.cache.state.lock();
        if state.unpin(&runs) {
            self.cache.wake(&mut state);
        }
    }
}

/// The bytes of pieces in their order; `read` fills in those that are in no memory of ours.
fn collect(pieces: &[Piece], mut read: impl FnMut(&Piece, &mut [u8]) -> Option<()>) -> Option<Bytes> {
    if let [Piece { source: Source::Memory(bytes), .. }] = pieces {
        return Some(bytes.clone());
    }
    let mut all = vec![0; pieces.iter().map(|piece| piece.len).sum()];
    let mut rest = &mut all[..];
    for piece in pieces {
        let (buf, behind) = rest.split_at_mut(piece.len);
        match &piece.source {
            Source::Memory(bytes) => buf.copy_from_slice(bytes),
            Source::Open(_) | Source::Closed => read(piece, buf)?,
        }
        rest = behind;
    }
    Some(all.into())
}
