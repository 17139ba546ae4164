//! Random histories on the filesystem core and on the model: same answers, same errors, same tree, and accounts that equal a
//! full scan. A failure prints the seed; `SKYLOG_SEED=n` runs that history alone, `SKYLOG_HISTORIES=n` runs more.

mod model;

use model::driver::{Driver, Mount};
use model::generate::{generate, generate_contents};
use model::op::{Op, Who};
use model::{Model, time_of};
use skylog::base::clock::Time;
use skylog::base::random::SeededRandom;
use skylog::format::batch::TreeId;
use skylog::format::ids::InodeNo;
use skylog::format::inode::{CookieValue, Extent, Inode, NameValue};
use skylog::format::key::{self, Key};
use skylog::fs::{Cx, DiskSpace, Fs, INLINE_BYTES_MAX, Options, Stop, root_inode};
use skylog::journal::Writer;
use skylog::map::db::{Db, Pins, Room, Wait};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

const OPS: usize = 400;

type Generate = fn(&SeededRandom, usize) -> Vec<Op>;

/// The core on a map in memory, where nothing has to be waited for.
struct InMemory {
    db: Arc<Db>,
    fs: Arc<Fs>,
    writer: Arc<Mutex<Writer>>,
}

impl InMemory {
    fn new(born: Time) -> InMemory {
        let (db, writer) = skylog::rig::bare();
        let pins = Pins::default();
        let mut tx = db.begin(&pins);
        tx.put(TreeId::Files, key::inode(InodeNo::ROOT), root_inode(born, 0o755, 0, 0).encode());
        tx.commit(Room::Ordinary).expect("an empty map takes a root");
        let fs = fs_over(&db);
        InMemory { db, fs, writer: Arc::new(Mutex::new(writer)) }
    }

    /// Everything in the map.
    fn rows(&self) -> Vec<(Key, bytes::Bytes)> {
        let pins = Pins::default();
        let rows = self.db.begin(&pins).scan(TreeId::Files, &[], &[0xff; 9], usize::MAX).expect("nothing to wait for");
        rows.into_iter().map(|(key, value)| (Key::decode(&key).expect("a key"), value)).collect()
    }
}

fn fs_over(db: &Arc<Db>) -> Arc<Fs> {
    let space = Box::new(|| DiskSpace { total: 1 << 40, free: 1 << 39, available: 1 << 39 });
    Arc::new(Fs::new(Arc::clone(db), Options { write_bytes_max: 1 << 20, space }))
}

impl Mount for InMemory {
    fn run<T>(&mut self, who: Who, now: Time, mut op: impl FnMut(&Fs, &Cx) -> Result<T, Stop>) -> Result<T, i32> {
        let mut cx = Cx { uid: who.uid, gid: who.gid, now, pins: Pins::default() };
        loop {
            match op(&self.fs, &cx) {
                Ok(value) => return Ok(value),
                Err(Stop::Error(error)) => return Err(error.errno()),
                Err(Stop::Wait(Wait::Object(id))) => {
                    let bytes = self.db.locate().fetch(&id).expect("the journal has every object");
                    cx.pins.pin_object(id, bytes);
                }
                Err(Stop::Wait(Wait::Pressure)) => drop(self.writer.lock().expect("no panic while stepping").step()),
                Err(Stop::Wait(wait)) => panic!("no tree is here, but {wait:?} was asked for"),
            }
        }
    }
}

/// What a full scan finds of one inode.
#[derive(Default)]
struct Scanned {
    inode: Option<Inode>,
    inline: Option<u64>,
    blocks: u64,
    /// Where the last extent ends.
    end: u64,
    names: BTreeMap<bytes::Bytes, NameValue>,
    cookies: BTreeMap<u64, CookieValue>,
    links: u32,
    subdirectories: u32,
    orphan: bool,
}

/// Checks the invariants that `fs` promises against every row of the map.
fn check_rows(rows: Vec<(Key, bytes::Bytes)>) {
    let mut all: BTreeMap<InodeNo, Scanned> = BTreeMap::new();
    for (key, value) in rows {
        match key {
            Key::Inode(ino) => all.entry(ino).or_default().inode = Some(Inode::decode(&value).expect("an inode")),
            Key::Inline(ino) => {
                let scanned = all.entry(ino).or_default();
                scanned.inline = Some(value.len() as u64);
                scanned.blocks += value.len().div_ceil(512) as u64;
            }
            Key::Name(ino, name) => {
                let entry = NameValue::decode(&value).expect("a name");
                let child = all.entry(entry.ino).or_default();
                child.links += 1;
                if entry.kind == libc::DT_DIR {
                    all.entry(ino).or_default().subdirectories += 1;
                }
                all.entry(ino).or_default().names.insert(name, entry);
            }
            Key::Cookie(ino, cookie) => {
                let entry = CookieValue::decode(&value).expect("an entry");
                all.entry(ino).or_default().cookies.insert(cookie, entry);
            }
            Key::Extent(ino, offset) => {
                let extent = Extent::decode(&value).expect("an extent");
                let scanned = all.entry(ino).or_default();
                assert!(scanned.end <= offset, "extents of inode {ino} overlap at {offset}");
                scanned.end = offset + u64::from(extent.len);
                scanned.blocks += u64::from(extent.len.div_ceil(512));
            }
            Key::Orphan(ino) => all.entry(ino).or_default().orphan = true,
            Key::Xattr(..) => panic!("nothing makes an extended attribute"),
        }
    }
    for (ino, scanned) in all {
        check_inode(ino, &scanned);
    }
}

fn check_inode(ino: InodeNo, scanned: &Scanned) {
    let inode = scanned.inode.as_ref().unwrap_or_else(|| panic!("keys of inode {ino} are left without it"));
    assert_eq!(inode.blocks, scanned.blocks, "blocks of inode {ino}");
    assert!(scanned.end <= inode.size, "an extent of inode {ino} reaches past its end");
    assert_eq!(scanned.orphan, inode.nlink == 0, "inode {ino} is an orphan exactly without links");
    if let Some(len) = scanned.inline {
        assert_eq!(scanned.end, 0, "inode {ino} has an inline value and extents");
        assert!(0 < len && len <= inode.size && inode.size <= INLINE_BYTES_MAX, "the inline value of inode {ino}");
    }
    let directory = inode.mode & libc::S_IFMT == libc::S_IFDIR;
    let links = if directory { 2 + scanned.subdirectories } else { scanned.links };
    if inode.nlink > 0 {
        assert_eq!(inode.nlink, links, "links of inode {ino}");
    }
    assert_eq!(scanned.names.len(), scanned.cookies.len(), "names and cookies of directory {ino}");
    for (name, entry) in &scanned.names {
        let listed = &scanned.cookies[&entry.cookie];
        assert_eq!(
            (&listed.name, listed.ino, listed.kind),
            (name, entry.ino, entry.kind),
            "an entry of directory {ino}"
        );
        assert!(entry.cookie < inode.next_cookie, "the next cookie of directory {ino}");
    }
}

/// Runs one history; the seed names it.
fn run_history(seed: u64, generate: Generate) {
    let random = SeededRandom::new(seed);
    let ops = generate(&random, OPS);
    let mut model = Model::new(time_of(0));
    let mut mount = InMemory::new(Time::from_nanos(time_of(0)));
    let mut driver = Driver::default();
    for (i, op) in ops.iter().enumerate() {
        let expected = model.apply(op);
        let found = driver.apply(&mut mount, time_of(model.step()), op);
        assert_eq!(found, expected, "seed {seed}, operation {i}: {op:?}");
        if i % 8 == 0 || i + 1 == ops.len() {
            let tree = driver.tree(&mut mount).expect("the tree can be read");
            assert_eq!(tree, model.tree(), "seed {seed}, after operation {i}: {op:?}");
            check_rows(mount.rows());
        }
    }
    end_history(seed, model, mount, driver);
}

/// Once nothing is open and the kernel knows nothing, no orphan is left; nor is one after a crash and recovery.
fn end_history(seed: u64, mut model: Model, mut mount: InMemory, mut driver: Driver) {
    if seed % 2 == 0 {
        driver.close_all(&mut mount).expect("open files close");
        driver.forget(&mut mount).expect("the kernel forgets");
        assert_eq!(mount.fs.inodes_in_use(), 0, "seed {seed}: every use was given back");
    } else {
        mount.fs = fs_over(&mount.db);
        while mount.fs.free_orphans(&Cx::default()).expect("orphans can be freed").0 > 0 {}
        driver = Driver::default();
    }
    model.crash();
    let rows = mount.rows();
    assert!(!rows.iter().any(|(key, _)| matches!(key, Key::Orphan(_))), "seed {seed}: an orphan is left");
    check_rows(rows);
    assert_eq!(driver.tree(&mut mount).expect("the tree can be read"), model.tree(), "seed {seed}: at the end");
}

fn run_histories(generate: Generate, histories: u64) {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().expect("a number"));
    if let Some(seed) = number("SKYLOG_SEED") {
        return run_history(seed, generate);
    }
    for seed in 0..number("SKYLOG_HISTORIES").unwrap_or(histories) {
        run_history(seed, generate);
    }
}

#[test]
fn any_history_answers_as_the_model_does() {
    run_histories(generate, 60);
}

#[test]
fn any_writes_and_truncations_of_one_file_leave_what_the_model_has() {
    run_histories(generate_contents, 20);
}

#[test]
fn threads_at_work_on_the_same_names_leave_consistent_metadata() {
    const THREADS: u64 = 4;
    let mount = InMemory::new(Time::from_nanos(time_of(0)));
    std::thread::scope(|scope| {
        for seed in 0..THREADS {
            let mut mount =
                InMemory { db: Arc::clone(&mount.db), fs: Arc::clone(&mount.fs), writer: Arc::clone(&mount.writer) };
            scope.spawn(move || {
                let random = SeededRandom::new(seed);
                let mut driver = Driver::default();
                let mut succeeded = 0;
                for (i, op) in generate(&random, 3000).iter().enumerate() {
                    succeeded += u32::from(driver.apply(&mut mount, time_of(i as u64), op).is_ok());
                }
                assert!(succeeded > 300, "only {succeeded} operations of thread {seed} succeeded");
                driver.close_all(&mut mount).expect("open files close");
                driver.forget(&mut mount).expect("the kernel forgets");
            });
        }
    });
    assert_eq!(mount.fs.inodes_in_use(), 0, "every use was given back");
    let rows = mount.rows();
    assert!(!rows.iter().any(|(key, _)| matches!(key, Key::Orphan(_))), "an orphan is left");
    check_rows(rows);
}
