//! Handles that outlive what they were opened in: a daemon that was killed, a writer that was taken over.

use super::scratch::{Scratch, skylog, words};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A file and a folder, open, with everything in them synced.
struct Open {
    file: File,
    folder: File,
}

impl Open {
    fn of(scratch: &Scratch) -> Open {
        let folder = scratch.mnt.join("folder");
        fs::create_dir(&folder).unwrap();
        let mut file = OpenOptions::new().create_new(true).read(true).write(true).open(folder.join("file")).unwrap();
        file.write_all(b"synced").unwrap();
        let open = Open { file, folder: File::open(folder).unwrap() };
        assert!(open.syncs().iter().all(Result::is_ok), "{:?}", open.syncs());
        open
    }

    /// fsync and fdatasync of the file, fsync of the folder.
    fn syncs(&self) -> [io::Result<()>; 3] {
        [self.file.sync_all(), self.file.sync_data(), self.folder.sync_all()]
    }
}

#[test]
fn promise_x1_a_handle_of_a_killed_daemon_never_syncs_again() {
    let mut scratch = Scratch::mounted();
    let old = Open::of(&scratch);
    scratch.kill();
    let fail = |when: &str| {
        for synced in old.syncs() {
            synced.expect_err(when);
        }
    };
    fail("the daemon is dead");
    scratch.mount();
    fail("it is another daemon");
    (&old.file).write_all(b"lost").expect_err("it is another daemon");
    fail("it is another daemon");
    let new = File::open(scratch.mnt.join("folder/file")).unwrap();
    new.sync_all().expect("this one is of the living");
    assert_eq!(fs::read(scratch.mnt.join("folder/file")).unwrap(), b"synced");
}

/// A writer that another mount has taken over from, and that mount.
fn overtaken(options: &[&str], open: impl FnOnce(&Scratch) -> Open) -> (Scratch, Open, Other) {
    let mut scratch = Scratch::new();
    scratch.make();
    scratch.mount_with(options);
    let open = open(&scratch);
    let other = Other(scratch.root.join("other"));
    fs::create_dir(&other.0).unwrap();
    // As from a machine that shares the folder but not its locks.
    fs::remove_file(scratch.root.join("store/lock")).unwrap();
    let state = scratch.root.join("other-state");
    let elsewhere = ["--journal-size", "32MiB", "--state", words(&state), scratch.store(), words(&other.0)];
    skylog(&[&["mount", "--takeover"], &elsewhere[..]].concat()).succeeds();
    (scratch, open, other)
}

/// The same, when the writer knows it.
fn fenced(open: impl FnOnce(&Scratch) -> Open) -> (Scratch, Open, Other) {
    let (scratch, open, other) = overtaken(&["--ship-interval", "1"], open);
    // It may know already.
    fs::write(scratch.mnt.join("too late"), "").ok();
    let begin = Instant::now();
    while scratch.status()["state"] != "fenced" {
        assert!(begin.elapsed() < Duration::from_secs(60), "{}", scratch.status());
        std::thread::sleep(Duration::from_millis(20));
    }
    (scratch, open, other)
}

/// A mount that goes with the test.
struct Other(PathBuf);

impl Drop for Other {
    fn drop(&mut self) {
        // It may be gone already.
        std::process::Command::new(env!("CARGO_BIN_EXE_skylog")).args(["umount", words(&self.0)]).output().ok();
    }
}

#[test]
fn promise_x1_a_handle_of_a_fenced_writer_never_syncs_again_also_what_was_durable_before() {
    let (scratch, open, _other) = fenced(Open::of);
    for synced in open.syncs() {
        assert_eq!(synced.expect_err("another writer has taken over").raw_os_error(), Some(libc::EIO));
    }
    let said = skylog(&["sync", words(&scratch.mnt)]).fails();
    assert!(said.contains("taken over"), "{said}");
    let refused = (&open.file).write_all(b"lost").expect_err("it is read-only");
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    assert_eq!(fs::read(scratch.mnt.join("folder/file")).unwrap(), b"synced", "reading goes on");
}

#[test]
fn promise_x1_an_fsync_that_asks_the_store_fails_from_the_takeover_on() {
    let (scratch, open, _other) = overtaken(&["--durability", "store", "--ship-interval", "3600"], Open::of);
    (&open.file).write_all(b"too late").expect("it does not know yet");
    for synced in open.syncs() {
        assert_eq!(synced.expect_err("another writer has taken over").raw_os_error(), Some(libc::EIO));
    }
    assert_eq!(scratch.status()["state"], "fenced");
}

#[test]
fn a_fenced_writer_says_who_took_over_and_when_and_keeps_its_journal() {
    let (mut scratch, open, other) = fenced(Open::of);
    drop(open);
    let status = scratch.status();
    let reason = status["last_error"].as_str().expect("a reason").to_owned();
    for words in ["another writer has taken over", &format!("mounted at {}", other.0.display()), ", at 20"] {
        assert!(reason.contains(words), "no {words:?} in {reason:?}");
    }
    let log = fs::read_to_string(scratch.root.join("store/state/skylog.log")).unwrap();
    assert!(log.contains(&format!("{reason}; read-only from now on")), "{log}");
    let said = skylog(&["umount", "--now", words(&scratch.mnt)]).succeeds();
    assert!(said.contains("stay in the journal") && said.contains("skylog salvage"), "{said}");
    scratch.gone();
    assert!(fs::read_dir(scratch.root.join("store/state/journal")).unwrap().next().is_some(), "the journal is gone");
}
