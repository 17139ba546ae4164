//! What a writer deletes while others follow, and what becomes of their leases.

use super::{Rig, small};
use crate::follow::lease::{FollowerLease, Step};
use crate::format::ids::{InodeNo, Uuid};
use crate::format::lease::{Lease, LeaseKind, LeaseState, Owner};
use crate::format::names;
use crate::media::sim::Nth;
use crate::recovery::Tuning;
use crate::store::Store;
use crate::store::sim::{StoreFault, StoreOp};
use std::collections::BTreeSet;
use std::time::Duration;

impl Rig {
    fn make(&mut self, name: &str) {
        let (attr, _) = self.run(|fs, cx| fs.create(cx, InodeNo::ROOT, name.as_bytes(), 0o644)).expect("created");
        self.run(|fs, cx| fs.write(cx, attr.ino, 0, &[7; 5000])).expect("written");
        self.run(|fs, cx| fs.release(cx, attr.ino)).expect("released");
        self.run(|fs, cx| fs.forget(cx, attr.ino, 1)).expect("forgotten");
    }

    fn unlink(&mut self, name: &str) {
        self.run(|fs, cx| fs.unlink(cx, InodeNo::ROOT, name.as_bytes()).map(|_| ())).expect("removed");
    }

    fn filesystem(&self) -> Uuid {
        self.mounted.superblock.uuid
    }

    /// A follower, as one on another machine with the same time.
    fn follow(&self) -> FollowerLease {
        let (store, clock, random) = (self.world.store.clone(), self.world.clock.clone(), &*self.world.random);
        FollowerLease::take(store, clock, random, self.filesystem(), Owner::of_test("reader")).expect("taken")
    }

    /// What is in the store but leases.
    fn objects(&self) -> BTreeSet<String> {
        let image = self.store.image();
        image.names().filter(|name| !name.starts_with(names::LEASES)).map(str::to_owned).collect()
    }

    fn leases(&self) -> Vec<Lease> {
        let names = self.store.list(names::LEASES).expect("listed");
        names.iter().filter_map(|name| Lease::decode(&self.store.get(name).ok()?).ok()).collect()
    }

    /// Something dies and is listed as dead in a published checkpoint, which is what comes back. `follower` goes on meanwhile.
    fn let_die(&mut self, follower: Option<&mut FollowerLease>) -> u64 {
        self.unlink("dies");
        for name in ["next", "after"] {
            self.make(name);
            self.drain();
            self.unlink(name);
            self.drain();
        }
        self.make("dies");
        self.drain();
        if let Some(follower) = follower {
            follower.step();
        }
        self.published()
    }

    fn published(&self) -> u64 {
        self.mounted.checkpointer.figures().lock().checkpoint
    }

    fn deleted(&self) -> u64 {
        self.mounted.checkpointer.figures().lock().objects_deleted
    }

    /// Time goes by, in seconds, with whoever follows.
    fn pass(&mut self, seconds: u64, followers: &mut [&mut FollowerLease]) {
        for _ in 0..seconds {
            self.advance(Duration::from_secs(1));
            self.settle();
            followers.iter_mut().for_each(|follower| drop(follower.step()));
        }
    }
}

fn rig() -> Rig {
    let mut rig = Rig::new(1, &small());
    rig.make("dies");
    rig.drain();
    rig
}

#[test]
fn leases_are_asked_for_only_when_something_is_to_be_deleted_and_not_known_to_be_free() {
    let tuning =
        Tuning { policy: crate::checkpoint::Policy { grace: Duration::from_secs(600), ..small().policy }, ..small() };
    let mut rig = Rig::new(1, &tuning);
    rig.make("dies");
    rig.let_die(None);
    let lists = rig.store.calls().lists;
    rig.pass(500, &mut []);
    assert_eq!((rig.deleted(), rig.store.calls().lists), (0, lists), "nothing is due");
    // What dies in these ten minutes is listed before the first list of leases, and is due one after the other.
    for _ in 0..5 {
        rig.let_die(None);
        rig.pass(10, &mut []);
    }
    rig.pass(590, &mut []);
    assert!(rig.deleted() > 5, "{}", rig.deleted());
    let asked = rig.store.calls().lists - lists;
    assert!((1..=2).contains(&asked), "{asked} lists");
}

#[test]
fn what_a_follower_may_read_stays_until_it_says_that_it_reads_something_newer() {
    let mut rig = rig();
    let mut follower = rig.follow();
    let checkpoint = rig.published();
    follower.set_oldest(checkpoint);
    rig.pass(16, &mut [&mut follower]);
    let before = rig.objects();
    let published = rig.let_die(Some(&mut follower));
    let lists = rig.store.calls().lists;
    rig.pass(200, &mut [&mut follower]);
    assert!(before.is_subset(&rig.objects()), "all that was published then is there");
    let asked = rig.store.calls().lists - lists;
    assert!((10..=30).contains(&asked), "{asked} lists in 200 s");
    let figures = rig.mounted.checkpointer.figures().lock().clone();
    assert_eq!(figures.followers.len(), 1);
    assert!(figures.followers[0].name.contains("process 1 on reader"), "{:?}", figures.followers);
    assert_eq!(figures.followers[0].checkpoint, checkpoint);

    let there = rig.objects().len();
    follower.set_oldest(published);
    rig.pass(30, &mut [&mut follower]);
    assert!(rig.objects().len() < there && !before.is_subset(&rig.objects()));
    assert_eq!(follower.step(), follower.step());
    assert!(follower.is_valid());
}

#[test]
fn a_lease_that_was_taken_and_says_nothing_yet_holds_everything() {
    let mut rig = rig();
    let mut follower = rig.follow();
    rig.pass(16, &mut [&mut follower]);
    let before = rig.objects();
    rig.let_die(Some(&mut follower));
    rig.pass(100, &mut [&mut follower]);
    assert!(before.is_subset(&rig.objects()));
    assert_eq!(rig.deleted(), 0);
    follower.release().expect("given back");
    rig.pass(12, &mut []);
    assert!(rig.deleted() > 0, "a lease that is given back holds nothing");
}

#[test]
fn the_slowest_of_two_followers_decides() {
    let mut rig = rig();
    let (mut slow, mut fast) = (rig.follow(), rig.follow());
    slow.set_oldest(rig.published());
    rig.pass(16, &mut [&mut slow, &mut fast]);
    let before = rig.objects();
    let published = rig.let_die(Some(&mut slow));
    fast.set_oldest(published);
    rig.pass(100, &mut [&mut slow, &mut fast]);
    assert!(before.is_subset(&rig.objects()));
    slow.set_oldest(published);
    rig.pass(30, &mut [&mut slow, &mut fast]);
    assert!(!before.is_subset(&rig.objects()));
}

#[test]
fn a_follower_that_does_not_renew_is_closed_after_a_while_and_knows_it() {
    let mut rig = rig();
    let mut dead = rig.follow();
    let before = rig.objects();
    rig.let_die(None);
    rig.pass(60, &mut []);
    assert!(before.is_subset(&rig.objects()), "it might still renew");
    rig.pass(40, &mut []);
    assert!(rig.deleted() > 0 && !before.is_subset(&rig.objects()));
    let last = rig.leases().pop().expect("a lease");
    assert_eq!((last.state, last.owner.host.as_str()), (LeaseState::Closed, "rig"));
    assert!(!dead.is_valid());
    assert!(matches!(dead.step(), Step::Lost { .. }));

    // Its objects go with what is deleted later.
    rig.pass(600, &mut []);
    rig.let_die(None);
    rig.pass(30, &mut []);
    assert_eq!(rig.leases(), []);
}

#[test]
fn a_writer_that_was_stopped_before_it_closed_a_lease_closes_none_that_went_on() {
    let mut rig = rig();
    let mut follower = rig.follow();
    rig.let_die(None);
    rig.pass(12, &mut []);
    // The writer has seen number 1. While it stands still the follower goes on, and removes its old numbers.
    for _ in 0..10 {
        rig.advance(Duration::from_secs(15));
        follower.step();
    }
    let before = rig.objects();
    rig.pass(5, &mut []);
    assert!(before.is_subset(&rig.objects()));
    assert!(follower.is_valid());
    // A closing object that it sent then and that arrives now has a number long gone, and ends nothing.
    let newest = rig.leases().pop().expect("a lease");
    let late = Lease { number: 2, state: LeaseState::Closed, ..newest.clone() };
    rig.store.create(&names::lease(late.who, 2), late.encode().into()).expect("created");
    rig.pass(100, &mut [&mut follower]);
    assert!(before.is_subset(&rig.objects()), "it still holds");
    assert!(follower.is_valid());
}

#[test]
fn nothing_is_deleted_when_leases_cannot_be_listed_or_read() {
    for op in [StoreOp::List, StoreOp::Get] {
        let mut rig = rig();
        let follower = rig.follow();
        let before = rig.objects();
        rig.store.fail(Nth::new(1).of(op).on("lease").forever(), StoreFault::Refused);
        rig.let_die(None);
        rig.settle();
        assert!(before.is_subset(&rig.objects()));
        let refused = rig.mounted.checkpointer.figures().lock().deletion_refused.clone();
        assert!(refused.is_some_and(|words| words.contains("leases of followers cannot be read")), "{op:?}");
        rig.store.heal();
        follower.release().expect("given back");
        rig.pass(60, &mut []);
        assert!(rig.deleted() > 0, "{op:?}");
        assert_eq!(rig.mounted.checkpointer.figures().lock().deletion_refused, None);
    }
}

#[test]
fn a_lease_that_cannot_be_read_holds_everything_for_as_long_as_one_counts() {
    let mut rig = rig();
    rig.store.put(&names::lease(Uuid(9), 4), "damaged".into()).expect("put");
    let before = rig.objects();
    rig.let_die(None);
    rig.pass(60, &mut []);
    assert!(before.is_subset(&rig.objects()));
    rig.pass(40, &mut []);
    assert!(!before.is_subset(&rig.objects()));
    let closed = rig.leases().pop().expect("a lease");
    assert_eq!((closed.who, closed.number, closed.state), (Uuid(9), 5, LeaseState::Closed));
}

#[test]
fn a_writers_hold_keeps_nothing_and_one_of_an_older_epoch_is_removed() {
    let mut rig = rig();
    let hold = |epoch, number| Lease {
        filesystem: rig.filesystem(),
        who: Uuid(u128::from(epoch)),
        number,
        kind: LeaseKind::Writer,
        state: LeaseState::Held,
        owner: Owner::of_test("writer"),
        since: 0,
        wall: 0,
        seconds: 0,
        checkpoint: 0,
        epoch,
    };
    let epoch = rig.mounted.db.epoch();
    for hold in [hold(0, 1), hold(0, 2), hold(epoch, 1), hold(epoch + 1, 1)] {
        rig.store.put(&names::lease(hold.who, hold.number), hold.encode().into()).expect("put");
    }
    rig.let_die(None);
    rig.pass(5, &mut []);
    assert!(rig.deleted() > 0);
    let epochs: Vec<u32> = rig.leases().iter().map(|lease| lease.epoch).collect();
    assert_eq!(epochs, [epoch, epoch + 1]);
}

#[cfg(feature = "canaries")]
#[test]
fn a_deletion_that_asks_no_follower_is_missed() {
    use crate::base::canary::{Canary, with_removed};
    with_removed(Canary::LeaseBeforeDelete, || {
        let mut rig = rig();
        let follower = rig.follow();
        let before = rig.objects();
        rig.let_die(None);
        rig.pass(5, &mut []);
        assert!(follower.is_valid() && !before.is_subset(&rig.objects()));
    });
}
