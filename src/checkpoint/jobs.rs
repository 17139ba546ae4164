//! What the owner of the space tree asks of the shipper, and what the shipper reports.

use crate::format::checkpoint::Birth;
use crate::format::ids::{Lsn, OBJECT_BYTES_MAX, SegmentNo};
use crate::format::object_table::TABLE_RECORD_BYTES;
use crate::format::publication::{Position, Publication, WindowEntry};
use std::time::Duration;

/// A window to ship.
#[derive(Clone, Debug)]
pub struct WindowJob {
    /// The checkpoint it ends at.
    pub checkpoint: u64,
    /// The batches after this one
    pub start: Lsn,
    /// up to and with this one.
    pub end: Lsn,
    /// Bytes of its changes, if that is known.
    pub edits: Option<u64>,
    /// Planned segment numbers, durable in the space tree.
    pub numbers: Vec<SegmentNo>,
}

/// What the shipper is asked to do.
#[derive(Clone, Debug)]
pub enum Job {
    /// Find out what earlier lives published, from a store that was away when the filesystem was mounted.
    Resume,
    /// Ship a window and publish it as an increment.
    Increment(WindowJob),
    /// Ship all windows that are due and publish the newest checkpoint as a base.
    Base(BaseJob),
    /// Delete store objects that no follower may read.
    Delete(DeleteJob),
    /// Look whether another writer has the filesystem: something is gone, and who took over may have deleted it.
    Fence,
}

impl Job {
    /// Every segment number that was planned for its windows.
    pub fn numbers(&self) -> Vec<SegmentNo> {
        match self {
            Job::Increment(window) => window.numbers.clone(),
            Job::Base(base) => base.windows.iter().flat_map(|window| window.numbers.iter().copied()).collect(),
            Job::Resume | Job::Delete(_) | Job::Fence => Vec::new(),
        }
    }
}

/// See [`Job::Delete`].
#[derive(Clone, Debug)]
pub struct DeleteJob {
    /// Each listed by a checkpoint that is published.
    pub dead: Vec<Dead>,
    /// The newest published checkpoint.
    pub published: u64,
}

/// A store object that is dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Its name.
    pub name: String,
    /// The checkpoint that lists it as dead: whoever reads a state of this one or a later one does not read the object.
    pub checkpoint: u64,
}

/// See [`Job::Base`].
#[derive(Clone, Debug)]
pub struct BaseJob {
    /// The windows, oldest first; the last ends at the checkpoint.
    pub windows: Vec<WindowJob>,
    /// The checkpoint.
    pub checkpoint: u64,
    /// Windows that the checkpoint's own space tree does not record.
    pub unrecorded: Vec<WindowEntry>,
    /// The node segments that its roots reach.
    pub nodes: Vec<(SegmentNo, NodesIn)>,
    /// The generation in which was published what is recorded: of it, and of those between, nothing is listed for deletion yet.
    pub recorded: u64,
}

/// Where a node segment is known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodesIn {
    /// In the store, with this size in bytes: a published base has listed it.
    Store(u64),
    /// In the state directory; an earlier job, of this life or another, may have put it into the store.
    Perhaps,
    /// In the state directory only.
    State,
}

/// What the shipper has done.
#[derive(Debug)]
pub enum Report {
    /// The store is there, and earlier lives published these objects that the space tree may not record yet.
    Resumed(Vec<Publication>),
    /// Windows and a publication are in the store.
    Shipped(Shipped),
    /// A publication of an earlier life of ours was found in the place of the job's.
    Adopted(Box<Publication>),
    /// What could be deleted is gone.
    Deleted(Deleted),
    /// Nobody has taken over, as far as the store says.
    Ours,
    /// Nothing is published: the objects need more segments than were planned. Planned anew it is done.
    TooFewNumbers,
    /// Nothing is known to have been done. To be tried again.
    Failed {
        /// Why.
        reason: String,
        /// The store did not answer.
        away: bool,
    },
}

/// See [`Report::Shipped`].
#[derive(Debug)]
pub struct Shipped {
    /// The windows, oldest first.
    pub windows: Vec<WindowEntry>,
    /// The checkpoint that was published.
    pub checkpoint: u64,
    /// Where.
    pub at: Position,
    /// For a base: the node segments it reaches, with their sizes.
    pub base: Option<Vec<(SegmentNo, u64)>>,
    /// For a base: the closing objects of those generations before it of which nothing is listed for deletion yet.
    pub ended: Vec<Position>,
    /// Numbers that were planned and never put.
    pub unused: Vec<SegmentNo>,
    /// Bytes put into the store for it, and for jobs that failed before it.
    pub put_bytes: u64,
}

/// See [`Report::Deleted`].
#[derive(Debug, Default)]
pub struct Deleted {
    /// These objects are gone from the store.
    pub names: Vec<String>,
    /// Objects that checkpoints up to this one list may go. The others of the job are held by followers, or by what could not
    /// be read.
    pub allowed: u64,
    /// Who follows, as far as it was asked.
    pub followers: Vec<Follower>,
    /// Why nothing was asked to go: the leases could not be read.
    pub refused: Option<String>,
}

/// A mount that reads what is published, as the store showed it.
#[derive(Clone, Debug)]
pub struct Follower {
    /// Process and machine.
    pub name: String,
    /// The oldest checkpoint whose state it reads; 0 for any.
    pub checkpoint: u64,
    /// When its newest number was first seen, by the clock that counts from no fixed moment.
    pub seen: Duration,
}

/// As many numbers as the segments of a window may need, where no object is longer than its birth says, or than `longest` if that
/// is more. Two chunks in a row, or two segments in a row if those are larger, have more bytes than fit into one; a tenth is
/// for what lies around them.
pub fn segments_for(births: &[Birth], segment_bytes: usize, longest: usize) -> usize {
    let bytes = |birth: &Birth| (birth.len as usize).max(longest) + TABLE_RECORD_BYTES;
    let bytes: u64 = births.iter().map(|birth| bytes(birth) as u64).sum();
    let half = segment_bytes.max(OBJECT_BYTES_MAX) as u64 * 9 / 20;
    usize::try_from(bytes / half + 1).unwrap_or(usize::MAX).min(births.len())
}
