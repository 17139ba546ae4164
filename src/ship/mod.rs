//! Layer 6: moving the log into the store.
//!
//! Order: segments, window index, node segments, then the base or increment that names them. **X never names Y before Y is
//! durable.** The shipper does what one job says and reports; the owner of the space tree records the report.

pub mod fence;
mod guard;
pub mod leases;
pub mod pack;
pub mod publish;
pub mod syncer;
mod upload;

pub use syncer::{Durability, Stored, SyncFigures, Syncer};

use crate::base::canary::{self, Canary};
use crate::base::clock::Clock;
use crate::base::random::Random;
use crate::checkpoint::files;
use crate::checkpoint::jobs::{BaseJob, DeleteJob, Deleted, Job, NodesIn, Report, Shipped, WindowJob};
use crate::checkpoint::nodes::{NodeStore, node_file};
use crate::format::checkpoint::Checkpoint;
use crate::format::ids::{Lsn, SegmentNo, Uuid};
use crate::format::lease::Owner;
use crate::format::names::{self, SUPERBLOCK};
use crate::format::publication::{Base, Body, Increment, Log, Position, Publication, WindowEntry, WindowSegment};
use crate::locate::{Locate, LocateError};
use crate::map::MapError;
use crate::media::Media;
use crate::store::{Created, Store, StoreError, probe_create};
use bytes::Bytes;
use guard::Guard;
use pack::{Window, pack};
use parking_lot::Mutex;
use publish::{Actor, Draft, Outcome, Publisher};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use upload::Uploads;

/// Objects of a store that is far away which are deleted at a time.
const DELETES: usize = 16;
/// After so many failures a job that deletes gives up the rest.
const DELETE_FAILURES_MAX: u32 = 8;

/// Why shipping did not go on.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// Another writer owns the filesystem now.
    #[error("another writer has taken over (generation {generation}, number {number}): {by}")]
    Fenced {
        /// The generation,
        generation: u64,
        /// and the number where its object was found.
        number: u64,
        /// Who.
        by: String,
    },
    /// What was published from this state directory is not what it held when it was mounted: it is an old copy.
    #[error(
        "the state directory is an old copy: another one of it has published batches up to {published} that this one does \
         not hold; to mount what the store has, use another --state DIR"
    )]
    OldState {
        /// Published up to here.
        published: Lsn,
    },
    /// The store was away, and what answers now is not the store of this filesystem.
    #[error(
        "the store is not that of filesystem {filesystem} any more: its {SUPERBLOCK} {what}; what was not shipped stays in \
         the state directory"
    )]
    AnotherStore {
        /// The filesystem that is mounted.
        filesystem: Uuid,
        /// What became of the configuration object.
        what: String,
    },
    /// The store does not keep writers apart, or the probe of that had no answer.
    #[error("{0}")]
    Probe(String),
    /// Stored bytes are not what they should be.
    #[error("{place}: {reason}")]
    Damaged {
        /// The object or file.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// More segments were needed than were planned.
    #[error("window {window} needs more segments than were planned")]
    TooFewNumbers {
        /// The window's end.
        window: Lsn,
    },
    /// The store did not do what was asked; worth another try.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object could not be read.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// A node could not be read.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The state directory could not be read.
    #[error("state directory: {0}")]
    Disk(#[from] io::Error),
}

impl ShipError {
    /// Whether this mount may never publish again: it keeps its journal and takes no more changes.
    pub fn ends_writing(&self) -> bool {
        matches!(self, ShipError::Fenced { .. } | ShipError::OldState { .. } | ShipError::AnotherStore { .. })
    }

    /// Whether the store, or the disk of the state directory, has no room.
    pub fn is_full(&self) -> bool {
        match self {
            ShipError::Store(StoreError::Full { .. }) => true,
            ShipError::Disk(e) => e.kind() == io::ErrorKind::StorageFull,
            _ => false,
        }
    }

    /// What is reported when the job may be tried again.
    pub fn into_report(self) -> Report {
        match self {
            ShipError::TooFewNumbers { .. } => Report::TooFewNumbers,
            other => Report::Failed { reason: other.to_string(), away: other.is_away() },
        }
    }

    /// Whether the store did not answer; after a probe, whether it may be that.
    pub fn is_away(&self) -> bool {
        matches!(
            self,
            ShipError::Probe(_)
                | ShipError::Store(StoreError::Away { .. })
                | ShipError::Locate(LocateError::Store(StoreError::Away { .. }))
        )
    }
}

/// Ships.
pub struct Shipper {
    filesystem: Uuid,
    media: Arc<dyn Media>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    nodes: Arc<NodeStore>,
    locate: Arc<Locate>,
    guard: Guard,
    publisher: Arc<Publisher>,
    stored: Arc<Stored>,
    segment_bytes: usize,
    uploads: Uploads,
    deletes: Uploads,
    /// Node segments of a base that is not published yet which this shipper has put, with their sizes: a job that is given
    /// again does not put them again.
    nodes_put: Arc<Mutex<BTreeMap<SegmentNo, u64>>>,
    /// Bytes put since the last report.
    put_bytes: Arc<AtomicU64>,
}

/// What a [`Shipper`] works with.
pub struct Parts {
    /// The filesystem.
    pub filesystem: Uuid,
    /// The state directory.
    pub media: Arc<dyn Media>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// Wall time for publications.
    pub clock: Arc<dyn Clock>,
    /// Randomness for the name of a probe.
    pub random: Arc<dyn Random>,
    /// Reads node segments.
    pub nodes: Arc<NodeStore>,
    /// Reads objects.
    pub locate: Arc<Locate>,
    /// Who waits for what it publishes.
    pub stored: Arc<Stored>,
    /// This process,
    pub owner: Owner,
    /// and its epoch.
    pub epoch: u32,
    /// Bytes at which a store segment is full.
    pub segment_bytes: usize,
    /// Segments that are uploaded at a time. One more is in memory.
    pub uploads: usize,
}

impl Shipper {
    /// A shipper that publishes through `publisher`.
    pub fn new(parts: Parts, publisher: Arc<Publisher>) -> Shipper {
        let Parts {
            filesystem,
            media,
            store,
            clock,
            random,
            nodes,
            locate,
            stored,
            owner,
            epoch,
            segment_bytes,
            uploads,
        } = parts;
        let guard = Guard::new(filesystem, owner, epoch);
        let deletes = Uploads::new(if uploads > 1 { DELETES } else { 1 });
        let (uploads, nodes_put, put_bytes) = (Uploads::new(uploads), Arc::default(), Arc::default());
        Shipper {
            filesystem,
            media,
            store,
            clock,
            random,
            nodes,
            locate,
            guard,
            publisher,
            stored,
            segment_bytes,
            uploads,
            deletes,
            nodes_put,
            put_bytes,
        }
    }

    /// Does a job. After an error it may be given the same job again: everything it puts is immutable and named ahead.
    pub fn run(&mut self, job: &Job) -> Result<Report, ShipError> {
        match job {
            Job::Resume => self.resume(),
            Job::Increment(window) => self.increment(window),
            Job::Base(base) => self.base(base),
            Job::Delete(job) => Ok(Report::Deleted(self.delete(job)?)),
            Job::Fence => self.publisher.look().map(|()| Report::Ours),
        }
    }

    /// What a mount asks of a store that answers, done when one that was away is back.
    fn resume(&mut self) -> Result<Report, ShipError> {
        self.publisher.confirm_store()?;
        probe_create(&*self.store, &*self.random).map_err(ShipError::Probe)?;
        Ok(Report::Resumed(self.publisher.resume()?))
    }

    fn increment(&mut self, window: &WindowJob) -> Result<Report, ShipError> {
        let mut late = Vec::new();
        let sent = self.ship_window(window, &mut late)?;
        let checkpoint = self.checkpoint(window.checkpoint)?;
        let batches = publish::edits(&*self.media, window.checkpoint, window.edits)?;
        let bytes = batches.len() as u64;
        let windows = vec![sent.entry.clone()];
        let body = Body::Increment(Increment { windows, settlement: checkpoint.settlement, batches });
        let draft = self.draft(window.checkpoint, window.start, window.end);
        let mut held = self.publisher.hold(Actor::Shipper);
        let outcome = held.publish(draft, body)?;
        match &outcome {
            Outcome::Published(_) => self.stored.tail().window_published(draft.end, draft.checkpoint),
            Outcome::Adopted(found) => self.note(found),
            Outcome::NoBase => {}
        }
        drop(held);
        self.put_late(late)?;
        self.put_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(self.report(outcome, vec![sent], draft, None, Vec::new()))
    }

    fn base(&mut self, job: &BaseJob) -> Result<Report, ShipError> {
        let checkpoint = self.checkpoint(job.checkpoint)?;
        let mut late = Vec::new();
        let mut sent = Vec::new();
        for window in &job.windows {
            sent.push(self.ship_window(window, &mut late)?);
        }
        let node_segments = self.upload_nodes(&job.nodes, &mut late)?;
        let draft = self.draft(job.checkpoint, Lsn::ZERO, checkpoint.lsn);
        let mut listed = job.unrecorded.clone();
        listed.extend(sent.iter().map(|sent| sent.entry.clone()));
        // Nothing may come between the end of one generation and the base of the next: nobody would read it.
        let mut held = self.publisher.hold(Actor::Shipper);
        if let Outcome::Adopted(found) = held.start_generation(draft)? {
            self.note(&found);
            drop(held);
            return Ok(self.adopted(found));
        }
        // One that was found right now too.
        if let Some(end) = held.found_logs() {
            self.stored.tail().log_published(end);
        }
        let log = match canary::removed(Canary::BaseCarriesTail) {
            true => Log::default(),
            false => syncer::log_of(&self.stored.tail().retained(checkpoint.lsn))?,
        };
        let ended = held.closings(job.recorded)?;
        let body = Body::Base(Base {
            roots: checkpoint.roots,
            windows: listed,
            node_segments: node_segments.clone(),
            settlement: checkpoint.settlement,
            log,
        });
        let outcome = held.publish(draft, body)?;
        match &outcome {
            Outcome::Published(_) => self.stored.tail().base_published(draft.end, draft.checkpoint),
            Outcome::Adopted(found) => self.note(found),
            Outcome::NoBase => {}
        }
        drop(held);
        self.put_late(late)?;
        self.nodes_put.lock().clear();
        Ok(self.report(outcome, sent, draft, Some(node_segments), ended))
    }

    fn report(
        &self,
        outcome: Outcome,
        sent: Vec<Sent>,
        draft: Draft,
        base: Option<Vec<(SegmentNo, u64)>>,
        ended: Vec<Position>,
    ) -> Report {
        let at = match outcome {
            Outcome::Published(at) => at,
            Outcome::Adopted(found) => return self.adopted(found),
            Outcome::NoBase => {
                let reason = "an increment was due in a generation that has no base".to_owned();
                return Report::Failed { reason, away: false };
            }
        };
        let checkpoint = draft.checkpoint;
        self.stored.came();
        let put_bytes = self.put_bytes.swap(0, Ordering::Relaxed);
        let unused = sent.iter().flat_map(|sent| sent.unused.iter().copied()).collect();
        let windows = sent.into_iter().map(|sent| sent.entry).collect();
        Report::Shipped(Shipped { windows, checkpoint, at, base, ended, unused, put_bytes })
    }

    /// Notes what an earlier try published, before the publisher is let go.
    fn note(&self, found: &Publication) {
        match found.body {
            Body::Base(_) => self.stored.tail().base_published(found.end, found.checkpoint),
            Body::Increment(_) => self.stored.tail().window_published(found.end, found.checkpoint),
            Body::Closing(_) | Body::Log(_) => {}
        }
    }

    fn adopted(&self, found: Box<Publication>) -> Report {
        self.stored.came();
        Report::Adopted(found)
    }

    fn draft(&self, checkpoint: u64, start: Lsn, end: Lsn) -> Draft {
        Draft { wall: self.clock.now(), checkpoint, start, end }
    }

    fn checkpoint(&self, number: u64) -> Result<Checkpoint, ShipError> {
        files::read_checkpoint(&*self.media, number)
            .map_err(|e| ShipError::Damaged { place: files::checkpoint_file(number), reason: e.to_string() })
    }

    /// A window index never names a segment that is not in the store.
    fn ship_window(&self, job: &WindowJob, late: &mut Vec<(String, Bytes)>) -> Result<Sent, ShipError> {
        let plan = files::read_plan(&*self.media, job.checkpoint)
            .map_err(|e| ShipError::Damaged { place: files::plan_file(job.checkpoint), reason: e.to_string() })?;
        let window = Window {
            filesystem: self.filesystem,
            start: job.start,
            end: job.end,
            numbers: job.numbers.clone(),
            segment_bytes: self.segment_bytes,
        };
        let (entry, index) = self.uploads.run(|give| {
            let mut upload = |no: SegmentNo, bytes: Bytes| {
                if canary::removed(Canary::SegmentsBeforeIndex) {
                    late.push((names::segment(no), bytes));
                    return Ok(());
                }
                let (store, put_bytes) = (self.store.clone(), self.put_bytes.clone());
                give(Box::new(move || {
                    let len = bytes.len() as u64;
                    store.put(&names::segment(no), bytes)?;
                    put_bytes.fetch_add(len, Ordering::Relaxed);
                    Ok(())
                }))
            };
            pack(&window, &plan.births, &mut |id| Ok(self.locate.fetch_for_ship(id)?), &mut upload)
        })?;
        // Numbers are taken in order, and the same window always fills the same: behind these none was ever put.
        let unused = job.numbers[entry.segments.len()..].to_vec();
        let len = index.len() as u64;
        if canary::removed(Canary::IndexBeforePublication) {
            late.push((names::window(job.start, job.end), index));
            return Ok(Sent { entry, unused });
        }
        if entry.objects > 0 && self.store.create(&names::window(job.start, job.end), index)? == Created::Exists {
            return Ok(Sent { entry: self.shipped_before(job)?, unused });
        }
        self.put_bytes.fetch_add(len, Ordering::Relaxed);
        Ok(Sent { entry, unused })
    }

    /// A window has one index for ever: an earlier life may have published the one that is there, in an object that is
    /// still on its way and will be adopted. So the index that came first counts, with the segments it names; those of
    /// this try are given up like any that were planned and not recorded.
    fn shipped_before(&self, job: &WindowJob) -> Result<WindowEntry, ShipError> {
        let index = self.locate.index(job.start, job.end)?;
        let mut objects = vec![0; index.segments.len()];
        index.entries.iter().for_each(|entry| objects[entry.segment as usize] += 1);
        let mut segments = Vec::new();
        for (&segment, objects) in index.segments.iter().zip(objects) {
            segments.push(WindowSegment { segment, bytes: self.store.size(&names::segment(segment))?, objects });
        }
        let objects = segments.iter().map(|segment| segment.objects).sum();
        Ok(WindowEntry { start: job.start, end: job.end, segments, objects })
    }

    fn put_late(&self, late: Vec<(String, Bytes)>) -> Result<(), ShipError> {
        for (name, bytes) in late {
            self.store.put(&name, bytes)?;
        }
        Ok(())
    }

    /// Only nodes of a root that is about to be published are uploaded; a base never names a node segment that is not in
    /// the store. What is there already, perhaps from a writer before us, may have no local copy, and needs none.
    fn upload_nodes(
        &self,
        wanted: &[(SegmentNo, NodesIn)],
        late: &mut Vec<(String, Bytes)>,
    ) -> Result<Vec<(SegmentNo, u64)>, ShipError> {
        self.uploads.run(|give| {
            for &(no, place) in wanted {
                if matches!(place, NodesIn::Store(_)) || self.nodes_put.lock().contains_key(&no) {
                    continue;
                }
                if canary::removed(Canary::NodesBeforeBase) {
                    let bytes = self.nodes.whole(no)?;
                    self.nodes_put.lock().insert(no, bytes.len() as u64);
                    late.push((names::segment(no), bytes));
                    continue;
                }
                let upload = NodeUpload {
                    no,
                    ask: place == NodesIn::Perhaps,
                    store: self.store.clone(),
                    media: self.media.clone(),
                    nodes: self.nodes.clone(),
                    put_bytes: self.put_bytes.clone(),
                };
                let done = self.nodes_put.clone();
                give(Box::new(move || {
                    let size = upload.run()?;
                    done.lock().insert(no, size);
                    Ok(())
                }))?;
            }
            Ok(())
        })?;
        let put = self.nodes_put.lock();
        let size = |&(no, place): &(SegmentNo, NodesIn)| match place {
            NodesIn::Store(size) => (no, size),
            NodesIn::Perhaps | NodesIn::State => (no, *put.get(&no).expect("it was just put")),
        };
        Ok(wanted.iter().map(size).collect())
    }

    /// Nobody may come to read what is deleted. What followers hold, and everything when that is not to be known, stays.
    fn delete(&mut self, job: &DeleteJob) -> Result<Deleted, ShipError> {
        let allowed = match self.guard.allows(&*self.store, &*self.clock, job) {
            Ok(allowed) => allowed,
            Err(e) => {
                let reason = format!("nothing is deleted, for the leases of followers cannot be read: {e}");
                log::warn!("{reason}");
                return Ok(Deleted { followers: self.guard.followers(), refused: Some(reason), ..Deleted::default() });
            }
        };
        let deleting =
            Arc::new(Deleting { store: self.store.clone(), locate: self.locate.clone(), state: Mutex::default() });
        self.deletes.run(|give| {
            for dead in job.dead.iter().filter(|dead| dead.checkpoint <= allowed) {
                if deleting.state.lock().given_up {
                    break;
                }
                let (deleting, name) = (deleting.clone(), dead.name.clone());
                give(Box::new(move || {
                    deleting.delete(name);
                    Ok(())
                }))?;
            }
            Ok(())
        })?;
        let names = std::mem::take(&mut deleting.state.lock().gone);
        Ok(Deleted { names, allowed, followers: self.guard.followers(), refused: None })
    }
}

/// A job that deletes, several at a time: log increments die by the hundred.
struct Deleting {
    store: Arc<dyn Store>,
    locate: Arc<Locate>,
    state: Mutex<Gone>,
}

#[derive(Default)]
struct Gone {
    gone: Vec<String>,
    failures: u32,
    given_up: bool,
}

impl Deleting {
    fn delete(&self, name: String) {
        let deleted = self.store.delete(&name);
        if deleted.is_ok() {
            self.locate.forget(&name);
        }
        let mut state = self.state.lock();
        match deleted {
            Ok(()) => state.gone.push(name),
            // What cannot be deleted stays listed, and stops nothing else; a store that is away is left alone.
            Err(e) => {
                log::warn!("{e}");
                state.failures += 1;
                state.given_up |= state.failures >= DELETE_FAILURES_MAX || matches!(e, StoreError::Away { .. });
            }
        }
    }
}

/// What became of a window.
struct Sent {
    entry: WindowEntry,
    /// Numbers planned for it that were never put.
    unused: Vec<SegmentNo>,
}

/// One node segment on its way into the store.
struct NodeUpload {
    no: SegmentNo,
    /// It may be there already.
    ask: bool,
    store: Arc<dyn Store>,
    media: Arc<dyn Media>,
    nodes: Arc<NodeStore>,
    put_bytes: Arc<AtomicU64>,
}

impl NodeUpload {
    /// Returns its size in bytes.
    fn run(&self) -> Result<u64, ShipError> {
        let name = names::segment(self.no);
        if self.ask {
            match self.store.size(&name) {
                Err(StoreError::NotFound { .. }) => {}
                found => return Ok(found?),
            }
        }
        let bytes = self.nodes.whole(self.no)?;
        let size = bytes.len() as u64;
        let linked = match self.media.local_path(&node_file(self.no)) {
            Some(path) => self.store.publish_local(&path, &name)?,
            None => false,
        };
        if !linked {
            self.store.put(&name, bytes)?;
        }
        self.put_bytes.fetch_add(size, Ordering::Relaxed);
        Ok(size)
    }
}
