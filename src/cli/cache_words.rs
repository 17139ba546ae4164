//! How much local disk the copies of store objects may take, and where they lie, from the command line.

use super::failure::{Failure, Outcome};
use super::size;
use super::store_arg::StoreArg;
use super::world::lock_folder;
use serde::{Deserialize, Serialize};
use skylog::cache::{BYTES_MIN, Limits};
use skylog::format::ids::Uuid;
use skylog::format::names::LOCK;
use skylog::media::{LocalDisk, LockGuard, Media, Owner, Space};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Of a store that is not on this machine so much is kept here, unless asked otherwise.
const REMOTE_BYTES: u64 = 10 << 30;
/// Unless asked otherwise, the cache leaves a twentieth of the disk free, but no less and no more than this.
const FREE_SHARE: u64 = 20;
const FREE_BYTES_MIN: u64 = 256 << 20;
const FREE_BYTES_MAX: u64 = 10 << 30;

/// A daemon that was killed may not be quite dead yet.
const DYING_MAX: Duration = Duration::from_secs(2);

/// Makes a folder that nobody else may write: the checksums of what lies in it are no seals.
fn make_ours(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::other("it belongs to somebody else; name another one with --cache-dir DIR"));
    }
    fs::set_permissions(folder, Permissions::from_mode(0o700))
}

/// What the user said of the cache.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheWords {
    /// How much local disk copies of the store may take, at least 16MiB (default 10GiB; none of a store that is a directory).
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub cache_size: Option<u64>,
    /// Where these copies lie, in a folder named by the filesystem's UUID; in the state directory unless given.
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// How much of that disk stays free of them, whoever fills it (default 5 % of it, from 256MiB to 10GiB).
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub cache_free: Option<u64>,
}

/// The disk of a mount's cache files.
pub struct CachePlace {
    /// The disk.
    pub media: Arc<dyn Media>,
    /// How much of it; nothing if there is to be no cache.
    pub limits: Option<Limits>,
    /// Keeps others off a folder of its own.
    pub lock: Option<LockGuard>,
}

impl CacheWords {
    /// All of another; these win.
    pub fn extend(&mut self, winning: &CacheWords) -> Outcome {
        self.cache_size = winning.cache_size.or(self.cache_size);
        self.cache_free = winning.cache_free.or(self.cache_free);
        if let Some(dir) = &winning.cache_dir {
            let wrong = |e| Failure::failed(format_args!("{}: {e}", dir.display()));
            self.cache_dir = Some(std::path::absolute(dir).map_err(wrong)?);
        }
        Ok(())
    }

    /// The first of these that the other does not have so.
    pub fn first_not_in(&self, other: &CacheWords) -> Option<&'static str> {
        let differ = [
            ("cache_size", self.cache_size.is_some() && self.cache_size != other.cache_size),
            ("cache_dir", self.cache_dir.is_some() && self.cache_dir != other.cache_dir),
            ("cache_free", self.cache_free.is_some() && self.cache_free != other.cache_free),
        ];
        differ.iter().find(|(_, differs)| *differs).map(|(name, _)| *name)
    }

    /// Whether these words are good for a store, as far as that can be seen before anything is touched.
    pub fn look(&self, store: &StoreArg) -> Outcome {
        self.bytes_max(store).map(drop)
    }

    /// How much copies of a store may take; nothing if there are to be none.
    fn bytes_max(&self, store: &StoreArg) -> Result<Option<u64>, Failure> {
        match self.cache_size {
            Some(bytes) if bytes < BYTES_MIN => {
                Err(Failure::usage(format_args!("--cache-size must be at least {}", size::show(BYTES_MIN))))
            }
            Some(bytes) => Ok(Some(bytes)),
            None if store.is_remote() => Ok(Some(REMOTE_BYTES)),
            None if self.cache_dir.is_some() || self.cache_free.is_some() => Err(Failure::usage(
                "a store on this machine has a cache only with --cache-size SIZE; --cache-dir and --cache-free need it",
            )),
            None => Ok(None),
        }
    }

    /// Where the copies go; a folder that the user named is made and locked.
    pub fn place(
        &self,
        store: &StoreArg,
        filesystem: Uuid,
        state: &Path,
        owner: &Owner,
    ) -> Result<CachePlace, Failure> {
        let bytes_max = self.bytes_max(store)?;
        let (folder, lock) = match self.cache_dir.as_ref().filter(|_| bytes_max.is_some()) {
            None => (state.to_path_buf(), None),
            Some(dir) => {
                let folder = dir.join(filesystem.to_string());
                let (shown, made) = (folder.display(), make_ours(&folder));
                made.map_err(|e| Failure::failed(format_args!("cache directory {shown}: {e}")))?;
                let lock = lock_folder(&folder, LOCK, &format!("the cache directory {shown}"), owner, DYING_MAX)?;
                (folder, Some(lock))
            }
        };
        let media = LocalDisk::new(&folder);
        let wrong = |e| Failure::failed(format_args!("cache directory {}: {e}", folder.display()));
        let limits = match bytes_max {
            Some(bytes_max) => {
                let free_bytes_min = self.free_bytes_min(&media.space().map_err(wrong)?);
                Some(Limits { bytes_max, free_bytes_min })
            }
            None => None,
        };
        Ok(CachePlace { media: Arc::new(media), limits, lock })
    }

    fn free_bytes_min(&self, space: &Space) -> u64 {
        self.cache_free.unwrap_or((space.total / FREE_SHARE).clamp(FREE_BYTES_MIN, FREE_BYTES_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(bytes: Option<u64>) -> CacheWords {
        CacheWords { cache_size: bytes, ..CacheWords::default() }
    }

    #[test]
    fn a_cache_directory_is_for_its_owner_alone() {
        let scratch = tempfile::tempdir().expect("a folder");
        let above = scratch.path().join("above");
        let (folder, link) = (above.join("caches/uuid"), above.join("link"));
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        make_ours(&folder).expect("made");
        assert_eq!((mode(&above), mode(&folder)), (0o700, 0o700));
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).expect("ours");
        make_ours(&folder).expect("ours still");
        assert_eq!(mode(&folder), 0o700);
        std::os::unix::fs::symlink(&folder, &link).expect("a link");
        make_ours(&link).expect_err("whoever made the link leads it elsewhere");
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&folder, Some(65534), None).expect("given away");
            make_ours(&folder).expect_err("somebody else's");
        }
    }

    #[test]
    fn a_remote_store_has_a_cache_and_a_folder_only_if_asked() {
        let store = |text: &str| text.parse::<StoreArg>().expect("a store");
        let (remote, folder) = (store("s3://bucket/prefix"), store("/nowhere/store"));
        let bytes_max = |words: CacheWords, store| words.bytes_max(store).map_err(|f| f.sentence().to_string());
        assert_eq!(bytes_max(words(None), &remote), Ok(Some(10 << 30)));
        assert_eq!(bytes_max(words(None), &folder), Ok(None));
        for store in [&remote, &folder] {
            assert_eq!(bytes_max(words(Some(16 << 20)), store), Ok(Some(16 << 20)));
            assert!(bytes_max(words(Some((16 << 20) - 1)), store).unwrap_err().contains("at least 16.0 MiB"));
        }
        let dir = CacheWords { cache_dir: Some("/x".into()), ..CacheWords::default() };
        assert!(bytes_max(dir.clone(), &folder).unwrap_err().contains("--cache-size") && dir.look(&remote).is_ok());
    }

    #[test]
    fn so_much_of_the_disk_stays_free() {
        let of = |words: &CacheWords, total: u64| words.free_bytes_min(&Space { total, free: 0, available: 0 });
        let (mib, gib) = (1 << 20, 1 << 30);
        for (disk, free) in [(gib, 256 * mib), (40 * gib, 2 * gib), (10_000 * gib, 10 * gib)] {
            assert_eq!(of(&words(None), disk), free);
        }
        assert_eq!(of(&CacheWords { cache_free: Some(7), ..words(None) }, 40 * gib), 7);
    }
}
