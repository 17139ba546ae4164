//! Extended attributes, a key each; access control lists among them change the mode too. The inode knows which there are, so
//! that a file without any costs no look-up.
//!
//! The kernel decides who may: `user` on files and directories by their permissions, `trusted` with `CAP_SYS_ADMIN` only.

use super::acl::{Acl, Fault};
use super::attr::{file_type, is_dir};
use super::caller::Rights;
use super::error::{Error, Stop, damaged};
use super::work::Work;
use super::{Cx, Fs, NAME_BYTES_MAX};
use crate::format::ids::{InodeNo, Lsn};
use crate::format::inode::{Inode, Xattrs};
use crate::format::key::{self, Key, VALUE_BYTES_MAX};
use crate::map::db::Room;
use bytes::Bytes;

/// The longest list of names, bytes: the kernel takes no longer one.
const LIST_BYTES_MAX: usize = 64 << 10;
const TRUSTED: &[u8] = b"trusted.";
/// The access control list, as an attribute.
pub const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
/// The access control list that what is made in a directory gets, as an attribute.
pub const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
const CAPABILITY: &[u8] = b"security.capability";

/// Attributes read from the map at a time: their values may be long.
const PAGE: usize = 64;

impl Fs {
    /// Gives an attribute a value. `flags` as of `setxattr`. A value it has already changes nothing.
    pub fn set_xattr(&self, cx: &Cx, ino: InodeNo, name: &[u8], value: &[u8], flags: i32) -> Result<((), Lsn), Stop> {
        let which = check_name(name)?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(Error::ValueTooBig { found: value.len(), limit: VALUE_BYTES_MAX }.into());
        }
        let _held = self.locks.exclusive(&[ino]);
        let mut work = self.begin(cx);
        let mut inode = work.inode(ino)?;
        if is_acl(which) {
            let acl = Acl::parse(value).map_err(refused)?;
            work.set_acl(ino, &mut inode, name, acl)?;
        } else {
            let old = work.xattr(ino, &inode, name)?;
            match old {
                Some(_) if flags & libc::XATTR_CREATE != 0 => return Err(Error::XattrExists.into()),
                None if flags & libc::XATTR_REPLACE != 0 => return Err(Error::NoSuchXattr.into()),
                Some(old) if old == value => {}
                _ => work.change_xattr(ino, &mut inode, name, Some(Bytes::copy_from_slice(value)))?,
            }
        }
        if !work.tx.fits() {
            return Err(Error::NoRoomInSegment(value.len()).into());
        }
        Ok(((), work.commit(Room::Ordinary)?))
    }

    /// The value of an attribute.
    pub fn get_xattr(&self, cx: &Cx, ino: InodeNo, name: &[u8]) -> Result<Bytes, Stop> {
        check_name(name)?;
        let _held = self.locks.shared(ino);
        let mut work = self.begin(cx);
        let inode = work.inode(ino)?;
        Ok(work.xattr(ino, &inode, name)?.ok_or(Error::NoSuchXattr)?)
    }

    /// The names of all attributes that the caller may know of, each followed by a zero byte.
    pub fn list_xattrs(&self, cx: &Cx, ino: InodeNo) -> Result<Vec<u8>, Stop> {
        let _held = self.locks.shared(ino);
        let mut work = self.begin(cx);
        let inode = work.inode(ino)?;
        let mut out = Vec::new();
        let mut sees_trusted = None;
        let mut page = work.xattr_names(ino, &inode, None, PAGE)?;
        while let Some(last) = page.last().cloned() {
            for name in &page {
                if !name.starts_with(TRUSTED) || *sees_trusted.get_or_insert_with(|| cx.has(Rights::SYS_ADMIN)) {
                    out.extend_from_slice(name);
                    out.push(0);
                }
            }
            if out.len() > LIST_BYTES_MAX {
                return Err(Error::ValueTooBig { found: out.len(), limit: LIST_BYTES_MAX }.into());
            }
            page = work.xattr_names(ino, &inode, Some(&last), PAGE)?;
        }
        Ok(out)
    }

    /// Removes an attribute. An access control list need not be there.
    pub fn remove_xattr(&self, cx: &Cx, ino: InodeNo, name: &[u8]) -> Result<((), Lsn), Stop> {
        let which = check_name(name)?;
        let _held = self.locks.exclusive(&[ino]);
        let mut work = self.begin(cx);
        let mut inode = work.inode(ino)?;
        match work.xattr(ino, &inode, name)? {
            Some(_) => work.change_xattr(ino, &mut inode, name, None)?,
            None if is_acl(which) => {}
            None => return Err(Error::NoSuchXattr.into()),
        }
        Ok(((), work.commit(Room::Freeing)?))
    }
}

/// Refuses what can be no name of an attribute, and namespaces that there are not.
fn check_name(name: &[u8]) -> Result<Xattrs, Error> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(Error::XattrName);
    }
    let which = Xattrs::of(name);
    let namespace = [&b"user."[..], TRUSTED, b"security."].into_iter().find(|prefix| name.starts_with(prefix));
    match namespace {
        Some(prefix) if prefix.len() == name.len() => Err(Error::Invalid("a namespace without a name")),
        None if !is_acl(which) => Err(Error::NotSupported("this namespace of extended attributes")),
        _ => Ok(which),
    }
}

fn is_acl(which: Xattrs) -> bool {
    which == Xattrs::ACCESS_ACL || which == Xattrs::DEFAULT_ACL
}

fn refused(fault: Fault) -> Error {
    match fault {
        Fault::Version => Error::NotSupported("this version of access control lists"),
        Fault::TooLong => Error::ValueTooBig { found: super::acl::ACL_BYTES_MAX + 1, limit: super::acl::ACL_BYTES_MAX },
        Fault::Invalid => Error::Invalid("not a valid access control list"),
    }
}

impl Work<'_> {
    fn xattr(&mut self, ino: InodeNo, inode: &Inode, name: &[u8]) -> Result<Option<Bytes>, Stop> {
        if inode.xattrs.has(Xattrs::of(name)) { self.get(&key::xattr(ino, name)) } else { Ok(None) }
    }

    /// The names of the attributes behind `after`, in order, the first `limit` of them.
    fn xattr_names(
        &mut self,
        ino: InodeNo,
        inode: &Inode,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Bytes>, Stop> {
        if inode.xattrs == Xattrs::NONE {
            return Ok(Vec::new());
        }
        let (first, to) = key::xattrs_of(ino);
        let from = after.map_or(first, |name| [&key::xattr(ino, name)[..], b"\0"].concat().into());
        let rows = self.scan(&from, &to, limit)?;
        let name = |key: &Bytes| match Key::decode(key) {
            Ok(Key::Xattr(_, name)) => Ok(name),
            other => Err(damaged(format_args!("{other:?} among the extended attributes of inode {ino}"))),
        };
        rows.iter().map(|(key, _)| name(key)).collect()
    }

    /// Sets or removes an attribute and notes that; nothing else of the inode is touched.
    pub fn put_xattr(
        &mut self,
        ino: InodeNo,
        inode: &mut Inode,
        name: &[u8],
        value: Option<Bytes>,
    ) -> Result<(), Stop> {
        let which = Xattrs::of(name);
        match value {
            Some(value) => {
                self.put(key::xattr(ino, name), value);
                inode.xattrs = inode.xattrs.with(which);
            }
            None => {
                let alike = |other: &Bytes| other != name && Xattrs::of(other) == which;
                // Beside this one there are at most three of a name with a mark of its own.
                let last = !self.xattr_names(ino, inode, None, 5)?.iter().any(alike);
                self.delete(key::xattr(ino, name));
                if last {
                    inode.xattrs = inode.xattrs.without(which);
                }
            }
        }
        Ok(())
    }

    fn change_xattr(&mut self, ino: InodeNo, inode: &mut Inode, name: &[u8], value: Option<Bytes>) -> Result<(), Stop> {
        self.put_xattr(ino, inode, name, value)?;
        inode.ctime = self.now;
        self.set_inode(ino, inode);
        Ok(())
    }

    /// Sets an access control list, or removes it. The mode follows an access list, and one that says no more than the mode
    /// is not kept.
    fn set_acl(&mut self, ino: InodeNo, inode: &mut Inode, name: &[u8], acl: Option<Acl>) -> Result<(), Stop> {
        let access = name == ACCESS_ACL;
        if file_type(inode.mode) == libc::S_IFLNK {
            return Err(Error::NotSupported("an access control list of a link").into());
        }
        if !access && !is_dir(inode.mode) {
            return if acl.is_some() { Err(Error::NoDefaultAcl(ino).into()) } else { Ok(()) };
        }
        let mode = match &acl {
            Some(acl) if access => self.mode_with(inode, acl),
            _ => inode.mode,
        };
        let value = acl.filter(|acl| !access || !acl.is_mode()).map(|acl| acl.encode());
        if self.xattr(ino, inode, name)? != value || mode != inode.mode {
            inode.mode = mode;
            self.change_xattr(ino, inode, name, value)?;
        }
        Ok(())
    }

    /// The mode with an access list's permissions. Who may not give set-group-id takes it away.
    fn mode_with(&self, inode: &Inode, acl: &Acl) -> u32 {
        let mode = inode.mode & !0o777 | acl.permissions();
        let loses = mode & libc::S_ISGID != 0 && !self.cx.may_set_group_id(inode.gid);
        if loses { mode & !libc::S_ISGID } else { mode }
    }

    /// Keeps the access list in step with new permission bits.
    pub fn chmod_acl(&mut self, ino: InodeNo, inode: &mut Inode) -> Result<(), Stop> {
        if let Some(acl) = self.acl(ino, inode, ACCESS_ACL)? {
            self.put_xattr(ino, inode, ACCESS_ACL, Some(acl.chmod(inode.mode).encode()))?;
        }
        Ok(())
    }

    /// A stored access control list.
    pub fn acl(&mut self, ino: InodeNo, inode: &Inode, name: &[u8]) -> Result<Option<Acl>, Stop> {
        let Some(value) = self.xattr(ino, inode, name)? else { return Ok(None) };
        let what = |fault| damaged(format_args!("an access control list of inode {ino}: {fault:?}"));
        Acl::parse(&value).map_err(what)
    }

    /// Takes a program's capabilities away.
    pub fn drop_capability(&mut self, ino: InodeNo, inode: &mut Inode) {
        if inode.xattrs.has(Xattrs::CAPABILITY) {
            self.delete(key::xattr(ino, CAPABILITY));
            inode.xattrs = inode.xattrs.without(Xattrs::CAPABILITY);
        }
    }
}
