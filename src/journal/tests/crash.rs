//! Power goes after every call: what is there is a prefix of what was submitted, at or after what was promised; mounting
//! again changes nothing, and what is written then follows.

use super::*;
use crate::media::sim::{Call, Limits, Platter};
use std::collections::HashSet;

/// Marks in the log: a batch was submitted, or promised to be durable.
const PROMISED: u64 = 1 << 32;

/// Runs a random history with mounts, crashes and clean ends, reclaiming and policy switches. Returns where each mark is.
fn history(seed: u64, log: &Arc<CallLog>, disk: &SimDisk) {
    let random = SeededRandom::new(seed);
    let mut rig = Rig::mount(disk, CONFIG, seed).expect("mounts");
    let (mut told, mut checkpoint) = (Vec::new(), 0);
    for _ in 0..60 {
        match random.below(14) {
            0..=5 => {
                let lens: Vec<usize> = (0..random.below(4)).map(|_| 1 + random.below(4000) as usize).collect();
                log.mark(rig.journal.submitted().pos + 1);
                if rig.try_submit(&lens, Room::Ordinary).is_err() {
                    rig.settle();
                }
            }
            6 | 7 => {
                let (lsn, log) = (rig.journal.submitted(), Arc::clone(log));
                told.push(lsn);
                rig.journal.when_durable(
                    lsn,
                    Box::new(move |result| {
                        result.expect("nothing fails here");
                        log.mark(PROMISED | lsn.pos);
                    }),
                );
                rig.settle();
            }
            8 | 9 => drop(rig.writer.step()),
            10 => rig.wait(random.below(1200)),
            11 => {
                let policies = [SyncPolicy::Always, SyncPolicy::EverySecond, SyncPolicy::None];
                rig.journal.set_policy(policies[random.below(3) as usize]);
            }
            12 => {
                checkpoint += 1;
                let lsn = rig.journal.durable();
                let set = |manifest: &mut Manifest| {
                    manifest.next_checkpoint = checkpoint + 1;
                    manifest.checkpoint = Some(crate::format::manifest::CommitPoint { number: checkpoint, lsn });
                };
                rig.journal.manifest().update(set).expect("changes");
                rig.journal.reclaim(lsn);
                rig.settle();
            }
            _ => {
                let durable = rig.journal.durable().pos;
                if random.below(2) == 0 {
                    rig.writer.close().expect("closes");
                }
                // Otherwise the process dies and the machine lives.
                rig = Rig::mount(disk, CONFIG, random.below(1 << 40)).expect("mounts again");
                assert!(rig.journal.durable().pos >= durable);
                log.mark(PROMISED | rig.journal.durable().pos);
                // What was cut is submitted again under the same numbers.
            }
        }
    }
    rig.settle();
}

#[derive(Default)]
struct Exercised {
    states: HashSet<u128>,
    bytes_lost: u64,
    names_lost: u64,
}

fn crash_everywhere(seed: u64, exercised: &mut Exercised) {
    let log = CallLog::new();
    let disk = SimDisk::new(&log);
    history(seed, &log, &disk);
    let mut platter = Platter::new(disk.start());
    let (mut submitted, mut promised) = (0, 0);
    let limits = Limits { subsets_up_to: 4, tears_max: 4, random: 4, plans_max: 40, seed };
    for (point, call) in log.calls().into_iter().enumerate() {
        match call {
            Call::Mark(mark) if mark & PROMISED != 0 => promised = promised.max(mark & !PROMISED),
            Call::Mark(mark) => submitted = submitted.max(mark),
            Call::Disk(_, call) => platter.apply(&call),
            _ => continue,
        }
        for crashed in platter.crashes(&limits, point as u64) {
            exercised.bytes_lost += crashed.bytes_lost;
            exercised.names_lost += crashed.names_lost;
            if exercised.states.insert(crashed.image.hash() ^ u128::from(promised) << 64) {
                let what = format!("seed {seed}, call {point}, {:?}", crashed.plan);
                check(&crashed.image, promised, submitted, &what);
            }
        }
    }
}

fn check(image: &Image, promised: u64, submitted: u64, what: &str) {
    let disk = SimDisk::from_image(image, &CallLog::new());
    let mut rig = Rig::mount(&disk, CONFIG, 77).unwrap_or_else(|e| panic!("{what}: {e}"));
    let from = rig.journal.manifest().current().checkpoint.map_or(0, |point| point.lsn.pos);
    let last = rig.journal.durable().pos;
    assert!(promised <= last && last <= submitted, "{what}: {promised} promised, {last} found, {submitted} submitted");
    assert_eq!(rig.replayed, (from + 1..=last).collect::<Vec<_>>(), "{what}");
    rig.submit(&[700]);
    rig.sync();
    let again = Rig::mount_image(&disk.image_durable(), CONFIG).unwrap_or_else(|e| panic!("{what}, again: {e}"));
    assert_eq!(again.replayed, (from + 1..=last + 1).collect::<Vec<_>>(), "{what}, again");
}

#[test]
fn promise_g2_after_a_crash_at_any_call_the_journal_is_a_prefix_that_holds_all_that_was_promised() {
    let mut exercised = Exercised::default();
    for seed in 1..=8 {
        crash_everywhere(seed, &mut exercised);
    }
    assert!(exercised.states.len() > 1000, "{} states", exercised.states.len());
    assert!(exercised.bytes_lost > 0 && exercised.names_lost > 0);
}

#[cfg(feature = "canaries")]
#[test]
fn without_any_one_rule_the_search_finds_a_loss() {
    use crate::base::canary::{Canary, with_removed};
    for rule in [Canary::SegmentSync, Canary::ManifestDirSync, Canary::TailSync, Canary::Nonce] {
        let found = (1..=40).any(|seed| {
            let search = || crash_everywhere(seed, &mut Exercised::default());
            std::panic::catch_unwind(|| with_removed(rule, search)).is_err()
        });
        assert!(found, "nothing was lost without {rule:?}");
    }
}
