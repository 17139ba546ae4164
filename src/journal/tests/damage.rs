//! The tail rule: what is a torn tail, and what is damage.

use super::*;
use crate::format::manifest::JournalEntry;
use crate::media::Media;

/// Changes a byte of a slot file.
fn flip(disk: &SimDisk, entry: &JournalEntry, offset: u64) {
    let file = (disk as &dyn Media).open(&segment::slot_name(entry.slot)).expect("there");
    let mut byte = [0];
    file.read_at(&mut byte, offset).expect("readable");
    file.write_at(&[byte[0] ^ 0x10], offset).expect("writable");
}

fn copy_of(rig: &Rig) -> SimDisk {
    SimDisk::from_image(&rig.disk.image(), &CallLog::new())
}

fn refused(disk: &SimDisk) -> (JournalNo, u64, String) {
    match Rig::mount(disk, CONFIG, 3) {
        Err(error @ JournalError::Damaged { segment, offset, .. }) => (segment, offset, error.to_string()),
        Err(other) => panic!("{other}"),
        Ok(rig) => panic!("mounted, with {:?}", rig.replayed),
    }
}

/// Three groups of one block each, each synced.
fn three_groups() -> Rig {
    let mut rig = Rig::new(CONFIG);
    for _ in 0..3 {
        rig.submit(&[500]);
        rig.sync();
    }
    rig
}

#[test]
fn promise_r10_damage_before_a_durable_group_is_refused_with_its_place_and_the_command() {
    let rig = three_groups();
    let entry = rig.journal.manifest().current().journal[0];
    for (group, expected) in [(0, 0), (1, 4096)] {
        for byte in [0, 8, 20, 100, 300, 2000, 4090] {
            let disk = copy_of(&rig);
            flip(&disk, &entry, group * 4096 + byte);
            let (segment, offset, message) = refused(&disk);
            assert_eq!((segment, offset), (entry.number, expected));
            let start = format!("journal segment {segment} is damaged at offset {offset}: ");
            assert!(message.starts_with(&start) && message.ends_with("run: skylog check --repair STORE"), "{message}");
            assert_eq!(disk.image().hash(), {
                flip(&disk, &entry, 9000);
                flip(&disk, &entry, 9000);
                disk.image().hash()
            });
        }
    }
}

#[test]
fn damage_in_the_very_last_group_cannot_be_told_from_a_torn_tail_after_a_crash() {
    let rig = three_groups();
    let entry = rig.journal.manifest().current().journal[0];
    let disk = copy_of(&rig);
    flip(&disk, &entry, 2 * 4096 + 50);
    assert_eq!(Rig::mount(&disk, CONFIG, 3).expect("mounts").replayed, up_to(2));
}

#[test]
fn after_a_clean_end_every_flipped_bit_is_damage() {
    let mut rig = three_groups();
    rig.writer.close().expect("closes");
    let entry = rig.journal.manifest().current().journal[0];
    for offset in (0..3 * 4096).step_by(37) {
        let disk = copy_of(&rig);
        flip(&disk, &entry, offset);
        assert_eq!(refused(&disk).1, offset / 4096 * 4096);
    }
}

#[test]
fn a_torn_tail_is_cut_and_what_was_beyond_it_never_comes_back() {
    let mut rig = three_groups();
    rig.journal.set_policy(SyncPolicy::None);
    rig.settle();
    for _ in 0..3 {
        rig.submit(&[500]);
        rig.wait(200);
    }
    let entry = rig.journal.manifest().current().journal[0];
    let disk = copy_of(&rig);
    flip(&disk, &entry, 3 * 4096 + 50);
    let mut again = Rig::mount(&disk, CONFIG, 3).expect("the later groups do not say that the torn one was durable");
    assert_eq!(again.replayed, up_to(3));
    assert_eq!(again.journal.manifest().current().journal[0].end.map(|end| end.offset), Some(3 * 4096));
    again.submit(&[10]);
    again.sync();
    assert_eq!(Rig::mount(&disk, CONFIG, 4).expect("mounts").replayed, up_to(4));
}

#[test]
fn recovery_syncs_what_it_accepted_before_the_first_new_batch() {
    let mut rig = three_groups();
    rig.journal.set_policy(SyncPolicy::None);
    rig.settle();
    rig.submit(&[500]);
    rig.wait(200);
    assert_eq!(numbers_on(&rig.disk.image_durable()), up_to(3), "the fourth is not synced");
    // The process dies, the machine lives: recovery reads the fourth from the page cache and builds on it.
    let again = Rig::mount(&rig.disk, CONFIG, 3).expect("mounts");
    assert_eq!(again.replayed, up_to(4));
    again.submit(&[10]);
    assert_eq!(numbers_on(&again.disk.image_durable()), up_to(4), "then the power goes");
}

#[test]
fn stale_groups_in_a_recycled_segment_never_come_back() {
    let mut rig = Rig::new(CONFIG);
    while rig.journal.stats().recycled < 6 {
        rig.submit_waiting(&[8000]);
        rig.sync();
        let last = rig.journal.durable();
        let commit = crate::format::manifest::CommitPoint { number: last.pos, lsn: last };
        let set = |manifest: &mut Manifest| {
            manifest.next_checkpoint = last.pos + 1;
            manifest.checkpoint = Some(commit);
        };
        rig.journal.manifest().update(set).expect("changes");
        rig.journal.reclaim(last);
        rig.settle();
    }
    let last = rig.journal.durable().pos;
    rig.submit(&[10]);
    rig.sync();
    assert_eq!(numbers_on(&rig.disk.image_durable()), [last + 1]);
}

#[test]
fn replay_skips_no_hole() {
    let rig = three_groups();
    let mut manifest = Manifest::clone(&rig.journal.manifest().current());
    manifest.journal[0].end = None;
    let mut apply = |_: Batch| Ok::<(), JournalError>(());
    let ahead = Lsn { epoch: 1, pos: 9 };
    let error =
        replay(Arc::new(rig.disk.clone()), &manifest, ahead, &mut |_, _| (), &mut apply).err().expect("refused");
    assert!(error.to_string().contains("the journal ends at 1.3, before the checkpoint at 1.9"), "{error}");
    let image = rig.disk.image();
    let mut later = Rig::mount_image(&image, CONFIG).expect("mounts");
    later.submit(&[10]);
    later.sync();
    let mut without = Manifest::clone(&later.journal.manifest().current());
    without.journal.remove(0);
    let error =
        replay(Arc::new(later.disk.clone()), &without, Lsn::ZERO, &mut |_, _| (), &mut apply).err().expect("refused");
    assert!(error.to_string().contains("batch 1.4 does not follow batch 0.0"), "{error}");
}

#[test]
fn replay_skips_no_hole_between_mounts() {
    let mut rig = Rig::new(CONFIG);
    for seed in 2..=4 {
        rig.submit(&[10]);
        rig.writer.close().expect("closes");
        rig = Rig::mount(&rig.disk, CONFIG, seed).expect("mounts");
    }
    let mut without = Manifest::clone(&rig.journal.manifest().current());
    without.journal.remove(1);
    let mut apply = |_: Batch| Ok::<(), JournalError>(());
    let error =
        replay(Arc::new(rig.disk.clone()), &without, Lsn::ZERO, &mut |_, _| (), &mut apply).err().expect("refused");
    assert!(error.to_string().contains("batch 1.3 does not follow batch 1.1"), "{error}");
}

#[test]
fn replay_applies_what_follows_the_checkpoint_and_shows_progress() {
    let rig = three_groups();
    let (mut numbers, mut seen) = (Vec::new(), Vec::new());
    let from = Lsn { epoch: 1, pos: 2 };
    let mut progress = |done: u64, total: u64| seen.push((done, total));
    let mut apply = |batch: Batch| {
        numbers.push(number_of(&batch));
        Ok::<(), JournalError>(())
    };
    let manifest = rig.journal.manifest().current();
    let replayed = replay(Arc::new(rig.disk.clone()), &manifest, from, &mut progress, &mut apply).expect("replays");
    assert_eq!((replayed.last, replayed.batches, numbers), (Lsn { epoch: 1, pos: 3 }, 1, vec![3]));
    assert!(
        seen.windows(2).all(|pair| pair[0].0 <= pair[1].0) && seen.last().is_some_and(|(done, total)| done == total)
    );
}

#[test]
fn a_damaged_object_is_an_error_and_the_rest_serves() {
    let mut rig = Rig::new(CONFIG);
    let (first, second) = (rig.submit(&[500]), rig.submit(&[500]));
    rig.sync();
    let place = match rig.journal.state.lock().segments[0].directory.find(&ObjectId { lsn: first, n: 0 }) {
        directory::Found::At(entry) => entry.offset,
        _ => panic!("written"),
    };
    flip(&rig.disk, &rig.journal.manifest().current().journal[0], u64::from(place) + 7);
    let error = rig.journal.read(&ObjectId { lsn: first, n: 0 }).expect_err("damaged");
    assert!(matches!(error, JournalError::Damaged { offset, .. } if offset == u64::from(place)));
    rig.assert_reads(second, &[500]);
}

#[test]
fn promise_g4_a_damaged_directory_is_rebuilt_from_the_groups() {
    let mut rig = Rig::new(CONFIG);
    let mut lsns = Vec::new();
    while rig.journal.state.lock().segments.len() < 2 {
        lsns.push(rig.submit_waiting(&[5000]));
        rig.sync();
    }
    let entry = rig.journal.manifest().current().journal[0];
    for offset in [(64 << 10) - 4096, (64 << 10) - 8192] {
        let disk = copy_of(&rig);
        flip(&disk, &entry, offset + 10);
        let again = Rig::mount(&disk, CONFIG, 3).expect("mounts");
        lsns.iter().for_each(|lsn| again.assert_reads(*lsn, &[5000]));
    }
}

#[test]
fn a_slot_file_of_another_size_is_refused() {
    let rig = three_groups();
    let mut manifest = Manifest::clone(&rig.journal.manifest().current());
    manifest.journal[0].size += 4096;
    let mut apply = |_: Batch| Ok::<(), JournalError>(());
    let error =
        replay(Arc::new(rig.disk.clone()), &manifest, Lsn::ZERO, &mut |_, _| (), &mut apply).err().expect("refused");
    assert!(matches!(error, JournalError::WrongSize { expected: 69632, found: 65536, .. }), "{error}");
}
