//! What waits for a store that does not answer, for how long, and what goes on meanwhile.

use super::life::{LONG, Life, SHORT};
use bytes::Bytes;
use skylog::format::ids::InodeNo;
use skylog::fs::Error;
use skylog::store::sim::SimStore;
use skylog::store::{Created, Store, StoreError};
use skylog::volume::{Patience, WhenFull};
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// A store that counts how often objects are read.
#[derive(Clone)]
struct Counting {
    store: SimStore,
    reads: Arc<AtomicU64>,
}

impl Store for Counting {
    fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.store.get(name)
    }
    fn get_some(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.store.get_some(name, range)
    }
    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.store.size(name)
    }
    fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.store.put(name, bytes)
    }
    fn create(&self, name: &str, bytes: Bytes) -> Result<Created, StoreError> {
        self.store.create(name, bytes)
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.store.delete(name)
    }
    fn walk(&self, prefix: &str, each: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.store.walk(prefix, each)
    }
    fn publish_local(&self, file: &Path, name: &str) -> Result<bool, StoreError> {
        self.store.publish_local(file, name)
    }
}

/// Bytes of a file whose beginning is in the store alone once it is shipped.
const SHIPPED_BYTES: u64 = 300_000;

/// A volume with a shipped file, and how often its store was asked.
fn with_a_shipped_file() -> (Life, InodeNo, Arc<AtomicU64>) {
    let reads = Arc::new(AtomicU64::new(0));
    let counter = reads.clone();
    let life = Life::before(|store| Arc::new(Counting { store, reads: counter }));
    let file = life.create("shipped").expect("created");
    for offset in (0..SHIPPED_BYTES).step_by(8000) {
        life.write(file, offset, 8000).recv_timeout(LONG).expect("answered").expect("written");
    }
    life.volume.drain(&mut |_, _| Ok(())).expect("drained");
    (life, file, reads)
}

fn read(life: &Life, file: InodeNo, offset: u64) -> Receiver<Result<Vec<u8>, Error>> {
    life.read(move |fs, cx| fs.read(cx, file, offset, 4000))
}

/// Goes on with the clock until that has an answer.
fn answer<T>(life: &Life, told: &Receiver<T>) -> T {
    for _ in 0..LONG.as_millis() / 5 {
        match told.recv_timeout(Duration::from_millis(5)) {
            Ok(answer) => return answer,
            Err(RecvTimeoutError::Timeout) => life.clock.advance(Duration::from_millis(100)),
            Err(e) => panic!("{e}"),
        }
    }
    panic!("never answered: {:?}", life.status())
}

#[test]
fn promise_s7_a_read_waits_for_a_store_that_is_away_and_succeeds_when_it_is_back() {
    let (life, file, _) = with_a_shipped_file();
    life.store.set_down(true);
    let told = read(&life, file, 0);
    let status = life.until("waiting", |status| status.waiting_for_store == 1);
    assert!(status.store_state.starts_with("away since 2026-"), "{status:?}");
    life.clock.advance(Duration::from_secs(40));
    assert_eq!(told.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout), "before its time");
    life.store.set_down(false);
    assert_eq!(answer(&life, &told).map(|data| data.len()), Ok(4000));
    let status = life.until("back", |status| status.store_state == "ok");
    assert_eq!((status.waiting_for_store, status.counters.timed_out, status.counters.unreadable), (0, 0, 0));
}

#[test]
fn promise_s7_a_read_of_a_store_that_stays_away_fails_at_its_deadline() {
    let (life, file, _) = with_a_shipped_file();
    life.volume.set_patience(Patience { read_timeout: Duration::from_secs(300), ..Patience::default() });
    life.store.set_down(true);
    let told = read(&life, file, 0);
    life.until("waiting", |status| status.waiting_for_store == 1);
    life.clock.advance(Duration::from_secs(200));
    assert_eq!(told.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout), "before its time");
    life.clock.advance(Duration::from_secs(101));
    assert_eq!(told.recv_timeout(LONG).expect("answered"), Err(Error::Io));
    assert_eq!((life.status().counters.timed_out, life.status().counters.unreadable), (1, 0));
}

#[test]
fn promise_x9_a_thousand_reads_that_wait_keep_nobody_out_and_ask_a_store_that_is_away_seldom() {
    let (life, file, reads) = with_a_shipped_file();
    let near = life.create("near").expect("created");
    life.write(near, 0, 8000).recv_timeout(LONG).expect("answered").expect("written");
    life.store.set_down(true);
    let before = reads.load(Ordering::Relaxed);
    let told: Vec<_> = (0..1000).map(|n| read(&life, file, n % 60 * 4000)).collect();
    // Those whose data is still in the journal are answered.
    life.until("waiting", |status| status.waiting_for_store > 700);
    for n in 0..90 {
        life.clock.advance(Duration::from_millis(500));
        let local = read(&life, near, 0).recv_timeout(LONG).expect("a read of local data waits for nobody");
        assert_eq!(local.map(|data| data.len()), Ok(4000));
        if n % 9 == 0 {
            let written = life.write(near, n * 4000, 4000).recv_timeout(LONG);
            written.expect("a write waits for nobody").expect("written");
        }
    }
    let asked = reads.load(Ordering::Relaxed) - before;
    assert!(asked < 60, "the store was asked {asked} times within a minute");
    life.store.set_down(false);
    for told in told {
        answer(&life, &told).expect("read, or else its time was up");
    }
}

#[test]
fn promise_x10_an_unmount_that_will_not_wait_answers_those_who_do() {
    let (life, file, _) = with_a_shipped_file();
    life.store.set_down(true);
    let told = read(&life, file, 0);
    life.until("waiting", |status| status.waiting_for_store == 1);
    life.volume.set_leaving(true);
    assert_eq!(told.recv_timeout(LONG).expect("answered"), Err(Error::Io));
    assert_eq!(read(&life, file, 0).recv_timeout(LONG).expect("answered"), Err(Error::Io));
    life.volume.set_leaving(false);
    let told = read(&life, file, 0);
    life.until("waiting", |status| status.waiting_for_store == 1);
    life.store.set_down(false);
    answer(&life, &told).expect("read");
}

#[test]
fn words_for_a_full_journal_are_read_as_they_are_shown() {
    for word in ["wait", "enospc"] {
        assert_eq!(word.parse::<WhenFull>().map(|read| read.to_string()), Ok(word.to_owned()));
    }
    assert!("eio".parse::<WhenFull>().is_err());
    let life = Life::new();
    assert_eq!(life.status().when_full, WhenFull::Wait);
    assert!(!life.is_there("x"));
}
