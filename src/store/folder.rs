//! The folder behind a store: what the `object_store` crate leaves to us there, and reading without it.

use crate::base::canary::{Canary, sync};
use crate::format::names::SUPERBLOCK;
use crate::media::{is_own_folder, open_plain, read_plain, read_resident};
use lru::LruCache;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Who reads this much at a time reads in order,
const IN_ORDER_BYTES: usize = 256 << 10;
/// and will want this much next.
const AHEAD_BYTES: i64 = 4 << 20;

/// Objects kept open.
const OPEN_MAX: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// The folder behind a store.
pub(super) struct Folder {
    root: PathBuf,
    /// Folders below the root whose names this process has made durable.
    durable: Mutex<BTreeSet<PathBuf>>,
    open: Mutex<Open>,
    /// It was seen to hold a filesystem.
    marked: AtomicBool,
}

/// Objects that were read lately, open. Opening one takes longer than reading a chunk of it.
struct Open {
    files: LruCache<String, Arc<File>>,
    /// How many objects were changed so far: a file that was opened meanwhile may be the one from before.
    changes: u64,
}

impl Folder {
    pub fn new(root: &Path) -> Folder {
        let open = Open { files: LruCache::new(OPEN_MAX), changes: 0 };
        let marked = AtomicBool::new(root.join(SUPERBLOCK).exists());
        Folder { root: root.to_owned(), durable: Mutex::default(), open: Mutex::new(open), marked }
    }

    /// Whether the folder of a filesystem is gone, or is another one by now: moved away, or on a disk that was unmounted. Then
    /// nothing may be written: it would lie below the mount point, and be gone when the disk is back.
    pub fn is_away(&self) -> bool {
        self.marked.load(Ordering::Relaxed) && !self.root.join(SUPERBLOCK).exists()
    }

    /// A whole object.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        read_plain(&self.path(name), u64::MAX)
    }

    /// Bytes of an object.
    pub fn size(&self, name: &str) -> io::Result<u64> {
        match fs::symlink_metadata(self.path(name))? {
            found if found.is_file() => Ok(found.len()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
        }
    }

    /// What there is of a range of an object.
    pub fn read_range(&self, name: &str, range: &Range<u64>) -> io::Result<Vec<u8>> {
        let file = self.file(name)?;
        let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        match file.read_exact_at(&mut bytes, range.start) {
            Ok(()) => {
                if bytes.len() >= IN_ORDER_BYTES {
                    read_ahead(&file, range.end);
                }
                Ok(bytes)
            }
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                let have = file.metadata()?.len().saturating_sub(range.start);
                bytes.truncate(usize::try_from(have).map_err(io::Error::other)?);
                Ok(bytes)
            }
            Err(e) => Err(e),
        }
    }

    /// A range of an object that is open already and in the system's page cache.
    pub fn read_resident(&self, name: &str, range: &Range<u64>) -> Option<Vec<u8>> {
        let file = self.open.lock().files.get(name)?.clone();
        let mut bytes = vec![0; usize::try_from(range.end.checked_sub(range.start)?).ok()?];
        read_resident(&file, &mut bytes, range.start).then_some(bytes)
    }

    fn file(&self, name: &str) -> io::Result<Arc<File>> {
        let changes = {
            let mut open = self.open.lock();
            if let Some(file) = open.files.get(name) {
                return Ok(file.clone());
            }
            open.changes
        };
        let file = Arc::new(open_plain(&self.path(name))?);
        let mut open = self.open.lock();
        if open.changes == changes {
            open.files.put(name.to_owned(), file.clone());
        }
        Ok(file)
    }

    /// An object of that name may be another one now, or gone.
    pub fn changed(&self, name: &str) {
        let mut open = self.open.lock();
        open.changes += 1;
        open.files.pop(name);
        drop(open);
        if name == SUPERBLOCK {
            self.marked.store(self.root.join(SUPERBLOCK).exists(), Ordering::Relaxed);
        }
    }

    /// Where an object lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub fn above(&self, name: &str) -> PathBuf {
        self.path(name.rsplit_once('/').map_or("", |(above, _)| above))
    }

    /// Makes the folders above an object, from the root downwards, each durable before the next.
    pub fn make_durable(&self, name: &str) -> io::Result<()> {
        for (end, _) in name.match_indices('/') {
            let folder = self.path(&name[..end]);
            if self.durable.lock().contains(&folder) {
                continue;
            }
            match fs::create_dir(&folder) {
                // Whatever has the name: a link of somebody else's leads to where nothing of ours is to be put.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && is_own_folder(&folder)? => {}
                made => made?,
            }
            sync(Canary::FolderMadeSync, || sync_dir(self.above(&name[..end])))?;
            self.durable.lock().insert(folder);
        }
        Ok(())
    }

    /// `Ok(false)` when the disk cannot link this file here. An object of that name and length is the same one, linked
    /// before a crash: the names of published files are never used twice.
    pub fn link(&self, file: &Path, name: &str) -> io::Result<bool> {
        let target = self.path(name);
        match fs::hard_link(file, &target) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let (ours, there) = (fs::metadata(file)?.len(), fs::metadata(&target)?.len());
                if ours != there {
                    return Err(io::Error::other(format!("there is another object of {there} bytes, not {ours}")));
                }
            }
            Err(e) if cannot_link(&e) => return Ok(false),
            Err(e) => return Err(e),
        }
        sync(Canary::FolderLinkSync, || sync_dir(self.above(name)))?;
        Ok(true)
    }
}

/// Has the system read what comes next, while the one who asked works on what is there.
fn read_ahead(file: &File, from: u64) {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    let Ok(from) = i64::try_from(from) else { return };
    // A disk without a page cache has nowhere to keep it, and some refuse the advice.
    let _ = posix_fadvise(file, from, AHEAD_BYTES, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
}

/// Another disk, a filesystem without links, too many of them, or not allowed to link this file.
fn cannot_link(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EXDEV | libc::EOPNOTSUPP | libc::EMLINK | libc::EPERM))
}

pub(super) fn sync_dir(folder: PathBuf) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
