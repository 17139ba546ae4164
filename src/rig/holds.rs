//! Holds as one mount leaves them to the next, over a simulated store.

use super::{Rig, new_store, small};
use crate::base::random::SeededRandom;
use crate::format::ids::{InodeNo, Uuid};
use crate::format::lease::{Lease, LeaseState, Owner};
use crate::format::names::{self, LEASES};
use crate::media::sim::{CallLog, DiskFault, DiskOp, Nth, SimDisk};
use crate::recovery::{Hold, HoldError, Holding, MountError, Tuning};
use crate::store::Store;
use crate::store::sim::{SimStore, StoreFault, StoreOp};
use std::sync::Arc;
use std::time::Duration;

/// A process that runs on this machine.
fn here() -> Owner {
    Owner::seen_anywhere("/here").expect("known")
}

/// One on another machine.
fn elsewhere() -> Owner {
    Owner { host: "alpha".into(), boot: "boot pid:[1] machine".into(), pid: 17, started: 1, mount_point: "/far".into() }
}

fn tuning(owner: &Owner, takeover: bool) -> Tuning {
    let holding = if takeover { Holding::TakesOver } else { Holding::Asks };
    Tuning { owner: owner.clone(), holding, ..small() }
}

/// A filesystem that `owner` has mounted.
fn held_by(owner: &Owner) -> Rig {
    let (log, clock) = (CallLog::new(), Arc::default());
    let store = new_store(&log, &clock, &SeededRandom::new(1)).expect("made");
    let rig = Rig::mount(log.clone(), SimDisk::new(&log), store, clock, 1, &tuning(owner, false));
    rig.expect("nobody holds it")
}

/// A mount on another machine, or with another state directory.
fn mount(rig: &Rig, owner: &Owner, takeover: bool) -> Result<Rig, MountError> {
    let disk = SimDisk::new(&rig.log);
    Rig::mount(rig.log.clone(), disk, rig.store.clone(), rig.clock.clone(), 9, &tuning(owner, takeover))
}

fn hold(rig: &Rig) -> &Hold {
    rig.mounted.hold.as_ref().expect("there is one")
}

fn leases(store: &SimStore) -> Vec<Lease> {
    let names = store.list(LEASES).expect("listed");
    names.iter().map(|name| Lease::decode(&store.get(name).expect("read")).expect("decodes")).collect()
}

#[test]
fn what_another_machine_holds_is_refused_in_one_sentence_and_left_alone() {
    let rig = held_by(&elsewhere());
    rig.advance(Duration::from_secs(3600));
    let before = rig.store.image().hash();
    let sentence = mount(&rig, &here(), false).err().expect("refused").to_string();
    for words in [
        "process 17 on alpha, mounted at /far",
        "since 2026-01-01T00:00:00Z",
        "last published 2026-01-01T00:00:00Z",
        "has not shipped",
        "skylog mount --takeover STORE DIR",
    ] {
        assert!(sentence.contains(words), "no {words:?} in {sentence:?}");
    }
    assert_eq!(rig.store.image().hash(), before, "a refused mount changed the store");
}

#[test]
fn who_takes_over_holds_it_and_the_hold_before_is_gone() {
    let rig = held_by(&elsewhere());
    let other = mount(&rig, &here(), true).expect("taken over");
    let [lease] = &leases(&rig.store)[..] else { panic!("one holder") };
    assert_eq!((&lease.owner, lease.state, lease.number), (&here(), LeaseState::Held, 1));
    assert_eq!(lease.epoch, other.mounted.db.epoch());
    assert!(matches!(mount(&rig, &elsewhere(), false), Err(MountError::Hold(HoldError::Held { .. }))));
}

#[test]
fn what_was_released_is_mounted_without_asking_and_its_next_mount_goes_on_in_numbers() {
    let rig = held_by(&elsewhere());
    hold(&rig).release();
    let states = |store: &SimStore| leases(store).iter().map(|lease| (lease.number, lease.state)).collect::<Vec<_>>();
    assert_eq!(states(&rig.store), [(2, LeaseState::Released)]);
    let rig = rig.remount(2, &tuning(&elsewhere(), false)).expect("its own state directory");
    assert_eq!(states(&rig.store), [(3, LeaseState::Held)]);
    hold(&rig).release();
    mount(&rig, &here(), false).expect("released");
    assert_eq!(states(&rig.store), [(1, LeaseState::Held)]);
}

#[test]
fn an_older_hold_does_not_count_beside_that_of_a_later_epoch() {
    let rig = held_by(&elsewhere());
    let stale = rig.store.image();
    let other = mount(&rig, &here(), true).expect("taken over");
    hold(&other).release();
    // The delete of the hold before was lost.
    for name in stale.names().filter(|name| name.starts_with(LEASES)) {
        rig.store.put(name, stale.object(name).expect("it is listed").clone()).expect("put");
    }
    assert_eq!(leases(&rig.store).len(), 2);
    mount(&rig, &here(), false).expect("the newest one is released");
}

#[test]
fn a_process_of_this_machine_that_has_ended_is_taken_over_from_and_one_that_runs_is_not() {
    let ended = Owner { started: here().started + 1, ..here() };
    mount(&held_by(&ended), &here(), false).expect("a later process has its number");
    let earlier = Owner { boot: here().boot.replacen(|c: char| c.is_ascii_hexdigit(), "x", 1), ..ended };
    mount(&held_by(&earlier), &here(), false).expect("the machine was started anew");
    // A test cannot be told from its own process, which mounts.
    let mounts = Owner { pid: 0, ..here() };
    assert!(matches!(mount(&held_by(&here()), &mounts, false), Err(MountError::Hold(HoldError::Held { .. }))));
}

#[test]
fn a_hold_that_cannot_be_read_is_one_unless_it_may_be_taken_over() {
    let rig = held_by(&elsewhere());
    let name = rig.store.list(LEASES).expect("listed").remove(0);
    rig.store.put(&name, "not a lease".into()).expect("put");
    let refused = mount(&rig, &here(), false).err().expect("refused");
    assert!(
        matches!(&refused, MountError::Hold(HoldError::Unknown { name: found, .. }) if *found == name),
        "{refused}"
    );
    mount(&rig, &here(), true).expect("taken over");
}

#[test]
fn a_lease_of_somebody_else_that_cannot_be_read_keeps_nobody_from_mounting() {
    let rig = held_by(&elsewhere());
    hold(&rig).release();
    let follower = names::lease(Uuid(77), 4);
    rig.store.put(&follower, "not a lease".into()).expect("put");
    mount(&rig, &here(), false).expect("nobody holds it");
    assert!(rig.store.image().object(&follower).is_some(), "whose lease it is ends it");
    // And does not hide who does.
    assert!(matches!(mount(&rig, &elsewhere(), false), Err(MountError::Hold(HoldError::Held { .. }))));
}

#[test]
fn a_hold_whose_answer_was_lost_is_written_once() {
    let rig = held_by(&elsewhere());
    rig.store.fail(Nth::new(1).of(StoreOp::Create).on(LEASES), StoreFault::TriedAgain);
    hold(&rig).release();
    assert_eq!(leases(&rig.store).iter().map(|lease| lease.number).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_hold_that_cannot_be_written_fails_no_mount_and_is_written_later() {
    let rig = held_by(&elsewhere());
    rig.store.fail(Nth::new(1).of(StoreOp::Create).on(LEASES).forever(), StoreFault::Refused);
    let other = mount(&rig, &here(), true).expect("taken over");
    assert_eq!(leases(&rig.store).len(), 0);
    rig.store.heal();
    hold(&other).take();
    hold(&other).take();
    assert_eq!(leases(&rig.store).iter().map(|lease| lease.number).collect::<Vec<_>>(), [1]);
}

#[test]
fn what_was_let_go_is_not_taken_again_by_what_still_runs() {
    let rig = held_by(&elsewhere());
    rig.store.fail(Nth::new(1).of(StoreOp::Create).on(LEASES).forever(), StoreFault::Refused);
    let other = mount(&rig, &here(), true).expect("taken over");
    rig.store.heal();
    hold(&other).release();
    hold(&other).take();
    assert_eq!(leases(&rig.store)[0].state, LeaseState::Released);
}

#[test]
fn a_store_that_is_away_hears_of_the_hold_when_it_is_back() {
    let rig = held_by(&elsewhere());
    hold(&rig).release();
    rig.store.set_down(true);
    let rig = rig.remount(3, &tuning(&elsewhere(), false)).expect("from local state");
    rig.store.set_down(false);
    assert_eq!(leases(&rig.store)[0].state, LeaseState::Released);
    hold(&rig).take();
    assert_eq!(leases(&rig.store)[0].state, LeaseState::Held);
}

fn make(rig: &mut Rig, name: &str) {
    let (attr, _) = rig.run(|fs, cx| fs.create(cx, InodeNo::ROOT, name.as_bytes(), 0o644)).expect("created");
    rig.run(|fs, cx| fs.write(cx, attr.ino, 0, &[7; 5000])).expect("written");
    rig.run(|fs, cx| fs.release(cx, attr.ino)).expect("released");
    rig.run(|fs, cx| fs.forget(cx, attr.ino, 1)).expect("forgotten");
}

/// What two machines made, each in its turn; the first has let go and keeps its state directory.
fn taken_in_turns() -> Rig {
    let mut rig = held_by(&elsewhere());
    make(&mut rig, "of the first");
    rig.drain();
    hold(&rig).release();
    let mut other = mount(&rig, &here(), false).expect("nobody holds it");
    make(&mut other, "of the second");
    other.drain();
    hold(&other).release();
    rig
}

fn assert_both(rig: &mut Rig) {
    for name in ["of the first", "of the second"] {
        assert!(
            rig.run(|fs, cx| fs.lookup(cx, InodeNo::ROOT, name.as_bytes())).expect("looked up").is_some(),
            "{name}"
        );
    }
}

#[test]
fn who_let_go_has_it_again_after_another_one_let_go() {
    let mut rig = taken_in_turns().remount(5, &tuning(&elsewhere(), false)).expect("all that it had is in the store");
    assert_both(&mut rig);
    make(&mut rig, "later");
    rig.drain();
    hold(&rig).release();
    assert_both(&mut rig.remount(6, &tuning(&elsewhere(), false)).expect("from local state"));
}

#[test]
fn who_let_go_asks_whoever_has_it_since() {
    let rig = taken_in_turns();
    let other = mount(&rig, &here(), false).expect("released");
    let disk = rig.disk.clone();
    let again = |holding| Rig::mount(rig.log.clone(), disk.clone(), rig.store.clone(), rig.clock.clone(), 5, &holding);
    let before = rig.store.image().hash();
    assert!(matches!(again(tuning(&elsewhere(), false)), Err(MountError::Hold(HoldError::Held { .. }))));
    assert_eq!(rig.store.image().hash(), before, "a refused mount changed the store");
    assert_both(&mut again(tuning(&elsewhere(), true)).expect("told to take it"));
    drop(other);
}

#[test]
fn what_is_only_in_the_state_directory_stays_there() {
    let mut rig = held_by(&elsewhere());
    make(&mut rig, "shipped");
    rig.drain();
    make(&mut rig, "only here");
    while rig.step_journal() {}
    let mut other = mount(&rig, &here(), true).expect("taken over");
    make(&mut other, "of the second");
    other.drain();
    hold(&other).release();
    let refused = rig.remount(5, &tuning(&elsewhere(), true)).err().expect("refused");
    assert!(matches!(refused, MountError::Fenced(_)), "{refused}");
}

#[test]
fn a_crash_while_a_state_directory_is_made_anew_costs_nothing() {
    let mut at = 0;
    loop {
        at += 1;
        let rig = taken_in_turns();
        let Rig { log, disk, store, clock, mut mounted, .. } = rig;
        mounted.writer.close().expect("the journal closes");
        disk.fail(Nth::new(at).of(DiskOp::Remove).forever(), DiskFault::Failed);
        let first =
            Rig::mount(log.clone(), disk.clone(), store.clone(), clock.clone(), 5, &tuning(&elsewhere(), false));
        let is_done = first.is_ok();
        drop(first);
        disk.heal();
        let again = Rig::mount(log, disk, store, clock, 6, &tuning(&elsewhere(), true));
        assert_both(&mut again.unwrap_or_else(|e| panic!("after {at}: {e}")));
        if is_done {
            break;
        }
    }
    assert!(at > 2, "nothing was removed");
}
