//! What log increments carry, on its way through a takeover into the journal of who took over.

mod salvaged;

use super::{Rig, small};
use crate::check::{Depth, check};
use crate::checkpoint::files::CHECKPOINTS;
use crate::format::batch::{encode_edits, encode_head};
use crate::format::ids::{InodeNo, Lsn, ObjectId};
use crate::format::names;
use crate::format::publication::{Body, Log, Position, Publication};
use crate::journal::{JournalError, replay};
use crate::media::Media;
use crate::media::sim::{CallLog, Image, Limits, Nth, SimDisk};
use crate::recovery::{MountError, Tuning, World, mount};
use crate::store::sim::{Recording, SimStore, StoreFault, StoreImage, StoreOp};
use crate::store::{Created, Store, StoreError};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) fn contents(name: &str, len: usize) -> Vec<u8> {
    name.bytes().cycle().take(len).collect()
}

pub(super) fn put(rig: &mut Rig, name: &str, len: usize) -> InodeNo {
    let (attr, _) = rig.run(|fs, cx| fs.create(cx, InodeNo::ROOT, name.as_bytes(), 0o644)).expect("created");
    let data = contents(name, len);
    let mut at = 0;
    while at < len {
        at += rig.run(|fs, cx| fs.write(cx, attr.ino, at as u64, &data[at..])).expect("written").0 as usize;
    }
    rig.run(|fs, cx| fs.release(cx, attr.ino)).expect("released");
    attr.ino
}

pub(super) fn remove(rig: &mut Rig, name: &str) {
    rig.run(|fs, cx| fs.unlink(cx, InodeNo::ROOT, name.as_bytes())).expect("removed");
}

/// What a file holds; nothing if there is none.
pub(super) fn get(rig: &mut Rig, name: &str) -> Option<Vec<u8>> {
    let found = rig.run(|fs, cx| fs.lookup(cx, InodeNo::ROOT, name.as_bytes())).expect("looked up")?;
    let size = found.size;
    Some(rig.run(|fs, cx| fs.read(cx, found.ino, 0, size as u32)).expect("read").to_vec())
}

pub(super) fn assert_holds(rig: &mut Rig, name: &str, len: usize) {
    assert_eq!(get(rig, name), Some(contents(name, len)), "{name}");
}

/// Makes all that was done durable in the journal, and says up to where that is.
pub(super) fn sync(rig: &mut Rig) -> Lsn {
    let last = rig.mounted.db.last();
    rig.mounted.db.journal().when_durable(last, Box::new(|_| {}));
    while rig.step_journal() {}
    assert!(rig.mounted.db.journal().durable() >= last);
    last
}

fn body_of(rig: &Rig, after: Lsn) -> Log {
    let media: Arc<dyn Media> = Arc::new(SimDisk::from_image(&rig.disk.image_durable(), &CallLog::new()));
    let manifest = rig.mounted.db.journal().manifest().current();
    let mut heads = Vec::new();
    let replayed = replay(media, &manifest, after, &mut |_, _| {}, &mut |batch| {
        let count = u32::try_from(batch.edits.len()).expect("few");
        let objects = batch.headers();
        heads.push((batch.lsn, encode_head(batch.lsn, count, &encode_edits(&batch.edits), &objects, true), objects));
        Ok::<(), JournalError>(())
    });
    let replayed = replayed.expect("the journal is whole");
    let mut log = Vec::new();
    for (lsn, head, objects) in heads {
        let mut batch = head;
        for n in (0..).take(objects.len()) {
            let object = replayed.read(&ObjectId { lsn, n }).expect("read");
            batch.extend_from_slice(&object.expect("the journal has it"));
        }
        log.extend(Log::part_of(&batch.into()).expect("a batch").unwrap_or_default());
    }
    Log { batches: log.into() }
}

/// The first free number.
pub(super) fn free(store: &SimStore) -> Position {
    let image = store.image();
    let newest = image.names().filter(|name| name.starts_with("gen/")).max().expect("a generation");
    let publication = Publication::decode(image.object(newest).expect("it is there")).expect("it is whole");
    Position { generation: publication.generation, number: publication.number + 1 }
}

/// What the mount would publish for an fsync: all from `after` on that is durable in its journal.
fn log_increment(rig: &mut Rig, after: Lsn) -> Publication {
    let (end, at) = (sync(rig), free(&rig.store));
    let manifest = rig.mounted.db.journal().manifest().current();
    Publication {
        uuid: manifest.uuid,
        state: manifest.state,
        nonce: manifest.journal.last().expect("a segment").nonce,
        epoch: manifest.epoch,
        generation: at.generation,
        number: at.number,
        wall: 0,
        checkpoint: rig.mounted.checkpointer.figures().lock().checkpoint,
        start: after,
        end,
        body: Body::Log(body_of(rig, after)),
    }
}

/// Publishes it. Returns its end.
pub(super) fn publish(rig: &mut Rig, after: Lsn) -> Lsn {
    let log = log_increment(rig, after);
    let name = names::publication(log.generation, log.number);
    assert_eq!(rig.store.create(&name, log.encode().into()).expect("published"), Created::New);
    log.end
}

pub(super) fn shipped(rig: &Rig) -> Lsn {
    rig.mounted.checkpointer.figures().lock().shipped
}

/// A filesystem with windows in the store, of which a log increment holds more, and the journal more than that.
pub(super) fn a_filesystem_with_a_tail() -> (Rig, Lsn) {
    let mut rig = Rig::new(1, &small());
    for n in 0..20 {
        put(&mut rig, &format!("old {n}"), 3000);
    }
    rig.drain();
    let window = shipped(&rig);
    put(&mut rig, "synced", 70_000);
    remove(&mut rig, "old 3");
    put(&mut rig, "old 3", 10);
    let end = publish(&mut rig, window);
    put(&mut rig, "synced too", 5000);
    let end = publish(&mut rig, end);
    put(&mut rig, "not synced", 5000);
    sync(&mut rig);
    (rig, end)
}

fn assert_whole(rig: &mut Rig) {
    assert_holds(rig, "synced", 70_000);
    assert_holds(rig, "synced too", 5000);
    assert_holds(rig, "old 3", 10);
    for n in (0..20).filter(|n| *n != 3) {
        assert_holds(rig, &format!("old {n}"), 3000);
    }
    assert_eq!(get(rig, "not synced"), None, "exactly what was published");
}

pub(super) fn assert_clean(store: &SimStore, disk: Option<&Image>, when: &str) {
    let store: Arc<dyn Store> = Arc::new(SimStore::from_image(&store.image(), &CallLog::new()));
    let disk = disk.map(|image| Arc::new(SimDisk::from_image(image, &CallLog::new())) as Arc<dyn Media>);
    let report = check(&store, disk, Depth::Data, &mut |_, _, _| {});
    assert!(report.is_clean(), "{when}: {:#?}, skipped {:?}", report.problems, report.skipped);
}

/// Mounts on a new disk what a store holds.
pub(super) fn elsewhere(store: &StoreImage, seed: u64, tuning: &Tuning) -> Result<Rig, MountError> {
    let log = CallLog::new();
    let store = SimStore::from_image(store, &log);
    Rig::mount(log.clone(), SimDisk::new(&log), store, Arc::default(), seed, tuning)
}

fn closings(store: &SimStore) -> usize {
    let image = store.image();
    let objects = image.names().filter(|name| name.starts_with("gen/")).filter_map(|name| image.object(name));
    objects.filter(|bytes| matches!(Publication::decode(bytes).map(|p| p.body), Ok(Body::Closing(_)))).count()
}

#[test]
fn what_log_increments_carry_is_there_after_a_takeover_and_ships_with_the_next_window() {
    let (rig, end) = a_filesystem_with_a_tail();
    assert_clean(&rig.store, None, "with a tail");
    let mut highest = InodeNo::ROOT;
    let mut store = rig.store.image();
    for round in 0..3 {
        let mut other = elsewhere(&store, 10 + round, &small()).expect("taken over");
        if round == 0 {
            assert!(other.mounted.db.last() >= end, "Lsns go on behind those that were published");
            assert_clean(&other.store, Some(&other.disk.image_durable()), "taken over, power gone");
        }
        assert_whole(&mut other);
        let ino = put(&mut other, &format!("new {round}"), 9000);
        assert!(ino > highest, "S9: {ino} after {highest}");
        highest = ino;
        other.drain();
        assert_clean(&other.store, Some(&other.disk.image()), "shipped");
        assert_clean(&other.store, None, "shipped, store alone");
        store = other.store.image();
    }
    let mut last = elsewhere(&store, 20, &small()).expect("taken over");
    (0..3).for_each(|round| assert_holds(&mut last, &format!("new {round}"), 9000));
}

#[test]
fn a_tail_alone_ships_without_anything_new() {
    let (rig, _) = a_filesystem_with_a_tail();
    let mut other = elsewhere(&rig.store.image(), 2, &small()).expect("taken over");
    other.drain();
    assert_clean(&other.store, None, "shipped");
    assert_whole(&mut elsewhere(&other.store.image(), 3, &small()).expect("taken over"));
}

/// The window ends between two logs, so the batches of the first are in both and of the second in one.
#[test]
fn a_window_supersedes_a_tail_up_to_its_end() {
    let mut rig = Rig::new(1, &small());
    put(&mut rig, "old", 100);
    rig.drain();
    let window = shipped(&rig);
    put(&mut rig, "first", 8000);
    let end = publish(&mut rig, window);
    put(&mut rig, "second", 8000);
    rig.mounted.checkpointer.wanted().checkpoint();
    while rig.mounted.db.active_bytes() > 0 {
        rig.step_checkpointer();
    }
    remove(&mut rig, "first");
    put(&mut rig, "third", 8000);
    publish(&mut rig, end);
    // Found at the number that the window was to have; the window goes behind it.
    rig.settle();
    assert!(shipped(&rig) > end && shipped(&rig) < rig.mounted.db.last());
    assert_clean(&rig.store, None, "windows and logs");
    assert_clean(&rig.store, Some(&rig.disk.image()), "windows and logs");
    let mut other = elsewhere(&rig.store.image(), 2, &small()).expect("taken over");
    assert_eq!(get(&mut other, "first"), None);
    assert_holds(&mut other, "second", 8000);
    assert_holds(&mut other, "third", 8000);
}

/// In memory is only so much of a tail; the rest is read again.
#[test]
fn a_long_tail_is_taken_over_whole() {
    let mut tuning = small();
    tuning.journal.journal_bytes = 4 << 20;
    tuning.limits.overlay_bytes_max = 4 << 20;
    tuning.fetches = 4;
    let mut rig = Rig::new(1, &tuning);
    put(&mut rig, "old", 100);
    rig.drain();
    let mut end = shipped(&rig);
    for n in 0..40 {
        put(&mut rig, &format!("file {n}"), 30_000);
        end = publish(&mut rig, end);
    }
    assert_clean(&rig.store, None, "a long tail");
    let mut other = elsewhere(&rig.store.image(), 2, &tuning).expect("taken over");
    (0..40).for_each(|n| assert_holds(&mut other, &format!("file {n}"), 30_000));
    other.drain();
    assert_clean(&other.store, Some(&other.disk.image()), "shipped");

    // A journal that is smaller grows for it, and is as small as it was to be when all is shipped.
    let tuning = Tuning { limits: tuning.limits, ..small() };
    let mut other = elsewhere(&rig.store.image(), 3, &tuning).expect("taken over");
    assert!(other.mounted.db.journal().fill().used_bytes > tuning.journal.journal_bytes);
    (0..40).for_each(|n| assert_holds(&mut other, &format!("file {n}"), 30_000));
    let mut other = other.remount(4, &tuning).expect("mounts again");
    put(&mut other, "new", 30_000);
    other.drain();
    assert!(
        other.mounted.db.journal().stats().segments * u64::from(tuning.journal.segment_bytes)
            <= tuning.journal.journal_bytes
    );
    assert_clean(&other.store, Some(&other.disk.image()), "shipped");
}

/// Takes over with a crash after every call to disk and store, and mounts again. Returns what was lost.
fn crash_everywhere(limits: &Limits) -> (usize, Vec<String>) {
    let (rig, _) = a_filesystem_with_a_tail();
    let other = elsewhere(&rig.store.image(), 2, &small()).expect("taken over");
    let mut taken_in = other;
    put(&mut taken_in, "later", 4000);
    sync(&mut taken_in);
    let recording = Recording::of(&taken_in.disk, &taken_in.store);
    let (mut states, mut lost) = (BTreeMap::new(), Vec::new());
    for crash in recording.crashes(limits) {
        if states.insert(crash.hash, ()).is_some() {
            continue;
        }
        let log = CallLog::new();
        let disk = SimDisk::from_image(&crash.disk, &log);
        let store = SimStore::from_image(&crash.store, &log);
        match Rig::mount(log, disk, store, Arc::default(), 77, &small()) {
            Err(e) => lost.push(format!("after call {}: {e}", crash.after)),
            Ok(mut again) => {
                for (name, len) in [("synced", 70_000), ("synced too", 5000), ("old 3", 10), ("old 4", 3000)] {
                    if get(&mut again, name) != Some(contents(name, len)) {
                        lost.push(format!("after call {}: {name}", crash.after));
                    }
                }
                assert_eq!(get(&mut again, "not synced"), None);
                if states.len() % 16 == 0 {
                    again.drain();
                    assert_clean(&again.store, Some(&again.disk.image()), "mounted after a crash");
                    assert_clean(&again.store, None, "shipped after a crash");
                }
            }
        }
    }
    (states.len(), lost)
}

#[test]
fn a_takeover_with_a_tail_that_was_interrupted_anywhere_is_done_again_and_loses_nothing() {
    let limits = Limits { subsets_up_to: 3, tears_max: 2, random: 2, plans_max: 12, seed: 1 };
    let (states, lost) = crash_everywhere(&limits);
    assert!(states > 100, "{states} states");
    assert_eq!(lost, Vec::<String>::new());
}

#[cfg(feature = "canaries")]
#[test]
fn a_tail_whose_file_is_not_durable_before_the_manifest_is_missed() {
    use crate::base::canary::{Canary, with_removed};
    let limits = Limits { subsets_up_to: 3, tears_max: 2, random: 2, plans_max: 12, seed: 1 };
    let (_, lost) = with_removed(Canary::TailFileSync, || crash_everywhere(&limits));
    assert!(!lost.is_empty());
}

/// Nothing that fails on the way has fenced the writer that lives.
#[test]
fn a_takeover_that_fails_has_fenced_nobody() {
    let (mut rig, end) = a_filesystem_with_a_tail();
    let image = rig.store.image();
    let mut failed = 0;
    for nth in 1..200 {
        let log = CallLog::new();
        let (disk, store) = (SimDisk::new(&log), SimStore::from_image(&image, &log));
        store.fail(Nth::new(nth).of(StoreOp::Get), StoreFault::Refused);
        let before = closings(&store);
        let mounted = Rig::mount(log, disk.clone(), store.clone(), Arc::default(), 2, &small());
        if store.failed() == 0 {
            mounted.expect("nothing failed");
            break;
        }
        if mounted.is_err() && closings(&store) == before {
            failed += 1;
            let left: Vec<String> = disk.image().names().map(str::to_owned).collect();
            assert!(left.iter().all(|name| !name.starts_with(CHECKPOINTS)), "{left:?}");
            store.heal();
            let again = Rig::mount(disk.log().clone(), disk, store, Arc::default(), 3, &small());
            assert_whole(&mut again.expect("mounts once the store answers"));
        } else {
            // What was won is local state, and mounts.
            assert!(mounted.is_ok() || closings(&store) > before);
        }
    }
    assert!(failed > 3, "{failed} takeovers failed");
    // Too little room in the state directory, at any moment.
    for room in (0..400).map(|n| n * 1000) {
        let log = CallLog::new();
        let (disk, store) = (SimDisk::new(&log), SimStore::from_image(&image, &log));
        disk.set_capacity(room);
        let before = closings(&store);
        if Rig::mount(log, disk, store.clone(), Arc::default(), 2, &small()).is_ok() || closings(&store) > before {
            assert!(room > 0);
            break;
        }
    }
    put(&mut rig, "still writing", 100);
    publish(&mut rig, end);
    rig.drain();
}

/// A store in which the writer that lives publishes just before each closing object arrives.
pub(super) struct Busy {
    pub(super) store: SimStore,
    pub(super) publications: parking_lot::Mutex<Vec<Publication>>,
}

impl Store for Busy {
    fn create(&self, name: &str, bytes: Bytes) -> Result<Created, StoreError> {
        if let Some(next) = self.publications.lock().pop() {
            self.store.create(&names::publication(next.generation, next.number), next.encode().into())?;
        }
        self.store.create(name, bytes)
    }
    fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        self.store.get(name)
    }
    fn get_some(&self, name: &str, range: std::ops::Range<u64>) -> Result<Bytes, StoreError> {
        self.store.get_some(name, range)
    }
    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.store.size(name)
    }
    fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.store.put(name, bytes)
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.store.delete(name)
    }
    fn walk(&self, prefix: &str, each: &mut dyn FnMut(&str) -> std::ops::ControlFlow<()>) -> Result<(), StoreError> {
        self.store.walk(prefix, each)
    }
    fn publish_local(&self, file: &std::path::Path, name: &str) -> Result<bool, StoreError> {
        self.store.publish_local(file, name)
    }
}

/// Publications that come while a takeover is at work are all in what it takes over: log increments at once, windows by another
/// checkpoint.
#[test]
fn what_is_published_while_a_takeover_is_at_work_is_taken_over_too() {
    let (mut rig, end) = a_filesystem_with_a_tail();
    let before: Vec<String> = rig.store.image().names().map(str::to_owned).collect();
    remove(&mut rig, "not synced");
    let end = publish(&mut rig, end);
    put(&mut rig, "log", 6000);
    let end = publish(&mut rig, end);
    put(&mut rig, "window", 6000);
    rig.drain();
    put(&mut rig, "last log", 6000);
    let end = shipped(&rig).max(end);
    publish(&mut rig, end);

    let log = CallLog::new();
    let store = SimStore::from_image(&rig.store.image(), &log);
    let new: Vec<String> = rig.store.image().names().map(str::to_owned).filter(|name| !before.contains(name)).collect();
    let mut publications = Vec::new();
    for name in new.iter().filter(|name| name.starts_with("gen/")).rev() {
        publications.push(Publication::decode(&store.get(name).expect("there")).expect("whole"));
        store.delete(name).expect("deleted");
    }
    assert!(publications.len() >= 4, "{}", publications.len());
    let disk = SimDisk::new(&log);
    let busy = Arc::new(Busy { store: store.clone(), publications: publications.into() });
    let world = World { media: Arc::new(disk.clone()), store: busy.clone(), ..rig.world.clone() };
    drop(mount(&world, &small(), &mut |_, _| {}).expect("taken over"));
    assert!(busy.publications.lock().is_empty());
    let mut other = Rig::mount(log, disk, store, Arc::default(), 5, &small()).expect("mounts");
    assert_whole(&mut other);
    ["log", "window", "last log"].iter().for_each(|name| assert_holds(&mut other, name, 6000));
    other.drain();
    assert_clean(&other.store, Some(&other.disk.image()), "shipped");
}

/// A mount finds the log increments of its earlier life, also behind the number that it recorded last.
#[test]
fn a_mount_takes_up_its_own_log_increments_and_an_old_copy_does_not() {
    for fetches in [1, 16] {
        let tuning = Tuning { fetches, ..small() };
        let (mut rig, mut end) = a_filesystem_with_a_tail();
        let copy = rig.disk.image_durable();
        for n in 0..40 {
            put(&mut rig, &format!("more {n}"), 100);
            end = publish(&mut rig, end);
        }
        let (image, next) = (rig.store.image(), free(&rig.store));
        // The process dies, and the power goes.
        for disk in [rig.disk.image(), rig.disk.image_durable()] {
            let log = CallLog::new();
            let (disk, store) = (SimDisk::from_image(&disk, &log), SimStore::from_image(&image, &log));
            assert_clean(&store, Some(&disk.image()), "behind its own logs");
            let mut again = Rig::mount(log, disk, store, Arc::default(), 7, &tuning).expect("its own");
            assert_eq!(free(&again.store), next, "nobody had to be fenced");
            (0..40).for_each(|n| assert_holds(&mut again, &format!("more {n}"), 100));
            again.drain();
            assert_clean(&again.store, Some(&again.disk.image()), "went on");
            assert_clean(&again.store, None, "went on");
        }
        let log = CallLog::new();
        let (disk, store) = (SimDisk::from_image(&copy, &log), SimStore::from_image(&image, &log));
        let refused = Rig::mount(log, disk, store, Arc::default(), 8, &tuning).err();
        assert!(matches!(refused, Some(MountError::OldState { published }) if published <= end), "{refused:?}");
    }
}

#[test]
fn a_damaged_log_increment_and_a_damaged_tail_are_named() {
    let (rig, _) = a_filesystem_with_a_tail();
    let newest = free(&rig.store);
    let name = names::publication(newest.generation, newest.number - 1);
    let bytes = rig.store.get(&name).expect("there");
    let changed = |publication: &Publication| {
        let store = SimStore::from_image(&rig.store.image(), &CallLog::new());
        store.put(&name, publication.encode().into()).expect("put");
        let store: Arc<dyn Store> = Arc::new(store);
        let report = check(&store, None, Depth::Data, &mut |_, _, _| {});
        assert!(report.problems.iter().any(|problem| problem.place == name), "{:?}", report.problems);
    };
    let publication = Publication::decode(&bytes).expect("whole");
    let Body::Log(log) = &publication.body else { panic!("a log") };
    let mut flipped = log.batches.to_vec();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    changed(&Publication { body: Body::Log(Log { batches: flipped.into() }), ..publication.clone() });
    changed(&Publication { end: publication.start, ..publication.clone() });

    let other = elsewhere(&rig.store.image(), 2, &small()).expect("taken over");
    let disk = SimDisk::from_image(&other.disk.image_durable(), &CallLog::new());
    let names = disk.list(CHECKPOINTS).expect("listed");
    let tail = names.iter().find(|name| name.ends_with(".tail")).expect("a tail");
    let tail = format!("{CHECKPOINTS}/{tail}");
    let file = disk.open(&tail).expect("opened");
    file.write_at(b"X", file.len().expect("a length") / 2).expect("written");
    let store: Arc<dyn Store> = Arc::new(SimStore::from_image(&other.store.image(), &CallLog::new()));
    let report = check(&store, Some(Arc::new(disk)), Depth::Data, &mut |_, _, _| {});
    assert!(report.problems.iter().any(|problem| problem.place == tail), "{:?}", report.problems);
}
