//! The manifest of a state directory: which checkpoint counts, which journal segments there are and where. It is text, so
//! that it can be read in need, and strict, so that a damaged one is never half believed: anything but an unknown key in a
//! known line is fatal, with the line and the reason.

mod line;
mod parse;

use super::error::FormatError;
use super::ids::{JournalNo, Lsn, Nonce, Uuid};
use std::fmt::Write;

const FIRST_LINE: &str = "skylog-manifest ";
const VERSION: u32 = 1;

/// What a state directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The filesystem.
    pub uuid: Uuid,
    /// The state directory.
    pub state: Uuid,
    /// The epoch of its writer.
    pub epoch: u32,
    /// The generation in the store that the writer owns.
    pub generation: u64,
    /// The number of the next checkpoint; above all that were ever used.
    pub next_checkpoint: u64,
    /// The commit point: all up to its Lsn is in that checkpoint.
    pub checkpoint: Option<CommitPoint>,
    /// Plans of windows not yet recorded as shipped, by increasing number.
    pub plans: Vec<PlanEntry>,
    /// Journal segments, by increasing number.
    pub journal: Vec<JournalEntry>,
    /// Slots that hold nothing and may be used again.
    pub free: Vec<FreeSlot>,
    /// Files that are to be deleted.
    pub history: Vec<String>,
}

/// The checkpoint that recovery starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitPoint {
    /// Its number.
    pub number: u64,
    /// All batches up to this one are in it.
    pub lsn: Lsn,
}

/// The plan of a window, `ckpt/<number>.plan`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanEntry {
    /// The checkpoint it was made with.
    pub number: u64,
    /// Where the window starts; not in it.
    pub start: Lsn,
    /// Where it ends; in it.
    pub end: Lsn,
    /// Bytes of what its increment replays; not known where an older program wrote it. *Why:* its batches carry checksums, and a
    /// file that lacks the last of them looks whole.
    pub edits: Option<u64>,
}

/// A journal segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// Its number.
    pub number: JournalNo,
    /// The slot file that holds it.
    pub slot: u32,
    /// Bytes of the slot file.
    pub size: u64,
    /// The mount that writes it: groups with another nonce are not part of it.
    pub nonce: Nonce,
    /// Where its groups end, once that is known. Before, a scan finds it.
    pub end: Option<RecordedEnd>,
}

/// Where the groups of a journal segment end. Everything before is durable, so every flipped bit there is damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedEnd {
    /// Bytes of groups.
    pub offset: u64,
    /// The last Lsn in the segment, or in those before if it holds none.
    pub last: Lsn,
    /// The sequence of its last group; 0 if there is none.
    pub sequence: u64,
}

/// A slot file that may be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeSlot {
    /// The slot.
    pub slot: u32,
    /// Bytes of the file.
    pub size: u64,
}

impl Manifest {
    /// That of a state directory with nothing in it, for a writer that owns `generation`.
    pub fn new(uuid: Uuid, state: Uuid, epoch: u32, generation: u64) -> Manifest {
        Manifest {
            uuid,
            state,
            epoch,
            generation,
            next_checkpoint: 1,
            checkpoint: None,
            plans: Vec::new(),
            journal: Vec::new(),
            free: Vec::new(),
            history: Vec::new(),
        }
    }

    /// The text.
    ///
    /// # Panics
    /// When [`Manifest::decode`] would refuse it: a manifest that cannot be read back must not reach the disk.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        self.write_to(&mut text).expect("writing to a string does not fail");
        let crc = crc32c::crc32c(text.as_bytes());
        text.push_str(&format!("crc={crc:08x}\n"));
        assert_eq!(Manifest::decode(text.as_bytes()).as_ref(), Ok(self), "a manifest is read back as it was");
        text
    }

    fn write_to(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "{FIRST_LINE}{VERSION}")?;
        writeln!(out, "uuid={}", self.uuid)?;
        writeln!(out, "state={}", self.state)?;
        writeln!(out, "epoch={}", self.epoch)?;
        writeln!(out, "generation={}", self.generation)?;
        writeln!(out, "next_checkpoint={}", self.next_checkpoint)?;
        if let Some(CommitPoint { number, lsn }) = self.checkpoint {
            writeln!(out, "checkpoint number={number} lsn={lsn}")?;
        }
        for PlanEntry { number, start, end, edits } in &self.plans {
            write!(out, "plan number={number} start={start} end={end}")?;
            edits.iter().try_for_each(|edits| write!(out, " edits={edits}"))?;
            writeln!(out)?;
        }
        for JournalEntry { number, slot, size, nonce, end } in &self.journal {
            write!(out, "journal number={number} slot={slot} size={size} nonce={nonce}")?;
            if let Some(RecordedEnd { offset, last, sequence }) = end {
                write!(out, " end={offset} last={last} sequence={sequence}")?;
            }
            writeln!(out)?;
        }
        for FreeSlot { slot, size } in &self.free {
            writeln!(out, "free slot={slot} size={size}")?;
        }
        for file in &self.history {
            writeln!(out, "history file={file}")?;
        }
        Ok(())
    }

    /// Reads the text. Every fault is a [`FormatError::Line`], except a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, FormatError> {
        parse::parse(bytes)
    }
}

#[cfg(test)]
mod tests;
