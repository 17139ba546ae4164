//! The proof proves itself: without any one of the rules that keep data safe, the simulator finds a crash that is not
//! survived. A rule whose absence it does not see is one that it does not prove.

use crate::{Scope, run_one};
use skylog::base::canary::{Canary, with_removed};

/// Histories within which it must be found.
const HISTORIES_MAX: u64 = 40;

/// Runs without `rule` until something is wrong.
fn must_be_missed(rule: Canary) {
    let scope = Scope { seed: 1, histories: 1, crash: None, plans: 6, sample: 4 };
    let found = with_removed(rule, || (1..=HISTORIES_MAX).find_map(|seed| run_one(&scope, seed).failures.pop()));
    let found = found.unwrap_or_else(|| panic!("without {rule:?} nothing went wrong in {HISTORIES_MAX} histories"));
    println!("without {rule:?}: {}", found.lines().take(3).collect::<Vec<_>>().join(" "));
}

#[test]
fn a_segment_that_is_not_synced_is_missed() {
    must_be_missed(Canary::SegmentSync);
}

#[test]
fn a_manifest_whose_folder_is_not_synced_is_missed() {
    must_be_missed(Canary::ManifestDirSync);
}

#[test]
fn an_accepted_tail_that_is_not_synced_is_missed() {
    must_be_missed(Canary::TailSync);
}

#[test]
fn the_nonce_of_a_mount_is_missed() {
    must_be_missed(Canary::Nonce);
}

#[test]
fn an_index_before_its_segments_is_missed() {
    must_be_missed(Canary::SegmentsBeforeIndex);
}

#[test]
fn a_reclaim_before_the_batch_of_its_window_is_missed() {
    must_be_missed(Canary::WindowBeforeReclaim);
}

#[test]
fn a_checkpoint_before_its_lsn_is_durable_is_missed() {
    must_be_missed(Canary::DurableBeforeCheckpoint);
}

#[test]
fn a_job_before_the_store_was_asked_is_missed() {
    must_be_missed(Canary::ResumeBeforeJobs);
}

#[test]
fn a_copy_that_is_not_verified_is_missed() {
    must_be_missed(Canary::CopyVerified);
}

#[test]
fn a_deletion_before_it_was_listed_is_missed() {
    must_be_missed(Canary::PendingBeforeDelete);
}
