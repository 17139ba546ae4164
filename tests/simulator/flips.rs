//! Flipped bits: a small filesystem of which every kind of file and object is there, and then one bit of one of them is
//! another. Whoever mounts that, from the local disk or from the store alone, finds exactly right data or an error; and if it
//! can be found right, `check` says what is damaged, or nothing that anybody reads was.

use crate::book::{Line, digest};
use crate::crash::quietly;
use crate::model::driver::{Driver, Mount};
use crate::model::generate::{Generator, Sizes};
use crate::model::op::{Call, Op, ROOT};
use crate::model::{Entry, Model, Tree};
use crate::world::{Actor, Instance, Machine, cache_disk, new_model, new_store, next_time, tuning};
use skylog::base::clock::{Clock, SimClock, Time};
use skylog::base::random::{Random, SeededRandom};
use skylog::check::{Depth, check};
use skylog::format::ids::SegmentKind;
use skylog::format::store_segment::StoreSegment;
use skylog::locate::CacheBytes;
use skylog::media::Media;
use skylog::media::sim::{Blob, CallLog, DiskFault, Image, Nth, SimDisk, StoreCall};
use skylog::store::Store;
use skylog::store::sim::{SimStore, StoreImage};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Operations before the last checkpoint, and after it.
const OPS: [usize; 2] = [60, 14];
/// Rounds in which a mount may ship what it has.
const ROUNDS: u32 = 120;

/// How a mount ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Closed,
    Killed,
    /// Killed when a checkpoint was committed, and nothing came after it.
    Committed,
    /// Killed when a takeover had made its local state, and no journal yet.
    TakenOver,
}

/// A filesystem in which nothing is damaged.
pub struct Whole {
    machine: Machine,
    disk: Image,
    store: StoreImage,
    line: Line,
    /// Of the states in the line, the least that the disk must lead to: what comes after may be lost with the log's last
    /// group, of which nothing on disk says that it was ever durable.
    local: usize,
    /// The state that the store alone leads to.
    remote: usize,
}

/// Where a bit is flipped.
#[derive(Clone, Debug)]
pub struct Flip {
    /// A file of the state directory, or an object of the store.
    pub local: bool,
    pub name: String,
    pub at: u64,
    pub bit: u8,
}

/// What came of a flip that was survived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survived {
    /// A mount was refused, or so many files or folders could not be read.
    Cost(usize),
    /// Nothing was lost, and `check` named it.
    Told,
    /// Nobody saw it, and nobody was given anything wrong.
    Unseen,
}

impl Whole {
    /// A filesystem with shipped windows, log increments, windows that wait to be shipped, and a journal.
    pub fn new(seed: u64, end: End) -> Whole {
        let random = SeededRandom::new(seed);
        let mut tuning = tuning(&random);
        (tuning.cache_files, tuning.node_cache_bytes, tuning.cache) = (None, 0, CacheBytes { data: 0, indexes: 0 });
        let (log, clock) = (CallLog::new(), Arc::new(SimClock::default()));
        let store = new_store(&log, &clock, &random);
        let machine = Machine { disk: SimDisk::new(&log), cache: cache_disk(), store, clock, tuning, tolerant: false };
        let mut line = Line::default();
        line.push(new_model());
        let mut instance = machine.mount(seed).expect("an empty filesystem mounts");
        instance.mounted.db.journal().tail().set_open(true);
        let mut driver = Driver::default();
        let mut ops = |instance: &mut Instance, line: &mut Line, count: usize, actors: &[Actor]| {
            for n in 0..count {
                op(&random, instance, &mut driver, line);
                if n % 9 == 8 {
                    instance.mounted.checkpointer.wanted().checkpoint();
                }
                if n % 4 == 3 {
                    promise(instance);
                }
                for _ in 0..6 {
                    for actor in actors {
                        instance.step(*actor);
                    }
                    machine.clock.advance(Duration::from_millis(100));
                }
            }
        };
        ops(&mut instance, &mut line, OPS[0], &[Actor::Writer, Actor::Checkpointer, Actor::Shipper, Actor::Syncer]);
        // What is not shipped: a window with its plan, and a log behind it, of which the store has a part.
        ops(&mut instance, &mut line, OPS[1], &[Actor::Writer, Actor::Checkpointer, Actor::Syncer]);
        if end == End::Committed {
            commit(&mut instance);
        }
        let last: &[&str] = if end == End::Committed { &[] } else { &["last but one", "last"] };
        for name in last {
            let make = Call::Create { path: format!("/{name}"), mode: 0o600 };
            apply(&Op { who: ROOT, call: make }, &mut instance, &mut driver, &mut line);
            let db = instance.mounted.db.clone();
            db.journal().when_durable(db.last(), Box::new(|_| {}));
            while db.journal().durable() < db.last() {
                instance.step(Actor::Writer);
            }
        }
        match end {
            End::Closed => instance.close(),
            End::Killed | End::Committed | End::TakenOver => drop(instance),
        }
        let local = if end == End::Killed { line.len() - 1 } else { line.len() };
        let (disk, store) = (machine.disk.image(), machine.store.image());
        let mut whole = Whole { machine, disk, store, line, local, remote: 0 };
        let found = digest(&whole.machine(&Image::default(), &whole.store).mount(2).expect("mounts").tree());
        whole.remote = whole.line.find(found, 0, usize::MAX).expect("a state that there was");
        if end == End::TakenOver {
            whole.take_over();
        }
        whole
    }

    /// Another machine takes over, and dies before it has a journal.
    fn take_over(&mut self) {
        for nth in 1.. {
            let machine = self.machine(&Image::default(), &self.store);
            machine.disk.fail(Nth::new(nth).on("journal"), DiskFault::Failed);
            assert!(machine.mount(2).is_err(), "it has no journal");
            if machine.disk.image().file("MANIFEST").is_some() {
                (self.disk, self.store, self.local) = (machine.disk.image(), machine.store.image(), self.remote);
                self.line = self.line.cut(self.remote);
                return;
            }
        }
    }

    /// A machine with its disk and store, on which operations may fail,
    pub fn machine_here(&self) -> Machine {
        self.machine(&self.disk, &self.store)
    }

    /// and one with the store alone.
    pub fn machine_elsewhere(&self) -> Machine {
        self.machine(&Image::default(), &self.store)
    }

    /// The least that the disk must lead to,
    pub fn local(&self) -> usize {
        self.local
    }

    /// and what the store alone leads to.
    pub fn remote(&self) -> usize {
        self.remote
    }

    /// What can be read is of a state from `least` on.
    pub fn is_right(&self, how: &str, instance: &mut Instance, least: usize) -> Result<(), String> {
        self.compare(how, instance, least..=self.line.len()).map(drop)
    }

    /// The same of what a follower has read, which may be older.
    pub fn shows(&self, how: &str, found: &BTreeMap<String, Result<Entry, i32>>) -> Result<(), String> {
        self.match_any(how, found, 0..=self.line.len()).map(drop)
    }

    /// Everything is there.
    pub fn is_whole(&self, how: &str, disk: &Image, store: &StoreImage, least: usize) -> Result<(), String> {
        let machine = self.machine(disk, store);
        let mut instance = machine.mount(5).map_err(|e| format!("{how}: the mount failed: {e}"))?;
        match self.compare(how, &mut instance, least..=self.line.len())? {
            0 => Ok(()),
            lost => Err(format!("{how}: {lost} files cannot be read")),
        }
    }

    /// `check` finds nothing.
    pub fn is_clean(&self, how: &str, machine: &Machine) -> Result<(), String> {
        let store: Arc<dyn Store> = Arc::new(machine.store.clone());
        let report = check(&store, Some(Arc::new(machine.disk.clone())), Depth::Data, &mut |_, _, _| {});
        match report.is_clean() {
            true => Ok(()),
            false => Err(format!("{how}: check finds {:?}, skipped {:?}", report.problems, report.skipped)),
        }
    }

    /// Every file and object, with its bytes.
    pub fn parts(&self) -> Vec<(bool, String, Vec<u8>)> {
        let files = self.disk.names().map(|name| (true, name.to_owned(), self.read(name)));
        let object = |name: &str| self.store.object(name).expect("listed").to_vec();
        files.chain(self.store.names().map(|name| (false, name.to_owned(), object(name)))).collect()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        let disk = SimDisk::from_image(&self.disk, &CallLog::new());
        let file = disk.open(name).expect("listed");
        let mut bytes = vec![0; usize::try_from(file.len().expect("it has a length")).expect("small")];
        file.read_at(&mut bytes, 0).expect("all of it is there");
        bytes
    }

    fn machine(&self, disk: &Image, store: &StoreImage) -> Machine {
        let (log, clock) = (CallLog::new(), Arc::new(SimClock::default()));
        clock.advance(self.machine.clock.elapsed());
        let (disk, store) = (SimDisk::from_image(disk, &log), SimStore::from_image(store, &log));
        Machine { disk, cache: cache_disk(), store, clock, tuning: self.machine.tuning.clone(), tolerant: true }
    }

    /// Flips a bit and looks at everything. An error says what was wrong.
    pub fn flip(&self, flip: &Flip) -> Result<Survived, String> {
        quietly(|| self.judge(flip)).and_then(|judged| judged).map_err(|e| format!("{flip:?}: {e}"))
    }

    fn judge(&self, flip: &Flip) -> Result<Survived, String> {
        let (mut disk, mut store) = (self.disk.clone(), self.store.clone());
        match flip.local {
            true => disk = flipped_file(&disk, flip),
            false => {
                let mut bytes = store.object(&flip.name).expect("listed").to_vec();
                bytes[usize::try_from(flip.at).expect("small")] ^= 1 << flip.bit;
                store.apply(&StoreCall::Put { name: flip.name.as_str().into(), blob: Blob::new(bytes.into()) });
            }
        }
        let mut cost = self.look("mounted", &disk, &store, self.local..=self.line.len(), true)?;
        if !flip.local {
            cost += self.look("from the store alone", &Image::default(), &store, self.remote..=self.remote, false)?;
        }
        if cost > 0 {
            return Ok(Survived::Cost(cost));
        }
        let machine = self.machine(&disk, &store);
        let store: Arc<dyn Store> = Arc::new(machine.store.clone());
        let state = Arc::new(machine.disk.clone()) as Arc<dyn Media>;
        let told = [Some(state), None]
            .into_iter()
            .any(|state| !check(&store, state, Depth::Data, &mut |_, _, _| {}).is_clean());
        Ok(if told { Survived::Told } else { Survived::Unseen })
    }

    /// Mounts, reads all, goes on, lets the mount ship what it has, and reads all of that. Returns how much could not be read.
    fn look(
        &self,
        how: &str,
        disk: &Image,
        store: &StoreImage,
        states: std::ops::RangeInclusive<usize>,
        ships: bool,
    ) -> Result<usize, String> {
        let machine = self.machine(disk, store);
        let Ok(mut instance) = machine.mount(3) else { return Ok(1) };
        let mut cost = self.compare(how, &mut instance, states.clone())?;
        if !ships {
            return Ok(cost);
        }
        if cost == 0 {
            self.go_on(&machine)?;
        }
        instance.mounted.checkpointer.wanted().checkpoint();
        for _ in 0..ROUNDS {
            if !instance.step_all() {
                machine.clock.advance(Duration::from_millis(400));
            }
        }
        cost += self.compare(&format!("{how}, after some time"), &mut instance, states)?;
        drop(instance);
        let other = self.machine(&Image::default(), &machine.store.image());
        let Ok(mut instance) = other.mount(4) else { return Ok(1) };
        cost += self.compare(&format!("{how}, then from the store"), &mut instance, self.remote..=self.line.len())?;
        Ok(cost)
    }

    /// What is made and synced after the mount is there after the next one, and all that was there before.
    fn go_on(&self, machine: &Machine) -> Result<(), String> {
        let machine = self.machine(&machine.disk.image(), &machine.store.image());
        let mut instance = machine.mount(7).map_err(|e| format!("mounted once more: {e}"))?;
        let before = Driver::default().readable(&mut instance);
        let make = Op { who: ROOT, call: Call::Create { path: "/made afterwards".to_owned(), mode: 0o600 } };
        let made = Driver::default().apply(&mut instance, next_time(self.line.last()), &make);
        made.map_err(|e| format!("nothing can be made: errno {e}"))?;
        let db = instance.mounted.db.clone();
        db.journal().when_durable(db.last(), Box::new(|_| {}));
        instance.step(Actor::Writer);
        if db.journal().durable() < db.last() {
            return Err("what was made cannot be synced".to_owned());
        }
        drop(instance);
        let machine = self.machine(&machine.disk.image_durable(), &machine.store.image());
        let mut instance = machine.mount(8).map_err(|e| format!("mounted after that: {e}"))?;
        let after = Driver::default().readable(&mut instance);
        let is_there = |path: &String| after.contains_key(path);
        match before.keys().all(is_there) && after.contains_key("/made afterwards") {
            true => Ok(()),
            false => Err("what was made and synced after the mount is gone".to_owned()),
        }
    }

    /// How much could not be read; what could is right.
    fn compare(
        &self,
        how: &str,
        instance: &mut Instance,
        states: std::ops::RangeInclusive<usize>,
    ) -> Result<usize, String> {
        self.match_any(how, &Driver::default().readable(instance), states)
    }

    fn match_any(
        &self,
        how: &str,
        found: &BTreeMap<String, Result<Entry, i32>>,
        states: std::ops::RangeInclusive<usize>,
    ) -> Result<usize, String> {
        let mut nearest = (usize::MAX, String::new());
        for n in states.rev() {
            let tree = self.line.models[n].tree();
            let e = match fits(&tree, found) {
                Ok(cost) => return Ok(cost),
                Err(e) => e,
            };
            let right = |(path, expected): &(&String, &Entry)| {
                found.get(*path).is_some_and(|found| found.as_ref().is_ok_and(|found| same(found, expected)))
            };
            let wrong = tree.len() + found.len() - 2 * tree.iter().filter(right).count();
            if wrong < nearest.0 {
                nearest = (wrong, format!("state {n} is nearest: {e}"));
            }
        }
        Err(format!("{how}: {}", nearest.1))
    }
}

/// A machine with nothing.
pub fn empty_machine() -> Machine {
    let (log, clock) = (CallLog::new(), Arc::new(SimClock::default()));
    let (disk, store) = (SimDisk::new(&log), SimStore::new(&log));
    Machine { disk, cache: cache_disk(), store, clock, tuning: tuning(&SeededRandom::new(1)), tolerant: false }
}

/// A checkpoint of all there is, and nothing after it.
fn commit(instance: &mut Instance) {
    let figures = instance.mounted.checkpointer.figures();
    let before = figures.lock().checkpoint;
    instance.mounted.checkpointer.wanted().checkpoint();
    while figures.lock().checkpoint == before {
        instance.step(Actor::Checkpointer);
        instance.step(Actor::Writer);
    }
}

fn op(random: &SeededRandom, instance: &mut Instance, driver: &mut Driver, line: &mut Line) {
    let op = Generator::over(random, Model::clone(line.last()), Sizes::SMALL).op();
    apply(&op, instance, driver, line);
}

fn apply(op: &Op, instance: &mut Instance, driver: &mut Driver, line: &mut Line) {
    let mut model = Model::clone(line.last());
    let now = next_time(&model);
    let expected = model.apply(op);
    assert_eq!(driver.apply(instance, now, op), expected, "{op:?}");
    line.push(model);
}

/// An fsync that waits for the store.
fn promise(instance: &mut Instance) {
    let (lsn, stored) = (instance.mounted.db.last(), instance.mounted.syncer.stored());
    let then = move |synced: Result<(), String>| {
        if synced.is_ok() {
            stored.when_stored(lsn, Box::new(|_| {}));
        }
    };
    instance.mounted.db.journal().when_synced(lsn, Box::new(then));
}

fn flipped_file(disk: &Image, flip: &Flip) -> Image {
    let disk = SimDisk::from_image(disk, &CallLog::new());
    let file = disk.open(&flip.name).expect("listed");
    let mut byte = [0];
    file.read_at(&mut byte, flip.at).expect("there");
    file.write_at(&[byte[0] ^ 1 << flip.bit], flip.at).expect("written");
    disk.image()
}

/// Whether what was found is this tree, but for what could not be read: how much that is.
fn fits(tree: &Tree, found: &BTreeMap<String, Result<Entry, i32>>) -> Result<usize, String> {
    let mut cost = 0;
    for (path, entry) in found {
        let Some(expected) = tree.get(path) else { return Err(format!("{path} is there")) };
        match entry {
            Err(libc::EIO) => cost += 1,
            Err(e) => return Err(format!("{path}: errno {e}")),
            Ok(entry) if same(entry, expected) => {}
            Ok(entry) => return Err(format!("{path} is {entry:?}, expected {expected:?}")),
        }
    }
    let is_hidden = |path: &str| {
        let above = path.match_indices('/').map(|(at, _)| if at == 0 { "/" } else { &path[..at] });
        above.into_iter().any(|dir| found.get(dir).is_some_and(Result::is_err))
    };
    match tree.keys().find(|path| !found.contains_key(*path) && !is_hidden(path)) {
        Some(path) => Err(format!("{path} is missing")),
        None => Ok(cost),
    }
}

fn same(found: &Entry, expected: &Entry) -> bool {
    (&found.stat, &found.contents, &found.xattrs) == (&expected.stat, &expected.contents, &expected.xattrs)
}

/// Flips of a filesystem, in an order that depends on the seed alone: in files whose names start so; `None` in all.
pub struct Flips<'a> {
    parts: Vec<(bool, String, Vec<usize>)>,
    random: SeededRandom,
    whole: &'a Whole,
}

impl<'a> Flips<'a> {
    /// Bytes of the journal that are zero are mostly free room, and left alone. Of each, the last `tail` bytes.
    pub fn new(whole: &'a Whole, within: &[&str], tail: usize, seed: u64) -> Flips<'a> {
        let wanted = |name: &str| within.is_empty() || within.iter().any(|start| name.starts_with(start));
        let places = |(local, name, bytes): (bool, String, Vec<u8>)| {
            let used = bytes.iter().enumerate().filter(|(_, byte)| !name.starts_with("journal/") || **byte != 0);
            let used: Vec<usize> = used.map(|(at, _)| at).filter(|at| bytes.len() - at <= tail).collect();
            (local, name, used)
        };
        let parts = whole.parts().into_iter().filter(|(_, name, _)| wanted(name)).map(places);
        Flips { parts: parts.filter(|(.., used)| !used.is_empty()).collect(), random: SeededRandom::new(seed), whole }
    }

    /// How many files and objects there are.
    pub fn files(&self) -> usize {
        self.parts.len()
    }

    /// The next flip: any file is as likely as any other.
    pub fn next(&self) -> (Flip, Result<Survived, String>) {
        let pick = |of: usize| usize::try_from(self.random.below(of as u64)).expect("small");
        let (local, name, used) = &self.parts[pick(self.parts.len())];
        let at = used[pick(used.len())] as u64;
        let bit = u8::try_from(self.random.u64() % 8).expect("below 8");
        let flip = Flip { local: *local, name: name.clone(), at, bit };
        let judged = self.whole.flip(&flip);
        (flip, judged)
    }
}

/// Bytes of one read when it is looked how far damage reaches.
const PIECE: u32 = 512;

/// Reads every file in pieces: how many bytes cannot be read, and of how many files a part can be and a part cannot.
fn lost_pieces(instance: &mut Instance, tree: &Tree) -> (u64, u64) {
    let mut driver = Driver::default();
    let numbers = driver.numbers(instance).expect("names are whole");
    let (mut lost, mut parts) = (0, 0);
    for (path, entry) in tree.iter().filter(|(_, entry)| entry.stat.mode & libc::S_IFMT == libc::S_IFREG) {
        let mut bad = 0;
        for (n, expected) in (0..).zip(entry.contents.chunks(PIECE as usize)) {
            let offset = n * u64::from(PIECE);
            match instance.run(ROOT, Time::default(), |fs, cx| fs.read(cx, numbers[path], offset, PIECE)) {
                Ok(found) => assert_eq!(found, expected, "{path} at {offset}"),
                Err(e) => {
                    assert_eq!(e, libc::EIO, "{path} at {offset}");
                    bad += expected.len() as u64;
                }
            }
        }
        parts += u64::from(bad > 0 && bad < entry.contents.len() as u64);
        lost += bad;
    }
    (lost, parts)
}

/// Promise X5.
#[test]
fn damage_costs_its_range_alone_and_ends_nothing() {
    let whole = Whole::new(1, End::Closed);
    let random = SeededRandom::new(5);
    let (mut chunks, mut nodes, mut parts) = (0, 0, 0);
    let segments: Vec<_> = whole.parts().into_iter().filter(|(_, name, _)| name.starts_with("seg/")).collect();
    for _ in 0..300 {
        let pick = |of: usize| usize::try_from(random.below(of as u64)).expect("small");
        let (_, name, bytes) = &segments[pick(segments.len())];
        let mut store = whole.store.clone();
        let mut flipped = bytes.clone();
        let at = pick(bytes.len());
        flipped[at] ^= 1 << random.below(8);
        let segment = StoreSegment::parse(&flipped).or_else(|_| StoreSegment::parse(bytes)).expect("it was whole");
        let entries = segment
            .entries
            .iter()
            .filter(|entry| segment.header.kind == SegmentKind::Chunks && entry.offset <= at as u64);
        let chunk = entries.max_by_key(|entry| entry.offset).map(|entry| u64::from(entry.chunk.raw_len));
        store.apply(&StoreCall::Put { name: name.as_str().into(), blob: Blob::new(flipped.into()) });
        let machine = whole.machine(&Image::default(), &store);
        // What is damaged may be what a mount needs.
        let Ok(mut instance) = machine.mount(3) else { continue };
        let tree = whole.line.models[whole.remote].tree();
        if whole.compare("damaged", &mut instance, whole.remote..=whole.remote).expect("what can be read is right") > 0
        {
            // A damaged node hides names or attributes; a damaged chunk a range of a file.
            let has_names = Driver::default().numbers(&mut instance).is_ok();
            if let Some(chunk) = chunk {
                let (lost, partly) = lost_pieces(&mut instance, &tree);
                // Some files share an object, and each of a few objects begins and ends in the middle of a piece.
                assert!(lost <= 3 * (chunk + 8 * u64::from(PIECE)), "{lost} bytes lost of a chunk of {chunk}");
                (chunks, parts) = (chunks + u64::from(lost > 0), parts + partly);
            }
            nodes += u64::from(chunk.is_none());
            assert!(has_names || chunk.is_none(), "a damaged chunk hides names");
        }
        assert_eq!(instance.mounted.db.journal().latched(), None, "damage ended all writing");
        let make = Op { who: ROOT, call: Call::Create { path: "/beside damage".to_owned(), mode: 0o600 } };
        let made = Driver::default().apply(&mut instance, next_time(whole.line.last()), &make);
        assert!(matches!(made, Ok(_) | Err(libc::EIO)), "{made:?}");
        steps_to_sync(&mut instance);
    }
    println!("{chunks} damaged chunks, {parts} files of which a part can be read, {nodes} damaged nodes");
    assert!(chunks > 10 && parts > 2, "that proves little");
}

/// An fsync beside damage succeeds.
fn steps_to_sync(instance: &mut Instance) {
    let db = instance.mounted.db.clone();
    db.journal().when_durable(db.last(), Box::new(|_| {}));
    for _ in 0..4 {
        instance.step(Actor::Writer);
    }
    assert!(db.journal().durable() >= db.last(), "what was made beside damage cannot be synced");
}

#[test]
fn a_flipped_bit_is_an_error_and_never_wrong_data() {
    let flips = crate::env("SKYLOG_SIM_FLIPS").unwrap_or(400);
    let (mut told, mut unseen) = (0, BTreeMap::<String, u64>::new());
    for (seed, end) in [(1, End::Closed), (2, End::Killed), (3, End::Committed), (4, End::TakenOver)] {
        let whole = Whole::new(seed, end);
        let all = Flips::new(&whole, &[], usize::MAX, seed);
        assert!(all.files() > 10, "{} files", all.files());
        for _ in 0..flips / 4 {
            match all.next() {
                (_, Ok(Survived::Told | Survived::Cost(_))) => told += 1,
                (flip, Ok(Survived::Unseen)) => *unseen.entry(kind(&flip.name)).or_default() += 1,
                (_, Err(e)) => panic!("{end:?}, seed {seed}: {e}"),
            }
        }
    }
    println!("{told} flips were told, of these nobody saw: {unseen:?}");
    assert!(told > flips / 3, "{told} of {flips}");
}

/// The folder that a file or object is in.
fn kind(name: &str) -> String {
    name.rsplit_once('/').map_or(name, |(folder, _)| folder).to_owned()
}
