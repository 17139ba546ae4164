//! Reading objects that are in the journal: pending in memory, or written to a segment.

use super::directory::{Found, ReadAt, from_disk, from_memory, read_block, search};
use super::segment::Segment;
use super::{Journal, JournalError};
use crate::base::canary::{Canary, removed};
use crate::format::FormatError;
use crate::format::chunk::ChunkHeader;
use crate::format::ids::{JournalNo, ObjectId};
use crate::format::journal_directory::DirectoryEntry;
use crate::media::File;
use bytes::Bytes;
use std::sync::Arc;

/// The segment that an object would be in.
pub(super) struct Candidate {
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

    /// An object that is written, if the system holds it in memory, its checksum verified. A miss says nothing: see
    /// [`Journal::read`].
    pub fn read_resident(&self, id: &ObjectId) -> Option<Bytes> {
        let candidate = {
            let state = self.state.lock();
            state.holder_of(id).map(|segment| Candidate::of(segment, id))?
        };
        let entry = candidate.entry(id, from_memory).ok()??;
        candidate.read(&entry, from_memory).ok()
    }

    /// An object of the journal, pending or written, its checksum verified. `None` if it is not (or no longer) here.
    /// Reads from disk.
    pub fn read(&self, id: &ObjectId) -> Result<Option<Bytes>, JournalError> {
        let candidate = {
            let state = self.state.lock();
            if let Some(bytes) = state.pending.get(id) {
                return Ok(Some(bytes.clone()));
            }
            match state.holder_of(id) {
                None => return Ok(None),
                Some(segment) => Candidate::of(segment, id),
            }
        };
        let read = match candidate.entry(id, from_disk) {
            Ok(None) => return Ok(None),
            Ok(Some(entry)) => candidate.read(&entry, from_disk),
            Err(e) => Err(e),
        };
        read.map(Some).or_else(|e| self.unless_gone(&candidate, e))
    }

    /// A segment that was reclaimed since it was looked up may hold other bytes by now, or be gone: then the object is simply
    /// not here any more. Only under a number that still stands is it damage, or a disk that fails.
    fn unless_gone(&self, candidate: &Candidate, error: JournalError) -> Result<Option<Bytes>, JournalError> {
        let stands = self.state.lock().segments.iter().any(|segment| segment.number == candidate.number);
        if stands { Err(error) } else { Ok(None) }
    }
}

impl Candidate {
    /// What the memory of a segment says about an object.
    pub(super) fn of(segment: &Segment, id: &ObjectId) -> Candidate {
        Candidate {
            number: segment.number,
            size: segment.size,
            file: Arc::clone(&segment.file),
            found: segment.directory.find(id),
        }
    }

    /// Where in the segment the object is; `None` if it is not in it. May read from disk.
    pub(super) fn entry(&self, id: &ObjectId, read_at: ReadAt) -> Result<Option<DirectoryEntry>, JournalError> {
        match &self.found {
            Found::Nowhere => Ok(None),
            Found::At(entry) => Ok(Some(*entry)),
            Found::InBlock { footer, number } => {
                let block = read_block(&*self.file, read_at, footer, *number, self.size).map_err(|e| self.io(e))?;
                let offset = || footer.block_offset(*number, u64::from(self.size)).unwrap_or_default();
                let entries = block.map_err(|e| self.damaged(offset(), &e))?;
                Ok(search(&entries, id))
            }
        }
    }

    /// The bytes at a place in the segment, verified.
    pub(super) fn read(&self, entry: &DirectoryEntry, read_at: ReadAt) -> Result<Bytes, JournalError> {
        let mut bytes = vec![0; entry.len as usize];
        read_at(&*self.file, &mut bytes, u64::from(entry.offset)).map_err(|e| self.io(e))?;
        let found = ChunkHeader::raw(&bytes).crc;
        if found != entry.crc && !removed(Canary::JournalObjectCrc) {
            let error = FormatError::Checksum { expected: entry.crc, found };
            return Err(self.damaged(u64::from(entry.offset), &error));
        }
        Ok(Bytes::from(bytes))
    }

    fn damaged(&self, offset: u64, error: &FormatError) -> JournalError {
        JournalError::Damaged { segment: self.number, offset, reason: error.to_string() }
    }

    fn io(&self, source: std::io::Error) -> JournalError {
        JournalError::io("read", format!("journal segment {}", self.number), source)
    }
}
