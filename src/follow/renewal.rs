//! The lease of the states that are read now, between the thread that renews it, the one that takes another when it was lost, and
//! those that miss something and ask.

use super::lease::{FollowerLease, LeaseWatch, Step};
use crate::map::Term;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// A lease that was lost is looked at again after this: there may be another one.
const LOST: Duration = Duration::from_secs(1);

/// See the module.
pub struct Renewal {
    /// Held across requests to the store, by those threads only. `None` at the end.
    lease: Mutex<Option<FollowerLease>>,
    /// Of the same lease, for who must not wait for a request.
    watch: Mutex<LeaseWatch>,
    why_lost: Mutex<Option<String>>,
}

impl Renewal {
    pub(super) fn new(lease: FollowerLease) -> Renewal {
        let watch = Mutex::new(lease.watch());
        Renewal { lease: Mutex::new(Some(lease)), watch, why_lost: Mutex::new(None) }
    }

    /// Renews the lease if that is due; in how long it is to be called again.
    pub fn step(&self) -> Duration {
        self.with(FollowerLease::step)
    }

    /// Finds out from the store whether the lease is held, for an operation that misses something. States say afterwards
    /// whether it is ([`crate::map::Seen::is_lost`]).
    pub fn confirm(&self) {
        self.with(FollowerLease::renew);
    }

    fn with(&self, ask: impl FnOnce(&mut FollowerLease) -> Step) -> Duration {
        // Held to the end: the reason is told of the lease that was lost, not of the next one.
        let mut lease = self.lease.lock();
        match lease.as_mut().map(ask) {
            Some(Step::Held { again }) => again,
            Some(Step::Lost { why }) => {
                *self.why_lost.lock() = Some(why);
                LOST
            }
            None => LOST,
        }
    }

    /// Goes on with another lease in place of one that was lost. Returns why it was.
    pub(super) fn replace(&self, lease: FollowerLease) -> Option<String> {
        let mut current = self.lease.lock();
        *self.watch.lock() = lease.watch();
        *current = Some(lease);
        self.why_lost.lock().take()
    }

    /// For how long the lease holds, if it is not renewed.
    pub fn left(&self) -> Duration {
        self.watch.lock().left()
    }

    /// Why the lease was lost, until there is another one.
    pub fn why_lost(&self) -> Option<String> {
        self.why_lost.lock().clone()
    }

    /// States before this checkpoint are not read any more.
    pub(super) fn set_oldest(&self, checkpoint: u64) {
        self.watch.lock().set_oldest(checkpoint);
    }

    /// Gives the lease back: nothing is read any more.
    pub fn release(&self) {
        if let Some(Err(e)) = self.lease.lock().take().map(FollowerLease::release) {
            log::warn!("the lease was not given back, and ends by itself: {e}");
        }
    }
}

/// States may be read as long as a lease is held.
pub(super) fn term_of(lease: &FollowerLease) -> Arc<Term> {
    let watch = lease.watch();
    Arc::new(Term::new(move || watch.is_valid()))
}
