//! Layer 2: the object store behind a small blocking trait. Its runtime never shows above this folder.
//!
//! Names are `/`-separated paths below the store's root, such as `seg/0000000001/0000000000000001`.

mod counters;
mod folder;
mod name;
mod object;
mod place;
mod probe;
mod remote;
pub mod sim;

pub use counters::{FailureKind, LastFailure, RequestFigures, RequestKind, StoreCounters, StoreFigures};
pub use object::ObjectStoreBackend;
pub use place::{OpenError, Place, open_store};
pub use probe::{is_probe, probe_create};
pub use remote::{Addressing, RemoteKind, RemoteOptions, RemotePlace, RemoteStore};

use bytes::Bytes;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;

/// Why a call to the store failed.
#[derive(Debug, thiserror::Error, Clone)]
pub enum StoreError {
    /// There is no object of that name.
    #[error("object {name} is not in the store")]
    NotFound {
        /// The object.
        name: String,
    },
    /// The store has no room for the object; heals when there is room.
    #[error("store: no room for {name}")]
    Full {
        /// The object.
        name: String,
    },
    /// No answer: the store, or the way to it, is away. The object may or may not have been written. Worth another try.
    #[error("store: {action} {name}: no answer: {reason}")]
    Away {
        /// What was tried: get, put, create, delete, list.
        action: &'static str,
        /// The object or prefix.
        name: String,
        /// The system's own words.
        reason: String,
    },
    /// Anything else; the object may or may not have been written. Worth another try later.
    #[error("store: {action} {name}: {reason}")]
    Failed {
        /// What was tried: get, put, create, delete, list.
        action: &'static str,
        /// The object or prefix.
        name: String,
        /// The store's own words.
        reason: String,
    },
}

impl StoreError {
    /// Whether the store, or the way to it, is away.
    pub fn is_away(&self) -> bool {
        matches!(self, StoreError::Away { .. })
    }
}

/// What became of a create-if-absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The object is new and ours.
    New,
    /// There was an object of that name already; nothing changed.
    Exists,
}

/// An object store. When a call that writes returns `Ok`, the object is durable and visible to everyone.
pub trait Store: Send + Sync {
    /// The whole object.
    fn get(&self, name: &str) -> Result<Bytes, StoreError>;
    /// What there is of a byte range of the object: less if it ends within the range, nothing if before it.
    fn get_some(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError>;
    /// A byte range of the object; fails if the object is shorter.
    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let have = match range.is_empty() {
            true => self.size(name)?,
            false => {
                let got = self.get_some(name, range.clone())?;
                let have = range.start.saturating_add(got.len() as u64);
                if have == range.end {
                    return Ok(got);
                }
                have
            }
        };
        if range.is_empty() && range.end <= have {
            return Ok(Bytes::new());
        }
        let reason = format!("bytes {range:?} wanted, the object ends at {have}");
        Err(StoreError::Failed { action: "get", name: name.into(), reason })
    }
    /// The same if the bytes are in memory, so that nobody waits for a disk; `None` when that is not sure, and for any error.
    fn get_resident(&self, _name: &str, _range: Range<u64>) -> Option<Bytes> {
        None
    }
    /// The object's length in bytes.
    fn size(&self, name: &str) -> Result<u64, StoreError>;
    /// Writes or replaces an object.
    fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError>;
    /// Writes an object unless there is one of that name: the fence of all writers.
    fn create(&self, name: &str, bytes: Bytes) -> Result<Created, StoreError>;
    /// Removes an object; it is no error if it is not there.
    fn delete(&self, name: &str) -> Result<(), StoreError>;
    /// Calls `each` with every object name that starts with the folder `prefix`, in any order, until it says to stop: a page
    /// of names at a time is in memory, not all. `each` must not call the store.
    fn walk(&self, prefix: &str, each: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(), StoreError>;
    /// The same names, sorted: for folders that hold few.
    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        self.walk(prefix, &mut |name| {
            names.push(name.to_owned());
            ControlFlow::Continue(())
        })?;
        names.sort_unstable();
        Ok(names)
    }
    /// Publishes a synced local file as an object, by a hard link when the store is on the same disk. `Ok(false)` when
    /// this store cannot; the caller then uses [`Store::put`].
    fn publish_local(&self, file: &Path, name: &str) -> Result<bool, StoreError>;
    /// How many calls are answered sooner side by side than one after the other: 1 by a store on this machine, where callers
    /// then keep to their order.
    fn side_by_side(&self) -> usize {
        1
    }
    /// From now on nobody waits for an answer of a store behind a network: calls under way and all later ones end at once, as
    /// [`StoreError::Away`]. For the end of a mount; it cannot be taken back. A store on this machine ends its calls by itself.
    fn abandon(&self) {}
    /// What went over the wire so far; `None` for a store that has none.
    fn counters(&self) -> Option<Arc<StoreCounters>> {
        None
    }
}
