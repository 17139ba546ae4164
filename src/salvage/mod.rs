//! Layer 6: what a state directory holds that the store may not have, as files. For the loser of a fence, or a filesystem whose
//! store is gone for good. Offline; only reads.
//!
//! What cannot be read is named, and the rest is written all the same: the store may be gone, or another writer have deleted what it
//! held for this one.
//!
//! What was changed after the newest window that the state directory recorded as shipped counts as un-shipped: some of it may
//! be in the store all the same, where a publication was not recorded any more. Saying too much loses nothing.
//!
//! **Memory** grows with the number of changed inodes and names, some 200 bytes each, with what replay keeps in overlays, and
//! with what a takeover found in log increments, if it was not brought into the journal.

mod contents;
mod names;
mod touched;

pub use contents::{Missing, Piece};

use crate::checkpoint::files;
use crate::checkpoint::nodes::NodeStore;
use crate::format::batch::TreeId;
use crate::format::checkpoint::Checkpoint;
use crate::format::ids::{InodeNo, Lsn, NodePtr, ObjectId, Uuid};
use crate::format::inode::Inode;
use crate::format::key;
use crate::format::publication::LogBatch;
use crate::format::space::{self, Published};
use crate::journal::{JournalError, ManifestStore, Replayed, replay};
use crate::locate::{CacheBytes, Locate};
use crate::map::{MapError, NodeCache, Overlay, Pins, View};
use crate::media::Media;
use crate::recovery::{Fetcher, MountError, ProgressFn, Reader, TailReader, apply};
use crate::store::Store;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
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
    last: Lsn,
    /// Objects beside the checkpoint of a takeover, that the journal does not have.
    beside: HashMap<ObjectId, Bytes>,
    /// What could not be read.
    missed: Vec<String>,
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
    /// What could not be read, and why: a sentence each.
    pub missed: Vec<String>,
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
        let (nodes, cache) = (NodeStore::unchanging(state.clone(), store.clone()), NodeCache::new(NODE_CACHE_BYTES));
        let mut overlays: [Overlay; 2] = Default::default();
        let (mut touched, mut beside, mut missed) = (Touched::default(), HashMap::new(), Vec::new());
        let replayed = replay(state.clone(), &manifest, checkpoint.lsn, progress, &mut |batch| {
            touched.note(&batch);
            apply(&mut overlays, batch);
            Ok::<(), JournalError>(())
        })?;
        let mut last = replayed.last;
        let imported = read_tail(&*state, &checkpoint, replayed.last, &mut |next| {
            touched.note(&next.batch);
            last = next.batch.lsn;
            let objects = (0..).zip(0..next.batch.objects.len());
            beside.extend(objects.map(|(n, at)| (ObjectId { lsn: last, n }, next.object(at))));
            apply(&mut overlays, next.batch);
        });
        missed.extend(imported.err().map(|e| e.to_string()));
        let fetcher = Fetcher::new(1);
        let reader = Reader { cache: &cache, nodes: &nodes, fetcher: &fetcher };
        let view = View { overlay: &overlays[TreeId::Space as usize], layers: &[], root: checkpoint.roots[1] };
        let published = reader.value(&view, &space::published(), Published::decode).unwrap_or_else(|e| {
            missed.push(format!("what was shipped: {e}"));
            None
        });
        let shipped = published.map_or(Lsn::ZERO, |published| published.end);
        for plan in manifest.plans.iter().filter(|plan| plan.end > shipped) {
            touched.note_all(&files::read_edits(&*state, plan.number)?)?;
        }
        let locate = Locate::new(None, store, CACHE, None);
        match reader.windows(&view) {
            Ok(windows) => windows.into_iter().for_each(|(end, start)| locate.windows().add(start, end)),
            Err(e) => missed.push(format!("where the store has parts of files: {e}")),
        }
        for entry in checkpoint.windows.iter().filter(|entry| entry.objects > 0) {
            locate.windows().add(entry.start, entry.end);
        }
        let [overlay, _] = overlays;
        let (uuid, root) = (manifest.uuid, checkpoint.roots[TreeId::Files as usize]);
        Ok(Salvage { replayed, nodes, cache, locate, overlay, root, touched, uuid, shipped, last, beside, missed })
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
        let mut findings = Findings { missed: self.missed.clone(), ..Findings::default() };
        let missed = &mut findings.missed;
        let mut names = names::Names::new(self);
        let mut entries: BTreeMap<InodeNo, BTreeSet<(InodeNo, Bytes)>> = BTreeMap::new();
        let mut gone = Vec::new();
        for (dir, name) in &self.touched.names {
            match names.lookup(*dir, name) {
                Ok(Some(ino)) => {
                    entries.entry(ino).or_default().insert((*dir, name.clone()));
                }
                Ok(None) => gone.push((*dir, name.clone())),
                Err(e) => missed.push(format!("{}: {e}", in_dir(*dir, name))),
            }
        }
        let inodes = self.inodes(&mut names, &mut entries, missed);
        let mut path = |dir: InodeNo, name: &Bytes| {
            names.path(dir, name).unwrap_or_else(|e| {
                missed.push(format!("the path of {}: {e}", in_dir(dir, name)));
                None
            })
        };
        for (ino, inode) in inodes {
            let of = entries.remove(&ino).unwrap_or_default();
            let paths = of.iter().filter_map(|(dir, name)| path(*dir, name)).collect();
            findings.found.push(Found { ino, inode, paths });
        }
        findings.removed = gone.iter().filter_map(|(dir, name)| path(*dir, name)).collect();
        findings.found.sort_by(|a, b| a.paths.cmp(&b.paths));
        findings.removed.sort();
        findings
    }

    /// The inodes that were changed or named, and are there; with all their names in `entries`.
    fn inodes(
        &self,
        names: &mut names::Names<'_>,
        entries: &mut BTreeMap<InodeNo, BTreeSet<(InodeNo, Bytes)>>,
        missed: &mut Vec<String>,
    ) -> BTreeMap<InodeNo, Inode> {
        let (mut inodes, mut unnamed) = (BTreeMap::new(), BTreeSet::new());
        let touched: BTreeSet<InodeNo> = self.touched.inodes.iter().chain(entries.keys()).copied().collect();
        for ino in touched {
            let inode = match self.inode(ino) {
                Ok(Some(inode)) => inode,
                Ok(None) => continue,
                Err(e) => {
                    missed.push(format!("inode {ino}: {e}"));
                    continue;
                }
            };
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
        if let Err(e) = names.find(&unnamed, entries) {
            missed.push(format!("names of files that were changed: {e}"));
        }
        inodes
    }

    fn inode(&self, ino: InodeNo) -> Result<Option<Inode>, MountError> {
        let decode = |value: Bytes| Inode::decode(&value);
        let damaged = |e| MountError::Damaged { place: format!("inode {ino}"), reason: format!("{e}") };
        self.get(&key::inode(ino))?.map(decode).transpose().map_err(damaged)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MapError> {
        self.get_over(self.root, key)
    }

    /// By what the journal says over a tree; over none, what it says alone.
    fn get_over(&self, root: Option<NodePtr>, key: &[u8]) -> Result<Option<Bytes>, MapError> {
        let (view, mut pins) = (View { overlay: &self.overlay, layers: &[], root }, Pins::new());
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
        range: (Bytes, Bytes),
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> Result<bool, MountError>,
    ) -> Result<(), MountError> {
        self.scan_over(self.root, range, visit)
    }

    fn scan_over(
        &self,
        root: Option<NodePtr>,
        (mut from, to): (Bytes, Bytes),
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> Result<bool, MountError>,
    ) -> Result<(), MountError> {
        const PAGE: usize = 256;
        let (view, mut pins) = (View { overlay: &self.overlay, layers: &[], root }, Pins::new());
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

fn in_dir(dir: InodeNo, name: &[u8]) -> String {
    format!("\"{}\" in directory {dir}", String::from_utf8_lossy(name))
}

/// Shows what the file beside a takeover's checkpoint has after `last`: it died before it brought that into the journal.
fn read_tail(
    state: &dyn Media,
    checkpoint: &Checkpoint,
    last: Lsn,
    visit: &mut dyn FnMut(LogBatch),
) -> Result<(), MountError> {
    if checkpoint.tail.is_none_or(|tail| tail.end <= last) {
        return Ok(());
    }
    let Some(mut tail) = TailReader::open(state, checkpoint)? else { return Ok(()) };
    while let Some(next) = tail.next()? {
        if next.batch.lsn > last {
            visit(next);
        }
    }
    Ok(())
}
