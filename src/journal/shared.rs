//! The journal as the threads see it that queue batches, wait and read.
//!
//! One lock, held for moments, never across a disk call or a waiter. Waiters are called by the writer's steps, or at once
//! by the call that registers them.

use super::segment::Segment;
use super::state::{Due, Queued, State, WRITE_AFTER};
use super::{Config, Fill, ManifestStore, PendingBatch, Refusal, Room, Stats, SyncPolicy, Tail, Waiter, budget};
use crate::base::canary::{Canary, removed};
use crate::base::clock::Clock;
use crate::format::ids::{Lsn, ObjectId};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// The journal as all threads but the writer see it.
pub struct Journal {
    pub(super) config: Config,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) manifest: ManifestStore,
    pub(super) state: Mutex<State>,
    pub(super) work: Condvar,
    tail: Tail,
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
        let state = State::new(segments, spares, disk_full);
        let tail = Tail::new(state.submitted);
        Journal { config, clock, manifest, state: Mutex::new(state), work: Condvar::new(), tail }
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
        let now = self.clock.elapsed();
        let mut state = self.state.lock();
        match state.refusal(&self.config, cost, room, now) {
            None => {
                state.reserved += cost;
                let beyond = state.reserved > self.config.queue_bytes_max && state.is_stretched(now);
                let tell = beyond && state.slow.is_there(now);
                drop(state);
                if tell {
                    log::warn!(
                        "the journal's disk is slow: changes go on in memory, and are at risk until it has them"
                    );
                }
                Ok(())
            }
            Some(refusal) => {
                state.refused = true;
                self.signal(&mut state);
                Err(refusal)
            }
        }
    }

    /// Gives back room that was taken and is not needed.
    pub fn unreserve(&self, cost: u64) {
        let mut state = self.state.lock();
        debug_assert!(cost <= state.reserved, "more given back than taken");
        state.reserved = state.reserved.saturating_sub(cost);
    }

    /// Queues a batch for which room was taken: first in, first out. The caller holds the lock under which it gave the Lsn,
    /// so the order of calls is the order of Lsns. Uses up exactly the [`Journal::cost`] of the batch.
    pub fn submit(&self, batch: PendingBatch) {
        let since = self.clock.elapsed();
        let payload: usize = batch.objects.iter().map(|(_, bytes)| bytes.len()).sum();
        let cost = budget::cost_encoded(batch.head.len() + payload, batch.objects.len());
        self.tail.take(&batch);
        let mut state = self.state.lock();
        debug_assert_eq!(batch.lsn.pos, state.submitted.pos + 1, "batches come in the order of their Lsns");
        for (n, (_, bytes)) in (0..).zip(&batch.objects) {
            state.pending.insert(ObjectId { lsn: batch.lsn, n }, bytes.clone());
        }
        state.submitted = batch.lsn;
        state.queue_bytes += cost;
        state.queue.push_back(Queued { batch, cost, since });
        // The writer looks around by itself before one that nobody hurries must be written: see `wait_for_work`.
        if state.due(&self.config, since).write {
            self.signal(&mut state);
        }
    }

    /// The Lsn of the newest batch that was submitted.
    pub fn submitted(&self) -> Lsn {
        self.state.lock().submitted
    }

    /// The newest batches, for who publishes them whole.
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Why it takes no more changes, if it does not.
    pub fn latched(&self) -> Option<String> {
        self.state.lock().latched.clone()
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
        state.add_durable_waiter(lsn, waiter);
        self.signal(&mut state);
    }

    /// The same for those outside who trust in it: once all writing has ended there is no success any more, also for what is durable. Who
    /// asks cannot tell what of it this machine alone has; and after a takeover what others see is not this any more (promise X1).
    pub fn when_synced(&self, lsn: Lsn, waiter: Waiter) {
        let ended = self.state.lock().ended();
        match ended.filter(|_| !removed(Canary::NoSyncAfterLatch)) {
            Some(reason) => waiter(Err(reason)),
            None => self.when_durable(lsn, waiter),
        }
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

    /// Whether it can take no ordinary batch and cannot grow: only reclaiming gives room.
    pub fn is_full(&self) -> bool {
        let cost = self.batch_bytes_max();
        let state = self.state.lock();
        !state.may_grow(&self.config) && state.room() < cost + self.config.reserve()
    }

    /// How full it is.
    pub fn fill(&self) -> Fill {
        self.state.lock().fill(&self.config)
    }

    /// What the journal does and did.
    pub fn stats(&self) -> Stats {
        let state = self.state.lock();
        Stats {
            used_bytes: state.used_bytes(),
            capacity_bytes: self.config.capacity_bytes(),
            queue_bytes: state.reserved,
            busy_nanos: state.busy_since.map_or(0, |since| {
                u64::try_from(self.clock.elapsed().saturating_sub(since).as_nanos()).unwrap_or(u64::MAX)
            }),
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
        // A first batch does not wake it, so it never sleeps past the time at which one that comes right away is due.
        let until_due = state.next_due(now).unwrap_or(timeout).min(WRITE_AFTER / 2);
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
