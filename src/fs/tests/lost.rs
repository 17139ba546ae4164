//! Data that a repair could not bring back: an error where it was, and only there, until something else is there.

use super::*;

/// A file of four extents of 10,000 bytes, of which the second and the third are lost.
fn with_a_loss() -> (Fixture, InodeNo) {
    let fixture = Fixture::new();
    let ino = fixture.file("file");
    for n in 0..4 {
        fixture.write(ino, n * 10_000, &[n as u8 + 1; 10_000]);
    }
    for at in [10_000, 20_000] {
        fixture.put(key::extent(ino, at), Extent::lost(10_000).encode());
    }
    (fixture, ino)
}

/// Which of the blocks of 1,000 bytes cannot be read.
fn unreadable(fixture: &Fixture, ino: InodeNo) -> Vec<u64> {
    let fails = |at: &u64| match fixture.fs.read(&root(), ino, at * 1000, 1000) {
        Err(Stop::Error(Error::Io)) => true,
        Ok(_) | Err(Stop::Wait(Wait::Objects(_))) => false,
        other => panic!("{other:?}"),
    };
    (0..fixture.attr(ino).size.div_ceil(1000)).filter(fails).collect()
}

fn lost(fixture: &Fixture, ino: InodeNo) -> Vec<(u64, u32)> {
    let rows = fixture.rows().into_iter().map(|(key, value)| (Key::decode(&key).expect("a key"), value));
    let lost = rows.filter_map(|(key, value)| match key {
        Key::Extent(of, at) if of == ino => Some((at, Extent::decode(&value).expect("an extent"))),
        _ => None,
    });
    lost.filter(|(_, extent)| extent.is_lost()).map(|(at, extent)| (at, extent.len)).collect()
}

#[test]
fn promise_x5_what_is_lost_is_an_error_where_it_was_and_nowhere_else() {
    let (fixture, ino) = with_a_loss();
    assert_eq!(unreadable(&fixture, ino), (10..30).collect::<Vec<u64>>());
    assert_eq!(fixture.read(ino, 0, 10_000), [1; 10_000]);
    assert_eq!(fixture.read(ino, 30_000, 10_000), [4; 10_000]);
    for (at, len) in [(9_999, 2), (29_999, 2), (0, 40_000)] {
        assert_eq!(errno(fixture.fs.read(&root(), ino, at, len)), libc::EIO, "{len} bytes at {at}");
    }
    assert_eq!(fixture.fs.read(&root(), ino, 40_000, 5), Ok(Vec::new()), "behind the end");
}

#[test]
fn what_is_lost_is_data_to_who_looks_for_holes_and_is_fetched_by_nobody() {
    let (fixture, ino) = with_a_loss();
    let seek = |at, what| fixture.fs.seek(&root(), ino, at, what);
    assert_eq!((seek(10_000, Seek::Data), seek(0, Seek::Hole)), (Ok(10_000), Ok(40_000)));
    let contents = fixture.fs.contents(&root(), ino, 0, 100).expect("told");
    assert_eq!((contents.objects.len(), contents.next), (2, None));
    let page = fixture.fs.contents(&root(), ino, 10_000, 2).expect("told");
    assert_eq!((page.objects, page.next), (vec![], Some(30_000)), "there is more behind what is lost");
}

#[test]
fn writing_over_a_part_of_what_is_lost_leaves_the_rest_lost() {
    let (fixture, ino) = with_a_loss();
    fixture.write(ino, 12_000, &[9; 3_000]);
    fixture.write(ino, 19_000, &[8; 2_000]);
    assert_eq!(lost(&fixture, ino), [(10_000, 2_000), (15_000, 4_000), (21_000, 9_000)]);
    assert_eq!(unreadable(&fixture, ino), [10, 11].into_iter().chain(15..19).chain(21..30).collect::<Vec<u64>>());
    assert_eq!(fixture.read(ino, 12_000, 3_000), [9; 3_000]);
    assert_eq!(fixture.read(ino, 19_000, 2_000), [8; 2_000]);
    fixture.write(ino, 9_000, &[7; 22_000]);
    assert_eq!((lost(&fixture, ino), unreadable(&fixture, ino)), (vec![], vec![]));
    assert_eq!(fixture.read(ino, 8_000, 24_000), [vec![1; 1_000], vec![7; 22_000], vec![4; 1_000]].concat());
}

#[test]
fn a_hole_and_an_end_heal_what_is_lost() {
    let (fixture, ino) = with_a_loss();
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    fixture.fs.fallocate(&root(), ino, 10_000, 12_000, punch).expect("punched");
    assert_eq!(lost(&fixture, ino), [(22_000, 8_000)]);
    assert_eq!(fixture.read(ino, 10_000, 12_000), [0; 12_000]);
    let before = fixture.attr(ino).blocks;
    fixture.truncate(ino, 25_000);
    assert_eq!((lost(&fixture, ino), fixture.attr(ino).blocks), (vec![(22_000, 3_000)], before - 20 - 16 + 6));
    fixture.truncate(ino, 60_000);
    assert_eq!(fixture.read(ino, 25_000, 35_000), [0; 35_000]);
    assert_eq!(unreadable(&fixture, ino), [22, 23, 24]);
    fixture.truncate(ino, 0);
    assert_eq!((lost(&fixture, ino), fixture.attr(ino).blocks), (vec![], 0));
}

#[test]
fn a_copy_shares_what_is_lost() {
    let (fixture, ino) = with_a_loss();
    let copy = fixture.file("copy");
    let place = |ino, offset| Place { ino, offset };
    let (copied, _) = fixture.fs.copy_file_range(&root(), place(ino, 5_000), place(copy, 0), 20_000).expect("copied");
    assert_eq!((copied, lost(&fixture, copy)), (20_000, vec![(5_000, 10_000), (15_000, 5_000)]));
    assert_eq!(fixture.read(copy, 0, 5_000), [1; 5_000]);
    assert_eq!(unreadable(&fixture, copy), (5..20).collect::<Vec<u64>>());
    fixture.write(copy, 0, &[6; 20_000]);
    assert_eq!(lost(&fixture, ino).len(), 2, "healing the copy heals no other file");
}

#[test]
fn a_tiny_file_that_is_lost_is_an_error_until_it_is_written() {
    let fixture = Fixture::new();
    let ino = fixture.file("tiny");
    fixture.write(ino, 0, b"twelve bytes");
    let pins = Pins::default();
    let mut tx = fixture.db.begin(&pins);
    tx.delete(TreeId::Files, key::inline(ino));
    tx.put(TreeId::Files, key::extent(ino, 0), Extent::lost(12).encode());
    tx.commit(Room::Ordinary).expect("committed");
    assert_eq!(errno(fixture.fs.read(&root(), ino, 0, 12)), libc::EIO);
    fixture.write(ino, 0, b"again twelve");
    assert_eq!((fixture.read(ino, 0, 12), lost(&fixture, ino)), (b"again twelve".to_vec(), vec![]));
}
