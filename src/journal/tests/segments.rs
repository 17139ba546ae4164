//! Slot files: how they are made, used, sealed and used again.

use super::*;
use crate::journal::segment::{FOLDER, Filling, Pace, slot_name};
use crate::media::Media;
use crate::media::sim::{Call, DiskCall};
use std::collections::{BTreeMap, BTreeSet};

/// What the log says of each slot file, in order.
#[derive(Debug, PartialEq, Eq, Clone)]
enum Step {
    Created,
    Wrote { at: u64, len: u64 },
    Synced,
    FolderSynced,
    ManifestReplaced,
}

/// The life of each slot file, with what concerns all of them mixed in.
fn lives(disk: &SimDisk) -> BTreeMap<String, Vec<Step>> {
    let mut names = BTreeMap::new();
    let mut lives: BTreeMap<String, Vec<Step>> = BTreeMap::new();
    for call in disk.log().calls() {
        let Call::Disk(_, call) = call else { continue };
        let mut all = |step: Step| lives.values_mut().for_each(|life| life.push(step.clone()));
        match call {
            DiskCall::Create { name, file } if name.starts_with("journal/") => {
                names.insert(file, name.to_string());
                assert!(lives.insert(name.to_string(), vec![Step::Created]).is_none(), "{name} is created once");
            }
            DiskCall::SyncDir { dir } if &*dir == "journal" => all(Step::FolderSynced),
            DiskCall::SyncDir { dir } if dir.is_empty() => all(Step::ManifestReplaced),
            DiskCall::Write { file, patch } if names.contains_key(&file) => {
                let life = lives.get_mut(&names[&file]).expect("created");
                life.push(Step::Wrote { at: patch.end() - patch.len(), len: patch.len() });
            }
            DiskCall::Sync { file } if names.contains_key(&file) => {
                lives.get_mut(&names[&file]).expect("created").push(Step::Synced);
            }
            _ => {}
        }
    }
    lives
}

#[test]
fn promise_s3_segments_are_created_filled_synced_and_named_before_use() {
    let mut rig = Rig::new(CONFIG);
    for _ in 0..20 {
        rig.submit_waiting(&[8000]);
        rig.settle();
    }
    let lives = lives(&rig.disk);
    assert!(lives.len() > 3);
    for (name, life) in lives {
        let own = life.iter().position(|step| *step == Step::Synced).expect("synced");
        assert_eq!(life[..own], [Step::Created, Step::Wrote { at: 0, len: 64 << 10 }], "{name} is filled, then synced");
        assert_eq!(life[own + 1], Step::FolderSynced, "{name} has a durable name");
        let named = life.iter().position(|step| *step == Step::ManifestReplaced).expect("named");
        let used = life[own..].iter().position(|step| matches!(step, Step::Wrote { .. }));
        assert!(used.is_none_or(|used| own + used > named), "{name} is named before it is used");
    }
}

#[test]
fn promise_s2_a_segment_is_synced_before_the_next_one_is_begun() {
    let mut rig = Rig::new(CONFIG);
    rig.journal.set_policy(SyncPolicy::None);
    for _ in 0..12 {
        rig.submit_waiting(&[8000]);
        rig.wait(200);
    }
    let (mut dirty, mut switches, mut files) = (None, 0, BTreeMap::new());
    for call in rig.disk.log().calls() {
        let Call::Disk(_, call) = call else { continue };
        match call {
            DiskCall::Create { name, file } if name.starts_with("journal/") => drop(files.insert(file, name)),
            DiskCall::Write { file, patch } if files.contains_key(&file) && patch.len() < 64 << 10 => {
                if dirty.is_some_and(|other| other != file) {
                    panic!("a group was written to the next segment while the one before was not synced");
                }
                switches += u32::from(dirty.is_none());
                dirty = Some(file);
            }
            DiskCall::Sync { file } if dirty == Some(file) => dirty = None,
            _ => {}
        }
    }
    assert!(switches > 2, "the test switched segments");
}

#[test]
fn promise_s1_nothing_is_written_twice() {
    let mut rig = Rig::new(CONFIG);
    for _ in 0..25 {
        rig.submit_waiting(&[5000]);
        rig.settle();
    }
    rig.sync();
    for (name, life) in lives(&rig.disk) {
        let mut end = 0;
        for step in &life[2..] {
            if let Step::Wrote { at, len } = step {
                assert!(*at >= end, "{name} was written at {at} after it was written up to {end}");
                end = at + len;
            }
        }
    }
}

#[test]
fn promise_s3_after_a_restart_numbering_goes_on_and_no_old_file_is_appended_to() {
    let mut rig = Rig::new(CONFIG);
    rig.submit(&[3000]);
    rig.sync();
    let before = rig.journal.manifest().current();
    let used = before.journal.first().expect("a segment").slot;
    let disk = SimDisk::from_image(&rig.disk.image_durable(), &CallLog::new());
    let mut rig = Rig::mount(&disk, CONFIG, 9).expect("mounts");
    rig.submit(&[3000]);
    rig.sync();
    let after = rig.journal.manifest().current();
    assert_eq!(after.journal[0].number, before.journal[0].number);
    assert!(after.journal[0].end.is_some(), "the accepted end is recorded");
    assert!(after.journal[1].number > before.journal.last().expect("a segment").number);
    assert!(after.journal[1].nonce != before.journal[0].nonce);
    let old = disk.start().file(&segment::slot_name(used)).expect("there").to_vec();
    assert_eq!(disk.image().file(&segment::slot_name(used)).expect("there").to_vec(), old, "not written again");
    assert_eq!(numbers_on(&disk.image_durable()), up_to(2));
}

#[test]
fn reclaimed_segments_are_used_again_and_the_journal_stays_within_its_size() {
    let mut rig = Rig::new(CONFIG);
    let mut slots = BTreeSet::new();
    for number in 1..=200u64 {
        let lsn = rig.submit_waiting(&[8000]);
        rig.sync();
        slots.extend(rig.journal.manifest().current().journal.iter().map(|entry| entry.slot));
        if rig.journal.reclaim_wanted() {
            let upto = Lsn { epoch: 1, pos: number - 3 };
            rig.journal
                .manifest()
                .update(|m| {
                    m.checkpoint = Some(crate::format::manifest::CommitPoint { number, lsn: upto }).filter(|_| {
                        m.next_checkpoint = number + 1;
                        true
                    })
                })
                .expect("changes");
            rig.journal.reclaim(upto);
        }
        rig.assert_reads(lsn, &[8000]);
    }
    let stats = rig.journal.stats();
    assert!(stats.recycled > 20, "{stats:?}");
    assert!(stats.segments <= 8 && slots.len() <= 8, "{stats:?}");
    assert_eq!(rig.journal.read(&ObjectId { lsn: Lsn { epoch: 1, pos: 1 }, n: 0 }).expect("no error"), None);

    let replayed = numbers_on(&rig.disk.image_durable());
    assert_eq!(replayed.last(), Some(&200));
    assert!(replayed.windows(2).all(|pair| pair[1] == pair[0] + 1));
}

#[test]
fn sealed_segments_keep_a_sparse_directory_in_memory_and_their_objects_readable() {
    let mut rig = Rig::new(Config { segment_bytes: 1 << 20, journal_bytes: 8 << 20, ..CONFIG });
    let lens = vec![20; 150];
    let lsns: Vec<Lsn> = (0..80).map(|_| rig.submit_waiting(&lens)).collect();
    rig.sync();
    {
        let state = rig.journal.state.lock();
        assert!(state.segments.len() > 1);
        let sealed = &state.segments[0].directory;
        assert!(matches!(sealed, directory::Directory::Sparse { firsts, .. } if firsts.len() > 1));
    }
    for lsn in &lsns {
        rig.assert_reads(*lsn, &lens);
        assert_eq!(rig.journal.read(&ObjectId { lsn: *lsn, n: 150 }).expect("no error"), None);
    }
    let again =
        Rig::mount_image(&rig.disk.image_durable(), Config { segment_bytes: 1 << 20, ..CONFIG }).expect("mounts");
    lsns.iter().for_each(|lsn| again.assert_reads(*lsn, &lens));
}

#[test]
fn a_read_that_races_with_recycling_finds_nothing_rather_than_damage() {
    let mut rig = Rig::new(CONFIG);
    let lsn = rig.submit_waiting(&[8000]);
    while rig.journal.state.lock().segments.len() < 2 {
        rig.submit_waiting(&[8000]);
        rig.settle();
    }
    // The reader has looked up the place; then the segment is reclaimed and written again.
    let entry = match rig.journal.state.lock().segments[0].directory.find(&ObjectId { lsn, n: 0 }) {
        directory::Found::InBlock { number, .. } => number,
        _ => panic!("a sealed segment has a sparse directory"),
    };
    assert_eq!(entry, 0);
    rig.journal.reclaim(lsn.max(Lsn { epoch: 1, pos: 4 }));
    rig.settle();
    while rig.journal.stats().recycled == 0 {
        rig.submit_waiting(&[8000]);
        rig.journal.reclaim(rig.journal.durable());
        rig.settle();
    }
    for _ in 0..40 {
        rig.submit_waiting(&[8000]);
        rig.journal.reclaim(rig.journal.durable());
        rig.sync();
    }
    assert_eq!(rig.journal.read(&ObjectId { lsn, n: 0 }).expect("no error"), None);
}

#[test]
fn leftover_slot_files_are_removed_at_the_mount() {
    let rig = Rig::new(CONFIG);
    let media: &dyn crate::media::Media = &rig.disk;
    media.create("journal/slot-000077").expect("creates");
    media.sync_dir("journal").expect("syncs");
    let again = Rig::mount(&rig.disk, CONFIG, 4).expect("mounts");
    assert!(again.disk.image().file("journal/slot-000077").is_none());
    let listed = again.journal.manifest().current().journal.len();
    assert_eq!(again.disk.image().names().filter(|name| name.starts_with("journal/")).count(), listed);
}

#[test]
fn promise_g12_few_segment_files_are_open_however_many_there_are() {
    let wide = Config { journal_bytes: 300 * (64 << 10), reserve_bytes: 100 * (64 << 10), ..CONFIG };
    let most = super::super::files::OPEN_FILES.get() + 8;
    let mut rig = Rig::new(wide);
    let mut lsns = Vec::new();
    while rig.journal.stats().segments < 290 {
        lsns.push(rig.submit_waiting(&[12_000]));
    }
    rig.sync();
    lsns.iter().for_each(|lsn| rig.assert_reads(*lsn, &[12_000]));
    assert!(rig.disk.open_files_max() <= most, "{} files were open", rig.disk.open_files_max());

    let again = Rig::mount_image(&rig.disk.image_durable(), wide).expect("mounts");
    assert_eq!(again.replayed.len(), lsns.len());
    lsns.iter().for_each(|lsn| again.assert_reads(*lsn, &[12_000]));
    assert!(again.disk.open_files_max() <= most, "{} files were open after a mount", again.disk.open_files_max());
}

#[test]
fn a_file_filled_beside_syncs_is_durable_to_its_last_byte_before_it_gets_a_number() {
    let disk = SimDisk::new(&CallLog::new());
    disk.make_dir(FOLDER).expect("made");
    let size = 300 << 10;
    let mut filling = Filling::start(&disk, 7, size).expect("begun");
    let mut steps = 0;
    while !filling.is_durable() {
        filling.step(&disk, Pace::Beside).expect("filled");
        steps += 1;
    }
    assert_eq!(filling.numbered(JournalNo(1)).slot, 7);
    let life = &lives(&disk)[&slot_name(7)];
    let wrote = |step: &Step| if let Step::Wrote { len, .. } = step { *len } else { 0 };
    let last = life.iter().rposition(|step| wrote(step) > 0).expect("something was written");
    assert_eq!((steps, life.iter().map(wrote).sum::<u64>()), (3, u64::from(size)));
    assert_eq!(life[last + 1..], [Step::Synced, Step::FolderSynced], "{life:?}");
}
