//! What a filesystem holds is counted exactly, whatever happens to it: usage equals a full scan after crashes, checkpoints,
//! and takeovers from the store alone, with files that have no name and are still open; limits travel with the filesystem; no
//! inode number is given twice.

use skylog::base::random::SeededRandom;
use skylog::check::{Depth, check};
use skylog::format::batch::TreeId;
use skylog::format::ids::{InodeNo, Lsn};
use skylog::format::inode::Inode;
use skylog::format::key::Key;
use skylog::format::usage::{OnLimit, Usage, UsageLimit};
use skylog::fs::{Error, SetAttr, SetLimit};
use skylog::media::sim::{CallLog, Image, SimDisk};
use skylog::recovery::{MkfsOptions, Tuning, World, mkfs, mount};
use skylog::rig::{Rig, small};
use skylog::store::Store;
use skylog::store::sim::SimStore;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const ROOT: InodeNo = InodeNo::ROOT;

/// The sum over all inodes.
fn scanned(rig: &mut Rig) -> Usage {
    let db = rig.mounted.db.clone();
    let rows = rig.run(|_, cx| Ok(db.begin(&cx.pins).scan(TreeId::Files, &[0], &[0xff; 9], usize::MAX)?));
    let mut usage = Usage::default();
    for (key, value) in rows.expect("the map can be read") {
        if let Key::Inode(_) = Key::decode(&key).expect("a key") {
            usage.inodes += 1;
            usage.blocks += Inode::decode(&value).expect("an inode").blocks;
        }
    }
    usage
}

fn assert_counted(rig: &mut Rig, when: &str) {
    let (usage, _) = rig.mounted.db.usage();
    assert_eq!(usage, Some(scanned(rig)), "{when}");
}

/// The checker compares what is stored with its own scan.
fn assert_clean(rig: &Rig, image: Option<&Image>, when: &str) {
    let store: Arc<dyn Store> = Arc::new(SimStore::from_image(&rig.store.image(), &CallLog::new()));
    let media = image.map(|image| Arc::new(SimDisk::from_image(image, &CallLog::new())) as _);
    let report = check(&store, media, Depth::Data, &mut |_, _, _| {});
    assert!(report.is_clean(), "{when}: {:?}", report.problems);
}

/// Mounts what a crash left of the disk; an empty image is a takeover from the store alone.
fn mounted(rig: &Rig, image: &Image, seed: u64) -> Rig {
    let log = CallLog::new();
    let disk = SimDisk::from_image(image, &log);
    let store = SimStore::from_image(&rig.store.image(), &log);
    Rig::mount(log, disk, store, rig.clock.clone(), seed, &small()).expect("what a crash left can be mounted")
}

/// The newest batch that a mount of this finds, before it adds any.
fn recovered(rig: &Rig, image: &Image, seed: u64) -> Lsn {
    let log = CallLog::new();
    let disk = Arc::new(SimDisk::from_image(image, &log));
    let world = World {
        media: disk.clone(),
        cache_media: disk,
        store: Arc::new(SimStore::from_image(&rig.store.image(), &log)),
        clock: rig.clock.clone(),
        random: Arc::new(SeededRandom::new(seed)),
        known: None,
    };
    mount(&world, &small(), &mut |_, _| {}).expect("what a crash left can be mounted").db.last()
}

/// What a user does, by chance.
struct User {
    random: SeededRandom,
    serial: u64,
    names: Vec<(String, InodeNo)>,
    /// Open; they may have a name or not.
    open: Vec<InodeNo>,
    /// Inodes made, and the batches that made them.
    made: BTreeMap<InodeNo, Lsn>,
}

impl User {
    fn new(seed: u64) -> User {
        User { random: SeededRandom::new(seed), serial: 0, names: Vec::new(), open: Vec::new(), made: BTreeMap::new() }
    }

    fn pick(&self, len: usize) -> usize {
        usize::try_from(self.random.below(len as u64)).expect("small")
    }

    /// An operation may be refused by the limit, and by nothing else.
    fn act(&mut self, rig: &mut Rig) -> bool {
        match self.operation(rig) {
            Ok(()) => true,
            Err(Error::Limit(OnLimit::NoSpace)) => false,
            Err(e) => panic!("{e}"),
        }
    }

    fn operation(&mut self, rig: &mut Rig) -> Result<(), Error> {
        match self.random.below(12) {
            0..=2 => self.create(rig),
            3..=6 if !self.names.is_empty() => {
                let (ino, offset) = (self.names[self.pick(self.names.len())].1, self.random.below(12_000));
                let data = vec![1; 1 + self.pick(7000)];
                rig.run(|fs, cx| fs.write(cx, ino, offset, &data)).map(drop)
            }
            7 if !self.names.is_empty() => {
                let (ino, size) = (self.names[self.pick(self.names.len())].1, self.random.below(9000));
                let set = SetAttr { size: Some(size), ..SetAttr::default() };
                rig.run(|fs, cx| fs.setattr(cx, ino, set)).map(drop)
            }
            8 if !self.names.is_empty() => {
                let (name, _) = self.names.swap_remove(self.pick(self.names.len()));
                rig.run(|fs, cx| fs.unlink(cx, ROOT, name.as_bytes())).map(drop)
            }
            9 if self.names.len() > 1 => {
                let (from, ino) = self.names.swap_remove(self.pick(self.names.len()));
                let to = self.pick(self.names.len());
                self.names[to].1 = ino;
                let to = self.names[to].0.clone();
                rig.run(|fs, cx| fs.rename(cx, ROOT, from.as_bytes(), ROOT, to.as_bytes(), 0)).map(drop)
            }
            10 if !self.open.is_empty() => {
                let ino = self.open.swap_remove(self.pick(self.open.len()));
                rig.run(|fs, cx| fs.release(cx, ino))
            }
            _ => {
                rig.advance(Duration::from_millis(self.random.below(4000)));
                Ok(())
            }
        }
    }

    /// A new file that stays open.
    fn create(&mut self, rig: &mut Rig) -> Result<(), Error> {
        self.serial += 1;
        let name = format!("file-{}", self.serial);
        let (attr, lsn) = rig.run(|fs, cx| fs.create(cx, ROOT, name.as_bytes(), 0o600))?;
        rig.run(|fs, cx| fs.forget(cx, attr.ino, 1))?;
        let before = self.made.insert(attr.ino, lsn);
        assert_eq!(before, None, "inode {} was given before", attr.ino);
        self.names.push((name, attr.ino));
        self.open.push(attr.ino);
        Ok(())
    }

    /// Another mount: nothing is open, and only what it recovered, up to this batch, has ever been.
    fn meet(&mut self, rig: &mut Rig, recovered: Lsn) {
        self.made.retain(|_, lsn| *lsn <= recovered);
        self.open.clear();
        self.names.clear();
        for name in (1..=self.serial).map(|n| format!("file-{n}")) {
            let found = rig.run(|fs, cx| fs.lookup(cx, ROOT, name.as_bytes())).expect("looked up");
            if let Some(attr) = found {
                rig.run(|fs, cx| fs.forget(cx, attr.ino, 1)).expect("forgotten");
                self.names.push((name, attr.ino));
            }
        }
    }
}

fn step(rig: &mut Rig, random: &SeededRandom) {
    match random.below(5) {
        0 => rig.step_journal(),
        1 => rig.step_checkpointer(),
        2 => rig.step_shipper(),
        _ => rig.step(),
    };
}

/// Lives that end in a crash of some sort, each begun from what the one before left. With a limit half of the operations that
/// grow are refused.
fn lives(seed: u64, limit: UsageLimit) -> (u64, u64) {
    let mut rig = Rig::new(seed, &small());
    let set = SetLimit { bytes: Some(limit.bytes), inodes: Some(limit.inodes), on_limit: None };
    rig.run(|fs, cx| fs.set_limit(cx, set)).expect("set");
    rig.drain();
    let mut user = User::new(seed);
    let (mut done, mut refused) = (0, 0);
    for life in 0..6 {
        let when = format!("seed {seed}, life {life}");
        for _ in 0..60 {
            let acted = user.act(&mut rig);
            (done, refused) = (done + u64::from(acted), refused + u64::from(!acted));
            step(&mut rig, &user.random);
            assert_counted(&mut rig, &when);
            // Nothing here overwrites a part of a block so often that it would count.
            let usage = rig.mounted.db.usage().0.expect("counted");
            assert!(limit.inodes == 0 || usage.inodes <= limit.inodes, "{when}: {usage:?} above {limit:?}");
        }
        let image = match user.random.below(4) {
            0 => rig.disk.image(),
            1 => rig.disk.image_durable(),
            2 => Image::default(),
            _ => {
                rig.drain();
                Image::default()
            }
        };
        assert_clean(&rig, Some(&rig.disk.image_durable()), &when);
        assert_clean(&rig, None, &when);
        let end = recovered(&rig, &image, seed);
        rig = mounted(&rig, &image, 100 * seed + life);
        assert_counted(&mut rig, &format!("{when}, mounted again"));
        assert_eq!(rig.mounted.db.usage().1, limit, "{when}: the limit travels");
        user.meet(&mut rig, end);
    }
    rig.drain();
    assert_counted(&mut rig, "drained");
    assert_clean(&rig, None, "drained");
    (done, refused)
}

#[test]
fn usage_equals_a_full_scan_through_crashes_checkpoints_and_takeovers() {
    for seed in 0..12 {
        let (_, refused) = lives(seed, UsageLimit::default());
        assert_eq!(refused, 0);
    }
}

#[test]
fn usage_stays_exact_where_a_limit_refuses() {
    for seed in 20..28 {
        let limit = UsageLimit { bytes: 40 << 10, inodes: 12, on_limit: OnLimit::NoSpace };
        let (done, refused) = lives(seed, limit);
        assert!(done > 100 && refused > 20, "seed {seed}: {done} done, {refused} refused");
    }
}

#[test]
fn a_limit_made_with_the_filesystem_holds_wherever_it_is_mounted() {
    let limit = UsageLimit { bytes: 8192, inodes: 2, on_limit: OnLimit::Quota };
    let new = Rig::new(1, &small());
    let store = SimStore::new(&new.log);
    let options = MkfsOptions { segment_size: 64 << 10, limit, ..MkfsOptions::default() };
    mkfs(&store, &*new.clock, &SeededRandom::new(1), options).expect("made");
    let tuning: Tuning = small();
    let disk = SimDisk::new(&new.log);
    let mut rig = Rig::mount(new.log.clone(), disk, store, new.clock.clone(), 2, &tuning).expect("mounted");
    assert_eq!(rig.mounted.db.usage(), (Some(Usage::EMPTY), limit));
    let ino = rig.run(|fs, cx| fs.create(cx, ROOT, b"f", 0o600)).expect("created").0.ino;
    assert_eq!(rig.run(|fs, cx| fs.write(cx, ino, 0, &[1; 9000])).expect("short").0, 8192);
    let quota = Err(Error::Limit(OnLimit::Quota));
    assert_eq!(rig.run(|fs, cx| fs.mkdir(cx, ROOT, b"d", 0o700).map(drop)), quota);
    rig.drain();
    let mut rig = mounted(&rig, &Image::default(), 3);
    assert_eq!(rig.mounted.db.usage(), (Some(Usage { inodes: 2, blocks: 16 }), limit));
    assert_eq!(rig.run(|fs, cx| fs.write(cx, ino, 8192, &[1]).map(drop)), quota);
    assert_eq!(rig.run(|fs, cx| fs.mkdir(cx, ROOT, b"d", 0o700).map(drop)), quota);
}

#[test]
fn usage_and_limits_are_part_of_the_prefix_that_a_crash_leaves() {
    let mut rig = Rig::new(5, &small());
    rig.drain();
    let sync = |rig: &mut Rig| {
        rig.mounted.db.journal().when_durable(rig.mounted.db.last(), Box::new(|synced| synced.expect("synced")));
        while rig.step_journal() {}
    };
    let set = |bytes| SetLimit { bytes: Some(bytes), ..SetLimit::default() };
    let ino = rig.run(|fs, cx| fs.create(cx, ROOT, b"f", 0o600)).expect("created").0.ino;
    rig.run(|fs, cx| fs.write(cx, ino, 0, &[1; 5000])).expect("written");
    rig.run(|fs, cx| fs.set_limit(cx, set(1 << 20))).expect("set");
    sync(&mut rig);
    rig.run(|fs, cx| fs.write(cx, ino, 5000, &[1; 5000])).expect("written");
    rig.run(|fs, cx| fs.set_limit(cx, set(1 << 30))).expect("set");
    assert_eq!(rig.mounted.db.usage().0, Some(Usage { inodes: 2, blocks: 20 }));
    let mut rig = mounted(&rig, &rig.disk.image_durable(), 6);
    assert_eq!(rig.mounted.db.usage().0, Some(Usage { inodes: 2, blocks: 10 }));
    assert_eq!(rig.mounted.db.usage().1.bytes, 1 << 20);
    assert_counted(&mut rig, "after the power went");
}

/// [`User::create`] fails when a number comes back that a recovered batch had given out before, to a file that may be long gone.
#[test]
fn an_inode_number_once_published_is_never_given_again_after_a_crash_or_a_takeover() {
    for (seed, from_store) in [(40, false), (41, true)] {
        let mut rig = Rig::new(seed, &small());
        let mut user = User::new(seed);
        for life in 0..8 {
            for _ in 0..1 + 5 * life {
                user.create(&mut rig).expect("created");
                let (name, ino) = user.names.pop().expect("it was just made");
                rig.run(|fs, cx| fs.unlink(cx, ROOT, name.as_bytes())).expect("removed");
                rig.run(|fs, cx| fs.release(cx, ino)).expect("freed");
            }
            rig.drain();
            let image = if from_store { Image::default() } else { rig.disk.image_durable() };
            let made = user.made.len();
            let end = recovered(&rig, &image, seed);
            rig = mounted(&rig, &image, seed + life);
            user.meet(&mut rig, end);
            assert_eq!(user.made.len(), made, "everything was published");
            assert_eq!(rig.mounted.db.usage().0, Some(Usage::EMPTY), "and nothing is left of it");
        }
    }
}
