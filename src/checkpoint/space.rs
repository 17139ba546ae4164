//! Changes to the space tree: settling what a merge found, recording what was shipped, listing what is dead.
//!
//! Only the checkpointer calls this, so the space tree has one owner, and every change is a batch of the log like any
//! other, so a crash never forgets where shipped data went. Everything here can be started again after a crash: each
//! batch carries the mark of how far it went.

use super::CheckpointError;
use crate::base::canary::{self, Canary};
use crate::format::batch::TreeId;
use crate::format::checkpoint::Settle;
use crate::format::ids::{Lsn, NodePtr, ObjectId, SegmentKind, SegmentNo};
use crate::format::names;
use crate::format::publication::{WindowEntry, WindowSegment};
use crate::format::space::{self, Key, Mark, Pending, Published, SegmentRecord, Settled, WindowRecord};
use crate::locate::{Locate, LocateError};
use crate::map::{Db, NodeSource, Overlay, Pins, Room, Stop, Tx, View, Wait};
use bytes::Bytes;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes one settled object may add to a batch.
const SETTLE_BYTES: u64 = 256;

/// Runs a transaction of the space tree's owner, fetching nodes as it needs them. Blocks on disk and store.
pub fn run<T>(
    db: &Db,
    nodes: &dyn NodeSource,
    mut body: impl FnMut(&mut Tx<'_>) -> Result<T, TxError>,
) -> Result<(T, Lsn), CheckpointError> {
    let mut pins = Pins::default();
    loop {
        let mut tx = db.begin(&pins);
        let done = body(&mut tx).and_then(|value| Ok((value, tx.commit(Room::Maintenance)?)));
        match done {
            Ok(done) => return Ok(done),
            Err(TxError::Stop(Stop::Wait(Wait::Node(ptr)))) => {
                let node = db.cache().fetch(&ptr, nodes)?;
                pins.pin_node(ptr, node);
            }
            Err(TxError::Stop(stop)) => return Err(CheckpointError::Stopped(stop)),
            Err(TxError::Failed(e)) => return Err(e),
        }
    }
}

/// Why a transaction of the owner ended early.
pub enum TxError {
    /// See [`Stop`].
    Stop(Stop),
    /// Anything else.
    Failed(CheckpointError),
}

impl From<Stop> for TxError {
    fn from(stop: Stop) -> TxError {
        TxError::Stop(stop)
    }
}

impl From<crate::format::FormatError> for TxError {
    fn from(e: crate::format::FormatError) -> TxError {
        TxError::Failed(CheckpointError::Damaged(format!("space tree: {e}")))
    }
}

impl From<CheckpointError> for TxError {
    fn from(e: CheckpointError) -> TxError {
        TxError::Failed(e)
    }
}

impl From<LocateError> for TxError {
    fn from(e: LocateError) -> TxError {
        TxError::Failed(e.into())
    }
}

fn get<T>(
    tx: &mut Tx<'_>,
    key: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, crate::format::FormatError>,
) -> Result<Option<T>, TxError> {
    match tx.get(TreeId::Space, key)? {
        Some(value) => Ok(Some(decode(&value)?)),
        None => Ok(None),
    }
}

/// Everything the owner's functions need to know of the world.
pub struct Context<'a> {
    /// The maps.
    pub db: &'a Db,
    /// Reads nodes.
    pub nodes: &'a dyn NodeSource,
    /// Wall clock, nanoseconds since 1970.
    pub now: i64,
    /// The number the next checkpoint will have: what is listed now is in the store once that one is published.
    pub next_checkpoint: u64,
}

impl Context<'_> {
    fn locate(&self) -> &Locate {
        self.db.locate()
    }

    fn pending(&self) -> Bytes {
        Pending { since: self.now, checkpoint: self.next_checkpoint }.encode()
    }

    fn run<T>(&self, body: impl FnMut(&mut Tx<'_>) -> Result<T, TxError>) -> Result<(T, Lsn), CheckpointError> {
        run(self.db, self.nodes, body)
    }

    fn objects_per_batch(&self) -> usize {
        usize::try_from(self.db.journal().batch_bytes_max() / SETTLE_BYTES).unwrap_or(usize::MAX).clamp(1, 4096)
    }

    /// How far settlements have come: (checkpoint, entries done).
    pub fn settled(&self) -> Result<(u64, u64), CheckpointError> {
        let (found, _) = self.run(|tx| get(tx, &space::settled(), Settled::decode))?;
        Ok(found.map_or((0, 0), |s| (s.checkpoint, s.cursor)))
    }

    /// What of our publications is recorded.
    pub fn published(&self) -> Result<Option<Published>, CheckpointError> {
        Ok(self.run(|tx| get(tx, &space::published(), Published::decode))?.0)
    }

    /// A high-water mark; 0 if never set.
    pub fn mark(&self, which: Mark) -> Result<u64, CheckpointError> {
        Ok(self.run(|tx| get(tx, &space::mark(which), space::decode_number))?.0.unwrap_or(0))
    }

    /// Raises the mark of segment numbers. They may be used once the batch returned is durable.
    pub fn reserve_segments(&self, upto: u64) -> Result<Lsn, CheckpointError> {
        let put = |tx: &mut Tx<'_>| {
            tx.put(TreeId::Space, space::mark(Mark::Segment), space::encode_number(upto));
            Ok(())
        };
        Ok(self.run(put)?.1)
    }

    /// Applies a checkpoint's settlement from where an earlier life stopped. Returns the store objects that died.
    pub fn settle(&self, checkpoint: u64, settlement: &[Settle]) -> Result<(), CheckpointError> {
        let (number, cursor) = self.settled()?;
        if number > checkpoint {
            return Ok(());
        }
        let done = if number == checkpoint { usize::try_from(cursor).unwrap_or(usize::MAX) } else { 0 };
        let rest = settlement.get(done..).unwrap_or_default();
        let mut cursor = done;
        for part in rest.chunks(self.objects_per_batch()) {
            cursor += part.len();
            self.run(|tx| {
                let mut ledger = Ledger::new(self);
                for settle in part {
                    ledger.settle(tx, settle)?;
                }
                tx.put(TreeId::Space, space::settled(), Settled { checkpoint, cursor: cursor as u64 }.encode());
                ledger.write(tx)
            })?
            .0
            .apply(self.locate());
        }
        Ok(())
    }

    /// Records how far publications went, and a window that was shipped with this one unless it is recorded already: its
    /// segments become live.
    pub fn record_window(&self, entry: Option<&WindowEntry>, published: &Published) -> Result<Lsn, CheckpointError> {
        let entry = entry.filter(|e| e.objects > 0);
        let ((), lsn) = self.run(|tx| {
            tx.put(TreeId::Space, space::published(), published.encode());
            if let Some(entry) = entry {
                self.put_window(tx, entry);
            }
            Ok(())
        })?;
        if let Some(entry) = entry {
            self.locate().windows().add(entry.start, entry.end);
        }
        Ok(lsn)
    }

    fn put_window(&self, tx: &mut Tx<'_>, entry: &WindowEntry) {
        for &WindowSegment { segment: no, bytes, objects } in &entry.segments {
            let record = SegmentRecord {
                kind: SegmentKind::Chunks,
                bytes,
                objects,
                live_bytes: bytes,
                live_objects: objects,
                window_end: entry.end,
            };
            tx.put(TreeId::Space, space::segment(no), record.encode());
            tx.delete(TreeId::Space, space::pending(names::segment(no).as_bytes()));
        }
        let segments = entry.segments.iter().map(|s| s.segment).collect();
        let record = WindowRecord { start: entry.start, segments, live_objects: entry.objects };
        tx.put(TreeId::Space, space::window(entry.end), record.encode());
    }

    /// Settles the deaths that waited for their window to be recorded.
    pub fn settle_waiting(&self) -> Result<(), CheckpointError> {
        let (from, to) = space::waitings();
        let mut at = from;
        loop {
            let (rows, _) = self.run(|tx| Ok(tx.scan(TreeId::Space, &at, &to, self.objects_per_batch())?))?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            at = successor(last);
            let mut due = Vec::new();
            for (key, _) in &rows {
                let object = waiting_object(key)?;
                if self.locate().windows().of(object.lsn).is_some() {
                    due.push(object);
                }
            }
            if due.is_empty() {
                continue;
            }
            let (effects, _) = self.run(|tx| {
                let mut ledger = Ledger::new(self);
                for object in &due {
                    tx.delete(TreeId::Space, space::waiting(*object));
                    ledger.dies(tx, *object)?;
                }
                ledger.write(tx)
            })?;
            effects.apply(self.locate());
        }
    }

    /// Plans segments: they are known to the space tree before the first byte of them goes to the store, so that a crash
    /// in the middle leaves nothing in the store that nobody knows.
    pub fn plan_segments(&self, numbers: &[SegmentNo]) -> Result<Lsn, CheckpointError> {
        let mut lsn = self.db.last();
        for part in numbers.chunks(self.objects_per_batch()) {
            let put = |tx: &mut Tx<'_>| {
                for no in part {
                    tx.put(TreeId::Space, space::segment(*no), planned().encode());
                }
                Ok(())
            };
            lsn = self.run(put)?.1;
        }
        Ok(lsn)
    }

    /// Lists planned segments that never became part of a recorded window for deletion: those of a ship that has ended,
    /// or of a life that has.
    pub fn drop_planned(&self) -> Result<(), CheckpointError> {
        let (from, to) = space::segments();
        let mut at = from;
        loop {
            let (rows, _) = self.run(|tx| Ok(tx.scan(TreeId::Space, &at, &to, self.objects_per_batch())?))?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            at = successor(last);
            let planned = planned().encode();
            let dead: Vec<_> = rows.iter().filter(|(_, v)| *v == planned).map(|(k, _)| k.clone()).collect();
            self.run(|tx| {
                for key in &dead {
                    let no = segment_no(key)?;
                    tx.delete(TreeId::Space, key.clone());
                    tx.put(TreeId::Space, space::pending(names::segment(no).as_bytes()), self.pending());
                }
                Ok(())
            })?;
        }
    }

    /// Records the node segments of a published base; those of older bases are listed for deletion.
    pub fn record_base(&self, uploaded: &[(SegmentNo, u64)]) -> Result<(), CheckpointError> {
        let wanted: BTreeMap<SegmentNo, u64> = uploaded.iter().copied().collect();
        for part in uploaded.chunks(self.objects_per_batch()) {
            self.run(|tx| {
                for &(no, bytes) in part {
                    let record = SegmentRecord {
                        kind: SegmentKind::Nodes,
                        bytes,
                        objects: 0,
                        live_bytes: bytes,
                        live_objects: 0,
                        window_end: Lsn::ZERO,
                    };
                    tx.put(TreeId::Space, space::segment(no), record.encode());
                    tx.delete(TreeId::Space, space::pending(names::segment(no).as_bytes()));
                }
                Ok(())
            })?;
        }
        let (from, to) = space::segments();
        let mut at = from;
        loop {
            let (rows, _) = self.run(|tx| Ok(tx.scan(TreeId::Space, &at, &to, self.objects_per_batch())?))?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            at = successor(last);
            self.run(|tx| {
                for (key, value) in &rows {
                    let (no, record) = (segment_no(key)?, SegmentRecord::decode(value)?);
                    if record.kind == SegmentKind::Nodes && !wanted.contains_key(&no) {
                        tx.delete(TreeId::Space, key.clone());
                        tx.put(TreeId::Space, space::pending(names::segment(no).as_bytes()), self.pending());
                    }
                }
                Ok(())
            })?;
        }
    }

    /// The windows recorded now that the space tree under `roots` does not record, as they were when shipped.
    pub fn windows_not_in(&self, roots: [Option<NodePtr>; 2]) -> Result<Vec<WindowEntry>, CheckpointError> {
        let known = self.published_in(roots[TreeId::Space as usize])?;
        let (_, to) = space::windows();
        let mut at = successor(&space::window(known));
        let mut entries = Vec::new();
        loop {
            let (rows, _) = self.run(|tx| Ok(tx.scan(TreeId::Space, &at, &to, self.objects_per_batch())?))?;
            let Some((last, _)) = rows.last() else { return Ok(entries) };
            at = successor(last);
            for (key, value) in &rows {
                let end = window_end(key)?;
                let record = WindowRecord::decode(value).map_err(CheckpointError::from_format)?;
                entries.push(self.entry_of(end, &record)?);
            }
        }
    }

    fn entry_of(&self, end: Lsn, window: &WindowRecord) -> Result<WindowEntry, CheckpointError> {
        let (segments, _) = self.run(|tx| {
            let mut segments = Vec::new();
            for no in &window.segments {
                if let Some(record) = get(tx, &space::segment(*no), SegmentRecord::decode)? {
                    segments.push(WindowSegment { segment: *no, bytes: record.bytes, objects: record.objects });
                }
            }
            Ok(segments)
        })?;
        let objects = segments.iter().map(|s: &WindowSegment| s.objects).sum();
        Ok(WindowEntry { start: window.start, end, segments, objects })
    }

    /// Up to where windows are recorded in the tree under a root, without what lies over it.
    fn published_in(&self, root: Option<NodePtr>) -> Result<Lsn, CheckpointError> {
        let empty = Overlay::default();
        let mut pins = Pins::default();
        loop {
            let view = View { overlay: &empty, layers: &[], root };
            match view.get(self.db.cache(), &pins, &space::published()) {
                Ok(None) => return Ok(Lsn::ZERO),
                Ok(Some(value)) => return Ok(Published::decode(&value).map_err(CheckpointError::from_format)?.end),
                Err(ptr) => pins.pin_node(ptr, self.db.cache().fetch(&ptr, self.nodes)?),
            }
        }
    }

    /// Node segments that the store has, as far as is recorded.
    pub fn uploaded_nodes(&self) -> Result<BTreeSet<SegmentNo>, CheckpointError> {
        let (from, to) = space::segments();
        let mut at = from;
        let mut found = BTreeSet::new();
        loop {
            let (rows, _) = self.run(|tx| Ok(tx.scan(TreeId::Space, &at, &to, self.objects_per_batch())?))?;
            let Some((last, _)) = rows.last() else { return Ok(found) };
            at = successor(last);
            for (key, value) in &rows {
                let record = SegmentRecord::decode(value).map_err(CheckpointError::from_format)?;
                if record.kind == SegmentKind::Nodes {
                    found.insert(segment_no(key)?);
                }
            }
        }
    }

    /// Lists store objects for deletion.
    pub fn list_dead(&self, names: &[String]) -> Result<(), CheckpointError> {
        for part in names.chunks(self.objects_per_batch()) {
            self.run(|tx| {
                for name in part {
                    tx.put(TreeId::Space, space::pending(name.as_bytes()), self.pending());
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Up to `limit` store objects that may be deleted now: listed by a published checkpoint, and past the grace time.
    pub fn deletable(&self, published: u64, grace: i64, limit: usize) -> Result<Vec<String>, CheckpointError> {
        let (mut at, to) = space::pendings();
        let mut names = Vec::new();
        while names.len() < limit {
            let (rows, _) = self.run(|tx| Ok(tx.scan(TreeId::Space, &at, &to, 1024)?))?;
            let Some((last, _)) = rows.last() else { break };
            at = successor(last);
            for (key, value) in &rows {
                let pending = Pending::decode(value).map_err(CheckpointError::from_format)?;
                let listed = pending.checkpoint <= published || canary::removed(Canary::PendingBeforeDelete);
                if listed && self.now.saturating_sub(pending.since) >= grace {
                    names.push(pending_name(key)?);
                }
            }
        }
        names.truncate(limit);
        Ok(names)
    }

    /// Forgets store objects that were deleted.
    pub fn deleted(&self, names: &[String]) -> Result<(), CheckpointError> {
        for part in names.chunks(self.objects_per_batch()) {
            self.run(|tx| {
                for name in part {
                    tx.delete(TreeId::Space, space::pending(name.as_bytes()));
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn misplaced(key: &[u8]) -> CheckpointError {
    CheckpointError::Damaged(format!("space tree: key {key:02x?} is not of the kind of its neighbours"))
}

fn waiting_object(key: &[u8]) -> Result<ObjectId, CheckpointError> {
    match Key::decode(key) {
        Ok(Key::Waiting(object)) => Ok(object),
        _ => Err(misplaced(key)),
    }
}

fn window_end(key: &[u8]) -> Result<Lsn, CheckpointError> {
    match Key::decode(key) {
        Ok(Key::Window(end)) => Ok(end),
        _ => Err(misplaced(key)),
    }
}

fn segment_no(key: &[u8]) -> Result<SegmentNo, CheckpointError> {
    match Key::decode(key) {
        Ok(Key::Segment(no)) => Ok(no),
        _ => Err(misplaced(key)),
    }
}

fn pending_name(key: &[u8]) -> Result<String, CheckpointError> {
    match Key::decode(key) {
        Ok(Key::Pending(name)) => String::from_utf8(name.to_vec()).map_err(|_| misplaced(key)),
        _ => Err(misplaced(key)),
    }
}

fn successor(key: &Bytes) -> Bytes {
    let mut next = key.to_vec();
    next.push(0);
    next.into()
}

fn planned() -> SegmentRecord {
    SegmentRecord {
        kind: SegmentKind::Chunks,
        bytes: 0,
        objects: 0,
        live_bytes: 0,
        live_objects: 0,
        window_end: Lsn::ZERO,
    }
}

/// The records one transaction changes, read once and written once.
struct Ledger<'a> {
    context: &'a Context<'a>,
    segments: BTreeMap<SegmentNo, SegmentRecord>,
    windows: BTreeMap<Lsn, WindowRecord>,
}

/// What must follow once the batch is in the log.
struct Effects {
    dead_windows: Vec<Lsn>,
}

impl Effects {
    fn apply(self, locate: &Locate) {
        for end in self.dead_windows {
            locate.windows().remove(end);
        }
    }
}

impl<'a> Ledger<'a> {
    fn new(context: &'a Context<'a>) -> Ledger<'a> {
        Ledger { context, segments: BTreeMap::new(), windows: BTreeMap::new() }
    }

    fn settle(&mut self, tx: &mut Tx<'_>, settle: &Settle) -> Result<(), TxError> {
        let key = space::count(settle.object);
        let count = get(tx, &key, space::decode_count)?.unwrap_or(1);
        let count = i64::from(count) + i64::from(settle.delta);
        match count {
            i64::MIN..=0 => {
                tx.delete(TreeId::Space, key);
                self.dies(tx, settle.object)?;
            }
            1 => tx.delete(TreeId::Space, key),
            n => tx.put(TreeId::Space, key, space::encode_count(u32::try_from(n).unwrap_or(u32::MAX))),
        }
        Ok(())
    }

    /// No extent names the object any more. A death whose window is not recorded yet waits for it.
    fn dies(&mut self, tx: &mut Tx<'_>, object: ObjectId) -> Result<(), TxError> {
        let Some((segment, row)) = self.context.locate().find(&object)? else {
            tx.put(TreeId::Space, space::waiting(object), Bytes::new());
            return Ok(());
        };
        let record = match self.segments.entry(segment) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => match get(tx, &space::segment(segment), SegmentRecord::decode)? {
                Some(record) => new.insert(record),
                None => return Ok(()),
            },
        };
        record.live_bytes = record.live_bytes.saturating_sub(u64::from(row.len));
        record.live_objects = record.live_objects.saturating_sub(1);
        let end = record.window_end;
        let window = match self.windows.entry(end) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => match get(tx, &space::window(end), WindowRecord::decode)? {
                Some(window) => new.insert(window),
                None => return Ok(()),
            },
        };
        window.live_objects = window.live_objects.saturating_sub(1);
        Ok(())
    }

    fn write(self, tx: &mut Tx<'_>) -> Result<Effects, TxError> {
        let mut dead_windows = Vec::new();
        for (no, record) in self.segments {
            match record.live_objects {
                0 => {
                    tx.delete(TreeId::Space, space::segment(no));
                    tx.put(TreeId::Space, space::pending(names::segment(no).as_bytes()), self.context.pending());
                }
                _ => tx.put(TreeId::Space, space::segment(no), record.encode()),
            }
        }
        for (end, record) in self.windows {
            match record.live_objects {
                0 => {
                    let name = names::window(record.start, end);
                    tx.delete(TreeId::Space, space::window(end));
                    tx.put(TreeId::Space, space::pending(name.as_bytes()), self.context.pending());
                    dead_windows.push(end);
                }
                _ => tx.put(TreeId::Space, space::window(end), record.encode()),
            }
        }
        Ok(Effects { dead_windows })
    }
}
