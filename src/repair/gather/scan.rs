//! Batches between bytes that may be damaged.

use crate::format::batch::Batch;
use crate::format::ids::Lsn;
use bytes::Bytes;
use std::ops::Range;

/// What heads that are none may cost, for each byte that is looked at.
const BUDGET: u64 = 16;

/// Where to look.
pub(super) struct Scan<'a> {
    pub bytes: &'a Bytes,
    pub range: Range<usize>,
    /// The batch right before the range, if it is known: what lies between it and the first one changes nothing.
    pub before: Option<Lsn>,
}

/// A batch, and what it is known to lead on from: the batch right before it, or else nothing but itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub from: Lsn,
    pub to: Lsn,
    /// Its bytes.
    pub range: Range<usize>,
}

/// Shows each batch whose head is whole, in the order of their Lsns, and where it starts.
pub(super) fn scan(scan: &Scan<'_>, each: &mut dyn FnMut(&Batch, usize, Run)) {
    let bytes = scan.bytes.slice(..scan.range.end);
    let (mut at, mut before, mut last) = (scan.range.start, scan.before, Lsn::ZERO);
    let mut budget = BUDGET.saturating_mul(scan.range.len() as u64);
    while let Some((batch, start, used)) = Batch::find(&bytes, at, &mut budget) {
        let lsn = batch.lsn;
        // Behind a batch that was taken there is no older one.
        if lsn <= last || lsn.pos <= last.pos || before.is_some_and(|before| lsn.epoch < before.epoch) {
            (at, before) = (start + used, None);
            continue;
        }
        let one_before = Lsn { pos: lsn.pos.saturating_sub(1), ..lsn };
        let adjacent = before.filter(|before| start == at && before.pos < lsn.pos);
        // What was there already counts as itself.
        let from = adjacent.unwrap_or(one_before);
        each(&batch, start, Run { from, to: lsn, range: start..start + used });
        (at, before, last) = (start + used, Some(lsn), lsn);
    }
}
