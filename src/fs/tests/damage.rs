//! Damaged metadata: an error for what it touches, never a panic.

use super::*;

/// A small tree with every kind of key.
fn populated() -> Fixture {
    let fixture = Fixture::new();
    let (small, large) = (fixture.file("small"), fixture.file("large"));
    fixture.write(small, 0, b"inline");
    fixture.write(large, 0, &[5; 200_000]);
    let dir = fixture.dir(ROOT, "dir");
    fixture.dir(dir, "sub");
    let (open, _) = fixture.fs.create(&root(), ROOT, b"open", 0o600).expect("made");
    fixture.fs.unlink(&root(), ROOT, b"open").expect("removed");
    assert_eq!(fixture.attr(open.ino).nlink, 0);
    fixture
}

/// Does a bit of everything to every inode and name; errors are fine.
fn use_everything(fixture: &Fixture) -> usize {
    let (fs, cx) = (&fixture.fs, root());
    let mut failed = 0;
    let mut count = |e: i32| failed += usize::from(e == libc::EIO);
    for ino in (1..8).map(InodeNo) {
        count(errno(fs.getattr(&cx, ino)));
        count(errno(fs.read(&cx, ino, 0, 1 << 20)));
        count(errno(fs.write(&cx, ino, 60_000, &[1; 70_000])));
        count(errno(fs.setattr(&cx, ino, SetAttr { size: Some(65_000), ..SetAttr::default() })));
        count(errno(fs.readdir_plus(&cx, ino, 0, 100)));
        count(errno(fs.readlink(&cx, ino)));
        let opened = errno(fs.open(&cx, ino));
        count(opened);
        count(errno(fs.link(&cx, ino, ROOT, b"linked")));
        for name in ["small", "large", "dir", "sub", "linked"] {
            let name = name.as_bytes();
            count(errno(fs.lookup(&cx, ino, name)));
            count(errno(fs.rename(&cx, ino, name, InodeNo(5), b"moved", 0)));
            count(errno(fs.rename(&cx, InodeNo(4), b"moved", ino, name, 0)));
            count(errno(fs.unlink(&cx, ino, name)));
            count(errno(fs.rmdir(&cx, ino, name)));
        }
        count(errno(fs.mkdir(&cx, ino, b"fresh", 0o755)));
        if opened == 0 {
            count(errno(fs.release(&cx, ino)));
        }
    }
    failed
}

/// The errors of a tree in which one value was replaced.
fn errors_with(key: &Bytes, value: Vec<u8>) -> usize {
    let fixture = populated();
    fixture.put(key.clone(), value.into());
    use_everything(&fixture)
}

#[test]
fn damaged_values_are_errors_and_never_panic() {
    assert_eq!(use_everything(&populated()), 0, "nothing is damaged yet");
    for (key, value) in populated().rows() {
        for at in 0..value.len() {
            let flipped = value.iter().enumerate().map(|(i, b)| if i == at { b ^ 0xff } else { *b });
            errors_with(&key, flipped.collect());
        }
        errors_with(&key, vec![0xff; value.len()]);
        let failed = errors_with(&key, vec![0; value.len() + 1]);
        match Key::decode(&key).expect("a key") {
            Key::Inline(_) | Key::Orphan(_) => {}
            key => assert!(failed > 0, "damage of {key:?} is noticed"),
        }
    }
}

#[test]
fn directories_that_contain_each_other_do_not_hang_a_rename() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.dir(ROOT, "a"), fixture.dir(ROOT, "b"));
    fixture.dir(ROOT, "c");
    for (ino, parent) in [(a, b), (b, a)] {
        let mut inode = root_inode(Time::default(), 0o755, 0, 0);
        inode.parent = parent;
        fixture.put(key::inode(ino), inode.encode());
    }
    assert_eq!(errno(fixture.fs.rename(&root(), ROOT, b"c", a, b"c", 0)), libc::EIO);
}
