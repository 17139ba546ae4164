//! An fsync that waits for the store: when it is answered, how, and what it costs.

use super::life::{LONG, Life, SHORT};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use skylog::media::sim::{CallLog, SimDisk};
use skylog::rig::{Rig, small};
use skylog::ship::Durability;
use skylog::store::sim::SimStore;
use skylog::store::{Created, Store, StoreError};
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// A store in which publications stand until they are let through.
#[derive(Clone)]
struct Gated {
    store: SimStore,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn close(&self) {
        self.state.lock().0 = true;
    }

    fn open(&self) {
        self.state.lock().0 = false;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock();
        state.1 += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |(closed, _)| *closed);
        state.1 -= 1;
    }

    fn wait_for_one(&self) {
        let mut state = self.state.lock();
        let late = self.changed.wait_while_for(&mut state, |(_, standing)| *standing == 0, LONG);
        assert!(!late.timed_out(), "nothing was sent");
    }
}

impl Store for Gated {
    fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        self.store.get(name)
    }
    fn get_some(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.store.get_some(name, range)
    }
    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.store.size(name)
    }
    fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.store.put(name, bytes)
    }
    fn create(&self, name: &str, bytes: Bytes) -> Result<Created, StoreError> {
        self.gate.pass();
        self.store.create(name, bytes)
    }
    fn publish_local(&self, from: &Path, name: &str) -> Result<bool, StoreError> {
        self.store.publish_local(from, name)
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.store.delete(name)
    }
    fn walk(&self, prefix: &str, entry: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.store.walk(prefix, entry)
    }
}

/// A volume whose generation has a base, with fsyncs that wait for the store.
fn storing() -> (Life, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let given = gate.clone();
    let life = Life::before(move |store| Arc::new(Gated { store, gate: given }));
    life.volume.set_durability(Durability::Store);
    life.create("first").expect("made");
    answered(&life, &life.sync()).expect("synced");
    (life, gate)
}

/// The answer, while time goes on.
fn answered<T>(life: &Life, told: &Receiver<T>) -> T {
    for _ in 0..LONG.as_millis() / 5 {
        if let Ok(answer) = told.recv_timeout(Duration::from_millis(5)) {
            return answer;
        }
        life.clock.advance(Duration::from_millis(100));
    }
    panic!("never answered: {:?}", life.status());
}

#[test]
fn an_fsync_returns_when_the_store_has_it_and_all_that_wait_meanwhile_share_the_next_object() {
    let (life, gate) = storing();
    let before = life.status().counters.log_increments;
    gate.close();
    life.create("one").expect("made");
    let first = life.sync();
    gate.wait_for_one();
    life.create("two").expect("made");
    let rest: Vec<_> = (0..20).map(|_| life.sync()).collect();
    first.recv_timeout(SHORT).expect_err("nothing is in the store");
    assert_eq!(life.status().durability, "store");
    life.until("all wait", |status| status.waiting_fsyncs == 21);
    gate.open();
    answered(&life, &first).expect("stored");
    rest.iter().for_each(|told| answered(&life, told).expect("stored"));
    let status = life.status();
    assert_eq!((status.counters.log_increments - before, status.waiting_fsyncs), (2, 0));
    assert_ne!(status.stored, status.shipped, "no window was due");

    // The other way returns when the disk has it, whatever the store does.
    gate.close();
    life.volume.set_durability(Durability::Local);
    life.create("three").expect("made");
    life.sync().recv_timeout(LONG).expect("answered").expect("synced");
    gate.open();
}

#[test]
fn in_an_outage_an_fsync_fails_when_its_time_is_up_and_a_later_one_succeeds() {
    let (life, _) = storing();
    life.store.set_down(true);
    life.create("file").expect("a store that is away keeps nobody from writing");
    let told = life.sync();
    life.until("it is known", |status| status.store_state.starts_with("away"));
    assert!(told.recv_timeout(SHORT).is_err(), "an outage of seconds is waited out");
    answered(&life, &told).expect_err("a minute has passed");
    assert_eq!(life.status().counters.timed_out_fsyncs, 1);
    let later = life.sync();
    life.store.set_down(false);
    answered(&life, &later).expect("the store is back");
    assert_eq!(life.status().state, "active");
}

#[test]
fn who_leaves_waits_for_no_store_that_is_away() {
    let (life, _) = storing();
    life.store.set_down(true);
    life.create("file").expect("made");
    let told = life.sync();
    life.until("it is known", |status| status.store_state.starts_with("away"));
    assert!(life.volume.has_waiting());
    life.volume.set_leaving(true);
    told.recv_timeout(LONG).expect("answered").expect_err("it is not in the store");
}

#[test]
fn who_leaves_waits_for_no_store_that_is_slow() {
    let (life, gate) = storing();
    gate.close();
    life.create("file").expect("made");
    let told = life.sync();
    gate.wait_for_one();
    life.volume.set_leaving(true);
    told.recv_timeout(LONG).expect("answered").expect_err("it is not in the store");
    gate.open();
}

#[test]
fn a_fenced_writer_never_reports_success() {
    let (life, gate) = storing();
    gate.close();
    life.create("file").expect("made");
    let told = life.sync();
    gate.wait_for_one();
    let log = CallLog::new();
    let other = Rig::mount(log.clone(), SimDisk::new(&log), life.store.clone(), life.clock.clone(), 99, &small());
    other.expect("another mount takes over");
    gate.open();
    answered(&life, &told).expect_err("it is not in what others see");
    life.until("it is fenced", |status| status.state == "fenced");
    life.sync().recv_timeout(LONG).expect("answered").expect_err("never again");
}

#[test]
fn at_the_end_all_that_wait_are_answered() {
    let (life, _) = storing();
    life.store.set_down(true);
    life.create("file").expect("made");
    let told = life.sync();
    life.until("it waits", |status| status.waiting_fsyncs == 1);
    life.volume.close().expect("the journal ends cleanly");
    told.recv_timeout(LONG).expect("answered").expect_err("it is not in the store");
}
