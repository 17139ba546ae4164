//! `--durability store` through the kernel.

use super::scratch::{Scratch, words};
use std::fs::{self, File};
use std::io::Write;

#[test]
fn an_fsync_is_in_the_store_or_fails() {
    let mut scratch = Scratch::mounted(1, &["--durability", "store", "-o", "read_timeout=2"]);
    let mut file = File::create(scratch.mnt.join("file")).expect("made");
    file.write_all(b"first").expect("written");
    file.sync_all().expect("stored");
    let before = scratch.counts();
    file.write_all(b"second").expect("written");
    file.sync_all().expect("stored");
    let status = scratch.status();
    assert_eq!(status["durability"], "store");
    assert_eq!(status["waiting_fsyncs"], 0);
    assert_eq!(status["counters"]["log_increments"], 1);
    assert_eq!(scratch.counts().of("PUT", "gen") - before.of("PUT", "gen"), 1, "one request for one fsync");

    scratch.plan("refuse=1000");
    file.write_all(b"third").expect("a store that is away keeps nobody from writing");
    let error = file.sync_all().expect_err("the store cannot have it");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    // This machine has it all the same, and says so to whoever asks for no more.
    scratch.skylog(&["set", words(&scratch.mnt), "durability=local"]).succeeds();
    file.sync_all().expect("durable here");
    scratch.skylog(&["set", words(&scratch.mnt), "durability=store"]).succeeds();
    scratch.plan("");
    file.sync_all().expect("stored");
    scratch.skylog(&["sync", words(&scratch.mnt)]).succeeds();
    drop(file);
    scratch.umount();
    scratch.wipe();
    scratch.mount(&["-o", "durability=local"]);
    assert_eq!(fs::read(scratch.mnt.join("file")).expect("read"), b"firstsecondthird");
    assert_eq!(scratch.status()["durability"], "local");
    scratch.umount();
    scratch.check();
}
