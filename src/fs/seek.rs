//! `SEEK_DATA` and `SEEK_HOLE`, from the extents as of one Lsn a page.
//!
//! What is shown has the grain of a local filesystem: a block in which a single byte is stored is data. The end of a file counts
//! as a hole.

use super::error::{Error, Stop};
use super::extents::Stored;
use super::work::Work;
use super::{Cx, Fs};
use crate::format::ids::InodeNo;

/// The grain of what is shown, bytes.
const BLOCK_BYTES: u64 = 4096;
/// Extents looked at between two scans, at first and at most: mostly the next hole is near.
const PAGE_FIRST: usize = 4;
const PAGE_MAX: usize = 1024;

/// What to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// Something stored.
    Data,
    /// Nothing stored, or the end of the file.
    Hole,
}

impl Fs {
    /// The first offset at or after `offset` where there is what is looked for.
    pub fn seek(&self, cx: &Cx, ino: InodeNo, offset: u64, what: Seek) -> Result<u64, Stop> {
        let _held = self.locks.shared(ino);
        let mut work = self.begin(cx);
        let inode = work.file(ino)?;
        if offset >= inode.size {
            return Err(Error::NothingThere.into());
        }
        let found = match (work.stored(ino, &inode)?, what) {
            (Stored::Nowhere, Seek::Data) => None,
            (Stored::Nowhere, Seek::Hole) | (Stored::Inline(_), Seek::Data) => Some(offset),
            // It is shorter than a block.
            (Stored::Inline(_), Seek::Hole) => Some(inode.size),
            (Stored::Extents, Seek::Data) => work.next_data(ino, offset, inode.size)?,
            (Stored::Extents, Seek::Hole) => Some(work.next_hole(ino, offset, inode.size)?),
        };
        found.ok_or_else(|| Error::NothingThere.into())
    }
}

fn block_start(at: u64) -> u64 {
    at - at % BLOCK_BYTES
}

/// Where a block ends that has the byte before `end`.
fn block_end(end: u64) -> u64 {
    block_start(end - 1).saturating_add(BLOCK_BYTES)
}

impl Work<'_> {
    fn next_data(&mut self, ino: InodeNo, offset: u64, size: u64) -> Result<Option<u64>, Stop> {
        let pieces = self.overlapping(ino, block_start(offset), size, 1)?;
        Ok(pieces.first().map(|piece| block_start(piece.at).max(offset)))
    }

    fn next_hole(&mut self, ino: InodeNo, offset: u64, size: u64) -> Result<u64, Stop> {
        // All blocks from that of `offset` up to here hold data.
        let mut data_end = block_start(offset);
        let mut limit = PAGE_FIRST;
        let mut page = self.overlapping(ino, data_end, size, limit)?;
        loop {
            for piece in &page {
                if block_start(piece.at) > data_end {
                    return Ok(data_end.max(offset));
                }
                data_end = data_end.max(block_end(piece.end()));
            }
            match page.last().copied() {
                Some(last) if page.len() >= limit => {
                    if limit == PAGE_MAX {
                        self.want_extents(ino, last.end(), size)?;
                    }
                    limit = (4 * limit).min(PAGE_MAX);
                    page = self.starting_in(ino, last.end(), size, limit)?;
                }
                _ => return Ok(data_end.max(offset).min(size)),
            }
        }
    }
}
