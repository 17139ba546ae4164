//! Segments and the slot files they lie in.

use super::directory::Directory;
use super::files::Files;
use super::{JournalError, budget};
use crate::base::canary::{Canary, sync};
use crate::format::ids::{JournalNo, Lsn, Nonce};
use crate::format::manifest::{JournalEntry, RecordedEnd};
use crate::media::{File, Media};
use std::io;
use std::sync::Arc;

/// The folder of the slot files.
pub const FOLDER: &str = "journal";

/// The name of a slot file.
pub(super) fn slot_name(slot: u32) -> String {
    format!("{FOLDER}/slot-{slot:06}")
}

/// A slot file that is filled, durable and named in the manifest under a number, and empty under that number.
pub(super) struct Slot {
    pub number: JournalNo,
    pub slot: u32,
    pub size: u32,
}

impl Slot {
    /// Its line in the manifest.
    pub fn entry(&self, nonce: Nonce) -> JournalEntry {
        JournalEntry { number: self.number, slot: self.slot, size: u64::from(self.size), nonce, end: None }
    }
}

/// A segment that is being written, or holds something.
pub(super) struct Segment {
    pub number: JournalNo,
    pub slot: u32,
    pub size: u32,
    pub nonce: Nonce,
    /// The file itself while it is written; afterwards one of [`Files`].
    pub file: Arc<dyn File>,
    /// Bytes of its groups.
    pub end: u32,
    /// The Lsn of its first batch.
    pub first: Option<Lsn>,
    /// The Lsn of its last batch; of the last one before it if it has none.
    pub last: Lsn,
    /// The sequence of its last group; of the last one before it in this mount if it has none.
    pub sequence: u64,
    pub directory: Directory,
}

impl Segment {
    /// An empty segment that goes on where the log is.
    pub fn empty(slot: Slot, file: Arc<dyn File>, nonce: Nonce, last: Lsn, sequence: u64) -> Segment {
        Segment {
            number: slot.number,
            slot: slot.slot,
            size: slot.size,
            nonce,
            file,
            end: 0,
            first: None,
            last,
            sequence,
            directory: Directory::empty(),
        }
    }

    /// Where it ends, for the manifest.
    pub fn recorded_end(&self) -> RecordedEnd {
        let sequence = if self.end == 0 { 0 } else { self.sequence };
        RecordedEnd { offset: u64::from(self.end), last: self.last, sequence }
    }

    /// The sum of costs that it surely still takes.
    pub fn guaranteed(&self) -> u64 {
        budget::guaranteed(self.size, self.end, self.directory.len())
    }
}

/// A slot file that the manifest lists.
pub(super) fn listed(files: &Arc<Files>, slot: u32, size: u64) -> Result<Arc<dyn File>, JournalError> {
    let name = slot_name(slot);
    let file = files.file(slot);
    let found = match file.len() {
        Ok(len) => len,
        // A listed file that is missing is fatal: what it held was promised.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(JournalError::Missing { file: name }),
        Err(e) => return Err(JournalError::io("open", name, e)),
    };
    if found != size {
        return Err(JournalError::WrongSize { file: name, expected: size, found });
    }
    Ok(file)
}

static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
/// How much of a slot file is filled before the writer looks at its queue again.
const FILL_BYTES: u32 = 4 << 20;
/// The same while one sync after another is waited for: about what a group of small writes takes.
const FILL_BESIDE_BYTES: u32 = 128 << 10;

/// How fast a slot file is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Nobody waits for a sync, or someone waits for the room.
    Fast,
    /// Between syncs that people wait for, so that none of them takes much longer.
    Beside,
}

/// A slot file that is being filled. No number is given to it, and nothing names it, before it is durable.
pub(super) struct Filling {
    pub slot: u32,
    size: u32,
    filled: u32,
    durable: bool,
    file: Arc<dyn File>,
}

impl Filling {
    /// Creates the file. Fails with `AlreadyExists` if the name is taken: a slot is never anything that was there before.
    pub fn start(media: &dyn Media, slot: u32, size: u32) -> io::Result<Filling> {
        Ok(Filling { slot, size, filled: 0, durable: false, file: media.create(&slot_name(slot))? })
    }

    /// Writes some of the file, and at its end makes file and name durable.
    pub fn step(&mut self, media: &dyn Media, pace: Pace) -> io::Result<()> {
        let part = if pace == Pace::Fast { FILL_BYTES } else { FILL_BESIDE_BYTES };
        let stop = self.size.min(self.filled + part);
        while self.filled < stop {
            let len = (stop - self.filled).min(ZEROS.len() as u32);
            self.file.write_at(&ZEROS[..len as usize], u64::from(self.filled))?;
            self.filled += len;
        }
        // A part at a time, so that a sync someone waits for never waits for more than a part. Small parts are left to the
        // disk to begin with: what it has not done at the end is synced then, before anything names the file.
        if pace == Pace::Fast || self.filled == self.size {
            sync(Canary::SlotSync, || self.file.sync())?;
        }
        if self.filled == self.size {
            sync(Canary::SlotDirSync, || media.sync_dir(FOLDER))?;
            // Nobody reads the zeros, and a short write into one of their large pages is accounted as all of it.
            let _ = self.file.forget_cached();
            self.durable = true;
        }
        Ok(())
    }

    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// The ready file under its number.
    pub fn numbered(self, number: JournalNo) -> Slot {
        debug_assert!(self.durable, "a slot is named when it is durable");
        Slot { number, slot: self.slot, size: self.size }
    }

    /// Removes the file. One that cannot be removed now is removed at the next mount, as no manifest lists it.
    pub fn abandon(self, media: &dyn Media) {
        remove_slot(media, self.slot);
    }
}

/// Removes a slot file that the manifest does not list.
pub(super) fn remove_slot(media: &dyn Media, slot: u32) {
    let name = slot_name(slot);
    if let Err(e) = media.remove(&name) {
        log::warn!("cannot remove {name}, the next mount will: {e}");
    }
}
