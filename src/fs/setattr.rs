//! Changing attributes: chmod, chown, utimensat, truncate, any of them together in one batch.
//!
//! Whether the caller may, and whether `chmod` may set the set-group-id bit, the kernel has decided: it alone knows all
//! groups of the caller.

use super::attr::{Attr, file_type};
use super::error::{Error, Stop};
use super::extents::Stored;
use super::work::Work;
use super::{Cx, FILE_BYTES_MAX, Fs, INLINE_BYTES_MAX};
use crate::base::clock::Time;
use crate::format::ids::{InodeNo, Lsn};
use crate::format::inode::Inode;
use crate::map::db::Room;

/// What to change; `None` leaves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits; type bits are ignored.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length of a regular file.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of the contents.
    pub mtime: Option<SetTime>,
    /// Last change of anything; when not given, the request's time.
    pub ctime: Option<Time>,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The time of the request.
    Now,
    /// This one.
    At(Time),
}

impl SetTime {
    fn resolve(self, now: Time) -> Result<Time, Stop> {
        match self {
            SetTime::Now => Ok(now),
            SetTime::At(time) if time.nanos < 1_000_000_000 => Ok(time),
            SetTime::At(_) => Err(Error::Invalid("a time with a second or more of nanoseconds").into()),
        }
    }
}

impl SetAttr {
    /// A truncation may be all that makes room.
    fn room(&self, size_before: u64) -> Room {
        if self.size.is_some_and(|size| size < size_before) { Room::Freeing } else { Room::Ordinary }
    }
}

impl Fs {
    /// Changes attributes and returns them all.
    pub fn setattr(&self, cx: &Cx, ino: InodeNo, set: SetAttr) -> Result<(Attr, Lsn), Stop> {
        let _held = self.locks.exclusive(&[ino]);
        let mut work = self.begin(cx);
        let mut inode = work.inode(ino)?;
        if (SetAttr { ctime: None, ..set }) == SetAttr::default() {
            return work.prepare_for_change(ino, inode, set.ctime);
        }
        let room = set.room(inode.size);
        if let Some(size) = set.size {
            work.truncate(ino, &mut inode, size)?;
            work.contents_changed(ino, &mut inode);
        }
        work.change_owner(ino, &mut inode, &set)?;
        if let Some(time) = set.atime {
            inode.atime = time.resolve(work.now)?;
        }
        if let Some(time) = set.mtime {
            inode.mtime = time.resolve(work.now)?;
        }
        inode.ctime = SetTime::At(set.ctime.unwrap_or(work.now)).resolve(work.now)?;
        work.set_inode(ino, &inode);
        let lsn = work.commit(room)?;
        Ok((Attr::of(ino, &inode), lsn))
    }
}

impl Work<'_> {
    /// The kernel asks for no change at all before it lets somebody write who takes set-id bits away, and for a `chown` that
    /// names neither owner nor group, which takes them too. What it is answered it remembers: so the bits are gone before
    /// the first byte is written.
    fn prepare_for_change(mut self, ino: InodeNo, mut inode: Inode, ctime: Option<Time>) -> Result<(Attr, Lsn), Stop> {
        self.owner_changes(ino, &mut inode);
        inode.ctime = SetTime::At(ctime.unwrap_or(self.now)).resolve(self.now)?;
        self.set_inode(ino, &inode);
        Ok((Attr::of(ino, &inode), self.commit(Room::Ordinary)?))
    }

    /// Sets mode, owner and group.
    fn change_owner(&mut self, ino: InodeNo, inode: &mut Inode, set: &SetAttr) -> Result<(), Stop> {
        if let Some(mode) = set.mode {
            inode.mode = file_type(inode.mode) | mode & 0o7777;
            self.chmod_acl(ino, inode)?;
        }
        if set.uid.is_some() || set.gid.is_some() {
            self.owner_changes(ino, inode);
        }
        inode.uid = set.uid.unwrap_or(inode.uid);
        inode.gid = set.gid.unwrap_or(inode.gid);
        Ok(())
    }

    /// Sets a file's size. Bytes cut off never come back: growing again shows zeros.
    pub fn truncate(&mut self, ino: InodeNo, inode: &mut Inode, size: u64) -> Result<(), Stop> {
        match file_type(inode.mode) {
            libc::S_IFREG => {}
            libc::S_IFDIR => return Err(Error::IsDirectory(ino).into()),
            _ => return Err(Error::Invalid("not a regular file").into()),
        }
        if size > FILE_BYTES_MAX {
            return Err(Error::TooBig.into());
        }
        match self.stored(ino, inode)? {
            Stored::Inline(old) if size > INLINE_BYTES_MAX => self.inline_to_extent(ino, inode, &old),
            Stored::Inline(old) if size < old.len() as u64 => {
                let kept = usize::try_from(size).expect("a tiny file");
                self.set_inline(ino, inode, old[..kept].to_vec());
            }
            Stored::Extents if size < inode.size => self.cut(ino, inode, size, u64::MAX)?,
            Stored::Nowhere | Stored::Inline(_) | Stored::Extents => {}
        }
        inode.size = size;
        Ok(())
    }
}
