//! Nodes of the immutable B+trees. A node is decoded once and then read at random: keys are found by binary search over
//! the encoded bytes, and values are slices of them.
//!
//! A node has no checksum of its own: whoever names it, by a [`NodePtr`], says what its bytes must be.

mod interior;
mod leaf;
mod page;
mod run;

pub use interior::{Interior, InteriorBuilder};
pub use leaf::{Leaf, LeafBuilder};
pub use run::RUN_EXTENTS_MAX;

use super::chunk::check_len;
use super::error::FormatError;
use super::ids::{NodePtr, SegmentNo};
use super::wire::{PutIds, Reader, SEGMENT_NO_BYTES, fits, layout, same_crc};
use crate::base::canary::Canary;
use bytes::{BufMut, Bytes};
use page::{KIND_INTERIOR, KIND_LEAF, Page, kind_of};

/// What a builder aims at: a node is finished before it grows above this.
pub const NODE_BYTES_TARGET: usize = 8 << 10;
/// The most bytes in a node: one value may be 64 KiB long.
pub const NODE_BYTES_MAX: usize = 256 << 10;

layout! {
    mod ptr_at, 24 bytes { SEGMENT: super::SEGMENT_NO_BYTES, OFFSET: 4, LEN: 4, CRC: 4 }
}

/// Bytes of an encoded [`NodePtr`].
pub const NODE_PTR_BYTES: usize = ptr_at::SIZE;

impl NodePtr {
    /// The pointer to a node with these bytes at this place.
    pub fn to(segment: SegmentNo, offset: u32, bytes: &[u8]) -> NodePtr {
        NodePtr { segment, offset, len: fits(bytes.len()), crc: crc32c::crc32c(bytes) }
    }

    /// Checks that `bytes` are those of the node meant.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), FormatError> {
        let (need, have) = (u64::from(self.len), bytes.len() as u64);
        if have < need {
            return Err(FormatError::TooShort { need, have });
        }
        if have > need {
            return Err(FormatError::TooBig { limit: need, found: have });
        }
        same_crc(self.crc, crc32c::crc32c(bytes), Canary::NodeCrc)
    }

    pub(crate) fn encode_to(&self, out: &mut Vec<u8>) {
        out.put_segment(self.segment);
        out.put_u32_le(self.offset);
        out.put_u32_le(self.len);
        out.put_u32_le(self.crc);
    }

    pub(crate) fn read(field: &mut Reader<'_>) -> Result<NodePtr, FormatError> {
        let (segment, offset, len, crc) = (field.segment()?, field.u32()?, field.u32()?, field.u32()?);
        check_len(len, NODE_BYTES_MAX)?;
        if offset.checked_add(len).is_none() {
            return Err(FormatError::TooBig { limit: u64::from(u32::MAX - len), found: u64::from(offset) });
        }
        Ok(NodePtr { segment, offset, len, crc })
    }

    /// Appends a root: an empty tree has none, and is all zeros.
    pub(crate) fn encode_root_to(root: Option<NodePtr>, out: &mut Vec<u8>) {
        match root {
            Some(ptr) => ptr.encode_to(out),
            None => out.put_bytes(0, NODE_PTR_BYTES),
        }
    }

    /// Reads what [`NodePtr::encode_root_to`] wrote.
    pub(crate) fn read_root(field: &mut Reader<'_>) -> Result<Option<NodePtr>, FormatError> {
        let bytes = field.take(NODE_PTR_BYTES)?;
        if bytes.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        NodePtr::read(&mut Reader::new(bytes)).map(Some)
    }
}

/// A decoded node.
#[derive(Clone, Debug)]
pub enum Node {
    /// Keys and values.
    Leaf(Leaf),
    /// Keys and children.
    Interior(Interior),
}

impl Node {
    /// Decodes a node. Everything a later access leans on is checked here: bounds, order of keys, runs.
    pub fn decode(bytes: Bytes) -> Result<Node, FormatError> {
        let page = Page::decode(bytes)?;
        match (page.kind(), page.level()) {
            (KIND_LEAF, 0) => Leaf::new(page).map(Node::Leaf),
            (KIND_LEAF, _) => Err(FormatError::Value("a leaf above the lowest level")),
            (KIND_INTERIOR, 0) => Err(FormatError::Value("an interior node at the lowest level")),
            (KIND_INTERIOR, _) => Interior::new(page).map(Node::Interior),
            (found, _) => Err(FormatError::Kind { found: u32::from(found) }),
        }
    }

    /// Decodes the node that `ptr` means from bytes read at its place, after checking that they are its bytes.
    pub fn read(ptr: &NodePtr, bytes: Bytes) -> Result<Node, FormatError> {
        ptr.verify(&bytes)?;
        Node::decode(bytes)
    }

    /// 0 for a leaf; else the number of levels below.
    pub fn level(&self) -> u8 {
        match self {
            Node::Leaf(_) => 0,
            Node::Interior(interior) => interior.level(),
        }
    }
}

/// Whether these bytes of a node name other nodes. Says nothing of bytes that are no node.
pub(crate) fn is_interior(bytes: &[u8]) -> bool {
    kind_of(bytes) == Some(KIND_INTERIOR)
}

#[cfg(test)]
mod tests;
