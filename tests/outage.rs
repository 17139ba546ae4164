//! A store that is away for a day, and what shipping asks of a store when nothing is wrong: on a whole filesystem over
//! simulated disk and store, with a virtual clock.

use skylog::base::random::SeededRandom;
use skylog::checkpoint::{Figures, Replay};
use skylog::format::ids::InodeNo;
use skylog::fs::{self, Cx};
use skylog::map::Wait;
use skylog::media::Media;
use skylog::media::sim::{CallLog, Nth, SimDisk};
use skylog::recovery::Tuning;
use skylog::rig::{Rig, small};
use skylog::store::sim::{Calls, SimStore, StoreFault, StoreOp};
use skylog::volume::resolve;
use std::collections::BTreeMap;
use std::time::Duration;

const ROOT: InodeNo = InodeNo::ROOT;
const SECOND: Duration = Duration::from_secs(1);

/// Sizes as on a real store, but for a small journal, so that much happens.
fn tuning() -> Tuning {
    let mut tuning = small();
    tuning.journal.journal_bytes = 1 << 20;
    tuning.policy.replay = Replay::default();
    tuning.policy.uploads = 1;
    tuning
}

fn bytes_of(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i * 31 + seed * 7 + (i >> 8)) as u8).collect()
}

/// A writer, and what must be found of what it did.
struct Writer {
    rig: Rig,
    random: SeededRandom,
    files: BTreeMap<String, Vec<u8>>,
    /// What it is about to do; it tries again while there is no room.
    next: Option<Change>,
    made: u64,
}

#[derive(Clone)]
enum Change {
    Create(String, Vec<u8>),
    Overwrite(String, usize, Vec<u8>),
    Delete(String),
}

impl Writer {
    fn new(tuning: &Tuning) -> Writer {
        Writer { rig: Rig::new(1, tuning), random: SeededRandom::new(5), files: BTreeMap::new(), next: None, made: 0 }
    }

    fn change(&mut self) -> Change {
        self.made += 1;
        let known = self.files.len() as u64;
        let some = |n: u64| self.files.keys().nth(usize::try_from(n).expect("few")).expect("there").clone();
        let len = 1 + usize::try_from(self.random.below(6000)).expect("short");
        match self.random.below(10) {
            0..=4 if known < 60 => Change::Create(format!("file {}", self.made), bytes_of(self.made, len)),
            5 | 6 if known > 20 => Change::Delete(some(self.random.below(known))),
            _ if known > 0 => {
                let name = some(self.random.below(known));
                let at = usize::try_from(self.random.below(self.files[&name].len() as u64 + 1)).expect("short");
                Change::Overwrite(name, at, bytes_of(self.made, len))
            }
            _ => Change::Create(format!("file {}", self.made), bytes_of(self.made, len)),
        }
    }

    /// Tries one change; whether it was made. What needs room that is not there leaves nothing behind but a file without
    /// data, which the model has as well.
    fn write(&mut self) -> bool {
        let change = self.next.take().unwrap_or_else(|| self.change());
        let done = match &change {
            Change::Create(name, data) => {
                let made = self.files.contains_key(name)
                    || self.try_once(|fs, cx| fs.create(cx, ROOT, name.as_bytes(), 0o644)).is_some();
                if made {
                    self.files.entry(name.clone()).or_default();
                    self.next = Some(Change::Overwrite(name.clone(), 0, data.clone()));
                }
                return made;
            }
            Change::Overwrite(name, at, data) => {
                let ino = self.lookup(name);
                let done = self.try_once(|fs, cx| fs.write(cx, ino, *at as u64, data));
                if let Some((len, _)) = done {
                    let file = self.files.get_mut(name).expect("there");
                    let end = at + len as usize;
                    file.resize(file.len().max(end), 0);
                    file[*at..end].copy_from_slice(&data[..len as usize]);
                }
                done.is_some()
            }
            Change::Delete(name) => {
                let done = self.try_once(|fs, cx| fs.unlink(cx, ROOT, name.as_bytes()));
                if done.is_some() {
                    self.files.remove(name);
                }
                done.is_some()
            }
        };
        if !done {
            self.next = Some(change);
        }
        done
    }

    /// Runs an operation unless it must wait for room.
    fn try_once<T>(&mut self, mut op: impl FnMut(&fs::Fs, &mut Cx) -> Result<T, fs::Stop>) -> Option<T> {
        let mut cx = Cx { now: skylog::base::clock::Clock::now(&*self.rig.clock), ..Cx::default() };
        let fs = self.rig.fs.clone();
        loop {
            match op(&fs, &mut cx) {
                Ok(value) => return Some(value),
                Err(fs::Stop::Wait(Wait::Pressure)) => return None,
                Err(fs::Stop::Wait(wait)) => {
                    resolve(&wait, &self.rig.mounted.db, &self.rig.mounted.nodes, &mut cx.pins).expect("it is local");
                }
                Err(fs::Stop::Error(e)) => panic!("{e}"),
            }
        }
    }

    fn lookup(&mut self, name: &str) -> InodeNo {
        let found = self.rig.run(|fs, cx| fs.lookup(cx, ROOT, name.as_bytes()));
        let ino = found.expect("looked up").expect("it was created").ino;
        self.rig.run(|fs, cx| fs.forget(cx, ino, 1)).expect("forgotten");
        ino
    }

    /// Lets a second pass, in which the actors do what they find to do.
    fn second(&mut self) {
        for _ in 0..4 {
            for _ in 0..8 {
                if !self.rig.step() {
                    break;
                }
            }
            self.rig.advance(SECOND / 4);
        }
    }

    fn figures(&self) -> Figures {
        self.rig.mounted.checkpointer.figures().lock().clone()
    }
}

/// What must stay bounded.
#[derive(Debug, Default)]
struct Most {
    overlay_bytes: u64,
    windows: u64,
    node_cache_bytes: u64,
    journal_bytes: u64,
    files: usize,
    disk_bytes: u64,
    calls_per_hour: u64,
}

impl Most {
    fn sample(&mut self, rig: &Rig, figures: &Figures) {
        let db = &rig.mounted.db;
        self.overlay_bytes = self.overlay_bytes.max(db.overlay_bytes());
        self.windows = self.windows.max(figures.windows_waiting);
        self.node_cache_bytes = self.node_cache_bytes.max(db.cache().bytes());
        self.journal_bytes = self.journal_bytes.max(db.journal().stats().used_bytes);
        let image = rig.disk.image();
        self.files = self.files.max(image.names().count());
        let bytes = |name: &str| rig.disk.open(name).and_then(|file| file.len()).unwrap_or(0);
        let names: Vec<String> = image.names().map(str::to_owned).collect();
        self.disk_bytes = self.disk_bytes.max(names.iter().map(|name| bytes(name)).sum());
    }
}

fn read_all(rig: &mut Rig, name: &str) -> Vec<u8> {
    let attr = rig.run(|fs, cx| fs.lookup(cx, ROOT, name.as_bytes())).expect("looked up").expect("it is there");
    let mut bytes = Vec::new();
    loop {
        let more = rig.run(|fs, cx| fs.read(cx, attr.ino, bytes.len() as u64, 8192)).expect("read");
        if more.is_empty() {
            return bytes;
        }
        bytes.extend(more);
    }
}

#[test]
fn promise_x9_a_day_without_the_store_costs_the_journal_and_no_more() {
    const HOURS: u64 = 24;
    let tuning = tuning();
    let mut writer = Writer::new(&tuning);
    for _ in 0..60 {
        writer.write();
        writer.second();
    }
    writer.rig.drain();
    writer.rig.store.set_down(true);
    let (mut most, mut refused) = (Most::default(), 0);
    for hour in 0..HOURS {
        let calls = writer.rig.store.calls().sum();
        for second in 0..3600u64 {
            // A writer that never gives up: every five seconds, and in bursts.
            let tries = if second % 600 == 0 { 40 } else { u64::from(second % 5 == 0) };
            refused += (0..tries).filter(|_| !writer.write()).count();
            writer.second();
            if second % 60 == 0 {
                most.sample(&writer.rig, &writer.figures());
            }
        }
        let calls = writer.rig.store.calls().sum() - calls;
        most.calls_per_hour = most.calls_per_hour.max(calls);
        assert!(calls > 0, "hour {hour}: nobody looks whether the store is back");
    }
    println!("{most:?}, {refused} tries found no room");
    let figures = writer.figures();
    let waited = skylog::base::clock::Clock::elapsed(&*writer.rig.clock) - figures.unshipped_since.expect("waiting");
    assert!(waited > Duration::from_secs(HOURS * 3600 - 60), "{waited:?}");
    assert!(figures.ship_error.is_some_and(|e| e.contains("no answer")) && figures.ship_failures > 1000);
    let capacity = writer.rig.mounted.db.journal().stats().capacity_bytes;
    assert!(refused > 1000, "the journal never was at its limit");
    assert!(most.journal_bytes <= capacity && most.journal_bytes > capacity / 2, "{most:?}");
    assert!(most.overlay_bytes <= tuning.limits.overlay_bytes_max, "{most:?}");
    assert!(most.node_cache_bytes <= tuning.node_cache_bytes, "{most:?}");
    assert!(most.windows <= 8, "{most:?}");
    assert!(most.files < 100 && most.disk_bytes < capacity + (2 << 20), "{most:?}");
    assert!(most.calls_per_hour < 400, "{most:?}");

    writer.rig.store.set_down(false);
    for _ in 0..120 {
        writer.second();
    }
    assert!(writer.figures().ship_error.is_none() && writer.figures().ship_failures == 0);
    for _ in 0..200 {
        writer.write();
        writer.second();
    }
    writer.rig.drain();
    assert_eq!(writer.figures().unshipped_since, None);
    let used = writer.rig.mounted.db.journal().stats().used_bytes;
    assert!(used <= 2 * u64::from(tuning.journal.segment_bytes), "{used} bytes of journal are in use");

    let Writer { rig, files, .. } = writer;
    let Rig { log, store, clock, .. } = rig;
    let mut moved =
        Rig::mount(log.clone(), SimDisk::new(&log), store, clock, 9, &tuning).expect("mounts from the store");
    let found = moved.run(|fs, cx| fs.getattr(cx, ROOT)).expect("there");
    assert!(found.nlink >= 2);
    for (name, bytes) in &files {
        assert!(read_all(&mut moved, name) == *bytes, "{name} differs");
    }
    let (usage, _) = moved.mounted.db.usage();
    assert_eq!(usage.expect("counted").inodes, files.len() as u64 + 1, "what was deleted is gone");
}

/// The calls that something makes.
fn calls_of(rig: &mut Rig, what: impl FnOnce(&mut Rig)) -> Calls {
    let before = rig.store.calls();
    what(rig);
    let after = rig.store.calls();
    Calls {
        gets: after.gets - before.gets,
        puts: after.puts - before.puts,
        creates: after.creates - before.creates,
        deletes: after.deletes - before.deletes,
        lists: after.lists - before.lists,
    }
}

fn create(rig: &mut Rig, name: &str, data: &[u8]) {
    let ino = rig.run(|fs, cx| fs.create(cx, ROOT, name.as_bytes(), 0o644)).expect("created").0.ino;
    let mut at = 0;
    while at < data.len() {
        at += rig.run(|fs, cx| fs.write(cx, ino, at as u64, &data[at..])).expect("written").0 as usize;
    }
    rig.run(|fs, cx| fs.release(cx, ino)).expect("released");
    rig.run(|fs, cx| fs.forget(cx, ino, 1)).expect("forgotten");
}

#[test]
fn an_idle_filesystem_asks_nothing_of_its_store() {
    let mut rig = Rig::new(3, &tuning());
    for n in 0..30 {
        create(&mut rig, &format!("file {n}"), &bytes_of(n, 3000));
    }
    rig.run(|fs, cx| fs.unlink(cx, ROOT, b"file 3")).expect("unlinked");
    rig.drain();
    for _ in 0..10 {
        rig.settle();
        rig.advance(SECOND);
    }
    let checkpoints = rig.mounted.checkpointer.figures().lock().checkpoints;
    let calls = calls_of(&mut rig, |rig| {
        for _ in 0..3600 {
            rig.settle();
            rig.advance(SECOND);
        }
    });
    assert_eq!(calls.sum(), 0, "{calls:?}");
    assert_eq!(rig.mounted.checkpointer.figures().lock().checkpoints, checkpoints, "nothing changed");
}

#[test]
fn promise_x13_many_small_files_of_an_interval_cost_three_requests() {
    let mut tuning = tuning();
    tuning.policy.segment_bytes = 1 << 20;
    let mut rig = Rig::new(4, &tuning);
    create(&mut rig, "first", &[1; 3000]);
    rig.drain();
    let calls = calls_of(&mut rig, |rig| {
        for n in 0..40 {
            create(rig, &format!("file {n}"), &bytes_of(n, 3000));
        }
        for _ in 0..20 {
            rig.settle();
            rig.advance(SECOND);
        }
    });
    assert!(rig.mounted.checkpointer.is_drained(), "the age of the changes was enough");
    assert_eq!(calls, Calls { puts: 1, creates: 2, ..Calls::default() }, "a segment, its index, an increment");
}

#[test]
fn a_base_asks_for_no_node_segment_that_it_knows_to_be_there() {
    let mut tuning = tuning();
    tuning.policy.replay = Replay::after(2, 1 << 30);
    tuning.policy.uploads = 3;
    let mut rig = Rig::new(6, &tuning);
    for n in 0..300 {
        create(&mut rig, &format!("file {n}"), b"some data that is inline");
        if n % 10 == 0 {
            rig.drain();
        }
    }
    rig.drain();
    let bases = rig.mounted.checkpointer.figures().lock().bases;
    let calls = calls_of(&mut rig, |rig| {
        for n in 0..6 {
            create(rig, &format!("more {n}"), b"inline too");
            rig.drain();
            rig.advance(SECOND);
        }
    });
    assert!(rig.mounted.checkpointer.figures().lock().bases >= bases + 2, "bases were published");
    assert_eq!(calls.gets, 0, "{calls:?}");
    assert!(calls.lists <= 1, "followers are asked for before the first deletion: {calls:?}");
}

#[test]
fn a_burst_of_small_files_costs_a_request_for_each_two_mebibytes_at_most() {
    const FILES: u64 = 3000;
    const BYTES: usize = 14_000;
    let mut tuning = tuning();
    tuning.journal = skylog::journal::Config {
        segment_bytes: 4 << 20,
        journal_bytes: 128 << 20,
        queue_bytes_max: 16 << 20,
        reserve_bytes: 4 << 20,
    };
    tuning.limits.overlay_bytes_max = 48 << 20;
    tuning.node_cache_bytes = 48 << 20;
    // The burst lasts some 37 s of virtual time, for a tenth of the 400 MiB that take some 20 s on a machine.
    tuning.policy.age_max = Duration::from_secs(15);
    tuning.policy.uploads = 3;
    tuning.policy.segment_bytes = 16 << 20;
    tuning.policy.shape = skylog::map::Shape::default();
    let mut rig = Rig::new(7, &tuning);
    let data = bytes_of(1, BYTES);
    let calls = calls_of(&mut rig, |rig| {
        for n in 0..FILES {
            create(rig, &format!("file {n}"), &data);
            // 4 MiB a second, shipped meanwhile.
            if n % 100 == 0 {
                rig.settle();
                rig.advance(SECOND / 3);
            }
        }
        rig.drain();
    });
    let mebibytes = (FILES * BYTES as u64) >> 20;
    println!("{calls:?} for {mebibytes} MiB; {:?}", rig.mounted.checkpointer.figures().lock());
    assert!(calls.puts + calls.creates <= mebibytes / 2, "{calls:?} for {mebibytes} MiB");
    assert_eq!(calls.lists, 0);
}

#[test]
fn an_index_comes_after_all_segments_though_they_are_uploaded_side_by_side() {
    let mut tuning = tuning();
    tuning.policy.uploads = 3;
    let mut rig = Rig::new(9, &tuning);
    create(&mut rig, "first", &[1; 3000]);
    rig.drain();
    let indexes = |rig: &Rig| rig.store.image().names().filter(|name| name.starts_with("win/")).count();
    let before = indexes(&rig);
    let data = bytes_of(3, 200_000);
    create(&mut rig, "second", &data);
    for nth in 1..4 {
        rig.store.fail(Nth::new(nth).of(StoreOp::Put).on("seg/"), StoreFault::Refused);
        rig.mounted.checkpointer.wanted().checkpoint();
        let failed = rig.store.failed();
        while rig.store.failed() == failed {
            rig.step();
            rig.advance(SECOND);
        }
        assert_eq!(indexes(&rig), before, "an index was sent although put {nth} failed");
        rig.store.heal();
    }
    rig.drain();
    assert_eq!(indexes(&rig), before + 1);
    let mut moved =
        Rig::mount(rig.log.clone(), SimDisk::new(&rig.log), rig.store.clone(), rig.clock.clone(), 3, &tuning)
            .expect("mounts from the store");
    assert!(read_all(&mut moved, "second") == data);
}

#[test]
fn after_an_outage_who_waits_for_a_drain_waits_a_few_seconds() {
    let mut rig = Rig::new(10, &tuning());
    create(&mut rig, "first", &[1; 3000]);
    rig.drain();
    rig.store.set_down(true);
    create(&mut rig, "second", &[2; 3000]);
    for _ in 0..3600 {
        rig.step();
        rig.advance(SECOND);
    }
    // At worst right after a try, of which there is one every 30 s.
    let calls = rig.store.calls().sum();
    while rig.store.calls().sum() == calls {
        rig.step();
        rig.advance(SECOND / 4);
    }
    rig.store.set_down(false);
    rig.settle();
    let waiting = |rig: &Rig| rig.mounted.checkpointer.figures().lock().windows_waiting;
    assert_eq!(waiting(&rig), 1, "nobody waits, so nobody looks yet");
    for _ in 0..7 {
        rig.mounted.checkpointer.wanted().checkpoint();
        rig.settle();
        rig.advance(SECOND);
    }
    assert_eq!(waiting(&rig), 0);
}

#[test]
fn a_job_that_cannot_be_done_plans_no_numbers_again() {
    let mut rig = Rig::new(8, &tuning());
    create(&mut rig, "first", &[1; 3000]);
    rig.drain();
    rig.store.set_down(true);
    create(&mut rig, "second", &[2; 30_000]);
    rig.mounted.checkpointer.wanted().checkpoint();
    let pass = |rig: &mut Rig, seconds: u64| {
        for _ in 0..seconds {
            rig.step();
            rig.advance(SECOND);
        }
    };
    pass(&mut rig, 60);
    let last = rig.mounted.db.last();
    pass(&mut rig, 86_400);
    assert_eq!(rig.mounted.db.last(), last, "batches were logged for nothing");
    rig.store.set_down(false);
    rig.drain();
    let log = CallLog::new();
    let store = SimStore::from_image(&rig.store.image(), &log);
    let mut moved =
        Rig::mount(log.clone(), SimDisk::new(&log), store, rig.clock.clone(), 3, &tuning()).expect("mounts");
    assert_eq!(read_all(&mut moved, "second"), [2; 30_000]);
}
