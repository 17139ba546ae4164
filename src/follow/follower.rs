//! The step function that goes on to what is published.

use super::ahead::Ahead;
use super::changed::Changed;
use super::figures::Figures;
use super::lease::FollowerLease;
use super::renewal::{Renewal, term_of};
use super::state::{State, Taken};
use super::windows::Windows;
use super::{Newest, POLL, Source};
use crate::base::clock::Clock;
use crate::format::publication::Publication;
use crate::locate::Locate;
use crate::map::{Db, Term};
use crate::recovery::{MountError, damaged, newest_generation};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// A number that is missing for so long may be missing because its generation is gone.
const MISSING_MAX: Duration = Duration::from_secs(15);

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is nothing to do yet.
    Idle,
    /// Something was read, and no state has changed.
    Worked,
    /// There is a newer state; this may be different in it.
    Advanced(Changed),
}

/// Goes on to what is published.
pub struct Follower {
    source: Source,
    clock: Arc<dyn Clock>,
    db: Arc<Db>,
    windows: Windows,
    state: State,
    renewal: Arc<Renewal>,
    term: Arc<Term>,
    poll_at: Duration,
    /// Since when the next number is not there, or the last look at whether it can still come.
    missing_since: Option<Duration>,
    ahead: Ahead,
    figures: Arc<Mutex<Figures>>,
}

impl Follower {
    pub(super) fn new(source: Source, locate: Arc<Locate>, lease: FollowerLease, newest: Newest) -> Follower {
        let Newest { state, windows: listed } = newest;
        let mut windows = Windows::new(locate.clone());
        windows.replace(&listed, 0);
        let term = term_of(&lease);
        let seen = Arc::new(state.seen(&term));
        let (clock, now) = (source.clock.clone(), source.clock.elapsed());
        let figures = Arc::new(Mutex::new(Figures::new(&seen, now)));
        let db = Arc::new(Db::follower(seen, locate, source.cache.clone()));
        let renewal = Arc::new(Renewal::new(lease));
        let (poll_at, missing_since, ahead) = (now + POLL, None, Ahead::default());
        let mut follower =
            Follower { source, clock, db, windows, state, renewal, term, poll_at, missing_since, ahead, figures };
        follower.forget();
        follower
    }

    /// The maps.
    pub fn db(&self) -> &Arc<Db> {
        &self.db
    }

    /// What keeps the states that are read from being deleted.
    pub fn renewal(&self) -> &Arc<Renewal> {
        &self.renewal
    }

    /// What is told of it.
    pub fn figures(&self) -> Arc<Mutex<Figures>> {
        self.figures.clone()
    }

    /// Reads the next publication, if it is time. What went wrong is tried again, and told in the figures meanwhile.
    pub fn step(&mut self) -> Progress {
        let now = self.clock.elapsed();
        if now < self.poll_at {
            return Progress::Idle;
        }
        self.forget();
        let progress = if self.term.is_over() { self.begin_again() } else { self.read_next(now) };
        if progress.as_ref().map_or(true, |progress| *progress == Progress::Idle) {
            self.poll_at = now + POLL;
        }
        let mut figures = self.figures.lock();
        match progress {
            Ok(progress) => {
                figures.error = None;
                progress
            }
            Err(e) => {
                let error = e.to_string();
                if figures.error.as_ref() != Some(&error) {
                    log::warn!("what was published could not be read, and is read again: {error}");
                }
                figures.error = Some(error);
                Progress::Idle
            }
        }
    }

    fn read_next(&mut self, now: Duration) -> Result<Progress, MountError> {
        match self.ahead.next(&*self.source.store, &self.source.fetcher, self.state.next)? {
            Some(publication) => {
                self.missing_since = None;
                self.take(publication)
            }
            None => self.miss(now),
        }
    }

    fn take(&mut self, publication: Publication) -> Result<Progress, MountError> {
        let before = self.state.generation();
        let changed = match self.state.take(publication, &self.source.trees())? {
            Taken::Closed => return Ok(Progress::Worked),
            Taken::Base(windows, changed) => {
                self.windows.replace(&windows, before);
                changed
            }
            Taken::Changes(windows, changed) => {
                for entry in windows.iter().filter(|entry| entry.objects > 0) {
                    self.windows.add(entry.start, entry.end);
                }
                changed
            }
        };
        self.figures.lock().publications += 1;
        self.show();
        Ok(Progress::Advanced(changed))
    }

    /// Has the state read from now on.
    fn show(&mut self) {
        let seen = Arc::new(self.state.seen(&self.term));
        self.figures.lock().show(&seen);
        self.db.advance(seen);
        self.forget();
    }

    /// Lets go of what no state needs any more that is read, here and, by what the next renewal says, in the store.
    fn forget(&mut self) {
        let in_use = self.db.seen_in_use();
        let living = || in_use.iter().filter(|seen| !seen.is_lost());
        if let Some(generation) = living().map(|seen| seen.position.generation).min() {
            self.windows.forget_before(generation);
        }
        if let Some(checkpoint) = living().map(|seen| seen.checkpoint).min() {
            self.renewal.set_oldest(checkpoint);
        }
        self.figures.lock().windows = self.windows.len();
    }

    /// The next number is not there: usually because nothing was published since.
    fn miss(&mut self, now: Duration) -> Result<Progress, MountError> {
        self.figures.lock().current_at = now;
        let since = *self.missing_since.get_or_insert(now);
        if now < since + MISSING_MAX {
            return Ok(Progress::Idle);
        }
        self.missing_since = Some(now);
        if newest_generation(&*self.source.store)? <= self.state.next.generation {
            return Ok(Progress::Idle);
        }
        let newest = self.source.newest()?;
        self.open(newest)?;
        self.figures.lock().reopened += 1;
        self.show();
        Ok(Progress::Advanced(Changed::Everything))
    }

    /// Goes on from the newest generation in place of one that is gone.
    fn open(&mut self, newest: Newest) -> Result<(), MountError> {
        let Newest { state, windows } = newest;
        if state.last() < self.state.last() {
            let reason = format!("ends at {}, and what was read before at {}", state.last(), self.state.last());
            return Err(damaged("the newest generation", reason));
        }
        self.windows.replace(&windows, self.state.generation());
        self.state = state;
        self.missing_since = None;
        Ok(())
    }

    /// Takes another lease in place of one that was lost, and opens the newest state under it.
    fn begin_again(&mut self) -> Result<Progress, MountError> {
        // A term may end before the renewal has noticed.
        self.term.end();
        let lease = self.source.take_lease()?;
        let opened = self.source.newest().and_then(|newest| self.open(newest));
        if let Err(e) = opened {
            return Err(self.source.give_back(lease, e));
        }
        self.term = term_of(&lease);
        let why = self.renewal.replace(lease).unwrap_or_else(|| "it was not renewed in time".to_owned());
        log::warn!("the lease was lost, and with it what was open; there is another one now ({why})");
        self.figures.lock().leases_lost += 1;
        self.show();
        Ok(Progress::Advanced(Changed::Everything))
    }
}
