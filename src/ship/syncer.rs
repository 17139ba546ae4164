//! `--durability store`: an fsync is answered when the store has what it covers.
//!
//! The [`Syncer`] is a step function. It publishes the newest batches whole, as log increments, one in flight at a time: all
//! that wait meanwhile go with the next. So one fsync takes one request, and sixty-four at a time take little more. The rules it
//! keeps:
//!
//! 1. **What a log increment carries is durable in the journal before it is sent** ([`Syncer::end`]). Else a crash would leave a
//!    journal that ends before what the store has, and the next mount would give the same Lsns to other batches.
//! 2. An fsync is answered with success only when everything up to its Lsn is in the store: by a log increment, or by the
//!    window that holds it, whichever comes first ([`Published::end`]).
//! 3. Nothing is published before it is known what earlier lives published, nor into a generation without a base
//!    (`ship/publish.rs`).
//! 4. What is too large to go twice, or is not at hand, goes with its window: a checkpoint is asked for, and the fsync waits for
//!    that ([`Syncer::ask_for_window`]).

use super::ShipError;
use super::publish::{Actor, Draft, Outcome, Publisher};
use crate::base::canary::{self, Canary};
use crate::base::clock::Clock;
use crate::checkpoint::{Asking, spread};
use crate::format::ids::{Lsn, Uuid};
use crate::format::publication::{Body, Log};
use crate::journal::{Due, Journal, Published, Tail, TailBatch, Waiter};
use parking_lot::{Condvar, Mutex};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// The pause before a log increment that failed is tried again,
const RETRY_MIN: Duration = Duration::from_millis(100);
/// which doubles up to this,
const RETRY_MAX: Duration = Duration::from_secs(30);
/// and to one part in so many of what those who wait are given: nobody is failed without tries of their own.
const PATIENCE_SHARE: u32 = 4;
/// Those that were just answered are waited for one part in so many of a round trip,
const GATHER_SHARE: u32 = 8;
/// and no longer than this.
const GATHER_MAX: Duration = Duration::from_millis(20);
/// A checkpoint that was asked for and did not come is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// When an fsync returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When the disk of this machine has it.
    #[default]
    Local,
    /// When the store has it too.
    Store,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durability::Local => "local",
            Durability::Store => "store",
        })
    }
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(s: &str) -> Result<Durability, String> {
        match s {
            "local" => Ok(Durability::Local),
            "store" => Ok(Durability::Store),
            other => Err(format!("unknown durability {other:?}; known are local, store")),
        }
    }
}

/// Who waits for the store, between those that wait and those that publish.
pub struct Stored {
    journal: Arc<Journal>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<Waiting>,
    /// The syncer is woken when so many wait.
    wake_at: Option<usize>,
    woken: bool,
    retry: bool,
    /// The newest try failed.
    failing: bool,
    /// How long a store that gives trouble is waited for, once that is known.
    patience: Option<Duration>,
    ended: Option<String>,
    figures: SyncFigures,
}

struct Waiting {
    lsn: Lsn,
    /// Since when it has been waiting for a store that gives trouble.
    trouble_since: Option<Duration>,
    done: Waiter,
}

/// Numbers for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncFigures {
    /// Those that wait.
    pub waiting: usize,
    /// Log increments published in this mount,
    pub increments: u64,
    /// their bytes,
    pub bytes: u64,
    /// and how long the newest was on its way.
    pub round_trip: Duration,
    /// Answered with success,
    pub answered: u64,
    /// and with an error, because the store did not answer in time.
    pub timed_out: u64,
}

impl Stored {
    /// Nobody waits yet.
    pub fn new(journal: Arc<Journal>) -> Stored {
        Stored { journal, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Calls `done` once everything up to `lsn` is in the store (at once if it is already), or with the reason why that will
    /// not be known in time.
    pub fn when_stored(&self, lsn: Lsn, done: Waiter) {
        let mut state = self.state.lock();
        if let Some(reason) = state.ended.clone().or_else(|| self.journal.latched()) {
            drop(state);
            return done(Err(reason));
        }
        if lsn <= self.published().end() {
            state.figures.answered += 1;
            drop(state);
            return done(Ok(()));
        }
        state.waiting.push(Waiting { lsn, trouble_since: None, done });
        if state.waiting.len() == 1 || state.wake_at.is_some_and(|count| state.waiting.len() >= count) {
            state.woken = true;
            self.changed.notify_one();
        }
    }

    /// More is published, as the tail was told: who waited for that is answered, and what is left may go now.
    pub fn came(&self) {
        self.answer();
        self.wake();
    }

    /// Gives up those that have waited for a store that gives trouble for as long as `timeout`, by `now`.
    pub fn look(&self, trouble: bool, now: Duration, timeout: Duration) {
        let mut state = self.state.lock();
        state.patience = Some(timeout);
        if !trouble && !state.failing {
            state.waiting.iter_mut().for_each(|waiting| waiting.trouble_since = None);
            return;
        }
        for waiting in &mut state.waiting {
            waiting.trouble_since.get_or_insert(now);
        }
        let over = state.take_if(|waiting| waiting.trouble_since.is_some_and(|since| now >= since + timeout));
        state.figures.timed_out += over.len() as u64;
        drop(state);
        give(over, &Err("the store did not take it in time".to_owned()));
    }

    /// Everyone who waits, or comes, is told this reason from now on.
    pub fn end(&self, reason: &str) {
        let mut state = self.state.lock();
        let reason = state.ended.get_or_insert_with(|| reason.to_owned()).clone();
        let all = std::mem::take(&mut state.waiting);
        drop(state);
        give(all, &Err(reason));
    }

    /// Has what failed tried now, without the rest of its pause.
    pub fn retry(&self) {
        self.state.lock().retry = true;
        self.wake();
    }

    /// Waits until there may be something to do, at most `timeout`. For the thread that steps the syncer.
    pub fn wait(&self, timeout: Duration) {
        let mut state = self.state.lock();
        if !state.woken {
            self.changed.wait_for(&mut state, timeout);
        }
        state.woken = false;
    }

    /// Wakes it.
    pub fn wake(&self) {
        self.state.lock().woken = true;
        self.changed.notify_one();
    }

    /// Numbers for people.
    pub fn figures(&self) -> SyncFigures {
        let state = self.state.lock();
        SyncFigures { waiting: state.waiting.len(), ..state.figures }
    }

    /// What is in the store.
    pub fn published(&self) -> Published {
        self.journal.tail().published()
    }

    pub(super) fn tail(&self) -> &Tail {
        self.journal.tail()
    }

    fn log_published(&self, end: Lsn) -> usize {
        self.journal.tail().log_published(end);
        self.answer()
    }

    /// Answers whom what is published covers; how many.
    fn answer(&self) -> usize {
        let mut state = self.state.lock();
        let end = self.published().end();
        let done = state.take_if(|waiting| waiting.lsn <= end);
        state.figures.answered += done.len() as u64;
        drop(state);
        let count = done.len();
        give(done, &Ok(()));
        count
    }

    /// The longest pause after a try that failed.
    fn retry_max(&self) -> Duration {
        let patience = self.state.lock().patience.unwrap_or(RETRY_MAX);
        (patience / PATIENCE_SHARE).clamp(RETRY_MIN, RETRY_MAX)
    }

    /// How many wait, and for what.
    fn group(&self) -> Option<(usize, Lsn)> {
        let state = self.state.lock();
        state.waiting.iter().map(|waiting| waiting.lsn).max().map(|lsn| (state.waiting.len(), lsn))
    }
}

impl State {
    fn take_if(&mut self, which: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let (taken, left) = std::mem::take(&mut self.waiting).into_iter().partition(which);
        self.waiting = left;
        taken
    }
}

fn give(waiting: Vec<Waiting>, result: &Result<(), String>) {
    for waiting in waiting {
        (waiting.done)(result.clone());
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something; there may be more.
    Worked,
    /// Nothing was due.
    Idle,
    /// Something will be due after this.
    Later(Duration),
}

/// What a [`Syncer`] works with.
pub struct Parts {
    /// The filesystem.
    pub filesystem: Uuid,
    /// The log.
    pub journal: Arc<Journal>,
    /// Shared with the shipper.
    pub publisher: Arc<Publisher>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where to ask for a window.
    pub asking: Asking,
}

/// Publishes what fsyncs wait for.
pub struct Syncer {
    parts: Parts,
    stored: Arc<Stored>,
    gather: Gather,
    /// Tries that failed in a row, and when the next is due.
    failures: u32,
    retry_at: Duration,
    /// When a checkpoint was asked for, and the newest window's end then.
    asked: Option<(Duration, Lsn)>,
}

impl Syncer {
    /// A syncer for whom nobody waits.
    pub fn new(parts: Parts) -> Syncer {
        let stored = Arc::new(Stored::new(parts.journal.clone()));
        Syncer { parts, stored, gather: Gather::default(), failures: 0, retry_at: Duration::ZERO, asked: None }
    }

    /// One that looks at another clock.
    #[cfg(test)]
    pub(crate) fn set_clock(&mut self, clock: Arc<dyn Clock>) {
        self.parts.clock = clock;
    }

    /// Where to wait.
    pub fn stored(&self) -> Arc<Stored> {
        self.stored.clone()
    }

    /// One step. After an error that does not end all writing the next try is made after a pause that grows.
    pub fn step(&mut self) -> Result<Step, ShipError> {
        if let Some(reason) = self.parts.journal.latched() {
            self.stored.end(&reason);
            return Ok(Step::Idle);
        }
        let Some((count, lsn)) = self.stored.group() else {
            self.gather.until = None;
            self.stored.state.lock().failing = false;
            return Ok(Step::Idle);
        };
        let now = self.parts.clock.elapsed();
        if !self.parts.journal.tail().is_at_hand(self.end(lsn)) {
            self.ask_for_window(now);
            return Ok(Step::Idle);
        }
        let at_once = std::mem::take(&mut self.stored.state.lock().retry);
        let pause = if at_once { None } else { self.retry_at.checked_sub(now).filter(|pause| !pause.is_zero()) };
        if let Some(pause) = pause.or_else(|| self.gather.pause(count, now)) {
            self.stored.state.lock().wake_at = Some(self.gather.expected);
            return Ok(Step::Later(pause));
        }
        self.gather.until = None;
        self.stored.state.lock().wake_at = None;
        let published = self.publish();
        match &published {
            Ok(_) => self.failures = 0,
            Err(_) => {
                let most = self.stored.retry_max();
                let pause = RETRY_MIN.saturating_mul(1 << self.failures.min(16)).min(most);
                self.failures += 1;
                self.retry_at = self.parts.clock.elapsed() + spread(self.parts.filesystem, pause, self.failures);
            }
        }
        self.stored.state.lock().failing = published.is_err();
        published
    }

    /// Up to where the next log increment goes: what is waited for, as far as it is durable here.
    fn end(&self, wanted: Lsn) -> Lsn {
        if canary::removed(Canary::LogAfterDurable) {
            return self.parts.journal.submitted();
        }
        wanted.min(self.parts.journal.durable())
    }

    fn publish(&mut self) -> Result<Step, ShipError> {
        let Parts { journal, publisher, clock, .. } = &self.parts;
        let mut held = publisher.hold(Actor::Syncer);
        // Who came while somebody else published goes along.
        let Some((_, wanted)) = self.stored.group() else { return Ok(Step::Idle) };
        let end = self.end(wanted);
        let (published, log) = match journal.tail().send(end) {
            Due::Window => return Ok(Step::Worked),
            Due::Nothing => {
                self.stored.answer();
                return Ok(Step::Idle);
            }
            Due::Batches { published, batches } => (published, log_of(&batches)?),
        };
        if log.batches.is_empty() {
            self.stored.log_published(end);
            return Ok(Step::Worked);
        }
        let (begin, bytes) = (clock.elapsed(), log.batches.len() as u64);
        let Published { checkpoint, .. } = published;
        if canary::removed(Canary::AnswerAfterStore) {
            journal.tail().log_published(end);
            self.stored.answer();
        }
        let draft = Draft { wall: clock.now(), checkpoint, start: published.said(), end };
        let outcome = held.publish(draft, Body::Log(log))?;
        // Before anybody else publishes: a base carries what is noted as published, and nothing else brings it into its generation.
        match &outcome {
            Outcome::Published(_) => {
                journal.tail().log_sent(end);
                journal.tail().log_published(end);
            }
            Outcome::Adopted(found) => journal.tail().log_published(found.end),
            Outcome::NoBase => {}
        }
        drop(held);
        match outcome {
            Outcome::Published(_) => {
                let round_trip = clock.elapsed().saturating_sub(begin);
                let mut state = self.stored.state.lock();
                state.figures.increments += 1;
                state.figures.bytes += bytes;
                state.figures.round_trip = round_trip;
                drop(state);
                let answered = self.stored.answer();
                let expected = answered + self.stored.figures().waiting;
                self.gather = Gather { expected, round_trip, until: None };
            }
            Outcome::Adopted(_) => {
                self.stored.answer();
            }
            Outcome::NoBase => {
                self.ask_for_window(self.parts.clock.elapsed());
                return Ok(Step::Idle);
            }
        }
        if self.parts.journal.tail().is_long() {
            self.ask_for_window(self.parts.clock.elapsed());
        }
        Ok(Step::Worked)
    }

    /// Asks for a checkpoint, whose window or base will be published: once for each that was.
    fn ask_for_window(&mut self, now: Duration) {
        let end = self.stored.published().window;
        let asked = self.asked.is_some_and(|(at, before)| before == end && now < at + ASK_AGAIN);
        if !asked && self.parts.asking.checkpoint() {
            self.asked = Some((now, end));
        }
    }
}

/// Lets those that were just answered come again before the next goes, if they come soon: else they would all wait for the one
/// after it. Nobody is waited for who was alone.
#[derive(Default)]
struct Gather {
    /// Those that were just answered, and those that waited already.
    expected: usize,
    round_trip: Duration,
    /// Until when they are waited for, from the first that is there.
    until: Option<Duration>,
}

impl Gather {
    /// How long to wait on, when so many are there.
    fn pause(&mut self, count: usize, now: Duration) -> Option<Duration> {
        if self.expected < 2 || count >= self.expected {
            return None;
        }
        let most = (self.round_trip / GATHER_SHARE).min(GATHER_MAX);
        let until = *self.until.get_or_insert(now + most);
        until.checked_sub(now).filter(|left| !left.is_zero())
    }
}

/// What a log carries of batches.
pub(super) fn log_of(batches: &[TailBatch]) -> Result<Log, ShipError> {
    let mut bytes = Vec::new();
    for batch in batches {
        let part = Log::part_of(&batch.encoded());
        let damaged =
            |e| ShipError::Damaged { place: format!("batch {} in memory", batch.lsn), reason: format!("{e}") };
        part.map_err(damaged)?.iter().for_each(|part| bytes.extend_from_slice(part));
    }
    Ok(Log { batches: bytes.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn after(expected: usize, round_trip: Duration) -> Gather {
        Gather { expected, round_trip, until: None }
    }

    #[test]
    fn those_that_were_just_answered_are_waited_for_a_short_time() {
        let mut gather = after(64, 48 * MS);
        assert_eq!(gather.pause(1, 100 * MS), Some(6 * MS));
        assert_eq!(gather.pause(40, 104 * MS), Some(2 * MS));
        assert_eq!(gather.pause(63, 106 * MS), None, "an eighth of a round trip is over");
        assert_eq!(after(64, 48 * MS).pause(64, 100 * MS), None, "all are there");
        assert_eq!(after(64, 2000 * MS).pause(1, MS), Some(20 * MS));
    }

    #[test]
    fn nobody_is_waited_for_who_was_alone() {
        assert_eq!(after(0, 48 * MS).pause(1, MS), None);
        assert_eq!(after(1, 48 * MS).pause(1, MS), None);
        assert_eq!(after(2, 48 * MS).pause(1, MS), Some(6 * MS));
        assert_eq!(after(2, Duration::ZERO).pause(1, MS), None);
    }

    #[test]
    fn durability_is_a_word() {
        for durability in [Durability::Local, Durability::Store] {
            assert_eq!(durability.to_string().parse(), Ok(durability));
        }
        assert!("cloud".parse::<Durability>().unwrap_err().contains("store"));
    }
}
