//! Starting to write: accepts what replay found, and makes the first segments of this mount ready.

use super::files::Files;
use super::prepare::record_ends;
use super::segment::{self, FOLDER, Filling, Pace, Segment, Slot, remove_slot, slot_name};
use super::shared::Journal;
use super::{Config, JournalError, ManifestStore, Replayed, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, Writer, is_full};
use crate::base::canary::{Canary, removed, sync};
use crate::base::clock::Clock;
use crate::base::random::Random;
use crate::base::trouble::Trouble;
use crate::format::group::GROUP_BLOCK;
use crate::format::ids::{JournalNo, Nonce};
use crate::format::manifest::Manifest;
use crate::media::Media;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Opens the journal for writing after what was replayed. The order keeps every crash on the way harmless: what was
/// accepted is synced, then one change of the manifest records where it ends and names the segments of this mount, and only
/// then can a batch be written.
pub fn open(
    media: Arc<dyn Media>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    manifest: ManifestStore,
    replayed: Replayed,
    config: Config,
) -> Result<(Arc<Journal>, Writer), JournalError> {
    check(&config)?;
    sync_accepted(&replayed)?;
    let old = manifest.current();
    make_folder(&*media)?;
    remove_unlisted(&*media, &old)?;
    let nonce = if removed(Canary::Nonce) { Nonce(1) } else { Nonce(random.u128()) };
    let mut ready = Ready { next_number: next_number(&old), next_slot: next_slot(&old), slots: VecDeque::new() };
    let files = Arc::clone(&replayed.files);
    let unused = ready.reuse(&files, &old, &replayed, &config)?;
    let full = ready.fill(&*media, &config)?;
    let ends: Vec<_> = replayed.segments.iter().map(|segment| (segment.number, segment.recorded_end())).collect();
    manifest.update(|manifest| {
        record_ends(manifest, &ends);
        manifest.journal.retain(|entry| ends.iter().any(|(number, _)| *number == entry.number));
        manifest.journal.extend(ready.slots.iter().map(|slot| slot.entry(nonce)));
        manifest.free.clear();
    })?;
    for slot in unused {
        files.forget(slot);
        remove_slot(&*media, slot);
    }

    let mut segments = VecDeque::from(replayed.segments);
    let active = ready.slots.pop_front().expect("the first segment was made ready");
    let file = media.open(&slot_name(active.slot)).map_err(|e| JournalError::io("open", slot_name(active.slot), e))?;
    segments.push_back(Segment::empty(active, file, nonce, replayed.last, 0));
    let journal = Arc::new(Journal::new(config, clock, manifest, segments, ready.slots.len() as u64, full));
    let writer = Writer {
        journal: Arc::clone(&journal),
        media,
        files,
        nonce,
        next_number: ready.next_number,
        next_slot: ready.next_slot,
        spares: ready.slots,
        filling: None,
        waited_for_at: None,
        group: Vec::new(),
        retry_at: Duration::ZERO,
        no_segment: Trouble::default(),
        leftover: None,
    };
    Ok((journal, writer))
}

fn check(config: &Config) -> Result<(), JournalError> {
    if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&config.segment_bytes) {
        return Err(JournalError::Config("a journal segment has 64 KiB to 1 GiB"));
    }
    if config.segment_bytes as usize % GROUP_BLOCK != 0 {
        return Err(JournalError::Config("the size of a journal segment is a multiple of 4 KiB"));
    }
    Ok(())
}

/// What replay accepted may be in the page cache only. It is what new batches build on, so it must be durable before them.
fn sync_accepted(replayed: &Replayed) -> Result<(), JournalError> {
    if removed(Canary::TailSync) {
        return Ok(());
    }
    for segment in replayed.segments.iter().filter(|segment| replayed.unended.contains(&segment.number)) {
        segment.file.sync().map_err(|e| JournalError::io("sync", slot_name(segment.slot), e))?;
    }
    Ok(())
}

fn make_folder(media: &dyn Media) -> Result<(), JournalError> {
    media.make_dir(FOLDER).map_err(|e| JournalError::io("make", FOLDER, e))?;
    sync(Canary::JournalDirSync, || media.sync_dir("")).map_err(|e| JournalError::io("sync the folder of", FOLDER, e))
}

/// A slot file that the manifest does not list was being prepared when a mount ended: nothing is in it.
fn remove_unlisted(media: &dyn Media, manifest: &Manifest) -> Result<(), JournalError> {
    let listed: BTreeSet<String> = slots(manifest).map(slot_name).collect();
    for name in media.list(FOLDER).map_err(|e| JournalError::io("list", FOLDER, e))? {
        let path = format!("{FOLDER}/{name}");
        if name.starts_with("slot-") && !listed.contains(&path) {
            media.remove(&path).map_err(|e| JournalError::io("remove", path, e))?;
        }
    }
    Ok(())
}

fn slots(manifest: &Manifest) -> impl Iterator<Item = u32> {
    manifest.journal.iter().map(|entry| entry.slot).chain(manifest.free.iter().map(|free| free.slot))
}

/// Numbers go on; none is given twice.
fn next_number(manifest: &Manifest) -> JournalNo {
    JournalNo(manifest.journal.last().map_or(1, |entry| entry.number.0 + 1))
}

fn next_slot(manifest: &Manifest) -> u32 {
    slots(manifest).max().map_or(1, |slot| slot + 1)
}

/// The slots that this mount starts with.
struct Ready {
    next_number: JournalNo,
    next_slot: u32,
    slots: VecDeque<Slot>,
}

impl Ready {
    /// Takes the listed slots that hold nothing. Returns those that are of no use: of another size, or too many.
    fn reuse(
        &mut self,
        files: &Arc<Files>,
        manifest: &Manifest,
        replayed: &Replayed,
        config: &Config,
    ) -> Result<Vec<u32>, JournalError> {
        let holding: BTreeSet<u32> = replayed.segments.iter().map(|segment| segment.slot).collect();
        let listed = manifest.journal.iter().map(|entry| (entry.slot, entry.size));
        let free = manifest.free.iter().map(|free| (free.slot, free.size));
        let mut unused = Vec::new();
        let most = config.slots_max().saturating_sub(replayed.segments.len() as u64).max(config.slots_min());
        for (slot, size) in listed.chain(free).filter(|(slot, _)| !holding.contains(slot)) {
            if size != u64::from(config.segment_bytes) || self.slots.len() as u64 == most {
                unused.push(slot);
                continue;
            }
            segment::listed(files, slot, size)?;
            self.push(Slot { number: self.next_number, slot, size: config.segment_bytes });
        }
        Ok(unused)
    }

    /// Makes new slots, as many as must be there before the first batch, also when segments that wait to be reclaimed
    /// already take all of the journal's size. Returns whether the disk is too full for that.
    fn fill(&mut self, media: &dyn Media, config: &Config) -> Result<bool, JournalError> {
        while (self.slots.len() as u64) < config.slots_min() {
            match fill_one(media, self.next_slot, config.segment_bytes) {
                Ok(filling) => {
                    self.next_slot += 1;
                    let slot = filling.numbered(self.next_number);
                    self.push(slot);
                }
                Err(e) if is_full(&e) && !self.slots.is_empty() => return Ok(true),
                Err(e) if is_full(&e) => return Err(JournalError::DiskFull(e.to_string())),
                Err(e) => return Err(JournalError::io("prepare", slot_name(self.next_slot), e)),
            }
        }
        Ok(false)
    }

    fn push(&mut self, slot: Slot) {
        self.next_number.0 += 1;
        self.slots.push_back(slot);
    }
}

fn fill_one(media: &dyn Media, slot: u32, size: u32) -> std::io::Result<Filling> {
    let mut filling = Filling::start(media, slot, size)?;
    while !filling.is_durable() {
        if let Err(e) = filling.step(media, Pace::Fast) {
            filling.abandon(media);
            return Err(e);
        }
    }
    Ok(filling)
}

impl Config {
    /// Empty segments that a mount starts with: one to write to, and what keeps the reserve.
    fn slots_min(&self) -> u64 {
        1 + self.reserve().div_ceil(self.slot_room())
    }
}
