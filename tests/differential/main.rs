//! Random sequences of system calls on a real mount and on ext4 beside it: the same results, error numbers, bytes and trees.
//! Then the mount goes and comes back, cleanly and after a kill, and every tree is as it was. What is known to differ is listed
//! in `docs/semantics.md` and nowhere else; a row that no case shows is a failure.
//!
//! A failure prints the shortest sequence that still shows it, as it is written in `cases/`, where it becomes a fixed test.
//! `SKYLOG_DIFF_SEQUENCES=n` runs more or fewer, `SKYLOG_DIFF_SEED=n` starts with another seed (with `…SEQUENCES=1` it repeats
//! one), `SKYLOG_DIFF_THREADS=n` runs so many at once, `SKYLOG_DIFF_FAILURES=n` shows more failures before it stops,
//! `SKYLOG_DIFF_OPTIONS=words` adds mount options.

mod calls;
mod cases;
mod compare;
#[path = "../counted/mod.rs"]
mod counted;
mod generate;
mod ground;
mod known;
mod perform;
mod step;
mod tree;

use compare::{changes, look_again, shrink};
use counted::Counts;
use ground::Ground;
use known::Known;
use perform::Look;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use step::Step;
use tree::Tree;

const SEQUENCES: u64 = 2000;
const STEPS: usize = 30;
/// Sequences between two unmounts.
const ROUND: u64 = 500;
/// More than processors: sequences wait for the clock and for disks.
const THREADS: u64 = 8;
/// Of so many sequences, one is watched for the times each step changes.
const WATCHED: u64 = 10;

/// A number from the environment.
fn env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// What all threads share.
struct Run {
    ground: Ground,
    known: Known,
    /// The next sequence.
    next: AtomicU64,
    /// What each sequence left on the mount.
    left: Mutex<BTreeMap<String, Tree>>,
    failures: Mutex<Vec<String>>,
    /// How often each call was made, and how often it succeeded.
    calls: Mutex<BTreeMap<String, [u64; 2]>>,
    failures_max: u64,
}

impl Run {
    fn new(known: Known) -> Run {
        Run {
            ground: Ground::new(),
            known,
            next: AtomicU64::new(0),
            left: Mutex::new(BTreeMap::new()),
            failures: Mutex::new(Vec::new()),
            calls: Mutex::new(BTreeMap::new()),
            failures_max: env("SKYLOG_DIFF_FAILURES", 3),
        }
    }

    fn failed(&self, what: String) {
        self.failures.lock().expect("no panic while it is held").push(what);
    }

    fn enough(&self) -> bool {
        self.failures.lock().expect("no panic while it is held").len() as u64 >= self.failures_max
    }

    /// Runs steps in a fresh directory; what differs, or what went wrong.
    fn run(&self, name: &str, steps: &[Step], look: Look) -> Vec<String> {
        let done = catch_unwind(AssertUnwindSafe(|| compare::run(&self.ground, name, steps, look, &self.known)));
        match done {
            Ok((found, record)) => {
                let mut calls = self.calls.lock().expect("no panic while it is held");
                for (step, succeeded) in steps.iter().zip(record.succeeded()) {
                    let [made, done] = calls.entry(step.call.name()).or_default();
                    *made += 1;
                    *done += u64::from(succeeded);
                }
                self.left.lock().expect("no panic while it is held").insert(name.to_string(), record.files());
                found
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_string());
                vec![text]
            }
        }
    }

    /// Runs sequences until `end`, one after the other.
    fn work(&self, seed: u64, end: u64) {
        calls::own_root();
        loop {
            let index = self.next.load(Ordering::Relaxed);
            if index >= end || self.enough() {
                return;
            }
            if self.next.compare_exchange(index, index + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                self.sequence(seed + index);
            }
        }
    }

    fn sequence(&self, seed: u64) {
        let steps = generate::generate(seed, STEPS);
        let look = Look { times: seed % WATCHED == 0 };
        let found = self.run(&seed.to_string(), &steps, look);
        if found.is_empty() {
            return;
        }
        let mut tries = 0;
        let fewest = shrink(&steps, |fewer| {
            tries += 1;
            !self.run(&format!("{seed}.{tries}"), fewer, look).is_empty()
        });
        let again = self.run(&format!("{seed}.again"), &fewest, look);
        let found = if again.is_empty() { found } else { again };
        self.failed(format!(
            "SKYLOG_DIFF_SEED={seed} SKYLOG_DIFF_SEQUENCES=1\n{}\n{}",
            cases::text(&fewest, look),
            found.join("\n")
        ));
    }

    /// The mount goes and comes back: every tree is as it was.
    fn verify_after_remount(&mut self, kill: bool) {
        self.ground.mount_again(kill);
        let left = std::mem::take(&mut *self.left.lock().expect("no panic while it is held"));
        let ground = &self.ground;
        let changed = std::thread::scope(|scope| {
            let look = move || {
                calls::own_root();
                let changed = |(name, tree): (String, Tree)| {
                    let found = changes(&tree, &look_again(&ground.mount().join(&name)));
                    (!found.is_empty()).then(|| format!("{name}: {}", found.join("; ")))
                };
                left.into_iter().filter_map(changed).collect::<Vec<_>>()
            };
            scope.spawn(look).join().expect("what was there can be read")
        });
        let how = if kill { "sync, kill and mount" } else { "unmount and mount" };
        for what in changed {
            self.failed(format!("after {how}, sequence {what}"));
        }
    }

    /// Every call was made, and succeeded at least once in so many times that it proves something.
    fn every_call_counts(&self) {
        let calls = self.calls.lock().expect("no panic while it is held");
        println!("calls made and succeeded: {calls:?}");
        let useless: Vec<_> = calls.iter().filter(|(_, [_, done])| *done < 5).collect();
        assert!(useless.is_empty(), "these calls hardly ever succeed: {useless:?}");
    }

    fn verdict(self) {
        let failures = self.failures.into_inner().expect("no thread panicked");
        assert!(failures.is_empty(), "{} sequences differ:\n{}", failures.len(), failures.join("\n\n"));
    }
}

#[test]
fn random_sequences_see_no_difference_from_ext4() {
    let (seed, sequences) = (env("SKYLOG_DIFF_SEED", 1), env("SKYLOG_DIFF_SEQUENCES", SEQUENCES));
    let threads = env("SKYLOG_DIFF_THREADS", THREADS);
    let mut run = Run::new(Known::read());
    let mut end = 0;
    let (mut kill, mut kills) = (false, 0);
    while end < sequences && !run.enough() {
        end = (end + ROUND).min(sequences);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| run.work(seed, end));
            }
        });
        run.verify_after_remount(kill);
        kills += u64::from(kill);
        kill = !kill;
    }
    println!(
        "{} sequences of {STEPS} steps; known differences seen: {:?}",
        run.next.load(Ordering::Relaxed),
        run.known.used()
    );
    let failures = run.failures.lock().expect("no thread panicked").len() as u64;
    let histories = run.next.load(Ordering::Relaxed);
    Counts { part: "calls beside ext4", histories, failures, kills, ..Counts::default() }.print();
    run.ground.check();
    if sequences >= ROUND {
        run.every_call_counts();
    }
    run.verdict();
}

#[test]
fn cases_that_once_differed_are_the_same_and_known_differences_are_real() {
    let mut run = Run::new(Known::read());
    let wrong = std::thread::scope(|scope| {
        let all = || {
            calls::own_root();
            cases::run_all(&run)
        };
        scope.spawn(all).join().expect("a case that fails says so")
    });
    run.failures.lock().expect("no thread panicked").extend(wrong);
    run.verify_after_remount(true);
    let unlisted = run.known.missing();
    assert!(unlisted.is_empty(), "conditions without a row in docs/semantics.md: {unlisted:?}");
    let unused: Vec<_> = run.known.used().into_iter().filter(|(_, used)| *used == 0).collect();
    assert!(unused.is_empty(), "no case in tests/differential/cases shows these rows of docs/semantics.md: {unused:?}");
    run.verdict();
}

/// Without the table its differences are failures, told with the steps that show them and no others.
#[test]
fn a_difference_is_seen_and_shrunk() {
    let run = Run::new(Known::nothing());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            calls::own_root();
            run.sequence(3);
        });
    });
    let failures = run.failures.into_inner().expect("no thread panicked");
    assert_eq!(failures.len(), 1);
    assert!(failures[0].contains("SKYLOG_DIFF_SEED=3") && failures[0].contains("directory size"), "{}", failures[0]);
    let shown = failures[0].lines().filter(|line| line.contains("\"who\"")).count();
    assert!(shown <= 1, "the directory that is there from the beginning is enough: {}", failures[0]);
}
