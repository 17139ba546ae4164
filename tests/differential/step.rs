//! Steps as data: what a sequence does, who does it, and how it is written down.

use serde::{Deserialize, Serialize};

/// One step of a sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Who makes the call.
    pub who: Who,
    /// The call.
    pub call: Call,
}

/// Users, so that permissions, sticky directories and set-id bits matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// May do anything.
    Root,
    /// User 1001, group 1001, also in group 2000.
    Alice,
    /// User 1002, group 1002, also in group 2000.
    Bob,
}

impl Who {
    /// User and group, and the groups beside it.
    pub fn ids(self) -> (u32, &'static [u32]) {
        match self {
            Who::Root => (0, &[]),
            Who::Alice => (1001, &[2000]),
            Who::Bob => (1002, &[2000]),
        }
    }
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum When {
    /// `UTIME_NOW`.
    Now,
    /// `UTIME_OMIT`.
    Omit,
    /// Seconds since 1970 and nanoseconds.
    At(i64, u32),
}

/// A file, named or open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum At {
    /// The file at a path, through a symbolic link at its end.
    Path(String),
    /// The file at a path, or the symbolic link itself.
    Link(String),
    /// The file in a slot.
    Slot(usize),
}

/// Open files are kept in so many slots.
pub const SLOTS: usize = 4;

/// A call. Paths are relative to the sequence's own directory, which is also its root. Each character of a path is one byte;
/// `x*255` is 255 times `x`. Slots that hold nothing give `EBADF`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    Open {
        slot: usize,
        path: String,
        flags: i32,
        mode: u32,
    },
    Close {
        slot: usize,
    },
    Read {
        slot: usize,
        len: usize,
    },
    Pread {
        slot: usize,
        at: u64,
        len: usize,
    },
    Write {
        slot: usize,
        len: usize,
        seed: u8,
    },
    Pwrite {
        slot: usize,
        at: u64,
        len: usize,
        seed: u8,
    },
    Seek {
        slot: usize,
        at: i64,
        whence: i32,
    },
    Truncate {
        at: At,
        len: u64,
    },
    Fallocate {
        slot: usize,
        mode: i32,
        at: u64,
        len: u64,
    },
    CopyRange {
        from: usize,
        to: usize,
        from_at: u64,
        to_at: u64,
        len: usize,
    },
    /// Stores through a shared mapping, cut to the file's size, then `msync`.
    MapWrite {
        slot: usize,
        at: u64,
        len: usize,
        seed: u8,
    },
    /// Stores through a private mapping, and reads them back from it.
    MapPrivate {
        slot: usize,
        at: u64,
        len: usize,
    },
    Sync {
        slot: usize,
        data: bool,
    },
    Mkdir {
        path: String,
        mode: u32,
    },
    Rmdir {
        path: String,
    },
    Unlink {
        path: String,
    },
    Rename {
        from: String,
        to: String,
        flags: u32,
    },
    Link {
        from: At,
        to: String,
    },
    Symlink {
        target: String,
        path: String,
    },
    Readlink {
        path: String,
    },
    Mknod {
        path: String,
        mode: u32,
        device: (u32, u32),
    },
    Chmod {
        at: At,
        mode: u32,
    },
    Chown {
        at: At,
        uid: u32,
        gid: u32,
    },
    Utimens {
        at: At,
        atime: When,
        mtime: When,
    },
    SetXattr {
        at: At,
        name: String,
        len: usize,
        seed: u8,
        flags: i32,
    },
    /// A POSIX ACL as entries of tag, permissions and id; `default` for what a directory hands down.
    SetAcl {
        at: At,
        default: bool,
        entries: Vec<(u16, u16, u32)>,
    },
    GetXattr {
        at: At,
        name: String,
        len: usize,
    },
    ListXattr {
        at: At,
        len: usize,
    },
    RemoveXattr {
        at: At,
        name: String,
    },
    Access {
        path: String,
        mode: i32,
        flags: i32,
    },
    Stat {
        at: At,
    },
    Statfs {
        at: At,
    },
    List {
        path: String,
    },
    /// Lists a directory, and after some entries makes, removes or renames names in it, and goes back to a told place.
    ListWhile {
        path: String,
        entries: usize,
        make: String,
        remove: String,
    },
    Umask {
        mask: u32,
    },
    Flock {
        slot: usize,
        how: i32,
    },
    /// An open-file-description lock that does not wait.
    Lock {
        slot: usize,
        kind: i32,
        at: i64,
        len: i64,
    },
}

impl Call {
    /// Which call it is.
    pub fn name(&self) -> String {
        let text = format!("{self:?}");
        text.split(' ').next().expect("a name").to_string()
    }
}

/// The bytes a path stands for.
pub fn bytes_of(path: &str) -> Vec<u8> {
    let component = |part: &str| match part.split_once('*') {
        Some((what, times)) if !what.is_empty() => what.repeat(times.parse().expect("a number after *")),
        _ => part.to_string(),
    };
    let expanded: Vec<String> = path.split('/').map(component).collect();
    expanded.join("/").chars().map(|c| u8::try_from(u32::from(c)).expect("a character is a byte")).collect()
}

/// What is written: `len` bytes that depend on `seed`; seed 0 is all zeros.
pub fn pattern(len: usize, seed: u8) -> Vec<u8> {
    let seed = usize::from(seed);
    (0..len).map(|n| if seed == 0 { 0 } else { ((n + n / 251) * 7 + seed * 31) as u8 | 1 }).collect()
}
