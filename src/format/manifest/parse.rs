//! Reading the manifest, line by line.

use super::line::{Line, fault};
use super::{CommitPoint, FIRST_LINE, FreeSlot, JournalEntry, Manifest, PlanEntry, RecordedEnd, VERSION};
use crate::base::canary::{Canary, removed};
use crate::format::error::FormatError;
use crate::format::ids::{JournalNo, Uuid};
use std::collections::BTreeSet;
use std::fmt::Display;

pub(super) fn parse(bytes: &[u8]) -> Result<Manifest, FormatError> {
    if bytes.is_empty() {
        return Err(fault(1, "the manifest is empty"));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let before = &bytes[..e.valid_up_to()];
        fault(1 + before.iter().filter(|&&b| b == b'\n').count(), "not text")
    })?;
    let count = text.lines().count();
    let complete = text.strip_suffix('\n').ok_or_else(|| fault(count, "the last line is cut short"))?;
    check_first_line(complete.split('\n').next().unwrap_or_default())?;
    let mut parts = Parts::default();
    for (i, line) in complete.split('\n').enumerate().skip(1) {
        let line = Line::cut(i + 1, line)?;
        if parts.crc.is_some() {
            return Err(line.fault("a line after the checksum"));
        }
        parts.take(&line)?;
    }
    check_crc(text, parts.crc.take(), count)?;
    parts.finish(count)
}

fn check_first_line(line: &str) -> Result<(), FormatError> {
    let version = line.strip_prefix(FIRST_LINE).and_then(|version| version.parse::<u32>().ok());
    match version {
        Some(VERSION) if line.len() == FIRST_LINE.len() + 1 => Ok(()),
        Some(found) if found > VERSION => Err(FormatError::Version { supported: VERSION, found }),
        _ => Err(fault(1, "not the first line of a skylog manifest")),
    }
}

/// The checksum covers every byte before its own line.
fn check_crc(text: &str, recorded: Option<String>, line: usize) -> Result<(), FormatError> {
    let recorded = recorded.ok_or_else(|| fault(line, "the checksum is missing: the manifest is cut short"))?;
    let covered = text.rfind("crc=").unwrap_or(text.len());
    let computed = format!("{:08x}", crc32c::crc32c(&text.as_bytes()[..covered]));
    if text[covered..] == format!("crc={computed}\n") || removed(Canary::ManifestCrc) {
        return Ok(());
    }
    Err(fault(line, format!("checksum mismatch: recorded {recorded}, computed {computed}")))
}

/// What was read so far.
#[derive(Default)]
struct Parts {
    uuid: Option<Uuid>,
    state: Option<Uuid>,
    epoch: Option<u32>,
    generation: Option<u64>,
    next_checkpoint: Option<u64>,
    checkpoint: Option<CommitPoint>,
    plans: Vec<PlanEntry>,
    journal: Vec<JournalEntry>,
    free: Vec<FreeSlot>,
    history: Vec<String>,
    crc: Option<String>,
    /// What is in the lists: none is searched for each line.
    slots: BTreeSet<u32>,
    files: BTreeSet<String>,
}

impl Parts {
    fn take(&mut self, line: &Line<'_>) -> Result<(), FormatError> {
        match line.word {
            "uuid" => once(line, &mut self.uuid, line.value("uuid")?),
            "state" => once(line, &mut self.state, line.value("state")?),
            "epoch" => once(line, &mut self.epoch, line.value("epoch")?),
            "generation" => once(line, &mut self.generation, line.counted("generation")?),
            "next_checkpoint" => once(line, &mut self.next_checkpoint, line.counted("next_checkpoint")?),
            "checkpoint" => once(line, &mut self.checkpoint, commit_point(line)?),
            "plan" => {
                let plan = plan(line)?;
                increasing(line, "plan", self.plans.last().map(|last| last.number), plan.number)?;
                self.plans.push(plan);
                Ok(())
            }
            "journal" => self.take_journal(line),
            "free" => {
                let free = FreeSlot { slot: line.value("slot")?, size: line.counted("size")? };
                self.slot_is_new(line, free.slot)?;
                self.free.push(free);
                Ok(())
            }
            "history" => self.take_history(line),
            "crc" => {
                self.crc = Some(line.value("crc")?);
                Ok(())
            }
            "" => Err(line.fault("an empty line")),
            word => Err(line.fault(format!("unknown line type {word:?}"))),
        }
    }

    fn take_journal(&mut self, line: &Line<'_>) -> Result<(), FormatError> {
        let entry = journal(line)?;
        increasing(line, "journal", self.journal.last().map(|last| last.number), entry.number)?;
        self.slot_is_new(line, entry.slot)?;
        self.journal.push(entry);
        Ok(())
    }

    /// A slot file holds one thing.
    fn slot_is_new(&mut self, line: &Line<'_>, slot: u32) -> Result<(), FormatError> {
        match self.slots.insert(slot) {
            true => Ok(()),
            false => Err(line.fault(format!("slot {slot} is there twice"))),
        }
    }

    fn take_history(&mut self, line: &Line<'_>) -> Result<(), FormatError> {
        let file: String = line.value("file")?;
        let inside = file.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !inside {
            return Err(line.fault(format!("{file:?} is not a file of the state directory")));
        }
        if !self.files.insert(file.clone()) {
            return Err(line.fault(format!("file {file} is there twice")));
        }
        self.history.push(file);
        Ok(())
    }

    fn finish(self, last_line: usize) -> Result<Manifest, FormatError> {
        let missing = |key: &'static str| move || fault(last_line, format!("there is no line {key}="));
        let manifest = Manifest {
            uuid: self.uuid.ok_or_else(missing("uuid"))?,
            state: self.state.ok_or_else(missing("state"))?,
            epoch: self.epoch.ok_or_else(missing("epoch"))?,
            generation: self.generation.ok_or_else(missing("generation"))?,
            next_checkpoint: self.next_checkpoint.ok_or_else(missing("next_checkpoint"))?,
            checkpoint: self.checkpoint,
            plans: self.plans,
            journal: self.journal,
            free: self.free,
            history: self.history,
        };
        let used = manifest.checkpoint.map(|point| point.number).max(manifest.plans.last().map(|plan| plan.number));
        if used.is_some_and(|used| used >= manifest.next_checkpoint) {
            return Err(fault(last_line, "next_checkpoint is a number that is in use"));
        }
        Ok(manifest)
    }
}

fn once<T>(line: &Line<'_>, place: &mut Option<T>, value: T) -> Result<(), FormatError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(line.fault(format!("a second line {}", line.word))),
    }
}

fn increasing<T: PartialOrd + Display>(
    line: &Line<'_>,
    what: &str,
    last: Option<T>,
    number: T,
) -> Result<(), FormatError> {
    match last {
        Some(last) if last >= number => Err(line.fault(format!("{what} {number} follows {what} {last}"))),
        _ => Ok(()),
    }
}

fn commit_point(line: &Line<'_>) -> Result<CommitPoint, FormatError> {
    Ok(CommitPoint { number: line.counted("number")?, lsn: line.value("lsn")? })
}

fn plan(line: &Line<'_>) -> Result<PlanEntry, FormatError> {
    let edits = line.text("edits").map(|_| line.counted("edits")).transpose()?;
    let plan =
        PlanEntry { number: line.counted("number")?, start: line.value("start")?, end: line.value("end")?, edits };
    if plan.start > plan.end {
        return Err(line.fault("a window that ends before it starts"));
    }
    Ok(plan)
}

fn journal(line: &Line<'_>) -> Result<JournalEntry, FormatError> {
    let end = match line.text("end") {
        None => None,
        Some(_) => Some(RecordedEnd {
            offset: line.counted("end")?,
            last: line.value("last")?,
            sequence: line.counted("sequence")?,
        }),
    };
    let entry = JournalEntry {
        number: JournalNo(line.counted("number")?),
        slot: line.value("slot")?,
        size: line.counted("size")?,
        nonce: line.value("nonce")?,
        end,
    };
    if end.is_some_and(|end| end.offset > entry.size) {
        return Err(line.fault("the end is beyond the size"));
    }
    Ok(entry)
}
