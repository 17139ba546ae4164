//! Batches of an earlier writer on their way into this journal, under the Lsns that they have: a takeover found them in the
//! store, where they were acknowledged, and no checkpoint has them yet.
//!
//! They speak of files alone, so their positions have gaps. Those are filled with batches that change nothing, and replay
//! goes on to take a missing position for damage.

use super::shared::Journal;
use super::{Config, JournalError, PendingBatch, Refusal, Room, Writer, budget};
use crate::format::batch::{BATCH_HEAD_BYTES, encode_head};
use crate::format::ids::Lsn;
use std::iter::Sum;

/// Bytes of a batch that changes nothing.
const FILLER_BYTES: u64 = BATCH_HEAD_BYTES as u64;

/// What is to be imported, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Import {
    /// Batches,
    pub batches: u64,
    /// their bytes, with their objects,
    pub bytes: u64,
    /// and how many objects these are.
    pub objects: u64,
    /// Positions that they take, those between them included.
    pub positions: u64,
}

impl Sum for Import {
    fn sum<I: Iterator<Item = Import>>(parts: I) -> Import {
        parts.fold(Import::default(), |a, b| Import {
            batches: a.batches + b.batches,
            bytes: a.bytes + b.bytes,
            objects: a.objects + b.objects,
            positions: a.positions + b.positions,
        })
    }
}

impl Config {
    /// Whether an empty journal surely takes so much, and then ordinary batches.
    pub fn takes(&self, import: &Import) -> bool {
        let fillers = import.positions.saturating_sub(import.batches).saturating_mul(FILLER_BYTES);
        let bytes = import.bytes.saturating_add(fillers);
        // An eighth is for the groups around them.
        let need = bytes.saturating_add(bytes / 8).saturating_add(budget::entry_cost(import.objects));
        need.saturating_add(budget::batch_bytes_max(self.segment_bytes) + self.reserve())
            <= self.slots_max() * self.slot_room()
    }
}

impl Journal {
    /// Adds a batch of an earlier writer after all that are there, before anybody else adds any: its epoch is not older than
    /// that of the last one, and its position is higher. Steps the writer when the queue is full.
    pub fn import(&self, writer: &mut Writer, batch: PendingBatch) -> Result<(), JournalError> {
        let mut last = self.submitted();
        debug_assert!(batch.lsn.epoch >= last.epoch && batch.lsn.pos > last.pos, "{} after {last}", batch.lsn);
        while last.pos + 1 < batch.lsn.pos {
            last = last.next(last.epoch);
            self.import_one(writer, filler(last))?;
        }
        self.import_one(writer, batch)
    }

    fn import_one(&self, writer: &mut Writer, batch: PendingBatch) -> Result<(), JournalError> {
        let payload: usize = batch.objects.iter().map(|(_, bytes)| bytes.len()).sum();
        let cost = budget::cost_encoded(batch.head.len() + payload, batch.objects.len());
        if cost > self.batch_bytes_max() {
            return Err(JournalError::Config("a batch in the store is larger than a journal segment takes"));
        }
        loop {
            match self.reserve(cost, Room::Ordinary) {
                Ok(()) => break,
                Err(Refusal::QueueFull) => drop(writer.step()),
                Err(Refusal::JournalFull) => return Err(JournalError::TooSmall),
                Err(Refusal::DiskFull) => {
                    let reason = self.stats().last_error.unwrap_or_default();
                    return Err(JournalError::DiskFull(reason));
                }
                Err(Refusal::Latched(reason)) => return Err(JournalError::Latched(reason)),
            }
        }
        self.submit(batch);
        Ok(())
    }
}

fn filler(lsn: Lsn) -> PendingBatch {
    let head = encode_head(lsn, 0, &[], &[], true).into();
    PendingBatch { lsn, head, objects: Vec::new(), concerns_files: false }
}
