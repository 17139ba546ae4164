//! Layer 5: POSIX over the ordered map. No FUSE, no threads, no disk: every method takes inode locks, reads keys, and commits at
//! most one batch.
//!
//! **Restarting.** A method that needs something not in memory returns [`Stop::Wait`]; nothing has happened then, no lock is
//! held, and the caller calls again when it is there. Look-up and open counts change only after the batch is committed.
//!
//! **Locks**, in the order they are taken: the lock of directory moves, inode locks by stripe (see [`locks`]), one shard of the
//! counts (see [`open`]). The Lsn is given while the inode locks are held, so the log's order is the order of memory.
//!
//! **Invariants** that `skylog check` verifies:
//! - a file has either an inline value or extents, never both; with an inline value its size is at most [`INLINE_BYTES_MAX`];
//! - no extent is longer than an object, none overlaps another, none reaches past the file's size;
//! - extents may start anywhere, and any number of them, of one file or of several, may name the same object;
//! - an extent whose data is lost names [`ObjectId::LOST`](crate::format::ids::ObjectId::LOST): reading it fails, whatever
//!   else is done to it is done as to any other;
//! - `blocks` is the sum over the inline value and the extents of their bytes in 512-byte units, each rounded up,
//!   so what two files share counts in both;
//! - a directory has for each name one name key and one cookie key that agree; `nlink` is 2 plus its subdirectories;
//! - an inode with `nlink` 0 has an orphan key, and only such an inode has one;
//! - an inode's marks of extended attributes say which it has; an access control list agrees with the mode;
//! - where usage is counted, it is the number of all inodes and the sum of their `blocks`.
//!
//! What the kernel does, and this layer does not: permissions (sticky directories too), following links, resolving paths.

mod acl;
mod allocate;
mod atime;
mod attr;
mod caller;
mod contents;
mod copy;
mod create;
mod entries;
mod error;
mod extents;
mod limit;
mod link;
mod locks;
mod lookup;
mod open;
mod privileges;
mod read;
mod readdir;
mod recover;
mod rename;
mod seek;
mod setattr;
mod statfs;
mod unlink;
mod work;
mod write;
mod xattr;

#[cfg(test)]
mod tests;

pub use acl::acl_permissions;
pub use attr::Attr;
pub use caller::{Caller, Rights};
pub use contents::Contents;
pub use copy::Place;
pub use create::root_inode;
pub use error::{Error, Stop};
pub use limit::SetLimit;
pub use readdir::DirEntry;
pub use seek::Seek;
pub use setattr::{SetAttr, SetTime};
pub use statfs::{DiskSpace, StatFs};
pub use xattr::{ACCESS_ACL, DEFAULT_ACL};

pub use crate::format::inode::FILE_BYTES_MAX;

use crate::base::clock::Time;
use crate::map::Seen;
use crate::map::db::{Db, Pins};
use locks::InodeLocks;
use open::Uses;
use std::sync::Arc;
use work::Work;

/// The longest name, bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest target of a symbolic link, bytes.
pub const TARGET_BYTES_MAX: usize = 4095;
/// A file of at most this size is kept beside its attributes instead of in objects, bytes.
pub const INLINE_BYTES_MAX: u64 = 2048;
/// Most names of one file.
pub const LINKS_MAX: u32 = 65_000;

/// Who asks, when, and what was already fetched for the request.
#[derive(Default)]
pub struct Cx {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The time the request counts as.
    pub now: Time,
    /// What else the caller may do.
    pub caller: Caller,
    /// Permission bits that what is made does not get, unless a default access control list says what it gets.
    pub umask: u32,
    /// The caller keeps the times of changed contents by itself and sends them apart: a kernel that holds writes back.
    pub keeps_times: bool,
    /// The kernel writes back what was written before, to its cache or to a mapping; then it took away what a write takes away.
    pub written_back: bool,
    /// What was fetched for this request while it waited.
    pub pins: Pins,
    /// Whether it may wait for the kernel to forget files that were removed, when it needs their room.
    pub patient: bool,
    /// The state that a request to a follower reads, if it is not to be the newest.
    pub seen: Option<Arc<Seen>>,
}

/// What the layers above decide.
pub struct Options {
    /// A write changes at most this many bytes; a longer one is cut short. At least 4 KiB, and at most half of what a batch may
    /// take.
    pub write_bytes_max: usize,
    /// Room on the disk or in the store, for `statfs`.
    pub space: Box<dyn Fn() -> DiskSpace + Send + Sync>,
}

/// The filesystem. All methods may be called from any thread.
pub struct Fs {
    db: Arc<Db>,
    locks: InodeLocks,
    uses: Uses,
    options: Options,
}

impl Fs {
    /// The filesystem in `db`, which holds a root directory.
    pub fn new(db: Arc<Db>, options: Options) -> Fs {
        Fs { db, locks: InodeLocks::new(), uses: Uses::new(), options }
    }

    fn begin<'a>(&'a self, cx: &'a Cx) -> Work<'a> {
        Work::new(self.db.begin_at(&cx.pins, cx.seen.as_ref()), cx, self.waits_for_leaving(cx))
    }
}
