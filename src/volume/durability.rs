//! When an fsync returns.

use super::{Shared, Volume};
use crate::ship::{Durability, ShipError, SyncFigures};
use std::time::Duration;

impl Shared {
    /// Gives up those who have waited for too long until the store has what they wrote, while it gives trouble. Who leaves waits for
    /// no store, however it is.
    pub(super) fn look_at_fsyncs(&self, now: Duration, timeout: Duration) {
        if let Some(stored) = &self.stored {
            let trouble = timeout.is_zero() || self.hindrance().is_some() || self.figures.lock().last_error.is_some();
            stored.look(trouble, now, timeout);
        }
    }

    /// Nothing is published any more: another writer has taken over, or what answers is another store.
    pub(super) fn end_writing(&self, e: &ShipError) {
        log::error!("{e}; read-only from now on");
        self.latch(e.to_string());
        if matches!(e, ShipError::Fenced { .. }) {
            *self.fenced.lock() = Some(e.to_string());
        }
        self.end_fsyncs(&e.to_string());
    }

    /// Who waits for the store is told why that has no end.
    pub(super) fn end_fsyncs(&self, reason: &str) {
        self.stored.iter().for_each(|stored| stored.end(reason));
    }

    /// How fsyncs that wait for the store are doing.
    pub(super) fn fsyncs(&self) -> SyncFigures {
        self.stored.as_ref().map(|stored| stored.figures()).unwrap_or_default()
    }
}

impl Volume {
    /// Calls `done` when everything that happened so far is as durable as was asked for, or why that will not be known. Never
    /// with success once writing has ended, by a failure or by a takeover.
    pub fn sync(&self, done: impl FnOnce(Result<(), String>) + Send + 'static) {
        let db = &self.shared.db;
        let (Some(journal), Some(stored)) = (db.journal_of_writer(), &self.shared.stored) else { return done(Ok(())) };
        let lsn = db.last();
        if self.durability() == Durability::Local {
            return journal.when_synced(lsn, Box::new(done));
        }
        let stored = stored.clone();
        let local = move |synced: Result<(), String>| match synced {
            Ok(()) => stored.when_stored(lsn, Box::new(done)),
            Err(reason) => done(Err(reason)),
        };
        journal.when_synced(lsn, Box::new(local));
    }

    /// When an fsync returns.
    pub fn durability(&self) -> Durability {
        match self.shared.db.journal_of_writer().is_some_and(|journal| journal.tail().is_open()) {
            true => Durability::Store,
            false => Durability::Local,
        }
    }

    /// Changes when an fsync returns. Those that wait for the store go on doing so.
    pub fn set_durability(&self, durability: Durability) {
        if let Some(journal) = self.shared.db.journal_of_writer() {
            journal.tail().set_open(durability == Durability::Store);
        }
    }
}
