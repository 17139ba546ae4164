//! Limits on a real mount: what programs see of them, and that removing something heals.

use super::scratch::{Scratch, skylog, words};
use nix::errno::Errno;
use nix::sys::statvfs::{Statvfs, statvfs};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1 << 20;

fn limited(options: &[&str]) -> Scratch {
    let mut scratch = Scratch::new();
    scratch.make_with(options);
    scratch.mount();
    scratch
}

fn space(scratch: &Scratch) -> Statvfs {
    statvfs(&scratch.mnt).expect("it is mounted")
}

fn set(scratch: &Scratch, setting: &str) {
    skylog(&["set", words(&scratch.mnt), setting]).succeeds();
}

fn assert_errno<T: std::fmt::Debug>(result: io::Result<T>, expected: Errno) {
    let error = result.expect_err("refused");
    assert_eq!(error.raw_os_error(), Some(expected as i32), "{error}");
}

/// Makes directories until one is refused; returns how many were made, and the refusal.
fn fill_with_directories(dir: &Path) -> (u64, io::Error) {
    for n in 0.. {
        if let Err(e) = fs::create_dir(dir.join(format!("dir-{n}"))) {
            return (n, e);
        }
    }
    unreachable!("there is a limit");
}

#[test]
fn at_the_limit_writing_is_enospc_and_removing_heals() {
    let scratch = limited(&["--limit-size", "8MiB", "--limit-inodes", "20"]);
    let big = scratch.mnt.join("big");
    let empty = space(&scratch);
    assert_eq!((empty.blocks() * empty.fragment_size(), empty.blocks_free()), (8 * MIB, 2048));
    assert_eq!((empty.files(), empty.files_free(), empty.name_max()), (20, 19, 255));

    assert_errno(fs::write(&big, vec![7; 12 << 20]), Errno::ENOSPC);
    assert_eq!(fs::metadata(&big).unwrap().len(), 8 * MIB, "it is full to the last block");
    assert_eq!((space(&scratch).blocks_free(), space(&scratch).blocks_available()), (0, 0));
    assert_errno(fs::write(scratch.mnt.join("more"), "x"), Errno::ENOSPC);
    let file = OpenOptions::new().write(true).open(&big).unwrap();
    file.write_all_at(&[8; 100_000], 12_345).expect("overwriting goes on");
    file.sync_all().expect("what was taken is kept");
    fs::rename(&big, scratch.mnt.join("large")).expect("so does renaming");
    file.set_len(4 * MIB).unwrap();
    fs::write(scratch.mnt.join("more"), vec![9; 1 << 20]).expect("there is room again");
    drop(file);
    fs::remove_file(scratch.mnt.join("large")).unwrap();
    fs::write(&big, vec![7; 7 << 20]).expect("and more");

    let (made, refusal) = fill_with_directories(&scratch.mnt);
    assert_eq!((made, refusal.raw_os_error()), (20 - 3, Some(Errno::ENOSPC as i32)));
    assert_eq!((space(&scratch).files(), space(&scratch).files_free()), (20, 0));
    fs::hard_link(&big, scratch.mnt.join("again")).expect("a name is no inode");
    fs::remove_dir(scratch.mnt.join("dir-0")).unwrap();
    fs::write(scratch.mnt.join("last"), "").expect("there is room again");
}

#[test]
fn a_quota_is_edquot_travels_with_the_filesystem_and_is_taken_away_while_mounted() {
    let mut scratch = limited(&["--limit-inodes", "5", "--on-limit", "edquot"]);
    set(&scratch, "limit-size=1MiB");
    let file = scratch.mnt.join("file");
    assert_errno(fs::write(&file, vec![7; 2 << 20]), Errno::EDQUOT);
    let (made, refusal) = fill_with_directories(&scratch.mnt);
    assert_eq!((made, refusal.raw_os_error()), (3, Some(Errno::EDQUOT as i32)));
    let status = scratch.status();
    let figures = ["used_bytes", "used_inodes", "limit_bytes", "limit_inodes"].map(|name| status[name].as_u64());
    assert_eq!(figures, [MIB, 5, MIB, 5].map(Some));
    assert_eq!(status["on_limit"], "edquot");

    // A setting is durable before `set` returns, and everything before it.
    set(&scratch, "limit-size=2MiB");
    scratch.kill();
    scratch.mount();
    assert_eq!(scratch.status()["limit_bytes"].as_u64(), Some(2 * MIB));
    assert_errno(fs::create_dir(scratch.mnt.join("another")), Errno::EDQUOT);
    set(&scratch, "on-limit=enospc");
    assert_errno(fs::create_dir(scratch.mnt.join("another")), Errno::ENOSPC);
    scratch.umount();

    // From the store alone.
    fs::remove_dir_all(scratch.root.join("store/state")).unwrap();
    scratch.mount();
    assert_errno(fs::create_dir(scratch.mnt.join("another")), Errno::ENOSPC);
    assert_eq!(space(&scratch).files_free(), 0);
    set(&scratch, "limit-inodes=none");
    set(&scratch, "limit-size=0");
    fs::create_dir(scratch.mnt.join("another")).expect("there is no limit any more");
    fs::write(&file, vec![7; 2 << 20]).expect("neither here");
    assert_eq!(scratch.status()["limit_bytes"], serde_json::Value::Null);
    let stat = space(&scratch);
    assert_eq!(stat.files() - stat.files_free(), 6, "what is used is counted all the same");
    scratch.umount();
    assert!(skylog(&["check", "--data", scratch.store()]).succeeds().contains("looked at 6 inodes"));
}

#[test]
fn a_write_across_the_limit_says_how_much_it_wrote() {
    let scratch = limited(&["--limit-size", "1MiB"]);
    let path = scratch.mnt.join("file");
    let file = fs::File::create(&path).unwrap();
    file.write_all_at(&vec![1; 700_000], 0).unwrap();
    let written = file.write_at(&vec![2; 1 << 20], 700_000).expect("a part");
    // Both parts of the block where they meet are rounded up.
    assert_eq!(700_000 + written as u64, MIB - 4096);
    assert_errno(file.write_at(&[3; 5000], 700_000 + written as u64), Errno::ENOSPC);
    assert_eq!(file.metadata().unwrap().len(), MIB - 4096);
    assert_eq!(fs::read(&path).unwrap(), [vec![1; 700_000], vec![2; written]].concat());
}

/// The kernel forgets what was removed some time after it has told the user so.
#[test]
fn what_was_just_removed_makes_room_for_the_next_at_once() {
    let scratch = limited(&["--limit-size", "1MiB", "--limit-inodes", "42"]);
    for round in 0..20 {
        let files = (0..40).map(|n| scratch.mnt.join(format!("file-{round}-{n}")));
        for file in files.clone() {
            fs::write(&file, vec![7; 25 << 10]).expect("there is room");
        }
        assert_eq!(space(&scratch).files_free(), 1);
        files.for_each(|file| fs::remove_file(file).unwrap());
        if round % 2 == 0 {
            assert_eq!((space(&scratch).files_free(), space(&scratch).blocks_free()), (41, 256), "round {round}");
        }
    }
    let held = scratch.mnt.join("held");
    let open = fs::File::create(&held).unwrap();
    open.write_all_at(&vec![7; 1 << 20], 0).unwrap();
    fs::remove_file(&held).unwrap();
    assert_errno(fs::write(scratch.mnt.join("more"), "x"), Errno::ENOSPC);
    drop(open);
}

/// The words of the line of `df` for this mount.
fn df(options: &[&str], dir: &PathBuf) -> Vec<String> {
    let output = Command::new("df").args(options).arg(dir).output().expect("df is there");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().last().expect("a line").split_whitespace().map(str::to_owned).collect()
}

#[test]
fn df_shows_what_is_used() {
    let scratch = limited(&["--limit-size", "16MiB", "--limit-inodes", "100"]);
    fs::write(scratch.mnt.join("file"), vec![7; 4 << 20]).unwrap();
    assert_eq!(df(&["-k"], &scratch.mnt)[1..5], ["16384", "4096", "12288", "25%"]);
    assert_eq!(df(&["-i"], &scratch.mnt)[1..5], ["100", "2", "98", "2%"]);
    set(&scratch, "limit-inodes=none");
    assert_eq!(df(&["-i"], &scratch.mnt)[2], "2");
}

#[test]
fn what_is_no_limit_is_refused() {
    let scratch = Scratch::new();
    for wrong in [["--limit-size", "much"], ["--limit-inodes", "-1"], ["--on-limit", "eio"]] {
        skylog(&["mkfs", wrong[0], wrong[1], scratch.store()]).fails_with(2);
    }
    let said = skylog(&["set", words(&scratch.mnt), "limit-size=much"]).fails_with(2);
    assert!(said.contains("\"much\""), "{said}");
    assert!(skylog(&["set", words(&scratch.mnt), "limit=1"]).fails_with(2).contains("limit-size=SIZE"));
}
