//! Random histories on the filesystem core and on the model: same answers, same errors, same tree, and accounts that equal a
//! full scan; on a whole filesystem whose actors checkpoint, ship and reclaim underneath while operations wait and start
//! again, and from several threads. A failure prints the seed; `SKYLOG_SEED=n` runs that history alone, `SKYLOG_HISTORIES=n`
//! runs more.

mod model;

use model::driver::{Driver, Mount};
use model::generate::{Generator, Sizes, generate, generate_contents};
use model::op::{Call, Op, Outcome, Who};
use model::rows::check_rows;
use model::{Model, time_of};
use skylog::base::clock::{Clock, SimClock, Time};
use skylog::base::random::SeededRandom;
use skylog::format::batch::TreeId;
use skylog::format::ids::InodeNo;
use skylog::format::key::{self, Key};
use skylog::format::usage::{OnLimit, Usage, UsageLimit};
use skylog::fs::{Cx, DiskSpace, Fs, Options, SetLimit, Stop, root_inode};
use skylog::journal::Writer;
use skylog::locate::CacheBytes;
use skylog::map::Limits;
use skylog::map::db::{Db, Pins, Room, Wait};
use skylog::media::sim::{CallLog, SimDisk};
use skylog::recovery::{MkfsOptions, Tuning, mkfs};
use skylog::rig::{self, Rig};
use skylog::store::sim::SimStore;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const OPS: usize = 400;
/// A batch may take a quarter of a segment, a write half of that.
const SEGMENT_BYTES: u32 = 2 << 20;

type Generate = fn(&SeededRandom, usize) -> Vec<Op>;
type Rows = Vec<(Key, bytes::Bytes)>;

fn decoded(rows: Vec<(bytes::Bytes, bytes::Bytes)>) -> Rows {
    rows.into_iter().map(|(key, value)| (Key::decode(&key).expect("a key"), value)).collect()
}

/// A whole filesystem with so little memory that operations wait for nodes, data and room all the time.
struct Whole {
    rig: Rig,
    /// Waits for nodes, data and room.
    waits: [u64; 3],
}

impl Whole {
    fn tuning() -> Tuning {
        let mut tuning = rig::small();
        tuning.journal.segment_bytes = SEGMENT_BYTES;
        tuning.journal.journal_bytes = 8 * u64::from(SEGMENT_BYTES);
        tuning.journal.reserve_bytes = u64::from(SEGMENT_BYTES);
        tuning.journal.queue_bytes_max = 640 << 10;
        tuning.limits = Limits { overlay_bytes_max: 48 << 10, inode_step: 16 };
        tuning.node_cache_bytes = 8 << 10;
        tuning.cache = CacheBytes { data: 64 << 10, indexes: 64 << 10 };
        tuning
    }

    fn new(seed: u64) -> Whole {
        let (log, clock) = (CallLog::new(), Arc::new(SimClock::default()));
        let store = SimStore::new(&log);
        let options = MkfsOptions { segment_size: SEGMENT_BYTES, ..MkfsOptions::default() };
        mkfs(&store, &*clock, &SeededRandom::new(seed), options).expect("made");
        let disk = SimDisk::new(&log);
        let rig = Rig::mount(log, disk, store, clock, seed, &Whole::tuning()).expect("mounted");
        Whole { rig, waits: [0; 3] }
    }

    /// When the root was made, nanoseconds.
    fn born() -> i64 {
        SimClock::default().now().as_nanos()
    }

    /// Lets time pass, and every actor do what is due.
    fn work(&mut self) {
        self.rig.advance(Duration::from_secs(1));
        self.rig.settle();
    }

    /// The daemon ends without a word, after all was made durable, and another one starts.
    fn restarted(mut self, seed: u64) -> Whole {
        let db = &self.rig.mounted.db;
        db.journal().when_durable(db.last(), Box::new(|synced| synced.expect("synced")));
        self.rig.settle();
        let Rig { log, disk, store, clock, .. } = self.rig;
        Whole { rig: Rig::mount(log, disk, store, clock, seed, &Whole::tuning()).expect("mounted"), waits: self.waits }
    }

    fn rows(&mut self) -> Rows {
        let db = Arc::clone(&self.rig.mounted.db);
        let (from, to) = (&[0][..], &[0xff; 9][..]);
        let rows = self.rig.run(|_, cx| Ok(db.begin(&cx.pins).scan(TreeId::Files, from, to, usize::MAX)?));
        decoded(rows.expect("the map can be read"))
    }
}

impl Mount for Whole {
    fn run<T>(&mut self, who: Who, now: Time, mut op: impl FnMut(&Fs, &Cx) -> Result<T, Stop>) -> Result<T, i32> {
        let waits = &mut self.waits;
        let result = self.rig.run(|fs, cx| {
            (cx.uid, cx.gid, cx.now, cx.caller) = (who.uid, who.gid, now, who.caller());
            op(fs, cx).inspect_err(|stop| match stop {
                Stop::Wait(Wait::Node(_) | Wait::Nodes(_)) => waits[0] += 1,
                Stop::Wait(Wait::Objects(_)) => waits[1] += 1,
                Stop::Wait(Wait::Pressure) => waits[2] += 1,
                Stop::Error(_) => {}
            })
        });
        result.map_err(|error| error.errno())
    }
}

/// Runs one history; the seed names it.
fn run_history(seed: u64, generate: Generate) -> [u64; 3] {
    let random = SeededRandom::new(seed);
    let ops = generate(&random, OPS);
    let mut model = Model::new(Whole::born());
    let mut mount = Whole::new(seed);
    let mut driver = Driver::default();
    for (i, op) in ops.iter().enumerate() {
        let expected = model.apply(op);
        let found = driver.apply(&mut mount, time_of(model.step()), op);
        assert_eq!(found, expected, "seed {seed}, operation {i}: {op:?}");
        if random.below(20) == 0 {
            mount.work();
        }
        if i % 8 == 0 || i + 1 == ops.len() {
            let tree = driver.tree(&mut mount).expect("the tree can be read");
            assert_eq!(tree, model.tree(), "seed {seed}, after operation {i}: {op:?}");
            check_rows(mount.rows());
        }
    }
    end_history(seed, model, mount, driver)
}

/// Once nothing is open and the kernel knows nothing, no orphan is left; nor is one after a crash and recovery.
fn end_history(seed: u64, mut model: Model, mut mount: Whole, mut driver: Driver) -> [u64; 3] {
    if seed % 2 == 0 {
        driver.close_all(&mut mount).expect("open files close");
        driver.forget(&mut mount).expect("the kernel forgets");
        assert_eq!(mount.rig.fs.inodes_in_use(), 0, "seed {seed}: every use was given back");
    } else {
        mount = mount.restarted(seed + 1);
        driver = Driver::default();
    }
    model.crash();
    let rows = mount.rows();
    assert!(!rows.iter().any(|(key, _)| matches!(key, Key::Orphan(_))), "seed {seed}: an orphan is left");
    check_rows(rows);
    assert_eq!(driver.tree(&mut mount).expect("the tree can be read"), model.tree(), "seed {seed}: at the end");
    mount.waits
}

fn run_histories(generate: Generate, histories: u64) {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().expect("a number"));
    if let Some(seed) = number("SKYLOG_SEED") {
        run_history(seed, generate);
        return;
    }
    let mut waits = [0; 3];
    for seed in 0..number("SKYLOG_HISTORIES").unwrap_or(histories) {
        let more = run_history(seed, generate);
        waits = std::array::from_fn(|i| waits[i] + more[i]);
    }
    println!("waited {} times for nodes, {} for data, {} for room", waits[0], waits[1], waits[2]);
    assert!(waits.iter().all(|n| *n > 0), "every kind of waiting was met: {waits:?}");
}

#[test]
fn any_history_answers_as_the_model_does() {
    run_histories(generate, 40);
}

#[test]
fn any_writes_and_truncations_of_one_file_leave_what_the_model_has() {
    run_histories(generate_contents, 10);
}

/// Whether the limit may refuse an operation, or a part of what it writes, when this much is used.
fn may_refuse(call: &Call, used: Usage, limit: UsageLimit) -> bool {
    match call {
        Call::Create { .. } | Call::Mkdir { .. } | Call::Mknod { .. } | Call::Symlink { .. } => {
            used.inodes >= limit.inodes
        }
        // A block of the file may be cut, an inline value moved.
        Call::Write { len, .. } => used.bytes() + u64::from(*len) + 8192 > limit.bytes,
        Call::Copy { len, .. } | Call::Allocate { len, .. } => used.bytes() + *len + 8192 > limit.bytes,
        _ => false,
    }
}

/// What an operation at a limit must have done: all of it, a part of a write, or nothing. The model then goes on from there.
fn expect_at_limit(model: &mut Model, op: &Op, found: &Result<Outcome, i32>, refusable: bool) -> bool {
    let before = model.clone();
    let expected = model.apply(op);
    if *found == expected {
        return false;
    }
    assert!(refusable && expected.is_ok(), "{op:?}: {found:?}, not {expected:?}");
    *model = before;
    let done = match (&op.call, found) {
        (Call::Write { at, offset, fill, .. }, Ok(Outcome::Written(len))) => {
            assert_eq!((offset + u64::from(*len)) % 4096, 0, "{op:?} ended in the middle of a block");
            Call::Write { at: at.clone(), offset: *offset, len: *len, fill: *fill }
        }
        (_, Err(libc::ENOSPC)) => Call::Forget,
        _ => panic!("{op:?}: {found:?}, not {expected:?}"),
    };
    model.apply(&Op { who: op.who, call: done }).expect("a part of what is possible");
    true
}

#[test]
fn any_history_at_a_limit_answers_as_the_model_does_or_is_refused_whole() {
    let mut refused = 0;
    for seed in 0..12 {
        let random = SeededRandom::new(seed);
        let (mut model, mut mount, mut driver) = (Model::new(Whole::born()), Whole::new(seed), Driver::default());
        let limit = UsageLimit { bytes: 300_000, inodes: 14, on_limit: OnLimit::NoSpace };
        let set = SetLimit { bytes: Some(limit.bytes), inodes: Some(limit.inodes), on_limit: None };
        mount.rig.run(|fs, cx| fs.set_limit(cx, set)).expect("set");
        for i in 0..OPS {
            let op = Generator::over(&random, model.clone(), Sizes::FULL).op();
            let used = mount.rig.mounted.db.usage().0.expect("it is counted");
            let found = driver.apply(&mut mount, time_of(model.step() + 1), &op);
            refused += u32::from(expect_at_limit(&mut model, &op, &found, may_refuse(&op.call, used, limit)));
            if i % 8 == 0 {
                assert_eq!(driver.tree(&mut mount).expect("the tree can be read"), model.tree(), "seed {seed}: {op:?}");
                check_rows(mount.rows());
                mount.work();
            }
        }
        end_history(seed, model, mount, driver);
    }
    assert!(refused > 200, "the limit was met {refused} times");
}

/// The core over a journal alone, for several threads.
#[derive(Clone)]
struct Shared {
    db: Arc<Db>,
    fs: Arc<Fs>,
    writer: Arc<Mutex<Writer>>,
}

impl Shared {
    fn new() -> Shared {
        let (db, writer) = rig::bare();
        let pins = Pins::default();
        let mut tx = db.begin(&pins);
        let root = root_inode(Time::default(), 0o755, 0, 0);
        tx.put(TreeId::Files, key::inode(InodeNo::ROOT), root.encode());
        tx.commit(Room::Ordinary).expect("an empty map takes a root");
        let options = Options { write_bytes_max: 1 << 20, space: Box::new(DiskSpace::default) };
        Shared { fs: Arc::new(Fs::new(Arc::clone(&db), options)), db, writer: Arc::new(Mutex::new(writer)) }
    }
}

impl Mount for Shared {
    fn run<T>(&mut self, who: Who, now: Time, mut op: impl FnMut(&Fs, &Cx) -> Result<T, Stop>) -> Result<T, i32> {
        let mut cx = Cx { uid: who.uid, gid: who.gid, now, caller: who.caller(), ..Cx::default() };
        loop {
            match op(&self.fs, &cx) {
                Ok(value) => return Ok(value),
                Err(Stop::Error(error)) => return Err(error.errno()),
                Err(Stop::Wait(Wait::Objects(ids))) => {
                    for id in ids {
                        let bytes = self.db.locate().fetch(&id).expect("the journal has every object");
                        cx.pins.pin_object(id, bytes);
                    }
                }
                Err(Stop::Wait(Wait::Pressure)) => drop(self.writer.lock().expect("no panic while stepping").step()),
                Err(Stop::Wait(wait)) => panic!("no tree is here, but {wait:?} was asked for"),
            }
        }
    }
}

#[test]
fn threads_at_work_on_the_same_names_leave_consistent_metadata() {
    const THREADS: u64 = 4;
    let shared = Shared::new();
    std::thread::scope(|scope| {
        for seed in 0..THREADS {
            let mut mount = shared.clone();
            scope.spawn(move || {
                let random = SeededRandom::new(seed);
                let mut driver = Driver::default();
                let mut succeeded = 0;
                for (i, op) in generate(&random, 1500).iter().enumerate() {
                    succeeded += u32::from(driver.apply(&mut mount, time_of(i as u64), op).is_ok());
                }
                assert!(succeeded > 150, "only {succeeded} operations of thread {seed} succeeded");
                driver.close_all(&mut mount).expect("open files close");
                driver.forget(&mut mount).expect("the kernel forgets");
            });
        }
    });
    assert_eq!(shared.fs.inodes_in_use(), 0, "every use was given back");
    let pins = Pins::default();
    let rows = shared.db.begin(&pins).scan(TreeId::Files, &[0], &[0xff; 9], usize::MAX).expect("nothing to wait for");
    let rows = decoded(rows);
    assert!(!rows.iter().any(|(key, _)| matches!(key, Key::Orphan(_))), "an orphan is left");
    check_rows(rows);
}
