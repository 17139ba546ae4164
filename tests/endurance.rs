//! What must not wear a filesystem out: much deletion, odd sizes, failing disks and stores, old copies. Each on a whole
//! filesystem over simulated disk and store.

use skylog::format::ids::InodeNo;
use skylog::map::Wait;
use skylog::media::Media;
use skylog::media::sim::{CallLog, DiskFault, DiskOp, Nth, SimDisk};
use skylog::recovery::{MountError, Tuning};
use skylog::rig::{Rig, small};
use skylog::store::Store;
use skylog::store::sim::{SimStore, StoreFault, StoreOp};
use std::time::Duration;

const ROOT: InodeNo = InodeNo::ROOT;

fn create(rig: &mut Rig, name: &str) -> InodeNo {
    rig.run(|fs, cx| fs.create(cx, ROOT, name.as_bytes(), 0o644)).expect("created").0.ino
}

/// Closes a file and lets the kernel forget it, so that removing its name frees it.
fn let_go(rig: &mut Rig, ino: InodeNo) {
    rig.run(|fs, cx| fs.release(cx, ino)).expect("released");
    rig.run(|fs, cx| fs.forget(cx, ino, 1)).expect("forgotten");
}

fn write(rig: &mut Rig, ino: InodeNo, offset: u64, len: usize) {
    let data: Vec<u8> = (0..len).map(|i| (i as u64 * 31 + offset) as u8).collect();
    let mut done = 0;
    while done < len {
        done += rig.run(|fs, cx| fs.write(cx, ino, offset + done as u64, &data[done..])).expect("written").0 as usize;
    }
}

fn checkpoint(rig: &Rig) -> u64 {
    rig.mounted.db.journal().manifest().current().checkpoint.expect("there is one").number
}

fn mount(rig: &Rig, disk: SimDisk, log: std::sync::Arc<CallLog>, tuning: &Tuning) -> Result<Rig, MountError> {
    let store = SimStore::from_image(&rig.store.image(), &log);
    Rig::mount(log, disk, store, rig.clock.clone(), 77, tuning)
}

#[test]
fn deleting_more_objects_than_the_overlays_can_settle_at_once_stops_no_writer() {
    let mut tuning = small();
    tuning.limits.overlay_bytes_max = 64 << 10;
    let mut rig = Rig::new(1, &tuning);
    let ino = create(&mut rig, "big");
    for n in 0..3000u64 {
        // Every other block, so that each is an object and an extent of its own.
        write(&mut rig, ino, n * 8192, 100);
        rig.step();
        rig.advance(Duration::from_millis(10));
    }
    rig.drain();
    // Named twice each, so that settling leaves a count to delete.
    let_go(&mut rig, ino);
    rig.run(|fs, cx| fs.unlink(cx, ROOT, b"big")).expect("unlinked");
    rig.drain();
    let after = create(&mut rig, "after");
    write(&mut rig, after, 0, 5000);
    rig.drain();
    rig.advance(Duration::from_secs(10));
    rig.settle();
    let segments = rig.store.list("seg").expect("listed").len();
    assert!(segments < 12, "{segments} segments are left of a file that is gone");
}

#[test]
fn room_taken_for_a_batch_is_given_back_whatever_its_length() {
    let mut rig = Rig::new(2, &small());
    let ino = create(&mut rig, "file");
    for n in 0..600usize {
        write(&mut rig, ino, 0, 3700 + n);
        rig.step();
        rig.advance(Duration::from_millis(250));
    }
    rig.drain();
    rig.advance(Duration::from_secs(2));
    rig.settle();
    assert_eq!(rig.mounted.db.journal().stats().queue_bytes, 0, "reserved, and neither used nor given back");
}

#[test]
fn a_store_that_is_away_never_stops_a_checkpoint() {
    let mut rig = Rig::new(3, &small());
    let ino = create(&mut rig, "file");
    write(&mut rig, ino, 0, 30_000);
    rig.drain();
    // A mount that has read nothing of the store's indexes yet.
    let log = CallLog::new();
    let disk = SimDisk::from_image(&rig.disk.image(), &log);
    let mut rig = mount(&rig, disk, log, &small()).expect("mounts");
    rig.settle();
    rig.store.set_down(true);
    for round in 0..3u64 {
        let before = checkpoint(&rig);
        write(&mut rig, ino, round * 8000, 8000);
        rig.mounted.checkpointer.wanted().checkpoint();
        for _ in 0..20 {
            rig.step();
            rig.advance(Duration::from_secs(1));
        }
        assert!(checkpoint(&rig) > before, "no checkpoint while the store is away");
    }
    rig.store.set_down(false);
    rig.drain();
    rig.advance(Duration::from_secs(10));
    rig.drain();
}

#[test]
fn what_is_dead_is_deleted_although_the_next_window_cannot_be_shipped() {
    let mut tuning = small();
    tuning.policy.grace = Duration::from_secs(5);
    let mut rig = Rig::new(4, &tuning);
    let ino = create(&mut rig, "file");
    // The second window kills the first, and the third one publishes the list of the dead.
    for _ in 0..3 {
        write(&mut rig, ino, 0, 30_000);
        rig.drain();
    }
    let other = create(&mut rig, "other");
    write(&mut rig, other, 0, 3000);
    rig.store.fail(Nth::new(1).of(StoreOp::Put).forever(), StoreFault::Refused);
    rig.mounted.checkpointer.wanted().checkpoint();
    let deleted = rig.mounted.checkpointer.figures().lock().objects_deleted;
    for _ in 0..20 {
        rig.step();
        rig.advance(Duration::from_secs(1));
    }
    assert!(rig.store.failed() > 0, "nothing failed");
    assert!(rig.mounted.checkpointer.figures().lock().objects_deleted > deleted, "nothing was deleted");
    rig.store.heal();
    rig.advance(Duration::from_secs(60));
    rig.drain();
}

#[test]
fn an_object_that_cannot_be_deleted_stops_no_window() {
    let mut rig = Rig::new(5, &small());
    let ino = create(&mut rig, "file");
    rig.store.fail(Nth::new(1).of(StoreOp::Delete).forever(), StoreFault::Refused);
    for _ in 0..5 {
        write(&mut rig, ino, 0, 30_000);
        rig.drain();
        rig.advance(Duration::from_secs(2));
    }
    assert!(rig.store.failed() > 0, "nothing failed");
}

#[test]
fn promise_g6_a_checkpoint_that_fails_leaves_nothing_and_is_made_later() {
    let mut rig = Rig::new(6, &small());
    let ino = create(&mut rig, "file");
    write(&mut rig, ino, 0, 30_000);
    rig.drain();
    let count =
        |rig: &Rig| rig.disk.list("nodes").expect("listed").len() + rig.disk.list("ckpt").expect("listed").len();
    let (before, files) = (checkpoint(&rig), count(&rig));
    for place in ["nodes", "ckpt"] {
        rig.disk.fail(Nth::new(1).of(DiskOp::Sync).on(place).forever(), DiskFault::NoSpace);
        write(&mut rig, ino, 0, 8000);
        rig.mounted.checkpointer.wanted().checkpoint();
        for _ in 0..40 {
            rig.step();
            rig.advance(Duration::from_secs(1));
        }
        assert!(rig.disk.failed() > 0, "nothing failed");
        assert_eq!(checkpoint(&rig), before, "a checkpoint whose files are not durable");
        assert!(count(&rig) <= files + 3, "{} files after many tries", count(&rig));
        rig.disk.heal();
    }
    rig.advance(Duration::from_secs(2));
    rig.drain();
    assert!(checkpoint(&rig) > before);
}

#[test]
fn an_old_copy_of_a_state_directory_is_refused() {
    let mut rig = Rig::new(7, &small());
    let ino = create(&mut rig, "file");
    write(&mut rig, ino, 0, 3000);
    rig.drain();
    let old = rig.disk.image();
    write(&mut rig, ino, 0, 3000);
    rig.drain();
    let log = CallLog::new();
    let refused = mount(&rig, SimDisk::from_image(&old, &log), log, &small()).err().expect("refused").to_string();
    assert!(refused.contains("old copy") && refused.contains("--state"), "{refused}");
}

#[test]
fn a_generation_that_is_gone_from_the_store_is_noticed_at_mount() {
    let mut rig = Rig::new(8, &small());
    let ino = create(&mut rig, "file");
    write(&mut rig, ino, 0, 3000);
    rig.drain();
    for name in rig.store.list("gen").expect("listed") {
        rig.store.delete(&name).expect("deleted");
    }
    let log = CallLog::new();
    let disk = SimDisk::from_image(&rig.disk.image(), &log);
    let refused = mount(&rig, disk, log, &small()).err().expect("refused").to_string();
    assert!(refused.contains("is gone") && refused.contains("skylog check"), "{refused}");
}

#[test]
fn a_journal_without_its_manifest_is_not_taken_for_an_empty_state_directory() {
    let mut rig = Rig::new(9, &small());
    let ino = create(&mut rig, "file");
    write(&mut rig, ino, 0, 3000);
    rig.advance(Duration::from_secs(2));
    rig.settle();
    rig.disk.remove("MANIFEST").expect("removed");
    let slots = rig.disk.list("journal").expect("listed");
    let log = CallLog::new();
    let disk = SimDisk::from_image(&rig.disk.image(), &log);
    let refused = mount(&rig, disk.clone(), log, &small()).err().expect("refused").to_string();
    assert!(refused.contains("MANIFEST"), "{refused}");
    assert_eq!(disk.list("journal").expect("listed"), slots, "the journal was touched");
}

#[test]
fn what_waits_for_room_is_pressure_and_nothing_else() {
    let rig = Rig::new(10, &small());
    let cx = skylog::fs::Cx::default();
    let mut waits = 0;
    for n in 0..2000u32 {
        match rig.fs.create(&cx, ROOT, format!("file-{n}").as_bytes(), 0o644) {
            Ok(_) => {}
            Err(skylog::fs::Stop::Wait(Wait::Pressure)) => waits += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(waits > 0, "nobody stepped the journal, and it took everything");
}
