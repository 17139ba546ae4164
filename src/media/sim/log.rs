//! The one log of all calls that change a simulated disk or store: a total order, so that a crash can be put after each.

use super::content::{Patch, hash_of};
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A file of a simulated disk, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileNo(pub(super) u64);

/// One of the disks that share a log: each machine of a test has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskNo(u32);

/// The bytes of a store object, and their hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob {
    /// The bytes.
    pub bytes: Bytes,
    /// [`hash_of`] them.
    pub hash: u128,
}

impl Blob {
    /// Bytes with their hash.
    pub fn new(bytes: Bytes) -> Blob {
        Blob { hash: hash_of(&bytes), bytes }
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

/// A change of a simulated disk.
#[derive(Clone, Debug)]
pub enum DiskCall {
    /// A new, empty file has a name.
    Create {
        /// The name.
        name: Arc<str>,
        /// The file.
        file: FileNo,
    },
    /// A file was written.
    Write {
        /// The file.
        file: FileNo,
        /// Where and what.
        patch: Arc<Patch>,
    },
    /// A file's data and length are durable.
    Sync {
        /// The file.
        file: FileNo,
    },
    /// A sync failed: what was not durable then never will be, though reads still find it.
    SyncFailed {
        /// The file.
        file: FileNo,
    },
    /// A file has another name, in its folder or another one.
    Rename {
        /// The name it had.
        from: Arc<str>,
        /// The name it has.
        to: Arc<str>,
        /// The file.
        file: FileNo,
    },
    /// A name is gone.
    Remove {
        /// The name.
        name: Arc<str>,
    },
    /// A folder is there.
    MakeDir {
        /// The folder.
        name: Arc<str>,
    },
    /// The names in a folder are durable.
    SyncDir {
        /// The folder.
        dir: Arc<str>,
    },
}

/// A change of the simulated store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreCall {
    /// An object was written or replaced.
    Put {
        /// The object.
        name: Arc<str>,
        /// Its bytes.
        blob: Blob,
    },
    /// An object was written unless there was one.
    Create {
        /// The object.
        name: Arc<str>,
        /// Its bytes.
        blob: Blob,
    },
    /// An object was removed.
    Delete {
        /// The object.
        name: Arc<str>,
    },
}

/// A change of the simulated world.
#[derive(Clone, Debug)]
pub enum Call {
    /// A disk changed.
    Disk(DiskNo, DiskCall),
    /// The store changed.
    Store(StoreCall),
    /// The caller was told that this failed, though it is still on its way and may yet land.
    Adrift(StoreCall),
    /// Such a call has landed.
    Landed(StoreCall),
    /// The test's own note, such as "operation 7 was promised"; changes nothing.
    Mark(u64),
}

/// The log of one run.
#[derive(Default)]
pub struct CallLog {
    calls: Mutex<Vec<Call>>,
    disks: AtomicU32,
}

impl CallLog {
    /// An empty log, to be shared by a disk and a store.
    pub fn new() -> Arc<CallLog> {
        Arc::default()
    }

    /// How many calls there are.
    pub fn len(&self) -> usize {
        self.calls.lock().len()
    }

    /// Whether nothing has changed yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a note of the test; returns its index.
    pub fn mark(&self, note: u64) -> usize {
        self.add(Call::Mark(note))
    }

    /// All calls up to now.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().clone()
    }

    /// Adds a change; its maker holds whatever keeps others from changing the same thing. Returns its index.
    pub(crate) fn add(&self, call: Call) -> usize {
        let mut calls = self.calls.lock();
        calls.push(call);
        calls.len() - 1
    }

    pub(super) fn next_disk(&self) -> DiskNo {
        DiskNo(self.disks.fetch_add(1, Ordering::Relaxed))
    }
}
