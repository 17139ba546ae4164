//! Node files that are copies: the store has what they hold, and they go when they take too much.
//!
//! A file is a copy once a batch says that a published base has its segment, and that batch is durable: so says the space
//! tree, not the memory of a job. With cache files, copies count towards the limit of these and have up to half of it; above
//! that the least recently used are removed, and their nodes come through the segment reader and the cache by ranges. Those
//! in which the space tree lies go last: without it nothing is recorded, and no mount is offline.
//!
//! They are removed only after the store has taken something, and not while it is away: what a merge may need is not given
//! up when it cannot be had again.

use super::{CheckpointError, Checkpointer};
use crate::base::canary::{Canary, removed};
use crate::cache;
use crate::format::batch::TreeId;
use crate::format::ids::{Lsn, SegmentNo};
use crate::map::reachable_segments;
use crate::media::File;
use lru::LruCache;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

/// Open node files kept at a time.
const OPEN_FILES: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// A file that is closed when this and what readers hold is dropped.
type Closed = Option<Arc<dyn File>>;

/// Which node files are open, which are copies, and when each was used. No I/O.
pub(super) struct Files {
    open: LruCache<SegmentNo, Arc<dyn File>>,
    /// What each copy takes, in bytes on disk,
    copies: BTreeMap<SegmentNo, u64>,
    /// and all together.
    copy_bytes: u64,
    /// When each file was read last in this mount, by a clock that counts reads.
    used: BTreeMap<SegmentNo, u64>,
    uses: u64,
    /// Files removed so far: one that was opened before is not kept open after.
    removals: u64,
}

impl Default for Files {
    fn default() -> Files {
        let (copies, used) = Default::default();
        Files { open: LruCache::new(OPEN_FILES), copies, copy_bytes: 0, used, uses: 0, removals: 0 }
    }
}

impl Files {
    /// An open file that is to be read, and what [`Files::put`] wants to know.
    pub fn get(&mut self, no: SegmentNo) -> (Option<Arc<dyn File>>, u64) {
        self.uses += 1;
        if let Some(used) = self.used.get_mut(&no) {
            *used = self.uses;
        }
        (self.open.get(&no).cloned(), self.removals)
    }

    /// Keeps a file open that was opened after `removals`; returns one to close.
    pub fn put(&mut self, no: SegmentNo, file: Arc<dyn File>, removals: u64) -> Closed {
        if removals != self.removals {
            return Some(file);
        }
        self.used.insert(no, self.uses);
        self.open.push(no, file).map(|(_, closed)| closed)
    }

    /// A file is to be removed, or is.
    pub fn close(&mut self, no: SegmentNo) -> Closed {
        self.removals += 1;
        self.open.pop(&no)
    }

    /// A file is gone.
    pub fn forget(&mut self, no: SegmentNo) {
        self.copy_bytes -= self.copies.remove(&no).unwrap_or(0);
        self.used.remove(&no);
    }

    /// See [`super::nodes::NodeStore::set_copies`].
    pub fn set_copies(&mut self, copies: BTreeMap<SegmentNo, u64>) {
        self.copies = copies.into_iter().map(|(no, bytes)| (no, cache::bytes_on_disk(bytes))).collect();
        self.copy_bytes = self.copies.values().sum();
    }

    /// What copies take.
    pub fn copy_bytes(&self) -> u64 {
        self.copy_bytes
    }

    /// All copies in the order in which they go: older ones before newer ones that were not read either.
    pub fn by_use(&self, last: &BTreeSet<SegmentNo>) -> Vec<SegmentNo> {
        let mut all: Vec<SegmentNo> = self.copies.keys().copied().collect();
        all.sort_by_key(|no| (last.contains(no), self.used.get(no).copied().unwrap_or(0), *no));
        all
    }
}

/// How far the owner has come with them.
#[derive(Default)]
pub(super) struct Copies {
    /// A base was recorded: there are more of them.
    pub look: bool,
    /// Those that were found, once this batch is durable, which is that of their base or a later one.
    found: Option<(Lsn, BTreeMap<SegmentNo, u64>)>,
    /// The store took something: they may be removed.
    pub may_go: bool,
}

impl Checkpointer {
    /// Finds copies and removes those that are too many; whether it found any. What fails is left to the next base: nothing
    /// else waits for it.
    pub(super) fn tend_copies(&mut self) -> bool {
        if !self.nodes.limits_copies() || self.away.get() || !self.startup.is_done() {
            return false;
        }
        match self.try_tend_copies() {
            Ok(worked) => worked,
            Err(e) => {
                log::warn!("node files that the store has too stay until the next base: {e}");
                self.copies = Copies::default();
                false
            }
        }
    }

    fn try_tend_copies(&mut self) -> Result<bool, CheckpointError> {
        if self.copies.look {
            let mut local = self.nodes.local_segments().map_err(CheckpointError::disk)?;
            let numbers = local.keys().copied().collect();
            let kept = match removed(Canary::CopyAfterBase) {
                true => Vec::new(),
                false => self.context().unpublished_nodes(&numbers)?,
            };
            for no in kept {
                local.remove(&no);
            }
            let lsn = self.db.last();
            self.ask_durable(lsn);
            (self.copies.look, self.copies.found) = (false, Some((lsn, local)));
            return Ok(true);
        }
        if let Some((_, found)) = self.copies.found.take_if(|(lsn, _)| self.db.journal().durable() >= *lsn) {
            self.nodes.set_copies(found);
            return Ok(true);
        }
        if self.copies.found.is_some() {
            return Ok(false);
        }
        if std::mem::take(&mut self.copies.may_go) && self.nodes.has_too_many_copies() {
            let last = reachable_segments(self.checkpoint.roots[TreeId::Space as usize], &*self.nodes)?;
            self.nodes.remove_copies(&last).map_err(CheckpointError::disk)?;
        }
        Ok(false)
    }
}
