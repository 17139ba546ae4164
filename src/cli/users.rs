//! Who uses a filesystem, as its store says it: for commands that would harm them.

use super::failure::Failure;
use super::store_arg::StoreArg;
use skylog::base::clock::{Clock, SystemClock, Time};
use skylog::format::ids::Uuid;
use skylog::format::lease::{Lease, LeaseKind, LeaseState};
use skylog::format::names::{self, LEASES};
use skylog::media::{Owner, Standing};
use skylog::ship::leases::{Holder, Leases};
use skylog::store::Store;
use std::sync::Arc;

/// A follower that was not heard of for so long, by the clocks of both machines, is taken for dead: it renews four times a minute.
const SILENT_S: i64 = 600;

/// What the leases in a store say.
pub struct Users {
    store: Arc<dyn Store>,
    shown: String,
    leases: Leases,
    clock: SystemClock,
    here: Owner,
}

/// One that has not said that it is gone.
pub struct User {
    /// Its name in the store.
    pub who: Uuid,
    /// Process and machine, what it does, and when it was heard of.
    pub words: String,
    /// Whether it holds the filesystem for writing.
    pub writes: bool,
    /// What is known here of it.
    pub standing: Standing,
}

impl Users {
    /// Asks the store.
    pub fn of(store: &StoreArg, filesystem: Uuid) -> Result<Users, Failure> {
        let here = Owner::seen_anywhere("nowhere").map_err(Failure::failed)?;
        let (opened, clock, mut leases) = (store.open()?, SystemClock::new(), Leases::new(filesystem));
        leases.look(opened.as_ref(), &clock).map_err(|e| store.refused(e))?;
        Ok(Users { store: opened, shown: store.url(), leases, clock, here })
    }

    /// All that have not said that they are gone.
    pub fn all(&self) -> Vec<User> {
        self.leases.holders().filter_map(|holder| self.user(holder)).collect()
    }

    /// Says that there may be more, if the store has more leases than are looked at.
    pub fn unknown(&self) -> Option<String> {
        self.leases.unknown().map(|what| format!("{} in {}: {what}", LEASES, self.shown))
    }

    fn user(&self, holder: &Holder) -> Option<User> {
        let who = holder.who;
        let (words, standing) = match &holder.newest {
            Ok(lease) if lease.state != LeaseState::Held => return None,
            Ok(lease) => (describe(lease), self.standing(lease)),
            Err(e) => (format!("somebody ({}: {e})", names::lease(holder.who, holder.number())), Standing::Elsewhere),
        };
        let writes = matches!(&holder.newest, Ok(lease) if lease.kind == LeaseKind::Writer);
        Some(User { who, words, writes, standing })
    }

    fn standing(&self, lease: &Lease) -> Standing {
        let silent = self.clock.now().secs - Time::from_nanos(lease.wall).secs;
        match lease.owner.standing_anywhere(&self.here) {
            Standing::Elsewhere if lease.kind == LeaseKind::Follower && silent > SILENT_S => Standing::Dead,
            standing => standing,
        }
    }

    /// Ends the lease of one, safely: it may live, and then it notices.
    pub fn close(&self, who: Uuid) -> Result<bool, Failure> {
        let closed = self.leases.close(self.store.as_ref(), who, &self.here, self.clock.now());
        closed.map_err(|e| Failure::failed(format_args!("{}: {e}", self.shown)))
    }
}

fn describe(lease: &Lease) -> String {
    let (does, heard) = match lease.kind {
        LeaseKind::Writer => ("writes", format!("since {}", Time::from_nanos(lease.since))),
        LeaseKind::Follower => ("follows", format!("heard of at {}", Time::from_nanos(lease.wall))),
    };
    format!("{}, which {does}, {heard}", lease.owner.describe())
}
