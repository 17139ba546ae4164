//! What the store and the state directory still say of a filesystem, whatever of them is damaged. Only reads.
//!
//! An error of the disk, or a store that does not answer, ends it: that is no damage, and the next try may find all of it.

mod contents;

pub use contents::{Contents, Entry, Source};

use super::Damaged;
use crate::format::ids::{Lsn, NodePtr};
use crate::format::publication::{Position, WindowEntry};
use crate::format::superblock::Superblock;
use crate::map::Overlay;

/// What is left of a filesystem, as a repair begins with it.
pub struct Evidence {
    /// The store's configuration; put together anew if it was damaged, which `damaged` says then.
    pub superblock: Superblock,
    /// Where the maps start.
    pub start: Start,
    /// All later batches that are left, over the start: files and space, in the order of `TreeId`.
    pub overlays: [Overlay; 2],
    /// What was written, and lies in the journal or in logs.
    pub contents: Contents,
    /// Windows, as bases, increments and checkpoints list them; one entry for each end, in order.
    pub windows: Vec<WindowEntry>,
    /// What part the state directory has in this.
    pub state: StatePart,
    /// The numbers that closing objects must win, each created if absent, in this order; the generation of the repair is the one
    /// after that of the last. More than one only where the generation itself is damaged.
    pub close: Vec<Position>,
    /// The highest number of a checkpoint seen anywhere.
    pub checkpoint_max: u64,
    /// The highest number of an inode in batches, and the highest that may have been given by them.
    pub inode_max: u64,
    /// The highest epoch seen anywhere.
    pub epoch_max: u32,
    /// The last batch seen anywhere: the next one is behind its position.
    pub end: Lsn,
    /// Batches that are nowhere any more: after the first, up to and with the second.
    pub lost: Vec<(Lsn, Lsn)>,
    /// What is damaged, missing or foreign, each thing once.
    pub damaged: Vec<Damaged>,
}

/// Where the maps start: both trees, as of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The roots, in the order of `TreeId`, `None` for an empty tree; nothing at all if they are lost, and the trees are to be put
    /// together from whatever nodes there are.
    pub roots: Option<[Option<NodePtr>; 2]>,
    /// The last batch in them; zero if they are lost.
    pub lsn: Lsn,
    /// The number of the checkpoint.
    pub checkpoint: u64,
}

/// What part a state directory has in a repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatePart {
    /// There is none, or it holds nothing.
    None,
    /// It is the writer's: what it holds counts.
    Owner,
    /// It is not, for this reason: it is not read from, and stays as it is.
    Outlived(String),
}
