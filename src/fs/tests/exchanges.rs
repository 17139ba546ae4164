//! Rename with exchange and with whiteout.

use super::*;

impl Fixture {
    fn exchange(&self, from: (InodeNo, &str), to: (InodeNo, &str)) -> i32 {
        let (a, b) = (from.1.as_bytes(), to.1.as_bytes());
        errno(self.fs.rename(&root(), from.0, a, to.0, b, libc::RENAME_EXCHANGE))
    }

    fn whiteout(&self, from: (InodeNo, &str), to: (InodeNo, &str)) -> i32 {
        let (a, b) = (from.1.as_bytes(), to.1.as_bytes());
        errno(self.fs.rename(&root(), from.0, a, to.0, b, libc::RENAME_WHITEOUT))
    }

    fn ino(&self, parent: InodeNo, name: &str) -> InodeNo {
        self.find(parent, name).expect("it exists").ino
    }
}

#[test]
fn two_names_change_places_in_one_batch_and_keep_their_cookies() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.dir(ROOT, "a"), fixture.dir(ROOT, "b"));
    let (x, y) = (fixture.file("x"), fixture.file("y"));
    let before = (fixture.db.last(), fixture.fs.readdir(&root(), ROOT, 0, 9).expect("listed"));
    assert_eq!(fixture.exchange((ROOT, "x"), (ROOT, "a")), 0);
    assert_eq!(fixture.db.last(), before.0.next(before.0.epoch));
    let after = fixture.fs.readdir(&root(), ROOT, 0, 9).expect("listed");
    let places = |list: &[DirEntry]| list.iter().map(|e| (e.cookie, e.name.clone())).collect::<Vec<_>>();
    assert_eq!(places(&before.1), places(&after));
    assert_eq!(after.iter().map(|e| e.ino).collect::<Vec<_>>(), [ROOT, ROOT, x, b, a, y]);
    assert_eq!(fixture.attr(ROOT).nlink, 4);
    assert_eq!(fixture.exchange((ROOT, "x"), (ROOT, "x")), 0);
    assert_eq!((fixture.ino(ROOT, "x"), fixture.exchange((ROOT, "x"), (ROOT, "none"))), (a, libc::ENOENT));
}

#[test]
fn exchanged_directories_have_other_parents_and_links_are_counted() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.dir(ROOT, "a"), fixture.dir(ROOT, "b"));
    let (x, y) = (fixture.dir(a, "x"), fixture.dir(b, "y"));
    let file = fixture.file("f");
    assert_eq!(fixture.exchange((a, "x"), (b, "y")), 0);
    assert_eq!((fixture.ino(x, ".."), fixture.ino(y, "..")), (b, a));
    assert_eq!((fixture.attr(a).nlink, fixture.attr(b).nlink), (3, 3));
    assert_eq!(fixture.exchange((a, "x"), (ROOT, "f")), 0);
    assert_eq!((fixture.ino(a, "x"), fixture.ino(ROOT, "f"), fixture.ino(y, "..")), (file, y, ROOT));
    assert_eq!((fixture.attr(a).nlink, fixture.attr(ROOT).nlink), (2, 5));
    assert_eq!(fixture.exchange((a, "x"), (ROOT, "f")), 0, "and back, the directory as the second");
    assert_eq!((fixture.ino(a, "x"), fixture.ino(ROOT, "f"), fixture.ino(y, "..")), (y, file, a));
    assert_eq!((fixture.attr(a).nlink, fixture.attr(ROOT).nlink), (3, 4));
}

#[test]
fn neither_of_two_exchanged_directories_comes_to_lie_below_itself() {
    let fixture = Fixture::new();
    let a = fixture.dir(ROOT, "a");
    let b = fixture.dir(a, "b");
    fixture.dir(b, "c");
    fixture.file("f");
    let before = fixture.db.last();
    for (from, to) in
        [((ROOT, "a"), (a, "b")), ((a, "b"), (ROOT, "a")), ((ROOT, "a"), (b, "c")), ((b, "c"), (ROOT, "a"))]
    {
        assert_eq!(fixture.exchange(from, to), libc::EINVAL, "{from:?} {to:?}");
    }
    assert_eq!(fixture.db.last(), before);
    assert_eq!(fixture.exchange((ROOT, "f"), (b, "c")), 0);
}

#[test]
fn an_exchange_is_a_change_of_all_four() {
    let fixture = Fixture::new();
    let (a, file) = (fixture.dir(ROOT, "a"), fixture.file("f"));
    let x = fixture.dir(a, "x");
    let cx = Cx { now: Time { secs: 8, nanos: 0 }, ..root() };
    fixture.fs.rename(&cx, a, b"x", ROOT, b"f", libc::RENAME_EXCHANGE).expect("exchanged");
    for ino in [a, ROOT, x, file] {
        assert_eq!(fixture.attr(ino).ctime, cx.now);
    }
    assert_eq!((fixture.attr(a).mtime, fixture.attr(x).mtime), (cx.now, Time::default()));
}

#[test]
fn a_whiteout_takes_the_place_of_what_is_renamed_in_the_same_batch() {
    let fixture = Fixture::new();
    let (dir, file) = (fixture.dir(ROOT, "d"), fixture.file("f"));
    fixture.file("g");
    let (before, uses) = (fixture.db.last(), fixture.fs.inodes_in_use());
    assert_eq!(fixture.whiteout((ROOT, "f"), (ROOT, "h")), 0);
    assert_eq!(fixture.db.last(), before.next(before.epoch));
    assert_eq!(fixture.names(ROOT), ["d", "f", "g", "h"], "the whiteout keeps the place");
    let left = fixture.find(ROOT, "f").expect("a whiteout");
    assert_eq!((left.mode, left.rdev, left.nlink, left.uid), (libc::S_IFCHR, 0, 1, 0));
    assert_eq!((fixture.ino(ROOT, "h"), fixture.fs.inodes_in_use()), (file, uses));
    assert_eq!(fixture.whiteout((ROOT, "d"), (ROOT, "g")), libc::ENOTDIR);
    assert_eq!(fixture.whiteout((ROOT, "d"), (ROOT, "e")), 0);
    assert_eq!((fixture.ino(ROOT, "e"), fixture.attr(ROOT).nlink), (dir, 3));
    assert_eq!(fixture.whiteout((ROOT, "h"), (dir, "h")), 0);
    assert_eq!(fixture.whiteout((ROOT, "g"), (ROOT, "f")), 0, "a whiteout is replaced as any file");
    assert_eq!(fixture.names(ROOT), ["d", "f", "g", "h", "e"]);
    assert_eq!(fixture.keys_of(left.ino), []);
}
