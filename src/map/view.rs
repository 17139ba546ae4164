//! Reading overlay, layers and tree as one map, without ever blocking.
//!
//! The newest word on a key wins: the active overlay, then the layers from new to old, then the tree. When a node of the
//! tree is not at hand its pointer is the answer; the caller lets go of everything, fetches it, and starts again.

use super::NodeCache;
use super::changes::Changes;
use super::overlay::Overlay;
use super::pins::Pins;
use crate::format::ids::NodePtr;
use crate::format::node::{Interior, Leaf, Node};
use bytes::Bytes;
use std::sync::Arc;

/// The map at one moment. Held only while the overlay stands still, never across a wait.
pub struct View<'a> {
    /// The active overlay.
    pub overlay: &'a Overlay,
    /// Frozen overlays, newest first.
    pub layers: &'a [Arc<Overlay>],
    /// The tree below them; `None` is an empty one.
    pub root: Option<NodePtr>,
}

impl<'a> View<'a> {
    /// The value of `key`, or the node that is needed to know.
    pub fn get(&self, cache: &NodeCache, pins: &Pins, key: &[u8]) -> Result<Option<Bytes>, NodePtr> {
        self.read(cache, pins, key, Bytes::clone)
    }

    /// The same, of which only what `read` makes of the value is needed.
    pub fn read<T>(
        &self,
        cache: &NodeCache,
        pins: &Pins,
        key: &[u8],
        read: impl FnOnce(&Bytes) -> T,
    ) -> Result<Option<T>, NodePtr> {
        if let Some(word) = self.overlays().find_map(|overlay| overlay.word(key)) {
            return Ok(word.map(read));
        }
        let hand = Hand { cache, pins };
        let Some(mut ptr) = self.root else { return Ok(None) };
        let mut level = None;
        loop {
            match &*hand.node_at(&ptr, level)? {
                Node::Interior(interior) => {
                    ptr = interior.child(interior.child_for(key));
                    level = Some(interior.level() - 1);
                }
                Node::Leaf(leaf) => return Ok(leaf.get(key).as_ref().map(read)),
            }
        }
    }

    /// The first `limit` entries from `from` on and before `to`, or the node that is needed to know.
    pub fn scan(
        &self,
        cache: &NodeCache,
        pins: &Pins,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, NodePtr> {
        let mut found = Vec::new();
        if from >= to || limit == 0 {
            return Ok(found);
        }
        let mut changes = Changes::new(self.overlays().collect(), from);
        let mut tree = Cursor::new(Hand { cache, pins }, self.root, to);
        tree.seek(changes.deleted_until(from).map_or(from, |end| end))?;
        while found.len() < limit {
            let Some(key) = next_key(&mut changes, &tree, to) else { break };
            let in_tree = tree.key().is_some_and(|tree_key| *tree_key == key);
            if changes.peek_key() == Some(&key) {
                found.extend(changes.next().and_then(|change| change.value.map(|value| (key, value.clone()))));
            } else if let Some(end) = changes.deleted_until(&key) {
                // A range may hide any number of leaves: go past it without reading them.
                tree.seek(end)?;
                continue;
            } else {
                found.push((key, tree.value()));
            }
            if in_tree && found.len() < limit {
                tree.advance()?;
            }
        }
        Ok(found)
    }

    /// Nodes of the tree with keys in `from..to` that are not at hand, the first `limit` of them from left to right. What lies
    /// under one that is missing is not known.
    pub fn missing(&self, cache: &NodeCache, pins: &Pins, from: &[u8], to: &[u8], limit: usize) -> Vec<NodePtr> {
        let hand = Hand { cache, pins };
        let mut changes = Changes::new(self.overlays().collect(), from);
        let mut missing = Vec::new();
        let to_bytes = Bytes::copy_from_slice(to);
        // Nodes to look at, the leftmost last, each with its first key and the one behind its last.
        let mut waiting: Vec<_> =
            self.root.map(|root| (root, None, Bytes::copy_from_slice(from), to_bytes)).into_iter().collect();
        while let Some((ptr, level, first, end)) = waiting.pop().filter(|_| missing.len() < limit) {
            let hidden = changes.deleted_until(&first).is_some_and(|until| *until >= end);
            if hidden {
                continue;
            }
            match hand.node_at(&ptr, level) {
                Err(ptr) => missing.push(ptr),
                Ok(node) => waiting.extend(children_over(&node, &first, &end)),
            }
        }
        missing
    }

    fn overlays(&self) -> impl Iterator<Item = &'a Overlay> {
        std::iter::once(self.overlay).chain(self.layers.iter().map(Arc::as_ref))
    }
}

/// The children of a node that may have keys from `from` on and before `to`, the leftmost last, each with its bounds.
fn children_over(node: &Node, from: &Bytes, to: &Bytes) -> Vec<(NodePtr, Option<u8>, Bytes, Bytes)> {
    let Node::Interior(interior) = node else { return Vec::new() };
    let mut children = Vec::new();
    let mut end = to.clone();
    for i in (interior.child_for(from)..interior.len()).rev() {
        let first = interior.first_key(i).max(from.clone());
        if first < end || i == 0 {
            children.push((interior.child(i), Some(interior.level() - 1), first.clone(), end));
            end = first;
        }
    }
    children
}

fn next_key(changes: &mut Changes<'_>, tree: &Cursor<'_>, to: &[u8]) -> Option<Bytes> {
    let key = match (changes.peek_key(), tree.key()) {
        (Some(change), Some(tree)) => change.min(tree),
        (Some(key), None) | (None, Some(key)) => key,
        (None, None) => return None,
    };
    (key.as_ref() < to).then(|| key.clone())
}

/// What can be read at once.
#[derive(Clone, Copy)]
struct Hand<'a> {
    cache: &'a NodeCache,
    pins: &'a Pins,
}

impl Hand<'_> {
    /// A node that the one above says is at `level`. One that is at another could lead round in a circle.
    fn node_at(&self, ptr: &NodePtr, level: Option<u8>) -> Result<Arc<Node>, NodePtr> {
        let node = self.node(ptr)?;
        if level.is_some_and(|level| level != node.level()) { Err(misplaced(*ptr)) } else { Ok(node) }
    }

    fn node(&self, ptr: &NodePtr) -> Result<Arc<Node>, NodePtr> {
        self.pins.node(ptr).cloned().or_else(|| self.cache.get(ptr)).ok_or(*ptr)
    }
}

/// A place in the tree: before an entry, or at the end, which is anywhere at or after `to`.
struct Cursor<'a> {
    hand: Hand<'a>,
    root: Option<NodePtr>,
    to: &'a [u8],
    /// The interior nodes above the leaf, root first, each with the child the leaf is under.
    path: Vec<(Arc<Node>, usize)>,
    leaf: Option<(Arc<Node>, usize)>,
    key: Option<Bytes>,
    /// From where on it was asked to go.
    sought: Bytes,
}

impl<'a> Cursor<'a> {
    fn new(hand: Hand<'a>, root: Option<NodePtr>, to: &'a [u8]) -> Cursor<'a> {
        Cursor { hand, root, to, path: Vec::new(), leaf: None, key: None, sought: Bytes::new() }
    }

    fn key(&self) -> Option<&Bytes> {
        self.key.as_ref()
    }

    /// The value of the entry it stands before; there must be one.
    fn value(&self) -> Bytes {
        let (node, at) = self.leaf.as_ref().expect("a key has a leaf");
        as_leaf(node).value(*at)
    }

    /// Goes to the first entry at or after `key`.
    fn seek(&mut self, key: &[u8]) -> Result<(), NodePtr> {
        self.path.clear();
        self.leaf = None;
        self.sought = Bytes::copy_from_slice(key);
        if let Some(root) = self.root.filter(|_| key < self.to) {
            self.descend(root, |interior| interior.child_for(key), |leaf| leaf.lower_bound(key))?;
        }
        self.settle()
    }

    /// Goes to the next entry.
    fn advance(&mut self) -> Result<(), NodePtr> {
        if let Some((_, at)) = &mut self.leaf {
            *at += 1;
        }
        self.settle()
    }

    /// Leaves an exhausted leaf for the next one, unless that lies behind the end, and reads the key there.
    fn settle(&mut self) -> Result<(), NodePtr> {
        while let Some((left, _)) = self.leaf.take_if(|(node, at)| *at >= as_leaf(node).len()) {
            let left = as_leaf(&left);
            let last = left.key(left.len() - 1);
            while let Some((node, at)) = self.path.pop() {
                let interior = as_interior(&node);
                if at + 1 < interior.len() {
                    if interior.first_key(at + 1) >= self.to {
                        self.path.clear();
                        break;
                    }
                    let next = interior.child(at + 1);
                    self.path.push((node, at + 1));
                    let leaf = self.descend(next, |_| 0, |_| 0)?;
                    // Leaves out of order would have a scan begin again, and again.
                    let first = self.leaf.as_ref().map(|(node, _)| as_leaf(node).key(0));
                    if first.is_some_and(|first| first <= last || first < self.sought) {
                        return Err(misplaced(leaf));
                    }
                    break;
                }
            }
        }
        self.key = self.leaf.as_ref().map(|(node, at)| as_leaf(node).key(*at));
        Ok(())
    }

    /// Goes down to a leaf, and says which it is.
    fn descend(
        &mut self,
        mut ptr: NodePtr,
        child: impl Fn(&Interior) -> usize,
        entry: impl Fn(&Leaf) -> usize,
    ) -> Result<NodePtr, NodePtr> {
        loop {
            let above = self.path.last().map(|(node, _)| as_interior(node).level());
            let node = self.hand.node_at(&ptr, above.map(|level| level - 1))?;
            let at = match &*node {
                Node::Leaf(leaf) => {
                    let at = entry(leaf);
                    self.leaf = Some((node, at));
                    return Ok(ptr);
                }
                Node::Interior(interior) => child(interior),
            };
            ptr = as_interior(&node).child(at);
            self.path.push((node, at));
        }
    }
}

/// What to fetch in the place of a node that cannot be where it is: nobody has a node with this checksum, so whoever fetches it
/// hears that the node is damaged.
fn misplaced(ptr: NodePtr) -> NodePtr {
    NodePtr { crc: !ptr.crc, ..ptr }
}

fn as_leaf(node: &Node) -> &Leaf {
    match node {
        Node::Leaf(leaf) => leaf,
        Node::Interior(_) => unreachable!("the cursor keeps leaves apart from interior nodes"),
    }
}

fn as_interior(node: &Node) -> &Interior {
    match node {
        Node::Interior(interior) => interior,
        Node::Leaf(_) => unreachable!("the cursor keeps leaves apart from interior nodes"),
    }
}
