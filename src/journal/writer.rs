//! The one who writes: takes what is queued, writes it in groups, syncs once for all, and wakes who waited.
//!
//! [`Writer::step`] never blocks but on the disk. In production a thread steps it; the simulator steps it like any actor.

use super::files::Files;
use super::segment::{Filling, Segment, Slot, slot_name};
use super::shared::Journal;
use super::state::{Due, Queued};
use super::{JournalError, Progress, Waiter, budget};
use crate::base::canary::{Canary, removed, sync};
use crate::base::trouble::Trouble;
use crate::format::group::{GROUP_HEADER_BYTES, GroupHeader, encode_group_to};
use crate::format::ids::{JournalNo, Nonce, ObjectId};
use crate::format::journal_directory::{DirectoryEntry, Footer};
use crate::format::manifest::FreeSlot;
use crate::media::{File, Media};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// A group is closed when it is this long; a longer batch has one of its own.
const GROUP_BYTES: usize = 4 << 20;

/// Owned by the journal thread.
pub struct Writer {
    pub(super) journal: Arc<Journal>,
    pub(super) media: Arc<dyn Media>,
    pub(super) files: Arc<Files>,
    pub(super) nonce: Nonce,
    /// The number that the next segment gets, and the slot that the next file gets.
    pub(super) next_number: JournalNo,
    pub(super) next_slot: u32,
    /// Named and empty, in the order in which they will be used.
    pub(super) spares: VecDeque<Slot>,
    pub(super) filling: Option<Filling>,
    /// When someone last was told that a sync he waited for has succeeded.
    pub(super) waited_for_at: Option<Duration>,
    /// The group that is written, kept for the memory that the next one needs.
    pub(super) group: Vec<u8>,
    /// When no segment could be made: not before this is another attempt made.
    pub(super) retry_at: Duration,
    /// The same, as people are told of it.
    pub(super) no_segment: Trouble,
    /// A slot file that was given up and could not be removed yet.
    pub(super) leftover: Option<u32>,
}

/// Where the next group goes.
struct Place {
    file: Arc<dyn File>,
    number: JournalNo,
    size: u32,
    end: u32,
    objects: usize,
    sequence: u64,
}

impl Writer {
    /// Does what is due: writes and syncs, frees and prepares segments, wakes waiters.
    pub fn step(&mut self) -> Progress {
        let due = {
            let mut state = self.journal.state.lock();
            if state.closed {
                return Progress::Closed;
            }
            // Also after a latch: or the thread would never sleep again.
            state.signal = false;
            if state.latched.is_some() {
                return Progress::Idle;
            }
            let now = self.journal.clock.elapsed();
            state.busy_since = Some(now);
            state.due(&self.journal.config, now)
        };
        let worked = self.work(due).unwrap_or_else(|reason| {
            if !removed(Canary::LatchOnFailure) {
                self.latch(reason);
            }
            true
        });
        self.rest();
        if worked { Progress::Worked } else { Progress::Idle }
    }

    /// The writer is back from the disk.
    fn rest(&self) {
        let now = self.journal.clock.elapsed();
        let mut state = self.journal.state.lock();
        state.busy_since = None;
        let slow = state.slow.is_over(now);
        drop(state);
        if slow.is_some() {
            log::info!("the journal's disk has caught up");
        }
    }

    fn work(&mut self, due: Due) -> Result<bool, String> {
        if due.write {
            self.write_queue()?;
        }
        if due.sync {
            self.sync()?;
        }
        let reclaimed = self.reclaim()?;
        let prepared = self.prepare(due.sync)?;
        Ok(due != Due::default() || reclaimed || prepared)
    }

    /// Writes and syncs all that is queued, and records where the log ends, so that the next mount takes every flipped bit
    /// for damage. Nothing is taken afterwards, whatever the result.
    pub fn close(&mut self) -> Result<(), JournalError> {
        if self.journal.state.lock().closed {
            return Ok(());
        }
        let closed = self.close_open();
        let waiters = {
            let mut state = self.journal.state.lock();
            state.closed = true;
            state.take_all_waiters()
        };
        wake(waiters, &Err("the journal is closed".to_string()));
        closed
    }

    fn close_open(&mut self) -> Result<(), JournalError> {
        if let Some(reason) = self.journal.state.lock().latched.clone() {
            return Err(JournalError::Latched(reason));
        }
        if let Err(reason) = self.write_all() {
            self.latch(reason.clone());
            return Err(JournalError::Latched(reason));
        }
        if let Some(filling) = self.filling.take() {
            filling.abandon(&*self.media);
        }
        let (active, end) = {
            let state = self.journal.state.lock();
            let active = state.segments.back().expect("a journal has a segment to write to");
            (active.number, active.recorded_end())
        };
        let sealed = self.sealed_ends();
        let spares = &self.spares;
        self.journal.manifest.update(|manifest| {
            super::prepare::record_ends(manifest, &sealed);
            super::prepare::record_ends(manifest, &[(active, end)]);
            manifest.journal.retain(|entry| spares.iter().all(|spare| spare.number != entry.number));
            manifest.free.extend(spares.iter().map(|spare| FreeSlot { slot: spare.slot, size: u64::from(spare.size) }));
        })?;
        Ok(())
    }

    /// Writes everything, and seals the segment that it ends in: nothing will be added to it.
    fn write_all(&mut self) -> Result<(), String> {
        while !self.journal.state.lock().queue.is_empty() {
            self.write_queue()?;
        }
        match self.place().end {
            0 => self.sync(),
            _ => self.seal(),
        }
    }

    fn place(&self) -> Place {
        let state = self.journal.state.lock();
        let active = state.segments.back().expect("a journal has a segment to write to");
        Place {
            file: Arc::clone(&active.file),
            number: active.number,
            size: active.size,
            end: active.end,
            objects: active.directory.len(),
            sequence: active.sequence,
        }
    }

    /// Writes what is queued, in as few groups as can be: first in, first out, each batch once.
    fn write_queue(&mut self) -> Result<(), String> {
        let mut taken = self.journal.state.lock().take_queue();
        while !taken.is_empty() {
            let place = self.place();
            match fitting(&taken, &place) {
                0 => self.switch()?,
                count => {
                    let group: Vec<Queued> = taken.drain(..count).collect();
                    self.write_group(place, &group)?;
                }
            }
        }
        Ok(())
    }

    fn write_group(&mut self, place: Place, group: &[Queued]) -> Result<(), String> {
        let header = GroupHeader {
            nonce: self.nonce,
            sequence: place.sequence + 1,
            segment: place.number,
            offset: u64::from(place.end),
            durable: self.journal.durable(),
            first: group[0].batch.lsn,
            wall: self.journal.clock.now().as_nanos(),
            batches: u32::try_from(group.len()).expect("a group of few batches"),
            payload_len: 0,
        };
        let mut parts: Vec<&[u8]> = Vec::new();
        for queued in group {
            parts.push(&queued.batch.head);
            parts.extend(queued.batch.objects.iter().map(|(_, bytes)| &bytes[..]));
        }
        encode_group_to(&mut self.group, header, &parts);
        let failed = |e| format!("write of journal segment {} at offset {} failed: {e}", place.number, place.end);
        place.file.write_at(&self.group, u64::from(place.end)).map_err(failed)?;
        let len = u32::try_from(self.group.len()).expect("a group fits in a segment");
        self.journal.state.lock().group_written(group, entries(group, place.end), len, header.sequence);
        Ok(())
    }

    /// One sync for all that was written; only after it succeeded is anyone told.
    fn sync(&mut self) -> Result<(), String> {
        let (unsynced, file, number) = {
            let state = self.journal.state.lock();
            let active = state.segments.back().expect("a journal has a segment to write to");
            (state.written != state.durable, Arc::clone(&active.file), active.number)
        };
        if unsynced {
            self.sync_file(&*file, number, Canary::SegmentSync)?;
        }
        Ok(())
    }

    fn sync_file(&mut self, file: &dyn File, number: JournalNo, rule: Canary) -> Result<(), String> {
        let started = self.journal.clock.elapsed();
        sync(rule, || file.sync()).map_err(|e| format!("sync of journal segment {number} failed: {e}"))?;
        let now = self.journal.clock.elapsed();
        let waiters = self.journal.state.lock().synced(now.saturating_sub(started));
        if !waiters.is_empty() {
            self.waited_for_at = Some(now);
        }
        wake(waiters, &Ok(()));
        Ok(())
    }

    /// Goes on in the next segment. The old one is sealed and synced before anything is written to the new one: what a
    /// group says is durable is, and a hole before a durable group is damage.
    fn switch(&mut self) -> Result<(), String> {
        self.seal()?;
        let slot = self.spares.pop_front().ok_or("no journal segment is ready for what was promised room")?;
        let name = slot_name(slot.slot);
        let file = self.media.open(&name).map_err(|e| format!("{name} cannot be opened any more: {e}"))?;
        let mut state = self.journal.state.lock();
        let (last, sequence) = state.segments.back().map(|active| (active.last, active.sequence)).unwrap_or_default();
        state.segments.push_back(Segment::empty(slot, file, self.nonce, last, sequence));
        state.spares -= 1;
        Ok(())
    }

    /// Writes the directory and the footer behind the groups, and syncs.
    fn seal(&mut self) -> Result<(), String> {
        let (file, size, footer, directory) = {
            let state = self.journal.state.lock();
            let active = state.segments.back().expect("a journal has a segment to write to");
            let footer = Footer {
                nonce: active.nonce,
                segment: active.number,
                end: u64::from(active.end),
                sequence: active.sequence,
                first: active.first.unwrap_or(active.last),
                last: active.last,
                count: 0,
            };
            (Arc::clone(&active.file), active.size, footer, active.directory.clone())
        };
        let (bytes, sparse) = directory.seal(footer);
        let offset = u64::from(size) - bytes.len() as u64;
        let failed = |e| format!("write of the directory of journal segment {} failed: {e}", footer.segment);
        file.write_at(&bytes, offset).map_err(failed)?;
        self.sync_file(&*file, footer.segment, Canary::SealSync)?;
        if let Some(active) = self.journal.state.lock().segments.back_mut() {
            active.directory = sparse;
            active.file = self.files.file(active.slot);
        }
        Ok(())
    }

    fn latch(&mut self, reason: String) {
        self.journal.latch(reason);
    }
}

/// Calls waiters, with no lock held.
pub(super) fn wake(waiters: Vec<Waiter>, result: &Result<(), String>) {
    for waiter in waiters {
        waiter(result.clone());
    }
}

/// How many of the queued batches make the next group: as many as fit in the segment, up to a length.
fn fitting(taken: &VecDeque<Queued>, place: &Place) -> usize {
    let (mut len, mut objects) = (0, place.objects);
    for (count, queued) in taken.iter().enumerate() {
        len += queued.len();
        objects += queued.batch.objects.len();
        if len > budget::payload_room(place.size, place.end, objects) || (count > 0 && len > GROUP_BYTES) {
            return count;
        }
    }
    taken.len()
}

/// Where the objects of a group at `start` of a segment lie.
fn entries(group: &[Queued], start: u32) -> Vec<DirectoryEntry> {
    let mut entries = Vec::new();
    let mut offset = start + GROUP_HEADER_BYTES as u32;
    let length = |len: usize| u32::try_from(len).expect("a batch fits in a segment");
    for Queued { batch, .. } in group {
        offset += length(batch.head.len());
        for (n, (header, bytes)) in (0..).zip(&batch.objects) {
            let (object, len) = (ObjectId { lsn: batch.lsn, n }, length(bytes.len()));
            entries.push(DirectoryEntry { object, offset, len, crc: header.crc });
            offset += len;
        }
    }
    entries
}

impl Queued {
    fn len(&self) -> usize {
        self.batch.head.len() + self.batch.objects.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
    }
}
