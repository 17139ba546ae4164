//! Layer 6: a mount that follows a writer somewhere else. It knows the filesystem from the store alone, has no journal, and
//! writes nothing.
//!
//! It opens the newest generation and then asks, once a second, for the number after the newest that it has. Each publication
//! makes one new state ([`Seen`]) of the one before it; a state never changes. Windows are listed before a state is read that names
//! them. A publication that is damaged changes nothing: the state before it stays, and it is read again.
//!
//! | found at the next number | what happens |
//! |---|---|
//! | an increment of a window | a layer more |
//! | a log increment | a layer over those of the windows, until a window holds the same batches |
//! | a closing object | the base of the generation after it is next |
//! | a base | root and layers are replaced; kept states keep theirs |
//! | nothing, for long | the store is asked whether there is a newer generation; then the newest is opened |

mod changed;
mod layers;
mod noted;
mod state;
mod tail;
mod windows;

pub use changed::Changed;

use crate::base::clock::Clock;
use crate::cache::{Cache, Keeper};
use crate::checkpoint::nodes::NodeStore;
use crate::format::ids::{Lsn, Uuid};
use crate::format::publication::{Position, Publication};
use crate::format::superblock::Superblock;
use crate::locate::{Locate, SegmentReader};
use crate::map::{Db, NodeCache, Seen, Term};
use crate::recovery::{
    Fetcher, MountError, Reader, Tuning, World, configuration, newest_base, newest_generation, not_local, open_cache,
};
use crate::ship::publish::read;
use crate::store::Store;
use parking_lot::Mutex;
use state::{State, Taken};
use std::sync::Arc;
use std::time::Duration;
use windows::Windows;

/// How often the store is asked for the next publication.
pub const POLL: Duration = Duration::from_secs(1);
/// A number that is missing for so long may be missing because its generation is gone.
const MISSING_MAX: Duration = Duration::from_secs(15);

/// A follower, whose step functions are driven by threads, or by tests.
pub struct Opened {
    /// The filesystem.
    pub superblock: Superblock,
    /// Its maps.
    pub db: Arc<Db>,
    /// Their nodes.
    pub nodes: Arc<NodeStore>,
    /// Copies of store objects on local disk,
    pub cache: Option<Arc<Cache>>,
    /// and who writes and removes them.
    pub keeper: Option<Keeper>,
    /// What goes on to newer states.
    pub follower: Follower,
}

/// Opens the newest published state, from the store alone.
pub fn open(world: &World, tuning: &Tuning) -> Result<Opened, MountError> {
    let (superblock, away) = configuration(world)?;
    if let Some(reason) = away {
        return Err(not_local("the filesystem", reason));
    }
    let (files, keeper) = open_cache(world, tuning, superblock.uuid)?.unzip();
    // A store that has cache files is far away.
    let reader = files.clone().map(|files| Arc::new(SegmentReader::new(world.store.clone(), files)));
    let nodes = Arc::new(NodeStore::of_store(world.media.clone(), world.store.clone(), reader.clone()));
    let locate = Arc::new(Locate::new(None, world.store.clone(), tuning.cache, reader));
    let source = Source {
        filesystem: superblock.uuid,
        store: world.store.clone(),
        nodes: nodes.clone(),
        cache: Arc::new(NodeCache::new(tuning.node_cache_bytes)),
        fetcher: Fetcher::new(tuning.fetches),
    };
    let mut windows = Windows::new(locate.clone());
    let state = source.newest(&mut windows, 0)?;
    let term = Arc::new(Term::new(|| true));
    let seen = Arc::new(state.seen(&term));
    let figures = Arc::new(Mutex::new(Figures::new(&seen, world.clock.elapsed())));
    let db = Arc::new(Db::follower(seen, locate, source.cache.clone()));
    let (clock, db_of_follower) = (world.clock.clone(), db.clone());
    let poll_at = clock.elapsed() + POLL;
    let follower =
        Follower { source, clock, db: db_of_follower, windows, state, term, poll_at, missing_since: None, figures };
    Ok(Opened { superblock, db, nodes, cache: files, keeper, follower })
}

/// Where publications and the trees under them are read.
struct Source {
    filesystem: Uuid,
    store: Arc<dyn Store>,
    nodes: Arc<NodeStore>,
    cache: Arc<NodeCache>,
    fetcher: Fetcher,
}

impl Source {
    fn trees(&self) -> Reader<'_> {
        Reader { cache: &self.cache, nodes: &self.nodes, fetcher: &self.fetcher }
    }

    /// The newest published state; `before` is the newest generation that was read until now.
    fn newest(&self, windows: &mut Windows, before: u64) -> Result<State, MountError> {
        let (mut numbers, base) = newest_base(&*self.store, &self.fetcher)?;
        let (mut state, listed) = State::of_base(self.filesystem, base, &self.trees())?;
        let mut more = Vec::new();
        while let Some(publication) = numbers.next()? {
            match state.take(publication, &self.trees())? {
                Taken::Changes(windows, _) => more.extend(windows),
                Taken::Closed | Taken::Base(..) => break,
            }
        }
        windows.replace(&listed, before);
        more.iter().filter(|entry| entry.objects > 0).for_each(|entry| windows.add(entry.start, entry.end));
        Ok(state)
    }
}

/// What is told of a follower.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The newest publication that it has read.
    pub position: Position,
    /// The checkpoint that was published with it.
    pub checkpoint: u64,
    /// The newest batch.
    pub last: Lsn,
    /// When that publication was written: nanoseconds since 1970, by the writer's clock.
    pub wall: i64,
    /// When the store last said that there is nothing newer, by [`Clock::elapsed`].
    pub current_at: Duration,
    /// Publications read after the first state.
    pub publications: u64,
    /// How often the newest generation was opened anew.
    pub reopened: u64,
    /// Layers of the newest state.
    pub layers: usize,
    /// Bytes of its layers, and of objects that came whole.
    pub bytes: u64,
    /// Windows known.
    pub windows: usize,
    /// Why it does not go on, if it does not.
    pub error: Option<String>,
}

impl Figures {
    fn new(seen: &Seen, now: Duration) -> Figures {
        let mut figures = Figures {
            position: seen.position,
            checkpoint: 0,
            last: Lsn::ZERO,
            wall: 0,
            current_at: now,
            publications: 0,
            reopened: 0,
            layers: 0,
            bytes: 0,
            windows: 0,
            error: None,
        };
        figures.show(seen);
        figures
    }

    fn show(&mut self, seen: &Seen) {
        self.position = seen.position;
        self.checkpoint = seen.checkpoint;
        self.last = seen.last;
        self.wall = seen.wall;
        self.layers = seen.layers.len();
        self.bytes = seen.bytes();
    }
}

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
    term: Arc<Term>,
    poll_at: Duration,
    /// Since when the next number is not there, or the last look at whether it can still come.
    missing_since: Option<Duration>,
    figures: Arc<Mutex<Figures>>,
}

impl Follower {
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
        let progress = self.read_next(now);
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
        match read(&*self.source.store, self.state.next)? {
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
        self.db.advance(seen.clone());
        let oldest = self.db.seen_in_use().iter().map(|seen| seen.position.generation).min();
        self.windows.forget_before(oldest.unwrap_or(0));
        let mut figures = self.figures.lock();
        figures.show(&seen);
        figures.windows = self.windows.len();
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
        self.reopen()
    }

    /// Opens the newest generation in place of one that is gone.
    fn reopen(&mut self) -> Result<Progress, MountError> {
        let before = self.state.generation();
        let state = self.source.newest(&mut self.windows, before)?;
        if state.last() < self.state.last() {
            let reason = format!("ends at {}, and what was read before at {}", state.last(), self.state.last());
            return Err(crate::recovery::damaged("the newest generation", reason));
        }
        self.state = state;
        self.figures.lock().reopened += 1;
        self.show();
        Ok(Progress::Advanced(Changed::Everything))
    }
}
