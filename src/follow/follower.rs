//! The step function that goes on to what is published.

use super::changed::Changed;
use super::figures::Figures;
use super::renewal::{Renewal, term_of};
use super::state::{State, Taken};
use super::windows::Windows;
use super::{Newest, POLL, Source};
use crate::base::clock::Clock;
use crate::format::publication::{Position, Publication};
use crate::locate::Locate;
use crate::map::{Db, Term};
use crate::recovery::{MountError, PublicationsAhead, damaged, newest_generation};
use crate::ship::fence::behind_gap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// So long after it was known that nothing of a generation is deleted, some of it may be. Whoever deletes waits for leases, and for
/// longer than this; but that is by clocks.
const LOOK_AFTER: Duration = Duration::from_secs(15);

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
    /// Of the lease that was taken after `term` was over, while nothing was read under it yet.
    next_term: Option<Arc<Term>>,
    poll_at: Duration,
    /// Nothing of the generation of the next number was deleted before this moment, by a clock that goes on while the machine sleeps.
    intact_at: Duration,
    ahead: PublicationsAhead,
    figures: Arc<Mutex<Figures>>,
}

impl Follower {
    /// `newest` was read under that lease.
    pub(super) fn new(
        source: Source,
        locate: Arc<Locate>,
        (renewal, term): (Arc<Renewal>, Arc<Term>),
        newest: Newest,
    ) -> Follower {
        let Newest { state, windows: listed } = newest;
        let mut windows = Windows::new(locate.clone());
        windows.replace(&listed, 0);
        let seen = Arc::new(state.seen(&term));
        let (clock, now) = (source.clock.clone(), source.clock.elapsed());
        let figures = Arc::new(Mutex::new(Figures::new(&seen, now)));
        let db = Arc::new(Db::follower(seen, locate, source.cache.clone()));
        let (poll_at, ahead, next_term) = (now + POLL, PublicationsAhead::default(), None);
        // It is not known how long ago it was read.
        let intact_at = Duration::ZERO;
        let mut follower = Follower {
            source,
            clock,
            db,
            windows,
            state,
            renewal,
            term,
            next_term,
            poll_at,
            intact_at,
            ahead,
            figures,
        };
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
        let found = self.ahead.next(&*self.source.store, &self.source.fetcher, self.state.next);
        // After what was read: it may have been read long after it was asked for.
        if self.clock.elapsed_asleep() >= self.intact_at + LOOK_AFTER && self.has_ended(matches!(found, Ok(None)))? {
            return self.open_newest();
        }
        let progress = match found {
            Ok(Some(publication)) => self.take(publication),
            Ok(None) => {
                self.figures.lock().current_at = now;
                return Ok(Progress::Idle);
            }
            Err(e) => Err(e),
        };
        match progress {
            // What does not fit may have come late to a number that was deleted.
            Err(e) => match self.has_ended(false) {
                Ok(true) => self.open_newest(),
                Ok(false) | Err(_) => Err(e),
            },
            progress => progress,
        }
    }

    /// Whether the generation of the next number has ended, so that what is found there, or not found, says nothing. One that is
    /// only behind its end is taken for such a one too.
    fn has_ended(&mut self, gap: bool) -> Result<bool, MountError> {
        let (store, asked) = (&*self.source.store, self.clock.elapsed_asleep());
        let Position { generation, number } = self.state.next;
        // Number 0 itself stays for ever.
        let ended = behind_gap(store, Position { generation, number: number.max(1) })?.is_some();
        // An older program deletes number 0 too.
        let ended = ended || gap && newest_generation(store)? > generation;
        if !ended {
            self.intact_at = asked;
        }
        Ok(ended)
    }

    /// Opens the newest generation in place of one that has ended.
    fn open_newest(&mut self) -> Result<Progress, MountError> {
        let newest = self.source.newest(&self.renewal)?;
        self.open(newest)?;
        self.figures.lock().reopened += 1;
        self.show();
        Ok(Progress::Advanced(Changed::Everything))
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

    /// Goes on from the newest generation in place of one that is gone.
    fn open(&mut self, newest: Newest) -> Result<(), MountError> {
        let Newest { state, windows } = newest;
        if state.last() < self.state.last() {
            let reason = format!("ends at {}, and what was read before at {}", state.last(), self.state.last());
            return Err(damaged("the newest generation", reason));
        }
        self.windows.replace(&windows, self.state.generation());
        self.state = state;
        Ok(())
    }

    /// Takes another lease in place of one that was lost, and opens the newest state under it. It is renewed meanwhile, and kept
    /// for the next try.
    fn begin_again(&mut self) -> Result<Progress, MountError> {
        // A term may end before the renewal has noticed.
        self.term.end();
        let term = match self.next_term.take().filter(|term| !term.is_over()) {
            Some(term) => term,
            None => self.take_another()?,
        };
        self.next_term = Some(term.clone());
        let newest = self.source.newest(&self.renewal)?;
        self.open(newest)?;
        (self.term, self.next_term) = (term, None);
        self.show();
        Ok(Progress::Advanced(Changed::Everything))
    }

    fn take_another(&mut self) -> Result<Arc<Term>, MountError> {
        let lease = self.source.take_lease()?;
        let term = term_of(&lease);
        let why = self.renewal.replace(lease).unwrap_or_else(|| "it was not renewed in time".to_owned());
        log::warn!("the lease was lost, and with it what was open; there is another one now ({why})");
        self.figures.lock().leases_lost += 1;
        Ok(term)
    }
}
