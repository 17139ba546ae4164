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
fn a_store_that_does_not_answer_is_named() {
    let scratch = Scratch::new(1);
    scratch.plan("refuse=1000");
    refuses_to_make(&scratch, &scratch.url, &[&scratch.proxy.address().to_string()]);
    let said = scratch.try_mount(&[]).fails();
    assert!(said.contains(&scratch.proxy.address().to_string()), "{said}");
}

#[test]
fn a_bucket_without_a_filesystem_says_how_to_make_one() {
    let scratch = Scratch::new(1);
    let said = scratch.try_mount(&[]).fails();
    assert!(said.contains("skylog mkfs") && said.contains(&scratch.url), "{said}");
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
