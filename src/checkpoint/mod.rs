//! Layer 6: checkpoints, and the one owner of the space tree.
//!
//! The [`Checkpointer`] is a step function. It freezes the overlays at an Lsn, waits until that Lsn is durable, merges what is frozen
//! into new trees on local disk, and commits them in the manifest. After that it settles what the merge learned, asks the shipper
//! to ship the window that ends there, records what was shipped, and only then lets the journal go. The rules it keeps:
//!
//! 1. A checkpoint at L is a root for recovery only once L is durable ([`Checkpointer::merge_when_durable`]).
//! 2. The manifest never names a file or a tree that is not durable ([`Checkpointer::commit`]).
//! 3. The journal is reclaimed only when the checkpoint covers it, its live data is shipped, and the batch that records
//!    the window is durable ([`Checkpointer::reclaim_when_recorded`]).
//! 4. A store object is deleted only after a published increment or base has listed it as pending deletion, and a grace
//!    time ([`Checkpointer::deletion`]); and then only by a shipper that knows of no follower which may read it.
//! 5. Until it is known what earlier lives published nothing is shipped, deleted or reclaimed ([`startup`]).
//! 6. A checkpoint that fails leaves no file behind, and is tried again after a pause that grows; see [`backoff`]. Meanwhile
//!    what was checkpointed before is shipped on.

mod backoff;
mod commit;
mod copies;
mod cost;
mod desk;
mod ended;
mod error;
pub mod files;
pub mod jobs;
pub mod merge;
pub mod nodes;
mod shipping;
pub mod space;
mod startup;

pub use cost::Replay;
pub use desk::{Asking, Desk, Figures, Wanted};
pub use ended::deletable;
pub use error::CheckpointError;
pub(crate) use shipping::spread;

use crate::base::canary::{self, Canary};
use crate::base::clock::Clock;
use crate::base::trouble::Trouble;
use crate::format::checkpoint::{Checkpoint, Settle};
use crate::format::ids::{Lsn, SegmentNo, Uuid};
use crate::format::manifest::PlanEntry;
use crate::format::publication::{Position, Publication};
use crate::format::space::Published;
use crate::map::{Db, Frozen, Shape, reachable_segments, reachable_within};
use crate::media::Media;
use backoff::{Backoff, Haste};
use copies::Copies;
use cost::Chain;
use jobs::{Job, Report};
use nodes::NodeStore;
use parking_lot::Mutex;
use startup::Startup;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// When to do what.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// A checkpoint is made, and shipped, when changes are this old; unless [`WAITING_AGED`] windows wait already.
    pub age_max: Duration,
    /// A dead store object is deleted this long after it was listed.
    pub grace: Duration,
    /// What replaying increments may cost until a new base is published.
    pub replay: Replay,
    /// Bytes at which a node segment or a store segment is full.
    pub segment_bytes: usize,
    /// Segments that are uploaded at a time; with 1 that is done by the shipper itself.
    pub uploads: usize,
    /// Shape of tree nodes.
    pub shape: Shape,
}

/// Numbers that may be used for segments without asking again.
const NUMBERS_LOW: u64 = 4096;
/// How many are reserved at a time.
const NUMBERS_STEP: u64 = 65536;
/// Dead store objects are looked for this often.
const DELETE_EVERY: Duration = Duration::from_secs(1);
/// Store objects deleted in one job.
const DELETE_MAX: usize = 256;
/// Changes above one part in so many of the journal's capacity count as heavy when the journal has little room.
const JOURNAL_SHARE: u64 = 16;
/// After a failure the next try waits this long.
const RETRY: Duration = Duration::from_secs(1);
/// While so many windows wait to be shipped, the age of changes is no reason for another one: one is on its way, and one is
/// made meanwhile. A store that is slow gets larger windows, and one that is away costs no more than the journal.
const WAITING_AGED: usize = 2;
/// While so many wait, nobody's request is a reason either: who drains a filesystem asks again and again.
const WAITING_ASKED: usize = 16;

/// Segment numbers, reserved durably in ranges ahead of use.
struct Numbers {
    epoch: u32,
    next: u64,
    mark: u64,
}

impl Numbers {
    fn take(&mut self) -> SegmentNo {
        assert!(self.next < self.mark, "segment numbers are reserved ahead of use");
        self.next += 1;
        SegmentNo { epoch: self.epoch, number: self.next - 1 }
    }
}

/// A window that waits to be shipped.
#[derive(Clone, Debug)]
struct Plan {
    number: u64,
    start: Lsn,
    end: Lsn,
    edits: Option<u64>,
    /// What it costs to replay as an increment.
    chain: Chain,
    /// When the oldest change in it was noticed, or the mount that found it.
    since: Duration,
}

/// A job that the shipper handed back.
struct FailedJob {
    job: Job,
    retry_at: Duration,
    /// The same while somebody waits for a drain.
    retry_asked_at: Duration,
    pause: Duration,
    /// Tries in a row.
    tries: u32,
}

/// What followers leave of the dead store objects.
#[derive(Clone, Copy)]
struct Held {
    /// What checkpoints up to this one list may go.
    allowed: u64,
    /// Whether more may is asked then.
    until: Duration,
}

enum Phase {
    Idle,
    /// Frozen; merged once this batch is durable, which is the frozen one or a later reservation of numbers.
    Frozen(Frozen, Lsn),
    /// Frozen, and its merge failed.
    Failed(Frozen),
}

/// Whether a step found anything to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It did something; there may be more.
    Worked,
    /// Nothing to do now.
    Idle,
}

/// What a checkpointer works with.
pub struct Parts {
    /// The filesystem.
    pub filesystem: Uuid,
    /// The maps.
    pub db: Arc<Db>,
    /// The state directory.
    pub media: Arc<dyn Media>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Nodes.
    pub nodes: Arc<NodeStore>,
    /// To and from the shipper.
    pub desk: Arc<Desk>,
    /// When to do what.
    pub policy: Policy,
}

/// The owner of checkpoints and of the space tree.
pub struct Checkpointer {
    filesystem: Uuid,
    db: Arc<Db>,
    media: Arc<dyn Media>,
    clock: Arc<dyn Clock>,
    nodes: Arc<NodeStore>,
    desk: Arc<Desk>,
    policy: Policy,
    numbers: Numbers,
    phase: Phase,
    checkpoint: Checkpoint,
    plans: VecDeque<Plan>,
    /// Recorded windows whose batch must be durable before the journal may go: (batch, window end).
    recorded: Option<(Lsn, Lsn)>,
    /// A job whose planned segments are not durable yet: (batch, job).
    ready: Option<(Lsn, Job)>,
    /// The job the shipper works on.
    running: Option<Job>,
    /// Node segments a running base job reads.
    pinned: BTreeSet<SegmentNo>,
    /// Node segments in the state directory that no published base has listed, with their sizes in bytes.
    new_nodes: BTreeMap<SegmentNo, u64>,
    /// Those of earlier mounts are among them.
    new_nodes_known: bool,
    /// Node segments in the state directory that are copies.
    copies: Copies,
    published: Published,
    /// An earlier life closed the newest generation, and nothing is in the next one yet.
    closed: bool,
    /// Closing objects of generations of which nothing is listed for deletion yet.
    ended: Vec<Position>,
    /// Increments over the newest base; what those of earlier mounts cost is not known, but how many there are is.
    chain: Chain,
    /// When this mount published its newest base.
    based_at: Option<Duration>,
    wanted: Arc<Wanted>,
    figures: Arc<Mutex<Figures>>,
    changed_since: Option<Duration>,
    /// The same for what is frozen.
    frozen_since: Duration,
    retry_at: Duration,
    /// Checkpoints that failed in a row.
    backoff: Backoff,
    /// What fails, as people are told of it.
    trouble: Trouble,
    /// A step failed for something that who took over may have deleted.
    misses_stored: bool,
    /// What earlier lives left is taken up before anything else.
    startup: Startup,
    /// The newest checkpoint's settlement is not all in the log yet.
    unsettled: bool,
    /// Numbers planned for a job that is not made yet.
    half_made: Vec<SegmentNo>,
    /// As many numbers are planned as a window may need at most.
    plans_most: bool,
    /// A job that the shipper could not do.
    failed: Option<FailedJob>,
    /// The shipper's report, until all of it is recorded.
    report: Option<Report>,
    /// Dead store objects are looked for at this time again.
    delete_at: Duration,
    /// Some of them are held by followers.
    held: Option<Held>,
    /// The store did not answer when it was last asked: nobody here waits for it again until the shipper has got through.
    away: Cell<bool>,
}

impl Checkpointer {
    /// An owner that goes on from the newest checkpoint; `adopted` are publications of earlier lives that the space tree
    /// may not record yet, or nothing if the store did not answer.
    pub fn new(parts: Parts, checkpoint: Checkpoint, adopted: Option<Vec<Publication>>) -> Checkpointer {
        let Parts { filesystem, db, media, clock, nodes, desk, policy } = parts;
        let manifest = db.journal().manifest().current();
        let (since, offline) = (clock.elapsed(), adopted.is_none());
        let plan = |p: &PlanEntry| {
            let bytes = files::edits_bytes(&*media, p.number).unwrap_or(0);
            let chain = Chain { increments: 1, bytes, nodes: 0 };
            Plan { number: p.number, start: p.start, end: p.end, edits: p.edits, chain, since }
        };
        let plans = manifest.plans.iter().map(plan).collect();
        let figures = Figures {
            checkpoint: checkpoint.number,
            checkpoint_lsn: checkpoint.lsn,
            checkpoint_wall: checkpoint.wall,
            offline,
            ..Figures::default()
        };
        let epoch = db.epoch();
        db.journal().tail().begin(if db.files_changed() { db.last() } else { checkpoint.lsn });
        Checkpointer {
            filesystem,
            media,
            clock,
            nodes,
            desk,
            policy,
            numbers: Numbers { epoch, next: 0, mark: 0 },
            phase: Phase::Idle,
            checkpoint,
            plans,
            recorded: None,
            ready: None,
            running: None,
            pinned: BTreeSet::new(),
            new_nodes: BTreeMap::new(),
            new_nodes_known: false,
            copies: Copies::default(),
            published: Published::default(),
            closed: false,
            ended: Vec::new(),
            chain: Chain::default(),
            based_at: None,
            wanted: Arc::default(),
            figures: Arc::new(Mutex::new(figures)),
            changed_since: None,
            frozen_since: Duration::ZERO,
            retry_at: Duration::ZERO,
            backoff: Backoff::default(),
            trouble: Trouble::default(),
            misses_stored: false,
            startup: Startup::Begin(adopted),
            unsettled: true,
            half_made: Vec::new(),
            plans_most: false,
            failed: None,
            report: None,
            delete_at: Duration::ZERO,
            held: None,
            away: Cell::new(offline),
            db,
        }
    }

    /// The figures, shared with whoever shows them.
    pub fn figures(&self) -> Arc<Mutex<Figures>> {
        self.figures.clone()
    }

    /// Where another actor asks for a window to be published.
    pub fn asking(&self) -> Asking {
        Asking { wanted: self.wanted(), desk: self.desk.clone(), figures: self.figures() }
    }

    /// Where to ask for a checkpoint.
    pub fn wanted(&self) -> Arc<Wanted> {
        self.wanted.clone()
    }

    /// What the last merge learned becomes batches, some in each step. When they crowd the overlays another checkpoint comes
    /// in between, and takes the rest along.
    fn settle(&mut self) -> Result<bool, CheckpointError> {
        if !self.unsettled || !matches!(self.phase, Phase::Idle) || self.is_pressed() {
            return Ok(false);
        }
        if self.plans.is_empty() {
            // Nothing is on its way that would say whether the store is back.
            self.away.set(false);
        }
        // A journal that is full is emptied by what waits to be shipped; the last of its room is for recording that.
        if !self.plans.is_empty() && self.db.journal().is_full() {
            return Ok(false);
        }
        if self.context().settle_some(self.checkpoint.number, &self.checkpoint.settlement)? {
            return Ok(true);
        }
        self.context().settle_waiting(self.published.end)?;
        self.unsettled = false;
        self.delete_at = Duration::ZERO;
        Ok(true)
    }

    /// What of the newest checkpoint's settlement is not in the log yet.
    fn unsettled_rest(&self) -> Result<Vec<Settle>, CheckpointError> {
        let (number, cursor) = self.context().settled()?;
        let done = match number.cmp(&self.checkpoint.number) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => usize::try_from(cursor).unwrap_or(usize::MAX),
            std::cmp::Ordering::Greater => usize::MAX,
        };
        Ok(self.checkpoint.settlement.get(done..).unwrap_or_default().to_vec())
    }

    /// One step. Errors are noted and tried again later; the journal's latch stops everything by itself.
    pub fn step(&mut self) -> Progress {
        if self.clock.elapsed() < self.retry_at {
            return Progress::Idle;
        }
        let stepped = self.try_step();
        self.note_oldest();
        match stepped {
            Ok(progress) => {
                if progress == Progress::Worked && self.backoff.failures() == 0 {
                    self.all_is_well();
                }
                progress
            }
            Err(e) => {
                let now = self.clock.elapsed();
                if self.trouble.is_there(now) {
                    let pause = if self.is_backing_off() { self.backoff.pause(Haste::None) } else { RETRY };
                    log::warn!("checkpoint: {e}; trying again in {} s", pause.as_secs());
                }
                self.figures.lock().last_error = Some(e.to_string());
                self.misses_stored |= e.may_be_deleted();
                self.retry_at = now + RETRY;
                Progress::Idle
            }
        }
    }

    fn all_is_well(&mut self) {
        if self.trouble.is_over(self.clock.elapsed()).is_some() {
            log::info!("checkpoint: going on");
        }
        self.figures.lock().last_error = None;
    }

    fn is_backing_off(&self) -> bool {
        matches!(self.phase, Phase::Failed(_))
    }

    /// Whether everything up to the newest batch of files is checkpointed, shipped and recorded.
    pub fn is_drained(&self) -> bool {
        matches!(self.phase, Phase::Idle)
            && self.startup.is_done()
            && !self.unsettled
            && self.report.is_none()
            && !self.db.files_changed()
            && self.plans.is_empty()
            && self.recorded.is_none()
            && self.ready.is_none()
            && self.running.is_none()
            && self.failed.is_none()
    }

    fn try_step(&mut self) -> Result<Progress, CheckpointError> {
        if self.look_at_fence() || self.take_up()? || self.settle()? {
            return Ok(Progress::Worked);
        }
        if self.take_report()? || self.reclaim_when_recorded()? {
            return Ok(Progress::Worked);
        }
        if self.merge_again()? || self.merge_when_durable()? || self.freeze()? {
            return Ok(Progress::Worked);
        }
        if self.give_job()? || self.tend_copies() {
            return Ok(Progress::Worked);
        }
        Ok(Progress::Idle)
    }

    /// Whether a checkpoint is due: by journal size, overlay size, age, or on request; never when nothing changed.
    fn is_due(&mut self) -> bool {
        // Batches of the space tree alone ask for a checkpoint only when they fill memory or journal.
        if !self.db.files_changed() {
            self.changed_since = None;
            if self.plans.is_empty() {
                // There is nothing that somebody could still wait for.
                self.wanted.take();
            }
            return self.is_pressed();
        }
        let now = self.clock.elapsed();
        let since = *self.changed_since.get_or_insert(now);
        let waiting = self.plans.len();
        let age_max = self.wanted.interval().unwrap_or(self.policy.age_max);
        (waiting < WAITING_ASKED && self.wanted.take())
            || self.is_pressed()
            || self.base_is_blocked()
            // A window on its way frees more of the journal than another checkpoint would.
            || (waiting == 0 && self.db.journal().reclaim_wanted())
            || (waiting < WAITING_AGED && now.saturating_sub(since) >= age_max)
    }

    /// Whether changes since the last freeze fill the overlays, or a journal that has little room.
    fn is_pressed(&self) -> bool {
        let journal = self.db.journal();
        let heavy = || self.db.active_bytes() * JOURNAL_SHARE > journal.stats().capacity_bytes;
        self.db.overlays_crowded() || (self.plans.is_empty() && journal.reclaim_wanted() && heavy())
    }

    fn freeze(&mut self) -> Result<bool, CheckpointError> {
        if !matches!(self.phase, Phase::Idle) || !self.is_due() {
            return Ok(false);
        }
        // The numbers are durable before their first use: this batch is before the freeze, which waits for itself.
        self.reserve_numbers(NUMBERS_LOW)?;
        // Nobody takes an empty overlay for a drained filesystem while its changes are on their way.
        self.figures.lock().drained = false;
        let Some(frozen) = self.db.freeze() else { return Ok(false) };
        self.frozen_since = self.changed_since.take().unwrap_or_else(|| self.clock.elapsed());
        self.ask_durable(frozen.lsn);
        let lsn = frozen.lsn;
        self.phase = Phase::Frozen(frozen, lsn);
        Ok(true)
    }

    /// Has the journal sync, in every policy, and is woken when it has.
    fn ask_durable(&self, lsn: Lsn) {
        let desk = self.desk.clone();
        self.db.journal().when_durable(lsn, Box::new(move |_| desk.wake()));
    }

    /// Makes sure that `count` segment numbers can be taken.
    fn reserve_numbers(&mut self, count: u64) -> Result<(), CheckpointError> {
        if self.numbers.mark - self.numbers.next < count {
            let mark = self.numbers.mark + count.max(NUMBERS_STEP);
            self.context().reserve_segments(mark)?;
            self.numbers.mark = mark;
        }
        Ok(())
    }

    /// After the commit: what the merge learned becomes batches, and the window can be shipped.
    fn installed(&mut self, checkpoint: Checkpoint, chain: Chain) -> Result<(), CheckpointError> {
        let Checkpoint { number, previous_lsn: start, lsn: end, .. } = checkpoint;
        self.plans.push_back(Plan { number, start, end, edits: Some(chain.bytes), chain, since: self.frozen_since });
        self.checkpoint = checkpoint;
        let mut figures = self.figures.lock();
        figures.checkpoint = self.checkpoint.number;
        figures.checkpoint_wall = self.checkpoint.wall;
        figures.checkpoint_lsn = self.checkpoint.lsn;
        figures.checkpoints += 1;
        figures.checkpoint_failures = 0;
        figures.windows_waiting = self.plans.len() as u64;
        drop(figures);
        if canary::removed(Canary::WindowBeforeReclaim) {
            self.db.journal().reclaim(self.checkpoint.lsn);
        }
        self.unsettled = true;
        self.sweep_local()
    }

    /// The node segments that the newest checkpoint's roots reach.
    fn reached(&self) -> Result<BTreeSet<SegmentNo>, CheckpointError> {
        let mut reached = BTreeSet::new();
        for root in self.checkpoint.roots {
            reached.extend(reachable_segments(root, &*self.nodes)?);
        }
        Ok(reached)
    }

    /// Removes local node segments that no local root and no running ship reaches, and files of old checkpoints.
    fn sweep_local(&mut self) -> Result<(), CheckpointError> {
        match self.new_nodes_known || !self.startup.is_done() {
            // Before the store was asked this goes over those of this mount, for which it holds too.
            true => self.sweep_new(),
            false => {
                let reached = self.reached()?;
                self.sweep(&reached)
            }
        }
    }

    /// The same, given what the roots reach.
    fn sweep(&mut self, reached: &BTreeSet<SegmentNo>) -> Result<(), CheckpointError> {
        let mut keep = reached.clone();
        keep.extend(&self.pinned);
        // Those that were found may be among those that go.
        self.copies.look |= self.nodes.limits_copies();
        self.nodes.retain(&keep).map_err(CheckpointError::disk)?;
        self.new_nodes.retain(|no, _| keep.contains(no));
        self.swept()
    }

    /// The same for node segments that no published base has, which reads no others: after each checkpoint, also with a
    /// huge tree and while the store is away. Nodes of a published base lead to nodes of that base only: a tree is never
    /// changed in place, so a node that is reached now and was made before the base was reached by it with all below it.
    fn sweep_new(&mut self) -> Result<(), CheckpointError> {
        let mut keep = self.pinned.clone();
        for root in self.checkpoint.roots {
            let new = |no: &SegmentNo| self.new_nodes.contains_key(no);
            keep.extend(reachable_within(root, &*self.nodes, &new)?);
        }
        let dead: Vec<SegmentNo> = self.new_nodes.keys().copied().filter(|no| !keep.contains(no)).collect();
        for no in dead {
            self.nodes.remove(no).map_err(CheckpointError::disk)?;
            self.new_nodes.remove(&no);
        }
        self.swept()
    }

    fn swept(&self) -> Result<(), CheckpointError> {
        self.figures.lock().unshipped_node_bytes = self.new_nodes.values().sum();
        files::sweep(&*self.media, &self.db.journal().manifest().current()).map_err(CheckpointError::disk)
    }
}
