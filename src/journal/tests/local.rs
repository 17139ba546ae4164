//! The journal on the real disk, with a real writer thread.

use super::*;
use crate::base::clock::SystemClock;
use crate::base::random::OsRandom;
use crate::media::{LocalDisk, Media};
use std::sync::mpsc;
use std::thread;

fn mount(disk: &Arc<dyn Media>) -> (Arc<Journal>, Writer, Vec<u64>) {
    let manifest = match ManifestStore::load(Arc::clone(disk)).expect("readable") {
        Some(manifest) => manifest,
        None => ManifestStore::create(Arc::clone(disk), fresh_manifest()).expect("creates"),
    };
    let mut numbers = Vec::new();
    let mut apply = |batch: Batch| {
        numbers.push(number_of(&batch));
        Ok::<(), JournalError>(())
    };
    let accepted =
        replay(Arc::clone(disk) as _, &manifest.current(), Lsn::ZERO, &mut |_, _| (), &mut apply).expect("replays");
    let config = Config { segment_bytes: 1 << 20, journal_bytes: 16 << 20, queue_bytes_max: 1 << 20, reserve_bytes: 0 };
    let clock = Arc::new(SystemClock::new());
    let (journal, writer) =
        open(Arc::clone(disk), clock, Arc::new(OsRandom), manifest, accepted, config).expect("opens");
    (journal, writer, numbers)
}

/// One fsynced batch, as an operation on a thread of its own does it.
fn write_and_sync(journal: &Journal, commit: &Mutex<()>) {
    let (tell, told) = mpsc::channel();
    let order = commit.lock();
    let lsn = journal.submitted().next(1);
    let edits = edits_of(lsn.pos);
    let cost = Journal::cost(edits.len(), &[4096]);
    while journal.reserve(cost, Room::Ordinary).is_err() {
        thread::sleep(Duration::from_millis(1));
    }
    journal.submit(pending(lsn, &edits, objects_of(lsn.pos, &[4096])));
    drop(order);
    journal.when_durable(lsn, Box::new(move |result| tell.send(result).expect("someone listens")));
    assert_eq!(told.recv(), Ok(Ok(())));
    let object = ObjectId { lsn, n: 0 };
    assert_eq!(journal.read(&object).expect("readable"), Some(data(lsn.pos, 0, 4096).into()));
    assert!(journal.read_resident(&object).is_none_or(|bytes| bytes == data(lsn.pos, 0, 4096)));
}

#[test]
fn many_threads_that_sync_share_syncs_and_all_is_there_after_a_crash_and_a_clean_end() {
    const THREADS: u64 = 16;
    const EACH: u64 = 30;
    let folder = tempfile::tempdir().expect("a folder");
    let disk: Arc<dyn Media> = Arc::new(LocalDisk::new(folder.path()));
    for mounts in 0..3 {
        let (journal, mut writer, numbers) = mount(&disk);
        assert_eq!(numbers, up_to(mounts * THREADS * EACH));
        let commit = Mutex::new(());
        let ended = Mutex::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !*ended.lock() {
                    while writer.step() == Progress::Worked {}
                    journal.wait_for_work(Duration::from_millis(20));
                }
            });
            let threads: Vec<_> = (0..THREADS)
                .map(|_| scope.spawn(|| (0..EACH).for_each(|_| write_and_sync(&journal, &commit))))
                .collect();
            threads.into_iter().for_each(|thread| thread.join().expect("each is durable"));
            *ended.lock() = true;
        });
        let stats = journal.stats();
        assert!(stats.synced_waiters > stats.syncs && stats.syncs < THREADS * EACH, "{stats:?}");
        if mounts == 1 {
            writer.close().expect("closes");
        }
    }
}

#[test]
fn a_written_object_is_read_without_waiting_from_an_open_and_a_sealed_segment_and_never_when_damaged() {
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder on a disk");
    let disk: Arc<dyn Media> = Arc::new(LocalDisk::new(folder.path()));
    let (journal, mut writer, _) = mount(&disk);
    let mut written = Vec::new();
    while journal.stats().used_bytes < 3 << 20 {
        let lsn = journal.submitted().next(1);
        let edits = edits_of(lsn.pos);
        journal.reserve(Journal::cost(edits.len(), &[4096]), Room::Ordinary).expect("room");
        journal.submit(pending(lsn, &edits, objects_of(lsn.pos, &[4096])));
        let object = ObjectId { lsn, n: 0 };
        assert_eq!(journal.read_resident(&object), None, "it is not written yet");
        journal.when_durable(lsn, Box::new(|_| ()));
        while writer.step() == Progress::Worked {}
        written.push(object);
    }
    let (sealed, open) = (written[0], written[written.len() - 1]);
    assert_eq!(journal.read_resident(&sealed), None, "opening its file might wait");
    assert!(journal.read(&sealed).expect("readable").is_some());
    for object in [sealed, open] {
        assert_eq!(journal.read_resident(&object), Some(data(object.lsn.pos, 0, 4096).into()));
    }

    let slots = disk.list(crate::journal::FOLDER).expect("listed");
    for slot in slots {
        let slot = disk.open(&format!("{}/{slot}", crate::journal::FOLDER)).expect("there");
        slot.write_at(&[0; 512 << 10], 0).expect("overwritten");
    }
    assert_eq!(journal.read_resident(&sealed), None, "other bytes than were written");
}
