//! Which runs of batches are left, and by which of them one gets from a start to the end.
//!
//! The journal has every batch whole and comes first; then what carries files alone, batch by batch (logs, tails); then changes
//! that lead from one state to another, whose batches are not told apart. These may begin before the place where they
//! are needed: they say what is there at their end, whatever was there in between.

use crate::format::ids::Lsn;
use crate::format::publication::Position;
use std::ops::Range;

/// Batches after one up to another, all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub from: Lsn,
    pub to: Lsn,
    pub what: What,
}

/// Where they are; what comes first is preferred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// In the journal.
    Journal,
    /// Whole, as far as they change files, back to back in this range of a source.
    Batches { source: u32, range: Range<u64> },
    /// As the changes that they are together.
    Changes(Changes),
}

/// Changes from one checkpoint to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changes {
    /// An increment.
    Increment(Position),
    /// The file beside a checkpoint that is to become one.
    Edits(u64),
}

/// A part of the way: batches after one up to another are taken from a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub span: usize,
    pub after: Lsn,
    pub upto: Lsn,
}

/// A way from a start to the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Route {
    /// In order, apart from one another.
    pub steps: Vec<Step>,
    /// What nothing has: after the first, up to the second.
    pub lost: Vec<(Lsn, Lsn)>,
}

impl Route {
    /// How many batches are lost.
    pub fn lost_batches(&self) -> u64 {
        self.lost.iter().fold(0, |sum, (from, to)| sum.saturating_add(to.pos.saturating_sub(from.pos)))
    }
}

impl What {
    fn rank(&self) -> usize {
        match self {
            What::Journal => 0,
            What::Batches { .. } => 1,
            What::Changes(_) => 2,
        }
    }
}

/// Puts spans in the order that [`route`] wants.
pub(super) fn sort(spans: &mut Vec<Span>) {
    spans.retain(|span| span.from.pos < span.to.pos);
    spans.sort_by_key(|span| (span.from.pos, span.what.rank()));
}

/// The way from `start` to the last batch that there is. There were batches up to `end`.
pub(super) fn route(spans: &[Span], start: Lsn, end: Lsn) -> Route {
    let mut route = Route::default();
    // Of those that begin at or before the place reached, the one of each rank that leads furthest.
    let mut best: [Option<usize>; 3] = [None; 3];
    let (mut at, mut next) = (start, 0);
    loop {
        while let Some(span) = spans.get(next).filter(|span| span.from.pos <= at.pos) {
            let slot = &mut best[span.what.rank()];
            if slot.is_none_or(|best| spans[best].to.pos < span.to.pos) {
                *slot = Some(next);
            }
            next += 1;
        }
        let leads_on = |best: &usize| spans[*best].to.pos > at.pos && spans[*best].to.epoch >= at.epoch;
        if let Some(span) = best.iter().flatten().copied().find(leads_on) {
            let upto = spans[span].to;
            route.steps.push(Step { span, after: at, upto });
            at = upto;
        } else if let Some(later) = spans.get(next) {
            // One of an older epoch is of another history than what was taken already.
            if later.to.epoch >= at.epoch {
                route.lost.push((at, later.from));
                at = Lsn { epoch: later.from.epoch.max(at.epoch), ..later.from };
            } else {
                next += 1;
            }
        } else {
            if at.pos < end.pos {
                route.lost.push((at, end));
            }
            return route;
        }
    }
}

/// From where on there is no hole before `known`.
pub(super) fn reach_back(spans: &[Span], known: Lsn) -> Lsn {
    let (mut from, mut to) = (known, known);
    for span in spans {
        if span.from.pos > to.pos || span.to.pos < from.pos {
            if span.from.pos >= known.pos {
                break;
            }
            (from, to) = (span.from, span.to);
        } else {
            if span.from.pos < from.pos {
                from = span.from;
            }
            if span.to.pos > to.pos {
                to = span.to;
            }
        }
    }
    if (from.pos..=to.pos).contains(&known.pos) { from } else { known }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(pos: u64) -> Lsn {
        Lsn { epoch: 1, pos }
    }

    fn span(from: u64, to: u64, what: What) -> Span {
        Span { from: at(from), to: at(to), what }
    }

    fn batches() -> What {
        What::Batches { source: 0, range: 0..1 }
    }

    fn changes() -> What {
        What::Changes(Changes::Edits(1))
    }

    /// Rank, after, up to; and what is lost.
    type Way = (Vec<(usize, u64, u64)>, Vec<(u64, u64)>);

    fn way(mut spans: Vec<Span>, start: u64) -> Way {
        sort(&mut spans);
        let route = route(&spans, at(start), at(22));
        let steps = route.steps.iter().map(|step| (spans[step.span].what.rank(), step.after.pos, step.upto.pos));
        (steps.collect(), route.lost.iter().map(|(from, to)| (from.pos, to.pos)).collect())
    }

    #[test]
    fn the_journal_comes_first_and_the_others_fill_its_holes() {
        let spans = vec![
            span(10, 20, What::Journal),
            span(25, 40, What::Journal),
            span(5, 12, changes()),
            span(12, 30, changes()),
            span(18, 23, batches()),
        ];
        let steps = vec![(2, 5, 12), (0, 12, 20), (1, 20, 23), (2, 23, 30), (0, 30, 40)];
        assert_eq!(way(spans.clone(), 5), (steps, vec![]));
        assert_eq!(way(spans.clone(), 30), (vec![(0, 30, 40)], vec![]));
        assert_eq!(way(spans, 40), (vec![], vec![]));
    }

    #[test]
    fn what_nothing_has_is_lost_and_the_rest_counts() {
        let spans =
            vec![span(0, 5, What::Journal), span(9, 12, changes()), span(8, 9, batches()), span(20, 21, What::Journal)];
        let steps = vec![(0, 2, 5), (1, 8, 9), (2, 9, 12), (0, 20, 21)];
        assert_eq!(way(spans, 2), (steps, vec![(5, 8), (12, 20), (21, 22)]));
        assert_eq!(way(vec![], 7), (vec![], vec![(7, 22)]));
        assert_eq!(way(vec![], 30), (vec![], vec![]));
    }

    #[test]
    fn batches_of_an_older_epoch_never_come_after_newer_ones() {
        let old = Span { from: Lsn { epoch: 1, pos: 6 }, to: Lsn { epoch: 1, pos: 9 }, what: What::Journal };
        let new = Span { from: Lsn { epoch: 1, pos: 4 }, to: Lsn { epoch: 2, pos: 7 }, what: changes() };
        let mut spans = vec![old, new];
        sort(&mut spans);
        let found = route(&spans, at(4), Lsn::ZERO);
        assert_eq!(found.steps, [Step { span: 0, after: at(4), upto: Lsn { epoch: 2, pos: 7 } }]);
        assert!(found.lost.is_empty());
    }

    #[test]
    fn without_a_start_one_goes_back_as_far_as_there_is_no_hole() {
        let mut spans = vec![
            span(1, 4, What::Journal),
            span(6, 9, batches()),
            span(8, 15, changes()),
            span(14, 16, What::Journal),
            span(18, 20, What::Journal),
        ];
        sort(&mut spans);
        for (known, from) in [(0, 0), (4, 1), (5, 5), (9, 6), (16, 6), (17, 17), (18, 18), (30, 30)] {
            assert_eq!(reach_back(&spans, at(known)).pos, from, "from {known}");
        }
    }
}
