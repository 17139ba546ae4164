//! Filesystems to be damaged, made by the product's own code.

use crate::kinds::Kind;
use crate::views::{self, Tree};
use skylog::base::clock::SimClock;
use skylog::base::random::SeededRandom;
use skylog::cache;
use skylog::checkpoint::Replay;
use skylog::follow;
use skylog::format::ids::InodeNo;
use skylog::format::journal_directory::{DIRECTORY_BLOCK, Footer};
use skylog::format::lease::Owner;
use skylog::format::manifest::Manifest;
use skylog::fs::Place;
use skylog::journal::MANIFEST;
use skylog::media::sim::{CallLog, DiskFault, DiskOp, Image, Nth, SimDisk};
use skylog::recovery::{Holding, Tuning, World};
use skylog::rig::{Rig, new_store, small};
use skylog::store::sim::{SimStore, StoreImage};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

const ROOT: InodeNo = InodeNo::ROOT;

/// A store and a state directory that nobody has mounted.
pub struct Scene {
    pub name: &'static str,
    pub disk: Image,
    pub store: StoreImage,
    pub tuning: Tuning,
    /// All that can be damaged.
    pub objects: Vec<Object>,
    /// What there is, seen from the state directory,
    pub local: Tree,
    /// and from the store alone.
    pub stored: Tree,
}

/// A file of the state directory, or an object of the store.
pub struct Object {
    pub kind: Kind,
    pub local: bool,
    pub name: String,
    pub bytes: Vec<u8>,
    /// What it is called in messages: one of these.
    pub called: Vec<String>,
    /// Bytes of it that are left from what it was before, or that are made anew from the others when they are not whole: the
    /// directory of a journal segment.
    pub spare: Range<u64>,
    /// Why nobody looks at it any more, if nobody does.
    pub unseen: Option<&'static str>,
}

impl Scene {
    pub fn bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.bytes.len() as u64).sum()
    }

    fn new(name: &'static str, rig_disk: &SimDisk, store: &SimStore, tuning: Tuning) -> Scene {
        let (disk, store) = (rig_disk.image(), store.image());
        let mut objects: Vec<Object> = store.names().map(|name| in_store(&store, name)).collect();
        let manifest = disk.file(MANIFEST).expect("there is a manifest").to_vec();
        let manifest = Manifest::decode(&manifest).expect("whole");
        objects.extend(disk.names().filter_map(|name| on_disk(&disk, &store, &manifest, name)));
        let mut scene = Scene { name, disk, store, tuning, objects, local: Tree::new(), stored: Tree::new() };
        scene.local = views::local(&scene.machine()).expect("mounts");
        scene.stored = views::elsewhere(&scene.machine()).expect("mounts");
        let followed = views::follow(&scene.machine()).expect("follows");
        assert_eq!(views::difference(&scene.stored, &followed), None, "{name}: a follower sees what a mount sees");
        for tree in [&scene.local, &scene.stored] {
            assert!(tree.len() > 10 && tree.values().all(Result::is_ok), "{name}: {tree:?}");
        }
        scene
    }

    /// It, undamaged.
    pub fn machine(&self) -> views::Machine {
        let log = CallLog::new();
        let disk = SimDisk::from_image(&self.disk, &log);
        let store = SimStore::from_image(&self.store, &log);
        views::Machine { disk, store, tuning: self.tuning.clone() }
    }
}

fn in_store(store: &StoreImage, name: &str) -> Object {
    let bytes = store.object(name).expect("listed");
    let kind = Kind::in_store(name, bytes);
    let called = vec![name.to_owned()];
    let unseen = kind.unseen().or_else(|| ended(store, name).then_some("of a generation that has ended"));
    Object { kind, local: false, name: name.to_owned(), bytes: bytes.to_vec(), called, spare: 0..0, unseen }
}

/// Whether it is of a generation before the newest.
fn ended(store: &StoreImage, name: &str) -> bool {
    let newest = store.names().filter(|name| name.starts_with("gen/")).max().expect("there is a generation");
    name.starts_with("gen/") && name.rsplit_once('/').map(|(dir, _)| dir) < newest.rsplit_once('/').map(|(dir, _)| dir)
}

fn on_disk(disk: &Image, store: &StoreImage, manifest: &Manifest, name: &str) -> Option<Object> {
    let bytes = disk.file(name).expect("listed").to_vec();
    let len = bytes.len() as u64;
    let object = |kind: Kind, called: Vec<String>, spare| {
        let called = called.into_iter().chain([name.to_owned()]).collect();
        Some(Object {
            kind,
            local: true,
            name: name.to_owned(),
            bytes: bytes.clone(),
            called,
            spare,
            unseen: Kind::unseen(kind),
        })
    };
    if let Some(slot) = name.strip_prefix("journal/slot-") {
        let slot: u32 = slot.parse().expect("a number");
        let Some(entry) = manifest.journal.iter().find(|entry| entry.slot == slot) else {
            assert!(manifest.free.iter().any(|free| free.slot == slot), "{name} is not in the manifest");
            return object(Kind::JournalFree, Vec::new(), 0..len);
        };
        let called = vec![format!("journal segment {}", entry.number)];
        let footer = Footer::decode(&bytes[bytes.len() - DIRECTORY_BLOCK..]);
        let newest = manifest.journal.iter().rfind(|entry| entry.end.is_some_and(|end| end.offset > 0));
        if newest.is_some_and(|newest| newest.number == entry.number) {
            return object(Kind::JournalLive, called, entry.end.expect("closed cleanly").offset..len);
        }
        return match footer.ok().filter(|footer| footer.segment == entry.number && footer.nonce == entry.nonce) {
            Some(footer) => object(Kind::JournalSealed, called, footer.end..len),
            None => panic!("{name} has no directory"),
        };
    }
    let kind = Kind::on_disk(name).unwrap_or_else(|| panic!("what is {name}?"));
    if kind != Kind::Nodes {
        return object(kind, Vec::new(), 0..0);
    }
    let stored = name.replace("nodes/", "seg/").replace('-', "/");
    let is_copy = store.object(&stored).is_some();
    let object = object(kind, vec![stored], 0..0)?;
    Some(Object { unseen: is_copy.then_some("a copy of what the store has"), ..object })
}

/// Everything that is damaged.
pub fn all() -> Vec<Scene> {
    let near = written("a store on this machine", None);
    let far = written("a store that is far away", Some(cache::Limits { bytes_max: 256 << 10, free_bytes_min: 0 }));
    let taken = taken_over(&near);
    vec![near, far, taken]
}

fn tuning(cache_files: Option<cache::Limits>) -> Tuning {
    let mut tuning = small();
    tuning.cache_files = cache_files;
    tuning.policy.replay = Replay::after(100, 1 << 20);
    tuning.policy.segment_bytes = 8 << 10;
    tuning.owner = Owner::of_test("damage");
    tuning.holding = Holding::TakesOver;
    tuning
}

/// A writer that was closed with windows, logs, a checkpoint and batches that wait; two others were there before it, and a
/// follower is.
fn written(name: &'static str, cache_files: Option<cache::Limits>) -> Scene {
    let tuning = tuning(cache_files);
    let (log, clock) = (CallLog::new(), Arc::new(SimClock::default()));
    let store = new_store(&log, &clock, &SeededRandom::new(7)).expect("made");
    let rig = Rig::mount(log.clone(), SimDisk::new(&log), store.clone(), clock.clone(), 1, &tuning);
    let mut rig = rig.expect("mounted");
    fill(&mut rig);
    rig.drain();
    drop(rig);
    let mut rig = Rig::mount(log.clone(), SimDisk::new(&log), store, clock, 2, &tuning).expect("taken over");
    put(&mut rig, ROOT, b"of the second writer", 3000, 2);
    rig.drain();
    put(&mut rig, ROOT, b"in an increment", 2500, 3);
    rig.drain();
    // It dies with its lease.
    let disk: Arc<SimDisk> = Arc::new(SimDisk::new(&log));
    let world = World { media: disk.clone(), cache_media: disk, known: None, ..rig.world.clone() };
    drop(follow::open(&world, &tuning).expect("follows"));
    // What was in memory is read from the store, and kept in cache files.
    let mut rig = rig.remount(3, &tuning).expect("mounts again");
    let before = views::of_rig(&rig);
    while rig.step_keeper() || rig.step_ahead() {}
    rig.mounted.db.journal().tail().set_open(true);
    put(&mut rig, ROOT, b"in another increment", 100, 9);
    rig.drain();
    put(&mut rig, ROOT, b"in a log increment", 2500, 4);
    sync_to_store(&mut rig);
    put(&mut rig, ROOT, b"in a checkpoint", 40_000, 5);
    rig.mounted.checkpointer.wanted().checkpoint();
    while rig.step_journal() || rig.step_checkpointer() {}
    put(&mut rig, ROOT, b"in the journal", 30_000, 6);
    rig.mounted.writer.close().expect("closed");
    let after = views::of_rig(&rig);
    assert_eq!(after.len(), before.len() + 4);
    let scene = Scene::new(name, &rig.disk, &rig.store, tuning);
    assert_eq!(views::difference(&after, &scene.local), None, "{name}: a mount finds what was written");
    scene
}

/// A takeover that ended between its manifest and its journal.
fn taken_over(from: &Scene) -> Scene {
    let log = CallLog::new();
    let (disk, store) = (SimDisk::new(&log), SimStore::from_image(&from.store, &log));
    disk.fail(Nth::new(1).of(DiskOp::Create).on("journal/").forever(), DiskFault::Failed);
    let mounted = Rig::mount(log, disk.clone(), store.clone(), Arc::default(), 5, &from.tuning);
    assert!(mounted.is_err() && disk.failed() > 0, "it goes no further");
    let scene = Scene::new("a takeover that goes on", &disk, &store, from.tuning.clone());
    assert_eq!(views::difference(&from.stored, &scene.local), None, "a takeover finds what was stored");
    scene
}

fn contents(len: usize, seed: u64) -> Vec<u8> {
    let random = SeededRandom::new(seed);
    (0..len).map(|_| random.below(256) as u8).collect()
}

fn put(rig: &mut Rig, dir: InodeNo, name: &[u8], len: usize, seed: u64) -> InodeNo {
    let ino = rig.run(|fs, cx| fs.create(cx, dir, name, 0o640)).expect("created").0.ino;
    let (data, mut at) = (contents(len, seed), 0);
    while at < len {
        at += rig.run(|fs, cx| fs.write(cx, ino, at as u64, &data[at..])).expect("written").0 as usize;
        rig.step_journal();
    }
    rig.run(|fs, cx| fs.release(cx, ino)).expect("released");
    rig.run(|fs, cx| fs.forget(cx, ino, 1)).expect("forgotten");
    ino
}

/// Files of every kind.
fn fill(rig: &mut Rig) {
    let dir = rig.run(|fs, cx| fs.mkdir(cx, ROOT, b"dir", 0o750)).expect("made").0.ino;
    let deep = rig.run(|fs, cx| fs.mkdir(cx, dir, b"deep", 0o700)).expect("made").0.ino;
    let tiny = put(rig, dir, b"tiny", 100, 10);
    let holes = put(rig, dir, b"holes", 5000, 11);
    rig.run(|fs, cx| fs.write(cx, holes, 30_000, &contents(2000, 12))).expect("written");
    let shared = put(rig, deep, b"shared", 6000, 13);
    let copy = put(rig, deep, b"copy", 0, 0);
    let place = |ino| Place { ino, offset: 0 };
    rig.run(|fs, cx| fs.copy_file_range(cx, place(shared), place(copy), 6000)).expect("copied");
    rig.run(|fs, cx| fs.link(cx, tiny, deep, b"tiny too")).expect("linked");
    rig.run(|fs, cx| fs.forget(cx, tiny, 1)).expect("forgotten");
    rig.run(|fs, cx| fs.symlink(cx, ROOT, b"link", b"dir/tiny")).expect("linked");
    rig.run(|fs, cx| fs.mknod(cx, ROOT, b"fifo", libc::S_IFIFO | 0o600, 0)).expect("made");
    rig.run(|fs, cx| fs.set_xattr(cx, tiny, b"user.colour", b"blue", 0)).expect("set");
    for n in 0..6 {
        put(rig, dir, format!("file {n}").as_bytes(), 2200 + n * 100, 20 + n as u64);
    }
}

/// An fsync that waits for the store.
fn sync_to_store(rig: &mut Rig) {
    let last = rig.mounted.db.last();
    rig.mounted.db.journal().when_durable(last, Box::new(|_| {}));
    while rig.step_journal() {}
    rig.mounted.syncer.stored().when_stored(last, Box::new(|_| {}));
    for _ in 0..10 {
        rig.step_syncer();
        rig.advance(Duration::from_secs(1));
    }
    assert_eq!(rig.mounted.syncer.stored().figures().increments, 1, "a log increment is published");
}
