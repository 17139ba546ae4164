//! A volume that follows a writer somewhere else: the same parking and the same threads that fetch, and in place of those that
//! write one that goes on to what is published.

use super::actors::{IDLE, Threads, spawn, stopping};
use super::health::{Health, Watched};
use super::{Shared, Volume};
use crate::checkpoint::{Desk, Figures, Wanted};
use crate::follow::{self, Changed, Follower, Opened, Progress, Renewal};
use crate::fs::{self, Cx, DiskSpace, Error, Fs};
use crate::map::Seen;
use crate::recovery::{MountError, Replay, Tuning, World};
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Is told what a newer state changed.
type Listener = Box<dyn Fn(&Changed) + Send + Sync>;

/// What a follower has beside what every volume has.
pub(crate) struct Following {
    figures: Arc<Mutex<follow::Figures>>,
    listener: Mutex<Option<Listener>>,
    renewal: Arc<Renewal>,
}

/// A write is never taken; this is what one could have.
pub(super) const WRITE_BYTES_MAX: usize = 1 << 20;

/// What `status` shows of a follower.
#[derive(Clone, Debug)]
pub struct FollowStatus {
    /// What was read, and what keeps it from going on.
    pub figures: follow::Figures,
    /// Whether the lease that keeps what is read from being deleted was lost, and no new one taken yet.
    pub is_lost: bool,
    /// Why, as far as that is known.
    pub why_lost: Option<String>,
    /// For how long the lease holds, if it is not renewed.
    pub lease_left: Duration,
    /// Since when the store has not said that this is the newest state.
    pub lag: Duration,
    /// States that somebody reads.
    pub states_in_use: usize,
    /// The oldest checkpoint of these.
    pub oldest_checkpoint: u64,
}

impl Volume {
    /// Opens the newest published state for reading, from the store alone, and starts to follow what is published. The local
    /// directory of `world` is for cache files only.
    pub fn open_follower(world: &World, tuning: &Tuning) -> Result<Arc<Volume>, MountError> {
        let health = Arc::new(Health::new(world.clock.clone()));
        let store_counters = world.store.counters();
        let store = Arc::new(Watched::new(world.store.clone(), health.clone()));
        let world = &World { store: store.clone(), ..world.clone() };
        let Opened { superblock, db, nodes, cache, keeper, follower, renewal } = follow::open(world, tuning)?;
        // What is there is what the files take.
        let options = fs::Options { write_bytes_max: WRITE_BYTES_MAX, space: Box::new(DiskSpace::default) };
        let mut shared = Shared::new(
            (db.clone(), nodes, Arc::new(Desk::default())),
            Fs::new(db, options),
            (Arc::new(Mutex::new(Figures::default())), Arc::new(Wanted::default())),
            world.clock.clone(),
            health,
        );
        shared.following = Some(Following { figures: follower.figures(), listener: Mutex::default(), renewal });
        let shared = Arc::new(shared);
        let threads = Threads::start_follower(&shared, follower, keeper, store);
        let replay = Replay { batches: 0, bytes: 0, took: Duration::ZERO };
        let (filesystem, threads) = (superblock.uuid, Mutex::new(Some(threads)));
        Ok(Arc::new(Volume { filesystem, replay, cache, store_counters, shared, threads }))
    }

    /// Whether this volume follows a writer somewhere else, and changes nothing.
    pub fn is_follower(&self) -> bool {
        self.shared.following.is_some()
    }

    /// Of a follower the newest state that it has read.
    pub fn seen(&self) -> Option<Arc<Seen>> {
        self.shared.db.seen()
    }

    /// Has `listener` told of each newer state of a follower, once it is what operations read. It is called on the thread that
    /// follows, so it must not wait.
    pub fn on_change(&self, listener: impl Fn(&Changed) + Send + Sync + 'static) {
        if let Some(following) = &self.shared.following {
            *following.listener.lock() = Some(Box::new(listener));
        }
    }

    /// What there is to say of a follower.
    pub fn follow_status(&self) -> Option<FollowStatus> {
        let Shared { db, clock, following, .. } = &*self.shared;
        let Following { figures, renewal, .. } = following.as_ref()?;
        let figures = figures.lock().clone();
        let in_use = db.seen_in_use();
        Some(FollowStatus {
            is_lost: db.seen()?.is_lost(),
            why_lost: renewal.why_lost(),
            lease_left: renewal.left(),
            lag: clock.elapsed().saturating_sub(figures.current_at),
            states_in_use: in_use.len(),
            oldest_checkpoint: in_use.iter().map(|seen| seen.checkpoint).min()?,
            figures,
        })
    }
}

/// The thread that renews the lease; not that which follows, for reading may take long.
pub(super) fn renew(shared: &Arc<Shared>) -> JoinHandle<()> {
    let shared = shared.clone();
    spawn("lease", move || {
        let Some(Following { renewal, .. }) = &shared.following else { return };
        let body = || {
            let mut due = shared.clock.elapsed();
            while !stopping(&shared) {
                if shared.clock.elapsed() >= due {
                    due = shared.clock.elapsed() + renewal.step();
                }
                std::thread::sleep(IDLE);
            }
            renewal.release();
        };
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            log::error!(
                "the lease thread panicked: what is read will be stale in a minute; please report what the log says"
            );
        }
    })
}

impl Shared {
    /// What is said of something that is in the store no more: that its lease was lost, if it was, which this finds out.
    pub(super) fn missing(&self, cx: &Cx) -> Error {
        if let Some(following) = &self.following {
            following.renewal.confirm();
        }
        if cx.seen.as_ref().is_some_and(|seen| seen.is_lost()) { Error::LeaseLost } else { Error::Io }
    }
}

/// The thread that goes on to what is published.
pub(super) fn start(shared: &Arc<Shared>, mut follower: Follower) -> JoinHandle<()> {
    let shared = shared.clone();
    spawn("follow", move || {
        let body = || {
            while !stopping(&shared) {
                match follower.step() {
                    Progress::Idle => shared.desk.wait_for_report(IDLE),
                    Progress::Worked => {}
                    Progress::Advanced(changed) => tell(&shared, &changed),
                }
            }
        };
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            log::error!(
                "the follow thread panicked: this mount shows nothing newer any more; please report what the log says"
            );
        }
    })
}

fn tell(shared: &Shared, changed: &Changed) {
    if let Some(following) = &shared.following
        && let Some(listener) = &*following.listener.lock()
    {
        listener(changed);
    }
}
