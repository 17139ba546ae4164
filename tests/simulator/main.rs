//! The crash simulator. Random histories run on a simulated disk and store, with the product's own journal, checkpoints,
//! shipping and recovery, every actor stepped by one seeded scheduler. Then each history is crashed after every call
//! that changed disk or store, in many of the ways in which a power cut may leave the rest, and the product's own
//! recovery must find what was promised: see [`oracle`].
//!
//! A failure prints what it takes to see it again, and the fewest steps that still fail: see [`replay`]. `SKYLOG_SIM_SEED=n`
//! starts with another seed, `SKYLOG_SIM_HISTORIES=n` runs more or fewer histories, `SKYLOG_SIM_CRASH=n` judges one crash of
//! each, `SKYLOG_SIM_PLANS=n` looks at more states of each moment, `SKYLOG_SIM_SAMPLE=n` looks closely at one state of n,
//! `SKYLOG_SIM_REPLAY=FILE` does a history again from its steps, `SKYLOG_SIM_SECONDS=n` ends each part after so long,
//! `SKYLOG_SIM_PAIRS=n` and `SKYLOG_SIM_TRIPLES=n` run more or fewer short sequences (see [`small`]), `SKYLOG_SIM_WRITERS=n`
//! more or fewer histories of several writers (see [`writers`]).

#[path = "../model/mod.rs"]
mod model;

mod aside;
mod audit;
mod book;
mod cached;
mod canaries;
mod counts;
mod crash;
mod dice;
mod failing;
mod fence;
mod figures;
mod fixed;
mod flips;
mod mended;
mod middle;
mod oracle;
mod paths;
mod real;
mod repairs;
mod replay;
mod run;
mod scenes;
mod shrinking;
mod small;
mod step;
mod world;
mod writers;

use counts::{Counts, Distinct, deadline, each};
use crash::{explore, quietly};
use figures::Figures;
use oracle::Judge;
use run::Recorded;
use std::collections::HashSet;
use std::sync::Mutex;
use step::History;

const HISTORIES: u64 = 520;
const DISTINCT_MIN: u64 = 100_000;
const HISTORIES_MIN: u64 = 500;
/// Histories after which something was lost, killed and made to fail.
const VITAL_MIN: u64 = 40;

/// A number from the environment.
fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// What a run looks at.
#[derive(Clone, Copy)]
struct Scope {
    seed: u64,
    histories: u64,
    crash: Option<u64>,
    /// States of each moment.
    plans: usize,
    /// Of so many states, one is looked at closely.
    sample: u128,
}

impl Scope {
    fn from_env() -> Scope {
        Scope {
            seed: env("SKYLOG_SIM_SEED").unwrap_or(1),
            histories: env("SKYLOG_SIM_HISTORIES").unwrap_or(HISTORIES),
            crash: env("SKYLOG_SIM_CRASH"),
            plans: usize::try_from(env("SKYLOG_SIM_PLANS").unwrap_or(5)).expect("few"),
            sample: u128::from(env("SKYLOG_SIM_SAMPLE").unwrap_or(14)),
        }
    }
}

/// What was found in one history, or in all.
#[derive(Default)]
struct Found {
    figures: Figures,
    /// States, by hash; those of one history only.
    distinct: HashSet<u128>,
    failures: Vec<String>,
    /// A seed that failed.
    failed: Option<u64>,
}

/// Runs the history of one seed and crashes it everywhere.
fn run_one(scope: &Scope, seed: u64) -> Found {
    judge_one(scope, seed, dice::run)
}

/// The same with the history that `run` makes of the seed.
fn judge_one(scope: &Scope, seed: u64, run: fn(u64) -> Recorded) -> Found {
    let again = format!("SKYLOG_SIM_SEED={seed} SKYLOG_SIM_HISTORIES=1");
    let recorded = match quietly(|| run(seed)) {
        Ok(recorded) => recorded,
        Err(e) => return Found { failures: vec![format!("{again}: the history itself: {e}")], ..Found::default() },
    };
    let mut judge = Judge::new(&recorded, scope.sample);
    let failure = explore(&recorded, &mut judge, scope.plans, scope.crash).err();
    let failures = failure.map(|f| format!("{again} SKYLOG_SIM_CRASH={}: {}", f.crash, f.what));
    let Judge { mut figures, distinct, .. } = judge;
    figures += &recorded.figures;
    Found { figures, distinct, failures: failures.into_iter().collect(), failed: None }
}

/// Runs many histories, and counts the distinct states of all.
fn run_all(scope: &Scope) -> (Found, u64) {
    let found = Mutex::new(Found::default());
    let distinct = Distinct::default();
    each(scope.histories, deadline(), |index| {
        let one = run_one(scope, scope.seed + index);
        distinct.add(one.distinct);
        let mut all = found.lock().expect("no panic while it is held");
        all.figures += &one.figures;
        all.failed = all.failed.or(one.failures.first().map(|_| scope.seed + index));
        all.failures.extend(one.failures);
    });
    (found.into_inner().expect("no thread panicked"), distinct.count())
}

#[test]
fn every_crash_leaves_a_prefix_at_or_after_what_was_promised() {
    let scope = Scope::from_env();
    let (found, distinct) = run_all(&scope);
    let Found { figures, failures, failed, .. } = found;
    println!("{figures}{distinct:>10} distinct states");
    let counts = Counts {
        part: "histories",
        histories: figures.histories + failures.len() as u64,
        states: figures.judged,
        distinct,
        failures: failures.len() as u64,
        kills: figures.recoveries + figures.kills + figures.cuts,
        faults: figures.faults + figures.late_puts,
    };
    counts.print();
    for failure in &failures {
        println!("{}", failure.lines().take(2).collect::<Vec<_>>().join(" "));
    }
    if let (Some(seed), None) = (failed, scope.crash) {
        let fails = |history: &History| replay::failure(history, &scope);
        match replay::shrink(&replay::record(seed), &fails) {
            Some(shrunk) => println!("{shrunk}"),
            None => println!("done again from its steps it does not fail"),
        }
    }
    assert!(failures.is_empty(), "{} histories failed; one of them:\n{}", failures.len(), failures[0]);
    if figures.histories >= VITAL_MIN {
        let vital =
            [figures.bytes_lost, counts.kills, counts.faults, figures.recovery_calls, figures.repairs, figures.mended];
        assert!(vital.iter().all(|count| *count > 0), "the run proved nothing: {vital:?}");
    }
    let cut_short = deadline().is_some() && figures.histories < HISTORIES_MIN;
    if scope.crash.is_some() || scope.histories < HISTORIES_MIN || cut_short {
        return;
    }
    for (name, count) in figures.named() {
        assert!(count > 0, "the run proved nothing: no {name}");
    }
    assert!(figures.histories >= HISTORIES_MIN, "too few histories");
    assert!(distinct >= DISTINCT_MIN, "too few distinct states");
}

/// Does the history in the file `SKYLOG_SIM_REPLAY` again.
#[test]
fn a_history_that_was_kept_survives_every_crash() {
    let Some(file) = std::env::var_os("SKYLOG_SIM_REPLAY") else { return };
    let text = std::fs::read_to_string(file).expect("the file that SKYLOG_SIM_REPLAY names");
    let failure = replay::failure(&History::parse(&text), &Scope::from_env());
    assert!(failure.is_none(), "{}", failure.unwrap_or_default());
}
