//! Our types and fuser's, both ways.

use crate::base::clock::Time;
use crate::format::ids::InodeNo;
use crate::fs::{Attr, Error, Place, Seek, SetTime};
use bytes::Bytes;
use fuser::{Errno, FileAttr, FileType, INodeNo, TimeOrNow};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{SystemTime, UNIX_EPOCH};

/// The unit in which programs best read and write, bytes.
const BLOCK_BYTES: u32 = 4096;

/// Attributes as the kernel gets them.
pub fn attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime.into(),
        mtime: attr.mtime.into(),
        ctime: attr.ctime.into(),
        crtime: attr.btime.into(),
        kind: file_type(attr.mode),
        perm: (attr.mode & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

/// "There is no such name, and you may remember that": an entry whose inode number is 0.
pub fn no_such_name() -> FileAttr {
    let never = UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: never,
        mtime: never,
        ctime: never,
        crtime: never,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

/// The type in a mode.
pub fn file_type(mode: u32) -> FileType {
    entry_type((mode >> 12 & 0xf) as u8)
}

/// The type in a directory entry (`d_type`).
pub fn entry_type(kind: u8) -> FileType {
    match kind {
        libc::DT_DIR => FileType::Directory,
        libc::DT_LNK => FileType::Symlink,
        libc::DT_FIFO => FileType::NamedPipe,
        libc::DT_SOCK => FileType::Socket,
        libc::DT_CHR => FileType::CharDevice,
        libc::DT_BLK => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

/// What the kernel calls an inode number.
pub fn ino(ino: INodeNo) -> InodeNo {
    InodeNo(ino.0)
}

/// A name, kept for as long as the operation may start again.
pub fn name(name: &OsStr) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

/// A time to be set.
pub fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(asked_time(time)),
    }
}

/// A time as the kernel sent it. Before 1970 fuser takes the nanoseconds for part of the distance, but they count forward.
pub fn asked_time(time: SystemTime) -> Time {
    match UNIX_EPOCH.duration_since(time) {
        Ok(before) => Time { secs: 0i64.saturating_sub_unsigned(before.as_secs()), nanos: before.subsec_nanos() },
        Err(_) => Time::from(time),
    }
}

/// A place in a file.
pub fn place(inode: INodeNo, offset: u64) -> Place {
    Place { ino: ino(inode), offset }
}

/// Where to look for what; the kernel does all other seeking by itself. Nothing lies before the start of a file.
pub fn seek(offset: i64, whence: i32) -> Result<(u64, Seek), Errno> {
    let offset = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
    match whence {
        libc::SEEK_DATA => Ok((offset, Seek::Data)),
        libc::SEEK_HOLE => Ok((offset, Seek::Hole)),
        _ => Err(Errno::EINVAL),
    }
}

/// The number that says why.
pub fn errno(error: &Error) -> Errno {
    Errno::from_i32(error.errno())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(mode: u32) -> Attr {
        let time = Time { secs: -1, nanos: 999_999_999 };
        Attr {
            ino: InodeNo(7),
            size: 1 << 40,
            blocks: 8,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            mode,
            nlink: 3,
            uid: 1000,
            gid: 100,
            rdev: 0x801,
        }
    }

    #[test]
    fn every_type_reaches_the_kernel() {
        for (bits, kind) in [
            (libc::S_IFREG, FileType::RegularFile),
            (libc::S_IFDIR, FileType::Directory),
            (libc::S_IFLNK, FileType::Symlink),
            (libc::S_IFIFO, FileType::NamedPipe),
            (libc::S_IFSOCK, FileType::Socket),
            (libc::S_IFCHR, FileType::CharDevice),
            (libc::S_IFBLK, FileType::BlockDevice),
        ] {
            let shown = attr(&plain(bits | 0o4751));
            assert_eq!((shown.kind, shown.perm), (kind, 0o4751));
        }
    }

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        assert_eq!(Time::from(attr(&plain(libc::S_IFREG)).mtime), Time { secs: -1, nanos: 999_999_999 });
    }

    #[test]
    fn a_time_before_1970_is_set_as_it_was_asked() {
        // What fuser makes of -3 seconds and 800,000,000 nanoseconds, which is 2.2 seconds before 1970.
        let fuser = UNIX_EPOCH - std::time::Duration::new(3, 800_000_000);
        assert_eq!(asked_time(fuser), Time { secs: -3, nanos: 800_000_000 });
        assert_eq!(asked_time(UNIX_EPOCH), Time::default());
        let later = Time { secs: 1 << 33, nanos: 5 };
        assert_eq!(asked_time(later.into()), later);
    }

    #[test]
    fn a_missing_name_is_inode_zero() {
        assert_eq!(no_such_name().ino, INodeNo(0));
    }
}
