//! Where the maps may start, and which of these places costs least.
//!
//! A start costs nothing if every node of its file map can be read, here or in the store, and every batch after it is somewhere. The
//! first such place is taken, in this order: the checkpoint that the manifest names, older ones, the store's bases. Where there is
//! none, the one is taken of which fewest kinds of things are missing, then fewest batches, then fewest nodes. A base of an older
//! generation is no place to start if batches are missing after it: they are in the nodes of the newest generation's base, which are
//! found without it.

use super::Start;
use super::spans::{Route, Span, reach_back, route};
use crate::check;
use crate::checkpoint::nodes::node_file;
use crate::format::ids::{Lsn, NodePtr, SegmentNo};
use crate::format::names;
use crate::format::node::Node;
use crate::map::NodeSource;
use crate::media::{File, Media};
use crate::repair::{RepairError, confirm};
use crate::store::{Store, StoreError};
use bytes::Bytes;
use std::io::ErrorKind;
use std::sync::Arc;

/// Somewhere to start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub roots: [Option<NodePtr>; 2],
    pub lsn: Lsn,
    pub checkpoint: u64,
    /// It is a base of a generation before the newest one, whose own base is lost.
    pub is_behind: bool,
}

/// Takes the place that costs least, and the way from there. If there is none, all batches count that reach up to `known`, where
/// some checkpoint was, without a hole, and those after it. There were batches up to `end`.
pub(super) fn choose(
    candidates: &[Candidate],
    spans: &[Span],
    (known, end): (Lsn, Lsn),
    nodes: &mut Nodes<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Start, Route), RepairError> {
    let mut best: Option<((u8, u64, u64), &Candidate, Route)> = None;
    for candidate in candidates {
        let route = route(spans, candidate.lsn, end);
        let lost = route.lost_batches();
        // What it is short of is in the nodes of the base that is lost.
        if candidate.is_behind && lost > 0 {
            continue;
        }
        let missing = nodes.missing(candidate.roots[0], progress)?;
        let cost = (u8::from(lost > 0) + u8::from(missing > 0), lost, missing);
        if best.as_ref().is_none_or(|(least, ..)| cost < *least) {
            best = Some((cost, candidate, route));
        }
        if cost == (0, 0, 0) {
            break;
        }
    }
    Ok(match best {
        Some((_, Candidate { roots, lsn, checkpoint, .. }, route)) => {
            (Start { roots: Some(*roots), lsn: *lsn, checkpoint: *checkpoint }, route)
        }
        None => {
            let from = reach_back(spans, known);
            (Start { roots: None, lsn: Lsn::ZERO, checkpoint: 0 }, route(spans, from, end))
        }
    })
}

/// Tree nodes in the state directory and in the store.
pub(super) struct Nodes<'a> {
    state: Option<&'a Arc<dyn Media>>,
    store: &'a dyn Store,
    /// Neighbours lie in the same file.
    open: Option<(SegmentNo, Arc<dyn File>)>,
    /// Of a store that is far away many come together. Who is not whole there is looked at alone.
    together: Option<check::Nodes>,
}

/// A node that is to be looked at, and which keys may be in it.
struct Below {
    ptr: NodePtr,
    /// Below this level.
    level: u16,
    from: Bytes,
    to: Option<Bytes>,
}

impl<'a> Nodes<'a> {
    pub fn new(state: Option<&'a Arc<dyn Media>>, store: &'a dyn Store) -> Nodes<'a> {
        Nodes { state, store, open: None, together: None }
    }

    /// The same, of which many are read in the order of their keys.
    pub fn in_order(state: Option<&'a Arc<dyn Media>>, store: &'a Arc<dyn Store>) -> Nodes<'a> {
        let together = (store.side_by_side() > 1).then(|| check::Nodes::new(state.cloned(), store.clone()));
        Nodes { together, ..Nodes::new(state, &**store) }
    }

    /// How many nodes of a tree cannot be read; what is below these is not looked for.
    fn missing(&mut self, root: Option<NodePtr>, progress: &mut dyn FnMut(u64, u64)) -> Result<u64, RepairError> {
        let (mut missing, mut done) = (0, 0);
        let all = |ptr| Below { ptr, level: u16::MAX, from: Bytes::new(), to: None };
        let mut waiting: Vec<Below> = root.map(all).into_iter().collect();
        while let Some(below) = waiting.pop() {
            match self.node(&below.ptr)?.filter(|node| fits(node, &below)) {
                None => missing += 1,
                Some(Node::Leaf(_)) => {}
                Some(Node::Interior(interior)) => {
                    let level = u16::from(interior.level());
                    for i in (0..interior.len()).rev() {
                        let to =
                            if i + 1 < interior.len() { Some(interior.first_key(i + 1)) } else { below.to.clone() };
                        waiting.push(Below { ptr: interior.child(i), level, from: interior.first_key(i), to });
                    }
                }
            }
            done += 1;
            if done % 256 == 0 {
                progress(done, 0);
            }
        }
        Ok(missing)
    }

    /// The value of a key; nothing, if a node on the way to it cannot be read.
    pub fn value(&mut self, root: Option<NodePtr>, key: &[u8]) -> Result<Option<Option<Bytes>>, RepairError> {
        let (Some(mut ptr), mut level) = (root, u16::MAX) else { return Ok(Some(None)) };
        loop {
            match self.node(&ptr)? {
                Some(Node::Leaf(leaf)) => return Ok(Some(leaf.get(key))),
                Some(Node::Interior(interior)) if u16::from(interior.level()) < level && interior.len() > 0 => {
                    level = u16::from(interior.level());
                    ptr = interior.child(interior.child_for(key));
                }
                _ => return Ok(None),
            }
        }
    }

    /// A node that is whole in one of both places.
    fn node(&mut self, ptr: &NodePtr) -> Result<Option<Node>, RepairError> {
        let came = self.together.as_ref().and_then(|nodes| nodes.read_node(ptr).ok());
        if let Some(node) = came.and_then(|bytes| Node::read(ptr, bytes).ok()) {
            return Ok(Some(node));
        }
        if let Some(node) = self.local(ptr)?.and_then(|bytes| Node::read(ptr, bytes).ok()) {
            return Ok(Some(node));
        }
        let from = u64::from(ptr.offset);
        match self.store.get_some(&names::segment(ptr.segment), from..from + u64::from(ptr.len)) {
            Ok(bytes) => match Node::read(ptr, bytes.clone()) {
                Ok(node) => Ok(Some(node)),
                Err(_) => {
                    let range = from..from + u64::from(ptr.len);
                    confirm(self.store, &names::segment(ptr.segment), Some(range), &bytes)?;
                    Ok(None)
                }
            },
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn local(&mut self, ptr: &NodePtr) -> Result<Option<Bytes>, RepairError> {
        let Some(state) = self.state else { return Ok(None) };
        if self.open.as_ref().is_none_or(|(no, _)| *no != ptr.segment) {
            match state.open(&node_file(ptr.segment)) {
                Ok(file) => self.open = Some((ptr.segment, file)),
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        }
        let Some((_, file)) = &self.open else { return Ok(None) };
        let mut bytes = vec![0; ptr.len as usize];
        match file.read_at(&mut bytes, u64::from(ptr.offset)) {
            Ok(()) => Ok(Some(bytes.into())),
            // A copy that was cut short.
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

/// Whether a node is what its place in the tree says. As levels go down and keys do not overlap, none is looked at without end.
fn fits(node: &Node, below: &Below) -> bool {
    let (first, last) = match node {
        Node::Leaf(leaf) if leaf.len() > 0 => (leaf.key(0), leaf.key(leaf.len() - 1)),
        Node::Interior(interior) if interior.len() > 0 => {
            (interior.first_key(0), interior.first_key(interior.len() - 1))
        }
        _ => return false,
    };
    u16::from(node.level()) < below.level && first >= below.from && below.to.as_ref().is_none_or(|to| last < *to)
}
