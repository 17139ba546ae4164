//! One merge of everything frozen: new trees on local disk, and what the merge learned on the way.
//!
//! Here tombstone meets tree, so here the deaths and births of objects are known: an object whose number of extents
//! changed is settled, an object that appears for the first time is born and will be shipped with its window.

use super::CheckpointError;
use super::nodes::NodeWriter;
use crate::format::batch::{Edit, TreeId, encode_edits, encode_head};
use crate::format::checkpoint::{Birth, Settle};
use crate::format::ids::{Lsn, NodePtr, ObjectId};
use crate::format::inode::Extent;
use crate::format::key::Key;
use crate::map::{Frozen, Merge, Overlay};
use bytes::Bytes;
use std::collections::BTreeMap;

/// What a merge made.
pub struct Merged {
    /// The new roots, by [`TreeId`].
    pub roots: [Option<NodePtr>; 2],
    /// Objects born after the previous checkpoint and live now, by (inode, offset).
    pub births: Vec<Birth>,
    /// Changes in the number of extents that name an object, in order of the objects. An object counts as named by one
    /// extent until a settlement says otherwise.
    pub settlement: Vec<Settle>,
}

/// Merges all frozen layers into their trees. Objects after `previous` count as born now.
pub fn merge_all(
    frozen: &Frozen,
    previous: Lsn,
    trees: &Merge<'_>,
    sink: &mut NodeWriter<'_>,
) -> Result<Merged, CheckpointError> {
    let mut census = Census::new(previous);
    let files = merge_one(frozen, TreeId::Files, trees, sink, &mut |key, old, new| census.change(key, old, new))?;
    let space = merge_one(frozen, TreeId::Space, trees, sink, &mut |_, _, _| Ok(()))?;
    let (births, settlement) = census.finish();
    Ok(Merged { roots: [files, space], births, settlement })
}

type OnChange<'a> = dyn FnMut(&[u8], Option<&Bytes>, Option<&Bytes>) -> Result<(), CheckpointError> + 'a;

fn merge_one(
    frozen: &Frozen,
    tree: TreeId,
    trees: &Merge<'_>,
    sink: &mut NodeWriter<'_>,
    on_change: &mut OnChange<'_>,
) -> Result<Option<NodePtr>, CheckpointError> {
    let layers: Vec<&Overlay> = frozen.layers[tree as usize].iter().map(|l| &**l).collect();
    let mut failed = None;
    let root = trees.run(frozen.roots[tree as usize], &layers, sink, &mut |key, old, new| {
        if failed.is_none() {
            failed = on_change(key, old, new).err();
        }
    })?;
    failed.map_or(Ok(root), Err)
}

/// Counts how the extents that name each object change.
struct Census {
    previous: Lsn,
    objects: BTreeMap<ObjectId, Change>,
    births: Vec<(ObjectId, Birth)>,
}

#[derive(Default)]
struct Change {
    delta: i32,
    born: bool,
}

impl Census {
    fn new(previous: Lsn) -> Census {
        Census { previous, objects: BTreeMap::new(), births: Vec::new() }
    }

    fn change(&mut self, key: &[u8], old: Option<&Bytes>, new: Option<&Bytes>) -> Result<(), CheckpointError> {
        let Ok(Key::Extent(ino, offset)) = Key::decode(key) else { return Ok(()) };
        let decode = |v: &Bytes| {
            Extent::decode(v).map_err(|e| CheckpointError::Damaged(format!("extent of inode {ino} at {offset}: {e}")))
        };
        // What is lost is no object, however many extents name it.
        if let Some(old) = old.map(decode).transpose()?.filter(|old| !old.is_lost()) {
            self.objects.entry(old.object).or_default().delta -= 1;
        }
        let Some(extent) = new.map(decode).transpose()?.filter(|new| !new.is_lost()) else { return Ok(()) };
        let change = self.objects.entry(extent.object).or_default();
        change.delta += 1;
        if extent.object.lsn > self.previous && !change.born {
            change.born = true;
            let birth = Birth { ino, offset, object: extent.object, len: extent.len };
            self.births.push((extent.object, birth));
        }
        Ok(())
    }

    fn finish(self) -> (Vec<Birth>, Vec<Settle>) {
        let settle = |(object, change): (&ObjectId, &Change)| {
            // A newborn counts as named by one extent; only further ones need settling.
            let delta = change.delta - i32::from(change.born);
            (delta != 0).then_some(Settle { object: *object, delta })
        };
        let settlement = self.objects.iter().filter_map(settle).collect();
        (self.births.into_iter().map(|(_, birth)| birth).collect(), settlement)
    }
}

/// Edits in one batch of an increment: bounded, so that reading one back needs little memory.
const EDITS_PER_BATCH: usize = 4096;

/// The frozen changes as batches without payload, all at the frozen Lsn: what an increment replays. Older layers come
/// first, and in each layer range deletions come before the entries that were put after them.
pub fn encode_changes(frozen: &Frozen) -> Vec<u8> {
    let mut out = Vec::new();
    let mut edits = Vec::new();
    for tree in [TreeId::Files, TreeId::Space] {
        for layer in &frozen.layers[tree as usize] {
            for edit in layer.edits() {
                edits.push((tree, edit));
                if edits.len() == EDITS_PER_BATCH {
                    encode_batch(frozen.lsn, &mut edits, &mut out);
                }
            }
        }
    }
    encode_batch(frozen.lsn, &mut edits, &mut out);
    out
}

fn encode_batch(lsn: Lsn, edits: &mut Vec<(TreeId, Edit)>, out: &mut Vec<u8>) {
    if edits.is_empty() {
        return;
    }
    let count = u32::try_from(edits.len()).expect("bounded");
    out.extend(encode_head(lsn, count, &encode_edits(edits), &[], false));
    edits.clear();
}
