//! Shipped windows and published bases in the space tree.

use super::{Context, get, segment_no, successor, window_end};
use crate::checkpoint::CheckpointError;
use crate::format::batch::TreeId;
use crate::format::ids::{Lsn, NodePtr, SegmentKind, SegmentNo};
use crate::format::names;
use crate::format::publication::{WindowEntry, WindowSegment};
use crate::format::space::{self, Published, SegmentRecord, WindowRecord};
use crate::map::{Overlay, Pins, Tx, View};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

impl Context<'_> {
    /// Records how far publications went, and a window that was shipped with this one unless it is recorded already: its
    /// segments become live.
    pub fn record_window(&self, entry: Option<&WindowEntry>, published: &Published) -> Result<Lsn, CheckpointError> {
        let entry = entry.filter(|e| e.objects > 0);
        let ((), lsn) = self.run(|tx| {
            tx.put(TreeId::Space, space::published(), published.encode());
            if let Some(entry) = entry {
                self.put_window(tx, entry);
            }
            Ok(())
        })?;
        if let Some(entry) = entry {
            self.locate().windows().add(entry.start, entry.end);
        }
        Ok(lsn)
    }

    fn put_window(&self, tx: &mut Tx<'_>, entry: &WindowEntry) {
        for &WindowSegment { segment: no, bytes, objects } in &entry.segments {
            let record = SegmentRecord {
                kind: SegmentKind::Chunks,
                bytes,
                objects,
                live_bytes: bytes,
                live_objects: objects,
                window_end: entry.end,
            };
            tx.put(TreeId::Space, space::segment(no), record.encode());
            tx.delete(TreeId::Space, space::pending(names::segment(no).as_bytes()));
        }
        let segments = entry.segments.iter().map(|s| s.segment).collect();
        let record = WindowRecord { start: entry.start, segments, live_objects: entry.objects };
        tx.put(TreeId::Space, space::window(entry.end), record.encode());
    }

    /// Records the node segments of a published base; those of older bases are listed for deletion.
    ///
    /// Segments in `reached` are never listed: the next base will want them under the same names.
    pub fn record_base(
        &self,
        uploaded: &[(SegmentNo, u64)],
        reached: &BTreeSet<SegmentNo>,
    ) -> Result<(), CheckpointError> {
        let mut wanted = reached.clone();
        wanted.extend(uploaded.iter().map(|(no, _)| *no));
        for part in uploaded.chunks(self.objects_per_batch()) {
            self.run(|tx| {
                for &(no, bytes) in part {
                    tx.put(TreeId::Space, space::segment(no), node_segment(bytes).encode());
                    tx.delete(TreeId::Space, space::pending(names::segment(no).as_bytes()));
                }
                Ok(())
            })?;
        }
        self.pages(space::segments(), self.objects_per_batch(), &mut |rows| {
            self.run(|tx| {
                for (key, value) in rows {
                    let (no, record) = (segment_no(key)?, SegmentRecord::decode(value)?);
                    if record.kind == SegmentKind::Nodes && !wanted.contains(&no) {
                        tx.delete(TreeId::Space, key.clone());
                        tx.put(TreeId::Space, space::pending(names::segment(no).as_bytes()), self.pending());
                    }
                }
                Ok(())
            })?;
            Ok(ControlFlow::Continue(()))
        })
    }

    /// The windows recorded now that the space tree under `roots` does not record, as they were when shipped.
    pub fn windows_not_in(&self, roots: [Option<NodePtr>; 2]) -> Result<Vec<WindowEntry>, CheckpointError> {
        let known = self.published_in(roots[TreeId::Space as usize])?;
        let (_, to) = space::windows();
        let mut entries = Vec::new();
        self.pages((successor(&space::window(known)), to), self.objects_per_batch(), &mut |rows| {
            for (key, value) in rows {
                let end = window_end(key)?;
                let record = WindowRecord::decode(value).map_err(CheckpointError::from_format)?;
                entries.push(self.entry_of(end, &record)?);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(entries)
    }

    fn entry_of(&self, end: Lsn, window: &WindowRecord) -> Result<WindowEntry, CheckpointError> {
        let (segments, _) = self.run(|tx| {
            let mut segments = Vec::new();
            for no in &window.segments {
                if let Some(record) = get(tx, &space::segment(*no), SegmentRecord::decode)? {
                    segments.push(WindowSegment { segment: *no, bytes: record.bytes, objects: record.objects });
                }
            }
            Ok(segments)
        })?;
        let objects = segments.iter().map(|s: &WindowSegment| s.objects).sum();
        Ok(WindowEntry { start: window.start, end, segments, objects })
    }

    /// Up to where windows are recorded in the tree under a root, without what lies over it.
    fn published_in(&self, root: Option<NodePtr>) -> Result<Lsn, CheckpointError> {
        let empty = Overlay::default();
        let mut pins = Pins::default();
        loop {
            let view = View { overlay: &empty, layers: &[], root };
            match view.get(self.db.cache(), &pins, &space::published()) {
                Ok(None) => return Ok(Lsn::ZERO),
                Ok(Some(value)) => return Ok(Published::decode(&value).map_err(CheckpointError::from_format)?.end),
                Err(ptr) => pins.pin_node(ptr, self.db.cache().fetch(&ptr, self.nodes)?),
            }
        }
    }
}

/// A node segment of a published base.
pub fn node_segment(bytes: u64) -> SegmentRecord {
    SegmentRecord { bytes, live_bytes: bytes, ..SegmentRecord::planned(SegmentKind::Nodes) }
}
