//! Node files that the store has are copies: with cache files they count towards the limit of these, and go.

use super::*;
use crate::cache::{CACHE, Limits as CacheLimits, bytes_on_disk, is_cache_file};
use crate::checkpoint::nodes::NODES;
use crate::format::ids::InodeNo;
use crate::store::Store;
use std::collections::BTreeSet;

const LIMIT: u64 = 512 << 10;

/// A tree that is some megabytes large, little of which is in memory.
fn tuning() -> Tuning {
    let mut tuning = small();
    tuning.node_cache_bytes = 256 << 10;
    tuning.cache_files = Some(CacheLimits { bytes_max: LIMIT, free_bytes_min: 0 });
    tuning.policy.segment_bytes = 16 << 10;
    tuning.policy.replay = Replay::after(2, 1 << 30);
    tuning
}

fn name(n: u64) -> Vec<u8> {
    format!("a file with a name that takes some room {n:06}").into_bytes()
}

fn make(rig: &mut Rig, from: u64, to: u64) {
    for n in from..to {
        let ino = rig.run(|fs, cx| fs.create(cx, InodeNo::ROOT, &name(n), 0o644)).expect("created").0.ino;
        rig.run(|fs, cx| fs.write(cx, ino, 0, &n.to_le_bytes())).expect("written");
        rig.run(|fs, cx| fs.release(cx, ino)).expect("released");
        rig.run(|fs, cx| fs.forget(cx, ino, 1)).expect("forgotten");
        rig.step_journal();
    }
}

fn check(rig: &mut Rig, files: u64) {
    for n in (0..files).step_by(7) {
        let ino = rig.run(|fs, cx| fs.lookup(cx, InodeNo::ROOT, &name(n))).expect("looked up").expect("found").ino;
        assert_eq!(rig.run(|fs, cx| fs.read(cx, ino, 0, 100)).expect("read"), n.to_le_bytes(), "file {n}");
        rig.run(|fs, cx| fs.forget(cx, ino, 1)).expect("forgotten");
        while rig.step_ahead() || rig.step_keeper() {}
    }
}

/// Local node files: those that the store has, and the others.
fn node_files(rig: &Rig) -> [BTreeSet<String>; 2] {
    let uploaded: BTreeSet<String> = rig.store.image().names().map(str::to_owned).collect();
    let local = rig.disk.list(NODES).expect("listed").into_iter();
    let (copies, primary) = local.partition(|name| uploaded.contains(&format!("seg/{}", name.replace('-', "/"))));
    [copies, primary]
}

fn bytes_of(rig: &Rig, folder: &str, is: impl Fn(&str) -> bool) -> u64 {
    let image = rig.disk.image();
    let names = image.names().filter(|name| name.strip_prefix(folder).is_some_and(|rest| is(&rest[1..])));
    names.map(|name| bytes_on_disk(image.file(name).expect("there").len())).sum()
}

/// Copies of all kinds on local disk.
fn copies_on_disk(rig: &Rig) -> (u64, u64) {
    let [copies, _] = node_files(rig);
    let cached = bytes_of(rig, CACHE, |name| is_cache_file(name) && name.contains('-'));
    (bytes_of(rig, NODES, |name| copies.contains(name)), cached)
}

fn seg_bytes(rig: &Rig) -> u64 {
    let names = rig.store.list("seg").expect("listed");
    names.iter().map(|name| rig.store.size(name).expect("known")).sum()
}

fn a_large_tree(rig: &mut Rig) -> u64 {
    for round in 0..12 {
        make(rig, round * 200, (round + 1) * 200);
        rig.drain();
        rig.settle();
    }
    2400
}

#[test]
fn promise_x11_node_files_that_the_store_has_count_towards_the_limit_of_the_cache() {
    let mut rig = Rig::new(1, &tuning());
    let mut removed = 0;
    for round in 0..12 {
        let [before, _] = node_files(&rig);
        make(&mut rig, round * 200, (round + 1) * 200);
        rig.drain();
        rig.settle();
        let [after, _] = node_files(&rig);
        removed += before.difference(&after).count();
        check(&mut rig, (round + 1) * 200);
        rig.settle();
        let (nodes, cached) = copies_on_disk(&rig);
        let stats = rig.mounted.cache.as_ref().expect("a cache").stats();
        assert!(nodes + cached <= LIMIT, "round {round}: {nodes} and {cached}");
        assert_eq!((stats.node_file_bytes, stats.used_bytes), (nodes, nodes + cached), "and status says so");
        assert!(nodes <= LIMIT / 2, "there is room for data");
    }
    assert!(removed > 10 && seg_bytes(&rig) > LIMIT, "{removed} removed, {} in the store", seg_bytes(&rig));
    check(&mut rig, 2400);
}

#[test]
fn promise_x11_the_limit_holds_from_the_mount_on() {
    let mut rig = Rig::new(1, &tuning());
    let files = a_large_tree(&mut rig);
    for offline in [true, false] {
        rig.store.set_down(offline);
        rig = rig.remount(2, &tuning()).expect("mounts");
        rig.settle();
        let (nodes, cached) = copies_on_disk(&rig);
        let counted = rig.mounted.cache.as_ref().expect("a cache").stats().node_file_bytes;
        assert!(nodes > 0 && nodes + cached <= LIMIT && counted >= nodes, "{nodes}, {cached}, {counted}");
    }
    rig.store.set_down(false);
    rig.advance(Duration::from_secs(60));
    check(&mut rig, files);
    let (nodes, cached) = copies_on_disk(&rig);
    assert!(nodes + cached <= LIMIT, "{nodes} and {cached}");
}

#[test]
fn promise_x9_no_copy_of_nodes_goes_while_the_store_is_away_and_checkpoints_go_on() {
    let mut tuning = tuning();
    tuning.cache_files = Some(CacheLimits { bytes_max: LIMIT, free_bytes_min: 8 << 20 });
    let mut rig = Rig::new(1, &tuning);
    let files = a_large_tree(&mut rig);
    make(&mut rig, files, files + 1);
    rig.drain();
    let last = name(files);
    let ino = rig.run(|fs, cx| fs.lookup(cx, InodeNo::ROOT, &last)).expect("looked up").expect("found").ino;
    let [before, _] = node_files(&rig);
    rig.store.set_down(true);
    let figures = rig.mounted.checkpointer.figures();
    let checkpoint = figures.lock().checkpoint;
    // Others fill the disk, so less may be taken than there is.
    rig.disk.set_capacity(bytes_of(&rig, "", |_| true) + (4 << 20));
    for round in 0..40u64 {
        rig.run(|fs, cx| fs.write(cx, ino, round * 4096, &[7; 100])).expect("written");
        rig.advance(Duration::from_secs(6));
        (0..20).for_each(|_| _ = rig.step());
    }
    assert!(figures.lock().checkpoint > checkpoint, "checkpoints go on");
    assert_eq!(figures.lock().checkpoint_failures, 0);
    let [after, _] = node_files(&rig);
    assert!(before.is_subset(&after), "{before:?} {after:?}");
    assert!(rig.mounted.nodes.has_too_many_copies());

    rig.store.set_down(false);
    rig.advance(Duration::from_secs(60));
    rig.drain();
    rig.settle();
    check(&mut rig, files);
    let [left, _] = node_files(&rig);
    assert!(left.len() < before.len(), "{} of {}", left.len(), before.len());
}

#[test]
fn whatever_a_crash_leaves_of_node_files_that_go_is_mounted() {
    let mut rig = Rig::new(1, &tuning());
    let files = a_large_tree(&mut rig);
    let (mut lives, mut removals) = (0, 0);
    for round in 0..4 {
        make(&mut rig, files + round * 200, files + (round + 1) * 200);
        rig.mounted.checkpointer.wanted().checkpoint();
        let mut before = rig.disk.list(NODES).expect("listed");
        while rig.step() {
            let now = rig.disk.list(NODES).expect("listed");
            if now == before {
                continue;
            }
            removals += before.iter().filter(|name| !now.contains(name)).count();
            before.clone_from(&now);
            lives += 1;
            let log = CallLog::new();
            // Nothing reached the disk that was not synced, but the removals did.
            let disk = SimDisk::from_image(&rig.disk.image_durable(), &log);
            for name in disk.list(NODES).expect("listed").iter().filter(|name| !now.contains(name)) {
                disk.remove(&format!("{NODES}/{name}")).expect("removed");
            }
            let store = SimStore::from_image(&rig.store.image(), &log);
            let mut other = Rig::mount(log, disk, store, rig.clock.clone(), 3, &tuning()).expect("mounts");
            check(&mut other, files);
            other.drain();
            let (nodes, cached) = copies_on_disk(&other);
            assert!(nodes + cached <= LIMIT, "{nodes} and {cached}");
        }
        rig.advance(Duration::from_secs(60));
    }
    println!("{lives} lives, {removals} removals");
    assert!(lives > 5 && removals > 5, "{lives} lives, {removals} removals");
}
