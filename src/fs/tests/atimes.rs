//! Access times, noted as `relatime` says.

use super::*;

const DAY: i64 = 24 * 60 * 60;

fn note(fixture: &Fixture, ino: InodeNo, secs: i64) -> i64 {
    let cx = Cx { now: Time { secs, nanos: 0 }, ..user() };
    fixture.fs.note_access(&cx, ino).expect("noted or not");
    fixture.attr(ino).atime.secs
}

#[test]
fn an_access_is_noted_after_a_change_and_once_a_day() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    assert_eq!(note(&fixture, ino, 10), 10);
    let before = fixture.db.last();
    assert_eq!((note(&fixture, ino, 20), note(&fixture, ino, 9 + DAY), fixture.db.last()), (10, 10, before));
    assert_eq!(note(&fixture, ino, 10 + DAY), 10 + DAY);
    let later = Cx { now: Time { secs: 11 + DAY, nanos: 0 }, ..root() };
    fixture.fs.write(&later, ino, 0, b"x").expect("written");
    assert_eq!(note(&fixture, ino, 12 + DAY), 12 + DAY);
    assert_eq!(fixture.attr(ino).ctime, later.now, "an access is no change");
    let changed = Cx { now: Time { secs: 13 + DAY, nanos: 0 }, ..root() };
    fixture.fs.setattr(&changed, ino, SetAttr { mode: Some(0o600), ..SetAttr::default() }).expect("changed");
    assert_eq!((note(&fixture, ino, 14 + DAY), note(&fixture, ino, 15 + DAY)), (14 + DAY, 14 + DAY));
}

#[test]
fn no_reader_waits_for_room_to_note_it() {
    let fixture = Fixture::with_queue(16 << 10);
    let ino = fixture.file("f");
    while fixture.fs.write(&root(), ino, 0, &[7; 100]).is_ok() {}
    assert_eq!(note(&fixture, ino, 10), 0, "there is no room, and it is no error");
    fixture.settle();
    assert_eq!(note(&fixture, ino, 10), 10);
}

#[test]
fn reading_itself_notes_nothing() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.write(ino, 0, b"x");
    let before = fixture.db.last();
    fixture.read(ino, 0, 1);
    fixture.fs.readdir(&root(), ROOT, 0, 9).expect("listed");
    assert_eq!(fixture.db.last(), before);
}
