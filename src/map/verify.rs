//! Checks that a tree is a tree, for `skylog check`. It goes on after a problem and never writes.

use super::{NodeSource, read_node};
use crate::format::ids::NodePtr;
use crate::format::names;
use crate::format::node::{Interior, Leaf, Node};
use bytes::Bytes;

/// Reads the whole tree and says what is wrong with it: unreadable nodes, wrong levels, separators that are not the first
/// key below them, keys out of order. `visit_entry` gets the entries that can be read, in key order where there is no
/// problem.
pub fn verify(
    root: Option<NodePtr>,
    source: &dyn NodeSource,
    visit_entry: &mut dyn FnMut(&Bytes, &Bytes),
) -> Vec<String> {
    let mut check = Check { source, visit_entry, last_key: None, problems: Vec::new() };
    if let Some(root) = root {
        check.node(&root, None, None);
    }
    check.problems
}

struct Check<'a> {
    source: &'a dyn NodeSource,
    visit_entry: &'a mut dyn FnMut(&Bytes, &Bytes),
    last_key: Option<Bytes>,
    problems: Vec<String>,
}

impl Check<'_> {
    /// `level` and `first_key` are what the node above says of this one.
    fn node(&mut self, ptr: &NodePtr, level: Option<u8>, first_key: Option<&Bytes>) {
        let node = match read_node(self.source, ptr) {
            Ok(node) => node,
            Err(error) => return self.problems.push(error.to_string()),
        };
        let found = node.level();
        if let Some(level) = level.filter(|level| *level != found) {
            // Going on could mean going round.
            return self.problem(ptr, format!("level {found} found, {level} expected"));
        }
        match &node {
            Node::Leaf(leaf) => self.leaf(ptr, leaf, first_key),
            Node::Interior(interior) => self.interior(ptr, interior, first_key),
        }
    }

    fn interior(&mut self, ptr: &NodePtr, interior: &Interior, first_key: Option<&Bytes>) {
        self.first_key(ptr, first_key, &interior.first_key(0));
        for at in 0..interior.len() {
            self.node(&interior.child(at), interior.level().checked_sub(1), Some(&interior.first_key(at)));
        }
    }

    fn leaf(&mut self, ptr: &NodePtr, leaf: &Leaf, first_key: Option<&Bytes>) {
        self.first_key(ptr, first_key, &leaf.key(0));
        for at in 0..leaf.len() {
            let key = leaf.key(at);
            if self.last_key.as_ref().is_some_and(|last| *last >= key) {
                self.problem(ptr, format!("entry {at} is not after the entry before it"));
            }
            (self.visit_entry)(&key, &leaf.value(at));
            self.last_key = Some(key);
        }
    }

    fn first_key(&mut self, ptr: &NodePtr, expected: Option<&Bytes>, found: &Bytes) {
        if expected.is_some_and(|expected| expected != found) {
            self.problem(ptr, "the node above names another first key".to_string());
        }
    }

    fn problem(&mut self, ptr: &NodePtr, what: String) {
        self.problems.push(format!("{}: node at offset {}: {what}", names::segment(ptr.segment), ptr.offset));
    }
}
