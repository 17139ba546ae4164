//! A store that is far away: how many requests it takes to read from it, and what of it is kept here.

use super::*;
use crate::cache::Limits as CacheLimits;
use crate::format::ids::InodeNo;
use crate::locate::{Evicted, Nearest, Warmed};
use crate::store::Store;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Sizes as in production, but for memory, which is not to hide what is read.
fn far() -> Tuning {
    let mut tuning = small();
    tuning.journal = journal::Config {
        segment_bytes: 8 << 20,
        journal_bytes: 512 << 20,
        queue_bytes_max: 32 << 20,
        reserve_bytes: 1 << 20,
    };
    tuning.limits = Limits { overlay_bytes_max: 48 << 20, inode_step: 1 << 16 };
    tuning.node_cache_bytes = 4 << 20;
    tuning.cache = CacheBytes { data: 4 << 20, indexes: 4 << 20 };
    tuning.cache_files = Some(CacheLimits { bytes_max: 256 << 20, free_bytes_min: 0 });
    tuning.policy.segment_bytes = 16 << 20;
    tuning.policy.replay = Replay::after(64, 64 << 20);
    tuning.policy.shape = Shape::default();
    tuning
}

fn contents(n: u64, len: u64) -> Vec<u8> {
    let blocks = (0..len.div_ceil(1 << 10)).flat_map(|block| [(n * 31 + block * 7) as u8; 1 << 10]);
    let mut bytes: Vec<u8> = blocks.collect();
    bytes.truncate(len as usize);
    bytes
}

fn new_rig(seed: u64) -> Rig {
    let log = CallLog::new();
    let clock = Arc::new(SimClock::default());
    let store = SimStore::new(&log);
    let options = MkfsOptions { segment_size: 8 << 20, ..MkfsOptions::default() };
    mkfs(&store, &*clock, &SeededRandom::new(seed), options).expect("made");
    Rig::mount(log.clone(), SimDisk::new(&log), store, clock, seed + 1, &far()).expect("mounted")
}

/// The filesystem on a machine that knows nothing of it.
fn elsewhere(rig: &Rig, seed: u64) -> Rig {
    let log = CallLog::new();
    let store = SimStore::from_image(&rig.store.image(), &log);
    let mut there =
        Rig::mount(log.clone(), SimDisk::new(&log), store, rig.clock.clone(), seed, &far()).expect("mounts");
    there.settle();
    there
}

/// Files of `len` bytes each in a directory, and the directory.
fn write_files(rig: &mut Rig, count: u64, len: u64) -> InodeNo {
    write_files_in(rig, count, len, count)
}

/// The same, and ships after each `together` of them.
fn write_files_in(rig: &mut Rig, count: u64, len: u64, together: u64) -> InodeNo {
    let dir = rig.run(|fs, cx| fs.mkdir(cx, InodeNo::ROOT, b"dir", 0o755)).expect("made").0.ino;
    for n in 0..count {
        let name = format!("file-{n:06}");
        let ino = rig.run(|fs, cx| fs.create(cx, dir, name.as_bytes(), 0o644)).expect("created").0.ino;
        let bytes = contents(n, len);
        let mut at = 0;
        while at < bytes.len() {
            let end = bytes.len().min(at + (1 << 20));
            at += rig.run(|fs, cx| fs.write(cx, ino, at as u64, &bytes[at..end])).expect("written").0 as usize;
        }
        rig.run(|fs, cx| fs.release(cx, ino)).expect("released");
        rig.run(|fs, cx| fs.forget(cx, ino, 1)).expect("forgotten");
        rig.step_journal();
        if n % together == together - 1 {
            rig.drain();
        }
    }
    rig.drain();
    rig.settle();
    dir
}

/// Reads a file by name as the kernel does, and compares.
fn read_file(rig: &mut Rig, dir: InodeNo, n: u64, len: u64, request: u32) {
    let name = format!("file-{n:06}");
    let attr = rig.run(|fs, cx| fs.lookup(cx, dir, name.as_bytes())).expect("looked up").expect("found");
    let expected = contents(n, len);
    let mut at = 0;
    while at < len {
        let found = rig.run(|fs, cx| fs.read(cx, attr.ino, at, request)).expect("read");
        assert!(found == expected[at as usize..][..found.len()] && !found.is_empty(), "file {n} at {at}");
        at += found.len() as u64;
        while rig.step_ahead() || rig.step_keeper() {}
    }
    rig.run(|fs, cx| fs.forget(cx, attr.ino, 1)).expect("forgotten");
}

fn list(rig: &mut Rig, dir: InodeNo) -> u64 {
    let (mut count, mut after) = (0, 0);
    loop {
        let rows = rig.run(|fs, cx| fs.readdir_plus(cx, dir, after, 128)).expect("listed");
        while rig.step_ahead() || rig.step_keeper() {}
        let Some((last, _)) = rows.last() else { return count };
        after = last.cookie;
        count += rows.len() as u64;
    }
}

fn dir(rig: &mut Rig) -> InodeNo {
    rig.run(|fs, cx| fs.lookup(cx, InodeNo::ROOT, b"dir")).expect("looked up").expect("found").ino
}

#[test]
fn files_read_in_order_take_at_most_one_request_a_mebibyte() {
    for (count, len, request) in [(5000, 13 * KIB, 128 << 10), (2, 32 * MIB, 128 << 10), (2, 32 * MIB, 1 << 20)] {
        let mut rig = new_rig(1);
        write_files(&mut rig, count, len);
        let mut cold = elsewhere(&rig, 2);
        let dir = dir(&mut cold);
        let before = cold.store.calls().gets;
        (0..count).for_each(|n| read_file(&mut cold, dir, n, len, request));
        let (gets, mib) = (cold.store.calls().gets - before, count * len / MIB);
        println!("{count} files of {len} bytes by {request}: {gets} requests for {mib} MiB, {:?}", cold.reader_stats());
        assert!(gets <= mib, "{gets} requests for {mib} MiB");
    }
}

#[test]
fn files_read_in_another_order_take_few_requests_too() {
    let (count, len) = (5000, 13 * KIB);
    let mut rig = new_rig(1);
    write_files(&mut rig, count, len);
    let mut cold = elsewhere(&rig, 2);
    let dir = dir(&mut cold);
    let before = cold.store.calls().gets;
    (0..count).for_each(|n| read_file(&mut cold, dir, n * 1777 % count, len, 128 << 10));
    let (gets, mib) = (cold.store.calls().gets - before, count * len / MIB);
    println!("scattered: {gets} requests for {mib} MiB, {:?}", cold.reader_stats());
    assert!(gets <= 2 * mib, "{gets} requests for {mib} MiB");
}

/// As many windows as a mount makes that ships every few seconds.
#[test]
fn files_of_many_windows_read_in_order_take_at_most_one_request_a_mebibyte() {
    let (count, len) = (4000, 13 * KIB);
    for together in [400, 200] {
        let mut rig = new_rig(1);
        write_files_in(&mut rig, count, len, together);
        let mut cold = elsewhere(&rig, 2);
        let dir = dir(&mut cold);
        let before = cold.store.calls().gets;
        (0..count).for_each(|n| read_file(&mut cold, dir, n, len, 128 << 10));
        let (gets, mib) = (cold.store.calls().gets - before, count * len / MIB);
        println!("{} windows: {gets} requests for {mib} MiB, {:?}", count / together, cold.reader_stats());
        assert!(gets <= mib, "{gets} requests for {mib} MiB");
    }
}

#[test]
fn a_cold_read_at_random_takes_five_requests_and_then_one() {
    let (count, len) = (64, MIB);
    let mut rig = new_rig(1);
    write_files(&mut rig, count, len);
    let mut cold = elsewhere(&rig, 2);
    let read = |cold: &mut Rig, n: u64, at: u64| {
        let before = cold.store.calls().gets;
        let dir = dir(cold);
        let name = format!("file-{n:06}");
        let ino = cold.run(|fs, cx| fs.lookup(cx, dir, name.as_bytes())).expect("looked up").expect("found").ino;
        let found = cold.run(|fs, cx| fs.read(cx, ino, at, 4096)).expect("read");
        assert!(found == contents(n, len)[at as usize..][..4096]);
        cold.store.calls().gets - before
    };
    let first = read(&mut cold, 41, 500 * KIB);
    println!("cold: {first} requests");
    assert!(first <= 5, "{first} requests");
    let next: Vec<u64> =
        [(41, 100 * KIB), (42, 900 * KIB), (17, 0), (3, 300 * KIB)].map(|(n, at)| read(&mut cold, n, at)).to_vec();
    println!("then {next:?}");
    assert_eq!(next, [1; 4]);
    assert_eq!(read(&mut cold, 41, 500 * KIB), 0, "it is here now");
}

#[test]
fn listing_a_cold_directory_takes_few_requests() {
    let count = 30_000;
    let mut rig = new_rig(1);
    write_files(&mut rig, count, 10);
    let mut cold = elsewhere(&rig, 2);
    let dir = dir(&mut cold);
    let before = cold.store.calls().gets;
    assert_eq!(list(&mut cold, dir), count + 2);
    let gets = cold.store.calls().gets - before;
    println!("{count} entries: {gets} requests, {:?}", cold.reader_stats());
    assert!(gets <= 30, "{gets} requests");
    let again = cold.store.calls().gets;
    assert_eq!(list(&mut cold, dir), count + 2);
    assert_eq!(cold.store.calls().gets, again, "all of it is here now");
}

#[test]
fn what_was_read_is_read_again_without_the_store_also_after_a_remount() {
    let (count, len) = (40, 100 * KIB);
    let mut rig = new_rig(1);
    write_files(&mut rig, count, len);
    let mut cold = elsewhere(&rig, 2);
    let dir = dir(&mut cold);
    (0..count).for_each(|n| read_file(&mut cold, dir, n, len, 128 << 10));
    cold.settle();
    let mut warm = cold.remount(5, &far()).expect("mounts again");
    warm.settle();
    warm.store.set_down(true);
    (0..count).for_each(|n| read_file(&mut warm, dir, n, len, 128 << 10));
}

#[test]
fn an_object_is_brought_and_dropped_on_request() {
    let mut rig = new_rig(1);
    let dir = write_files(&mut rig, 2, 200 * KIB);
    let late = rig.run(|fs, cx| fs.create(cx, dir, b"late", 0o644)).expect("created").0.ino;
    rig.run(|fs, cx| fs.write(cx, late, 0, &[7; 9000])).expect("written");
    let [fresh] = objects(&mut rig, late)[..] else { panic!("one object") };
    let locate = rig.mounted.db.locate().clone();
    assert_eq!(locate.warm(&fresh).expect("known"), Warmed::InJournal);
    assert_eq!(locate.nearest(&fresh).expect("known"), Nearest::InJournal);
    assert_eq!(locate.evict(&fresh).expect("known"), Evicted::InJournal);

    let mut cold = elsewhere(&rig, 2);
    let ino = cold.run(|fs, cx| fs.lookup(cx, dir, b"file-000001")).expect("looked up").expect("found").ino;
    let ids = objects(&mut cold, ino);
    let locate = cold.mounted.db.locate().clone();
    assert_eq!(locate.nearest(&ids[0]).expect("known"), Nearest::InStore);
    for id in &ids {
        assert_eq!(locate.warm(id).expect("brought"), Warmed::Cached);
    }
    cold.settle();
    let before = cold.store.calls().gets;
    read_file(&mut cold, dir, 1, 200 * KIB, 128 << 10);
    assert_eq!(cold.store.calls().gets, before, "all of it is here");
    for id in &ids {
        assert_eq!(locate.nearest(id).expect("known"), Nearest::Here);
    }
    let freed = ids.iter().map(|id| match locate.evict(id) {
        Ok(Evicted::Dropped(bytes)) => bytes,
        other => panic!("{other:?}"),
    });
    assert!(freed.sum::<u64>() >= 200 * KIB);
    for id in &ids {
        assert_eq!(locate.resident(id), None);
    }
    read_file(&mut cold, dir, 1, 200 * KIB, 128 << 10);
    assert!(cold.store.calls().gets > before, "it is fetched again");

    let mut near = far();
    near.cache_files = None;
    let near = cold.remount(9, &near).expect("mounts again");
    assert_eq!(near.mounted.db.locate().warm(&ids[0]).expect("no need"), Warmed::NoCache);
    assert_eq!(near.mounted.db.locate().evict(&ids[0]).expect("no need"), Evicted::NoCache);
}

#[test]
fn promise_g3_damaged_local_nodes_give_way_to_those_of_the_store() {
    let mut rig = new_rig(1);
    let dir = write_files(&mut rig, 300, 10);
    let uploaded = rig.store.list("seg").expect("listed");
    let mut damaged = Vec::new();
    for name in rig.disk.list("nodes").expect("listed") {
        if uploaded.contains(&format!("seg/{}", name.replace('-', "/"))) {
            let file = rig.disk.open(&format!("nodes/{name}")).expect("there");
            file.write_at(&vec![0xff; file.len().expect("known") as usize], 0).expect("damaged");
            damaged.push(name);
        }
    }
    assert!(!damaged.is_empty(), "no node segment was both local and in the store");
    let mut rig = rig.remount(3, &far()).expect("mounts again");
    assert_eq!(list(&mut rig, dir), 302);
    let left = rig.disk.list("nodes").expect("listed");
    assert!(!damaged.iter().any(|name| left.contains(name)), "{left:?}");
    rig.store.set_down(true);
    assert_eq!(list(&mut rig, dir), 302, "what came is kept");
}

#[test]
fn copies_go_when_their_object_is_deleted() {
    let mut rig = new_rig(1);
    let dir = write_files(&mut rig, 20, MIB);
    (0..20).for_each(|n| read_file(&mut rig, dir, n, MIB, 128 << 10));
    let cached = |rig: &Rig| {
        let names = rig.disk.list("cache").expect("listed");
        names.into_iter().filter(|name| name.starts_with("data-") || name.starts_with("index-")).collect::<Vec<_>>()
    };
    let before = cached(&rig);
    assert!(before.len() >= 2, "data and an index are cached: {before:?}");
    for n in 0..20 {
        rig.run(|fs, cx| fs.unlink(cx, dir, format!("file-{n:06}").as_bytes())).expect("unlinked");
    }
    // What is dead is deleted after a publication has listed it.
    for n in 0..5 {
        rig.run(|fs, cx| fs.mkdir(cx, dir, format!("{n}").as_bytes(), 0o755)).expect("made");
        rig.drain();
        rig.advance(Duration::from_secs(60));
        rig.settle();
    }
    assert_eq!(cached(&rig), Vec::<String>::new(), "of {:?} in the store", rig.store.list("").expect("listed"));
}

/// The objects of a file.
fn objects(rig: &mut Rig, ino: InodeNo) -> Vec<crate::format::ids::ObjectId> {
    use crate::format::inode::Extent;
    let (from, to) = crate::format::key::extents_in(ino, 0, u64::MAX);
    let db = rig.mounted.db.clone();
    let rows = rig.run(move |_, cx| {
        let mut tx = db.begin(&cx.pins);
        Ok(tx.scan(crate::format::batch::TreeId::Files, &from, &to, 100)?)
    });
    rows.expect("read").iter().map(|(_, value)| Extent::decode(value).expect("whole").object).collect()
}
