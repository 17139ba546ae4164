//! Builds a tree from left to right out of entries and of whole subtrees that stay as they are.
//!
//! A subtree can follow only a node that has enough in it; otherwise the subtree is opened and fills the node up. So
//! hardly a node stays under-full, and nothing cascades: what was opened is enough for its neighbour to stay.
//!
//! It never reads a node it made itself: what lies left of a rest, and is complete, is always an old subtree.

use super::level::{Child, Entry, Item, Level, Part};
use super::{MapError, NodeCache, NodeSink, NodeSource, misplaced, read_node};
use crate::format::ids::NodePtr;
use crate::format::node::{Interior, Leaf, NODE_BYTES_TARGET, Node};
use bytes::Bytes;
use std::sync::Arc;

/// How big nodes get.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// A node is finished before it grows above this; one below a third of it joins a neighbour. A large value, or keys
    /// unlike each other, make an exception.
    pub node_bytes: usize,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape { node_bytes: NODE_BYTES_TARGET }
    }
}

/// Where old nodes are read from.
#[derive(Clone, Copy)]
pub(super) struct Nodes<'a> {
    pub source: &'a dyn NodeSource,
    pub cache: Option<&'a NodeCache>,
}

impl Nodes<'_> {
    /// Reads a node, and leaves the cache to those who read the map.
    pub fn read(&self, ptr: &NodePtr) -> Result<Arc<Node>, MapError> {
        match self.cache.and_then(|cache| cache.peek(ptr)) {
            Some(node) => Ok(node),
            None => read_node(self.source, ptr).map(Arc::new),
        }
    }

    /// Reads a node that the node above says is at `level`.
    pub fn read_at(&self, level: usize, ptr: &NodePtr) -> Result<Arc<Node>, MapError> {
        let node = self.read(ptr)?;
        match usize::from(node.level()) {
            found if found == level => Ok(node),
            _ => Err(misplaced(ptr, level, node.level())),
        }
    }
}

/// A tree that is made of entries alone, in key order.
pub(crate) struct NewTree<'a>(TreeBuilder<'a>);

impl<'a> NewTree<'a> {
    /// An empty tree, the nodes of which go into `sink`.
    pub fn new(sink: &'a mut dyn NodeSink, shape: Shape) -> NewTree<'a> {
        NewTree(TreeBuilder::new(Nodes { source: &Nothing, cache: None }, sink, shape))
    }

    /// Adds an entry behind all that is there.
    pub fn add(&mut self, key: Bytes, value: Bytes) -> Result<(), MapError> {
        self.0.add_entry(Entry { key, value })
    }

    /// Completes the tree. `None` is the empty one.
    pub fn finish(self) -> Result<Option<NodePtr>, MapError> {
        self.0.finish()
    }
}

/// Where there is no old tree.
struct Nothing;

impl NodeSource for Nothing {
    fn read_node(&self, ptr: &NodePtr) -> Result<Bytes, MapError> {
        Err(MapError::Missing { segment: ptr.segment })
    }
}

pub(super) fn entries(leaf: &Leaf) -> impl Iterator<Item = Entry> + '_ {
    (0..leaf.len()).map(|i| Entry { key: leaf.key(i), value: leaf.value(i) })
}

pub(super) fn children(interior: &Interior) -> impl Iterator<Item = Child> + '_ {
    (0..interior.len()).map(|i| Child { first_key: interior.first_key(i), ptr: interior.child(i) })
}

pub(super) struct TreeBuilder<'a> {
    nodes: Nodes<'a>,
    sink: &'a mut dyn NodeSink,
    leaves: Level<Entry>,
    /// Nodes of level 1, 2, …
    interiors: Vec<Level<Child>>,
    shape: Shape,
}

impl<'a> TreeBuilder<'a> {
    pub fn new(nodes: Nodes<'a>, sink: &'a mut dyn NodeSink, shape: Shape) -> TreeBuilder<'a> {
        TreeBuilder { nodes, sink, leaves: Level::new(0, shape), interiors: Vec::new(), shape }
    }

    /// Adds an entry behind all that is there.
    pub fn add_entry(&mut self, entry: Entry) -> Result<(), MapError> {
        match self.leaves.push(entry) {
            Some(full) => self.write(0, full),
            None => Ok(()),
        }
    }

    /// Adds a whole subtree behind all that is there; `level` is that of its topmost node.
    pub fn add_subtree(&mut self, level: usize, subtree: Child) -> Result<(), MapError> {
        if self.close_upto(level)? {
            return self.add_child(level + 1, subtree);
        }
        match &*self.nodes.read_at(level, &subtree.ptr)? {
            Node::Leaf(leaf) => entries(leaf).try_for_each(|entry| self.add_entry(entry)),
            Node::Interior(interior) => children(interior).try_for_each(|child| self.add_subtree(level - 1, child)),
        }
    }

    /// Completes the tree. `None` is the empty one.
    pub fn finish(mut self) -> Result<Option<NodePtr>, MapError> {
        for level in 0.. {
            if (level + 1..=self.interiors.len()).any(|above| !self.is_empty(above)) {
                if !self.is_closable(level) {
                    self.take_left_neighbour(level)?;
                }
                self.close(level)?;
            } else if let Some(root) = self.try_root(level)? {
                return Ok(root);
            }
        }
        unreachable!("every tree has a highest level")
    }

    /// Nothing lies above `level`: if what it holds is one node, or less, that is the whole tree.
    fn try_root(&mut self, level: usize) -> Result<Option<Option<NodePtr>>, MapError> {
        if self.is_empty(level) {
            return Ok(Some(None));
        }
        if let Some(only) = level.checked_sub(1).and_then(|at| self.interiors[at].only()) {
            return Ok(Some(Some(only.ptr)));
        }
        self.close(level)?;
        Ok(self.interiors[level].only().map(|root| Some(root.ptr)))
    }

    /// Completes the nodes being filled up to `level`, unless one of them has too little in it.
    fn close_upto(&mut self, level: usize) -> Result<bool, MapError> {
        for level in 0..=level {
            if !self.is_closable(level) {
                return Ok(false);
            }
            self.close(level)?;
        }
        Ok(true)
    }

    fn is_closable(&self, level: usize) -> bool {
        match level.checked_sub(1) {
            None => self.leaves.is_closable(),
            Some(at) => self.interiors.get(at).is_none_or(Level::is_closable),
        }
    }

    fn is_empty(&self, level: usize) -> bool {
        match level.checked_sub(1) {
            None => self.leaves.is_empty(),
            Some(at) => self.interiors.get(at).is_none_or(Level::is_empty),
        }
    }

    fn close(&mut self, level: usize) -> Result<(), MapError> {
        match level.checked_sub(1) {
            None => self.leaves.close().into_iter().try_for_each(|part| self.write(level, part)),
            Some(at) if at < self.interiors.len() => {
                self.interiors[at].close().into_iter().try_for_each(|part| self.write(level, part))
            }
            Some(_) => Ok(()),
        }
    }

    /// Opens the complete node left of the one being filled at `level`. Something must lie above.
    fn take_left_neighbour(&mut self, level: usize) -> Result<(), MapError> {
        if self.is_empty(level + 1) {
            self.take_left_neighbour(level + 1)?;
        }
        let left = self.interiors[level].pop();
        match &*self.nodes.read_at(level, &left.ptr)? {
            Node::Leaf(leaf) => self.leaves.put_before(entries(leaf)),
            Node::Interior(interior) => {
                self.interiors[level - 1].put_before(children(interior));
            }
        }
        Ok(())
    }

    /// Adds a child to the node being filled at `level`.
    fn add_child(&mut self, level: usize, child: Child) -> Result<(), MapError> {
        let at = level - 1;
        while self.interiors.len() <= at {
            self.add_level();
        }
        match self.interiors[at].push(child) {
            Some(full) => self.write(level, full),
            None => Ok(()),
        }
    }

    fn add_level(&mut self) {
        let level =
            u8::try_from(self.interiors.len() + 1).expect("each level has at least twice the nodes of the next");
        self.interiors.push(Level::new(level, self.shape));
    }

    /// Writes a node and adds it to the level above. What was just made is what will be read next, so the cache gets it.
    fn write<T: Item>(&mut self, level: usize, part: Part<T>) -> Result<(), MapError> {
        let (first_key, bytes) = part.encode();
        let ptr = self.sink.append(&bytes)?;
        if let Some(cache) = self.nodes.cache {
            let node = Node::decode(bytes.into());
            let node = node.map_err(|error| MapError::Damaged { ptr, reason: format!("made badly: {error}") })?;
            cache.insert(ptr, node);
        }
        self.add_child(level + 1, Child { first_key, ptr })
    }
}
