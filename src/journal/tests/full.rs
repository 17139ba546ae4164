//! A full disk, a full journal, and the reserve.

use super::*;
use crate::media::sim::{DiskFault, DiskOp, Nth};

const RESERVE: Config = Config { reserve_bytes: 60 << 10, ..CONFIG };

fn fill(rig: &mut Rig, room: Room) -> (u64, Refusal) {
    let mut count = 0;
    for _ in 0..1000 {
        match rig.try_submit(&[3000], room) {
            Ok(_) => count += 1,
            Err(Refusal::QueueFull) => rig.sync(),
            Err(other) => return (count, other),
        }
    }
    panic!("the journal has no end");
}

#[test]
fn a_full_journal_waits_for_reclaiming_and_keeps_its_reserve() {
    let mut rig = Rig::new(RESERVE);
    let (_, refusal) = fill(&mut rig, Room::Ordinary);
    assert_eq!(refusal, Refusal::JournalFull);
    assert!(rig.journal.reclaim_wanted());
    let freeing = fill(&mut rig, Room::Freeing);
    let maintenance = fill(&mut rig, Room::Maintenance);
    assert!(freeing.0 > 2 && maintenance.0 > 2, "{freeing:?} {maintenance:?}");

    rig.sync();
    rig.journal.reclaim(rig.journal.durable());
    rig.settle();
    rig.submit(&[3000]);
    rig.sync();
    assert!(rig.journal.stats().used_bytes < rig.journal.stats().capacity_bytes / 2);
}

#[test]
fn promise_g6_no_room_for_a_segment_refuses_before_an_lsn_is_given_and_heals() {
    let mut rig = Rig::new(RESERVE);
    let names_before: Vec<String> = rig.disk.image().names().map(str::to_string).collect();
    rig.disk.fail(Nth::new(1).of(DiskOp::Write).on("journal/slot-000004").forever(), DiskFault::NoSpace);
    let (count, refusal) = fill(&mut rig, Room::Ordinary);
    assert!(count > 0 && rig.disk.failed() > 0);
    assert_eq!(refusal, Refusal::DiskFull);
    let lsn = rig.journal.submitted();
    rig.sync();
    rig.assert_reads(lsn, &[3000]);
    let names: Vec<String> = rig.disk.image().names().map(str::to_string).collect();
    assert_eq!(names, names_before, "the partial slot file is removed");
    assert!(rig.journal.stats().last_error.is_some_and(|e| e.contains("no room")));
    assert_eq!(rig.journal.stats().latched, None);
    rig.try_submit(&[100], Room::Freeing).expect("unlink works on a full disk");
    rig.try_submit(&[100], Room::Maintenance).expect("and what makes reclaiming possible");

    rig.disk.heal();
    rig.wait(999);
    assert_eq!(rig.try_submit(&[3000], Room::Ordinary), Err(Refusal::DiskFull));
    rig.wait(1);
    rig.submit(&[3000]);
    rig.sync();
    assert_eq!(numbers_on(&rig.disk.image_durable()), up_to(lsn.pos + 3));
}

#[test]
fn promise_g6_no_room_at_any_call_of_preparing_rolls_back_whole() {
    let mut struck = 0;
    for nth in 1..40 {
        for op in [DiskOp::Create, DiskOp::Write, DiskOp::Sync] {
            for prefix in ["journal/slot-000004", "MANIFEST.new"] {
                let mut rig = Rig::new(RESERVE);
                rig.disk.fail(Nth::new(nth).of(op).on(prefix), DiskFault::NoSpace);
                let mut placed = 0;
                for _ in 0..40 {
                    match rig.try_submit(&[3000], Room::Ordinary) {
                        Ok(_) => placed += 1,
                        Err(_) => rig.wait(1000),
                    }
                }
                struck += rig.disk.failed();
                if rig.journal.stats().latched.is_none() {
                    rig.submit(&[3000]);
                    rig.sync();
                    assert_eq!(numbers_on(&rig.disk.image_durable()), up_to(placed + 1), "{op:?} {nth} {prefix}");
                    continue;
                }
                // The one call that may: a group written to that very slot, after it was placed.
                assert!(
                    op == DiskOp::Write && prefix.starts_with("journal/")
                        || op == DiskOp::Sync && prefix.starts_with("journal/")
                );
            }
        }
    }
    assert!(struck > 5, "{struck} calls failed");
}

#[test]
fn a_mount_on_a_full_disk_works_with_the_slots_that_are_there() {
    let mut rig = Rig::new(RESERVE);
    rig.submit(&[3000]);
    rig.sync();
    let image = rig.disk.image_durable();
    let disk = SimDisk::from_image(&image, &CallLog::new());
    disk.fail(Nth::new(1).of(DiskOp::Write).on("journal/").forever(), DiskFault::NoSpace);
    let again = Rig::mount(&disk, RESERVE, 5).expect("mounts");
    assert_eq!(again.replayed, up_to(1));
    disk.heal();
    again.try_submit(&[100], Room::Freeing).expect("unlink works");
}

#[test]
fn a_mount_with_no_room_for_one_segment_says_so_and_changes_nothing() {
    let disk = SimDisk::new(&CallLog::new());
    disk.fail(Nth::new(1).of(DiskOp::Write).on("journal/").forever(), DiskFault::NoSpace);
    assert!(matches!(Rig::mount(&disk, CONFIG, 1), Err(JournalError::DiskFull(_))));
    assert_eq!(disk.image().names().collect::<Vec<_>>(), ["MANIFEST"]);
}

#[test]
#[should_panic(expected = "above the limit")]
fn promise_s4_a_batch_that_could_span_segments_is_never_taken() {
    let rig = Rig::new(CONFIG);
    let _ = rig.journal.reserve(rig.journal.batch_bytes_max() + 1, Room::Ordinary);
}
