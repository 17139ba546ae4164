//! `skylog mount --read-only STORE DIR`: a mount that follows what a writer publishes, wherever that is mounted. It needs the store,
//! takes nothing over, and has a local directory of its own for copies, beside those of other followers and of the writer.

use super::daemon;
use super::failure::{Failure, Outcome};
use super::metrics_endpoint::Endpoint;
use super::mount_options::MountOptions;
use super::registry::{self, Claim, Registration};
use super::site::Site;
use super::store_arg::{Found, StoreArg};
use super::world::{self, Sizes};
use super::{mount_point, state_dir, state_root};
use skylog::format::ids::Uuid;
use skylog::format::names::LOCK;
use skylog::format::store_file::StoreFile;
use skylog::format::superblock::Superblock;
use skylog::fuse::MountConfig;
use skylog::media::{LocalDisk, LockError, LockGuard, Owner};
use skylog::recovery::{Known, Tuning, World};
use skylog::volume::{Patience, Volume};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// More followers of one filesystem on one machine than this are a mistake.
const FOLLOWERS_MAX: u32 = 1000;

/// A follower's own directory.
struct Place {
    dir: PathBuf,
    /// Nothing was there before.
    is_new: bool,
    _lock: LockGuard,
}

/// The filesystem to be followed, as far as it can be seen before anything is touched that it can be.
pub fn look(store: &StoreArg, dir: &Path, options: &MountOptions) -> Result<Superblock, Failure> {
    if store.is_memory() {
        return Err(Failure::usage(
            "memory:// is seen by its own mount alone, there is nobody to be followed; leave out ro",
        ));
    }
    if let Some(word) = options.first_of_writer() {
        return Err(Failure::usage(format_args!(
            "{word} is for a mount that writes, and ro follows one; leave out either"
        )));
    }
    let superblock = match store.look()? {
        Found::Filesystem(superblock) => superblock,
        found @ (Found::Damaged(_) | Found::Nothing) => Site::found(store, found, None)?.superblock,
        Found::Away(reason) => {
            return Err(Failure::failed(format_args!(
                "{reason}; a mount with ro has nothing but what is in the store"
            )));
        }
    };
    options.cache.look(store)?;
    mount_point::outside(dir, [store.folder(), options.state.as_deref(), options.cache.cache_dir.as_deref()])?;
    if let Some(state) = &options.state {
        state_dir::usable(state, None)?;
    }
    Ok(superblock)
}

/// The daemon's part: serves until it is unmounted.
pub fn serve(store: &StoreArg, dir: &Path, options: &MountOptions, live: impl FnOnce(&Path)) -> Outcome {
    let superblock = look(store, dir, options)?;
    let claim = Claim::on(dir, registry::patience(dir))?;
    mount_point::free(dir)?;
    let endpoint = options.metrics.as_ref().map(Endpoint::bind).transpose()?;
    let owner = Owner::this_process(&dir.display().to_string()).map_err(Failure::failed)?;
    let place = Place::find(store, &superblock, options.state.as_deref(), &owner)?;
    let opened = place.open(store, superblock, options, &owner);
    let (volume, cache_lock) = opened.inspect_err(|_| place.abandon())?;
    let config = MountConfig { read_only: true, relatime: false, ..options.config(dir, store) };
    let (state, pid) = (place.dir.clone(), std::process::id());
    let (dir, url, follows) = (dir.to_path_buf(), store.url(), true);
    let registration = Registration { dir, store: url, state, pid, options: options.clone(), follows };
    let ended = daemon::serve(volume, registration, &config, endpoint, || live(&place.dir));
    drop((cache_lock, place, claim));
    ended
}

/// Takes away what followers of a filesystem that is no more have kept here, but what is in use.
pub fn remove_copies(uuid: Uuid) -> Outcome {
    let owner = Owner::this_process("nowhere, it is being removed").map_err(Failure::failed)?;
    for dir in state_root::followers_of(uuid)? {
        if let Ok(place) = Place::take(&dir, &owner)? {
            state_dir::remove(&place.dir).map_err(|e| Failure::failed(format_args!("{}: {e}", dir.display())))?;
        }
    }
    Ok(())
}

impl Place {
    /// The directory that the user named, else the first one of this filesystem's that nobody uses.
    fn find(store: &StoreArg, superblock: &Superblock, given: Option<&Path>, owner: &Owner) -> Result<Place, Failure> {
        let place = match given {
            Some(dir) => {
                let dir = &std::path::absolute(dir).map_err(Failure::failed)?;
                Place::take(dir, owner)?.map_err(|held| Failure::failed(format_args!("{} {held}", dir.display())))?
            }
            None => (0..FOLLOWERS_MAX)
                .find_map(|n| Place::numbered(superblock.uuid, n, owner).transpose())
                .unwrap_or_else(|| Err(Failure::failed("this machine follows the filesystem too often already")))?,
        };
        place.keep_apart(store, superblock)?;
        Ok(place)
    }

    fn numbered(uuid: Uuid, n: u32, owner: &Owner) -> Result<Option<Place>, Failure> {
        Ok(Place::take(&state_root::follower_of(uuid, n)?, owner)?.ok())
    }

    /// Makes a directory and takes its lock; else says who has it.
    fn take(dir: &Path, owner: &Owner) -> Result<Result<Place, LockError>, Failure> {
        let wrong = |e: &dyn std::fmt::Display| Failure::failed(format_args!("directory {}: {e}", dir.display()));
        let is_new = !dir.exists();
        state_root::make(dir).map_err(|e| wrong(&e))?;
        match LocalDisk::new(dir).lock(LOCK, owner) {
            Ok(lock) => {
                state_root::close_to_others(dir);
                Ok(Ok(Place { dir: dir.to_path_buf(), is_new, _lock: lock }))
            }
            Err(held @ LockError::Held { .. }) => Ok(Err(held)),
            Err(e) => Err(wrong(&e)),
        }
    }

    /// Copies of one filesystem's objects are not for another: the directory says whose they are.
    fn keep_apart(&self, store: &StoreArg, superblock: &Superblock) -> Outcome {
        let file = StoreFile { url: store.url(), endpoint: store.endpoint(), superblock: superblock.clone() };
        match state_root::read(&self.dir)? {
            Some(found) if found.superblock.uuid != superblock.uuid => Err(Failure::failed(format_args!(
                "the directory {} holds copies of filesystem {}, not of {}; give another one with --state DIR",
                self.dir.display(),
                found.superblock.uuid,
                superblock.uuid
            ))),
            _ => state_root::record(&self.dir, &file),
        }
    }

    fn open(
        &self,
        store: &StoreArg,
        superblock: Superblock,
        options: &MountOptions,
        owner: &Owner,
    ) -> Result<(Arc<Volume>, Option<LockGuard>), Failure> {
        let cache = options.cache.place(store, superblock.uuid, &self.dir, owner)?;
        let tuning = world::tuning(&superblock, Sizes::default(), owner.clone())?;
        let tuning = Tuning { cache_files: cache.limits, ..tuning };
        let known = Some(Known::Answered(superblock));
        let world = World { known, cache_media: cache.media, ..world::world(store, &self.dir)? };
        let volume = Volume::open_follower(&world, &tuning).map_err(|e| world::refused(store, None, &e))?;
        let usual = Patience::default();
        volume.set_patience(Patience {
            read_timeout: options.read_timeout_seconds.map_or(usual.read_timeout, Duration::from_secs),
            ..usual
        });
        Ok((volume, cache.lock))
    }

    /// After a mount that failed: takes away what it made.
    fn abandon(&self) {
        if self.is_new
            && let Err(e) = state_dir::remove(&self.dir)
        {
            log::warn!("{}: what the failed mount made stays: {e}", self.dir.display());
        }
    }
}
