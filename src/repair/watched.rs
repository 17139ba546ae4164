//! Disk and store under the eyes of a repair: which call failed, and it was no damage.
//!
//! A check calls everything a problem that it cannot read. What is only unreadable now must not make a repair of a filesystem
//! that is whole.

use super::RepairError;
use crate::media::{File, FolderEntry, Media, Space};
use crate::store::{Created, Store, StoreCounters, StoreError};
use bytes::Bytes;
use parking_lot::Mutex;
use std::io::{self, ErrorKind};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The first call that failed.
#[derive(Clone, Default)]
pub(super) struct Failed(Arc<Mutex<Option<RepairError>>>);

impl Failed {
    /// A store whose failing calls are noted.
    pub fn store(&self, store: &Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(Watched { inner: store.clone(), failed: self.clone() })
    }

    /// The same of a state directory.
    pub fn media(&self, media: &Arc<dyn Media>) -> Arc<dyn Media> {
        Arc::new(Watched { inner: media.clone(), failed: self.clone() })
    }

    /// What failed first.
    pub fn first(&self) -> Option<RepairError> {
        self.0.lock().take()
    }

    fn stored<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(e) = &done {
            if !matches!(e, StoreError::NotFound { .. }) {
                self.0.lock().get_or_insert_with(|| e.clone().into());
            }
        }
        done
    }

    fn disk<T>(&self, name: &str, done: io::Result<T>) -> io::Result<T> {
        if let Err(e) = &done {
            if !is_damage(e) {
                let error = io::Error::new(e.kind(), format!("{name}: {e}"));
                self.0.lock().get_or_insert(RepairError::Disk(error));
            }
        }
        done
    }
}

/// Whether an error says that something is gone, too short, or no file, and not that the disk fails.
fn is_damage(e: &io::Error) -> bool {
    let is_no_file = [libc::ENXIO, libc::ELOOP, libc::EISDIR, libc::ENOTDIR].map(Some).contains(&e.raw_os_error());
    let is_gone = [ErrorKind::NotFound, ErrorKind::UnexpectedEof].contains(&e.kind());
    is_gone || is_no_file || matches!(e.kind(), ErrorKind::IsADirectory | ErrorKind::NotADirectory)
}

struct Watched<T: ?Sized> {
    inner: Arc<T>,
    failed: Failed,
}

impl Store for Watched<dyn Store> {
    fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        self.failed.stored(self.inner.get(name))
    }

    fn get_some(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.failed.stored(self.inner.get_some(name, range))
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.failed.stored(self.inner.size(name))
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.failed.stored(self.inner.put(name, bytes))
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<Created, StoreError> {
        self.failed.stored(self.inner.create(name, bytes))
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.failed.stored(self.inner.delete(name))
    }

    fn walk(&self, prefix: &str, each: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.failed.stored(self.inner.walk(prefix, each))
    }

    fn publish_local(&self, file: &Path, name: &str) -> Result<bool, StoreError> {
        self.failed.stored(self.inner.publish_local(file, name))
    }

    fn side_by_side(&self) -> usize {
        self.inner.side_by_side()
    }

    fn abandon(&self) {
        self.inner.abandon();
    }

    fn counters(&self) -> Option<Arc<StoreCounters>> {
        self.inner.counters()
    }
}

impl Watched<dyn Media> {
    fn file(&self, name: &str, opened: io::Result<Arc<dyn File>>) -> io::Result<Arc<dyn File>> {
        let inner = self.failed.disk(name, opened)?;
        Ok(Arc::new(WatchedFile { inner, name: name.to_owned(), failed: self.failed.clone() }))
    }
}

impl Media for Watched<dyn Media> {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.file(name, self.inner.create(name))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.file(name, self.inner.open(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.failed.disk(from, self.inner.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.failed.disk(name, self.inner.remove(name))
    }

    fn make_dir(&self, name: &str) -> io::Result<()> {
        self.failed.disk(name, self.inner.make_dir(name))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.failed.disk(dir, self.inner.list(dir))
    }

    fn visit(&self, dir: &str, each: &mut dyn FnMut(FolderEntry<'_>)) -> io::Result<()> {
        self.failed.disk(dir, self.inner.visit(dir, each))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.failed.disk(dir, self.inner.sync_dir(dir))
    }

    fn space(&self) -> io::Result<Space> {
        self.failed.disk("", self.inner.space())
    }

    fn local_path(&self, name: &str) -> Option<PathBuf> {
        self.inner.local_path(name)
    }
}

struct WatchedFile {
    inner: Arc<dyn File>,
    name: String,
    failed: Failed,
}

impl File for WatchedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.failed.disk(&self.name, self.inner.read_at(buf, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.failed.disk(&self.name, self.inner.write_at(buf, offset))
    }

    fn sync(&self) -> io::Result<()> {
        self.failed.disk(&self.name, self.inner.sync())
    }

    fn len(&self) -> io::Result<u64> {
        self.failed.disk(&self.name, self.inner.len())
    }

    fn forget_cached(&self) -> io::Result<()> {
        self.failed.disk(&self.name, self.inner.forget_cached())
    }
}
