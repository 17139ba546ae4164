//! A lease on a simulated store, by a clock that is moved by hand. What the writer does with leases has its tests in
//! `src/rig/leases.rs`.

use super::*;
use crate::base::clock::SimClock;
use crate::base::random::SeededRandom;
use crate::media::sim::{CallLog, Nth};
use crate::store::sim::{SimStore, StoreFault, StoreOp};

const FILESYSTEM: Uuid = Uuid(7);

struct Fixture {
    store: SimStore,
    clock: Arc<SimClock>,
    random: SeededRandom,
}

impl Fixture {
    fn new() -> Fixture {
        let store = SimStore::new(&CallLog::new());
        Fixture { store, clock: Arc::new(SimClock::default()), random: SeededRandom::new(1) }
    }

    fn take(&self) -> Result<FollowerLease, StoreError> {
        let store = Arc::new(self.store.clone());
        FollowerLease::take(store, self.clock.clone(), &self.random, FILESYSTEM, Owner::of_test("reader"))
    }

    fn taken(&self) -> FollowerLease {
        self.take().expect("taken")
    }

    fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn numbers(&self, lease: &FollowerLease) -> Vec<u64> {
        let names = self.store.list(&format!("lease/{:032x}", lease.who().0)).expect("listed");
        names.iter().map(|name| name.rsplit('/').next().expect("a number").parse().expect("a number")).collect()
    }

    fn newest(&self, lease: &FollowerLease) -> Lease {
        let number = *self.numbers(lease).last().expect("a number");
        Lease::decode(&self.store.get(&names::lease(lease.who(), number)).expect("there")).expect("a lease")
    }

    /// What another one creates in the place of the next number.
    fn close(&self, lease: &FollowerLease) {
        let newest = self.newest(lease);
        let (number, owner) = (newest.number + 1, Owner::of_test("writer"));
        let closed = Lease { number, owner, state: LeaseState::Closed, ..newest };
        self.store.create(&names::lease(lease.who(), number), closed.encode().into()).expect("created");
    }
}

fn held(seconds: u64) -> Step {
    Step::Held { again: Duration::from_secs(seconds) }
}

fn why(step: Step) -> String {
    match step {
        Step::Lost { why } => why,
        held => panic!("{held:?}"),
    }
}

#[test]
fn a_lease_is_renewed_every_fifteen_seconds_and_leaves_few_numbers() {
    let fixture = Fixture::new();
    let mut lease = fixture.taken();
    assert_eq!(fixture.newest(&lease).checkpoint, 0, "it holds everything until it is known what is read");
    lease.set_oldest(5);
    lease.set_oldest(3);
    for _ in 0..20 {
        assert_eq!(lease.step(), held(15));
        fixture.wait(9);
        assert_eq!(lease.step(), held(6));
        fixture.wait(6);
    }
    assert_eq!(lease.step(), held(15));
    assert_eq!(fixture.numbers(&lease), [19, 20, 21]);
    let newest = fixture.newest(&lease);
    assert_eq!((newest.checkpoint, newest.state, newest.seconds), (5, LeaseState::Held, 60));
    assert_eq!(newest.wall - newest.since, 300_000_000_000);
    let calls = fixture.store.calls();
    assert_eq!((calls.creates, calls.gets), (21, 2), "one request a renewal; the two reads are of this test");
}

#[test]
fn a_lost_answer_is_settled_by_reading_back_and_counts_from_the_first_try() {
    let fixture = Fixture::new();
    let mut lease = fixture.taken();
    fixture.wait(15);
    fixture.store.fail(Nth::new(1).of(StoreOp::Create), StoreFault::AnswerLost);
    assert_eq!(lease.step(), held(2));
    fixture.wait(40);
    assert!(lease.is_valid(), "the first number counts for 60 s");
    assert_eq!(lease.step(), held(0), "renewed 40 s ago, as it turns out");
    assert_eq!(fixture.numbers(&lease), [1, 2]);
    fixture.wait(4);
    assert!(lease.is_valid());
    assert_eq!(lease.step(), held(15));
    assert_eq!(fixture.numbers(&lease), [1, 2, 3]);

    fixture.wait(15);
    fixture.store.fail(Nth::new(1).of(StoreOp::Create), StoreFault::TriedAgain);
    assert_eq!(lease.step(), held(15), "its own second try found the first");
}

#[test]
fn a_renewal_that_arrives_after_it_was_tried_again_changes_nothing() {
    let fixture = Fixture::new();
    let mut lease = fixture.taken();
    fixture.wait(15);
    fixture.store.fail(Nth::new(1).of(StoreOp::Create), StoreFault::Adrift);
    assert_eq!(lease.step(), held(2));
    fixture.wait(2);
    assert_eq!(lease.step(), held(13));
    assert_eq!(fixture.store.land_adrift(), 1);
    fixture.wait(13);
    assert_eq!(lease.step(), held(15));
    assert_eq!(fixture.numbers(&lease), [1, 2, 3]);
}

#[test]
fn a_renewal_that_arrives_when_the_lease_is_over_renews_nothing() {
    let fixture = Fixture::new();
    let mut lease = fixture.taken();
    fixture.wait(15);
    fixture.store.fail(Nth::new(1).of(StoreOp::Create), StoreFault::Adrift);
    assert_eq!(lease.step(), held(2));
    fixture.wait(44);
    assert!(lease.is_valid());
    assert_eq!(lease.watch().left(), Duration::from_secs(1));
    fixture.wait(1);
    assert!(!lease.is_valid());
    assert_eq!(lease.watch().left(), Duration::ZERO);
    fixture.store.land_adrift();
    assert!(why(lease.step()).contains("not renewed for 60 s"));
    assert!(!lease.is_valid());
    assert!(why(lease.step()).contains("not renewed"), "for ever");
}

#[test]
fn who_asks_after_the_lease_was_over_renews_nothing_though_its_number_is_free() {
    let fixture = Fixture::new();
    let mut lease = fixture.taken();
    // Closed, and tidied up, while the follower stood still.
    fixture.wait(1000);
    fixture.store.delete(&names::lease(lease.who(), 1)).expect("deleted");
    assert!(why(lease.renew()).contains("not renewed for 60 s"));
    assert!(!lease.is_valid());
    assert_eq!(fixture.numbers(&lease), [] as [u64; 0]);
}

#[test]
fn a_follower_that_was_stopped_a_machine_that_slept_and_a_host_that_stopped_it_lose_the_lease() {
    type Pause = fn(&Fixture);
    let pauses: [Pause; 3] = [
        |fixture| fixture.wait(60),
        |fixture| fixture.clock.sleep(Duration::from_secs(60)),
        |fixture| fixture.clock.set_wall(60_000_000_000),
    ];
    for pause in pauses {
        let fixture = Fixture::new();
        let mut lease = fixture.taken();
        let watch = lease.watch();
        assert!(watch.is_valid());
        pause(&fixture);
        assert!(!watch.is_valid());
        let creates = fixture.store.calls().creates;
        assert!(why(lease.step()).contains("not renewed"));
        assert_eq!(fixture.store.calls().creates, creates, "what is over is not renewed");
    }
}

#[test]
fn a_wall_clock_that_is_set_back_neither_ends_a_lease_nor_makes_it_longer() {
    let fixture = Fixture::new();
    let mut lease = fixture.taken();
    fixture.clock.set_wall(-3_600_000_000_000);
    fixture.wait(14);
    assert_eq!(lease.step(), held(1));
    fixture.wait(1);
    assert_eq!(lease.step(), held(15));
    fixture.wait(59);
    assert!(lease.is_valid());
    fixture.wait(1);
    assert!(!lease.is_valid());
}

#[test]
fn a_lease_that_another_one_closed_is_lost_and_says_by_whom() {
    let fixture = Fixture::new();
    let (mut lease, mut other) = (fixture.taken(), fixture.taken());
    fixture.close(&lease);
    assert_eq!(lease.step(), held(15), "nobody told it yet");
    fixture.wait(15);
    assert!(why(lease.step()).contains("closed by process 1 on writer"));
    assert!(!lease.is_valid());
    assert_eq!(other.step(), held(15), "the other follower goes on");
    fixture.wait(15);
    assert_eq!(other.step(), held(15));
    assert_eq!(fixture.numbers(&lease), [1, 2]);
    lease.release().expect("there is nothing to give back");
}

#[test]
fn an_outage_ends_a_lease_after_a_minute_and_no_earlier() {
    let fixture = Fixture::new();
    let mut lease = fixture.taken();
    fixture.store.set_down(true);
    fixture.wait(15);
    for _ in 0..22 {
        assert_eq!(lease.step(), held(2));
        assert!(lease.is_valid());
        fixture.wait(2);
    }
    assert_eq!(lease.step(), held(2));
    fixture.wait(1);
    assert!(why(lease.step()).contains("not renewed"));

    let mut lease = Fixture::new().taken();
    assert_eq!(lease.step(), held(15));
    let fixture = Fixture::new();
    let mut lease = fixture.taken();
    fixture.store.set_down(true);
    fixture.wait(50);
    assert_eq!(lease.step(), held(2));
    fixture.store.set_down(false);
    fixture.wait(2);
    assert_eq!(lease.step(), held(13), "it counts from the first try");
}

#[test]
fn a_number_that_cannot_be_read_leaves_the_lease_as_it_is_until_it_is_over() {
    let fixture = Fixture::new();
    let mut lease = fixture.taken();
    fixture.store.put(&names::lease(lease.who(), 2), "damaged".into()).expect("put");
    fixture.wait(15);
    assert_eq!(lease.step(), held(2));
    fixture.wait(44);
    assert_eq!(lease.step(), held(2));
    fixture.wait(1);
    assert!(why(lease.step()).contains("not renewed"));
}

#[test]
fn a_lease_that_is_given_back_says_so_and_leaves_one_number() {
    for fault in [None, Some(StoreFault::AnswerLost), Some(StoreFault::Refused)] {
        let fixture = Fixture::new();
        let mut lease = fixture.taken();
        let watch = lease.watch();
        for _ in 0..3 {
            fixture.wait(15);
            assert_eq!(lease.step(), held(15));
        }
        if let Some(fault) = fault {
            fixture.wait(15);
            fixture.store.fail(Nth::new(1).of(StoreOp::Create), fault);
            assert_eq!(lease.step(), held(2));
        }
        let who = lease.who();
        lease.release().expect("given back");
        assert!(!watch.is_valid());
        let names = fixture.store.list("lease").expect("listed");
        assert_eq!(names, [names::lease(who, if fault.is_some() { 6 } else { 5 })]);
        let last = Lease::decode(&fixture.store.get(&names[0]).expect("there")).expect("a lease");
        assert_eq!(last.state, LeaseState::Released);
    }
}

#[test]
fn no_lease_is_taken_without_an_answer_or_when_that_comes_too_late() {
    let fixture = Fixture::new();
    for fault in [StoreFault::Refused, StoreFault::AnswerLost, StoreFault::Adrift] {
        fixture.store.fail(Nth::new(1).of(StoreOp::Create), fault);
        assert!(fixture.take().is_err(), "{fault:?}");
    }
    assert!(fixture.take().expect("taken").is_valid());
}
