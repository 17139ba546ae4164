//! What the cache knows: runs by place and by last use, what is pending, what is being read, what must go. No I/O.

use super::open_files::{Closed, OpenFiles};
use super::{CacheKey, CacheStats, Class, PENDING_BYTES_MAX, RUN_BYTES_MEAN_MIN, RUNS_MAX};
use crate::media::File;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// What a disk gives to a file is a multiple of this.
const BLOCK_BYTES: u64 = 4096;
/// The folder takes room too, and grows with its names.
pub(super) const NAME_BYTES: u64 = 128;

/// A run: which object, and from which offset on. At most one run begins at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RunKey {
    pub key: CacheKey,
    pub start: u64,
}

/// Memory for each run is this and its key, twice the key with its place in the order of use: some 215 bytes.
struct Run {
    len: u64,
    last_use: u64,
    class: Class,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In memory only.
    Pending,
    /// In memory, and the keeper writes its file.
    Writing,
    /// In a file.
    Disk,
}

/// A file that no run has any more. It takes room until it is closed and removed.
pub(super) struct Doomed {
    pub run: RunKey,
    pub class: Class,
    pub weight: u64,
    pub open: Closed,
}

/// A part of a range that lies in one run.
pub(super) struct Piece {
    pub run: RunKey,
    pub class: Class,
    /// Where in the file.
    pub at: u64,
    pub len: usize,
    pub source: Source,
}

/// Where its bytes are to be had.
pub(super) enum Source {
    /// Here: just these bytes.
    Memory(Bytes),
    /// In an open file, which is pinned.
    Open(Arc<dyn File>),
    /// In a file that must be opened, and is pinned.
    Closed,
}

impl Piece {
    pub fn is_pinned(&self) -> bool {
        !matches!(self.source, Source::Memory(_))
    }
}

pub(super) struct State {
    bytes_max: u64,
    runs: BTreeMap<RunKey, Run>,
    /// Runs on disk by last use: data, and the others.
    orders: [BTreeMap<u64, RunKey>; 2],
    uses: u64,
    /// Files that are there, are being written, or are to be removed,
    files: u64,
    /// and what they take.
    used: u64,
    /// What of it the others than data take.
    used_others: u64,
    /// What node files take that others keep, as far as it counts,
    node_files: u64,
    /// and all of it.
    node_files_there: u64,
    /// What all of it might take when the disk was last looked at.
    whole: u64,
    pending: HashMap<RunKey, Bytes>,
    pending_bytes: u64,
    queue: VecDeque<RunKey>,
    /// How many read from a file.
    pins: HashMap<RunKey, u32>,
    doomed: VecDeque<Doomed>,
    open: OpenFiles,
    figures: CacheStats,
    /// Whether something happened since the keeper last looked.
    pub woken: bool,
}

/// What a file of so many bytes takes.
pub(super) fn weight(len: u64) -> u64 {
    len.next_multiple_of(BLOCK_BYTES)
}

fn order_of(class: Class) -> usize {
    usize::from(class != Class::Data)
}

impl State {
    pub fn new(bytes_max: u64) -> State {
        State {
            bytes_max,
            runs: BTreeMap::new(),
            orders: Default::default(),
            uses: 0,
            files: 0,
            used: 0,
            used_others: 0,
            node_files: 0,
            node_files_there: 0,
            whole: bytes_max,
            pending: HashMap::new(),
            pending_bytes: 0,
            queue: VecDeque::new(),
            pins: HashMap::new(),
            doomed: VecDeque::new(),
            open: OpenFiles::new(),
            figures: CacheStats { limit_bytes: bytes_max, ..CacheStats::default() },
            woken: false,
        }
    }

    /// Takes up a file that an earlier mount left; those used earlier were taken up before it.
    pub fn adopt(&mut self, run: RunKey, class: Class, len: u64) {
        self.files += 1;
        self.used += weight(len);
        if len == 0 || run.start.checked_add(len).is_none() || self.covering(&run, len).is_some() {
            self.doomed.push_back(Doomed { run, class, weight: weight(len), open: None });
            return;
        }
        self.take_covered(&run, len);
        self.uses += 1;
        self.add_others(class, weight(len));
        self.orders[order_of(class)].insert(self.uses, run);
        self.runs.insert(run, Run { len, last_use: self.uses, class, place: Place::Disk });
    }

    /// See [`super::Cache::put`].
    pub fn put(&mut self, run: RunKey, class: Class, bytes: Bytes) {
        let len = bytes.len() as u64;
        if let Some(covering) = self.covering(&run, len) {
            self.touch(&covering);
            return;
        }
        if len == 0 {
            return;
        }
        if self.pending_bytes + weight(len) > PENDING_BYTES_MAX || weight(len) > self.bytes_max {
            self.figures.dropped += 1;
            return;
        }
        self.take_covered(&run, len);
        self.uses += 1;
        self.runs.insert(run, Run { len, last_use: self.uses, class, place: Place::Pending });
        self.pending_bytes += weight(len);
        self.pending.insert(run, bytes);
        self.queue.push_back(run);
    }

    /// The last run of the object that starts at or before a place.
    fn before(&self, key: CacheKey, at: u64) -> Option<(&RunKey, &Run)> {
        let found = self.runs.range(RunKey { key, start: 0 }..=RunKey { key, start: at }).next_back();
        found.filter(|(run, found)| at - run.start < found.len)
    }

    /// The run that a new one would lie inside.
    fn covering(&self, run: &RunKey, len: u64) -> Option<RunKey> {
        let (found, Run { len: found_len, .. }) = self.before(run.key, run.start)?;
        (run.start + len <= found.start + found_len).then_some(*found)
    }

    /// Gives up the runs that lie inside a new one.
    fn take_covered(&mut self, run: &RunKey, len: u64) {
        let end = run.start + len;
        let inside = self.runs.range(*run..RunKey { key: run.key, start: end });
        let covered: Vec<RunKey> =
            inside.filter(|(found, Run { len, .. })| found.start + len <= end).map(|(run, _)| *run).collect();
        covered.iter().for_each(|run| self.doom(run));
    }

    /// See [`super::Cache::remove`]. Returns how many runs that were, and what they took, bytes in whole blocks.
    pub fn remove(&mut self, key: CacheKey, range: &Range<u64>) -> (u64, u64) {
        // Ends are in the order of starts, so those that reach into the range from before it are the last ones before it.
        let before = self.runs.range(RunKey { key, start: 0 }..RunKey { key, start: range.start }).rev();
        let reaching = before.take_while(|(run, found)| run.start + found.len > range.start);
        let inside = self.runs.range(RunKey { key, start: range.start }..RunKey { key, start: range.end });
        let overlapping: Vec<RunKey> = reaching.chain(inside).map(|(run, _)| *run).collect();
        let bytes = overlapping.iter().map(|run| weight(self.runs[run].len)).sum();
        overlapping.iter().for_each(|run| self.doom(run));
        (overlapping.len() as u64, bytes)
    }

    /// Forgets a run. Its file goes as soon as nobody reads it.
    fn doom(&mut self, run: &RunKey) {
        if let Some(doomed) = self.take(run) {
            self.doomed.push_back(doomed);
        }
    }

    /// Forgets a run; returns its file if it has one that is not the keeper's to remove.
    fn take(&mut self, run: &RunKey) -> Option<Doomed> {
        let Run { len, last_use, class, place } = self.runs.remove(run)?;
        match place {
            Place::Pending => {
                self.unqueue(run);
                self.drop_pending(run);
                None
            }
            // The keeper sees that it is gone when it has written it.
            Place::Writing => {
                self.drop_pending(run);
                None
            }
            Place::Disk => {
                self.orders[order_of(class)].remove(&last_use);
                self.sub_others(class, weight(len));
                Some(Doomed { run: *run, class, weight: weight(len), open: self.open.close(run) })
            }
        }
    }

    fn unqueue(&mut self, run: &RunKey) {
        let at = self.queue.iter().position(|queued| queued == run).expect("what is pending is queued");
        self.queue.remove(at);
    }

    fn drop_pending(&mut self, run: &RunKey) {
        let bytes = self.pending.remove(run).expect("a run that is not on disk has its bytes in memory");
        self.pending_bytes -= weight(bytes.len() as u64);
    }

    fn add_others(&mut self, class: Class, weight: u64) {
        self.used_others += if class == Class::Data { 0 } else { weight };
    }

    fn sub_others(&mut self, class: Class, weight: u64) {
        self.used_others -= if class == Class::Data { 0 } else { weight };
    }

    fn touch(&mut self, run: &RunKey) {
        let found = self.runs.get_mut(run).expect("it was found just now");
        self.uses += 1;
        let before = std::mem::replace(&mut found.last_use, self.uses);
        if found.place == Place::Disk {
            let order = &mut self.orders[order_of(found.class)];
            order.remove(&before);
            order.insert(self.uses, *run);
        }
    }

    /// The runs that make up a range, none if a part is missing.
    fn find(&self, key: CacheKey, range: &Range<u64>) -> Option<Vec<RunKey>> {
        let (mut at, mut found) = (range.start, Vec::new());
        while at < range.end {
            let (run, Run { len, .. }) = self.before(key, at)?;
            found.push(*run);
            at = run.start + len;
        }
        Some(found)
    }

    pub fn holds(&self, key: CacheKey, range: &Range<u64>) -> bool {
        self.find(key, range).is_some()
    }

    /// The pieces that make up a range; until [`State::unpin`] their files stay.
    pub fn pin(&mut self, key: CacheKey, range: &Range<u64>) -> Option<Vec<Piece>> {
        let runs = self.find(key, range)?;
        let mut from = range.start;
        let mut pieces = Vec::with_capacity(runs.len());
        for run in runs {
            self.touch(&run);
            let Run { len, class, place, .. } = self.runs[&run];
            let end = range.end.min(run.start + len);
            let within = from - run.start..end - run.start;
            let index = |at: u64| usize::try_from(at).expect("a run was in memory");
            let source = match place {
                Place::Pending | Place::Writing => {
                    Source::Memory(self.pending[&run].slice(index(within.start)..index(within.end)))
                }
                Place::Disk => {
                    *self.pins.entry(run).or_default() += 1;
                    self.open.get(&run).map_or(Source::Closed, Source::Open)
                }
            };
            pieces.push(Piece { run, class, at: within.start, len: index(end - from), source });
            from = end;
        }
        Some(pieces)
    }

    /// Returns whether a file can be removed now.
    pub fn unpin(&mut self, runs: &[RunKey]) -> bool {
        for run in runs {
            let pins = self.pins.get_mut(run).expect("it was pinned");
            *pins -= 1;
            if *pins == 0 {
                self.pins.remove(run);
            }
        }
        !self.doomed.is_empty()
    }

    /// A pinned run's file was opened; returns a file to close.
    pub fn opened(&mut self, run: RunKey, file: Arc<dyn File>) -> Closed {
        // It may have been removed meanwhile, and even put again; it is not written again while it is pinned.
        match self.runs.get(&run) {
            Some(Run { place: Place::Disk, .. }) => self.open.put(run, file),
            _ => None,
        }
    }

    pub fn count(&mut self, hit: bool) {
        *if hit { &mut self.figures.hits } else { &mut self.figures.misses } += 1;
    }

    pub fn damaged(&mut self, runs: u64) {
        self.figures.damaged += runs;
    }

    pub fn error(&mut self, error: String) {
        self.figures.last_error = Some(error);
    }

    pub fn stats(&self) -> CacheStats {
        let runs = self.runs.len() as u64;
        let (used_bytes, node_file_bytes) = (self.taken() + self.node_files, self.node_files);
        CacheStats { used_bytes, node_file_bytes, runs, pending_bytes: self.pending_bytes, ..self.figures.clone() }
    }

    /// What cache files take, with their names.
    fn taken(&self) -> u64 {
        self.used + self.files * NAME_BYTES
    }

    /// See [`super::Cache::set_node_files`]. Returns whether the keeper must make room.
    pub fn set_node_files(&mut self, bytes: u64) -> bool {
        self.node_files_there = bytes;
        self.node_files = self.node_files.min(bytes);
        self.node_files < bytes
    }

    /// See [`super::Cache::node_files_max`].
    pub fn node_files_max(&self) -> u64 {
        self.whole / 2
    }
}

/// For the keeper.
impl State {
    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// What cache files may take of the limit,
    pub fn share(&self) -> u64 {
        self.bytes_max.saturating_sub(self.node_files)
    }

    /// and what they may take now, as the disk is.
    pub fn set_allowed(&mut self, allowed: u64) {
        self.whole = allowed + self.node_files;
    }

    /// If there are node files that do not count yet: what the cache files may take, without their names, when these do.
    pub fn room_beside_node_files(&self) -> Option<u64> {
        let room = self.bytes_max.saturating_sub(self.node_files_there + self.files * NAME_BYTES);
        (self.node_files < self.node_files_there).then_some(room)
    }

    /// Counts them, as far as there is room.
    pub fn count_node_files(&mut self) {
        let room = self.bytes_max.saturating_sub(self.taken());
        self.node_files = self.node_files_there.min(room).max(self.node_files);
    }

    /// Whether another file of so many bytes (none: just those there are) is within the limits, and all take no more than
    /// is `allowed` now.
    pub fn fits(&self, bytes: u64, allowed: u64) -> bool {
        let (files, used) = (self.files + u64::from(bytes > 0), self.used + bytes);
        let files_max = RUNS_MAX.max(self.bytes_max / RUN_BYTES_MEAN_MIN);
        files <= files_max && used + files * NAME_BYTES + self.node_files <= self.bytes_max && used <= allowed
    }

    /// A file that can be removed now. It counts until [`State::removed`].
    pub fn next_doomed(&mut self) -> Option<Doomed> {
        let at = self.doomed.iter().position(|doomed| !self.pins.contains_key(&doomed.run))?;
        self.doomed.remove(at)
    }

    /// A file could not be removed: to be tried again.
    pub fn not_removed(&mut self, doomed: Doomed) {
        self.doomed.push_back(doomed);
    }

    /// A file is gone.
    pub fn removed(&mut self, weight: u64) {
        self.files -= 1;
        self.used -= weight;
    }

    /// Forgets the run that should go first when `class` wants so many bytes of those allowed; its file is to be removed.
    pub fn evict(&mut self, class: Class, bytes: u64, allowed: u64) -> Option<Doomed> {
        let others = self.used_others + self.node_files + if class == Class::Data { 0 } else { bytes };
        let first = order_of(if others > (allowed + self.node_files) / 2 { Class::Nodes } else { Class::Data });
        let oldest = |order: usize| self.orders[order].values().find(|run| !self.pins.contains_key(run)).copied();
        let victim = oldest(first).or_else(|| oldest(1 - first))?;
        self.figures.evicted += 1;
        self.take(&victim)
    }

    /// The run that has waited longest and can be written: not one whose name an older file still has.
    pub fn next_pending(&self) -> Option<(RunKey, Class, u64)> {
        let free = |run: &&RunKey| !self.doomed.iter().any(|doomed| doomed.run == **run);
        let run = self.queue.iter().find(free)?;
        let Run { class, len, .. } = self.runs[run];
        Some((*run, class, len))
    }

    /// Begins to write a pending run: from now on its file counts. `None` when it was removed meanwhile.
    pub fn begin(&mut self, run: &RunKey) -> Option<Bytes> {
        let found = self.runs.get_mut(run).filter(|found| found.place == Place::Pending)?;
        found.place = Place::Writing;
        let (class, weight) = (found.class, weight(found.len));
        debug_assert!(self.fits(weight, u64::MAX), "room is made before a byte is written");
        self.files += 1;
        self.used += weight;
        self.add_others(class, weight);
        self.unqueue(run);
        Some(self.pending[run].clone())
    }

    /// A run is written. Returns its file when it was removed meanwhile, and what is to be closed.
    pub fn written(&mut self, run: RunKey, class: Class, len: u64, file: Arc<dyn File>) -> (Option<Doomed>, Closed) {
        if let Some(found) = self.runs.get_mut(&run).filter(|found| found.place == Place::Writing) {
            found.place = Place::Disk;
            self.orders[order_of(class)].insert(found.last_use, run);
            self.drop_pending(&run);
            self.figures.last_error = None;
            return (None, self.open.put(run, file));
        }
        self.sub_others(class, weight(len));
        (Some(Doomed { run, class, weight: weight(len), open: Some(file) }), None)
    }

    /// A run could not be written. Its file is to be removed.
    pub fn failed(&mut self, run: RunKey, class: Class, len: u64) -> Doomed {
        if self.runs.get(&run).is_some_and(|found| found.place == Place::Writing) {
            self.runs.remove(&run);
            self.drop_pending(&run);
        }
        self.figures.dropped += 1;
        self.sub_others(class, weight(len));
        Doomed { run, class, weight: weight(len), open: None }
    }

    /// Drops a run for which there is no room.
    pub fn drop_run(&mut self, run: &RunKey) {
        if self.runs.get(run).is_some_and(|found| found.place == Place::Pending) {
            self.take(run);
            self.figures.dropped += 1;
        }
    }
}

/// For tests.
#[cfg(test)]
impl State {
    pub fn is_closed(&mut self, run: &RunKey) -> bool {
        self.open.get(run).is_none()
    }

    /// Whether all its parts agree.
    pub fn check(&self) {
        let mut last: Option<(&RunKey, u64)> = None;
        for (run, found) in &self.runs {
            let end = run.start + found.len;
            if let Some((before, before_end)) = last.filter(|(before, _)| before.key == run.key) {
                assert!(before.start < run.start && before_end < end, "{run:?} lies inside {before:?}");
            }
            last = Some((run, end));
            let in_order = self.orders[order_of(found.class)].get(&found.last_use) == Some(run);
            assert_eq!(in_order, found.place == Place::Disk, "{run:?}");
            assert_eq!(self.pending.contains_key(run), found.place != Place::Disk, "{run:?}");
            assert_eq!(self.queue.contains(run), found.place == Place::Pending, "{run:?}");
        }
        let on_disk = |found: &&Run| found.place != Place::Pending;
        let runs: u64 = self.runs.values().filter(on_disk).map(|found| weight(found.len)).sum();
        let doomed: u64 = self.doomed.iter().map(|doomed| doomed.weight).sum();
        assert_eq!(self.used, runs + doomed);
        assert_eq!(self.files, (self.runs.values().filter(on_disk).count() + self.doomed.len()) as u64);
        let others = self.runs.values().filter(on_disk).filter(|found| found.class != Class::Data);
        assert_eq!(self.used_others, others.map(|found| weight(found.len)).sum::<u64>());
        assert_eq!(self.pending_bytes, self.pending.values().map(|bytes| weight(bytes.len() as u64)).sum::<u64>());
        assert_eq!(self.orders.iter().map(BTreeMap::len).sum::<usize>() + self.pending.len(), self.runs.len());
        assert!(self.pins.is_empty());
    }
}
