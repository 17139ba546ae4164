//! Mounts whose store does not answer, and mounts that have nothing but a store that is far away.

use super::{Rig, cache, small};
use crate::base::random::SeededRandom;
use crate::checkpoint::Replay;
use crate::checkpoint::nodes::NODES;
use crate::format::ids::InodeNo;
use crate::format::names::SUPERBLOCK;
use crate::map::MapError;
use crate::media::sim::{Nth, SimDisk};
use crate::recovery::{MkfsOptions, MountError, Tuning, mkfs};
use crate::ship::ShipError;
use crate::store::Store;
use crate::store::sim::{SimStore, StoreFault, StoreOp};
use std::collections::BTreeSet;
use std::time::Duration;

fn make(rig: &mut Rig, name: &str) {
    let (attr, _) = rig.run(|fs, cx| fs.create(cx, InodeNo::ROOT, name.as_bytes(), 0o644)).expect("created");
    rig.run(|fs, cx| fs.write(cx, attr.ino, 0, &[7; 5000])).expect("written");
    rig.run(|fs, cx| fs.release(cx, attr.ino)).expect("released");
}

fn has(rig: &mut Rig, name: &str) -> bool {
    rig.run(|fs, cx| fs.lookup(cx, InodeNo::ROOT, name.as_bytes())).expect("looked up").is_some()
}

fn a_used_filesystem() -> Rig {
    let mut rig = Rig::new(1, &small());
    for n in 0..20 {
        make(&mut rig, &format!("file {n}"));
    }
    rig.drain();
    make(&mut rig, "in the journal alone");
    rig
}

/// Another machine has the filesystem.
fn taken_over(rig: &Rig, seed: u64) -> Rig {
    let disk = SimDisk::new(&rig.log);
    Rig::mount(rig.log.clone(), disk, rig.store.clone(), rig.clock.clone(), seed, &small()).expect("taken over")
}

/// The state directory has no node segment any more.
fn forget_nodes(rig: &Rig) {
    for name in rig.world.media.list(NODES).expect("listed") {
        rig.world.media.remove(&format!("{NODES}/{name}")).expect("removed");
    }
}

/// The store has no segment any more.
fn delete_segments(rig: &Rig) {
    for name in rig.store.list("seg").expect("listed") {
        rig.store.delete(&name).expect("deleted");
    }
}

#[test]
fn local_state_is_mounted_without_the_store_and_ships_when_it_is_back() {
    let rig = a_used_filesystem();
    rig.store.set_down(true);
    let mut rig = rig.remount(2, &small()).expect("mounts");
    let figures = rig.mounted.checkpointer.figures();
    assert!(figures.lock().offline);
    assert!(has(&mut rig, "file 3") && has(&mut rig, "in the journal alone"));
    let checkpoint = figures.lock().checkpoint;
    make(&mut rig, "made meanwhile");
    rig.mounted.checkpointer.wanted().checkpoint();
    for _ in 0..100 {
        rig.step();
    }
    assert!(figures.lock().checkpoint > checkpoint, "checkpoints go on");
    assert!(figures.lock().offline);

    rig.store.set_down(false);
    rig.advance(Duration::from_secs(60));
    rig.drain();
    assert!(!figures.lock().offline);
    let Rig { log, store, clock, .. } = rig;
    let mut other = Rig::mount(log.clone(), SimDisk::new(&log), store, clock, 3, &small()).expect("from the store");
    assert!(has(&mut other, "made meanwhile") && has(&mut other, "in the journal alone"));
}

#[test]
fn what_the_store_alone_has_is_not_mounted_without_it() {
    let Rig { log, store, clock, .. } = a_used_filesystem();
    store.set_down(true);
    let refused = Rig::mount(log.clone(), SimDisk::new(&log), store, clock, 2, &small()).err().expect("refused");
    assert!(matches!(refused, MountError::NotLocal { .. }), "{refused}");
    let sentence = refused.to_string();
    assert!(sentence.contains("does not hold the filesystem") && !sentence.contains('\n'), "{sentence}");
}

#[test]
fn local_state_without_its_nodes_is_not_mounted_without_the_store() {
    let mut rig = a_used_filesystem();
    rig.drain();
    forget_nodes(&rig);
    rig.store.set_down(true);
    let refused = rig.remount(3, &small()).err().expect("refused");
    assert!(matches!(refused, MountError::NotLocal { .. }), "{refused}");
}

/// Found by histories of the simulator, seeds 20261806, 20264012, 20264825 and 20266317: what a state directory has published is said
/// by a node that may lie in the store alone.
#[test]
fn whoever_lost_the_filesystem_hears_so_though_its_nodes_are_deleted() {
    let mut rig = a_used_filesystem();
    rig.drain();
    let rig = taken_over(&rig, 2);
    forget_nodes(&rig);
    let mut other = taken_over(&rig, 3);
    make(&mut other, "of the second");
    other.drain();
    delete_segments(&rig);
    let refused = rig.remount(4, &small()).err().expect("refused");
    assert!(matches!(refused, MountError::Fenced(_)), "{refused}");
}

/// It goes on, and needs a node for its next checkpoint that who took over has deleted: without one it publishes nothing, at which
/// it would find out. Found by a history of several writers, seed 20328177.
#[test]
fn a_living_writer_finds_out_that_it_lost_the_filesystem_though_its_nodes_are_deleted() {
    let mut rig = a_used_filesystem();
    rig.drain();
    let forgetful = Tuning { node_cache_bytes: 1, ..small() };
    let disk = SimDisk::new(&rig.log);
    let mut rig = Rig::mount(rig.log, disk, rig.store, rig.clock, 2, &forgetful).expect("taken over");
    make(&mut rig, "too late");
    rig.mounted.nodes.retain(&BTreeSet::new()).expect("removed");
    taken_over(&rig, 3).drain();
    delete_segments(&rig);
    rig.mounted.checkpointer.wanted().checkpoint();
    let refused = (0..1000).find_map(|_| {
        rig.step_journal();
        rig.step_checkpointer();
        rig.advance(Duration::from_millis(500));
        let job = rig.mounted.desk.take_job()?;
        let done = rig.mounted.shipper.run(&job);
        done.map(|report| rig.mounted.desk.report(report)).err()
    });
    assert!(matches!(refused, Some(ShipError::Fenced { .. })), "{refused:?}");
}

/// Nobody took it over: then that they are gone is what to say.
#[test]
fn a_writer_whose_nodes_are_gone_is_told_which() {
    let mut rig = a_used_filesystem();
    rig.drain();
    forget_nodes(&rig);
    delete_segments(&rig);
    let refused = rig.remount(4, &small()).err().expect("refused");
    assert!(matches!(refused, MountError::Map(MapError::Missing { .. })), "{refused}");
}

#[test]
fn a_store_that_refuses_is_not_away() {
    let rig = a_used_filesystem();
    rig.store.fail(Nth::new(1).of(StoreOp::Get).on(SUPERBLOCK), StoreFault::Refused);
    let refused = rig.remount(2, &small()).err().expect("refused");
    assert!(matches!(refused, MountError::Store(_)), "{refused}");
}

/// Two histories of one state directory give the same numbers to different batches, and may come to the same number.
#[test]
fn an_old_copy_that_was_mounted_without_the_store_before_is_refused_by_it() {
    for only_here in [1, 12] {
        let mut rig = a_used_filesystem();
        rig.drain();
        let copy = rig.disk.image();
        make(&mut rig, "published");
        rig.drain();
        let Rig { log, store, clock, .. } = rig;
        let before = store.image().hash();
        store.set_down(true);
        let disk = SimDisk::from_image(&copy, &log);
        let mut old = Rig::mount(log, disk, store, clock, 7, &small()).expect("mounts without the store");
        for n in 0..only_here {
            make(&mut old, &format!("only here {n}"));
            old.mounted.checkpointer.wanted().checkpoint();
            for _ in 0..30 {
                old.step();
            }
        }
        assert!(old.mounted.checkpointer.figures().lock().offline);
        old.store.set_down(false);
        let store = old.store.clone();
        let refused = old.remount(8, &small()).err();
        assert!(matches!(refused, Some(MountError::OldState { .. })), "{only_here}: {refused:?}");
        assert_eq!(store.image().hash(), before, "nothing in the store changed");
    }
}

/// A bucket that was emptied, or another service at the same address: while the store was away it became another one. The state
/// directory has just taken over, so nothing that it published would be missed.
#[test]
fn a_store_that_came_back_as_another_one_is_left_alone_and_ends_writing() {
    for made_anew in [true, false] {
        let Rig { log, store, clock, .. } = a_used_filesystem();
        let taken = Rig::mount(log.clone(), SimDisk::new(&log), store, clock, 2, &small()).expect("from the store");
        taken.store.set_down(true);
        let mut rig = taken.remount(3, &small()).expect("mounts");
        make(&mut rig, "made meanwhile");
        let job = loop {
            rig.step_journal();
            rig.step_checkpointer();
            if let Some(job) = rig.mounted.desk.take_job() {
                break job;
            }
        };
        rig.store.set_down(false);
        for name in rig.store.list("").expect("listed") {
            rig.store.delete(&name).expect("deleted");
        }
        if made_anew {
            let options = MkfsOptions { segment_size: 64 << 10, ..MkfsOptions::default() };
            mkfs(&rig.store, &*rig.clock, &SeededRandom::new(99), options).expect("made");
        }
        let before = rig.store.image().hash();
        let refused = rig.mounted.shipper.run(&job).expect_err("another store");
        assert!(refused.ends_writing(), "{refused}");
        let sentence = refused.to_string();
        assert!(
            sentence.contains(SUPERBLOCK) && sentence.contains(&rig.mounted.superblock.uuid.to_string()),
            "{sentence}"
        );
        assert_eq!(rig.store.image().hash(), before, "nothing in it changed");
    }
}

/// A base with thousands of nodes and forty increments over it: what a mount waits for, one after the other, is what it costs
/// when each answer takes 50 ms.
#[test]
fn a_mount_from_a_store_that_is_far_away_waits_for_it_a_few_times() {
    const FILES: u32 = 6000;
    const INCREMENTS: u32 = 40;
    let mut tuning = small();
    tuning.limits.overlay_bytes_max = 16 << 20;
    tuning.fold_bytes = 16 << 20;
    tuning.journal.journal_bytes = 64 << 20;
    tuning.journal.queue_bytes_max = 8 << 20;
    tuning.policy.replay = Replay::after(1000, 1 << 30);
    tuning.policy.segment_bytes = 256 << 10;
    tuning.cache_files = Some(cache::Limits { bytes_max: 64 << 20, free_bytes_min: 0 });
    tuning.node_cache_bytes = 16 << 20;
    tuning.fetches = 16;
    let mut rig = Rig::new(1, &tuning);
    for n in 0..FILES {
        let name = format!("file {n:05}");
        let (attr, _) = rig.run(|fs, cx| fs.create(cx, InodeNo::ROOT, name.as_bytes(), 0o644)).expect("created");
        rig.run(|fs, cx| fs.release(cx, attr.ino)).expect("released");
    }
    rig.drain();
    for n in 0..INCREMENTS {
        for m in 0..5 {
            let name = format!("file {:05}", (n * 5 + m) * 29);
            rig.run(|fs, cx| fs.unlink(cx, InodeNo::ROOT, name.as_bytes())).expect("unlinked");
        }
        rig.drain();
    }
    let publications = rig.store.image().names().filter(|name| name.starts_with("gen/0000000002/")).count();
    assert!(publications > INCREMENTS as usize, "{publications} publications");

    let Rig { log, store, clock, .. } = rig;
    let store = SimStore::from_image(&store.image(), &log);
    let mut other = Rig::mount(log.clone(), SimDisk::new(&log), store, clock, 2, &tuning).expect("from the store");
    let taken = other.mounted.taken_over.expect("taken over");
    let calls = other.store.calls();
    // Beside what is fetched together: the superblock, the list, the closing object, the first number of the next generation,
    // and the few nodes that opening reads.
    assert!(taken.asked > 150, "much was fetched: {taken:?}");
    assert!(taken.rounds <= taken.asked / 16 + 10, "and side by side: {taken:?}");
    assert_eq!((calls.lists, calls.creates), (1, 1));
    assert!(calls.gets <= u64::from(INCREMENTS) + 20, "{calls:?}, {taken:?}");
    assert!(!has(&mut other, "file 00029") && has(&mut other, "file 00030"));
}
