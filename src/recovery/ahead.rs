//! Publications that are asked for together: a store that is far away takes long to give one after the other, and a writer may
//! publish them faster than that.

use super::{Fetcher, MountError};
use crate::format::publication::{Body, Position, Publication};
use crate::ship::ShipError;
use crate::ship::publish::read;
use crate::store::Store;
use std::collections::VecDeque;

/// Bytes of publications that are in memory because they were asked for together.
const TOGETHER_BYTES: u64 = 64 << 20;
/// So many are asked for as long as nothing is known of their size.
const UNKNOWN_MAX: u64 = 4;

/// How many publications may be asked for together, by the size of those that came.
#[derive(Default)]
pub(super) struct Together {
    largest: Option<u64>,
}

impl Together {
    pub fn most(&self, fetcher: &Fetcher) -> u64 {
        let most = self.largest.map_or(UNKNOWN_MAX, |bytes| TOGETHER_BYTES / bytes.max(1));
        most.clamp(1, fetcher.at_once() as u64)
    }

    pub fn note<E>(&mut self, came: &VecDeque<Result<Option<Publication>, E>>) {
        let bytes = came.iter().flatten().flatten().map(bytes_of);
        self.largest = self.largest.into_iter().chain(bytes).max();
    }
}

/// What takes room in one.
fn bytes_of(publication: &Publication) -> u64 {
    let batches = match &publication.body {
        Body::Base(base) => &base.log.batches,
        Body::Increment(increment) => &increment.batches,
        Body::Log(log) => &log.batches,
        Body::Closing(_) => return 0,
    };
    batches.len() as u64
}

/// What came, in order.
#[derive(Default)]
pub(crate) struct PublicationsAhead {
    came: VecDeque<Result<Option<Publication>, ShipError>>,
    /// The position of the first.
    at: Option<Position>,
    /// So many are asked for next: twice as many while there are some, and one when there is none.
    count: u64,
    together: Together,
}

impl PublicationsAhead {
    /// The publication at a position; `None` if there is none yet.
    pub fn next(
        &mut self,
        store: &dyn Store,
        fetcher: &Fetcher,
        at: Position,
    ) -> Result<Option<Publication>, MountError> {
        if self.at != Some(at) || self.came.is_empty() {
            let Position { generation, number } = at;
            let count = self.count.clamp(1, self.together.most(fetcher));
            let numbers: Vec<u64> = (number..number.saturating_add(count)).collect();
            self.came = fetcher.all(&numbers, |number| read(store, Position { generation, number: *number })).into();
            self.together.note(&self.came);
            self.count = count * 2;
        }
        let next = self.came.pop_front().unwrap_or(Ok(None));
        self.at = Some(Position { number: at.number + 1, ..at });
        if !matches!(next, Ok(Some(_))) {
            // Those behind it may have been asked for before it, and say nothing.
            self.came.clear();
            self.count = 1;
        }
        Ok(next?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ids::{Lsn, Nonce, Uuid};
    use crate::format::names;
    use crate::format::publication::{Body, Log};
    use crate::media::sim::CallLog;
    use crate::store::sim::SimStore;

    fn at(number: u64) -> Position {
        Position { generation: 1, number }
    }

    fn publish(store: &SimStore, number: u64) {
        let publication = Publication {
            uuid: Uuid(1),
            state: Uuid(2),
            nonce: Nonce(3),
            epoch: 1,
            generation: 1,
            number,
            wall: 0,
            checkpoint: 0,
            start: Lsn::ZERO,
            end: Lsn { epoch: 1, pos: number },
            body: Body::Log(Log::default()),
        };
        store.create(&names::publication(1, number), publication.encode().into()).expect("created");
    }

    #[test]
    fn numbers_come_in_order_and_many_at_a_time_while_there_are_any() {
        let (store, fetcher, mut ahead) =
            (SimStore::new(&CallLog::new()), Fetcher::new(8), PublicationsAhead::default());
        let mut next = |number| ahead.next(&store, &fetcher, at(number)).expect("read").map(|found| found.number);
        assert_eq!(next(1), None);
        (1..=60).for_each(|number| publish(&store, number));
        for number in 1..=60 {
            assert_eq!(next(number), Some(number));
        }
        assert_eq!(next(61), None);
        let rounds = fetcher.figures().rounds;
        assert!(rounds < 16, "{rounds} rounds");
        let asked = fetcher.figures().asked;
        assert_eq!(next(61), None);
        assert_eq!(fetcher.figures().asked, asked + 1, "at rest one number is asked for");
    }

    #[test]
    fn nothing_behind_a_gap_counts() {
        let (store, fetcher, mut ahead) =
            (SimStore::new(&CallLog::new()), Fetcher::new(8), PublicationsAhead::default());
        let mut next = |number| ahead.next(&store, &fetcher, at(number)).expect("read").map(|found| found.number);
        [1, 3].into_iter().for_each(|number| publish(&store, number));
        assert_eq!((next(1), next(2)), (Some(1), None));
        publish(&store, 2);
        assert_eq!((next(2), next(3), next(4)), (Some(2), Some(3), None));
    }

    #[test]
    fn the_larger_they_are_the_fewer_are_asked_for_together() {
        let (fetcher, store, mut together) = (Fetcher::new(16), SimStore::new(&CallLog::new()), Together::default());
        assert_eq!(together.most(&fetcher), UNKNOWN_MAX);
        publish(&store, 1);
        let mut found = read(&store, at(1)).expect("read").expect("there");
        for (len, most) in [(1 << 10, 16), (10 << 20, 6), (1 << 10, 6), (200 << 20, 1)] {
            found.body = Body::Log(Log { batches: vec![0; len].into() });
            together.note::<()>(&[Ok(None), Ok(Some(found.clone()))].into());
            assert_eq!(together.most(&fetcher), most, "after one of {len} bytes");
        }
    }
}
