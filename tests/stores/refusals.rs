//! A store that cannot be used is refused with one sentence that says why, and nothing is made in it.

use super::scratch::{Scratch, words};

/// Making a filesystem fails with a sentence that has these words.
fn refuses_to_make(scratch: &Scratch, url: &str, expected: &[&str]) {
    let said = scratch.skylog(&["mkfs", url]).fails();
    for word in expected {
        assert!(said.contains(word), "{said:?} does not say {word:?}");
    }
}

#[test]
fn without_credentials_nothing_is_tried() {
    let mut scratch = Scratch::new(1);
    scratch.set_variable("AWS_ACCESS_KEY_ID", None);
    scratch.set_variable("AWS_SECRET_ACCESS_KEY", None);
    refuses_to_make(&scratch, &scratch.url, &["no keys", "neither the environment nor a profile file"]);
    assert_eq!(scratch.counts().of("", ""), 0);
}

#[test]
fn a_bucket_that_is_not_there_is_named() {
    let scratch = Scratch::new(1);
    refuses_to_make(&scratch, "s3://no-such-bucket/prefix", &["no-such-bucket"]);
}

#[test]
fn a_store_that_does_not_answer_is_named() {
    let scratch = Scratch::new(1);
    scratch.plan("refuse=1000");
    refuses_to_make(&scratch, &scratch.url, &[&scratch.url, "does not answer", "127.0.0.1"]);
    let said = scratch.try_mount(&[]).fails();
    assert!(said.contains("does not answer"), "{said}");
}

#[test]
fn a_bucket_without_a_filesystem_says_how_to_make_one() {
    let scratch = Scratch::new(1);
    let said = scratch.try_mount(&[]).fails();
    assert!(said.contains("skylog mkfs") && said.contains(&scratch.url), "{said}");
}

#[test]
fn promise_x4_a_store_that_ignores_conditional_create_is_refused() {
    let mut scratch = Scratch::new(1);
    scratch.plan("ignore-conditions=1");
    refuses_to_make(&scratch, &scratch.url, &["create an object twice"]);
    // One that stopped honouring it after the filesystem was made is noticed too, before anything is published.
    scratch.plan("");
    scratch.make();
    scratch.plan("ignore-conditions=1");
    let said = scratch.try_mount(&[]).fails();
    assert!(said.contains("create an object twice"), "{said}");
    scratch.plan("");
    scratch.mount(&[]);
    scratch.umount();
}

#[test]
fn a_filesystem_is_never_made_over_another_and_is_destroyed_whole() {
    let mut scratch = Scratch::mounted(1, &[]);
    std::fs::write(scratch.mnt.join("file"), "contents").expect("it is mounted");
    scratch.umount();
    refuses_to_make(&scratch, &scratch.url, &["already"]);
    scratch.skylog(&["destroy", "--yes", "--state", words(&scratch.state), &scratch.url]).succeeds();
    scratch.make();
    scratch.mount(&[]);
    assert_eq!(std::fs::read_dir(&scratch.mnt).expect("it is mounted").count(), 0);
    scratch.umount();
}
