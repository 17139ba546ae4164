//! Stories that random histories do not come to, each crashed after every call. With all rules in place nothing is wrong; the
//! canaries say which rule makes that so.

use crate::counts::Counts;
use crate::crash::quietly;
use skylog::base::clock::SimClock;
use skylog::base::random::SeededRandom;
use skylog::follow::lease::FollowerLease;
use skylog::format::ids::{InodeNo, Uuid};
use skylog::format::lease::Owner;
use skylog::format::names::LEASES;
use skylog::format::repair_file::RepairFile;
use skylog::format::store_file::StoreFile;
use skylog::format::superblock::Superblock;
use skylog::journal::Config;
use skylog::locate::CacheBytes;
use skylog::media::Media;
use skylog::media::sim::{CallLog, Image, Limits, SimDisk};
use skylog::recovery::{Holding, MkfsOptions, Tuning, mkfs};
use skylog::rig::{Rig, new_store, small};
use skylog::store::sim::{Recording, SimStore, StoreImage};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How many states were looked at; with what was wrong in the last of them.
pub type Told = Result<u64, (u64, String)>;

fn limits() -> Limits {
    Limits { subsets_up_to: 6, tears_max: 2, random: 8, plans_max: 80, seed: 1 }
}

fn owner(name: &str) -> Owner {
    Owner { host: name.to_owned(), ..Owner::of_test(name) }
}

pub fn tuning(name: &str) -> Tuning {
    Tuning { owner: owner(name), holding: Holding::TakesOver, ..small() }
}

pub fn make(rig: &mut Rig, name: &str) {
    let (attr, _) = rig.run(|fs, cx| fs.create(cx, InodeNo::ROOT, name.as_bytes(), 0o644)).expect("created");
    rig.run(|fs, cx| fs.write(cx, attr.ino, 0, &[7; 5000])).expect("written");
    rig.run(|fs, cx| fs.release(cx, attr.ino)).expect("released");
    rig.run(|fs, cx| fs.forget(cx, attr.ino, 1)).expect("forgotten");
}

fn unlink(rig: &mut Rig, name: &str) {
    rig.run(|fs, cx| fs.unlink(cx, InodeNo::ROOT, name.as_bytes()).map(|_| ())).expect("removed");
}

pub fn is_whole(rig: &mut Rig, name: &str) -> bool {
    let Ok(Some(attr)) = rig.run(|fs, cx| fs.lookup(cx, InodeNo::ROOT, name.as_bytes())) else { return false };
    rig.run(|fs, cx| fs.read(cx, attr.ino, 0, 6000)).is_ok_and(|bytes| bytes == [7; 5000])
}

pub fn sync(rig: &mut Rig) {
    let db = rig.mounted.db.clone();
    db.journal().when_durable(db.last(), Box::new(|_| {}));
    while db.journal().durable() < db.last() {
        rig.step_journal();
    }
}

/// All of it is shipped, and the filesystem let go.
pub fn let_go(mut rig: Rig) -> (Image, StoreImage) {
    rig.drain();
    rig.mounted.hold.as_ref().expect("it holds it").release();
    rig.mounted.writer.close().expect("the journal closes");
    (rig.disk.image(), rig.store.image())
}

pub fn mount(disk: &Image, store: &StoreImage, name: &str) -> Result<Rig, String> {
    let log = CallLog::new();
    let (disk, store) = (SimDisk::from_image(disk, &log), SimStore::from_image(store, &log));
    Rig::mount(log, disk, store, Arc::default(), 5, &tuning(name)).map_err(|e| format!("the mount failed: {e}"))
}

/// Mounts, makes a file and syncs it; then the same crashed after every call, mounted again, and what was synced is looked for.
/// `before` is there in any case.
fn crashed(disk: &Image, store: &StoreImage, name: &str, before: &[&str]) -> Told {
    let mut rig = mount(disk, store, name).map_err(|e| (0, e))?;
    make(&mut rig, "new");
    sync(&mut rig);
    let synced = rig.log.len();
    let recording = Recording::of(&rig.disk, &rig.store);
    let (mut states, mut seen) = (0, BTreeSet::new());
    for crash in recording.crashes_between(&limits(), 0..=synced) {
        // What was promised at that moment is part of what is judged.
        if !seen.insert((crash.hash, crash.after >= synced)) {
            continue;
        }
        states += 1;
        let look = || -> Result<(), String> {
            let mut rig = mount(&crash.disk, &crash.store, name)?;
            let new = ["new"];
            let wanted = before.iter().chain(new.iter().filter(|_| crash.after >= synced));
            match wanted.copied().find(|file| !is_whole(&mut rig, file)) {
                Some(file) => Err(format!("{file} is gone")),
                None => Ok(()),
            }
        };
        let looked = quietly(look).and_then(|looked| looked);
        looked.map_err(|e| (states, format!("after call {} ({:?}): {e}", crash.after, crash.plan)))?;
    }
    Ok(states)
}

/// The first mount of a filesystem on a new machine.
pub fn first_mount() -> Told {
    let (log, clock) = (CallLog::new(), Arc::default());
    let store = new_store(&log, &clock, &SeededRandom::new(1)).expect("made");
    let first = Rig::mount(log.clone(), SimDisk::new(&log), store, clock, 1, &tuning("alpha"));
    let mut first = first.expect("nobody holds it");
    make(&mut first, "old");
    let (_, store) = let_go(first);
    crashed(&Image::default(), &store, "beta", &["old"])
}

/// A machine that let go mounts again, after another had the filesystem: what it holds is withdrawn.
pub fn withdrawn() -> Told {
    let (log, clock) = (CallLog::new(), Arc::default());
    let store = new_store(&log, &clock, &SeededRandom::new(1)).expect("made");
    let first = Rig::mount(log.clone(), SimDisk::new(&log), store, clock, 1, &tuning("alpha"));
    let mut first = first.expect("nobody holds it");
    make(&mut first, "old");
    let (disk, store) = let_go(first);
    let mut other = mount(&Image::default(), &store, "beta").map_err(|e| (0, e))?;
    make(&mut other, "theirs");
    let (_, store) = let_go(other);
    crashed(&disk, &store, "alpha", &["old", "theirs"])
}

/// A writer deletes beside a follower that reads an older state.
pub fn followed() -> Told {
    delete_beside_follower(None).map_err(|what| (1, what)).map(|()| 1)
}

/// The same with each bit of the follower's lease flipped: what cannot be read holds everything.
pub fn followed_by_damage() -> Told {
    for bit in 0.. {
        match delete_beside_follower(Some(bit)) {
            Ok(()) => {}
            Err(what) if what == NO_SUCH_BIT => return Ok(bit),
            Err(what) => return Err((bit + 1, format!("bit {bit} of a lease is flipped: {what}"))),
        }
    }
    unreachable!("a lease is short")
}

const NO_SUCH_BIT: &str = "the lease has no such bit";

fn delete_beside_follower(flip: Option<u64>) -> Result<(), String> {
    let mut rig = Rig::new(1, &small());
    make(&mut rig, "dies");
    rig.drain();
    let (store, clock, random) = (rig.world.store.clone(), rig.world.clock.clone(), &*rig.world.random);
    let uuid = rig.mounted.superblock.uuid;
    let follower = FollowerLease::take(store, clock, random, uuid, Owner::of_test("reader")).expect("taken");
    let objects = |rig: &Rig| -> BTreeSet<String> {
        let image = rig.store.image();
        image.names().filter(|name| !name.starts_with(LEASES)).map(str::to_owned).collect()
    };
    if let Some(bit) = flip {
        let name = rig.world.store.list(LEASES).expect("listed").remove(0);
        let mut lease = rig.world.store.get(&name).expect("there").to_vec();
        let at = usize::try_from(bit / 8).expect("short");
        *lease.get_mut(at).ok_or(NO_SUCH_BIT)? ^= 1 << (bit % 8);
        rig.world.store.put(&name, lease.into()).expect("put");
    }
    let before = objects(&rig);
    unlink(&mut rig, "dies");
    for name in ["next", "after"] {
        make(&mut rig, name);
        rig.drain();
        unlink(&mut rig, name);
        rig.drain();
    }
    for _ in 1..=5 {
        rig.advance(Duration::from_secs(1));
        rig.settle();
        if let Some(gone) = before.difference(&objects(&rig)).next().filter(|_| follower.is_valid()) {
            return Err(format!("{gone} is deleted while a follower that holds a lease may read it"));
        }
    }
    Ok(())
}

/// A writer that has lost the fence promises nothing, also of what its own disk has.
pub fn fenced() -> Told {
    let mut rig = Rig::new(1, &small());
    make(&mut rig, "mine");
    sync(&mut rig);
    let other = Rig::mount(rig.log.clone(), SimDisk::new(&rig.log), rig.store.clone(), rig.clock.clone(), 9, &small());
    other.expect("taken over").drain();
    rig.mounted.checkpointer.wanted().checkpoint();
    let lost = (0..100).find_map(|_| {
        rig.step_journal();
        rig.step_checkpointer();
        let job = rig.mounted.desk.take_job()?;
        rig.mounted.shipper.run(&job).err().filter(|e| e.ends_writing())
    });
    // As whoever runs the shipper does.
    rig.mounted.db.journal().latch(lost.expect("it finds the closing object").to_string());
    let (told, db) = (Arc::new(Mutex::new(None)), rig.mounted.db.clone());
    let tell = told.clone();
    db.journal()
        .when_synced(db.journal().durable(), Box::new(move |synced| *tell.lock().expect("no panic") = Some(synced)));
    let told = told.lock().expect("no panic").take();
    match told.expect("answered at once") {
        Err(_) => Ok(1),
        Ok(()) => Err((1, "an fsync succeeds on a machine whose filesystem another has taken over".to_owned())),
    }
}

/// Each bit of the note of a repair.
pub fn repair_file() -> Told {
    let bytes = RepairFile { id: Uuid(0xabc), from: 17 }.encode();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Some(found) = RepairFile::decode(&flipped) {
            return Err((bit as u64, format!("bit {bit} flipped, and it reads {found:?}")));
        }
    }
    Ok(bytes.len() as u64 * 8)
}

/// A journal whose segments are large enough for directories of several blocks, and a bit of one flipped: the directory is made anew
/// from the groups, and everything can be read.
pub fn journal_directory() -> Told {
    Journal::new(320).flip(12 << 10, |rig| rig.mounted.writer.close().expect("the journal closes"))
}

/// The same with a segment that a checkpoint covers, of which a mount reads nothing but its footer.
pub fn journal_footer() -> Told {
    let commit = |rig: &mut Rig| {
        let figures = rig.mounted.checkpointer.figures();
        let before = figures.lock().checkpoint;
        rig.mounted.checkpointer.wanted().checkpoint();
        while figures.lock().checkpoint == before {
            rig.step_checkpointer();
            rig.step_journal();
        }
    };
    Journal::new(640).flip(4 << 10, commit)
}

/// A filesystem with one file, written in pieces, of which nothing is shipped.
struct Journal {
    rig: Rig,
    tuning: Tuning,
    ino: InodeNo,
    objects: u64,
}

/// Longer than what lies in an inode.
const PIECE: u64 = 2100;

impl Journal {
    fn new(objects: u64) -> Journal {
        let journal = Config { journal_bytes: 4 << 20, queue_bytes_max: 1 << 20, ..small().journal };
        let tuning = Tuning { journal, cache: CacheBytes { data: 0, indexes: 0 }, ..small() };
        let (log, clock) = (CallLog::new(), Arc::<SimClock>::default());
        let store = SimStore::new(&log);
        let options = MkfsOptions { segment_size: 1 << 20, ..MkfsOptions::default() };
        mkfs(&store, &*clock, &SeededRandom::new(1), options).expect("made");
        let rig = Rig::mount(log.clone(), SimDisk::new(&log), store, clock, 1, &tuning);
        let mut rig = rig.expect("a new filesystem");
        let (attr, _) = rig.run(|fs, cx| fs.create(cx, InodeNo::ROOT, b"large", 0o644)).expect("created");
        for n in 0..objects {
            rig.run(|fs, cx| fs.write(cx, attr.ino, n * PIECE, &[n as u8; PIECE as usize])).expect("written");
        }
        sync(&mut rig);
        Journal { rig, tuning, ino: attr.ino, objects }
    }

    /// Ends the mount, and flips bits in the last bytes of the segment that is sealed: all can be read all the same.
    fn flip(mut self, tail: usize, end: impl FnOnce(&mut Rig)) -> Told {
        end(&mut self.rig);
        let disk = self.rig.disk.image();
        let slot = disk.names().find(|name| tail_of(&disk, name, tail).is_some_and(|(_, used)| used.len() > tail >> 8));
        let slot = slot.expect("one segment is sealed");
        let (bytes, used) = tail_of(&disk, slot, tail).expect("a slot");
        let random = SeededRandom::new(1);
        for count in 1..=300 {
            let pick = |of: usize| usize::try_from(random.below(of as u64)).expect("few");
            // Half of them in what says where the rest is.
            let at = if count % 2 == 0 { bytes.len() - (4 << 10) + pick(96) } else { used[pick(used.len())] };
            let flipped = SimDisk::from_image(&disk, &CallLog::new());
            let bit = bytes[at] ^ 1 << random.below(8);
            flipped.open(slot).expect("there").write_at(&[bit], at as u64).expect("written");
            let looked = quietly(|| self.look(flipped)).and_then(|looked| looked);
            looked.map_err(|e| (count, format!("a bit at {at} of {slot} is flipped: {e}")))?;
        }
        Ok(300)
    }

    fn look(&self, disk: SimDisk) -> Result<(), String> {
        let log = disk.log().clone();
        let store = SimStore::from_image(&self.rig.store.image(), &log);
        let mounted = Rig::mount(log, disk, store, Arc::default(), 5, &self.tuning);
        let mut rig = mounted.map_err(|e| format!("the mount failed: {e}"))?;
        for n in 0..self.objects {
            let read = rig.run(|fs, cx| fs.read(cx, self.ino, n * PIECE, PIECE as u32));
            let read = read.map_err(|e| format!("piece {n} cannot be read, though its group is whole: {e}"))?;
            if read != [n as u8; PIECE as usize] {
                return Err(format!("piece {n} reads wrong"));
            }
        }
        Ok(())
    }
}

/// The bytes of a journal slot, and which of the last are not zero.
fn tail_of(disk: &Image, name: &str, tail: usize) -> Option<(Vec<u8>, Vec<usize>)> {
    let file = SimDisk::from_image(disk, &CallLog::new()).open(name).expect("listed");
    let mut bytes = vec![0; usize::try_from(file.len().expect("known")).expect("small")];
    file.read_at(&mut bytes, 0).expect("read");
    let tail = bytes.len().checked_sub(tail).filter(|_| name.starts_with("journal/"))?;
    let used = (tail..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    Some((bytes, used))
}

/// Each bit of the file that says which store a state directory belongs to.
pub fn store_file() -> Told {
    let superblock =
        Superblock { uuid: Uuid(0xabc), created: 1, segment_size: 1 << 20, append_only: false, usage: true };
    let file = StoreFile { url: "s3://bucket/some place".into(), endpoint: None, superblock };
    let bytes = file.encode();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(found) = StoreFile::decode(&flipped) {
            return Err((bit as u64, format!("bit {bit} flipped, and it reads {:?}", found.url)));
        }
    }
    Ok(bytes.len() as u64 * 8)
}

/// A story that is crashed after every call.
pub fn crashed_everywhere(story: fn() -> Told) {
    let states = story().expect("survived");
    Counts { part: "stories", histories: 1, states, kills: states, ..Counts::default() }.print();
    assert!(states > 50, "{states} states");
}

#[test]
fn the_first_mount_of_a_machine_may_be_crashed() {
    crashed_everywhere(first_mount);
}

#[test]
fn a_state_directory_that_is_withdrawn_may_be_crashed() {
    crashed_everywhere(withdrawn);
}

#[test]
fn what_a_follower_may_read_stays() {
    followed().expect("it stays");
    assert!(followed_by_damage().expect("it stays") > 500);
}

#[test]
fn a_machine_that_lost_the_fence_promises_nothing() {
    fenced().expect("it promises nothing");
}

#[test]
fn a_damaged_directory_of_a_journal_segment_costs_nothing() {
    journal_directory().expect("all can be read");
    journal_footer().expect("all can be read");
}

#[test]
fn every_flipped_bit_of_a_store_file_is_found() {
    assert!(store_file().expect("found") > 1000);
    assert!(repair_file().expect("found") > 300);
}
