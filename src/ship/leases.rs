//! Who uses a filesystem, as its store shows it.
//!
//! Clocks of different machines are never compared: how long a number has been there counts from when it was first seen here.

use crate::base::clock::{Clock, Time};
use crate::format::ids::Uuid;
use crate::format::lease::{FOLLOWER_SECONDS, LEASE_NUMBER_MAX, Lease, LeaseKind, LeaseState, Owner};
use crate::format::names::{self, LEASES, Parsed};
use crate::store::{Created, Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

/// What is added to the time for which a lease counts, for clocks that run at another speed.
pub const MARGIN: Duration = Duration::from_secs(15);

/// A list whose numbers go while they are read is made anew so often.
const LOOKS: u32 = 4;

/// So many holders are looked at, those with the lowest names: each takes some 12 KiB of memory at most, and a request.
pub const HOLDERS_KEPT: usize = 4096;
/// So many numbers of each, the highest ones. A holder that is well has a few.
pub const NUMBERS_KEPT: usize = 64;

/// A holder: all that is in the store under one name.
#[derive(Clone, Debug)]
pub struct Holder {
    /// Its name.
    pub who: Uuid,
    /// The numbers that are there, in order, the highest [`NUMBERS_KEPT`]. The last one counts.
    pub numbers: Vec<u64>,
    /// Whether there are lower ones.
    pub more: bool,
    /// What that one says; else why it cannot be read: it is damaged, or of a newer program.
    pub newest: Result<Lease, String>,
    /// When it was first seen, by the clock that counts from no fixed moment.
    pub seen: Duration,
}

impl Holder {
    /// The newest number.
    pub fn number(&self) -> u64 {
        self.numbers.last().copied().unwrap_or(0)
    }

    /// The numbers that may go when the newest `count` are to stay. The newest one of all stays while a lower one would count in
    /// its place.
    pub fn removable(&self, count: usize) -> &[u64] {
        &self.numbers[..self.numbers.len().saturating_sub(count.max(usize::from(self.more)))]
    }

    /// What is said of the holder; nothing when that cannot be read.
    pub fn state(&self) -> Option<LeaseState> {
        self.newest.as_ref().ok().map(|lease| lease.state)
    }

    /// Whether it may be a follower that reads. One that cannot be read may be.
    pub fn may_follow(&self) -> bool {
        self.newest.as_ref().map_or(true, |lease| lease.kind == LeaseKind::Follower && lease.state == LeaseState::Held)
    }

    /// Whether the newest number has been there for longer than it counts. A writer's counts for ever; one that cannot be read
    /// for as long as a follower's.
    pub fn is_over(&self, now: Duration) -> bool {
        let seconds = self.newest.as_ref().map_or(FOLLOWER_SECONDS, |lease| lease.seconds);
        seconds > 0 && now.saturating_sub(self.seen) >= Duration::from_secs(u64::from(seconds)) + MARGIN
    }
}

/// The holders of one filesystem.
pub struct Leases {
    filesystem: Uuid,
    holders: BTreeMap<u128, Holder>,
    more: bool,
}

/// Numbers that are listed under one name: the highest ones.
#[derive(Default)]
struct Numbers {
    highest: BTreeSet<u64>,
    more: bool,
}

impl Numbers {
    fn add(&mut self, number: u64) {
        self.highest.insert(number);
        if self.highest.len() > NUMBERS_KEPT {
            self.highest.pop_first();
            self.more = true;
        }
    }
}

/// The numbers of one holder, the highest [`NUMBERS_KEPT`], in order.
pub fn numbers_of(store: &dyn Store, who: Uuid) -> Result<Vec<u64>, StoreError> {
    let any = names::lease(who, 0);
    let folder = any.rsplit_once('/').map_or(LEASES, |(folder, _)| folder);
    let mut numbers = Numbers::default();
    store.walk(folder, &mut |name| {
        if let Some(Parsed::Lease(_, number)) = names::parse(name) {
            numbers.add(number);
        }
        ControlFlow::Continue(())
    })?;
    Ok(numbers.highest.into_iter().collect())
}

impl Leases {
    /// Nobody is known yet.
    pub fn new(filesystem: Uuid) -> Leases {
        Leases { filesystem, holders: BTreeMap::new(), more: false }
    }

    /// Says that there are more than [`HOLDERS_KEPT`] holders, if so: what the others are is not known, and one of them may use the
    /// filesystem.
    pub fn unknown(&self) -> Option<String> {
        self.more.then(|| format!("there are more than {HOLDERS_KEPT} holders, and the others were not looked at"))
    }

    /// Every holder, up to [`HOLDERS_KEPT`].
    pub fn holders(&self) -> impl Iterator<Item = &Holder> {
        self.holders.values()
    }

    /// The hold of the writer with the newest epoch, whatever it says.
    pub fn writer(&self) -> Option<(&Holder, &Lease)> {
        let leases = self.holders().filter_map(|holder| Some((holder, holder.newest.as_ref().ok()?)));
        leases.filter(|(_, lease)| lease.kind == LeaseKind::Writer).max_by_key(|(_, lease)| (lease.epoch, lease.since))
    }

    /// Asks the store: one list of names, and each number that is new. After an error nothing has changed here.
    pub fn look(&mut self, store: &dyn Store, clock: &dyn Clock) -> Result<(), StoreError> {
        let mut looks = 1;
        loop {
            match self.look_once(store, clock) {
                // A holder that went on removed what was listed.
                Err(StoreError::NotFound { .. }) if looks < LOOKS => looks += 1,
                looked => return looked,
            }
        }
    }

    fn look_once(&mut self, store: &dyn Store, clock: &dyn Clock) -> Result<(), StoreError> {
        let (mut listed, mut more): (BTreeMap<u128, Numbers>, bool) = (BTreeMap::new(), false);
        store.walk(LEASES, &mut |name| {
            if let Some(Parsed::Lease(who, number)) = names::parse(name) {
                listed.entry(who.0).or_default().add(number);
                // The same ones stay each time. Those of them that have ended are removed, and then others are seen.
                if listed.len() > HOLDERS_KEPT {
                    listed.pop_last();
                    more = true;
                }
            }
            ControlFlow::Continue(())
        })?;
        let mut holders = BTreeMap::new();
        for (who, Numbers { highest, more }) in listed {
            let numbers: Vec<u64> = highest.into_iter().collect();
            let known = self.holders.get(&who).filter(|known| Some(&known.number()) == numbers.last());
            let (newest, seen) = match known {
                Some(known) => (known.newest.clone(), known.seen),
                // Seen after the answer: what is there was sent before it.
                None => (self.read(store, Uuid(who), numbers[numbers.len() - 1])?, clock.elapsed()),
            };
            holders.insert(who, Holder { who: Uuid(who), numbers, more, newest, seen });
        }
        // A list that is made while a holder goes on may show none of its numbers. Whoever ends says so.
        for (who, known) in &self.holders {
            if known.may_follow() && !known.is_over(clock.elapsed()) && !holders.contains_key(who) {
                if holders.len() < HOLDERS_KEPT {
                    holders.insert(*who, known.clone());
                } else {
                    more = true;
                }
            }
        }
        self.more = more;
        self.holders = holders;
        Ok(())
    }

    fn read(&self, store: &dyn Store, who: Uuid, number: u64) -> Result<Result<Lease, String>, StoreError> {
        if number == LEASE_NUMBER_MAX {
            let nobody =
                Owner { host: String::new(), boot: String::new(), pid: 0, started: 0, mount_point: String::new() };
            return Ok(Ok(self.closed(who, number, nobody, 0)));
        }
        let bytes = store.get(&names::lease(who, number))?;
        Ok(match Lease::decode(&bytes) {
            Ok(lease) if (lease.filesystem, lease.who, lease.number) == (self.filesystem, who, number) => Ok(lease),
            Ok(_) => Err("belongs to another filesystem or holder".to_owned()),
            Err(e) => Err(e.to_string()),
        })
    }

    /// Closes the lease of a holder by winning the number after the newest that is known of it. `false` when the holder was
    /// faster. Whether that ends the lease says the next [`Leases::look`] alone: this process may have been stopped since the
    /// last one for so long that the number was free again.
    pub fn close(&self, store: &dyn Store, who: Uuid, by: &Owner, now: Time) -> Result<bool, StoreError> {
        let holder = self.holders.get(&who.0).filter(|holder| holder.number() < LEASE_NUMBER_MAX);
        let Some(holder) = holder else { return Ok(false) };
        let (number, wall) = (holder.number() + 1, now.as_nanos());
        let closed = match &holder.newest {
            Ok(lease) => Lease { number, state: LeaseState::Closed, owner: by.clone(), wall, ..lease.clone() },
            Err(_) => self.closed(who, number, by.clone(), wall),
        };
        Ok(store.create(&names::lease(who, number), closed.encode().into())? == Created::New)
    }

    /// What ends a lease of which nothing is known.
    fn closed(&self, who: Uuid, number: u64, owner: Owner, wall: i64) -> Lease {
        Lease {
            filesystem: self.filesystem,
            who,
            number,
            kind: LeaseKind::Follower,
            state: LeaseState::Closed,
            owner,
            since: wall,
            wall,
            seconds: FOLLOWER_SECONDS,
            checkpoint: 0,
            epoch: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SimClock;
    use crate::media::sim::{CallLog, Nth};
    use crate::store::sim::{SimStore, StoreFault, StoreOp};

    const WHO: Uuid = Uuid(3);

    fn put(store: &SimStore, number: u64, state: LeaseState) {
        let lease = Lease {
            filesystem: Uuid(1),
            who: WHO,
            number,
            kind: LeaseKind::Follower,
            state,
            owner: Owner::of_test("reader"),
            since: 0,
            wall: 0,
            seconds: FOLLOWER_SECONDS,
            checkpoint: 7,
            epoch: 0,
        };
        store.put(&names::lease(WHO, number), lease.encode().into()).expect("put");
    }

    fn only(leases: &Leases) -> &Holder {
        let all: Vec<&Holder> = leases.holders().collect();
        assert_eq!(all.len(), 1);
        all[0]
    }

    #[test]
    fn a_number_is_seen_when_it_was_first_there_and_read_once() {
        let (store, clock) = (SimStore::new(&CallLog::new()), SimClock::default());
        let mut leases = Leases::new(Uuid(1));
        for seconds in [5, 6, 7] {
            put(&store, 1, LeaseState::Held);
            clock.advance(Duration::from_secs(1));
            store.fail(Nth::new(1).of(StoreOp::Get), StoreFault::Refused);
            leases.look(&store, &clock).map_or_else(|_| assert_eq!(seconds, 5), |()| assert!(seconds > 5));
            store.heal();
            leases.look(&store, &clock).expect("looked");
            assert_eq!(only(&leases).seen, Duration::from_secs(1));
        }
        put(&store, 2, LeaseState::Held);
        let gets = store.gets();
        leases.look(&store, &clock).expect("looked");
        assert_eq!((only(&leases).seen, store.gets() - gets), (Duration::from_secs(3), 1));
        assert!(!only(&leases).is_over(Duration::from_secs(77)));
        assert!(only(&leases).is_over(Duration::from_secs(78)));
    }

    #[test]
    fn winning_a_number_that_the_holder_left_behind_ends_nothing() {
        let (store, clock) = (SimStore::new(&CallLog::new()), SimClock::default());
        let mut leases = Leases::new(Uuid(1));
        put(&store, 1, LeaseState::Held);
        leases.look(&store, &clock).expect("looked");
        // This process stood still here, and the holder has renewed and tidied up.
        put(&store, 40, LeaseState::Held);
        store.delete(&names::lease(WHO, 1)).expect("deleted");
        assert!(leases.close(&store, WHO, &Owner::of_test("writer"), clock.now()).expect("answered"));
        leases.look(&store, &clock).expect("looked");
        assert!(only(&leases).may_follow());
        assert_eq!(only(&leases).numbers, [2, 40]);

        assert!(leases.close(&store, WHO, &Owner::of_test("writer"), clock.now()).expect("answered"));
        assert!(!leases.close(&store, WHO, &Owner::of_test("writer"), clock.now()).expect("answered"), "it is there");
        leases.look(&store, &clock).expect("looked");
        assert_eq!(only(&leases).state(), Some(LeaseState::Closed));
    }

    #[test]
    fn a_lease_that_a_list_does_not_show_is_there_until_it_is_over() {
        let (store, clock) = (SimStore::new(&CallLog::new()), SimClock::default());
        let mut leases = Leases::new(Uuid(1));
        put(&store, 1, LeaseState::Held);
        leases.look(&store, &clock).expect("looked");
        store.delete(&names::lease(WHO, 1)).expect("deleted");
        clock.advance(Duration::from_secs(74));
        leases.look(&store, &clock).expect("looked");
        assert!(only(&leases).may_follow());
        clock.advance(Duration::from_secs(1));
        leases.look(&store, &clock).expect("looked");
        assert_eq!(leases.holders().count(), 0);
    }

    #[test]
    fn a_lease_at_the_end_of_numbers_has_ended_and_one_beyond_it_is_none() {
        let (store, clock) = (SimStore::new(&CallLog::new()), SimClock::default());
        for number in [5, LEASE_NUMBER_MAX + 1, u64::MAX] {
            store.put(&names::lease(WHO, number), "no lease".into()).expect("put");
        }
        let mut leases = Leases::new(Uuid(1));
        leases.look(&store, &clock).expect("looked");
        assert_eq!((only(&leases).number(), only(&leases).may_follow()), (5, true));

        store.put(&names::lease(WHO, LEASE_NUMBER_MAX - 1), "no lease".into()).expect("put");
        leases.look(&store, &clock).expect("looked");
        assert!(only(&leases).may_follow());
        assert!(leases.close(&store, WHO, &Owner::of_test("writer"), clock.now()).expect("answered"));
        leases.look(&store, &clock).expect("looked");
        assert_eq!(only(&leases).state(), Some(LeaseState::Closed));
        assert!(!leases.close(&store, WHO, &Owner::of_test("writer"), clock.now()).expect("answered"));

        // Somebody else got there first, and nobody could win the number after it.
        put(&store, LEASE_NUMBER_MAX, LeaseState::Held);
        let mut leases = Leases::new(Uuid(1));
        leases.look(&store, &clock).expect("looked");
        assert_eq!((only(&leases).state(), only(&leases).may_follow()), (Some(LeaseState::Closed), false));
        assert_eq!(only(&leases).removable(0), [5, LEASE_NUMBER_MAX - 1, LEASE_NUMBER_MAX]);
    }

    #[test]
    fn what_is_under_another_name_or_of_another_filesystem_is_not_believed() {
        let (store, clock) = (SimStore::new(&CallLog::new()), SimClock::default());
        put(&store, 1, LeaseState::Released);
        let bytes = store.get(&names::lease(WHO, 1)).expect("there");
        for (filesystem, name) in [(Uuid(2), names::lease(WHO, 1)), (Uuid(1), names::lease(WHO, 2))] {
            store.put(&name, bytes.clone()).expect("put");
            let mut leases = Leases::new(filesystem);
            leases.look(&store, &clock).expect("looked");
            assert!(only(&leases).newest.is_err() && only(&leases).may_follow(), "{name}");
        }
    }

    #[test]
    fn of_many_holders_and_numbers_a_bounded_part_is_known_and_that_there_are_more_is_said() {
        let (store, clock) = (SimStore::new(&CallLog::new()), SimClock::default());
        let bytes = {
            put(&store, 1, LeaseState::Held);
            store.get(&names::lease(WHO, 1)).expect("there")
        };
        let put_as = |who, number| store.put(&names::lease(Uuid(who), number), bytes.clone()).expect("put");
        (10..10 + HOLDERS_KEPT as u128).for_each(|who| put_as(who, 1));
        (1..=NUMBERS_KEPT as u64 + 9).for_each(|number| put_as(10, number));
        let (mut leases, gets) = (Leases::new(Uuid(1)), store.gets());
        leases.look(&store, &clock).expect("looked");
        assert_eq!((leases.holders().count(), store.gets() - gets), (HOLDERS_KEPT, HOLDERS_KEPT as u64));
        assert!(leases.unknown().is_some_and(|why| why.contains("4096")));
        assert_eq!(leases.holders().last().map(|holder| holder.who), Some(Uuid(8 + HOLDERS_KEPT as u128)));

        let many = leases.holders().find(|holder| holder.who == Uuid(10)).expect("known");
        assert_eq!((many.numbers.len(), many.number(), many.more), (NUMBERS_KEPT, NUMBERS_KEPT as u64 + 9, true));
        assert_eq!(many.removable(0).len(), NUMBERS_KEPT - 1, "a lower number would count instead of the newest");
        for number in many.removable(0) {
            store.delete(&names::lease(Uuid(10), *number)).expect("deleted");
        }
        store.delete(&names::lease(WHO, 1)).expect("deleted");
        clock.advance(Duration::from_secs(75));
        leases.look(&store, &clock).expect("looked");
        assert_eq!((leases.holders().count(), leases.unknown()), (HOLDERS_KEPT, None), "another one is seen now");
        let many = leases.holders().find(|holder| holder.who == Uuid(10)).expect("known");
        assert_eq!((many.removable(0).len(), many.more), (10, false));
    }
}
