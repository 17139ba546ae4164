//! A store over the `object_store` crate: a folder of a local disk, or memory. Its runtime stays in here; callers block,
//! on as many threads as they like.
//!
//! Objects in a folder are read without the crate: a thread that reads does so itself, by one call of the system.
//!
//! What the crate leaves to us in a folder: it syncs folders it makes itself, but not one that another thread is just
//! making, or that a process made and did not live to sync. So the first use of a folder in each process makes it
//! durable down from the root before anything goes into it.

use super::folder::{Folder, sync_dir};
use super::{Created, OpenError, Store, StoreError, name};
use crate::base::canary::{Canary, removed, sync};
use crate::format::names::SUPERBLOCK;
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as Location;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use std::fs;
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// A store over the `object_store` crate.
pub struct ObjectStoreBackend {
    store: Box<dyn ObjectStore>,
    runtime: Runtime,
    folder: Option<Folder>,
}

impl ObjectStoreBackend {
    /// The store in a folder that exists.
    pub fn in_folder(folder: &Path) -> Result<ObjectStoreBackend, OpenError> {
        let unusable = |reason: String| OpenError::Folder { folder: folder.to_owned(), reason };
        let found = fs::metadata(folder).map_err(|e| unusable(e.to_string()))?;
        if !found.is_dir() {
            return Err(unusable("not a folder".into()));
        }
        // Emptied folders stay: to remove one would race with an upload into it.
        let store = LocalFileSystem::new_with_prefix(folder).map_err(|e| unusable(e.to_string()))?;
        let store = store.with_fsync(!removed(Canary::FolderPutSync));
        Ok(ObjectStoreBackend { store: Box::new(store), runtime: runtime()?, folder: Some(Folder::new(folder)) })
    }

    /// A store in memory.
    pub fn in_memory() -> Result<ObjectStoreBackend, OpenError> {
        Ok(ObjectStoreBackend { store: Box::new(InMemory::new()), runtime: runtime()?, folder: None })
    }

    /// Fails when the folder of the store is gone.
    fn reach(&self, action: &'static str, name: &str) -> Result<(), StoreError> {
        match &self.folder {
            Some(folder) if folder.is_away() => {
                let reason = format!("{} is not there", folder.path(SUPERBLOCK).display());
                Err(StoreError::Away { action, name: name.into(), reason })
            }
            _ => Ok(()),
        }
    }

    /// Why a read failed: perhaps because the folder is gone, which says nothing of the object.
    fn unread<T>(&self, name: &str, read: Result<T, StoreError>) -> Result<T, StoreError> {
        read.or_else(|e| self.reach("get", name).and(Err(e)))
    }

    /// Before an object of that name is written: its folder is there for good.
    fn prepare(&self, action: &'static str, name: &str) -> Result<(), StoreError> {
        self.reach(action, name)?;
        match &self.folder {
            Some(folder) => folder.make_durable(name).map_err(|e| failed_io(action, name, e)),
            None => Ok(()),
        }
    }

    /// After an object of that name may have been changed.
    fn changed(&self, name: &str) {
        if let Some(folder) = &self.folder {
            folder.changed(name);
        }
    }

    /// After an object of that name was changed in a way the crate does not sync.
    fn sync_folder_of(&self, action: &'static str, name: &str) -> Result<(), StoreError> {
        match &self.folder {
            Some(folder) => sync_dir(folder.above(name)).map_err(|e| failed_io(action, name, e)),
            None => Ok(()),
        }
    }
}

/// Current-thread: each caller drives its own call; blocking file calls run on a few threads beside.
fn runtime() -> Result<Runtime, OpenError> {
    Builder::new_current_thread()
        .thread_name("skylog-store")
        .max_blocking_threads(8)
        .thread_keep_alive(Duration::from_secs(30))
        .build()
        .map_err(|e| OpenError::Runtime(e.to_string()))
}

fn failed(action: &'static str, name: &str, reason: impl ToString) -> StoreError {
    StoreError::Failed { action, name: name.into(), reason: reason.to_string() }
}

fn refused(action: &'static str, name: &str, error: Error) -> StoreError {
    match error {
        Error::NotFound { .. } => StoreError::NotFound { name: name.into() },
        other if is_full(&other) => StoreError::Full { name: name.into() },
        other => failed(action, name, other),
    }
}

/// Whether somewhere below an error the disk was full.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let full = |e: &io::Error| matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    error.downcast_ref::<io::Error>().is_some_and(full) || error.source().is_some_and(is_full)
}

fn failed_io(action: &'static str, name: &str, error: io::Error) -> StoreError {
    match is_full(&error) {
        true => StoreError::Full { name: name.into() },
        false => failed(action, name, error),
    }
}

fn unreadable(name: &str, error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::NotFound => StoreError::NotFound { name: name.into() },
        _ => failed("get", name, error),
    }
}

fn locate(action: &'static str, name: &str) -> Result<Location, StoreError> {
    name::check(action, name)?;
    Location::parse(name).map_err(|e| failed(action, name, e))
}

impl Store for ObjectStoreBackend {
    fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        let at = locate("get", name)?;
        if let Some(folder) = &self.folder {
            return self.unread(name, folder.read(name).map(Bytes::from).map_err(|e| unreadable(name, e)));
        }
        let whole = async { self.store.get(&at).await?.bytes().await };
        self.runtime.block_on(whole).map_err(|e| refused("get", name, e))
    }

    fn get_some(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let at = locate("get", name)?;
        match &self.folder {
            Some(folder) => {
                let read = folder.read_range(name, &range).map(Bytes::from);
                self.unread(name, read.map_err(|e| unreadable(name, e)))
            }
            None => {
                let len = self.size(name)?;
                if range.is_empty() || range.start >= len {
                    return Ok(Bytes::new());
                }
                let got = self.runtime.block_on(self.store.get_range(&at, range.start..range.end.min(len)));
                got.map_err(|e| refused("get", name, e))
            }
        }
    }

    fn get_resident(&self, name: &str, range: Range<u64>) -> Option<Bytes> {
        self.folder.as_ref()?.read_resident(name, &range).map(Bytes::from)
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        let at = locate("get", name)?;
        if let Some(folder) = &self.folder {
            return self.unread(name, folder.size(name).map_err(|e| unreadable(name, e)));
        }
        let found = self.runtime.block_on(self.store.head(&at));
        self.unread(name, found.map(|found| found.size).map_err(|e| refused("get", name, e)))
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let at = locate("put", name)?;
        self.prepare("put", name)?;
        let put = self.runtime.block_on(self.store.put(&at, bytes.into()));
        self.changed(name);
        put.map(drop).map_err(|e| refused("put", name, e))
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<Created, StoreError> {
        let at = locate("create", name)?;
        self.prepare("create", name)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.runtime.block_on(self.store.put_opts(&at, bytes.into(), options)) {
            Ok(_) => Ok(Created::New),
            Err(Error::AlreadyExists { .. }) => {
                // The caller goes on from what it finds here. Its maker may have died before it synced the name.
                sync(Canary::FolderExistsSync, || self.sync_folder_of("create", name))?;
                Ok(Created::Exists)
            }
            Err(e) => Err(refused("create", name, e)),
        }
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        let at = locate("delete", name)?;
        self.reach("delete", name)?;
        let deleted = self.runtime.block_on(self.store.delete(&at));
        self.changed(name);
        match deleted {
            Ok(()) => sync(Canary::FolderDeleteSync, || self.sync_folder_of("delete", name)),
            Err(Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(refused("delete", name, e)),
        }
    }

    fn walk(&self, prefix: &str, each: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(), StoreError> {
        let prefix = prefix.trim_end_matches('/');
        self.reach("list", prefix)?;
        let at = if prefix.is_empty() { None } else { Some(locate("list", prefix)?) };
        let mut found = self.store.list(at.as_ref());
        let walked = async {
            while let Some(object) = found.try_next().await? {
                let name = object.location.as_ref();
                // An upload that has not ended, or never will.
                if !name.contains('#') && each(name).is_break() {
                    break;
                }
            }
            Ok(())
        };
        self.runtime.block_on(walked).map_err(|e: Error| failed("list", prefix, e))
    }

    fn publish_local(&self, file: &Path, name: &str) -> Result<bool, StoreError> {
        locate("put", name)?;
        let Some(folder) = &self.folder else { return Ok(false) };
        self.reach("put", name)?;
        folder.make_durable(name).map_err(|e| failed_io("put", name, e))?;
        folder.link(file, name).map_err(|e| failed_io("put", name, e))
    }
}

#[cfg(test)]
mod tests;
