//! What the threads share: the queue, what is reserved, who waits, and where written objects are.
//!
//! One lock, held for moments, never across a disk call or a waiter. Waiters are called by the writer's steps, or at once
//! by the call that registers them.

use super::segment::Segment;
use super::{Config, ManifestStore, PendingBatch, Refusal, Room, Stats, SyncPolicy, Waiter, budget};
use crate::base::clock::Clock;
use crate::format::ids::{Lsn, ObjectId};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

/// Without a reason to hurry, this much is written at once,
const WRITE_BYTES: u64 = 1 << 20;
/// or what has waited this long.
const WRITE_AFTER: Duration = Duration::from_millis(200);
/// What policy `everysec` leaves un-synced at most this long.
const SYNC_AFTER: Duration = Duration::from_secs(1);

/// The journal as all threads but the writer see it.
pub struct Journal {
    pub(super) config: Config,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) manifest: ManifestStore,
    pub(super) state: Mutex<State>,
    pub(super) work: Condvar,
}

/// A batch in the queue.
pub(super) struct Queued {
    pub batch: PendingBatch,
    pub cost: u64,
    pub since: Duration,
}

pub(super) struct State {
    pub policy: SyncPolicy,
    pub queue: VecDeque<Queued>,
    pub queue_bytes: u64,
    /// Objects of batches whose bytes are not written yet: readers find them here, and nowhere else.
    pub pending: HashMap<ObjectId, Bytes>,
    /// Sum of the costs that were granted and are not written yet, queued or not.
    pub reserved: u64,
    pub submitted: Lsn,
    pub written: Lsn,
    pub durable: Lsn,
    /// Bytes written since the last sync, and when the oldest of them was submitted.
    pub unsynced_bytes: u64,
    pub unsynced_since: Option<Duration>,
    /// A switch of the policy wants what is pending synced.
    pub sync_wanted: bool,
    pub durable_waiters: BTreeMap<(Lsn, u64), Waiter>,
    waiters_made: u64,
    pub room_waiters: Vec<Waiter>,
    /// Someone was refused room, and nothing has changed since.
    pub refused: bool,
    /// Room may have come; the writer's next step calls the waiters.
    pub room_changed: bool,
    /// What may be reclaimed.
    pub reclaim_upto: Lsn,
    /// Segments in the order of the log; the last one is being written.
    pub segments: VecDeque<Segment>,
    /// Segments that are named and empty.
    pub spares: u64,
    pub disk_full: bool,
    pub latched: Option<String>,
    pub closed: bool,
    /// Something is due that was not when the writer last looked.
    pub signal: bool,
    pub stats: Stats,
}

/// What the writer is to do with the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub write: bool,
    pub sync: bool,
}

impl Journal {
    pub(super) fn new(
        config: Config,
        clock: Arc<dyn Clock>,
        manifest: ManifestStore,
        segments: VecDeque<Segment>,
        spares: u64,
        disk_full: bool,
    ) -> Journal {
        let last = segments.back().expect("a journal has a segment to write to").last;
        let state = State {
            policy: SyncPolicy::EverySecond,
            queue: VecDeque::new(),
            queue_bytes: 0,
            pending: HashMap::new(),
            reserved: 0,
            submitted: last,
            written: last,
            durable: last,
            unsynced_bytes: 0,
            unsynced_since: None,
            sync_wanted: false,
            durable_waiters: BTreeMap::new(),
            waiters_made: 0,
            room_waiters: Vec::new(),
            refused: false,
            room_changed: false,
            reclaim_upto: Lsn::ZERO,
            segments,
            spares,
            disk_full,
            latched: None,
            closed: false,
            signal: false,
            stats: Stats::default(),
        };
        Journal { config, clock, manifest, state: Mutex::new(state), work: Condvar::new() }
    }

    /// What a batch takes at worst: its own group header, padding and trailer, and its entries in the directory.
    pub fn cost(edits_len: usize, objects: &[usize]) -> u64 {
        budget::cost(edits_len, objects)
    }

    /// The most a batch may cost: a quarter of a segment, so that no batch or object spans segments.
    pub fn batch_bytes_max(&self) -> u64 {
        budget::batch_bytes_max(self.config.segment_bytes)
    }

    /// Takes room for a batch, before its Lsn is given.
    ///
    /// # Panics
    /// When the cost is above [`Journal::batch_bytes_max`]: such a batch must not be built.
    pub fn reserve(&self, cost: u64, room: Room) -> Result<(), Refusal> {
        assert!(
            cost <= self.batch_bytes_max(),
            "a batch of {cost} bytes, above the limit of {}",
            self.batch_bytes_max()
        );
        let mut state = self.state.lock();
        match state.refusal(&self.config, cost, room) {
            None => {
                state.reserved += cost;
                Ok(())
            }
            Some(refusal) => {
                state.refused = true;
                self.signal(&mut state);
                Err(refusal)
            }
        }
    }

    /// Gives back room that was taken and will not be used.
    pub fn unreserve(&self, cost: u64) {
        let mut state = self.state.lock();
        debug_assert!(cost <= state.reserved, "more given back than taken");
        state.reserved = state.reserved.saturating_sub(cost);
        state.room_came();
        self.signal(&mut state);
    }

    /// Queues a batch for which room was taken: first in, first out. The caller holds the lock under which it gave the Lsn,
    /// so the order of calls is the order of Lsns. Uses up exactly the [`Journal::cost`] of the batch.
    pub fn submit(&self, batch: PendingBatch) {
        let since = self.clock.elapsed();
        let payload: usize = batch.objects.iter().map(|(_, bytes)| bytes.len()).sum();
        let cost = budget::cost_encoded(batch.head.len() + payload, batch.objects.len());
        let mut state = self.state.lock();
        debug_assert_eq!(batch.lsn.pos, state.submitted.pos + 1, "batches come in the order of their Lsns");
        for (n, (_, bytes)) in (0..).zip(&batch.objects) {
            state.pending.insert(ObjectId { lsn: batch.lsn, n }, bytes.clone());
        }
        state.submitted = batch.lsn;
        state.queue_bytes += cost;
        state.queue.push_back(Queued { batch, cost, since });
        // The first one starts the clock after which it is written.
        if state.queue.len() == 1 || state.due(&self.config, since).write {
            self.signal(&mut state);
        }
    }

    /// The Lsn of the newest batch that was submitted.
    pub fn submitted(&self) -> Lsn {
        self.state.lock().submitted
    }

    /// All batches up to this one survive a crash.
    pub fn durable(&self) -> Lsn {
        self.state.lock().durable
    }

    /// Calls `waiter` once the batch is durable (at once if it is already), or with the reason why it never will be known
    /// to be. Asking makes the writer sync.
    pub fn when_durable(&self, lsn: Lsn, waiter: Waiter) {
        let mut state = self.state.lock();
        if lsn <= state.durable {
            drop(state);
            return waiter(Ok(()));
        }
        if let Some(reason) = state.ended() {
            drop(state);
            return waiter(Err(reason));
        }
        state.waiters_made += 1;
        let key = (lsn, state.waiters_made);
        state.durable_waiters.insert(key, waiter);
        self.signal(&mut state);
    }

    /// Calls `waiter` when room may have come since the last refusal, maybe at once. Try again then.
    pub fn when_room(&self, waiter: Waiter) {
        let mut state = self.state.lock();
        if let Some(reason) = state.ended() {
            drop(state);
            return waiter(Err(reason));
        }
        if !state.refused {
            drop(state);
            return waiter(Ok(()));
        }
        state.room_waiters.push(waiter);
    }

    /// The sync policy.
    pub fn policy(&self) -> SyncPolicy {
        self.state.lock().policy
    }

    /// Changes the sync policy. What is pending is synced by the writer's next step, whatever the new policy.
    pub fn set_policy(&self, policy: SyncPolicy) {
        let mut state = self.state.lock();
        if state.policy != policy {
            state.policy = policy;
            state.sync_wanted = state.durable != state.submitted;
            self.signal(&mut state);
        }
    }

    /// Segments whose batches all are at or before `upto` may be used again. The caller vouches that a durable checkpoint
    /// covers them, that their live data is shipped, and that the batch which says so is durable.
    pub fn reclaim(&self, upto: Lsn) {
        let mut state = self.state.lock();
        if upto > state.reclaim_upto {
            state.reclaim_upto = upto;
            self.signal(&mut state);
        }
    }

    /// Whether the journal is more than half full, or cannot grow: a checkpoint and reclaiming would give room.
    pub fn reclaim_wanted(&self) -> bool {
        let state = self.state.lock();
        state.used_bytes() > self.config.capacity_bytes() / 2 || (state.disk_full && state.segments.len() > 1)
    }

    /// What the journal does and did.
    pub fn stats(&self) -> Stats {
        let state = self.state.lock();
        Stats {
            used_bytes: state.used_bytes(),
            capacity_bytes: self.config.capacity_bytes(),
            queue_bytes: state.reserved,
            latched: state.latched.clone(),
            segments: state.slots(),
            ..state.stats.clone()
        }
    }

    /// The manifest, which the journal shares with the checkpointer.
    pub fn manifest(&self) -> &ManifestStore {
        &self.manifest
    }

    /// Waits until the writer has something to do, at most `timeout`. For the thread that steps the writer.
    pub fn wait_for_work(&self, timeout: Duration) {
        let mut state = self.state.lock();
        let now = self.clock.elapsed();
        if state.signal || state.due(&self.config, now) != Due::default() {
            return;
        }
        let until_due = state.next_due(now).unwrap_or(timeout);
        self.work.wait_for(&mut state, timeout.min(until_due));
    }

    /// Ends all writing: after the first failure behind placement, when what reached the disk is unknown and trying again
    /// could make a later success look like an earlier one; or when another writer has taken over. Reads go on.
    pub fn latch(&self, reason: String) {
        let (reason, waiters) = {
            let mut state = self.state.lock();
            // The first reason is the one that counts.
            let first = state.latched.get_or_insert(reason).clone();
            state.stats.last_error = Some(first.clone());
            (first, state.take_all_waiters())
        };
        log::error!("the journal takes no more changes: {reason}");
        super::writer::wake(waiters, &Err(reason));
    }

    pub(super) fn signal(&self, state: &mut State) {
        state.signal = true;
        self.work.notify_one();
    }
}

impl State {
    /// Why no more batches are taken.
    fn ended(&self) -> Option<String> {
        self.latched.clone().or_else(|| self.closed.then(|| "the journal is closed".to_string()))
    }

    fn refusal(&self, config: &Config, cost: u64, room: Room) -> Option<Refusal> {
        if let Some(reason) = self.ended() {
            return Some(Refusal::Latched(reason));
        }
        if self.reserved > 0 && self.reserved + cost > config.queue_bytes_max {
            return Some(Refusal::QueueFull);
        }
        if self.room() >= cost + config.kept(room) {
            return None;
        }
        Some(match () {
            () if self.disk_full => Refusal::DiskFull,
            () if self.may_grow(config) => Refusal::QueueFull,
            () => Refusal::JournalFull,
        })
    }

    /// Bytes of batches that surely find a place in the segments that are there.
    pub fn room(&self) -> u64 {
        let active = self.segments.back().map_or(0, Segment::guaranteed);
        let spare = self.segments.back().map_or(0, |active| budget::guaranteed(active.size, 0, 0));
        (active + self.spares * spare).saturating_sub(self.reserved)
    }

    /// Slot files that exist.
    pub fn slots(&self) -> u64 {
        self.segments.len() as u64 + self.spares
    }

    pub fn may_grow(&self, config: &Config) -> bool {
        self.slots() < config.slots_max()
    }

    /// Whether another segment should be made ready: before an ordinary batch would have to wait for one, and well before
    /// the one being written is full.
    pub fn wants_slot(&self, config: &Config) -> bool {
        self.may_grow(config) && self.room() < config.reserve() + config.slot_room() / 2
    }

    fn used_bytes(&self) -> u64 {
        let sealed = self.segments.len().saturating_sub(1);
        let full: u64 = self.segments.iter().take(sealed).map(|segment| u64::from(segment.size)).sum();
        full + self.segments.back().map_or(0, |active| u64::from(active.end))
    }

    /// Marks that whoever was refused may try again.
    pub fn room_came(&mut self) {
        self.refused = false;
        self.room_changed = !self.room_waiters.is_empty();
    }

    /// What the policy, and who waits, ask of the writer now.
    pub fn due(&self, config: &Config, now: Duration) -> Due {
        if self.durable == self.submitted || self.latched.is_some() {
            return Due::default();
        }
        let asked = self.durable_waiters.first_key_value().is_some_and(|((lsn, _), _)| *lsn <= self.submitted);
        let oldest = self.unsynced_since.or(self.queue.front().map(|queued| queued.since));
        let late = oldest.is_some_and(|since| now.saturating_sub(since) >= SYNC_AFTER);
        let sync = asked
            || self.sync_wanted
            || match self.policy {
                SyncPolicy::Always => true,
                SyncPolicy::EverySecond => late || self.unsynced_bytes >= config.queue_bytes_max,
                SyncPolicy::None => false,
            };
        let aged = self.queue.front().is_some_and(|queued| now.saturating_sub(queued.since) >= WRITE_AFTER);
        let starved = self.refused && !self.queue.is_empty();
        let write = !self.queue.is_empty() && (sync || aged || starved || self.queue_bytes >= WRITE_BYTES);
        Due { write, sync }
    }

    /// How long until something is due that is not yet.
    fn next_due(&self, now: Duration) -> Option<Duration> {
        let left = |since: Duration, after: Duration| (since + after).saturating_sub(now);
        let write = self.queue.front().map(|queued| left(queued.since, WRITE_AFTER));
        let sync = match self.policy {
            SyncPolicy::EverySecond => self.unsynced_since.map(|since| left(since, SYNC_AFTER)),
            SyncPolicy::Always | SyncPolicy::None => None,
        };
        [write, sync].into_iter().flatten().min()
    }

    /// Takes the waiters for durability that are to hear of success.
    pub fn take_durable_waiters(&mut self) -> Vec<Waiter> {
        let later = self.durable_waiters.split_off(&(self.durable, u64::MAX));
        let due: Vec<Waiter> = mem::replace(&mut self.durable_waiters, later).into_values().collect();
        self.stats.synced_waiters += due.len() as u64;
        due
    }

    /// Takes everyone who waits.
    pub fn take_all_waiters(&mut self) -> Vec<Waiter> {
        let durable = mem::take(&mut self.durable_waiters).into_values();
        durable.chain(mem::take(&mut self.room_waiters)).collect()
    }
}

impl Config {
    /// Slot files that there may be. Fewer than four could not be emptied while they are written.
    pub(super) fn slots_max(&self) -> u64 {
        (self.journal_bytes / u64::from(self.segment_bytes)).max(4)
    }

    fn capacity_bytes(&self) -> u64 {
        self.slots_max() * u64::from(self.segment_bytes)
    }

    /// Bytes of batches that an empty segment surely takes.
    pub(super) fn slot_room(&self) -> u64 {
        budget::guaranteed(self.segment_bytes, 0, 0)
    }

    /// The reserve, at most half of what all segments surely take.
    pub(super) fn reserve(&self) -> u64 {
        self.reserve_bytes.min(self.slots_max() * self.slot_room() / 2)
    }

    fn kept(&self, room: Room) -> u64 {
        match room {
            Room::Ordinary => self.reserve(),
            Room::Freeing => self.reserve() / 2,
            Room::Maintenance => 0,
        }
    }
}
