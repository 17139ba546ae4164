//! The manifest on disk.

use super::*;
use crate::media::Media;
use crate::media::sim::{DiskFault, DiskOp, Limits, Nth, Platter};

fn stored(disk: &SimDisk) -> ManifestStore {
    ManifestStore::load(Arc::new(disk.clone())).expect("readable").expect("there")
}

fn epoch_on(image: &Image) -> u32 {
    stored(&SimDisk::from_image(image, &CallLog::new())).current().epoch
}

fn made() -> (SimDisk, ManifestStore) {
    let disk = SimDisk::new(&CallLog::new());
    let store = ManifestStore::create(Arc::new(disk.clone()), fresh_manifest()).expect("creates");
    (disk, store)
}

#[test]
fn promise_r2_a_change_is_durable_when_it_returns() {
    let (disk, store) = made();
    store.update(|manifest| manifest.epoch = 7).expect("changes");
    assert_eq!(epoch_on(&disk.image_durable()), 7);
    assert_eq!(store.current().epoch, 7);
}

#[test]
fn promise_r2_after_a_crash_at_any_call_the_manifest_is_the_old_or_the_new_one() {
    let (disk, store) = made();
    let before = disk.log().len();
    store.update(|manifest| manifest.epoch = 7).expect("changes");
    let mut platter = Platter::new(disk.start());
    let (mut seen, calls) = (Vec::new(), disk.log().calls());
    for (point, call) in calls.iter().enumerate() {
        if let crate::media::sim::Call::Disk(_, call) = call {
            platter.apply(call);
        }
        if point >= before {
            seen.extend(platter.crashes(&Limits::default(), point as u64).map(|crashed| epoch_on(&crashed.image)));
        }
    }
    assert!(seen.contains(&1) && seen.contains(&7) && seen.iter().all(|epoch| [1, 7].contains(epoch)), "{seen:?}");
}

#[test]
fn promise_r2_a_failed_change_is_rolled_back_whole_or_latches() {
    let calls = [DiskOp::Create, DiskOp::Write, DiskOp::Sync, DiskOp::Rename, DiskOp::SyncDir];
    for (op, fault) in
        calls.into_iter().flat_map(|op| [DiskFault::Failed, DiskFault::NoSpace, DiskFault::Done].map(|f| (op, f)))
    {
        let (disk, store) = made();
        disk.fail(Nth::new(1).of(op), fault);
        let error = store.update(|manifest| manifest.epoch = 7).expect_err("fails");
        assert_eq!(disk.failed(), 1);
        disk.heal();
        assert_eq!(store.current().epoch, 1, "memory follows the disk only after success");
        let unknown = matches!(op, DiskOp::Rename | DiskOp::SyncDir);
        assert_eq!(matches!(error, ManifestError::Latched(_)), unknown, "{op:?} {fault:?}: {error}");
        let again = store.update(|manifest| manifest.epoch = 8);
        assert_eq!(again.is_err(), unknown, "{op:?} {fault:?}");
        if !unknown {
            assert_eq!(error.is_full(), fault == DiskFault::NoSpace);
            assert_eq!(epoch_on(&disk.image_durable()), 8);
            assert_eq!(disk.image().names().collect::<Vec<_>>(), [MANIFEST]);
        }
    }
}

#[test]
fn promise_r3_no_manifest_is_a_fresh_start_and_a_damaged_one_is_fatal() {
    let disk = SimDisk::new(&CallLog::new());
    assert!(ManifestStore::load(Arc::new(disk.clone())).expect("readable").is_none());
    let media: &dyn Media = &disk;
    media.create(MANIFEST).expect("creates");
    let error = ManifestStore::load(Arc::new(disk.clone())).err().expect("empty is fatal");
    assert_eq!(
        error.to_string(),
        "MANIFEST is damaged: line 1: the manifest is empty; run: skylog check --repair STORE"
    );
}

#[test]
fn promise_r3_a_listed_file_that_is_missing_is_fatal_before_anything_is_applied() {
    let mut rig = Rig::new(CONFIG);
    rig.submit(&[100]);
    rig.sync();
    let listed = rig.journal.manifest().current();
    for entry in &listed.journal {
        let disk = SimDisk::from_image(&rig.disk.image(), &CallLog::new());
        let name = segment::slot_name(entry.slot);
        (&disk as &dyn Media).remove(&name).expect("removes");
        let mut applied = 0;
        let mut count = |_: Batch| {
            applied += 1;
            Ok::<(), JournalError>(())
        };
        let error =
            replay(Arc::new(disk.clone()), &listed, Lsn::ZERO, &mut |_, _| (), &mut count).err().expect("refused");
        assert!(matches!(&error, JournalError::Missing { file } if *file == name));
        assert_eq!(
            error.to_string(),
            format!("{name} is listed in MANIFEST but missing; run: skylog check --repair STORE")
        );
        assert_eq!(applied, 0);
    }
}

#[test]
fn a_state_directory_is_never_made_over_another() {
    let (disk, _store) = made();
    assert!(ManifestStore::create(Arc::new(disk), fresh_manifest()).is_err());
}

/// As after an outage of the store through which a long journal of small segments has filled up.
#[test]
fn a_long_manifest_is_read_again() {
    let (disk, store) = made();
    let name = |n: u32| format!("ckpt/{n}{}", "0".repeat(1 << 20));
    store.update(|manifest| manifest.history = (0..17).map(name).collect()).expect("changes");
    let file = Media::open(&disk, MANIFEST).expect("there");
    assert!(file.len().expect("known") > 16 << 20, "too short to show anything");
    assert_eq!(stored(&disk).current().history.len(), 17);
}
