//! Tree nodes on local disk: node segments, written by one merge, read by everyone. When there is no local copy, a store on
//! the same machine gives the whole segment, and one that is far away the nodes that are asked for, through the cache.
//!
//! Unshipped node segments are primary data: a file is removed only when neither the current roots nor a running ship
//! reach it, or when the store has it. With cache files, those that the store has are copies: they count towards the limit
//! of these, and go when they take too much ([`super::copies`]).
//!
//! A merge reads the leaf under each changed key, and the nodes above it. They are on the local disk as long as no base has
//! them; after that, without cache files, as long as the roots reach them. With cache files they may have been removed as
//! copies, or never have been here after a mount from the store alone. Such a leaf is in memory or in the cache if it was
//! used lately, as that of a changed key mostly was; else the merge needs the store. If that is away, the merge fails and is
//! tried again, and writers wait once the overlays are full; nothing is lost. No copy is removed while the store is away.

use super::copies::Files;
use crate::cache::{self, Cache, Class};
use crate::format::ids::{NodePtr, SegmentKind, SegmentNo, Uuid};
use crate::format::names;
use crate::format::store_segment::SegmentBuilder;
use crate::locate::{Body, ReadError, SegmentReader};
use crate::map::{MapError, NodeSink, NodeSource};
use crate::media::{File, Media, read_whole};
use crate::store::{Store, StoreError};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// The folder of node segments in the state directory.
pub const NODES: &str = "nodes";

/// The end of the name of a copy that is still being fetched.
const UNFINISHED: &str = ".part";

/// Writes to a fresh file go in pieces of this size.
const WRITE_BYTES: usize = 1 << 20;

/// Local name of a node segment.
pub fn node_file(no: SegmentNo) -> String {
    format!("{NODES}/{:010}-{:016}", no.epoch, no.number)
}

/// The segment of which this is the name in the folder of node segments.
pub fn parse_node_file(name: &str) -> Option<SegmentNo> {
    let (epoch, number) = name.split_once('-')?;
    Some(SegmentNo { epoch: epoch.parse().ok()?, number: number.parse().ok()? })
}

/// Writes a file whole under a name nobody reads yet, and syncs it. The name is durable after a sync of the folder.
pub fn write_file(media: &dyn Media, name: &str, bytes: &[u8]) -> io::Result<()> {
    match media.remove(name) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let file = media.create(name)?;
    for (i, piece) in bytes.chunks(WRITE_BYTES).enumerate() {
        file.write_at(piece, (i * WRITE_BYTES) as u64)?;
    }
    file.sync()
}

/// Reads a whole file.
pub fn read_file(media: &dyn Media, name: &str) -> io::Result<Bytes> {
    Ok(read_whole(&*media.open(name)?)?.into())
}

/// The reader of nodes.
pub struct NodeStore {
    media: Arc<dyn Media>,
    store: Arc<dyn Store>,
    /// A leaf of the lock order; never held across a call to the disk.
    files: Mutex<Files>,
    /// Held across a fetch; only threads that may wait come here.
    downloading: Mutex<()>,
    /// Only for a store that is far away.
    reader: Option<Arc<SegmentReader>>,
    /// Whether there are node segments on local disk.
    has_files: bool,
}

impl NodeStore {
    /// Reads from `nodes/` of the state directory, else from the store, through `reader` if there is one.
    pub fn new(media: Arc<dyn Media>, store: Arc<dyn Store>, reader: Option<Arc<SegmentReader>>) -> NodeStore {
        NodeStore { media, store, files: Mutex::default(), downloading: Mutex::new(()), reader, has_files: true }
    }

    /// Reads from the store alone, node by node, through `reader` if there is one: for a follower.
    pub fn of_store(media: Arc<dyn Media>, store: Arc<dyn Store>, reader: Option<Arc<SegmentReader>>) -> NodeStore {
        NodeStore { has_files: false, ..NodeStore::new(media, store, reader) }
    }

    /// Removes local node segments that are not in `keep`. A file that cannot be removed is tried again next time.
    pub fn retain(&self, keep: &BTreeSet<SegmentNo>) -> io::Result<()> {
        for name in self.media.list(NODES)? {
            let Some(no) = parse_node_file(&name) else { continue };
            if !keep.contains(&no) {
                self.remove(no)?;
            }
        }
        Ok(())
    }

    /// Removes a local node segment; it is no error if it is not there.
    pub fn remove(&self, no: SegmentNo) -> io::Result<()> {
        // Closed before, so that its room is free once it is gone; and once more, in case it was opened just then.
        drop(self.files.lock().close(no));
        let removed = match self.media.remove(&node_file(no)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
        let mut files = self.files.lock();
        let _closed = files.close(no);
        if removed.is_ok() {
            files.forget(no);
            self.count(&files);
        }
        removed
    }

    /// The cache towards the limit of which copies count, if there is one.
    fn cache(&self) -> Option<&Cache> {
        self.reader.as_ref().map(|reader| &**reader.cache())
    }

    /// Tells the cache what copies take. Under the lock, so that what is told last is what is so.
    fn count(&self, files: &Files) {
        if let Some(cache) = self.cache() {
            cache.set_node_files(files.copy_bytes());
        }
    }

    /// Whether copies count, and are removed when they take too much.
    pub fn limits_copies(&self) -> bool {
        self.cache().is_some()
    }

    /// The local node segments and their sizes in bytes.
    pub fn local_segments(&self) -> io::Result<BTreeMap<SegmentNo, u64>> {
        let mut found = BTreeMap::new();
        self.media.visit(NODES, &mut |entry| {
            found.extend(parse_node_file(entry.name).map(|no| (no, entry.bytes)));
        })?;
        Ok(found)
    }

    /// Before it is known which files are copies: an earlier mount left no more of them than they may take, so no more of what
    /// there is are some.
    pub fn expect_copies(&self) -> io::Result<()> {
        let Some(cache) = self.cache() else { return Ok(()) };
        let there = self.local_segments()?.values().map(|bytes| cache::bytes_on_disk(*bytes)).sum::<u64>();
        cache.set_node_files(there.min(cache.node_files_max()));
        Ok(())
    }

    /// From now on these, with their sizes in bytes, are the files that are known to be copies of what the store has.
    pub fn set_copies(&self, copies: BTreeMap<SegmentNo, u64>) {
        let mut files = self.files.lock();
        files.set_copies(copies);
        self.count(&files);
    }

    /// Whether copies take more than they may.
    pub fn has_too_many_copies(&self) -> bool {
        self.cache().is_some_and(|cache| self.files.lock().copy_bytes() > cache.node_files_max())
    }

    /// Removes copies until they take no more than they may: the least recently used first, those in `last` after all others.
    pub fn remove_copies(&self, last: &BTreeSet<SegmentNo>) -> io::Result<()> {
        let victims = self.files.lock().by_use(last);
        victims.into_iter().take_while(|_| self.has_too_many_copies()).try_for_each(|no| self.remove(no))
    }

    /// Removes copies that were never finished; only before anything is read.
    pub fn remove_unfinished(&self) -> io::Result<()> {
        for name in self.media.list(NODES)?.iter().filter(|name| name.ends_with(UNFINISHED)) {
            self.media.remove(&format!("{NODES}/{name}"))?;
        }
        Ok(())
    }

    /// The bytes of a whole local node segment, for shipping.
    pub fn whole(&self, no: SegmentNo) -> io::Result<Bytes> {
        read_file(&*self.media, &node_file(no))
    }

    /// The local copy, if there is one.
    fn local(&self, no: SegmentNo) -> Result<Option<Arc<dyn File>>, MapError> {
        if !self.has_files {
            return Ok(None);
        }
        let (open, removals) = self.files.lock().get(no);
        if let Some(file) = open {
            return Ok(Some(file));
        }
        let file = match self.media.open(&node_file(no)) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound && self.reader.is_some() => return Ok(None),
            Err(e) if e.kind() == ErrorKind::NotFound => self.download(no, false)?,
            Err(e) => return Err(MapError::io(no, e)),
        };
        let _closed = self.files.lock().put(no, file.clone(), removals);
        Ok(Some(file))
    }

    /// The bytes of a node, if a store that is far away need not be asked for them. Waits for the local disk only.
    pub fn read_near(&self, ptr: &NodePtr) -> Option<Bytes> {
        let reader = self.reader.as_ref()?;
        let body = Body { offset: u64::from(ptr.offset), len: ptr.len, crc: ptr.crc };
        match self.local(ptr.segment).ok()? {
            Some(file) => NodeStore::read_from(&*file, ptr).ok().filter(|bytes| body.is(bytes)),
            None => reader.near(ptr.segment, Class::Nodes, &body),
        }
    }

    /// A node out of the store.
    fn read_shipped(&self, ptr: &NodePtr) -> Result<Bytes, MapError> {
        if let Some(reader) = &self.reader {
            return NodeStore::fetch(reader, ptr).map_err(|e| of_reader(ptr, e));
        }
        let range = u64::from(ptr.offset)..u64::from(ptr.offset) + u64::from(ptr.len);
        self.store.get_range(&names::segment(ptr.segment), range).map_err(|e| of_store(ptr.segment, e))
    }

    /// A node out of the store that is far away.
    fn fetch(reader: &SegmentReader, ptr: &NodePtr) -> Result<Bytes, ReadError> {
        let body = Body { offset: u64::from(ptr.offset), len: ptr.len, crc: ptr.crc };
        let read = reader.read(ptr.segment, Class::Nodes, &[body])?;
        Ok(read.into_iter().next().unwrap_or_default())
    }

    /// The store has the node of which the local copy is damaged: so it has the segment, and the copy can go.
    fn drop_local(&self, no: SegmentNo) {
        log::warn!("{}, a copy, is damaged and is dropped; the store has it", node_file(no));
        if let Err(e) = self.remove(no) {
            log::warn!("{}: {e}", node_file(no));
        }
    }

    /// Fetches a node segment whole. The copy appears under its name only when it is complete. One fetch at a time: who
    /// comes second finds the copy of the first, unless it wants it `again`, because the copy is damaged.
    fn download(&self, no: SegmentNo, again: bool) -> Result<Arc<dyn File>, MapError> {
        let _one_at_a_time = self.downloading.lock();
        if !again && let Ok(file) = self.media.open(&node_file(no)) {
            return Ok(file);
        }
        let bytes = self.store.get(&names::segment(no)).map_err(|e| of_store(no, e))?;
        let name = node_file(no);
        let temporary = format!("{name}{UNFINISHED}");
        let written = write_file(&*self.media, &temporary, &bytes).and_then(|()| self.media.rename(&temporary, &name));
        written.and_then(|()| self.media.open(&name)).map_err(|e| MapError::io(no, e))
    }

    /// What the store has in place of `damaged`, if it has the node.
    fn fetch_instead(&self, reader: &SegmentReader, ptr: &NodePtr, damaged: Bytes) -> Result<Bytes, MapError> {
        match NodeStore::fetch(reader, ptr) {
            Ok(bytes) => {
                self.drop_local(ptr.segment);
                Ok(bytes)
            }
            // The store does not have it: the damage is what there is to report.
            Err(ReadError::Store(StoreError::NotFound { .. }) | ReadError::Damaged { .. }) => Ok(damaged),
            Err(e) => Err(of_reader(ptr, e)),
        }
    }

    /// The same with the whole segment.
    fn download_instead(&self, ptr: &NodePtr, damaged: Bytes) -> Result<Bytes, MapError> {
        match self.download(ptr.segment, true) {
            Ok(fetched) => {
                log::warn!("{}, a copy, was damaged and was fetched again", node_file(ptr.segment));
                let mut files = self.files.lock();
                let (_, removals) = files.get(ptr.segment);
                let _closed = files.put(ptr.segment, fetched.clone(), removals);
                drop(files);
                NodeStore::read_from(&*fetched, ptr)
            }
            // The store does not have it: the damage is what there is to report.
            Err(_) => Ok(damaged),
        }
    }

    fn read_from(file: &dyn File, ptr: &NodePtr) -> Result<Bytes, MapError> {
        let mut bytes = vec![0; ptr.len as usize];
        match file.read_at(&mut bytes, u64::from(ptr.offset)) {
            // A copy that is cut short reads as one that is damaged.
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(Bytes::new()),
            Err(e) => Err(MapError::io(ptr.segment, e)),
            Ok(()) => Ok(bytes.into()),
        }
    }
}

fn of_store(no: SegmentNo, e: StoreError) -> MapError {
    match e {
        StoreError::NotFound { .. } => MapError::Missing { segment: no },
        other => MapError::io(no, io::Error::other(other)),
    }
}

fn of_reader(ptr: &NodePtr, e: ReadError) -> MapError {
    match e {
        ReadError::Store(e) => of_store(ptr.segment, e),
        ReadError::Damaged { reason, .. } => MapError::Damaged { ptr: *ptr, reason },
    }
}

impl NodeSource for NodeStore {
    /// A damaged local copy gives way to the store's, if the store has one.
    fn read_node(&self, ptr: &NodePtr) -> Result<Bytes, MapError> {
        let Some(file) = self.local(ptr.segment)? else { return self.read_shipped(ptr) };
        let bytes = NodeStore::read_from(&*file, ptr)?;
        if ptr.verify(&bytes).is_ok() {
            return Ok(bytes);
        }
        match &self.reader {
            Some(reader) => self.fetch_instead(reader, ptr, bytes),
            None => self.download_instead(ptr, bytes),
        }
    }
}

/// Removes node segments that no manifest names. One that stays is removed when the next checkpoint sweeps.
pub fn remove_nodes(media: &dyn Media, segments: &[(SegmentNo, u64)]) {
    for (no, _) in segments {
        if let Err(e) = media.remove(&node_file(*no)) {
            log::warn!("{}: {e}", node_file(*no));
        }
    }
}

/// Packs the nodes of one checkpoint into node segments.
pub struct NodeWriter<'a> {
    media: &'a dyn Media,
    filesystem: Uuid,
    numbers: &'a mut dyn FnMut() -> SegmentNo,
    bytes_max: usize,
    current: Option<(SegmentNo, SegmentBuilder)>,
    written: Vec<(SegmentNo, u64)>,
}

impl<'a> NodeWriter<'a> {
    /// A sink that takes segment numbers from `numbers` and starts another segment above `bytes_max` bytes.
    pub fn new(
        media: &'a dyn Media,
        filesystem: Uuid,
        numbers: &'a mut dyn FnMut() -> SegmentNo,
        bytes_max: usize,
    ) -> NodeWriter<'a> {
        NodeWriter { media, filesystem, numbers, bytes_max, current: None, written: Vec::new() }
    }

    /// Writes what is left and makes all names durable. Returns the segments made and their sizes in bytes.
    pub fn finish(mut self) -> Result<Vec<(SegmentNo, u64)>, MapError> {
        let mut done = self.write_out();
        if let Some((no, _)) = self.written.last() {
            done = done.and_then(|()| self.media.sync_dir(NODES).map_err(|e| MapError::io(*no, e)));
        }
        match done {
            Ok(()) => Ok(self.written),
            Err(e) => {
                self.abandon();
                Err(e)
            }
        }
    }

    /// Gives up what was written: a merge that failed leaves nothing.
    pub fn abandon(self) {
        remove_nodes(self.media, &self.written);
    }

    fn write_out(&mut self) -> Result<(), MapError> {
        let Some((no, builder)) = self.current.take() else { return Ok(()) };
        let bytes = builder.finish();
        // Noted before it is written: a half-written file is given up like a whole one.
        self.written.push((no, bytes.len() as u64));
        write_file(self.media, &node_file(no), &bytes).map_err(|e| MapError::io(no, e))
    }
}

impl NodeSink for NodeWriter<'_> {
    fn append(&mut self, node: &[u8]) -> Result<NodePtr, MapError> {
        if self.current.as_ref().is_some_and(|(_, b)| b.finished_len() + node.len() as u64 > self.bytes_max as u64) {
            self.write_out()?;
        }
        let (_, builder) = self.current.get_or_insert_with(|| {
            let no = (self.numbers)();
            (no, SegmentBuilder::new(self.filesystem, no, SegmentKind::Nodes))
        });
        Ok(builder.push_node(node))
    }
}
