//! A further name for a file.

use super::attr::{Attr, entry_kind, is_dir};
use super::entries::check_name;
use super::error::{Error, Stop};
use super::{Cx, Fs, LINKS_MAX};
use crate::format::ids::{InodeNo, Lsn};
use crate::map::db::Room;

impl Fs {
    /// Gives `ino` the further name `name` in `parent`. Counts a look-up.
    pub fn link(&self, cx: &Cx, ino: InodeNo, parent: InodeNo, name: &[u8]) -> Result<(Attr, Lsn), Stop> {
        check_name(name)?;
        let _held = self.locks.exclusive(&[ino, parent]);
        let mut work = self.begin(cx);
        let mut dir = work.vacant(parent, name)?;
        let mut inode = work.inode(ino)?;
        if is_dir(inode.mode) {
            return Err(Error::DirectoryLink(ino).into());
        }
        match inode.nlink {
            0 => return Err(Error::Removed(ino).into()),
            LINKS_MAX.. => return Err(Error::TooManyLinks(ino).into()),
            _ => inode.nlink += 1,
        }
        inode.ctime = work.now;
        work.set_inode(ino, &inode);
        work.add_entry((parent, &mut dir), name, ino, entry_kind(inode.mode))?;
        work.touch_dir(&mut dir);
        work.set_inode(parent, &dir);
        let lsn = work.commit(Room::Ordinary)?;
        self.uses.add_lookup(ino);
        Ok((Attr::of(ino, &inode), lsn))
    }
}
