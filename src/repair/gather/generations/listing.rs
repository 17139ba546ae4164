//! Which numbers are taken in which generations.

use crate::format::names;
use crate::format::publication::{GENERATION_MAX, NUMBER_MAX, Position};
use crate::repair::RepairError;
use crate::store::{Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, RangeInclusive};

/// More names than any filesystem has are not kept in memory.
const NAMES_MAX: usize = 4 << 20;
/// More numbers than would ever have to be won are not won.
const CLOSE_MAX: usize = 64;

/// The numbers that are taken, as far as the newest generations are concerned.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::repair::gather) struct Listing {
    /// Every generation that has any; its numbers once they were asked for.
    generations: BTreeMap<u64, Option<BTreeSet<u64>>>,
}

/// Lists the generations.
pub(in crate::repair::gather) fn list(store: &dyn Store) -> Result<Listing, RepairError> {
    let (mut generations, mut too_many) = (BTreeMap::new(), false);
    store.walk("gen", &mut |name| {
        if let Some(at) = position_of(name) {
            generations.insert(at.generation, None);
        }
        too_many = generations.len() > NAMES_MAX;
        if too_many { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if too_many {
        return Err(RepairError::Refused("gen/ holds more generations than a filesystem can have".to_owned()));
    }
    Ok(Listing { generations })
}

/// What a name says that a publication has; `None` for a name that none has.
fn position_of(name: &str) -> Option<Position> {
    let (generation, number) = name.strip_prefix("gen/")?.split_once('/')?;
    let at = Position { generation: generation.parse().ok()?, number: number.parse().ok()? };
    let is_ours = names::publication(at.generation, at.number) == name;
    (is_ours && (1..=GENERATION_MAX).contains(&at.generation) && at.number < NUMBER_MAX).then_some(at)
}

impl Listing {
    /// The generations, the newest first.
    pub fn newest_first(&self) -> Vec<u64> {
        self.generations.keys().rev().copied().collect()
    }

    /// The numbers of a generation. What came to its end after it was listed is found by asking.
    pub fn numbers(&mut self, store: &dyn Store, generation: u64) -> Result<&BTreeSet<u64>, RepairError> {
        if self.generations.get(&generation).is_none_or(Option::is_none) {
            let found = numbers_in(store, generation)?;
            self.generations.insert(generation, Some(found));
        }
        Ok(self.generations.get(&generation).and_then(Option::as_ref).expect("it was just put there"))
    }

    /// A generation that is there though it was not listed.
    pub fn add(&mut self, generation: u64) {
        self.generations.entry(generation).or_default();
    }

    /// The numbers that are to be won. `newest` is the newest generation of which anything could be read; the last such number in it
    /// is `readable`, and `is_closed` says that a closing object is there.
    pub fn close(&self, newest: u64, readable: u64, is_closed: bool) -> Result<Vec<Position>, RepairError> {
        let at = |generation, number| Position { generation, number };
        let runs = self.runs(newest);
        let (first, last) = (runs.first().map(|run| *run.start()), runs.last().map(|run| *run.end()));
        let later: Vec<u64> = self.generations.range(newest + 1..).map(|(generation, _)| *generation).collect();
        if runs.len() == 1 && first == Some(0) && last == Some(readable) && later.is_empty() {
            return Ok(vec![if is_closed { at(newest + 1, 0) } else { at(newest, readable + 1) }]);
        }
        let ends = runs.iter().map(|run| *run.end()).filter(|end| *end > readable || *end == readable && !is_closed);
        let mut close: Vec<Position> = ends.map(|end| at(newest, end + 1)).collect();
        if later.first() != Some(&(newest + 1)) {
            close.push(at(newest + 1, 0));
        }
        for generation in later {
            close.extend(self.runs(generation).iter().map(|run| at(generation, run.end() + 1)));
            if !self.generations.contains_key(&(generation + 1)) {
                close.push(at(generation + 1, 0));
            }
        }
        match close.len() > CLOSE_MAX {
            true => Err(RepairError::Refused("gen/ has more holes than can be closed".to_owned())),
            false => Ok(close),
        }
    }

    /// The numbers of a generation that follow one another.
    pub fn runs(&self, generation: u64) -> Vec<RangeInclusive<u64>> {
        let mut runs: Vec<RangeInclusive<u64>> = Vec::new();
        for number in self.generations.get(&generation).and_then(Option::as_ref).into_iter().flatten() {
            match runs.last_mut() {
                Some(run) if run.end() + 1 == *number => *run = *run.start()..=*number,
                _ => runs.push(*number..=*number),
            }
        }
        runs
    }
}

fn numbers_in(store: &dyn Store, generation: u64) -> Result<BTreeSet<u64>, RepairError> {
    let first = names::publication(generation, 0);
    let folder = first.rsplit_once('/').map_or("gen", |(folder, _)| folder);
    let (mut numbers, mut too_many) = (BTreeSet::new(), false);
    store.walk(folder, &mut |name| {
        let found = position_of(name).filter(|at| at.generation == generation);
        numbers.extend(found.map(|at| at.number));
        too_many = numbers.len() > NAMES_MAX;
        if too_many { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if too_many {
        return Err(RepairError::Refused(format!("{folder}/ holds more objects than a generation can have")));
    }
    loop {
        let next = numbers.last().map_or(0, |last| last + 1);
        match store.size(&names::publication(generation, next)) {
            Ok(_) => numbers.insert(next),
            Err(StoreError::NotFound { .. }) => return Ok(numbers),
            Err(e) => return Err(e.into()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Generations with their numbers, and what is to be won: the newest readable generation, its last readable number, whether a
    /// closing object is there.
    fn close(generations: &[(u64, &[u64])], newest: u64, readable: u64, is_closed: bool) -> Vec<(u64, u64)> {
        let generations =
            generations.iter().map(|(generation, numbers)| (*generation, Some(numbers.iter().copied().collect())));
        let close = Listing { generations: generations.collect() }.close(newest, readable, is_closed);
        close.expect("few").into_iter().map(|at| (at.generation, at.number)).collect()
    }

    #[test]
    fn a_whole_generation_is_closed_at_its_first_free_number() {
        assert_eq!(close(&[(2, &[0, 5]), (3, &[0, 1, 2])], 3, 2, false), [(3, 3)]);
        assert_eq!(close(&[(3, &[0, 1, 2])], 3, 2, true), [(4, 0)]);
        assert_eq!(close(&[(2, &[0, 1]), (3, &[0])], 3, 0, true), [(4, 0)]);
    }

    #[test]
    fn where_a_number_is_missing_or_the_last_cannot_be_read_the_next_generation_is_won_too() {
        for (numbers, readable) in [(&[0, 1, 3, 4][..], 4), (&[1, 2, 3, 4], 4), (&[0, 1, 2, 3, 4], 3)] {
            assert_eq!(close(&[(3, numbers)], 3, readable, false), [(3, 5), (4, 0)], "{numbers:?}");
        }
        // Nobody stands in a generation whose closing object is there.
        assert_eq!(close(&[(3, &[0, 4, 5])], 3, 5, true), [(4, 0)]);
    }

    #[test]
    fn a_writer_is_fenced_though_foreign_objects_lie_behind_where_it_stands() {
        assert_eq!(close(&[(3, &[0, 1, 7])], 3, 1, false), [(3, 2), (3, 8), (4, 0)]);
        assert_eq!(close(&[(3, &[0, 1]), (4, &[0])], 3, 1, false), [(3, 2), (4, 1), (5, 0)]);
        let won = [(3, 2), (4, 0), (500, 8), (501, 0)];
        assert_eq!(close(&[(3, &[0, 1]), (500, &[7])], 3, 1, false), won);
    }

    #[test]
    fn names_that_no_publication_has_are_none() {
        let at = Position { generation: 3, number: 12 };
        assert_eq!(position_of(&names::publication(3, 12)), Some(at));
        for name in ["gen/3/12", "gen/0000000003/12", "gen/4294967295/0000000000", "gen/0000000000/0000000000", "gen/x"]
        {
            assert_eq!(position_of(name), None, "{name}");
        }
    }
}
