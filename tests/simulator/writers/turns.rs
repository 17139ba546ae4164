//! Whose turn it is. Each machine runs on a thread of its own, and one of them at a time: so it can be stopped in the middle
//! of anything, and a seed still decides everything.

use parking_lot::{Condvar, Mutex};

/// The number of who decides whose turn it is; machines are numbered from 1.
pub const DIRECTOR: usize = 0;

/// The turn.
pub struct Turns {
    whose: Mutex<usize>,
    bells: Vec<Condvar>,
}

impl Turns {
    /// The director begins.
    pub fn new(machines: usize) -> Turns {
        Turns { whose: Mutex::new(DIRECTOR), bells: (0..=machines).map(|_| Condvar::new()).collect() }
    }

    /// Hands the turn over and waits until it comes back.
    pub fn hand(&self, me: usize, to: usize) {
        self.leave(to);
        self.wait(me);
    }

    /// Hands the turn over.
    pub fn leave(&self, to: usize) {
        *self.whose.lock() = to;
        self.bells[to].notify_one();
    }

    /// Waits for the turn.
    pub fn wait(&self, me: usize) {
        let mut whose = self.whose.lock();
        while *whose != me {
            self.bells[me].wait(&mut whose);
        }
    }
}
