//! The simulated disk: keeps what is written and what is durable apart, logs every change, and fails on demand.
//!
//! A run on a [`SimDisk`] leaves a log. [`Platter`] walks that log again and says, after each call, what a disk may hold
//! if the power goes now: un-synced writes applied in any subset and torn, names kept or lost each on its own. A new
//! disk starts from such an [`Image`], and the product's own recovery runs on it.

mod content;
mod deaf;
mod fault;
mod file;
mod image;
mod log;
mod plan;
mod platter;
#[cfg(test)]
mod tests;

pub use content::{Content, Patch, SECTOR, hash_of, mix};
pub(crate) use fault::Faults;
pub use fault::Nth;
pub use image::Image;
pub use log::{Blob, Call, CallLog, DiskCall, DiskNo, FileNo, StoreCall};
pub use plan::{Limits, Plan};
pub use platter::{Crashed, Platter};

use super::{File, FolderEntry, Media, Space, name};
use crate::base::clock::Time;
use file::SimFile;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A kind of call to the disk, for [`SimDisk::fail`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the call of that name")]
pub enum DiskOp {
    Create,
    Open,
    Rename,
    Remove,
    MakeDir,
    List,
    SyncDir,
    Space,
    Read,
    Write,
    Sync,
}

/// How a call to the disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// EIO and nothing done. A failed sync of a file also loses for good what was not durable, as Linux does: reads
    /// still find it, a later sync that succeeds does not make it durable.
    Failed,
    /// ENOSPC and nothing done.
    NoSpace,
    /// EIO after the first half of a write was done; other calls fail as with `Failed`.
    Short,
    /// EIO though all was done.
    Done,
}

impl DiskFault {
    fn error(self) -> Error {
        match self {
            DiskFault::NoSpace => Error::from(ErrorKind::StorageFull),
            DiskFault::Failed | DiskFault::Short | DiskFault::Done => Error::from_raw_os_error(libc::EIO),
        }
    }
}

/// A simulated disk. A clone is the same disk; for a copy, start one from [`SimDisk::image`].
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    log: Arc<CallLog>,
    number: DiskNo,
    start: Image,
    open_files: AtomicUsize,
    open_files_max: AtomicUsize,
}

struct State {
    names: BTreeMap<Arc<str>, Arc<Inode>>,
    dirs: Arc<BTreeSet<Arc<str>>>,
    files_made: u64,
    used: u64,
    capacity: u64,
    faults: Faults<DiskOp, DiskFault>,
    deaf_files: Vec<String>,
    deaf_dirs: Vec<String>,
    while_syncing: Option<(String, Meanwhile)>,
}

/// Something that happens while a call has not come back.
type Meanwhile = Box<dyn FnOnce() + Send>;

struct Inode {
    number: FileNo,
    inner: Mutex<Inner>,
}

/// Locked only while the disk's state is.
struct Inner {
    content: Content,
    /// What was there at the last sync that succeeded,
    synced: Content,
    /// and, after one that failed, what the disk has and a reader finds once memory is given up.
    lost: Option<Content>,
    /// The name it has, or had last.
    name: Arc<str>,
    named: bool,
}

impl Inner {
    fn new(content: Content, name: &Arc<str>) -> Inner {
        Inner { synced: content.clone(), content, lost: None, name: Arc::clone(name), named: true }
    }
}

impl SimDisk {
    /// An empty disk that keeps its calls in `log`.
    pub fn new(log: &Arc<CallLog>) -> SimDisk {
        SimDisk::from_image(&Image::default(), log)
    }

    /// A disk that holds `image`, all of it durable.
    pub fn from_image(image: &Image, log: &Arc<CallLog>) -> SimDisk {
        let mut names = BTreeMap::new();
        for (number, (name, content)) in (0..).zip(image.files()) {
            let inner = Inner::new(content.clone(), name);
            names.insert(Arc::clone(name), Arc::new(Inode { number: FileNo(number), inner: Mutex::new(inner) }));
        }
        let state = State {
            files_made: names.len() as u64,
            names,
            dirs: Arc::clone(image.dirs()),
            used: image.files().values().map(Content::len).sum(),
            capacity: 1 << 40,
            faults: Faults::default(),
            deaf_files: Vec::new(),
            deaf_dirs: Vec::new(),
            while_syncing: None,
        };
        let number = log.next_disk();
        let shared = Shared {
            state: Mutex::new(state),
            log: Arc::clone(log),
            number,
            start: image.clone(),
            open_files: AtomicUsize::new(0),
            open_files_max: AtomicUsize::new(0),
        };
        SimDisk { shared: Arc::new(shared) }
    }

    /// What a reader finds now: what is left if the process dies and the machine lives.
    pub fn image(&self) -> Image {
        let state = self.shared.state.lock();
        let files = state.names.iter().map(|(name, inode)| (Arc::clone(name), inode.inner.lock().content.clone()));
        Image::new(files.collect(), &state.dirs)
    }

    /// What surely is left if the power goes now.
    pub fn image_durable(&self) -> Image {
        let mut platter = Platter::new(&self.shared.start);
        for call in self.shared.log.calls() {
            if let Call::Disk(number, call) = call {
                if number == self.shared.number {
                    platter.apply(&call);
                }
            }
        }
        platter.durable()
    }

    /// What it held at the start.
    pub fn start(&self) -> &Image {
        &self.shared.start
    }

    /// The log its calls are in.
    pub fn log(&self) -> &Arc<CallLog> {
        &self.shared.log
    }

    /// Which disk of the log it is.
    pub fn number(&self) -> DiskNo {
        self.shared.number
    }

    /// Makes a call fail.
    pub fn fail(&self, which: Nth<DiskOp>, how: DiskFault) {
        self.shared.state.lock().faults.add(which, how);
    }

    /// From now on nothing fails on demand.
    pub fn heal(&self) {
        self.shared.state.lock().faults.clear();
    }

    /// How many calls were made to fail so far: a test that asked for a failure and got none proves nothing.
    pub fn failed(&self) -> u64 {
        self.shared.state.lock().faults.struck()
    }

    /// How many files were open at the same time, at most.
    pub fn open_files_max(&self) -> usize {
        self.shared.open_files_max.load(Ordering::Relaxed)
    }

    /// Limits the bytes that all files may hold together.
    pub fn set_capacity(&self, bytes: u64) {
        self.shared.state.lock().capacity = bytes;
    }

    /// A disk that says yes to a sync of files whose names start like this, and does nothing: a test on it must fail,
    /// or the sync is not needed.
    pub fn ignore_sync(&self, prefix: &str) {
        self.shared.state.lock().deaf_files.push(prefix.to_owned());
    }

    /// The next sync of a file whose name starts like this takes as long as `meanwhile`, which may move the clock and use
    /// the disk.
    pub fn while_syncing(&self, prefix: &str, meanwhile: impl FnOnce() + Send + 'static) {
        self.shared.state.lock().while_syncing = Some((prefix.to_owned(), Box::new(meanwhile)));
    }

    /// A disk that says yes to a sync of this folder, and does nothing.
    pub fn ignore_sync_dir(&self, dir: &str) {
        self.shared.state.lock().deaf_dirs.push(dir.to_owned());
    }
}

impl Shared {
    fn add(&self, call: DiskCall) {
        self.log.add(Call::Disk(self.number, call));
    }

    /// Runs `act` unless the call is to fail; `Done` runs it and fails after.
    fn call<T>(&self, op: DiskOp, on: &str, act: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock();
        match state.faults.strike(op, on) {
            None => act(&mut state),
            Some(DiskFault::Done) => act(&mut state).and(Err(DiskFault::Done.error())),
            Some(fault) => Err(fault.error()),
        }
    }
}

impl State {
    fn folder(&self, dir: &str) -> Result<()> {
        if dir.is_empty() || self.dirs.contains(dir) { Ok(()) } else { Err(ErrorKind::NotFound.into()) }
    }

    fn inode(&self, name: &str) -> Result<Arc<Inode>> {
        self.names.get(name).map(Arc::clone).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn unname(&mut self, inode: &Inode) {
        let mut inner = inode.inner.lock();
        inner.named = false;
        self.used -= inner.content.len();
    }
}

impl Media for SimDisk {
    fn create(&self, name: &str) -> Result<Arc<dyn File>> {
        name::check(name)?;
        self.shared.call(DiskOp::Create, name, |state| {
            state.folder(name::folder_of(name))?;
            if state.names.contains_key(name) || state.dirs.contains(name) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            let (name, number) = (Arc::<str>::from(name), FileNo(state.files_made));
            state.files_made += 1;
            let inner = Inner::new(Content::default(), &name);
            let inode = Arc::new(Inode { number, inner: Mutex::new(inner) });
            state.names.insert(Arc::clone(&name), Arc::clone(&inode));
            self.shared.add(DiskCall::Create { name, file: number });
            Ok(SimFile::open(&self.shared, inode))
        })
    }

    fn open(&self, name: &str) -> Result<Arc<dyn File>> {
        name::check(name)?;
        self.shared.call(DiskOp::Open, name, |state| Ok(SimFile::open(&self.shared, state.inode(name)?)))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        name::check(from)?;
        name::check(to)?;
        self.shared.call(DiskOp::Rename, from, |state| {
            state.folder(name::folder_of(to))?;
            let inode = state.inode(from)?;
            if from == to {
                return Ok(());
            }
            if let Some(replaced) = state.names.remove(to) {
                state.unname(&replaced);
            }
            state.names.remove(from);
            let (from, to) = (Arc::<str>::from(from), Arc::<str>::from(to));
            inode.inner.lock().name = Arc::clone(&to);
            self.shared.add(DiskCall::Rename { from, to: Arc::clone(&to), file: inode.number });
            state.names.insert(to, inode);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> Result<()> {
        name::check(name)?;
        self.shared.call(DiskOp::Remove, name, |state| {
            let inode = state.inode(name)?;
            state.names.remove(name);
            state.unname(&inode);
            self.shared.add(DiskCall::Remove { name: name.into() });
            Ok(())
        })
    }

    fn make_dir(&self, name: &str) -> Result<()> {
        name::check_folder(name)?;
        self.shared.call(DiskOp::MakeDir, name, |state| {
            for folder in name::folders_down_to(name) {
                if state.names.contains_key(folder) {
                    return Err(ErrorKind::NotADirectory.into());
                }
                if !state.dirs.contains(folder) {
                    let folder = Arc::<str>::from(folder);
                    Arc::make_mut(&mut state.dirs).insert(Arc::clone(&folder));
                    self.shared.add(DiskCall::MakeDir { name: folder });
                }
            }
            Ok(())
        })
    }

    fn list(&self, dir: &str) -> Result<Vec<String>> {
        name::check_folder(dir)?;
        self.shared.call(DiskOp::List, dir, |state| {
            state.folder(dir)?;
            let inside = |name: &&Arc<str>| name::folder_of(name) == dir;
            let last = |name: &Arc<str>| name.rsplit('/').next().unwrap_or(name).to_owned();
            Ok(state.names.keys().filter(inside).map(last).collect())
        })
    }

    /// What was made later was used later; nothing else is kept of that.
    fn visit(&self, dir: &str, each: &mut dyn FnMut(FolderEntry<'_>)) -> Result<()> {
        name::check_folder(dir)?;
        let files: Vec<_> = self.shared.call(DiskOp::List, dir, |state| {
            state.folder(dir)?;
            let inside = state.names.iter().filter(|(name, _)| name::folder_of(name) == dir);
            Ok(inside.map(|(name, inode)| (name.clone(), inode.inner.lock().content.len(), inode.number)).collect())
        })?;
        for (name, bytes, FileNo(number)) in files {
            let name = name.rsplit('/').next().unwrap_or(&name);
            let used = Time { secs: i64::try_from(number).expect("few files"), nanos: 0 };
            each(FolderEntry { name, bytes, used });
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> Result<()> {
        name::check_folder(dir)?;
        self.shared.call(DiskOp::SyncDir, dir, |state| {
            state.folder(dir)?;
            if !state.deaf_dirs.iter().any(|deaf| deaf == dir) && !deaf::to_dir(dir) {
                self.shared.add(DiskCall::SyncDir { dir: dir.into() });
            }
            Ok(())
        })
    }

    fn space(&self) -> Result<Space> {
        self.shared.call(DiskOp::Space, "", |state| {
            let free = state.capacity.saturating_sub(state.used);
            Ok(Space { total: state.capacity, free, available: free })
        })
    }
}
