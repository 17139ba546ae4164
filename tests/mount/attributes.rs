//! Who may do what to a file, and what becomes of its attributes: programs see on the mount what they see on the local
//! filesystem beside it, word for word.

use super::scratch::{Scratch, skylog};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

/// A mount and a local directory, open to all.
fn beside() -> Scratch {
    let scratch = Scratch::mounted();
    fs::create_dir(scratch.root.join("local")).unwrap();
    for dir in [&scratch.root, &scratch.mnt, &scratch.root.join("local")] {
        fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
    }
    scratch
}

/// What a program prints that runs in this directory.
fn prints(dir: &Path, program: &[&str], script: &str) -> String {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).arg(script).current_dir(dir).stdin(Stdio::null());
    // Other users must be able to run what is found first.
    let output = command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C").output().unwrap();
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Shows everything there is.
const TREE: &str = "getfacl -Rnp .; getfattr -Rhd -m- .; find . -printf '%p %M %n %U %G %s %T@ %C@\\n'";

fn assert_same(program: &[&str], script: &str, lines_min: usize) {
    let mut scratch = beside();
    let local = prints(&scratch.root.join("local"), program, script);
    let mounted = prints(&scratch.mnt, program, script);
    for (n, (expected, found)) in local.lines().zip(mounted.lines()).enumerate() {
        assert_eq!(found, expected, "line {n} of {local}");
    }
    assert_eq!(mounted.lines().count(), local.lines().count());
    assert!(local.lines().count() >= lines_min, "the script does not run here: {local}");
    // What is there outlives the mount, and is as the checker demands.
    let before = prints(&scratch.mnt, &["bash", "-c"], TREE);
    scratch.umount();
    skylog(&["check", "--data", scratch.store()]).succeeds();
    scratch.mount();
    assert_eq!(prints(&scratch.mnt, &["bash", "-c"], TREE), before);
}

#[test]
fn promise_x14_lists_and_extended_attributes_are_those_of_a_local_filesystem() {
    assert_same(&["bash", "-c"], include_str!("same/lists.sh"), 150);
}

#[test]
fn privileges_go_when_they_go_on_a_local_filesystem() {
    assert_same(&["bash", "-c"], include_str!("same/privileges.sh"), 150);
}

#[test]
fn promise_x14_names_flags_of_rename_times_and_links_are_those_of_a_local_filesystem() {
    assert_same(&["python3", "-c"], include_str!("same/names.py"), 300);
}

#[test]
fn relatime_notes_reads_that_reach_the_daemon_and_other_mounts_note_none() {
    for (words, noted) in [("relatime", true), ("noatime", false), ("relatime,noatime", false), ("rw", false)] {
        let mut scratch = Scratch::new();
        scratch.make();
        scratch.mount();
        let (file, link) = (scratch.mnt.join("file"), scratch.mnt.join("link"));
        fs::write(&file, "text").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        fs::File::open(&file).unwrap().set_times(fs::FileTimes::new().set_accessed(old)).unwrap();
        scratch.umount();
        scratch.mount_with(&["-o", words]);
        fs::read(&file).unwrap();
        fs::read_link(&link).unwrap();
        fs::read_dir(&scratch.mnt).unwrap().count();
        // An access is noted after the answer, and surely when the mount is gone.
        scratch.umount();
        scratch.mount();
        assert_eq!(fs::metadata(&file).unwrap().atime() != 1000, noted, "{words}");
        for path in [&link, &scratch.mnt] {
            let times = fs::symlink_metadata(path).unwrap();
            let (read, changed) = (times.accessed().unwrap(), times.modified().unwrap());
            assert_eq!(read > changed, noted, "{words}: {path:?}");
        }
    }
}
