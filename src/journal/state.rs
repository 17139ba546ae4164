//! What the threads share, behind the one lock of [`super::Journal`]: pure bookkeeping, no disk, no waiting.

use super::segment::Segment;
use super::{Config, Fill, PendingBatch, Refusal, Room, Stats, SyncPolicy, Waiter, budget};
use crate::base::trouble::Trouble;
use crate::format::ids::{Lsn, ObjectId};
use crate::format::journal_directory::DirectoryEntry;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem;
use std::time::Duration;

/// Without a reason to hurry, this much is written at once,
const WRITE_BYTES: u64 = 1 << 20;
/// or what has waited this long.
pub(super) const WRITE_AFTER: Duration = Duration::from_millis(200);
/// What policy `everysec` leaves un-synced at most this long.
const SYNC_AFTER: Duration = Duration::from_secs(1);
/// The longest that one step of the writer makes others wait for room in the queue,
pub(super) const POSTPONED_MAX: Duration = Duration::from_secs(2);
/// and how many times as much the queue takes after that.
const STRETCH: u64 = 4;

/// At most this much is taken from the queue before there is a sync.
const TAKE_BYTES_MAX: u64 = 16 << 20;

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
    /// Someone was refused room, and nothing has changed since.
    pub refused: bool,
    /// What may be reclaimed.
    pub reclaim_upto: Lsn,
    /// Segments in the order of the log; the last one is being written.
    pub segments: VecDeque<Segment>,
    /// Segments that are named and empty.
    pub spares: u64,
    /// No other segment can be made for now.
    pub disk_full: bool,
    /// What an earlier writer left comes in: as many segments as that takes.
    pub importing: bool,
    /// Since when the writer is at work on the disk.
    pub busy_since: Option<Duration>,
    /// People were told that the writer has been away for long.
    pub slow: Trouble,
    pub latched: Option<String>,
    pub closed: bool,
    /// Something is due that was not when the writer last looked.
    pub signal: bool,
    pub stats: Stats,
    /// Bytes of segments that were given back.
    pub reclaimed_bytes: u64,
}

/// What the writer is to do with the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub write: bool,
    pub sync: bool,
}

impl State {
    pub fn new(segments: VecDeque<Segment>, spares: u64, disk_full: bool) -> State {
        let last = segments.back().expect("a journal has a segment to write to").last;
        State {
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
            refused: false,
            reclaim_upto: Lsn::ZERO,
            segments,
            spares,
            disk_full,
            importing: false,
            busy_since: None,
            slow: Trouble::default(),
            latched: None,
            closed: false,
            signal: false,
            stats: Stats::default(),
            reclaimed_bytes: 0,
        }
    }

    /// Why no more batches are taken.
    pub fn ended(&self) -> Option<String> {
        self.latched.clone().or_else(|| self.closed.then(|| "the journal is closed".to_string()))
    }

    /// Why a batch of this cost gets no room now; `None` if it does.
    pub fn refusal(&self, config: &Config, cost: u64, room: Room, now: Duration) -> Option<Refusal> {
        if let Some(reason) = self.ended() {
            return Some(Refusal::Latched(reason));
        }
        // Maintenance makes room for the others. Its batches are few and small, and the room in the segments bounds them.
        let most = config.queue_bytes_max.saturating_mul(if self.is_stretched(now) { STRETCH } else { 1 });
        if room != Room::Maintenance && self.reserved > 0 && self.reserved + cost > most {
            return Some(Refusal::QueueFull);
        }
        if self.room() >= cost + config.kept(room) {
            None
        } else if self.disk_full {
            Some(Refusal::DiskFull)
        } else if self.may_grow(config) {
            Some(Refusal::QueueFull)
        } else {
            Some(Refusal::JournalFull)
        }
    }

    /// Whether the writer has been at the disk for so long that the queue takes more than usual. Under `always` everyone
    /// waits for the disk anyway.
    pub fn is_stretched(&self, now: Duration) -> bool {
        let busy = self.busy_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        busy >= POSTPONED_MAX && self.policy != SyncPolicy::Always
    }

    /// Bytes of batches that surely find a place in the segments that are there.
    pub fn room(&self) -> u64 {
        let active = self.segments.back().map_or(0, Segment::guaranteed);
        let spare = self.segments.back().map_or(0, |active| budget::guaranteed(active.size, 0, 0));
        (active + self.spares * spare).saturating_sub(self.reserved)
    }

    /// The segment that an object is in if it is in any.
    pub fn holder_of(&self, id: &ObjectId) -> Option<&Segment> {
        let at = self.segments.partition_point(|segment| segment.last < id.lsn);
        self.segments.get(at).filter(|segment| segment.first.is_some_and(|first| first <= id.lsn))
    }

    /// Slot files that exist.
    pub fn slots(&self) -> u64 {
        self.segments.len() as u64 + self.spares
    }

    pub fn may_grow(&self, config: &Config) -> bool {
        self.importing || self.slots() < config.slots_max()
    }

    /// Whether another segment should be made ready: before an ordinary batch would have to wait for one, and well before
    /// the one being written is full.
    pub fn wants_slot(&self, config: &Config) -> bool {
        self.may_grow(config) && self.room() < config.reserve() + config.slot_room() / 2
    }

    /// Whether someone waits for room, or the next one soon would.
    pub fn is_short_of_room(&self, config: &Config) -> bool {
        self.refused || self.room() < config.reserve() + config.slot_room() / 8
    }

    pub fn used_bytes(&self) -> u64 {
        let sealed = self.segments.len().saturating_sub(1);
        let full: u64 = self.segments.iter().take(sealed).map(|segment| u64::from(segment.size)).sum();
        full + self.segments.back().map_or(0, |active| u64::from(active.end))
    }

    pub fn fill(&self, config: &Config) -> Fill {
        let more = if self.disk_full { 0 } else { config.slots_max().saturating_sub(self.slots()) };
        let free = (self.room() + more * config.slot_room()).saturating_sub(config.reserve());
        Fill {
            used_bytes: self.used_bytes(),
            capacity_bytes: config.capacity_bytes(),
            free_bytes: free,
            reclaimed_bytes: self.reclaimed_bytes,
            is_full: more == 0 && !self.disk_full && free < budget::batch_bytes_large(config.segment_bytes),
        }
    }

    /// Marks that whoever was refused may try again.
    pub fn room_came(&mut self) {
        self.refused = false;
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
    pub fn next_due(&self, now: Duration) -> Option<Duration> {
        // What is queued after a latch is never written.
        if self.latched.is_some() {
            return None;
        }
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
        mem::take(&mut self.durable_waiters).into_values().collect()
    }

    pub fn add_durable_waiter(&mut self, lsn: Lsn, waiter: Waiter) {
        self.waiters_made += 1;
        self.durable_waiters.insert((lsn, self.waiters_made), waiter);
    }

    pub fn take_queue(&mut self) -> VecDeque<Queued> {
        let mut taken = VecDeque::new();
        let mut bytes = 0;
        while bytes < TAKE_BYTES_MAX {
            let Some(queued) = self.queue.pop_front() else { break };
            bytes += queued.cost;
            taken.push_back(queued);
        }
        self.queue_bytes -= bytes;
        taken
    }

    /// A group is in the segment: readers find its objects there, and only then does the copy in memory go.
    pub fn group_written(&mut self, group: &[Queued], entries: Vec<DirectoryEntry>, len: u32, sequence: u64) {
        let (first, last) = (&group[0], &group[group.len() - 1]);
        let active = self.segments.back_mut().expect("a journal has a segment to write to");
        active.end += len;
        active.first.get_or_insert(first.batch.lsn);
        active.last = last.batch.lsn;
        active.sequence = sequence;
        for entry in &entries {
            self.pending.remove(&entry.object);
        }
        active.directory.extend(entries);
        self.written = last.batch.lsn;
        self.reserved = self.reserved.saturating_sub(group.iter().map(|queued| queued.cost).sum());
        self.unsynced_bytes += u64::from(len);
        self.unsynced_since.get_or_insert(first.since);
        self.room_came();
    }

    /// A sync has succeeded. Returns who waited for it.
    pub fn synced(&mut self, took: Duration) -> Vec<Waiter> {
        self.durable = self.written;
        self.unsynced_bytes = 0;
        self.unsynced_since = None;
        self.sync_wanted &= !self.queue.is_empty();
        self.stats.syncs += 1;
        self.stats.sync_latency.add(took);
        self.stats.slow_syncs += u64::from(took >= POSTPONED_MAX);
        self.stats.sync_max_nanos = self.stats.sync_max_nanos.max(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        self.take_durable_waiters()
    }
}

impl Config {
    /// Slot files that there may be. Fewer than four could not be emptied while they are written.
    pub(super) fn slots_max(&self) -> u64 {
        (self.journal_bytes / u64::from(self.segment_bytes)).max(4)
    }

    pub(super) fn capacity_bytes(&self) -> u64 {
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
