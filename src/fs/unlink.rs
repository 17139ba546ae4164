//! Removing names. An inode whose last name goes is removed with it, in one batch of a few edits whatever its size, unless it is
//! still used: then it becomes an orphan, marked by a key, until its last user is gone.

use super::attr::is_dir;
use super::entries::check_name;
use super::error::{Error, Stop};
use super::locks::Exclusive;
use super::work::Work;
use super::{Cx, Fs};
use crate::format::ids::{InodeNo, Lsn};
use crate::format::inode::{Inode, NameValue};
use crate::map::db::Room;

impl Fs {
    /// Removes a name of something else than a directory.
    pub fn unlink(&self, cx: &Cx, parent: InodeNo, name: &[u8]) -> Result<((), Lsn), Stop> {
        check_name(name)?;
        if matches!(name, b"." | b"..") {
            return Err(Error::IsDirectory(parent).into());
        }
        let (_held, mut work, entry) = self.lock_entry(cx, parent, name)?;
        let mut inode = work.inode(entry.ino)?;
        if is_dir(inode.mode) {
            return Err(Error::IsDirectory(entry.ino).into());
        }
        let dir = work.dir(parent)?;
        let orphaned = self.drop_link(&mut work, entry.ino, &mut inode);
        work.remove_entry(parent, name, entry.cookie);
        self.finish_removal(work, (parent, dir), entry.ino, orphaned)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, cx: &Cx, parent: InodeNo, name: &[u8]) -> Result<((), Lsn), Stop> {
        check_name(name)?;
        match name {
            b"." => return Err(Error::Invalid("the name is .").into()),
            b".." => return Err(Error::NotEmpty(parent).into()),
            _ => {}
        }
        let (_held, mut work, entry) = self.lock_entry(cx, parent, name)?;
        let mut inode = work.dir(entry.ino)?;
        if !work.is_empty_dir(entry.ino)? {
            return Err(Error::NotEmpty(entry.ino).into());
        }
        let mut dir = work.dir(parent)?;
        dir.nlink = dir.nlink.saturating_sub(1);
        let orphaned = self.drop_link(&mut work, entry.ino, &mut inode);
        work.remove_entry(parent, name, entry.cookie);
        self.finish_removal(work, (parent, dir), entry.ino, orphaned)
    }

    /// Looks a name up and locks its directory and what it stands for.
    fn lock_entry<'a>(
        &'a self,
        cx: &'a Cx,
        parent: InodeNo,
        name: &[u8],
    ) -> Result<(Exclusive<'a>, Work<'a>, NameValue), Stop> {
        loop {
            let seen = self.peek(cx, parent, name)?.ok_or(Error::NoSuchName)?;
            let held = self.locks.exclusive(&[parent, seen.ino]);
            let mut work = self.begin(cx);
            match work.entry(parent, name)? {
                Some(entry) if entry.ino == seen.ino => return Ok((held, work, entry)),
                _ => {}
            }
        }
    }

    /// What a name stands for at this moment; look again under the locks.
    pub(super) fn peek(&self, cx: &Cx, parent: InodeNo, name: &[u8]) -> Result<Option<NameValue>, Stop> {
        let mut work = self.begin(cx);
        work.dir(parent)?;
        work.entry(parent, name)
    }

    /// Takes one name from a locked inode, a directory's only one; says whether it is an orphan from now on.
    pub(super) fn drop_link(&self, work: &mut Work<'_>, ino: InodeNo, inode: &mut Inode) -> bool {
        if inode.nlink > 1 && !is_dir(inode.mode) {
            inode.nlink -= 1;
            inode.ctime = work.now;
            work.set_inode(ino, inode);
            return false;
        }
        let used = self.uses.is_used(ino);
        work.end_inode(ino, inode, used);
        used
    }

    fn finish_removal(
        &self,
        mut work: Work<'_>,
        (parent, mut dir): (InodeNo, Inode),
        removed: InodeNo,
        orphaned: bool,
    ) -> Result<((), Lsn), Stop> {
        work.touch_dir(&mut dir);
        work.set_inode(parent, &dir);
        let lsn = work.commit(Room::Freeing)?;
        if orphaned {
            self.uses.set_orphan(removed);
        }
        Ok(((), lsn))
    }
}
