//! What the filesystem holds is counted exactly, and growth above a limit is refused with nothing changed.

use super::*;
use crate::format::usage::{OnLimit, Usage};

impl Fixture {
    fn usage(&self) -> (u64, u64) {
        let usage = self.db.usage().0.expect("it is counted");
        let (from, to) = (key::usage(), key::limit());
        let row = self.rows().into_iter().find(|(key, _)| (&from..&to).contains(&key)).expect("a row").1;
        assert_eq!(Usage::decode(&row), Ok(usage), "memory and map agree");
        (usage.inodes, usage.blocks)
    }

    fn limit(&self, set: SetLimit) {
        self.fs.set_limit(&root(), set).expect("set");
    }

    fn limit_bytes(&self, bytes: u64) {
        self.limit(SetLimit { bytes: Some(bytes), ..SetLimit::default() });
    }

    fn limit_inodes(&self, inodes: u64) {
        self.limit(SetLimit { inodes: Some(inodes), ..SetLimit::default() });
    }

    /// This must be refused, with everything as before.
    fn refused<T: std::fmt::Debug>(&self, op: impl FnOnce(&Fs) -> Result<T, Stop>) {
        self.settle();
        let before = (self.rows(), self.db.last(), self.db.journal().stats().queue_bytes, self.usage());
        assert_eq!(op(&self.fs).expect_err("refused"), Error::Limit(OnLimit::NoSpace).into());
        assert!(before == (self.rows(), self.db.last(), self.db.journal().stats().queue_bytes, self.usage()));
    }
}

fn write(ino: InodeNo, offset: u64, len: usize) -> impl FnOnce(&Fs) -> Result<u32, Stop> {
    move |fs| fs.write(&root(), ino, offset, &vec![7; len]).map(|(written, _)| written)
}

#[test]
fn inodes_and_blocks_are_counted_as_they_come_and_go() {
    let fixture = Fixture::new();
    assert_eq!(fixture.usage(), (1, 0));
    let (file, dir) = (fixture.file("f"), fixture.dir(ROOT, "d"));
    fixture.forget(fixture.fs.symlink(&root(), dir, b"s", b"target").expect("made").0);
    assert_eq!(fixture.usage(), (4, 0));
    fixture.write(file, 0, &[1; 1000]);
    assert_eq!(fixture.usage(), (4, 2), "an inline value");
    fixture.write(file, 0, &[1; 10_000]);
    assert_eq!(fixture.usage(), (4, 20));
    fixture.write(file, 20 << 20, &[1; 512]);
    assert_eq!(fixture.usage(), (4, 21), "holes take nothing");
    fixture.truncate(file, 4096);
    assert_eq!(fixture.usage(), (4, 8));
    fixture.fs.link(&root(), file, dir, b"again").expect("linked");
    fixture.fs.rename(&root(), ROOT, b"f", dir, b"s", 0).expect("replaces the link");
    assert_eq!(fixture.usage(), (3, 8), "a name more or less takes nothing, what is replaced goes");
    fixture.fs.unlink(&root(), dir, b"again").expect("removed");
    assert_eq!(fixture.usage(), (3, 8));
    fixture.fs.unlink(&root(), dir, b"s").expect("removed");
    assert_eq!(fixture.usage(), (3, 8), "the kernel still knows it");
    fixture.forget(fixture.attr(file));
    fixture.fs.rmdir(&root(), ROOT, b"d").expect("removed");
    assert_eq!(fixture.usage(), (1, 0));
}

#[test]
fn a_file_without_a_name_counts_until_it_is_closed_or_recovery_frees_it() {
    let fixture = Fixture::new();
    for name in [b"a", b"b"] {
        let (attr, _) = fixture.fs.create(&root(), ROOT, name, 0o600).expect("made");
        fixture.write(attr.ino, 0, &[1; 5000]);
        fixture.fs.unlink(&root(), ROOT, name).expect("removed");
        if name == b"a" {
            fixture.forget(attr);
            assert_eq!(fixture.usage(), (2, 10), "still open");
            fixture.fs.release(&root(), attr.ino).expect("closed");
            assert_eq!(fixture.usage(), (1, 0));
        }
    }
    let fixture = fixture.crashed();
    assert_eq!(fixture.usage(), (2, 10));
    fixture.limit(SetLimit { bytes: Some(1), inodes: Some(1), on_limit: None });
    while fixture.fs.free_orphans(&root()).expect("recovery is never refused").0 > 0 {}
    assert_eq!(fixture.usage(), (1, 0));
}

#[test]
fn growth_above_the_limit_of_bytes_is_refused_and_changes_nothing() {
    let fixture = Fixture::new();
    let (full, tiny) = (fixture.file("full"), fixture.file("tiny"));
    fixture.write(tiny, 0, b"x");
    fixture.limit_bytes(64 << 10);
    fixture.write(full, 0, &[1; (64 << 10) - 512]);
    assert_eq!(fixture.usage(), (3, 128), "up to the limit, all of it");
    fixture.refused(write(full, (64 << 10) - 512, 1));
    fixture.refused(write(tiny, 1, 512));
    fixture.refused(write(fixture.file("other"), 0, 1));
    fixture.write(tiny, 1, &[7; 511]);
    fixture.limit_bytes(0);
    fixture.write(full, 64 << 10, b"x");
}

#[test]
fn growth_above_the_limit_of_inodes_is_refused_and_changes_nothing() {
    let fixture = Fixture::new();
    fixture.limit_inodes(3);
    let (file, _) = (fixture.file("f"), fixture.dir(ROOT, "d"));
    fixture.refused(|fs| fs.create(&root(), ROOT, b"x", 0o600));
    fixture.refused(|fs| fs.mknod(&user(), ROOT, b"x", libc::S_IFIFO | 0o600, 0));
    fixture.refused(|fs| fs.mkdir(&root(), ROOT, b"x", 0o700));
    fixture.refused(|fs| fs.symlink(&root(), ROOT, b"x", b"target"));
    assert_eq!(fixture.fs.inodes_in_use(), 0, "what was refused is not in use");
    fixture.write(file, 0, &[1; 100_000]);
    fixture.fs.link(&root(), file, ROOT, b"g").expect("a name is no inode");
    fixture.fs.rmdir(&root(), ROOT, b"d").expect("removed");
    fixture.dir(ROOT, "x");
}

#[test]
fn what_does_not_grow_goes_on_far_above_the_limit() {
    let fixture = Fixture::new();
    let (file, other) = (fixture.file("f"), fixture.file("g"));
    fixture.write(file, 0, &[1; 200_000]);
    fixture.write(other, 0, &[1; 10]);
    fixture.limit(SetLimit { bytes: Some(1), inodes: Some(1), on_limit: None });
    fixture.refused(write(file, 200_000, 1));
    fixture.write(file, 4096, &[2; 8192]);
    fixture.write(file, 3, &[3; 100]);
    fixture.write(file, 100, &[3; 150_000]);
    assert!(fixture.usage().1 <= 393 + 4, "cutting extents rounds their blocks up: {:?}", fixture.usage());
    fixture.write(other, 2, b"inline");
    fixture.fs.rename(&root(), ROOT, b"g", ROOT, b"h", 0).expect("renamed");
    let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    fixture.fs.setattr(&root(), file, set).expect("changed");
    fixture.truncate(file, 300_000);
    fixture.refused(write(file, 250_000, 1));
    fixture.truncate(file, 10_001);
    fixture.truncate(file, 1);
    fixture.fs.unlink(&root(), ROOT, b"h").expect("removed");
    fixture.fs.unlink(&root(), ROOT, b"f").expect("removed");
    assert_eq!(fixture.usage(), (1, 0));
}

#[test]
fn overwriting_at_the_limit_is_not_refused_but_filling_a_hole_is() {
    let fixture = Fixture::new();
    let file = fixture.file("f");
    fixture.write(file, 0, &[1; 8192]);
    fixture.write(file, 16_384, &[1; 8192]);
    fixture.limit_bytes(16_384);
    fixture.write(file, 1, &[2; 8000]);
    fixture.refused(write(file, 8192, 1));
    fixture.refused(write(file, 12_000, 5000));
    fixture.write(file, 16_384, &[2; 8192]);
}

#[test]
fn a_write_across_the_limit_is_short_by_whole_blocks() {
    let fixture = Fixture::new();
    let file = fixture.file("f");
    fixture.limit_bytes(10_000);
    assert_eq!(write(file, 0, 100_000)(&fixture.fs), Ok(8192));
    assert_eq!((fixture.usage(), fixture.attr(file).size), ((2, 16), 8192));
    fixture.refused(write(file, 8192, 4096));
    fixture.limit_bytes(20_480);
    assert_eq!(write(file, 9000, 100_000)(&fixture.fs), Ok(20_480 - 9000), "an end on a block, wherever it began");
    fixture.refused(write(file, 20_480, 100_000));
    assert_eq!(fixture.read(file, 0, 100_000).len(), 20_480);
}

#[test]
fn a_copy_counts_what_it_shares_and_is_short_at_the_limit() {
    let fixture = Fixture::new();
    let (from, to) = (fixture.file("f"), fixture.file("g"));
    fixture.write(from, 0, &[1; 100_000]);
    let copy = |at: u64| {
        let (from, to) = (Place { ino: from, offset: at }, Place { ino: to, offset: at });
        move |fs: &Fs| fs.copy_file_range(&root(), from, to, u64::MAX >> 1).map(|(copied, _)| copied)
    };
    fixture.limit_bytes(100_352 + 10_000);
    assert_eq!(copy(0)(&fixture.fs), Ok(8192));
    assert_eq!(fixture.usage(), (3, 196 + 16));
    fixture.refused(copy(8192));
    fixture.limit_bytes(0);
    assert_eq!(copy(8192)(&fixture.fs), Ok(100_000 - 8192));
    assert_eq!(fixture.usage().1, 196 + fixture.attr(to).blocks);
    fixture.fs.unlink(&root(), ROOT, b"f").expect("removed");
    fixture.fs.unlink(&root(), ROOT, b"g").expect("removed");
    assert_eq!(fixture.usage(), (1, 0));
}

#[test]
fn allocating_asks_for_room_below_the_limit_and_punching_never_does() {
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let fixture = Fixture::new();
    let file = fixture.file("f");
    fixture.write(file, 0, &[1; 8192]);
    fixture.limit_bytes(16_384);
    let allocate = |mode, offset, len| move |fs: &Fs| fs.fallocate(&root(), file, offset, len, mode);
    fixture.refused(allocate(0, 0, 16_385));
    fixture.refused(allocate(libc::FALLOC_FL_KEEP_SIZE, 8192, 8193));
    fixture.refused(allocate(libc::FALLOC_FL_ZERO_RANGE, 8192, 8193));
    allocate(0, 0, 16_384)(&fixture.fs).expect("what is stored needs no room");
    fixture.limit_bytes(1);
    allocate(PUNCH, 100, 10)(&fixture.fs).expect("punched");
    assert_eq!(fixture.usage(), (2, 1 + 16), "both parts round up");
    allocate(PUNCH, 0, 16_384)(&fixture.fs).expect("punched");
    assert_eq!(fixture.usage(), (2, 0));
}

#[test]
fn a_quota_is_refused_as_a_quota() {
    let fixture = Fixture::new();
    let file = fixture.file("f");
    fixture.limit(SetLimit { bytes: Some(4096), inodes: Some(2), on_limit: Some(OnLimit::Quota) });
    assert_eq!(errno(write(file, 0, 4097)(&fixture.fs).and_then(|_| write(file, 4096, 1)(&fixture.fs))), libc::EDQUOT);
    assert_eq!(errno(fixture.fs.mkdir(&user(), ROOT, b"x", 0o700)), libc::EDQUOT);
    fixture.limit(SetLimit { on_limit: Some(OnLimit::NoSpace), ..SetLimit::default() });
    assert_eq!(errno(fixture.fs.mkdir(&user(), ROOT, b"x", 0o700)), libc::ENOSPC);
    assert_eq!(
        fixture.db.usage().1,
        UsageLimit { bytes: 4096, inodes: 2, on_limit: OnLimit::NoSpace },
        "the rest stays"
    );
}

#[test]
fn the_limit_is_exact_however_many_write_at_once() {
    const BYTES: u64 = 1 << 20;
    let fixture = Fixture::new();
    let files: Vec<InodeNo> = (0..4).map(|n| fixture.file(&format!("f{n}"))).collect();
    fixture.limit(SetLimit { bytes: Some(BYTES), inodes: Some(40), on_limit: None });
    let fixture = &fixture;
    // Until the limit refuses one.
    let all = |op: &dyn Fn(u64) -> Result<Lsn, Stop>| {
        let mut n = 0;
        loop {
            match op(n) {
                Ok(_) => n += 1,
                Err(Stop::Wait(_)) => fixture.settle(),
                Err(stop) => return assert_eq!(stop, Error::Limit(OnLimit::NoSpace).into()),
            }
        }
    };
    std::thread::scope(|scope| {
        for file in files {
            scope.spawn(move || all(&|n| Ok(fixture.fs.write(&root(), file, n * 4096, &[1; 4096])?.1)));
            let name = move |n: u64| format!("{file}-{n}");
            scope.spawn(move || all(&|n| Ok(fixture.fs.mkdir(&root(), ROOT, name(n).as_bytes(), 0o700)?.1)));
        }
    });
    assert_eq!(fixture.usage(), (40, BYTES / 512));
}

#[test]
fn room_can_be_asked_for_before_it_is_taken() {
    let fixture = Fixture::new();
    let file = fixture.file("f");
    assert_eq!(fixture.fs.check_room(&root(), 3 << 20), Ok(()));
    assert_eq!(
        fixture.fs.check_room(&root(), (3 << 20) + 1),
        Err(Error::DiskFull.into()),
        "the disk has no more available"
    );
    fixture.limit_bytes(8192);
    fixture.write(file, 0, &[1; 4096]);
    assert_eq!(fixture.fs.check_room(&root(), 4096), Ok(()));
    assert_eq!(fixture.fs.check_room(&root(), 4097), Err(Error::Limit(OnLimit::NoSpace).into()));
}

#[test]
fn statfs_shows_the_limit_as_the_size_of_the_filesystem() {
    let fixture = Fixture::new();
    let file = fixture.file("f");
    (0..4).for_each(|n| fixture.write(file, n << 18, &[1; 1 << 18]));
    fixture.limit(SetLimit { bytes: Some(2 << 20), inodes: Some(10), on_limit: None });
    let stat = fixture.fs.statfs(&root()).expect("told");
    assert_eq!((stat.blocks, stat.blocks_free, stat.blocks_available), (512, 256, 256));
    assert_eq!((stat.files, stat.files_free), (10, 8));
    fixture.limit_bytes(100 << 20);
    let stat = fixture.fs.statfs(&root()).expect("told");
    assert_eq!((stat.blocks, stat.blocks_free), (25_600, 25_344), "what is used is the difference");
    assert_eq!(stat.blocks_available, 768, "no more than the disk has");
    fixture.limit(SetLimit { bytes: Some(4096), inodes: Some(1), on_limit: None });
    let stat = fixture.fs.statfs(&root()).expect("told");
    assert_eq!((stat.blocks, stat.blocks_free, stat.blocks_available), (1, 0, 0), "below what there is");
    assert_eq!((stat.files, stat.files_free), (1, 0));
}

#[test]
fn a_filesystem_that_is_not_counted_takes_no_limit() {
    let fixture = Fixture::new();
    let uncounted = Start::default();
    let (db, _writer) = open_db_from(1 << 30, SEGMENT_BYTES, uncounted);
    let fs = Fixture::fs_over(&db);
    let refused = fs.set_limit(&root(), SetLimit { bytes: Some(1), ..SetLimit::default() });
    assert_eq!(refused.expect_err("refused"), Error::NotCounted.into());
    let stat = fs.statfs(&root()).expect("told");
    assert_eq!((stat.files, stat.files_free), (1 << 40, 1 << 40));
    assert_eq!(fixture.fs.statfs(&root()).expect("told").files, (1 << 40) + 1);
}

/// The kernel says that it has forgotten a file some time after it has told the user that the file is removed.
#[test]
fn what_meets_the_limit_waits_for_files_that_are_leaving_and_for_no_others() {
    let fixture = Fixture::new();
    fixture.limit_inodes(2);
    let patient = Cx { patient: true, ..root() };
    let waits = Err(Stop::Wait(Wait::Pressure));
    let refused = Err(Error::Limit(OnLimit::NoSpace).into());
    let another = |cx: &Cx| fixture.fs.mkdir(cx, ROOT, b"d", 0o700).map(drop);
    let (attr, _) = fixture.fs.create(&root(), ROOT, b"f", 0o600).expect("made");
    assert_eq!(another(&patient), refused, "it has a name");
    fixture.fs.unlink(&root(), ROOT, b"f").expect("removed");
    assert_eq!(another(&patient), refused, "it is open");
    fixture.fs.release(&root(), attr.ino).expect("closed");
    assert_eq!(another(&patient), waits, "the kernel is about to forget it");
    assert_eq!(fixture.fs.statfs(&patient).map(drop), waits);
    assert_eq!(another(&root()), refused, "enough waited");
    let left = fixture.fs.inodes_left();
    fixture.forget(attr);
    assert_eq!((fixture.fs.inodes_left(), fixture.usage()), (left + 1, (1, 0)));
    assert_eq!(fixture.fs.statfs(&patient).expect("told").files_free, 1);
    assert_eq!(another(&patient), Ok(()));
    assert_eq!(fixture.fs.unlink(&patient, ROOT, b"nothing").map(drop), Err(Error::NoSuchName.into()));
}

#[test]
fn a_preallocation_that_cannot_fit_is_refused_and_punching_never_is() {
    let fixture = Fixture::new();
    let file = fixture.file("f");
    fixture.write(file, 0, &[1; 4096]);
    fixture.limit_bytes(4096);
    fixture.refused(|fs| fs.fallocate(&root(), file, 4096, 1, 0));
    fixture.refused(|fs| fs.fallocate(&root(), file, 0, 1 << 40, libc::FALLOC_FL_KEEP_SIZE));
    fixture.fs.fallocate(&root(), file, 0, 4096, 0).expect("it is all there");
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    fixture.fs.fallocate(&root(), file, 100, 1, punch).expect("freeing goes on");
    assert_eq!(fixture.usage().1, 9, "both parts are rounded up");
    fixture.fs.fallocate(&root(), file, 0, 4096, punch).expect("freeing goes on");
    assert_eq!(fixture.usage().1, 0);
    fixture.fs.fallocate(&root(), file, 4096, 4096, 0).expect("there is room now");
}
