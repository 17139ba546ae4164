//! Every operation, and every two in a row, over a small tree, each followed by an fsync of a file, of a directory, by a
//! checkpoint or by nothing; and three in a row of those that change names: the bounds within which most crash bugs of
//! filesystems have been found (Mohan and others, OSDI 2018).
//!
//! An fsync promises the same here whatever it is called on: everything before it. So each is judged alike: what is found is
//! a prefix of the operations, at or after the one before the fsync. A file that is gone cannot be synced; a sequence with
//! such an fsync is left out, for it is the one without it.
//!
//! All pairs and triples take long: a run takes so many of each, always the same, spread over all; `SKYLOG_SIM_PAIRS=n` and
//! `SKYLOG_SIM_TRIPLES=n` take more, from `SKYLOG_SIM_SEED` on.

use crate::counts::{Counts, Distinct, deadline, each};
use crate::crash::{explore, quietly};
use crate::figures::Figures;
use crate::model::op::{At, Call, Op, ROOT};
use crate::model::xattr::Acl;
use crate::oracle::Judge;
use crate::run::Runner;
use crate::step::{History, Step};
use crate::world::Actor;
use parking_lot::Mutex;
use skylog::base::random::SeededRandom;

/// States of each moment.
const PLANS: usize = 8;
/// Of so many states one is looked at closely.
const SAMPLE: u128 = 64;
/// Pairs and triples of an ordinary run.
const PAIRS: u64 = 1200;
const TRIPLES: u64 = 400;
/// Filesystems of different sizes, one after the other.
const STARTS: u64 = 24;

/// What follows an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Nothing,
    /// An fsync of what it made or changed.
    File,
    /// An fsync of the directory that is in.
    Directory,
    Checkpoint,
}

const AFTER: [After; 4] = [After::Nothing, After::File, After::Directory, After::Checkpoint];

fn path(name: &str) -> String {
    name.to_owned()
}

fn file(name: &str) -> At {
    At::Path(path(name))
}

fn create(name: &str) -> Call {
    Call::Create { path: path(name), mode: 0o644 }
}

fn mkdir(name: &str) -> Call {
    Call::Mkdir { path: path(name), mode: 0o755 }
}

fn write(name: &str, offset: u64, len: u32, fill: u8) -> Call {
    Call::Write { at: file(name), offset, len, fill }
}

fn rename(from: &str, to: &str, flags: u32) -> Call {
    Call::Rename { from: path(from), to: path(to), flags }
}

fn link(from: &str, to: &str) -> Call {
    Call::Link { from: path(from), to: path(to) }
}

fn set_xattr(name: &str, xattr: &str, len: usize) -> Call {
    Call::SetXattr { path: path(name), name: path(xattr), value: vec![7; len], flags: 0 }
}

/// The tree before: a file with an inline value, one with extents and a hole, one with two names, one that is held open, a
/// link, directories, attributes.
fn before() -> Vec<Call> {
    vec![
        mkdir("/a"),
        mkdir("/a/empty"),
        create("/a/small"),
        write("/a/small", 0, 500, 1),
        create("/large"),
        write("/large", 0, 7000, 2),
        link("/large", "/a/large"),
        Call::Symlink { path: path("/link"), target: b"large".to_vec() },
        set_xattr("/large", "user.old", 40),
        create("/sparse"),
        write("/sparse", 20_000, 3000, 8),
        create("/held"),
        write("/held", 0, 3000, 9),
        Call::Open { path: path("/held"), truncate: false, slot: 1 },
    ]
}

/// Operations on names.
fn names() -> Vec<Call> {
    vec![
        create("/new"),
        mkdir("/a/dir"),
        create("/a/dir/new"),
        Call::Symlink { path: path("/a/to"), target: b"x".to_vec() },
        Call::Mknod { path: path("/fifo"), mode: libc::S_IFIFO | 0o600, rdev: 0 },
        Call::Mknod { path: path("/device"), mode: libc::S_IFCHR | 0o600, rdev: 0x103 },
        link("/a/small", "/small"),
        link("/large", "/new"),
        link("/held", "/a/kept"),
        Call::Unlink { path: path("/large") },
        Call::Unlink { path: path("/a/large") },
        Call::Unlink { path: path("/a/small") },
        Call::Unlink { path: path("/link") },
        Call::Unlink { path: path("/held") },
        Call::Rmdir { path: path("/a/empty") },
        rename("/large", "/moved", 0),
        rename("/large", "/a/empty/moved", libc::RENAME_NOREPLACE),
        rename("/a/small", "/large", 0),
        rename("/large", "/a/small", 0),
        rename("/a/small", "/held", 0),
        rename("/a", "/b", 0),
        rename("/a/empty", "/empty", 0),
        rename("/a/dir", "/a/empty", 0),
        rename("/a", "/large", libc::RENAME_EXCHANGE),
        rename("/a/small", "/held", libc::RENAME_EXCHANGE),
        rename("/a/small", "/moved", libc::RENAME_WHITEOUT),
        Call::Close { slot: 1 },
    ]
}

/// Operations on what files hold, and on what is said of them.
fn contents() -> Vec<Call> {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    let allocate = |name: &str, mode, offset, len| Call::Allocate { at: file(name), mode, offset, len };
    let copy = |from: &str, offset, to: &str, to_offset, len| {
        let (from, to) = (file(from), file(to));
        Call::Copy { from, offset, to, to_offset, len }
    };
    let acl = Acl { classes: [7, 5, 0], mask: Some(5), users: [(1000, 6)].into(), groups: [].into() };
    vec![
        write("/large", 2000, 3000, 3),
        write("/large", 6500, 2000, 4),
        write("/a/small", 100, 100, 5),
        write("/a/small", 2000, 3000, 6),
        write("/new", 9000, 10, 7),
        write("/sparse", 4096, 100, 8),
        Call::Write { at: At::Slot(1), offset: 2500, len: 4000, fill: 10 },
        Call::Open { path: path("/large"), truncate: true, slot: 2 },
        Call::Truncate { at: file("/large"), size: 0 },
        Call::Truncate { at: file("/large"), size: 3000 },
        Call::Truncate { at: file("/a/small"), size: 9000 },
        Call::Truncate { at: file("/sparse"), size: 21_000 },
        Call::Truncate { at: At::Slot(1), size: 100 },
        allocate("/a/small", 0, 0, 8000),
        allocate("/large", KEEP, 7000, 8000),
        allocate("/large", libc::FALLOC_FL_PUNCH_HOLE | KEEP, 1000, 4500),
        allocate("/large", libc::FALLOC_FL_ZERO_RANGE, 5000, 4000),
        copy("/large", 0, "/a/small", 4096, 5000),
        copy("/large", 0, "/large", 8192, 7000),
        copy("/sparse", 18_000, "/new", 0, 5000),
        Call::Chmod { path: path("/large"), mode: 0o4755 },
        Call::Chown { path: path("/a"), uid: Some(5), gid: None },
        Call::Chown { path: path("/large"), uid: Some(6), gid: Some(7) },
        Call::Utimens { path: path("/a/small"), atime: 5, mtime: 6 },
        set_xattr("/large", "user.x", 300),
        set_xattr("/a", "user.old", 5),
        Call::RemoveXattr { path: path("/large"), name: path("user.old") },
        Call::SetAcl { path: path("/a"), default: true, acl: Some(acl.clone()) },
        Call::SetAcl { path: path("/large"), default: false, acl: Some(acl) },
    ]
}

fn all() -> Vec<Call> {
    [names(), contents()].concat()
}

/// The small tree of the triples: two directories with a file in one of them.
fn before_names() -> Vec<Call> {
    vec![mkdir("/A"), mkdir("/B"), create("/A/foo"), write("/A/foo", 0, 100, 1)]
}

/// Every change of names over a few of them.
fn name_operations() -> Vec<Call> {
    let places = ["/foo", "/A/foo", "/B/foo", "/A/bar"];
    let unlink = |at: &str| Call::Unlink { path: path(at) };
    let symlink = |at: &str| Call::Symlink { path: path(at), target: b"foo".to_vec() };
    let mut calls: Vec<Call> = Vec::new();
    calls.extend(["/foo", "/B/foo", "/A/bar"].map(create));
    calls.extend(["/foo", "/A/bar", "/B/C"].map(mkdir));
    calls.extend(places.map(unlink));
    calls.extend(["/foo", "/A/bar"].map(symlink));
    calls.extend(["/A", "/B", "/B/C"].map(|at| Call::Rmdir { path: path(at) }));
    calls.extend([link("/A/foo", "/B/foo"), link("/A/foo", "/A/bar"), link("/B/foo", "/foo")]);
    calls.extend([("/A/foo", "/B/foo"), ("/B/foo", "/A/foo"), ("/A/foo", "/A/bar"), ("/A/bar", "/foo")].map(moved));
    calls.extend([("/A", "/C"), ("/B", "/A"), ("/A", "/B"), ("/B", "/A/bar"), ("/B/C", "/A/bar")].map(moved));
    calls
}

fn moved((from, to): (&str, &str)) -> Call {
    rename(from, to, 0)
}

/// What an operation made or changed, as it is called afterwards.
fn subject(call: &Call) -> Option<&str> {
    match call {
        Call::Create { path, .. } | Call::Mkdir { path, .. } | Call::Mknod { path, .. } => Some(path),
        Call::Symlink { path, .. } | Call::Unlink { path } | Call::Rmdir { path } => Some(path),
        Call::Link { to, .. } | Call::Rename { to, .. } => Some(to),
        Call::Chmod { path, .. } | Call::Chown { path, .. } | Call::Utimens { path, .. } => Some(path),
        Call::SetXattr { path, .. } | Call::RemoveXattr { path, .. } | Call::SetAcl { path, .. } => Some(path),
        Call::Open { path, .. } => Some(path),
        Call::Write { at, .. } | Call::Truncate { at, .. } | Call::Allocate { at, .. } | Call::Copy { to: at, .. } => {
            match at {
                At::Path(path) => Some(path),
                At::Slot(_) => Some("/held"),
            }
        }
        _ => None,
    }
}

/// The steps of an operation and what follows; nothing when there is nothing that could be synced.
fn steps_of(call: &Call, after: After) -> Option<Vec<Step>> {
    let subject = subject(call);
    let gone = matches!(call, Call::Unlink { .. } | Call::Rmdir { .. });
    let parent = |path: &str| path.rsplit_once('/').map_or("/", |(parent, _)| parent).to_owned();
    let follows = match after {
        After::Nothing => None,
        After::File => Some(Step::Fsync { path: subject.filter(|_| !gone)?.to_owned() }),
        After::Directory => Some(Step::Fsync { path: format!("{}/", parent(subject?)) }),
        After::Checkpoint => Some(Step::Drain),
    };
    Some([Step::Do(op(call))].into_iter().chain(follows).collect())
}

fn op(call: &Call) -> Op {
    Op { who: ROOT, call: call.clone() }
}

/// What all sequences of a kind found together.
#[derive(Default)]
struct Sum {
    distinct: Distinct,
    figures: Mutex<Figures>,
    failures: Mutex<Vec<String>>,
}

impl Sum {
    /// Does a few steps after the usual ones, and crashes them everywhere.
    fn crash(&self, start: u64, plans: usize, before: &[Call], steps: &[Step]) {
        let before = before.iter().map(|call| Step::Do(op(call))).chain([Step::Drain]);
        let history = History { start, steps: before.chain(steps.iter().cloned()).collect() };
        let run = || {
            let mut runner = Runner::new(start, &SeededRandom::new(start));
            let known = history.steps.len() - steps.len();
            history.steps[..known].iter().for_each(|step| runner.perform(step));
            runner.begin_here();
            steps.iter().for_each(|step| runner.perform(step));
            let recorded = runner.end();
            let mut judge = Judge::new(&recorded, SAMPLE);
            let failure = explore(&recorded, &mut judge, plans, None).err();
            let Judge { mut figures, distinct, .. } = judge;
            figures += &recorded.figures;
            (failure, figures, distinct)
        };
        let what = match quietly(run) {
            Ok((failure, figures, distinct)) => {
                *self.figures.lock() += &figures;
                self.distinct.add(distinct);
                failure.map(|failure| failure.what)
            }
            Err(e) => Some(e),
        };
        if let Some(what) = what {
            self.failures.lock().push(format!("{what}\n{}", history.to_text()));
        }
    }

    /// Prints what was done, and fails if anything failed or nothing was at stake.
    fn end(self, part: &'static str) {
        let Sum { distinct, figures, failures } = self;
        let (figures, failures) = (figures.into_inner(), failures.into_inner());
        let counts = Counts {
            part,
            histories: figures.histories,
            states: figures.judged,
            distinct: distinct.count(),
            failures: failures.len() as u64,
            kills: figures.recoveries,
            faults: 0,
        };
        counts.print();
        assert!(failures.is_empty(), "{} sequences failed; one of them:\n{}", failures.len(), failures[0]);
        let exercised = [figures.histories, figures.bytes_lost, figures.recoveries, figures.recovery_calls];
        assert!(exercised.iter().all(|count| *count > 0), "the run proved nothing: {exercised:?}");
    }
}

/// The sequences of one kind.
struct Kind {
    part: &'static str,
    before: Vec<Call>,
    calls: Vec<Call>,
    count: u32,
    /// What follows each but the last, and what follows that.
    between: Vec<After>,
    last: Vec<After>,
}

impl Kind {
    fn all(&self) -> u64 {
        let (calls, between) = (self.calls.len() as u64, self.between.len() as u64);
        calls.pow(self.count) * between.pow(self.count - 1) * self.last.len() as u64
    }

    /// Sequence number `number` of all. What is not asked for is written and not synced at the end.
    fn sequence(&self, mut number: u64) -> Option<Vec<Step>> {
        let mut take = |from: usize| {
            let taken = usize::try_from(number % from as u64).expect("few");
            number /= from as u64;
            taken
        };
        let mut steps = Vec::new();
        for n in 1..=self.count {
            let after = if n == self.count { &self.last } else { &self.between };
            steps.extend(steps_of(&self.calls[take(self.calls.len())], after[take(after.len())])?);
        }
        steps.extend([Step::Sleep { ms: 300 }, Step::Act(Actor::Writer)]);
        Some(steps)
    }

    /// Runs so many of them, spread over all.
    fn run(&self, wanted: u64) {
        /// Has no factor in common with any number of sequences.
        const STRIDE: u64 = 2_147_483_647;
        let all = self.all();
        let seed = crate::env("SKYLOG_SIM_SEED").unwrap_or(1);
        let plans = crate::env("SKYLOG_SIM_PLANS").map_or(PLANS, |plans| usize::try_from(plans).expect("few"));
        let sum = Sum::default();
        each(wanted.min(all), deadline(), |job| {
            let number = (job + seed % all) * STRIDE % all;
            if let Some(steps) = self.sequence(number) {
                sum.crash(number % STARTS + 1, plans, &self.before, &steps);
            }
        });
        println!("{} of {all} sequences, those that sync what is gone left out", sum.figures.lock().histories);
        sum.end(self.part);
    }
}

#[test]
fn every_operation_alone_survives_every_crash() {
    let (between, last) = (Vec::new(), AFTER.to_vec());
    Kind { part: "operations", before: before(), calls: all(), count: 1, between, last }.run(u64::MAX);
}

#[test]
fn every_two_operations_survive_every_crash() {
    let (between, last) = (AFTER.to_vec(), AFTER.to_vec());
    let wanted = crate::env("SKYLOG_SIM_PAIRS").unwrap_or(PAIRS);
    Kind { part: "pairs of operations", before: before(), calls: all(), count: 2, between, last }.run(wanted);
}

/// With nothing between: a sync there makes shorter sequences of it.
#[test]
fn every_three_changes_of_names_survive_every_crash() {
    let (between, last) = (vec![After::Nothing], vec![After::Nothing, After::Directory, After::Checkpoint]);
    let wanted = crate::env("SKYLOG_SIM_TRIPLES").unwrap_or(TRIPLES);
    let (before, calls) = (before_names(), name_operations());
    Kind { part: "triples of names", before, calls, count: 3, between, last }.run(wanted);
}
