//! Joins, damage, what is cached, and how many requests reading takes.

use super::*;
use crate::base::clock::SimClock;
use crate::cache::{Keeper, Limits, Progress};
use crate::format::chunk::ChunkHeader;
use crate::format::ids::SegmentKind;
use crate::format::ids::Uuid;
use crate::format::store_segment::SegmentBuilder;
use crate::media::sim::{CallLog, SimDisk};
use crate::store::Created;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Barrier;

const SEGMENT: SegmentNo = SegmentNo { epoch: 1, number: 7 };
const KIB: usize = 1024;

type Hook = Box<dyn FnMut(&Range<u64>, Bytes) -> Result<Bytes, StoreError> + Send>;

/// A store of one segment that notes what is asked for, and whose answers a test may change.
struct Odd {
    segment: Bytes,
    asked: Mutex<Vec<Range<u64>>>,
    hook: Mutex<Hook>,
}

impl Store for Odd {
    fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        self.get_some(name, 0..self.segment.len() as u64)
    }

    fn get_some(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        if name != names::segment(SEGMENT) {
            return Err(StoreError::NotFound { name: name.to_owned() });
        }
        self.asked.lock().push(range.clone());
        let at = |at: u64| (at as usize).min(self.segment.len());
        let bytes = self.segment.slice(at(range.start)..at(range.end));
        (self.hook.lock())(&range, bytes)
    }

    fn size(&self, _: &str) -> Result<u64, StoreError> {
        Ok(self.segment.len() as u64)
    }

    fn put(&self, name: &str, _: Bytes) -> Result<(), StoreError> {
        Err(away(name))
    }

    fn create(&self, name: &str, _: Bytes) -> Result<Created, StoreError> {
        Err(away(name))
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        Err(away(name))
    }

    fn walk(&self, _: &str, _: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(), StoreError> {
        Ok(())
    }

    fn publish_local(&self, _: &Path, _: &str) -> Result<bool, StoreError> {
        Ok(false)
    }
}

fn away(name: &str) -> StoreError {
    StoreError::Away { action: "get", name: name.to_owned(), reason: "an outage".to_owned() }
}

fn contents(n: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + n * 31 + i / 251) as u8).collect()
}

struct Fixture {
    store: Arc<Odd>,
    reader: Arc<SegmentReader>,
    keeper: Keeper,
    bodies: Vec<Body>,
    len: usize,
}

impl Fixture {
    fn new(count: usize, len: usize) -> Fixture {
        Fixture::with_cache(count, len, 64 << 20)
    }

    fn with_cache(count: usize, len: usize, bytes_max: u64) -> Fixture {
        let mut builder = SegmentBuilder::new(Uuid(1), SEGMENT, SegmentKind::Chunks);
        let push = |n| {
            let (bytes, header) = (contents(n, len), ChunkHeader::raw(&contents(n, len)));
            Body { offset: builder.push(header, &bytes), len: header.stored_len, crc: header.crc }
        };
        let bodies = (0..count).map(push).collect();
        let hook: Hook = Box::new(|_, bytes| Ok(bytes));
        let (asked, hook) = (Mutex::default(), Mutex::new(hook));
        let store = Arc::new(Odd { segment: builder.finish().into(), asked, hook });
        let limits = Limits { bytes_max, free_bytes_min: 0 };
        let media = Arc::new(SimDisk::new(&CallLog::new()));
        let opened = Cache::open(media, Arc::new(SimClock::default()), Uuid(1), limits);
        let (cache, keeper) = opened.expect("a cache is made");
        let reader = Arc::new(SegmentReader::new(store.clone(), cache));
        Fixture { store, reader, keeper, bodies, len }
    }

    fn hook(&self, hook: impl FnMut(&Range<u64>, Bytes) -> Result<Bytes, StoreError> + Send + 'static) {
        *self.store.hook.lock() = Box::new(hook);
    }

    /// Says how many have asked the store, or wait for one who has.
    fn came(&self) -> impl Fn() -> u64 + Send + 'static {
        let (reader, store) = (Arc::downgrade(&self.reader), Arc::downgrade(&self.store));
        move || {
            let waiting = reader.upgrade().map_or(u64::MAX / 2, |reader| reader.stats().joined);
            waiting + store.upgrade().map_or(0, |store| store.asked.lock().len() as u64)
        }
    }

    /// Reads body `n`, fetches ahead what that made worth it, and lets the cache write.
    fn read(&mut self, n: usize) -> Result<(), ReadError> {
        let found = self.reader.read(SEGMENT, Class::Data, &self.bodies[n..=n])?;
        assert!(found[0] == contents(n, self.len), "body {n}");
        while self.reader.fetch_ahead(Duration::ZERO) {}
        self.settle();
        Ok(())
    }

    fn settle(&mut self) {
        while self.keeper.step() == Progress::Worked {}
    }

    /// A reader without memory over the same cache.
    fn restart(&mut self) {
        self.settle();
        self.reader = Arc::new(SegmentReader::new(self.store.clone(), self.reader.cache().clone()));
        self.store.asked.lock().clear();
    }

    fn asked(&self) -> Vec<Range<u64>> {
        self.store.asked.lock().clone()
    }

    fn cached(&self, n: usize) -> bool {
        self.reader.cache().holds(CacheKey::Segment(SEGMENT), self.bodies[n].range())
    }
}

/// Damages what is asked for at `at`, so many times.
fn flip(at: u64, times: usize) -> impl FnMut(&Range<u64>, Bytes) -> Result<Bytes, StoreError> + Send {
    let mut left = times;
    move |range, bytes| {
        let mut bytes = bytes.to_vec();
        if left > 0 && range.contains(&at) {
            left -= 1;
            bytes[(at - range.start) as usize] ^= 1;
        }
        Ok(bytes.into())
    }
}

#[test]
fn promise_s7_fetches_of_the_same_join_and_all_who_wait_get_the_answer() {
    for fails in [false, true] {
        let fixture = Fixture::new(4, 10_000);
        let (reader, bodies) = (fixture.reader.clone(), fixture.bodies.clone());
        // Nobody is answered before all four have asked, or wait for one who has.
        let came = fixture.came();
        fixture.hook(move |_, bytes| {
            while came() < 4 {
                std::thread::yield_now();
            }
            if fails { Err(away("seg")) } else { Ok(bytes) }
        });
        let start = Barrier::new(4);
        let answers: Vec<_> = std::thread::scope(|scope| {
            let read = || {
                start.wait();
                reader.read(SEGMENT, Class::Data, &bodies[2..3]).map(|found| found[0] == contents(2, 10_000))
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(read)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(fixture.asked().len(), 1, "one request for all");
        match fails {
            false => assert!(answers.iter().all(|answer| matches!(answer, Ok(true))), "{answers:?}"),
            true => assert!(answers.iter().all(|answer| matches!(answer, Err(ReadError::Store(_)))), "{answers:?}"),
        }
        let again = fixture.reader.read(SEGMENT, Class::Data, &bodies[2..3]);
        assert_eq!((again.is_err(), fixture.asked().len()), (fails, 1 + usize::from(fails)), "an error is not kept");
    }
}

#[test]
fn promise_s7_a_fetch_that_panics_answers_those_who_wait() {
    let fixture = Fixture::new(1, 1000);
    let (reader, bodies) = (fixture.reader.clone(), fixture.bodies.clone());
    let came = fixture.came();
    fixture.hook(move |_, _| {
        while came() < 2 {
            std::thread::yield_now();
        }
        panic!("the store panics")
    });
    let ends: Vec<_> = std::thread::scope(|scope| {
        let read = || reader.read(SEGMENT, Class::Data, &bodies).is_err();
        let threads = [(); 2].map(|()| scope.spawn(read));
        threads.into_iter().map(|thread| thread.join().ok()).collect()
    });
    assert!(ends.contains(&None) && ends.contains(&Some(true)), "{ends:?}");
}

#[test]
fn promise_s12_what_fails_its_checksum_is_neither_used_nor_cached() {
    let mut fixture = Fixture::new(40, 60 * KIB);
    let bad = fixture.bodies[3];
    fixture.hook(flip(bad.offset + 5, usize::MAX));
    for n in [0, 1, 2] {
        fixture.read(n).expect("whole");
    }
    let failed = fixture.read(3);
    let place = names::segment(SEGMENT);
    assert!(
        matches!(&failed, Err(ReadError::Damaged { place: p, reason }) if *p == place
        && reason.contains(&bad.offset.to_string())),
        "{failed:?}"
    );
    assert!(!fixture.cached(3));
    for n in 4..40 {
        fixture.read(n).expect("the rest serves");
        assert!(fixture.cached(n));
    }
    let stats = fixture.reader.stats();
    assert!(stats.damaged >= 2 && stats.healed == 0, "{stats:?}");
    let tries = fixture.asked().iter().filter(|asked| asked.contains(&bad.offset)).count();
    assert!(tries <= 3, "no tight loop: {tries} requests");
}

#[test]
fn promise_s12_a_body_that_is_whole_and_not_the_one_meant_is_not_used() {
    let fixture = Fixture::new(3, 5000);
    let meant = Body { crc: fixture.bodies[1].crc ^ 1, ..fixture.bodies[1] };
    let found = fixture.reader.read(SEGMENT, Class::Data, &[fixture.bodies[0], meant]);
    assert!(matches!(found, Err(ReadError::Damaged { .. })), "{found:?}");
    assert_eq!(fixture.reader.resident(SEGMENT, Class::Data, &meant), None);
}

#[test]
fn what_was_damaged_on_its_way_is_fetched_once_more_alone() {
    for at in [0, 5] {
        let mut fixture = Fixture::new(3, 5000);
        let body = fixture.bodies[1];
        // The frame, or the body.
        let at = body.framed().start + at * 20;
        fixture.hook(flip(at, 1));
        fixture.read(1).expect("whole the second time");
        assert_eq!(fixture.asked(), [body.framed(), body.framed()]);
        assert_eq!(fixture.reader.stats().healed, 1);
        assert!(fixture.cached(1));
    }
}

#[test]
fn an_answer_cut_short_is_not_believed() {
    let mut fixture = Fixture::new(3, 5000);
    let mut cut = true;
    fixture
        .hook(move |_, bytes| Ok(bytes.slice(..if std::mem::take(&mut cut) { bytes.len() / 2 } else { bytes.len() })));
    fixture.read(1).expect("whole the second time");
    fixture.hook(|_, bytes| Ok(bytes.slice(..bytes.len() / 2)));
    let failed = fixture.read(2);
    assert!(matches!(&failed, Err(ReadError::Damaged { reason, .. }) if reason.contains("ends at")), "{failed:?}");
    fixture.hook(|_, bytes| Ok(bytes));
    fixture.read(2).expect("nothing of it was kept");
}

#[test]
fn a_copy_that_is_not_what_it_should_be_is_dropped_and_fetched_again() {
    let mut fixture = Fixture::new(3, 5000);
    let body = fixture.bodies[1];
    let key = CacheKey::Segment(SEGMENT);
    fixture.reader.cache().put(key, Class::Data, body.offset, vec![9; 5000].into());
    assert_eq!(fixture.reader.resident(SEGMENT, Class::Data, &body), None);
    fixture.read(1).expect("fetched again");
    fixture.restart();
    fixture.read(1).expect("from the cache");
    assert_eq!(fixture.asked(), []);
}

#[test]
fn reading_in_order_takes_few_requests_and_a_cache_without_room_none_more() {
    for bytes_max in [64 << 20, 0] {
        let mut fixture = Fixture::with_cache(250, 64 * KIB, bytes_max);
        (0..250).for_each(|n| fixture.read(n).expect("whole"));
        let asked = fixture.asked();
        assert!(asked.len() <= 8, "{} requests with a cache of {bytes_max} bytes: {asked:?}", asked.len());
        let ahead = fixture.reader.stats().ahead;
        assert!(ahead >= 3, "{ahead} of them ahead");
    }
}

#[test]
fn what_was_read_is_in_the_cache_for_the_next_mount() {
    let mut fixture = Fixture::new(100, 64 * KIB);
    (0..100).for_each(|n| fixture.read(n).expect("whole"));
    fixture.restart();
    (0..100).for_each(|n| fixture.read(n).expect("whole"));
    assert_eq!(fixture.asked(), []);
    let resident = fixture.reader.resident(SEGMENT, Class::Data, &fixture.bodies[50]);
    assert!(resident.is_none_or(|bytes| bytes == contents(50, 64 * KIB)));
}

#[test]
fn bodies_side_by_side_come_by_one_request() {
    let fixture = Fixture::new(100, 64 * KIB);
    let found = fixture.reader.read(SEGMENT, Class::Data, &fixture.bodies[10..26]).expect("whole");
    assert!(found.iter().enumerate().all(|(i, bytes)| *bytes == contents(10 + i, 64 * KIB)));
    let all = fixture.bodies[10].framed().start..fixture.bodies[25].range().end;
    assert_eq!(fixture.asked(), vec![all]);
}

#[test]
fn a_body_can_be_brought_and_dropped() {
    let mut fixture = Fixture::new(3, 5000);
    assert!(fixture.reader.warm(SEGMENT, Class::Data, &fixture.bodies[1]).expect("read"));
    assert!(fixture.cached(1));
    fixture.reader.evict(SEGMENT, &fixture.bodies[1].framed());
    assert!(!fixture.cached(1));
    assert!(fixture.reader.resident(SEGMENT, Class::Data, &fixture.bodies[1]).is_none());
    fixture.read(1).expect("fetched again");
    assert_eq!(fixture.asked().len(), 2);
    fixture.reader.forget(SEGMENT);
    assert!(!fixture.cached(1));
}

#[test]
fn what_is_under_way_ahead_is_bounded() {
    let fixture = Fixture::new(2, 1000);
    let mut state = fixture.reader.state.lock();
    let window = |n: u64| n * WINDOW_MAX..(n + 1) * WINDOW_MAX;
    for n in 0..AHEAD_BYTES_MAX / WINDOW_MAX {
        state.begin(SegmentNo { epoch: 2, number: n }, Class::Data, window(n), Vec::new());
    }
    drop(state);
    assert!(fixture.reader.begin_ahead(SEGMENT, Class::Data, window(0)).is_none(), "nothing more ahead");
    let found = fixture.reader.read(SEGMENT, Class::Data, &fixture.bodies);
    assert!(found.is_ok(), "what is waited for is fetched");
}
