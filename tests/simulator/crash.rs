//! Crashes of a recorded history: each moment, each state that is possible there.

use crate::oracle::{Judge, Violation};
use crate::run::Recorded;
use skylog::media::sim::{Call, Limits, SimDisk};
use skylog::store::sim::{Crash, Recording, SimStore};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// Calls before a crash that are shown with it.
const CALLS_SHOWN: usize = 12;

/// States of a moment above which all are made that there are.
const MANY: usize = 64;

/// How many states of each moment are looked at.
pub struct Limited;

impl Limited {
    /// In a history.
    pub fn history(seed: u64, plans_max: usize) -> Limits {
        // Of few states of a moment, few are made.
        let (tears_max, random) = if plans_max > MANY { (128, 64) } else { (16, 16) };
        Limits { subsets_up_to: 8, tears_max, random, plans_max, seed }
    }

    /// In a recovery.
    pub fn recovery() -> Limits {
        Limits { subsets_up_to: 1, tears_max: 1, random: 1, plans_max: 3, seed: 1 }
    }
}

/// A crash that was not survived.
#[derive(Debug)]
pub struct Failure {
    /// Which of the history's crashes.
    pub crash: u64,
    pub what: String,
}

/// Crashes a history after each call, and judges each state. With `only`, one of them.
pub fn explore(recorded: &Recorded, judge: &mut Judge<'_>, plans_max: usize, only: Option<u64>) -> Result<(), Failure> {
    let limits = Limited::history(recorded.seed, plans_max);
    let mut number = 0;
    for (s, stage) in recorded.stages.iter().enumerate() {
        for span in &stage.spans {
            let recording = Recording::of(&span.disk, &stage.store);
            let notes = stage.book.by_moment(recording.calls());
            let mut cached = span.cached.walk();
            for crash in recording.crashes_between(&limits, span.from..=span.to) {
                number += 1;
                if only.is_some_and(|only| only != number) {
                    continue;
                }
                cached.go_to(crash.after);
                judge.judge(&crash, notes[crash.after], &cached).map_err(|what| {
                    let what = describe(&what, s, &crash, &recording);
                    Failure { crash: number, what }
                })?;
            }
            judge.figures.calls += (span.to - span.from) as u64;
        }
    }
    Ok(())
}

fn describe(what: &Violation, stage: usize, crash: &Crash, recording: &Recording) -> String {
    let Crash { after, plan, late, .. } = crash;
    let calls = recording.calls()[..*after].iter().filter(|call| !matches!(call, Call::Mark(_)));
    let mut calls: Vec<String> = calls.rev().take(CALLS_SHOWN).map(|call| format!("    {call:?}")).collect();
    calls.reverse();
    format!("{what}\n  stage {stage}, after call {after}, {plan:?}, late {late:?}\n{}", calls.join("\n"))
}

/// The states a power cut may leave now, or some of them.
pub fn states_at_end(disk: &SimDisk, store: &SimStore, seed: u64) -> Vec<Crash> {
    let recording = Recording::of(disk, store);
    let limits = Limits { plans_max: 32, seed, ..Limits::default() };
    let now = recording.calls().len();
    recording.crashes_between(&limits, now..=now).collect()
}

thread_local! {
    /// Where a panic goes while someone listens.
    static HEARD: RefCell<Option<String>> = const { RefCell::new(None) };
}
static HOOK: Once = Once::new();

/// Runs something; a panic in it is its answer, and nothing is printed.
pub fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, Violation> {
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let heard = HEARD.with_borrow_mut(|heard| heard.as_mut().map(|heard| *heard = info.to_string()).is_some());
            if !heard {
                loud(info);
            }
        }));
    });
    let before = HEARD.replace(Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(run));
    let heard = HEARD.replace(before);
    result.map_err(|_| heard.unwrap_or_default())
}
