//! Rename.

use super::*;

impl Fixture {
    fn rename(&self, from: (InodeNo, &str), to: (InodeNo, &str)) -> i32 {
        errno(self.fs.rename(&root(), from.0, from.1.as_bytes(), to.0, to.1.as_bytes(), 0))
    }
}

#[test]
fn a_rename_is_one_batch() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.dir(ROOT, "a"), fixture.dir(ROOT, "b"));
    fixture.dir(a, "x");
    fixture.dir(b, "y");
    let before = fixture.db.last();
    assert_eq!(fixture.rename((a, "x"), (b, "y")), 0);
    assert_eq!(fixture.db.last(), before.next(before.epoch));
}

#[test]
fn a_moved_directory_has_another_parent_and_both_count_their_subdirectories() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.dir(ROOT, "a"), fixture.dir(ROOT, "b"));
    let x = fixture.dir(a, "x");
    fixture.dir(b, "y");
    assert_eq!(fixture.rename((a, "x"), (b, "z")), 0);
    assert_eq!((fixture.attr(a).nlink, fixture.attr(b).nlink), (2, 4));
    assert_eq!(fixture.find(x, "..").map(|attr| attr.ino), Some(b));
    assert_eq!(fixture.rename((b, "z"), (b, "y")), 0, "an empty directory is replaced");
    assert_eq!((fixture.attr(b).nlink, fixture.names(b)), (3, vec!["y".to_string()]));
}

#[test]
fn a_directory_cannot_move_below_itself() {
    let fixture = Fixture::new();
    let a = fixture.dir(ROOT, "a");
    let b = fixture.dir(a, "b");
    let c = fixture.dir(b, "c");
    assert_eq!(fixture.rename((ROOT, "a"), (a, "x")), libc::EINVAL);
    assert_eq!(fixture.rename((ROOT, "a"), (c, "x")), libc::EINVAL);
    assert_eq!(fixture.rename((a, "b"), (ROOT, "a")), libc::ENOTEMPTY);
    assert_eq!(fixture.rename((b, "c"), (ROOT, "c")), 0);
}

#[test]
fn only_like_replaces_like_and_only_empty_directories_are_replaced() {
    let fixture = Fixture::new();
    let (full, _empty) = (fixture.dir(ROOT, "full"), fixture.dir(ROOT, "empty"));
    fixture.dir(full, "x");
    fixture.file("f");
    assert_eq!(fixture.rename((ROOT, "f"), (ROOT, "empty")), libc::EISDIR);
    assert_eq!(fixture.rename((ROOT, "empty"), (ROOT, "f")), libc::ENOTDIR);
    assert_eq!(fixture.rename((ROOT, "empty"), (ROOT, "full")), libc::ENOTEMPTY);
    assert_eq!(fixture.rename((ROOT, "none"), (ROOT, "f")), libc::ENOENT);
    assert_eq!(fixture.rename((ROOT, "full"), (ROOT, "empty")), 0);
    assert_eq!(fixture.names(ROOT), ["empty", "f"]);
}

#[test]
fn names_of_one_file_are_not_renamed_onto_each_other() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.forget(fixture.fs.link(&root(), ino, ROOT, b"g").expect("linked").0);
    let before = fixture.db.last();
    assert_eq!(fixture.rename((ROOT, "f"), (ROOT, "g")), 0);
    assert_eq!(fixture.rename((ROOT, "f"), (ROOT, "f")), 0);
    assert_eq!((fixture.db.last(), fixture.names(ROOT).len()), (before, 2));
}

#[test]
fn noreplace_refuses_what_exists_and_flags_that_make_no_sense_are_refused() {
    let fixture = Fixture::new();
    fixture.file("f");
    fixture.file("g");
    let rename = |to: &str, flags| errno(fixture.fs.rename(&root(), ROOT, b"f", ROOT, to.as_bytes(), flags));
    assert_eq!(rename("g", libc::RENAME_NOREPLACE), libc::EEXIST);
    assert_eq!(rename("g", libc::RENAME_NOREPLACE | libc::RENAME_WHITEOUT), libc::EEXIST);
    assert_eq!(rename("g", libc::RENAME_EXCHANGE | libc::RENAME_NOREPLACE), libc::EINVAL);
    assert_eq!(rename("g", libc::RENAME_EXCHANGE | libc::RENAME_WHITEOUT), libc::EINVAL);
    assert_eq!(rename("g", 1 << 3), libc::EINVAL);
    assert_eq!(rename("h", libc::RENAME_NOREPLACE), 0);
    assert_eq!(fixture.names(ROOT), ["h", "g"]);
}

#[test]
fn a_replaced_file_in_use_becomes_an_orphan_and_another_is_removed() {
    let fixture = Fixture::new();
    let (used, unused) = (fixture.file("used"), fixture.file("unused"));
    fixture.write(used, 0, b"old");
    fixture.fs.open(&root(), used).expect("opened");
    fixture.file("a");
    fixture.file("b");
    assert_eq!(fixture.rename((ROOT, "a"), (ROOT, "used")), 0);
    assert_eq!(fixture.rename((ROOT, "b"), (ROOT, "unused")), 0);
    assert_eq!((fixture.orphans(), fixture.keys_of(unused)), (1, vec![]));
    assert_eq!(fixture.read(used, 0, 9), b"old");
    fixture.fs.release(&root(), used).expect("released");
    assert_eq!((fixture.orphans(), fixture.keys_of(used)), (0, vec![]));
}

#[test]
fn a_loop_that_renames_what_it_lists_comes_to_an_end() {
    let fixture = Fixture::new();
    for i in 0..20 {
        fixture.file(&format!("f{i}"));
    }
    let (mut after, mut renamed) = (0, 0);
    while let Some(entry) = fixture.fs.readdir(&root(), ROOT, after, 1).expect("listed").pop() {
        after = entry.cookie;
        if after > 2 {
            let to = format!("{}~", text(&entry.name));
            assert_eq!(fixture.rename((ROOT, &text(&entry.name)), (ROOT, &to)), 0);
            renamed += 1;
        }
    }
    assert_eq!(renamed, 20);
}

#[test]
fn a_replaced_name_keeps_its_place_in_a_listing_in_progress() {
    let fixture = Fixture::new();
    for name in ["new", "x", "kept", "y"] {
        fixture.file(name);
    }
    let first = fixture.fs.readdir(&root(), ROOT, 0, 4).expect("listed");
    assert_eq!(first[3].name, b"x".as_slice());
    assert_eq!(fixture.rename((ROOT, "new"), (ROOT, "kept")), 0);
    let rest = fixture.fs.readdir(&root(), ROOT, first[3].cookie, 10).expect("listed");
    assert_eq!(rest.iter().map(|entry| text(&entry.name)).collect::<Vec<_>>(), ["kept", "y"]);
}
