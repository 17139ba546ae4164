//! Least recently used first, under a limit in bytes.

use crate::format::ids::{Lsn, ObjectId, SegmentNo};
use lru::LruCache;

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryKey {
    /// One object's bytes.
    Object(ObjectId),
    /// A chunk of a store segment, by its offset.
    Chunk(SegmentNo, u64),
    /// The header of a window's index; a repair may give a window another start.
    Index((Lsn, Lsn)),
    /// A part of that index.
    IndexPart((Lsn, Lsn), u32),
}

/// A cache whose values together never weigh more than a limit.
pub struct ByteLru<V> {
    entries: LruCache<MemoryKey, (V, u64)>,
    bytes: u64,
    bytes_max: u64,
}

impl<V: Clone> ByteLru<V> {
    /// An empty cache.
    pub fn new(bytes_max: u64) -> ByteLru<V> {
        ByteLru { entries: LruCache::unbounded(), bytes: 0, bytes_max }
    }

    /// The value, which becomes the most recently used.
    pub fn get(&mut self, key: &MemoryKey) -> Option<V> {
        self.entries.get(key).map(|(value, _)| value.clone())
    }

    /// Keeps a value that weighs `bytes`; what alone exceeds the limit is not kept.
    pub fn put(&mut self, key: MemoryKey, value: V, bytes: u64) {
        // The table's own cost per entry, so that many tiny values cannot exceed the limit by their overhead.
        let bytes = bytes + 128;
        if bytes > self.bytes_max {
            return;
        }
        if let Some((_, old)) = self.entries.put(key, (value, bytes)) {
            self.bytes -= old;
        }
        self.bytes += bytes;
        while self.bytes > self.bytes_max {
            let Some((_, (_, old))) = self.entries.pop_lru() else { break };
            self.bytes -= old;
        }
    }

    /// Drops a value.
    pub fn remove(&mut self, key: &MemoryKey) {
        if let Some((_, old)) = self.entries.pop(key) {
            self.bytes -= old;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first_and_the_limit_holds() {
        let mut cache = ByteLru::new(3 * 228);
        let key = |n| MemoryKey::Chunk(SegmentNo { epoch: 1, number: 1 }, n);
        for n in 0..3 {
            cache.put(key(n), n, 100);
        }
        assert_eq!(cache.get(&key(0)), Some(0));
        cache.put(key(3), 3, 100);
        assert_eq!(cache.get(&key(1)), None, "the oldest untouched one made room");
        assert_eq!(cache.get(&key(0)), Some(0));
        assert!(cache.bytes <= cache.bytes_max);
        cache.put(key(9), 9, 10_000);
        assert_eq!(cache.get(&key(9)), None, "larger than the whole cache");
    }
}
