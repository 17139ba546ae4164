//! What of the fence needs nothing but the store: where a chain goes on, how its next number is won by somebody else, and what
//! of a generation that has ended may be deleted. The rules and their proof are in `docs/fence.md`.

pub use crate::checkpoint::deletable;

use super::ShipError;
use super::publish::read;
use crate::base::canary::{self, Canary};
use crate::format::names;
use crate::format::publication::{Body, Position, Publication};
use crate::store::{Created, Store, StoreError};

/// What became of an attempt to take a filesystem over.
#[derive(Debug)]
pub enum Win {
    /// The generation has ended, by our closing object.
    Won,
    /// Not so: this object has that number, or none that counts, because the generation had ended long before.
    Lost(Option<Box<Publication>>),
}

/// The first object of a generation behind the walk that found `free` to be the first free number. If there is none, the number
/// was free when the walk looked there, and nothing that the walk has read was deleted, or put there again, before.
///
/// Number 0 of a generation is never deleted, and is there before anything of the one before it is deleted.
pub fn behind_gap(store: &dyn Store, free: Position) -> Result<Option<Publication>, ShipError> {
    if canary::removed(Canary::LookBehindGap) {
        return Ok(None);
    }
    match free.number {
        0 => read(store, free),
        _ => read(store, Position { generation: free.generation + 1, number: 0 }),
    }
}

/// Creates a closing object at its number, which must be the first free one of the newest generation. After an error it may be
/// there, or come to be there.
pub fn win(store: &dyn Store, closing: &Publication) -> Result<Win, ShipError> {
    let at = Position { generation: closing.generation, number: closing.number };
    if let Win::Lost(found) = take(store, closing)? {
        return Ok(Win::Lost(found));
    }
    // The number may have been deleted after it was found free.
    match at.number > 0 && behind_gap(store, at)?.is_some() {
        true => Ok(Win::Lost(None)),
        false => Ok(Win::Won),
    }
}

/// Creates a closing object where a writer may stand that is to be fenced, in a generation that is damaged: another one after it
/// is won all the same. Whether it was the first object of its number is not asked.
pub fn take(store: &dyn Store, closing: &Publication) -> Result<Win, ShipError> {
    let at = Position { generation: closing.generation, number: closing.number };
    let created = store.create(&names::publication(at.generation, at.number), closing.encode().into());
    if matches!(created, Ok(Created::New)) {
        return Ok(Win::Won);
    }
    // A create whose answer was lost, or that was tried again, may have met itself.
    match (read(store, at)?, created) {
        (Some(found), _) if found.nonce == closing.nonce => Ok(Win::Won),
        (None, Err(e)) => Err(e.into()),
        (found, _) => Ok(Win::Lost(found.map(Box::new))),
    }
}

/// The closing object of a generation of which nothing is deleted; `None` if there is none, or if it cannot be found so.
pub fn find_closing(store: &dyn Store, generation: u64) -> Result<Option<Position>, ShipError> {
    let is_there = |number: u64| match store.size(&names::publication(generation, number)) {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound { .. }) => Ok(false),
        Err(e) => Err(e),
    };
    // Numbers are taken in order: far enough by doubling, then by halves.
    let (mut last, mut free) = (0, 1);
    while is_there(free)? {
        (last, free) = (free, free * 2);
    }
    while free - last > 1 {
        let middle = last + (free - last) / 2;
        match is_there(middle)? {
            true => last = middle,
            false => free = middle,
        }
    }
    let at = Position { generation, number: last };
    Ok(read(store, at)?.filter(|found| matches!(found.body, Body::Closing(_))).map(|_| at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::sim::CallLog;
    use crate::store::sim::SimStore;
    use bytes::Bytes;

    #[test]
    fn what_is_deleted_of_a_generation_is_all_but_its_ends() {
        let of = |number| deletable(Position { generation: 7, number });
        for number in 0..=2 {
            assert!(of(number).is_empty(), "closed at {number}");
        }
        assert_eq!(of(3), [names::publication(7, 1)]);
        assert_eq!(of(5), [1, 2, 3].map(|number| names::publication(7, number)));
    }

    #[test]
    fn the_end_of_a_generation_is_found_in_a_few_steps() {
        for closing in [0, 1, 2, 3, 4, 5, 8, 100] {
            let store = SimStore::new(&CallLog::new());
            for number in 0..=closing {
                let sample = crate::ship::publish::tests::sample(Position { generation: 3, number }, number == closing);
                store.put(&names::publication(3, number), Bytes::from(sample.encode())).expect("nothing fails");
            }
            let found = find_closing(&store, 3).expect("nothing fails");
            assert_eq!(found, Some(Position { generation: 3, number: closing }));
            assert!(store.calls().gets < 20, "{:?}", store.calls());
            store.delete(&names::publication(3, closing)).expect("nothing fails");
            assert_eq!(find_closing(&store, 3).expect("nothing fails"), None, "without a closing object");
        }
    }
}
