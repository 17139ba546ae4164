//! What another machine holds: how a mount is refused, how it is taken over, and who is passed over without asking.

use super::place::Place;
use super::scratch::Scratch;
use super::server;
use std::fs;

/// The objects of the store that say who holds the filesystem.
fn leases(scratch: &Scratch) -> usize {
    let listed = server::request(scratch.upstream, "GET", &format!("/{}?prefix=some/prefix/lease/", scratch.bucket));
    listed.matches("<Key>").count()
}

#[test]
fn what_is_mounted_elsewhere_is_refused_with_who_and_since_when_and_the_command_that_takes_it_over() {
    let scratch = Scratch::new(1);
    scratch.make();
    let mut first = Place::mounted(&scratch, "first", &["--ship-interval", "1"]);
    fs::write(first.mnt.join("shipped"), "here").expect("a mount");
    let mut second = Place::new(&scratch, "second");
    let sentence = second.mount(&scratch, &[]).fails();
    let command = format!("skylog mount --takeover {} {}", scratch.url, second.mnt.display());
    let who = format!("process {} on ", first.pid());
    for words in [&who, &format!("mounted at {}", first.mnt.display()), "since 20", "last published 20", &command] {
        assert!(sentence.contains(words), "no {words:?} in {sentence}");
    }
    assert!(!second.state.exists(), "a mount that was refused left a state directory");
    assert_eq!(first.status(&scratch)["state"], "active");

    let said = second.mount(&scratch, &["-o", "takeover"]).succeeds();
    assert!(said.contains("taken over from") && said.contains(&who), "{said}");
    assert_eq!(leases(&scratch), 1, "of the second alone");
    // It may know already.
    fs::write(first.mnt.join("late"), "").ok();
    first.until_fenced(&scratch);
    fs::write(second.mnt.join("by the second"), "").expect("it is the writer");
    second.umount(&scratch).succeeds();

    // It let go, and the one it took over from has no say.
    let mut third = Place::mounted(&scratch, "third", &[]);
    assert!(third.tree().contains_key("by the second") && !third.tree().contains_key("late"));
    third.umount(&scratch).succeeds();
    let sentence = first.umount(&scratch).fails();
    assert!(sentence.contains("stay in the journal"), "{sentence}");
    assert_eq!(leases(&scratch), 1);
}

#[test]
fn what_was_not_drained_stays_held_and_its_own_state_directory_mounts_it() {
    let mut scratch = Scratch::mounted(1, &["--ship-interval", "3600"]);
    fs::write(scratch.mnt.join("only here"), "yes").expect("a mount");
    scratch.umount_now();
    // Its process has ended, on this very machine: whoever mounts hears what is not in what he mounts.
    let mut other = Place::new(&scratch, "other");
    let said = other.mount(&scratch, &[]).succeeds();
    assert!(said.contains("has ended") && said.contains("did not ship"), "{said}");
    assert!(!other.tree().contains_key("only here"));
    other.umount(&scratch).succeeds();
    let sentence = scratch.try_mount(&[]).fails();
    assert!(sentence.contains("taken over") && sentence.contains("skylog salvage"), "{sentence}");
}

#[test]
fn a_daemon_that_was_killed_and_whose_state_is_gone_is_passed_over_on_this_machine() {
    let mut scratch = Scratch::mounted(1, &["--ship-interval", "1"]);
    fs::write(scratch.mnt.join("file"), "").expect("a mount");
    scratch.kill();
    scratch.wipe();
    scratch.mount(&[]);
    scratch.umount();
    assert_eq!(leases(&scratch), 1);
}

#[test]
fn an_idle_mount_says_that_it_holds_the_filesystem_once() {
    let scratch = Scratch::mounted(1, &["--ship-interval", "1"]);
    assert_eq!(scratch.counts().of("PUT", "lease"), 1);
    fs::write(scratch.mnt.join("file"), "").expect("a mount");
    let mut first = scratch.status();
    while first["counters"]["windows_shipped"] == 0 {
        first = scratch.status();
    }
    assert_eq!(scratch.counts().of("PUT", "lease"), 1);
}

#[test]
fn a_store_that_was_away_at_the_mount_hears_who_holds_it_when_it_is_back() {
    let mut scratch = Scratch::mounted(1, &[]);
    scratch.umount();
    // The number before goes when the next one is there.
    let before = scratch.counts().of("DELETE", "lease");
    scratch.plan("refuse=1000");
    scratch.mount(&["--ship-interval", "1"]);
    scratch.plan("");
    while scratch.counts().of("DELETE", "lease") == before {
        std::thread::yield_now();
    }
    let sentence = Place::new(&scratch, "other").mount(&scratch, &[]).fails();
    assert!(sentence.contains("held by process"), "{sentence}");
}
