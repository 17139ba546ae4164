//! Extended attributes.

use super::*;
use crate::format::inode::{Inode, Xattrs};
use crate::format::key::VALUE_BYTES_MAX;

impl Fixture {
    fn list(&self, cx: &Cx, ino: InodeNo) -> Vec<String> {
        let list = self.fs.list_xattrs(cx, ino).expect("listed");
        list.split_inclusive(|b| *b == 0).map(|name| text(name.strip_suffix(&[0]).expect("ended"))).collect()
    }

    fn remove_xattr(&self, ino: InodeNo, name: &str) -> i32 {
        errno(self.fs.remove_xattr(&root(), ino, name.as_bytes()))
    }

    fn marks(&self, ino: InodeNo) -> Xattrs {
        let rows = self.rows();
        let (_, value) = rows.iter().find(|(key, _)| *key == key::inode(ino)).expect("it exists");
        Inode::decode(value).expect("an inode").xattrs
    }
}

#[test]
fn a_value_is_kept_replaced_and_removed() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    assert_eq!(fixture.xattr(ino, "user.x"), None);
    fixture.set_xattr(ino, "user.x", b"one");
    fixture.set_xattr(ino, "user.empty", b"");
    assert_eq!(fixture.xattr(ino, "user.x").expect("set"), "one");
    fixture.set_xattr(ino, "user.x", b"two");
    assert_eq!(fixture.xattr(ino, "user.x").expect("set"), "two");
    assert_eq!(fixture.xattr(ino, "user.empty").expect("set"), "");
    assert_eq!(fixture.list(&root(), ino), ["user.empty", "user.x"]);
    assert_eq!((fixture.remove_xattr(ino, "user.x"), fixture.remove_xattr(ino, "user.x")), (0, libc::ENODATA));
    assert_eq!(fixture.remove_xattr(ino, "user.empty"), 0);
    assert_eq!((fixture.list(&root(), ino).len(), fixture.keys_of(ino)), (0, vec![Key::Inode(ino)]));
}

#[test]
fn create_and_replace_are_obeyed() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    let set = |flags| errno(fixture.fs.set_xattr(&root(), ino, b"user.x", b"v", flags));
    assert_eq!(set(libc::XATTR_REPLACE), libc::ENODATA);
    assert_eq!((set(libc::XATTR_CREATE), set(libc::XATTR_CREATE)), (0, libc::EEXIST));
    assert_eq!(set(libc::XATTR_REPLACE), 0);
}

#[test]
fn names_and_values_have_the_limits_of_linux() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    let set = |name: &[u8], len: usize| errno(fixture.fs.set_xattr(&root(), ino, name, &vec![7; len], 0));
    let name = |len: usize| [b"user.", &vec![b'n'; len - 5][..]].concat();
    assert_eq!((set(&name(255), 1), set(&name(256), 1), set(b"", 1)), (0, libc::ERANGE, libc::ERANGE));
    assert_eq!((set(b"user.v", VALUE_BYTES_MAX), set(b"user.v", VALUE_BYTES_MAX + 1)), (0, libc::E2BIG));
    assert_eq!(fixture.xattr(ino, "user.v").expect("set").len(), VALUE_BYTES_MAX);
    for namespace in ["user.", "trusted.", "security."] {
        assert_eq!(set(namespace.as_bytes(), 1), libc::EINVAL);
    }
    for namespace in ["user", "bogus.x", "system.x", "osx.x"] {
        assert_eq!(set(namespace.as_bytes(), 1), libc::EOPNOTSUPP);
        assert_eq!(errno(fixture.fs.get_xattr(&root(), ino, namespace.as_bytes())), libc::EOPNOTSUPP);
        assert_eq!(fixture.remove_xattr(ino, namespace), libc::EOPNOTSUPP);
    }
}

#[test]
fn more_names_than_the_kernel_lists_are_refused_when_listed() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    for i in 0..256 {
        fixture.settle();
        fixture.set_xattr(ino, &format!("user.{i:0250}"), b"");
    }
    assert_eq!(fixture.fs.list_xattrs(&root(), ino).expect("just fits").len(), 64 << 10);
    fixture.set_xattr(ino, "user.x", b"");
    assert_eq!(errno(fixture.fs.list_xattrs(&root(), ino)), libc::E2BIG);
}

#[test]
fn a_value_too_long_for_small_segments_is_no_space_and_changes_nothing() {
    let fixture = Fixture::with_small_segments();
    let ino = fixture.file("f");
    let set = |len: usize| errno(fixture.fs.set_xattr(&root(), ino, b"user.v", &vec![7; len], 0));
    assert_eq!((set(VALUE_BYTES_MAX), fixture.xattr(ino, "user.v")), (libc::ENOSPC, None));
    assert_eq!(set(15_000), 0);
    assert_eq!(set(16_384), libc::ENOSPC);
    assert_eq!(fixture.xattr(ino, "user.v").expect("kept").len(), 15_000);
}

#[test]
fn the_change_time_tells_and_a_value_that_is_there_changes_nothing() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    let at = |secs| Cx { now: Time { secs, nanos: 0 }, ..root() };
    let times = || (fixture.attr(ino).mtime.secs, fixture.attr(ino).ctime.secs);
    fixture.fs.set_xattr(&at(5), ino, b"user.x", b"v", 0).expect("set");
    assert_eq!(times(), (0, 5));
    let before = fixture.db.last();
    fixture.fs.set_xattr(&at(6), ino, b"user.x", b"v", 0).expect("set");
    assert_eq!((times(), fixture.db.last()), ((0, 5), before));
    fixture.fs.remove_xattr(&at(7), ino, b"user.x").expect("removed");
    assert_eq!(times(), (0, 7));
}

#[test]
fn trusted_attributes_are_listed_for_administrators_only() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    for name in ["trusted.t", "user.u", "security.s"] {
        fixture.set_xattr(ino, name, b"v");
    }
    assert_eq!(fixture.list(&root(), ino), ["security.s", "trusted.t", "user.u"]);
    assert_eq!(fixture.list(&user(), ino), ["security.s", "user.u"]);
}

#[test]
fn the_inode_knows_which_it_has() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    assert_eq!(fixture.marks(ino), Xattrs::NONE);
    for name in ["user.a", "security.capability", "trusted.b"] {
        fixture.set_xattr(ino, name, b"v");
    }
    let both = Xattrs::OTHERS.with(Xattrs::CAPABILITY);
    assert_eq!(fixture.marks(ino), both);
    fixture.remove_xattr(ino, "user.a");
    assert_eq!(fixture.marks(ino), both, "there is one of another name still");
    fixture.remove_xattr(ino, "trusted.b");
    assert_eq!(fixture.marks(ino), Xattrs::CAPABILITY);
    fixture.remove_xattr(ino, "security.capability");
    assert_eq!(fixture.marks(ino), Xattrs::NONE);
}

/// However many of them come before it in the map.
#[test]
fn the_mark_of_other_names_stays_beside_all_that_have_one_of_their_own() {
    let fixture = Fixture::new();
    let (dir, _) = fixture.fs.mkdir(&root(), ROOT, b"d", 0o755).expect("made");
    let list = acls::with_user(7);
    for name in ["security.capability", "system.posix_acl_access", "system.posix_acl_default"] {
        fixture.set_xattr(dir.ino, name, &list);
    }
    for name in ["user.a", "user.b"] {
        fixture.set_xattr(dir.ino, name, b"v");
    }
    let all = fixture.marks(dir.ino);
    for (gone, marks) in [("user.a", all), ("user.b", all.without(Xattrs::OTHERS))] {
        assert_eq!(fixture.remove_xattr(dir.ino, gone), 0);
        assert_eq!(fixture.marks(dir.ino), marks, "without {gone}");
    }
}

#[test]
fn they_go_with_their_inode_and_stay_with_an_orphan() {
    let fixture = Fixture::new();
    let (gone, open) = (fixture.file("gone"), fixture.file("open"));
    for ino in [gone, open] {
        fixture.set_xattr(ino, "user.x", b"v");
    }
    fixture.fs.open(&root(), open).expect("opened");
    for name in [b"gone", b"open"] {
        fixture.fs.unlink(&root(), ROOT, name).expect("removed");
    }
    assert_eq!(fixture.keys_of(gone), []);
    assert_eq!(fixture.xattr(open, "user.x").expect("kept"), "v");
    fixture.set_xattr(open, "user.y", b"w");
    fixture.fs.release(&root(), open).expect("released");
    assert_eq!(fixture.keys_of(open), []);
}
