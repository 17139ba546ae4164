//! Crashes after every call to the disk: what is given back after that and passes its reader's checksum is right, and
//! what does not is dropped and kept anew.

use super::*;
use crate::media::sim::Limits as Crashes;
use crate::media::sim::{Call, Image, Plan, Platter};
use std::collections::HashSet;

const LIMITS: Limits = Limits { bytes_max: 64 * KIB, free_bytes_min: 0 };
const OTHER: Uuid = Uuid(8);
/// Segments from here on are those of the other filesystem.
const OTHERS: u64 = 100;

/// Two filesystems, one after the other, with evictions, removals, and a run that grows.
fn history(disk: &SimDisk) {
    let mut rig = Rig::on(disk.clone(), LIMITS);
    for number in 0..6 {
        rig.put(segment(number), 512, 9000 + number * 2000);
        rig.put(segment(0), 0, 4096 * (number + 1));
        rig.settle();
    }
    rig.cache.remove(segment(5), 0..1 << 20);
    rig.settle();
    let media = Arc::new(disk.clone());
    let (cache, keeper) = Cache::open(media, rig.clock.clone(), OTHER, LIMITS).expect("a cache");
    let mut rig = Rig { cache, keeper, ..rig };
    for number in OTHERS..OTHERS + 3 {
        rig.put(segment(number), 0, 7000);
        rig.settle();
    }
}

#[test]
fn promise_s8_a_crash_while_a_cache_changes_hands_leaves_nothing_of_the_other() {
    let disk = SimDisk::new(&CallLog::new());
    let mut rig = Rig::on(disk.clone(), LIMITS);
    (0..3).for_each(|number| rig.put(segment(number), 0, 5000));
    rig.settle();
    let disk = SimDisk::from_image(&disk.image(), &CallLog::new());
    Cache::open(Arc::new(disk.clone()), rig.clock.clone(), OTHER, LIMITS).expect("a cache");
    let mut platter = Platter::new(disk.start());
    let crashes = Crashes { subsets_up_to: 6, ..Crashes::default() };
    let (mut theirs, mut ours) = (0, 0);
    for (point, call) in disk.log().calls().into_iter().enumerate() {
        let Call::Disk(_, call) = call else { continue };
        platter.apply(&call);
        for crashed in platter.crashes(&crashes, point as u64) {
            let what = format!("call {point}, {:?}", crashed.plan);
            let open = |filesystem| {
                let disk = Arc::new(SimDisk::from_image(&crashed.image, &CallLog::new()));
                Cache::open(disk, rig.clock.clone(), filesystem, LIMITS).unwrap_or_else(|e| panic!("{what}: {e}")).0
            };
            assert_eq!(open(OTHER).stats().runs, 0, "{what}");
            let kept = open(FILESYSTEM).stats().runs;
            theirs += u64::from(kept > 0);
            ours += u64::from(kept == 0);
        }
    }
    assert!(theirs > 0 && ours > 0, "{theirs} before and {ours} after");
}

/// Every run of 512 bytes has its checksum, as chunks have.
fn verified(cache: &Cache, number: u64, range: Range<u64>) -> bool {
    match cache.read(segment(number), range.clone()) {
        Some(read) if read == bytes(segment(number), range.clone()) => true,
        Some(_) => {
            cache.remove_damaged(segment(number), range);
            false
        }
        None => false,
    }
}

fn check(image: &Image, plan: &Plan, what: &str) -> (u64, u64) {
    let (mut right, mut damaged) = (0, 0);
    for filesystem in [FILESYSTEM, OTHER] {
        let disk = SimDisk::from_image(image, &CallLog::new());
        let clock = Arc::new(SimClock::default());
        let (cache, keeper) = Cache::open(Arc::new(disk.clone()), clock.clone(), filesystem, LIMITS)
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        let mut rig = Rig { disk, clock, cache, keeper };
        for number in (0..6).chain(OTHERS..OTHERS + 3) {
            let ours = (number < OTHERS) == (filesystem == FILESYSTEM);
            for at in (0..24_000).step_by(512) {
                let range = at..at + 512;
                assert!(ours || !rig.cache.holds(segment(number), range.clone()), "{what}: {number} is not its own");
                let held = rig.cache.holds(segment(number), range.clone());
                let is_right = verified(&rig.cache, number, range.clone());
                assert!(
                    is_right || !rig.cache.holds(segment(number), range.clone()),
                    "{what}: what is wrong is dropped"
                );
                assert!(*plan != Plan::Everything || held == is_right, "{what}: nothing was lost");
                right += u64::from(is_right);
                damaged += u64::from(held && !is_right);
                rig.cache.put(segment(number), Class::Data, at, bytes(segment(number), range.clone()));
                assert!(verified(&rig.cache, number, range), "{what}: fetched again");
                rig.settle();
                assert!(rig.on_disk() <= LIMITS.bytes_max, "{what}");
                if at > 2048 && number != 0 {
                    break;
                }
            }
        }
    }
    (right, damaged)
}

#[test]
fn promise_s8_after_a_crash_at_any_call_what_is_given_back_is_right_or_nothing() {
    let disk = SimDisk::new(&CallLog::new());
    history(&disk);
    let mut platter = Platter::new(disk.start());
    let crashes = Crashes { subsets_up_to: 2, tears_max: 2, random: 3, plans_max: 6, seed: 5 };
    let (mut seen, mut right, mut damaged) = (HashSet::new(), 0, 0);
    for (point, call) in disk.log().calls().into_iter().enumerate() {
        let Call::Disk(_, call) = call else { continue };
        platter.apply(&call);
        for crashed in platter.crashes(&crashes, point as u64) {
            if seen.insert(crashed.image.hash()) {
                let found = check(&crashed.image, &crashed.plan, &format!("call {point}, {:?}", crashed.plan));
                right += found.0;
                damaged += found.1;
            }
        }
    }
    assert!(seen.len() > 100 && right > 0 && damaged > 0, "{} images, {right} right, {damaged} damaged", seen.len());
}
