//! All nodes of all segments: where each lies and what it spans.

use super::super::{RepairError, differs};
use super::copies::{Copies, Side};
use super::frames::Segment;
use super::lineage::strangers;
use super::walk::ends;
use crate::format::ids::{NodePtr, SegmentNo};
use crate::format::node::Node;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// A node that is whole.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub level: u8,
    /// Its first key.
    pub first: Bytes,
    /// The last key that it is known to speak of: of a leaf its last, of an interior node the last under it, as far as that can
    /// be read.
    pub last: Bytes,
    /// Of an interior node.
    last_child: Option<NodePtr>,
}

/// What a scan found, in the order in which it was written: segments by epoch and number, nodes by offset. A node lies before
/// the one above it, and what a later checkpoint wrote behind all of an earlier one.
#[derive(Default)]
pub(super) struct Scanned {
    pub nodes: BTreeMap<NodePtr, Seen>,
}

/// Reads every segment of nodes there is; a copy in the store only where there is no whole local one. What never was part of
/// the filesystem is left out.
pub(super) fn scan(copies: &Copies) -> Result<Scanned, RepairError> {
    let mut scanned = Scanned::default();
    for no in copies.segments()? {
        for side in [Side::Local, Side::Store] {
            let Some(mut segment) = Segment::open(copies, side, no)? else { continue };
            let mut undecodable = None;
            segment.bodies(&mut |offset, body| {
                let ptr = NodePtr::to(no, offset, &body);
                match Node::decode(body) {
                    Ok(node) => scanned.add(ptr, &node),
                    Err(e) => undecodable = Some(format!("node at offset {offset}: {e}")),
                }
            })?;
            match segment.what.take().or(undecodable) {
                None => break,
                Some(what) => {
                    confirm(copies, side, no, &what)?;
                    copies.note(side, no, &what);
                }
            }
        }
    }
    let segments: BTreeSet<SegmentNo> = scanned.nodes.keys().map(|ptr| ptr.segment).collect();
    let strangers = strangers(copies, segments)?;
    scanned.nodes.retain(|ptr, _| !strangers.contains(&ptr.segment));
    scanned.extend_interiors();
    Ok(scanned)
}

/// What came wrong once is no damage.
fn confirm(copies: &Copies, side: Side, no: SegmentNo, what: &str) -> Result<(), RepairError> {
    let mut again = Segment::open(copies, side, no)?.ok_or_else(|| differs(&copies.place(side, no)))?;
    let mut undecodable = None;
    again.bodies(&mut |offset, body| {
        if let Err(e) = Node::decode(body) {
            undecodable = Some(format!("node at offset {offset}: {e}"));
        }
    })?;
    match again.what.take().or(undecodable).as_deref() == Some(what) {
        true => Ok(()),
        false => Err(differs(&copies.place(side, no))),
    }
}

impl Scanned {
    fn add(&mut self, ptr: NodePtr, node: &Node) {
        let (first, last) = ends(node);
        let last_child = match node {
            Node::Interior(interior) => Some(interior.child(interior.len() - 1)),
            Node::Leaf(_) => None,
        };
        self.nodes.insert(ptr, Seen { level: node.level(), first, last, last_child });
    }

    /// The node that one above says begins with `first`, if it is whole and fits there.
    pub fn child(&self, ptr: &NodePtr, level: u8, first: &Bytes) -> Option<&Seen> {
        self.nodes.get(ptr).filter(|seen| seen.level == level && seen.first == *first)
    }

    /// Lets each interior node know the last key under it. Children lie before it, so theirs is known.
    fn extend_interiors(&mut self) {
        let interiors: Vec<NodePtr> =
            self.nodes.iter().filter(|(_, seen)| seen.last_child.is_some()).map(|(ptr, _)| *ptr).collect();
        for ptr in interiors {
            let seen = &self.nodes[&ptr];
            let below = seen.level.checked_sub(1);
            let child = seen.last_child.zip(below).and_then(|(child, level)| self.child(&child, level, &seen.last));
            let last = child.map(|child| child.last.clone());
            if let (Some(last), Some(seen)) = (last, self.nodes.get_mut(&ptr)) {
                seen.last = last;
            }
        }
    }
}
