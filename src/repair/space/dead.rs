//! What nothing names any more.

use super::Terms;
use super::ledger::Ledger;
use crate::format::names;
use crate::repair::objects::Listed;
use std::collections::BTreeSet;

/// Store objects to be listed for deletion: segments of chunks and nodes, indexes, numbers of generations. Leases, and what a
/// repair has put aside, have other names.
///
/// Nothing of an epoch of which nothing is known, the new one among them: nobody has looked at it.
pub(super) fn names(listed: &Listed, ledger: &Ledger, terms: &Terms) -> Vec<String> {
    let counts = |epoch: u32| epoch < terms.end.epoch && epoch <= listed.epoch;
    let windows: BTreeSet<_> = ledger.windows.iter().map(|(end, record)| (record.start, *end)).collect();
    let segments = listed.segments.iter().filter(|no| counts(no.epoch) && !ledger.segments.contains_key(no));
    let indexes = listed.windows.iter().filter(|(_, end)| counts(end.epoch));
    let indexes = indexes.filter(|window| !windows.contains(window)).map(|(start, end)| names::window(*start, *end));
    let mut dead: Vec<String> = segments.map(|no| names::segment(*no)).chain(indexes).collect();
    for (generation, numbers) in listed.publications.range(..terms.base.generation) {
        dead.extend(ended(numbers).map(|number| names::publication(*generation, *number)));
    }
    dead
}

/// What of a generation that has ended may go: all but its number 0 and the last two, of which the last is its closing object, if
/// it has one already (`docs/fence.md`). The same of all numbers that follow one another: a repair may have closed it behind each of
/// these runs.
fn ended(numbers: &BTreeSet<u64>) -> impl Iterator<Item = &u64> {
    let is_last = |number: &u64| !numbers.contains(&(number + 1));
    numbers.iter().filter(move |&number| *number > 0 && !is_last(number) && !is_last(&(number + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_objects_stay_wherever_they_are() {
        let left = |numbers: &[u64]| ended(&numbers.iter().copied().collect()).copied().collect::<Vec<u64>>();
        assert_eq!(left(&[0, 1, 2, 3, 4]), [1, 2]);
        assert!(left(&[0]).is_empty());
        // Somebody was paused before 2.
        assert!(left(&[0, 1, 2, 7, 8]).is_empty());
        assert_eq!(left(&[0, 1, 2, 3, 7, 8, 9]), [1, 7]);
    }
}
