//! Making new inodes. Each of these answers the kernel with an entry, so each counts a look-up of the new inode.

use super::attr::{Attr, entry_kind, file_type, is_dir};
use super::entries::{COOKIE_FIRST, check_name, is_dot};
use super::error::{Error, Stop};
use super::work::Work;
use super::xattr::{ACCESS_ACL, DEFAULT_ACL};
use super::{Cx, Fs, TARGET_BYTES_MAX};
use crate::base::clock::Time;
use crate::format::ids::{InodeNo, Lsn};
use crate::format::inode::{Inode, Xattrs};
use crate::map::db::Room;
use bytes::Bytes;

/// What sort of inode is made; its mode has the type bits.
pub(super) struct New {
    mode: u32,
    rdev: u32,
    target: Bytes,
}

/// The root directory of a new filesystem.
pub fn root_inode(now: Time, mode: u32, uid: u32, gid: u32) -> Inode {
    let new = New { mode: libc::S_IFDIR | mode & 0o7777, rdev: 0, target: Bytes::new() };
    new.inode(&Cx { uid, gid, now, ..Cx::default() }, InodeNo::ROOT, &Inode::default())
}

impl Fs {
    /// A new regular file that is open at once: counts a look-up and a handle.
    pub fn create(&self, cx: &Cx, parent: InodeNo, name: &[u8], mode: u32) -> Result<(Attr, Lsn), Stop> {
        let new = New { mode: libc::S_IFREG | mode & 0o7777, rdev: 0, target: Bytes::new() };
        self.make(cx, parent, name, &new, |ino| self.uses.add_handle(ino))
    }

    /// A new regular file, fifo, socket or device; `mode` has the type bits, none mean a regular file.
    pub fn mknod(&self, cx: &Cx, parent: InodeNo, name: &[u8], mode: u32, rdev: u32) -> Result<(Attr, Lsn), Stop> {
        let kind = match file_type(mode) {
            0 => libc::S_IFREG,
            kind @ (libc::S_IFREG | libc::S_IFIFO | libc::S_IFSOCK | libc::S_IFCHR | libc::S_IFBLK) => kind,
            libc::S_IFDIR => return Err(Error::DirectoryLink(parent).into()),
            _ => return Err(Error::Invalid("an unknown type of file").into()),
        };
        let rdev = if matches!(kind, libc::S_IFCHR | libc::S_IFBLK) { rdev } else { 0 };
        self.make(cx, parent, name, &New { mode: kind | mode & 0o7777, rdev, target: Bytes::new() }, |_| {})
    }

    /// A new directory.
    pub fn mkdir(&self, cx: &Cx, parent: InodeNo, name: &[u8], mode: u32) -> Result<(Attr, Lsn), Stop> {
        let new = New { mode: libc::S_IFDIR | mode & 0o7777, rdev: 0, target: Bytes::new() };
        self.make(cx, parent, name, &new, |_| {})
    }

    /// A new symbolic link.
    pub fn symlink(&self, cx: &Cx, parent: InodeNo, name: &[u8], target: &[u8]) -> Result<(Attr, Lsn), Stop> {
        match target.len() {
            0 => return Err(Error::NoSuchName.into()),
            1..=TARGET_BYTES_MAX => {}
            found => return Err(Error::NameTooLong { found, limit: TARGET_BYTES_MAX }.into()),
        }
        let new = New { mode: libc::S_IFLNK | 0o777, rdev: 0, target: Bytes::copy_from_slice(target) };
        self.make(cx, parent, name, &new, |_| {})
    }

    /// Makes an inode with a name in `parent`; `made` is called with its number once it is in the log.
    fn make(
        &self,
        cx: &Cx,
        parent: InodeNo,
        name: &[u8],
        new: &New,
        made: impl FnOnce(InodeNo),
    ) -> Result<(Attr, Lsn), Stop> {
        check_name(name)?;
        let _held = self.locks.exclusive(&[parent]);
        let mut work = self.begin(cx);
        let mut dir = work.vacant(parent, name)?;
        if is_dir(new.mode) {
            dir.nlink = dir.nlink.checked_add(1).ok_or(Error::TooManyLinks(parent))?;
        }
        let (ino, inode) = work.new_inode(new, parent, &dir)?;
        work.add_entry((parent, &mut dir), name, ino, entry_kind(inode.mode))?;
        work.touch_dir(&mut dir);
        work.set_inode(parent, &dir);
        let lsn = work.commit(Room::Ordinary)?;
        self.uses.add_lookup(ino);
        made(ino);
        Ok((Attr::of(ino, &inode), lsn))
    }
}

impl Work<'_> {
    /// A directory in which `name` may be put: it lives and has no such name yet.
    pub fn vacant(&mut self, parent: InodeNo, name: &[u8]) -> Result<Inode, Stop> {
        let dir = self.living_dir(parent)?;
        if is_dot(name) || self.entry(parent, name)?.is_some() {
            return Err(Error::NameExists.into());
        }
        Ok(dir)
    }
}

impl Work<'_> {
    /// An inode of its own number, with what it inherits from the directory it will be in.
    pub fn new_inode(&mut self, new: &New, parent: InodeNo, dir: &Inode) -> Result<(InodeNo, Inode), Stop> {
        let ino = self.tx.new_inode();
        let mut inode = new.inode(self.cx, parent, dir);
        if file_type(inode.mode) != libc::S_IFLNK {
            self.inherit_acls(parent, dir, ino, &mut inode)?;
        }
        self.set_inode(ino, &inode);
        Ok((ino, inode))
    }

    /// A directory's default access control list takes the place of the umask, and a new directory has it too.
    fn inherit_acls(&mut self, parent: InodeNo, dir: &Inode, ino: InodeNo, inode: &mut Inode) -> Result<(), Stop> {
        let Some(default) = self.acl(parent, dir, DEFAULT_ACL)? else {
            inode.mode &= !(self.cx.umask & 0o777);
            return Ok(());
        };
        if is_dir(inode.mode) {
            self.put_xattr(ino, inode, DEFAULT_ACL, Some(default.encode()))?;
        }
        let access = default.inherited(inode.mode);
        inode.mode = inode.mode & !0o777 | access.permissions();
        if !access.is_mode() {
            self.put_xattr(ino, inode, ACCESS_ACL, Some(access.encode()))?;
        }
        Ok(())
    }
}

impl New {
    /// What a rename leaves behind that hides lower layers of a union: a character device of number 0.
    pub fn whiteout() -> New {
        New { mode: libc::S_IFCHR, rdev: 0, target: Bytes::new() }
    }

    /// In a set-group-id directory the group is the directory's, and new directories pass the bit on.
    fn inode(&self, cx: &Cx, parent: InodeNo, dir: &Inode) -> Inode {
        let subdirectory = is_dir(self.mode);
        let set_gid = dir.mode & libc::S_ISGID != 0;
        Inode {
            mode: if set_gid && subdirectory { self.mode | libc::S_ISGID } else { self.mode },
            uid: cx.uid,
            gid: if set_gid { dir.gid } else { cx.gid },
            nlink: if subdirectory { 2 } else { 1 },
            size: self.target.len() as u64,
            blocks: 0,
            atime: cx.now,
            mtime: cx.now,
            ctime: cx.now,
            btime: cx.now,
            rdev: self.rdev,
            flags: 0,
            xattrs: Xattrs::NONE,
            parent: if subdirectory { parent } else { InodeNo::NONE },
            next_cookie: if subdirectory { COOKIE_FIRST } else { 0 },
            target: self.target.clone(),
        }
    }
}
