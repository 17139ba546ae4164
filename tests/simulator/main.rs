//! The crash simulator. Random histories run on a simulated disk and store, with the product's own journal, checkpoints,
//! shipping and recovery, every actor stepped by one seeded scheduler. Then each history is crashed after every call
//! that changed disk or store, in many of the ways in which a power cut may leave the rest, and the product's own
//! recovery must find what was promised: see [`oracle`].
//!
//! A failure prints what it takes to see it again. `SKYLOG_SIM_SEED=n` starts with another seed, `SKYLOG_SIM_HISTORIES=n` runs
//! more or fewer histories, `SKYLOG_SIM_CRASH=n` judges one crash of each, `SKYLOG_SIM_PLANS=n` looks at more states of each
//! moment, `SKYLOG_SIM_SAMPLE=n` looks closely at one state of n, `SKYLOG_SIM_WRITERS=n` runs more or fewer histories of
//! several writers: see [`writers`].

#[path = "../model/mod.rs"]
mod model;

mod audit;
mod book;
mod cached;
mod canaries;
mod crash;
mod failing;
mod fence;
mod figures;
mod fixed;
mod flips;
mod middle;
mod oracle;
mod paths;
mod real;
mod run;
mod scenes;
mod small;
mod world;
mod writers;

use crash::{explore, quietly};
use figures::Figures;
use oracle::Judge;
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const HISTORIES: u64 = 520;
const DISTINCT_MIN: usize = 100_000;
const HISTORIES_MIN: u64 = 500;

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

/// What all threads found together.
#[derive(Default)]
struct Found {
    figures: Figures,
    distinct: HashSet<u128>,
    failures: Vec<String>,
}

/// Runs the history of one seed and crashes it everywhere.
fn run_one(scope: &Scope, seed: u64) -> Found {
    let again = format!("SKYLOG_SIM_SEED={seed} SKYLOG_SIM_HISTORIES=1");
    let recorded = match quietly(|| run::run(seed)) {
        Ok(recorded) => recorded,
        Err(e) => return Found { failures: vec![format!("{again}: the history itself: {e}")], ..Found::default() },
    };
    let mut judge = Judge::new(&recorded, scope.sample);
    let failure = explore(&recorded, &mut judge, scope.plans, scope.crash).err();
    let failures = failure.map(|f| format!("{again} SKYLOG_SIM_CRASH={}: {}", f.crash, f.what));
    let Judge { mut figures, distinct, .. } = judge;
    figures += &recorded.figures;
    Found { figures, distinct, failures: failures.into_iter().collect() }
}

fn run_all(scope: &Scope) -> Found {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(0);
    let found = Mutex::new(Found::default());
    std::thread::scope(|threads_of| {
        for _ in 0..threads {
            threads_of.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= scope.histories {
                        break;
                    }
                    let one = run_one(scope, scope.seed + index);
                    let mut all = found.lock().expect("no panic while it is held");
                    all.figures += &one.figures;
                    all.distinct.extend(one.distinct);
                    all.failures.extend(one.failures);
                }
            });
        }
    });
    found.into_inner().expect("no thread panicked")
}

#[test]
fn every_crash_leaves_a_prefix_at_or_after_what_was_promised() {
    let scope = Scope::from_env();
    let found = run_all(&scope);
    println!("{}{:>10} distinct states", found.figures, found.distinct.len());
    let failures = found.failures.len();
    for failure in &found.failures {
        println!("{}", failure.lines().take(2).collect::<Vec<_>>().join(" "));
    }
    assert!(failures == 0, "{failures} histories failed; one of them:\n{}", found.failures[0]);
    if scope.crash.is_some() || scope.histories < HISTORIES_MIN {
        return;
    }
    for (name, count) in found.figures.named() {
        assert!(count > 0, "the run proved nothing: no {name}");
    }
    assert!(found.figures.histories >= HISTORIES_MIN, "too few histories");
    assert!(found.distinct.len() >= DISTINCT_MIN, "too few distinct states");
}
