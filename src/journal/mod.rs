//! Layer 3: the journal. Operations queue batches; one thread writes them to preallocated segments, syncs, and wakes who
//! waits.
//!
//! The rules, each kept beside the code that keeps it:
//!
//! 1. Only the [`Writer`] writes segment files. Any thread submits; the Lsn order is the order of the file.
//! 2. Room is taken before an Lsn is given ([`Journal::reserve`]), so a batch that has an Lsn always finds its place.
//! 3. A batch is durable when the sync of its segment has succeeded, and nobody is told so before.
//! 4. The first write or sync that fails after that latches the journal for ever. Reads go on.
//! 5. A segment is sealed and synced before the first group of the next one is written.
//! 6. A slot file is created exclusively, filled, synced and its folder synced before the manifest names it; the
//!    manifest names it before anything is written to it.
//! 7. The manifest changes by temporary file, sync, rename, sync of the folder; memory follows the disk.
//! 8. A segment is prepared before anything is promised a place in it. When the disk is full then, or fails, or writes
//!    but a part, the file is removed, who needs the room is refused, and another attempt is made every second. The first
//!    one that succeeds ends it, without a remount.
//! 9. While the writer is at the disk the queue takes what comes, up to its bound; then writers wait, but under `everysec`
//!    and `none` at most two seconds: a queue whose writer has been away for so long takes four times as much. So a slow
//!    sync stops nobody for longer, as far as that goes, and memory stays bounded. At risk is then not one second's worth
//!    but all since that sync began. Such syncs are counted, and told.
//! 10. A mount never appends to a segment of an earlier mount: it syncs what it accepted, records where that ends, and
//!     goes on in a new segment under a new nonce.
//! 11. Positions grow by one from batch to batch, whoever made them. Batches of an earlier writer that the store alone had
//!     come before the first one of ours, and what is missing between them is made up by batches that change nothing.

mod audit;
mod budget;
mod directory;
mod files;
mod import;
mod lookup;
mod manifest_store;
mod open;
mod prepare;
mod remains;
mod replay;
mod scan;
mod segment;
mod shared;
mod state;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

pub use import::FILLER_BYTES;
pub use manifest_store::{MANIFEST, ManifestError, ManifestStore};
pub use open::open;
pub use remains::{Left, Remains, discover, remains};
pub use replay::{Replayed, replay};
pub use segment::FOLDER;
pub use shared::Journal;
pub use tail::{Due, Published, Tail, TailBatch};
pub use writer::Writer;

use crate::base::metrics::Latencies;
use crate::format::chunk::ChunkHeader;
use crate::format::ids::{JournalNo, Lsn};
use bytes::Bytes;
use std::fmt;
use std::io;
use std::str::FromStr;

/// Sizes, fixed while mounted.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes of a segment; a multiple of 4 KiB, at least [`SEGMENT_BYTES_MIN`].
    pub segment_bytes: u32,
    /// Bytes of all segments together; at least four segments are used.
    pub journal_bytes: u64,
    /// Bytes of batches that may be reserved or queued and not yet written.
    pub queue_bytes_max: u64,
    /// Bytes that operations which only add may not use; see [`Room`]. At most half of the journal is kept.
    pub reserve_bytes: u64,
}

/// The smallest segment.
pub const SEGMENT_BYTES_MIN: u32 = 64 << 10;
/// The largest segment: every offset in one, and every length, fits 32 bits with room to spare.
pub const SEGMENT_BYTES_MAX: u32 = 1 << 30;

/// When batches become durable without anyone asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// At once: nothing is acknowledged before it is durable.
    Always,
    /// At most one second is at risk.
    EverySecond,
    /// When asked only.
    None,
}

impl fmt::Display for SyncPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SyncPolicy::Always => "always",
            SyncPolicy::EverySecond => "everysec",
            SyncPolicy::None => "none",
        })
    }
}

impl FromStr for SyncPolicy {
    type Err = String;

    fn from_str(s: &str) -> Result<SyncPolicy, String> {
        match s {
            "always" => Ok(SyncPolicy::Always),
            "everysec" => Ok(SyncPolicy::EverySecond),
            "none" => Ok(SyncPolicy::None),
            other => Err(format!("unknown sync policy {other:?}; known are always, everysec, none")),
        }
    }
}

/// How much of the journal's last room a batch may use, so that a full journal can always be emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// An operation that may add: leaves the whole reserve.
    Ordinary,
    /// Unlink, truncate: may use half of the reserve.
    Freeing,
    /// What records that the journal may be reclaimed: may use all of it.
    Maintenance,
}

/// Why no room was given. Nothing has happened yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Room comes as soon as the writer goes on, and being refused makes it go on.
    QueueFull,
    /// Room comes when segments are reclaimed: see [`Journal::reclaim`].
    JournalFull,
    /// The disk has no room for another segment, or fails to take one. Heals when it does.
    DiskFull,
    /// The journal has failed or is closed; the reason.
    Latched(String),
}

/// Called once: when what was waited for has come, or with the reason why it never will. It must be short, and must not
/// wait for the journal.
pub type Waiter = Box<dyn FnOnce(Result<(), String>) + Send>;

/// A batch that has its Lsn.
pub struct PendingBatch {
    /// Its position.
    pub lsn: Lsn,
    /// The encoded head, which says that the payload is present.
    pub head: Bytes,
    /// The objects with their stored bytes, in the order of the head.
    pub objects: Vec<(ChunkHeader, Bytes)>,
    /// Whether it has an edit that a log carries.
    pub concerns_files: bool,
}

/// What the journal does and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of segments that hold something, the unused end of the newest not counted.
    pub used_bytes: u64,
    /// Bytes of segments that there may be.
    pub capacity_bytes: u64,
    /// Bytes reserved or queued and not yet written.
    pub queue_bytes: u64,
    /// Syncs of segments that succeeded.
    pub syncs: u64,
    /// Waiters that a sync woke with success.
    pub synced_waiters: u64,
    /// The longest sync so far.
    pub sync_max_nanos: u64,
    /// How long each sync that succeeded took.
    pub sync_latency: Latencies,
    /// Syncs that took two seconds or longer.
    pub slow_syncs: u64,
    /// How long the writer has been at the disk; 0 while it rests.
    pub busy_nanos: u64,
    /// The last error, until it heals.
    pub last_error: Option<String>,
    /// The error that ended all writing.
    pub latched: Option<String>,
    /// Segments used again under a new number.
    pub recycled: u64,
    /// Segments that exist: in use and ready.
    pub segments: u64,
}

/// How full the journal is, for those who slow writers down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Bytes of segments that hold something,
    pub used_bytes: u64,
    /// and of segments that there may be.
    pub capacity_bytes: u64,
    /// Bytes that operations which only add may surely still bring before they wait for room.
    pub free_bytes: u64,
    /// Bytes of segments that were given back since the mount.
    pub reclaimed_bytes: u64,
    /// Operations that add wait for segments to be given back.
    pub is_full: bool,
}

/// What a step of the writer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing was due.
    Idle,
    /// Something; there may be more.
    Worked,
    /// The journal is closed.
    Closed,
}

/// What is wrong with the journal on disk, or with the disk.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Bytes that were durable are not what was written.
    #[error("journal segment {segment} is damaged at offset {offset}: {reason}; run: skylog check --repair STORE")]
    Damaged {
        /// The segment.
        segment: JournalNo,
        /// Bytes from its start to what is damaged.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A file that the manifest lists is not there.
    #[error("{file} is listed in MANIFEST but missing; run: skylog check --repair STORE")]
    Missing {
        /// Its name in the state directory.
        file: String,
    },
    /// A file has not the size that the manifest says.
    #[error("{file} has {found} bytes where MANIFEST says {expected}; run: skylog check --repair STORE")]
    WrongSize {
        /// Its name in the state directory.
        file: String,
        /// Bytes that the manifest says.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// The manifest cannot be read or changed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The disk failed.
    #[error("cannot {doing} {file}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file's name in the state directory.
        file: String,
        /// What the disk said.
        source: io::Error,
    },
    /// Not even one segment fits on the disk.
    #[error("no room on the disk for the journal: {0}")]
    DiskFull(String),
    /// A size in the configuration cannot work.
    #[error("{0}")]
    Config(&'static str),
    /// The journal failed before; the reason.
    #[error("the journal has failed: {0}")]
    Latched(String),
}

impl JournalError {
    fn io(doing: &'static str, file: impl Into<String>, source: io::Error) -> JournalError {
        JournalError::Io { doing, file: file.into(), source }
    }
}

/// Whether an error means that there is no room, which heals, and not that the disk fails.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
