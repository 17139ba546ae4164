//! Nodes of a store that is far away come by few requests: whoever reads a tree in order asks next for what the node above
//! names next, and that is fetched together, before it is asked for.
//!
//! A guess costs bytes and no more: what is fetched is verified, and what is not there, or not whole, is left to whoever asks
//! for it. Leaps are noticed, and answered by single nodes.

use crate::base::threads::side_by_side;
use crate::format::ids::{NodePtr, SegmentNo};
use crate::format::names;
use crate::format::node::{Interior, Node, is_interior};
use crate::store::{Store, StoreError};
use bytes::Bytes;
use std::collections::{HashMap, HashSet};

/// Nodes that are asked for together, bytes: at first, and twice as many each time, up to this.
const REACH_MIN: u64 = 128 << 10;
const REACH_MAX: u64 = 8 << 20;
/// Bytes between two nodes that are rather read along than asked around,
const GAP_MAX: u64 = 32 << 10;
/// and the most that one request asks for.
const RANGE_MAX: u64 = 1 << 20;
/// Nodes that are remembered as damaged or gone.
const FAILED_MAX: usize = 1 << 16;
/// How many nodes are asked for one by one after a store did not answer.
const PAUSE: u32 = 64;

/// What is known of the way a tree is read.
#[derive(Default)]
pub(super) struct Ahead {
    /// By their level, what the interior node above them that was read last names.
    levels: Vec<Level>,
    /// What was fetched and not asked for yet.
    held: HashMap<NodePtr, Bytes>,
    held_bytes: u64,
    /// What did not come, or not whole: no guess asks for it again.
    failed: HashSet<NodePtr>,
    /// For so many nodes nothing is guessed, because the store did not answer.
    pause: u32,
}

/// The children of one node.
#[derive(Default)]
struct Level {
    nodes: Vec<NodePtr>,
    /// Which of them would be asked for next.
    next: usize,
    /// How many bytes are asked for together. 0 after a leap.
    reach: u64,
}

/// Nodes that one request brings.
struct Range {
    segment: SegmentNo,
    start: u64,
    end: u64,
    nodes: Vec<NodePtr>,
}

impl Ahead {
    /// The node, if it came already. Goes on with the way in any case.
    pub fn take(&mut self, ptr: &NodePtr) -> Option<Bytes> {
        self.levels.iter_mut().for_each(|level| level.pass(ptr));
        self.remove(ptr)
    }

    fn remove(&mut self, ptr: &NodePtr) -> Option<Bytes> {
        let bytes = self.held.remove(ptr)?;
        self.held_bytes -= bytes.len() as u64;
        Some(bytes)
    }

    /// Notes what a node names, if it is one that names others.
    pub fn note(&mut self, bytes: &Bytes) {
        let Some(interior) = interior(bytes) else { return };
        let at = usize::from(interior.level()) - 1;
        if self.levels.len() <= at {
            self.levels.resize_with(at + 1, Level::default);
        }
        let (level, nodes) = (&mut self.levels[at], children(&interior));
        // Read again because it was forgotten; the way goes on where it was.
        if level.nodes != nodes {
            (level.nodes, level.next) = (nodes, 0);
        }
    }

    /// The node and those that are asked for after it if the way goes on as it did, as far as `is_far` says that the store must be
    /// asked for them.
    fn wanted(&self, ptr: &NodePtr, is_far: &mut dyn FnMut(SegmentNo) -> bool) -> Vec<NodePtr> {
        let mut wanted = vec![*ptr];
        let Some(at) = self.levels.iter().position(|level| level.passed(ptr)) else { return wanted };
        let mut bytes = 0;
        let mut go_on = |nodes: &[NodePtr]| {
            for node in nodes {
                bytes += u64::from(node.len);
                if bytes > self.levels[at].reach {
                    return false;
                }
                if !self.held.contains_key(node) && !self.failed.contains(node) && is_far(node.segment) {
                    wanted.push(*node);
                }
            }
            true
        };
        let Level { nodes, next, .. } = &self.levels[at];
        if go_on(&nodes[*next..]) {
            let above = self.levels.get(at + 1).map_or(&[][..], |above| &above.nodes[above.next..]);
            // Those that are not at hand are not waited for.
            let mut named = above.iter().map_while(|node| Some(children(&interior(self.held.get(node)?)?)));
            while named.next().is_some_and(|nodes| go_on(&nodes)) {}
        }
        wanted
    }

    /// Fetches the node that [`Ahead::take`] did not have, and with it what is wanted soon. `None` if it does not come whole.
    pub fn fetch(
        &mut self,
        ptr: &NodePtr,
        store: &dyn Store,
        is_far: &mut dyn FnMut(SegmentNo) -> bool,
    ) -> Option<Bytes> {
        if self.pause > 0 || self.failed.contains(ptr) {
            self.pause = self.pause.saturating_sub(1);
            return None;
        }
        let wanted = self.wanted(ptr, is_far);
        let ranges = ranges(wanted.clone());
        let came = side_by_side(store.side_by_side(), &ranges, |range| range.fetch(store));
        if self.held_bytes > 2 * REACH_MAX {
            // Nobody came for it.
            self.held.clear();
            self.held_bytes = 0;
        }
        for came in came {
            let Ok(nodes) = came else {
                self.pause = PAUSE;
                continue;
            };
            for (ptr, bytes) in nodes {
                self.held_bytes += bytes.len() as u64;
                self.held.insert(ptr, bytes);
            }
        }
        if self.failed.len() > FAILED_MAX {
            self.failed.clear();
        }
        self.failed.extend(wanted.into_iter().filter(|node| !self.held.contains_key(node)));
        self.remove(ptr)
    }
}

impl Level {
    fn pass(&mut self, ptr: &NodePtr) {
        if self.nodes.get(self.next) == Some(ptr) {
            self.next += 1;
            self.reach = (2 * self.reach).clamp(REACH_MIN, REACH_MAX);
        } else if let Some(at) = self.nodes.iter().position(|node| node == ptr) {
            self.next = at + 1;
            self.reach = 0;
        }
    }

    /// Whether this is the node that was asked for last.
    fn passed(&self, ptr: &NodePtr) -> bool {
        self.next.checked_sub(1).is_some_and(|last| self.nodes[last] == *ptr)
    }
}

impl Range {
    /// Those of the nodes that are there and whole. Each is a copy, for it may be kept for long.
    fn fetch(&self, store: &dyn Store) -> Result<Vec<(NodePtr, Bytes)>, StoreError> {
        let bytes = match store.get_some(&names::segment(self.segment), self.start..self.end) {
            Err(StoreError::NotFound { .. }) => return Ok(Vec::new()),
            came => came?,
        };
        let whole = self.nodes.iter().filter_map(|ptr| {
            let at = usize::try_from(u64::from(ptr.offset) - self.start).ok()?;
            let node = bytes.get(at..at.checked_add(ptr.len as usize)?)?;
            ptr.verify(node).ok()?;
            Some((*ptr, Bytes::copy_from_slice(node)))
        });
        Ok(whole.collect())
    }
}

/// What brings the nodes, those that lie close to each other together.
fn ranges(mut nodes: Vec<NodePtr>) -> Vec<Range> {
    nodes.sort_unstable_by_key(|ptr| (ptr.segment, ptr.offset));
    let mut ranges: Vec<Range> = Vec::new();
    for ptr in nodes {
        let start = u64::from(ptr.offset);
        let end = start + u64::from(ptr.len);
        match ranges.last_mut() {
            Some(last)
                if last.segment == ptr.segment && start <= last.end + GAP_MAX && end - last.start <= RANGE_MAX =>
            {
                last.end = last.end.max(end);
                last.nodes.push(ptr);
            }
            _ => ranges.push(Range { segment: ptr.segment, start, end, nodes: vec![ptr] }),
        }
    }
    ranges
}

fn interior(bytes: &Bytes) -> Option<Interior> {
    match is_interior(bytes).then(|| Node::decode(bytes.clone())) {
        Some(Ok(Node::Interior(interior))) => Some(interior),
        _ => None,
    }
}

fn children(interior: &Interior) -> Vec<NodePtr> {
    (0..interior.len()).map(|i| interior.child(i)).collect()
}

#[cfg(test)]
mod tests;
