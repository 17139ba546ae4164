//! What can go wrong below the map.

use crate::format::ids::{NodePtr, SegmentNo};
use crate::format::names;
use crate::store::StoreError;
use std::io;
use std::sync::Arc;

/// A node could not be read or written. Clonable, because one failed fetch answers everyone who waits for it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MapError {
    /// The bytes are there and are not the node.
    #[error("{}: damaged node at offset {}: {reason}", names::segment(ptr.segment), ptr.offset)]
    Damaged {
        /// The node.
        ptr: NodePtr,
        /// What was expected and found.
        reason: String,
    },
    /// The node segment is nowhere.
    #[error("{}, a node segment, is neither in the state directory nor in the store", names::segment(*segment))]
    Missing {
        /// The segment.
        segment: SegmentNo,
    },
    /// The disk or the store failed.
    #[error("{}: {source}", names::segment(*segment))]
    Io {
        /// The segment.
        segment: SegmentNo,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

impl MapError {
    /// A failed read or write of `segment`.
    pub fn io(segment: SegmentNo, error: io::Error) -> MapError {
        MapError::Io { segment, source: Arc::new(error) }
    }

    /// Whether the store did not answer, so that nothing is known of the node, and another try may succeed.
    pub fn is_away(&self) -> bool {
        let MapError::Io { source, .. } = self else { return false };
        source.get_ref().and_then(|e| e.downcast_ref::<StoreError>()).is_some_and(StoreError::is_away)
    }
}
