//! What the owner of the space tree asks of the shipper, and what the shipper reports.

use crate::format::ids::{Lsn, SegmentNo};
use crate::format::publication::{Position, Publication, WindowEntry};

/// A window to ship.
#[derive(Clone, Debug)]
pub struct WindowJob {
    /// The checkpoint it ends at.
    pub checkpoint: u64,
    /// The batches after this one
    pub start: Lsn,
    /// up to and with this one.
    pub end: Lsn,
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
    Base {
        /// The windows, oldest first; the last ends at the checkpoint.
        windows: Vec<WindowJob>,
        /// The checkpoint.
        checkpoint: u64,
        /// Windows that the checkpoint's own space tree does not record.
        unrecorded: Vec<WindowEntry>,
    },
    /// Delete store objects.
    Delete(Vec<String>),
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
    /// These objects are gone from the store.
    Deleted(Vec<String>),
    /// Nothing is known to have been done; the reason was told where it happened. To be tried again.
    Failed,
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
    /// Bytes of the publication's body.
    pub bytes: u64,
    /// For a base: the node segments it reaches, with their sizes.
    pub base: Option<Vec<(SegmentNo, u64)>>,
}
