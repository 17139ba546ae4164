//! The follower's side of a lease: what it reads is not deleted as long as it renews in time.
//!
//! **A number counts for a minute from when its creation began**, by the follower's own clock; the writer counts a longer time from
//! when it saw the number, which is later. So a follower knows that it has lost its lease before anybody else may act on
//! that, also one that was stopped, and one whose renewal arrived late. What ends a lease earlier is a number that another one
//! created in the place of the next.

use crate::base::clock::{Clock, Time};
use crate::base::random::Random;
use crate::format::ids::Uuid;
use crate::format::lease::{FOLLOWER_SECONDS, Lease, LeaseKind, LeaseState, Owner};
use crate::format::names;
use crate::store::{Created, Store, StoreError};
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// For how long a number counts.
const COUNTS: Duration = Duration::from_secs(FOLLOWER_SECONDS as u64);
/// The next number is created when the newest is this old.
const RENEW_AFTER: Duration = Duration::from_secs(15);
/// The pause before a renewal without an answer is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// So many numbers stay, so that a list of names which takes long shows one of them.
const KEPT: u64 = 3;

/// A moment by the clocks of this machine. A machine that slept knows that by one of them, one that was stopped by its host
/// by the other.
#[derive(Clone, Copy)]
struct Moment {
    asleep: Duration,
    wall: Time,
}

impl Moment {
    fn now(clock: &dyn Clock) -> Moment {
        Moment { asleep: clock.elapsed_asleep(), wall: clock.now() }
    }

    /// The longer of what the clocks say has gone by since.
    fn age(&self, clock: &dyn Clock) -> Duration {
        let wall = clock.now().as_nanos().saturating_sub(self.wall.as_nanos());
        let wall = Duration::from_nanos(u64::try_from(wall).unwrap_or(0));
        clock.elapsed_asleep().saturating_sub(self.asleep).max(wall)
    }
}

/// What is known of a lease, for those who read under it.
#[derive(Clone)]
pub struct LeaseWatch {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    /// When the creation of the newest number began; nothing when the lease is lost or given back.
    began: Mutex<Option<Moment>>,
    /// The oldest checkpoint whose state is read.
    oldest: AtomicU64,
}

impl LeaseWatch {
    /// Whether what was read until now was held.
    pub fn is_valid(&self) -> bool {
        let began = *self.shared.began.lock();
        began.is_some_and(|began| began.age(&*self.shared.clock) < COUNTS)
    }

    /// For how long it will be, if it is not renewed.
    pub fn left(&self) -> Duration {
        let began = *self.shared.began.lock();
        began.map_or(Duration::ZERO, |began| COUNTS.saturating_sub(began.age(&*self.shared.clock)))
    }

    /// States before this checkpoint are not read any more. The next renewal says so; it never goes back.
    pub fn set_oldest(&self, checkpoint: u64) {
        self.shared.oldest.fetch_max(checkpoint, Ordering::SeqCst);
    }
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The lease is held. The next step is due after this time.
    Held {
        /// How long.
        again: Duration,
    },
    /// The lease is lost for ever: what is read from now on may be deleted. A new one can be taken.
    Lost {
        /// Why, in one sentence.
        why: String,
    },
}

/// A number whose creation was begun. It is tried again with the same bytes, so it is known whether one that is found is it.
struct Sent {
    number: u64,
    bytes: Bytes,
    began: Moment,
}

/// What is at a number that was to be created.
enum Found {
    /// Ours, whose creation began then.
    Ours(Moment),
    /// Another's, who says that the lease is over.
    Other(String),
}

/// A lease, and how it is renewed.
pub struct FollowerLease {
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
    /// As the newest number has it, but for what changes with each.
    lease: Lease,
    sent: Option<Sent>,
    lost: Option<String>,
    /// The newest renewal had no answer, and that was told.
    told: bool,
}

impl FollowerLease {
    /// Takes a lease on all that is in the store. What is published is read after that. After an error another one can be tried: what
    /// may have arrived of this one ends by itself.
    pub fn take(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        random: &dyn Random,
        filesystem: Uuid,
        owner: Owner,
    ) -> Result<FollowerLease, StoreError> {
        let wall = clock.now().as_nanos();
        let lease = Lease {
            filesystem,
            who: Uuid(random.u128()),
            number: 0,
            kind: LeaseKind::Follower,
            state: LeaseState::Held,
            owner,
            since: wall,
            wall,
            seconds: FOLLOWER_SECONDS,
            checkpoint: 0,
            epoch: 0,
        };
        let shared = Arc::new(Shared { clock, began: Mutex::new(None), oldest: AtomicU64::new(0) });
        let mut taken = FollowerLease { store, shared, lease, sent: None, lost: None, told: false };
        let failed = |reason: &str| StoreError::Failed {
            action: "create",
            name: names::lease(taken.lease.who, 1),
            reason: reason.to_owned(),
        };
        let (late, foreign) = (failed("the answer came too late for a lease"), failed("it is there already"));
        match taken.create(LeaseState::Held)? {
            Found::Ours(began) if taken.counts_from(began) => Ok(taken),
            Found::Ours(_) => Err(late),
            Found::Other(_) => Err(foreign),
        }
    }

    /// For those who read.
    pub fn watch(&self) -> LeaseWatch {
        LeaseWatch { shared: self.shared.clone() }
    }

    /// The name of this holder.
    pub fn who(&self) -> Uuid {
        self.lease.who
    }

    /// Whether what was read until now was held.
    pub fn is_valid(&self) -> bool {
        self.watch().is_valid()
    }

    /// See [`LeaseWatch::set_oldest`].
    pub fn set_oldest(&self, checkpoint: u64) {
        self.watch().set_oldest(checkpoint);
    }

    /// Renews the lease if that is due. A lease that is over is never renewed: what it held may be gone.
    pub fn step(&mut self) -> Step {
        if self.is_valid() && self.sent.is_none() && self.due_in() > Duration::ZERO {
            return Step::Held { again: self.due_in() };
        }
        self.renew()
    }

    /// Renews the lease whether that is due or not: so it is known whether it is still held.
    pub fn renew(&mut self) -> Step {
        if let Some(why) = &self.lost {
            return Step::Lost { why: why.clone() };
        }
        // Whoever closed it may have tidied up since, and the number be free again.
        if !self.is_valid() {
            return self.lose(format!("the lease was not renewed for {FOLLOWER_SECONDS} s"));
        }
        match self.create(LeaseState::Held) {
            Ok(Found::Other(why)) => self.lose(why),
            Ok(Found::Ours(began)) if !self.counts_from(began) => {
                self.lose(format!("the lease was not renewed for {FOLLOWER_SECONDS} s"))
            }
            Ok(Found::Ours(_)) => {
                self.told = false;
                self.remove(self.lease.number.saturating_sub(KEPT));
                Step::Held { again: self.due_in() }
            }
            Err(e) => {
                if !std::mem::replace(&mut self.told, true) {
                    log::warn!("the lease is not renewed yet: {e}");
                }
                Step::Held { again: RETRY }
            }
        }
    }

    /// Gives the lease back: nothing is read any more. What it says stays until the writer removes it.
    pub fn release(mut self) -> Result<(), StoreError> {
        if self.lost.is_some() {
            return Ok(());
        }
        *self.shared.began.lock() = None;
        // Somebody else's number ends the lease as well.
        if self.sent.is_some() && matches!(self.create(LeaseState::Held)?, Found::Other(_)) {
            return Ok(());
        }
        self.create(LeaseState::Released)?;
        (1..=KEPT + 1).rev().for_each(|back| self.remove(self.lease.number.saturating_sub(back)));
        Ok(())
    }

    /// The newest number counts from `began`; whether it still does.
    fn counts_from(&self, began: Moment) -> bool {
        *self.shared.began.lock() = Some(began);
        self.is_valid()
    }

    fn due_in(&self) -> Duration {
        let began = *self.shared.began.lock();
        began.map_or(Duration::ZERO, |began| RENEW_AFTER.saturating_sub(began.age(&*self.shared.clock)))
    }

    fn lose(&mut self, why: String) -> Step {
        *self.shared.began.lock() = None;
        self.sent = None;
        self.lost = Some(why.clone());
        Step::Lost { why }
    }

    /// Creates the next number, or finds out what became of it when it was tried before.
    fn create(&mut self, state: LeaseState) -> Result<Found, StoreError> {
        let (number, clock) = (self.lease.number + 1, &*self.shared.clock);
        let (wall, checkpoint) = (clock.now().as_nanos(), self.shared.oldest.load(Ordering::SeqCst));
        let next = Lease { number, state, wall, checkpoint, ..self.lease.clone() };
        let new = || Sent { number, bytes: next.encode().into(), began: Moment::now(clock) };
        let Sent { number, bytes, began } = self.sent.get_or_insert_with(new);
        let (name, began) = (names::lease(self.lease.who, *number), *began);
        let found = match self.store.create(&name, bytes.clone())? {
            Created::New => Found::Ours(began),
            Created::Exists => match self.store.get(&name)? {
                there if there == *bytes => Found::Ours(began),
                there => Found::Other(match Lease::decode(&there) {
                    Ok(lease) => format!("the lease was closed by {}", lease.owner.describe()),
                    // Who could tell whether it is over?
                    Err(e) => return Err(StoreError::Failed { action: "get", name, reason: e.to_string() }),
                }),
            },
        };
        if let Found::Ours(_) = found {
            self.lease.number = *number;
            self.sent = None;
        }
        Ok(found)
    }

    /// Removes an old number of this lease. One that stays is removed by the writer.
    fn remove(&self, number: u64) {
        if number > 0 {
            if let Err(e) = self.store.delete(&names::lease(self.lease.who, number)) {
                log::debug!("an old number of the lease stays: {e}");
            }
        }
    }
}

#[cfg(test)]
mod tests;
