//! Unmounting.

use super::*;

#[test]
fn a_clean_end_writes_everything_and_the_next_mount_finds_it() {
    let mut rig = Rig::new(CONFIG);
    let told = Told::default();
    for _ in 0..20 {
        rig.submit_waiting(&[3000]);
    }
    rig.journal.when_durable(rig.journal.submitted(), told.waiter());
    rig.writer.close().expect("closes");
    assert_eq!(told.take(), vec![Ok(())]);
    assert_eq!(rig.writer.step(), Progress::Closed);
    assert!(matches!(rig.try_submit(&[], Room::Maintenance), Err(Refusal::Latched(_))));
    let manifest = rig.journal.manifest().current();
    assert!(manifest.journal.iter().all(|entry| entry.end.is_some()));
    assert_eq!(numbers_on(&rig.disk.image_durable()), up_to(20));
}

#[test]
fn mounting_and_unmounting_without_change_neither_grows_nor_leaks_anything() {
    let mut rig = Rig::new(CONFIG);
    rig.submit(&[100]);
    rig.writer.close().expect("closes");
    let files = |rig: &Rig| rig.disk.image().names().count();
    let mut rig = Rig::mount(&rig.disk, CONFIG, 2).expect("mounts");
    let (before, number) = (files(&rig), rig.journal.manifest().current().journal.last().map(|e| e.number.0));
    for seed in 3..20 {
        rig.writer.close().expect("closes");
        rig = Rig::mount(&rig.disk, CONFIG, seed).expect("mounts");
        assert_eq!((files(&rig), &rig.replayed), (before, &up_to(1)));
        let manifest = rig.journal.manifest().current();
        assert!(manifest.journal.len() + manifest.free.len() == before - 1, "{manifest:?}");
    }
    assert!(rig.journal.manifest().current().journal.last().map(|e| e.number.0) > number, "numbers go on");
}

#[test]
fn closing_twice_is_closing_once() {
    let mut rig = Rig::new(CONFIG);
    rig.writer.close().expect("closes");
    rig.writer.close().expect("is closed");
}

#[test]
fn mounts_that_crash_again_and_again_always_find_a_segment_to_write_to() {
    let mut rig = Rig::new(CONFIG);
    for number in 1..=20 {
        rig.submit(&[3000]);
        rig.sync();
        let disk = SimDisk::from_image(&rig.disk.image_durable(), &CallLog::new());
        rig = Rig::mount(&disk, CONFIG, 100 + number).expect("mounts, though nothing is ever reclaimed");
        assert_eq!(rig.replayed, up_to(number));
    }
    rig.journal.reclaim(rig.journal.durable());
    rig.settle();
    assert!(rig.journal.stats().segments <= 8, "back within its size");
    assert!(rig.disk.image().names().count() <= 9);
}
