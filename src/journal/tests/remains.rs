//! What is read of a damaged journal: all that counts, and nothing that does not.

use super::*;
use crate::format::group::{GroupHeader, encode_group};
use crate::format::ids::Nonce;
use crate::format::manifest::JournalEntry;
use crate::journal::Remains;
use crate::media::Media;

/// What is found on a disk: the numbers of batches, how many whole objects, and what is damaged.
#[derive(Debug, PartialEq)]
struct Found {
    numbers: Vec<u64>,
    objects: usize,
    damaged: Vec<String>,
}

fn read(disk: &SimDisk, listed: bool) -> Found {
    let media: Arc<dyn Media> = Arc::new(disk.clone());
    let manifest = ManifestStore::load(media.clone()).expect("readable").expect("there").current();
    let entries = if listed { manifest.journal.clone() } else { discover(&media).expect("readable") };
    let durable = manifest.checkpoint.map_or(Lsn::ZERO, |point| point.lsn);
    let remains: Remains = remains(media, entries, listed, durable, &mut |_, _| {}).expect("readable");
    let mut found = Found { numbers: Vec::new(), objects: 0, damaged: Vec::new() };
    let visit = &mut |left: Left| {
        found.numbers.push(number_of(&left.batch));
        assert_eq!(number_of(&left.batch), left.batch.lsn.pos, "each under its own name");
        found.objects += left.objects.len();
        for entry in &left.objects {
            let mut bytes = vec![0; entry.len as usize];
            let file = (disk as &dyn Media).open(&segment::slot_name(left.slot)).expect("there");
            file.read_at(&mut bytes, u64::from(entry.offset)).expect("readable");
            assert_eq!(bytes, data(left.batch.lsn.pos, entry.object.n, bytes.len()), "object {}", entry.object);
        }
        Ok::<(), JournalError>(())
    };
    remains.each(visit).expect("readable");
    found.damaged = remains.damaged.iter().map(|(file, what)| format!("{file}: {what}")).collect();
    found
}

fn both(disk: &SimDisk) -> Found {
    let (listed, found) = (read(disk, true), read(disk, false));
    assert_eq!((&listed.numbers, listed.objects), (&found.numbers, found.objects), "with and without the manifest");
    listed
}

fn copy_of(rig: &Rig) -> SimDisk {
    SimDisk::from_image(&rig.disk.image(), &CallLog::new())
}

fn write(disk: &SimDisk, entry: &JournalEntry, offset: u64, bytes: &[u8]) {
    let file = (disk as &dyn Media).open(&segment::slot_name(entry.slot)).expect("there");
    file.write_at(bytes, offset).expect("writable");
}

fn flip(disk: &SimDisk, entry: &JournalEntry, offset: u64) {
    let file = (disk as &dyn Media).open(&segment::slot_name(entry.slot)).expect("there");
    let mut byte = [0];
    file.read_at(&mut byte, offset).expect("readable");
    file.write_at(&[byte[0] ^ 0x10], offset).expect("writable");
}

/// Groups of one block each, each synced; the last two are not.
fn five_groups() -> Rig {
    let mut rig = Rig::new(CONFIG);
    for _ in 0..3 {
        rig.submit(&[500]);
        rig.sync();
    }
    rig.journal.set_policy(SyncPolicy::None);
    rig.settle();
    for _ in 0..2 {
        rig.submit(&[500]);
        rig.wait(200);
    }
    rig
}

fn first_entry(rig: &Rig) -> JournalEntry {
    rig.journal.manifest().current().journal[0]
}

#[test]
fn of_a_whole_journal_all_is_left() {
    let mut rig = five_groups();
    assert_eq!(both(&rig.disk), Found { numbers: up_to(5), objects: 5, damaged: vec![] });
    rig.writer.close().expect("closes");
    let mut again = Rig::mount(&rig.disk, CONFIG, 3).expect("mounts");
    assert_eq!(both(&again.disk), Found { numbers: up_to(5), objects: 5, damaged: vec![] });
    again.submit(&[10, 20]);
    again.sync();
    assert_eq!(both(&again.disk), Found { numbers: up_to(6), objects: 7, damaged: vec![] });
}

#[test]
fn damage_costs_what_it_hits_and_what_comes_after_it_counts() {
    let rig = five_groups();
    let entry = first_entry(&rig);
    let head = 96 + 36;
    // In group 2: its own header, the batch's head, the object, the zeros behind, the trailer.
    for (at, number_left, object_left) in
        [(20, true, true), (head, false, false), (head + 200, true, false), (4000, true, true), (4093, true, true)]
    {
        let disk = copy_of(&rig);
        flip(&disk, &entry, 4096 + at);
        let found = both(&disk);
        let numbers: Vec<u64> = up_to(5).into_iter().filter(|n| *n != 2 || number_left).collect();
        assert_eq!((found.numbers, found.objects), (numbers, 4 + usize::from(object_left)), "at {at}");
        assert_eq!(found.damaged.len(), 1, "{:?}", found.damaged);
        let place = format!("{}: damaged from offset 4096 to 8192: ", segment::slot_name(entry.slot));
        assert!(found.damaged[0].starts_with(&place), "{:?}", found.damaged);
    }
}

#[test]
fn a_torn_tail_is_cut_as_a_mount_cuts_it_and_is_no_damage() {
    let rig = five_groups();
    for (torn, last) in [(3, 3), (4, 4)] {
        let disk = copy_of(&rig);
        flip(&disk, &first_entry(&rig), torn * 4096 + 150);
        assert_eq!(both(&disk), Found { numbers: up_to(last), objects: last as usize, damaged: vec![] });
        assert_eq!(Rig::mount(&disk, CONFIG, 3).expect("mounts").replayed, up_to(last));
    }
}

#[test]
fn batches_of_a_tail_that_was_cut_never_count() {
    let rig = five_groups();
    let disk = copy_of(&rig);
    flip(&disk, &first_entry(&rig), 3 * 4096 + 150);
    let mut again = Rig::mount(&disk, CONFIG, 3).expect("mounts");
    for _ in 0..3 {
        again.submit(&[700]);
        again.sync();
    }
    assert_eq!(both(&again.disk), Found { numbers: up_to(6), objects: 6, damaged: vec![] });
    // Not even if the first of those that count was lost; then a batch that was cut has the number of one that is missing.
    let entry = *again.journal.manifest().current().journal.iter().find(|entry| entry.end.is_none()).expect("the last");
    let disk = copy_of(&again);
    write(&disk, &entry, 0, &[0; 4096]);
    assert_eq!(both(&disk).numbers, [1, 2, 3, 5, 6]);
}

#[test]
fn a_group_of_an_earlier_use_of_a_slot_never_counts() {
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
    for _ in 0..3 {
        rig.submit(&[3000]);
        rig.sync();
    }
    let last = rig.journal.durable().pos;
    let whole = read(&rig.disk, true);
    assert_eq!((whole.numbers.last(), &whole.damaged), (Some(&last), &vec![]));
    // Without the manifest, slots that hold nothing any more are read too: what was given back, in order, and once.
    let found = read(&rig.disk, false);
    assert!(found.numbers.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", found.numbers);
    assert!(found.numbers.ends_with(&whole.numbers) && found.damaged.is_empty(), "{found:?}");
    // A lost group has its place full of older ones: none of these is taken for it.
    let manifest = rig.journal.manifest().current();
    let entry = manifest.journal.iter().find(|entry| Some(entry.number) == in_use(&rig)).expect("listed");
    let disk = copy_of(&rig);
    let stale = {
        let header = GroupHeader {
            nonce: Nonce(77),
            sequence: 2,
            segment: JournalNo(1),
            offset: 4096,
            durable: Lsn { epoch: 1, pos: last },
            first: Lsn { epoch: 1, pos: last - 1 },
            wall: 0,
            batches: 1,
            payload_len: 0,
        };
        let batch = pending(header.first, &edits_of(4711), Vec::new());
        encode_group(header, &[&batch.head])
    };
    write(&disk, entry, 4096, &stale);
    assert!(!read(&disk, true).numbers.contains(&4711));
    assert!(!read(&disk, false).numbers.contains(&4711));
}

fn in_use(rig: &Rig) -> Option<JournalNo> {
    rig.journal.state.lock().segments.back().map(|segment| segment.number)
}

#[test]
fn after_a_clean_end_all_that_is_missing_is_told() {
    let mut rig = five_groups();
    rig.writer.close().expect("closes");
    let entry = first_entry(&rig);
    for offset in (0..5 * 4096).step_by(61) {
        let disk = copy_of(&rig);
        flip(&disk, &entry, offset);
        let found = read(&disk, true);
        let hit = offset / 4096 + 1;
        let rest: Vec<u64> = found.numbers.iter().copied().filter(|n| *n != hit).collect();
        assert_eq!(rest, up_to(5).into_iter().filter(|n| *n != hit).collect::<Vec<_>>(), "at {offset}");
        assert_eq!(found.damaged.len(), 1, "at {offset}: {:?}", found.damaged);
    }
}

#[test]
fn slot_files_that_are_missing_or_cut_cost_what_was_in_them() {
    let mut rig = Rig::new(CONFIG);
    while rig.journal.state.lock().segments.len() < 3 {
        rig.submit_waiting(&[5000]);
        rig.sync();
    }
    rig.submit(&[10]);
    rig.sync();
    let all = both(&rig.disk);
    assert!(all.damaged.is_empty(), "{all:?}");
    let entries = rig.journal.manifest().current().journal.clone();
    let (first, second) = (segment::slot_name(entries[0].slot), segment::slot_name(entries[1].slot));
    let disk = copy_of(&rig);
    (&disk as &dyn Media).remove(&second).expect("removed");
    let found = read(&disk, true);
    assert_eq!(found.damaged, [format!("{second}: is missing")]);
    assert!(found.numbers.len() < all.numbers.len() && found.numbers.last() == all.numbers.last());
    let disk = copy_of(&rig);
    let media: &dyn Media = &disk;
    let mut bytes = vec![0; 20_000];
    media.open(&first).expect("there").read_at(&mut bytes, 0).expect("read");
    media.remove(&first).expect("removed");
    media.create(&first).expect("made").write_at(&bytes, 0).expect("written");
    let found = read(&disk, true);
    assert!(found.damaged[0].starts_with(&format!("{first}: has 20000 bytes")), "{found:?}");
    assert_eq!(found.numbers[..2], [1, 2]);
    assert_eq!(found.numbers.last(), all.numbers.last());
}

#[test]
fn a_slot_full_of_claims_is_read_in_bounded_time() {
    let rig = five_groups();
    let entry = first_entry(&rig);
    let disk = copy_of(&rig);
    for offset in (5 * 4096..entry.size).step_by(4096) {
        let (durable, first) = (Lsn::ZERO, Lsn { epoch: 1, pos: 9 });
        let (nonce, segment) = (entry.nonce, entry.number);
        let header =
            GroupHeader { nonce, sequence: 9, segment, offset, durable, first, wall: 0, batches: 1, payload_len: 0 };
        let long = vec![0; (entry.size - offset) as usize];
        write(&disk, &entry, offset, &encode_group(header, &[&long])[..96]);
    }
    assert_eq!(both(&disk), Found { numbers: up_to(5), objects: 5, damaged: vec![] });
}
