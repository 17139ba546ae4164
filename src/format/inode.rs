//! Values of the file map. None carries a checksum of its own: the batch or the tree node around it does.

use super::error::FormatError;
use super::ids::{InodeNo, OBJECT_BYTES_MAX, ObjectId};
use super::key::NAME_BYTES_MAX;
use super::wire::{PutIds, Reader, counted, layout};
use crate::base::clock::Time;
use bytes::{BufMut, Bytes};

const TIME_BYTES: usize = 8 + 4;

layout! {
    /// What every inode has. `PARTS` says which optional parts follow.
    mod inode_at, 81 bytes {
        PARTS: 1, MODE: 4, UID: 4, GID: 4, NLINK: 4, LENGTH: 8, BLOCKS: 8,
        ATIME: super::TIME_BYTES, MTIME: super::TIME_BYTES, CTIME: super::TIME_BYTES, BTIME: super::TIME_BYTES,
    }
}

layout! {
    mod name_at, 17 bytes { INO: 8, KIND: 1, COOKIE: 8 }
}

layout! {
    mod extent_at, 24 bytes { LEN: 4, OBJECT: super::super::wire::OBJECT_ID_BYTES, OBJECT_OFFSET: 4 }
}

/// Bytes of an encoded [`Extent`].
pub const EXTENT_BYTES: usize = extent_at::SIZE;
/// The largest file, bytes: 2^63 - 1.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;
/// The longest target of a symbolic link, bytes.
pub const TARGET_BYTES_MAX: usize = 4096;

/// Parent and next cookie follow: directories.
const PART_DIRECTORY: u8 = 1 << 0;
/// A device number follows.
const PART_RDEV: u8 = 1 << 1;
/// Inode flags follow.
const PART_FLAGS: u8 = 1 << 2;
/// The target of a symbolic link follows all other parts, up to the end.
const PART_TARGET: u8 = 1 << 3;
/// What is known of the extended attributes follows.
const PART_XATTRS: u8 = 1 << 4;
const PARTS_ALL: u8 = PART_DIRECTORY | PART_RDEV | PART_FLAGS | PART_TARGET | PART_XATTRS;

/// Which extended attributes an inode has, so that most questions about them read none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Xattrs(u8);

impl Xattrs {
    /// None at all.
    pub const NONE: Xattrs = Xattrs(0);
    /// The access control list, `system.posix_acl_access`.
    pub const ACCESS_ACL: Xattrs = Xattrs(1 << 0);
    /// A directory's default access control list, `system.posix_acl_default`.
    pub const DEFAULT_ACL: Xattrs = Xattrs(1 << 1);
    /// Capabilities of a program, `security.capability`.
    pub const CAPABILITY: Xattrs = Xattrs(1 << 2);
    /// At least one of another name.
    pub const OTHERS: Xattrs = Xattrs(1 << 3);
    const ALL: u8 = 0b1111;

    /// Which of them an attribute of this name is.
    pub fn of(name: &[u8]) -> Xattrs {
        match name {
            b"system.posix_acl_access" => Xattrs::ACCESS_ACL,
            b"system.posix_acl_default" => Xattrs::DEFAULT_ACL,
            b"security.capability" => Xattrs::CAPABILITY,
            _ => Xattrs::OTHERS,
        }
    }

    /// Whether any of `which` is there.
    pub fn has(self, which: Xattrs) -> bool {
        self.0 & which.0 != 0
    }

    /// These and `more`.
    #[must_use]
    pub fn with(self, more: Xattrs) -> Xattrs {
        Xattrs(self.0 | more.0)
    }

    /// These without `less`.
    #[must_use]
    pub fn without(self, less: Xattrs) -> Xattrs {
        Xattrs(self.0 & !less.0)
    }
}

/// The attributes of an inode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inode {
    /// Type and permissions, as in `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names of it; for directories 2 plus the subdirectories.
    pub nlink: u32,
    /// Length in bytes.
    pub size: u64,
    /// Space taken, in units of 512 bytes.
    pub blocks: u64,
    /// Last read.
    pub atime: Time,
    /// Last change of the contents.
    pub mtime: Time,
    /// Last change of contents or attributes.
    pub ctime: Time,
    /// When it was made.
    pub btime: Time,
    /// Device number, for device files.
    pub rdev: u32,
    /// Inode flags, as `chattr` sets them.
    pub flags: u32,
    /// Its extended attributes.
    pub xattrs: Xattrs,
    /// For directories what `..` is; else [`InodeNo::NONE`].
    pub parent: InodeNo,
    /// For directories the cookie of the next entry, from 3; else 0.
    pub next_cookie: u64,
    /// Target of a symbolic link; else empty.
    pub target: Bytes,
}

impl Inode {
    /// The bytes of the value.
    ///
    /// # Panics
    /// When the target is longer than [`TARGET_BYTES_MAX`].
    pub fn encode(&self) -> Bytes {
        assert!(self.target.len() <= TARGET_BYTES_MAX, "a symbolic link target of {} bytes", self.target.len());
        let parts = self.parts();
        let mut out = Vec::with_capacity(self.encoded_len(parts));
        out.put_u8(parts);
        out.put_u32_le(self.mode);
        out.put_u32_le(self.uid);
        out.put_u32_le(self.gid);
        out.put_u32_le(self.nlink);
        out.put_u64_le(self.size);
        out.put_u64_le(self.blocks);
        for time in [self.atime, self.mtime, self.ctime, self.btime] {
            out.put_i64_le(time.secs);
            out.put_u32_le(time.nanos);
        }
        if parts & PART_DIRECTORY != 0 {
            out.put_u64_le(self.parent.0);
            out.put_u64_le(self.next_cookie);
        }
        if parts & PART_RDEV != 0 {
            out.put_u32_le(self.rdev);
        }
        if parts & PART_FLAGS != 0 {
            out.put_u32_le(self.flags);
        }
        if parts & PART_XATTRS != 0 {
            out.put_u8(self.xattrs.0);
        }
        out.put_slice(&self.target);
        debug_assert_eq!(out.len(), out.capacity());
        out.into()
    }

    /// Bytes of the value; exactly, so that no part of an allocation is idle.
    fn encoded_len(&self, parts: u8) -> usize {
        let len = |part: u8, bytes: usize| if parts & part != 0 { bytes } else { 0 };
        let fixed = len(PART_DIRECTORY, 8 + 8) + len(PART_RDEV, 4) + len(PART_FLAGS, 4) + len(PART_XATTRS, 1);
        inode_at::SIZE + fixed + self.target.len()
    }

    /// The optional parts that this inode needs.
    fn parts(&self) -> u8 {
        let when = |needed: bool, part: u8| if needed { part } else { 0 };
        when(self.parent != InodeNo::NONE || self.next_cookie != 0, PART_DIRECTORY)
            | when(self.rdev != 0, PART_RDEV)
            | when(self.flags != 0, PART_FLAGS)
            | when(!self.target.is_empty(), PART_TARGET)
            | when(self.xattrs != Xattrs::NONE, PART_XATTRS)
    }

    /// Reads the value.
    pub fn decode(bytes: &[u8]) -> Result<Inode, FormatError> {
        let mut field = Reader::new(bytes);
        let parts = field.u8()?;
        if parts & !PARTS_ALL != 0 {
            return Err(FormatError::Kind { found: u32::from(parts) });
        }
        let mut inode = Inode {
            mode: field.u32()?,
            uid: field.u32()?,
            gid: field.u32()?,
            nlink: field.u32()?,
            size: counted(field.u64()?, FILE_BYTES_MAX)?,
            blocks: field.counted()?,
            atime: time(&mut field)?,
            mtime: time(&mut field)?,
            ctime: time(&mut field)?,
            btime: time(&mut field)?,
            ..Inode::default()
        };
        if parts & PART_DIRECTORY != 0 {
            inode.parent = InodeNo(field.u64()?);
            inode.next_cookie = field.counted()?;
        }
        if parts & PART_RDEV != 0 {
            inode.rdev = field.u32()?;
        }
        if parts & PART_FLAGS != 0 {
            inode.flags = field.u32()?;
        }
        if parts & PART_XATTRS != 0 {
            inode.xattrs = xattrs(field.u8()?)?;
        }
        if parts & PART_TARGET != 0 {
            inode.target = target(field.take(field.remaining())?)?;
        }
        field.end()?;
        if inode.parts() != parts {
            return Err(FormatError::Value("an optional part that is empty"));
        }
        Ok(inode)
    }
}

fn xattrs(bits: u8) -> Result<Xattrs, FormatError> {
    if bits & !Xattrs::ALL == 0 { Ok(Xattrs(bits)) } else { Err(FormatError::Kind { found: u32::from(bits) }) }
}

fn target(bytes: &[u8]) -> Result<Bytes, FormatError> {
    if bytes.len() > TARGET_BYTES_MAX {
        return Err(FormatError::TooBig { limit: TARGET_BYTES_MAX as u64, found: bytes.len() as u64 });
    }
    Ok(Bytes::copy_from_slice(bytes))
}

fn time(field: &mut Reader<'_>) -> Result<Time, FormatError> {
    let time = Time { secs: field.i64()?, nanos: field.u32()? };
    if time.nanos >= 1_000_000_000 {
        return Err(FormatError::Value("nanoseconds of a second or more"));
    }
    Ok(time)
}

/// What a directory knows of an entry under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameValue {
    /// The inode that the name means.
    pub ino: InodeNo,
    /// Its type, as in `d_type`.
    pub kind: u8,
    /// The entry's position in the directory.
    pub cookie: u64,
}

impl NameValue {
    /// The bytes of the value.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(name_at::SIZE);
        out.put_u64_le(self.ino.0);
        out.put_u8(self.kind);
        out.put_u64_le(self.cookie);
        out.into()
    }

    /// Reads the value.
    pub fn decode(bytes: &[u8]) -> Result<NameValue, FormatError> {
        let mut field = Reader::new(bytes);
        let value = NameValue { ino: child(&mut field)?, kind: kind(&mut field)?, cookie: field.counted()? };
        field.end()?;
        Ok(value)
    }
}

/// What a directory knows of an entry under its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieValue {
    /// The inode that the name means.
    pub ino: InodeNo,
    /// Its type, as in `d_type`.
    pub kind: u8,
    /// The name.
    pub name: Bytes,
}

impl CookieValue {
    /// The bytes of the value.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(name_at::COOKIE + self.name.len());
        out.put_u64_le(self.ino.0);
        out.put_u8(self.kind);
        out.put_slice(&self.name);
        out.into()
    }

    /// Reads the value.
    pub fn decode(bytes: &[u8]) -> Result<CookieValue, FormatError> {
        let mut field = Reader::new(bytes);
        let (ino, kind) = (child(&mut field)?, kind(&mut field)?);
        let name = field.take(field.remaining())?;
        match name.len() {
            0 => Err(FormatError::TooShort { need: 1, have: 0 }),
            1..=NAME_BYTES_MAX => Ok(CookieValue { ino, kind, name: Bytes::copy_from_slice(name) }),
            found => Err(FormatError::TooBig { limit: NAME_BYTES_MAX as u64, found: found as u64 }),
        }
    }
}

fn child(field: &mut Reader<'_>) -> Result<InodeNo, FormatError> {
    match InodeNo(field.u64()?) {
        ino if ino > InodeNo::NONE && ino <= InodeNo::MAX => Ok(ino),
        _ => Err(FormatError::Value("an inode number that no file has")),
    }
}

/// One of the `DT_` numbers of Linux: fifo, character device, directory, block device, file, link, socket.
fn kind(field: &mut Reader<'_>) -> Result<u8, FormatError> {
    match field.u8()? {
        kind @ (1 | 2 | 4 | 6 | 8 | 10 | 12) => Ok(kind),
        found => Err(FormatError::Kind { found: u32::from(found) }),
    }
}

/// A piece of a file: which bytes of which object it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Length in bytes, at most [`OBJECT_BYTES_MAX`].
    pub len: u32,
    /// The object.
    pub object: ObjectId,
    /// Where in the object it starts.
    pub object_offset: u32,
}

impl Extent {
    /// Stands for `len` bytes that are lost.
    pub fn lost(len: u32) -> Extent {
        Extent { len, object: ObjectId::LOST, object_offset: 0 }
    }

    /// Whether its bytes are lost; then where they start in the object means nothing.
    pub fn is_lost(&self) -> bool {
        self.object == ObjectId::LOST
    }

    /// The bytes of the value.
    pub fn encode(&self) -> Bytes {
        Bytes::copy_from_slice(&self.to_array())
    }

    pub(crate) fn to_array(self) -> [u8; EXTENT_BYTES] {
        let mut out = [0; EXTENT_BYTES];
        let mut field = &mut out[..];
        field.put_u32_le(self.len);
        field.put_object(self.object);
        field.put_u32_le(self.object_offset);
        out
    }

    /// Reads the value.
    pub fn decode(bytes: &[u8]) -> Result<Extent, FormatError> {
        let mut field = Reader::new(bytes);
        let extent = Extent { len: field.u32()?, object: field.object()?, object_offset: field.u32()? };
        field.end()?;
        if extent.len == 0 {
            return Err(FormatError::TooShort { need: 1, have: 0 });
        }
        let end = u64::from(extent.object_offset) + u64::from(extent.len);
        if end > OBJECT_BYTES_MAX as u64 {
            return Err(FormatError::TooBig { limit: OBJECT_BYTES_MAX as u64, found: end });
        }
        Ok(extent)
    }
}

#[cfg(test)]
mod tests;
