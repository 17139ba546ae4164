//! A store that is gone for a while: a folder that was moved away. What waits, for how long, and what lets it go.

use super::scratch::{Scratch, skylog, words};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const BYTES: usize = 3 << 20;

fn contents(seed: u8) -> Vec<u8> {
    (0..BYTES).map(|n| (n % 253) as u8 ^ seed).collect()
}

/// A mount whose state directory does not lie in its store.
fn mounted(options: &[&str]) -> Scratch {
    let mut scratch = Scratch::new();
    scratch.make();
    mount(&mut scratch, options);
    scratch
}

fn mount(scratch: &mut Scratch, options: &[&str]) {
    let state = scratch.root.join("state");
    scratch.mount_with(&[&["--state", words(&state)], options].concat());
}

fn set_away(scratch: &Scratch, away: bool) {
    let (here, there) = (scratch.root.join("store"), scratch.root.join("store-aside"));
    let (from, to) = if away { (here, there) } else { (there, here) };
    fs::rename(from, to).expect("the store is moved");
}

/// Asks for the status until it is like this.
fn until(scratch: &Scratch, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..1500 {
        let status = scratch.status();
        if is(&status) {
            return status;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("never {what}: {}", scratch.status());
}

/// A program that writes until it is told that there is no room.
fn writer(scratch: &Scratch) -> Child {
    let mut dd = Command::new("dd");
    dd.args(["if=/dev/zero", "bs=64K", "count=4096"]).arg(format!("of={}", words(&scratch.mnt.join("much"))));
    dd.stderr(Stdio::piped()).spawn().expect("dd starts")
}

fn no_space(writer: Child) {
    let output = writer.wait_with_output().expect("it is our child");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("No space left on device"), "{said}");
}

#[test]
fn promise_x10_umount_waits_for_a_store_that_is_gone_says_why_and_ends_when_it_is_back() {
    let mut scratch = mounted(&[]);
    fs::write(scratch.mnt.join("file"), contents(1)).unwrap();
    set_away(&scratch, true);
    let mut command = Command::new(env!("CARGO_BIN_EXE_skylog"));
    let mut umount = command.args(["umount", words(&scratch.mnt)]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(umount.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("waiting: the store does not answer: ") && said.contains("umount --now"), "{said}");
    let state = scratch.status()["store_state"].as_str().unwrap().to_owned();
    assert!(state.starts_with("away since "), "{state}");
    assert_eq!(fs::read(scratch.mnt.join("file")).unwrap(), contents(1), "it works on");
    set_away(&scratch, false);
    assert!(umount.wait().unwrap().success());
    scratch.gone();
    fs::remove_dir_all(scratch.root.join("state")).unwrap();
    mount(&mut scratch, &[]);
    assert_eq!(fs::read(scratch.mnt.join("file")).unwrap(), contents(1));
    scratch.umount();
}

#[test]
fn promise_x10_umount_now_of_a_store_that_is_gone_says_how_much_stays_and_where() {
    let mut scratch = mounted(&[]);
    fs::write(scratch.mnt.join("file"), contents(2)).unwrap();
    set_away(&scratch, true);
    let said = skylog(&["umount", "--now", words(&scratch.mnt)]).succeeds();
    assert!(said.contains("stay in the journal (") && said.contains(words(&scratch.root.join("state"))), "{said}");
    scratch.gone();
    set_away(&scratch, false);
    mount(&mut scratch, &[]);
    assert_eq!(fs::read(scratch.mnt.join("file")).unwrap(), contents(2));
    scratch.umount();
}

#[test]
fn promise_x10_umount_now_lets_those_go_who_wait_for_room() {
    let mut scratch = mounted(&[]);
    set_away(&scratch, true);
    let writer = writer(&scratch);
    let status = until(&scratch, "full", |status| status["pressure"] == "full");
    assert!(
        status["pressure_reason"].as_str().is_some_and(|why| why.contains("the store does not answer")),
        "{status}"
    );
    skylog(&["umount", "--now", words(&scratch.mnt)]).succeeds();
    no_space(writer);
    scratch.gone();
    set_away(&scratch, false);
    mount(&mut scratch, &[]);
    assert!(fs::metadata(scratch.mnt.join("much")).unwrap().len() > 0);
    scratch.umount();
    skylog(&["check", "--data", "--state", words(&scratch.root.join("state")), scratch.store()]).succeeds();
}

#[test]
fn promise_s10_a_writer_waits_for_a_full_journal_and_goes_on_and_is_refused_if_that_is_wanted() {
    let mut scratch = mounted(&[]);
    fs::write(scratch.mnt.join("doomed"), "soon gone").unwrap();
    set_away(&scratch, true);
    let waits = writer(&scratch);
    until(&scratch, "full", |status| status["pressure"] == "full");
    skylog(&["sync", words(&scratch.mnt)]).succeeds();
    fs::remove_file(scratch.mnt.join("doomed")).expect("what frees does not wait");
    skylog(&["set", words(&scratch.mnt), "when-full=enospc"]).succeeds();
    no_space(waits);
    set_away(&scratch, false);
    until(&scratch, "emptied", |status| status["pressure"] == "none" && status["store_state"] == "ok");
    fs::write(scratch.mnt.join("file"), contents(3)).expect("there is room again");
    skylog(&["set", words(&scratch.mnt), "when-full=wait"]).succeeds();
    set_away(&scratch, true);
    let mut waits = writer(&scratch);
    until(&scratch, "full", |status| status["pressure"] == "full");
    assert!(waits.try_wait().unwrap().is_none(), "it waits");
    set_away(&scratch, false);
    assert!(waits.wait().unwrap().success());
    assert_eq!(fs::metadata(scratch.mnt.join("much")).unwrap().len(), 4096 << 16);
    assert_eq!(fs::read(scratch.mnt.join("file")).unwrap(), contents(3));
    scratch.umount();
}

#[test]
fn promise_s7_a_read_of_a_store_that_is_gone_fails_at_its_deadline_and_the_rest_goes_on() {
    let mut scratch = mounted(&[]);
    fs::write(scratch.mnt.join("far"), contents(4)).unwrap();
    scratch.umount();
    fs::remove_dir_all(scratch.root.join("state")).unwrap();
    mount(&mut scratch, &["--read-timeout", "1"]);
    fs::write(scratch.mnt.join("near"), contents(5)).unwrap();
    set_away(&scratch, true);
    let error = fs::read(scratch.mnt.join("far")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    fs::write(scratch.mnt.join("nearer"), contents(6)).unwrap();
    assert_eq!(fs::read(scratch.mnt.join("near")).unwrap(), contents(5));
    assert!(scratch.status()["counters"]["timed_out"].as_u64().unwrap() > 0);
    set_away(&scratch, false);
    until(&scratch, "back", |status| status["store_state"] == "ok");
    assert_eq!(fs::read(scratch.mnt.join("far")).unwrap(), contents(4));
    scratch.umount();
}

#[test]
fn promise_x10_sigterm_ends_the_daemon_though_the_store_is_gone_and_loses_nothing() {
    let mut scratch = mounted(&[]);
    fs::write(scratch.mnt.join("file"), "kept").unwrap();
    set_away(&scratch, true);
    let waits = writer(&scratch);
    until(&scratch, "full", |status| status["pressure"] == "full");
    scratch.signal(Signal::SIGTERM);
    no_space(waits);
    scratch.gone();
    set_away(&scratch, false);
    mount(&mut scratch, &[]);
    assert_eq!(fs::read(scratch.mnt.join("file")).unwrap(), b"kept");
    scratch.umount();
}
