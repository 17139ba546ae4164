//! What `stat` shows of an inode.

use crate::base::clock::Time;
use crate::format::ids::InodeNo;
use crate::format::inode::Inode;

/// The attributes of a file of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Its number.
    pub ino: InodeNo,
    /// Bytes of a regular file or of a link's target; 0 for others.
    pub size: u64,
    /// Allocated space in units of 512 bytes.
    pub blocks: u64,
    /// Last access, as set by `utimensat` or noted on mounts that keep access times.
    pub atime: Time,
    /// Last change of the contents.
    pub mtime: Time,
    /// Last change of anything.
    pub ctime: Time,
    /// Birth.
    pub btime: Time,
    /// Type and permission bits.
    pub mode: u32,
    /// Number of names; of a directory 2 plus its subdirectories.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The number of a device.
    pub rdev: u32,
}

impl Attr {
    pub(super) fn of(ino: InodeNo, inode: &Inode) -> Attr {
        Attr {
            ino,
            size: inode.size,
            blocks: inode.blocks,
            atime: inode.atime,
            mtime: inode.mtime,
            ctime: inode.ctime,
            btime: inode.btime,
            mode: inode.mode,
            nlink: inode.nlink,
            uid: inode.uid,
            gid: inode.gid,
            rdev: inode.rdev,
        }
    }
}

/// The type bits of a mode.
pub(super) fn file_type(mode: u32) -> u32 {
    mode & libc::S_IFMT
}

/// Whether a mode is a directory's.
pub(super) fn is_dir(mode: u32) -> bool {
    file_type(mode) == libc::S_IFDIR
}

/// The type as a directory entry shows it (`d_type`).
pub(super) fn entry_kind(mode: u32) -> u8 {
    u8::try_from(file_type(mode) >> 12).expect("four bits")
}

/// Whether an entry of this `d_type` is a directory.
pub(super) fn is_dir_kind(kind: u8) -> bool {
    kind == libc::DT_DIR
}
