//! Ranges of a file: allocated, punched, zeroed, looked for, copied.

use super::files::{extents, is_inline};
use super::*;

const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;

fn allocate(fixture: &Fixture, ino: InodeNo, mode: i32, offset: u64, len: u64) -> i32 {
    fixture.settle();
    errno(fixture.fs.fallocate(&root(), ino, offset, len, mode))
}

/// What the journal's queue counts at least for a batch.
const BLOCK: u64 = 4096;

fn queued(fixture: &Fixture) -> u64 {
    fixture.settle();
    fixture.db.journal().stats().queue_bytes
}

/// Data and holes as a program sees them: where each stretch of data starts and ends.
fn map(fixture: &Fixture, ino: InodeNo) -> Vec<(u64, u64)> {
    let seek = |at, what| fixture.fs.seek(&root(), ino, at, what);
    let mut found: Vec<(u64, u64)> = Vec::new();
    while let Ok(data) = seek(found.last().map_or(0, |last| last.1), Seek::Data) {
        found.push((data, seek(data, Seek::Hole).expect("the end is a hole")));
    }
    found
}

fn copy(fixture: &Fixture, from: (InodeNo, u64), to: (InodeNo, u64), len: u64) -> u64 {
    fixture.settle();
    let place = |(ino, offset)| Place { ino, offset };
    let (copied, _) = fixture.fs.copy_file_range(&root(), place(from), place(to), len).expect("copied");
    u64::from(copied)
}

/// Bytes that differ everywhere in a file.
fn contents(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 + 1).collect()
}

#[test]
fn allocating_grows_a_file_and_stores_nothing() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.write(ino, 0, b"abc");
    assert_eq!(allocate(&fixture, ino, KEEP, 0, 1 << 20), 0);
    assert_eq!((fixture.attr(ino).size, fixture.attr(ino).blocks), (3, 1));
    assert_eq!(allocate(&fixture, ino, 0, 1, 1), 0);
    assert_eq!(fixture.attr(ino).size, 3);
    assert_eq!(allocate(&fixture, ino, 0, 2000, 48), 0);
    assert!(is_inline(&fixture, ino));
    assert_eq!(allocate(&fixture, ino, 0, 1 << 20, 5), 0);
    assert_eq!((fixture.attr(ino).size, fixture.attr(ino).blocks), ((1 << 20) + 5, 1));
    assert_eq!(extents(&fixture, ino), [0]);
    assert_eq!(fixture.read(ino, 0, 5), b"abc\0\0");
}

#[test]
fn what_cannot_be_allocated_is_refused_as_the_kernel_does() {
    let fixture = Fixture::new();
    let (ino, dir) = (fixture.file("f"), fixture.dir(ROOT, "d"));
    let fifo = fixture.forget(fixture.fs.mknod(&root(), ROOT, b"p", libc::S_IFIFO | 0o600, 0).expect("made").0);
    let device = fixture.forget(fixture.fs.mknod(&root(), ROOT, b"c", libc::S_IFCHR | 0o600, 1).expect("made").0);
    let before = fixture.attr(ino);
    for (what, mode, offset, len, expected) in [
        (ino, 0, 0, 0, libc::EINVAL),
        (ino, libc::FALLOC_FL_COLLAPSE_RANGE, 0, 0, libc::EINVAL),
        (ino, libc::FALLOC_FL_COLLAPSE_RANGE, 0, 4096, libc::EOPNOTSUPP),
        (ino, libc::FALLOC_FL_INSERT_RANGE, 0, 4096, libc::EOPNOTSUPP),
        (ino, libc::FALLOC_FL_UNSHARE_RANGE, 0, 4096, libc::EOPNOTSUPP),
        (ino, libc::FALLOC_FL_PUNCH_HOLE, 0, 4096, libc::EOPNOTSUPP),
        (ino, PUNCH | ZERO, 0, 4096, libc::EOPNOTSUPP),
        (ino, KEEP, FILE_BYTES_MAX, 1, libc::EFBIG),
        (ino, PUNCH, FILE_BYTES_MAX - 4, 5, libc::EFBIG),
        (ino, 0, u64::MAX, 2, libc::EFBIG),
        // The fixture's disk has 3 MiB left.
        (ino, 0, 0, (3 << 20) + 1, libc::ENOSPC),
        (ino, KEEP, 0, (3 << 20) + 1, libc::ENOSPC),
        (dir, 0, 0, 1, libc::EISDIR),
        (fifo, 0, 0, 1, libc::ESPIPE),
        (device, 0, 0, 1, libc::ENODEV),
    ] {
        assert_eq!(allocate(&fixture, what, mode, offset, len), expected, "mode {mode:#x} at {offset}, {len} bytes");
    }
    assert_eq!(fixture.attr(ino), before);
    assert_eq!(allocate(&fixture, ino, PUNCH, FILE_BYTES_MAX - 5, 5), 0, "punching needs no room");
}

#[test]
fn only_what_is_not_stored_yet_needs_room() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    for at in 0..8 {
        fixture.write(ino, at * (64 << 10), &[1; 64 << 10]);
    }
    assert_eq!(allocate(&fixture, ino, 0, 0, (3 << 20) + (512 << 10)), 0);
    assert_eq!(allocate(&fixture, ino, 0, 0, (3 << 20) + (512 << 10) + 1), libc::ENOSPC);
}

#[test]
fn every_change_of_a_range_is_a_change_of_the_contents() {
    let fixture = Fixture::new();
    let (ino, other) = (fixture.file("f"), fixture.file("g"));
    fixture.write(other, 0, &[1; 5000]);
    let now = Time { secs: 99, nanos: 1 };
    let user = Cx { now, ..user() };
    for change in [0, KEEP, PUNCH, ZERO, ZERO | KEEP, -1] {
        let set = SetAttr { mode: Some(0o6755), mtime: Some(SetTime::At(Time::default())), ..SetAttr::default() };
        fixture.fs.setattr(&root(), ino, set).expect("set");
        if change == -1 {
            let (from, to) = (Place { ino: other, offset: 0 }, Place { ino, offset: 0 });
            fixture.fs.copy_file_range(&user, from, to, 5000).expect("copied");
        } else {
            fixture.fs.fallocate(&user, ino, 1, 10, change).expect("allocated");
        }
        let attr = fixture.attr(ino);
        assert_eq!((attr.mode & 0o7777, attr.mtime, attr.ctime), (0o755, now, now), "change {change}");
    }
    assert_eq!(fixture.attr(other).ctime, Time::default(), "the source does not change");
}

#[test]
fn a_punched_inline_value_has_zeros_there() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.write(ino, 0, &contents(2000));
    assert_eq!(allocate(&fixture, ino, PUNCH, 100, 50), 0);
    let mut expected = contents(2000);
    expected[100..150].fill(0);
    assert_eq!(fixture.read(ino, 0, 3000), expected);
    assert_eq!(allocate(&fixture, ino, PUNCH, 600, 100_000), 0);
    expected[600..].fill(0);
    assert_eq!(fixture.read(ino, 0, 3000), expected);
    assert_eq!((fixture.attr(ino).blocks, is_inline(&fixture, ino)), (2, true));
    assert_eq!(allocate(&fixture, ino, PUNCH, 0, 2000), 0);
    assert_eq!(fixture.keys_of(ino), [Key::Inode(ino)]);
    assert_eq!((fixture.attr(ino).size, fixture.attr(ino).blocks), (2000, 0));
}

#[test]
fn a_punched_extent_keeps_both_ends_and_gives_back_what_lies_between() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.write(ino, 0, &contents(200_000));
    assert_eq!(allocate(&fixture, ino, PUNCH, 1000, 150_000), 0);
    let mut expected = contents(200_000);
    expected[1000..151_000].fill(0);
    assert_eq!(fixture.read(ino, 0, 300_000), expected);
    assert_eq!(extents(&fixture, ino), [0, 151_000, 196_608]);
    assert_eq!(
        fixture.attr(ino).blocks,
        2 + (196_608u64 - 151_000).div_ceil(512) + (200_000u64 - 196_608).div_ceil(512)
    );
    assert_eq!(allocate(&fixture, ino, PUNCH, 160_000, 10), 0, "inside one extent");
    expected[160_000..160_010].fill(0);
    assert_eq!(fixture.read(ino, 0, 300_000), expected);
    assert_eq!(allocate(&fixture, ino, PUNCH, 0, 1 << 40), 0);
    assert_eq!((fixture.attr(ino).blocks, fixture.attr(ino).size), (0, 200_000));
    assert_eq!(fixture.keys_of(ino), [Key::Inode(ino)]);
}

#[test]
fn a_zeroed_range_is_a_hole_and_the_file_grows_unless_told_not_to() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.write(ino, 0, &contents(10_000));
    assert_eq!(allocate(&fixture, ino, ZERO | KEEP, 9000, 9000), 0);
    assert_eq!((fixture.attr(ino).size, fixture.attr(ino).blocks), (10_000, 18));
    assert_eq!(allocate(&fixture, ino, ZERO, 5000, 15_000), 0);
    assert_eq!((fixture.attr(ino).size, fixture.attr(ino).blocks), (20_000, 10));
    assert_eq!(fixture.read(ino, 0, 30_000), [&contents(5000)[..], &[0; 15_000]].concat());
    let tiny = fixture.file("g");
    fixture.write(tiny, 0, &contents(100));
    assert_eq!(allocate(&fixture, tiny, ZERO, 50, 5000), 0);
    assert_eq!(fixture.read(tiny, 0, 9000), [&contents(50)[..], &[0; 5000]].concat());
    assert_eq!((extents(&fixture, tiny), fixture.attr(tiny).blocks), (vec![0], 1));
}

#[test]
fn punching_very_many_extents_is_one_small_batch() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    for i in 0..3000 {
        fixture.write(ino, 10_000 + 8 * i, &[1; 4]);
    }
    assert_eq!(fixture.attr(ino).blocks, 3000);
    let queued = queued(&fixture);
    assert_eq!(allocate(&fixture, ino, PUNCH, 10_001, 2990 * 8), 0);
    assert_eq!(self::queued(&fixture) - queued, BLOCK);
    assert_eq!(fixture.attr(ino).blocks, 3000 - 2989);
    assert_eq!(extents(&fixture, ino).len(), 11);
}

#[test]
fn data_and_holes_are_shown_by_blocks() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    let seek = |at, what| match fixture.fs.seek(&root(), ino, at, what) {
        Ok(found) => Ok(found),
        stop => Err(errno(stop)),
    };
    assert_eq!((seek(0, Seek::Data), seek(0, Seek::Hole)), (Err(libc::ENXIO), Err(libc::ENXIO)));
    fixture.truncate(ino, 100_000);
    assert_eq!((seek(5, Seek::Data), seek(5, Seek::Hole)), (Err(libc::ENXIO), Ok(5)));
    fixture.write(ino, 10_000, &[1; 10]);
    assert_eq!(map(&fixture, ino), [(8192, 12_288)]);
    assert_eq!((seek(8193, Seek::Data), seek(12_287, Seek::Data)), (Ok(8193), Ok(12_287)));
    assert_eq!((seek(12_288, Seek::Data), seek(11_000, Seek::Hole)), (Err(libc::ENXIO), Ok(12_288)));
    fixture.write(ino, 16_383, &[1; 2]);
    assert_eq!(map(&fixture, ino), [(8192, 20_480)], "neighbouring blocks are one stretch");
    fixture.write(ino, 99_999, &[1]);
    assert_eq!(map(&fixture, ino), [(8192, 20_480), (98_304, 100_000)], "the end is a hole");
    for at in [100_000, 1 << 40] {
        assert_eq!((seek(at, Seek::Data), seek(at, Seek::Hole)), (Err(libc::ENXIO), Err(libc::ENXIO)));
    }
    let tiny = fixture.file("g");
    fixture.write(tiny, 90, &[1]);
    assert_eq!(map(&fixture, tiny), [(0, 91)]);
    fixture.truncate(tiny, 2000);
    assert_eq!(map(&fixture, tiny), [(0, 2000)]);
}

#[test]
fn very_many_extents_in_a_row_are_one_stretch_of_data() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.write(ino, 0, &[1; 4096]);
    for i in 0..2500 {
        fixture.write(ino, 4096 + i, &[2]);
    }
    assert!(extents(&fixture, ino).len() > 2500);
    fixture.write(ino, 50_000, &[3]);
    assert_eq!(map(&fixture, ino), [(0, 8192), (49_152, 50_001)]);
}

#[test]
fn a_copy_names_the_objects_of_the_source() {
    let fixture = Fixture::new();
    let (from, to) = (fixture.file("f"), fixture.file("g"));
    fixture.write(from, 0, &contents(200_000));
    let queued = queued(&fixture);
    assert_eq!(copy(&fixture, (from, 0), (to, 0), 1 << 40), 200_000);
    assert_eq!(self::queued(&fixture) - queued, BLOCK, "no data is written");
    assert_eq!(fixture.read(to, 0, 300_000), contents(200_000));
    assert_eq!(fixture.attr(to).blocks, fixture.attr(from).blocks);
    assert_eq!(copy(&fixture, (from, 200_000), (to, 0), 5), 0, "nothing lies behind the end");
    fixture.write(from, 0, &[9; 1000]);
    assert_eq!(fixture.read(to, 0, 300_000), contents(200_000), "the copy does not change with the source");
    fixture.truncate(from, 0);
    assert_eq!(fixture.read(to, 0, 300_000), contents(200_000));
}

#[test]
fn a_copy_may_start_anywhere_and_takes_the_place_of_what_was_there() {
    for (start, at, len) in
        [(0, 0, 65_536), (1000, 0, 100_000), (100, 70_001, 100_000), (65_536, 3, 65_536), (7, 65_536, 1)]
    {
        let fixture = Fixture::new();
        let (from, to) = (fixture.file("f"), fixture.file("g"));
        fixture.write(from, 0, &contents(200_000));
        let mut expected = vec![200; 150_000];
        fixture.write(to, 0, &expected);
        fixture.write(to, 65_536, &[200; 65_536]);
        assert_eq!(copy(&fixture, (from, start as u64), (to, at as u64), len as u64), len as u64);
        expected.resize(150_000.max(at + len), 0);
        expected[at..at + len].copy_from_slice(&contents(200_000)[start..start + len]);
        assert_eq!(fixture.read(to, 0, 300_000), expected, "{len} bytes from {start} to {at}");
        let blocks = |ino| {
            fixture
                .rows()
                .iter()
                .filter_map(|(key, value)| match Key::decode(key) {
                    Ok(Key::Extent(of, _)) if of == ino => {
                        Some(u64::from(Extent::decode(value).expect("sound").len.div_ceil(512)))
                    }
                    _ => None,
                })
                .sum::<u64>()
        };
        assert_eq!(fixture.attr(to).blocks, blocks(to));
        // Whole writes over extents that start anywhere leave none of them behind.
        let data = vec![77; 256 << 10];
        fixture.write(to, 0, &data);
        assert_eq!(fixture.read(to, 0, 300_000), data);
        assert_eq!(fixture.attr(to).blocks, 512);
    }
}

#[test]
fn holes_of_the_source_become_holes_of_the_copy() {
    let fixture = Fixture::new();
    let (from, to) = (fixture.file("f"), fixture.file("g"));
    fixture.write(from, 100_000, &[1; 4096]);
    fixture.truncate(from, 300_000);
    fixture.write(to, 0, &contents(200_000));
    assert_eq!(copy(&fixture, (from, 0), (to, 0), 300_000), 300_000);
    assert_eq!(fixture.attr(to).blocks, 8);
    assert_eq!(fixture.attr(to).size, 300_000);
    assert_eq!(map(&fixture, to), [(98_304, 106_496)]);
    let (hole, tiny) = (fixture.file("h"), fixture.file("t"));
    fixture.truncate(hole, 1 << 40);
    fixture.write(tiny, 0, &contents(100));
    assert_eq!(copy(&fixture, (hole, 5), (tiny, 50), 20), 20);
    assert!(is_inline(&fixture, tiny));
    assert_eq!(fixture.read(tiny, 0, 200), [&contents(50)[..], &[0; 20], &contents(100)[70..]].concat());
    assert_eq!(copy(&fixture, (hole, 5), (tiny, 90), u64::MAX >> 1), 1 << 30, "the answer has 32 bits");
    assert_eq!((fixture.attr(tiny).size, fixture.attr(tiny).blocks), (90 + (1 << 30), 1));
}

#[test]
fn tiny_files_are_copied_like_any_others() {
    let fixture = Fixture::new();
    let (tiny, large, to) = (fixture.file("t"), fixture.file("l"), fixture.file("g"));
    fixture.write(tiny, 0, &contents(100));
    fixture.truncate(tiny, 1000);
    fixture.write(large, 0, &[9; 100_000]);
    assert_eq!(copy(&fixture, (tiny, 50), (to, 3), 5000), 950);
    assert_eq!(fixture.read(to, 0, 2000), [&[0; 3][..], &contents(100)[50..], &[0; 900]].concat());
    assert_eq!(copy(&fixture, (tiny, 0), (large, 65_500), 100), 100);
    assert_eq!(fixture.read(large, 65_499, 102), [&[9][..], &contents(100), &[9]].concat());
    // A large one's objects into a tiny one: what is left of its value lies around them.
    assert_eq!(copy(&fixture, (large, 0), (tiny, 10), 20), 20);
    assert_eq!(extents(&fixture, tiny), [0, 10, 30]);
    let expected = [&contents(10)[..], &[9; 20], &contents(100)[30..], &[0; 900]].concat();
    assert_eq!(fixture.read(tiny, 0, 2000), expected);
    assert_eq!(fixture.attr(tiny).blocks, 3);
}

#[test]
fn ranges_of_one_file_are_copied_unless_they_overlap() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.write(ino, 0, &contents(100_000));
    let place = |offset| Place { ino, offset };
    for (from, to, len) in [(0, 0, 1), (0, 99, 100), (99, 0, 100), (99_990, 100_000, 11), (0, 99_999, 1 << 40)] {
        let copied = fixture.fs.copy_file_range(&root(), place(from), place(to), len);
        // Up to the end of the file only.
        let expected = if from == 99_990 { 0 } else { libc::EINVAL };
        assert_eq!(errno(copied), expected, "{len} from {from} to {to}");
    }
    assert_eq!(fixture.attr(ino).size, 100_010);
    assert_eq!(copy(&fixture, (ino, 0), (ino, 50_000), 50_000), 50_000);
    let half = &contents(100_000)[..50_000];
    assert_eq!(fixture.read(ino, 0, 100_000), [half, half].concat());
}

#[test]
fn a_copy_of_very_many_extents_is_cut_short_and_can_go_on() {
    let fixture = Fixture::new();
    let (from, to) = (fixture.file("f"), fixture.file("g"));
    let count = write::OLD_EXTENTS_MAX as u64 + 500;
    for i in 0..count {
        fixture.write(from, 5000 + 2 * i, &[1]);
    }
    fixture.truncate(from, 10_000);
    let mut copied = 0;
    let mut calls = 0;
    while copied < 10_000 {
        let n = copy(&fixture, (from, copied), (to, copied), 10_000);
        assert!(n > 0, "it gets on");
        (copied, calls) = (copied + n, calls + 1);
    }
    assert_eq!(calls, 2);
    assert_eq!(fixture.read(to, 0, 10_000), fixture.read(from, 0, 10_000));
    assert_eq!(fixture.attr(to).blocks, fixture.attr(from).blocks);
}

#[test]
fn what_cannot_be_copied_is_refused() {
    let fixture = Fixture::new();
    let (ino, dir) = (fixture.file("f"), fixture.dir(ROOT, "d"));
    fixture.write(ino, 0, &[1; 5000]);
    let copy = |from, to, at| {
        let to = Place { ino: to, offset: at };
        errno(fixture.fs.copy_file_range(&root(), Place { ino: from, offset: 0 }, to, 5000))
    };
    let other = fixture.file("g");
    assert_eq!((copy(dir, ino, 0), copy(ino, dir, 0)), (libc::EISDIR, libc::EISDIR));
    assert_eq!((copy(ino, other, FILE_BYTES_MAX), copy(ino, other, u64::MAX)), (libc::EFBIG, libc::EFBIG));
    assert_eq!(copy(ino, other, FILE_BYTES_MAX - 1), 0);
    assert_eq!((fixture.attr(other).size, fixture.attr(other).blocks), (FILE_BYTES_MAX, 1));
    assert_eq!(map(&fixture, other), [(FILE_BYTES_MAX - 4095, FILE_BYTES_MAX)]);
}
