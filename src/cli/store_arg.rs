//! STORE on the command line, and where its local state lies.

use super::failure::Failure;
use skylog::format::names::LOCK;
use skylog::format::superblock::{Superblock, SuperblockError};
use skylog::store::{OpenError, Place, Store, StoreError};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// The object that makes a folder a skylog store.
pub use skylog::format::names::SUPERBLOCK;

/// A store as the user named it.
#[derive(Clone, Debug)]
pub struct StoreArg {
    place: Place,
}

impl FromStr for StoreArg {
    type Err = OpenError;

    fn from_str(text: &str) -> Result<StoreArg, OpenError> {
        let place = match Place::parse(text)? {
            Place::Folder(folder) => Place::Folder(folder.canonicalize().unwrap_or(folder)),
            // It would be gone with this very command.
            Place::Memory => return Err(OpenError::NotYet { scheme: "memory".into() }),
            remote => remote,
        };
        Ok(StoreArg { place })
    }
}

impl StoreArg {
    /// Where the store is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The store's folder, if it is one.
    pub fn folder(&self) -> Option<&Path> {
        match &self.place {
            Place::Folder(folder) => Some(folder),
            Place::Memory | Place::Remote(_) => None,
        }
    }

    /// The store's one name, whatever the user wrote.
    pub fn url(&self) -> String {
        self.place.url()
    }

    /// The state directory: the one given, else `state` inside a store that is a folder.
    pub fn state(&self, given: Option<&Path>) -> Result<PathBuf, Failure> {
        match (given, &self.place) {
            (Some(given), _) => {
                std::path::absolute(given).map_err(|e| Failure::failed(format_args!("{}: {e}", given.display())))
            }
            (None, Place::Folder(folder)) => Ok(folder.join("state")),
            (None, place) => Err(Failure::usage(format_args!("{} needs `--state DIR`", place.url()))),
        }
    }

    /// Opens the store.
    pub fn open(&self) -> Result<Arc<dyn Store>, Failure> {
        self.place.open().map_err(|e| match &e {
            OpenError::Folder { folder, .. } if !folder.exists() => {
                let shown = folder.display();
                Failure::failed(format_args!("there is no store at {shown}; `skylog mkfs {shown}` makes one"))
            }
            _ => Failure::failed(e),
        })
    }

    /// The configuration of the skylog store at this place; fails with one sentence when it is none.
    pub fn superblock(&self) -> Result<Superblock, Failure> {
        let shown = self.url();
        match self.open()?.get(SUPERBLOCK) {
            Ok(bytes) => Superblock::decode(&bytes).map_err(|e| match e {
                SuperblockError::Newer { supported, found } => Failure::failed(format_args!(
                    "{shown} was made by a newer skylog: its format is {found}, this program knows {supported}; update skylog"
                )),
                e => Failure::failed(format_args!("{shown}/{SUPERBLOCK}: {e}")),
            }),
            Err(StoreError::NotFound { .. }) => Err(self.foreign()),
            Err(e) => Err(Failure::failed(e)),
        }
    }

    /// Whether there is something at this place already, in one sentence; `None` when a store can be made there.
    pub fn occupied(&self) -> Option<String> {
        let folder = self.folder()?;
        let shown = folder.display();
        if folder.join(SUPERBLOCK).exists() {
            return Some(format!("{shown} already holds a skylog filesystem; `skylog mount {shown} DIR` mounts it"));
        }
        match folder.read_dir() {
            Ok(entries) => {
                let mut names = entries.filter_map(Result::ok).map(|entry| entry.path());
                let other = names.any(|path| !is_lock(&path));
                other.then(|| format!("{shown} holds other files; take an empty or new directory"))
            }
            Err(_) if folder.exists() => Some(format!("{shown} is not a directory")),
            Err(_) => None,
        }
    }

    fn foreign(&self) -> Failure {
        let shown = self.url();
        Failure::failed(format_args!(
            "{shown} is not a skylog store (it has no {SUPERBLOCK}); `skylog mkfs` makes one in a new directory"
        ))
    }
}

/// Whether this is the lock of a filesystem that somebody was about to make here.
fn is_lock(path: &Path) -> bool {
    let text = std::fs::read(path).unwrap_or_default();
    path.ends_with(LOCK) && (text.is_empty() || text.starts_with(b"host="))
}
