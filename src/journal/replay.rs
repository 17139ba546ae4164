//! Replay: every batch after a checkpoint, in order, up to where the log ends; and the rule that tells a torn tail, which
//! is cut, from damage, which is refused. Only reads.
//!
//! The log ends at the first place that holds no group with the next sequence. If a group of the same mount after that
//! place says that what is missing was durable, or the manifest says that the log goes on, it is damage. Otherwise it is
//! what a crash left of writes that nobody was told were durable.

use super::JournalError;
use super::directory::{Directory, read_footer};
use super::files::Files;
use super::scan::{Group, Listed};
use super::segment::{self, Segment, slot_name};
use crate::base::canary::{Canary, removed};
use crate::format::batch::Batch;
use crate::format::ids::{JournalNo, Lsn, Nonce};
use crate::format::journal_directory::{DirectoryEntry, Footer};
use crate::format::manifest::{JournalEntry, Manifest};
use crate::media::{File, Media};
use std::collections::HashMap;
use std::sync::Arc;

/// What replay accepted of the journal. [`super::open()`] goes on after it.
pub struct Replayed {
    /// The last batch of the log: the next one follows it.
    pub last: Lsn,
    /// How many batches were applied.
    pub batches: u64,
    /// Bytes of journal that were read for them.
    pub bytes: u64,
    /// The segments that hold something, in order.
    pub(super) segments: Vec<Segment>,
    /// Those of them whose end the manifest does not say: they are to be synced, and their ends recorded.
    pub(super) unended: Vec<JournalNo>,
    /// Their files.
    pub(super) files: Arc<Files>,
}

impl Replayed {
    /// A fresh start: no journal, and nothing before `last` needed from one.
    pub fn nothing(media: Arc<dyn Media>, last: Lsn) -> Replayed {
        Replayed { last, batches: 0, bytes: 0, segments: Vec::new(), unended: Vec::new(), files: Files::new(media) }
    }

    /// The last batch of each mount that is in the journal.
    pub fn lasts(&self) -> HashMap<Nonce, Lsn> {
        self.segments.iter().map(|segment| (segment.nonce, segment.last)).collect()
    }
}

/// Applies all batches after `from` (the Lsn of the checkpoint) in order. Their bytes are slices of a whole group: who keeps
/// any, copies them. `progress` hears bytes done and in all.
///
/// Every file that the manifest lists must be there before anything is applied.
pub fn replay<E: From<JournalError>>(
    media: Arc<dyn Media>,
    manifest: &Manifest,
    from: Lsn,
    progress: &mut dyn FnMut(u64, u64),
    apply: &mut dyn FnMut(Batch) -> Result<(), E>,
) -> Result<Replayed, E> {
    let mut replayed = Replayed::nothing(media, from);
    let files = listed_files(&replayed.files, manifest)?;
    let mut covered = Vec::new();
    for (entry, file) in manifest.journal.iter().zip(&files) {
        covered.push(covered_segment(entry, file, from)?);
    }
    let mut scanned = 0;
    for (entry, _) in manifest.journal.iter().zip(&covered).filter(|(_, covered)| covered.is_none()) {
        scanned += entry.end.map_or(entry.size, |end| end.offset);
    }
    let log = Log { entries: &manifest.journal, files: &files };
    let mut walk = Walk { from, last: None, sequence: None, batches: 0, done: 0, total: scanned, progress, apply };
    let mut tail: Option<Tail> = None;
    for (index, covered) in covered.into_iter().enumerate() {
        let listed = log.listed(index);
        walk.enter(&log, index)?;
        if let Some(segment) = covered {
            walk.pass(&listed, &segment)?;
            replayed.segments.push(segment);
            tail = None;
            continue;
        }
        let (segment, stop) = walk.segment(&listed, &files[index])?;
        if listed.entry.end.is_some() {
            check_recorded_end(&listed, &segment, &stop)?;
            tail = None;
        } else if segment.end == 0 {
            // Nothing was accepted here, so the log ended in the segment before, or right at its end.
            tail = Some(tail.unwrap_or(Tail { index, offset: 0, reason: stop }));
            break;
        } else {
            tail = Some(Tail { index, offset: u64::from(segment.end), reason: stop });
            replayed.unended.push(listed.entry.number);
        }
        if segment.end > 0 {
            replayed.segments.push(segment);
        }
    }
    replayed.last = walk.last.unwrap_or(from);
    replayed.batches = walk.batches;
    replayed.bytes = walk.done;
    (walk.progress)(scanned, scanned);
    if let Some(tail) = tail.filter(|_| !removed(Canary::TailRule)) {
        refuse_damage(&log, &tail, replayed.last, walk.sequence.unwrap_or(0))?;
    }
    check_reaches(&log, replayed.last, from)?;
    Ok(replayed)
}

/// The segments that the manifest lists, in order.
struct Log<'a> {
    entries: &'a [JournalEntry],
    files: &'a [Arc<dyn File>],
}

impl<'a> Log<'a> {
    fn listed(&self, index: usize) -> Listed<'a> {
        Listed { entry: &self.entries[index], file: &*self.files[index] }
    }
}

/// Where the log ends, and what is there instead of a group.
struct Tail {
    index: usize,
    offset: u64,
    reason: String,
}

fn listed_files(files: &Arc<Files>, manifest: &Manifest) -> Result<Vec<Arc<dyn File>>, JournalError> {
    for slot in &manifest.free {
        segment::listed(files, slot.slot, slot.size)?;
    }
    let mut found = Vec::new();
    for entry in &manifest.journal {
        let file = segment::listed(files, entry.slot, entry.size)?;
        if entry.end.is_none() && !removed(Canary::ForgetCached) {
            // Its writer died, perhaps of a sync that failed: only what the disk has counts.
            file.forget_cached().map_err(|e| JournalError::io("read", slot_name(entry.slot), e))?;
        }
        found.push(file);
    }
    Ok(found)
}

/// A segment that needs no scan: all of it is in the checkpoint, and its directory is on disk. What a checkpoint covers
/// was durable before, so a footer that belongs to it is the true one.
fn covered_segment(entry: &JournalEntry, file: &Arc<dyn File>, from: Lsn) -> Result<Option<Segment>, JournalError> {
    let failed = |e| JournalError::io("read", slot_name(entry.slot), e);
    let footer = read_own_footer(entry, file).map_err(failed)?;
    let Some(footer) = footer.filter(|footer| footer.last <= from && agrees(footer, entry)) else { return Ok(None) };
    let size = size_of(entry)?;
    let Some(directory) = Directory::load(&**file, footer, size).map_err(failed)? else { return Ok(None) };
    Ok(Some(Segment {
        number: entry.number,
        slot: entry.slot,
        size,
        nonce: entry.nonce,
        file: Arc::clone(file),
        end: u32::try_from(footer.end).expect("a directory behind it was found"),
        first: Some(footer.first),
        last: footer.last,
        sequence: footer.sequence,
        directory,
    }))
}

fn size_of(entry: &JournalEntry) -> Result<u32, JournalError> {
    let too_big = JournalError::Config("a journal segment is larger than any that skylog makes");
    u32::try_from(entry.size).ok().filter(|size| *size <= super::SEGMENT_BYTES_MAX).ok_or(too_big)
}

/// The footer of the segment itself, not of one that was in the file before.
fn read_own_footer(entry: &JournalEntry, file: &Arc<dyn File>) -> std::io::Result<Option<Footer>> {
    let Ok(size) = u32::try_from(entry.size) else { return Ok(None) };
    let footer = read_footer(&**file, size)?;
    Ok(footer.filter(|footer| footer.nonce == entry.nonce && footer.segment == entry.number && footer.end > 0))
}

fn agrees(footer: &Footer, entry: &JournalEntry) -> bool {
    entry.end.is_none_or(|end| (end.offset, end.last, end.sequence) == (footer.end, footer.last, footer.sequence))
}

/// Everything up to a recorded end is durable, so a segment that stops elsewhere is damaged.
fn check_recorded_end(listed: &Listed<'_>, segment: &Segment, stop: &str) -> Result<(), JournalError> {
    let Some(end) = listed.entry.end.filter(|_| !removed(Canary::RecordedEnd)) else { return Ok(()) };
    if u64::from(segment.end) < end.offset {
        return Err(listed.damaged(u64::from(segment.end), stop));
    }
    if end.offset > 0 && segment.recorded_end() != end {
        return Err(listed.damaged(u64::from(segment.end), "the log ends elsewhere than MANIFEST says"));
    }
    Ok(())
}

/// The tail rule: looks at all that the mount may have written after the place where its log ends.
fn refuse_damage(log: &Log<'_>, tail: &Tail, last: Lsn, sequence: u64) -> Result<(), JournalError> {
    for index in tail.index..log.entries.len() {
        let listed = log.listed(index);
        if listed.entry.nonce != log.entries[tail.index].nonce {
            return Err(
                listed.damaged(0, "a later mount wrote it, but MANIFEST does not say where the one before ended")
            );
        }
        let from = if index == tail.index { tail.offset } else { 0 };
        listed.claims(from, &mut |offset| match listed.group_at(offset)? {
            Ok(group) if group.header.sequence > sequence && group.header.durable > last => {
                Err(damage_before(log, tail, &group))
            }
            _ => Ok(()),
        })?;
    }
    Ok(())
}

fn damage_before(log: &Log<'_>, tail: &Tail, group: &Group) -> JournalError {
    let (segment, offset, durable) = (group.header.segment, group.offset, group.header.durable);
    let reason = format!("{}, yet segment {segment} at offset {offset} says {durable} was durable", tail.reason);
    log.listed(tail.index).damaged(tail.offset, reason)
}

/// All that a checkpoint covers was durable before it counted.
fn check_reaches(log: &Log<'_>, last: Lsn, from: Lsn) -> Result<(), JournalError> {
    match log.entries.len().checked_sub(1) {
        Some(newest) if last < from && !removed(Canary::JournalReachesCheckpoint) => {
            let reason = format!("the journal ends at {last}, before the checkpoint at {from}");
            Err(log.listed(newest).damaged(0, reason))
        }
        _ => Ok(()),
    }
}

/// The state of replay between groups.
struct Walk<'a, E> {
    from: Lsn,
    /// The last batch seen.
    last: Option<Lsn>,
    /// The sequence of the last group of the mount whose segments are being read. Unknown in the oldest segment: those
    /// before it were reclaimed.
    sequence: Option<u64>,
    batches: u64,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
    apply: &'a mut dyn FnMut(Batch) -> Result<(), E>,
}

impl<E: From<JournalError>> Walk<'_, E> {
    /// Another mount's segments start again at sequence 1, and only after the one before recorded where it ended.
    fn enter(&mut self, log: &Log<'_>, index: usize) -> Result<(), JournalError> {
        let Some(before) = index.checked_sub(1).map(|before| &log.entries[before]) else { return Ok(()) };
        if before.nonce != log.entries[index].nonce {
            if before.end.is_none() {
                return Err(log
                    .listed(index - 1)
                    .damaged(0, "a later mount wrote on, but the end here is not recorded"));
            }
            self.sequence = Some(0);
        }
        Ok(())
    }

    /// Goes past a segment that the checkpoint covers.
    fn pass(&mut self, listed: &Listed<'_>, segment: &Segment) -> Result<(), JournalError> {
        let first = segment.first.unwrap_or(segment.last);
        self.check_follows(first).map_err(|reason| listed.damaged(0, reason))?;
        self.last = Some(segment.last);
        self.sequence = Some(segment.sequence);
        Ok(())
    }

    /// Reads the groups of a segment as far as they go. Returns also why they go no further.
    fn segment(&mut self, listed: &Listed<'_>, file: &Arc<dyn File>) -> Result<(Segment, String), E> {
        let mut offset = 0;
        let mut first = None;
        let mut objects = Vec::new();
        let stop = loop {
            if listed.entry.end.is_some_and(|end| end.offset == offset) {
                break "the recorded end".to_string();
            }
            let group = match listed.group_at(offset)? {
                Ok(group) if self.sequence.is_none_or(|last| group.header.sequence == last + 1) => group,
                Ok(group) => break format!("group {} does not follow here", group.header.sequence),
                Err(reason) => break reason,
            };
            first.get_or_insert(group.header.first);
            self.group(listed, &group, &mut objects)?;
            offset += group.len;
        };
        if let Some(end) = listed.entry.end.filter(|end| end.offset == 0) {
            self.last = Some(self.last.map_or(end.last, |last| last.max(end.last)));
        }
        let segment = self.scanned(listed, file, offset, first, objects)?;
        Ok((segment, stop))
    }

    fn scanned(
        &self,
        listed: &Listed<'_>,
        file: &Arc<dyn File>,
        offset: u64,
        first: Option<Lsn>,
        objects: Vec<DirectoryEntry>,
    ) -> Result<Segment, JournalError> {
        let entry = listed.entry;
        let failed = |e| JournalError::io("read", slot_name(entry.slot), e);
        let size = size_of(entry)?;
        let last = self.last.unwrap_or(self.from);
        let sealed = read_own_footer(entry, file).map_err(failed)?;
        let sealed =
            sealed.filter(|footer| (footer.end, footer.last, footer.count as usize) == (offset, last, objects.len()));
        let on_disk = match sealed {
            Some(footer) => Directory::load(&**file, footer, size).map_err(failed)?,
            None => None,
        };
        Ok(Segment {
            number: entry.number,
            slot: entry.slot,
            size,
            nonce: entry.nonce,
            file: Arc::clone(file),
            end: u32::try_from(offset).expect("groups end within the segment"),
            first,
            last,
            sequence: self.sequence.unwrap_or(0),
            directory: on_disk.unwrap_or(Directory::Full(objects)),
        })
    }

    fn group(&mut self, listed: &Listed<'_>, group: &Group, objects: &mut Vec<DirectoryEntry>) -> Result<(), E> {
        let damaged = |reason| listed.damaged(group.offset, reason);
        for batch in group.batches().map_err(damaged)? {
            self.check_follows(batch.lsn).map_err(damaged)?;
            objects.extend(group.entries(&batch));
            self.last = Some(batch.lsn);
            if batch.lsn > self.from {
                self.batches += 1;
                (self.apply)(batch)?;
            }
        }
        self.sequence = Some(group.header.sequence);
        self.done += group.len;
        (self.progress)(self.done.min(self.total), self.total);
        Ok(())
    }

    /// Replay never skips a hole: the first batch follows the checkpoint or is in it, each later one follows the last.
    fn check_follows(&self, lsn: Lsn) -> Result<(), String> {
        let follows = match self.last {
            Some(last) => lsn.pos == last.pos + 1 && lsn.epoch >= last.epoch,
            None => lsn.pos <= self.from.pos + 1,
        };
        let last = self.last.unwrap_or(self.from);
        if follows { Ok(()) } else { Err(format!("batch {lsn} does not follow batch {last}")) }
    }
}
