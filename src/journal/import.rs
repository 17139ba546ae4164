//! Batches of an earlier writer on their way into this journal, under the Lsns that they have: a takeover found them in the
//! store, where they were acknowledged, and no checkpoint has them yet.
//!
//! They speak of files alone, so their positions have gaps. Those are filled with batches that change nothing, and replay
//! goes on to take a missing position for damage. The journal grows beyond its size if it must: what was acknowledged is
//! mounted, and then shipped.

use super::shared::Journal;
use super::{JournalError, PendingBatch, Refusal, Room, Writer, budget};
use crate::format::batch::{BATCH_HEAD_BYTES, encode_head};
use crate::format::ids::Lsn;

/// Bytes of a batch that changes nothing.
pub const FILLER_BYTES: u64 = BATCH_HEAD_BYTES as u64;

impl Journal {
    /// Adds a batch of an earlier writer after all that are there, before anybody else adds any: its epoch is not older than
    /// that of the last one, and its position is higher. Steps the writer when the queue is full.
    pub fn import(&self, writer: &mut Writer, batch: PendingBatch) -> Result<(), JournalError> {
        let mut last = self.submitted();
        debug_assert!(batch.lsn.epoch >= last.epoch && batch.lsn.pos > last.pos, "{} after {last}", batch.lsn);
        self.state.lock().importing = true;
        let mut imported = Ok(());
        while imported.is_ok() && last.pos + 1 < batch.lsn.pos {
            last = last.next(last.epoch);
            imported = self.import_one(writer, filler(last));
        }
        imported = imported.and_then(|()| self.import_one(writer, batch));
        self.state.lock().importing = false;
        imported
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
                Err(Refusal::QueueFull | Refusal::JournalFull) => drop(writer.step()),
                Err(Refusal::DiskFull) => {
                    return Err(JournalError::DiskFull(self.stats().last_error.unwrap_or_default()));
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
