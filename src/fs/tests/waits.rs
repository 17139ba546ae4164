//! What has to wait has not happened: no row, no count, no orphan, whether it is tried again or not.

use super::*;

/// Makes files until there is no room in the journal's queue.
fn fill(fixture: &Fixture) {
    for i in 0..10_000 {
        match fixture.fs.mkdir(&root(), ROOT, format!("filler{i}").as_bytes(), 0o755) {
            Ok((attr, _)) => drop(fixture.forget(attr)),
            Err(Stop::Wait(Wait::Pressure)) => return,
            Err(stop) => panic!("mkdir: {stop:?}"),
        }
    }
    panic!("the queue never fills");
}

#[test]
fn an_operation_that_waits_has_changed_nothing() {
    let fixture = Fixture::with_queue(600 << 10);
    let (used, unused, dir) = (fixture.file("used"), fixture.file("unused"), fixture.dir(ROOT, "dir"));
    fixture.write(used, 0, &[1; 3000]);
    fixture.fs.open(&root(), used).expect("opened");
    let orphan = fixture.fs.create(&root(), ROOT, b"orphan", 0o600).expect("made").0.ino;
    fixture.fs.unlink(&root(), ROOT, b"orphan").expect("removed");
    fixture.fs.forget(&root(), orphan, 1).expect("still open");
    fill(&fixture);
    let (rows, in_use) = (fixture.rows(), fixture.fs.inodes_in_use());

    let (fs, cx) = (&fixture.fs, root());
    let size = |size| SetAttr { size: Some(size), ..SetAttr::default() };
    let stops = [
        fs.create(&cx, ROOT, b"new", 0o644).err(),
        fs.mkdir(&cx, ROOT, b"new", 0o755).err(),
        fs.symlink(&cx, ROOT, b"new", b"x").err(),
        fs.link(&cx, used, ROOT, b"new").err(),
        fs.unlink(&cx, ROOT, b"used").err(),
        fs.unlink(&cx, ROOT, b"unused").err(),
        fs.rmdir(&cx, ROOT, b"dir").err(),
        fs.rename(&cx, ROOT, b"unused", ROOT, b"used", 0).err(),
        fs.write(&cx, unused, 0, b"x").err(),
        fs.setattr(&cx, used, size(1)).err(),
        fs.fallocate(&cx, used, 0, 5000, 0).err(),
        fs.fallocate(&cx, used, 0, 5, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE).err(),
        fs.copy_file_range(&cx, Place { ino: used, offset: 0 }, Place { ino: unused, offset: 0 }, 3000).err(),
        fs.release(&cx, orphan).err(),
    ];
    assert_eq!(stops, [const { Some(Stop::Wait(Wait::Pressure)) }; 14]);
    assert_eq!((fixture.rows(), fixture.fs.inodes_in_use()), (rows, in_use));

    // None of them is tried again but the release, and what they would have removed stays.
    fixture.settle();
    fixture.fs.release(&root(), orphan).expect("freed");
    fixture.fs.release(&root(), used).expect("closed");
    assert_eq!((fixture.keys_of(orphan), fixture.orphans()), (vec![], 0));
    assert_eq!(fixture.attr(used).nlink, 1);
    assert_eq!(fixture.read(used, 0, 3000), [1; 3000]);
    assert_eq!(fixture.attr(dir).nlink, 2);
}
