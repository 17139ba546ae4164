//! The store goes away and comes back: what goes on meanwhile, and that all is well afterwards.

use super::load::Load;
use super::scratch::{Scratch, words};
use std::io::{BufRead, BufReader, Read};

const FILES: usize = 40;
const BYTES: usize = 100_000;

#[test]
fn promise_x10_umount_now_in_an_outage_says_what_stays() {
    let mut scratch = Scratch::mounted(1, &[]);
    scratch.plan("refuse=1000");
    let mut load = Load::new(&scratch.mnt.join("load"), 1);
    load.fill(FILES, BYTES);
    let said = scratch.umount_now();
    assert!(said.contains("stay in the journal"), "{said}");
    scratch.plan("");
    scratch.mount(&[]);
    assert_eq!(load.verify(), Ok(FILES));
    scratch.umount();
    scratch.check();
}

#[test]
fn promise_x10_umount_waits_out_an_outage_and_says_so() {
    let mut scratch = Scratch::mounted(1, &[]);
    scratch.plan("refuse=1000");
    let mut load = Load::new(&scratch.mnt.join("load"), 1);
    load.fill(FILES, BYTES);
    let arguments = ["umount", words(&scratch.mnt)];
    let mut umount = scratch.start(&arguments);
    let mut said = BufReader::new(umount.stderr.take().expect("it is piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("text");
    assert!(
        line.contains("store") && line.contains("--now"),
        "{line:?} does not say what it waits for, and the way out"
    );
    assert!(umount.try_wait().expect("it is our child").is_none(), "it did not wait");
    scratch.plan("");
    scratch.ends(umount, &arguments).succeeds();
    said.read_to_string(&mut line).expect("text");
    scratch.gone();
    scratch.wipe();
    scratch.mount(&[]);
    assert_eq!(load.verify(), Ok(FILES));
    scratch.umount();
}
