//! The kernel stops the filesystem under store and journal: what it has not written is gone.

use crate::counted::Counts;
use crate::daemon::{self, Daemon};
use crate::disk::{self, Mount};
use crate::work::Writer;
use crate::{Dice, env, seed};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Cuts on each filesystem.
const ROUNDS: u64 = 12;

#[derive(Default)]
struct Figures {
    cuts: u64,
    /// Of them, those whose leavings were judged.
    judged: u64,
    owed: u64,
    dirty: u64,
    lost: u64,
}

fn cut_again_and_again(kind: &str) -> Figures {
    let scratch = tempfile::Builder::new().prefix("skylog-cut.").tempdir_in("/var/tmp").expect("a scratch folder");
    let (image, at, mnt) = (scratch.path().join("image"), scratch.path().join("disk"), scratch.path().join("mnt"));
    let store = at.join("store");
    disk::format(kind, &image);
    let mut below = Mount::new(&image, &at);
    daemon::mkfs(&store);
    let (mut figures, mut dice) = (Figures::default(), Dice::new(seed()));
    for round in 0..env("SKYLOG_CUT_ROUNDS").unwrap_or(ROUNDS) {
        let daemon = Daemon::start(&store, &mnt);
        let writers = Writer::all(&mnt, round);
        let stop = AtomicBool::new(false);
        let (time, calm) = (Duration::from_millis(150 + dice.below(600)), dice.below(3) == 0);
        std::thread::scope(|scope| {
            let stop = &stop;
            let begin = |writer: &'_ Writer| writer.work(stop, seed() + round, &|_, _| {}, &|_, _| {});
            let working: Vec<_> = writers.iter().map(|writer| scope.spawn(move || begin(writer))).collect();
            std::thread::sleep(time);
            if calm {
                // What was done last is not synced, and nothing is under way.
                stop.store(true, Ordering::Relaxed);
                working.into_iter().for_each(|writer| drop(writer.join()));
                below.cut();
            } else {
                below.cut();
                // A daemon without a disk may keep those who change something waiting.
                std::thread::sleep(Duration::from_millis(dice.below(50)));
                stop.store(true, Ordering::Relaxed);
            }
            daemon.kill();
        });
        figures.cuts += 1;
        below.end();
        below = Mount::new(&image, &at);
        let daemon = Daemon::start(&store, &mnt);
        for writer in &writers {
            let found = writer.judge(&mnt, writer.owed());
            let n = found.unwrap_or_else(|e| panic!("{kind}, SKYLOG_CUT_SEED={}, round {round}: {e}", seed()));
            figures.owed += writer.owed();
            figures.dirty += writer.begun() - writer.owed();
            figures.lost += writer.begun() - n;
        }
        figures.judged += 1;
        // The next round begins with a journal that ended in the middle, or with one that was closed.
        if dice.below(2) == 0 {
            daemon.end()
        } else {
            daemon.kill()
        }
        daemon::check(&store);
    }
    below.end();
    figures
}

#[test]
fn a_filesystem_that_loses_its_power_keeps_what_was_acknowledged() {
    for kind in disk::KINDS {
        let Figures { cuts, judged, owed, dirty, lost } = cut_again_and_again(kind);
        println!("{kind}: {owed} operations owed and there, {dirty} dirty when the power went, {lost} of them lost");
        Counts { part: "power cuts of ext4 and xfs", histories: 1, states: judged, kills: cuts, ..Counts::default() }
            .print();
        assert!(owed > 100 && dirty > 0 && lost > 0, "the cuts proved nothing");
    }
}
