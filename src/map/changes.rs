//! The changes of several layers as one ordered stream: what a scan and a merge lay over the tree.

use super::overlay::Overlay;
use bytes::Bytes;
use std::collections::btree_map;
use std::iter::Peekable;

/// A key that some layer has an entry for, and what the layers together say of it.
pub(super) struct Change<'a> {
    pub key: &'a Bytes,
    /// `None`: the key is gone.
    pub value: Option<&'a Bytes>,
}

/// The entries and deleted ranges of layers, newest first, walked upwards from a first key. A key without an entry here
/// keeps the tree's value, unless [`Changes::deleted_until`] says that a range takes it.
pub(super) struct Changes<'a> {
    layers: Vec<&'a Overlay>,
    points: Vec<Peekable<btree_map::Range<'a, Bytes, Option<Bytes>>>>,
    ranges: Vec<Peekable<btree_map::Range<'a, Bytes, Bytes>>>,
    /// The union of ranges the walk is in or before.
    range: Option<(&'a Bytes, &'a Bytes)>,
}

impl<'a> Changes<'a> {
    /// The changes of `layers` (newest first) to keys from `from` on.
    pub fn new(layers: Vec<&'a Overlay>, from: &[u8]) -> Changes<'a> {
        let points = layers.iter().map(|layer| layer.points_from(from).peekable()).collect();
        let ranges = layers.iter().map(|layer| layer.ranges_from(from).peekable()).collect();
        let mut changes = Changes { layers, points, ranges, range: None };
        changes.range = changes.next_range();
        changes
    }

    /// The next key that has an entry.
    pub fn peek_key(&mut self) -> Option<&'a Bytes> {
        self.points.iter_mut().filter_map(|points| points.peek().map(|(key, _)| *key)).min()
    }

    /// The next key that has an entry, with what the newest layer that knows it says.
    pub fn next(&mut self) -> Option<Change<'a>> {
        let key = self.peek_key()?;
        let mut verdict: Option<Option<&'a Bytes>> = None;
        for (points, layer) in self.points.iter_mut().zip(&self.layers) {
            let here = points.next_if(|(candidate, _)| *candidate == key).map(|(_, value)| value.as_ref());
            if verdict.is_none() {
                verdict = here.or_else(|| layer.range_over(key).map(|_| None));
            }
        }
        Some(Change { key, value: verdict.expect("the layer that named the key knows it") })
    }

    /// The end of the deleted range that `key` lies in, if it lies in one. Keys must be asked for in rising order.
    pub fn deleted_until(&mut self, key: &[u8]) -> Option<&'a Bytes> {
        self.skip_ranges_before(key);
        self.range.filter(|(from, _)| from.as_ref() <= key).map(|(_, to)| to)
    }

    /// Whether any change lies at or after `from` and before `to` (`None`: no bound). No earlier key may be asked for later.
    pub fn touch(&mut self, from: &[u8], to: Option<&[u8]>) -> bool {
        self.skip_ranges_before(from);
        let before = |key: &Bytes| to.is_none_or(|to| key.as_ref() < to);
        self.peek_key().is_some_and(before) || self.range.is_some_and(|(start, _)| before(start))
    }

    fn skip_ranges_before(&mut self, key: &[u8]) {
        while self.range.is_some_and(|(_, to)| to.as_ref() <= key) {
            self.range = self.next_range();
        }
    }

    /// Joins overlapping and touching ranges of all layers into the next one.
    fn next_range(&mut self) -> Option<(&'a Bytes, &'a Bytes)> {
        let from = self.ranges.iter_mut().filter_map(|ranges| ranges.peek().map(|(from, _)| *from)).min()?;
        let mut to = from;
        while let Some(end) = self.ranges.iter_mut().find_map(|ranges| ranges.next_if(|(start, _)| *start <= to)) {
            to = to.max(end.1);
        }
        Some((from, to))
    }
}
