//! `skylog salvage`: what a state directory holds and its store may not have.

use super::scratch::{Scratch, skylog, words};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;

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
    scratch.kill();
    std::process::Command::new("umount").arg("-l").arg(&scratch.mnt).status().unwrap();
    (scratch, changed)
}

#[test]
fn what_was_not_shipped_becomes_files_and_a_list() {
    let (mut scratch, changed) = fenced_off();
    let (state, out) = (Path::new(scratch.store()).join("state"), scratch.root.join("out"));
    let before = fs::read(state.join("MANIFEST")).unwrap();
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
    assert_eq!(fs::read(state.join("MANIFEST")).unwrap(), before);
    skylog(&["salvage", words(&state), words(&scratch.root.join("again"))]).succeeds();
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

/// All files below a directory, with their sizes.
fn files_of(dir: &Path) -> Vec<(std::path::PathBuf, u64)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => all.extend(files_of(&entry.path())),
            // It tells who had it last.
            false if entry.file_name() == "lock" => {}
            false => all.push((entry.path(), entry.metadata().unwrap().len())),
        }
    }
    all.sort();
    all
}

#[test]
fn what_is_there_is_salvaged_when_nodes_are_gone_here_and_in_the_store() {
    let (scratch, _) = fenced_off();
    let (state, out) = (Path::new(scratch.store()).join("state"), scratch.root.join("out"));
    let nodes: Vec<_> = fs::read_dir(state.join("nodes")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!nodes.is_empty());
    nodes.iter().for_each(|node| fs::remove_file(node).unwrap());
    fs::remove_dir_all(Path::new(scratch.store()).join("seg")).unwrap();
    let before = files_of(&state);
    let refused = skylog(&["salvage", words(&state), words(&out)]).fails();
    assert!(refused.contains("or could not be read"), "{refused}");
    let files = out.join("files");
    assert_eq!(fs::read(files.join("new/deep/tiny")).unwrap(), b"tiny");
    assert!(fs::read(files.join("new/deep/large")).unwrap() == bytes(5, 500_000));
    assert!(list(&out).iter().any(|(what, _)| what == "missed"), "{:?}", list(&out));
    assert_eq!(files_of(&state), before);
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
