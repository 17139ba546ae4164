//! Which shipped window holds a batch. One small entry per window, resident.

use crate::format::ids::Lsn;
use parking_lot::RwLock;
use std::collections::BTreeMap;

/// The table of shipped windows that still hold live objects: end → start (exclusive).
#[derive(Default)]
pub struct Windows {
    by_end: RwLock<BTreeMap<Lsn, Lsn>>,
}

impl Windows {
    /// A window was shipped and recorded: it holds the batches after `start` up to and with `end`.
    pub fn add(&self, start: Lsn, end: Lsn) {
        debug_assert!(start < end);
        self.by_end.write().insert(end, start);
    }

    /// The window that ends at `end` holds nothing live any more.
    pub fn remove(&self, end: Lsn) {
        self.by_end.write().remove(&end);
    }

    /// The (start, end) of the window that holds the batch.
    pub fn of(&self, lsn: Lsn) -> Option<(Lsn, Lsn)> {
        let table = self.by_end.read();
        let (end, start) = table.range(lsn..).next()?;
        (*start < lsn).then_some((*start, *end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_found_in_the_window_that_spans_it_and_nowhere_else() {
        let at = |pos| Lsn { epoch: 1, pos };
        let windows = Windows::default();
        windows.add(at(0), at(10));
        windows.add(at(20), at(30));
        assert_eq!(windows.of(at(10)), Some((at(0), at(10))));
        assert_eq!(windows.of(at(11)), None, "between windows");
        assert_eq!(windows.of(at(21)), Some((at(20), at(30))));
        windows.remove(at(30));
        assert_eq!(windows.of(at(21)), None);
    }
}
