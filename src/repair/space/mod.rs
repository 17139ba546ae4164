//! The space map from scratch: what is said of segments and windows follows from a full scan of the extents and from what of
//! the objects is whole, and from nothing that was said before.

mod uses;

pub use uses::{Use, Uses};

use crate::format::ids::{Lsn, Uuid};
use crate::format::publication::Position;
use bytes::Bytes;
use std::collections::BTreeSet;

/// What the new generation is to be.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The filesystem.
    pub uuid: Uuid,
    /// Where its base will be; the generation is the epoch too, and nothing of that epoch is in the store yet that counts.
    pub base: Position,
    /// The checkpoint that the base publishes.
    pub checkpoint: u64,
    /// Where it ends: of its epoch, and its position is above that of every batch that was ever seen.
    pub end: Lsn,
    /// Now: nanoseconds since 1970.
    pub now: i64,
    /// All inode numbers up to this one may have been given.
    pub inode_mark: u64,
    /// Bytes at which a segment is full.
    pub segment_bytes: usize,
    /// The number of the first segment of the epoch that may be used.
    pub first_segment: u64,
    /// Store objects that were listed for deletion: a writer that was paused may still remove them, so what is needed of them is
    /// written anew.
    pub doomed: BTreeSet<String>,
}

/// A space map that agrees with the extents, and what must be in the store before a base names it.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// All entries, in the order of their keys. Segments of nodes are not in them: the base lists its own.
    pub entries: Vec<(Bytes, Bytes)>,
    /// Window indexes to create, by name; one that is there has these very bytes.
    pub indexes: Vec<(String, Bytes)>,
    /// Store objects that nothing names any more: the entries list them for deletion.
    pub dead: Vec<String>,
    /// Live windows and segments of chunks.
    pub windows: u64,
    /// See there.
    pub segments: u64,
    /// Objects, and their bytes, that were written into new segments.
    pub moved: (u64, u64),
    /// The number of the first segment of the epoch that is free after it.
    pub next_segment: u64,
}
