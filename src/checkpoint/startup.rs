//! Taking up what earlier lives of this state directory left: their publications and their planned segments. Each part
//! may be done again.
//!
//! What they published is known once the store was asked. A mount whose store is away goes on without: changes go into the
//! journal and into checkpoints, and the first job of the shipper is to ask. Until then nothing is shipped, deleted or
//! reclaimed: another writer may have taken over, and then this state directory must keep all it has and leave the
//! store alone.

use super::jobs::Job;
use super::{CheckpointError, Checkpointer, NUMBERS_STEP};
use crate::base::canary::{self, Canary};
use crate::format::publication::{Body, Publication};
use crate::format::space::{Mark, Published};

/// Ranges of numbers among which the nonce of a mount chooses where its own begin, less one. A name has room for the numbers of
/// two million mounts.
const APART_MAX: u64 = (1 << 16) - 1;

/// How far the taking up has come.
pub(super) enum Startup {
    /// Nothing is done yet. These publications were found at the mount; none is known if the store did not answer.
    Begin(Option<Vec<Publication>>),
    /// What is known here is taken up; the store is to be asked for the rest.
    Away,
    /// All is taken up.
    Done,
}

impl Startup {
    pub fn is_done(&self) -> bool {
        matches!(self, Startup::Done)
    }
}

impl Checkpointer {
    /// Takes up what is known; `false` when there is nothing to do, or nothing before the store has answered.
    pub(super) fn take_up(&mut self) -> Result<bool, CheckpointError> {
        if !matches!(self.startup, Startup::Begin(_)) {
            return Ok(false);
        }
        self.take_up_local()?;
        match std::mem::replace(&mut self.startup, Startup::Away) {
            Startup::Begin(Some(found)) => {
                if let Err(e) = self.take_up_published(&found) {
                    self.startup = Startup::Begin(Some(found));
                    return Err(e);
                }
            }
            _ if canary::removed(Canary::ResumeBeforeJobs) => self.startup = Startup::Done,
            _ => {}
        }
        Ok(true)
    }

    /// Deaths and checkpoints need this part.
    fn take_up_local(&mut self) -> Result<(), CheckpointError> {
        let first = self.context().mark(Mark::Segment)? + self.apart();
        self.numbers.next = first;
        self.numbers.mark = first;
        if let Some(published) = self.context().published()? {
            self.published = published;
        }
        for entry in self.checkpoint.windows.clone() {
            let published = Published { end: entry.end.max(self.published.end), ..self.published };
            self.record_window(&entry, &published)?;
        }
        self.note_shipped();
        Ok(())
    }

    /// How far behind the mark this mount's numbers begin, by its nonce. An earlier copy of this state directory has the same mark,
    /// and a segment that was sent from it may still be on its way when this one is used: with the same number it would come to
    /// lie over one of ours.
    fn apart(&self) -> u64 {
        let manifest = self.db.journal().manifest().current();
        let nonce = manifest.journal.last().map_or(0, |entry| entry.nonce.0);
        (nonce as u64 & APART_MAX) * NUMBERS_STEP
    }

    /// Takes up all that earlier lives published.
    pub(super) fn take_up_published(&mut self, found: &[Publication]) -> Result<(), CheckpointError> {
        let journal = self.db.journal().clone();
        for publication in found {
            self.adopt(publication)?;
            match publication.body {
                Body::Base(_) => journal.tail().base_published(publication.end, publication.checkpoint),
                Body::Log(_) => journal.tail().log_published(publication.end),
                Body::Increment(_) | Body::Closing(_) => {}
            }
        }
        self.context().drop_planned()?;
        self.drop_recorded_plans();
        self.note_shipped();
        self.note_published();
        self.startup = Startup::Done;
        self.away.set(false);
        let mut figures = self.figures.lock();
        (figures.offline, figures.ship_error, figures.ship_failures) = (false, None, 0);
        drop(figures);
        // What a crash left half made, or did not remove any more; the next checkpoint does the same.
        let swept = self.reached().and_then(|reached| {
            self.find_new_nodes(&reached)?;
            self.sweep(&reached)
        });
        self.copies.may_go = true;
        if let Err(e) = swept {
            log::warn!("what an earlier life left stays until the next checkpoint: {e}");
        }
        Ok(())
    }

    /// From here on the newest batches may be published by themselves.
    fn note_published(&self) {
        // When nothing waits, all up to the checkpoint is in the store, by whomever it was published.
        let end = if self.plans.is_empty() { self.checkpoint.lsn } else { self.published.end };
        let tail = self.db.journal().tail();
        tail.window_published(end, self.published.checkpoint);
        tail.resumed();
    }

    /// Has the shipper ask the store, as long as it takes.
    pub(super) fn give_resume(&mut self) -> bool {
        if self.failed.is_some() {
            return self.retry();
        }
        self.hand_over(Job::Resume);
        true
    }

    /// An earlier life may have died after it recorded a window and before it dropped the plan. Shipping that window once
    /// more would put a second index over the recorded one, and an increment out of order behind the newest.
    fn drop_recorded_plans(&mut self) {
        if self.plans.front().is_some_and(|plan| plan.end <= self.published.end) {
            let lsn = self.db.last();
            self.db.journal().when_durable(lsn, Box::new(|_| {}));
            self.recorded = Some((lsn, self.published.end));
        } else if self.recorded.is_none() {
            // All may have been dropped but the journal's segments.
            self.db.journal().reclaim(self.published.end.min(self.checkpoint.lsn));
        }
    }
}
