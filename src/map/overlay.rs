//! Changes since the last freeze, in memory and in key order.
//!
//! An overlay answers for the keys it speaks about: a value, a deletion, or nothing, in which case an older layer or the
//! tree answers. Deleted ranges are kept as such, so that deleting a huge file costs one entry. It knows nothing of the
//! journal: edits come resolved, in log order.

use crate::format::batch::Edit;
use crate::format::ids::Lsn;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::Bound;

/// What an entry costs beside the bytes of its key and value: its slot in a tree node that is two thirds full, and the
/// allocations of key and value with their reference counts.
const ENTRY_OVERHEAD_BYTES: u64 = 192;

/// What an overlay knows of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The key has this value.
    Value(Bytes),
    /// The key is gone, whatever older layers say.
    Deleted,
    /// This overlay says nothing; ask an older layer.
    Absent,
}

/// Changes since a freeze. A frozen one is shared as `Arc<Overlay>` and called a layer.
#[derive(Debug, Default)]
pub struct Overlay {
    /// A value, or `None` for a deleted key. An entry inside a range wins over it: it is younger.
    points: BTreeMap<Bytes, Option<Bytes>>,
    /// Deleted ranges, start to end (exclusive); they neither overlap nor touch.
    ranges: BTreeMap<Bytes, Bytes>,
    bytes: u64,
    /// The batch of the last edit applied.
    last: Lsn,
}

impl Overlay {
    /// An overlay that says nothing.
    pub const fn new() -> Overlay {
        Overlay { points: BTreeMap::new(), ranges: BTreeMap::new(), bytes: 0, last: Lsn::ZERO }
    }

    /// Adds one edit of the batch `lsn`. Keys and values are copied, so that an entry never keeps a journal group or a
    /// request buffer alive.
    ///
    /// # Panics
    /// When `edit` is an unresolved [`Edit::OwnExtent`], or (debug) when `lsn` goes back.
    pub fn apply(&mut self, lsn: Lsn, edit: &Edit) {
        match edit {
            Edit::Put { key, value } => {
                self.comes(lsn);
                self.set_point(Bytes::copy_from_slice(key), Some(Bytes::copy_from_slice(value)));
            }
            other => self.apply_rest(lsn, other),
        }
    }

    /// The same for an edit just made: its key and value are kept as they are, unless somebody else holds their bytes too.
    ///
    /// # Panics
    /// As [`Overlay::apply`].
    pub fn apply_own(&mut self, lsn: Lsn, edit: Edit) {
        match edit {
            Edit::Put { key, value } => {
                self.comes(lsn);
                self.set_point(unshared(key), Some(unshared(value)));
            }
            other => self.apply_rest(lsn, &other),
        }
    }

    fn comes(&mut self, lsn: Lsn) {
        debug_assert!(lsn >= self.last, "edits come in log order: {lsn} after {}", self.last);
        self.last = lsn;
    }

    fn apply_rest(&mut self, lsn: Lsn, edit: &Edit) {
        self.comes(lsn);
        match edit {
            Edit::Put { .. } => unreachable!("a put is applied by itself"),
            Edit::Delete { key } => self.delete(key),
            Edit::DeleteRange { from, to } if from < to => self.delete_range(from, to),
            Edit::DeleteRange { .. } => {}
            Edit::OwnExtent { .. } => panic!("an edit is resolved before it is applied"),
        }
    }

    /// What this overlay knows of `key`.
    pub fn get(&self, key: &[u8]) -> Found {
        match self.word(key) {
            Some(Some(value)) => Found::Value(value.clone()),
            Some(None) => Found::Deleted,
            None => Found::Absent,
        }
    }

    /// Its word on `key`: the value, or that it is gone; `None` when it has none.
    pub(super) fn word(&self, key: &[u8]) -> Option<Option<&Bytes>> {
        match self.points.get(key) {
            Some(value) => Some(value.as_ref()),
            None => self.range_over(key).map(|_| None),
        }
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty() && self.ranges.is_empty()
    }

    /// An estimate of the memory it holds, for the byte cap.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// These changes and `newer` ones over them, as one overlay. Keys and values are shared, not copied.
    pub fn under(&self, newer: &Overlay) -> Overlay {
        let Overlay { points, ranges, bytes, .. } = self;
        let mut both =
            Overlay { points: points.clone(), ranges: ranges.clone(), bytes: *bytes, last: self.last.max(newer.last) };
        for (from, to) in &newer.ranges {
            both.delete_range(from, to);
        }
        for (key, value) in &newer.points {
            match value {
                Some(value) => both.set_point(key.clone(), Some(value.clone())),
                None => both.delete(key),
            }
        }
        both
    }

    /// The same changes as edits: applied in this order to an empty overlay they make this one again.
    pub fn edits(&self) -> impl Iterator<Item = Edit> + '_ {
        let ranges = self.ranges.iter().map(|(from, to)| Edit::DeleteRange { from: from.clone(), to: to.clone() });
        let points = self.points.iter().map(|(key, value)| match value {
            Some(value) => Edit::Put { key: key.clone(), value: value.clone() },
            None => Edit::Delete { key: key.clone() },
        });
        ranges.chain(points)
    }

    /// The entries from `from` on, in key order; `None` is a deleted key.
    pub(super) fn points_from(&self, from: &[u8]) -> btree_map::Range<'_, Bytes, Option<Bytes>> {
        self.points.range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
    }

    /// The deleted ranges that end after `from`, in key order.
    pub(super) fn ranges_from(&self, from: &[u8]) -> btree_map::Range<'_, Bytes, Bytes> {
        let start = self.range_over(from).map_or(from, |(start, _)| start.as_ref());
        self.ranges.range::<[u8], _>((Bound::Included(start), Bound::Unbounded))
    }

    /// The deleted range `key` lies in.
    pub(super) fn range_over(&self, key: &[u8]) -> Option<(&Bytes, &Bytes)> {
        let upto = (Bound::Unbounded, Bound::Included(key));
        self.ranges.range::<[u8], _>(upto).next_back().filter(|(_, end)| key < end.as_ref())
    }

    fn delete(&mut self, key: &[u8]) {
        if self.range_over(key).is_some() {
            self.remove_point(key);
        } else {
            self.set_point(Bytes::copy_from_slice(key), None);
        }
    }

    fn delete_range(&mut self, from: &[u8], to: &[u8]) {
        let inside = (Bound::Included(from), Bound::Excluded(to));
        let dead: Vec<Bytes> = self.points.range::<[u8], _>(inside).map(|(key, _)| key.clone()).collect();
        for key in dead {
            self.remove_point(&key);
        }
        let (from, to) = self.absorb_ranges(from, to);
        self.bytes += ENTRY_OVERHEAD_BYTES + (from.len() + to.len()) as u64;
        self.ranges.insert(from, to);
    }

    /// Takes out the ranges that overlap or touch `from..to`; returns the bounds of all of them together.
    fn absorb_ranges(&mut self, from: &[u8], to: &[u8]) -> (Bytes, Bytes) {
        let (mut from, mut to) = (Bytes::copy_from_slice(from), Bytes::copy_from_slice(to));
        while let Some((start, end)) = self.last_range_upto(&to).filter(|(_, end)| *end >= from) {
            self.ranges.remove(&start);
            self.bytes -= ENTRY_OVERHEAD_BYTES + (start.len() + end.len()) as u64;
            from = from.min(start);
            to = to.max(end);
        }
        (from, to)
    }

    fn last_range_upto(&self, key: &Bytes) -> Option<(Bytes, Bytes)> {
        self.ranges.range::<Bytes, _>(..=key).next_back().map(|(start, end)| (start.clone(), end.clone()))
    }

    fn set_point(&mut self, key: Bytes, value: Option<Bytes>) {
        let len = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len) as u64;
        self.bytes += len(&value);
        match self.points.entry(key) {
            btree_map::Entry::Occupied(mut entry) => self.bytes -= len(&entry.insert(value)),
            btree_map::Entry::Vacant(entry) => {
                self.bytes += ENTRY_OVERHEAD_BYTES + entry.key().len() as u64;
                entry.insert(value);
            }
        }
    }

    fn remove_point(&mut self, key: &[u8]) {
        if let Some((key, value)) = self.points.remove_entry(key) {
            self.bytes -= ENTRY_OVERHEAD_BYTES + (key.len() + value.map_or(0, |value| value.len())) as u64;
        }
    }
}

/// These bytes, in an allocation that nobody else has a part of.
fn unshared(bytes: Bytes) -> Bytes {
    if bytes.is_unique() { bytes } else { Bytes::copy_from_slice(&bytes) }
}
