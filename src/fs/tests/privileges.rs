//! What files lose with a write, a truncation, or a new owner.

use super::*;

/// The rights of a thread in group 100 and in no other.
fn in_group_100(_: u32) -> Option<Rights> {
    Some(Rights { groups: vec![100], capabilities: 0 })
}

fn somebody(gid: u32, look_up: fn(u32) -> Option<Rights>) -> Cx {
    Cx { uid: 1000, gid, caller: Caller { thread: 1, look_up }, ..Cx::default() }
}

fn truncate(fixture: &Fixture, cx: &Cx, ino: InodeNo) {
    fixture.fs.setattr(cx, ino, SetAttr { size: Some(0), ..SetAttr::default() }).expect("truncated");
}

fn chown(fixture: &Fixture, cx: &Cx, ino: InodeNo, gid: u32) {
    fixture.fs.setattr(cx, ino, SetAttr { gid: Some(gid), ..SetAttr::default() }).expect("changed");
}

#[test]
fn set_id_bits_are_lost_when_somebody_without_the_capability_changes_contents() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.chmod(ino, 0o6755);
    fixture.write(ino, 0, b"x");
    truncate(&fixture, &root(), ino);
    assert_eq!(fixture.mode(ino), 0o6755, "who has the capability keeps them");
    fixture.fs.write(&user(), ino, 0, b"x").expect("written");
    assert_eq!(fixture.mode(ino), 0o755);
    fixture.chmod(ino, 0o6755);
    truncate(&fixture, &user(), ino);
    assert_eq!(fixture.mode(ino), 0o755);
    fixture.chmod(ino, 0o6755);
    let unknown = Cx { caller: Caller::default(), ..Cx::default() };
    fixture.fs.write(&unknown, ino, 0, b"x").expect("written");
    assert_eq!(fixture.mode(ino), 0o755, "the superuser's number alone is no capability");
}

#[test]
fn set_group_id_without_execution_is_kept_by_members_of_the_group() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    chown(&fixture, &root(), ino, 100);
    for (cx, expected) in [
        (somebody(100, |_| None), 0o2745),
        (somebody(5, in_group_100), 0o2745),
        (somebody(5, |_| Some(Rights::default())), 0o745),
        (somebody(5, |_| None), 0o745),
    ] {
        fixture.chmod(ino, 0o6745);
        fixture.fs.write(&cx, ino, 0, b"x").expect("written");
        assert_eq!(fixture.mode(ino), expected, "{cx:?}", cx = (cx.uid, cx.gid));
    }
}

#[test]
fn a_new_owner_or_group_takes_the_bits_whoever_gives_it() {
    let fixture = Fixture::new();
    let (file, dir) = (fixture.file("f"), fixture.dir(ROOT, "d"));
    for (ino, expected) in [(file, 0o755), (dir, 0o6755)] {
        fixture.chmod(ino, 0o6755);
        chown(&fixture, &root(), ino, 7);
        assert_eq!((fixture.mode(ino), fixture.attr(ino).gid), (expected, 7));
    }
    fixture.chmod(file, 0o6745);
    chown(&fixture, &root(), file, 8);
    assert_eq!(fixture.mode(file), 0o2745, "no privilege without execution by the group");
    fixture.chmod(file, 0o2745);
    chown(&fixture, &somebody(9, |_| None), file, 9);
    assert_eq!(fixture.mode(file), 0o745, "who was in the group before the change counts, not after");
}

#[test]
fn what_the_kernel_sends_before_a_write_answers_attributes_without_the_bits() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.chmod(ino, 0o6755);
    let cx = Cx { now: Time { secs: 9, nanos: 0 }, ..user() };
    let (attr, _) = fixture.fs.setattr(&cx, ino, SetAttr::default()).expect("answered");
    assert_eq!((attr.mode & 0o7777, attr.ctime, attr.mtime), (0o755, cx.now, Time::default()));
    assert_eq!(fixture.attr(ino), attr);
}

#[test]
fn capabilities_of_a_program_go_with_any_change_of_contents_or_owner() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    let change: [(&str, &dyn Fn()); 4] = [
        ("write", &|| fixture.write(ino, 0, b"x")),
        ("truncate", &|| truncate(&fixture, &root(), ino)),
        ("chown", &|| chown(&fixture, &root(), ino, 0)),
        ("nothing", &|| assert!(fixture.fs.setattr(&root(), ino, SetAttr::default()).is_ok())),
    ];
    for (what, change) in change {
        fixture.set_xattr(ino, "security.capability", b"all");
        fixture.set_xattr(ino, "user.x", b"stays");
        fixture.chmod(ino, 0o755);
        assert!(fixture.xattr(ino, "security.capability").is_some(), "chmod takes none");
        change();
        assert_eq!(fixture.xattr(ino, "security.capability"), None, "{what}");
        assert!(!fixture.keys_of(ino).contains(&Key::Xattr(ino, Bytes::from_static(b"security.capability"))));
        assert_eq!(fixture.xattr(ino, "user.x").expect("not touched"), "stays");
    }
}

#[test]
fn what_is_written_back_takes_no_capabilities() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.write(ino, 0, b"nothing");
    fixture.set_xattr(ino, "security.capability", b"all");
    let written_back = Cx { written_back: true, ..root() };
    fixture.fs.write(&written_back, ino, 0, b"earlier").expect("written");
    assert_eq!(fixture.xattr(ino, "security.capability").expect("set after the program wrote"), "all");
}
