//! Segments ahead of need: reclaimed ones under a new number, and new slot files. None of it touches what was promised to
//! anyone: when the disk is full here, nothing is lost, what was begun is removed, and another attempt follows.

use super::segment::{Filling, Pace, Slot, remove_slot, slot_name};
use super::{ManifestError, Writer, is_full};
use crate::format::ids::JournalNo;
use crate::format::manifest::{JournalEntry, Manifest, RecordedEnd};
use std::io;
use std::time::Duration;

/// How long after a failure another attempt is made.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Whoever waited for a sync this short a time ago is likely to come back.
const ASKED_LATELY: Duration = Duration::from_millis(50);

impl Writer {
    /// Uses segments again that hold nothing any more that is needed. Their contents stay: the number and the nonce in
    /// each group keep old ones from passing for new ones.
    pub(super) fn reclaim(&mut self) -> Result<bool, String> {
        let (old, total) = {
            let state = self.journal.state.lock();
            let upto = state.reclaim_upto;
            let sealed = state.segments.iter().take(state.segments.len() - 1);
            let old: Vec<(JournalNo, u32, u32)> =
                sealed.take_while(|s| s.last <= upto).map(|s| (s.number, s.slot, s.size)).collect();
            (old, state.slots())
        };
        if old.is_empty() || self.must_wait() {
            return Ok(false);
        }
        let keep = self.journal.config.slots_max().saturating_sub(total - old.len() as u64);
        let usable = old.iter().filter(|(_, _, size)| *size == self.journal.config.segment_bytes);
        let slots: Vec<u32> =
            usable.map(|(_, slot, _)| *slot).take(usize::try_from(keep).unwrap_or(usize::MAX)).collect();
        let numbers = self.next_number.0..;
        let named: Vec<(JournalNo, u32)> = numbers.map(JournalNo).zip(slots).collect();
        let nonce = self.nonce;
        let size = u64::from(self.journal.config.segment_bytes);
        let sealed = self.sealed_ends();
        let updated = self.journal.manifest.update(|manifest| {
            record_ends(manifest, &sealed);
            manifest.journal.retain(|entry| old.iter().all(|(number, ..)| *number != entry.number));
            let lines = named.iter().map(|&(number, slot)| JournalEntry { number, slot, size, nonce, end: None });
            manifest.journal.extend(lines);
        });
        if let Err(e) = updated {
            return self.manifest_failed(e).map(|()| true);
        }
        self.next_number.0 += named.len() as u64;
        self.reclaimed(old.len(), &named);
        Ok(true)
    }

    /// The manifest has let go of the `count` oldest segments. From here on no reader finds them.
    fn reclaimed(&mut self, count: usize, named: &[(JournalNo, u32)]) {
        let mut unused = Vec::new();
        let mut state = self.journal.state.lock();
        let mut bytes = 0;
        for segment in state.segments.drain(..count) {
            bytes += u64::from(segment.size);
            match named.iter().find(|(_, slot)| *slot == segment.slot) {
                Some(&(number, slot)) => {
                    self.spares.push_back(Slot { number, slot, size: segment.size });
                }
                None => unused.push(segment.slot),
            }
        }
        state.reclaimed_bytes += bytes;
        state.spares = self.spares.len() as u64;
        state.stats.recycled += named.len() as u64;
        state.room_came();
        drop(state);
        for slot in unused {
            self.files.forget(slot);
            remove_slot(&*self.media, slot);
        }
    }

    /// Makes another segment ready, a part of it at a time, when one will be needed soon. `synced` says that this step of the
    /// writer has made a sync that was due.
    pub(super) fn prepare(&mut self, synced: bool) -> Result<bool, String> {
        let pace = self.pace();
        // Who was just told of a sync is likely to ask for another: nothing long is begun now, and it comes with that one.
        if self.filling.is_some() && pace == Pace::Beside && !synced {
            return Ok(false);
        }
        if self.filling.is_none() {
            let mut state = self.journal.state.lock();
            if !state.wants_slot(&self.journal.config) {
                state.disk_full = false;
                drop(state);
                self.segments_come();
                return Ok(false);
            }
            drop(state);
            if self.must_wait() {
                return Ok(false);
            }
        }
        if let Err(e) = self.fill(pace) {
            if let Some(filling) = self.filling.take() {
                self.leftover = Some(filling.slot);
                // Right away, for the room; if it cannot be now, then before the next attempt.
                let _ = self.remove_leftover();
            }
            self.no_segment(match is_full(&e) {
                true => format!("no room for a journal segment: {e}"),
                false => format!("a journal segment cannot be made: {e}"),
            });
        }
        self.name_filled()?;
        Ok(true)
    }

    fn remove_leftover(&mut self) -> io::Result<()> {
        let Some(slot) = self.leftover else { return Ok(()) };
        match self.media.remove(&slot_name(slot)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => {
                self.leftover = None;
                Ok(())
            }
        }
    }

    fn pace(&self) -> Pace {
        let now = self.journal.clock.elapsed();
        let asked_lately = self.waited_for_at.is_some_and(|at| now.saturating_sub(at) < ASKED_LATELY);
        match asked_lately && !self.journal.state.lock().is_short_of_room(&self.journal.config) {
            true => Pace::Beside,
            false => Pace::Fast,
        }
    }

    fn fill(&mut self, pace: Pace) -> io::Result<()> {
        self.remove_leftover()?;
        if self.filling.is_none() {
            let slot = self.next_slot;
            self.next_slot += 1;
            match Filling::start(&*self.media, slot, self.journal.config.segment_bytes) {
                // The name is taken by a file that nothing lists: it is left alone, and the next number tried.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
                started => self.filling = Some(started?),
            }
        }
        match &mut self.filling {
            Some(filling) => filling.step(&*self.media, pace),
            None => Ok(()),
        }
    }

    /// Names a slot file that is durable. A switch to it then changes no manifest.
    fn name_filled(&mut self) -> Result<(), String> {
        let Some(filling) = self.filling.take_if(|filling| filling.is_durable()) else { return Ok(()) };
        let slot = filling.numbered(self.next_number);
        let entry = slot.entry(self.nonce);
        let sealed = self.sealed_ends();
        let updated = self.journal.manifest.update(|manifest| {
            record_ends(manifest, &sealed);
            manifest.journal.push(entry);
        });
        if let Err(e) = updated {
            // After a change that may be on disk the file may be listed: it stays.
            if !matches!(e, ManifestError::Latched(_)) {
                remove_slot(&*self.media, slot.slot);
            }
            return self.manifest_failed(e);
        }
        self.next_number.0 += 1;
        self.spares.push_back(slot);
        let mut state = self.journal.state.lock();
        state.spares = self.spares.len() as u64;
        state.disk_full = false;
        state.room_came();
        drop(state);
        self.segments_come();
        Ok(())
    }

    /// The ends of the sealed segments: each change of the manifest records those that are new.
    pub(super) fn sealed_ends(&self) -> Vec<(JournalNo, RecordedEnd)> {
        let state = self.journal.state.lock();
        let sealed = state.segments.iter().take(state.segments.len() - 1);
        sealed.map(|segment| (segment.number, segment.recorded_end())).collect()
    }

    fn must_wait(&self) -> bool {
        self.journal.clock.elapsed() < self.retry_at
    }

    fn manifest_failed(&mut self, error: ManifestError) -> Result<(), String> {
        match error.is_full() {
            true => {
                self.no_segment(error.to_string());
                Ok(())
            }
            false => Err(error.to_string()),
        }
    }

    /// The trouble with segments, if there was any, is over.
    fn segments_come(&mut self) {
        if !self.no_segment.lasts() {
            return;
        }
        if let Some(lasted) = self.no_segment.is_over(self.journal.clock.elapsed()) {
            log::info!("there is room for the journal again, after {} s", lasted.as_secs());
        }
        self.journal.state.lock().stats.last_error = None;
    }

    /// None can be made for now; nobody who has a promise is touched.
    fn no_segment(&mut self, reason: String) {
        let now = self.journal.clock.elapsed();
        self.retry_at = now + RETRY_AFTER;
        if self.no_segment.is_there(now) {
            log::error!("{reason}; changes are refused until there is room");
        }
        let mut state = self.journal.state.lock();
        state.stats.last_error = Some(reason);
        state.disk_full = true;
        state.room_came();
    }
}

/// Sets the ends that the manifest does not say yet.
pub(super) fn record_ends(manifest: &mut Manifest, ends: &[(JournalNo, RecordedEnd)]) {
    for entry in manifest.journal.iter_mut().filter(|entry| entry.end.is_none()) {
        entry.end = ends.iter().find(|(number, _)| *number == entry.number).map(|(_, end)| *end);
    }
}
