//! The newest batches, kept in memory for who publishes them whole: see `ship/syncer.rs`.
//!
//! Two parts, one behind the other. What log increments have carried and no published window holds yet is *retained*: a new
//! generation starts with it. What none has carried *waits*, as long as the tail is open. Both are bounded. A waiting part
//! that grows too large is given up: its batches go into the store with their window. A retained part that is too large
//! keeps more from being published, so it never loses anything.
//!
//! **What is published is noted here before anybody else can publish**: under the hold of the publisher. A base carries what is noted.

use super::PendingBatch;
use crate::format::ids::Lsn;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;

/// Bytes that may wait.
const WAITING_BYTES_MAX: u64 = 8 << 20;
/// With so many retained nothing more is published before a window is.
const RETAINED_BYTES_MAX: u64 = 32 << 20;

/// See the module.
pub struct Tail {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: bool,
    /// The store was asked what earlier lives published.
    ready: bool,
    /// The batches behind this one, as far as a log carries them, are all in `batches`, or were published.
    whole_from: Lsn,
    /// Of those up to this one it is not known which an earlier mount published.
    known_from: Lsn,
    published: Published,
    /// Those up to this one may be on their way into the store, or there already.
    sent: Lsn,
    /// In the order of their Lsns; none that a published window holds.
    batches: VecDeque<TailBatch>,
    retained_bytes: u64,
    waiting_bytes: u64,
    logged_bytes: u64,
}

/// What of the log is in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Windows up to this one,
    pub window: Lsn,
    /// with this checkpoint,
    pub checkpoint: u64,
    /// and logs up to this one: the newest that was sent ends there, or behind it comes nothing that a log would carry.
    pub log: Lsn,
    /// The end of the newest log that was sent into the newest generation.
    pub sent: Lsn,
}

impl Published {
    /// Everything up to this one is in the store.
    pub fn end(&self) -> Lsn {
        self.window.max(self.log)
    }

    /// Where the next log starts: the ends of what was published leave no gap before it.
    pub fn said(&self) -> Lsn {
        self.window.max(self.sent)
    }
}

/// A batch with its objects.
#[derive(Clone, Debug)]
pub struct TailBatch {
    /// Its position.
    pub lsn: Lsn,
    head: Bytes,
    objects: Vec<Bytes>,
}

impl TailBatch {
    fn bytes(&self) -> u64 {
        (self.head.len() + self.objects.iter().map(Bytes::len).sum::<usize>()) as u64
    }

    /// Its bytes as in the journal.
    pub fn encoded(&self) -> Bytes {
        if self.objects.is_empty() {
            return self.head.clone();
        }
        let parts: Vec<&[u8]> = std::iter::once(&self.head).chain(&self.objects).map(|part| &part[..]).collect();
        parts.concat().into()
    }
}

/// What of the tail is to be published so that a batch is in the store.
#[derive(Debug)]
pub enum Due {
    /// Nothing: it is there.
    Nothing,
    /// These batches, which lie behind `published`.
    Batches {
        /// What is there.
        published: Published,
        /// Empty when a log carries nothing of what lies between.
        batches: Vec<TailBatch>,
    },
    /// Not all is here that would have to be. It goes with its window.
    Window,
}

impl Tail {
    /// An empty one that is closed, for a journal that ends at `last`: what of it an earlier mount published is not known.
    pub(super) fn new(last: Lsn) -> Tail {
        Tail { state: Mutex::new(State { whole_from: last, known_from: last, ..State::default() }) }
    }

    /// Said before the first batch of a mount: behind `lsn` nothing that concerns files was submitted. What of the batches up
    /// to there an earlier mount published is not known.
    pub fn begin(&self, lsn: Lsn) {
        let mut state = self.state.lock();
        (state.whole_from, state.known_from) = (lsn, lsn);
    }

    /// Opens or closes it.
    pub fn set_open(&self, open: bool) {
        let mut state = self.state.lock();
        state.open = open;
        if !open {
            state.give_up_waiting();
        }
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.state.lock().open
    }

    /// Takes a batch that is submitted; in the order of Lsns.
    pub(super) fn take(&self, batch: &PendingBatch) {
        if !batch.concerns_files {
            return;
        }
        let mut state = self.state.lock();
        if !state.open {
            state.whole_from = batch.lsn;
            return;
        }
        let objects = batch.objects.iter().map(|(_, bytes)| bytes.clone()).collect();
        let taken = TailBatch { lsn: batch.lsn, head: batch.head.clone(), objects };
        state.waiting_bytes += taken.bytes();
        state.batches.push_back(taken);
        if state.waiting_bytes > WAITING_BYTES_MAX {
            state.give_up_waiting();
        }
    }

    /// The store was asked what earlier lives published, and that was noted here. Nothing is due before.
    pub fn resumed(&self) {
        self.state.lock().ready = true;
    }

    /// A window up to `end` is in the store, published with this checkpoint.
    pub fn window_published(&self, end: Lsn, checkpoint: u64) {
        self.state.lock().window_published(end, checkpoint);
    }

    /// A base that ends there is. It carries the logs behind it, and none was sent into its generation yet.
    pub fn base_published(&self, end: Lsn, checkpoint: u64) {
        let mut state = self.state.lock();
        state.published.sent = Lsn::ZERO;
        state.logged_bytes = 0;
        state.window_published(end, checkpoint);
    }

    /// A log up to `end` went into the newest generation.
    pub fn log_sent(&self, end: Lsn) {
        self.state.lock().published.sent = end;
    }

    /// What a log would carry up to `end` is in the store.
    pub fn log_published(&self, end: Lsn) {
        let mut state = self.state.lock();
        let before = state.published.log;
        state.published.log = before.max(end);
        let bytes = state.between(before, end).iter().map(TailBatch::bytes).sum::<u64>();
        state.logged_bytes += bytes;
        state.sort();
    }

    /// Bytes of the logs over the newest base, as far as this mount published them.
    pub fn logged_bytes(&self) -> u64 {
        self.state.lock().logged_bytes
    }

    /// What is known to be in the store.
    pub fn published(&self) -> Published {
        self.state.lock().published
    }

    /// Whether so much is retained that a window should be published.
    pub fn is_long(&self) -> bool {
        self.state.lock().retained_bytes >= RETAINED_BYTES_MAX / 2
    }

    /// Whether all that lies between what is published and `to` is here, and may be published.
    pub fn is_at_hand(&self, to: Lsn) -> bool {
        self.state.lock().is_at_hand(to)
    }

    /// What is to be published so that everything up to `to` is in the store. From then on it is taken for something that
    /// may be there.
    pub fn send(&self, to: Lsn) -> Due {
        let mut state = self.state.lock();
        let published = state.published;
        if state.ready && to <= published.end() {
            return Due::Nothing;
        }
        if !state.is_at_hand(to) {
            return Due::Window;
        }
        state.sent = state.sent.max(to);
        state.sort();
        Due::Batches { published, batches: state.between(published.end(), to) }
    }

    /// Whether all is here that log increments carried behind `end`: only then may a base end there.
    pub fn reaches_back_to(&self, end: Lsn) -> bool {
        end >= self.state.lock().known_from
    }

    /// What log increments carried behind `end`.
    ///
    /// # Panics
    /// When not all of it is here: see [`Tail::reaches_back_to`].
    pub fn retained(&self, end: Lsn) -> Vec<TailBatch> {
        let state = self.state.lock();
        assert!(end >= state.known_from, "a base at {end}, where what was published behind it is not known");
        state.between(end, state.published.log)
    }
}

impl State {
    fn is_at_hand(&self, to: Lsn) -> bool {
        self.ready
            && (to <= self.published.end()
                || (self.published.end() >= self.whole_from && self.retained_bytes < RETAINED_BYTES_MAX))
    }

    fn window_published(&mut self, end: Lsn, checkpoint: u64) {
        self.published.window = self.published.window.max(end);
        self.published.checkpoint = self.published.checkpoint.max(checkpoint);
        self.sort();
    }

    /// The first batch behind `lsn`.
    fn behind(&self, lsn: Lsn) -> usize {
        self.batches.partition_point(|batch| batch.lsn <= lsn)
    }

    fn between(&self, after: Lsn, to: Lsn) -> Vec<TailBatch> {
        let from = self.behind(after);
        self.batches.range(from..self.behind(to).max(from)).cloned().collect()
    }

    /// What may be in the store stays: it is to be at hand when it turns out to be there.
    fn give_up_waiting(&mut self) {
        let kept = self.behind(self.published.log.max(self.sent));
        if let Some(last) = self.batches.range(kept..).next_back() {
            self.whole_from = last.lsn;
        }
        self.batches.truncate(kept);
        self.waiting_bytes = 0;
    }

    /// After something has moved.
    fn sort(&mut self) {
        self.batches.drain(..self.behind(self.published.window));
        let waiting = self.behind(self.published.log.max(self.sent));
        let bytes = |batches: std::collections::vec_deque::Iter<'_, TailBatch>| batches.map(TailBatch::bytes).sum();
        self.retained_bytes = bytes(self.batches.range(..waiting));
        self.waiting_bytes = bytes(self.batches.range(waiting..));
    }
}
