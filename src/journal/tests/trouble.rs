//! A slow disk, and one that takes no new segment: who waits, how long, and what is told.

use super::*;
use crate::base::heard::{heard, listen};
use crate::media::sim::{DiskFault, DiskOp, Nth};
use log::Level;

/// A queue that is small beside a segment.
const WIDE: Config = Config { segment_bytes: 1 << 20, journal_bytes: 8 << 20, ..CONFIG };

/// Submits until no room is given; returns how many, and why not.
fn submit_all(journal: &Journal) -> (u64, Refusal) {
    let mut count = 0;
    loop {
        match try_submit(journal, &[4000], Room::Ordinary) {
            Ok(_) => count += 1,
            Err(refusal) => return (count, refusal),
        }
    }
}

/// A batch under `policy`, and a sync of it that takes as long as `meanwhile`.
fn slow_sync(policy: SyncPolicy, meanwhile: impl FnOnce(&Journal, &SimClock) + Send + 'static) -> Rig {
    let mut rig = Rig::new(WIDE);
    rig.journal.set_policy(policy);
    rig.submit(&[500]);
    let (journal, clock, told) = (rig.journal.clone(), rig.clock.clone(), rig.ask(rig.journal.submitted()));
    rig.disk.while_syncing("journal/", move || meanwhile(&journal, &clock));
    rig.settle();
    assert_eq!(told.take(), [Ok(())]);
    rig
}

#[test]
fn promise_r5_a_slow_sync_postpones_writes_by_at_most_two_seconds_in_bounded_memory() {
    for policy in [SyncPolicy::EverySecond, SyncPolicy::None] {
        let mut rig = slow_sync(policy, |journal, clock| {
            let (before, refusal) = submit_all(journal);
            assert!(before > 0, "nobody waits while the queue has room");
            assert_eq!(refusal, Refusal::QueueFull);
            clock.advance(Duration::from_millis(1999));
            assert_eq!(submit_all(journal), (0, Refusal::QueueFull), "memory is bounded");
            clock.advance(Duration::from_millis(1));
            let (after, refusal) = submit_all(journal);
            assert!(after > before, "only {after} writes go on after two seconds");
            assert_eq!(refusal, Refusal::QueueFull);
            clock.advance(Duration::from_secs(3600));
            assert_eq!(submit_all(journal).0, 0, "memory is bounded however long it takes");
            assert!(journal.stats().queue_bytes <= 4 * WIDE.queue_bytes_max);
            assert_eq!(journal.durable(), Lsn::ZERO);
        });
        let last = rig.journal.submitted();
        rig.sync();
        assert_eq!(numbers_on(&rig.disk.image_durable()), up_to(last.pos));
        assert!(submit_all(&rig.journal).0 * 4000 <= WIDE.queue_bytes_max, "the bound is what it was");
    }
}

#[test]
fn promise_r5_under_always_a_slow_sync_stretches_nothing() {
    slow_sync(SyncPolicy::Always, |journal, clock| {
        submit_all(journal);
        clock.advance(Duration::from_secs(10));
        assert_eq!(submit_all(journal), (0, Refusal::QueueFull));
    });
}

#[test]
fn promise_r5_a_slow_sync_is_counted_and_reported() {
    listen();
    let slow = |secs: u64| {
        slow_sync(SyncPolicy::EverySecond, move |journal, clock| {
            clock.advance(Duration::from_secs(secs));
            assert_eq!(journal.stats().busy_nanos, secs * 1_000_000_000, "also while it lasts");
            submit_all(journal);
        })
    };
    let rig = slow(1);
    assert_eq!((rig.journal.stats().slow_syncs, rig.journal.stats().busy_nanos), (0, 0));
    assert_eq!(heard(), []);
    let rig = slow(2);
    assert_eq!((rig.journal.stats().slow_syncs, rig.journal.stats().busy_nanos), (1, 0));
    assert_eq!(rig.journal.stats().sync_max_nanos, 2_000_000_000);
    let told = heard();
    assert!(
        matches!(&told[..], [(Level::Warn, slow), (Level::Info, over)]
        if slow.contains("slow") && over.contains("caught up")),
        "{told:?}"
    );
}

/// A journal that needs another segment and gets none for `secs` seconds; what was told meanwhile.
fn no_segment_for(secs: u64, op: DiskOp, fault: DiskFault) -> (Rig, Vec<(Level, String)>) {
    let mut rig = Rig::new(CONFIG);
    let names = |rig: &Rig| rig.disk.image().names().map(str::to_owned).collect::<Vec<_>>();
    let before = names(&rig);
    let new = (before.len()..1000).map(|slot| format!("journal/slot-{slot:06}"));
    new.for_each(|slot| rig.disk.fail(Nth::new(1).of(op).on(&slot).forever(), fault));
    listen();
    let mut refused = None;
    for _ in 0..1000 {
        match rig.try_submit(&[3000], Room::Ordinary) {
            Ok(_) => {}
            Err(Refusal::QueueFull) => rig.sync(),
            Err(other) => {
                refused = Some(other);
                break;
            }
        }
    }
    assert_eq!(refused, Some(Refusal::DiskFull), "{op:?} {fault:?}");
    for _ in 0..secs {
        rig.wait(1000);
        assert_eq!(names(&rig), before, "{op:?} {fault:?}: what was written of a new segment is removed");
        assert_eq!(rig.try_submit(&[3000], Room::Ordinary), Err(Refusal::DiskFull), "writes stop");
    }
    assert!(rig.journal.stats().last_error.is_some());
    assert!(rig.disk.failed() >= secs);
    (rig, heard())
}

#[test]
fn promise_r7_a_short_write_of_a_new_segment_is_undone_and_heals_without_a_remount() {
    for op in [DiskOp::Create, DiskOp::Write, DiskOp::Sync] {
        for fault in [DiskFault::Short, DiskFault::NoSpace, DiskFault::Failed] {
            let (mut rig, _) = no_segment_for(3, op, fault);
            let last = rig.journal.submitted();
            rig.disk.heal();
            rig.wait(1000);
            rig.submit(&[3000]);
            rig.sync();
            assert_eq!(numbers_on(&rig.disk.image_durable()), up_to(last.pos + 1), "{op:?} {fault:?}");
            assert_eq!((rig.journal.stats().last_error, rig.journal.stats().latched), (None, None));
        }
    }
}

#[test]
fn promise_r7_no_room_is_told_every_half_minute_and_once_when_it_is_over() {
    let (mut rig, told) = no_segment_for(70, DiskOp::Write, DiskFault::Short);
    let levels: Vec<Level> = told.iter().map(|(level, _)| *level).collect();
    assert_eq!(levels, [Level::Error; 3], "at 0, 30 and 60 s: {told:?}");
    assert!(told.iter().all(|(_, what)| what.contains("a journal segment cannot be made")));
    rig.disk.heal();
    for _ in 0..100 {
        rig.wait(1000);
    }
    let told = heard();
    assert!(
        matches!(&told[..], [(Level::Info, over)] if over.contains("there is room for the journal again")),
        "{told:?}"
    );
}

#[test]
fn promise_r7_a_part_that_cannot_be_removed_at_once_is_removed_before_more_is_written() {
    let mut rig = Rig::new(CONFIG);
    let slot = format!("journal/slot-{:06}", rig.disk.image().names().count());
    rig.disk.fail(Nth::new(1).of(DiskOp::Write).on(&slot), DiskFault::Short);
    (1..=3).for_each(|nth| rig.disk.fail(Nth::new(nth).of(DiskOp::Remove).on(&slot), DiskFault::Failed));
    for _ in 0..80 {
        if rig.try_submit(&[3000], Room::Ordinary).is_err() {
            rig.wait(1000);
        }
        let leftover = rig.disk.image().names().any(|name| name == slot);
        let next = rig.disk.image().names().filter(|name| **name > slot[..]).count();
        assert!(!leftover || next == 0, "a part is left and more was made");
    }
    assert_eq!(rig.disk.failed(), 4);
    assert_eq!(rig.journal.stats().latched, None);
}
