//! The keys of a store are in no message, no log, no file, and nowhere where other users look.

use super::scratch::{PATIENCE, Scratch, words};
use std::fs;
use std::process::Command;
use std::time::Instant;

/// What is looked for.
const MARK: &str = "sesame";
const KEYS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "sesame-id"),
    ("AWS_SECRET_ACCESS_KEY", "sesame-secret"),
    ("AWS_SESSION_TOKEN", "sesame-token"),
];

#[test]
fn promise_o_keys_are_shown_nowhere_not_even_where_requests_fail() {
    let mut scratch = Scratch::new(1);
    for (variable, key) in KEYS {
        scratch.set_variable(variable, Some(key));
    }
    scratch.plan("500=1000");
    let mut said = scratch.skylog(&["mkfs", &scratch.url]).fails();
    scratch.plan("refuse=1000");
    said += &scratch.skylog(&["mkfs", &scratch.url]).fails();
    scratch.plan("");
    said += &scratch.skylog(&["mkfs", "s3://no-such-bucket/prefix"]).fails();
    scratch.make();
    scratch.mount(&["--ship-interval", "1"]);

    // What is shipped now fails, and the error goes to the log and into the status.
    scratch.plan("500=700 cut-answer=300");
    fs::write(scratch.mnt.join("file"), [7; 300_000]).expect("it is mounted");
    let begin = Instant::now();
    while scratch.status()["last_error"].is_null() {
        assert!(begin.elapsed() < PATIENCE, "no request fails: {}", scratch.status());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    said += &scratch.status().to_string();
    for command in ["status", "metrics"] {
        said += &scratch.skylog(&[command, words(&scratch.mnt)]).succeeds();
    }
    let process = format!("/proc/{}/cmdline", scratch.status()["pid"]);
    said += &String::from_utf8_lossy(&fs::read(process).expect("it is alive"));
    assert!(!said.contains(MARK), "{said}");
    scratch.plan("");
    scratch.umount();

    assert!(!scratch.log().is_empty(), "nothing was logged");
    let found = Command::new("grep").args(["-rl", MARK, words(&scratch.root)]).output().expect("grep runs");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}
