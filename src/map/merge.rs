//! Lays frozen layers over a tree and makes the next tree.
//!
//! Copy on write: a leaf is written again only if one of its values changes, with its ancestors; all else is shared. The
//! walk streams: it holds the path to one leaf, and two nodes a level of the new tree. Nothing of the new tree is made
//! before the first difference is found, so layers that change nothing give back the same root.

use super::build::{Nodes, TreeBuilder};
use super::changes::{Change, Changes};
use super::level::{Child, Entry};
use super::overlay::Overlay;
use super::{MapError, NodeCache, NodeSink, NodeSource};
use crate::format::ids::NodePtr;
use crate::format::node::{Interior, Leaf, Node};
use bytes::Bytes;
use std::sync::Arc;

pub use super::build::Shape;

/// Told of every key whose value differs, once, in key order: the key, its old value, its new one.
pub type OnChange<'a> = dyn FnMut(&[u8], Option<&Bytes>, Option<&Bytes>) + 'a;

/// Merges with nodes of the usual size; see [`Merge::run`].
pub fn merge(
    root: Option<NodePtr>,
    layers: &[&Overlay],
    source: &dyn NodeSource,
    cache: Option<&NodeCache>,
    sink: &mut dyn NodeSink,
    on_change: &mut OnChange<'_>,
) -> Result<Option<NodePtr>, MapError> {
    Merge { source, cache, shape: Shape::default() }.run(root, layers, sink, on_change)
}

/// How to merge.
pub struct Merge<'a> {
    /// Where the old tree is.
    pub source: &'a dyn NodeSource,
    /// Looked into before the source; gets the nodes that are made.
    pub cache: Option<&'a NodeCache>,
    /// How big nodes get.
    pub shape: Shape,
}

impl Merge<'_> {
    /// The tree that holds what the tree under `root` and `layers` (oldest first) together hold. `None` is the empty tree.
    /// After an error neither what went into `sink` nor what `on_change` was told means anything.
    pub fn run(
        &self,
        root: Option<NodePtr>,
        layers: &[&Overlay],
        sink: &mut dyn NodeSink,
        on_change: &mut OnChange<'_>,
    ) -> Result<Option<NodePtr>, MapError> {
        let nodes = Nodes { source: self.source, cache: self.cache };
        let changes = Changes::new(layers.iter().rev().copied().collect(), &[]);
        let builder = TreeBuilder::new(nodes, sink, self.shape);
        let mut walk = Walk { nodes, changes, builder, on_change, path: Vec::new(), differs: false };
        match root {
            Some(ptr) => walk.merge_node(nodes.read(&ptr)?, &Bytes::new(), None)?,
            None => walk.merge_entries(None, None)?,
        }
        if walk.differs { walk.builder.finish() } else { Ok(root) }
    }
}

struct Walk<'a> {
    nodes: Nodes<'a>,
    changes: Changes<'a>,
    builder: TreeBuilder<'a>,
    on_change: &'a mut OnChange<'a>,
    path: Vec<Step>,
    differs: bool,
}

/// An interior node on the way to where the walk is.
struct Step {
    node: Arc<Node>,
    /// Which child the walk is in.
    at: usize,
    /// Children before this one are in the new tree, or gone.
    done: usize,
}

impl Step {
    fn interior(&self) -> &Interior {
        match &*self.node {
            Node::Interior(interior) => interior,
            Node::Leaf(_) => unreachable!("a step leads to a child"),
        }
    }

    /// Moves the children up to `end` that are not in the new tree yet into it, as they are.
    fn share_upto(&mut self, end: usize, builder: &mut TreeBuilder<'_>) -> Result<(), MapError> {
        let interior = self.interior();
        let level = usize::from(interior.level()) - 1;
        for i in self.done..end {
            builder.add_subtree(level, Child { first_key: interior.first_key(i), ptr: interior.child(i) })?;
        }
        self.done = end;
        Ok(())
    }
}

impl Walk<'_> {
    /// Merges the subtree under `node`, which has the keys from `from` to before `to`. If nothing in it differs, nothing is
    /// done, and it stays to be shared by the step above.
    fn merge_node(&mut self, node: Arc<Node>, from: &Bytes, to: Option<&Bytes>) -> Result<(), MapError> {
        match &*node {
            Node::Leaf(leaf) => self.merge_entries(Some(leaf), to),
            Node::Interior(interior) => {
                self.path.push(Step { node: node.clone(), at: 0, done: 0 });
                self.merge_children(interior, from, to)?;
                let mut step = self.path.pop().expect("pushed above");
                if step.done > 0 { step.share_upto(interior.len(), &mut self.builder) } else { Ok(()) }
            }
        }
    }

    fn merge_children(&mut self, interior: &Interior, from: &Bytes, to: Option<&Bytes>) -> Result<(), MapError> {
        for at in 0..interior.len() {
            // What lies before the first child belongs to it.
            let start = if at == 0 { from.clone() } else { interior.first_key(at) };
            let next_key = (at + 1 < interior.len()).then(|| interior.first_key(at + 1));
            let end = next_key.as_ref().or(to);
            if self.changes.touch(&start, end.map(Bytes::as_ref)) {
                self.path.last_mut().expect("the caller's step").at = at;
                let ptr = interior.child(at);
                let child = self.nodes.read_at(usize::from(interior.level()) - 1, &ptr)?;
                check_bounds(&ptr, &child, (at > 0).then_some(&start), end)?;
                self.merge_node(child, &start, end)?;
            }
        }
        Ok(())
    }

    /// Merges the entries of a leaf with the changes before `to`.
    fn merge_entries(&mut self, leaf: Option<&Leaf>, to: Option<&Bytes>) -> Result<(), MapError> {
        let mut old = OldEntries { leaf, at: 0, done: 0, opened: false };
        loop {
            let key = old.key();
            let change_key = self.changes.peek_key().filter(|key| to.is_none_or(|to| *key < to));
            match (change_key, key) {
                (None, None) => break,
                (Some(change_key), Some(key)) if *change_key > key => self.merge_old(&mut old, &key)?,
                (None, Some(key)) => self.merge_old(&mut old, &key)?,
                (Some(change_key), key) => {
                    let value = (key.as_ref() == Some(change_key)).then(|| old.value());
                    let change = self.changes.next().expect("peeked");
                    self.merge_change(&mut old, &change, value)?;
                }
            }
        }
        if old.opened { old.keep_rest(&mut self.builder) } else { Ok(()) }
    }

    /// An old entry that only a range can take.
    fn merge_old(&mut self, old: &mut OldEntries<'_>, key: &Bytes) -> Result<(), MapError> {
        if self.changes.deleted_until(key).is_some() {
            (self.on_change)(key, Some(&old.value()), None);
            self.open(old)?;
            old.drop_one();
        } else {
            old.at += 1;
        }
        Ok(())
    }

    /// A key with an entry in the layers; `value` is that of the old entry, if there is one.
    fn merge_change(
        &mut self,
        old: &mut OldEntries<'_>,
        change: &Change<'_>,
        value: Option<Bytes>,
    ) -> Result<(), MapError> {
        if value.as_ref() == change.value {
            old.at += usize::from(value.is_some());
            return Ok(());
        }
        (self.on_change)(change.key, value.as_ref(), change.value);
        self.open(old)?;
        if value.is_some() {
            old.drop_one();
        }
        match change.value {
            Some(new) => self.builder.add_entry(Entry { key: change.key.clone(), value: new.clone() }),
            None => Ok(()),
        }
    }

    /// A difference is here: all before it goes into the new tree.
    fn open(&mut self, old: &mut OldEntries<'_>) -> Result<(), MapError> {
        if !old.opened {
            self.differs = true;
            for step in &mut self.path {
                step.share_upto(step.at, &mut self.builder)?;
                step.done = step.at + 1;
            }
            old.opened = true;
        }
        old.keep_upto(old.at, &mut self.builder)
    }
}

/// A new tree is made in key order, so a node with keys that belong elsewhere ends the merge.
fn check_bounds(ptr: &NodePtr, node: &Node, from: Option<&Bytes>, to: Option<&Bytes>) -> Result<(), MapError> {
    let (first, last) = match node {
        Node::Leaf(leaf) => (leaf.key(0), leaf.key(leaf.len() - 1)),
        Node::Interior(interior) => (interior.first_key(0), interior.first_key(interior.len() - 1)),
    };
    if from.is_some_and(|from| first < *from) || to.is_some_and(|to| last >= *to) {
        return Err(MapError::Damaged { ptr: *ptr, reason: "it has keys that belong elsewhere".to_owned() });
    }
    Ok(())
}

/// The old leaf the walk is in; an empty tree has none.
struct OldEntries<'a> {
    leaf: Option<&'a Leaf>,
    at: usize,
    /// Entries before this one are in the new tree, or gone.
    done: usize,
    opened: bool,
}

impl OldEntries<'_> {
    fn key(&self) -> Option<Bytes> {
        self.leaf.filter(|leaf| self.at < leaf.len()).map(|leaf| leaf.key(self.at))
    }

    fn value(&self) -> Bytes {
        self.leaf.expect("a key has a leaf").value(self.at)
    }

    fn drop_one(&mut self) {
        self.at += 1;
        self.done = self.at;
    }

    fn keep_rest(&mut self, builder: &mut TreeBuilder<'_>) -> Result<(), MapError> {
        self.keep_upto(self.leaf.map_or(0, Leaf::len), builder)
    }

    fn keep_upto(&mut self, end: usize, builder: &mut TreeBuilder<'_>) -> Result<(), MapError> {
        let Some(leaf) = self.leaf else { return Ok(()) };
        for i in self.done..end {
            builder.add_entry(Entry { key: leaf.key(i), value: leaf.value(i) })?;
        }
        self.done = end;
        Ok(())
    }
}
