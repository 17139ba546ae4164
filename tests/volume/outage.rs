//! What waits for a store that does not answer, for how long, and what goes on meanwhile.

use super::life::{LONG, Life, SHORT};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use skylog::format::ids::InodeNo;
use skylog::fs::{Error, Stop};
use skylog::map::Wait;
use skylog::store::sim::SimStore;
use skylog::store::{Created, Store, StoreError};
use skylog::volume::{Patience, WhenFull};
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// A store that counts how often objects are read.
#[derive(Clone)]
struct Counting {
    store: SimStore,
    reads: Arc<AtomicU64>,
    hang: Arc<Hang>,
}

/// A store that does not answer those who read, and does not say so either.
#[derive(Default)]
struct Hang {
    state: Mutex<Hanging>,
    changed: Condvar,
}

#[derive(Default)]
struct Hanging {
    /// Beginnings of the names of threads that get no answer.
    whom: Vec<&'static str>,
    standing: usize,
    abandoned: bool,
    /// Their calls panic instead.
    panics: bool,
}

impl Hang {
    fn begin(&self, whom: &[&'static str]) {
        self.state.lock().whom = whom.to_vec();
    }

    fn standing(&self) -> usize {
        self.state.lock().standing
    }

    fn end(&self) {
        self.state.lock().abandoned = true;
        self.changed.notify_all();
    }

    fn pass(&self, name: &str) -> Result<(), StoreError> {
        let (mut state, thread) = (self.state.lock(), std::thread::current());
        if !state.whom.iter().any(|whom| thread.name().is_some_and(|name| name.starts_with(whom))) {
            return Ok(());
        }
        assert!(!state.panics, "meant to");
        state.standing += 1;
        self.changed.wait_while(&mut state, |state| !state.abandoned);
        state.standing -= 1;
        Err(StoreError::Away { action: "get", name: name.to_owned(), reason: "abandoned".to_owned() })
    }
}

impl Store for Counting {
    fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.hang.pass(name)?;
        self.store.get(name)
    }
    fn get_some(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.hang.pass(name)?;
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
    fn abandon(&self) {
        self.hang.end();
    }
}

/// Bytes of a file whose beginning is in the store alone once it is shipped.
const SHIPPED_BYTES: u64 = 300_000;

/// A volume with a shipped file, and how often its store was asked.
fn with_a_shipped_file() -> (Life, InodeNo, Arc<AtomicU64>) {
    let (life, file, reads, _) = with_a_shipped_file_that_hangs(Life::before);
    (life, file, reads)
}

/// What a volume sees its store through.
type Before = Box<dyn FnOnce(SimStore) -> Arc<dyn Store>>;

/// The same, and by what its store may stop to answer.
fn with_a_shipped_file_that_hangs(seen: fn(Before) -> Life) -> (Life, InodeNo, Arc<AtomicU64>, Arc<Hang>) {
    let (reads, hang): (Arc<AtomicU64>, Arc<Hang>) = Default::default();
    let (counter, hanging) = (reads.clone(), hang.clone());
    let life = seen(Box::new(|store| Arc::new(Counting { store, reads: counter, hang: hanging })));
    let file = life.create("shipped").expect("created");
    for offset in (0..SHIPPED_BYTES).step_by(8000) {
        life.write(file, offset, 8000).recv_timeout(LONG).expect("answered").expect("written");
    }
    life.volume.drain(&mut |_, _| Ok(())).expect("drained");
    (life, file, reads, hang)
}

fn read(life: &Life, file: InodeNo, offset: u64) -> Receiver<Result<Vec<u8>, Error>> {
    life.read(move |fs, cx| fs.read(cx, file, offset, 4000))
}

/// Goes on with the clock until that has an answer.
pub fn answer<T>(life: &Life, told: &Receiver<T>) -> T {
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
fn promise_x9_a_store_that_is_back_is_noticed_though_nobody_needs_it() {
    let (life, file, reads) = with_a_shipped_file();
    life.volume.set_patience(Patience { read_timeout: Duration::from_secs(1), ..Patience::default() });
    life.store.set_down(true);
    let told = read(&life, file, 0);
    assert_eq!(answer(&life, &told), Err(Error::Io));
    let before = reads.load(Ordering::Relaxed);
    for _ in 0..120 {
        life.clock.advance(Duration::from_millis(500));
        std::thread::sleep(Duration::from_millis(2));
    }
    let asked = reads.load(Ordering::Relaxed) - before;
    assert!(asked < 60, "the store was asked {asked} times within a minute");
    life.store.set_down(false);
    life.until("back", |status| status.store_state == "ok");
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
fn promise_x10_an_end_waits_for_no_answer_of_a_store_that_hangs() {
    let (life, file, _, hang) = with_a_shipped_file_that_hangs(Life::before);
    hang.begin(&["checkpoint"]);
    life.write(file, 8000, 8000).recv_timeout(LONG).expect("answered").expect("written");
    life.until("the checkpointer stands in a call", |_| hang.standing() > 0);
    hang.begin(&["checkpoint", "fetch"]);
    let told = read(&life, file, 0);
    let (tell, ended) = channel();
    let volume = life.volume.clone();
    std::thread::spawn(move || tell.send(volume.close()));
    let ended = ended.recv_timeout(LONG);
    hang.end();
    ended.expect("ends though nobody answers").expect("cleanly");
    assert_eq!(told.recv_timeout(LONG).expect("answered"), Err(Error::Io));
}

#[test]
fn promise_x9_what_is_on_this_machine_is_read_while_a_store_hangs_with_all_who_fetch_from_it() {
    let (life, file, _, hang) = with_a_shipped_file_that_hangs(Life::far);
    hang.begin(&["fetch", "ahead"]);
    let told: Vec<_> = (0..60).map(|n| read(&life, file, n * 4000)).collect();
    life.until("somebody stands in a call", |_| hang.standing() > 0);
    for wait in [Wait::Objects(Vec::new()), Wait::Nodes(Vec::new())] {
        let mut wait = Some(wait);
        let near = life.read(move |_, _| wait.take().map_or(Ok(()), |wait| Err(Stop::Wait(wait))));
        assert_eq!(near.recv_timeout(LONG), Ok(Ok(())), "it needs nothing of the store");
    }
    hang.begin(&[]);
    hang.end();
    for told in told {
        answer(&life, &told).expect("read, or else its time was up");
    }
}

#[test]
fn a_fetch_that_panics_is_answered_with_eio_and_the_next_ones_are_answered() {
    let (life, file, _, hang) = with_a_shipped_file_that_hangs(Life::before);
    *hang.state.lock() = Hanging { whom: vec!["fetch"], panics: true, ..Hanging::default() };
    for n in 1..=4 {
        assert_eq!(read(&life, file, 0).recv_timeout(LONG).expect("answered"), Err(Error::Io));
        assert_eq!(life.status().counters.panics, n);
    }
    assert!(!life.volume.has_waiting(), "what they held is given back");
    hang.begin(&[]);
    assert_eq!(read(&life, file, 0).recv_timeout(LONG).expect("answered").map(|data| data.len()), Ok(4000));
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
