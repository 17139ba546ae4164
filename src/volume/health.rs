//! Whether the store answers, and what that means for who reads from it.
//!
//! Every call to the store goes through [`Watched`], which notes how it went: the first that gets no answer begins an outage,
//! the first that gets one ends it. Meanwhile calls that read fail at once, so that no thread stands in a call until its
//! time is up for each of a thousand waiting reads; but one at a time is let through, after a pause that grows, to see
//! whether the store is back. Calls that write are always let through: the shipper waits between its tries by itself.

use crate::base::clock::{Clock, Time};
use crate::store::{Created, Store, StoreCounters, StoreError};
use bytes::Bytes;
use parking_lot::Mutex;
use std::any::Any;
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The pause before the store is asked again,
const PROBE_MIN: Duration = Duration::from_millis(250);
/// which doubles up to this.
const PROBE_MAX: Duration = Duration::from_secs(5);

/// What is known of the store.
pub(super) struct Health {
    clock: Arc<dyn Clock>,
    /// Whether there is an outage, without the lock.
    away: AtomicBool,
    outage: Mutex<Option<Outage>>,
    /// An outage has ended, and the shipper was not told.
    returned: AtomicBool,
    written: AtomicU64,
}

/// The store does not answer.
#[derive(Clone, Debug)]
pub(super) struct Outage {
    /// Since when,
    pub since: Time,
    /// and what the last call said.
    pub error: String,
    pause: Duration,
    probe_at: Duration,
    probing: bool,
}

/// How a call got to the store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Ordinary,
    /// It sees whether the store is back.
    Probe,
}

impl Health {
    pub fn new(clock: Arc<dyn Clock>) -> Health {
        let [away, returned] = Default::default();
        Health { clock, away, outage: Mutex::new(None), returned, written: AtomicU64::new(0) }
    }

    /// Whether the store is known not to answer.
    pub fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// The outage, if there is one.
    pub fn outage(&self) -> Option<Outage> {
        self.outage.lock().clone()
    }

    /// Whether a call that reads would be let through now.
    pub fn may_be_asked(&self) -> bool {
        !self.is_away() || self.outage.lock().as_ref().is_none_or(|outage| outage.may_probe(self.clock.elapsed()))
    }

    /// Whether an outage has ended since this was last asked.
    pub fn take_return(&self) -> bool {
        self.returned.swap(false, Ordering::Relaxed)
    }

    /// Bytes that the store has taken since the mount.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Lets a call that reads through, or says why not.
    fn admit(&self, name: &str) -> Result<Call, StoreError> {
        if !self.is_away() {
            return Ok(Call::Ordinary);
        }
        match &mut *self.outage.lock() {
            None => Ok(Call::Ordinary),
            Some(outage) if outage.may_probe(self.clock.elapsed()) => {
                outage.probing = true;
                Ok(Call::Probe)
            }
            Some(outage) => {
                let reason = format!("not asked, since the last call failed: {}", outage.error);
                Err(StoreError::Away { action: "get", name: name.to_owned(), reason })
            }
        }
    }

    fn note<T>(&self, call: Call, result: Result<T, StoreError>) -> Result<T, StoreError> {
        match &result {
            Err(e @ StoreError::Away { .. }) => self.no_answer(call, e.to_string()),
            _ if self.is_away() => self.answered(),
            _ => {}
        }
        result
    }

    fn no_answer(&self, call: Call, error: String) {
        let now = self.clock.elapsed();
        let mut outage = self.outage.lock();
        match &mut *outage {
            None => {
                log::warn!("the store is away: {error}");
                *outage = Some(Outage::new(error, self.clock.now(), now));
                self.away.store(true, Ordering::Relaxed);
            }
            Some(outage) => {
                outage.error = error;
                // One that writes sees as well as one that was let through to see.
                if call == Call::Probe || outage.may_probe(now) {
                    outage.pause = (outage.pause * 2).min(PROBE_MAX);
                    outage.probe_at = now + outage.pause;
                    outage.probing = false;
                }
            }
        }
    }

    /// Passes a panic on: a call that was to see whether the store is back has seen nothing, and the next one may.
    fn panicked(&self, call: Call, panic: Box<dyn Any + Send>) -> ! {
        if let (Call::Probe, Some(outage)) = (call, &mut *self.outage.lock()) {
            outage.probing = false;
        }
        resume_unwind(panic)
    }

    fn answered(&self) {
        let Some(outage) = self.outage.lock().take() else { return };
        self.away.store(false, Ordering::Relaxed);
        self.returned.store(true, Ordering::Relaxed);
        let lasted = self.clock.now().secs.saturating_sub(outage.since.secs);
        log::info!("the store answers again, after {lasted} s");
    }
}

/// For people: `ok`, or `away since` when.
impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outage() {
            None => f.write_str("ok"),
            Some(outage) => outage.fmt(f),
        }
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "away since {}: {}", self.since, self.error)
    }
}

impl Outage {
    pub(super) fn new(error: String, since: Time, now: Duration) -> Outage {
        Outage { since, error, pause: PROBE_MIN, probe_at: now + PROBE_MIN, probing: false }
    }

    fn may_probe(&self, now: Duration) -> bool {
        !self.probing && now >= self.probe_at
    }
}

/// A store whose calls are noted.
pub(super) struct Watched {
    store: Arc<dyn Store>,
    health: Arc<Health>,
}

impl Watched {
    pub fn new(store: Arc<dyn Store>, health: Arc<Health>) -> Watched {
        Watched { store, health }
    }

    fn read<T>(&self, name: &str, call: impl FnOnce(&dyn Store) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let admitted = self.health.admit(name)?;
        let result = catch_unwind(AssertUnwindSafe(|| call(&*self.store)));
        self.health.note(admitted, result.unwrap_or_else(|panic| self.health.panicked(admitted, panic)))
    }

    fn write<T>(&self, bytes: usize, call: impl FnOnce(&dyn Store) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let done = self.health.note(Call::Ordinary, call(&*self.store))?;
        self.health.written.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(done)
    }
}

impl Store for Watched {
    fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        self.read(name, |store| store.get(name))
    }
    fn get_some(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.read(name, |store| store.get_some(name, range))
    }
    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.read(name, |store| store.get_range(name, range))
    }
    fn get_resident(&self, name: &str, range: Range<u64>) -> Option<Bytes> {
        self.store.get_resident(name, range)
    }
    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.read(name, |store| store.size(name))
    }
    fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.write(bytes.len(), |store| store.put(name, bytes))
    }
    fn create(&self, name: &str, bytes: Bytes) -> Result<Created, StoreError> {
        self.write(bytes.len(), |store| store.create(name, bytes))
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.write(0, |store| store.delete(name))
    }
    fn walk(&self, prefix: &str, each: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.write(0, |store| store.walk(prefix, each))
    }
    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.write(0, |store| store.list(prefix))
    }
    fn publish_local(&self, file: &Path, name: &str) -> Result<bool, StoreError> {
        self.write(0, |store| store.publish_local(file, name))
    }
    fn side_by_side(&self) -> usize {
        self.store.side_by_side()
    }
    fn abandon(&self) {
        self.store.abandon();
    }
    fn counters(&self) -> Option<Arc<StoreCounters>> {
        self.store.counters()
    }
}

#[cfg(test)]
mod tests;
