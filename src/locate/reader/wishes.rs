//! What is to be fetched ahead: a short queue, of which the oldest is given up for a new one.

use crate::cache::Class;
use crate::format::ids::SegmentNo;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

/// More than that is not worth waiting for.
const WISHES_MAX: usize = 32;

/// A part of a segment that somebody is going to read. It starts at a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub segment: SegmentNo,
    pub class: Class,
    pub range: Range<u64>,
}

#[derive(Default)]
pub(super) struct Wishes {
    queue: Mutex<VecDeque<Wish>>,
    added: Condvar,
}

impl Wishes {
    pub fn add(&self, wish: Wish) {
        let mut queue = self.queue.lock();
        if queue.len() == WISHES_MAX {
            queue.pop_front();
        }
        queue.push_back(wish);
        self.added.notify_one();
    }

    /// The oldest; waits for one at most `timeout`.
    pub fn next(&self, timeout: Duration) -> Option<Wish> {
        let mut queue = self.queue.lock();
        if queue.is_empty() && !timeout.is_zero() {
            self.added.wait_for(&mut queue, timeout);
        }
        queue.pop_front()
    }

    pub fn wake(&self) {
        self.added.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_wish_is_given_up_for_a_new_one() {
        let wish = |n: u64| Wish { segment: SegmentNo { epoch: 1, number: n }, class: Class::Data, range: 40..n };
        let wishes = Wishes::default();
        (0..WISHES_MAX as u64 + 3).for_each(|n| wishes.add(wish(n)));
        assert_eq!(wishes.next(Duration::ZERO), Some(wish(3)));
        let rest = std::iter::from_fn(|| wishes.next(Duration::ZERO)).count();
        assert_eq!(rest, WISHES_MAX - 1);
    }
}
