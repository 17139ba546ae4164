//! Fetches under way. Those who want what is on its way wait for that one request, and all get its answer.

use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// The answer of one request, which comes once.
pub(in crate::locate) struct Flight<T> {
    answer: Mutex<Option<T>>,
    landed: Condvar,
}

impl<T: Clone> Flight<T> {
    pub fn new() -> Flight<T> {
        Flight { answer: Mutex::new(None), landed: Condvar::new() }
    }

    /// The answer, when it is there.
    pub fn wait(&self) -> T {
        let mut answer = self.answer.lock();
        loop {
            match &*answer {
                Some(answer) => return answer.clone(),
                None => self.landed.wait(&mut answer),
            }
        }
    }

    /// Gives everyone the answer; the first one counts.
    pub fn land(&self, answer: T) {
        self.answer.lock().get_or_insert(answer);
        self.landed.notify_all();
    }
}

/// Work under way, by what it is for.
pub(in crate::locate) struct Flights<K, T> {
    under_way: Mutex<HashMap<K, Arc<Flight<T>>>>,
}

impl<K: Hash + Eq + Clone, T: Clone> Flights<K, T> {
    pub fn new() -> Flights<K, T> {
        Flights { under_way: Mutex::new(HashMap::new()) }
    }

    /// What `work` gives; whoever comes while it is under way gets the same. When it panics they get `given_up`.
    pub fn join(&self, key: K, given_up: T, work: impl FnOnce() -> T) -> T {
        let (flight, ours) = self.board(&key);
        if !ours {
            return flight.wait();
        }
        let landing = Landing { flights: self, key, flight, answer: Some(given_up) };
        landing.land(work())
    }

    fn board(&self, key: &K) -> (Arc<Flight<T>>, bool) {
        let mut under_way = self.under_way.lock();
        if let Some(flight) = under_way.get(key) {
            return (flight.clone(), false);
        }
        let flight = Arc::new(Flight::new());
        under_way.insert(key.clone(), flight.clone());
        (flight, true)
    }
}

/// Ends a flight even when the work panics.
struct Landing<'a, K: Hash + Eq + Clone, T: Clone> {
    flights: &'a Flights<K, T>,
    key: K,
    flight: Arc<Flight<T>>,
    answer: Option<T>,
}

impl<K: Hash + Eq + Clone, T: Clone> Landing<'_, K, T> {
    fn land(mut self, answer: T) -> T {
        self.answer = Some(answer.clone());
        answer
    }
}

impl<K: Hash + Eq + Clone, T: Clone> Drop for Landing<'_, K, T> {
    fn drop(&mut self) {
        self.flights.under_way.lock().remove(&self.key);
        if let Some(answer) = self.answer.take() {
            self.flight.land(answer);
        }
    }
}
