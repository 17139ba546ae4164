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
    fixture.set_xattr(small, "user.x", b"value");
    fixture.set_xattr(small, "system.posix_acl_access", &acls::with_user(7));
    fixture.set_xattr(dir, "system.posix_acl_default", &acls::with_user(6));
    let (open, _) = fixture.fs.create(&root(), ROOT, b"open", 0o600).expect("made");
    fixture.fs.unlink(&root(), ROOT, b"open").expect("removed");
    assert_eq!(fixture.attr(open.ino).nlink, 0);
    fixture
}

/// The errno; EIO for file data that is waited for, since none of it was ever lost here.
fn failure<T>(result: Result<T, Stop>) -> i32 {
    match result {
        Err(Stop::Wait(_)) => libc::EIO,
        result => errno(result),
    }
}

/// Does a bit of everything to every inode and name; errors are fine.
fn use_everything(fixture: &Fixture) -> usize {
    let (fs, cx) = (&fixture.fs, root());
    let mut failed = 0;
    fixture.settle();
    let mut count = |e: i32| failed += usize::from(e == libc::EIO);
    for ino in (1..8).map(InodeNo) {
        count(errno(fs.getattr(&cx, ino)));
        count(failure(fs.read(&cx, ino, 0, 1 << 20)));
        count(errno(fs.write(&cx, ino, 60_000, &[1; 70_000])));
        count(errno(fs.setattr(&cx, ino, SetAttr { size: Some(65_000), ..SetAttr::default() })));
        count(errno(fs.readdir_plus(&cx, ino, 0, 100)));
        count(errno(fs.readlink(&cx, ino)));
        count(errno(fs.get_xattr(&cx, ino, b"user.x")));
        count(errno(fs.list_xattrs(&cx, ino)));
        count(errno(fs.setattr(&cx, ino, SetAttr { mode: Some(0o640), ..SetAttr::default() })));
        count(errno(fs.mknod(&cx, ino, b"inherits", 0o600, 0)));
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

/// A filesystem that is set back to the same tree again and again.
struct Again {
    fixture: Fixture,
    rows: Vec<(Bytes, Bytes)>,
}

impl Again {
    fn new() -> Again {
        let fixture = populated();
        Again { rows: fixture.rows(), fixture }
    }

    /// The errors of the tree when one value is replaced.
    fn errors_with(&mut self, key: &Bytes, value: Vec<u8>) -> usize {
        self.fixture.fs = Fixture::fs_over(&self.fixture.db);
        self.fixture.settle();
        let pins = Pins::default();
        let mut tx = self.fixture.db.begin(&pins);
        tx.delete_range(TreeId::Files, Bytes::from_static(&[0]), Bytes::from_static(&[0xff; 9]));
        for (key, value) in &self.rows {
            tx.put(TreeId::Files, key.clone(), value.clone());
        }
        tx.put(TreeId::Files, key.clone(), value.into());
        tx.commit(Room::Ordinary).expect("committed");
        use_everything(&self.fixture)
    }
}

#[test]
fn damaged_values_are_errors_and_never_panic() {
    assert_eq!(use_everything(&populated()), 0, "nothing is damaged yet");
    for (key, value) in populated().rows() {
        let mut again = Again::new();
        for at in 0..value.len() {
            let flipped = value.iter().enumerate().map(|(i, b)| if i == at { b ^ 0xff } else { *b });
            again.errors_with(&key, flipped.collect());
        }
        again.errors_with(&key, vec![0xff; value.len()]);
        let failed = again.errors_with(&key, vec![0; value.len() + 1]);
        match Key::decode(&key).expect("a key") {
            // The last two are read when a filesystem is opened.
            Key::Inline(_) | Key::Orphan(_) | Key::Usage | Key::Limit => {}
            // What a user put there may be anything.
            Key::Xattr(_, name) if name.starts_with(b"user.") => {}
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
