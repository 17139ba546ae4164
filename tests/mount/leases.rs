//! Leases of those who follow, as commands see them.

use super::scratch::{Scratch, skylog, words};
use skylog::base::clock::{Clock, SystemClock};
use skylog::format::ids::Uuid;
use skylog::format::lease::{Lease, LeaseKind, LeaseState, Owner};
use skylog::format::names;
use skylog::ship::leases::HOLDERS_KEPT;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const WHO: Uuid = Uuid(5);

fn filesystem(scratch: &Scratch) -> Uuid {
    let text = fs::read_to_string(scratch.root.join("store/skylog.json")).expect("there");
    let superblock: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    superblock["uuid"].as_str().expect("a name").parse().expect("a UUID")
}

fn place(scratch: &Scratch, number: u64) -> PathBuf {
    scratch.root.join("store").join(names::lease(WHO, number))
}

/// A follower of this name, heard of so many seconds ago.
fn plant(scratch: &Scratch, owner: Owner, seconds_ago: i64) {
    plant_one(scratch, (LeaseKind::Follower, 60), owner, seconds_ago);
}

fn plant_one(scratch: &Scratch, (kind, seconds): (LeaseKind, u32), owner: Owner, seconds_ago: i64) {
    let wall = SystemClock::new().now().as_nanos() - seconds_ago * 1_000_000_000;
    write(
        scratch,
        &Lease {
            filesystem: filesystem(scratch),
            who: WHO,
            number: 4,
            kind,
            state: LeaseState::Held,
            owner,
            since: wall,
            wall,
            seconds,
            checkpoint: 1,
            epoch: 0,
        },
    );
}

fn write(scratch: &Scratch, lease: &Lease) {
    let place = scratch.root.join("store").join(names::lease(lease.who, lease.number));
    fs::create_dir_all(place.parent().expect("a folder")).expect("made");
    fs::write(place, lease.encode()).expect("written");
}

fn state(scratch: &Scratch, number: u64) -> Option<LeaseState> {
    let bytes = fs::read(place(scratch, number)).ok()?;
    Some(Lease::decode(&bytes).expect("a lease").state)
}

#[test]
fn what_another_machine_follows_is_not_destroyed_by_mistake() {
    let scratch = Scratch::new();
    scratch.make();
    plant(&scratch, Owner::of_test("elsewhere"), 5);
    let said = skylog(&["destroy", scratch.store()]).fails();
    assert!(said.contains("in use by process 1 on elsewhere, mounted at /mnt, which follows"), "{said}");
    assert!(said.contains("unmount it there") && said.contains("--yes"), "{said}");
    fs::write(place(&scratch, 5), "damaged").expect("written");
    let said = skylog(&["destroy", scratch.store()]).fails();
    assert!(said.contains("in use by somebody (lease/"), "{said}");
    fs::remove_file(place(&scratch, 5)).expect("removed");
    plant(&scratch, Owner::of_test("elsewhere"), 3600);
    skylog(&["destroy", scratch.store()]).fails_after_asking();
    plant(&scratch, Owner::of_test("elsewhere"), 5);
    skylog(&["destroy", "--yes", scratch.store()]).succeeds();
    assert!(!scratch.root.join("store").exists());
}

#[test]
fn promise_g10_break_lock_ends_the_lease_of_the_dead_and_asks_about_another_machine() {
    let scratch = Scratch::new();
    scratch.make();
    plant(&scratch, Owner::of_test("elsewhere"), 5);
    skylog(&["break-lock", scratch.store()]).fails_after_asking();
    assert_eq!(state(&scratch, 5), None);
    let said = skylog(&["break-lock", "--yes", scratch.store()]).succeeds();
    assert!(said.contains("ended the lease of process 1 on elsewhere"), "{said}");
    assert_eq!(state(&scratch, 5), Some(LeaseState::Closed));
    assert!(skylog(&["break-lock", scratch.store()]).succeeds().contains("there was no lock"));
    fs::remove_file(place(&scratch, 5)).expect("removed");

    let here = Owner::seen_anywhere("/mnt").expect("known");
    plant(&scratch, here.clone(), 5);
    let said = skylog(&["break-lock", "--yes", scratch.store()]).succeeds();
    assert!(said.contains(&format!("left alone: process {} on", here.pid)) && said.contains("it lives"), "{said}");
    assert_eq!(state(&scratch, 5), None);
    plant(&scratch, Owner { started: u64::MAX, ..here }, 5);
    skylog(&["break-lock", scratch.store()]).succeeds();
    assert_eq!(state(&scratch, 5), Some(LeaseState::Closed), "nobody need be asked");
}

#[test]
fn promise_g10_break_lock_leaves_a_writer_on_another_machine_to_a_takeover() {
    let scratch = Scratch::new();
    scratch.make();
    plant_one(&scratch, (LeaseKind::Writer, 0), Owner::of_test("elsewhere"), 5);
    let said = skylog(&["break-lock", "--yes", scratch.store()]).succeeds();
    assert!(said.contains("left alone: process 1 on elsewhere") && said.contains("mount --takeover"), "{said}");
    assert_eq!(state(&scratch, 5), None, "whoever mounts is still told of it");
}

#[test]
fn a_writer_keeps_what_a_follower_reads_and_status_names_it() {
    let mut scratch = Scratch::new();
    scratch.make();
    scratch.mount_with(&["--ship-interval", "1", "--grace", "1"]);
    assert_eq!(scratch.status()["followers"], serde_json::json!([]));
    assert!(skylog(&["status", words(&scratch.mnt)]).succeeds().contains("followers: none"));
    plant(&scratch, Owner::of_test("elsewhere"), 5);
    let (file, end) = (scratch.mnt.join("file"), Instant::now() + Duration::from_secs(120));
    while scratch.status()["followers"][0].is_null() {
        assert!(Instant::now() < end, "nobody was asked: {}", scratch.status());
        fs::write(&file, vec![7; 100_000]).expect("written");
        skylog(&["sync", words(&scratch.mnt)]).succeeds();
        fs::remove_file(&file).expect("removed");
        skylog(&["sync", words(&scratch.mnt)]).succeeds();
    }
    let follower = &scratch.status()["followers"][0];
    assert_eq!(
        (&follower["name"], &follower["checkpoint"]),
        (&"process 1 on elsewhere, mounted at /mnt".into(), &1.into())
    );
    assert!(follower["seen_s_ago"].is_u64(), "{follower}");
    let shown = skylog(&["status", words(&scratch.mnt)]).succeeds();
    assert!(
        shown.contains("followers:\n  checkpoint: 1\n  name: process 1 on elsewhere, mounted at /mnt\n"),
        "{shown}"
    );
    assert_eq!(scratch.status()["counters"]["objects_deleted"], 0);
    scratch.umount();
}

#[test]
fn a_crowd_of_followers_that_left_is_noted_and_is_no_reason_to_repair() {
    let mut scratch = Scratch::mounted();
    fs::write(scratch.mnt.join("file"), "contents").expect("written");
    scratch.umount();
    plant(&scratch, Owner::of_test("elsewhere"), 5);
    let held = Lease::decode(&fs::read(place(&scratch, 4)).expect("there")).expect("a lease");
    for who in 0..=HOLDERS_KEPT as u128 {
        write(&scratch, &Lease { who: Uuid(who), state: LeaseState::Released, ..held.clone() });
    }
    for (words, more) in [(&["check"][..], "looked at "), (&["check", "--repair"], "nothing to repair")] {
        let said = skylog(&[words, &[scratch.store()]].concat()).succeeds();
        assert!(said.contains("note: lease/: there are more than 4096 holders") && said.contains(more), "{said}");
    }
    scratch.mount();
    assert_eq!(fs::read_to_string(scratch.mnt.join("file")).expect("there"), "contents");
    scratch.umount();
}
