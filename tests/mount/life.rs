//! The life of a mount: files, unmount and mount, kill, takeover, status.

use super::scratch::{Scratch, skylog, words};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn pattern(bytes: usize, seed: u8) -> Vec<u8> {
    (0..bytes).map(|n| (n % 251) as u8 ^ seed).collect()
}

/// A small tree with one of everything.
fn plant(scratch: &Scratch) {
    let at = |name: &str| scratch.mnt.join(name);
    fs::create_dir_all(at("dir/below")).unwrap();
    fs::write(at("tiny"), "tiny").unwrap();
    fs::write(at("dir/big"), pattern(3 << 20, 1)).unwrap();
    fs::write(at("dir/below/odd"), pattern(70_001, 2)).unwrap();
    symlink("dir/big", at("link")).unwrap();
    fs::hard_link(at("tiny"), at("dir/again")).unwrap();
    fs::set_permissions(at("tiny"), fs::Permissions::from_mode(0o640)).unwrap();
    let sparse = File::create(at("sparse")).unwrap();
    sparse.write_all_at(b"end", 10 << 20).unwrap();
}

fn verify(scratch: &Scratch) {
    let at = |name: &str| scratch.mnt.join(name);
    assert_eq!(fs::read(at("tiny")).unwrap(), b"tiny");
    assert_eq!(fs::read(at("link")).unwrap(), pattern(3 << 20, 1));
    assert_eq!(fs::read(at("dir/below/odd")).unwrap(), pattern(70_001, 2));
    assert_eq!(fs::read_link(at("link")).unwrap().to_str(), Some("dir/big"));
    let tiny = fs::metadata(at("tiny")).unwrap();
    assert_eq!((tiny.nlink(), tiny.mode() & 0o7777), (2, 0o640));
    assert_eq!(tiny.ino(), fs::metadata(at("dir/again")).unwrap().ino());
    assert_eq!(fs::metadata(at("dir")).unwrap().nlink(), 3);
    let sparse = fs::read(at("sparse")).unwrap();
    assert_eq!((sparse.len(), &sparse[10 << 20..]), ((10 << 20) + 3, &b"end"[..]));
    assert!(sparse[..10 << 20].iter().all(|b| *b == 0));
    let mut names: Vec<_> = fs::read_dir(&scratch.mnt).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["dir", "link", "sparse", "tiny"]);
}

#[test]
fn files_behave_like_files() {
    let scratch = Scratch::mounted();
    let at = |name: &str| scratch.mnt.join(name);
    plant(&scratch);
    verify(&scratch);

    let mut file = OpenOptions::new().read(true).write(true).open(at("dir/big")).unwrap();
    file.write_all_at(b"patch", 65_534).unwrap();
    file.set_len(100_000).unwrap();
    let mut seen = Vec::new();
    file.seek(SeekFrom::Start(65_530)).unwrap();
    file.read_to_end(&mut seen).unwrap();
    assert_eq!(&seen[4..9], b"patch");
    assert_eq!(seen.len(), 100_000 - 65_530);

    fs::rename(at("dir/big"), at("dir/below/odd")).unwrap();
    assert_eq!(fs::metadata(at("dir/below/odd")).unwrap().len(), 100_000);
    assert_eq!(fs::metadata(at("dir/big")).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(fs::remove_dir(at("dir/below")).is_err(), "it is not empty");
    fs::remove_dir_all(at("dir")).unwrap();
    assert_eq!(fs::metadata(at("tiny")).unwrap().nlink(), 1);
}

#[test]
fn store_and_state_are_for_their_owner_alone() {
    let mut scratch = Scratch::mounted();
    plant(&scratch);
    fs::write(scratch.mnt.join("open to all"), "x").unwrap();
    assert_eq!(fs::metadata(scratch.mnt.join("open to all")).unwrap().mode() & 0o777, 0o644, "the user's own umask");
    scratch.umount();
    let mut folders = vec![scratch.root.join("store")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(|e| e.unwrap()) {
            let found = entry.metadata().unwrap();
            assert_eq!(found.mode() & 0o077, 0, "{} has mode {:o}", entry.path().display(), found.mode());
            folders.extend(found.is_dir().then(|| entry.path()));
        }
    }
}

#[test]
fn an_unlinked_file_lives_until_it_is_closed() {
    let scratch = Scratch::mounted();
    let path = scratch.mnt.join("file");
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all(&pattern(200_000, 3)).unwrap();
    fs::remove_file(&path).unwrap();
    let mut seen = vec![0; 200_000];
    file.read_exact_at(&mut seen, 0).unwrap();
    assert_eq!(seen, pattern(200_000, 3));
    assert_eq!(file.metadata().unwrap().nlink(), 0);
}

#[test]
fn large_directories_list_every_name_once() {
    let scratch = Scratch::mounted();
    let dir = scratch.mnt.join("many");
    fs::create_dir(&dir).unwrap();
    for n in 0..3000 {
        File::create(dir.join(format!("a name of some length, number {n}"))).unwrap();
    }
    let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3000);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 3000);
}

#[test]
fn what_fuse_cannot_carry_says_so() {
    let scratch = Scratch::mounted();
    let path = scratch.mnt.join("file");
    fs::write(&path, pattern(10_000, 0)).unwrap();
    let output = Command::new("fallocate").args(["--collapse-range", "-l", "4096"]).arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).to_string();
    assert!(!output.status.success() && said.contains("support"), "{said}");
}

#[test]
fn everything_is_there_after_unmount_and_mount() {
    let mut scratch = Scratch::mounted();
    plant(&scratch);
    scratch.umount();
    assert!(fs::read_dir(&scratch.mnt).unwrap().next().is_none(), "the mount point is bare");
    scratch.mount();
    verify(&scratch);
    scratch.umount();
    let unread = "contents of files were not read";
    let said = skylog(&["check", scratch.store()]).succeeds();
    assert!(said.contains(unread) && said.contains("--data verifies them"), "{said}");
    let said = skylog(&["check", "--data", scratch.store()]).succeeds();
    assert!(!said.contains(unread), "{said}");
}

#[test]
fn everything_is_there_from_the_store_alone() {
    let mut scratch = Scratch::mounted();
    plant(&scratch);
    scratch.umount();
    fs::remove_dir_all(scratch.root.join("store/state")).unwrap();
    scratch.mount();
    verify(&scratch);
    fs::write(scratch.mnt.join("new"), "after the takeover").unwrap();
    scratch.umount();
    skylog(&["check", "--data", scratch.store()]).succeeds();
}

#[test]
fn promise_g10_a_second_mount_is_kept_out_and_the_owner_named() {
    let scratch = Scratch::mounted();
    let other = scratch.root.join("other");
    fs::create_dir(&other).unwrap();
    let said = skylog(&["mount", scratch.store(), words(&other)]).fails();
    assert!(said.contains(&format!("process {}", scratch.pid())) && said.contains(words(&scratch.mnt)), "{said}");
    let said = skylog(&["break-lock", scratch.store()]).fails();
    assert!(said.contains("in use"), "{said}");
    let said = skylog(&["destroy", "--yes", scratch.store()]).fails();
    assert!(said.contains("in use"), "{said}");
    let said = skylog(&["check", scratch.store()]).fails();
    assert!(said.contains("in use"), "{said}");
    assert!(scratch.root.join("store/skylog.json").exists());
}

#[test]
fn promise_g10_another_state_directory_is_no_way_around_the_lock() {
    let scratch = Scratch::mounted();
    let (other, state) = (scratch.root.join("other"), scratch.root.join("other-state"));
    fs::create_dir(&other).unwrap();
    let elsewhere = ["--state", words(&state), scratch.store()];
    let said = skylog(&[&["mount"], &elsewhere[..], &[words(&other)]].concat()).fails();
    assert!(said.contains(&format!("process {}", scratch.pid())) && said.contains(words(&scratch.mnt)), "{said}");
    assert!(!state.exists(), "the refused mount left a state directory");
    fs::write(scratch.mnt.join("file"), "still the owner").unwrap();
    skylog(&["sync", words(&scratch.mnt)]).succeeds();
}

#[test]
fn a_volume_that_was_taken_over_can_be_unmounted() {
    let mut scratch = Scratch::mounted();
    let (other, state) = (scratch.root.join("other"), scratch.root.join("other-state"));
    fs::create_dir(&other).unwrap();
    // As from a machine that shares the folder but not its locks.
    fs::remove_file(scratch.root.join("store/lock")).unwrap();
    let elsewhere = ["--journal-size", "32MiB", "--state", words(&state), scratch.store(), words(&other)];
    let said = skylog(&[&["mount"], &elsewhere[..]].concat()).fails();
    assert!(said.contains(&format!("process {}", scratch.pid())) && said.contains("--takeover"), "{said}");
    skylog(&[&["mount", "--takeover"], &elsewhere[..]].concat()).succeeds();
    fs::write(scratch.mnt.join("file"), "too late").unwrap();
    let said = skylog(&["umount", words(&scratch.mnt)]).fails();
    let salvage = format!("skylog salvage {} OUT", words(&scratch.root.join("store/state")));
    assert!(said.contains("stay in the journal") && said.contains(&salvage), "{said}");
    assert!(said.contains(&format!("mounted at {}", words(&other))), "{said}");
    scratch.gone();
    // The lock of the folder is that of the other by now.
    fs::remove_file(scratch.root.join("store/lock")).unwrap();
    let said = skylog(&["mount", "--takeover", scratch.store(), words(&scratch.mnt)]).fails();
    assert!(said.contains("taken over") && said.contains(&salvage) && said.contains("--state"), "{said}");
    skylog(&["umount", words(&other)]).succeeds();
    skylog(&["check", "--data", "--state", words(&state), scratch.store()]).succeeds();
}

#[test]
fn promise_g10_break_lock_asks_about_an_owner_on_another_machine() {
    let scratch = Scratch::new();
    scratch.make();
    let lock = scratch.root.join("store/lock");
    fs::write(&lock, "host=elsewhere\nboot=other\npid=1\nstarted=1\nmount=/far").unwrap();
    let said = skylog(&["mount", scratch.store(), words(&scratch.mnt)]).fails();
    assert!(said.contains("process 1 on elsewhere, mounted at /far"), "{said}");
    skylog(&["break-lock", scratch.store()]).fails_after_asking();
    assert_ne!(fs::read(&lock).unwrap(), b"");
    let said = skylog(&["break-lock", "--yes", scratch.store()]).succeeds();
    assert!(said.contains("broke the lock of process 1 on elsewhere"), "{said}");
    skylog(&["check", "--data", scratch.store()]).succeeds();
}

#[test]
fn what_was_synced_survives_kill_9() {
    let mut scratch = Scratch::mounted();
    plant(&scratch);
    skylog(&["sync", words(&scratch.mnt)]).succeeds();
    fs::write(scratch.mnt.join("unsynced"), "may be lost").unwrap();
    scratch.kill();
    assert!(fs::read_dir(&scratch.mnt).is_err(), "the mount is dead");
    scratch.mount();
    fs::remove_file(scratch.mnt.join("unsynced")).ok();
    verify(&scratch);
    scratch.umount();
    skylog(&["check", "--data", scratch.store()]).succeeds();
}

#[test]
fn promise_r6_under_always_every_change_survives_kill_9() {
    let mut scratch = Scratch::new();
    scratch.make();
    scratch.mount_with(&["-o", "sync=always"]);
    plant(&scratch);
    scratch.kill();
    scratch.mount();
    verify(&scratch);
}

#[test]
fn promise_r4_the_policy_changes_while_mounted() {
    let mut scratch = Scratch::mounted();
    assert_eq!(scratch.status()["policy"], "everysec");
    skylog(&["set", words(&scratch.mnt), "sync=always"]).succeeds();
    assert_eq!(scratch.status()["policy"], "always");
    fs::write(scratch.mnt.join("file"), "kept").unwrap();
    scratch.kill();
    scratch.mount();
    assert_eq!(fs::read(scratch.mnt.join("file")).unwrap(), b"kept");
    let said = skylog(&["set", words(&scratch.mnt), "sync=sometimes"]).fails_with(2);
    assert!(said.contains("sometimes"), "{said}");
}

#[test]
fn changes_are_shipped_after_the_interval_that_was_set() {
    let scratch = Scratch::mounted();
    let shipped = |scratch: &Scratch| scratch.status()["counters"]["windows_shipped"].as_u64().unwrap();
    let before = shipped(&scratch);
    fs::write(scratch.mnt.join("file"), "sent").unwrap();
    assert_eq!(shipped(&scratch), before, "a minute, when the store is a folder");
    skylog(&["set", words(&scratch.mnt), "ship-interval=1"]).succeeds();
    // Half of the minute after which it would be shipped anyway.
    let (begin, patience) = (Instant::now(), Duration::from_secs(30));
    while shipped(&scratch) == before && begin.elapsed() < patience {}
    assert!(shipped(&scratch) > before, "nothing was shipped");
    let said = skylog(&["set", words(&scratch.mnt), "ship-interval=0"]).fails_with(2);
    assert!(said.contains("at least 1"), "{said}");
}

#[test]
fn promise_x10_umount_now_says_what_is_not_in_the_store() {
    let mut scratch = Scratch::mounted();
    fs::write(scratch.mnt.join("file"), pattern(1 << 20, 4)).unwrap();
    let said = skylog(&["umount", "--now", words(&scratch.mnt)]).succeeds();
    assert!(said.contains("stay in the journal") && !said.contains("nothing"), "{said}");
    scratch.gone();
    scratch.mount();
    assert_eq!(fs::read(scratch.mnt.join("file")).unwrap(), pattern(1 << 20, 4));
    scratch.umount();
    scratch.mount();
    let said = skylog(&["umount", "--now", words(&scratch.mnt)]).succeeds();
    assert!(said.contains("nothing stays in the journal"), "{said}");
    scratch.gone();
}

#[test]
fn a_daemon_keeps_nothing_of_where_it_was_started() {
    let mut scratch = Scratch::new();
    scratch.make();
    let script = "cd \"$1\" && shift && exec \"$@\" 7<.";
    let arguments = [env!("CARGO_BIN_EXE_skylog"), "mount", "../store", "../mnt"];
    let here = scratch.root.join("here");
    fs::create_dir(&here).unwrap();
    assert!(Command::new("sh").args(["-c", script, "sh", words(&here)]).args(arguments).status().unwrap().success());
    scratch.adopt();
    let process = Path::new("/proc").join(scratch.pid().to_string());
    assert_eq!(fs::read_to_string(process.join("comm")).unwrap().trim(), "skylog");
    assert_eq!(fs::read_link(process.join("cwd")).unwrap(), Path::new("/"));
    let open = fs::read_dir(process.join("fd")).unwrap().filter_map(|e| fs::read_link(e.unwrap().path()).ok());
    assert!(!open.into_iter().any(|target| target == here), "an open file was inherited");
    let lock = fs::read_to_string(scratch.root.join("store/lock")).unwrap();
    assert!(lock.ends_with(words(&scratch.mnt)), "{lock}");
    let publications = fs::read_dir(scratch.root.join("store/gen/0000000001")).unwrap();
    let closing = publications.map(|e| e.unwrap().path()).max().unwrap();
    let owner = String::from_utf8_lossy(&fs::read(closing).unwrap()).into_owned();
    assert!(owner.ends_with(words(&scratch.mnt)), "the one who took over is named with its whole path: {owner}");
    scratch.umount();
}

#[test]
fn an_unmount_of_a_mount_that_is_gone_says_so() {
    let mut scratch = Scratch::mounted();
    scratch.kill();
    assert!(Command::new("umount").args(["-l", words(&scratch.mnt)]).status().unwrap().success());
    let said = (0..200).find_map(|_| {
        let output = Command::new(env!("CARGO_BIN_EXE_skylog")).args(["umount", words(&scratch.mnt)]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        said.contains("nothing is mounted on").then_some(said)
    });
    assert!(said.is_some());
    let said = skylog(&["umount", words(&scratch.mnt)]).fails();
    assert!(said.contains("is not a skylog mount"), "{said}");
}

#[test]
fn of_two_mounts_on_one_directory_at_once_one_is_refused() {
    let mut scratch = Scratch::new();
    scratch.make();
    let other = words(&scratch.root.join("other")).to_string();
    skylog(&["mkfs", &other]).succeeds();
    let start = |store: &str| {
        let mut mount = Command::new(env!("CARGO_BIN_EXE_skylog"));
        mount.args(["mount", store, words(&scratch.mnt)]).stderr(Stdio::piped()).spawn().unwrap()
    };
    let outputs = [start(scratch.store()), start(&other)].map(|mount| mount.wait_with_output().unwrap());
    let succeeded = outputs.iter().filter(|output| output.status.success()).count();
    assert_eq!(succeeded, 1, "{outputs:?}");
    scratch.adopt();
    scratch.umount();
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(words(&scratch.mnt)), "one mount, not two");
    let left = fs::read_dir("/run/skylog").unwrap().map(|e| e.unwrap().path());
    let left = left.filter(|path| fs::read_to_string(path).is_ok_and(|text| text.contains(words(&scratch.mnt))));
    assert_eq!(left.count(), 0, "registration and claim are gone");
}

#[test]
fn umount_names_who_keeps_the_mount_busy() {
    let scratch = Scratch::mounted();
    let file = File::create(scratch.mnt.join("open")).unwrap();
    let said = skylog(&["umount", words(&scratch.mnt)]).fails();
    assert!(said.contains("in use by") && said.contains(&format!("process {}", std::process::id())), "{said}");
    drop(file);
    fs::write(scratch.mnt.join("still"), "works").unwrap();
}

#[test]
fn an_interrupted_umount_does_not_unmount() {
    let mut scratch = Scratch::mounted();
    plant(&scratch);
    // Nothing can be shipped while a file lies where the segments go.
    let (segments, aside) = (scratch.root.join("store/seg"), scratch.root.join("store/aside"));
    fs::rename(&segments, &aside).ok();
    fs::write(&segments, "in the way").unwrap();
    let mut umount = Command::new(env!("CARGO_BIN_EXE_skylog"))
        .args(["umount", words(&scratch.mnt)])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(umount.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("skylog: waiting: shipping fails: ") && said.contains("skylog umount --now"), "{said}");
    umount.kill().unwrap();
    umount.wait().unwrap();
    fs::remove_file(&segments).unwrap();
    fs::rename(&aside, &segments).or_else(|_| fs::create_dir(&segments)).unwrap();
    let drained = || scratch.status()["unshipped_bytes"] == 0;
    let drained = (0..500).any(|_| {
        drained() || {
            std::thread::sleep(Duration::from_millis(20));
            false
        }
    });
    assert!(drained, "what was under way is shipped, {}", scratch.status());
    std::thread::sleep(Duration::from_millis(500));
    verify(&scratch);
    scratch.umount();
}

#[test]
fn a_plain_umount_drains_too() {
    let mut scratch = Scratch::mounted();
    plant(&scratch);
    assert!(Command::new("umount").arg(&scratch.mnt).status().unwrap().success());
    scratch.gone();
    fs::remove_dir_all(scratch.root.join("store/state")).unwrap();
    scratch.mount();
    verify(&scratch);
}

#[test]
fn an_unmount_after_a_quick_one_that_failed_drains_too() {
    let mut scratch = Scratch::new();
    scratch.make();
    scratch.mount_with(&["--ship-interval", "3600"]);
    let file = File::create(scratch.mnt.join("open")).unwrap();
    let said = skylog(&["umount", "--now", words(&scratch.mnt)]).fails();
    assert!(said.contains("in use by"), "{said}");
    drop(file);
    fs::remove_file(scratch.mnt.join("open")).unwrap();
    plant(&scratch);
    assert!(Command::new("umount").args(["-i", words(&scratch.mnt)]).status().unwrap().success());
    scratch.gone();
    fs::remove_dir_all(scratch.root.join("store/state")).unwrap();
    scratch.mount();
    verify(&scratch);
}

#[test]
fn sigterm_unmounts() {
    let mut scratch = Scratch::mounted();
    plant(&scratch);
    scratch.signal(nix::sys::signal::Signal::SIGTERM);
    scratch.gone();
    assert!(fs::read_dir(&scratch.mnt).unwrap().next().is_none());
    scratch.mount();
    verify(&scratch);
}

#[test]
fn status_finds_a_volume_by_mount_point_and_by_store() {
    let scratch = Scratch::mounted();
    let by_dir = skylog(&["status", words(&scratch.mnt)]).succeeds();
    assert!(by_dir.contains(&format!("pid: {}", scratch.pid())) && by_dir.contains("policy: everysec"), "{by_dir}");
    let by_store = skylog(&["status", scratch.store()]).succeeds();
    assert!(by_store.contains(words(&scratch.mnt)), "{by_store}");
    let json = scratch.status();
    for field in ["pid", "state", "policy", "mount_point", "store", "counters"] {
        assert!(json.get(field).is_some(), "{field}: {json}");
    }
}
