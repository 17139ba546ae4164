//! Access control lists and the mode.

use super::*;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// A list in the form of its attribute, from (tag, permissions, id).
fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut out = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        out.extend([tag.to_le_bytes(), perm.to_le_bytes()].concat());
        out.extend(id.to_le_bytes());
    }
    out
}

/// Owner 7, user 1000 with `perm`, group 5, the mask, others 4.
fn with_mask(perm: u16, mask: u16) -> Vec<u8> {
    let nobody = u32::MAX;
    list(&[(1, 7, nobody), (2, perm, 1000), (4, 5, nobody), (0x10, mask, nobody), (0x20, 4, nobody)])
}

pub(super) fn with_user(perm: u16) -> Vec<u8> {
    with_mask(perm, 7)
}

/// No more than the mode says.
fn plain(owner: u16, group: u16, other: u16) -> Vec<u8> {
    list(&[(1, owner, u32::MAX), (4, group, u32::MAX), (0x20, other, u32::MAX)])
}

fn set(fixture: &Fixture, cx: &Cx, ino: InodeNo, name: &str, value: &[u8]) -> i32 {
    errno(fixture.fs.set_xattr(cx, ino, name.as_bytes(), value, 0))
}

#[test]
fn an_access_list_and_the_mode_stay_in_step_both_ways() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.set_xattr(ino, ACCESS, &with_mask(6, 3));
    assert_eq!(fixture.mode(ino), 0o734, "the group's bits are the mask");
    fixture.chmod(ino, 0o1652);
    assert_eq!(fixture.mode(ino), 0o1652);
    let n = u32::MAX;
    let changed = list(&[(1, 6, n), (2, 6, 1000), (4, 5, n), (0x10, 5, n), (0x20, 2, n)]);
    assert_eq!(fixture.xattr(ino, ACCESS).expect("kept"), changed);
}

#[test]
fn a_list_that_says_no_more_than_the_mode_is_not_kept() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.set_xattr(ino, ACCESS, &plain(7, 1, 0));
    assert_eq!((fixture.mode(ino), fixture.xattr(ino, ACCESS)), (0o710, None));
    fixture.set_xattr(ino, ACCESS, &with_user(7));
    fixture.set_xattr(ino, ACCESS, &plain(6, 0, 0));
    assert_eq!((fixture.mode(ino), fixture.keys_of(ino)), (0o600, vec![Key::Inode(ino)]));
    assert_eq!(set(&fixture, &root(), ino, ACCESS, &list(&[])), 0, "an empty list is none");
}

#[test]
fn removing_a_list_leaves_the_mode_and_need_not_find_one() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.set_xattr(ino, ACCESS, &with_mask(7, 2));
    for _ in 0..2 {
        assert_eq!(errno(fixture.fs.remove_xattr(&root(), ino, ACCESS.as_bytes())), 0);
        assert_eq!((fixture.mode(ino), fixture.xattr(ino, ACCESS)), (0o724, None));
    }
    assert_eq!(errno(fixture.fs.remove_xattr(&root(), ino, DEFAULT.as_bytes())), 0);
}

#[test]
fn lists_are_where_linux_has_them_and_are_checked() {
    let fixture = Fixture::new();
    let (file, dir) = (fixture.file("f"), fixture.dir(ROOT, "d"));
    let link = fixture.forget(fixture.fs.symlink(&root(), ROOT, b"l", b"x").expect("made").0);
    let set = |ino, name, value: &[u8]| set(&fixture, &root(), ino, name, value);
    assert_eq!(
        (set(link, ACCESS, &with_user(7)), set(link, DEFAULT, &with_user(7))),
        (libc::EOPNOTSUPP, libc::EOPNOTSUPP)
    );
    assert_eq!((set(file, DEFAULT, &with_user(7)), set(file, DEFAULT, &list(&[]))), (libc::EACCES, 0));
    assert_eq!((set(dir, DEFAULT, &with_user(7)), set(dir, ACCESS, &with_user(7))), (0, 0));
    assert_eq!(set(file, ACCESS, b"\x03\0\0\0"), libc::EOPNOTSUPP);
    assert_eq!((set(file, ACCESS, b""), set(file, ACCESS, &[2, 0, 0, 0, 1])), (libc::EINVAL, libc::EINVAL));
    assert_eq!(set(file, ACCESS, &list(&[(1, 7, 0), (2, 7, 5), (4, 7, 0), (0x20, 7, 0)])), libc::EINVAL);
    assert_eq!(set(file, ACCESS, &[&[2, 0, 0, 0][..], &[0; 4096]].concat()), libc::E2BIG);
    assert_eq!(fixture.keys_of(file), [Key::Inode(file)]);
}

#[test]
fn a_list_by_somebody_outside_the_group_takes_set_group_id() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    let member = |_| Some(Rights { groups: vec![0], capabilities: 0 });
    let stranger = |_| Some(Rights { groups: vec![1, 2], capabilities: !(1 << Rights::FSETID) });
    for (look_up, expected) in [
        (member as fn(u32) -> Option<Rights>, 0o2774),
        (stranger, 0o774),
        (|_| None, 0o774),
        (Caller::PRIVILEGED.look_up, 0o2774),
    ] {
        fixture.chmod(ino, 0o2700);
        let cx = Cx { caller: Caller { thread: 1, look_up }, ..user() };
        assert_eq!(set(&fixture, &cx, ino, ACCESS, &with_user(7)), 0);
        assert_eq!(fixture.mode(ino), expected);
    }
}

#[test]
fn the_default_list_takes_the_place_of_the_umask() {
    let fixture = Fixture::new();
    let (bare, dir) = (fixture.dir(ROOT, "bare"), fixture.dir(ROOT, "dir"));
    fixture.set_xattr(dir, DEFAULT, &with_user(6));
    assert_eq!(fixture.mode(dir), 0o755, "a default list says nothing of the directory itself");
    let cx = Cx { umask: 0o077, ..root() };
    let make = |parent| {
        let file = fixture.fs.create(&cx, parent, b"f", 0o666).expect("made").0;
        let fifo = fixture.fs.mknod(&cx, parent, b"p", libc::S_IFIFO | 0o606, 0).expect("made").0;
        let sub = fixture.fs.mkdir(&cx, parent, b"d", 0o777).expect("made").0;
        let link = fixture.fs.symlink(&cx, parent, b"l", b"x").expect("made").0;
        [file, fifo, sub, link].map(|attr| (attr.ino, attr.mode & 0o7777))
    };
    assert_eq!(make(bare).map(|(_, mode)| mode), [0o600, 0o600, 0o700, 0o777]);
    let [file, fifo, sub, link] = make(dir);
    assert_eq!([file.1, fifo.1, sub.1, link.1], [0o664, 0o604, 0o774, 0o777]);
    let n = u32::MAX;
    let masked = |owner, mask| list(&[(1, owner, n), (2, 6, 1000), (4, 5, n), (0x10, mask, n), (0x20, 4, n)]);
    assert_eq!(fixture.xattr(file.0, ACCESS).expect("inherited"), masked(6, 6));
    assert_eq!(fixture.xattr(fifo.0, ACCESS).expect("inherited"), masked(6, 0));
    assert_eq!(fixture.xattr(sub.0, ACCESS).expect("inherited"), with_user(6));
    assert_eq!(fixture.xattr(sub.0, DEFAULT).expect("inherited"), with_user(6));
    assert_eq!((fixture.xattr(file.0, DEFAULT), fixture.keys_of(link.0)), (None, vec![Key::Inode(link.0)]));
}

#[test]
fn a_plain_default_list_gives_modes_and_no_lists() {
    let fixture = Fixture::new();
    let dir = fixture.dir(ROOT, "dir");
    fixture.set_xattr(dir, DEFAULT, &plain(7, 4, 0));
    let cx = Cx { umask: 0o777, ..root() };
    let file = fixture.forget(fixture.fs.mknod(&cx, dir, b"f", 0o666, 0).expect("made").0);
    assert_eq!((fixture.mode(file), fixture.keys_of(file)), (0o640, vec![Key::Inode(file)]));
}

#[test]
fn making_something_with_lists_is_one_batch_even_in_the_smallest_segments() {
    let fixture = Fixture::with_small_segments();
    let dir = fixture.dir(ROOT, "dir");
    let users: Vec<(u16, u16, u32)> = (0..507).map(|uid| (2, 7, uid)).collect();
    let n = u32::MAX;
    let long = [&[(1, 7, n)][..], &users, &[(4, 7, n), (0x10, 7, n), (0x20, 7, n)]].concat();
    fixture.set_xattr(dir, DEFAULT, &list(&long));
    let before = fixture.db.last();
    let sub = fixture.fs.mkdir(&root(), dir, &[b'n'; 255], 0o777).expect("made").0;
    assert_eq!(fixture.db.last(), before.next(before.epoch));
    assert_eq!(fixture.xattr(sub.ino, ACCESS).expect("inherited").len(), 4 + 511 * 8);
}
