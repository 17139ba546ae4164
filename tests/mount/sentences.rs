//! When something is wrong the program says so in one sentence, ends with the documented code, and touches nothing.

use super::scratch::{Scratch, skylog, words};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Everything below a folder: files with their contents, folders with nothing.
fn contents(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![root.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().map(|e| e.unwrap().path()) {
            match entry.is_dir() {
                true => {
                    found.insert(entry.clone(), None);
                    folders.push(entry);
                }
                false => drop(found.insert(entry.clone(), Some(fs::read(&entry).unwrap()))),
            }
        }
    }
    found
}

/// Every file below a folder.
fn files(root: &Path) -> Vec<PathBuf> {
    contents(root).into_iter().filter_map(|(path, bytes)| bytes.map(|_| path)).collect()
}

/// Tries to mount; it must fail with a sentence that has these words, and change nothing in the store.
fn refuses_to_mount(scratch: &Scratch, expected: &[&str]) {
    refuses_to_mount_with(scratch, &[], 1, expected);
}

fn refuses_to_mount_with(scratch: &Scratch, options: &[&str], code: i32, expected: &[&str]) {
    let before = contents(&scratch.root);
    let said = skylog(&[&["mount"], options, &[scratch.store(), words(&scratch.mnt)]].concat()).fails_with(code);
    for words in expected {
        assert!(said.contains(words), "{words:?} is not in {said:?}");
    }
    let after = contents(&scratch.root);
    // A lock's text names who tried last, and says nothing about the filesystem.
    let changed = |path: &&PathBuf| !path.ends_with("lock") && before.get(*path) != after.get(*path);
    let changed: Vec<_> = before.keys().chain(after.keys()).filter(changed).collect();
    assert!(changed.is_empty(), "a refused mount changed {changed:?}");
    assert!(before.keys().eq(after.keys()), "a refused mount left something or took it away");
}

/// The first file below a folder of the store.
fn any_file(scratch: &Scratch, folder: &str) -> PathBuf {
    files(&scratch.root.join("store").join(folder)).into_iter().next().expect(folder)
}

#[test]
fn wrong_path() {
    let scratch = Scratch::new();
    refuses_to_mount(&scratch, &["there is no store at", "skylog mkfs"]);
    assert!(!scratch.root.join("store").exists());
}

#[test]
fn foreign_directory() {
    let scratch = Scratch::new();
    let store = scratch.root.join("store");
    fs::create_dir(&store).unwrap();
    fs::write(store.join("letter.txt"), "mine").unwrap();
    refuses_to_mount(&scratch, &["is not a skylog store", "skylog mkfs"]);
    for command in ["mkfs", "destroy --yes", "check", "break-lock"] {
        let arguments: Vec<&str> = command.split(' ').chain([scratch.store()]).collect();
        skylog(&arguments).fails();
        assert_eq!(contents(&store).len(), 1, "`skylog {command}` touched a foreign directory");
    }
}

#[test]
fn promise_g11_mkfs_never_makes_over_something() {
    let scratch = Scratch::new();
    scratch.make();
    let before = contents(&scratch.root.join("store"));
    let said = skylog(&["mkfs", scratch.store()]).fails();
    assert!(said.contains("already holds a skylog filesystem"), "{said}");
    assert_eq!(contents(&scratch.root.join("store")), before);
}

#[test]
fn newer_format() {
    let scratch = Scratch::new();
    scratch.make();
    let path = scratch.root.join("store/skylog.json");
    let newer = fs::read_to_string(&path)
        .unwrap()
        .replace("\"skylog\": 1", "\"skylog\": 2")
        .replace("\"skylog\":1", "\"skylog\":2");
    fs::write(&path, newer).unwrap();
    refuses_to_mount(&scratch, &["newer"]);
}

#[test]
fn damaged_configuration() {
    let scratch = Scratch::new();
    scratch.make();
    fs::write(scratch.root.join("store/skylog.json"), "{\"skylog\": ").unwrap();
    refuses_to_mount(&scratch, &["skylog.json"]);
}

#[test]
fn damaged_header() {
    let mut scratch = Scratch::mounted();
    fs::write(scratch.mnt.join("file"), "x").unwrap();
    scratch.umount();
    fs::remove_dir_all(scratch.root.join("store/state")).unwrap();
    for path in files(&scratch.root.join("store/gen")) {
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    refuses_to_mount(&scratch, &["gen/"]);
}

#[test]
fn missing_segment() {
    let mut scratch = Scratch::mounted();
    fs::write(scratch.mnt.join("file"), vec![7; 100_000]).unwrap();
    scratch.umount();
    let segment = any_file(&scratch, "seg");
    fs::remove_file(&segment).unwrap();
    let said = skylog(&["check", scratch.store()]).fails();
    assert!(said.contains("problems in"), "{said}");
}

#[test]
fn promise_r3_a_missing_journal_segment_is_fatal() {
    let mut scratch = Scratch::mounted();
    fs::write(scratch.mnt.join("file"), "x").unwrap();
    scratch.kill();
    skylog(&["umount", words(&scratch.mnt)]).succeeds();
    for path in files(&scratch.root.join("store/state/journal")) {
        fs::remove_file(path).unwrap();
    }
    refuses_to_mount(&scratch, &["journal"]);
}

#[test]
fn a_journal_without_its_manifest_is_left_as_it_is() {
    let mut scratch = Scratch::new();
    scratch.make();
    scratch.mount_with(&["--ship-interval", "3600"]);
    fs::write(scratch.mnt.join("file"), "not in the store").unwrap();
    skylog(&["umount", "--now", words(&scratch.mnt)]).succeeds();
    scratch.gone();
    let state = scratch.root.join("store/state");
    fs::rename(state.join("MANIFEST"), scratch.root.join("kept")).unwrap();
    refuses_to_mount(&scratch, &["no MANIFEST", "put MANIFEST back"]);
    fs::rename(scratch.root.join("kept"), state.join("MANIFEST")).unwrap();
    scratch.mount();
    assert_eq!(fs::read(scratch.mnt.join("file")).unwrap(), b"not in the store");
    scratch.umount();
}

#[test]
fn mount_point_in_use() {
    let scratch = Scratch::mounted();
    let said = skylog(&["mount", scratch.store(), words(&scratch.mnt)]).fails();
    assert!(said.contains("is in use") && said.contains("skylog umount"), "{said}");
    let said = skylog(&["mount", scratch.store(), "/proc"]).fails();
    assert!(said.contains("is in use") && !said.contains("umount"), "{said}");
}

#[test]
fn mount_point_missing_or_no_directory_or_not_empty() {
    let scratch = Scratch::new();
    scratch.make();
    let other = scratch.root.join("other");
    let mount = || skylog(&["mount", scratch.store(), words(&other)]).fails();
    assert!(mount().contains("does not exist"));
    fs::write(&other, "x").unwrap();
    assert!(mount().contains("is not a directory"));
    fs::remove_file(&other).unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(other.join("file"), "x").unwrap();
    assert!(mount().contains("is not empty"));
    let inside = scratch.root.join("store/mnt");
    fs::create_dir(&inside).unwrap();
    assert!(skylog(&["mount", scratch.store(), words(&inside)]).fails().contains("inside each other"));
}

#[test]
fn no_fuse() {
    let scratch = Scratch::new();
    scratch.make();
    // A mount namespace of its own, whose /dev has everything but fuse.
    let script = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec \"$@\"";
    let program = env!("CARGO_BIN_EXE_skylog");
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", program, "mount", scratch.store(), words(&scratch.mnt)])
        .output()
        .expect("unshare is part of every Debian");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no /dev/fuse"), "{said}");
}

#[test]
fn promise_r7_disk_full_is_enospc_and_heals_without_a_remount() {
    let scratch = Scratch::new();
    let disk = SmallDisk::new(&scratch);
    let store = words(&disk.0.join("store")).to_string();
    skylog(&["mkfs", "--segment-size", "1MiB", &store]).succeeds();
    skylog(&["mount", "--journal-size", "8MiB", &store, words(&scratch.mnt)]).succeeds();
    let write = |n: u8| fs::write(scratch.mnt.join(format!("file-{n}")), vec![n; 1 << 20]);
    let (kept, refused) = (0..100).find_map(|n| write(n).err().map(|e| (n, e))).expect("100 MiB do not fit into 40");
    assert_eq!(refused.raw_os_error(), Some(libc::ENOSPC));
    disk.resize("200m");
    let healed = (0..600).any(|_| write(kept).is_ok());
    assert!(healed, "there is room again");
    for n in 0..=kept {
        assert_eq!(fs::read(scratch.mnt.join(format!("file-{n}"))).unwrap(), vec![n; 1 << 20]);
    }
    skylog(&["umount", words(&scratch.mnt)]).succeeds();
    skylog(&["check", "--data", &store]).succeeds();
}

/// A disk of 40 MiB in memory.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(scratch: &Scratch) -> SmallDisk {
        let disk = SmallDisk(scratch.root.join("disk"));
        fs::create_dir(&disk.0).unwrap();
        disk.mount(&["-t", "tmpfs", "-o", "size=40m"]);
        disk
    }

    fn resize(&self, size: &str) {
        self.mount(&["-o", &format!("remount,size={size}")]);
    }

    fn mount(&self, options: &[&str]) {
        let mounted = Command::new("mount").args(options).arg("none").arg(&self.0).status().unwrap();
        assert!(mounted.success(), "a disk of its own needs root");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).output().ok();
    }
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    let scratch = Scratch::new();
    scratch.make();
    let said = skylog(&["mount", "-o", "fly", scratch.store(), words(&scratch.mnt)]).fails_with(2);
    assert!(said.contains("\"fly\""), "{said}");
    for wrong in [&["fly"][..], &["mount"], &["mkfs", "--segment-size", "much", "/x"], &["mkfs", "ftp://bucket"]] {
        skylog(wrong).fails_with(2);
    }
    for command in ["mkfs", "check", "destroy", "break-lock", "status"] {
        assert!(skylog(&[command, "memory://"]).fails_with(2).contains("`skylog mount memory:// DIR`"), "{command}");
    }
    for flag in ["--uploads=4", "--endpoint=http://127.0.0.1:1", "-oregion=x", "--path-style"] {
        let said = skylog(&["mount", flag, scratch.store(), words(&scratch.mnt)]).fails_with(2);
        assert!(said.contains("is for remote stores"), "{said}");
    }
    let said = skylog(&["check", "--endpoint", "http://me:secret@127.0.0.1", "s3://bucket"]).fails_with(2);
    assert!(said.contains("--endpoint") && !said.contains("secret"), "{said}");
    assert!(skylog(&["set", words(&scratch.mnt), "sync=bad"]).fails_with(2).contains("\"bad\""));
    assert!(skylog(&["set", "/x"]).fails_with(2).contains("`skylog set --help`"));
    assert!(skylog(&["fly"]).fails_with(2).contains("`skylog --help`"));
    assert!(skylog(&["--help"]).succeeds().contains("Usage"));
}

#[test]
fn destroy_asks_and_removes_only_what_is_skylogs() {
    let scratch = Scratch::new();
    scratch.make();
    let store = scratch.root.join("store");
    fs::write(store.join("letter.txt"), "mine").unwrap();
    skylog(&["destroy", scratch.store()]).fails_after_asking();
    assert!(store.join("skylog.json").exists(), "nobody said yes");
    skylog(&["destroy", "--yes", scratch.store()]).succeeds();
    assert_eq!(contents(&store).into_keys().collect::<Vec<_>>(), [store.join("letter.txt")]);
}

#[test]
fn destroy_leaves_nothing_of_a_store_that_was_used() {
    let mut scratch = Scratch::mounted();
    fs::write(scratch.mnt.join("file"), vec![7; 100_000]).unwrap();
    scratch.umount();
    skylog(&["destroy", "--yes", scratch.store()]).succeeds();
    assert!(!scratch.root.join("store").exists(), "left are {:?}", files(&scratch.root.join("store")));
}

#[test]
fn a_directory_that_is_no_mount_says_so() {
    let scratch = Scratch::new();
    for command in ["umount", "sync"] {
        let said = skylog(&[command, words(&scratch.mnt)]).fails();
        assert!(said.contains("is not a skylog mount"), "{said}");
    }
    let said = skylog(&["status", words(&scratch.mnt)]).fails();
    assert!(said.contains("is neither a skylog mount nor a skylog store"), "{said}");
}

#[test]
fn damage_is_named_with_the_command_that_says_more() {
    let mut scratch = Scratch::mounted();
    fs::write(scratch.mnt.join("file"), "x").unwrap();
    scratch.umount();
    let command = format!("skylog check --repair {}", scratch.store());
    let checkpoints = scratch.root.join("store/state/ckpt");
    let aside = scratch.root.join("aside");
    fs::rename(&checkpoints, &aside).unwrap();
    fs::create_dir(&checkpoints).unwrap();
    refuses_to_mount(&scratch, &["ckpt/", &command]);
    fs::remove_dir_all(scratch.root.join("store/state")).unwrap();
    for file in files(&scratch.root.join("store/seg")) {
        fs::remove_file(file).unwrap();
    }
    let said = skylog(&["mount", scratch.store(), words(&scratch.mnt)]).fails();
    assert!(said.contains("seg/") && said.contains(&command), "{said}");
}

#[test]
fn a_check_of_no_state_directory_is_refused() {
    let scratch = Scratch::new();
    scratch.make();
    let said = skylog(&["check", "--state", words(&scratch.mnt), scratch.store()]).fails();
    assert!(said.contains("is not a state directory"), "{said}");
    let said = skylog(&["break-lock", "--state", words(&scratch.root.join("nowhere")), scratch.store()]).fails();
    assert!(said.contains("is not a state directory"), "{said}");
    assert!(contents(&scratch.mnt).is_empty() && !scratch.root.join("nowhere").exists());
}

#[test]
fn a_state_directory_that_is_not_this_filesystems_is_left_alone() {
    let scratch = Scratch::new();
    scratch.make();
    let (home, other) = (scratch.root.join("home"), words(&scratch.root.join("other")).to_string());
    fs::create_dir_all(home.join("journal")).unwrap();
    fs::write(home.join("journal/monday.txt"), "mine").unwrap();
    fs::write(home.join("letter.txt"), "mine").unwrap();
    skylog(&["mkfs", &other]).succeeds();
    let foreign = |expected: &str| {
        let before = contents(&home);
        for command in ["destroy --yes", "break-lock", "mount"] {
            let dir = if command == "mount" { vec![words(&scratch.mnt)] } else { vec![] };
            let options = ["--state", words(&home), scratch.store()];
            let arguments: Vec<&str> = command.split(' ').chain(options).chain(dir).collect();
            let said = skylog(&arguments).fails();
            assert!(said.contains(expected) || command == "mount", "{said}");
            assert_eq!(contents(&home), before, "`skylog {command}` touched a foreign directory");
        }
    };
    foreign("is not a state directory");
    assert!(scratch.root.join("store/skylog.json").exists());

    fs::remove_dir_all(&home).unwrap();
    let state = ["--state", words(&home)];
    skylog(&[&["mount"], &state[..], &[&other, words(&scratch.mnt)]].concat()).succeeds();
    skylog(&["umount", words(&scratch.mnt)]).succeeds();
    fs::write(home.join("journal/monday.txt"), "mine").unwrap();
    foreign("belongs to filesystem");

    skylog(&["destroy", "--yes", "--state", words(&home), &other]).succeeds();
    assert_eq!(files(&home), [home.join("journal/monday.txt")]);
}

#[test]
fn what_cannot_be_mounted_is_not_made_either() {
    let scratch = Scratch::new();
    let create = |options: &[&str], code, expected: &str| {
        refuses_to_mount_with(&scratch, &[&["--create"], options].concat(), code, &[expected]);
        assert!(!scratch.root.join("store").exists());
    };
    create(&["--journal-size", "1MiB"], 2, "--journal-size");
    create(&["--segment-size", "5"], 2, "--segment-size");
    let foreign = scratch.root.join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("letter.txt"), "mine").unwrap();
    create(&["--state", words(&foreign)], 1, "letter.txt");
    create(&["--state", words(&scratch.mnt.join("state"))], 1, "inside each other");

    scratch.make();
    refuses_to_mount_with(&scratch, &["--journal-size", "1MiB"], 2, &["--journal-size"]);
    refuses_to_mount_with(&scratch, &["--create", "--segment-size", "2MiB"], 2, &["--segment-size"]);
}

#[test]
fn a_failed_mkfs_leaves_nothing_behind() {
    let scratch = Scratch::new();
    let store = scratch.root.join("store");
    let program = env!("CARGO_BIN_EXE_skylog");
    // No file may have a byte, as on a full disk.
    let limited = "trap '' XFSZ; ulimit -f 0; exec \"$@\"";
    let mkfs = || Command::new("sh").args(["-c", limited, "sh", program, "mkfs", scratch.store()]).output().unwrap();
    assert_eq!(mkfs().status.code(), Some(1));
    assert!(!store.exists(), "the folder it made is gone");
    fs::create_dir(&store).unwrap();
    assert_eq!(mkfs().status.code(), Some(1));
    assert!(contents(&store).is_empty(), "the folder it found is empty");
    scratch.make();
}

#[test]
fn a_reader_who_has_enough_is_no_failure_and_a_full_disk_is_one() {
    let scratch = Scratch::mounted();
    let (mnt, unmade) = (words(&scratch.mnt), words(&scratch.root.join("unmade")).to_string());
    let program = env!("CARGO_BIN_EXE_skylog");
    let ends = |output: Stdio, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdout(output).stderr(Stdio::piped());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let closed = || {
        let (_, writer) = UnixStream::pair().unwrap();
        OwnedFd::from(writer).into()
    };
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into();
    for arguments in [&["status", mnt][..], &["status", "--json", mnt], &["--help"], &["mkfs", &unmade]] {
        assert_eq!(ends(closed(), arguments), (Some(0), String::new()), "{arguments:?}");
    }
    for arguments in [&["check", &unmade][..], &["break-lock", &unmade], &["destroy", "--yes", &unmade]] {
        assert_eq!(ends(closed(), arguments), (Some(0), String::new()), "{arguments:?}");
    }
    let (code, said) = ends(full(), &["status", mnt]);
    assert!(code == Some(1) && said.contains("cannot be written"), "{code:?} {said}");
    let mut command = Command::new(program);
    command.args(["status", &unmade]).stderr(closed());
    assert_eq!(command.output().unwrap().status.code(), Some(1));
}

#[test]
fn a_cache_that_is_too_small_or_has_no_size_or_no_place_is_refused() {
    let scratch = Scratch::new();
    scratch.make();
    refuses_to_mount_with(&scratch, &["--cache-size", "8MiB"], 2, &["--cache-size must be at least 16.0 MiB"]);
    refuses_to_mount_with(&scratch, &["--cache-free", "1GiB"], 2, &["only with --cache-size"]);
    refuses_to_mount_with(&scratch, &["-o", "cache_dir=here"], 2, &["absolute path"]);
    let inside = scratch.mnt.join("copies");
    let options = ["--cache-size", "16MiB", "--cache-dir", words(&inside)];
    refuses_to_mount_with(&scratch, &options, 1, &["inside each other"]);
}
