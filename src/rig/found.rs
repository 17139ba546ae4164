//! Stores with something damaged: which objects a repair finds whole.

use super::{Rig, small};
use crate::format::batch::TreeId;
use crate::format::ids::{InodeNo, Lsn, SegmentKind, SegmentNo, Uuid};
use crate::format::inode::Extent;
use crate::format::key::Key;
use crate::format::names;
use crate::format::publication::Position;
use crate::format::window::IndexEntry;
use crate::format::window::WindowIndex;
use crate::fs::{Place as At, SetAttr};
use crate::media::sim::CallLog;
use crate::recovery::{Fetcher, Remote, read_remote};
use crate::repair::RepairError;
use crate::repair::objects::{Objects, find_objects};
use crate::repair::space::Uses;
use crate::repair::tree::Trees;
use crate::store::Store;
use crate::store::sim::SimStore;
use bytes::Bytes;
use std::sync::Arc;

/// A filesystem with several windows in the store, of which some hold what was overwritten, shared or removed.
pub(super) fn lively(seed: u64) -> Rig {
    let mut rig = Rig::new(seed, &small());
    let create = |rig: &mut Rig, name: &str| {
        let ino = rig.run(|fs, cx| fs.create(cx, InodeNo::ROOT, name.as_bytes(), 0o644)).expect("created").0.ino;
        rig.run(|fs, cx| fs.release(cx, ino)).expect("released");
        ino
    };
    let write = |rig: &mut Rig, ino: InodeNo, offset: u64, len: usize| {
        let data: Vec<u8> = (0..len).map(|i| (i as u64 * 7 + offset + ino.0 + seed) as u8).collect();
        let mut at = 0;
        while at < len {
            at += rig.run(|fs, cx| fs.write(cx, ino, offset + at as u64, &data[at..])).expect("written").0 as usize;
        }
    };
    for round in 0..5u64 {
        for n in 0..6 {
            let ino = create(&mut rig, &format!("file-{round}-{n}"));
            write(&mut rig, ino, 0, 3000 + 4000 * n);
        }
        let big = create(&mut rig, &format!("big-{round}"));
        write(&mut rig, big, 0, 70_000);
        rig.drain();
        write(&mut rig, big, 5000, 900);
        rig.run(|fs, cx| fs.unlink(cx, InodeNo::ROOT, format!("file-{round}-3").as_bytes())).expect("unlinked");
        let copy = create(&mut rig, &format!("copy-{round}"));
        let (from, to) = (At { ino: big, offset: 1000 }, At { ino: copy, offset: 0 });
        rig.run(|fs, cx| fs.copy_file_range(cx, from, to, 20_000)).expect("copied");
        let set = SetAttr { size: Some(60_000), ..SetAttr::default() };
        rig.run(|fs, cx| fs.setattr(cx, big, set)).expect("cut");
    }
    rig.drain();
    rig
}

/// The same, but nothing of it can be changed by accident.
pub(super) fn copy_of(store: &SimStore) -> SimStore {
    SimStore::from_image(&store.image(), &CallLog::new())
}

pub(super) fn remote(store: &SimStore) -> (Uuid, Remote) {
    let uuid = crate::recovery::superblock(store).expect("there is one").uuid;
    (uuid, read_remote(store, uuid, &Fetcher::new(1)).expect("read"))
}

/// Every entry of the map of files that is published.
pub(super) fn files(store: &SimStore) -> Vec<(Bytes, Bytes)> {
    let (uuid, remote) = remote(store);
    let trees = Trees::new(uuid, None, Arc::new(copy_of(store)));
    let mut entries = Vec::new();
    let root = remote.roots[TreeId::Files as usize];
    let lost = trees.each(TreeId::Files, Some(root), &remote.overlays[0], &mut |key, value| entries.push((key, value)));
    assert_eq!(lost.expect("read"), []);
    entries
}

pub(super) fn uses(entries: &[(Bytes, Bytes)]) -> Uses {
    let mut uses = Uses::default();
    for (key, value) in entries {
        if let Ok(Key::Extent(ino, at)) = Key::decode(key) {
            uses.take(ino, at, &Extent::decode(value).expect("valid"));
        }
    }
    uses
}

pub(super) fn found(store: &SimStore) -> Objects {
    let (uuid, remote) = remote(store);
    let store: Arc<dyn Store> = Arc::new(copy_of(store));
    find_objects(&store, uuid, &remote.windows, 0, &mut |_, _, _| {}).expect("found")
}

/// The windows in which something lives, with their indexes.
pub(super) fn indexes(store: &SimStore) -> Vec<(String, WindowIndex)> {
    let names = store.list("win").expect("listed");
    let decode = |name: String| (name.clone(), WindowIndex::decode(&store.get(&name).expect("got")).expect("valid"));
    names.into_iter().map(decode).collect()
}

/// Changes an object of the store; a length of 0 removes it.
pub(super) fn changed(store: &SimStore, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> SimStore {
    let store = copy_of(store);
    let mut bytes = store.get(name).expect("got").to_vec();
    change(&mut bytes);
    match bytes.is_empty() {
        true => store.delete(name).expect("deleted"),
        false => store.put(name, bytes.into()).expect("put"),
    }
    store
}

/// All places of the objects of an index, as far as their segments are there: (object, segment, record).
fn placed(objects: &Objects, store: &SimStore, index: &WindowIndex) -> (Vec<IndexEntry>, Vec<IndexEntry>) {
    let there = |entry: &&IndexEntry| store.size(&names::segment(index.segments[entry.segment as usize])).is_ok();
    let expected: Vec<IndexEntry> = index.entries.iter().filter(there).copied().collect();
    let find = |entry: &IndexEntry| {
        let place = objects.place(&entry.object)?;
        let no = objects.segments[place.segment].no;
        let segment = index.segments.iter().position(|other| *other == no)?;
        Some(IndexEntry { segment: u32::try_from(segment).expect("few"), ..objects.row(&place).entry })
    };
    (expected.iter().filter_map(find).collect(), expected)
}

#[test]
fn what_is_not_damaged_is_found_whole() {
    let rig = lively(1);
    let (objects, uses) = (found(&rig.store), uses(&files(&rig.store)));
    assert!(objects.damaged().is_empty(), "{:?}", objects.damaged());
    assert!(uses.iter().count() > 30 && indexes(&rig.store).len() > 4);
    for (object, of) in uses.iter() {
        assert!(objects.len_of(object).is_some_and(|len| len >= of.end), "{object}");
        assert!(
            objects
                .births_of(objects.row(&objects.place(object).expect("found")).entry.birth_ino)
                .iter()
                .any(|b| b.object == *object)
        );
    }
}

#[test]
fn every_record_of_a_lost_or_damaged_index_is_found_from_the_segments() {
    let rig = lively(2);
    for (name, index) in indexes(&rig.store) {
        let len = rig.store.size(&name).expect("there") as usize;
        let mut spots: Vec<usize> = (0..len).step_by(97).collect();
        spots.extend([0, 5, 13, 30, 45, 57, 59, 61, len - 1]);
        let flips =
            spots.iter().map(|at| (format!("byte {at} flipped"), changed(&rig.store, &name, |b| b[*at] ^= 0x11)));
        let cuts = spots.iter().map(|at| (format!("cut to {at}"), changed(&rig.store, &name, |b| b.truncate(*at))));
        let more = (String::from("longer"), changed(&rig.store, &name, |b| b.push(0)));
        let gone = (String::from("gone"), changed(&rig.store, &name, Vec::clear));
        for (how, store) in flips.chain(cuts).chain([more, gone]) {
            let objects = found(&store);
            let (records, expected) = placed(&objects, &store, &index);
            assert_eq!(records, expected, "{name} {how}");
            let named = objects.damaged().iter().any(|damaged| damaged.place == name);
            assert!(named || how == "gone" || how == "cut to 0", "{name} {how}");
        }
    }
}

#[test]
fn good_blocks_of_a_damaged_index_count_where_segments_do_not_say_what_is_in_them() {
    let rig = lively(3);
    for (name, index) in indexes(&rig.store) {
        // As an earlier version wrote them: without tables.
        let old = copy_of(&rig.store);
        for no in &index.segments {
            let Ok(bytes) = old.get(&names::segment(*no)) else { continue };
            old.put(&names::segment(*no), without_tables(&bytes)).expect("put");
        }
        let header = index.header();
        for at in [0, 5, 50, 57, 61, header.len() as usize + 3] {
            let store = changed(&old, &name, |bytes| bytes[at] ^= 0x11);
            let objects = found(&store);
            let (records, expected) = placed(&objects, &store, &index);
            let born = |entry: &IndexEntry| objects.births_of(entry.birth_ino).iter().any(|b| b.object == entry.object);
            assert!(!index.entries.iter().any(born), "what an earlier version said of births is not believed");
            match at < header.len() as usize {
                // Which segment is meant, only the damaged byte says.
                true if at == 61 => assert!(records.len() <= expected.len()),
                true => assert_eq!(records, expected, "{name}, byte {at}"),
                false => {
                    let good: Vec<IndexEntry> = expected.into_iter().filter(|e| !first_block(&index, e)).collect();
                    assert_eq!(records, good, "{name}, byte {at}");
                }
            }
        }
    }
}

fn first_block(index: &WindowIndex, entry: &IndexEntry) -> bool {
    index.entries.iter().take(64).any(|first| first.object == entry.object)
}

pub(super) fn without_tables(bytes: &Bytes) -> Bytes {
    use crate::format::object_table::Tables;
    use crate::format::store_segment::{SegmentBuilder, StoreSegment};
    let segment = StoreSegment::parse(bytes).expect("valid");
    let first = Tables::of_segment(&segment, bytes).first;
    let mut builder = SegmentBuilder::new(segment.header.uuid, segment.header.segment, SegmentKind::Chunks);
    for (i, entry) in segment.entries.iter().enumerate().take(first) {
        builder.push(entry.chunk, &segment.body(bytes, i).expect("whole"));
    }
    builder.finish().into()
}

#[test]
fn damage_to_a_segment_costs_what_lies_in_that_chunk_and_nothing_else() {
    let rig = lively(4);
    let before = found(&rig.store);
    for (_, index) in indexes(&rig.store) {
        for (number, no) in index.segments.iter().enumerate() {
            let name = names::segment(*no);
            let Ok(len) = rig.store.size(&name) else { continue };
            let len = len as usize;
            let flips = (0..len).step_by(331).chain([0, 41, len - 90, len - 39, len - 1]);
            for at in flips {
                let store = changed(&rig.store, &name, |bytes| bytes[at] ^= 0x40);
                let objects = found(&store);
                assert!(objects.damaged().iter().any(|damaged| damaged.place == name), "{name}, byte {at}");
                for entry in index.entries.iter().filter(|entry| entry.segment as usize == number) {
                    let chunk = entry.chunk_offset..entry.chunk_offset + u64::from(entry.chunk.stored_len);
                    let hit = chunk.contains(&(at as u64));
                    assert_eq!(objects.len_of(&entry.object).is_none(), hit, "{name}, byte {at}: {}", entry.object);
                    assert_eq!(objects.why(&entry.object).is_some(), hit);
                }
                let others = before.segments.iter().filter(|segment| segment.no != *no);
                let mut others = others.flat_map(|segment| &segment.rows).filter(|row| row.whole);
                assert!(others.all(|row| objects.len_of(&row.entry.object).is_some()), "{name}, byte {at}");
            }
        }
    }
}

#[test]
fn a_store_that_is_away_is_no_damage() {
    let rig = lively(5);
    let (uuid, remote) = remote(&rig.store);
    let store = copy_of(&rig.store);
    let as_store: Arc<dyn Store> = Arc::new(store.clone());
    store.set_down(true);
    let found = find_objects(&as_store, uuid, &remote.windows, 0, &mut |_, _, _| {});
    assert!(matches!(found, Err(RepairError::Store(e)) if e.is_away()));
}

#[test]
fn what_nobody_can_have_named_is_left_out() {
    let rig = lively(6);
    let (name, index) = indexes(&rig.store).pop().expect("some");
    let store = copy_of(&rig.store);
    let bytes = store.get(&name).expect("got");
    // An epoch without a generation.
    let end = Lsn { epoch: 900, pos: index.end.pos };
    let later = WindowIndex { end, ..index };
    store.put(&names::window(later.start, end), later.encode().into()).expect("put");
    store.put(&names::segment(SegmentNo { epoch: 900, number: 1 }), bytes).expect("put");
    let objects = found(&store);
    assert!(objects.windows.iter().all(|window| window.end.epoch < 900));
    assert!(objects.segments.iter().all(|segment| segment.no.epoch < 900));
    assert!(objects.listed.windows.contains(&(later.start, end)));
    let at = Position { generation: 1, number: 0 };
    assert!(objects.listed.publications[&at.generation].contains(&at.number));
}

#[test]
fn counts_made_by_an_attacker_take_neither_time_nor_memory() {
    let rig = lively(7);
    for (name, index) in indexes(&rig.store) {
        let huge = crate::format::window::WindowHeader { count: u32::MAX, ..index.header() };
        // Its checksum is right; only the blocks are not there.
        let bytes = huge.encode();
        let mut longer = bytes.clone();
        longer.extend(rig.store.get(&name).expect("got").slice(index.header().len() as usize..));
        for bytes in [bytes, longer] {
            let store = changed(&rig.store, &name, |old| *old = bytes);
            let objects = found(&store);
            let (records, expected) = placed(&objects, &store, &index);
            assert_eq!(records, expected);
        }
    }
}
