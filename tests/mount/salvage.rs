//! `skylog salvage`: what a state directory holds and its store may not have.

use super::scratch::{Scratch, skylog, words};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Lines of the list by what they say: (what, path).
fn list(out: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(out.join("list")).unwrap();
    let mut lines = text.lines();
    assert!(lines.next().unwrap().starts_with("# filesystem "));
    let split = |line: &str| {
        let mut words = line.split('\t').map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap())
    };
    lines.map(split).collect()
}

fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| seed.wrapping_add((i / 7) as u8)).collect()
}

/// All files below a directory, but the lock, with their contents.
fn everything(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(everything(&path)),
            false if path.ends_with("lock") => {}
            false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    found
}

/// A store with `old/…` shipped, and a state directory that has more.
fn fenced_off() -> (Scratch, Vec<u8>) {
    let mut scratch = Scratch::mounted();
    let old = scratch.mnt.join("old/dir");
    fs::create_dir_all(&old).unwrap();
    fs::write(old.join("big"), bytes(1, 3_000_000)).unwrap();
    for name in ["kept", "removed", "renamed"] {
        fs::write(old.join(name), name).unwrap();
    }
    scratch.umount();
    scratch.mount_with(&["--ship-interval", "3600"]);
    let mut changed = bytes(1, 3_000_000);
    changed[1_000_000..1_100_000].fill(9);
    OpenOptions::new().write(true).open(old.join("big")).unwrap().write_all_at(&[9; 100_000], 1_000_000).unwrap();
    fs::remove_file(old.join("removed")).unwrap();
    fs::rename(old.join("renamed"), scratch.mnt.join("old/new name\n")).unwrap();
    let new = scratch.mnt.join("new/deep");
    fs::create_dir_all(&new).unwrap();
    fs::write(new.join("tiny"), "tiny").unwrap();
    fs::write(new.join("large"), bytes(5, 500_000)).unwrap();
    fs::hard_link(new.join("large"), scratch.mnt.join("large too")).unwrap();
    symlink("deep/tiny", scratch.mnt.join("new/link")).unwrap();
    let sparse = File::create(new.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 1_000_000).unwrap();
    sparse.sync_all().unwrap();
    let process = Path::new("/proc").join(scratch.pid().to_string()).join("status");
    scratch.kill();
    while fs::read_to_string(&process).is_ok_and(|status| !status.contains("State:\tZ")) {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::process::Command::new("umount").arg("-l").arg(&scratch.mnt).status().unwrap();
    (scratch, changed)
}

#[test]
fn what_was_not_shipped_becomes_files_and_a_list() {
    let (mut scratch, changed) = fenced_off();
    let (state, out) = (Path::new(scratch.store()).join("state"), scratch.root.join("out"));
    // Nodes that only the store has are not brought here.
    let before = everything(&state);
    let said = skylog(&["salvage", words(&state), words(&out)]).succeeds();
    assert!(said.contains("5 files") && said.contains("2 directories"), "{said}");
    let files = out.join("files");
    assert!(fs::read(files.join("old/dir/big")).unwrap() == changed, "the changed file is whole");
    assert!(fs::read(files.join("new/deep/large")).unwrap() == bytes(5, 500_000));
    assert_eq!(fs::read(files.join("new/deep/tiny")).unwrap(), b"tiny");
    assert_eq!(fs::read(files.join("old/new name\n")).unwrap(), b"renamed");
    let sparse = fs::read(files.join("new/deep/sparse")).unwrap();
    assert!(sparse.len() == 1_000_003 && sparse.ends_with(b"\0end"));
    assert_eq!(fs::read_link(files.join("new/link")).unwrap(), Path::new("deep/tiny"));
    let inode = |path: &str| fs::metadata(files.join(path)).unwrap().ino();
    assert_eq!(inode("new/deep/large"), inode("large too"));
    assert!(!files.join("old/dir/kept").exists(), "it was in the store and not changed");
    let list = list(&out);
    let has = |what: &str, path: &str| list.contains(&(what.to_owned(), path.to_owned()));
    assert!(has("removed", "old/dir/removed") && has("removed", "old/dir/renamed"), "{list:?}");
    assert!(has("file", "old/new name\\n") && has("directory", "new/deep") && has("symlink", "new/link"), "{list:?}");

    // Nothing was changed: the same again, and then the filesystem itself.
    skylog(&["salvage", words(&state), words(&scratch.root.join("again"))]).succeeds();
    assert_eq!(everything(&state), before);
    let refused = skylog(&["salvage", words(&state), words(&out)]).fails();
    assert!(refused.contains("is not empty"), "{refused}");
    scratch.mount();
    assert!(fs::read(scratch.mnt.join("old/dir/big")).unwrap() == changed);
    let refused = skylog(&["salvage", words(&state), words(&scratch.root.join("third"))]).fails();
    assert!(refused.contains("mnt"), "{refused}");
}

#[test]
fn what_only_the_store_has_is_missed_by_name_when_the_store_is_gone() {
    let (scratch, changed) = fenced_off();
    let (state, out) = (scratch.root.join("state"), scratch.root.join("out"));
    let store = Path::new(scratch.store());
    fs::rename(store.join("state"), &state).unwrap();
    let refused = skylog(&["salvage", words(&state), words(&out)]).fails_with(2);
    assert!(refused.contains("--store STORE"), "{refused}");
    fs::rename(store.join("seg"), scratch.root.join("elsewhere")).unwrap();
    let refused = skylog(&["salvage", "--store", words(store), words(&state), words(&out)]).fails();
    assert!(refused.contains("1 files are not whole"), "{refused}");
    let big = fs::read(out.join("files/old/dir/big")).unwrap();
    assert!(big.len() == changed.len() && big[1_000_000..1_100_000] == changed[1_000_000..1_100_000]);
    assert!(fs::read(out.join("files/new/deep/large")).unwrap() == bytes(5, 500_000));
    assert!(fs::read_to_string(out.join("list")).unwrap().contains("zeros instead of"));
}

#[test]
fn what_is_here_is_salvaged_though_the_trees_are_gone() {
    let (scratch, _) = fenced_off();
    let (state, out) = (scratch.root.join("state"), scratch.root.join("out"));
    let store = Path::new(scratch.store());
    fs::rename(store.join("state"), &state).unwrap();
    fs::rename(store.join("seg"), scratch.root.join("elsewhere")).unwrap();
    fs::remove_dir_all(state.join("nodes")).unwrap();
    let refused = skylog(&["salvage", "--store", words(store), words(&state), words(&out)]).fails();
    assert!(refused.contains("not whole"), "{refused}");
    assert!(fs::read(out.join("files/new/deep/large")).unwrap() == bytes(5, 500_000));
    assert_eq!(fs::read(out.join("files/new/deep/tiny")).unwrap(), b"tiny");
    assert!(list(&out).iter().any(|(what, _)| what == "unknown"));
}

#[test]
fn what_is_no_state_directory_is_said_to_be_none() {
    let scratch = Scratch::new();
    let (empty, out) = (scratch.root.join("empty"), scratch.root.join("out"));
    fs::create_dir(&empty).unwrap();
    let refused = skylog(&["salvage", words(&empty), words(&out)]).fails();
    assert!(refused.contains("not a state directory"), "{refused}");
    assert!(!out.exists());
    skylog(&["salvage", words(&scratch.root.join("nowhere")), words(&out)]).fails();
}
