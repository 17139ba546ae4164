//! Windows that wait to be shipped: what they will ship must be there until they are.

use super::Check;
use crate::checkpoint::files::{edits_file, plan_file, read_checkpoint, read_edits, read_plan};
use crate::format::batch::Batch;
use crate::format::checkpoint::Plan;
use crate::format::manifest::{Manifest, PlanEntry};
use crate::journal::MANIFEST;
use crate::media::Media;

pub(super) fn check_plans(check: &mut Check<'_>) -> bool {
    let (Some(state), Some(manifest)) = (check.state.clone(), check.manifest.clone()) else { return true };
    check_chain(check, &manifest);
    for (done, entry) in manifest.plans.iter().enumerate() {
        check.step(done as u64, manifest.plans.len() as u64);
        match read_plan(&*state, entry.number) {
            Ok(plan) => check_plan(check, entry, plan),
            Err(e) => check.problem(plan_file(entry.number), e.to_string()),
        }
        check_edits(check, &*state, entry);
        if let Err(e) = read_checkpoint(&*state, entry.number) {
            check.problem(format!("checkpoint {}", entry.number), format!("{e}; its window waits to be shipped"));
        }
    }
    true
}

/// The windows follow one another, and the last ends at the checkpoint.
fn check_chain(check: &mut Check<'_>, manifest: &Manifest) {
    for pair in manifest.plans.windows(2) {
        if pair[0].end != pair[1].start {
            check.problem(
                MANIFEST,
                format!("plan {} does not start where plan {} ends", pair[1].number, pair[0].number),
            );
        }
    }
    let (Some(last), Some(point)) = (manifest.plans.last(), manifest.checkpoint) else { return };
    if last.end != point.lsn {
        check.problem(
            MANIFEST,
            format!("plan {} ends at {}, the checkpoint is at {}", last.number, last.end, point.lsn),
        );
    }
}

fn check_plan(check: &mut Check<'_>, entry: &PlanEntry, plan: Plan) {
    let place = plan_file(entry.number);
    if (plan.uuid, plan.start, plan.end) != (check.uuid, entry.start, entry.end) {
        let what = format!("is for {}-{} of filesystem {}, {MANIFEST} says otherwise", plan.start, plan.end, plan.uuid);
        check.problem(&place, what);
    }
    for birth in &plan.births {
        if birth.object.lsn <= plan.start || birth.object.lsn > plan.end {
            check.problem(&place, format!("object {} was not born in {}-{}", birth.object, plan.start, plan.end));
        }
    }
    check.births.extend(plan.births);
}

fn check_edits(check: &mut Check<'_>, state: &dyn Media, entry: &PlanEntry) {
    let place = edits_file(entry.number);
    let bytes = match read_edits(state, entry.number, entry.edits) {
        Ok(bytes) => bytes,
        Err(e) => return check.problem(place, e.to_string()),
    };
    let mut at = 0;
    while let Some((batch, len)) = (at < bytes.len()).then(|| Batch::decode(&bytes, at).ok()).flatten() {
        at += len;
        if batch.lsn != entry.end {
            check.problem(&place, format!("a batch at {}, not at {}", batch.lsn, entry.end));
        }
    }
}
