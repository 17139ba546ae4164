//! The owner's side of shipping: which job comes next, and what a report means for the space tree and the journal.

use super::cost::{Chain, NewNodes};
use super::jobs::{BaseJob, DeleteJob, Deleted, Job, Report, Shipped, WindowJob, segments_for};
use super::nodes::node_file;
use super::space::Context;
use super::{CheckpointError, Checkpointer, DELETE_EVERY, DELETE_MAX, FailedJob, Held, Phase, Plan};
use crate::base::canary::{Canary, removed};
use crate::format::ids::{OBJECT_BYTES_MAX, SegmentNo, Uuid};
use crate::format::publication::{Base, Body, Increment, Position, Publication, WindowEntry};
use crate::format::space::Published;
use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

/// The pause before a job that failed is tried again,
const RETRY_MIN: Duration = Duration::from_millis(100);
/// which doubles up to this,
const RETRY_MAX: Duration = Duration::from_secs(30);
/// but only to this while somebody waits for a drain.
const RETRY_ASKED: Duration = Duration::from_secs(5);

/// What followers hold is asked for again after this.
const HELD_AGAIN: Duration = Duration::from_secs(10);

/// A pause between three and five quarters as long, so that many filesystems do not come back to one store at the same
/// moment; which part of that is decided by the filesystem and the number of the try.
pub fn spread(filesystem: Uuid, pause: Duration, tries: u32) -> Duration {
    let seed = filesystem.0 ^ u128::from(tries).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let of_1024 = crc32c::crc32c(&seed.to_le_bytes()) % 1024;
    pause * 3 / 4 + pause / 2 * of_1024 / 1024
}

impl Checkpointer {
    /// Gives the shipper its next job, one at a time.
    pub(super) fn give_job(&mut self) -> Result<bool, CheckpointError> {
        if self.running.is_some() {
            return Ok(false);
        }
        if !self.startup.is_done() {
            return Ok(self.give_resume());
        }
        if let Some((lsn, job)) = self.ready.take() {
            // Planned segments are in a durable batch before the first byte goes to the store.
            if self.db.journal().durable() < lsn && !removed(Canary::PlannedBeforeShipped) {
                self.ready = Some((lsn, job));
                return Ok(false);
            }
            self.hand_over(job);
            return Ok(true);
        }
        // While something is frozen its merge has the numbers that are durable, and it is near.
        if self.recorded.is_some() || matches!(self.phase, Phase::Frozen(..)) {
            return Ok(false);
        }
        let Some(job) = self.next_job()? else { return Ok(self.retry()) };
        let lsn = self.db.last();
        self.ask_durable(lsn);
        self.ready = Some((lsn, job));
        Ok(true)
    }

    pub(super) fn hand_over(&mut self, job: Job) {
        self.desk.put_job(job.clone());
        self.running = Some(job);
    }

    /// Has the shipper look whether this is still the writer, when something was gone. Without a checkpoint there may be nothing that it
    /// publishes, and so nothing by which it would find out.
    pub(super) fn look_at_fence(&mut self) -> bool {
        if !self.misses_stored || self.running.is_some() {
            return false;
        }
        self.misses_stored = false;
        self.hand_over(Job::Fence);
        true
    }

    /// What is dead goes first: it makes the room that a window may need.
    fn next_job(&mut self) -> Result<Option<Job>, CheckpointError> {
        if let Some(deletion) = self.deletion()? {
            return Ok(Some(deletion));
        }
        let Some(plan) = self.plans.front().cloned().filter(|_| self.failed.is_none()) else { return Ok(None) };
        // A job that could not be made, perhaps for a day, leaves no numbers that were planned for it again and again.
        self.context().drop_planned_of(&self.half_made, &self.half_made)?;
        self.half_made.clear();
        if self.base_is_blocked() {
            return Ok(None);
        }
        let job = if self.base_is_due() { self.base_job()? } else { Job::Increment(self.window_job(&plan)?) };
        self.half_made.clear();
        Ok(Some(job))
    }

    /// Gives a job that failed once more, after a pause that grows, or when somebody asks for it.
    pub(super) fn retry(&mut self) -> bool {
        let (now, at_once, asked) = (self.clock.elapsed(), self.wanted.take_retry(), self.wanted.is_set());
        let is_due = |failed: &FailedJob| at_once || now >= if asked { failed.retry_asked_at } else { failed.retry_at };
        let Some(failed) = self.failed.as_mut().filter(|failed| is_due(failed)) else { return false };
        // Until it succeeds; the next failure is after a longer pause.
        (failed.retry_at, failed.retry_asked_at) = (Duration::MAX, Duration::MAX);
        let job = failed.job.clone();
        self.hand_over(job);
        true
    }

    /// The shipper could not do its job: everything it puts is immutable and named ahead, so it is given the same job again.
    fn job_failed(&mut self) {
        let Some(job) = self.running.take().filter(|job| !matches!(job, Job::Delete(_) | Job::Fence)) else { return };
        let (pause, tries) = match self.failed.take() {
            Some(failed) => ((failed.pause * 2).min(RETRY_MAX), failed.tries.saturating_add(1)),
            None => (RETRY_MIN, 1),
        };
        let (now, spread) = (self.clock.elapsed(), spread(self.filesystem, pause, tries));
        self.figures.lock().ship_failures = tries;
        let (retry_at, retry_asked_at) = (now + spread, now + spread.min(RETRY_ASKED));
        self.failed = Some(FailedJob { job, retry_at, retry_asked_at, pause, tries });
    }

    /// A generation starts with a base; a long chain of increments is folded into a new one; and many windows that wait go
    /// as one when that is less work.
    fn base_is_due(&self) -> bool {
        if self.has_no_base() {
            return true;
        }
        if !self.base_has_tail() {
            return false;
        }
        let mut waiting = Chain::default();
        self.plans.iter().for_each(|plan| waiting += plan.chain);
        let mut chain = Chain { increments: self.published.number, ..self.chain };
        // Log increments have numbers too, and are read with them.
        chain.bytes += self.db.journal().tail().logged_bytes();
        chain += waiting;
        let nodes = NewNodes { segments: self.new_nodes.len() as u64, bytes: self.new_nodes.values().sum() };
        let now = self.clock.elapsed();
        let apart = self.based_at.is_none_or(|at| nodes.are_worth_it(now.saturating_sub(at)));
        (apart && self.policy.replay.is_long(&chain)) || nodes.are_cheaper_than(&waiting, self.policy.uploads)
    }

    /// Nobody reads an increment in a generation that has no base.
    fn has_no_base(&self) -> bool {
        self.closed || self.published.generation < u64::from(self.db.epoch())
    }

    /// A base carries what log increments carried behind it, which is at hand only if this mount published it. What an earlier
    /// one did is in the journal, and so in the next checkpoint.
    fn base_has_tail(&self) -> bool {
        self.db.journal().tail().reaches_back_to(self.checkpoint.lsn)
    }

    /// Nothing can be published before there is a newer checkpoint.
    pub(super) fn base_is_blocked(&self) -> bool {
        self.startup.is_done() && self.has_no_base() && !self.base_has_tail()
    }

    /// A base is the newest checkpoint, so every window that waits is shipped with it.
    fn base_job(&mut self) -> Result<Job, CheckpointError> {
        let roots = self.checkpoint.roots;
        let unrecorded = self.context().windows_not_in(roots)?;
        self.pinned = self.reached()?;
        let nodes = self.context().plan_nodes(&self.pinned)?;
        let plans: Vec<Plan> = self.plans.iter().cloned().collect();
        let windows = plans.iter().map(|plan| self.window_job(plan)).collect::<Result<_, _>>()?;
        let (checkpoint, recorded) = (self.checkpoint.number, self.published.generation);
        Ok(Job::Base(BaseJob { windows, checkpoint, unrecorded, nodes, recorded }))
    }

    /// After a mount: the node segments in the state directory that no published base has.
    pub(super) fn find_new_nodes(&mut self, reached: &BTreeSet<SegmentNo>) -> Result<(), CheckpointError> {
        for no in self.context().unpublished_nodes(reached)? {
            // What is not here is in the store, whatever is recorded.
            match self.media.open(&node_file(no)).and_then(|file| file.len()) {
                Ok(bytes) => {
                    self.new_nodes.insert(no, bytes);
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(CheckpointError::disk(e)),
            }
        }
        self.new_nodes_known = true;
        Ok(())
    }

    fn window_job(&mut self, plan: &Plan) -> Result<WindowJob, CheckpointError> {
        let births = super::files::read_plan(&*self.media, plan.number)?.births;
        let longest = if self.plans_most { OBJECT_BYTES_MAX } else { 0 };
        let count = segments_for(&births, self.policy.segment_bytes, longest);
        self.reserve_numbers(count as u64 + 1)?;
        let numbers: Vec<SegmentNo> = (0..count).map(|_| self.numbers.take()).collect();
        self.half_made.extend(&numbers);
        self.context().plan_segments(&numbers)?;
        let Plan { number: checkpoint, start, end, edits, .. } = *plan;
        Ok(WindowJob { checkpoint, start, end, edits, numbers })
    }

    /// A store object is deleted only after a published increment or base has listed it as pending deletion, and a grace
    /// time: until then someone may still reach it through what is published.
    pub(super) fn deletion(&mut self) -> Result<Option<Job>, CheckpointError> {
        let now = self.clock.elapsed();
        if now < self.delete_at {
            return Ok(None);
        }
        let grace = i64::try_from(self.policy.grace.as_nanos()).unwrap_or(i64::MAX);
        let (published, held) = (self.published.checkpoint, self.held.filter(|held| now < held.until));
        let allowed = held.map_or(published, |held| held.allowed.min(published));
        let found = self.context().deletable(allowed, grace, DELETE_MAX)?;
        // What no publication lists yet waits for one, which looks here again.
        let often = DELETE_EVERY.min(self.policy.grace);
        let next = match found.next {
            _ if !found.dead.is_empty() => now + often,
            Some(left) => now + left.max(often),
            None => Duration::MAX,
        };
        self.delete_at = held.map_or(next, |held| next.min(held.until));
        Ok((!found.dead.is_empty()).then_some(Job::Delete(DeleteJob { dead: found.dead, published })))
    }

    /// Forgets what is gone from the store. What followers hold is asked for again after a while; until then only what is
    /// allowed to go, so that it does not stand behind the rest.
    fn deleted(&mut self, deleted: &Deleted) -> Result<(), CheckpointError> {
        let Deleted { names, allowed, followers, refused } = deleted;
        self.context().deleted(names)?;
        self.away.set(self.away.get() && names.is_empty());
        let now = self.clock.elapsed();
        let asked = match &self.running {
            Some(Job::Delete(job)) => job.dead.as_slice(),
            _ => &[],
        };
        let held = asked.iter().filter(|dead| dead.checkpoint > *allowed).count();
        if held > 0 {
            self.held = Some(Held { allowed: *allowed, until: now + HELD_AGAIN });
        }
        self.delete_at =
            if asked.len() > names.len() + held || refused.is_some() { now + RETRY_MAX } else { Duration::ZERO };
        let mut figures = self.figures.lock();
        figures.objects_deleted += names.len() as u64;
        figures.followers.clone_from(followers);
        figures.deletion_refused.clone_from(refused);
        Ok(())
    }

    /// Takes the shipper's report, if there is one.
    pub(super) fn take_report(&mut self) -> Result<bool, CheckpointError> {
        let Some(report) = self.report.take().or_else(|| self.desk.take_report()) else { return Ok(false) };
        let done = self.record_report(&report);
        if done.is_err() {
            // What is in the store stays there: it is recorded before anything else is shipped.
            self.report = Some(report);
            return done.map(|()| true);
        }
        match self.running.take() {
            Some(Job::Delete(_) | Job::Fence) | None => {}
            Some(Job::Resume | Job::Increment(_) | Job::Base { .. }) => {
                self.failed = None;
                self.pinned.clear();
            }
        }
        Ok(true)
    }

    fn record_report(&mut self, report: &Report) -> Result<(), CheckpointError> {
        match report {
            Report::Resumed(found) => self.take_up_published(found),
            Report::Shipped(shipped) => self.shipped(shipped),
            Report::Adopted(publication) => {
                self.away.set(false);
                // The job is thought over: what it planned was not published.
                self.adopt(publication)?;
                self.drop_planned_of_job(&[])
            }
            Report::Failed { reason, away } => {
                self.away.set(*away);
                self.copies.may_go = false;
                self.figures.lock().ship_error = Some(reason.clone());
                self.job_failed();
                Ok(())
            }
            Report::TooFewNumbers => {
                // An object is packed whole, and may be longer than the extent under which it was born.
                self.plans_most = true;
                self.drop_planned_of_job(&[])
            }
            Report::Deleted(deleted) => self.deleted(deleted),
            Report::Ours => {
                self.away.set(false);
                Ok(())
            }
        }
    }

    fn shipped(&mut self, shipped: &Shipped) -> Result<(), CheckpointError> {
        self.away.set(false);
        self.plans_most = false;
        if shipped.base.is_some() {
            self.ended.clone_from(&shipped.ended);
        }
        self.record(&shipped.windows, shipped.base.as_deref(), shipped.checkpoint, shipped.at)?;
        self.drop_planned_of_job(&shipped.unused)?;
        self.context().settle_waiting(self.published.end)?;
        self.closed &= shipped.base.is_none();
        let mut figures = self.figures.lock();
        figures.windows_shipped += shipped.windows.len() as u64;
        figures.bytes_shipped += shipped.put_bytes;
        figures.bases += u64::from(shipped.base.is_some());
        figures.ship_error = None;
        figures.ship_failures = 0;
        drop(figures);
        self.extend_chain(shipped);
        self.note_shipped();
        self.copies.may_go = true;
        Ok(())
    }

    /// What is over the newest base now.
    fn extend_chain(&mut self, shipped: &Shipped) {
        if shipped.base.is_some() {
            self.chain = Chain::default();
            self.based_at = Some(self.clock.elapsed());
        } else if let Some(plan) = self.plans.iter().find(|plan| plan.number == shipped.checkpoint) {
            self.chain += plan.chain;
        }
    }

    /// Lists what was planned for the job that has ended and is in no recorded window for deletion, and forgets `unused`.
    fn drop_planned_of_job(&self, unused: &[SegmentNo]) -> Result<(), CheckpointError> {
        let numbers = self.running.as_ref().map(Job::numbers).unwrap_or_default();
        self.context().drop_planned_of(&numbers, unused)
    }

    /// Takes up a publication of an earlier life of this state directory that the space tree may not record yet.
    pub(super) fn adopt(&mut self, publication: &Publication) -> Result<(), CheckpointError> {
        let Publication { generation, number, checkpoint, .. } = *publication;
        let at = Position { generation, number };
        log::debug!("adopting number {} of generation {}", at.number, at.generation);
        match &publication.body {
            Body::Increment(Increment { windows, .. }) => self.record(windows, None, checkpoint, at)?,
            Body::Base(Base { windows, node_segments, .. }) => {
                self.record(windows, Some(node_segments), checkpoint, at)?;
                self.closed = false;
            }
            // Whatever was the reason for a new generation, it starts with a base: nobody reads an increment that has none.
            Body::Closing(_) => {
                self.closed = true;
                self.ended.push(at);
            }
            // The window that holds its batches is recorded when it is published itself.
            Body::Log(_) => {}
        }
        self.context().settle_waiting(self.published.end)?;
        self.note_shipped();
        Ok(())
    }

    /// Records a publication. The batch of its last window says that all of it is recorded; what comes before that may be
    /// done again after a crash.
    fn record(
        &mut self,
        windows: &[WindowEntry],
        node_segments: Option<&[(SegmentNo, u64)]>,
        checkpoint: u64,
        at: Position,
    ) -> Result<(), CheckpointError> {
        if let Some(node_segments) = node_segments {
            let listed: BTreeSet<SegmentNo> = node_segments.iter().map(|(no, _)| *no).collect();
            let reached = match self.reached() {
                // Not more than this: what was made before the base and is reached now, it reached. So checkpoints go on when
                // the store went away right now, and has nodes that are not here.
                Err(_) if self.new_nodes_known => listed.iter().chain(self.new_nodes.keys()).copied().collect(),
                reached => reached?,
            };
            self.context().record_base(node_segments, &reached)?;
            self.new_nodes.retain(|no, _| !listed.contains(no));
            if let Err(e) = self.sweep(&reached) {
                log::warn!("node segments that nothing reaches stay until the next base: {e}");
            }
            self.list_ended()?;
        }
        for (i, entry) in windows.iter().enumerate() {
            let last = i + 1 == windows.len();
            // Done before, by a try that the journal stopped: going on after it is how a long list ever comes to its end.
            if !last && entry.end <= self.published.end {
                continue;
            }
            let end = entry.end.max(self.published.end);
            let published = match last {
                true => Published { end, checkpoint, generation: at.generation, number: at.number },
                false => Published { end, ..self.published },
            };
            self.record_window(entry, &published)?;
        }
        Ok(())
    }

    /// What a new base has made history of, but for what outlives all others.
    fn list_ended(&mut self) -> Result<(), CheckpointError> {
        for closing in &self.ended {
            self.context().list_dead(&super::deletable(*closing))?;
        }
        self.ended.clear();
        Ok(())
    }

    /// Records one window, once. The journal goes only after the batch is durable.
    pub(super) fn record_window(&mut self, entry: &WindowEntry, published: &Published) -> Result<(), CheckpointError> {
        let known = entry.end <= self.published.end;
        let lsn = self.context().record_window((!known).then_some(entry), published)?;
        self.published = *published;
        self.delete_at = Duration::ZERO;
        if !known {
            self.recorded = Some((lsn, entry.end));
            self.ask_durable(lsn);
        }
        Ok(())
    }

    /// The journal is reclaimed only when the checkpoint covers it, its live data is shipped, and the batch that records
    /// the window is durable: after a crash that lost the batch, the data must still be found in the journal.
    pub(super) fn reclaim_when_recorded(&mut self) -> Result<bool, CheckpointError> {
        let Some((lsn, end)) = self.recorded.filter(|_| self.startup.is_done()) else { return Ok(false) };
        if self.db.journal().durable() < lsn {
            return Ok(false);
        }
        if self.plans.front().is_some_and(|plan| plan.end <= end) {
            self.db.journal().manifest().update(|m| m.plans.retain(|plan| plan.end > end))?;
            self.plans.retain(|plan| plan.end > end);
        }
        self.db.journal().reclaim(end.min(self.checkpoint.lsn));
        super::files::sweep(&*self.media, &self.db.journal().manifest().current()).map_err(CheckpointError::disk)?;
        self.recorded = None;
        self.note_shipped();
        Ok(true)
    }

    pub(super) fn note_shipped(&self) {
        let mut figures = self.figures.lock();
        figures.shipped = self.published.end;
        figures.windows_waiting = self.plans.len() as u64;
    }

    /// Since when something is not in the store.
    pub(super) fn note_oldest(&self) {
        let frozen = (!matches!(self.phase, Phase::Idle)).then_some(self.frozen_since);
        let oldest = self.plans.front().map(|plan| plan.since).or(frozen).or(self.changed_since);
        self.figures.lock().unshipped_since = oldest;
    }

    pub(super) fn context(&self) -> Context<'_> {
        // What is frozen already will not hold a batch of now.
        let frozen = u64::from(!matches!(self.phase, Phase::Idle));
        Context {
            db: &self.db,
            nodes: &*self.nodes,
            now: self.clock.now().as_nanos(),
            next_checkpoint: self.checkpoint.number + 1 + frozen,
            away: &self.away,
        }
    }
}
