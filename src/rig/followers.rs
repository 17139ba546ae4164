//! A writer, and beside it a follower on a machine of its own, stepped by hand.

mod ended;
mod lost;
mod repaired;
mod slow;

use super::{Rig, cache, small};
use crate::base::random::{Random, SeededRandom};
use crate::checkpoint::Replay;
use crate::follow::{self, Changed, Opened, POLL, Progress};
use crate::format::ids::{InodeNo, Lsn};
use crate::format::lease::{Lease, LeaseState};
use crate::format::names;
use crate::format::publication::{Body, Position, Publication};
use crate::fs::{self, Cx, DiskSpace, Error, Fs, Stop};
use crate::map::Seen;
use crate::media::sim::SimDisk;
use crate::recovery::{MountError, Tuning, World};
use crate::store::Created;
use crate::volume::resolve;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Names with their inode numbers, and contents of files: all that there is.
type Tree = BTreeMap<String, (u64, Option<Vec<u8>>)>;

/// A mount that follows.
struct Reader {
    opened: Opened,
    fs: Fs,
}

impl Reader {
    fn open(rig: &Rig, seed: u64, tuning: &Tuning) -> Result<Reader, MountError> {
        let disk: Arc<SimDisk> = Arc::new(SimDisk::new(&rig.log));
        let random = Arc::new(SeededRandom::new(seed));
        let world = World { media: disk.clone(), cache_media: disk, random, known: None, ..rig.world.clone() };
        let opened = follow::open(&world, tuning)?;
        let options = fs::Options { write_bytes_max: 1 << 20, space: Box::new(DiskSpace::default) };
        let fs = Fs::new(opened.db.clone(), options);
        Ok(Reader { opened, fs })
    }

    fn seen(&self) -> Arc<Seen> {
        self.opened.db.seen().expect("a follower")
    }

    /// All that it can do now; what changed.
    fn step(&mut self) -> Vec<Changed> {
        self.opened.renewal.step();
        while self.opened.keeper.as_mut().is_some_and(|keeper| keeper.step() == cache::Progress::Worked) {}
        let mut all = Vec::new();
        loop {
            match self.opened.follower.step() {
                Progress::Idle => return all,
                Progress::Worked => {}
                Progress::Advanced(changed) => all.push(changed),
            }
        }
    }

    fn run<T>(
        &self,
        seen: Option<&Arc<Seen>>,
        mut op: impl FnMut(&Fs, &mut Cx) -> Result<T, Stop>,
    ) -> Result<T, Error> {
        let mut cx = Cx { seen: seen.cloned(), ..Cx::default() };
        for _ in 0..10_000 {
            match op(&self.fs, &mut cx) {
                Ok(value) => return Ok(value),
                Err(Stop::Error(e)) => return Err(e),
                Err(Stop::Wait(wait)) => {
                    let Opened { db, nodes, .. } = &self.opened;
                    resolve(&wait, db, nodes, &mut cx.pins).map_err(|e| panic!("{e}"))?;
                }
            }
        }
        panic!("an operation waits for ever");
    }

    fn tree(&self, seen: Option<&Arc<Seen>>) -> Tree {
        tree(&mut |op| self.run(seen, op))
    }
}

enum Answer {
    Names(Vec<fs::DirEntry>),
    Bytes(Vec<u8>),
}

type Op<'a> = Box<dyn FnMut(&Fs, &mut Cx) -> Result<Answer, Stop> + 'a>;

/// Reads everything.
fn tree(run: &mut dyn FnMut(Op<'_>) -> Result<Answer, Error>) -> Tree {
    let mut found = Tree::new();
    let mut open = vec![(InodeNo::ROOT, String::new())];
    while let Some((dir, path)) = open.pop() {
        let listed = run(Box::new(move |fs, cx| fs.members(cx, dir, 0, 10_000).map(Answer::Names)));
        let Ok(Answer::Names(entries)) = listed else { panic!("{path} cannot be listed") };
        for entry in entries {
            let name = format!("{path}/{}", String::from_utf8_lossy(&entry.name));
            let ino = entry.ino;
            if entry.kind == libc::DT_DIR {
                found.insert(name.clone(), (ino.0, None));
                open.push((ino, name));
                continue;
            }
            let read = run(Box::new(move |fs, cx| fs.read(cx, ino, 0, 1 << 20).map(|b| Answer::Bytes(b.to_vec()))));
            let Ok(Answer::Bytes(bytes)) = read else { panic!("{name} cannot be read: {:?}", read.err()) };
            found.insert(name, (ino.0, Some(bytes)));
        }
    }
    found
}

fn tree_of_writer(rig: &mut Rig) -> Tree {
    tree(&mut |mut op| rig.run(|fs, cx| op(fs, cx)))
}

fn put(rig: &mut Rig, name: &str, contents: &[u8]) {
    let known = rig.run(|fs, cx| fs.lookup(cx, InodeNo::ROOT, name.as_bytes())).expect("looked up");
    let ino = match known {
        Some(attr) => attr.ino,
        None => {
            let made = rig.run(|fs, cx| fs.create(cx, InodeNo::ROOT, name.as_bytes(), 0o644)).expect("created");
            rig.run(|fs, cx| fs.release(cx, made.0.ino)).expect("released");
            made.0.ino
        }
    };
    rig.run(|fs, cx| fs.write(cx, ino, 0, contents)).expect("written");
    rig.run(|fs, cx| fs.forget(cx, ino, 1)).expect("forgotten");
}

/// What every state of the writer's map holds.
#[derive(Default)]
struct Model(BTreeMap<Lsn, Tree>);

impl Model {
    fn note(&mut self, rig: &mut Rig) {
        let tree = tree_of_writer(rig);
        self.0.insert(rig.mounted.db.last(), tree);
    }

    /// What there is up to and with a batch.
    fn at(&self, last: Lsn) -> &Tree {
        self.0.range(..=last).next_back().expect("every state is noted").1
    }

    fn assert_is(&self, reader: &Reader, seen: &Arc<Seen>) {
        assert_eq!(reader.tree(Some(seen)), *self.at(seen.last), "at {:?}", seen.position);
    }
}

/// The newest publication that makes a state.
fn newest(rig: &Rig) -> Publication {
    let mut names = rig.world.store.list("gen").expect("listed");
    names.sort();
    let states = names.iter().rev().map(|name| {
        let bytes = rig.world.store.get(name).expect("there");
        Publication::decode(&bytes).expect("whole")
    });
    states.into_iter().find(|found| !matches!(found.body, Body::Closing(_))).expect("a base")
}

/// The writer changes something, and its actors go a few steps.
fn go_on(rig: &mut Rig, model: &mut Model, random: &SeededRandom) {
    for _ in 0..random.below(4) {
        change(rig, random);
        model.note(rig);
    }
    if random.below(3) == 0 {
        rig.mounted.checkpointer.wanted().checkpoint();
    }
    for _ in 0..random.below(12) {
        rig.step();
    }
    rig.advance(Duration::from_millis(random.below(500)));
}

/// An fsync that waits for the store.
fn sync_to_store(rig: &mut Rig) {
    let last = rig.mounted.db.last();
    rig.mounted.db.journal().tail().set_open(true);
    rig.mounted.db.journal().when_durable(last, Box::new(|_| {}));
    while rig.step_journal() {}
    rig.mounted.syncer.stored().when_stored(last, Box::new(|_| {}));
    while rig.step_syncer() {}
}

/// A random change.
fn change(rig: &mut Rig, random: &SeededRandom) {
    let name = format!("file {}", random.below(20));
    let ino = |rig: &mut Rig| rig.run(|fs, cx| fs.lookup(cx, InodeNo::ROOT, name.as_bytes())).expect("looked up");
    match random.below(8) {
        0 => {
            if let Some(attr) = ino(rig) {
                rig.run(|fs, cx| fs.unlink(cx, InodeNo::ROOT, name.as_bytes())).expect("removed");
                rig.run(|fs, cx| fs.forget(cx, attr.ino, 1)).expect("forgotten");
            }
        }
        1 => {
            let to = format!("file {}", random.below(20));
            let (from, to) = (name.as_bytes(), to.as_bytes());
            // The name may not be there.
            let _ = rig.run(|fs, cx| fs.rename(cx, InodeNo::ROOT, from, InodeNo::ROOT, to, 0));
        }
        n => put(rig, &name, &vec![random.u64() as u8; (random.below(3000 * n) + 1) as usize]),
    }
}

#[test]
fn a_follower_reads_what_was_published_and_changes_nothing() {
    let mut rig = Rig::new(1, &small());
    for n in 0..30 {
        put(&mut rig, &format!("file {n}"), &[n; 5000]);
    }
    rig.drain();
    let published = tree_of_writer(&mut rig);
    put(&mut rig, "not published", b"yet");
    let reader = Reader::open(&rig, 2, &small()).expect("opens");
    assert_eq!(reader.tree(None), published);
    let refused = reader.run(None, |fs, cx| fs.mkdir(cx, InodeNo::ROOT, b"new", 0o755)).expect_err("refused");
    assert_eq!(refused.errno(), libc::EROFS, "{refused}");
}

/// The store never deletes anything.
fn keeping() -> Tuning {
    let mut tuning = small();
    tuning.policy.grace = Duration::from_secs(24 * 60 * 60);
    tuning
}

/// The newest state, after a poll that finds the store at rest.
fn assert_is_newest(rig: &Rig, reader: &mut Reader) {
    rig.advance(POLL);
    reader.step();
    let Publication { generation, number, .. } = newest(rig);
    assert_eq!(reader.seen().position, Position { generation, number });
}

#[test]
fn every_state_of_a_follower_is_one_of_the_writers_and_none_is_older_than_a_poll() {
    for (seed, tuning) in (1..6).zip([small(), keeping()].iter().cycle()) {
        let mut rig = Rig::new(seed, tuning);
        let (random, mut model) = (SeededRandom::new(seed), Model::default());
        model.note(&mut rig);
        let mut reader = Reader::open(&rig, seed, tuning).expect("opens");
        let (mut generations, mut held) = (BTreeSet::new(), Vec::new());
        for _ in 0..150 {
            go_on(&mut rig, &mut model, &random);
            if random.below(2) == 0 {
                assert_is_newest(&rig, &mut reader);
            }
            let seen = reader.seen();
            model.assert_is(&reader, &seen);
            generations.insert(seen.position.generation);
            // Some are read on, for a while.
            if random.below(10) == 0 {
                held.push(seen);
            }
            if !held.is_empty() && random.below(10) == 0 {
                let seen = held.swap_remove(random.below(held.len() as u64) as usize);
                model.assert_is(&reader, &seen);
            }
        }
        for seen in &held {
            model.assert_is(&reader, seen);
        }
        assert!(generations.len() > 3, "{generations:?}");
    }
}

#[test]
fn what_an_fsync_brought_into_the_store_is_followed_at_once() {
    let mut in_no_window = 0;
    for seed in 20..26 {
        let mut rig = Rig::new(seed, &small());
        let (random, mut model) = (SeededRandom::new(seed), Model::default());
        model.note(&mut rig);
        let mut reader = Reader::open(&rig, seed, &Tuning { fetches: 4, ..small() }).expect("opens");
        let (mut held, mut lives) = (Vec::new(), 0);
        for round in 0..200 {
            go_on(&mut rig, &mut model, &random);
            let last = rig.mounted.db.last();
            if random.below(2) == 0 {
                sync_to_store(&mut rig);
            }
            assert_is_newest(&rig, &mut reader);
            let seen = reader.seen();
            model.assert_is(&reader, &seen);
            let stored = rig.mounted.syncer.stored().published().end();
            if stored >= last {
                assert_eq!(reader.tree(None), *model.at(last));
            }
            in_no_window += u64::from(seen.objects.bytes() > 0);
            held.extend((random.below(20) == 0).then_some(seen));
            if round % 50 == 49 {
                let published = newest(&rig).end.max(stored);
                model.0.retain(|last, _| *last <= published);
                let Rig { log, store, clock, .. } = rig;
                lives += 1;
                rig = Rig::mount(log.clone(), SimDisk::new(&log), store, clock, 1000 + lives, &small()).expect("taken");
                model.note(&mut rig);
            }
        }
        held.iter().for_each(|seen| model.assert_is(&reader, seen));
        let opened = Reader::open(&rig, 99, &small()).expect("opens");
        assert_eq!(opened.seen().last, reader.seen().last);
        assert_eq!(opened.tree(None), reader.tree(None));
    }
    assert!(in_no_window > 100, "{in_no_window} states with objects that no window held");
}

#[test]
fn a_state_that_is_read_stays_as_it_is_while_the_writer_removes_everything() {
    let mut rig = Rig::new(3, &small());
    for n in 0..40 {
        put(&mut rig, &format!("file {n}"), &[n; 3000]);
    }
    rig.drain();
    let published = tree_of_writer(&mut rig);
    let mut reader = Reader::open(&rig, 4, &small()).expect("opens");
    let held = reader.seen();
    for round in 0..40 {
        rig.run(|fs, cx| fs.unlink(cx, InodeNo::ROOT, format!("file {round}").as_bytes())).expect("removed");
        put(&mut rig, "other", &[round; 9000]);
        rig.drain();
        assert_is_newest(&rig, &mut reader);
        rig.advance(Duration::from_secs(5));
    }
    assert_eq!(reader.tree(None), tree_of_writer(&mut rig));
    assert_eq!(reader.tree(Some(&held)), published);
    let held_bytes = rig.store_bytes();
    drop(held);
    for _ in 0..20 {
        rig.advance(Duration::from_secs(10));
        reader.step();
        rig.drain();
    }
    assert!(rig.store_bytes() * 2 < held_bytes, "{} of {held_bytes} bytes are left", rig.store_bytes());
    assert_eq!(reader.tree(None), tree_of_writer(&mut rig));
}

#[test]
fn a_follower_of_a_store_that_is_far_away_reads_through_cache_files() {
    let limits = cache::Limits { bytes_max: 64 << 20, free_bytes_min: 0 };
    let far = Tuning { cache_files: Some(limits), node_cache_bytes: 0, ..small() };
    let mut rig = Rig::new(30, &small());
    let (random, mut model) = (SeededRandom::new(30), Model::default());
    model.note(&mut rig);
    let mut reader = Reader::open(&rig, 31, &far).expect("opens");
    for _ in 0..100 {
        go_on(&mut rig, &mut model, &random);
        assert_is_newest(&rig, &mut reader);
        model.assert_is(&reader, &reader.seen());
    }
    rig.drain();
    assert_is_newest(&rig, &mut reader);
    let tree = reader.tree(None);
    reader.step();
    let stats = reader.opened.cache.as_ref().expect("a cache").stats();
    assert!(stats.used_bytes > 0 && stats.pending_bytes == 0, "{stats:?}");
    rig.store.set_down(true);
    assert_eq!(reader.tree(None), tree, "all of it is on this machine");
}

#[test]
fn a_follower_goes_on_through_takeovers() {
    let tuning = small();
    let mut rig = Rig::new(5, &tuning);
    let (random, mut model) = (SeededRandom::new(5), Model::default());
    model.note(&mut rig);
    let mut reader = Reader::open(&rig, 6, &tuning).expect("opens");
    for round in 0..6 {
        for _ in 0..25 {
            go_on(&mut rig, &mut model, &random);
            if random.below(3) == 0 {
                assert_is_newest(&rig, &mut reader);
            }
            model.assert_is(&reader, &reader.seen());
        }
        // What was not published goes with the machine.
        let before = reader.seen();
        let published = newest(&rig).end;
        model.0.retain(|last, _| *last <= published);
        let Rig { log, store, clock, .. } = rig;
        rig = Rig::mount(log.clone(), SimDisk::new(&log), store, clock, 100 + round, &tuning).expect("taken over");
        let shown = tree_of_writer(&mut rig);
        assert_eq!(shown, *model.at(published));
        assert_is_newest(&rig, &mut reader);
        model.assert_is(&reader, &before);
        model.note(&mut rig);
    }
    assert_eq!(reader.opened.follower.figures().lock().reopened, 0);
}

#[test]
fn a_follower_whose_generation_is_gone_opens_the_newest() {
    let tuning = keeping();
    let mut rig = Rig::new(7, &tuning);
    let (random, mut model) = (SeededRandom::new(7), Model::default());
    model.note(&mut rig);
    let mut reader = Reader::open(&rig, 8, &tuning).expect("opens");
    let first = reader.seen().position.generation;
    while newest(&rig).generation < first + 3 {
        go_on(&mut rig, &mut model, &random);
        reader.opened.renewal.step();
    }
    // As an older program would, which knows nothing of followers; what ends a generation stays.
    for generation in first..newest(&rig).generation {
        let mut names = rig.world.store.list(&format!("gen/{generation:010}")).expect("listed");
        names.sort();
        names.truncate(names.len() - 2);
        names.iter().for_each(|name| rig.world.store.delete(name).expect("deleted"));
    }
    for _ in 0..20 {
        model.assert_is(&reader, &reader.seen());
        rig.advance(POLL);
        reader.step();
    }
    assert_is_newest(&rig, &mut reader);
    model.assert_is(&reader, &reader.seen());
    assert_eq!(reader.opened.follower.figures().lock().reopened, 1);
}

#[test]
fn a_lost_lease_ends_every_state_and_another_one_begins_with_the_newest() {
    let mut rig = Rig::new(9, &keeping());
    put(&mut rig, "file", b"first");
    rig.drain();
    let mut reader = Reader::open(&rig, 10, &keeping()).expect("opens");
    let held = reader.seen();
    put(&mut rig, "file", b"other");
    rig.drain();
    // Nobody was there to renew it.
    rig.advance(Duration::from_secs(60));
    let stale = |reader: &Reader, seen: Option<&Arc<Seen>>| {
        let listed = reader.run(seen, |fs, cx| fs.members(cx, InodeNo::ROOT, 0, 10)).map(drop);
        let looked_up = reader.run(seen, |fs, cx| fs.getattr(cx, InodeNo::ROOT)).map(drop);
        (listed, looked_up) == (Err(Error::LeaseLost), Err(Error::LeaseLost))
    };
    assert_eq!(Error::LeaseLost.errno(), libc::ESTALE);
    assert!(stale(&reader, None) && stale(&reader, Some(&held)));
    assert_eq!(reader.step(), [Changed::Everything]);
    assert_eq!(reader.tree(None), tree_of_writer(&mut rig));
    assert!(stale(&reader, Some(&held)), "what was read before stays dead");
    assert_eq!(reader.opened.follower.figures().lock().leases_lost, 1);
}

#[test]
fn who_misses_something_finds_out_that_the_lease_was_closed() {
    let mut rig = Rig::new(11, &keeping());
    put(&mut rig, "file", &[7; 5000]);
    rig.drain();
    let reader = Reader::open(&rig, 12, &keeping()).expect("opens");
    let seen = reader.seen();
    let store = &rig.world.store;
    // The writer saw no renewal for too long, by its own clock.
    let name = store.list("lease").expect("listed").into_iter().max().expect("a lease");
    let lease = Lease::decode(&store.get(&name).expect("there")).expect("whole");
    let closed = Lease { number: lease.number + 1, state: LeaseState::Closed, ..lease };
    let next = names::lease(closed.who, closed.number);
    assert!(matches!(store.create(&next, closed.encode().into()), Ok(Created::New)));
    assert!(!seen.is_lost(), "it does not know yet");
    reader.opened.renewal.confirm();
    assert!(seen.is_lost());
    let why = reader.opened.renewal.why_lost().expect("known");
    assert!(why.contains("closed"), "{why}");
}

#[test]
fn a_damaged_publication_leaves_the_state_before_it_until_it_is_whole() {
    let mut rig = Rig::new(13, &keeping());
    put(&mut rig, "file", b"first");
    rig.drain();
    let mut reader = Reader::open(&rig, 14, &keeping()).expect("opens");
    let before = reader.tree(None);
    put(&mut rig, "file", b"other");
    rig.drain();
    let Publication { generation, number, .. } = newest(&rig);
    let (name, store) = (names::publication(generation, number), rig.world.store.clone());
    let whole = store.get(&name).expect("there");
    let mut damaged = whole.to_vec();
    *damaged.last_mut().expect("bytes") ^= 1;
    let replace = |bytes: Vec<u8>| {
        store.delete(&name).expect("deleted");
        assert!(matches!(store.create(&name, bytes.into()), Ok(Created::New)));
    };
    replace(damaged);
    let error = |reader: &Reader| reader.opened.follower.figures().lock().error.clone();
    for _ in 0..3 {
        rig.advance(POLL);
        reader.step();
        assert_eq!(reader.tree(None), before);
        assert!(error(&reader).is_some_and(|error| error.contains(&name)));
    }
    replace(whole.to_vec());
    assert_is_newest(&rig, &mut reader);
    assert_eq!((reader.tree(None), error(&reader)), (tree_of_writer(&mut rig), None));
}

#[test]
fn a_store_that_is_away_leaves_what_is_read_as_it_is() {
    let mut rig = Rig::new(15, &keeping());
    put(&mut rig, "file", b"first");
    rig.drain();
    let mut reader = Reader::open(&rig, 16, &keeping()).expect("opens");
    let before = reader.tree(None);
    put(&mut rig, "file", b"other");
    rig.drain();
    rig.store.set_down(true);
    for _ in 0..20 {
        rig.advance(POLL);
        assert_eq!(reader.step(), []);
        assert_eq!(reader.tree(None), before, "what is in memory is read on");
    }
    assert!(Reader::open(&rig, 17, &keeping()).is_err());
    rig.store.set_down(false);
    assert_is_newest(&rig, &mut reader);
    assert_eq!(reader.tree(None), tree_of_writer(&mut rig));
    assert_eq!(reader.opened.follower.figures().lock().leases_lost, 0);
}

#[test]
fn memory_stays_flat_over_thousands_of_publications() {
    let mut tuning = small();
    tuning.policy.replay = Replay::after(40, 1 << 20);
    let mut rig = Rig::new(17, &tuning);
    let random = SeededRandom::new(17);
    let mut reader = Reader::open(&rig, 18, &tuning).expect("opens");
    let (mut most, mut publications) = ([0; 3], 0);
    while publications < 2000 {
        put(&mut rig, &format!("file {}", random.below(60)), &[random.u64() as u8; 100]);
        rig.mounted.checkpointer.wanted().checkpoint();
        rig.settle();
        assert_is_newest(&rig, &mut reader);
        let figures = reader.opened.follower.figures().lock().clone();
        publications = figures.publications;
        let now = [figures.layers as u64, figures.bytes, figures.windows as u64];
        if publications < 400 {
            most = [0, 1, 2].map(|n| now[n].max(most[n]));
        } else {
            assert!((0..3).all(|n| now[n] <= most[n] + most[n] / 2), "{now:?} after {most:?}");
        }
    }
    assert!(most[0] <= 8, "{most:?}");
    assert_eq!(reader.tree(None), tree_of_writer(&mut rig));
}
