//! Putting segments into the store, several at a time, while the next one is made.
//!
//! When [`Uploads::run`] returns a value, everything that was given to it is done: what names the segments comes after.

use super::ShipError;
use crate::store::StoreError;
use parking_lot::{Condvar, Mutex};
use std::thread;

/// Something to be done beside the making of the next thing.
pub type Task = Box<dyn FnOnce() -> Result<(), ShipError> + Send>;

/// Takes what is to be done; waits while as much is on its way as may be.
pub type Give<'a> = dyn FnMut(Task) -> Result<(), ShipError> + 'a;

/// How many puts may be on their way at a time.
#[derive(Clone, Copy, Debug)]
pub struct Uploads {
    at_once: usize,
}

impl Uploads {
    /// With 1 everything happens in order on the thread that ships, as the simulator needs it.
    pub fn new(at_once: usize) -> Uploads {
        Uploads { at_once }
    }

    /// Lets `make` give tasks. Returns what it made once all of them have succeeded, else the error of one of them. After a
    /// failure nothing new is begun.
    pub fn run<T>(&self, make: impl FnOnce(&mut Give<'_>) -> Result<T, ShipError>) -> Result<T, ShipError> {
        if self.at_once <= 1 {
            return make(&mut |task| task());
        }
        let places = Places::default();
        let made = thread::scope(|scope| {
            make(&mut |task| {
                let place = places.take(self.at_once)?;
                let put = move || place.done(task());
                match thread::Builder::new().name("upload".to_owned()).spawn_scoped(scope, put) {
                    Ok(_) => Ok(()),
                    Err(e) => Err(no_thread(&e).into()),
                }
            })
        });
        match places.state.into_inner().failed {
            Some(e) => Err(e),
            None => made,
        }
    }
}

fn no_thread(e: &std::io::Error) -> StoreError {
    StoreError::Failed { action: "put", name: "segments".to_owned(), reason: format!("no thread: {e}") }
}

/// What is on its way.
#[derive(Default)]
struct Places {
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Default)]
struct State {
    taken: usize,
    failed: Option<ShipError>,
}

impl Places {
    /// Waits for a place. Fails with the reason why another did not get through.
    fn take(&self, most: usize) -> Result<Place<'_>, ShipError> {
        let mut state = self.state.lock();
        while state.taken >= most && state.failed.is_none() {
            self.left.wait(&mut state);
        }
        match state.failed.take() {
            Some(e) => Err(e),
            None => {
                state.taken += 1;
                Ok(Place(self))
            }
        }
    }
}

/// One of them; it is given back even by a panic.
struct Place<'a>(&'a Places);

impl Place<'_> {
    fn done(self, result: Result<(), ShipError>) {
        if let Err(e) = result {
            self.0.state.lock().failed.get_or_insert(e);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.state.lock().taken -= 1;
        self.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn refused() -> ShipError {
        StoreError::Failed { action: "put", name: "x".into(), reason: "refused".into() }.into()
    }

    #[test]
    fn tasks_run_side_by_side_and_all_are_done_at_the_end() {
        // Nobody passes the barrier unless three are there at the same time.
        let (barrier, done) = (Arc::new(Barrier::new(3)), Arc::new(AtomicUsize::new(0)));
        let made = Uploads::new(3).run(|give| {
            for _ in 0..6 {
                let (barrier, done) = (barrier.clone(), done.clone());
                give(Box::new(move || {
                    barrier.wait();
                    done.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                }))?;
            }
            Ok(7)
        });
        assert_eq!((made.expect("nothing failed"), done.load(Ordering::SeqCst)), (7, 6));
    }

    #[test]
    fn no_more_are_on_their_way_than_may_be() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let made = Uploads::new(2).run(|give| {
            for _ in 0..50 {
                let (now, most) = (now.clone(), most.clone());
                give(Box::new(move || {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::yield_now();
                    now.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                }))?;
            }
            Ok(())
        });
        made.expect("nothing failed");
        assert!(most.load(Ordering::SeqCst) <= 2);
    }

    #[test]
    fn a_failure_is_the_result_even_if_all_was_made() {
        for at_once in [1, 3] {
            let begun = AtomicUsize::new(0);
            let made = Uploads::new(at_once).run(|give| {
                for n in 0..100 {
                    begun.store(n, Ordering::SeqCst);
                    give(Box::new(move || if n == 2 { Err(refused()) } else { Ok(()) }))?;
                }
                Ok(())
            });
            assert!(matches!(made, Err(ShipError::Store(StoreError::Failed { .. }))), "{at_once} at once: {made:?}");
        }
        let last = Uploads::new(3).run(|give| give(Box::new(|| Err(refused()))));
        assert!(last.is_err(), "the failure of the last one is not lost");
    }
}
