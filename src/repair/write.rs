//! The generation that a repair makes: segments for what only a journal or log increments have, both trees, and the base that
//! names them. **X never names Y before Y is durable**: until the base is there, nobody names what is written here.

use super::RepairError;
use super::mend::Mended;
use crate::format::checkpoint::Birth;
use crate::format::ids::{Lsn, NodePtr, ObjectId, SegmentKind, SegmentNo, Uuid};
use crate::format::inode::Extent;
use crate::format::key::Key;
use crate::format::names;
use crate::format::publication::WindowEntry;
use crate::format::store_segment::SegmentBuilder;
use crate::map::{MapError, NewTree, NodeSink, Shape};
use crate::ship::ShipError;
use crate::ship::pack::{Window, pack};
use crate::store::Store;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::iter::Peekable;

/// Segments of the new epoch. Nobody else has it, so its numbers begin anew.
pub(super) struct Segments<'a> {
    pub store: &'a dyn Store,
    pub filesystem: Uuid,
    pub epoch: u32,
    /// The next number.
    pub next: u64,
    /// Bytes at which a segment is full.
    pub bytes_max: usize,
    /// How big tree nodes get.
    pub shape: Shape,
}

impl Segments<'_> {
    fn take(&mut self) -> SegmentNo {
        self.next += 1;
        SegmentNo { epoch: self.epoch, number: self.next - 1 }
    }

    /// Packs a window of these births, reading each object through `read`. Returns its entry and its index, which is not in
    /// the store yet.
    pub fn window(
        &mut self,
        (start, end): (Lsn, Lsn),
        births: &[Birth],
        read: &dyn Fn(&ObjectId) -> Result<Bytes, String>,
    ) -> Result<(WindowEntry, Bytes), RepairError> {
        let numbers = crate::checkpoint::jobs::segments_for(births, self.bytes_max);
        let numbers = (0..numbers).map(|_| self.take()).collect();
        let window = Window { filesystem: self.filesystem, start, end, numbers, segment_bytes: self.bytes_max };
        let mut read = |object: &ObjectId| {
            read(object).map_err(|reason| ShipError::Damaged { place: format!("object {object}"), reason })
        };
        let store = self.store;
        let mut upload = |no: SegmentNo, bytes: Bytes| Ok(store.put(&names::segment(no), bytes)?);
        Ok(pack(&window, births, &mut read, &mut upload)?)
    }

    /// Builds a tree of the entries that `source` gives, in key order. Returns its root and adds the segments that hold it.
    pub fn tree(
        &mut self,
        source: &mut EachEntry<'_>,
        written: &mut Vec<(SegmentNo, u64)>,
    ) -> Result<Option<NodePtr>, RepairError> {
        let shape = self.shape;
        let mut nodes = Nodes { segments: self, current: None, written };
        let mut tree = NewTree::new(&mut nodes, shape);
        let mut failed = None;
        source(&mut |key, value| {
            if failed.is_none() {
                failed = tree.add(key, value).err();
            }
        })?;
        if let Some(e) = failed {
            return Err(e.into());
        }
        let root = tree.finish()?;
        nodes.put()?;
        Ok(root)
    }
}

/// Shows entries in key order.
pub(super) type EachEntry<'a> = dyn FnMut(&mut dyn FnMut(Bytes, Bytes)) -> Result<(), RepairError> + 'a;

/// Packs nodes into node segments in the store.
struct Nodes<'a, 's> {
    segments: &'a mut Segments<'s>,
    current: Option<(SegmentNo, SegmentBuilder)>,
    written: &'a mut Vec<(SegmentNo, u64)>,
}

impl Nodes<'_, '_> {
    fn put(&mut self) -> Result<(), MapError> {
        let Some((no, builder)) = self.current.take() else { return Ok(()) };
        let bytes: Bytes = builder.finish().into();
        let len = bytes.len() as u64;
        let put = self.segments.store.put(&names::segment(no), bytes);
        put.map_err(|e| MapError::io(no, io::Error::other(e)))?;
        self.written.push((no, len));
        Ok(())
    }
}

impl NodeSink for Nodes<'_, '_> {
    fn append(&mut self, node: &[u8]) -> Result<NodePtr, MapError> {
        let most = self.segments.bytes_max as u64;
        if self.current.as_ref().is_some_and(|(_, b)| b.finished_len() + node.len() as u64 > most) {
            self.put()?;
        }
        let (_, builder) = self.current.get_or_insert_with(|| {
            let no = self.segments.take();
            (no, SegmentBuilder::new(self.segments.filesystem, no, SegmentKind::Nodes))
        });
        Ok(builder.push_node(node))
    }
}

/// Lays the edits of a mending over the entries that it read.
pub(super) struct Edited<'a> {
    edits: Peekable<std::collections::btree_map::Iter<'a, Bytes, Option<Bytes>>>,
    each: &'a mut dyn FnMut(Bytes, Bytes),
}

impl<'a> Edited<'a> {
    pub fn new(mended: &'a Mended, each: &'a mut dyn FnMut(Bytes, Bytes)) -> Edited<'a> {
        Edited { edits: mended.edits.iter().peekable(), each }
    }

    /// The next entry that was read.
    pub fn entry(&mut self, key: Bytes, value: Bytes) {
        while let Some((edited, new)) = self.edits.next_if(|(edited, _)| **edited <= key) {
            if let Some(new) = new {
                (self.each)(edited.clone(), new.clone());
            }
            if *edited == key {
                return;
            }
        }
        (self.each)(key, value);
    }

    /// What comes behind all that was read.
    pub fn finish(mut self) {
        while let Some((key, new)) = self.edits.next() {
            if let Some(new) = new {
                (self.each)(key.clone(), new.clone());
            }
        }
    }
}

/// What the extents of a map name.
#[derive(Default)]
pub(super) struct Named {
    /// How many extents name an object.
    pub counts: BTreeMap<ObjectId, u32>,
    /// The first extent of each object that no window has, in the order of the files.
    pub births: Vec<Birth>,
}

impl Named {
    /// Looks at an entry of the map; `is_shipped` says whether a window has an object.
    pub fn look(&mut self, key: &[u8], value: &[u8], is_shipped: &dyn Fn(&ObjectId) -> bool) {
        let (Ok(Key::Extent(ino, offset)), Ok(extent)) = (Key::decode(key), Extent::decode(value)) else { return };
        let Extent { object, len, .. } = extent;
        if object == ObjectId::LOST {
            return;
        }
        let count = self.counts.entry(object).or_default();
        *count += 1;
        if *count == 1 && !is_shipped(&object) {
            self.births.push(Birth { ino, offset, object, len });
        }
    }
}
