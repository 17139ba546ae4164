//! Counts of shared objects. The space tree is behind the extents by what it was not told yet; that is put on top here,
//! as its owner would, before the two are compared.

use super::Check;
use super::space::PLACE;
use crate::format::checkpoint::Settle;
use crate::format::ids::ObjectId;
use std::collections::BTreeMap;

pub(super) fn check_settlement(check: &mut Check<'_>) -> bool {
    let mut counts = std::mem::take(&mut check.space.counts);
    // A death whose window is gone as a whole waits until its owner next looks, and then changes nothing.
    let mut unsettled = std::mem::take(&mut check.space.waiting);
    for settle in rest(check) {
        if settle_one(&mut counts, settle) {
            unsettled.insert(settle.object);
        }
    }
    for what in count_problems(check, &counts) {
        check.problem(PLACE, what);
    }
    for object in &unsettled {
        if check.objects.at_checkpoint(object) > 0 {
            check.problem(PLACE, format!("object {object} counts as dead, yet an extent names it"));
        }
    }
    check.unsettled = unsettled;
    true
}

/// The part of the newest checkpoint's settlement that the space tree was not told yet.
fn rest(check: &Check<'_>) -> Vec<Settle> {
    let checkpoint = check.checkpoint();
    let settled = check.space.settled.filter(|settled| settled.checkpoint == checkpoint.number);
    let done = settled.map_or(0, |settled| usize::try_from(settled.cursor).unwrap_or(usize::MAX));
    checkpoint.settlement.get(done..).unwrap_or_default().to_vec()
}

/// Whether the object died. An object without a count is named by one extent.
fn settle_one(counts: &mut BTreeMap<ObjectId, u32>, settle: Settle) -> bool {
    let count = i64::from(counts.remove(&settle.object).unwrap_or(1)) + i64::from(settle.delta);
    if count > 1 {
        counts.insert(settle.object, u32::try_from(count).unwrap_or(u32::MAX));
    }
    count <= 0
}

fn count_problems(check: &Check<'_>, counts: &BTreeMap<ObjectId, u32>) -> Vec<String> {
    let mut problems = Vec::new();
    for (object, usage) in &check.objects.uses {
        let counted = counts.get(object).copied().unwrap_or(1);
        if usage.at_checkpoint > 0 && usage.at_checkpoint != counted {
            problems
                .push(format!("object {object} is named by {} extents, its count says {counted}", usage.at_checkpoint));
        }
    }
    for (object, counted) in counts.iter().filter(|(object, _)| check.objects.at_checkpoint(object) == 0) {
        problems.push(format!("object {object} is named by no extent, its count says {counted}"));
    }
    problems
}
