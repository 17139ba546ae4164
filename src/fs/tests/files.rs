//! Contents: where they are kept, holes, limits.

use super::*;

const KIB_64: u64 = 64 << 10;

pub(super) fn is_inline(fixture: &Fixture, ino: InodeNo) -> bool {
    let keys = fixture.keys_of(ino);
    assert!(keys.len() <= 2 || !keys.contains(&Key::Inline(ino)), "inline and extents at once: {keys:?}");
    keys.contains(&Key::Inline(ino))
}

pub(super) fn extents(fixture: &Fixture, ino: InodeNo) -> Vec<u64> {
    let at = |key| if let Key::Extent(_, at) = key { Some(at) } else { None };
    fixture.keys_of(ino).into_iter().filter_map(at).collect()
}

#[test]
fn a_tiny_file_is_kept_inline_and_a_grown_one_in_extents() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    assert_eq!(fixture.keys_of(ino), [Key::Inode(ino)]);
    fixture.write(ino, 0, &[1; 2048]);
    assert!(is_inline(&fixture, ino));
    assert_eq!(fixture.attr(ino).blocks, 4);
    fixture.write(ino, 2048, &[2]);
    assert!(!is_inline(&fixture, ino));
    assert_eq!(extents(&fixture, ino), [0]);
    assert_eq!(fixture.attr(ino).blocks, 5);
    assert_eq!(fixture.read(ino, 0, 4096), [&[1; 2048][..], &[2]].concat());
    fixture.truncate(ino, 0);
    assert_eq!(fixture.keys_of(ino), [Key::Inode(ino)]);
    fixture.write(ino, 5, &[3]);
    assert!(is_inline(&fixture, ino), "an emptied file starts afresh");
}

#[test]
fn an_inline_value_becomes_an_extent_when_the_file_grows_without_a_write() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.write(ino, 0, b"abc");
    fixture.truncate(ino, 2048);
    assert!(is_inline(&fixture, ino));
    fixture.truncate(ino, 2049);
    assert_eq!(extents(&fixture, ino), [0]);
    assert_eq!(fixture.read(ino, 0, 5), b"abc\0\0");
    assert_eq!(fixture.attr(ino).blocks, 1);
}

#[test]
fn a_write_far_beyond_a_tiny_file_leaves_a_hole_between() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.write(ino, 0, b"abc");
    fixture.write(ino, 1 << 40, b"z");
    assert_eq!(extents(&fixture, ino), [0, 1 << 40]);
    assert_eq!(fixture.attr(ino).blocks, 2);
    assert_eq!(fixture.read(ino, 1 << 39, 3), [0; 3]);
    assert_eq!(fixture.read(ino, (1 << 40) - 1, 9), b"\0z");
    assert_eq!(fixture.read(ino, 1 << 41, 9), b"");
}

#[test]
fn a_tiny_file_outgrown_at_any_offset_keeps_its_bytes() {
    for offset in [0, 1, 99, 100, 101, 2047, 2048, 65_536] {
        let fixture = Fixture::new();
        let ino = fixture.file("f");
        fixture.write(ino, 0, &[1; 100]);
        fixture.write(ino, offset, &[2; 3000]);
        let mut expected = [&[1; 100][..], &vec![0; 70_000]].concat();
        expected[offset as usize..][..3000].fill(2);
        expected.truncate(100.max(offset as usize + 3000));
        assert_eq!(fixture.read(ino, 0, 100_000), expected, "written at {offset}");
        assert!(!is_inline(&fixture, ino));
    }
}

#[test]
fn bytes_cut_off_by_truncation_never_come_back() {
    for len in [100, 2048, 5000, 200_000] {
        let fixture = Fixture::new();
        let ino = fixture.file("f");
        fixture.write(ino, 0, &vec![7; len as usize]);
        for (cut, grown) in [(len - 1, len), (len / 2, len * 2), (1, 70_000)] {
            fixture.truncate(ino, cut);
            fixture.truncate(ino, grown);
            let read = fixture.read(ino, 0, u32::try_from(grown).expect("small"));
            assert_eq!(read.len() as u64, grown);
            assert!(read[cut as usize..].iter().all(|b| *b == 0), "{len} cut at {cut}, grown to {grown}");
        }
    }
}

#[test]
fn a_write_is_cut_into_objects_at_multiples_of_their_size() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.write(ino, KIB_64 - 10, &vec![1; 2 * KIB_64 as usize]);
    assert_eq!(extents(&fixture, ino), [KIB_64 - 10, KIB_64, 2 * KIB_64]);
    fixture.write(ino, 0, &vec![2; 4 * KIB_64 as usize]);
    assert_eq!(extents(&fixture, ino), [0, KIB_64, 2 * KIB_64, 3 * KIB_64]);
    assert_eq!(fixture.attr(ino).blocks, 512);
}

#[test]
fn an_overwrite_in_the_middle_of_an_extent_keeps_both_ends() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    fixture.write(ino, 0, &[1; 10_000]);
    fixture.write(ino, 4000, &[2; 1000]);
    assert_eq!(extents(&fixture, ino), [0, 4000, 5000]);
    assert_eq!(fixture.read(ino, 0, 10_000), [&[1; 4000][..], &[2; 1000], &[1; 5000]].concat());
    assert_eq!(fixture.attr(ino).blocks, 8 + 2 + 10);
}

#[test]
fn a_write_longer_than_the_limit_is_cut_short() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    let (written, _) = fixture.fs.write(&root(), ino, 3, &vec![1; WRITE_BYTES_MAX + 5]).expect("written");
    assert_eq!(written as usize, WRITE_BYTES_MAX);
    assert_eq!(fixture.attr(ino).size, WRITE_BYTES_MAX as u64 + 3);
}

#[test]
fn a_write_over_very_many_extents_is_cut_short_and_can_go_on() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    let (start, old) = (100_000, write::OLD_EXTENTS_MAX as u64 + 500);
    for i in 0..old {
        fixture.write(ino, start + 2 * i, &[1]);
    }
    assert_eq!(fixture.attr(ino).blocks, old);
    let data = vec![2; 2 * old as usize];
    let (first, _) = fixture.fs.write(&root(), ino, start, &data).expect("written");
    assert!((1..data.len()).contains(&(first as usize)), "{first} of {} bytes", data.len());
    fixture.write(ino, start + u64::from(first), &data[first as usize..]);
    assert_eq!(fixture.read(ino, start, 2 * old as u32), data);
    assert_eq!(extents(&fixture, ino).len(), 2);
}

#[test]
fn no_file_is_longer_than_the_largest_offset() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    assert_eq!(errno(fixture.fs.write(&root(), ino, FILE_BYTES_MAX, b"x")), libc::EFBIG);
    assert_eq!(errno(fixture.fs.write(&root(), ino, u64::MAX, b"x")), libc::EFBIG);
    assert_eq!(fixture.fs.write(&root(), ino, FILE_BYTES_MAX - 1, b"xyz").expect("written").0, 1);
    assert_eq!(fixture.attr(ino).size, FILE_BYTES_MAX);
    assert_eq!(fixture.read(ino, FILE_BYTES_MAX - 1, 10), b"x");
    let set = SetAttr { size: Some(FILE_BYTES_MAX + 1), ..SetAttr::default() };
    assert_eq!(errno(fixture.fs.setattr(&root(), ino, set)), libc::EFBIG);
    fixture.truncate(ino, FILE_BYTES_MAX - 1);
    assert_eq!(fixture.attr(ino).blocks, 0);
}

#[test]
fn a_store_to_a_mapping_that_comes_late_makes_no_file_longer() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    let store = |cx: &Cx, offset: u64| fixture.fs.write(cx, ino, offset, &[2; 4096]).expect("written").0;
    let late = Cx { written_back: true, ..root() };
    fixture.write(ino, 0, &[1; 5000]);
    assert_eq!((store(&late, 4096), fixture.attr(ino).size), (4096, 5000));
    assert_eq!(fixture.read(ino, 4095, 10), [1, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
    fixture.truncate(ino, 0);
    assert_eq!((store(&late, 0), store(&late, 4096)), (4096, 4096));
    assert_eq!((fixture.attr(ino).size, fixture.attr(ino).blocks), (0, 0));
    let holds_back = Cx { keeps_times: true, ..late };
    assert_eq!((store(&holds_back, 4096), fixture.attr(ino).size), (4096, 8192));
}

#[test]
fn only_regular_files_have_contents() {
    let fixture = Fixture::new();
    let dir = fixture.dir(ROOT, "d");
    let link = fixture.forget(fixture.fs.symlink(&root(), ROOT, b"l", b"x").expect("made").0);
    for (ino, expected) in [(dir, libc::EISDIR), (link, libc::EINVAL)] {
        assert_eq!(errno(fixture.fs.write(&root(), ino, 0, b"x")), expected);
        assert_eq!(errno(fixture.fs.read(&root(), ino, 0, 1)), expected);
        let set = SetAttr { size: Some(0), ..SetAttr::default() };
        assert_eq!(errno(fixture.fs.setattr(&root(), ino, set)), expected);
    }
    assert_eq!(errno(fixture.fs.open(&root(), dir)), libc::EISDIR);
    assert_eq!(errno(fixture.fs.open(&root(), link)), libc::ELOOP);
    assert_eq!(errno(fixture.fs.getattr(&root(), InodeNo(999))), libc::ESTALE);
}

#[test]
fn times_are_set_as_asked_and_impossible_ones_refused() {
    let fixture = Fixture::new();
    let ino = fixture.file("f");
    let now = Time { secs: 77, nanos: 5 };
    let cx = Cx { now, ..Cx::default() };
    let old = Time { secs: -9, nanos: 999_999_999 };
    let set = SetAttr { atime: Some(SetTime::At(old)), mtime: Some(SetTime::Now), ..SetAttr::default() };
    let (attr, _) = fixture.fs.setattr(&cx, ino, set).expect("changed");
    assert_eq!((attr.atime, attr.mtime, attr.ctime), (old, now, now));
    let bad = Time { secs: 0, nanos: 1_000_000_000 };
    let set = SetAttr { mtime: Some(SetTime::At(bad)), ..SetAttr::default() };
    assert_eq!(errno(fixture.fs.setattr(&cx, ino, set)), libc::EINVAL);
    assert_eq!(fixture.attr(ino), attr);
}

#[test]
fn a_write_whose_times_the_caller_keeps_changes_none() {
    let fixture = Fixture::new();
    let ino = fixture.file("file");
    let before = fixture.attr(ino);
    let held_back = Cx { now: Time { secs: 77, nanos: 0 }, keeps_times: true, ..root() };
    fixture.fs.write(&held_back, ino, 0, b"late").expect("written");
    let after = fixture.attr(ino);
    assert_eq!((after.mtime, after.ctime, after.size), (before.mtime, before.ctime, 4));
}
