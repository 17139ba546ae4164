//! The walk over one tree, in the order of the keys, around what is damaged.

use super::super::RepairError;
use super::Lost;
use super::copies::{Copies, Why};
use super::plan::{self, Piece, Place};
use super::scan::{Scanned, scan};
use crate::format::ids::NodePtr;
use crate::format::node::{Interior, Leaf, Node};
use bytes::Bytes;
use std::cell::OnceCell;

/// After so many nodes that are lost, the children of a node are no longer tried one by one: what is found for its range is the
/// same, but is told of as one.
const LOST_MAX: usize = 1 << 16;

/// Keys from the first up to the second, which is not in it.
pub(super) type Span<'a> = (&'a Bytes, &'a Bytes);

pub(super) struct Walk<'a> {
    copies: &'a Copies,
    scanned: &'a OnceCell<Scanned>,
    give: &'a mut dyn FnMut(Bytes, Bytes),
    lost: Vec<Lost>,
    /// Nodes that are lost.
    failed: usize,
}

impl<'a> Walk<'a> {
    pub fn new(copies: &'a Copies, scanned: &'a OnceCell<Scanned>, give: &'a mut dyn FnMut(Bytes, Bytes)) -> Walk<'a> {
        Walk { copies, scanned, give, lost: Vec::new(), failed: 0 }
    }

    pub fn finish(self) -> Vec<Lost> {
        self.lost
    }

    /// The whole tree.
    pub fn root(&mut self, root: &NodePtr, from: &Bytes, to: &Bytes) -> Result<(), RepairError> {
        self.node(root, None, (from, to), plan::behind(root))
    }

    /// The subtree under a node; `level` is what the node above says of it, and then its first key is `span`'s. It was written
    /// before `above`.
    fn node(&mut self, ptr: &NodePtr, level: Option<u8>, span: Span<'_>, above: Place) -> Result<(), RepairError> {
        let bound = Some(plan::place(ptr).min(above));
        let node = match self.copies.node(ptr)? {
            Ok(node) => node,
            Err(why) => return self.lose(bound, span, why),
        };
        if let Some(what) = misfit(&node, level, span) {
            let what = format!("node at offset {}: {what}", ptr.offset);
            let place = self.copies.note_both(ptr.segment, &what)?;
            return self.lose(bound, span, (place, what));
        }
        match &node {
            Node::Leaf(leaf) => {
                self.give_leaf(leaf, span);
                Ok(())
            }
            Node::Interior(_) if self.failed > LOST_MAX => {
                let what = format!("node at offset {}: too much under it is lost to tell one by one", ptr.offset);
                self.lose_before(Some(plan::behind(ptr)), span, (self.copies.home(ptr.segment)?, what))
            }
            Node::Interior(interior) => self.children(interior, span.1, plan::place(ptr)),
        }
    }

    fn children(&mut self, interior: &Interior, to: &Bytes, place: Place) -> Result<(), RepairError> {
        for at in 0..interior.len() {
            let from = interior.first_key(at);
            let next = (at + 1 < interior.len()).then(|| interior.first_key(at + 1));
            let span = (&from, next.as_ref().unwrap_or(to));
            self.node(&interior.child(at), Some(interior.level() - 1), span, place)?;
        }
        Ok(())
    }

    /// Gives what was found for a range, and was written before `bound`, instead of a node that is lost.
    pub fn lose(&mut self, bound: Option<Place>, span: Span<'_>, why: Why) -> Result<(), RepairError> {
        self.failed += 1;
        self.lose_before(bound, span, why)
    }

    fn lose_before(&mut self, bound: Option<Place>, (from, to): Span<'_>, why: Why) -> Result<(), RepairError> {
        let scanned = match self.scanned.get() {
            Some(scanned) => scanned,
            None => {
                let found = scan(self.copies)?;
                self.scanned.get_or_init(|| found)
            }
        };
        let mut returned = 0;
        for Piece { from, to, leaf } in plan::plan(scanned, self.copies, (from, to), bound)? {
            // It was whole when it was scanned.
            if let Ok(Node::Leaf(leaf)) = self.copies.node(&leaf)? {
                returned += self.give_leaf(&leaf, (&from, &to));
            }
        }
        let (place, what) = why;
        let (from, to) = (from.clone(), to.clone());
        match self.lost.last_mut() {
            // What lies beside each other, and was lost with one segment, is one.
            Some(last) if last.to == from && last.place == place => {
                last.to = to;
                last.returned += returned;
            }
            _ => self.lost.push(Lost { from, to, place, what, returned }),
        }
        Ok(())
    }

    /// Gives the entries of a leaf in a range; how many.
    fn give_leaf(&mut self, leaf: &Leaf, (from, to): Span<'_>) -> u64 {
        let range = leaf.lower_bound(from)..leaf.lower_bound(to);
        for at in range.clone() {
            (self.give)(leaf.key(at), leaf.value(at));
        }
        range.len() as u64
    }
}

/// The first and the last key of a node; of an interior node those of its first and its last child.
pub(super) fn ends(node: &Node) -> (Bytes, Bytes) {
    match node {
        Node::Leaf(leaf) => (leaf.key(0), leaf.key(leaf.len() - 1)),
        Node::Interior(interior) => (interior.first_key(0), interior.first_key(interior.len() - 1)),
    }
}

/// Why a node does not belong where it stands, though its bytes are those that were written: whoever wrote it was wrong, or
/// means harm.
fn misfit(node: &Node, level: Option<u8>, (from, to): Span<'_>) -> Option<String> {
    let (first, last) = ends(node);
    let found = node.level();
    match level {
        Some(level) if level != found => Some(format!("level {found} found, {level} expected")),
        Some(_) if first != *from => Some("the node above names another first key".to_owned()),
        _ if first < *from || last >= *to => Some("its keys lie outside of its range".to_owned()),
        _ => None,
    }
}
