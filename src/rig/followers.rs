//! A writer, and beside it a follower on a machine of its own, stepped by hand.

use super::{Rig, small};
use crate::base::random::{Random, SeededRandom};
use crate::follow::{self, Changed, Opened, POLL, Progress};
use crate::format::ids::{InodeNo, Lsn};
use crate::format::publication::{Body, Position, Publication};
use crate::fs::{self, Cx, DiskSpace, Error, Fs, Stop};
use crate::map::Seen;
use crate::media::sim::SimDisk;
use crate::recovery::{MountError, Tuning, World};
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

#[test]
fn every_state_of_a_follower_is_one_of_the_writers_and_none_is_older_than_a_poll() {
    let mut tuning = small();
    tuning.policy.grace = Duration::from_secs(24 * 60 * 60);
    for seed in 1..6 {
        let mut rig = Rig::new(seed, &tuning);
        let (random, mut model) = (SeededRandom::new(seed), Model::default());
        model.note(&mut rig);
        let mut reader = Reader::open(&rig, seed, &small()).expect("opens");
        let mut generations = BTreeSet::new();
        for _ in 0..150 {
            go_on(&mut rig, &mut model, &random);
            if random.below(2) == 0 {
                rig.advance(POLL);
                reader.step();
                let Publication { generation, number, .. } = newest(&rig);
                assert_eq!(reader.seen().position, Position { generation, number });
            }
            let seen = reader.seen();
            model.assert_is(&reader, &seen);
            generations.insert(seen.position.generation);
        }
        assert!(generations.len() > 3, "{generations:?}");
    }
}
