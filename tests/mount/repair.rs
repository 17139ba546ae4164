//! `skylog check --repair` on the store of a real mount: what it says, what it leaves.

use super::scratch::{Scratch, skylog, words};
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Every file below a folder, sorted.
fn files(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().map(|e| e.unwrap().path()) {
            if entry.is_dir() { folders.push(entry) } else { found.push(entry) }
        }
    }
    found.sort();
    found
}

fn data(seed: u8) -> Vec<u8> {
    (0..300_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed).collect()
}

/// A store with two files, the bytes of the first of which are damaged at one place, and where that is. With the state directory the
/// journal may still have them.
fn damaged(with_state: bool) -> (Scratch, PathBuf) {
    let mut scratch = Scratch::mounted();
    fs::write(scratch.mnt.join("first"), data(1)).unwrap();
    fs::write(scratch.mnt.join("second"), data(2)).unwrap();
    scratch.umount();
    // The first 64 bytes of the second chunk of the first file.
    let piece = &data(1)[65536..65600];
    let hit = files(&scratch.root.join("store/seg")).into_iter().find_map(|path| {
        let at = fs::read(&path).unwrap().windows(64).position(|window| window == piece)?;
        Some((path, at as u64))
    });
    let (path, at) = hit.expect("the contents are in a segment");
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[!piece[0]], at).unwrap();
    if !with_state {
        fs::remove_dir_all(scratch.root.join("store/state")).unwrap();
    }
    (scratch, path)
}

#[test]
fn what_the_journal_still_has_is_not_lost() {
    let (mut scratch, _) = damaged(true);
    let said = skylog(&["check", "--repair", scratch.store()]).succeeds();
    assert!(said.contains("\n0 files are not what they were") && said.contains("damaged-"), "{said}");
    scratch.mount();
    for (name, seed) in [("first", 1), ("second", 2)] {
        assert!(fs::read(scratch.mnt.join(name)).unwrap() == data(seed), "{name} is whole");
    }
    scratch.umount();
    skylog(&["check", "--data", scratch.store()]).succeeds();
}

#[test]
fn a_damaged_chunk_costs_its_range_and_nothing_else() {
    let (mut scratch, path) = damaged(false);
    let name = path.strip_prefix(scratch.root.join("store")).unwrap().to_str().unwrap().to_owned();
    let original = fs::read(&path).unwrap();

    let said = skylog(&["check", "--data", scratch.store()]).fails();
    assert!(said.contains(&format!("skylog check --repair {}", scratch.store())), "{said}");
    let before = files(&scratch.root);
    let said = skylog(&["check", "--repair", "--dry-run", scratch.store()]).fails();
    assert!(said.contains("nothing was changed"), "{said}");
    assert_eq!(files(&scratch.root), before);

    let said = skylog(&["check", "--repair", scratch.store()]).succeeds();
    assert!(said.contains(&name) && said.contains("/first") && !said.contains("/second"), "{said}");
    assert!(said.contains("/report") && said.contains("repaired "), "{said}");
    let kept = files(&scratch.root.join("store/damaged"));
    assert!(kept.iter().any(|copy| copy.ends_with(&name) && fs::read(copy).unwrap() == original), "G8: {kept:?}");
    let report = kept.iter().find(|file| file.ends_with("report")).expect("a report");
    assert!(fs::read_to_string(report).unwrap().contains("/first"));

    skylog(&["check", "--data", scratch.store()]).succeeds();
    let said = skylog(&["check", "--repair", scratch.store()]).succeeds();
    assert!(said.contains("nothing to repair"), "{said}");

    scratch.mount();
    assert_eq!(fs::read(scratch.mnt.join("second")).unwrap(), data(2));
    let first = fs::File::open(scratch.mnt.join("first")).unwrap();
    let mut failed = 0;
    for (at, expected) in data(1).chunks(4096).enumerate() {
        let mut got = vec![0; expected.len()];
        match first.read_exact_at(&mut got, at as u64 * 4096) {
            Ok(()) => assert_eq!(got, expected, "page {at}"),
            Err(e) => {
                assert_eq!(e.raw_os_error(), Some(libc::EIO), "page {at}");
                failed += expected.len();
            }
        }
    }
    assert!((1..=2 * 65536).contains(&failed), "{failed} bytes are lost");
    drop(first);
    // What is written there is there.
    fs::write(scratch.mnt.join("first"), data(3)).unwrap();
    scratch.umount();
    scratch.mount();
    assert_eq!(fs::read(scratch.mnt.join("first")).unwrap(), data(3));
    scratch.umount();
    skylog(&["check", "--data", scratch.store()]).succeeds();
    skylog(&["destroy", "--yes", scratch.store()]).succeeds();
    assert!(!scratch.root.join("store").exists(), "left are {:?}", files(&scratch.root.join("store")));
}

#[test]
fn a_store_without_its_superblock_is_repaired_with_the_state_directory_and_alone() {
    for alone in [false, true] {
        let mut scratch = Scratch::new();
        // What nothing says any more is as usual.
        skylog(&["mkfs", scratch.store()]).succeeds();
        scratch.mount_large();
        fs::write(scratch.mnt.join("file"), data(1)).unwrap();
        scratch.umount();
        if alone {
            fs::remove_dir_all(scratch.root.join("store/state")).unwrap();
        }
        fs::remove_file(scratch.root.join("store/skylog.json")).unwrap();
        let said = skylog(&["mount", scratch.store(), words(&scratch.mnt)]).fails();
        assert!(said.contains(&format!("skylog check --repair {}", scratch.store())), "{said}");
        // Nothing says any more whether it was append-only.
        let said = skylog(&["check", "--repair", scratch.store()]).fails();
        assert!(said.contains("run it again with --not-append-only"), "{said}");
        skylog(&["check", "--repair", "--not-append-only", scratch.store()]).succeeds();
        scratch.mount_large();
        assert_eq!(fs::read(scratch.mnt.join("file")).unwrap(), data(1));
        scratch.umount();
        skylog(&["check", "--data", scratch.store()]).succeeds();
    }
}

#[test]
fn a_state_directory_that_was_named_moves_aside_in_itself() {
    let mut scratch = Scratch::new();
    scratch.make();
    let state = scratch.root.join("elsewhere");
    scratch.mount_with(&["--state", words(&state)]);
    fs::write(scratch.mnt.join("file"), data(1)).unwrap();
    scratch.umount();
    fs::write(state.join("MANIFEST"), "nonsense").unwrap();
    let said = skylog(&["mount", "--state", words(&state), scratch.store(), words(&scratch.mnt)]).fails();
    let command = format!("skylog check --repair {} --state {}", scratch.store(), state.display());
    assert!(said.contains(&command), "{said}");
    skylog(&["check", "--repair", scratch.store(), "--state", words(&state)]).succeeds();
    let aside = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<PathBuf> =
        aside.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("damaged-")).collect();
    assert_eq!(aside.len(), 1);
    assert_eq!(fs::read(aside[0].join("MANIFEST")).unwrap(), b"nonsense");
    assert_eq!(fs::metadata(&aside[0]).unwrap().permissions().mode() & 0o77, 0, "nobody else looks into it");
    scratch.mount_with(&["--state", words(&state)]);
    assert_eq!(fs::read(scratch.mnt.join("file")).unwrap(), data(1));
    scratch.umount();
    skylog(&["destroy", "--yes", "--state", words(&state), scratch.store()]).succeeds();
    assert!(!state.exists(), "left are {:?}", files(&state));
}

#[test]
fn words_of_a_repair_need_the_repair_and_a_mounted_one_is_refused() {
    let scratch = Scratch::mounted();
    for word in ["--dry-run", "--takeover", "--not-append-only"] {
        skylog(&["check", word, scratch.store()]).means_nothing();
    }
    let said = skylog(&["check", "--repair", scratch.store()]).fails();
    assert!(said.contains("cannot be had"), "{said}");
}
