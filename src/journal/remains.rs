//! What is left of a journal that may be damaged anywhere. Only reads.
//!
//! Replay ends at the first bad group, and refuses what is damage. This goes around it, by the same rule. **A group counts** if its
//! checksum is right, if it says that it belongs to this very place of the segment which the manifest names, and if the log
//! reaches it: a hole before it must be damage. A hole is damage if what is missing was durable, as a later group of the mount
//! says, the manifest (it records the ends of segments and a checkpoint), or a later mount, which went on behind it. What comes
//! behind any other hole is a torn tail, which a mount cuts, and whose Lsns are given again.
//!
//! So what is stale never counts: a group that was in the slot before has another number or nonce; one of a tail that was cut lies
//! behind a recorded end, or behind the first group of a later mount. Where there is no manifest, the newest segment in each slot
//! is what the slot holds.
//!
//! In a hole that is damage, batches whose heads are whole count: between two groups all bytes were written for it. Where
//! no group says so, only behind the header of a group that belongs there.

use super::JournalError;
use super::files::Files;
use super::scan::{Group, Listed};
use super::segment::{FOLDER, slot_name};
use crate::format::batch::{Batch, ObjectAt};
use crate::format::group::{GROUP_BLOCK, GROUP_HEADER_BYTES, GroupPeek, peek};
use crate::format::ids::{Lsn, Nonce, ObjectId};
use crate::format::journal_directory::{DIRECTORY_BLOCK, DirectoryEntry};
use crate::format::manifest::JournalEntry;
use crate::media::{File, Media};
use bytes::Bytes;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;

/// What is read at a time where groups are looked for; a multiple of the block.
const PIECE_BYTES: u64 = 1 << 20;
/// The same where batches are, and by how much two pieces overlap: more than any batch.
const WINDOW_BYTES: u64 = 32 << 20;
const OVERLAP_BYTES: u64 = 8 << 20;
/// Claims of groups that are none may cost so many bytes for each byte of a segment.
const CLAIMS_MAX: u64 = 16;

/// A journal as far as it can be read.
pub struct Remains {
    entries: Vec<JournalEntry>,
    files: Vec<Arc<dyn File>>,
    pieces: Vec<Piece>,
    /// The last batch that each mount wrote, also where it is lost, if that is known; of the newest one at least this one.
    pub lasts: HashMap<Nonce, Lsn>,
    /// The newest mount, if it has not ended cleanly: nobody knows what it wrote last.
    pub open: Option<Nonce>,
    /// The last batch that is left,
    pub last: Lsn,
    /// and the last one that was durable as far as that is known.
    pub durable: Lsn,
    /// What is damaged or missing: a file, and what is wrong with it.
    pub damaged: Vec<(String, String)>,
}

/// A batch that is left.
pub struct Left {
    /// What it says.
    pub batch: Batch,
    /// The slot file that it lies in.
    pub slot: u32,
    /// Where those of its objects are that are whole.
    pub objects: Vec<DirectoryEntry>,
}

/// A part of the log, in the order of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    /// A good group of an entry.
    Group { entry: usize, offset: u64 },
    /// Bytes in which batches may be left.
    Hole(Hole),
}

/// Bytes where groups were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hole {
    entry: usize,
    from: u64,
    to: u64,
    /// Batches that were there come after this one,
    after: Lsn,
    /// and not after this one.
    upto: Lsn,
    /// All these bytes were written with the batches that are missing.
    is_sure: bool,
}

/// A good group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    entry: usize,
    offset: u64,
    len: u64,
    sequence: u64,
    first: Lsn,
    last: Lsn,
    durable: Lsn,
}

/// What a slot file turned out to hold.
#[derive(Default)]
struct Scanned {
    seen: Vec<Seen>,
    /// Where there was no group instead, and why.
    bad: HashMap<u64, String>,
}

/// Reads all groups of these segments, in the order of their numbers. All batches up to `durable` are known to have been durable. The
/// entries are a manifest's if they are `listed`, and else what [`discover`] found.
pub fn remains(
    media: Arc<dyn Media>,
    mut entries: Vec<JournalEntry>,
    listed: bool,
    durable: Lsn,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Remains, JournalError> {
    let files = Files::new(media);
    entries.sort_by_key(|entry| entry.number);
    let files = entries.iter().map(|entry| files.file(entry.slot)).collect();
    let (pieces, lasts, damaged) = (Vec::new(), HashMap::new(), Vec::new());
    let open = entries.last().filter(|entry| entry.end.is_none()).map(|entry| entry.nonce);
    let mut remains = Remains { entries, files, pieces, lasts, open, last: Lsn::ZERO, durable, damaged };
    let (mut all, total) = (Vec::new(), remains.entries.iter().map(|entry| entry.size).sum());
    let mut done = 0;
    for index in 0..remains.entries.len() {
        all.push(remains.scan(index)?);
        done += remains.entries[index].size;
        progress(done, total);
    }
    remains.accept_mounts(&all, listed, durable);
    Ok(remains)
}

/// The newest segment in each slot file, for a state directory whose manifest is lost.
pub fn discover(media: &Arc<dyn Media>) -> Result<Vec<JournalEntry>, JournalError> {
    let names = match media.list(FOLDER) {
        Ok(names) => names,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(JournalError::io("list", FOLDER, e)),
    };
    let files = Files::new(media.clone());
    let mut found: Vec<JournalEntry> = Vec::new();
    for slot in names.iter().filter_map(|name| name.strip_prefix("slot-")?.parse::<u32>().ok()) {
        let file = files.file(slot);
        let size = file.len().map_err(|e| JournalError::io("read", slot_name(slot), e))?;
        file.forget_cached().map_err(|e| JournalError::io("read", slot_name(slot), e))?;
        found.extend(newest_in(slot, size, &*file)?);
    }
    found.sort_by_key(|entry| entry.number);
    found.dedup_by_key(|entry| entry.number);
    Ok(found)
}

fn newest_in(slot: u32, size: u64, file: &dyn File) -> Result<Option<JournalEntry>, JournalError> {
    let mut newest: Option<JournalEntry> = None;
    let mut claims = Claims::of(size);
    let mut offset = 0;
    // What is in the newest segment is known once it is found; what others have left there is of no use.
    while let Some((at, peeked)) = next_claim(file, slot, offset, size, &|_| true)? {
        offset = at + GROUP_BLOCK as u64;
        let (number, nonce) = (peeked.segment, peeked.nonce);
        if newest.is_some_and(|newest| newest.number >= number) || !claims.may(peeked.padded_len) {
            continue;
        }
        let entry = JournalEntry { number, slot, size, nonce, end: None };
        match (Listed { entry: &room_to_the_end(entry), file }).group_at(at)? {
            Ok(group) => {
                offset = at + group.len;
                newest = Some(entry);
            }
            Err(_) => claims.failed(peeked.padded_len),
        }
    }
    Ok(newest)
}

/// A file that was cut short has no directory at its end.
fn room_to_the_end(entry: JournalEntry) -> JournalEntry {
    JournalEntry { size: entry.size.saturating_add(DIRECTORY_BLOCK as u64), ..entry }
}

/// The next block from `offset` on that claims to start a group.
fn next_claim(
    file: &dyn File,
    slot: u32,
    mut offset: u64,
    limit: u64,
    is_wanted: &dyn Fn(&GroupPeek) -> bool,
) -> Result<Option<(u64, GroupPeek)>, JournalError> {
    while offset + GROUP_BLOCK as u64 <= limit {
        let piece = read(file, slot, offset..limit.min(offset + PIECE_BYTES))?;
        for (block, at) in piece.chunks_exact(GROUP_BLOCK).zip((offset..).step_by(GROUP_BLOCK)) {
            if let Some(peeked) = peek(block).ok().filter(|peeked| peeked.offset == at && is_wanted(peeked)) {
                return Ok(Some((at, peeked)));
            }
        }
        offset += PIECE_BYTES;
    }
    Ok(None)
}

fn read(file: &dyn File, slot: u32, range: Range<u64>) -> Result<Vec<u8>, JournalError> {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).expect("a piece fits in memory")];
    file.read_at(&mut bytes, range.start).map_err(|e| JournalError::io("read", slot_name(slot), e))?;
    Ok(bytes)
}

/// What may still be spent on blocks that claim to start a group.
struct Claims(u64);

impl Claims {
    fn of(size: u64) -> Claims {
        Claims(size.saturating_mul(CLAIMS_MAX))
    }

    fn may(&self, len: usize) -> bool {
        len as u64 <= self.0
    }

    fn failed(&mut self, len: usize) {
        self.0 -= len as u64;
    }
}

impl Remains {
    /// Shows each batch that is left, in order.
    pub fn each<E: From<JournalError>>(&self, visit: &mut dyn FnMut(Left) -> Result<(), E>) -> Result<(), E> {
        for piece in &self.pieces {
            match piece {
                Piece::Group { entry, offset } => self.group(*entry, *offset, visit)?,
                Piece::Hole(hole) => self.hole(hole, visit)?,
            }
        }
        Ok(())
    }

    /// The name of a slot file.
    pub fn file_of(slot: u32) -> String {
        slot_name(slot)
    }

    fn group<E: From<JournalError>>(
        &self,
        entry: usize,
        offset: u64,
        visit: &mut dyn FnMut(Left) -> Result<(), E>,
    ) -> Result<(), E> {
        let room = room_to_the_end(self.entries[entry]);
        let listed = Listed { entry: &room, file: &*self.files[entry] };
        let group = listed.group_at(offset)?.map_err(|reason| listed.damaged(offset, reason))?;
        for batch in group.batches().map_err(|reason| listed.damaged(offset, reason))? {
            let objects = group.entries(&batch).collect();
            visit(Left { batch, slot: room.slot, objects })?;
        }
        Ok(())
    }

    /// Batches that are whole in bytes which are not.
    fn hole<E: From<JournalError>>(&self, hole: &Hole, visit: &mut dyn FnMut(Left) -> Result<(), E>) -> Result<(), E> {
        let mut last = hole.after;
        if hole.is_sure {
            return self.find(hole, hole.from..hole.to, &mut last, visit);
        }
        let (entry, file) = (&self.entries[hole.entry], &*self.files[hole.entry]);
        let is_ours = |peeked: &GroupPeek| (peeked.nonce, peeked.segment) == (entry.nonce, entry.number);
        let mut offset = hole.from;
        while let Some((at, peeked)) = next_claim(file, entry.slot, offset, hole.to, &is_ours)? {
            offset = hole.to.min(at + peeked.padded_len as u64);
            self.find(hole, at + GROUP_HEADER_BYTES as u64..offset, &mut last, visit)?;
        }
        Ok(())
    }

    fn find<E: From<JournalError>>(
        &self,
        hole: &Hole,
        range: Range<u64>,
        last: &mut Lsn,
        visit: &mut dyn FnMut(Left) -> Result<(), E>,
    ) -> Result<(), E> {
        let (slot, file) = (self.entries[hole.entry].slot, &*self.files[hole.entry]);
        let mut from = range.start;
        loop {
            let to = range.end.min(from + WINDOW_BYTES);
            let (bytes, mut at) = (Bytes::from(read(file, slot, from..to)?), 0);
            let mut budget = CLAIMS_MAX * (to - from);
            while let Some((batch, start, used)) = Batch::find(&bytes, at, &mut budget) {
                let follows = batch.lsn.pos > last.pos && batch.lsn.epoch >= last.epoch;
                let fits = batch.lsn.pos <= hole.upto.pos && batch.lsn.epoch <= hole.upto.epoch;
                if !follows || !fits || !batch.payload_present && !batch.objects.is_empty() {
                    at = start + 1;
                    continue;
                }
                *last = batch.lsn;
                at = start + used;
                let objects = whole_objects(&batch, &bytes, from);
                visit(Left { batch, slot, objects })?;
            }
            if to == range.end {
                return Ok(());
            }
            from += (at as u64).max(WINDOW_BYTES - OVERLAP_BYTES);
        }
    }

    /// Looks at a slot file from its start to where its groups can end.
    fn scan(&mut self, index: usize) -> Result<Scanned, JournalError> {
        let (entry, file) = (self.entries[index], self.files[index].clone());
        let name = slot_name(entry.slot);
        let failed = |e| JournalError::io("read", name.clone(), e);
        let mut scanned = Scanned::default();
        let len = match file.len() {
            Ok(len) => len,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.damaged.push((name, "is missing".to_owned()));
                self.entries[index].size = 0;
                return Ok(scanned);
            }
            Err(e) => return Err(failed(e)),
        };
        if len != entry.size {
            self.damaged.push((name.clone(), format!("has {len} bytes where MANIFEST says {}", entry.size)));
        }
        if entry.end.is_none() {
            file.forget_cached().map_err(failed)?;
        }
        self.entries[index].size = len.min(entry.size).min(u64::from(super::SEGMENT_BYTES_MAX));
        let limit = self.limit(index);
        let room = room_to_the_end(self.entries[index]);
        let listed = Listed { entry: &room, file: &*file };
        let (mut offset, mut claims) = (0, Claims::of(room.size));
        let is_ours = |peeked: &GroupPeek| (peeked.nonce, peeked.segment) == (entry.nonce, entry.number);
        while offset < limit {
            let seen = match listed.group_at(offset)? {
                Ok(group) if offset + group.len <= limit => seen(index, &group),
                Ok(_) => Err("a group behind the recorded end".to_owned()),
                Err(reason) => Err(reason),
            };
            match seen {
                Ok(seen) => {
                    offset += seen.len;
                    scanned.seen.push(seen);
                }
                Err(reason) => {
                    scanned.bad.entry(offset).or_insert(reason);
                    let Some((at, peeked)) =
                        next_claim(&*file, entry.slot, offset + GROUP_BLOCK as u64, limit, &is_ours)?
                    else {
                        break;
                    };
                    offset = at;
                    if !claims.may(peeked.padded_len) {
                        break;
                    }
                    claims.failed(peeked.padded_len);
                }
            }
        }
        Ok(scanned)
    }

    /// Where the groups of an entry end at the latest.
    fn limit(&self, index: usize) -> u64 {
        let entry = &self.entries[index];
        entry.end.map_or(entry.size, |end| end.offset.min(entry.size))
    }

    /// Decides for each mount what of it counts.
    fn accept_mounts(&mut self, all: &[Scanned], listed: bool, durable: Lsn) {
        let mut begin = 0;
        while begin < self.entries.len() {
            let nonce = self.entries[begin].nonce;
            let mount = self.entries[begin..].iter().take_while(|entry| entry.nonce == nonce).count();
            let (range, is_first) = (begin..begin + mount, begin == 0);
            begin += mount;
            let later = all[begin..].iter().find_map(|scanned| scanned.seen.first());
            let seen: Vec<Seen> = all[range.clone()].iter().flat_map(|scanned| scanned.seen.iter().copied()).collect();
            let ended = self.entries[begin - 1].end.map(|end| end.last);
            let ends = self.entries[range.clone()].iter().filter_map(|entry| entry.end).map(|end| end.last);
            let mut known = ends.chain(seen.iter().map(|seen| seen.durable)).max().unwrap_or_default().max(durable);
            // A later mount goes on right behind what it has accepted, and has synced.
            if let Some(next) = later.filter(|next| next.sequence == 1) {
                known = known.max(before(next.first));
            }
            let before_mount = Before { entry: range.start, last: self.last, sequence: (!is_first).then_some(0) };
            let end = ended.into_iter().chain(later.map(|next| before(next.first))).min();
            let bounds = Bounds { durable: known, end };
            self.durable = self.durable.max(end.map_or(known, |end| end.min(known)));
            let (steps, last) = accept(&seen, before_mount, &bounds);
            if last > self.last {
                self.last = last;
            }
            if end.is_some() || !seen.is_empty() {
                self.lasts.insert(nonce, end.unwrap_or(last));
            }
            self.take(&steps, &seen, range, all, if listed { Lsn::ZERO } else { durable });
        }
    }

    /// Adds what counts of a mount to the log. Holes up to `explained` need no word.
    fn take(&mut self, steps: &[Step], seen: &[Seen], range: Range<usize>, all: &[Scanned], explained: Lsn) {
        for step in steps {
            match *step {
                Step::Group(at) => {
                    self.pieces.push(Piece::Group { entry: seen[at].entry, offset: seen[at].offset });
                }
                Step::Hole { from, to, after, upto } => {
                    let (from, to) = (from.map(|at| &seen[at]), to.map(|at| &seen[at]));
                    let holes = self.bytes_between(from, to, range.clone(), after, upto);
                    if upto > explained {
                        self.tell(&holes, all);
                    }
                    self.pieces.extend(holes.into_iter().map(Piece::Hole));
                }
            }
        }
    }

    fn bytes_between(
        &self,
        from: Option<&Seen>,
        to: Option<&Seen>,
        range: Range<usize>,
        after: Lsn,
        upto: Lsn,
    ) -> Vec<Hole> {
        let (first, start) = from.map_or((range.start, 0), |seen| (seen.entry, seen.offset + seen.len));
        let end = range.end - 1;
        let (last, stop) = to.map_or_else(|| (end, self.limit(end)), |seen| (seen.entry, seen.offset));
        let hole = |entry: usize| {
            let lo = if entry == first { start } else { 0 };
            let hi = if entry == last { stop } else { self.limit(entry) };
            let is_sure = entry == last && to.is_some() || self.entries[entry].end.is_some();
            (lo < hi).then_some(Hole { entry, from: lo, to: hi, after, upto, is_sure })
        };
        (first..=last).filter_map(hole).collect()
    }

    /// Says where something is missing: surely where bytes were written, else where they may have been.
    fn tell(&mut self, holes: &[Hole], all: &[Scanned]) {
        let sure: Vec<&Hole> = holes.iter().filter(|hole| hole.is_sure).collect();
        let told = if sure.is_empty() { holes.iter().take(1).collect() } else { sure };
        for Hole { entry, from, to, .. } in told {
            let reason = all[*entry].bad.get(from).map_or("a group is missing", String::as_str);
            let what = format!("damaged from offset {from} to {to}: {reason}");
            self.damaged.push((slot_name(self.entries[*entry].slot), what));
        }
    }
}

fn seen(entry: usize, group: &Group) -> Result<Seen, String> {
    let (offset, len, header) = (group.offset, group.len, &group.header);
    let batches = group.batches()?;
    let mut last = Lsn::ZERO;
    for batch in &batches {
        if batch.lsn.pos <= last.pos || batch.lsn.epoch < last.epoch {
            return Err(format!("batch {} does not follow batch {last}", batch.lsn));
        }
        last = batch.lsn;
    }
    let (sequence, first, durable) = (header.sequence, header.first, header.durable);
    Ok(Seen { entry, offset, len, sequence, first, last, durable })
}

fn whole_objects(batch: &Batch, bytes: &Bytes, base: u64) -> Vec<DirectoryEntry> {
    let whole = |(n, object): (u32, &ObjectAt)| {
        let len = object.header.stored_len;
        let stored = bytes.get(object.offset..object.offset + len as usize)?;
        object.header.verify(stored).ok()?;
        let offset = u32::try_from(base + object.offset as u64).ok()?;
        Some(DirectoryEntry { object: ObjectId { lsn: batch.lsn, n }, offset, len, crc: object.header.crc })
    };
    (0..).zip(&batch.objects).filter_map(whole).collect()
}

/// The Lsn of the batch before, as far as its position goes.
fn before(lsn: Lsn) -> Lsn {
    Lsn { pos: lsn.pos.saturating_sub(1), ..lsn }
}

/// What comes before a mount.
#[derive(Clone, Copy)]
struct Before {
    /// The first entry of the mount.
    entry: usize,
    /// The last batch; zero if it is not known.
    last: Lsn,
    /// The sequence of the last group: 0 where a mount begins, unknown in the oldest one, of which segments were given back.
    sequence: Option<u64>,
}

/// What is known of a mount's batches.
struct Bounds {
    /// Up to this one they were durable.
    durable: Lsn,
    /// Behind this one they are another mount's.
    end: Option<Lsn>,
}

/// What counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Group(usize),
    /// Between two groups, batches after the one and not after the other.
    Hole {
        from: Option<usize>,
        to: Option<usize>,
        after: Lsn,
        upto: Lsn,
    },
}

/// The rule: which of a mount's groups count, and between which of them something was that was durable.
fn accept(seen: &[Seen], before_mount: Before, bounds: &Bounds) -> (Vec<Step>, Lsn) {
    let Before { entry, mut last, mut sequence } = before_mount;
    let (mut steps, mut from) = (Vec::new(), None);
    for (at, group) in seen.iter().enumerate() {
        if bounds.end.is_some_and(|end| group.last.pos > end.pos) {
            break;
        }
        let goes_on = group.first.pos > last.pos && group.first.epoch >= last.epoch;
        if !goes_on || sequence.is_some_and(|sequence| group.sequence <= sequence) {
            continue;
        }
        let starts_log = last == Lsn::ZERO && sequence.is_none();
        let follows = match starts_log {
            true => (group.entry, group.offset) == (entry, 0),
            false => sequence.is_none_or(|last| group.sequence == last + 1) && group.first.pos == last.pos + 1,
        };
        if !follows {
            if !starts_log && last.pos >= bounds.durable.pos {
                return (steps, last);
            }
            steps.push(Step::Hole { from, to: Some(at), after: last, upto: before(group.first) });
        }
        steps.push(Step::Group(at));
        (last, sequence, from) = (group.last, Some(group.sequence), Some(at));
    }
    let end = bounds.end.map_or(bounds.durable, |end| end.min(bounds.durable));
    if last.pos < end.pos && !(seen.is_empty() && last == Lsn::ZERO) {
        steps.push(Step::Hole { from, to: None, after: last, upto: end });
    }
    (steps, last)
}
