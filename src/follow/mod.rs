//! Layer 6: a mount that follows a writer somewhere else. It knows the filesystem from the store alone, has no journal, and
//! writes nothing but its lease.
//!
//! It opens the newest generation and then asks, once a second, for the number after the newest that it has. Each publication
//! makes one new state ([`crate::map::Seen`]) of the one before it; a state never changes. Windows are listed before a state is read that names
//! them. A publication that is damaged changes nothing: the state before it stays, and it is read again.
//!
//! | found at the next number | what happens |
//! |---|---|
//! | an increment of a window | a layer more |
//! | a log increment | a layer over those of the windows, until a window holds the same batches |
//! | a closing object | the base of the generation after it is next |
//! | a base | root and layers are replaced; kept states keep theirs |
//!
//! **A generation that has ended is left.** Its numbers may be deleted, and be put there again by a create that comes late
//! (`docs/fence.md`, rule 6). So what is found at the next number counts, also if it is nothing, only if a while ago at most there
//! was no base or closing object at number 0 of the generation behind; else the store is asked for that, after what was read, and
//! if it is there, the newest generation is opened instead. The same with what does not fit, or cannot be read.
//!
//! **A lease comes before what is read under it.** It names the oldest checkpoint whose state is read, so nothing is deleted that
//! a state needs which somebody holds. When it is lost, all states read under it are dead for ever, also those that handles
//! hold: what they need may be gone. The follower takes another lease and opens the newest state.

mod changed;
mod figures;
mod follower;
mod layers;
pub mod lease;
mod noted;
mod renewal;
mod state;
mod tail;
mod windows;

pub use changed::Changed;
pub use figures::Figures;
pub use follower::{Follower, Progress};
pub use renewal::Renewal;

use crate::base::clock::Clock;
use crate::base::random::Random;
use crate::cache::{Cache, Keeper};
use crate::checkpoint::nodes::NodeStore;
use crate::format::ids::{Lsn, Uuid};
use crate::format::lease::Owner;
use crate::format::publication::Position;
use crate::format::superblock::Superblock;
use crate::locate::{Locate, SegmentReader};
use crate::map::{Db, NodeCache};
use crate::recovery::{Fetcher, MountError, Reader, Tuning, World};
use crate::recovery::{configuration, first_free, newest_base, newest_generation, not_local, open_cache};
use crate::ship::fence::behind_gap;
use crate::store::Store;
use lease::FollowerLease;
use renewal::term_of;
use state::{State, Taken};
use std::sync::Arc;
use std::time::Duration;

/// How often the store is asked for the next publication.
pub const POLL: Duration = Duration::from_secs(1);

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
    /// What goes on to newer states,
    pub follower: Follower,
    /// and what keeps them from being deleted.
    pub renewal: Arc<Renewal>,
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
        owner: tuning.owner.clone(),
        store: world.store.clone(),
        clock: world.clock.clone(),
        random: world.random.clone(),
        nodes: nodes.clone(),
        cache: Arc::new(NodeCache::new(tuning.node_cache_bytes)),
        fetcher: Fetcher::new(tuning.fetches),
    };
    // Before anything is read: from now on nothing is deleted that a newer state names.
    let lease = source.take_lease()?;
    let term = term_of(&lease);
    let renewal = Arc::new(Renewal::new(lease));
    let newest = match source.newest(&renewal) {
        Ok(newest) => newest,
        Err(e) => {
            renewal.release();
            return Err(e);
        }
    };
    let follower = Follower::new(source, locate, (renewal.clone(), term), newest);
    let db = follower.db().clone();
    Ok(Opened { superblock, db, nodes, cache: files, keeper, follower, renewal })
}

/// Where publications, and the trees under them, are read.
struct Source {
    filesystem: Uuid,
    owner: Owner,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    nodes: Arc<NodeStore>,
    cache: Arc<NodeCache>,
    fetcher: Fetcher,
}

/// The newest published state, and all windows that hold something of it, as (end, start).
struct Newest {
    state: State,
    windows: Vec<(Lsn, Lsn)>,
}

impl Source {
    fn trees(&self) -> Reader<'_> {
        Reader { cache: &self.cache, nodes: &self.nodes, fetcher: &self.fetcher }
    }

    fn take_lease(&self) -> Result<FollowerLease, MountError> {
        let (store, clock) = (self.store.clone(), self.clock.clone());
        Ok(FollowerLease::take(store, clock, &*self.random, self.filesystem, self.owner.clone())?)
    }

    /// Reads base and increments of the newest generation, and renews the lease meanwhile: that may take longer than it lasts.
    fn newest(&self, renewal: &Renewal) -> Result<Newest, MountError> {
        let mut newest = newest_generation(&*self.store)?;
        loop {
            let found = self.read_from(newest, renewal);
            // What was read of a generation that has ended meanwhile may be full of holes.
            let free = found.as_ref().map_or(Position { generation: newest, number: 1 }, |found| found.state.next);
            match behind_gap(&*self.store, free)? {
                Some(later) => newest = later.generation,
                None => return found,
            }
        }
    }

    fn read_from(&self, newest: u64, renewal: &Renewal) -> Result<Newest, MountError> {
        let (mut numbers, base) = newest_base(&*self.store, &self.fetcher, newest)?;
        let (mut state, mut windows) = State::of_base(self.filesystem, base, &self.trees())?;
        renewal.step();
        while let Some(publication) = numbers.next()? {
            renewal.step();
            let Taken::Changes(more, _) = state.take(publication, &self.trees())? else { break };
            windows.extend(more.iter().filter(|entry| entry.objects > 0).map(|entry| (entry.end, entry.start)));
        }
        if state.generation() < newest {
            // Generations behind it were closed before they had a base.
            state.next = first_free(&*self.store, newest)?;
        }
        Ok(Newest { state, windows })
    }
}
