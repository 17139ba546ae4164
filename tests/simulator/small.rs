//! Every operation, and every two in a row, over a small tree, with and without a sync or a checkpoint between: the bound
//! within which most crash bugs of filesystems have been found (Mohan and others, OSDI 2018). All pairs take long, so a run
//! takes every so-many-th of them; `SKYLOG_SIM_PAIRS=1` takes all.

use crate::crash::{explore, quietly};
use crate::model::op::{At, Call, Op, ROOT};
use crate::oracle::Judge;
use crate::run::Runner;
use crate::world::tuning;
use skylog::base::random::SeededRandom;

/// What follows an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Nothing,
    Sync,
    Checkpoint,
}

const AFTER: [After; 3] = [After::Nothing, After::Sync, After::Checkpoint];

fn path(name: &str) -> String {
    name.to_owned()
}

fn file(name: &str) -> At {
    At::Path(path(name))
}

/// The tree before: a file with an inline value, one with extents, one with two names, a link, directories.
fn before() -> Vec<Call> {
    vec![
        Call::Mkdir { path: path("/a"), mode: 0o755 },
        Call::Mkdir { path: path("/a/empty"), mode: 0o755 },
        Call::Create { path: path("/a/small"), mode: 0o644 },
        Call::Write { at: file("/a/small"), offset: 0, len: 500, fill: 1 },
        Call::Create { path: path("/large"), mode: 0o644 },
        Call::Write { at: file("/large"), offset: 0, len: 7000, fill: 2 },
        Call::Link { from: path("/large"), to: path("/a/large") },
        Call::Symlink { path: path("/link"), target: b"large".to_vec() },
    ]
}

/// Operations that change something, most of them also after another one.
fn all() -> Vec<Call> {
    let rename = |from: &str, to: &str| Call::Rename { from: path(from), to: path(to), flags: 0 };
    vec![
        Call::Create { path: path("/new"), mode: 0o644 },
        Call::Mkdir { path: path("/a/dir"), mode: 0o755 },
        Call::Symlink { path: path("/a/to"), target: b"x".to_vec() },
        Call::Mknod { path: path("/fifo"), mode: libc::S_IFIFO | 0o600, rdev: 0 },
        Call::Link { from: path("/a/small"), to: path("/small") },
        Call::Link { from: path("/large"), to: path("/new") },
        Call::Unlink { path: path("/large") },
        Call::Unlink { path: path("/a/small") },
        Call::Rmdir { path: path("/a/empty") },
        rename("/large", "/moved"),
        rename("/a/small", "/large"),
        rename("/large", "/a/small"),
        rename("/a", "/b"),
        rename("/a/empty", "/empty"),
        Call::Write { at: file("/large"), offset: 2000, len: 3000, fill: 3 },
        Call::Write { at: file("/large"), offset: 6500, len: 2000, fill: 4 },
        Call::Write { at: file("/a/small"), offset: 100, len: 100, fill: 5 },
        Call::Write { at: file("/a/small"), offset: 2000, len: 3000, fill: 6 },
        Call::Write { at: file("/new"), offset: 9000, len: 10, fill: 7 },
        Call::Truncate { at: file("/large"), size: 0 },
        Call::Truncate { at: file("/large"), size: 3000 },
        Call::Truncate { at: file("/a/small"), size: 9000 },
        Call::Chmod { path: path("/large"), mode: 0o600 },
        Call::Chown { path: path("/a"), uid: Some(5), gid: None },
        Call::Utimens { path: path("/a/small"), atime: 5, mtime: 6 },
        Call::Rename { from: path("/a"), to: path("/large"), flags: libc::RENAME_EXCHANGE },
        Call::Rename { from: path("/a/small"), to: path("/moved"), flags: libc::RENAME_WHITEOUT },
        Call::SetXattr { path: path("/large"), name: "user.x".to_owned(), value: vec![1; 300], flags: 0 },
    ]
}

/// Runs a few operations after the usual ones, and crashes them everywhere.
fn crash(steps: &[(Call, After)]) {
    let random = SeededRandom::new(1);
    let tuning = tuning(&random);
    let mut runner = Runner::with(1, random, tuning);
    let op = |call: &Call| Op { who: ROOT, call: call.clone() };
    before().iter().for_each(|call| runner.do_op(&op(call)));
    runner.drain();
    runner.begin_here();
    for (call, after) in steps {
        runner.do_op(&op(call));
        match after {
            After::Nothing => {}
            After::Sync => runner.sync(true),
            After::Checkpoint => runner.drain(),
        }
    }
    let recorded = runner.end();
    let mut judge = Judge::new(&recorded, 64);
    if let Err(failure) = explore(&recorded, &mut judge, 8, None) {
        panic!("{steps:?}: {}", failure.what);
    }
}

fn survives(steps: &[(Call, After)]) {
    quietly(|| crash(steps)).unwrap_or_else(|e| panic!("{steps:?}: {e}"));
}

#[test]
fn every_operation_alone_survives_every_crash() {
    for call in all() {
        AFTER.iter().for_each(|after| survives(&[(call.clone(), *after)]));
    }
}

#[test]
fn every_two_operations_survive_every_crash() {
    let every = usize::try_from(crate::env("SKYLOG_SIM_PAIRS").unwrap_or(7)).expect("small");
    let calls = all();
    let pairs = calls.iter().flat_map(|first| calls.iter().map(move |second| (first, second)));
    let syncs = AFTER.iter().flat_map(|first| AFTER.iter().map(move |second| (*first, *second)));
    let syncs: Vec<(After, After)> = syncs.collect();
    let sequences = pairs.flat_map(|(a, b)| syncs.iter().map(move |(x, y)| [(a.clone(), *x), (b.clone(), *y)]));
    sequences.step_by(every).for_each(|steps| survives(&steps));
}
