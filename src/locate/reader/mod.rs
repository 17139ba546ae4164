//! Reading store segments that are far away: from the cache, else by as few requests as the way of reading allows.
//!
//! All that comes from the store is taken apart frame by frame, and only what is verified is used or put into the cache. What
//! fails is fetched once more, alone; failing again is damage, of that body only. Fetches join: who wants what is on its way
//! waits for that request and gets its answer, or its error. Nothing is retried here beyond that: an operation whose fetch
//! failed is parked, and tried again from there.
//!
//! Locks: the state is a leaf of the lock order; never held across a call to disk or store.

mod flight;
mod frames;
mod pattern;
mod recent;
mod wishes;

pub(super) use flight::Flights;
pub use frames::Body;

use crate::cache::{Cache, CacheKey, Class};
use crate::format::ids::SegmentNo;
use crate::format::names;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use flight::Flight;
use lru::LruCache;
use parking_lot::Mutex;
use pattern::{Pattern, WINDOW_MAX};
use recent::{Landed, Recent};
use serde::Serialize;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use wishes::{Wish, Wishes};

/// Bytes on their way for more than what somebody waits for: above that, only what is waited for is asked for.
const AHEAD_BYTES_MAX: u64 = 32 << 20;
/// Segments whose reading is remembered.
const PATTERNS_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// The least that is fetched of a node segment: what lies beside a node is wanted next.
const NODE_PIECE_BYTES: u64 = 64 << 10;

/// Why a body could not be read. Clonable, because one failed fetch answers everyone who waits for it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store has it and it is not what it should be, twice.
    #[error("{place}: {reason}")]
    Damaged {
        /// The store object.
        place: String,
        /// What is wrong.
        reason: String,
    },
}

/// What was read since the mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReaderStats {
    /// Requests for parts of segments,
    pub fetches: u64,
    /// those of them that nobody waited for when they were sent,
    pub ahead: u64,
    /// and bytes that came.
    pub fetched_bytes: u64,
    /// Reads that waited for a request of somebody else.
    pub joined: u64,
    /// Bodies that were not what they should be when they came, or when the cache gave them back.
    pub damaged: u64,
    /// Those of them that were whole when they were fetched again.
    pub healed: u64,
}

#[derive(Default)]
struct Counters {
    fetches: AtomicU64,
    ahead: AtomicU64,
    fetched_bytes: AtomicU64,
    joined: AtomicU64,
    damaged: AtomicU64,
    healed: AtomicU64,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

type Answer = Result<Arc<Landed>, ReadError>;

/// A request under way.
struct Fetch {
    segment: SegmentNo,
    class: Class,
    range: Range<u64>,
    /// Where frames are known to start in it.
    frames: Vec<u64>,
    flight: Flight<Answer>,
}

impl Fetch {
    fn covers(&self, segment: SegmentNo, range: &Range<u64>) -> bool {
        self.segment == segment && self.range.start <= range.start && range.end <= self.range.end
    }

    fn len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

struct State {
    under_way: Vec<Arc<Fetch>>,
    recent: Recent,
    patterns: LruCache<SegmentNo, Pattern>,
    /// Somebody read a segment of nodes, or of data, to its end: how far it had come.
    ended: [Option<usize>; 2],
}

/// What to do about a body that is not at hand.
enum Way {
    Wait(Arc<Fetch>),
    Fetch(Arc<Fetch>),
    Landed(Arc<Landed>),
}

/// The reader of segments of a store that is far away.
pub struct SegmentReader {
    store: Arc<dyn Store>,
    cache: Arc<Cache>,
    state: Mutex<State>,
    wishes: Wishes,
    counters: Counters,
}

impl SegmentReader {
    /// A reader over a store and its cache.
    pub fn new(store: Arc<dyn Store>, cache: Arc<Cache>) -> SegmentReader {
        let state = State {
            under_way: Vec::new(),
            recent: Recent::default(),
            patterns: LruCache::new(PATTERNS_MAX),
            ended: [None; 2],
        };
        let (wishes, counters) = Default::default();
        SegmentReader { store, cache, state: Mutex::new(state), wishes, counters }
    }

    /// The cache it reads through.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// What was read so far.
    pub fn stats(&self) -> ReaderStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { fetches, ahead, fetched_bytes, joined, damaged, healed } = &self.counters;
        ReaderStats {
            fetches: get(fetches),
            ahead: get(ahead),
            fetched_bytes: get(fetched_bytes),
            joined: get(joined),
            damaged: get(damaged),
            healed: get(healed),
        }
    }

    /// The bytes of bodies of one segment, in order and side by side, so that one request can bring them all. Blocks on disk
    /// and store.
    pub fn read(&self, segment: SegmentNo, class: Class, bodies: &[Body]) -> Result<Vec<Bytes>, ReadError> {
        let mut found: Vec<Option<Bytes>> = bodies.iter().map(|body| self.at_hand(segment, body)).collect();
        // The body that was not in what should have brought it.
        let mut failed = None;
        while let Some(first) = found.iter().position(Option::is_none) {
            let landed = match failed == Some(first) {
                false => self.fetch(segment, class, &bodies[first..], &found[first..])?,
                true => self.fetch_alone(segment, class, &bodies[first])?,
            };
            for (body, slot) in bodies.iter().zip(&mut found).filter(|(_, slot)| slot.is_none()) {
                *slot = landed.body(body).filter(|bytes| body.is(bytes)).map(|bytes| Bytes::copy_from_slice(&bytes));
            }
            match (found[first].is_some(), failed == Some(first)) {
                (true, false) => {}
                (true, true) => {
                    add(&self.counters.healed, 1);
                    log::warn!(
                        "{}: what lies at {} was damaged, and is whole now",
                        names::segment(segment),
                        bodies[first].offset
                    );
                }
                (false, false) => {
                    add(&self.counters.damaged, 1);
                    failed = Some(first);
                }
                (false, true) => return Err(damaged(segment, &bodies[first], &landed)),
            }
        }
        self.pass(segment, class, bodies);
        Ok(found.into_iter().flatten().collect())
    }

    /// A body that is in memory, ours or the system's. Never waits for disk or store.
    pub fn resident(&self, segment: SegmentNo, class: Class, body: &Body) -> Option<Bytes> {
        let bytes = self.recent(segment, body).or_else(|| {
            let read = self.cache.read_resident(CacheKey::Segment(segment), body.range())?;
            body.is_copy(&read).then_some(read)
        })?;
        self.pass(segment, class, std::slice::from_ref(body));
        Some(bytes)
    }

    /// A body that is in memory or in the cache. Waits for the local disk, and for nobody who waits for the store.
    pub fn near(&self, segment: SegmentNo, class: Class, body: &Body) -> Option<Bytes> {
        let there = self.state.lock().recent.holds(segment, &body.framed()).is_some() || self.holds(segment, body);
        let bytes = there.then(|| self.at_hand(segment, body)).flatten()?;
        self.pass(segment, class, std::slice::from_ref(body));
        Some(bytes)
    }

    /// Brings a body into the cache; says whether it is there now.
    pub fn warm(&self, segment: SegmentNo, class: Class, body: &Body) -> Result<bool, ReadError> {
        let key = CacheKey::Segment(segment);
        match self.cache.holds(key, body.range()) {
            true => self.pass(segment, class, std::slice::from_ref(body)),
            false => drop(self.read(segment, class, std::slice::from_ref(body))?),
        }
        // It may have come when the cache had no room for it.
        if !self.cache.holds(key, body.range()) {
            let framed = self.state.lock().recent.holds(segment, &body.framed()).and_then(|l| l.get(&body.framed()));
            if let Some(framed) = framed {
                self.cache.put(key, class, body.framed().start, framed);
            }
        }
        Ok(self.cache.holds(key, body.range()))
    }

    /// Whether a body is in the cache.
    pub fn holds(&self, segment: SegmentNo, body: &Body) -> bool {
        self.cache.holds(CacheKey::Segment(segment), body.range())
    }

    /// Drops what there is of a range of a segment here. Returns what that took of the cache, bytes.
    pub fn evict(&self, segment: SegmentNo, range: &Range<u64>) -> u64 {
        self.state.lock().recent.remove(segment, range);
        self.cache.remove(CacheKey::Segment(segment), range.clone())
    }

    /// The segment is in the store no more.
    pub fn forget(&self, segment: SegmentNo) {
        self.state.lock().patterns.pop(&segment);
        self.evict(segment, &(0..u64::MAX));
    }

    /// Fetches something ahead that somebody is going to read, if there is anything; waits for that at most `timeout`. Says
    /// whether there was.
    pub fn fetch_ahead(&self, timeout: Duration) -> bool {
        let Some(Wish { segment, class, range }) = self.wishes.next(timeout) else { return false };
        let mut at = range.start;
        while at < range.end {
            let window = at..range.end.min(at + WINDOW_MAX);
            let Some(fetch) = self.begin_ahead(segment, class, window) else { break };
            add(&self.counters.ahead, 1);
            // Who comes to read it tries again, and hears of it.
            let Ok(landed) = self.fly(&fetch) else { break };
            let end = landed.spans.last().map_or(at, |span| span.range().end);
            if end == at || landed.end.is_some() {
                break;
            }
            at = end;
        }
        true
    }

    /// Wakes who waits in [`SegmentReader::fetch_ahead`].
    pub fn wake(&self) {
        self.wishes.wake();
    }

    fn at_hand(&self, segment: SegmentNo, body: &Body) -> Option<Bytes> {
        self.recent(segment, body).or_else(|| {
            let key = CacheKey::Segment(segment);
            let read = self.cache.read(key, body.range())?;
            if body.is_copy(&read) {
                return Some(read);
            }
            add(&self.counters.damaged, 1);
            self.cache.remove_damaged(key, body.framed());
            None
        })
    }

    /// A copy, so that a small body does not keep all that came with it in memory.
    fn recent(&self, segment: SegmentNo, body: &Body) -> Option<Bytes> {
        let found = self.state.lock().recent.holds(segment, &body.framed())?.body(body)?;
        body.is(&found).then(|| Bytes::copy_from_slice(&found))
    }

    /// What brings the first of the bodies, and those after it that are missing too.
    fn fetch(&self, segment: SegmentNo, class: Class, bodies: &[Body], found: &[Option<Bytes>]) -> Answer {
        let missing = || bodies.iter().zip(found).filter(|(_, found)| found.is_none()).map(|(body, _)| body);
        let first = bodies[0].framed();
        let end = missing().last().map_or(first.end, |body| body.range().end);
        let frames = missing().map(|body| body.framed().start).collect();
        let way = self.state.lock().way(segment, class, &first, end, frames);
        let (way, rest) = way;
        rest.into_iter().for_each(|range| self.wishes.add(Wish { segment, class, range }));
        match way {
            Way::Landed(landed) => Ok(landed),
            Way::Wait(fetch) => self.wait(&fetch),
            Way::Fetch(fetch) => self.fly(&fetch),
        }
    }

    /// What brings one body and nothing else, by a request of its own, for those who met it damaged.
    fn fetch_alone(&self, segment: SegmentNo, class: Class, body: &Body) -> Answer {
        let range = body.framed();
        let (fetch, ours) = {
            let mut state = self.state.lock();
            let same = state.under_way.iter().find(|fetch| fetch.segment == segment && fetch.range == range);
            match same.cloned() {
                Some(fetch) => (fetch, false),
                None => (state.begin(segment, class, range.clone(), vec![range.start]), true),
            }
        };
        if ours { self.fly(&fetch) } else { self.wait(&fetch) }
    }

    fn begin_ahead(&self, segment: SegmentNo, class: Class, range: Range<u64>) -> Option<Arc<Fetch>> {
        let frame = range.start..range.start + 1;
        if self.cache.holds(CacheKey::Segment(segment), frame.clone()) {
            return None;
        }
        let mut state = self.state.lock();
        let there = state.recent.holds(segment, &frame).is_some();
        let on_its_way = state.under_way.iter().any(|fetch| fetch.covers(segment, &frame));
        let room = state.bytes_under_way() + (range.end - range.start) <= AHEAD_BYTES_MAX;
        (!there && !on_its_way && room).then(|| state.begin(segment, class, range.clone(), vec![range.start]))
    }

    fn wait(&self, fetch: &Fetch) -> Answer {
        add(&self.counters.joined, 1);
        fetch.flight.wait()
    }

    fn fly(&self, fetch: &Arc<Fetch>) -> Answer {
        let mut landing = Landing { reader: self, fetch, answer: None };
        add(&self.counters.fetches, 1);
        let name = names::segment(fetch.segment);
        let got = self.store.get_some(&name, fetch.range.clone());
        let answer = got.map(|bytes| self.take_in(fetch, &bytes)).map_err(ReadError::Store);
        landing.answer = Some(answer.clone());
        answer
    }

    /// Only what is verified goes on from here.
    fn take_in(&self, fetch: &Fetch, bytes: &Bytes) -> Arc<Landed> {
        add(&self.counters.fetched_bytes, bytes.len() as u64);
        let (segment, start) = (fetch.segment, fetch.range.start);
        let verified = frames::verify(segment, frames::kind_of(fetch.class), start, bytes, &fetch.frames);
        add(&self.counters.damaged, verified.damaged);
        for span in &verified.spans {
            self.cache.put(CacheKey::Segment(segment), fetch.class, span.start, span.bytes.clone());
        }
        let end = ((bytes.len() as u64) < fetch.len()).then_some(start + bytes.len() as u64);
        Arc::new(Landed { segment, spans: verified.spans, end })
    }

    /// These were read; what comes next may be worth fetching ahead.
    fn pass(&self, segment: SegmentNo, class: Class, bodies: &[Body]) {
        let (Some(first), Some(last)) = (bodies.first(), bodies.last()) else { return };
        let read = first.framed().start..last.range().end;
        let ahead = self.state.lock().patterns.get_mut(&segment).and_then(|pattern| pattern.pass(&read));
        if let Some(range) = ahead {
            self.wishes.add(Wish { segment, class, range });
        }
    }
}

impl State {
    fn bytes_under_way(&self) -> u64 {
        self.under_way.iter().map(|fetch| fetch.len()).sum()
    }

    /// How to come by the body at `first`, and those up to `want_end`; and what of the segment to fetch ahead.
    fn way(
        &mut self,
        segment: SegmentNo,
        class: Class,
        first: &Range<u64>,
        want_end: u64,
        frames: Vec<u64>,
    ) -> (Way, Vec<Range<u64>>) {
        // Looked for again: it may have landed since the caller looked.
        if let Some(landed) = self.recent.holds(segment, first) {
            return (Way::Landed(landed.clone()), Vec::new());
        }
        if let Some(fetch) = self.under_way.iter().find(|fetch| fetch.covers(segment, first)) {
            return (Way::Wait(fetch.clone()), Vec::new());
        }
        let want = first.start..want_end;
        let room = AHEAD_BYTES_MAX.saturating_sub(self.bytes_under_way());
        let pattern = self.pattern(segment, class);
        let piece = if class == Class::Nodes { NODE_PIECE_BYTES } else { 0 };
        let range = pattern.miss(&want, piece);
        let rest = pattern.rest();
        let range = if range.end - range.start <= room { range } else { want };
        (Way::Fetch(self.begin(segment, class, range, frames)), rest)
    }

    fn pattern(&mut self, segment: SegmentNo, class: Class) -> &mut Pattern {
        let ended = &mut self.ended[usize::from(class == Class::Nodes)];
        self.patterns.get_or_insert_mut(segment, || Pattern::new(ended.take()))
    }

    fn begin(&mut self, segment: SegmentNo, class: Class, range: Range<u64>, frames: Vec<u64>) -> Arc<Fetch> {
        let fetch = Arc::new(Fetch { segment, class, range, frames, flight: Flight::new() });
        self.under_way.push(fetch.clone());
        fetch
    }

    fn land(&mut self, fetch: &Arc<Fetch>, answer: &Answer) {
        self.under_way.retain(|other| !Arc::ptr_eq(other, fetch));
        let Ok(landed) = answer else { return };
        self.recent.add(landed.clone());
        let Some(pattern) = self.patterns.get_mut(&fetch.segment) else { return };
        pattern.landed(&fetch.range, &landed.spans, landed.end.is_some());
        if let Some(level) = pattern.ended(&fetch.range) {
            self.ended[usize::from(fetch.class == Class::Nodes)] = Some(level);
        }
    }
}

/// Ends a fetch even when the store panics: those who wait get an error, not an endless wait.
struct Landing<'a> {
    reader: &'a SegmentReader,
    fetch: &'a Arc<Fetch>,
    answer: Option<Answer>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let given_up = || {
            let (name, reason) = (names::segment(self.fetch.segment), "the fetch was given up".to_owned());
            Err(ReadError::Store(StoreError::Failed { action: "get", name, reason }))
        };
        let answer = self.answer.take().unwrap_or_else(given_up);
        self.reader.state.lock().land(self.fetch, &answer);
        self.fetch.flight.land(answer);
    }
}

fn damaged(segment: SegmentNo, body: &Body, landed: &Landed) -> ReadError {
    let what = match landed.end {
        Some(end) if end < body.range().end => format!("the segment ends at {end}"),
        _ => "twice not what it should be when it came from the store".to_owned(),
    };
    ReadError::Damaged {
        place: names::segment(segment),
        reason: format!("{} bytes at {}: {what}", body.len, body.offset),
    }
}

#[cfg(test)]
mod tests;
