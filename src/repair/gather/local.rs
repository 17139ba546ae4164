//! The state directory: manifest, checkpoints, plans, journal, tail files.

use super::Damaged;
use super::generations::join;
use super::scan::{Scan, scan};
use super::shelf::Shelf;
use super::spans::{Changes, Span, What};
use crate::checkpoint::files::{CHECKPOINTS, checkpoint_file, edits_file, plan_file, tail_file};
use crate::checkpoint::nodes::NODES;
use crate::format::batch::Batch;
use crate::format::checkpoint::{Checkpoint, PlanHeader};
use crate::format::ids::{Lsn, Uuid};
use crate::format::manifest::{JournalEntry, Manifest, PlanEntry};
use crate::journal::{FOLDER, JournalError, MANIFEST, Remains, discover, remains};
use crate::media::Media;
use crate::recovery::{MountError, WITHDRAWN};
use crate::repair::RepairError;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// A manifest that was written and not put into its place: it says what the one there says, and what changes.
const MANIFEST_NEW: &str = "MANIFEST.new";
/// Nothing that is read whole here is longer.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Bytes of a tail file that are read at a time, and by how much they overlap: more than any batch.
const PIECE_BYTES: u64 = 32 << 20;
const OVERLAP_BYTES: u64 = 8 << 20;

/// What is left of a state directory that holds a filesystem.
pub(super) struct Local {
    pub media: Arc<dyn Media>,
    /// What its manifest says; nothing if that is lost.
    pub manifest: Option<Manifest>,
    /// Checkpoints that can be read, the newest first.
    pub checkpoints: Vec<Checkpoint>,
    /// Windows that wait to be shipped.
    pub plans: Vec<PlanEntry>,
    /// The journal.
    pub remains: Remains,
    /// Batches that it has.
    pub spans: Vec<Span>,
    pub checkpoint_max: u64,
    /// The writer's epoch; without a manifest that of the newest batch or node segment.
    pub epoch: u32,
    pub damaged: Vec<Damaged>,
}

/// What is in a file that is there.
pub(super) type Read = Result<Bytes, String>;

/// All of a file; nothing if there is none.
pub(super) fn read(media: &dyn Media, name: &str) -> io::Result<Option<Read>> {
    let file = match media.open(name) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let len = file.len()?;
    if len > FILE_BYTES_MAX {
        return Ok(Some(Err(format!("has {len} bytes, more than any that skylog makes"))));
    }
    let mut bytes = vec![0; usize::try_from(len).expect("bounded")];
    file.read_at(&mut bytes, 0)?;
    Ok(Some(Ok(bytes.into())))
}

fn list(media: &dyn Media, folder: &str) -> io::Result<Vec<String>> {
    match media.list(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed,
    }
}

/// The manifest, if there is a filesystem in a state directory; nothing, `Some(None)`, if it is lost.
pub(super) fn manifest(media: &dyn Media, damaged: &mut Vec<Damaged>) -> Result<Option<Option<Manifest>>, RepairError> {
    let found = match read(media, MANIFEST)? {
        // As a mount sees it: without manifest and journal there is nothing.
        None if list(media, FOLDER)?.is_empty() || read(media, WITHDRAWN)?.is_some() => return Ok(None),
        None => Err("is missing, and the journal is there".to_owned()),
        Some(bytes) => bytes.and_then(|bytes| Manifest::decode(&bytes).map_err(|e| e.to_string())),
    };
    let what = match found {
        Ok(manifest) => return Ok(Some(Some(manifest))),
        Err(what) => what,
    };
    damaged.push(Damaged { place: MANIFEST.to_owned(), local: true, what });
    let newer = read(media, MANIFEST_NEW)?.and_then(Result::ok);
    Ok(Some(newer.and_then(|bytes| Manifest::decode(&bytes).ok())))
}

impl Local {
    /// Reads a state directory of this filesystem.
    pub fn read(
        media: &Arc<dyn Media>,
        manifest: Option<Manifest>,
        filesystem: Uuid,
        shelf: &mut Shelf,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Local, RepairError> {
        if let Some(found) = manifest.as_ref().map(|manifest| manifest.uuid).filter(|found| *found != filesystem) {
            return Err(MountError::ForeignState { found, expected: filesystem }.into());
        }
        let mut damaged = Vec::new();
        let (checkpoints, plans, checkpoint_max) =
            Files { media: &**media, filesystem, damaged: &mut damaged }.read(manifest.as_ref())?;
        let durable = match &manifest {
            Some(manifest) => manifest.checkpoint.map(|point| point.lsn),
            None => checkpoints.first().map(|checkpoint| checkpoint.lsn),
        };
        let entries: Vec<JournalEntry> = match &manifest {
            Some(manifest) => manifest.journal.clone(),
            None => discover(media)?,
        };
        let durable = durable.unwrap_or(Lsn::ZERO);
        let remains = remains(media.clone(), entries, manifest.is_some(), durable, progress)?;
        let told = remains.damaged.iter().map(|(place, what)| (place.clone(), what.clone()));
        damaged.extend(told.map(|(place, what)| Damaged { place, local: true, what }));
        let (media, spans) = (media.clone(), Vec::new());
        let epoch = match &manifest {
            Some(manifest) => manifest.epoch,
            None => newest_nodes(&*media)?.max(remains.last.epoch),
        };
        let mut local = Local { media, manifest, checkpoints, plans, remains, spans, checkpoint_max, epoch, damaged };
        local.note_journal(shelf)?;
        local.note_edits(shelf)?;
        local.note_tails(shelf)?;
        Ok(local)
    }

    /// The last batch that was durable here as far as that is known, whatever is left of it.
    pub fn durable(&self) -> Lsn {
        let tails = self.checkpoints.iter().filter_map(|checkpoint| checkpoint.tail).map(|tail| tail.end);
        tails.max().unwrap_or_default().max(self.remains.durable)
    }

    /// Notes which batches the journal has.
    fn note_journal(&mut self, shelf: &mut Shelf) -> Result<(), RepairError> {
        let mut sources: Vec<(u32, u32)> = Vec::new();
        let (media, spans) = (&self.media, &mut self.spans);
        self.remains.each(&mut |left| {
            let source = match sources.iter().find(|(slot, _)| *slot == left.slot) {
                Some((_, source)) => *source,
                None => {
                    sources.push((left.slot, shelf.local(media, Remains::file_of(left.slot))));
                    sources[sources.len() - 1].1
                }
            };
            shelf.journal(source, &left.batch, &left.objects);
            let lsn = left.batch.lsn;
            match spans.last_mut() {
                Some(last) if last.to.pos + 1 == lsn.pos => last.to = lsn,
                _ => {
                    let from = Lsn { pos: lsn.pos.saturating_sub(1), ..lsn };
                    spans.push(Span { from, to: lsn, what: What::Journal });
                }
            }
            Ok::<(), JournalError>(())
        })?;
        Ok(())
    }

    /// Notes the changes that wait to become increments.
    fn note_edits(&mut self, shelf: &mut Shelf) -> Result<(), RepairError> {
        for PlanEntry { number, start, end, edits } in self.plans.clone() {
            let name = edits_file(number);
            let what = match read(&*self.media, &name)? {
                None => Err("is missing".to_owned()),
                Some(bytes) => bytes.and_then(|bytes| changes_in(&bytes, edits, start, end)),
            };
            match what {
                Ok(batches) => {
                    batches.iter().for_each(|batch| shelf.note(batch));
                    let what = What::Changes(Changes::Edits(number));
                    self.spans.push(Span { from: start, to: end, what });
                }
                Err(what) => self.damaged.push(Damaged { place: name, local: true, what }),
            }
        }
        Ok(())
    }

    /// Notes what takeovers left beside their checkpoints.
    fn note_tails(&mut self, shelf: &mut Shelf) -> Result<(), RepairError> {
        for name in list(&*self.media, CHECKPOINTS)? {
            let Some(number) = number_of(&name, tail_file) else { continue };
            let place = tail_file(number);
            let tail = self.checkpoints.iter().find(|checkpoint| checkpoint.number == number);
            let known = tail.and_then(|checkpoint| Some((checkpoint.lsn, checkpoint.tail?)));
            let file = self.media.open(&place)?;
            let len = file.len()?;
            let source = shelf.local(&self.media, place.clone());
            let mut spans = Vec::new();
            let (mut from, mut before, mut end) = (0, known.map(|(lsn, _)| lsn), 0);
            while from < len {
                let to = len.min(from + PIECE_BYTES);
                let mut bytes = vec![0; usize::try_from(to - from).expect("a piece")];
                file.read_at(&mut bytes, from)?;
                let bytes = Bytes::from(bytes);
                let mut last = 0;
                scan(&Scan { bytes: &bytes, range: 0..bytes.len(), before }, &mut |batch, start, run| {
                    shelf.batch(source, batch, &bytes, start, from);
                    let at = from + run.range.start as u64..from + run.range.end as u64;
                    (last, end, before) = (run.range.end as u64, at.end, Some(run.to));
                    join(&mut spans, source, run.from, run.to, at);
                });
                if to == len {
                    break;
                }
                let next = last.max(PIECE_BYTES - OVERLAP_BYTES);
                before = before.filter(|_| next == last);
                from += next;
            }
            let is_whole = end == len && spans.windows(2).all(|pair| pair[0].to == pair[1].from);
            let reaches =
                known.is_none_or(|(_, tail)| tail.bytes == len && spans.last().is_some_and(|span| span.to == tail.end));
            if !is_whole || !reaches {
                let what = "some of its batches are damaged".to_owned();
                self.damaged.push(Damaged { place, local: true, what });
            }
            self.spans.extend(spans);
        }
        for checkpoint in self.checkpoints.iter().filter(|checkpoint| checkpoint.tail.is_some()) {
            let place = tail_file(checkpoint.number);
            if read_is_missing(&*self.media, &place)?
                && self.remains.last < checkpoint.tail.map_or(Lsn::ZERO, |t| t.end)
            {
                self.damaged.push(Damaged { place, local: true, what: "is missing".to_owned() });
            }
        }
        Ok(())
    }
}

/// The highest epoch of a node segment. None is there that is newer than the writer.
fn newest_nodes(media: &dyn Media) -> io::Result<u32> {
    let epoch = |name: &String| name.split_once('-')?.0.parse().ok();
    Ok(list(media, NODES)?.iter().filter_map(epoch).max().unwrap_or(0))
}

fn read_is_missing(media: &dyn Media, name: &str) -> io::Result<bool> {
    match media.open(name) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(true),
        found => found.map(|_| false),
    }
}

/// The number in a name that `name_of` made.
fn number_of(name: &str, name_of: fn(u64) -> String) -> Option<u64> {
    let number = name.get(..10)?.parse().ok()?;
    (name_of(number) == format!("{CHECKPOINTS}/{name}")).then_some(number)
}

/// The batches of a file that has so many bytes, if that is known.
fn changes_in(bytes: &Bytes, expected: Option<u64>, start: Lsn, end: Lsn) -> Result<Vec<Batch>, String> {
    if let Some(expected) = expected.filter(|expected| *expected != bytes.len() as u64) {
        return Err(format!("has {} bytes where {MANIFEST} says {expected}", bytes.len()));
    }
    let (mut at, mut batches) = (0, Vec::new());
    while at < bytes.len() {
        let (batch, used) = Batch::decode(bytes, at).map_err(|e| format!("a bad batch: {e}"))?;
        if batch.lsn <= start || batch.lsn > end {
            return Err(format!("batch {} is outside of {start}-{end}", batch.lsn));
        }
        at += used;
        batches.push(batch);
    }
    Ok(batches)
}

/// Reads the files of checkpoints.
struct Files<'a> {
    media: &'a dyn Media,
    filesystem: Uuid,
    damaged: &'a mut Vec<Damaged>,
}

impl Files<'_> {
    /// Checkpoints, the newest first, plans, and the highest number of any file.
    fn read(&mut self, manifest: Option<&Manifest>) -> Result<(Vec<Checkpoint>, Vec<PlanEntry>, u64), RepairError> {
        let names = list(self.media, CHECKPOINTS)?;
        let numbers: BTreeSet<u64> = names.iter().filter_map(|name| number_of(name, checkpoint_file)).collect();
        let point = manifest.and_then(|manifest| manifest.checkpoint);
        let next = manifest.map_or(0, |manifest| manifest.next_checkpoint.saturating_sub(1));
        let highest = numbers.last().copied().unwrap_or(0).max(next);
        // One that the manifest does not name yet is none.
        let newest = point.map(|point| point.number);
        if let Some(number) = newest.filter(|number| !numbers.contains(number)) {
            self.tell(checkpoint_file(number), "is missing".to_owned());
        }
        let mut checkpoints = Vec::new();
        for number in numbers.into_iter().rev().filter(|number| newest.is_none_or(|newest| *number <= newest)) {
            let lsn = point.filter(|point| point.number == number).map(|point| point.lsn);
            match self.checkpoint(number, lsn)? {
                Ok(checkpoint) => checkpoints.push(checkpoint),
                Err(what) => self.tell(checkpoint_file(number), what),
            }
        }
        let plans = match manifest {
            Some(manifest) => manifest.plans.clone(),
            None => self.plans(&names)?,
        };
        Ok((checkpoints, plans, highest))
    }

    fn checkpoint(&self, number: u64, lsn: Option<Lsn>) -> io::Result<Result<Checkpoint, String>> {
        let Some(bytes) = read(self.media, &checkpoint_file(number))? else { return Ok(Err("is missing".to_owned())) };
        Ok(bytes.and_then(|bytes| {
            let checkpoint = Checkpoint::decode(&bytes).map_err(|e| e.to_string())?;
            if checkpoint.uuid != self.filesystem {
                return Err(format!("belongs to filesystem {}", checkpoint.uuid));
            }
            if checkpoint.number != number {
                return Err(format!("says it is checkpoint {}", checkpoint.number));
            }
            match lsn.filter(|lsn| *lsn != checkpoint.lsn) {
                Some(lsn) => Err(format!("is at {}, {MANIFEST} says {lsn}", checkpoint.lsn)),
                None => Ok(checkpoint),
            }
        }))
    }

    /// What the files of plans say of themselves.
    fn plans(&mut self, names: &[String]) -> io::Result<Vec<PlanEntry>> {
        let mut plans = Vec::new();
        for number in names.iter().filter_map(|name| number_of(name, plan_file)) {
            let Some(bytes) = read(self.media, &plan_file(number))? else { continue };
            match bytes.and_then(|bytes| PlanHeader::decode(&bytes).map_err(|e| e.to_string())) {
                Ok(plan) if plan.uuid == self.filesystem => {
                    plans.push(PlanEntry { number, start: plan.start, end: plan.end, edits: None });
                }
                Ok(plan) => self.tell(plan_file(number), format!("belongs to filesystem {}", plan.uuid)),
                Err(what) => self.tell(plan_file(number), what),
            }
        }
        Ok(plans)
    }

    fn tell(&mut self, place: String, what: String) {
        self.damaged.push(Damaged { place, local: true, what });
    }
}
