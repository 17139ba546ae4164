//! Which windows hold what the states that are read name. A base says which still hold something; a window that it leaves out
//! is kept for as long as somebody reads a state from before it.

use crate::format::ids::Lsn;
use crate::locate::Locate;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The follower's part of the table of windows.
pub(super) struct Windows {
    locate: Arc<Locate>,
    /// Ends of those that the newest state may name.
    listed: BTreeSet<Lsn>,
    /// Ends of those that only states up to this generation name.
    left: Vec<(u64, Vec<Lsn>)>,
}

impl Windows {
    pub fn new(locate: Arc<Locate>) -> Windows {
        Windows { locate, listed: BTreeSet::new(), left: Vec::new() }
    }

    /// A publication lists a window. Before its state is read.
    pub fn add(&mut self, start: Lsn, end: Lsn) {
        self.locate.windows().add(start, end);
        self.listed.insert(end);
    }

    /// A base lists these, as (end, start), and `generation` was read before it.
    pub fn replace(&mut self, windows: &[(Lsn, Lsn)], generation: u64) {
        let before = std::mem::take(&mut self.listed);
        windows.iter().for_each(|(end, start)| self.add(*start, *end));
        let gone: Vec<Lsn> = before.difference(&self.listed).copied().collect();
        if !gone.is_empty() {
            self.left.push((generation, gone));
        }
    }

    /// No state of a generation before this one is read any more.
    pub fn forget_before(&mut self, generation: u64) {
        let (listed, locate) = (&self.listed, &self.locate);
        self.left.retain(|(upto, ends)| {
            let needed = *upto >= generation;
            if !needed {
                ends.iter().filter(|end| !listed.contains(end)).for_each(|end| locate.windows().remove(*end));
            }
            needed
        });
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.listed.len() + self.left.iter().map(|(_, ends)| ends.len()).sum::<usize>()
    }
}
