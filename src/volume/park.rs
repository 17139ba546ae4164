//! Operations that wait: what they wait for, who runs them again, and how much they may hold.

use super::Shared;
use super::health::Health;
use super::pressure::WhenFull;
use crate::base::clock::Clock;
use crate::checkpoint::nodes::NodeStore;
use crate::format::ids::NodePtr;
use crate::fs::{Cx, Error, Fs, Stop};
use crate::locate::LocateError;
use crate::map::{Db, MapError, Pins, Wait};
use crate::store::StoreError;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bytes held by waiting operations; above it the event threads stop reading: there, and only there, they wait. But not for a
/// journal to be emptied, which may take a day: then what brings data is refused.
const HELD_BYTES_MAX: usize = 64 << 20;
/// Those that bring no data, and may be what makes room, are taken up to this.
const HELD_BYTES_MAX_DATALESS: usize = 2 * HELD_BYTES_MAX;

/// What any waiting operation holds, bytes, beside the data it brought.
const TASK_BYTES: usize = 4096;

/// An operation that could not go on after this long, though nothing it waits for is away, is answered with an error.
const DEADLINE: Duration = Duration::from_secs(120);
/// One that is to be refused when there is no room is refused after this long: perhaps room is near.
const PATIENCE: Duration = Duration::from_secs(2);

/// An operation at the limit waits for what was removed as long as the kernel goes on forgetting, and this much longer.
const LEAVING_MAX: Duration = Duration::from_millis(200);

/// Runs an operation once more: `Some` if it must wait again, `None` once it is answered.
type Attempt = Box<dyn FnMut(&Fs, &mut Cx) -> Option<Wait> + Send>;

/// A parked operation.
pub(super) struct Task {
    pub cx: Cx,
    pub wait: Wait,
    /// What it was waiting for when a fetch failed; failing twice at the same is final.
    pub failed: Option<Wait>,
    /// Since when it waits,
    pub since: Duration,
    /// and since when it waits for a store that does not answer.
    away_since: Option<Duration>,
    attempt: Attempt,
    /// Answers it with an error.
    refuse: Arc<Mutex<Option<Error>>>,
}

/// Operations that need something fetched.
#[derive(Default)]
struct Fetches {
    /// It may be on this machine,
    new: VecDeque<Task>,
    /// and it is not.
    far: VecDeque<Task>,
    /// Threads that wait for either.
    idle: usize,
}

/// All parked operations.
pub(crate) struct Parking {
    clock: Arc<dyn Clock>,
    fetch: Mutex<Fetches>,
    /// A thread of those that look on this machine only.
    near_ready: Condvar,
    fetch_ready: Condvar,
    /// Those that wait for a store that does not answer, in the order in which they found out.
    away: Mutex<VecDeque<Task>>,
    pressed: Mutex<Vec<Task>>,
    pressed_ready: Condvar,
    held: Mutex<usize>,
    fewer: Condvar,
    parked: AtomicU64,
    panics: AtomicU64,
    unreadable: AtomicU64,
    timed_out: AtomicU64,
    damage: Mutex<Option<String>>,
}

impl Parking {
    pub fn new(clock: Arc<dyn Clock>) -> Parking {
        Parking {
            clock,
            fetch: Mutex::default(),
            near_ready: Condvar::new(),
            fetch_ready: Condvar::new(),
            away: Mutex::default(),
            pressed: Mutex::default(),
            pressed_ready: Condvar::new(),
            held: Mutex::new(0),
            fewer: Condvar::new(),
            parked: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
            damage: Mutex::new(None),
        }
    }

    pub fn parked(&self) -> u64 {
        self.parked.load(Ordering::Relaxed)
    }

    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// How many operations were answered with EIO because what they needed could not be read.
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// How many operations were answered with EIO because the store did not answer in time.
    pub fn timed_out(&self) -> u64 {
        self.timed_out.load(Ordering::Relaxed)
    }

    /// How many wait for a store that does not answer.
    pub fn waiting_for_store(&self) -> u64 {
        self.away.lock().len() as u64
    }

    /// What could not be read last, and why.
    pub fn damage(&self) -> Option<String> {
        self.damage.lock().clone()
    }

    fn note_damage(&self, reason: String) {
        log::error!("{reason}");
        self.unreadable.fetch_add(1, Ordering::Relaxed);
        *self.damage.lock() = Some(reason);
    }

    pub fn count_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Queues an operation where it will be run again.
    pub(super) fn park(&self, task: Task) {
        match task.wait {
            Wait::Pressure => {
                self.pressed.lock().push(task);
                self.pressed_ready.notify_one();
            }
            Wait::Node(_) | Wait::Nodes(_) | Wait::Objects(_) => {
                let mut fetches = self.fetch.lock();
                fetches.new.push_back(task);
                // When all others stand before the store, it is still looked for here.
                if fetches.idle > 0 {
                    self.fetch_ready.notify_one()
                } else {
                    self.near_ready.notify_one()
                };
            }
        }
    }

    /// Queues an operation that needs what is in the store alone.
    fn park_far(&self, task: Task) {
        self.fetch.lock().far.push_back(task);
        self.fetch_ready.notify_one();
    }

    /// The next operation that needs something fetched; waits for one at most `timeout`.
    pub(super) fn next_fetch(&self, timeout: Duration) -> Option<Task> {
        let mut fetches = self.fetch.lock();
        if fetches.far.is_empty() && fetches.new.is_empty() {
            fetches.idle += 1;
            self.fetch_ready.wait_for(&mut fetches, timeout);
            fetches.idle -= 1;
        }
        fetches.far.pop_front().or_else(|| fetches.new.pop_front())
    }

    /// The next operation that nobody has looked after yet; waits for one at most `timeout`.
    pub(super) fn next_near(&self, timeout: Duration) -> Option<Task> {
        let mut fetches = self.fetch.lock();
        if fetches.new.is_empty() {
            self.near_ready.wait_for(&mut fetches, timeout);
        }
        fetches.new.pop_front()
    }

    /// Those that have waited for the store until their time was up at `now`. If the store may be asked, the one that waits
    /// longest is queued to be fetched for; all of them, if it answers again.
    pub(super) fn look_at_away(&self, health: &Health, now: Duration, timeout: Duration) -> VecDeque<Task> {
        let mut away = self.away.lock();
        let (over, mut waiting): (VecDeque<Task>, VecDeque<Task>) =
            away.drain(..).partition(|task| task.away_since.is_some_and(|since| now >= since + timeout));
        let again = match (health.is_away(), health.may_be_asked()) {
            (false, _) => waiting.len(),
            (true, may_be_asked) => usize::from(may_be_asked).min(waiting.len()),
        };
        self.fetch.lock().far.extend(waiting.drain(..again));
        *away = waiting;
        if again > 0 {
            self.fetch_ready.notify_all();
        }
        over
    }

    /// All operations that wait for room; waits for one, or to be woken, at most as long as `timeout` says.
    pub(super) fn all_pressed(&self, timeout: impl FnOnce() -> Duration) -> Vec<Task> {
        let mut pressed = self.pressed.lock();
        if pressed.is_empty() {
            self.pressed_ready.wait_for(&mut pressed, timeout());
        }
        std::mem::take(&mut pressed)
    }

    /// Wakes who waits for them.
    pub(super) fn wake_gate(&self) {
        // It is either before it asks how long it may sleep, or asleep.
        drop(self.pressed.lock());
        self.pressed_ready.notify_one();
    }

    /// Everything that waits, to be answered at the end.
    pub(super) fn drain(&self) -> Vec<Task> {
        let Fetches { new, far, .. } = std::mem::take(&mut *self.fetch.lock());
        let mut all: Vec<Task> = new.into_iter().chain(far).collect();
        all.extend(self.away.lock().drain(..));
        all.append(&mut self.pressed.lock());
        all
    }

    pub fn wake(&self) {
        self.fetch_ready.notify_all();
        self.near_ready.notify_all();
        self.pressed_ready.notify_all();
        self.fewer.notify_all();
    }

    /// Whether any operation waits.
    pub fn holds_any(&self) -> bool {
        *self.held.lock() > 0
    }

    fn enter(&self, held: usize) {
        *self.held.lock() += held;
        self.parked.fetch_add(1, Ordering::Relaxed);
    }

    fn leave(&self, held: usize) {
        *self.held.lock() -= held;
        self.fewer.notify_all();
    }

    /// Memory held by waiting operations is capped: an event thread that meets the cap waits for one of them to end.
    fn admit(&self, shared: &Shared, data_bytes: usize) -> Result<(), Error> {
        let most = if data_bytes > 0 { HELD_BYTES_MAX } else { HELD_BYTES_MAX_DATALESS };
        let mut held = self.held.lock();
        while *held >= most && !shared.stopping.load(Ordering::SeqCst) {
            if data_bytes > 0 && shared.pressure.is_full() {
                shared.pressure.count_refused();
                return Err(Error::DiskFull);
            }
            self.fewer.wait_for(&mut held, Duration::from_millis(100));
        }
        Ok(())
    }
}

/// Runs an operation, and parks it if it must wait. `data_bytes` is the size of what the request brought along.
pub(super) fn start<T: 'static>(
    shared: &Arc<Shared>,
    cx: Cx,
    data_bytes: usize,
    op: impl FnMut(&Fs, &mut Cx) -> Result<T, Stop> + Send + 'static,
    done: impl FnOnce(Result<T, Error>) + Send + 'static,
) {
    match shared.parking.admit(shared, data_bytes) {
        Ok(()) => start_admitted(shared, cx, data_bytes, op, done),
        Err(e) => done(Err(e)),
    }
}

/// The same without a look at the cap: for those by whom waiting operations end, who must not wait for that.
pub(super) fn start_admitted<T: 'static>(
    shared: &Arc<Shared>,
    mut cx: Cx,
    data_bytes: usize,
    mut op: impl FnMut(&Fs, &mut Cx) -> Result<T, Stop> + Send + 'static,
    done: impl FnOnce(Result<T, Error>) + Send + 'static,
) {
    cx.patient = true;
    // An operation that must wait goes on in the state that it began with.
    cx.seen = cx.seen.take().or_else(|| shared.db.seen());
    let wait = match run(shared, &mut op, &mut cx) {
        Ok(value) => return done(Ok(value)),
        Err(Stop::Error(e)) => return done(Err(e)),
        Err(Stop::Wait(wait)) => wait,
    };
    let held = data_bytes + TASK_BYTES;
    shared.parking.enter(held);
    let refuse: Arc<Mutex<Option<Error>>> = Arc::default();
    let refused = refuse.clone();
    let weak = Arc::downgrade(shared);
    let mut done = Some(done);
    let since = shared.parking.clock.elapsed();
    let mut leaving = Leaving { left: shared.fs.inodes_left(), since };
    let attempt: Attempt = Box::new(move |_, cx| {
        let shared = weak.upgrade()?;
        cx.patient = leaving.goes_on(&shared);
        let result = match refused.lock().take() {
            Some(e) => Err(e),
            None => match run(&shared, &mut op, cx) {
                Err(Stop::Wait(wait)) => return Some(wait),
                Err(Stop::Error(e)) => Err(e),
                Ok(value) => Ok(value),
            },
        };
        shared.parking.leave(held);
        if let Some(done) = done.take() {
            done(result);
        }
        None
    });
    shared.parking.park(Task { cx, wait, failed: None, since, away_since: None, attempt, refuse });
}

/// What the kernel has forgotten of files that were removed.
struct Leaving {
    left: u64,
    /// When that was last seen to change.
    since: Duration,
}

impl Leaving {
    fn goes_on(&mut self, shared: &Shared) -> bool {
        let (left, now) = (shared.fs.inodes_left(), shared.parking.clock.elapsed());
        if left != self.left {
            *self = Leaving { left, since: now };
        }
        now < self.since + LEAVING_MAX
    }
}

/// A panic in one operation is its own end, not the thread's.
fn run<T>(shared: &Shared, op: &mut impl FnMut(&Fs, &mut Cx) -> Result<T, Stop>, cx: &mut Cx) -> Result<T, Stop> {
    catch_unwind(AssertUnwindSafe(|| op(&shared.fs, cx))).unwrap_or_else(|_| {
        shared.parking.count_panic();
        log::error!("an operation panicked; it was answered with EIO");
        Err(Stop::Error(Error::Io))
    })
}

impl Task {
    /// Runs it again; parks it again if it must wait again. Says whether it was answered.
    pub fn resume(mut self, shared: &Shared) -> bool {
        let Some(wait) = (self.attempt)(&shared.fs, &mut self.cx) else { return true };
        self.wait = wait;
        if shared.stopping.load(Ordering::SeqCst) {
            self.refuse(shared, Error::Io);
        } else if self.wait == Wait::Pressure && self.finds_no_room(shared) {
            shared.pressure.count_refused();
            self.refuse(shared, Error::DiskFull);
        } else if self.wait != Wait::Pressure && self.has_waited(shared) >= DEADLINE {
            log::error!("an operation waited too long for {:?}", self.wait);
            self.refuse(shared, Error::Io);
        } else {
            shared.parking.park(self);
            return false;
        }
        true
    }

    fn has_waited(&self, shared: &Shared) -> Duration {
        shared.clock.elapsed().saturating_sub(self.since)
    }

    /// Whether it is to wait for room no longer. What fails by itself is not waited for without end, but the store is: it
    /// may be away for a day, and a full journal is what slows writers down to the speed of a slow one.
    fn finds_no_room(&mut self, shared: &Shared) -> bool {
        let waited = self.has_waited(shared);
        if shared.store_full.load(Ordering::Relaxed) {
            // Somebody must remove something, and will only if told.
            return waited >= PATIENCE;
        }
        let (is_full, is_away) = (shared.journal_is_full(), shared.health.is_away());
        let when_full = shared.patience.lock().when_full;
        if is_full && shared.leaving.load(Ordering::SeqCst) {
            return true;
        }
        if is_full && when_full == WhenFull::Enospc {
            return is_away || waited >= PATIENCE;
        }
        if is_full || is_away {
            // Its time for all else begins when this is over.
            self.since = shared.clock.elapsed();
            return false;
        }
        waited >= DEADLINE
    }

    /// Fetches what it waits for and runs it again. A failure may be that of an old view, so the operation starts again
    /// once; failing at the same once more is an error.
    pub fn fetch_and_resume(mut self, shared: &Shared) {
        let begun = shared.clock.elapsed();
        let resolving = || resolve(&self.wait, &shared.db, &shared.nodes, &mut self.cx.pins);
        let Ok(resolved) = catch_unwind(AssertUnwindSafe(resolving)) else {
            return self.fetch_panicked(shared);
        };
        match resolved {
            Ok(()) => {
                self.failed = None;
                // The time of an outage is its own; what comes after it has all the time that others have.
                if self.away_since.take().is_some() {
                    self.since = shared.clock.elapsed();
                }
            }
            Err(Unresolved::Away(_)) => return self.wait_for_store(shared, begun),
            Err(Unresolved::Failed(reason)) if self.failed.as_ref() == Some(&self.wait) => {
                shared.parking.note_damage(reason);
                return self.refuse(shared, Error::Io);
            }
            Err(Unresolved::Missing(reason)) if self.failed.as_ref() == Some(&self.wait) => {
                let error = shared.missing(&self.cx);
                if error == Error::Io {
                    shared.parking.note_damage(reason);
                }
                return self.refuse(shared, error);
            }
            Err(Unresolved::Failed(_) | Unresolved::Missing(_)) => self.failed = Some(self.wait.clone()),
        }
        self.resume(shared);
    }

    /// The same with what is on this machine; what is not is left to those who may wait for the store.
    pub fn resume_if_near(mut self, shared: &Shared) {
        let resolving = || resolve_near(&self.wait, &shared.db, &shared.nodes, &mut self.cx.pins);
        match catch_unwind(AssertUnwindSafe(resolving)) {
            Ok(true) => {
                self.failed = None;
                self.resume(shared);
            }
            Ok(false) => shared.parking.park_far(self),
            Err(_) => self.fetch_panicked(shared),
        }
    }

    fn fetch_panicked(self, shared: &Shared) {
        shared.parking.count_panic();
        log::error!("a fetch panicked; the operation that waited for it was answered with EIO");
        self.refuse(shared, Error::Io);
    }

    /// Sets it aside, with no thread of its own, until the store is back or its time is up.
    fn wait_for_store(mut self, shared: &Shared, since: Duration) {
        self.away_since.get_or_insert(since);
        match shared.stopping.load(Ordering::SeqCst) || shared.leaving.load(Ordering::SeqCst) {
            true => self.refuse(shared, Error::Io),
            false => shared.parking.away.lock().push_back(self),
        }
    }

    /// Its time is up: the store was away for too long.
    pub fn give_up(self, shared: &Shared) {
        shared.parking.timed_out.fetch_add(1, Ordering::Relaxed);
        self.refuse(shared, Error::Io);
    }

    /// Answers it with an error.
    pub fn refuse(mut self, shared: &Shared, error: Error) {
        *self.refuse.lock() = Some(error);
        let _ = (self.attempt)(&shared.fs, &mut self.cx);
    }
}

/// Why what an operation waits for could not be fetched.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unresolved {
    /// The store does not answer: worth another try, for as long as the operation may wait.
    #[error("{0}")]
    Away(String),
    /// It is not there.
    #[error("{0}")]
    Missing(String),
    /// It is not what it should be, or cannot be read.
    #[error("{0}")]
    Failed(String),
}

impl From<MapError> for Unresolved {
    fn from(e: MapError) -> Unresolved {
        match e {
            e if e.is_away() => Unresolved::Away(e.to_string()),
            MapError::Missing { .. } => Unresolved::Missing(e.to_string()),
            e => Unresolved::Failed(e.to_string()),
        }
    }
}

impl From<LocateError> for Unresolved {
    fn from(e: LocateError) -> Unresolved {
        match e {
            e if e.is_away() => Unresolved::Away(e.to_string()),
            LocateError::Nowhere { .. } | LocateError::Store(StoreError::NotFound { .. }) => {
                Unresolved::Missing(e.to_string())
            }
            e => Unresolved::Failed(e.to_string()),
        }
    }
}

/// Fetches what an operation waits for into its pins, unless some of it is in the store alone; says whether all is there.
/// Waits for the local disk only.
fn resolve_near(wait: &Wait, db: &Db, nodes: &NodeStore, pins: &mut Pins) -> bool {
    let mut node = |ptr: &NodePtr| {
        let node = db.cache().fetch_near(ptr, || nodes.read_near(ptr));
        node.map(|node| pins.pin_node(*ptr, node)).is_some()
    };
    match wait {
        Wait::Node(ptr) => node(ptr),
        Wait::Nodes(ptrs) => ptrs.iter().all(node),
        Wait::Objects(ids) => ids.iter().all(|id| {
            let bytes = db.locate().fetch_near(id);
            bytes.map(|bytes| pins.pin_object(*id, bytes)).is_some()
        }),
        Wait::Pressure => true,
    }
}

/// Fetches what an operation waits for into its pins. Blocks on disk and store; pressure is not for it to resolve.
pub fn resolve(wait: &Wait, db: &Db, nodes: &NodeStore, pins: &mut Pins) -> Result<(), Unresolved> {
    match wait {
        Wait::Node(ptr) => {
            let node = db.cache().fetch(ptr, nodes)?;
            pins.pin_node(*ptr, node);
        }
        Wait::Nodes(ptrs) => {
            for ptr in ptrs {
                let node = db.cache().fetch(ptr, nodes)?;
                pins.pin_node(*ptr, node);
            }
        }
        Wait::Objects(ids) => {
            let fetched = db.locate().fetch_all(ids)?;
            for (id, bytes) in ids.iter().zip(fetched) {
                pins.pin_object(*id, bytes);
            }
        }
        Wait::Pressure => std::thread::yield_now(),
    }
    Ok(())
}
