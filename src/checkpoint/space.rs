//! Changes to the space tree: settling what a merge found, recording what was shipped, listing what is dead.
//!
//! Only the checkpointer calls this, so the space tree has one owner, and every change is a batch of the log like any
//! other, so a crash never forgets where shipped data went. Everything here can be started again after a crash: each
//! batch carries the mark of how far it went.

mod settle;
mod windows;

pub use windows::node_segment;

use super::CheckpointError;
use super::jobs::{Dead, NodesIn};
use crate::base::canary::{self, Canary};
use crate::format::batch::TreeId;
use crate::format::ids::{Lsn, ObjectId, SegmentKind, SegmentNo};
use crate::format::names;
use crate::format::space::{self, Key, Mark, Pending, Published, SegmentRecord, Settled};
use crate::format::window::IndexEntry;
use crate::locate::{Locate, LocateError};
use crate::map::{Db, NodeSource, Pins, Room, Stop, Tx, Wait};
use crate::store::StoreError;
use bytes::Bytes;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

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

/// What is done with some rows; says whether to go on.
type EachPage<'a> = dyn FnMut(&[(Bytes, Bytes)]) -> Result<ControlFlow<()>, CheckpointError> + 'a;

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
    /// The store did not answer when it was last asked.
    pub away: &'a Cell<bool>,
}

/// See [`Context::deletable`].
pub struct Deletable {
    /// Store objects that may be deleted.
    pub dead: Vec<Dead>,
    /// If there are none: how long until there are.
    pub next: Option<Duration>,
}

impl Context<'_> {
    fn locate(&self) -> &Locate {
        self.db.locate()
    }

    /// Where an object was shipped to; `None` also when that is not to be had now: a store that is away, or an index that is
    /// damaged, must not stop a checkpoint. A store that is away is asked once.
    fn find(&self, object: &ObjectId) -> Option<(SegmentNo, IndexEntry)> {
        if self.away.get() {
            return None;
        }
        self.locate().find(object).unwrap_or_else(|e| {
            log::warn!("the death of object {object} waits: {e}");
            self.away.set(matches!(e, LocateError::Store(StoreError::Away { .. })));
            None
        })
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

    /// Plans segments: they are known to the space tree before the first byte of them goes to the store, so that a crash
    /// in the middle leaves nothing in the store that nobody knows.
    pub fn plan_segments(&self, numbers: &[SegmentNo]) -> Result<(), CheckpointError> {
        for part in numbers.chunks(self.objects_per_batch()) {
            self.run(|tx| {
                for no in part {
                    let record = SegmentRecord::planned(SegmentKind::Chunks);
                    tx.put(TreeId::Space, space::segment(*no), record.encode());
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The same for node segments that a base may upload, unless they are known already. They stay planned until a base is
    /// published that does not reach them: unlike numbers given up, the next base will want them under the same names.
    /// Says where each is known to be.
    pub fn plan_nodes(&self, numbers: &BTreeSet<SegmentNo>) -> Result<Vec<(SegmentNo, NodesIn)>, CheckpointError> {
        let numbers: Vec<SegmentNo> = numbers.iter().copied().collect();
        let mut places = Vec::with_capacity(numbers.len());
        for part in numbers.chunks(self.objects_per_batch()) {
            let (found, _) = self.run(|tx| {
                let mut found = Vec::with_capacity(part.len());
                for &no in part {
                    let place = match get(tx, &space::segment(no), SegmentRecord::decode)? {
                        Some(record) if record.bytes > 0 => NodesIn::Store(record.bytes),
                        Some(_) => NodesIn::Perhaps,
                        None => {
                            let record = SegmentRecord::planned(SegmentKind::Nodes);
                            tx.put(TreeId::Space, space::segment(no), record.encode());
                            NodesIn::State
                        }
                    };
                    found.push((no, place));
                }
                Ok(found)
            })?;
            places.extend(found);
        }
        Ok(places)
    }

    /// Those of some node segments that no published base has listed.
    pub fn unpublished_nodes(&self, numbers: &BTreeSet<SegmentNo>) -> Result<Vec<SegmentNo>, CheckpointError> {
        let (found, _) = self.run(|tx| {
            let mut found = Vec::new();
            for &no in numbers {
                if get(tx, &space::segment(no), SegmentRecord::decode)?.is_none_or(|record| record.bytes == 0) {
                    found.push(no);
                }
            }
            Ok(found)
        })?;
        Ok(found)
    }

    /// Hands out the rows from `from` up to `to`, at most `limit` at a time, until `each` says to stop. What `each` changes
    /// behind itself it does not meet again.
    fn pages(&self, (from, to): (Bytes, Bytes), limit: usize, each: &mut EachPage<'_>) -> Result<(), CheckpointError> {
        let mut at = from;
        loop {
            let (rows, _) = self.run(|tx| Ok(tx.scan(TreeId::Space, &at, &to, limit)?))?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            at = successor(last);
            if each(&rows)?.is_break() {
                return Ok(());
            }
        }
    }

    /// Lists planned segments that never became part of a recorded window for deletion: those of a ship that has ended,
    /// or of a life that has.
    pub fn drop_planned(&self) -> Result<(), CheckpointError> {
        let planned = SegmentRecord::planned(SegmentKind::Chunks).encode();
        self.pages(space::segments(), self.objects_per_batch(), &mut |rows| {
            let dead: Vec<_> = rows.iter().filter(|(_, v)| *v == planned).map(|(k, _)| k.clone()).collect();
            self.run(|tx| {
                for key in &dead {
                    let no = segment_no(key)?;
                    tx.delete(TreeId::Space, key.clone());
                    tx.put(TreeId::Space, space::pending(names::segment(no).as_bytes()), self.pending());
                }
                Ok(())
            })?;
            Ok(ControlFlow::Continue(()))
        })
    }

    /// The same for the numbers of one job; those in `unused` were never put, and are forgotten.
    pub fn drop_planned_of(&self, numbers: &[SegmentNo], unused: &[SegmentNo]) -> Result<(), CheckpointError> {
        let planned = SegmentRecord::planned(SegmentKind::Chunks).encode();
        for part in numbers.chunks(self.objects_per_batch()) {
            self.run(|tx| {
                for no in part {
                    let key = space::segment(*no);
                    if tx.get(TreeId::Space, &key)?.is_none_or(|record| record != planned) {
                        continue;
                    }
                    tx.delete(TreeId::Space, key);
                    if !unused.contains(no) {
                        tx.put(TreeId::Space, space::pending(names::segment(*no).as_bytes()), self.pending());
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
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
    pub fn deletable(&self, published: u64, grace: i64, limit: usize) -> Result<Deletable, CheckpointError> {
        let (mut dead, mut next) = (Vec::new(), None::<Duration>);
        self.pages(space::pendings(), 1024, &mut |rows| {
            for (key, value) in rows {
                let pending = Pending::decode(value).map_err(CheckpointError::from_format)?;
                let listed = pending.checkpoint <= published || canary::removed(Canary::PendingBeforeDelete);
                let left = grace.saturating_sub(self.now.saturating_sub(pending.since));
                if listed && left <= 0 {
                    dead.push(Dead { name: pending_name(key)?, checkpoint: pending.checkpoint });
                } else if listed {
                    let left = Duration::from_nanos(left.unsigned_abs());
                    next = Some(next.map_or(left, |sooner| sooner.min(left)));
                }
            }
            Ok(if dead.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        dead.truncate(limit);
        Ok(Deletable { dead, next })
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
