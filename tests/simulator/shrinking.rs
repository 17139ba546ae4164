//! A failure is shrunk to the few steps that it takes, and these fail when they are done again from their text.

use crate::Scope;
use crate::fixed::KEPT;
use crate::replay::{failure, record, replay, shrink};
use crate::step::History;
use skylog::base::canary::{Canary, with_removed};

const SCOPE: Scope = Scope { seed: 1, histories: 1, crash: None, plans: 6, sample: 8 };

/// The first seed whose history fails without a rule, shrunk.
fn shrunk(rule: Canary, steps_max: usize) {
    with_removed(rule, || {
        let fails = |history: &History| failure(history, &SCOPE);
        let history = (1..40).map(record).find(|history| fails(history).is_some()).expect("it is missed");
        let shrunk = shrink(&history, &fails).expect("it fails");
        println!("without {rule:?}, {} steps; {shrunk}", history.steps.len());
        let steps = shrunk.history.steps.len();
        assert!(steps <= steps_max, "{steps} steps are left of {}", history.steps.len());
        let again = History::parse(&shrunk.history.to_text());
        assert!(fails(&again).is_some(), "it fails from its text too");
    });
}

#[test]
fn a_sync_that_is_missing_is_shown_in_a_few_steps() {
    shrunk(Canary::SegmentSync, 6);
}

#[test]
fn a_checkpoint_that_is_not_durable_is_shown_in_a_few_steps() {
    shrunk(Canary::DurableBeforeCheckpoint, 10);
}

#[test]
fn a_history_done_again_from_its_steps_makes_the_same_calls() {
    for seed in [2, 4, 6, 7, 9] {
        let (once, again) = (crate::dice::run(seed), replay(&record(seed)));
        let calls = |recorded: &crate::run::Recorded| -> Vec<String> {
            let all = recorded.stages.iter().flat_map(|stage| stage.store.log().calls());
            all.map(|call| format!("{call:?}")).collect()
        };
        assert_eq!(calls(&once), calls(&again), "seed {seed}");
    }
}

#[test]
fn what_was_printed_is_a_fixed_test() {
    let history = History::parse(KEPT[0]);
    let without = with_removed(Canary::SegmentSync, || failure(&history, &SCOPE));
    assert!(without.is_some_and(|what| what.contains("the state after operation 0, expected 1..=1")));
}
