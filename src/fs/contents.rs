//! What lies below a directory and what a file consists of, for those who bring it here or drop what is here. Nothing counts as
//! looked up or open.

use super::attr::file_type;
use super::error::Stop;
use super::extents::Stored;
use super::readdir::DirEntry;
use super::{Cx, FILE_BYTES_MAX, Fs};
use crate::format::ids::{InodeNo, ObjectId};

/// A part of what a file consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Objects, and how many bytes of the file each holds.
    pub objects: Vec<(ObjectId, u32)>,
    /// Where the rest begins, if there is more.
    pub next: Option<u64>,
}

impl Fs {
    /// As [`Fs::readdir`], without `.` and `..`; and what finds each by its name is in memory, too.
    pub fn members(&self, cx: &Cx, dir: InodeNo, after: u64, max: usize) -> Result<Vec<DirEntry>, Stop> {
        let _held = self.locks.shared(dir);
        let mut work = self.begin(cx);
        let entries = work.list_members(dir, after, max)?;
        for entry in &entries {
            work.entry(dir, &entry.name)?;
        }
        Ok(entries)
    }

    /// Up to `max` objects of a file, those that start at `from` or later. A file without any has holes alone, or contents that
    /// lie beside its attributes and are in memory now.
    pub fn contents(&self, cx: &Cx, ino: InodeNo, from: u64, max: usize) -> Result<Contents, Stop> {
        let _held = self.locks.shared(ino);
        let mut work = self.begin(cx);
        let inode = work.glance(ino)?;
        if file_type(inode.mode) != libc::S_IFREG || !matches!(work.stored(ino, &inode)?, Stored::Extents) {
            return Ok(Contents::default());
        }
        let pieces = work.starting_in(ino, from, FILE_BYTES_MAX, max)?;
        let next = pieces.last().filter(|_| pieces.len() == max).map(|last| last.end());
        // There is nothing to bring here or to drop of what is lost.
        let extents = pieces.iter().map(|piece| piece.extent).filter(|extent| !extent.is_lost());
        Ok(Contents { objects: extents.map(|extent| (extent.object, extent.len)).collect(), next })
    }
}
