//! Files without a name: kept while used, freed by the last user or by recovery.

use super::*;
use crate::media::sim::{DiskFault, DiskOp, Nth};

#[test]
fn what_nothing_uses_is_removed_with_its_last_name() {
    let fixture = Fixture::new();
    let before = fixture.rows().len();
    let (ino, dir) = (fixture.file("f"), fixture.dir(ROOT, "d"));
    fixture.write(ino, 0, &[1; 200_000]);
    fixture.fs.unlink(&root(), ROOT, b"f").expect("removed");
    fixture.fs.rmdir(&root(), ROOT, b"d").expect("removed");
    assert_eq!(fixture.rows().len(), before);
    assert_eq!((fixture.keys_of(ino), fixture.keys_of(dir)), (vec![], vec![]));
}

#[test]
fn an_unlinked_open_file_can_be_read_and_written_until_it_is_released() {
    let fixture = Fixture::new();
    let ino = fixture.forget(fixture.fs.create(&root(), ROOT, b"f", 0o600).expect("made").0);
    fixture.write(ino, 0, b"before");
    fixture.fs.unlink(&root(), ROOT, b"f").expect("removed");
    assert_eq!(fixture.orphans(), 1);
    assert_eq!(fixture.attr(ino).nlink, 0);
    fixture.write(ino, 6, &[9; 5000]);
    assert_eq!(fixture.read(ino, 0, 7), b"before\x09");
    assert_eq!(errno(fixture.fs.link(&root(), ino, ROOT, b"back")), libc::ENOENT);
    fixture.fs.release(&root(), ino).expect("released");
    assert_eq!(fixture.orphans(), 0);
    assert_eq!(fixture.keys_of(ino), []);
    assert_eq!(fixture.fs.inodes_in_use(), 0);
}

#[test]
fn the_last_of_several_look_ups_and_handles_frees() {
    let fixture = Fixture::new();
    let (attr, _) = fixture.fs.create(&root(), ROOT, b"f", 0o600).expect("made");
    fixture.fs.lookup(&root(), ROOT, b"f").expect("found");
    fixture.fs.open(&root(), attr.ino).expect("opened");
    fixture.fs.unlink(&root(), ROOT, b"f").expect("removed");
    let steps: [&dyn Fn() -> Result<(), Stop>; 4] = [
        &|| fixture.fs.forget(&root(), attr.ino, 1),
        &|| fixture.fs.release(&root(), attr.ino),
        &|| fixture.fs.release(&root(), attr.ino),
        &|| fixture.fs.forget(&root(), attr.ino, 1),
    ];
    for step in steps {
        assert_eq!(fixture.orphans(), 1);
        step().expect("given back");
    }
    assert_eq!(fixture.orphans(), 0);
}

#[test]
fn an_orphan_that_a_full_disk_has_kept_is_freed_when_there_is_room_again() {
    let log = CallLog::new();
    let (disk, clock) = (Arc::new(SimDisk::new(&log)), Arc::new(SimClock::default()));
    let start = Start { usage: Some(Usage::EMPTY), ..Start::default() };
    let fixture = Fixture::over(open_db_on(Arc::clone(&disk), Arc::clone(&clock), 1 << 30, 64 << 10, start));
    let open = |name: &[u8]| fixture.forget(fixture.fs.create(&root(), ROOT, name, 0o600).expect("made").0);
    let (kept, other) = (open(b"kept"), open(b"other"));
    fixture.fs.unlink(&root(), ROOT, b"kept").expect("removed");
    let chmod = |mode| fixture.fs.setattr(&root(), other, SetAttr { mode: Some(mode), ..SetAttr::default() });
    fixture.truncate(other, 1 << 41);
    let slots = disk.image().names().filter(|name| name.starts_with("journal/slot-")).count();
    for slot in slots..slots + 3 {
        let next = Nth::new(1).of(DiskOp::Write).on(&format!("journal/slot-{slot:06}")).forever();
        disk.fail(next, DiskFault::NoSpace);
    }
    let refused = (0..40_000).find_map(|n| {
        fixture.settle();
        let set = SetAttr { size: Some((1 << 40) - n), ..SetAttr::default() };
        fixture.fs.setattr(&root(), other, set).err()
    });
    assert_eq!(refused, Some(Error::DiskFull.into()), "even what frees finds no room");
    assert_eq!(fixture.fs.release(&root(), kept), Err(Error::DiskFull.into()));
    assert_eq!((fixture.orphans(), fixture.fs.inodes_in_use()), (1, 1), "its use has ended");
    fixture.fs.open(&root(), other).expect("opened");
    fixture.fs.release(&root(), other).expect("its own work is done");
    assert_eq!(fixture.orphans(), 1, "still no room");

    disk.heal();
    clock.advance(std::time::Duration::from_secs(1));
    fixture.settle();
    fixture.fs.release(&root(), other).expect("closed");
    assert_eq!((fixture.orphans(), fixture.keys_of(kept)), (0, vec![]));
    chmod(0o644).expect("there is room");
}

#[test]
fn a_removed_directory_in_use_is_an_empty_orphan_that_takes_no_names() {
    let fixture = Fixture::new();
    let dir = fixture.dir(ROOT, "d");
    let file = fixture.file("f");
    fixture.fs.opendir(&root(), dir).expect("opened");
    fixture.fs.rmdir(&root(), ROOT, b"d").expect("removed");
    assert_eq!(fixture.names(dir), [""; 0]);
    assert_eq!(errno(fixture.fs.mkdir(&root(), dir, b"x", 0o755)), libc::ENOENT);
    assert_eq!(errno(fixture.fs.link(&root(), file, dir, b"x")), libc::ENOENT);
    assert_eq!(errno(fixture.fs.rename(&root(), ROOT, b"f", dir, b"x", 0)), libc::ENOENT);
    fixture.fs.release(&root(), dir).expect("released");
    assert_eq!((fixture.orphans(), fixture.keys_of(dir)), (0, vec![]));
}

#[test]
fn promise_s9_recovery_frees_every_orphan_a_dead_daemon_left() {
    let fixture = Fixture::new();
    let before = fixture.rows().len();
    for i in 0..150 {
        let name = format!("f{i}");
        let (attr, _) = fixture.fs.create(&root(), ROOT, name.as_bytes(), 0o600).expect("made");
        fixture.write(attr.ino, 0, &[1; 3000]);
        fixture.fs.unlink(&root(), ROOT, name.as_bytes()).expect("removed");
    }
    let fixture = fixture.crashed();
    assert_eq!(fixture.orphans(), 150);
    let mut steps = Vec::new();
    loop {
        let (freed, _) = fixture.fs.free_orphans(&root()).expect("freed");
        steps.push(freed);
        if freed == 0 {
            break;
        }
    }
    assert_eq!(steps, [64, 64, 22, 0]);
    assert_eq!(fixture.rows().len(), before);
}
