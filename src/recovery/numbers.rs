//! The newest generation in the store: which it is, and its publications in order.

use super::ahead::Together;
use super::{Fetcher, MountError, damaged};
use crate::base::canary::{self, Canary};
use crate::format::names;
use crate::format::publication::{Body, GENERATION_MAX, NUMBER_MAX, Position, Publication};
use crate::ship::ShipError;
use crate::ship::publish::read;
use crate::store::Store;
use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

/// So many generations are looked at, the newest ones: each but one of them was closed before it had a base.
const GENERATIONS_KEPT: usize = 65536;

/// The generations in the store, each with the highest number that is listed in it.
pub(super) fn generations(store: &dyn Store) -> Result<BTreeMap<u64, u64>, MountError> {
    let mut found: BTreeMap<u64, u64> = BTreeMap::new();
    store.walk("gen", &mut |name| {
        let mut parts = name.split('/').skip(1).map(|part| part.parse().ok());
        // Foreign names are ignored: those that no publication has, or that nothing would come after.
        let is_ours =
            |at: &(u64, u64)| at.0 <= GENERATION_MAX && at.1 <= NUMBER_MAX && names::publication(at.0, at.1) == name;
        if let Some((generation, number)) = parts.next().flatten().zip(parts.next().flatten()).filter(is_ours) {
            let highest = found.entry(generation).or_default();
            *highest = number.max(*highest);
            // Only the newest ones matter, however many names there are.
            if found.len() > GENERATIONS_KEPT {
                found.pop_first();
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// The highest number of the highest generation in the store.
pub(super) fn newest_publication(store: &dyn Store) -> Result<Position, MountError> {
    let newest = generations(store)?.pop_last();
    newest.map(|(generation, number)| Position { generation, number }).ok_or_else(no_generation)
}

/// The highest generation in the store.
pub(crate) fn newest_generation(store: &dyn Store) -> Result<u64, MountError> {
    generations(store)?.last_key_value().map(|(generation, _)| *generation).ok_or_else(no_generation)
}

pub(super) fn no_generation() -> MountError {
    damaged("gen/", "the store has no generation: it was never completed")
}

/// The base of generation `newest`, or of the last one before it that has one if it was closed without, and the numbers that
/// follow it. Where they end at a gap, that may be the hole of a generation that has ended meanwhile.
pub(crate) fn newest_base<'a>(
    store: &'a dyn Store,
    fetcher: &'a Fetcher,
    newest: u64,
) -> Result<(Numbers<'a>, Publication), MountError> {
    base_of(store, fetcher, &generations(store)?, newest)
}

pub(super) fn base_of<'a>(
    store: &'a dyn Store,
    fetcher: &'a Fetcher,
    listed: &BTreeMap<u64, u64>,
    newest: u64,
) -> Result<(Numbers<'a>, Publication), MountError> {
    let mut generation = newest;
    loop {
        let highest = listed.get(&generation).copied().unwrap_or(0);
        let mut numbers = Numbers::new(store, fetcher, Position { generation, number: 0 }, highest);
        match numbers.next()? {
            Some(publication) if matches!(publication.body, Body::Base(_)) => {
                return Ok((numbers, publication));
            }
            // Numbers are taken in order, and those of the newest generation are never deleted. Going on to an older one
            // would lose all that was shipped since, silently.
            None => return Err(damaged(&names::publication(generation, 0), "is missing, and later objects are there")),
            // A generation that was closed before its base: whoever won it never published. The one before holds.
            Some(publication) if matches!(publication.body, Body::Closing(_)) && generation > 1 => generation -= 1,
            Some(_) => return Err(damaged(&names::publication(generation, 0), "is neither a base nor the end of one")),
        }
    }
}

/// The objects of a generation in order, from its base on. Where they end is found by asking for them, one after the other;
/// what the list of names says is only which of them are worth asking for together.
pub(crate) struct Numbers<'a> {
    store: &'a dyn Store,
    fetcher: &'a Fetcher,
    pub(super) generation: u64,
    /// The highest that is listed.
    highest: u64,
    /// The first that was not asked for.
    next: u64,
    /// How many are asked for together that are not listed: more and more, for a writer may be at work.
    unlisted: u64,
    /// How many were there.
    taken: u64,
    together: Together,
    fetched: VecDeque<Result<Option<Publication>, ShipError>>,
}

impl<'a> Numbers<'a> {
    pub(super) fn new(store: &'a dyn Store, fetcher: &'a Fetcher, from: Position, highest: u64) -> Numbers<'a> {
        let Position { generation, number: next } = from;
        let (together, fetched) = Default::default();
        Numbers { store, fetcher, generation, highest, next, unlisted: 1, taken: next, together, fetched }
    }

    /// The next one; `None` at the first gap, behind which nothing counts.
    pub(crate) fn next(&mut self) -> Result<Option<Publication>, MountError> {
        if canary::removed(Canary::WalkAsks) && self.next > self.highest {
            return Ok(None);
        }
        if self.fetched.is_empty() {
            let (first, at_once) = (self.next, self.together.most(self.fetcher));
            let count = match self.highest.checked_sub(first) {
                Some(listed) => (listed + 2).min(at_once),
                None => self.unlisted.min(at_once),
            };
            if first > self.highest {
                self.unlisted = (self.unlisted * 2).min(at_once);
            }
            let last = first + count - 1;
            let together: Vec<u64> = (first..=last).collect();
            let read = |number: &u64| read(self.store, Position { generation: self.generation, number: *number });
            self.fetched.extend(self.fetcher.all(&together, read));
            self.together.note(&self.fetched);
            self.next = last + 1;
        }
        let found = self.fetched.pop_front().expect("some were just asked for")?;
        self.taken += u64::from(found.is_some());
        Ok(found)
    }

    /// Numbers are taken in order: where a later one is listed than there is a way to, some of what was published is missing, and
    /// whoever went on without it would lose it silently.
    pub(super) fn check_end(&self) -> Result<(), MountError> {
        match self.taken > self.highest {
            true => Ok(()),
            false => {
                let place = names::publication(self.generation, self.taken);
                Err(damaged(&place, "is missing, or comes after the end, and later objects are there"))
            }
        }
    }
}

/// The first free number of a generation that has no base: it may be closed.
pub(crate) fn first_free(store: &dyn Store, generation: u64) -> Result<Position, MountError> {
    match read(store, Position { generation, number: 0 })? {
        None => Ok(Position { generation, number: 0 }),
        Some(_) => Ok(Position { generation: generation + 1, number: 0 }),
    }
}
