//! Layer 2: the local disk behind a trait, so that the simulator can put a disk under the product that loses, tears and
//! reorders what was not synced. The local disk is the only place with `unsafe`.
//!
//! Names are relative paths with `/` between folders, below one root (the state directory).

mod local;
mod lock;
mod name;
pub mod sim;
mod sys;

pub use local::{LocalDisk, open_plain, read_plain, room_for};
pub use lock::{LockError, LockGuard, Owner, Standing, process_runs};
pub use sys::limit_heap;
pub(crate) use sys::read_resident;

use crate::base::clock::Time;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A local disk.
///
/// Durability: what a file holds is durable after [`File::sync`]; that a name exists, is gone, or means another file is
/// durable after [`Media::sync_dir`] of its folder. Before that a crash may keep or lose each of them on its own.
pub trait Media: Send + Sync {
    /// Makes a new, empty file open for reading and writing. Fails with `AlreadyExists` if the name is taken.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Opens a file that exists, for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Gives a file another name, replacing what had that name. The new one may be in another folder that exists; then it is
    /// durable after [`Media::sync_dir`] of that one, and until then a crash leaves the file under one name or the other.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name. Fails with `NotFound` if there is none.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes a folder (and the folders above it); it is no error if it exists. It is durable, with all it holds, after
    /// [`Media::sync_dir`] of the folder above it.
    fn make_dir(&self, name: &str) -> io::Result<()>;
    /// The names of the files in a folder, sorted, without the folder's own.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Shows `each` file of a folder, in no order; all names are never in memory together. `each` must not use the disk.
    fn visit(&self, dir: &str, each: &mut dyn FnMut(FolderEntry<'_>)) -> io::Result<()>;
    /// Makes the names in a folder durable. The root is `""`.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// How large the disk is, and how much of it is free.
    fn space(&self) -> io::Result<Space>;
    /// Where a file lies for the operating system, so that a store on the same disk may link it. `None` when it lies
    /// nowhere, as on a simulated disk.
    fn local_path(&self, _name: &str) -> Option<PathBuf> {
        None
    }
}

/// A file in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderEntry<'a> {
    /// Its name, without the folder's.
    pub name: &'a str,
    /// Its length.
    pub bytes: u64,
    /// When it was read or written last, as far as the disk keeps that.
    pub used: Time,
}

/// Room on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub total: u64,
    /// Bytes not in use.
    pub free: u64,
    /// Bytes that an ordinary user may still write.
    pub available: u64,
}

/// An open file of a [`Media`].
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait File: Send + Sync {
    /// Reads exactly `buf.len()` bytes at `offset`, or fails with `UnexpectedEof`.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// The same if the bytes are in memory, so that nobody waits for a disk; `false` when that is not sure, and for any error.
    fn read_resident_at(&self, _buf: &mut [u8], _offset: u64) -> bool {
        false
    }
    /// Writes all of `buf` at `offset`, growing the file if need be.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Makes all that was written durable, and the file's length with it.
    fn sync(&self) -> io::Result<()>;
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Lets later reads see what is on the disk. After a sync that failed, memory may hold what the disk never got, and
    /// call it clean; what is only waiting to be written stays.
    fn forget_cached(&self) -> io::Result<()> {
        Ok(())
    }
}
