//! Where a store is, as the user says it: a folder, `file://…`, `memory://`, or a bucket of a service.

use super::{ObjectStoreBackend, RemoteOptions, RemotePlace, RemoteStore, Store};
use crate::base::canary::{Canary, sync};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;
use url::Url;

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A folder of a local disk, as an absolute path.
    Folder(PathBuf),
    /// The memory of this process; gone with it.
    Memory,
    /// A bucket of a service.
    Remote(RemotePlace),
}

/// Why a store cannot be opened; each is one sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A kind of store that this version does not have.
    #[error("{scheme}: stores are not in this version of skylog; use a folder, or an s3://, gs:// or az:// URL")]
    NotYet {
        /// Its scheme.
        scheme: String,
    },
    /// No kind of store at all.
    #[error("{place:?} is not a store that skylog knows; use a folder, or an s3://, gs://, az:// or file:// URL")]
    Unknown {
        /// What the user said.
        place: String,
    },
    /// The folder is missing, or is no folder, or may not be used.
    #[error("the store folder {} cannot be used: {reason}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// A remote store whose settings do not fit together.
    #[error("{0}")]
    Remote(String),
    /// The part that talks to the store does not start.
    #[error("the store's runtime does not start: {0}")]
    Runtime(String),
}

impl Place {
    /// Reads what the user said.
    pub fn parse(place: &str) -> Result<Place, OpenError> {
        let unknown = || OpenError::Unknown { place: place.into() };
        let Some((scheme, rest)) = place.split_once("://") else {
            return absolute(place).map(Place::Folder).map_err(|_| unknown());
        };
        match scheme {
            "file" => {
                let url = Url::parse(place).map_err(|_| unknown())?;
                url.to_file_path().map(Place::Folder).map_err(|()| unknown())
            }
            "memory" if rest.is_empty() || rest == "/" => Ok(Place::Memory),
            "adl" | "http" | "https" => Err(OpenError::NotYet { scheme: scheme.into() }),
            _ => RemotePlace::parse(scheme, rest).map(Place::Remote).ok_or_else(unknown),
        }
    }

    /// The place's one name, whatever the user wrote; [`Place::parse`] reads it.
    pub fn url(&self) -> String {
        match self {
            Place::Folder(folder) => {
                let url = Url::from_file_path(folder).map(String::from);
                // The kernel's list of mounts shows it, and a comma ends a word there and on the way there.
                url.map_or_else(|()| folder.display().to_string(), |url| url.replace(',', "%2C"))
            }
            Place::Memory => "memory://".into(),
            Place::Remote(remote) => remote.to_string(),
        }
    }

    /// Makes the folder of a new store, and its name durable; nothing to do elsewhere, or if it is there.
    pub fn make(&self) -> Result<(), OpenError> {
        let Place::Folder(folder) = self else { return Ok(()) };
        let unusable = |e: std::io::Error| OpenError::Folder { folder: folder.clone(), reason: e.to_string() };
        let new: Vec<&Path> = folder.ancestors().take_while(|f| !f.exists()).collect();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
        for made in new {
            let above = made.parent().unwrap_or(made);
            let synced = sync(Canary::StoreMadeSync, || fs::File::open(above).and_then(|f| f.sync_all()));
            synced.map_err(unusable)?;
        }
        Ok(())
    }

    /// Opens the store, a folder's if it is there; of a remote one the environment says how.
    pub fn open(&self) -> Result<Arc<dyn Store>, OpenError> {
        self.open_with(&RemoteOptions::default())
    }

    /// The same, and how to talk to a remote one. A remote store is asked nothing yet, so this works while it is away.
    pub fn open_with(&self, options: &RemoteOptions) -> Result<Arc<dyn Store>, OpenError> {
        Ok(match self {
            Place::Folder(folder) => Arc::new(ObjectStoreBackend::in_folder(folder)?),
            Place::Memory => Arc::new(ObjectStoreBackend::in_memory()?),
            Place::Remote(place) => Arc::new(RemoteStore::open(place, options)?),
        })
    }
}

/// Opens the store at a folder or a URL, with what the environment says.
pub fn open_store(url_or_path: &str) -> Result<Arc<dyn Store>, OpenError> {
    Place::parse(url_or_path)?.open()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_store_is_a_folder_a_file_url_or_memory() {
        let folder = |path: &str| Place::Folder(path.into());
        assert_eq!(Place::parse("/a/b").expect("known"), folder("/a/b"));
        assert_eq!(Place::parse("file:///a/b%20c").expect("known"), folder("/a/b c"));
        assert_eq!(Place::parse("memory://").expect("known"), Place::Memory);
        let Place::Folder(here) = Place::parse("here").expect("known") else { panic!("a folder") };
        assert!(here.is_absolute() && here.ends_with("here"));
    }

    #[test]
    fn a_bucket_has_one_name_whatever_the_user_wrote() {
        for (said, url) in [
            ("s3://bucket/a/b", "s3://bucket/a/b"),
            ("s3a://bucket//a/b//", "s3://bucket/a/b"),
            ("s3://bucket/", "s3://bucket"),
            ("gs://my.bucket/x=1", "gs://my.bucket/x=1"),
            ("azure://container/x", "az://container/x"),
            ("abfss://c@account.dfs.core.windows.net/x", "az://c@account.dfs.core.windows.net/x"),
            ("file:///a,b%20c", "file:///a%2Cb%20c"),
            ("memory:///", "memory://"),
        ] {
            let place = Place::parse(said).expect(said);
            assert_eq!(place.url(), url, "{said}");
            assert_eq!(Place::parse(url).expect(url), place);
        }
    }

    #[test]
    fn another_store_gets_one_clear_sentence() {
        for (place, words) in [
            ("adl://container", "adl: stores are not in this version"),
            ("s3://", "\"s3://\" is not a store that skylog knows"),
            ("s3://user@bucket/x", "is not a store that skylog knows"),
            ("s3://bucket:80/x", "is not a store that skylog knows"),
            ("s3://bucket/a/../b", "is not a store that skylog knows"),
            ("s3://bucket/a,b", "is not a store that skylog knows"),
            ("ftp://x", "\"ftp://x\" is not a store that skylog knows"),
            ("file://host/x", "is not a store that skylog knows"),
            ("/nowhere/at/all", "the store folder /nowhere/at/all cannot be used: No such file"),
            ("/etc/hostname", "the store folder /etc/hostname cannot be used: not a folder"),
        ] {
            let error = open_store(place).err().expect(place).to_string();
            assert!(error.contains(words) && !error.contains('\n'), "{place}: {error}");
        }
    }

    #[test]
    fn the_folder_of_a_new_store_is_made_with_those_above_it() {
        let root = tempfile::tempdir().expect("a folder for the test");
        let place = Place::Folder(root.path().join("a/b"));
        assert!(place.open().is_err());
        place.make().expect("made");
        place.make().expect("already there");
        place.open().expect("opens");
        let mode = |folder: &str| root.path().join(folder).metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!((mode("a"), mode("a/b")), (0o700, 0o700), "for the owner alone");
    }
}
