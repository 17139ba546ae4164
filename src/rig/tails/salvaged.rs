//! What `skylog salvage` finds in a state directory whose takeover went no further.

use super::*;
use crate::checkpoint::nodes::node_file;
use crate::format::batch::TreeId;
use crate::format::inode::Extent;
use crate::format::key;
use crate::journal::MANIFEST;
use crate::map::{Pins, Room};
use crate::salvage::{Missing, Salvage};

/// What a disk has of a file, without the store, as salvage reads it.
fn salvaged(disk: &Image, store: &StoreImage, is_down: bool, name: &str) -> Option<Vec<u8>> {
    let log = CallLog::new();
    let (disk, store) = (SimDisk::from_image(disk, &log), SimStore::from_image(store, &log));
    store.set_down(is_down);
    let before = disk.image().hash();
    let salvage = Salvage::open(Arc::new(store), Arc::new(disk.clone()), &mut |_, _| {}).expect("opens");
    let findings = salvage.findings();
    let found = findings.found.iter().find(|found| found.paths.iter().any(|path| path == name.as_bytes()))?;
    let mut bytes = Vec::new();
    let read = salvage.read::<()>(found, &mut |piece| {
        bytes.resize(piece.offset as usize, 0);
        bytes.extend_from_slice(&piece.bytes);
        Ok(())
    });
    assert_eq!(read.expect("read"), Ok(Vec::new()), "{:?}", findings.unknown);
    assert_eq!(disk.image().hash(), before, "the state directory stays as it is");
    Some(bytes)
}

#[test]
fn what_a_takeover_had_not_brought_into_its_journal_is_salvaged() {
    let (rig, _) = a_filesystem_with_a_tail();
    let other = elsewhere(&rig.store.image(), 2, &small()).expect("taken over");
    let recording = Recording::of(&other.disk, &other.store);
    let limits = Limits { subsets_up_to: 3, tears_max: 2, random: 2, plans_max: 12, seed: 1 };
    let mut states = 0;
    for crash in recording.crashes(&limits) {
        // Before that there is nothing to mount either.
        if !crash.disk.names().any(|name| name == MANIFEST) {
            continue;
        }
        states += 1;
        for (name, len) in [("synced", 70_000), ("synced too", 5000), ("old 3", 10)] {
            let found = salvaged(&crash.disk, &crash.store, states % 2 == 0, name);
            assert_eq!(found, Some(contents(name, len)), "{name} after call {}", crash.after);
        }
        assert_eq!(salvaged(&crash.disk, &crash.store, false, "not synced"), None);
    }
    assert!(states > 10, "{states} states");
}

#[test]
fn nodes_that_only_the_store_has_are_read_there_and_change_nothing_here() {
    let (rig, _) = a_filesystem_with_a_tail();
    let mut other = elsewhere(&rig.store.image(), 2, &small()).expect("taken over");
    other.drain();
    // A base has them.
    for n in 0..60 {
        put(&mut other, &format!("more {n}"), 3000);
        other.drain();
    }
    put(&mut other, "new", 9000);
    sync(&mut other);
    let store: BTreeMap<String, ()> = other.store.image().names().map(|name| (name.to_owned(), ())).collect();
    let media = other.world.media.clone();
    let mut removed = 0;
    for (no, _) in other.mounted.nodes.local_segments().expect("listed") {
        if store.contains_key(&names::segment(no)) {
            media.remove(&node_file(no)).expect("removed");
            removed += 1;
        }
    }
    assert!(removed > 0, "the store has none of the nodes");
    let (disk, store) = (other.disk.image(), other.store.image());
    assert_eq!(salvaged(&disk, &store, false, "new"), Some(contents("new", 9000)));
    assert_eq!(salvaged(&disk, &store, true, "new"), Some(contents("new", 9000)), "the store is gone");
}

#[test]
fn what_a_repair_named_as_lost_is_missing_to_who_salvages_and_the_rest_is_there() {
    let mut rig = Rig::new(60, &small());
    let ino = put(&mut rig, "file", 8000);
    rig.run(|fs, cx| fs.write(cx, ino, 8000, b"the rest")).expect("written");
    let pins = Pins::new();
    let mut tx = rig.mounted.db.begin(&pins);
    tx.put(TreeId::Files, key::extent(ino, 0), Extent::lost(8000).encode());
    tx.commit(Room::Maintenance).expect("committed");
    sync(&mut rig);
    let disk: Arc<dyn Media> = Arc::new(SimDisk::from_image(&rig.disk.image(), &CallLog::new()));
    let salvage = Salvage::open(Arc::new(rig.store.clone()), disk, &mut |_, _| {}).expect("opens");
    let findings = salvage.findings();
    let found = findings.found.iter().find(|found| found.ino == ino).expect("it is in the journal");
    let mut pieces = Vec::new();
    let missing = salvage.read::<()>(found, &mut |piece| {
        pieces.push((piece.offset, piece.bytes));
        Ok(())
    });
    let lost = Missing { offset: 0, len: 8000, reason: "lost before a repair".to_owned() };
    assert_eq!(missing.expect("read"), Ok(vec![lost]));
    assert_eq!(pieces, [(8000, Bytes::from_static(b"the rest"))]);
}
