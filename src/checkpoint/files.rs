//! The files of a checkpoint in the state directory, each written whole and synced before the manifest names it:
//! `ckpt/N` (roots, Lsn, settlement), `ckpt/N.plan` (what its window will ship) and `ckpt/N.edits` (what its increment
//! will replay); for the checkpoint of a takeover `ckpt/N.tail`, the batches after it that log increments carried. A file the
//! manifest does not name is a leftover and is removed.

use super::CheckpointError;
use super::nodes::{read_file, write_file};
use crate::base::canary::{self, Canary};
use crate::format::batch::Batch;
use crate::format::checkpoint::{Birth, Checkpoint, Plan};
use crate::format::manifest::Manifest;
use crate::journal::MANIFEST;
use crate::media::Media;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::io;

/// The folder of checkpoints in the state directory.
pub const CHECKPOINTS: &str = "ckpt";

/// Name of a checkpoint's record.
pub fn checkpoint_file(number: u64) -> String {
    format!("{CHECKPOINTS}/{number:010}")
}

/// Name of a checkpoint's window plan.
pub fn plan_file(number: u64) -> String {
    format!("{CHECKPOINTS}/{number:010}.plan")
}

/// Name of a checkpoint's changes.
pub fn edits_file(number: u64) -> String {
    format!("{CHECKPOINTS}/{number:010}.edits")
}

/// Name of the file of what comes after the checkpoint of a takeover.
pub fn tail_file(number: u64) -> String {
    format!("{CHECKPOINTS}/{number:010}.tail")
}

/// Everything one checkpoint writes beside its nodes.
pub struct Files<'a> {
    /// The record.
    pub checkpoint: &'a Checkpoint,
    /// What its window ships, by (inode, offset).
    pub births: Vec<Birth>,
    /// What its increment replays.
    pub edits: Vec<u8>,
}

/// Writes the files and makes their names durable.
pub fn write(media: &dyn Media, files: Files<'_>) -> io::Result<()> {
    let Files { checkpoint, births, edits } = files;
    let plan = Plan { uuid: checkpoint.uuid, start: checkpoint.previous_lsn, end: checkpoint.lsn, births };
    write_file(media, &plan_file(checkpoint.number), &plan.encode())?;
    write_file(media, &edits_file(checkpoint.number), &edits)?;
    write_record(media, checkpoint)
}

/// Writes a checkpoint's record alone and makes its name durable.
pub fn write_record(media: &dyn Media, checkpoint: &Checkpoint) -> io::Result<()> {
    write_file(media, &checkpoint_file(checkpoint.number), &checkpoint.encode())?;
    canary::sync(Canary::CheckpointDirSync, || media.sync_dir(CHECKPOINTS))
}

/// Reads a checkpoint's record.
pub fn read_checkpoint(media: &dyn Media, number: u64) -> Result<Checkpoint, CheckpointError> {
    let name = checkpoint_file(number);
    let bytes = read_file(media, &name).map_err(|e| CheckpointError::File(name.clone(), e))?;
    let checkpoint = Checkpoint::decode(&bytes).map_err(|e| CheckpointError::Damaged(format!("{name}: {e}")))?;
    if checkpoint.number != number {
        return Err(CheckpointError::Damaged(format!("{name}: says it is checkpoint {}", checkpoint.number)));
    }
    Ok(checkpoint)
}

/// Reads what a checkpoint's window ships.
pub fn read_plan(media: &dyn Media, number: u64) -> Result<Plan, CheckpointError> {
    let name = plan_file(number);
    let bytes = read_file(media, &name).map_err(|e| CheckpointError::File(name.clone(), e))?;
    Plan::decode(&bytes).map_err(|e| CheckpointError::Damaged(format!("{name}: {e}")))
}

/// Reads what the increment of a checkpoint replays, of which the manifest says that it has so many bytes, and verifies it: what
/// is published is never more damaged than it says.
pub fn read_edits(media: &dyn Media, number: u64, expected: Option<u64>) -> Result<Bytes, CheckpointError> {
    let name = edits_file(number);
    let bytes = read_file(media, &name).map_err(|e| CheckpointError::File(name.clone(), e))?;
    let damaged = |what: String| CheckpointError::Damaged(format!("{name}: {what}"));
    if let Some(expected) = expected.filter(|expected| *expected != bytes.len() as u64) {
        return Err(damaged(format!("has {} bytes where {MANIFEST} says {expected}", bytes.len())));
    }
    let mut at = 0;
    while at < bytes.len() {
        let (_, len) = Batch::decode(&bytes, at).map_err(|e| damaged(format!("a bad batch at offset {at}: {e}")))?;
        at += len;
    }
    Ok(bytes)
}

/// Bytes of what a checkpoint's increment replays.
pub fn edits_bytes(media: &dyn Media, number: u64) -> io::Result<u64> {
    media.open(&edits_file(number))?.len()
}

/// Removes what the manifest does not name.
pub fn sweep(media: &dyn Media, manifest: &Manifest) -> io::Result<()> {
    let mut keep = BTreeSet::new();
    // A tail is in the journal before anything is checkpointed that is newer: only the checkpoint which has it needs it.
    keep.extend(manifest.checkpoint.into_iter().flat_map(|c| [checkpoint_file(c.number), tail_file(c.number)]));
    for plan in &manifest.plans {
        keep.extend([checkpoint_file(plan.number), plan_file(plan.number), edits_file(plan.number)]);
    }
    for name in media.list(CHECKPOINTS)? {
        let name = format!("{CHECKPOINTS}/{name}");
        if !keep.contains(&name) {
            media.remove(&name)?;
        }
    }
    Ok(())
}

/// Removes all files of checkpoints: where there is no manifest, none of them counts.
pub fn remove_all(media: &dyn Media) -> io::Result<()> {
    media.list(CHECKPOINTS)?.iter().try_for_each(|name| media.remove(&format!("{CHECKPOINTS}/{name}")))
}
