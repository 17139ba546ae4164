//! Reading objects that are in the journal: pending in memory, or written to a segment.

use super::directory::{Found, read_block, search};
use super::{Journal, JournalError};
use crate::format::FormatError;
use crate::format::chunk::ChunkHeader;
use crate::format::ids::{JournalNo, ObjectId};
use crate::format::journal_directory::{DirectoryEntry, Footer};
use crate::media::File;
use bytes::Bytes;
use std::sync::Arc;

/// The segment that an object would be in.
struct Candidate {
    number: JournalNo,
    size: u32,
    file: Arc<dyn File>,
    found: Found,
}

impl Journal {
    /// An object whose bytes are not written yet. A miss means that they are, or that it never was here: see
    /// [`Journal::read`].
    pub fn resident(&self, id: &ObjectId) -> Option<Bytes> {
        self.state.lock().pending.get(id).cloned()
    }

    /// An object of the journal, pending or written, its checksum verified. `None` if it is not (or no longer) here.
    /// Reads from disk.
    pub fn read(&self, id: &ObjectId) -> Result<Option<Bytes>, JournalError> {
        let candidate = {
            let state = self.state.lock();
            if let Some(bytes) = state.pending.get(id) {
                return Ok(Some(bytes.clone()));
            }
            let at = state.segments.partition_point(|segment| segment.last < id.lsn);
            match state.segments.get(at).filter(|segment| segment.first.is_some_and(|first| first <= id.lsn)) {
                None => return Ok(None),
                Some(segment) => Candidate {
                    number: segment.number,
                    size: segment.size,
                    file: Arc::clone(&segment.file),
                    found: segment.directory.find(id),
                },
            }
        };
        let entry = match candidate.found {
            Found::Nowhere => return Ok(None),
            Found::At(entry) => entry,
            Found::InBlock { footer, number } => match candidate.block(&footer, number)? {
                Ok(entries) => match search(&entries, id) {
                    None => return Ok(None),
                    Some(entry) => entry,
                },
                Err(e) => {
                    let offset = footer.block_offset(number, u64::from(candidate.size)).unwrap_or_default();
                    return self.gone_or_damaged(&candidate, offset, &e);
                }
            },
        };
        candidate.read(&entry).or_else(|e| match e {
            ReadError::Io(e) => Err(candidate.io(e)),
            ReadError::Damaged(e) => self.gone_or_damaged(&candidate, u64::from(entry.offset), &e),
        })
    }

    /// A segment that was reclaimed since it was looked up may hold other bytes by now: then the object is simply not here
    /// any more. Only under a number that still stands is it damage.
    fn gone_or_damaged(
        &self,
        candidate: &Candidate,
        offset: u64,
        error: &FormatError,
    ) -> Result<Option<Bytes>, JournalError> {
        let stands = self.state.lock().segments.iter().any(|segment| segment.number == candidate.number);
        match stands {
            false => Ok(None),
            true => Err(JournalError::Damaged { segment: candidate.number, offset, reason: error.to_string() }),
        }
    }
}

enum ReadError {
    Io(std::io::Error),
    Damaged(FormatError),
}

impl Candidate {
    fn block(&self, footer: &Footer, number: usize) -> Result<Result<Vec<DirectoryEntry>, FormatError>, JournalError> {
        read_block(&*self.file, footer, number, self.size).map_err(|e| self.io(e))
    }

    fn read(&self, entry: &DirectoryEntry) -> Result<Option<Bytes>, ReadError> {
        let mut bytes = vec![0; entry.len as usize];
        self.file.read_at(&mut bytes, u64::from(entry.offset)).map_err(ReadError::Io)?;
        let found = ChunkHeader::raw(&bytes).crc;
        if found != entry.crc {
            return Err(ReadError::Damaged(FormatError::Checksum { expected: entry.crc, found }));
        }
        Ok(Some(Bytes::from(bytes)))
    }

    fn io(&self, source: std::io::Error) -> JournalError {
        JournalError::io("read", format!("journal segment {}", self.number), source)
    }
}
