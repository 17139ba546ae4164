//! Whatever is damaged on disk or in the store is found and named.

use super::*;
use skylog::format::space::Key;
use skylog::journal::ManifestStore;

/// A filesystem with some of everything.
fn lively() -> Rig {
    let mut rig = Rig::new(11, &small());
    let dir = mkdir(&mut rig, ROOT, "dir");
    for n in 0..12 {
        let ino = create(&mut rig, dir, &format!("file-{n}"));
        write(&mut rig, ino, 0, 9000);
        // Splits the object in two and makes it a shared one.
        write(&mut rig, ino, 3000, 500);
        rig.step();
    }
    let tiny = create(&mut rig, ROOT, "tiny");
    write(&mut rig, tiny, 0, 100);
    rig.run(|fs, cx| fs.link(cx, tiny, dir, b"also tiny")).expect("linked");
    rig.run(|fs, cx| fs.forget(cx, tiny, 1)).expect("forgotten");
    rig.run(|fs, cx| fs.symlink(cx, ROOT, b"link", b"dir/file-1")).expect("linked");
    rig
}

/// All of it shipped, with a base and increments after it.
fn shipped() -> Rig {
    let mut rig = lively();
    rig.drain();
    for n in 0..2 {
        let ino = create(&mut rig, ROOT, &format!("late-{n}"));
        write(&mut rig, ino, 0, 5000);
        rig.drain();
    }
    rig
}

/// In a checkpoint that nothing of was shipped, with a closed journal behind it.
fn unshipped() -> Rig {
    let mut rig = lively();
    rig.mounted.checkpointer.wanted().checkpoint();
    while rig.step_journal() || rig.step_checkpointer() {}
    let ino = create(&mut rig, ROOT, "late");
    write(&mut rig, ino, 0, 5000);
    rig.mounted.writer.close().expect("closed");
    rig
}

/// Names of the store that count: not listed for deletion, not of a generation before the newest.
fn living(rig: &Rig) -> Vec<String> {
    let store = &rig.world.store;
    let all = store.list("").expect("listed");
    let newest = all.iter().filter(|n| n.starts_with("gen/")).max().and_then(|n| n.rsplit_once('/')).expect("a name").0;
    let pins = skylog::map::Pins::new();
    let mut tx = rig.mounted.db.begin(&pins);
    all.iter()
        .filter(|name| !name.starts_with("gen/") || name.starts_with(newest))
        .filter(|name| {
            let key = Key::Pending(name.as_bytes().to_vec().into()).encode();
            tx.get(skylog::format::batch::TreeId::Space, &key).expect("in memory").is_none()
        })
        .cloned()
        .collect()
}

fn assert_names(report: &Report, place: &str, how: &str) {
    let lines: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert!(report.problems.iter().any(|p| p.place.contains(place)), "{how}: {place} is not named in {lines:#?}");
}

/// Places to flip a byte at: the ends and some between.
fn spots(len: u64) -> impl Iterator<Item = u64> {
    (0..8).map(move |n| n * len.saturating_sub(1) / 7)
}

#[test]
fn promise_g8_a_flipped_byte_in_any_store_object_is_found_and_the_object_named() {
    let rig = shipped();
    assert_clean_everywhere(&rig, "before");
    let names = living(&rig);
    for folder in ["gen/", "seg/", "win/"] {
        assert!(names.iter().any(|name| name.starts_with(folder)), "there is something in {folder}");
    }
    let image = rig.disk.image();
    for name in &names {
        let bytes = rig.world.store.get(name).expect("there");
        for at in spots(bytes.len() as u64) {
            let store = SimStore::from_image(&rig.store.image(), &CallLog::new());
            let mut flipped = bytes.to_vec();
            flipped[usize::try_from(at).expect("small")] ^= 0x20;
            store.put(name, flipped.into()).expect("put");
            assert_names(&checked(&store, Some(&image)), name, &format!("byte {at} flipped"));
        }
    }
}

#[test]
fn a_missing_store_object_is_found_and_named() {
    let rig = shipped();
    let image = rig.disk.image();
    let names = living(&rig);
    // A generation ends at the first free number, so that its last object is gone can only be known by the state directory.
    let last = names.iter().filter(|name| name.starts_with("gen/")).max().expect("a generation");
    for name in &names {
        let store = SimStore::from_image(&rig.store.image(), &CallLog::new());
        store.delete(name).expect("deleted");
        assert_names(&checked(&store, Some(&image)), name, "deleted");
        assert!(name == last || !checked(&store, None).is_clean(), "{name} is missed without a state directory too");
    }
}

fn assert_flips_are_found(rig: &Rig, file: &str, len: u64, place: &str) {
    for at in spots(len) {
        let disk = SimDisk::from_image(&rig.disk.image(), &CallLog::new());
        let open = disk.open(file).expect("there");
        let mut byte = [0];
        open.read_at(&mut byte, at).expect("read");
        open.write_at(&[byte[0] ^ 0x20], at).expect("written");
        assert_names(&checked(&rig.store, Some(&disk.image())), place, &format!("byte {at} of {file} flipped"));
    }
}

#[test]
fn a_flipped_byte_in_any_file_of_a_checkpoint_is_found_and_the_file_named() {
    let rig = unshipped();
    assert_clean(&checked(&rig.store, Some(&rig.disk.image())), "before");
    for folder in ["nodes", "ckpt"] {
        let files = rig.disk.list(folder).expect("listed");
        assert!(!files.is_empty(), "there is something in {folder}");
        for file in files {
            let file = format!("{folder}/{file}");
            let len = rig.disk.open(&file).and_then(|f| f.len()).expect("there");
            assert_flips_are_found(&rig, &file, len, &file);
        }
    }
    let len = rig.disk.open("MANIFEST").and_then(|f| f.len()).expect("there");
    assert_flips_are_found(&rig, "MANIFEST", len, "MANIFEST");
}

#[test]
fn a_flipped_byte_in_the_journal_is_found_and_the_segment_named() {
    let rig = unshipped();
    let manifest = ManifestStore::load(rig.world.media.clone()).expect("read").expect("there").current();
    let ends = manifest.journal.iter().filter_map(|entry| Some((entry, entry.end?.offset)));
    let ended: Vec<_> = ends.filter(|(_, end)| *end > 0).collect();
    assert!(ended.len() > 1, "more than one segment holds something");
    for (entry, end) in ended {
        let file = format!("journal/slot-{:06}", entry.slot);
        assert_flips_are_found(&rig, &file, end, &format!("journal segment {}", entry.number));
    }
}

#[test]
fn a_missing_file_of_the_state_directory_is_found_and_named() {
    let rig = unshipped();
    for folder in ["nodes", "ckpt", "journal"] {
        for file in rig.disk.list(folder).expect("listed") {
            let disk = SimDisk::from_image(&rig.disk.image(), &CallLog::new());
            let file = format!("{folder}/{file}");
            disk.remove(&file).expect("removed");
            let place = if folder == "nodes" { file.replace("nodes/", "seg/").replace('-', "/") } else { file.clone() };
            assert_names(&checked(&rig.store, Some(&disk.image())), &place, "removed");
        }
    }
}
