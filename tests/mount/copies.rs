//! `skylog warm` and `skylog evict` on a store that is a directory, and what they refuse. What they do to a store that is far away
//! is in `tests/stores/seeing.rs`.

use crate::scratch::{Scratch, skylog, words};
use std::fs;

#[test]
fn a_tree_is_walked_and_counted() {
    let mut scratch = Scratch::new();
    scratch.make();
    scratch.mount_with(&["--cache-size", "32MiB"]);
    let (mnt, tree) = (scratch.mnt.clone(), scratch.mnt.join("tree"));
    fs::create_dir_all(tree.join("a/b/c")).unwrap();
    for n in 0..1200 {
        fs::write(tree.join(format!("a/tiny-{n}")), "beside its attributes").unwrap();
    }
    for folder in ["", "a", "a/b", "a/b/c"] {
        fs::write(tree.join(folder).join("large"), vec![3; 400_000]).unwrap();
    }
    fs::write(tree.join("a/sparse"), "").unwrap();
    fs::File::options().write(true).open(tree.join("a/sparse")).unwrap().set_len(1 << 40).unwrap();
    std::os::unix::fs::symlink("..", tree.join("a/b/link")).unwrap();
    scratch.umount();
    scratch.mount_with(&["--cache-size", "32MiB"]);
    let warm = |path| skylog(&["warm", words(&mnt), path]).succeeds();
    assert!(warm(words(&tree)).starts_with("1206 files: 1600000 bytes ("));
    assert!(warm(words(&tree)).contains(": 0 bytes (0 bytes) fetched, 1600000 bytes ("));
    assert!(warm(words(&tree.join("a/b"))).starts_with("3 files: 0 bytes (0 bytes) fetched, 800000 bytes ("));
    let said = skylog(&["evict", words(&mnt), words(&tree.join("large")), words(&tree.join("a/large"))]).succeeds();
    assert!(said.starts_with("2 files: ") && !said.contains(": 0 bytes"), "{said}");
    assert_eq!(fs::read(tree.join("large")).unwrap(), vec![3; 400_000]);
    scratch.umount();
}

#[test]
fn what_cannot_be_brought_or_dropped_is_one_sentence() {
    let mut scratch = Scratch::mounted();
    let (mnt, root) = (scratch.mnt.clone(), scratch.root.clone());
    let file = mnt.join("file");
    fs::write(&file, vec![1; 17 << 20]).unwrap();
    for command in ["warm", "evict"] {
        let said = skylog(&[command, words(&mnt), words(&file)]).fails();
        assert!(said.contains("--cache-size"), "{said}");
        let said = skylog(&[command, words(&mnt), words(&root)]).fails();
        assert!(said.contains(words(&root)) && said.contains("does not lie in"), "{said}");
        let said = skylog(&[command, words(&mnt), words(&mnt.join("missing"))]).fails();
        assert!(said.contains("missing") && said.contains("No such file"), "{said}");
        let said = skylog(&[command, words(&root), words(&file)]).fails();
        assert!(said.contains("is not a skylog mount"), "{said}");
        skylog(&[command, words(&mnt)]).fails_with(2);
    }
    scratch.umount();
    scratch.mount_with(&["--cache-size", "16MiB"]);
    let said = skylog(&["warm", words(&mnt), words(&file)]).fails();
    assert!(said.contains("17.0 MiB") && said.contains("16.0 MiB") && said.contains("--cache-size"), "{said}");
}
