//! Random histories against a model: the map is what a `BTreeMap` would be, however it was frozen and merged.

use crate::format::batch::Edit;
use crate::format::ids::{InodeNo, Lsn, ObjectId};
use crate::format::inode::Extent;
use crate::format::key;
use crate::map::testing::*;
use crate::map::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
    Freeze,
    /// Merges this many of the oldest layers.
    Merge(usize),
    Get(Vec<u8>),
    Scan(Vec<u8>, Vec<u8>, usize),
}

/// Keys that collide, nest and touch, of different lengths.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0u8, 1, b'a', b'b', 0xfe, 0xff]), 1..5)
}

fn step() -> impl Strategy<Value = Step> {
    let value = || prop::collection::vec(any::<u8>(), 0..24);
    prop_oneof![
        12 => (key(), value()).prop_map(|(key, value)| Step::Put(key, value)),
        4 => key().prop_map(Step::Delete),
        2 => (key(), key()).prop_map(|(from, to)| Step::DeleteRange(from, to)),
        2 => Just(Step::Freeze),
        2 => (1..4usize).prop_map(Step::Merge),
        2 => key().prop_map(Step::Get),
        2 => (key(), key(), 0..40usize).prop_map(|(from, to, limit)| Step::Scan(from, to, limit)),
    ]
}

/// One write of up to 16 extents in a row, as a batch makes them; the last may be short.
fn write() -> impl Strategy<Value = Vec<Step>> {
    (1..3u64, 0..60u64, 1..16u32, 1..50u64, any::<bool>()).prop_map(|(ino, start, count, pos, short)| {
        let extent = |n: u32| {
            let len = if short && n + 1 == count { 4096 } else { 65536 };
            let object = ObjectId { lsn: Lsn { epoch: 1, pos }, n };
            let at = key::extent(InodeNo(ino), (start + u64::from(n)) << 16);
            Step::Put(at.to_vec(), Extent { len, object, object_offset: 0 }.encode().to_vec())
        };
        (0..count).map(extent).collect()
    })
}

/// Files written, punched and truncated, in any order with freezes and merges.
fn file_steps() -> impl Strategy<Value = Vec<Step>> {
    let hole = (1..3u64, 0..80u64, 0..80u64).prop_map(|(ino, from, to)| {
        let (from, to) = key::extents_in(InodeNo(ino), from << 16, to << 16);
        vec![Step::DeleteRange(from.to_vec(), to.to_vec())]
    });
    prop_oneof![
        6 => write(),
        1 => hole,
        2 => Just(vec![Step::Freeze]),
        2 => (1..4usize).prop_map(|count| vec![Step::Merge(count)]),
        1 => (0..70u64).prop_map(|at| vec![Step::Get(key::extent(InodeNo(1), at << 16).to_vec())]),
    ]
}

/// The map under test beside its model.
struct Pair {
    nodes: MemoryNodes,
    cache: NodeCache,
    shape: Shape,
    active: Overlay,
    /// Newest first, as in a [`View`].
    layers: Vec<Arc<Overlay>>,
    root: Option<NodePtr>,
    lsn: Lsn,
    model: Model,
    /// What the model was at each freeze, newest first.
    frozen: Vec<Model>,
    /// What the tree holds.
    merged: Model,
}

impl Pair {
    fn new(node_bytes: usize, cache_bytes: u64) -> Pair {
        Pair {
            nodes: MemoryNodes::default(),
            cache: NodeCache::new(cache_bytes),
            shape: Shape { node_bytes },
            active: Overlay::new(),
            layers: Vec::new(),
            root: None,
            lsn: Lsn::ZERO,
            model: Model::new(),
            frozen: Vec::new(),
            merged: Model::new(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Put(key, value) => {
                self.edit(put(&key, &value));
                self.model.insert(key, value);
            }
            Step::Delete(key) => {
                self.edit(delete(&key));
                self.model.remove(&key);
            }
            Step::DeleteRange(from, to) => {
                self.edit(delete_range(&from, &to));
                self.model.retain(|key, _| *key < from || *key >= to);
            }
            Step::Freeze => self.freeze(),
            Step::Merge(count) => self.merge(count),
            Step::Get(key) => self.check_get(&key),
            Step::Scan(from, to, limit) => self.check_scan(&from, &to, limit),
        }
    }

    fn edit(&mut self, edit: Edit) {
        self.lsn = self.lsn.next(1);
        self.active.apply(self.lsn, &edit);
    }

    fn freeze(&mut self) {
        self.layers.insert(0, Arc::new(std::mem::take(&mut self.active)));
        self.frozen.insert(0, self.model.clone());
    }

    fn merge(&mut self, count: usize) {
        let keep = self.layers.len().saturating_sub(count);
        let oldest_first: Vec<&Overlay> = self.layers[keep..].iter().rev().map(Arc::as_ref).collect();
        let (root, deltas, written) = merge_into(&self.nodes, Some(&self.cache), self.shape, self.root, &oldest_first);
        let after = self.frozen.get(keep).unwrap_or(&self.merged).clone();
        assert_eq!(deltas, differences(&self.merged, &after));
        if deltas.is_empty() {
            assert_eq!((root, written), (self.root, 0), "what changes nothing writes nothing");
        }
        (self.root, self.merged) = (root, after);
        self.layers.truncate(keep);
        self.frozen.truncate(keep);
        self.nodes.retain(&reachable_segments(root, &self.nodes).unwrap());
        self.check_tree();
    }

    fn check_tree(&self) {
        let entries = entries(&self.nodes, self.root);
        let entries: Model = entries.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        assert_eq!(entries, self.merged);
        assert_eq!(self.root.is_none(), self.merged.is_empty(), "an emptied tree is no tree");
    }

    /// Reads as an operation does: what is not at hand is fetched and pinned, and the read starts again.
    fn read<T>(&self, read: impl Fn(&View<'_>, &Pins) -> Result<T, NodePtr>) -> T {
        let view = View { overlay: &self.active, layers: &self.layers, root: self.root };
        let mut pins = Pins::new();
        loop {
            match read(&view, &pins) {
                Ok(found) => return found,
                Err(missing) => {
                    assert!(pins.node(&missing).is_none(), "a pinned node is at hand");
                    pins.pin_node(missing, self.cache.fetch(&missing, &self.nodes).unwrap());
                }
            }
        }
    }

    fn check_get(&self, key: &[u8]) {
        let found = self.read(|view, pins| view.get(&self.cache, pins, key));
        assert_eq!(found.as_deref(), self.model.get(key).map(Vec::as_slice));
    }

    fn check_scan(&self, from: &[u8], to: &[u8], limit: usize) {
        let found = self.read(|view, pins| view.scan(&self.cache, pins, from, to, limit));
        let inside = self.model.iter().filter(|(key, _)| key.as_slice() >= from && key.as_slice() < to);
        let expected: Vec<(Vec<u8>, Vec<u8>)> = inside.take(limit).map(|(k, v)| (k.clone(), v.clone())).collect();
        let found: Vec<_> = found.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        assert_eq!(found, expected);
    }
}

fn differences(before: &Model, after: &Model) -> Vec<Delta> {
    let mut keys: Vec<&Vec<u8>> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    let delta = |key: &Vec<u8>| (key.clone(), before.get(key).cloned(), after.get(key).cloned());
    keys.into_iter().map(delta).filter(|(_, old, new)| old != new).collect()
}

proptest! {
    #[test]
    fn the_map_is_what_its_edits_say_however_it_was_frozen_and_merged(
        steps in prop::collection::vec(step(), 1..300),
        node_bytes in prop::sample::select(vec![1usize, 48, 100, 300, 8192]),
        cache_bytes in prop::sample::select(vec![0u64, 5000, 1 << 20]),
    ) {
        let mut pair = Pair::new(node_bytes, cache_bytes);
        for step in steps {
            pair.take(step);
        }
        pair.check_scan(&[0], &[0xff; 6], usize::MAX);
        pair.freeze();
        pair.merge(usize::MAX);
        prop_assert_eq!(&pair.model, &pair.merged);
    }

    #[test]
    fn extents_are_what_was_written_whatever_runs_they_are_kept_in(
        steps in prop::collection::vec(file_steps(), 1..60),
        node_bytes in prop::sample::select(vec![100usize, 300, 1000, 8192]),
    ) {
        let mut pair = Pair::new(node_bytes, 0);
        for step in steps.into_iter().flatten() {
            pair.take(step);
        }
        pair.check_scan(&[0], &[0xff], usize::MAX);
    }

    #[test]
    fn an_overlay_counts_its_bytes_back_to_nothing(steps in prop::collection::vec(step(), 1..100)) {
        let mut pair = Pair::new(100, 0);
        steps.into_iter().filter(|step| matches!(step, Step::Put(..) | Step::Delete(_) | Step::DeleteRange(..)))
            .for_each(|step| pair.take(step));
        let mut overlay = pair.active;
        overlay.apply(pair.lsn, &delete_range(&[], &[0xff; 6]));
        let one_range = crate::map::testing::overlay(&[delete_range(&[], &[0xff; 6])]);
        prop_assert_eq!(overlay.bytes(), one_range.bytes());
    }
}
