//! A node store in memory, and what tests need around it.

use super::*;
use crate::format::batch::Edit;
use crate::format::ids::{Lsn, SegmentNo};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Node segments in memory; each finished [`Segment`] becomes one.
#[derive(Default)]
pub(super) struct MemoryNodes {
    segments: Mutex<HashMap<SegmentNo, Bytes>>,
    next: AtomicU64,
    pub reads: AtomicU64,
}

impl MemoryNodes {
    pub fn start_segment(&self) -> Segment {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Segment { no: SegmentNo { epoch: 1, number }, bytes: Vec::new(), nodes: 0 }
    }

    /// Only now can its nodes be read.
    pub fn finish_segment(&self, segment: Segment) {
        self.segments.lock().unwrap().insert(segment.no, segment.bytes.into());
    }

    /// Keeps only these segments.
    pub fn retain(&self, keep: &std::collections::BTreeSet<SegmentNo>) {
        self.segments.lock().unwrap().retain(|no, _| keep.contains(no));
    }

    /// Flips a bit of a node.
    pub fn damage(&self, ptr: &NodePtr) {
        let mut segments = self.segments.lock().unwrap();
        let segment = segments.get_mut(&ptr.segment).unwrap();
        let mut bytes = segment.to_vec();
        bytes[(ptr.offset + ptr.len / 2) as usize] ^= 1;
        *segment = bytes.into();
    }

    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }
}

impl NodeSource for MemoryNodes {
    fn read_node(&self, ptr: &NodePtr) -> Result<Bytes, MapError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let segments = self.segments.lock().unwrap();
        let segment = segments.get(&ptr.segment).ok_or(MapError::Missing { segment: ptr.segment })?;
        Ok(segment.slice(ptr.offset as usize..(ptr.offset + ptr.len) as usize))
    }
}

/// A node segment being written.
pub(super) struct Segment {
    no: SegmentNo,
    bytes: Vec<u8>,
    pub nodes: u64,
}

impl NodeSink for Segment {
    fn append(&mut self, node: &[u8]) -> Result<NodePtr, MapError> {
        let offset = u32::try_from(self.bytes.len()).unwrap();
        self.bytes.extend_from_slice(node);
        self.nodes += 1;
        let len = u32::try_from(node.len()).unwrap();
        Ok(NodePtr { segment: self.no, offset, len, crc: crc32c::crc32c(node) })
    }
}

/// One recorded call of `on_change`.
pub(super) type Delta = (Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);

/// Merges into a segment of its own; also says what changed and how many nodes were written.
pub(super) fn merge_into(
    nodes: &MemoryNodes,
    cache: Option<&NodeCache>,
    shape: Shape,
    root: Option<NodePtr>,
    layers: &[&Overlay],
) -> (Option<NodePtr>, Vec<Delta>, u64) {
    let mut segment = nodes.start_segment();
    let mut deltas = Vec::new();
    let merge = Merge { source: nodes, cache, shape };
    let root = merge.run(root, layers, &mut segment, &mut |key, old, new| {
        deltas.push((key.to_vec(), old.map(|old| old.to_vec()), new.map(|new| new.to_vec())));
    });
    let written = segment.nodes;
    nodes.finish_segment(segment);
    (root.unwrap(), deltas, written)
}

pub(super) fn put(key: &[u8], value: &[u8]) -> Edit {
    Edit::Put { key: Bytes::copy_from_slice(key), value: Bytes::copy_from_slice(value) }
}

pub(super) fn delete(key: &[u8]) -> Edit {
    Edit::Delete { key: Bytes::copy_from_slice(key) }
}

pub(super) fn delete_range(from: &[u8], to: &[u8]) -> Edit {
    Edit::DeleteRange { from: Bytes::copy_from_slice(from), to: Bytes::copy_from_slice(to) }
}

/// An overlay with these edits, each its own batch.
pub(super) fn overlay(edits: &[Edit]) -> Overlay {
    let mut overlay = Overlay::new();
    let mut lsn = Lsn::ZERO;
    for edit in edits {
        lsn = lsn.next(1);
        overlay.apply(lsn, edit);
    }
    overlay
}

/// All entries of a tree, after checking that it has no problem.
pub(super) fn entries(nodes: &MemoryNodes, root: Option<NodePtr>) -> Vec<(Bytes, Bytes)> {
    let mut entries = Vec::new();
    let problems = verify(root, nodes, &mut |key, value| entries.push((key.clone(), value.clone())));
    assert_eq!(problems, Vec::<String>::new());
    entries
}
