//! The whole path: operations, journal, checkpoint, ship, mount again, mount from the store alone.

use super::*;
use crate::format::ids::InodeNo;
use crate::store::Store;

fn write_file(rig: &mut Rig, name: &str, bytes: &[u8]) {
    let attr = rig.run(|fs, cx| fs.create(cx, InodeNo::ROOT, name.as_bytes(), 0o644)).expect("created").0;
    let mut at = 0;
    while at < bytes.len() {
        let (done, _) = rig.run(|fs, cx| fs.write(cx, attr.ino, at as u64, &bytes[at..])).expect("written");
        at += done as usize;
    }
    rig.run(|fs, cx| fs.release(cx, attr.ino)).expect("released");
    rig.run(|fs, cx| fs.forget(cx, attr.ino, 1)).expect("forgotten");
}

fn read_file(rig: &mut Rig, name: &str) -> Vec<u8> {
    let attr = rig.run(|fs, cx| fs.lookup(cx, InodeNo::ROOT, name.as_bytes())).expect("looked up").expect("found");
    let mut bytes = Vec::new();
    loop {
        let more = rig.run(|fs, cx| fs.read(cx, attr.ino, bytes.len() as u64, 4096)).expect("read");
        if more.is_empty() {
            rig.run(|fs, cx| fs.forget(cx, attr.ino, 1)).expect("forgotten");
            return bytes;
        }
        bytes.extend(more);
    }
}

fn contents(n: u64) -> Vec<u8> {
    (0..20_000u64).map(|i| ((i * 7 + n * 13) % 251) as u8).collect()
}

#[test]
fn files_are_there_after_remounts_and_from_the_store_alone() {
    let tuning = small();
    let mut rig = Rig::new(1, &tuning);
    for n in 0..20 {
        write_file(&mut rig, &format!("file-{n}"), &contents(n));
        rig.step();
    }
    let mut rig = rig.remount(2, &tuning).expect("mounts again");
    for n in 0..20 {
        assert_eq!(read_file(&mut rig, &format!("file-{n}")), contents(n), "file {n} after a remount");
    }
    rig.drain();
    for n in 0..10 {
        rig.run(|fs, cx| fs.unlink(cx, InodeNo::ROOT, format!("file-{n}").as_bytes())).expect("unlinked");
    }
    write_file(&mut rig, "late", &contents(99));
    rig.drain();
    let mut rig = rig.remount(3, &tuning).expect("mounts again");
    assert_eq!(read_file(&mut rig, "file-15"), contents(15));
    rig.drain();

    let Rig { log, store, clock, .. } = rig;
    let mut rig = Rig::mount(log.clone(), SimDisk::new(&log), store, clock, 4, &tuning).expect("mounts from the store");
    for n in 10..20 {
        assert_eq!(read_file(&mut rig, &format!("file-{n}")), contents(n), "file {n} from the store");
    }
    assert_eq!(read_file(&mut rig, "late"), contents(99));
    assert_eq!(rig.run(|fs, cx| fs.lookup(cx, InodeNo::ROOT, b"file-3")).expect("looked up"), None);
    write_file(&mut rig, "after", &contents(5));
    rig.drain();
    let mut rig = rig.remount(5, &tuning).expect("mounts its own state");
    assert_eq!(read_file(&mut rig, "after"), contents(5));
}

#[test]
fn overwriting_for_ever_fills_neither_journal_nor_store() {
    let tuning = small();
    let mut rig = Rig::new(7, &tuning);
    write_file(&mut rig, "file", &contents(0));
    let ino = rig.run(|fs, cx| fs.lookup(cx, InodeNo::ROOT, b"file")).expect("looked up").expect("found").ino;
    for n in 0..400 {
        let bytes = contents(n);
        for at in (0..bytes.len()).step_by(8000) {
            let end = (at + 8000).min(bytes.len());
            rig.run(|fs, cx| fs.write(cx, ino, at as u64, &bytes[at..end])).expect("written");
        }
        rig.step();
        rig.advance(Duration::from_millis(100));
    }
    rig.drain();
    rig.settle();
    assert_eq!(read_file(&mut rig, "file"), contents(399));
    let store: u64 = rig.store_bytes();
    assert!(store < 600_000, "the store holds {store} bytes for a file of 20,000");
    assert!(rig.mounted.db.journal().stats().recycled > 0);
}

/// A file of very many extents that nobody has looked at since the mount: how often an operation starts again grows with its
/// nodes divided by how many are asked for at once, not with their number.
#[test]
fn changing_a_cold_file_of_very_many_extents_waits_a_few_times_only() {
    const EXTENTS: u64 = 20_000;
    let mut tuning = small();
    tuning.journal.queue_bytes_max = 8 << 20;
    let mut rig = Rig::new(9, &tuning);
    let (attr, _) = rig.run(|fs, cx| fs.create(cx, InodeNo::ROOT, b"file", 0o644)).expect("created");
    for n in 0..EXTENTS {
        // Backwards, so that no two of them are one run.
        let offset = 8192 * (EXTENTS - n);
        rig.run(|fs, cx| fs.write(cx, attr.ino, offset, &[1])).expect("written");
    }
    rig.drain();
    let leaves = EXTENTS / 20;
    let (half, punch) = (4096 * EXTENTS, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE);
    let cut = fs::SetAttr { size: Some(half), ..fs::SetAttr::default() };
    for change in 0..3 {
        let mut cold = Rig::mount(
            rig.log.clone(),
            SimDisk::from_image(&rig.disk.image(), &rig.log),
            SimStore::from_image(&rig.store.image(), &rig.log),
            rig.clock.clone(),
            10 + change,
            &tuning,
        )
        .expect("mounts");
        let mut starts = 0;
        let done = cold.run(|fs, cx| {
            starts += 1;
            match change {
                0 => fs.fallocate(cx, attr.ino, 8192, 8192 * EXTENTS, punch).map(|_| ()),
                1 => fs.fallocate(cx, attr.ino, half, 8192 * (EXTENTS / 4), punch).map(|_| ()),
                _ => fs.setattr(cx, attr.ino, cut).map(|_| ()),
            }
        });
        done.expect("done");
        println!("change {change}: {starts} starts");
        assert!(starts < leaves / 20, "change {change} starts {starts} times");
        let blocks = cold.run(|fs, cx| fs.getattr(cx, attr.ino)).expect("there").blocks;
        assert_eq!(blocks, [0, EXTENTS - EXTENTS / 4, EXTENTS / 2 - 1][change as usize], "change {change}");
    }
}

#[test]
fn what_lies_side_by_side_in_the_store_is_read_together_and_each_chunk_verified() {
    let mut tuning = small();
    tuning.journal.segment_bytes = 1 << 20;
    tuning.journal.journal_bytes = 16 << 20;
    tuning.journal.queue_bytes_max = 4 << 20;
    tuning.policy.segment_bytes = 4 << 20;
    let mut rig = Rig::new(5, &tuning);
    let random = SeededRandom::new(3);
    let bytes: Vec<u8> = (0..6 * 65_536).map(|_| random.below(256) as u8).collect();
    write_file(&mut rig, "large", &bytes);
    rig.drain();
    let mut rig = rig.remount(6, &tuning).expect("mounts again");
    let ino = rig.run(|fs, cx| fs.lookup(cx, InodeNo::ROOT, b"large")).expect("looked up").expect("found").ino;
    for (from, len) in [(0, 1 << 20), (65_536, 1 << 20), (70_000, 200_000), (65_535, 2)] {
        let found = rig.run(|fs, cx| fs.read(cx, ino, from as u64, len)).expect("read");
        assert_eq!(found, bytes[from..bytes.len().min(from + len as usize)], "{len} bytes from {from} on");
    }

    let mut damaged = 0;
    for name in rig.store.list("seg").expect("listed") {
        let mut segment = rig.store.get(&name).expect("there").to_vec();
        let places = segment.windows(64).position(|part| part == &bytes[3 * 65_536..][..64]);
        let Some(at) = places else { continue };
        segment[at] ^= 1;
        rig.store.put(&name, segment.into()).expect("put");
        damaged += 1;
    }
    assert!(damaged > 0, "the fourth chunk was found in the store");
    let mut rig = rig.remount(7, &tuning).expect("mounts again");
    let all = rig.run(|fs, cx| fs.read(cx, ino, 0, 1 << 20));
    assert!(all.is_err(), "the damaged chunk is not used");
    let before = rig.run(|fs, cx| fs.read(cx, ino, 0, 3 * 65_536)).expect("the chunks before it are whole");
    assert_eq!(before, bytes[..3 * 65_536]);
}

#[test]
fn removing_one_of_many_attributes_reads_few_of_them() {
    const ATTRIBUTES: u32 = 200;
    let tuning = small();
    let mut rig = Rig::new(11, &tuning);
    let (attr, _) = rig.run(|fs, cx| fs.create(cx, InodeNo::ROOT, b"file", 0o644)).expect("created");
    let name = |n: u32| format!("user.{n:03}").into_bytes();
    for n in 0..ATTRIBUTES {
        rig.run(|fs, cx| fs.set_xattr(cx, attr.ino, &name(n), &[7; 1000], 0)).expect("set");
    }
    rig.drain();
    let mut cold = rig.remount(12, &tuning).expect("mounts again");
    let mut starts = 0;
    let removed = cold.run(|fs, cx| {
        starts += 1;
        fs.remove_xattr(cx, attr.ino, &name(100))
    });
    removed.expect("removed");
    assert!(starts < 30, "it starts {starts} times");
    let list = cold.run(|fs, cx| fs.list_xattrs(cx, attr.ino)).expect("listed");
    let expected: Vec<u8> = (0..ATTRIBUTES).filter(|n| *n != 100).flat_map(|n| [name(n), vec![0]].concat()).collect();
    assert!(list == expected, "{}", String::from_utf8_lossy(&list));
}

#[test]
fn a_window_is_shipped_whose_objects_are_longer_than_what_is_left_of_their_files() {
    let mut tuning = small();
    tuning.journal = journal::Config {
        segment_bytes: 1 << 20,
        journal_bytes: 16 << 20,
        queue_bytes_max: 4 << 20,
        reserve_bytes: 1 << 20,
    };
    let mut rig = Rig::new(1, &tuning);
    for n in 0..150u8 {
        let name = format!("file-{n}");
        write_file(&mut rig, &name, &[n; 8 << 10]);
        let attr = rig.run(|fs, cx| fs.lookup(cx, InodeNo::ROOT, name.as_bytes())).expect("looked up").expect("found");
        let cut = fs::SetAttr { size: Some(2100), ..fs::SetAttr::default() };
        rig.run(|fs, cx| fs.setattr(cx, attr.ino, cut)).expect("cut");
        rig.run(|fs, cx| fs.forget(cx, attr.ino, 1)).expect("forgotten");
        rig.step_journal();
    }
    rig.drain();
    let Rig { log, store, clock, .. } = rig;
    let mut rig = Rig::mount(log.clone(), SimDisk::new(&log), store, clock, 4, &tuning).expect("mounts from the store");
    assert_eq!(read_file(&mut rig, "file-7"), vec![7; 2100]);
}
