//! Small trees with a history of checkpoints, damaged in every way, against what their leaves say.

mod damage;
mod history;
mod hostile;
mod lineage;

use super::*;
use crate::check::Nodes;
use crate::checkpoint::nodes::{NodeWriter, node_file, read_file};
use crate::format::batch::Edit;
use crate::format::ids::{Lsn, SegmentNo};
use crate::format::names;
use crate::format::node::Node;
use crate::map::{Merge, NodeSource, Shape, walk as walk_tree};
use crate::media::sim::{CallLog, SimDisk};
use crate::store::sim::SimStore;
use std::collections::BTreeMap;

type Model = BTreeMap<Bytes, Bytes>;

const UUID: Uuid = Uuid(77);
const SHAPE: Shape = Shape { node_bytes: 512 };

/// Trees of several checkpoints, the newest last; nodes lie in the state directory.
struct Built {
    disk: SimDisk,
    store: SimStore,
    epoch: u32,
    number: u64,
    /// By [`TreeId`].
    roots: [Option<NodePtr>; 2],
    models: [Model; 2],
    /// Every leaf of files ever written with what it holds, in the order of writing.
    leaves: Vec<(NodePtr, Model)>,
    /// The leaves of the newest tree of files.
    now: Vec<NodePtr>,
    /// The maps of files of all checkpoints, the newest last.
    past: Vec<Model>,
}

impl Built {
    fn new() -> Built {
        let log = CallLog::new();
        let disk = SimDisk::new(&log);
        disk.make_dir("nodes").expect("made");
        let store = SimStore::new(&log);
        let (roots, models) = ([None; 2], [Model::new(), Model::new()]);
        Built { disk, store, epoch: 1, number: 0, roots, models, leaves: Vec::new(), now: Vec::new(), past: Vec::new() }
    }

    /// Merges changes of both maps into the next checkpoint. Segments are small, so that there are several.
    fn checkpoint(&mut self, edits: [&[Edit]; 2]) {
        let nodes = self.nodes();
        let (epoch, number) = (self.epoch, &mut self.number);
        let mut numbers = || {
            *number += 3;
            SegmentNo { epoch, number: *number }
        };
        let mut writer = NodeWriter::new(&self.disk, UUID, &mut numbers, 6 << 10);
        for (tree, edits) in edits.into_iter().enumerate() {
            let overlay = overlay(edits);
            let merge = Merge { source: &nodes, cache: None, shape: SHAPE };
            let root = merge.run(self.roots[tree], &[&overlay], &mut writer, &mut |_, _, _| {});
            self.roots[tree] = root.expect("merged");
            apply(&mut self.models[tree], edits);
        }
        let written = writer.finish().expect("written");
        self.now.clear();
        let mut leaves = Vec::new();
        for (ptr, node) in self.tree() {
            let Node::Leaf(leaf) = node else { continue };
            self.now.push(ptr);
            if written.iter().any(|(no, _)| *no == ptr.segment) {
                leaves.push((ptr, (0..leaf.len()).map(|i| (leaf.key(i), leaf.value(i))).collect()));
            }
        }
        leaves.sort_by_key(|(ptr, _)| *ptr);
        self.leaves.extend(leaves);
        self.past.push(self.models[0].clone());
    }

    fn nodes(&self) -> Nodes {
        Nodes::new(Some(Arc::new(self.disk.clone())), Arc::new(self.store.clone()))
    }

    /// The nodes of the newest tree of files, by level.
    fn tree(&self) -> Vec<(NodePtr, Node)> {
        let mut found = Vec::new();
        walk_tree(self.roots[0], &self.nodes(), &mut |ptr, node| found.push((*ptr, node.clone()))).expect("walked");
        found
    }

    fn segments(&self) -> Vec<SegmentNo> {
        let mut found: Vec<SegmentNo> = self.leaves.iter().map(|(ptr, _)| ptr.segment).collect();
        found.extend(self.tree().iter().map(|(ptr, _)| ptr.segment));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The same with all nodes in the store, and in the state directory too if `both`.
    fn shipped(&self, both: bool) -> Built {
        let copy = self.copy();
        for no in copy.segments() {
            let bytes = read_file(&copy.disk, &node_file(no)).expect("read");
            copy.store.put(&names::segment(no), bytes).expect("put");
            if !both {
                copy.disk.remove(&node_file(no)).expect("removed");
            }
        }
        copy
    }

    fn copy(&self) -> Built {
        let log = CallLog::new();
        Built {
            disk: SimDisk::from_image(&self.disk.image(), &log),
            store: SimStore::from_image(&self.store.image(), &log),
            epoch: self.epoch,
            number: self.number,
            roots: self.roots,
            models: self.models.clone(),
            leaves: self.leaves.clone(),
            now: self.now.clone(),
            past: self.past.clone(),
        }
    }

    /// Changes the bytes of every copy of a segment.
    fn change(&self, no: SegmentNo, change: impl Fn(&mut Vec<u8>)) {
        if let Ok(bytes) = read_file(&self.disk, &node_file(no)) {
            let mut bytes = bytes.to_vec();
            change(&mut bytes);
            self.disk.remove(&node_file(no)).expect("removed");
            let file = self.disk.create(&node_file(no)).expect("created");
            file.write_at(&bytes, 0).expect("written");
        }
        let name = names::segment(no);
        if let Ok(bytes) = self.store.get(&name) {
            let mut bytes = bytes.to_vec();
            change(&mut bytes);
            self.store.put(&name, bytes.into()).expect("put");
        }
    }

    fn drop_segment(&self, no: SegmentNo) {
        if read_file(&self.disk, &node_file(no)).is_ok() {
            self.disk.remove(&node_file(no)).expect("removed");
        }
        self.store.delete(&names::segment(no)).expect("deleted");
    }

    fn flip(&self, ptr: &NodePtr) {
        self.change(ptr.segment, |bytes| bytes[ptr.offset as usize + ptr.len as usize / 2] ^= 4);
    }

    fn trees(&self) -> Trees {
        Trees::new(UUID, Some(Arc::new(self.disk.clone())), Arc::new(self.store.clone()))
    }

    /// What is left of the map of files. It is asked for twice.
    fn left(&self, root: Option<Option<NodePtr>>, over: &[Edit]) -> (Model, Vec<Lost>) {
        left_of(&self.trees(), TreeId::Files, root, over)
    }

    fn files(&self) -> (Model, Vec<Lost>) {
        self.left(Some(self.roots[0]), &[])
    }

    /// Leaves of the past and now that are whole.
    fn whole(&self) -> Vec<&(NodePtr, Model)> {
        let nodes = self.nodes();
        let is_whole = |ptr: &NodePtr| nodes.read_node(ptr).is_ok_and(|bytes| Node::read(ptr, bytes).is_ok());
        self.leaves.iter().filter(|(ptr, _)| is_whole(ptr)).collect()
    }

    /// What holds of all that is left, whatever was damaged.
    fn judge(&self, left: &Model, lost: &[Lost], what: &str) {
        let now = &self.models[0];
        let whole = self.whole();
        let newest = |key: &Bytes| whole.iter().rev().find_map(|(_, leaf)| leaf.get(key));
        let in_lost = |key: &Bytes| lost.iter().any(|lost| lost.from <= *key && *key < lost.to);
        assert!(lost.windows(2).all(|pair| pair[0].to <= pair[1].from), "{what}: lost ranges in order: {lost:?}");
        for (ptr, node) in self.leaves_now() {
            if whole.iter().any(|(other, _)| *other == ptr) {
                for (key, value) in &node {
                    assert_eq!(left.get(key), Some(value), "{what}: {key:?} of the whole leaf {ptr:?}");
                }
            }
        }
        for (key, value) in left {
            if in_lost(key) {
                assert_eq!(newest(key), Some(value), "{what}: {key:?} is that of the newest whole leaf with it");
            } else {
                assert_eq!(now.get(key), Some(value), "{what}: {key:?} comes from nowhere");
            }
        }
        for key in now.keys().filter(|key| !left.contains_key(*key)) {
            assert!(in_lost(key), "{what}: {key:?} is gone, and nobody says so");
            let mut held = self.past.iter().rev().take_while(|model| model.contains_key(key)).map(|model| &model[key]);
            let found = newest(key).is_some_and(|value| held.any(|held| held == value));
            assert!(!found, "{what}: {key:?} was never deleted since, and is in a whole leaf");
        }
    }

    fn leaves_now(&self) -> Vec<(NodePtr, Model)> {
        self.leaves.iter().filter(|(ptr, _)| self.now.contains(ptr)).cloned().collect()
    }
}

fn left_of(trees: &Trees, tree: TreeId, root: Option<Option<NodePtr>>, over: &[Edit]) -> (Model, Vec<Lost>) {
    let overlay = overlay(over);
    let once = || {
        let (mut found, mut last) = (Model::new(), None);
        let lost = trees.each(tree, root, &overlay, &mut |key, value| {
            assert!(last.as_ref().is_none_or(|last| *last < key), "entries come in the order of the keys");
            last = Some(key.clone());
            found.insert(key, value);
        });
        (found, lost.expect("nothing fails but by damage"))
    };
    let first = once();
    assert_eq!(once(), first, "the second time is as the first");
    first
}

fn overlay(edits: &[Edit]) -> Overlay {
    let (mut overlay, mut lsn) = (Overlay::new(), Lsn::ZERO);
    for edit in edits {
        lsn = lsn.next(1);
        overlay.apply(lsn, edit);
    }
    overlay
}

fn apply(model: &mut Model, edits: &[Edit]) {
    for edit in edits {
        match edit {
            Edit::Put { key, value } => drop(model.insert(key.clone(), value.clone())),
            Edit::Delete { key } => drop(model.remove(key)),
            Edit::DeleteRange { from, to } => model.retain(|key, _| key < from || key >= to),
            Edit::OwnExtent { .. } => unreachable!("not in these tests"),
        }
    }
}
