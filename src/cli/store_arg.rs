//! STORE on the command line.

use super::failure::{Failure, Outcome};
use super::remote_words::RemoteWords;
use skylog::format::names::{self, LOCK};
use skylog::format::superblock::{Superblock, SuperblockError};
use skylog::store::{OpenError, Place, RemoteOptions, Store, StoreError, is_probe};
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

/// The object that makes a folder a skylog store.
pub use skylog::format::names::SUPERBLOCK;

/// A store as the user named it. It is opened once: connections are shared, and so is what a store in memory holds.
#[derive(Clone)]
pub struct StoreArg {
    place: Place,
    options: RemoteOptions,
    opened: Arc<OnceLock<Arc<dyn Store>>>,
}

/// What there is at the place of a store.
pub enum Found {
    /// A filesystem.
    Filesystem(Superblock),
    /// A filesystem, of which the superblock cannot be read. One sentence, without a full stop.
    Damaged(String),
    /// No filesystem of ours.
    Nothing,
    /// Nobody knows: the store does not answer. One sentence, without a full stop.
    Away(String),
}

impl FromStr for StoreArg {
    type Err = OpenError;

    fn from_str(text: &str) -> Result<StoreArg, OpenError> {
        let place = match Place::parse(text)? {
            Place::Folder(folder) => Place::Folder(folder.canonicalize().unwrap_or(folder)),
            other => other,
        };
        Ok(StoreArg { place, options: RemoteOptions::default(), opened: Arc::default() })
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

    /// As the user would name it.
    pub fn shown(&self) -> String {
        self.folder().map_or_else(|| self.url(), |folder| folder.display().to_string())
    }

    /// Whether it is gone with the process that opens it.
    pub fn is_memory(&self) -> bool {
        matches!(self.place, Place::Memory)
    }

    /// Whether it is a bucket of a service.
    pub fn is_remote(&self) -> bool {
        matches!(self.place, Place::Remote(_))
    }

    /// Requests at the same time that send an object; nothing if the store is a directory.
    pub fn uploads(&self) -> Option<usize> {
        self.folder().is_none().then_some(self.options.uploads.get())
    }

    /// The same store, spoken to as the user said; fails when there is nobody to speak to.
    pub fn with(&self, words: &RemoteWords) -> Result<StoreArg, Failure> {
        match words.first() {
            Some(flag) if !self.is_remote() => Err(Failure::usage(format_args!(
                "{flag} is for remote stores, such as s3://bucket/prefix, and {} is none",
                self.url()
            ))),
            _ => Ok(StoreArg { place: self.place.clone(), options: words.options()?, opened: Arc::default() }),
        }
    }

    /// As [`StoreArg::with`], for a command that comes before or after a mount: what is in memory lasts as long as that.
    pub fn lasting(&self, words: &RemoteWords) -> Result<StoreArg, Failure> {
        match self.is_memory() {
            true => Err(Failure::usage("memory:// lasts as long as its mount; `skylog mount memory:// DIR` makes one")),
            false => self.with(words),
        }
    }

    /// Where the service of a remote store listens, if it is not the usual place of its kind.
    pub fn endpoint(&self) -> Option<String> {
        match &self.place {
            Place::Remote(place) => place.endpoint(&self.options),
            Place::Folder(_) | Place::Memory => None,
        }
    }

    /// Opens the store, or gives what was opened before.
    pub fn open(&self) -> Result<Arc<dyn Store>, Failure> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened.clone());
        }
        let opened = self.place.open_with(&self.options).map_err(|e| match &e {
            OpenError::Folder { folder, .. } if !folder.exists() => {
                let shown = folder.display();
                Failure::failed(format_args!("there is no store at {shown}; `skylog mkfs {shown}` makes one"))
            }
            _ => Failure::failed(e),
        })?;
        Ok(self.opened.get_or_init(|| opened).clone())
    }

    /// What there is at this place; fails with one sentence if it cannot be known, or is nothing that this program can use.
    pub fn look(&self) -> Result<Found, Failure> {
        if self.folder().is_some_and(|folder| !folder.exists()) {
            return Ok(Found::Nothing);
        }
        let shown = self.url();
        match self.open()?.get(SUPERBLOCK) {
            Ok(bytes) => match Superblock::decode(&bytes) {
                Ok(superblock) => Ok(Found::Filesystem(superblock)),
                Err(SuperblockError::Newer { supported, found }) => Err(Failure::failed(format_args!(
                    "{shown} was made by a newer skylog: its format is {found}, this program knows {supported}; update skylog"
                ))),
                Err(e @ SuperblockError::Incompatible(_)) => {
                    Err(Failure::failed(format_args!("{shown}/{SUPERBLOCK}: {e}")))
                }
                Err(e) => Ok(Found::Damaged(format!("{shown}/{SUPERBLOCK}: {e}"))),
            },
            Err(StoreError::NotFound { .. }) => Ok(Found::Nothing),
            Err(StoreError::Away { reason, .. }) => Ok(Found::Away(self.away(&reason))),
            Err(e) => Err(self.refused(e)),
        }
    }

    /// Whether there are objects of a filesystem, whatever the superblock says.
    pub fn has_generations(&self) -> Result<bool, Failure> {
        let mut found = false;
        let walked = self.open()?.walk("gen", &mut |name| {
            found |= names::is_ours(name);
            if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        walked.map(|()| found).map_err(|e| self.refused(e))
    }

    /// Why there is no filesystem to work on.
    pub fn missing(&self) -> Failure {
        if let Err(failure) = self.open() {
            return failure;
        }
        if self.has_generations().unwrap_or(false) {
            let shown = self.shown();
            return Failure::failed(format_args!(
                "{shown} has no {SUPERBLOCK} and holds a filesystem, whole or the rest of one; `skylog check --repair {shown}` \
                 makes it whole, `skylog destroy {shown}` removes it"
            ));
        }
        let (shown, place) = (self.url(), if self.folder().is_some() { "a new directory" } else { "an empty place" });
        Failure::failed(format_args!(
            "{shown} is not a skylog store (it has no {SUPERBLOCK}); `skylog mkfs` makes one in {place}"
        ))
    }

    /// Fails with one sentence unless a store can be made at this place.
    pub fn vacant(&self) -> Outcome {
        let shown = self.shown();
        let holds = match self.folder() {
            Some(folder) => holds_folder(folder)?,
            None => self.holds()?,
        };
        match holds {
            None => Ok(()),
            Some(name) if name == SUPERBLOCK => Err(Failure::failed(format_args!(
                "{shown} already holds a skylog filesystem; `skylog mount {shown} DIR` mounts it"
            ))),
            Some(name) if self.folder().is_some() => {
                Err(Failure::failed(format_args!("{shown} holds other files ({name}); take an empty or new directory")))
            }
            Some(name) if names::parse(&name).is_some() || name.starts_with("gen/") => {
                Err(Failure::failed(format_args!(
                    "{shown} holds {name} and no {SUPERBLOCK}, as an interrupted mkfs or destroy leaves it; \
                 `skylog destroy {shown}` removes such rests"
                )))
            }
            Some(name) => Err(Failure::failed(format_args!(
                "{shown} holds other objects ({name}); take another prefix or bucket"
            ))),
        }
    }

    /// An object that the store holds: the superblock before all others.
    fn holds(&self) -> Result<Option<String>, Failure> {
        let store = self.open()?;
        match store.size(SUPERBLOCK) {
            Ok(_) => return Ok(Some(SUPERBLOCK.to_owned())),
            Err(StoreError::NotFound { .. }) => {}
            Err(e) => return Err(self.refused(e)),
        }
        let mut first = None;
        let walked = store.walk("", &mut |name| {
            if is_probe(name) {
                return ControlFlow::Continue(());
            }
            first = Some(name.to_owned());
            ControlFlow::Break(())
        });
        walked.map(|()| first).map_err(|e| self.refused(e))
    }

    /// What the store said when it did not do what was asked.
    pub fn refused(&self, error: StoreError) -> Failure {
        match error {
            StoreError::Away { reason, .. } => Failure::failed(self.away(&reason)),
            StoreError::Failed { reason, .. } if self.is_remote() => {
                Failure::failed(format_args!("{} cannot be used: {reason}", self.url()))
            }
            e => Failure::failed(e),
        }
    }

    fn away(&self, reason: &str) -> String {
        format!("{} does not answer: {reason}", self.url())
    }
}

/// A file in the folder of a store: the superblock before all others.
fn holds_folder(folder: &Path) -> Result<Option<String>, Failure> {
    if folder.join(SUPERBLOCK).exists() {
        return Ok(Some(SUPERBLOCK.to_owned()));
    }
    match folder.read_dir() {
        Ok(entries) => {
            let mut paths = entries.filter_map(Result::ok).map(|entry| entry.path());
            let is_probe = |path: &Path| path.file_name().and_then(OsStr::to_str).is_some_and(is_probe);
            let other = paths.find(|path| !is_lock(path) && !is_probe(path));
            Ok(other.map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned()))
        }
        Err(_) if folder.exists() => Err(Failure::failed(format_args!("{} is not a directory", folder.display()))),
        Err(_) => Ok(None),
    }
}

/// Whether this is the lock of a filesystem that somebody was about to make here.
fn is_lock(path: &Path) -> bool {
    let text = std::fs::read(path).unwrap_or_default();
    path.ends_with(LOCK) && (text.is_empty() || text.starts_with(b"host="))
}
