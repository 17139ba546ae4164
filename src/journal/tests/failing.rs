//! The Nth call fails, for every N: nothing promised is lost, nothing is promised falsely, and nobody waits for ever.

use super::*;
use crate::media::sim::{DiskFault, Nth};

/// A history with syncs, a full segment, reclaiming and a clean end. Returns the last batch that was promised.
fn history(rig: &mut Rig) -> u64 {
    let mut promised = 0;
    for round in 0..14u64 {
        let submitted = (0..2).filter(|_| rig.try_submit(&[2500, 10], Room::Ordinary).is_ok()).count();
        if submitted == 0 {
            rig.wait(1000);
        }
        let last = rig.journal.submitted();
        let told = rig.ask(last);
        rig.settle();
        let result = told.take();
        assert_eq!(result.len(), 1, "a waiter is called once");
        if result[0].is_ok() {
            promised = last.pos;
        }
        if round % 4 == 3 {
            let commit = crate::format::manifest::CommitPoint { number: round, lsn: rig.journal.durable() };
            let set = |manifest: &mut Manifest| {
                manifest.next_checkpoint = round + 1;
                manifest.checkpoint = Some(commit);
            };
            if rig.journal.manifest().update(set).is_ok() {
                rig.journal.reclaim(commit.lsn);
            }
            rig.settle();
        }
    }
    let last = rig.journal.submitted().pos;
    if rig.writer.close().is_ok() { last } else { promised }
}

/// Everything after the checkpoint up to at least what was promised is there, without a hole.
fn assert_kept(image: &Image, promised: u64, what: &str) {
    let rig = Rig::mount_image(image, CONFIG).unwrap_or_else(|e| panic!("{what}: {e}"));
    let from = rig.journal.manifest().current().checkpoint.map_or(0, |point| point.lsn.pos);
    let expected: Vec<u64> = (from + 1..=rig.journal.durable().pos).collect();
    assert_eq!(rig.replayed, expected, "{what}");
    assert!(rig.journal.durable().pos >= promised, "{what}: {promised} was promised");
}

#[test]
fn a_failure_of_any_call_keeps_what_was_promised() {
    for fault in [DiskFault::Failed, DiskFault::NoSpace, DiskFault::Short, DiskFault::Done] {
        for forever in [false, true] {
            let mut nth = 0;
            loop {
                nth += 1;
                let mut rig = Rig::new(CONFIG);
                let which = Nth::new(nth);
                rig.disk.fail(if forever { which.forever() } else { which }, fault);
                let promised = history(&mut rig);
                let what = format!("{fault:?} at call {nth}, for ever: {forever}");
                assert_kept(&rig.disk.image_durable(), promised, &what);
                assert_kept(&rig.disk.image(), promised, &what);
                if rig.disk.failed() == 0 {
                    break;
                }
            }
            assert!(nth > 50, "only {nth} calls");
        }
    }
}

#[test]
fn a_failure_of_any_call_of_a_mount_leaves_it_to_the_next() {
    let mut rig = Rig::new(CONFIG);
    let promised = history(&mut rig);
    let image = rig.disk.image_durable();
    for fault in [DiskFault::Failed, DiskFault::NoSpace, DiskFault::Done] {
        for nth in 1.. {
            let disk = SimDisk::from_image(&image, &CallLog::new());
            disk.fail(Nth::new(nth), fault);
            let mounted = Rig::mount(&disk, CONFIG, 5);
            let what = format!("{fault:?} at call {nth} of the mount");
            drop(mounted);
            assert_kept(&disk.image_durable(), promised, &what);
            if disk.failed() == 0 {
                break;
            }
        }
    }
}
