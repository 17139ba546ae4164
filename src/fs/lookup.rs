//! Finding a name, and what can be read of an inode without its contents.

use super::attr::{Attr, file_type};
use super::entries::check_name;
use super::error::{Error, Stop};
use super::{Cx, Fs};
use crate::format::ids::InodeNo;
use bytes::Bytes;

impl Fs {
    /// What a name in a directory stands for, or `None` when there is no such name. Counts a look-up when found.
    pub fn lookup(&self, cx: &Cx, parent: InodeNo, name: &[u8]) -> Result<Option<Attr>, Stop> {
        check_name(name)?;
        let _held = self.locks.shared(parent);
        let mut work = self.begin(cx);
        let dir = work.dir(parent)?;
        let ino = match name {
            b"." => parent,
            b".." => dir.parent,
            _ => match work.entry(parent, name)? {
                Some(entry) => entry.ino,
                None => return Ok(None),
            },
        };
        let attr = Attr::of(ino, &work.glance(ino)?);
        self.uses.add_lookup(ino);
        Ok(Some(attr))
    }

    /// The attributes of an inode.
    pub fn getattr(&self, cx: &Cx, ino: InodeNo) -> Result<Attr, Stop> {
        let _held = self.locks.shared(ino);
        Ok(Attr::of(ino, &self.begin(cx).glance(ino)?))
    }

    /// Where a symbolic link points to.
    pub fn readlink(&self, cx: &Cx, ino: InodeNo) -> Result<Bytes, Stop> {
        let _held = self.locks.shared(ino);
        let inode = self.begin(cx).inode(ino)?;
        if file_type(inode.mode) == libc::S_IFLNK {
            Ok(inode.target)
        } else {
            Err(Error::Invalid("not a symbolic link").into())
        }
    }
}
