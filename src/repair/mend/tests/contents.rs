//! What files hold.

use super::*;
use crate::fs::FILE_BYTES_MAX;
use crate::repair::mend::contents::{Fill, Out, Sweep};
use crate::repair::mend::fixes::Done;

/// Where the parts of the file begin.
const AT: [u64; 3] = [0, 10_000, 20_000];
const LOST: u64 = 0;

fn birth(ino: InodeNo, n: u64, offset: u64) -> Birth {
    Birth { ino, offset, object: object(n), len: PART }
}

#[test]
fn what_is_lost_is_named_as_lost_and_nothing_else_changes() {
    let mut world = World::new();
    world.lost_objects.insert(object(2));
    let after = world.mended();
    assert_eq!(after.extents(FILE), [(AT[0], PART, 1), (AT[1], PART, LOST), (AT[2], PART, 3)]);
    assert_eq!(after.inode(FILE), inode_in(&world.map, FILE).expect("there"));
    after.assert_told(FILE, "lost", Some("/dir/file"));
    assert!(after.told[&FILE].what[0].contains("bytes 10000 to 20000, object 1.2#0"), "{:?}", after.told);
    after.assert_touched(&[FILE]);
}

#[test]
fn of_an_object_that_is_shorter_only_the_rest_is_lost() {
    let mut world = World::new();
    world.put(key::extent(FILE, AT[1]), Extent { len: 9_000, object: object(2), object_offset: 2_000 }.encode());
    world.put(key::extent(FILE, 19_000), Extent { len: 1_000, object: object(9), object_offset: 0 }.encode());
    let after = world.mended();
    let expected = [(0, PART, 1), (10_000, 8_000, 2), (18_000, 1_000, LOST), (19_000, 1_000, 9), (20_000, PART, 3)];
    assert_eq!(after.extents(FILE), expected);
}

#[test]
fn an_extent_that_makes_no_sense_is_lost_up_to_the_next() {
    let mut world = World::new();
    world.put(key::extent(FILE, AT[1]), Bytes::from_static(b"?"));
    let after = world.mended();
    assert_eq!(after.extents(FILE), [(AT[0], PART, 1), (AT[1], PART, LOST), (AT[2], PART, 3)]);
    world.put(key::extent(FILE, AT[2]), Bytes::from_static(b"?"));
    assert_eq!(world.mended().extents(FILE)[1..], [(AT[1], 2 * PART, LOST)], "or the end");
}

#[test]
fn where_two_lie_in_one_place_the_newer_one_stays() {
    let part = |n, object_offset, len| Extent { len, object: object(n), object_offset }.encode();
    let mut world = World::new();
    world.put(key::extent(FILE, 5_000), part(8, 1_000, 2_000));
    let after = world.mended();
    assert_eq!(after.extents(FILE)[..3], [(0, 5_000, 1), (5_000, 2_000, 8), (7_000, 3_000, 1)]);
    let tail = Extent::decode(&after.map[&key::extent(FILE, 7_000)]).expect("an extent");
    assert_eq!((tail.object_offset, tail.len), (7_000, 3_000));
    after.assert_told(FILE, "overlap", Some("/dir/file"));
    // An older one loses all, or what is under the others.
    let mut world = World::new();
    world.put(key::extent(FILE, 5_000), part(0, 0, 2_000));
    assert_eq!(world.mended().map, World::new().map);
    let mut world = World::new();
    world.put(key::extent(FILE, AT[0]), part(9, 0, 9_000));
    world.put(key::extent(FILE, 8_000), part(1, 0, 4_000));
    let after = world.mended();
    assert_eq!(after.extents(FILE)[..3], [(0, 9_000, 9), (9_000, 1_000, 1), (10_000, PART, 2)]);
}

#[test]
fn what_lies_beyond_the_end_is_cut_off() {
    let mut world = World::new();
    world.change(FILE, |inode| inode.size = 15_000);
    let after = world.mended();
    assert_eq!(after.extents(FILE), [(0, PART, 1), (10_000, 5_000, 2)]);
    assert_eq!((after.inode(FILE).size, after.inode(FILE).blocks), (15_000, 20 + 10));
    after.assert_told(FILE, "beyond", Some("/dir/file"));
    let mut world = World::new();
    world.put(key::extent(FILE, FILE_BYTES_MAX), whole_extent(9).encode());
    world.put(key::extent(FILE, u64::MAX), whole_extent(9).encode());
    assert_eq!(world.mended().map, World::new().map, "no file is that long");
}

#[test]
fn a_gap_where_extents_may_be_missing_is_lost_unless_nothing_is_missing() {
    let mut world = World::new();
    world.lose(key::extents_in(FILE, AT[1], AT[2]));
    let after = world.mended();
    assert_eq!(after.extents(FILE), [(AT[0], PART, 1), (AT[1], PART, LOST), (AT[2], PART, 3)]);
    after.assert_told(FILE, "lost", Some("/dir/file"));
    // All that the file takes is there: it is a hole.
    let mut world = World::new();
    world.remove(&key::extent(FILE, AT[1]));
    world.change(FILE, |inode| inode.blocks = 40);
    world.put(key::usage(), Usage { inodes: 7, blocks: 41 }.encode());
    world.ranges.push(KeyRange { from: key::extent(FILE, 0), to: key::extent(FILE, 50_000) });
    let (mended, _) = world.mend();
    assert_eq!(mended.edits, Edits::new());
    // Nobody says that anything is missing: what it takes was wrong.
    world.ranges.clear();
    world.change(FILE, |inode| inode.blocks = 60);
    assert_eq!(world.mended().inode(FILE).blocks, 40);
}

/// A world in which a batch is lost between one that this inode's attributes are of and what is there of its contents.
fn after_loss(ino: InodeNo) -> World {
    let mut world = World::new();
    world.after_loss.insert(ino, true);
    world
}

#[test]
fn a_gap_that_a_lost_batch_may_have_filled_is_lost_unless_nothing_is_missing() {
    assert_eq!(after_loss(FILE).mend().0.edits, Edits::new());
    let mut world = after_loss(FILE);
    world.remove(&key::extent(FILE, AT[1]));
    let after = world.mended();
    assert_eq!(after.extents(FILE), [(AT[0], PART, 1), (AT[1], PART, LOST), (AT[2], PART, 3)]);
    after.assert_told(FILE, "lost", Some("/dir/file"));
    after.assert_told(FILE, "missed", Some("/dir/file"));
    after.assert_touched(&[FILE]);
    world.births = vec![birth(FILE, 2, AT[1])];
    assert_eq!(world.mended().extents(FILE)[1], (AT[1], PART, LOST), "what is older was cut off, or overwritten");
    let span = |from, to| (object(from).lsn, object(to).lsn);
    world.lost = vec![span(0, 1), span(2, 3)];
    assert_eq!(world.mended().extents(FILE)[1], (AT[1], PART, LOST), "the batches before it and behind it");
    world.lost = vec![span(1, 2)];
    assert_eq!(world.mended().extents(FILE)[1], (AT[1], PART, 2), "segments say what was there");
    world.lost[0].0.epoch = 2;
    world.lost[0].1.epoch = 2;
    assert_eq!(world.mended().extents(FILE)[1], (AT[1], PART, LOST), "another history had a batch there");
    // A part of the map is lost, too: there it may be anything.
    world.ranges = vec![KeyRange { from: key::extent(FILE, AT[1]), to: key::extent(FILE, AT[1] + 1) }];
    assert_eq!(world.mended().extents(FILE)[1], (AT[1], PART, 2));
    world.ranges.clear();
    world.births.clear();
    world.remove(&key::extent(FILE, AT[2]));
    let lost: u32 = world.mended().extents(FILE)[1..].iter().map(|(_, len, n)| len * u32::from(*n == LOST)).sum();
    assert_eq!(lost, 2 * PART, "and so is the end");
    world.change(FILE, |inode| inode.blocks = 20);
    let after = world.mended();
    assert_eq!(after.extents(FILE), [(AT[0], PART, 1)], "all that it takes is there: the rest is a hole");
    after.assert_touched(&[InodeNo::NONE]);
}

#[test]
fn what_a_lost_batch_took_away_stays_where_nobody_can_know_it_and_is_told_of() {
    let mut world = after_loss(FILE);
    world.change(FILE, |inode| inode.blocks = 40);
    let after = world.mended();
    assert_eq!(after.extents(FILE), [(AT[0], PART, 1), (AT[1], PART, 2), (AT[2], PART, 3)]);
    after.assert_told(FILE, "missed", Some("/dir/file"));
    // What is beyond the end is cut off; the rest adds up.
    world.change(FILE, |inode| inode.size = AT[2]);
    let after = world.mended();
    assert_eq!(after.extents(FILE), [(AT[0], PART, 1), (AT[1], PART, 2)]);
    // A file that takes nothing has nothing but zeros.
    for size in [0, 50_000] {
        world.change(FILE, |inode| (inode.size, inode.blocks) = (size, 0));
        let after = world.mended();
        assert_eq!((after.extents(FILE), after.inode(FILE).size), (vec![], size));
        after.assert_told(FILE, "missed", Some("/dir/file"));
        let mut world = after_loss(TINY);
        world.change(TINY, |inode| (inode.size, inode.blocks) = (size, 0));
        let after = world.mended();
        assert!(!after.map.contains_key(&key::inline(TINY)) && after.extents(TINY).is_empty(), "{:?}", after.told);
        assert_eq!(after.inode(TINY).size, size);
    }
}

#[test]
fn a_tiny_file_that_ends_too_early_is_lost_if_a_lost_batch_may_have_had_its_end() {
    assert_eq!(after_loss(TINY).mend().0.edits, Edits::new());
    for (size, blocks) in [(300, 1), (1500, 3), (5000, 10)] {
        let mut world = after_loss(TINY);
        world.change(TINY, |inode| (inode.size, inode.blocks) = (size, blocks));
        let after = world.mended();
        assert_eq!((after.extents(TINY), after.inode(TINY).size), (vec![(0, size as u32, LOST)], size));
        after.assert_told(TINY, "missed", Some("/tiny"));
    }
    let mut world = after_loss(TINY);
    world.change(TINY, |inode| inode.size = 300);
    world.after_loss.insert(TINY, false);
    assert_eq!(world.mend().0.edits, Edits::new(), "its contents are of after the batch, too");
}

#[test]
fn a_lost_end_is_lost_and_so_is_a_tiny_file() {
    let mut world = World::new();
    world.lose(key::extents_in(FILE, AT[1], u64::MAX));
    let lost: u32 = world.mended().extents(FILE)[1..].iter().map(|(_, len, n)| len * u32::from(*n == LOST)).sum();
    assert_eq!(lost, 2 * PART);
    world.lose((key::inline(TINY), key::extent(TINY, 9)));
    let after = world.mended();
    assert_eq!(after.extents(TINY), [(0, 5, LOST)]);
    assert_eq!(after.inode(TINY).size, 5);
}

#[test]
fn what_is_missing_is_put_back_from_what_segments_say() {
    let mut world = World::new();
    world.births = vec![birth(FILE, 1, AT[0]), birth(FILE, 2, AT[1]), birth(FILE, 3, AT[2])];
    world.lose(key::extents_of(FILE));
    let after = world.mended();
    assert_eq!(after.map, World::new().map);
    after.assert_told(FILE, "births", Some("/dir/file"));
    // The attributes are lost as well.
    world.lose((key::inode(FILE), key::inline(FILE)));
    let after = world.mended();
    assert_eq!((after.inode(FILE).size, after.extents(FILE).len()), (30_000, 3));
    // And the name.
    world.remove_entry(DIR, "file", 3);
    let after = world.mended();
    assert_eq!(after.find(after.found(), "#3"), Some(FILE));
    world.lose(key::all_of(FILE));
    let after = world.mended();
    assert_eq!((after.find(after.found(), "#3"), after.extents(FILE).len()), (Some(FILE), 3), "nothing else is left");
}

#[test]
fn what_segments_say_is_not_believed_where_it_cannot_be() {
    // Of an object of which the extent had a part nobody knows which.
    let mut world = World::new();
    world.births = vec![Birth { len: 5_000, ..birth(FILE, 2, AT[1]) }];
    world.lose(key::extents_in(FILE, AT[1], AT[2]));
    assert_eq!(world.mended().extents(FILE)[1], (AT[1], PART, LOST));
    // More than is missing: some of it was there earlier.
    let mut world = World::new();
    world.births = vec![birth(FILE, 2, AT[1]), birth(FILE, 3, AT[2])];
    world.lose(key::extents_in(FILE, AT[1], u64::MAX));
    world.change(FILE, |inode| inode.blocks = 40);
    let lost: u32 = world.mended().extents(FILE).iter().filter(|(_, _, n)| *n == LOST).map(|(_, len, _)| len).sum();
    assert_eq!(lost, 20_000);
    // What was written later counts, and what stands in the map more than that.
    let mut world = World::new();
    world.births = vec![birth(FILE, 1, 5_000), birth(FILE, 2, 15_000), birth(FILE, 3, 12_000)];
    world.remove(&key::inode(FILE));
    world.lose(key::extents_in(FILE, AT[1], AT[2]));
    world.ranges.clear();
    world.ranges.push(KeyRange { from: key::inode(FILE), to: key::extent(FILE, AT[2]) });
    let expected = [(0, PART, 1), (10_000, 2_000, 1), (12_000, 8_000, 3), (20_000, PART, 3)];
    assert_eq!(world.mended().extents(FILE), expected);
}

#[test]
fn a_size_that_makes_no_sense_does_not_take_all_memory() {
    let (mut edits, mut done) = (Edits::new(), Done::default());
    let mut out = Out { edits: &mut edits, done: &mut done };
    let mut sweep = Sweep::new(FILE, 1 << 62);
    let whole: &dyn Fn(&ObjectId) -> Option<u32> = &|_| Some(PART);
    sweep.extent(0, Some(whole_extent(1)), whole, &mut out);
    sweep.extent(1 << 40, Some(whole_extent(2)), whole, &mut out);
    sweep.finish(&mut out);
    let mut lost_left = 10;
    let lost = std::slice::from_ref(&(0..u64::MAX));
    let mut fill =
        Fill { lost, unmapped: lost, batches: &[], births: &|_| Vec::new(), whole, lost_left: &mut lost_left };
    let size = sweep.fill(&mut fill, 1 << 62, Some(1 << 50), &mut out);
    assert_eq!((size, lost_left, edits.len()), ((1 << 40) + u64::from(PART), 0, 10), "the end is cut off");
    let mut told = Vec::new();
    done.tell(&|_| None, &mut |touched| told.extend(touched.what));
    assert!(told.iter().any(|what| what.contains("than can be named")), "{told:?}");
}

#[test]
fn contents_beside_the_attributes_fit_them() {
    // Longer than the file.
    let mut world = World::new();
    world.change(TINY, |inode| inode.size = 3);
    let after = world.mended();
    assert_eq!((&after.map[&key::inline(TINY)][..], after.inode(TINY).blocks), (&b"byt"[..], 1));
    after.assert_told(TINY, "inline", Some("/tiny"));
    // Of a file that is too long to have any.
    let mut world = World::new();
    world.change(TINY, |inode| inode.size = 9_999);
    assert_eq!(world.mended().map, World::new().map);
    // Beside extents: what adds up to what the file takes stays.
    let mut world = World::new();
    world.put(key::extent(TINY, 0), Extent { len: 5, object: object(9), object_offset: 0 }.encode());
    assert_eq!(world.mended().map, World::new().map);
    let mut world = World::new();
    world.put(key::inline(FILE), Bytes::from_static(b"old"));
    assert_eq!(world.mended().map, World::new().map);
    // An empty one is none.
    let mut world = World::new();
    world.put(key::inline(ORPHAN), Bytes::new());
    assert_eq!(world.mended().map, World::new().map);
}

#[test]
fn contents_and_names_where_none_belong_are_dropped() {
    let mut world = World::new();
    world.put(key::extent(LINK, 0), whole_extent(9).encode());
    world.put(key::inline(DIR), Bytes::from_static(b"?"));
    world.entry(FILE, "name", LINK, libc::DT_LNK, 3);
    let after = world.mended();
    assert_eq!(after.map, World::new().map);
    for (ino, path) in [(LINK, "/dir/link"), (DIR, "/dir"), (FILE, "/dir/file")] {
        after.assert_told(ino, "stray", Some(path));
    }
}
