//! Reading groups from a segment that may hold anything: torn, lost and reordered writes of the mount that wrote it, and
//! what the file held before. Scanning never writes.

use super::JournalError;
use crate::format::batch::Batch;
use crate::format::group::{GROUP_BLOCK, GROUP_HEADER_BYTES, GroupHeader, decode_group, peek};
use crate::format::ids::ObjectId;
use crate::format::journal_directory::{DIRECTORY_BLOCK, DirectoryEntry};
use crate::format::manifest::JournalEntry;
use crate::media::File;
use bytes::Bytes;
use std::ops::Range;

/// What is read at a time when nothing says where the next group is; a multiple of the block.
const PIECE_BYTES: usize = 1 << 20;

/// A segment as the manifest lists it, with its file.
pub(super) struct Listed<'a> {
    pub entry: &'a JournalEntry,
    pub file: &'a dyn File,
}

/// A group whose checksum is right and that was written at this very place by the mount that the manifest names.
pub(super) struct Group {
    pub header: GroupHeader,
    pub offset: u64,
    /// Bytes up to where the next group would start.
    pub len: u64,
    buffer: Bytes,
    payload: Range<usize>,
}

impl Listed<'_> {
    /// The group at `offset`, or why there is none. A disk that cannot be read is an error, never the end of the log.
    pub fn group_at(&self, offset: u64) -> Result<Result<Group, String>, JournalError> {
        let limit = self.entry.size.saturating_sub(DIRECTORY_BLOCK as u64);
        let room = limit.saturating_sub(offset);
        if room < GROUP_BLOCK as u64 {
            return Ok(Err("the segment is full".to_string()));
        }
        let first = self.read(offset, GROUP_BLOCK)?;
        let peeked = match peek(&first) {
            Ok(peeked) => peeked,
            Err(e) => return Ok(Err(e.to_string())),
        };
        if peeked.nonce != self.entry.nonce {
            return Ok(Err("a group of another mount".to_string()));
        }
        if peeked.padded_len as u64 > room {
            return Ok(Err(format!("a group of {} bytes where {room} are left", peeked.padded_len)));
        }
        let bytes = if peeked.padded_len == GROUP_BLOCK { first } else { self.read(offset, peeked.padded_len)? };
        Ok(self.verified(offset, bytes))
    }

    /// Visits each place from `offset` on where a block claims to start a group of this mount. Reads all the rest of the
    /// segment, which may be much longer than what was written to it, so in long pieces.
    pub fn claims(
        &self,
        mut offset: u64,
        visit: &mut dyn FnMut(u64) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        while offset < self.entry.size {
            let len = usize::try_from(self.entry.size - offset).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            let piece = self.read(offset, len)?;
            for (block, at) in piece.chunks(GROUP_BLOCK).zip((offset..).step_by(GROUP_BLOCK)) {
                if peek(block).is_ok_and(|peeked| peeked.nonce == self.entry.nonce) {
                    visit(at)?;
                }
            }
            offset += len as u64;
        }
        Ok(())
    }

    fn verified(&self, offset: u64, bytes: Vec<u8>) -> Result<Group, String> {
        let (header, payload, len) = decode_group(&bytes).map_err(|e| e.to_string())?;
        if header.segment != self.entry.number || header.nonce != self.entry.nonce {
            return Err(format!("a group of journal segment {}", header.segment));
        }
        if header.offset != offset {
            return Err(format!("a group that belongs at offset {}", header.offset));
        }
        Ok(Group { header, offset, len: len as u64, buffer: bytes.into(), payload })
    }

    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, JournalError> {
        let mut bytes = vec![0; len];
        let failed = |e| JournalError::io("read", format!("journal segment {}", self.entry.number), e);
        self.file.read_at(&mut bytes, offset).map_err(failed)?;
        Ok(bytes)
    }

    /// Damage of this segment.
    pub fn damaged(&self, offset: u64, reason: impl Into<String>) -> JournalError {
        JournalError::Damaged { segment: self.entry.number, offset, reason: reason.into() }
    }
}

impl Group {
    /// The group's batches, which fill it exactly. Anything else under a right checksum was written so: it is no torn tail.
    pub fn batches(&self) -> Result<Vec<Batch>, String> {
        let buffer = self.buffer.slice(..self.payload.end);
        let mut batches: Vec<Batch> = Vec::new();
        let mut at = self.payload.start;
        for _ in 0..self.header.batches {
            let (batch, len) = Batch::decode(&buffer, at).map_err(|e| format!("a bad batch: {e}"))?;
            if !batch.payload_present && !batch.objects.is_empty() {
                return Err(format!("batch {} without its data", batch.lsn));
            }
            at += len;
            batches.push(batch);
        }
        if at != self.payload.end {
            return Err("bytes between the last batch and the end of the group".to_string());
        }
        if batches.first().map(|batch| batch.lsn) != Some(self.header.first) {
            return Err("the first batch is not the one that the group names".to_string());
        }
        Ok(batches)
    }

    /// Where the objects of one of its batches are in the segment.
    pub fn entries<'a>(&'a self, batch: &'a Batch) -> impl Iterator<Item = DirectoryEntry> + 'a {
        let start = u32::try_from(self.offset).expect("offsets in a segment fit 32 bits");
        let at = move |offset: usize| start + u32::try_from(offset).expect("offsets in a segment fit 32 bits");
        (0..).zip(&batch.objects).map(move |(n, object)| DirectoryEntry {
            object: ObjectId { lsn: batch.lsn, n },
            offset: at(object.offset),
            len: object.header.stored_len,
            crc: object.header.crc,
        })
    }
}

const _: () = assert!(GROUP_HEADER_BYTES < GROUP_BLOCK, "the first block holds the whole header");
