//! Whatever a crash leaves on disk and in the store is clean: before it is mounted, and after.

use super::clean::{act, crashed};
use super::*;
use skylog::base::random::SeededRandom;
use skylog::format::names::SUPERBLOCK;
use skylog::media::sim::Limits;
use skylog::store::sim::{Crash, Recording};
use std::collections::HashSet;

/// What comes after a crash.
#[derive(Clone, Copy)]
enum Next {
    Nothing,
    /// A mount of what the disk has.
    Here,
    /// A mount from the store alone.
    Elsewhere,
}

/// The state that a crash left, and what a mount makes of it.
fn assert_clean_after(rig: &Rig, crash: &Crash, next: Next, when: &str) {
    let log = CallLog::new();
    let store = SimStore::from_image(&crash.store, &log);
    assert_clean(&checked(&store, Some(&crash.disk)), when);
    let disk = match next {
        Next::Nothing => return,
        Next::Here => SimDisk::from_image(&crash.disk, &log),
        Next::Elsewhere => SimDisk::new(&log),
    };
    let mut rig = Rig::mount(log, disk, store, rig.clock.clone(), 77, &small()).expect("a crash can be mounted after");
    assert_clean_everywhere(&rig, &format!("{when}, mounted"));
    if let Some(late) = &crash.late {
        rig.store.land(late);
        assert_clean(&checked(&rig.store, None), &format!("{when}, mounted, {late:?} landed"));
    }
    rig.drain();
    assert_clean_everywhere(&rig, &format!("{when}, drained"));
}

fn limits(seed: u64) -> Limits {
    Limits { subsets_up_to: 2, tears_max: 2, random: 2, plans_max: 6, seed }
}

/// One life: something of everything, by chance, and all of it shipped at the end.
fn live(rig: &mut Rig, seed: u64) {
    let random = SeededRandom::new(500 + seed);
    let (mut files, mut serial) = (Vec::new(), 1000 * seed);
    for _ in 0..60 {
        act(rig, &random, &mut files, &mut serial);
        match random.below(5) {
            0 => rig.step_journal(),
            1 => rig.step_checkpointer(),
            2 => rig.step_shipper(),
            _ => rig.step(),
        };
    }
    rig.drain();
}

/// Checks after every crash; mounts after some of them. Returns how many there were.
fn assert_clean_after_crashes(rig: &Rig, seed: u64, seen: &mut HashSet<u128>) -> usize {
    let recording = Recording::of(&rig.disk, &rig.store);
    let calls = recording.calls().len();
    let mut states = 0;
    for crash in recording.crashes(&limits(seed)) {
        // Before the configuration is there, nothing is.
        if crash.store.object(SUPERBLOCK).is_none() || !seen.insert(crash.hash) {
            continue;
        }
        states += 1;
        let next = match states % 10 {
            0 => Next::Here,
            5 => Next::Elsewhere,
            _ => Next::Nothing,
        };
        let when = format!("seed {seed}, after {} of {calls} calls, {:?}", crash.after, crash.plan);
        assert_clean_after(rig, &crash, next, &when);
    }
    states
}

#[test]
fn every_crash_leaves_a_state_that_is_clean() {
    let mut seen = HashSet::new();
    for seed in 0..2 {
        let mut rig = Rig::new(seed, &small());
        live(&mut rig, seed);
        let states = assert_clean_after_crashes(&rig, seed, &mut seen);
        // The next life starts from the store alone.
        let mut rig = crashed(&rig, &Image::default(), 77);
        live(&mut rig, seed + 1);
        let more = assert_clean_after_crashes(&rig, seed, &mut seen);
        assert!(states > 100 && more > 100, "{states} and {more} states");
    }
}
