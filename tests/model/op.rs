//! Operations and what they answer, as plain data: printable, comparable, replayable.

use super::xattr::Acl;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The superuser.
pub const ROOT: Who = Who { uid: 0, gid: 0 };

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// Who asks.
    pub who: Who,
    /// For what.
    pub call: Call,
}

/// Which file: by name, or one held open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum At {
    /// By path.
    Path(String),
    /// The one opened into this slot.
    Slot(u8),
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// A new regular file; permission bits only.
    Create {
        path: String,
        mode: u32,
    },
    /// A new directory; permission bits only.
    Mkdir {
        path: String,
        mode: u32,
    },
    /// A new fifo, socket or device; with type bits.
    Mknod {
        path: String,
        mode: u32,
        rdev: u32,
    },
    Symlink {
        path: String,
        target: Vec<u8>,
    },
    /// A second name `to` for `from`.
    Link {
        from: String,
        to: String,
    },
    Unlink {
        path: String,
    },
    Rmdir {
        path: String,
    },
    Rename {
        from: String,
        to: String,
        /// As of `renameat2`.
        flags: u32,
    },
    /// Writes [`pattern`]`(fill, len)`.
    Write {
        at: At,
        offset: u64,
        len: u32,
        fill: u8,
    },
    Read {
        at: At,
        offset: u64,
        len: u32,
    },
    Truncate {
        at: At,
        size: u64,
    },
    /// `fallocate`; the flags of that call.
    Allocate {
        at: At,
        mode: i32,
        offset: u64,
        len: u64,
    },
    /// Copies a range by sharing what is stored.
    Copy {
        from: At,
        offset: u64,
        to: At,
        to_offset: u64,
        len: u64,
    },
    /// Goes from data to hole to data, and reads the data alone.
    ReadData {
        at: At,
    },
    Chmod {
        path: String,
        mode: u32,
    },
    Chown {
        path: String,
        uid: Option<u32>,
        gid: Option<u32>,
    },
    /// Sets both times, nanoseconds.
    Utimens {
        path: String,
        atime: i64,
        mtime: i64,
    },
    /// `flags` as of `setxattr`.
    SetXattr {
        path: String,
        name: String,
        value: Vec<u8>,
        flags: i32,
    },
    RemoveXattr {
        path: String,
        name: String,
    },
    ListXattrs {
        path: String,
    },
    /// Sets an access control list, the default one of a directory or that of the file itself; none removes it.
    SetAcl {
        path: String,
        default: bool,
        acl: Option<Acl>,
    },
    /// Holds a regular file open in a slot; with `truncate` it is empty then.
    Open {
        path: String,
        truncate: bool,
        slot: u8,
    },
    Close {
        slot: u8,
    },
    Stat {
        at: At,
    },
    Readlink {
        path: String,
    },
    /// Lists a directory, `chunk` entries at a time.
    Readdir {
        path: String,
        chunk: usize,
    },
    /// The kernel drops what it remembers of names. Nothing changes.
    Forget,
}

impl Call {
    /// Whether the call adds to the log when it succeeds (a rename onto the same file does not).
    pub fn changes(&self) -> bool {
        !matches!(
            self,
            Call::Read { .. }
                | Call::ReadData { .. }
                | Call::Open { truncate: false, .. }
                | Call::Close { .. }
                | Call::Stat { .. }
                | Call::Readlink { .. }
                | Call::ListXattrs { .. }
                | Call::Readdir { .. }
                | Call::Forget
        )
    }
}

/// What `stat` says, without what the model cannot know: inode number and blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names.
    pub nlink: u32,
    /// Bytes of a file or of a link's target; 0 for others.
    pub size: u64,
    /// Number of a device.
    pub rdev: u32,
    /// Nanoseconds: atime, mtime, ctime.
    pub times: [i64; 3],
}

/// What a successful call answers.
#[derive(Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to tell.
    Done,
    /// The attributes after the call.
    Stat(Stat),
    /// File contents or a link's target.
    Data(Vec<u8>),
    /// Bytes written.
    Written(u32),
    /// Names, each with its type bits; without `.` and `..`.
    Names(BTreeMap<String, u32>),
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Done => write!(f, "Done"),
            Outcome::Stat(stat) => stat.fmt(f),
            Outcome::Data(bytes) => write!(f, "{} bytes with crc {:08x}", bytes.len(), crc32c::crc32c(bytes)),
            Outcome::Written(n) => write!(f, "Written({n})"),
            Outcome::Names(names) => names.fmt(f),
        }
    }
}

/// The bytes a write with this `fill` writes: different at every position for 251 bytes, never all zero.
pub fn pattern(fill: u8, len: u32) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i + u32::from(fill)) % 251).expect("below 251") + 1).collect()
}
