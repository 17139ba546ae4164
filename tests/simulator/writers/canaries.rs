//! The proof proves itself, as in [`crate::canaries`]: without any one of the rules that keep writers apart, or that keep what
//! was acknowledged, some history of several writers goes wrong.

use super::run_one;
use skylog::base::canary::Canary;

/// Histories within which it must be found.
const HISTORIES_MAX: u64 = 1500;

/// Runs without `rule` until something is wrong.
fn must_be_missed(rule: Canary) {
    let found = (1..=HISTORIES_MAX).find_map(|seed| run_one(seed, Some(rule)).err());
    let found = found.unwrap_or_else(|| panic!("without {rule:?} nothing went wrong in {HISTORIES_MAX} histories"));
    println!("without {rule:?}: {}", found.lines().take(4).collect::<Vec<_>>().join(" "));
}

#[test]
fn a_log_increment_before_its_batches_are_durable_is_missed() {
    must_be_missed(Canary::LogAfterDurable);
}

#[test]
fn an_answer_before_that_of_the_store_is_missed() {
    must_be_missed(Canary::AnswerAfterStore);
}

#[test]
fn a_base_without_the_tail_is_missed() {
    must_be_missed(Canary::BaseCarriesTail);
}

#[test]
fn a_tail_that_is_not_durable_before_the_manifest_is_missed() {
    must_be_missed(Canary::TailFileSync);
}

#[test]
fn a_number_that_is_not_created_once_is_missed() {
    must_be_missed(Canary::NumbersOnce);
}

#[test]
fn a_writer_that_heeds_no_other_is_missed() {
    must_be_missed(Canary::OthersFence);
}

#[test]
fn an_answer_that_is_not_read_back_is_missed() {
    must_be_missed(Canary::AnswerReadBack);
}

#[test]
fn a_gap_behind_which_nobody_looks_is_missed() {
    must_be_missed(Canary::LookBehindGap);
}

#[test]
fn a_deleted_number_before_a_closing_object_is_missed() {
    must_be_missed(Canary::LastNumberStays);
}

#[test]
fn a_deleted_closing_object_is_missed() {
    must_be_missed(Canary::ClosingStays);
}
