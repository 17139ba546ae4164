//! The manifest on disk, and the one way to change it.
//!
//! It changes whole or not at all: a copy is changed, written to a temporary file, synced, renamed over the old one, and
//! the folder synced; only then does memory follow. When it is unknown which of the two the disk will show after a crash
//! (the rename or the sync of the folder failed), no later change is made: whoever acted on one of them could destroy
//! what the other names.

use super::is_full;
use crate::base::canary::{Canary, removed, sync};
use crate::format::FormatError;
use crate::format::manifest::Manifest;
use crate::media::{Media, read_whole};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

/// The manifest's name in the state directory.
pub const MANIFEST: &str = "MANIFEST";
const TEMPORARY: &str = "MANIFEST.new";

/// Why the manifest was not read or not changed.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// What is on disk is not a manifest.
    #[error("MANIFEST is damaged: {0}; run: skylog check --repair STORE")]
    Damaged(FormatError),
    /// The disk failed, and the manifest is what it was.
    #[error("cannot {doing} MANIFEST: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the disk said.
        source: io::Error,
    },
    /// The disk failed so that old and new may both be on it. Nothing is changed any more.
    #[error("MANIFEST can no longer be changed: {0}")]
    Latched(String),
}

impl ManifestError {
    /// Whether there was no room: the manifest is what it was, and trying again later may succeed.
    pub fn is_full(&self) -> bool {
        matches!(self, ManifestError::Io { source, .. } if is_full(source))
    }

    fn io(doing: &'static str) -> impl FnOnce(io::Error) -> ManifestError {
        move |source| ManifestError::Io { doing, source }
    }
}

/// The manifest of a state directory; shared by all who change it.
pub struct ManifestStore {
    media: Arc<dyn Media>,
    /// Taken first, and held across the disk calls of a change: changes are made one after the other. Holds why there
    /// may be no more.
    changing: Mutex<Option<String>>,
    /// Taken second, for moments only.
    current: Mutex<Arc<Manifest>>,
}

impl ManifestStore {
    /// Writes the first manifest of a state directory.
    pub fn create(media: Arc<dyn Media>, manifest: Manifest) -> Result<ManifestStore, ManifestError> {
        if ManifestStore::load(Arc::clone(&media))?.is_some() {
            let source = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(ManifestError::Io { doing: "create", source });
        }
        let store = ManifestStore { media, changing: Mutex::new(None), current: Mutex::new(Arc::new(manifest)) };
        store.update(|_| ())?;
        Ok(store)
    }

    /// Reads the manifest; `None` if there is none, which is a fresh start. Only reads.
    pub fn load(media: Arc<dyn Media>) -> Result<Option<ManifestStore>, ManifestError> {
        let file = match media.open(MANIFEST) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ManifestError::Io { doing: "open", source }),
        };
        let bytes = read_whole(&*file).map_err(ManifestError::io("read"))?;
        let manifest = Manifest::decode(&bytes).map_err(ManifestError::Damaged)?;
        Ok(Some(ManifestStore { media, changing: Mutex::new(None), current: Mutex::new(Arc::new(manifest)) }))
    }

    /// The manifest as it is on disk.
    pub fn current(&self) -> Arc<Manifest> {
        Arc::clone(&self.current.lock())
    }

    /// Changes the manifest. When this returns, the change is durable; on an error nothing has changed, unless the error
    /// is [`ManifestError::Latched`].
    pub fn update<T>(&self, change: impl FnOnce(&mut Manifest) -> T) -> Result<T, ManifestError> {
        let mut latched = self.changing.lock();
        if let Some(reason) = &*latched {
            return Err(ManifestError::Latched(reason.clone()));
        }
        let mut next = Manifest::clone(&self.current());
        let result = change(&mut next);
        self.write_temporary(next.encode().as_bytes()).inspect_err(|_| self.remove_temporary())?;
        if let Err(e) = self.replace() {
            if removed(Canary::ManifestLatch) {
                return Err(ManifestError::io("replace")(e));
            }
            *latched = Some(e.to_string());
            return Err(ManifestError::Latched(e.to_string()));
        }
        *self.current.lock() = Arc::new(next);
        Ok(result)
    }

    fn write_temporary(&self, bytes: &[u8]) -> Result<(), ManifestError> {
        self.remove_temporary();
        let file = self.media.create(TEMPORARY).map_err(ManifestError::io("create a new"))?;
        file.write_at(bytes, 0).map_err(ManifestError::io("write a new"))?;
        file.sync().map_err(ManifestError::io("sync a new"))
    }

    /// The temporary file means nothing to anyone; one that cannot be removed now is removed before the next change.
    fn remove_temporary(&self) {
        if let Err(e) = self.media.remove(TEMPORARY) {
            if e.kind() != io::ErrorKind::NotFound {
                log::warn!("cannot remove {TEMPORARY}: {e}");
            }
        }
    }

    fn replace(&self) -> io::Result<()> {
        self.media.rename(TEMPORARY, MANIFEST)?;
        sync(Canary::ManifestDirSync, || self.media.sync_dir(""))
    }
}
