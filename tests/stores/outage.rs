//! The store goes away and comes back: what goes on meanwhile, and that all is well afterwards.

use super::load::Load;
use super::scratch::{Scratch, words};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Command;

const FILES: usize = 40;
const BYTES: usize = 100_000;

#[test]
fn promise_x9_a_mount_starts_from_local_state_when_the_store_is_away_and_ships_when_it_is_back() {
    let mut scratch = Scratch::mounted(1, &[]);
    let mut load = Load::new(&scratch.mnt.join("load"), 1);
    load.fill(FILES, BYTES);
    scratch.umount_now();
    scratch.plan("refuse=1000");
    scratch.mount(&[]);
    // What was written is still in the journal.
    load.verify().expect("no store is needed");
    load.fill(FILES, BYTES);
    scratch.umount_now();
    scratch.mount(&[]);
    load.verify().expect("nor for what was written offline");
    scratch.plan("");
    scratch.umount();
    scratch.wipe();
    scratch.mount(&[]);
    assert_eq!(load.verify(), Ok(2 * FILES));
    scratch.umount();
    scratch.check();
}

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

#[test]
fn after_a_kill_in_an_outage_everything_synced_is_there() {
    let mut scratch = Scratch::mounted(1, &[]);
    scratch.plan("refuse=1000");
    let mut load = Load::new(&scratch.mnt.join("load"), 1);
    load.fill(FILES, BYTES);
    scratch.skylog(&["sync", words(&scratch.mnt)]).succeeds();
    scratch.kill();
    scratch.mount(&[]);
    assert_eq!(load.verify(), Ok(FILES));
    scratch.plan("");
    scratch.umount();
    scratch.wipe();
    scratch.mount(&[]);
    assert_eq!(load.verify(), Ok(FILES));
    scratch.umount();
    scratch.check();
}

#[test]
fn what_was_read_before_is_read_on_while_the_rest_ends_with_an_error_at_its_deadline() {
    let mut scratch = Scratch::mounted(1, &[]);
    let (seen, unseen) = (scratch.mnt.join("seen"), scratch.mnt.join("unseen"));
    let data: Vec<u8> = (0..2_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(&seen, &data).expect("a mount");
    // Larger than what is fetched ahead beside the first.
    let large: Vec<u8> = data.iter().map(|byte| !byte).cycle().take(12 * data.len()).collect();
    fs::write(&unseen, &large).expect("a mount");
    scratch.umount();
    scratch.wipe();
    scratch.mount(&["--read-timeout=5"]);
    assert!(fs::read(&seen).expect("the store is there") == data);
    assert_eq!(fs::metadata(&unseen).expect("the store is there").len(), large.len() as u64);
    scratch.plan("refuse=1000");
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| fs::read(&unseen));
        loop {
            // Not from the kernel's copy.
            let again = Command::new("dd").arg(format!("if={}", words(&seen))).args(["iflag=direct", "bs=1M"]).output();
            assert!(again.expect("dd starts").stdout == data, "a read of what is cached failed in an outage");
            if waits.is_finished() {
                break;
            }
        }
        let error = waits.join().expect("it does not panic").map(|found| found.len()).expect_err("the store is away");
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
    });
    scratch.plan("");
    assert!(fs::read(&unseen).expect("the store is back") == large);
    scratch.umount();
}
