//! The generation that a repair makes: the numbers that must be won for it, its trees in node segments, and the base that names
//! them. **X never names Y before Y is durable**: until the base is there, nobody names what is written here.

use super::RepairError;
use super::mend::Mended;
use crate::base::canary::{Canary, removed};
use crate::format::ids::{Lsn, NodePtr, Nonce, SegmentKind, SegmentNo, Uuid};
use crate::format::lease::Owner;
use crate::format::names;
use crate::format::publication::{Base, Body, Closing, Position, Publication};
use crate::format::store_segment::SegmentBuilder;
use crate::map::{MapError, NewTree, NodeSink, Shape};
use crate::ship::fence::{self, Win};
use crate::ship::publish::read;
use crate::store::{Created, Store};
use bytes::Bytes;
use std::collections::btree_map::Iter;
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
    /// What is put when the base is there: nothing, as long as the rules hold.
    pub late: Vec<(String, Bytes)>,
}

impl Segments<'_> {
    fn take(&mut self) -> SegmentNo {
        self.next += 1;
        SegmentNo { epoch: self.epoch, number: self.next - 1 }
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
        self.written.push((no, bytes.len() as u64));
        if removed(Canary::RepairNodesBeforeBase) {
            self.segments.late.push((names::segment(no), bytes));
            return Ok(());
        }
        self.segments.store.put(&names::segment(no), bytes).map_err(|e| MapError::io(no, io::Error::other(e)))
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
    edits: Peekable<Iter<'a, Bytes, Option<Bytes>>>,
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
    pub fn finish(self) {
        for (key, new) in self.edits {
            if let Some(new) = new {
                (self.each)(key.clone(), new.clone());
            }
        }
    }
}

/// Who publishes a repair, and what is the same in all that it publishes.
pub(super) struct Author<'a> {
    pub store: &'a dyn Store,
    pub filesystem: Uuid,
    /// The repair, where a mount has its state directory.
    pub repair: Uuid,
    pub nonce: Nonce,
    /// Nanoseconds since 1970.
    pub wall: i64,
    /// Where its base goes; the generation is its epoch, too.
    pub base: Position,
    pub checkpoint: u64,
}

impl Author<'_> {
    pub fn epoch(&self) -> Result<u32, RepairError> {
        u32::try_from(self.base.generation).map_err(|_| RepairError::Refused("it has too many generations".to_owned()))
    }

    fn publication(&self, at: Position, (start, end): (Lsn, Lsn), body: Body) -> Result<Publication, RepairError> {
        let epoch = self.epoch()?;
        let Author { filesystem: uuid, repair: state, nonce, wall, checkpoint, .. } = *self;
        let Position { generation, number } = at;
        Ok(Publication { uuid, state, nonce, epoch, generation, number, wall, checkpoint, start, end, body })
    }

    /// Wins a number with a closing object: from then on nobody else publishes there. `false` if another was faster.
    pub fn close(&self, at: Position, end: Lsn, owner: &Owner) -> Result<bool, RepairError> {
        let next_epoch = self.epoch()?;
        let closing = Closing { next_epoch, owner: owner.describe() };
        let closing = self.publication(at, (end, end), Body::Closing(closing))?;
        // Before the last one, something that is damaged may lie behind it.
        let is_last = at.generation + 1 == self.base.generation;
        match if is_last { fence::win(self.store, &closing)? } else { fence::take(self.store, &closing)? } {
            Win::Won => Ok(true),
            // An earlier try of this very repair.
            Win::Lost(Some(found)) if found.state == self.repair && found.epoch == next_epoch => Ok(true),
            Win::Lost(_) => Ok(false),
        }
    }

    /// Publishes the base: from then on it is the filesystem. `false` if another has the number.
    pub fn publish(&self, end: Lsn, base: Base) -> Result<bool, RepairError> {
        let at = self.base;
        let base = self.publication(at, (Lsn::ZERO, end), Body::Base(base))?;
        let created = self.store.create(&names::publication(at.generation, at.number), base.encode().into());
        if matches!(created, Ok(Created::New)) {
            return Ok(true);
        }
        // A create whose answer was lost, or that was tried again, may have met itself.
        match (read(self.store, at)?, created) {
            (Some(found), _) => Ok(found.nonce == base.nonce),
            (None, Err(e)) => Err(e.into()),
            (None, Ok(_)) => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Nodes;
    use crate::map::verify;
    use crate::media::sim::{CallLog, Nth};
    use crate::store::sim::{SimStore, StoreFault, StoreOp};
    use std::sync::Arc;

    fn rows(count: u32) -> Vec<(Bytes, Bytes)> {
        let row = |n: u32| (Bytes::from(format!("key {n:08}")), Bytes::from(vec![n as u8; 20 + n as usize % 300]));
        (0..count).map(row).collect()
    }

    #[test]
    fn trees_of_any_size_are_trees_and_lie_in_the_segments_that_are_said() {
        for count in [0, 1, 2, 40, 700, 5000] {
            let store = SimStore::new(&CallLog::new());
            let shape = Shape { node_bytes: 512 };
            let mut segments = Segments {
                store: &store,
                filesystem: Uuid(1),
                epoch: 7,
                next: 3,
                bytes_max: 32 << 10,
                shape,
                late: Vec::new(),
            };
            let (rows, mut written) = (rows(count), Vec::new());
            let mut source = |each: &mut dyn FnMut(Bytes, Bytes)| {
                rows.iter().for_each(|(key, value)| each(key.clone(), value.clone()));
                Ok(())
            };
            let root = segments.tree(&mut source, &mut written).expect("built");
            let nodes = Nodes::new(None, Arc::new(store.clone()));
            let mut found = Vec::new();
            let problems = verify(root, &nodes, &mut |key, value| found.push((key.clone(), value.clone())));
            assert_eq!((problems, found), (Vec::new(), rows), "{count} entries");
            let sizes: Vec<_> =
                store.image().names().map(|name| store.image().object(name).expect("there").len() as u64).collect();
            assert_eq!(written.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>(), sizes);
            assert!((3..).zip(&written).all(|(number, (no, _))| *no == SegmentNo { epoch: 7, number }));
            assert_eq!(segments.next, 3 + written.len() as u64);
        }
    }

    #[test]
    fn edits_lie_over_the_entries_wherever_they_come() {
        let key = |n: u32| Bytes::from(format!("key {n:08}"));
        let new = Bytes::from_static(b"new");
        let mut edits = std::collections::BTreeMap::new();
        edits.insert(Bytes::from_static(b"a"), Some(new.clone()));
        edits.insert(Bytes::from_static(b"b"), None);
        edits.insert(key(1), None);
        edits.insert(key(2), Some(new.clone()));
        edits.insert(Bytes::from_static(b"key 00000002+"), Some(new.clone()));
        edits.insert(Bytes::from_static(b"z"), Some(new.clone()));
        let mended = Mended { edits, ..Mended::default() };
        let mut found = Vec::new();
        let mut take = |key: Bytes, value: Bytes| found.push((key, value == new));
        let mut edited = Edited::new(&mended, &mut take);
        rows(4).into_iter().for_each(|(key, value)| edited.entry(key, value));
        edited.finish();
        let expected = [
            (Bytes::from_static(b"a"), true),
            (key(0), false),
            (key(2), true),
            (Bytes::from_static(b"key 00000002+"), true),
            (key(3), false),
            (Bytes::from_static(b"z"), true),
        ];
        assert_eq!(found, expected);
    }

    fn author(store: &SimStore, repair: u128, nonce: u128) -> Author<'_> {
        let base = Position { generation: 4, number: 0 };
        let (filesystem, repair, nonce) = (Uuid(1), Uuid(repair), Nonce(nonce));
        Author { store, filesystem, repair, nonce, wall: 0, base, checkpoint: 9 }
    }

    #[test]
    fn a_number_is_won_once_whatever_becomes_of_the_answer() {
        let (at, end) = (Position { generation: 3, number: 5 }, Lsn { epoch: 3, pos: 40 });
        for fault in [StoreFault::AnswerLost, StoreFault::TriedAgain] {
            let store = SimStore::new(&CallLog::new());
            store.fail(Nth::new(1).of(StoreOp::Create), fault);
            assert!(author(&store, 2, 1).close(at, end, &Owner::of_test("first")).expect("settled"), "{fault:?}");
            let owner = Owner::of_test("other");
            assert!(!author(&store, 3, 2).close(at, end, &owner).expect("settled"), "another repair has it");
            assert!(author(&store, 2, 3).close(at, end, &owner).expect("settled"), "the same one, run again");
        }
    }

    #[test]
    fn a_base_is_published_once_whatever_becomes_of_the_answer() {
        let end = Lsn { epoch: 4, pos: 41 };
        for fault in [StoreFault::AnswerLost, StoreFault::TriedAgain] {
            let store = SimStore::new(&CallLog::new());
            store.fail(Nth::new(1).of(StoreOp::Create), fault);
            assert!(author(&store, 2, 1).publish(end, Base::default()).expect("settled"), "{fault:?}");
            assert!(!author(&store, 3, 2).publish(end, Base::default()).expect("settled"), "another has it");
        }
        let store = SimStore::new(&CallLog::new());
        store.fail(Nth::new(1).of(StoreOp::Create), StoreFault::Refused);
        author(&store, 2, 1).publish(end, Base::default()).expect_err("nobody knows");
        assert!(author(&store, 2, 1).publish(end, Base::default()).expect("settled"));
    }
}
