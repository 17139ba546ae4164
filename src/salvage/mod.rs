//! Layer 6: what a state directory holds that the store may not have, as files. For the loser of a fence, or a filesystem whose
//! store is gone for good. Offline; only reads.
//!
//! What was changed after the newest window that the state directory recorded as shipped counts as un-shipped: some of it may
//! be in the store all the same, where a publication was not recorded any more. Saying too much loses nothing.
//!
//! **Memory** grows with the number of changed inodes and names, some 200 bytes each, and with what replay keeps in overlays.

mod contents;
mod names;
mod touched;

pub use contents::{Missing, Piece};

use crate::checkpoint::files;
use crate::checkpoint::nodes::NodeStore;
use crate::format::batch::TreeId;
use crate::format::ids::{InodeNo, Lsn, NodePtr, Uuid};
use crate::format::inode::Inode;
use crate::format::key;
use crate::format::space::{self, Published};
use crate::journal::{JournalError, ManifestStore, Replayed, replay};
use crate::locate::{CacheBytes, Locate};
use crate::map::{MapError, NodeCache, Overlay, Pins, View};
use crate::media::Media;
use crate::recovery::{Fetcher, MountError, ProgressFn, Reader, apply};
use crate::store::Store;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use touched::Touched;

/// Nodes in memory, bytes.
const NODE_CACHE_BYTES: u64 = 64 << 20;
/// File data and window indexes in memory.
const CACHE: CacheBytes = CacheBytes { data: 16 << 20, indexes: 32 << 20 };

/// A state directory, read as a mount would recover it, without changing it.
pub struct Salvage {
    replayed: Replayed,
    nodes: NodeStore,
    cache: NodeCache,
    locate: Locate,
    overlay: Overlay,
    root: Option<NodePtr>,
    touched: Touched,
    uuid: Uuid,
    shipped: Lsn,
}

/// Something that was made or changed.
#[derive(Debug)]
pub struct Found {
    /// Its number.
    pub ino: InodeNo,
    /// Its attributes.
    pub inode: Inode,
    /// Its names from the root on, without a leading slash; none if it has none that can be found.
    pub paths: Vec<Vec<u8>>,
}

/// All that was changed.
#[derive(Debug, Default)]
pub struct Findings {
    /// What is there now: directories before what is in them.
    pub found: Vec<Found>,
    /// Names that are not there any more. Some may never have been in the store.
    pub removed: Vec<Vec<u8>>,
}

impl Salvage {
    /// Reads the state directory. The store is asked only for what is not there; it may be away.
    pub fn open(
        store: Arc<dyn Store>,
        state: Arc<dyn Media>,
        progress: &mut ProgressFn<'_>,
    ) -> Result<Salvage, MountError> {
        let manifest = ManifestStore::load(state.clone())?.ok_or(MountError::NoManifest)?.current();
        let damaged = |reason: &str| MountError::Damaged { place: "MANIFEST".to_owned(), reason: reason.to_owned() };
        let number = manifest.checkpoint.ok_or_else(|| damaged("it names no checkpoint"))?.number;
        let checkpoint = files::read_checkpoint(&*state, number)?;
        let (nodes, cache) = (NodeStore::new(state.clone(), store.clone(), None), NodeCache::new(NODE_CACHE_BYTES));
        let mut overlays: [Overlay; 2] = Default::default();
        let mut touched = Touched::default();
        let replayed = replay(state.clone(), &manifest, checkpoint.lsn, progress, &mut |batch| {
            touched.note(&batch);
            apply(&mut overlays, batch);
            Ok::<(), JournalError>(())
        })?;
        let fetcher = Fetcher::new(1);
        let reader = Reader { cache: &cache, nodes: &nodes, fetcher: &fetcher };
        let view = View { overlay: &overlays[TreeId::Space as usize], layers: &[], root: checkpoint.roots[1] };
        let published = reader.value(&view, &space::published(), Published::decode)?;
        let shipped = published.map_or(Lsn::ZERO, |published| published.end);
        for plan in manifest.plans.iter().filter(|plan| plan.end > shipped) {
            touched.note_all(&files::read_edits(&*state, plan.number)?)?;
        }
        let locate = Locate::new(None, store, CACHE, None);
        for (end, start) in reader.windows(&view)? {
            locate.windows().add(start, end);
        }
        for entry in checkpoint.windows.iter().filter(|entry| entry.objects > 0) {
            locate.windows().add(entry.start, entry.end);
        }
        let [overlay, _] = overlays;
        let (uuid, root) = (manifest.uuid, checkpoint.roots[TreeId::Files as usize]);
        Ok(Salvage { replayed, nodes, cache, locate, overlay, root, touched, uuid, shipped })
    }

    /// The filesystem.
    pub fn filesystem(&self) -> Uuid {
        self.uuid
    }

    /// The last batch that is known to be in the store, and the last one that is here.
    pub fn range(&self) -> (Lsn, Lsn) {
        (self.shipped, self.replayed.last)
    }

    /// What was made, changed or removed.
    pub fn findings(&self) -> Result<Findings, MountError> {
        let mut names = names::Names::new(self);
        let mut entries: BTreeMap<InodeNo, BTreeSet<(InodeNo, Bytes)>> = BTreeMap::new();
        let mut gone = Vec::new();
        for (dir, name) in &self.touched.names {
            match names.lookup(*dir, name)? {
                Some(ino) => {
                    entries.entry(ino).or_default().insert((*dir, name.clone()));
                }
                None => gone.push((*dir, name.clone())),
            }
        }
        let (mut inodes, mut unnamed) = (BTreeMap::new(), BTreeSet::new());
        for ino in self.touched.inodes.iter().copied().chain(entries.keys().copied()) {
            let Some(inode) = self.inode(ino)? else { continue };
            let is_dir = inode.mode & libc::S_IFMT == libc::S_IFDIR;
            // A directory that only got or lost names is told by these.
            if inode.nlink == 0 || (is_dir && !entries.contains_key(&ino)) {
                continue;
            }
            let known = entries.get(&ino).map_or(0, BTreeSet::len);
            if !is_dir && known < inode.nlink as usize {
                unnamed.insert(ino);
            }
            inodes.insert(ino, inode);
        }
        names.find(&unnamed, &mut entries)?;
        let mut findings = Findings::default();
        for (ino, inode) in inodes {
            let mut paths = Vec::new();
            for (dir, name) in entries.remove(&ino).unwrap_or_default() {
                paths.extend(names.path(dir, &name)?);
            }
            findings.found.push(Found { ino, inode, paths });
        }
        findings.found.sort_by(|a, b| a.paths.cmp(&b.paths));
        for (dir, name) in gone {
            findings.removed.extend(names.path(dir, &name)?);
        }
        findings.removed.sort();
        Ok(findings)
    }

    fn inode(&self, ino: InodeNo) -> Result<Option<Inode>, MountError> {
        let decode = |value: Bytes| Inode::decode(&value);
        let damaged = |e| MountError::Damaged { place: format!("inode {ino}"), reason: format!("{e}") };
        self.get(&key::inode(ino))?.map(decode).transpose().map_err(damaged)
    }

    fn view(&self) -> View<'_> {
        View { overlay: &self.overlay, layers: &[], root: self.root }
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MapError> {
        let (view, mut pins) = (self.view(), Pins::new());
        loop {
            match view.get(&self.cache, &pins, key) {
                Ok(found) => return Ok(found),
                Err(ptr) => pins.pin_node(ptr, self.cache.fetch(&ptr, &self.nodes)?),
            }
        }
    }

    /// Visits the entries of a range in order until `visit` says that it has seen enough.
    fn scan(
        &self,
        (from, to): (Bytes, Bytes),
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> Result<bool, MountError>,
    ) -> Result<(), MountError> {
        const PAGE: usize = 256;
        let (view, mut from, mut pins) = (self.view(), from, Pins::new());
        loop {
            let rows = match view.scan(&self.cache, &pins, &from, &to, PAGE) {
                Ok(rows) => rows,
                Err(ptr) => {
                    pins.pin_node(ptr, self.cache.fetch(&ptr, &self.nodes)?);
                    continue;
                }
            };
            pins = Pins::new();
            let Some((last, _)) = rows.last() else { return Ok(()) };
            from = [last, &b"\0"[..]].concat().into();
            for (key, value) in &rows {
                if !visit(key, value)? {
                    return Ok(());
                }
            }
        }
    }
}
