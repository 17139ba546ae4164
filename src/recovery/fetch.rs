//! Fetching what a mount from the store alone needs, many requests side by side: one after another they would take minutes
//! from a store that is far away.

use crate::base::threads::side_by_side;
use crate::checkpoint::nodes::NodeStore;
use crate::format::ids::NodePtr;
use crate::format::node::Node;
use crate::map::{Frozen, MapError, NodeCache, NodeSource, Overlay, touched_leaves};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of interior nodes that are fetched before anybody asks for them; a tree with more has the rest fetched on demand.
const INTERIOR_BYTES_MAX: u64 = 16 << 20;
/// Leaves that are held for a merge: some MiB.
const LEAVES_HELD: usize = 512;

/// What a takeover fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Objects and nodes that were asked for,
    pub asked: u64,
    /// and how often it was waited for some of them.
    pub rounds: u64,
    /// How often changes of increments became trees before all were read, because they took too much memory.
    pub folds: u64,
}

/// Has things done side by side, and counts how often the store was waited for.
pub struct Fetcher {
    at_once: usize,
    asked: AtomicU64,
    rounds: AtomicU64,
}

impl Fetcher {
    /// With 1 everything happens in order on the caller's thread, as the simulator needs it.
    pub fn new(at_once: usize) -> Fetcher {
        Fetcher { at_once: at_once.max(1), asked: AtomicU64::new(0), rounds: AtomicU64::new(0) }
    }

    /// How many are done at a time.
    pub fn at_once(&self) -> usize {
        self.at_once
    }

    /// What it took so far.
    pub fn figures(&self) -> Fetched {
        Fetched { asked: self.asked.load(Ordering::Relaxed), rounds: self.rounds.load(Ordering::Relaxed), folds: 0 }
    }

    /// What `each` makes of every item, in the order of the items.
    pub fn all<T: Sync, R: Send>(&self, items: &[T], each: impl Fn(&T) -> R + Sync) -> Vec<R> {
        self.asked.fetch_add(items.len() as u64, Ordering::Relaxed);
        self.rounds.fetch_add(items.len().div_ceil(self.at_once) as u64, Ordering::Relaxed);
        side_by_side(self.at_once, items, each)
    }

    /// Brings the interior nodes of trees into memory, level by level. What cannot be had is left to whoever needs it.
    pub fn interiors(&self, roots: [Option<NodePtr>; 2], nodes: &NodeStore, cache: &NodeCache) {
        let mut level: Vec<NodePtr> = roots.into_iter().flatten().collect();
        let mut bytes = 0;
        while !level.is_empty() {
            bytes += level.iter().map(|ptr| u64::from(ptr.len)).sum::<u64>();
            if bytes > INTERIOR_BYTES_MAX {
                return;
            }
            // As they lie in the store: one request brings neighbours.
            level.sort_unstable_by_key(|ptr| (ptr.segment, ptr.offset));
            let mut below = Vec::new();
            for node in self.all(&level, |ptr| cache.fetch(ptr, nodes)) {
                let Ok(node) = node else { return };
                if let Node::Interior(interior) = &*node
                    && interior.level() > 1
                {
                    below.extend((0..interior.len()).map(|i| interior.child(i)));
                }
            }
            level = below;
        }
    }

    /// The leaves that a merge of what is frozen reads, ready to be fetched ahead of it.
    pub fn ahead_of<'a>(
        &'a self,
        frozen: &Frozen,
        nodes: &'a NodeStore,
        cache: &NodeCache,
    ) -> Result<Ahead<'a>, MapError> {
        let mut order = Vec::new();
        for (root, layers) in frozen.roots.iter().zip(&frozen.layers) {
            let layers: Vec<&Overlay> = layers.iter().map(|layer| &**layer).collect();
            let mut read = |ptrs: &[NodePtr]| self.all(ptrs, |ptr| cache.fetch(ptr, nodes)).into_iter().collect();
            order.extend(touched_leaves(*root, &layers, &mut read)?);
        }
        let place = order.iter().enumerate().map(|(at, ptr)| (*ptr, at)).collect();
        Ok(Ahead { fetcher: self, nodes, order, place, held: Mutex::default() })
    }
}

/// Nodes for a merge: the leaves that it will ask for are fetched some hundreds at a time, just before it does.
pub struct Ahead<'a> {
    fetcher: &'a Fetcher,
    nodes: &'a NodeStore,
    /// In the order of the merge,
    order: Vec<NodePtr>,
    /// and where each is in it.
    place: HashMap<NodePtr, usize>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    nodes: HashMap<NodePtr, Bytes>,
    /// Leaves before this one were fetched.
    upto: usize,
}

impl Ahead<'_> {
    fn fetch_from(&self, at: usize) -> Held {
        let upto = (at + LEAVES_HELD).min(self.order.len());
        let mut some = self.order[at..upto].to_vec();
        some.sort_unstable_by_key(|ptr| (ptr.segment, ptr.offset));
        let fetched = self.fetcher.all(&some, |ptr| self.nodes.read_node(ptr));
        // One that could not be had is asked for again by the merge, which then hears why.
        let nodes = some.into_iter().zip(fetched).filter_map(|(ptr, node)| Some((ptr, node.ok()?))).collect();
        Held { nodes, upto }
    }
}

impl NodeSource for Ahead<'_> {
    fn read_node(&self, ptr: &NodePtr) -> Result<Bytes, MapError> {
        let mut held = self.held.lock();
        if let Some(at) = self.place.get(ptr).copied().filter(|at| *at >= held.upto) {
            *held = self.fetch_from(at);
        }
        match held.nodes.remove(ptr) {
            Some(node) => Ok(node),
            None => self.nodes.read_node(ptr),
        }
    }
}
