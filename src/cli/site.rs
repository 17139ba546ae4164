//! A filesystem that a command works on: its superblock, and where its local state lies. When the store does not answer, both
//! come from the state directory.

use super::failure::{Failure, Outcome};
use super::state_root;
use super::store_arg::{Found, StoreArg};
use skylog::format::ids::Uuid;
use skylog::format::store_file::{STORE_FILE, StoreFile};
use skylog::format::superblock::Superblock;
use std::path::{Path, PathBuf};

/// A filesystem and its state directory.
pub struct Site {
    /// What the store says of the filesystem, or said when it was last seen.
    pub superblock: Superblock,
    /// The state directory, which need not exist yet.
    pub state: PathBuf,
    /// Why the store does not answer, if it does not.
    pub away: Option<String>,
    _temporary: Option<Temporary>,
}

impl Site {
    /// The filesystem of a store, with the state directory given or the usual one. Fails with one sentence if there is none, or if the
    /// store is away and nothing here says what is in it.
    pub fn of(store: &StoreArg, given: Option<&Path>) -> Result<Site, Failure> {
        Site::found(store, store.look()?, given)
    }

    /// The same, for a command that can do nothing without the store.
    pub fn online(store: &StoreArg, given: Option<&Path>) -> Result<Site, Failure> {
        match store.look()? {
            Found::Away(reason) => Err(Failure::failed(reason)),
            found => Site::found(store, found, given),
        }
    }

    /// The same, when the store has been asked already.
    pub fn found(store: &StoreArg, found: Found, given: Option<&Path>) -> Result<Site, Failure> {
        let given = given.map(absolute).transpose()?;
        match found {
            Found::Filesystem(superblock) => Site::there(store, superblock, given),
            Found::Damaged(reason) => {
                Err(Failure::failed(format_args!("{reason}; run: skylog check --repair {}", store.shown())))
            }
            Found::Nothing => Err(store.missing()),
            Found::Away(reason) => Site::from_copy(store, reason, given),
        }
    }

    /// Where the state of a filesystem lies of which the superblock is damaged or gone; `None` if no state is known.
    pub fn state_without_superblock(store: &StoreArg, given: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
        if let (Some(given), _) | (None, Some(given)) =
            (given, store.folder().map(|folder| folder.join("state")).as_deref())
        {
            return absolute(given).map(Some);
        }
        let mut found = state_root::find(store)?;
        match (found.pop(), found.is_empty()) {
            (Some((state, _)), true) => Ok(Some(state)),
            (None, _) => Ok(None),
            (Some(_), false) => Err(Failure::failed(format_args!(
                "several state directories belong to {}, choose one with --state DIR",
                store.url()
            ))),
        }
    }

    /// Where the state of a filesystem will lie that is to be made, if that is known before.
    pub fn state_of_new(store: &StoreArg, given: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
        match given {
            Some(given) => absolute(given).map(Some),
            None => Ok(store.folder().map(|folder| folder.join("state"))),
        }
    }

    fn there(store: &StoreArg, superblock: Superblock, given: Option<PathBuf>) -> Result<Site, Failure> {
        let (state, temporary) = match (given, store.folder()) {
            (Some(given), _) => (given, None),
            (None, Some(folder)) => (folder.join("state"), None),
            (None, None) if store.is_memory() => {
                let temporary = Temporary::new()?;
                (temporary.0.clone(), Some(temporary))
            }
            (None, None) => (state_root::state_of(superblock.uuid)?, None),
        };
        Ok(Site { superblock, state, away: None, _temporary: temporary })
    }

    fn from_copy(store: &StoreArg, reason: String, given: Option<PathBuf>) -> Result<Site, Failure> {
        let url = store.url();
        let (state, file) = match given {
            Some(state) => {
                let file = state_root::read(&state)?.filter(|file| file.url == url).ok_or_else(|| {
                    Failure::failed(format_args!("{reason}; {} holds no state of {url} either", state.display()))
                })?;
                (state, file)
            }
            None => {
                let mut found = state_root::find(store)?;
                let at = store.endpoint().map_or(String::new(), |endpoint| format!(" at {endpoint}"));
                match (found.pop(), found.is_empty()) {
                    (Some(found), true) => found,
                    (None, _) => {
                        return Err(Failure::failed(format_args!(
                            "{reason}; there is no local state of {url}{at} to mount from"
                        )));
                    }
                    (Some(_), false) => {
                        return Err(Failure::failed(format_args!(
                            "{reason}; several state directories belong to {url}, choose one with --state DIR"
                        )));
                    }
                }
            }
        };
        Ok(Site { superblock: file.superblock, state, away: Some(reason), _temporary: None })
    }

    /// Fails when the state directory, or another one here, says that there was another filesystem at this very place, or that it
    /// is the state of another place: what only that state holds would be forgotten, or shipped where it does not belong.
    pub fn same_as_before(&self, store: &StoreArg) -> Outcome {
        if !store.is_remote() {
            return Ok(());
        }
        let (url, uuid) = (store.url(), self.superblock.uuid);
        if let Some(file) = state_root::read(&self.state)? {
            if file.url != url {
                let state = self.state.display();
                return Err(Failure::failed(format_args!(
                    "{state} is the state of {}, not of {url}; if the whole store was moved, remove {state}/{STORE_FILE}",
                    file.url
                )));
            }
            if file.superblock.uuid != uuid {
                return Err(made_anew(&url, uuid, &self.state, file.superblock.uuid));
            }
            return Ok(());
        }
        let before = state_root::find(store)?.into_iter().find(|(_, file)| file.superblock.uuid != uuid);
        before.map_or(Ok(()), |(state, file)| Err(made_anew(&url, uuid, &state, file.superblock.uuid)))
    }

    /// Writes down in the state directory, which exists, what a mount needs when the store is away.
    pub fn record(&self, store: &StoreArg) -> Outcome {
        if !store.is_remote() || self.away.is_some() {
            return Ok(());
        }
        let file = StoreFile { url: store.url(), endpoint: store.endpoint(), superblock: self.superblock.clone() };
        state_root::record(&self.state, &file)
    }
}

fn made_anew(url: &str, uuid: Uuid, state: &Path, before: Uuid) -> Failure {
    let state = state.display();
    Failure::failed(format_args!(
        "{url} was made anew: it is filesystem {uuid}, and {state} is the state of {before}, which was there before; move {state} away to mount the new one"
    ))
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|e| Failure::failed(format_args!("{}: {e}", path.display())))
}

/// A state directory that goes with the mount.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Result<Temporary, Failure> {
        let template = std::env::temp_dir().join("skylog.XXXXXX");
        let made = nix::unistd::mkdtemp(&template);
        made.map(Temporary).map_err(|e| Failure::failed(format_args!("{}: {}", template.display(), e.desc())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            log::warn!("{} stays: {e}", self.0.display());
        }
    }
}
