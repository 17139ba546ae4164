//! Layer 4: one ordered map of byte keys. Changes live in an [`Overlay`], frozen ones in layers over an immutable
//! copy-on-write B+tree whose nodes lie in node segments.
//!
//! A [`View`] reads all of it as one map and never blocks: a node that is not at hand is the reader's answer. [`merge()`]
//! turns layers and a tree into the next tree. Nothing here but [`db`] knows what keys mean, or that there is a journal.

mod build;
mod cache;
mod changes;
pub mod db;
mod error;
mod laid;
mod level;
mod merge;
mod overlay;
mod pins;
mod seen;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod touched;
mod verify;
mod view;
mod walk;

pub(crate) use build::NewTree;
pub use cache::NodeCache;
pub use db::{Db, Frozen, Limits, Start, Stop, Tx, Wait};
pub use error::MapError;
pub use laid::Laid;
pub use merge::{Merge, Shape, merge};
pub use overlay::{Found, Overlay};
pub use pins::Pins;

pub use crate::journal::Room;
pub use seen::{CameWhole, Seen, Term};
pub use touched::touched_leaves;
pub use verify::verify;
pub use view::View;
pub use walk::{reachable_segments, reachable_within, walk};

use crate::format::ids::NodePtr;
use crate::format::node::Node;
use bytes::Bytes;

/// Where nodes are read from: local node segments, else the store.
pub trait NodeSource: Send + Sync {
    /// The bytes `ptr` points at. May block. Need not check them. They are kept as long as the node is, so they are no
    /// slice of something larger.
    fn read_node(&self, ptr: &NodePtr) -> Result<Bytes, MapError>;
}

/// Where a merge puts the nodes it makes.
pub trait NodeSink {
    /// Adds a node and says where it will lie. Nobody reads it before the sink is finished.
    fn append(&mut self, node: &[u8]) -> Result<NodePtr, MapError>;
}

/// As [`read_node`], of a node that the one above says is at `level`: one that is at another could lead round in a circle.
fn read_node_at(source: &dyn NodeSource, ptr: &NodePtr, level: Option<u8>) -> Result<Node, MapError> {
    let node = read_node(source, ptr)?;
    match level.filter(|level| *level != node.level()) {
        None => Ok(node),
        Some(level) => Err(misplaced(ptr, level.into(), node.level())),
    }
}

fn misplaced(ptr: &NodePtr, expected: usize, found: u8) -> MapError {
    MapError::Damaged { ptr: *ptr, reason: format!("level {found} found, {expected} expected") }
}

/// Reads a node past every cache; what it returns is whole and well formed.
pub fn read_node(source: &dyn NodeSource, ptr: &NodePtr) -> Result<Node, MapError> {
    let bytes = source.read_node(ptr)?;
    Node::read(ptr, bytes).map_err(|error| MapError::Damaged { ptr: *ptr, reason: error.to_string() })
}
