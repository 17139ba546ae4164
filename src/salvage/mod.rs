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

use crate::check::Nodes;
use crate::checkpoint::files;
use crate::format::FormatError;
use crate::format::batch::TreeId;
use crate::format::checkpoint::Checkpoint;
use crate::format::ids::{InodeNo, Lsn, NodePtr, ObjectId, Uuid};
use crate::format::inode::Inode;
use crate::format::key;
use crate::format::space::{self, Published, WindowRecord};
use crate::journal::{JournalError, ManifestStore, Replayed, replay};
use crate::locate::{CacheBytes, Locate};
use crate::map::{MapError, NodeCache, Overlay, Pins, View};
use crate::media::Media;
use crate::recovery::{MountError, ProgressFn, TailReader, apply};
use crate::store::Store;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use touched::Touched;

/// Nodes in memory, bytes.
const NODE_CACHE_BYTES: u64 = 64 << 20;
/// File data and window indexes in memory.
const CACHE: CacheBytes = CacheBytes { data: 16 << 20, indexes: 32 << 20 };

/// A state directory, read as a mount would recover it, without changing it. Of what cannot be read, because only the store has
/// it, the rest does not suffer.
pub struct Salvage {
    replayed: Replayed,
    /// Objects of what a takeover left beside its checkpoint and no mount has brought into the journal.
    tail: BTreeMap<ObjectId, Bytes>,
    nodes: Nodes,
    cache: NodeCache,
    locate: Locate,
    overlays: [Overlay; 2],
    roots: [Option<NodePtr>; 2],
    touched: Touched,
    uuid: Uuid,
    shipped: Lsn,
    last: Lsn,
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
    /// What could not be looked at, and why: some of what was changed may be missing here.
    pub unknown: Vec<String>,
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
        let mut overlays: [Overlay; 2] = Default::default();
        let mut touched = Touched::default();
        let replayed = replay(state.clone(), &manifest, checkpoint.lsn, progress, &mut |batch| {
            touched.note(&batch);
            apply(&mut overlays, batch);
            Ok::<(), JournalError>(())
        })?;
        let last = replayed.last.max(checkpoint.lsn);
        let mut salvage = Salvage {
            replayed,
            tail: BTreeMap::new(),
            nodes: Nodes::new(Some(state.clone()), store.clone()),
            cache: NodeCache::new(NODE_CACHE_BYTES),
            locate: Locate::new(None, store, CACHE, None),
            overlays,
            roots: checkpoint.roots,
            touched,
            uuid: manifest.uuid,
            shipped: Lsn::ZERO,
            last,
        };
        salvage.read_tail(&*state, &checkpoint)?;
        // Where that is not to be known, all that is here counts as un-shipped, and what is not here as missing.
        salvage.shipped = salvage.published().unwrap_or(Lsn::ZERO);
        if let Err(e) = salvage.add_windows(&checkpoint) {
            log::warn!("which windows are in the store is not to be known: {e}");
        }
        for plan in manifest.plans.iter().filter(|plan| plan.end > salvage.shipped) {
            salvage.touched.note_all(&files::read_edits(&*state, plan.number, plan.edits)?)?;
        }
        Ok(salvage)
    }

    /// What a takeover left beside its checkpoint, unless the journal has it.
    fn read_tail(&mut self, state: &dyn Media, checkpoint: &Checkpoint) -> Result<(), MountError> {
        if checkpoint.tail.is_none_or(|tail| tail.end <= self.last) {
            return Ok(());
        }
        let Some(mut reader) = TailReader::open(state, checkpoint)? else { return Ok(()) };
        while let Some(next) = reader.next()? {
            let lsn = next.batch.lsn;
            if lsn <= self.last {
                continue;
            }
            let objects = (0..).zip(0..next.batch.objects.len());
            self.tail.extend(objects.map(|(n, at)| (ObjectId { lsn, n }, next.object(at))));
            self.touched.note(&next.batch);
            apply(&mut self.overlays, next.batch);
            self.last = lsn;
        }
        Ok(())
    }

    fn published(&self) -> Result<Lsn, MountError> {
        let value = self.get(TreeId::Space, &space::published())?;
        let published = value.map(|value| Published::decode(&value)).transpose().map_err(damaged)?;
        Ok(published.map_or(Lsn::ZERO, |published| published.end))
    }

    fn add_windows(&self, checkpoint: &Checkpoint) -> Result<(), MountError> {
        for entry in checkpoint.windows.iter().filter(|entry| entry.objects > 0) {
            self.locate.windows().add(entry.start, entry.end);
        }
        self.scan(TreeId::Space, space::windows(), &mut |key, value| {
            if let space::Key::Window(end) = space::Key::decode(key).map_err(damaged)? {
                self.locate.windows().add(WindowRecord::decode(value).map_err(damaged)?.start, end);
            }
            Ok(true)
        })
    }

    /// The filesystem.
    pub fn filesystem(&self) -> Uuid {
        self.uuid
    }

    /// The last batch that is known to be in the store, and the last one that is here.
    pub fn range(&self) -> (Lsn, Lsn) {
        (self.shipped, self.last)
    }

    /// What was made, changed or removed.
    pub fn findings(&self) -> Findings {
        let (mut names, mut findings) = (names::Names::new(self), Findings::default());
        let mut entries: BTreeMap<InodeNo, BTreeSet<(InodeNo, Bytes)>> = BTreeMap::new();
        let mut gone = Vec::new();
        for (dir, name) in &self.touched.names {
            match names.lookup(*dir, name) {
                Ok(Some(ino)) => {
                    entries.entry(ino).or_default().insert((*dir, name.clone()));
                }
                Ok(None) => gone.push((*dir, name.clone())),
                Err(e) => findings.unknown.push(format!("a name in directory {dir}: {e}")),
            }
        }
        let inodes = self.changed(&entries, &mut findings.unknown);
        let lacking = |(ino, inode): (&InodeNo, &Inode)| {
            let known = entries.get(ino).map_or(0, BTreeSet::len);
            (!is_dir(inode) && known < inode.nlink as usize).then_some(*ino)
        };
        let unnamed = inodes.iter().filter_map(lacking).collect();
        if let Err(e) = names.find(&unnamed, &mut entries) {
            findings.unknown.push(format!("names of {} changed files: {e}", unnamed.len()));
        }
        for (ino, inode) in inodes {
            let mut paths = Vec::new();
            for (dir, name) in entries.remove(&ino).unwrap_or_default() {
                match names.path(dir, &name) {
                    Ok(path) => paths.extend(path),
                    Err(e) => findings.unknown.push(format!("the path of inode {ino}: {e}")),
                }
            }
            findings.found.push(Found { ino, inode, paths });
        }
        findings.found.sort_by(|a, b| a.paths.cmp(&b.paths));
        for (dir, name) in gone {
            match names.path(dir, &name) {
                Ok(path) => findings.removed.extend(path),
                Err(e) => findings.unknown.push(format!("the path of a removed name in directory {dir}: {e}")),
            }
        }
        findings.removed.sort();
        findings
    }

    /// The inodes that are there and were made or changed. A directory that only got or lost names is told by these.
    fn changed(
        &self,
        entries: &BTreeMap<InodeNo, BTreeSet<(InodeNo, Bytes)>>,
        unknown: &mut Vec<String>,
    ) -> BTreeMap<InodeNo, Inode> {
        let mut inodes = BTreeMap::new();
        for ino in self.touched.inodes.iter().copied().chain(entries.keys().copied()) {
            match self.inode(ino) {
                Ok(Some(inode)) if inode.nlink > 0 && (!is_dir(&inode) || entries.contains_key(&ino)) => {
                    inodes.insert(ino, inode);
                }
                Ok(_) => {}
                Err(e) => unknown.push(format!("inode {ino}: {e}")),
            }
        }
        inodes
    }

    fn inode(&self, ino: InodeNo) -> Result<Option<Inode>, MountError> {
        let value = self.get(TreeId::Files, &key::inode(ino))?;
        value.map(|value| Inode::decode(&value)).transpose().map_err(damaged)
    }

    fn view(&self, tree: TreeId) -> View<'_> {
        View { overlay: &self.overlays[tree as usize], layers: &[], root: self.roots[tree as usize] }
    }

    fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<Bytes>, MapError> {
        let (view, mut pins) = (self.view(tree), Pins::new());
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
        tree: TreeId,
        range: (Bytes, Bytes),
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> Result<bool, MountError>,
    ) -> Result<(), MountError> {
        self.scan_view(&self.view(tree), range, visit)
    }

    /// The same of what was changed since the checkpoint, which is all here.
    fn scan_changes(
        &self,
        tree: TreeId,
        range: (Bytes, Bytes),
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> Result<bool, MountError>,
    ) -> Result<(), MountError> {
        self.scan_view(&View { root: None, ..self.view(tree) }, range, visit)
    }

    fn scan_view(
        &self,
        view: &View<'_>,
        (mut from, to): (Bytes, Bytes),
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> Result<bool, MountError>,
    ) -> Result<(), MountError> {
        const PAGE: usize = 256;
        let mut pins = Pins::new();
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

fn is_dir(inode: &Inode) -> bool {
    inode.mode & libc::S_IFMT == libc::S_IFDIR
}

fn damaged(e: FormatError) -> MountError {
    MountError::Damaged { place: "metadata tree".to_owned(), reason: e.to_string() }
}
