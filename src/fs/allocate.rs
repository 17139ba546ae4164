//! `fallocate`: growing a file without writing, punching holes, zeroing ranges.
//!
//! Nothing is ever reserved: in a log, overwriting needs new space each time, so space set aside would not be what a later
//! write uses. What is checked is that there is room now. A range that is zeroed becomes a hole.

use super::attr::file_type;
use super::error::{Error, Stop};
use super::extents::Stored;
use super::work::Work;
use super::{Cx, FILE_BYTES_MAX, Fs};
use crate::format::ids::{InodeNo, Lsn};
use crate::format::inode::Inode;
use crate::map::db::Room;
use bytes::Bytes;

/// What to do with a range.
#[derive(Clone, Copy)]
struct Allocation {
    /// The file does not grow.
    keeps_size: bool,
    /// The range reads as zeros afterwards.
    empties: bool,
    /// Space is given back, none is asked for.
    frees: bool,
}

impl Allocation {
    fn of(mode: i32) -> Result<Allocation, Error> {
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        const ZERO_KEEP: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
        let (keeps_size, empties, frees) = match mode {
            0 => (false, false, false),
            libc::FALLOC_FL_KEEP_SIZE => (true, false, false),
            PUNCH => (true, true, true),
            libc::FALLOC_FL_ZERO_RANGE => (false, true, false),
            ZERO_KEEP => (true, true, false),
            _ => return Err(Error::NotSupported("a way to allocate")),
        };
        Ok(Allocation { keeps_size, empties, frees })
    }
}

impl Fs {
    /// Does to `len` bytes from `offset` on what `mode`, the flags of `fallocate(2)`, says.
    pub fn fallocate(&self, cx: &Cx, ino: InodeNo, offset: u64, len: u64, mode: i32) -> Result<((), Lsn), Stop> {
        if len == 0 {
            return Err(Error::Invalid("an empty range").into());
        }
        let allocation = Allocation::of(mode)?;
        let _held = self.locks.exclusive(&[ino]);
        let mut work = self.begin(cx);
        work.always_fits();
        let mut inode = work.allocatable(ino)?;
        let end = offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX).ok_or(Error::TooBig)?;
        if !allocation.frees {
            self.has_room(&mut work, ino, offset, end)?;
        }
        if allocation.empties {
            work.empty(ino, &mut inode, offset, end, true)?;
        }
        if !allocation.keeps_size && end > inode.size {
            work.truncate(ino, &mut inode, end)?;
        }
        work.contents_changed(ino, &mut inode);
        work.set_inode(ino, &inode);
        let lsn = work.commit(if allocation.frees { Room::Freeing } else { Room::Ordinary })?;
        Ok(((), lsn))
    }

    /// Whether what is not stored yet of `from..to` could be stored now.
    fn has_room(&self, work: &mut Work<'_>, ino: InodeNo, from: u64, to: u64) -> Result<(), Stop> {
        if self.check_room(work.cx, to - from).is_ok() {
            return Ok(());
        }
        let stored = work.blocks_in(ino, from, to)?.saturating_mul(512);
        self.check_room(work.cx, (to - from).saturating_sub(stored))
    }
}

impl Work<'_> {
    fn allocatable(&mut self, ino: InodeNo) -> Result<Inode, Stop> {
        let inode = self.inode(ino)?;
        match file_type(inode.mode) {
            libc::S_IFREG => Ok(inode),
            libc::S_IFDIR => Err(Error::IsDirectory(ino).into()),
            libc::S_IFIFO => Err(Error::NotSeekable(ino).into()),
            _ => Err(Error::NotAllocatable(ino).into()),
        }
    }

    /// Makes a hole of `from..to`; the file's size stays. What is left of an inline value that may not `stay` one becomes extents.
    pub fn empty(&mut self, ino: InodeNo, inode: &mut Inode, from: u64, to: u64, stay: bool) -> Result<(), Stop> {
        match self.stored(ino, inode)? {
            Stored::Nowhere => {}
            Stored::Inline(old) => self.empty_inline(ino, inode, &old, (from, to), stay),
            Stored::Extents if from < inode.size => self.cut(ino, inode, from, to)?,
            Stored::Extents => {}
        }
        Ok(())
    }

    fn empty_inline(&mut self, ino: InodeNo, inode: &mut Inode, old: &Bytes, (from, to): (u64, u64), stay: bool) {
        let inside = |at: u64| usize::try_from(at.min(old.len() as u64)).expect("a tiny file");
        let (head, tail) = (old.slice(..inside(from)), old.slice(inside(to)..));
        if !stay {
            self.set_inline(ino, inode, Vec::new());
            self.add_extents(ino, inode, 0, &head);
            self.add_extents(ino, inode, to, &tail);
        } else if tail.is_empty() {
            self.set_inline(ino, inode, head.to_vec());
        } else {
            let zeros = vec![0; inside(to) - inside(from)];
            self.set_inline(ino, inode, [&head[..], &zeros, &tail].concat());
        }
    }
}
