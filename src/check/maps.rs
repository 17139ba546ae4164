//! The two maps: trees of the checkpoint, verified whole, and what lies over them.

use super::nodes::WHOLE_AT_ONCE;
use super::objects::Objects;
use super::{Check, files};
use crate::base::threads::side_by_side;
use crate::format::batch::TreeId;
use crate::format::ids::{NodePtr, SegmentNo};
use crate::format::inode::Extent;
use crate::format::key::{KEY_BYTES_MAX, Key};
use crate::map::{MapError, NodeCache, NodeSource, Overlay, Pins, View, reachable_segments, verify};
use bytes::Bytes;
use std::collections::BTreeSet;

/// Entries read at a time: a few leaves, since a page starts again at each node that is not in memory.
const PAGE: usize = 256;

/// Behind every key.
pub(super) const AFTER_ALL: [u8; KEY_BYTES_MAX + 1] = [0xff; KEY_BYTES_MAX + 1];

/// The maps as recovery would see them.
#[derive(Default)]
pub(super) struct Maps {
    /// By [`TreeId`].
    pub roots: [Option<NodePtr>; 2],
    /// What was replayed over them.
    pub overlays: [Overlay; 2],
}

impl Maps {
    /// Visits every entry of a map with a key in a range, in order.
    pub fn scan(
        &self,
        tree: TreeId,
        (mut from, to): (Bytes, Bytes),
        cache: &NodeCache,
        nodes: &dyn NodeSource,
        visit: &mut dyn FnMut(&Bytes, &Bytes),
    ) -> Result<(), MapError> {
        let view = View { overlay: &self.overlays[tree as usize], layers: &[], root: self.roots[tree as usize] };
        loop {
            let rows = self.page(&view, cache, nodes, &from, &to)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            from = [last, &b"\0"[..]].concat().into();
            rows.iter().for_each(|(key, value)| visit(key, value));
        }
    }

    fn page(
        &self,
        view: &View<'_>,
        cache: &NodeCache,
        nodes: &dyn NodeSource,
        from: &[u8],
        to: &[u8],
    ) -> Result<Vec<(Bytes, Bytes)>, MapError> {
        let mut pins = Pins::new();
        loop {
            match view.scan(cache, &pins, from, to, PAGE) {
                Ok(rows) => return Ok(rows),
                Err(ptr) => pins.pin_node(ptr, cache.fetch(&ptr, nodes)?),
            }
        }
    }
}

/// Verifies both trees; counts the extents at the checkpoint on the way.
pub(super) fn check_trees(check: &mut Check<'_>) -> bool {
    let local = check.manifest.is_some();
    let mut objects = Objects::default();
    let mut sound = true;
    for tree in [TreeId::Files, TreeId::Space] {
        let mut entries = 0;
        let problems = verify(check.maps.roots[tree as usize], &check.nodes, &mut |key, value| {
            entries += 1;
            if let (true, TreeId::Files, Ok(Key::Extent(ino, at))) = (local, tree, Key::decode(key)) {
                if let Ok(extent) = Extent::decode(value) {
                    objects.name_at_checkpoint(files::Place { ino, at }, &extent);
                }
            }
        });
        check.report.figures.tree_entries += entries;
        sound &= problems.is_empty();
        for what in problems {
            check.problem(format!("{tree:?} tree of checkpoint {}", check.checkpoint().number), what);
        }
    }
    check.objects = objects;
    check_node_segments(check);
    sound
}

/// A node segment is published whole, so all of it must be whole, not only the nodes that the trees reach.
fn check_node_segments(check: &mut Check<'_>) {
    let mut segments = BTreeSet::new();
    for root in check.maps.roots {
        segments.extend(root.map(|root| root.segment));
        // What cannot be reached was reported already.
        segments.extend(reachable_segments(root, &check.nodes).unwrap_or_default());
    }
    check.report.figures.node_segments = segments.len() as u64;
    let segments: Vec<SegmentNo> = segments.into_iter().collect();
    for (round, some) in segments.chunks(WHOLE_AT_ONCE).enumerate() {
        check.step((round * WHOLE_AT_ONCE) as u64, segments.len() as u64);
        let (nodes, uuid) = (&check.nodes, check.uuid);
        let found =
            side_by_side(check.store.side_by_side().min(WHOLE_AT_ONCE), some, |no| nodes.check_whole(uuid, *no));
        for (no, found) in some.iter().zip(found) {
            match found {
                Ok(bytes) => check.whole.extend(bytes.map(|bytes| (*no, bytes))),
                Err((place, what)) => check.problem(place, what),
            }
        }
    }
}
