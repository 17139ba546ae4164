//! What the words after `-o` do: whose the files look, and the kernel's write-back cache.

use super::scratch::{Scratch, skylog, words};
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

const SOMEBODY: u32 = 4242;

fn mounted_with(options: &str) -> Scratch {
    let mut scratch = Scratch::new();
    scratch.make();
    scratch.mount_with(&["-o", options]);
    scratch
}

/// Whether a user without any rights of root can do it.
fn may(uid: u32, command: &[&str]) -> bool {
    let id = uid.to_string();
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).args(command);
    setpriv.output().unwrap().status.success()
}

#[test]
fn uid_gid_and_umask_say_how_all_files_look_and_who_may() {
    let mut scratch = mounted_with(&format!("uid={SOMEBODY},gid=7,umask=027"));
    let at = |name: &str| scratch.mnt.join(name);
    let file = at("file");
    fs::write(&file, "x").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    fs::create_dir(at("dir")).unwrap();
    for path in [&scratch.mnt, &file, &at("dir")] {
        let seen = fs::metadata(path).unwrap();
        assert_eq!((seen.uid(), seen.gid(), seen.mode() & 0o027), (SOMEBODY, 7, 0), "{}", path.display());
    }
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
    // From a listing with attributes as well.
    let listed = fs::read_dir(&scratch.mnt).unwrap().map(|entry| entry.unwrap().metadata().unwrap().uid());
    assert!(listed.collect::<Vec<_>>().iter().all(|uid| *uid == SOMEBODY));

    assert!(may(SOMEBODY, &["dd", "if=/dev/null", &format!("of={}", words(&at("dir/theirs")))]));
    assert!(!may(SOMEBODY + 1, &["cat", words(&file)]), "the umask hides it from others");

    fs::write(at("listed"), "x").unwrap();
    let list = format!("u:{}:r", SOMEBODY + 1);
    assert!(Command::new("setfacl").args(["-m", &list, words(&at("listed"))]).status().unwrap().success());
    assert!(!may(SOMEBODY + 1, &["cat", words(&at("listed"))]), "nor does a list open it");

    chown(&file, Some(SOMEBODY), Some(7)).unwrap();
    let refused = chown(&file, Some(SOMEBODY + 1), None).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    scratch.umount();
    scratch.mount();
    let kept = fs::metadata(scratch.mnt.join("file")).unwrap();
    assert_eq!((kept.uid(), kept.mode() & 0o777), (0, 0o666), "what is kept did not change by being shown");
    assert_eq!(fs::metadata(scratch.mnt.join("dir/theirs")).unwrap().uid(), SOMEBODY);
}

#[test]
fn a_mount_of_root_is_open_to_all_as_far_as_modes_allow() {
    let scratch = Scratch::mounted();
    fs::write(scratch.mnt.join("open"), "x").unwrap();
    fs::write(scratch.mnt.join("closed"), "x").unwrap();
    fs::set_permissions(scratch.mnt.join("closed"), fs::Permissions::from_mode(0o600)).unwrap();
    // The scratch folder itself is closed to others: it is entered by root first.
    let inside = |name: &str| {
        let run =
            format!("cd '{}' && setpriv --reuid 4242 --regid 4242 --clear-groups cat {name}", words(&scratch.mnt));
        Command::new("sh").args(["-c", &run]).output().unwrap().status.success()
    };
    assert!(inside("open") && !inside("closed"));
}

#[test]
fn with_writeback_fsync_sends_all_first_and_times_stay() {
    let mut scratch = mounted_with("writeback");
    let path = scratch.mnt.join("file");
    let mut file = File::create(&path).unwrap();
    for n in 0..300u32 {
        file.write_all(&[n as u8; 1000]).unwrap();
    }
    file.sync_all().unwrap();
    let seen = file.metadata().unwrap();
    scratch.kill();
    drop(file);
    scratch.mount_with(&["-o", "writeback"]);
    let kept = fs::metadata(&path).unwrap();
    assert_eq!((kept.len(), kept.mtime(), kept.mtime_nsec()), (300_000, seen.mtime(), seen.mtime_nsec()));
    let contents = fs::read(&path).unwrap();
    assert!(contents.chunks(1000).enumerate().all(|(n, chunk)| chunk.iter().all(|byte| *byte == n as u8)));

    // What open files hold back, `skylog sync` asks for.
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"synced").unwrap();
    skylog(&["sync", words(&scratch.mnt)]).succeeds();
    scratch.kill();
    drop(file);
    scratch.mount_with(&["-o", "writeback"]);
    assert!(fs::read(&path).unwrap().ends_with(b"synced"));
    OpenOptions::new().write(true).open(&path).unwrap().set_len(300_000).unwrap();

    // Part of a page through a handle that cannot read, an appended line, and times set by hand.
    scratch.umount();
    scratch.mount_with(&["-o", "writeback"]);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"patch", 70_000).unwrap();
    drop(file);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"the end").unwrap();
    let then = UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    file.set_times(FileTimes::new().set_modified(then)).unwrap();
    drop(file);
    scratch.umount();
    skylog(&["check", "--data", scratch.store()]).succeeds();
    scratch.mount();
    let contents = fs::read(&path).unwrap();
    assert_eq!((&contents[70_000..70_006], &contents[300_000..]), (&b"patchF"[..], &b"the end"[..]));
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), then);
}

#[test]
fn with_writeback_what_is_neither_closed_nor_synced_may_be_lost() {
    let lost = |options: &str| {
        let mut scratch = mounted_with(options);
        let mut file = File::create(scratch.mnt.join("file")).unwrap();
        file.sync_all().unwrap();
        file.write_all(b"acknowledged").unwrap();
        scratch.kill();
        drop(file);
        scratch.mount();
        fs::read(scratch.mnt.join("file")).unwrap().is_empty()
    };
    assert!(!lost("sync=always"));
    assert!(lost("sync=always,writeback"), "the kernel holds the write back");
}

#[test]
fn a_journal_may_be_allowed_more_than_the_disk_has_and_takes_only_what_it_needs() {
    let mut scratch = Scratch::new();
    scratch.make();
    skylog(&["mount", "--journal-size", "1024TiB", scratch.store(), words(&scratch.mnt)]).succeeds();
    scratch.adopt();
    fs::write(scratch.mnt.join("file"), "text").unwrap();
    assert_eq!(scratch.status()["last_error"], serde_json::Value::Null);
    scratch.umount();
    let taken = Command::new("du").args(["-sm", words(&scratch.root.join("store"))]).output().unwrap();
    let taken: u64 = String::from_utf8_lossy(&taken.stdout).split_whitespace().next().unwrap().parse().unwrap();
    assert!(taken < 512, "{taken} MiB are taken for a file of 4 bytes");
}

#[test]
fn a_store_on_this_machine_has_cache_files_if_asked_and_destroy_takes_them_away() {
    let mut scratch = Scratch::mounted();
    assert!(scratch.status()["cache"].is_null(), "it has none by itself");
    scratch.umount();
    scratch.mount_with(&["-o", "cache_size=64MiB,cache_free=0"]);
    assert_eq!(scratch.status()["cache"]["limit_bytes"], 64 << 20);
    let state = scratch.root.join("store/state");
    assert!(state.join("cache/filesystem").exists());
    fs::write(scratch.mnt.join("file"), "x").unwrap();
    let remount = ["mount", "-o", "remount,cache_size=32MiB", scratch.store(), words(&scratch.mnt)];
    assert!(skylog(&remount).fails_with(2).contains("cache_size cannot change"));
    scratch.umount();

    let elsewhere = scratch.root.join("copies");
    scratch.mount_with(&["--cache-size", "16MiB", "--cache-dir", words(&elsewhere)]);
    let uuid = scratch.status()["uuid"].as_str().unwrap().to_owned();
    assert!(elsewhere.join(uuid).join("cache/filesystem").exists());
    assert_eq!(fs::read(scratch.mnt.join("file")).unwrap(), b"x");
    scratch.umount();
    skylog(&["destroy", "--yes", scratch.store()]).succeeds();
    assert!(!state.exists());
}
