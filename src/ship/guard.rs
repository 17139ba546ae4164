//! What the leases of followers allow to be deleted.
//!
//! **A dead object that was listed at checkpoint c is deleted only when the leases, listed after c was published, show no
//! follower that may read a state before c.** That once so, it stays so: a follower takes its lease before it reads the newest
//! publication, and never goes back. What cannot be listed or read holds everything.

use super::leases::Leases;
use crate::base::canary::{self, Canary};
use crate::base::clock::Clock;
use crate::checkpoint::jobs::{DeleteJob, Follower};
use crate::format::ids::Uuid;
use crate::format::lease::{LeaseKind, LeaseState, Owner};
use crate::format::names::{self, LEASES};
use crate::store::{Store, StoreError};
use std::time::Duration;

/// Objects of a lease that has ended go when its end was seen so long ago. A follower that was stopped since then knows by its own
/// clock that it has none.
const ENDED_FOR: Duration = Duration::from_secs(600);

/// Numbers of a lease that goes on which its holder may still want.
const RECENT: usize = 8;

/// So many numbers are removed at a time, one after the other: what waits behind them goes on, and the next time the rest goes.
const REMOVED_MAX: usize = 512;

/// Asks for the leases before something is deleted.
pub struct Guard {
    leases: Leases,
    /// Who closes leases.
    owner: Owner,
    /// The writer's epoch.
    epoch: u32,
    /// What was listed up to here may go.
    allowed: u64,
}

impl Guard {
    /// Nothing may go yet.
    pub fn new(filesystem: Uuid, owner: Owner, epoch: u32) -> Guard {
        Guard { leases: Leases::new(filesystem), owner, epoch, allowed: 0 }
    }

    /// Up to which checkpoint's list dead objects may be deleted. The store is asked only when that is not known for all of
    /// the job.
    pub fn allows(&mut self, store: &dyn Store, clock: &dyn Clock, job: &DeleteJob) -> Result<u64, StoreError> {
        if canary::removed(Canary::LeaseBeforeDelete) {
            return Ok(u64::MAX);
        }
        if job.dead.iter().all(|dead| dead.checkpoint <= self.allowed) {
            return Ok(self.allowed);
        }
        self.leases.look(store, clock)?;
        self.close_dead(store, clock);
        self.remove_ended(store, clock.elapsed());
        // One that was not looked at may read anything. What was just removed makes place for the next look.
        if let Some(reason) = self.leases.unknown() {
            return Err(StoreError::Failed { action: "list", name: LEASES.to_owned(), reason });
        }
        let following = self.leases.holders().filter(|holder| holder.may_follow());
        let oldest = following.map(|holder| holder.newest.as_ref().map_or(0, |lease| lease.checkpoint)).min();
        self.allowed = self.allowed.max(job.published.min(oldest.unwrap_or(u64::MAX)));
        Ok(self.allowed)
    }

    /// A follower that did not renew its lease in time has lost it. It still holds what it held until the list shows that it
    /// is closed.
    fn close_dead(&self, store: &dyn Store, clock: &dyn Clock) {
        let now = clock.elapsed();
        for holder in self.leases.holders().filter(|holder| holder.may_follow() && holder.is_over(now)) {
            match self.leases.close(store, holder.who, &self.owner, clock.now()) {
                Ok(true) => log::warn!("the lease of {} was not renewed and is closed", describe(holder)),
                Ok(false) => {}
                Err(e) => log::warn!("the lease of {} stays: {e}", describe(holder)),
            }
        }
    }

    /// Removes what nobody asks for any more. The newest number goes last: without it an older one would count again.
    fn remove_ended(&self, store: &dyn Store, now: Duration) {
        let mut left = REMOVED_MAX;
        for holder in self.leases.holders() {
            let Ok(lease) = &holder.newest else { continue };
            let ended = lease.state != LeaseState::Held && now.saturating_sub(holder.seen) >= ENDED_FOR;
            // Another writer's hold: the fence ended its epoch.
            let old = lease.kind == LeaseKind::Writer && lease.epoch < self.epoch;
            let writer_of_now = lease.kind == LeaseKind::Writer && !old;
            let count = if (ended && !writer_of_now) || old { 0 } else { RECENT };
            for number in holder.removable(count) {
                if left == 0 {
                    return;
                }
                left -= 1;
                if let Err(e) = store.delete(&names::lease(holder.who, *number)) {
                    log::warn!("what is left of a lease stays: {e}");
                    return;
                }
            }
        }
    }

    /// The followers of the last list.
    pub fn followers(&self) -> Vec<Follower> {
        let shown = |holder: &super::leases::Holder| Follower {
            name: describe(holder),
            checkpoint: holder.newest.as_ref().map_or(0, |lease| lease.checkpoint),
            seen: holder.seen,
        };
        self.leases.holders().filter(|holder| holder.may_follow()).map(shown).collect()
    }
}

fn describe(holder: &super::leases::Holder) -> String {
    match &holder.newest {
        Ok(lease) => lease.owner.describe(),
        Err(e) => format!("{} ({e})", names::lease(holder.who, holder.number())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::leases::HOLDERS_KEPT;
    use super::*;
    use crate::base::clock::SimClock;
    use crate::checkpoint::jobs::Dead;
    use crate::format::lease::{FOLLOWER_SECONDS, Lease};
    use crate::media::sim::CallLog;
    use crate::store::sim::SimStore;

    fn put(store: &SimStore, who: u128, number: u64, state: LeaseState, checkpoint: u64) {
        let lease = Lease {
            filesystem: Uuid(1),
            who: Uuid(who),
            number,
            kind: LeaseKind::Follower,
            state,
            owner: Owner::of_test("reader"),
            since: 0,
            wall: 0,
            seconds: FOLLOWER_SECONDS,
            checkpoint,
            epoch: 0,
        };
        store.put(&names::lease(lease.who, number), lease.encode().into()).expect("put");
    }

    #[test]
    fn nothing_is_deleted_while_not_all_followers_are_known_and_those_that_ended_make_place() {
        let (store, clock) = (SimStore::new(&CallLog::new()), SimClock::default());
        (1..=HOLDERS_KEPT as u128).for_each(|who| put(&store, who, 1, LeaseState::Released, 0));
        // It reads what is to be deleted, and comes after all that are looked at.
        put(&store, u128::MAX, 1, LeaseState::Held, 3);
        let mut guard = Guard::new(Uuid(1), Owner::of_test("writer"), 1);
        let job = DeleteJob { dead: vec![Dead { name: "seg/x".into(), checkpoint: 4 }], published: 9 };
        let why = guard.allows(&store, &clock, &job).expect_err("refused").to_string();
        assert!(why.contains("more than 4096"), "{why}");
        clock.advance(ENDED_FOR);
        guard.allows(&store, &clock, &job).expect_err("refused: the list was made before they went");
        assert_eq!(guard.allows(&store, &clock, &job).expect("all are known"), 3);
    }

    #[test]
    fn a_bounded_part_of_what_has_ended_is_removed_at_a_time_until_all_of_it_is_gone() {
        const NUMBERS: usize = 3;
        const ALL: usize = (REMOVED_MAX - 1) * NUMBERS;
        let (store, clock) = (SimStore::new(&CallLog::new()), SimClock::default());
        for n in 0..ALL {
            put(&store, 1 + (n / NUMBERS) as u128, 1 + (n % NUMBERS) as u64, LeaseState::Released, 0);
        }
        let mut guard = Guard::new(Uuid(1), Owner::of_test("writer"), 1);
        // It is not published that this is dead, so the leases are looked at each time.
        let job = DeleteJob { dead: vec![Dead { name: "seg/x".into(), checkpoint: 4 }], published: 3 };
        let mut left_after = || {
            guard.allows(&store, &clock, &job).expect("all are known");
            store.list(LEASES).expect("listed").len()
        };
        assert_eq!(left_after(), ALL, "their ends were just seen");
        clock.advance(ENDED_FOR);
        for gone in 1..=ALL / REMOVED_MAX {
            assert_eq!(left_after(), ALL - gone * REMOVED_MAX);
            let half_gone = 1 + (gone * REMOVED_MAX / NUMBERS) as u128;
            store.get(&names::lease(Uuid(half_gone), NUMBERS as u64)).expect("the newest number goes last");
        }
        assert_eq!(left_after(), 0);
    }
}
