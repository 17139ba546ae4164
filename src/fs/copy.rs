//! `copy_file_range`: the destination's new extents name the source's objects; no data is read or written.
//!
//! The source stays locked until the batch has its Lsn, so it cannot lose an object before the destination names it. Holes
//! become holes. A tiny source, which has no objects, is written like any data.

use super::error::{Error, Stop};
use super::extents::{Piece, Stored};
use super::statfs::BLOCK_BYTES;
use super::work::Work;
use super::{Cx, FILE_BYTES_MAX, Fs, INLINE_BYTES_MAX};
use crate::format::ids::{InodeNo, Lsn};
use crate::format::inode::Inode;
use crate::map::db::Room;

/// One call copies at most this many bytes: its answer has 32 bits.
const COPY_BYTES_MAX: u64 = 1 << 30;

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub ino: InodeNo,
    /// Bytes from its start.
    pub offset: u64,
}

impl Fs {
    /// Copies up to `len` bytes. Returns how many: fewer at the end of the source, at the limit of the filesystem, and where so
    /// many extents lie there that one batch cannot take them; none at or past the end.
    pub fn copy_file_range(&self, cx: &Cx, from: Place, to: Place, mut len: u64) -> Result<(u32, Lsn), Stop> {
        let _held = self.locks.shared_and_exclusive(from.ino, to.ino);
        loop {
            match self.copy_locked(cx, from, to, len) {
                Err(stop @ Stop::Error(Error::Limit(_))) => len = self.fewer(to.offset, len).ok_or(stop)?,
                done => return done,
            }
        }
    }

    /// How many bytes to copy instead of `len` that the limit has refused, up to a whole block of the file.
    fn fewer(&self, offset: u64, len: u64) -> Option<u64> {
        let left = self.limit_left()?;
        let end = offset.saturating_add(if len > left { left } else { len / 2 });
        (end / BLOCK_BYTES * BLOCK_BYTES).checked_sub(offset).filter(|len| *len > 0)
    }

    fn copy_locked(&self, cx: &Cx, from: Place, to: Place, len: u64) -> Result<(u32, Lsn), Stop> {
        let mut work = self.begin(cx);
        let source = work.file(from.ino)?;
        let mut inode = work.file(to.ino)?;
        let room = FILE_BYTES_MAX.checked_sub(to.offset).filter(|room| *room > 0).ok_or(Error::TooBig)?;
        let len = len.min(source.size.saturating_sub(from.offset)).min(room);
        if from.ino == to.ino && from.offset < to.offset.saturating_add(len) && to.offset < from.offset + len {
            return Err(Error::Invalid("the ranges overlap").into());
        }
        let len = len.min(COPY_BYTES_MAX);
        if len == 0 {
            return Ok((0, work.commit(Room::Ordinary)?));
        }
        let copied = work.copy(from, &source, to, &mut inode, len, self.options.old_extents_max())?;
        inode.size = inode.size.max(to.offset + copied);
        work.contents_changed(to.ino, &mut inode);
        work.set_inode(to.ino, &inode);
        let lsn = work.commit(Room::Ordinary)?;
        Ok((u32::try_from(copied).expect("few bytes at a time"), lsn))
    }
}

impl Work<'_> {
    /// Copies `len` bytes that the source has, or fewer; says how many.
    fn copy(
        &mut self,
        from: Place,
        source: &Inode,
        to: Place,
        inode: &mut Inode,
        len: u64,
        extents_max: usize,
    ) -> Result<u64, Stop> {
        let pieces = match self.stored(from.ino, source)? {
            Stored::Inline(value) => {
                let mut data = value.to_vec();
                data.resize(index(source.size), 0);
                let data = data[index(from.offset)..][..index(len)].to_vec();
                return self.write(to.ino, inode, to.offset, &data.into(), extents_max);
            }
            Stored::Nowhere => Vec::new(),
            Stored::Extents => self.overlapping(from.ino, from.offset, from.offset + len, extents_max)?,
        };
        self.share(&pieces, from, to, inode, len, extents_max)
    }

    /// Puts copies of the source's `pieces` where they belong in the destination, in place of what is there.
    fn share(
        &mut self,
        mut pieces: &[Piece],
        from: Place,
        to: Place,
        inode: &mut Inode,
        mut len: u64,
        extents_max: usize,
    ) -> Result<u64, Stop> {
        if let Some((last, before)) = pieces.split_last().filter(|_| pieces.len() >= extents_max) {
            (pieces, len) = (before, last.at - from.offset);
        }
        let stays_inline = pieces.is_empty() && inode.size.max(to.offset + len) <= INLINE_BYTES_MAX;
        self.empty(to.ino, inode, to.offset, to.offset + len, stays_inline)?;
        for piece in pieces {
            let part = piece.within(from.offset, from.offset + len);
            self.keep(to.ino, inode, Piece { at: to.offset + (part.at - from.offset), ..part });
        }
        Ok(len)
    }
}

/// A place inside a tiny file.
fn index(n: u64) -> usize {
    usize::try_from(n).expect("a tiny file")
}
