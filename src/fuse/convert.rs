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
        TimeOrNow::SpecificTime(time) => SetTime::At(asked(time)),
    }
}

/// The time that the kernel named. It counts nanoseconds forwards from the second, before 1970 too; there fuser 0.18 takes
/// them backwards, which is undone here.
pub fn asked(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(_) => Time::from(time),
        Err(before) => {
            let before = before.duration();
            let secs = 0i64.saturating_sub_unsigned(before.as_secs());
            Time { secs, nanos: before.subsec_nanos() }
        }
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
    use std::time::Duration;

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
    fn times_asked_for_before_1970_keep_their_nanoseconds() {
        // What fuser makes of second -1 and 250 milliseconds, which is a quarter of a second later than second -1.
        let decoded = UNIX_EPOCH - Duration::new(1, 250_000_000);
        assert_eq!(asked(decoded), Time { secs: -1, nanos: 250_000_000 });
        assert_eq!(asked(UNIX_EPOCH - Duration::new(2, 0)), Time { secs: -2, nanos: 0 });
        assert_eq!(asked(UNIX_EPOCH + Duration::new(2, 5)), Time { secs: 2, nanos: 5 });
    }

    #[test]
    fn a_missing_name_is_inode_zero() {
        assert_eq!(no_such_name().ino, INodeNo(0));
    }
}
