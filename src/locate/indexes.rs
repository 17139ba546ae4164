//! Finding objects in window indexes, of which only the parts that are asked for come into memory: a window of small
//! writes has an index larger than all that may be kept.

use super::LocateError;
use super::memory::{ByteLru, MemoryKey};
use super::reader::Flights;
use crate::cache::{Cache, CacheKey, Class};
use crate::format::error::FormatError;
use crate::format::ids::{Lsn, ObjectId, SegmentNo};
use crate::format::names;
use crate::format::window::{IndexEntry, WINDOW_HEADER_BYTES, WindowHeader};
use crate::store::{Store, StoreError};
use bytes::Bytes;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;

/// Blocks of an index that are read at a time: neighbours are asked for together, and a short index is one part.
const PART_BLOCKS: u32 = 8;
/// What is asked for first of an index that is far away: all of it, unless its window has tens of thousands of objects.
const FIRST_BYTES: u64 = 2 << 20;
/// One that is far away and no longer than this is fetched whole,
const WHOLE_BYTES_MAX: u64 = 4 << 20;
/// and a longer one by so many parts at a time.
const FAR_PARTS: u32 = 8;

/// What is kept of an index. All of it was verified.
#[derive(Clone)]
enum Kept {
    Header(Arc<WindowHeader>),
    Part(Bytes),
}

impl Kept {
    fn weight(&self) -> u64 {
        match self {
            Kept::Header(header) => header.len(),
            Kept::Part(bytes) => bytes.len() as u64,
        }
    }
}

/// Parts of window indexes in memory.
pub(super) struct Indexes {
    kept: Mutex<ByteLru<Kept>>,
    /// Those who want the same part wait for one request.
    under_way: Flights<MemoryKey, Result<Kept, Failure>>,
}

/// Why an index said nothing.
#[derive(Clone)]
enum Failure {
    Format(FormatError),
    Store(StoreError),
}

impl From<FormatError> for Failure {
    fn from(e: FormatError) -> Failure {
        Failure::Format(e)
    }
}

impl From<StoreError> for Failure {
    fn from(e: StoreError) -> Failure {
        Failure::Store(e)
    }
}

impl Indexes {
    pub fn new(bytes_max: u64) -> Indexes {
        Indexes { kept: Mutex::new(ByteLru::new(bytes_max)), under_way: Flights::new() }
    }

    /// Where the index of a window says an object is. Blocks on the store, and on the disk of `cache`, which a store that is
    /// far away has.
    pub fn find(
        &self,
        store: &dyn Store,
        cache: Option<&Cache>,
        (start, end): (Lsn, Lsn),
        object: &ObjectId,
    ) -> Result<Option<(SegmentNo, IndexEntry)>, LocateError> {
        let window = (start, end);
        let index = Index { store, cache, key: CacheKey::Window(start, end), name: names::window(start, end), window };
        let found = self.look(&index, object);
        found.map_err(|failure| match failure {
            Failure::Format(e) => LocateError::Damaged { place: index.name, reason: e.to_string() },
            Failure::Store(e) => e.into(),
        })
    }

    /// Where an object is, if what says so is in memory.
    pub fn resident(&self, window: (Lsn, Lsn), object: &ObjectId) -> Option<(SegmentNo, IndexEntry)> {
        let Some(Kept::Header(header)) = self.kept.lock().get(&MemoryKey::Index(window)) else { return None };
        let at_hand = |block: Range<u64>| {
            let place = Place::of(&header, &block);
            self.kept_block(window, &place).ok_or(FormatError::Value("not in memory"))
        };
        let row = header.find(*object, at_hand).ok()??;
        Some((header.segments[row.segment as usize], row))
    }

    /// Where an object is, if what says so is in memory or in the cache: [`Indexes::find`] for those who do not wait for the
    /// store, nor for others who do.
    pub fn near(
        &self,
        store: &dyn Store,
        cache: &Cache,
        window: (Lsn, Lsn),
        object: &ObjectId,
    ) -> Option<(SegmentNo, IndexEntry)> {
        let (key, name) = (CacheKey::Window(window.0, window.1), names::window(window.0, window.1));
        let index = Index { store, cache: Some(cache), key, name, window };
        let kept = self.kept.lock().get(&MemoryKey::Index(window));
        let header = match kept {
            Some(Kept::Header(header)) => header,
            _ if cache.holds(key, 0..WINDOW_HEADER_BYTES as u64) => Arc::new(index.cached_header()?),
            _ => return None,
        };
        let block = |block: Range<u64>| {
            let place = Place::of(&header, &block);
            let at_hand = self.kept_block(window, &place).or_else(|| {
                let there = cache.holds(key, part_range(&header, place.part));
                let part = there.then(|| index.cached_part(cache, &header, place.part)).flatten()?;
                Some(part.slice(place.within))
            });
            at_hand.ok_or(FormatError::Value("not on this machine"))
        };
        let row = header.find(*object, block).ok()??;
        Some((header.segments[row.segment as usize], row))
    }

    fn look(&self, index: &Index<'_>, object: &ObjectId) -> Result<Option<(SegmentNo, IndexEntry)>, Failure> {
        let header = match self.get(MemoryKey::Index(index.window), index, || self.open(index))? {
            Kept::Header(header) => header,
            Kept::Part(_) => return Err(FormatError::Value("a part in place of a header").into()),
        };
        let row = header.find(*object, |block| self.block(index, &header, block))?;
        Ok(row.map(|row| (header.segments[row.segment as usize], row)))
    }

    /// What is kept under a key, or what `read` gives, for all who want it now.
    fn get(
        &self,
        key: MemoryKey,
        index: &Index<'_>,
        read: impl FnOnce() -> Result<Kept, Failure>,
    ) -> Result<Kept, Failure> {
        if let Some(kept) = self.kept.lock().get(&key) {
            return Ok(kept);
        }
        self.under_way.join(key, Err(index.given_up()), || {
            // Looked for again: who landed it keeps it first.
            let at_hand = self.kept.lock().get(&key);
            at_hand.map_or_else(|| read().inspect(|kept| self.keep(key, kept.clone())), Ok)
        })
    }

    fn keep(&self, key: MemoryKey, kept: Kept) {
        let weight = kept.weight();
        self.kept.lock().put(key, kept, weight);
    }

    /// Reads the header, and keeps what comes with it.
    fn open(&self, index: &Index<'_>) -> Result<Kept, Failure> {
        let header = match index.cached_header() {
            Some(header) => header,
            None => {
                let (header, bytes) = index.fetch_first()?;
                let parts = index.take_in(&header, &bytes);
                for (part, bytes) in (0..).zip(parts) {
                    self.keep(MemoryKey::IndexPart(index.window, part), Kept::Part(bytes));
                }
                header
            }
        };
        Ok(Kept::Header(Arc::new(header)))
    }

    /// The bytes of one block, out of the part that it lies in.
    fn block(&self, index: &Index<'_>, header: &WindowHeader, block: Range<u64>) -> Result<Bytes, Failure> {
        let place = Place::of(header, &block);
        let key = MemoryKey::IndexPart(index.window, place.part);
        match self.get(key, index, || self.read_part(index, header, place.part))? {
            Kept::Part(bytes) => Ok(bytes.slice(place.within)),
            Kept::Header(_) => Err(FormatError::Value("a header in place of a part").into()),
        }
    }

    /// Reads a part; others that come with it are kept too.
    fn read_part(&self, index: &Index<'_>, header: &WindowHeader, part: u32) -> Result<Kept, Failure> {
        let Some(cache) = index.cache else { return index.fetch_part(header, part).map(Kept::Part) };
        if let Some(bytes) = index.cached_part(cache, header, part) {
            return Ok(Kept::Part(bytes));
        }
        let mut wanted = None;
        for (number, bytes) in index.fetch_parts(cache, header, part)? {
            let kept = Kept::Part(bytes);
            match number == part {
                true => wanted = Some(kept),
                false => self.keep(MemoryKey::IndexPart(index.window, number), kept),
            }
        }
        match wanted {
            Some(kept) => Ok(kept),
            None => {
                log::warn!("{}: part {part} is damaged; it is fetched once more", index.name);
                let bytes = index.fetch_part(header, part)?;
                cache.put(index.key, Class::Indexes, part_range(header, part).start, bytes.clone());
                Ok(Kept::Part(bytes))
            }
        }
    }

    fn kept_block(&self, window: (Lsn, Lsn), place: &Place) -> Option<Bytes> {
        match self.kept.lock().get(&MemoryKey::IndexPart(window, place.part)) {
            Some(Kept::Part(bytes)) => Some(bytes.slice(place.within.clone())),
            _ => None,
        }
    }
}

/// Where a block is kept: in which part, and where in it.
struct Place {
    part: u32,
    within: Range<usize>,
}

impl Place {
    fn of(header: &WindowHeader, block: &Range<u64>) -> Place {
        let first = header.block_range(0);
        let number = (block.start - header.len()) / (first.end - first.start);
        let part = u32::try_from(number).expect("blocks have numbers of 32 bits") / PART_BLOCKS;
        let start = header.block_range(part * PART_BLOCKS).start;
        let at = |offset: u64| usize::try_from(offset - start).expect("a part is short");
        Place { part, within: at(block.start)..at(block.end) }
    }
}

/// One index in the store.
struct Index<'a> {
    store: &'a dyn Store,
    cache: Option<&'a Cache>,
    key: CacheKey,
    name: String,
    /// Where the window starts and ends.
    window: (Lsn, Lsn),
}

impl Index<'_> {
    fn given_up(&self) -> Failure {
        let (name, reason) = (self.name.clone(), "the fetch was given up".to_owned());
        Failure::Store(StoreError::Failed { action: "get", name, reason })
    }

    /// The header with what came together with it: of a store that is far away, the whole index unless it is long.
    fn fetch_first(&self) -> Result<(WindowHeader, Bytes), Failure> {
        let first = if self.cache.is_some() { FIRST_BYTES } else { WINDOW_HEADER_BYTES as u64 };
        let mut bytes = self.store.get_some(&self.name, 0..first)?;
        let header = match WindowHeader::decode(&bytes) {
            Err(FormatError::TooShort { need, .. }) if need > bytes.len() as u64 => {
                bytes = self.store.get_range(&self.name, 0..need)?;
                WindowHeader::decode(&bytes)?
            }
            header => header?,
        };
        if (header.start, header.end) != self.window {
            return Err(FormatError::Value("the index of another window").into());
        }
        let (have, all) = (bytes.len() as u64, end_of(&header));
        if self.cache.is_some() && have < all && all <= WHOLE_BYTES_MAX {
            let rest = self.store.get_range(&self.name, have..all)?;
            bytes = [bytes, rest].concat().into();
        }
        Ok((header, bytes))
    }

    /// The parts that came with the header, as far as they are whole and good.
    fn take_in(&self, header: &WindowHeader, bytes: &Bytes) -> Vec<Bytes> {
        let mut parts = Vec::new();
        let mut good = header.len();
        for part in 0..parts_of(header) {
            let range = part_range(header, part);
            let Some(part_bytes) = bytes.get(index(range.start)..index(range.end)) else { break };
            if verify(header, part, part_bytes).is_err() {
                break;
            }
            parts.push(Bytes::copy_from_slice(part_bytes));
            good = range.end;
        }
        if let Some(cache) = self.cache {
            cache.put(self.key, Class::Indexes, 0, bytes.slice(..index(good)));
        }
        parts
    }

    fn cached_header(&self) -> Option<WindowHeader> {
        let cache = self.cache?;
        let bytes = cache.read(self.key, 0..WINDOW_HEADER_BYTES as u64)?;
        let header = match WindowHeader::decode(&bytes) {
            Err(FormatError::TooShort { need, .. }) => WindowHeader::decode(&cache.read(self.key, 0..need)?),
            header => header,
        };
        let header = header.ok().filter(|header| (header.start, header.end) == self.window);
        if header.is_none() {
            cache.remove_damaged(self.key, 0..WINDOW_HEADER_BYTES as u64);
        }
        header
    }

    /// Some blocks together, each verified: what is kept is never looked at with suspicion again.
    fn fetch_part(&self, header: &WindowHeader, part: u32) -> Result<Bytes, Failure> {
        let bytes = self.store.get_range(&self.name, part_range(header, part))?;
        verify(header, part, &bytes)?;
        Ok(bytes)
    }

    fn cached_part(&self, cache: &Cache, header: &WindowHeader, part: u32) -> Option<Bytes> {
        let range = part_range(header, part);
        let bytes = cache.read(self.key, range.clone())?;
        if verify(header, part, &bytes).is_ok() {
            return Some(bytes);
        }
        cache.remove_damaged(self.key, range);
        None
    }

    /// The part, and those about it, that are whole and good.
    fn fetch_parts(&self, cache: &Cache, header: &WindowHeader, part: u32) -> Result<Vec<(u32, Bytes)>, Failure> {
        let first = part / FAR_PARTS * FAR_PARTS;
        let last = (first + FAR_PARTS).min(parts_of(header)) - 1;
        let start = part_range(header, first).start;
        let bytes = self.store.get_range(&self.name, start..part_range(header, last).end)?;
        let mut good = Vec::new();
        for number in first..=last {
            let range = part_range(header, number);
            let part = bytes.slice(index(range.start - start)..index(range.end - start));
            if verify(header, number, &part).is_ok() {
                cache.put(self.key, Class::Indexes, range.start, part.clone());
                good.push((number, Bytes::copy_from_slice(&part)));
            }
        }
        Ok(good)
    }
}

fn parts_of(header: &WindowHeader) -> u32 {
    header.blocks().div_ceil(PART_BLOCKS)
}

fn part_range(header: &WindowHeader, part: u32) -> Range<u64> {
    let first = part * PART_BLOCKS;
    let last = (first + PART_BLOCKS).min(header.blocks()) - 1;
    header.block_range(first).start..header.block_range(last).end
}

fn end_of(header: &WindowHeader) -> u64 {
    header.blocks().checked_sub(1).map_or(header.len(), |last| header.block_range(last).end)
}

fn verify(header: &WindowHeader, part: u32, bytes: &[u8]) -> Result<(), FormatError> {
    let range = part_range(header, part);
    let first = part * PART_BLOCKS;
    for number in first..(first + PART_BLOCKS).min(header.blocks()) {
        let block = header.block_range(number);
        let block = bytes.get(index(block.start - range.start)..index(block.end - range.start));
        header.decode_block(number, block.unwrap_or_default())?;
    }
    Ok(())
}

fn index(at: u64) -> usize {
    usize::try_from(at).expect("an index fits into memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SimClock;
    use crate::cache::{Keeper, Limits, Progress};
    use crate::format::chunk::ChunkHeader;
    use crate::format::ids::{InodeNo, Uuid};
    use crate::format::window::WindowIndex;
    use crate::media::sim::{CallLog, Nth, SimDisk};
    use crate::store::sim::{SimStore, StoreFault, StoreOp};

    fn at(pos: u64) -> Lsn {
        Lsn { epoch: 1, pos }
    }

    fn object(n: u32) -> ObjectId {
        ObjectId { lsn: at(10 + u64::from(n)), n: 0 }
    }

    /// A store with the index of a window of every second one of `2 * count` objects.
    fn store(count: u32) -> SimStore {
        let entry = |n: u32| IndexEntry {
            object: object(2 * n),
            segment: 0,
            chunk_offset: 108,
            chunk: ChunkHeader::raw(&[7; 5000]),
            offset_in_chunk: n % 4000,
            len: 900,
            birth_ino: InodeNo(7),
            birth_offset: u64::from(n) << 16,
        };
        let segments = vec![SegmentNo { epoch: 1, number: 3 }];
        let (start, end) = (at(9), at(1_000_000));
        let index = WindowIndex { uuid: Uuid(1), start, end, segments, entries: (0..count).map(entry).collect() };
        let store = SimStore::new(&CallLog::new());
        store.put(&names::window(start, end), index.encode().into()).expect("put");
        store
    }

    #[test]
    fn every_object_is_found_and_no_other() {
        for count in [0, 1, 64, 65, 1024, 1025, 5000] {
            let (store, indexes) = (store(count), Indexes::new(1 << 20));
            for n in 0..2 * count + 3 {
                let found = indexes.find(&store, None, (at(9), at(1_000_000)), &object(n)).expect("whole");
                let offset = found.map(|(_, row)| row.birth_offset >> 16);
                assert_eq!(offset, (n % 2 == 0 && n / 2 < count).then_some(u64::from(n / 2)), "object {n} of {count}");
            }
        }
    }

    #[test]
    fn few_reads_find_an_object_and_its_neighbours_need_none() {
        let (store, indexes) = (store(50_000), Indexes::new(1 << 20));
        store.fail(Nth::new(10).of(StoreOp::Get), StoreFault::Refused);
        let window = (at(9), at(1_000_000));
        assert!(indexes.find(&store, None, window, &object(40_000)).expect("found by less than ten reads").is_some());
        store.set_down(true);
        for n in 40_000..40_100 {
            let found = indexes.find(&store, None, window, &object(n)).expect("at hand");
            assert_eq!(indexes.resident(window, &object(n)), found);
        }
        assert!(indexes.find(&store, None, window, &object(3)).is_err(), "the store is not asked at all");
        assert!(indexes.resident(window, &object(3)).is_none());
    }

    #[test]
    fn windows_that_end_at_the_same_place_are_not_mixed_up() {
        let (store, indexes) = (store(5000), Indexes::new(1 << 20));
        let (old, new) = ((at(9), at(1_000_000)), (at(3), at(1_000_000)));
        assert!(indexes.find(&store, None, old, &object(9998)).expect("whole").is_some());
        let none = WindowIndex { uuid: Uuid(1), start: new.0, end: new.1, segments: Vec::new(), entries: Vec::new() };
        store.put(&names::window(new.0, new.1), none.encode().into()).expect("put");
        assert_eq!(indexes.find(&store, None, new, &object(9998)).expect("whole"), None);
        assert!(indexes.resident(old, &object(9998)).is_some() && indexes.resident(new, &object(9998)).is_none());
    }

    #[test]
    fn a_damaged_part_is_named_and_not_kept() {
        let (whole, indexes) = (store(5000), Indexes::new(1 << 20));
        let (window, name) = ((at(9), at(1_000_000)), names::window(at(9), at(1_000_000)));
        let mut bytes = whole.get(&name).expect("there").to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let damaged = store(0);
        damaged.put(&name, bytes.into()).expect("put");
        let found = indexes.find(&damaged, None, window, &object(9998));
        assert!(matches!(found, Err(LocateError::Damaged { place, .. }) if place == name));
        assert!(indexes.find(&damaged, None, window, &object(0)).expect("another part").is_some());
        assert!(indexes.find(&whole, None, window, &object(9998)).expect("read again").is_some());
    }

    fn cache() -> (Arc<Cache>, Keeper) {
        let limits = Limits { bytes_max: 64 << 20, free_bytes_min: 0 };
        let media = Arc::new(SimDisk::new(&CallLog::new()));
        Cache::open(media, Arc::new(SimClock::default()), Uuid(1), limits).expect("a cache is made")
    }

    const WINDOW: (Lsn, Lsn) = (Lsn { epoch: 1, pos: 9 }, Lsn { epoch: 1, pos: 1_000_000 });

    #[test]
    fn an_index_far_away_comes_by_two_requests_and_then_from_the_cache() {
        for (count, gets) in [(0, 1), (1000, 1), (50_000, 2)] {
            let (store, (cache, mut keeper)) = (store(count), cache());
            let indexes = Indexes::new(8 << 20);
            for n in (0..2 * count + 3).step_by(501) {
                let found = indexes.find(&store, Some(&cache), WINDOW, &object(n)).expect("whole");
                assert_eq!(found.is_some(), n % 2 == 0 && n / 2 < count, "object {n} of {count}");
            }
            assert_eq!(store.calls().gets, gets, "{count} objects");
            while keeper.step() == Progress::Worked {}
            let small = Indexes::new(60_000);
            for n in (0..2 * count + 3).step_by(501) {
                let found = small.find(&store, Some(&cache), WINDOW, &object(n)).expect("whole");
                assert_eq!(found.is_some(), n % 2 == 0 && n / 2 < count, "object {n} of {count} out of the cache");
                let near = Indexes::new(1 << 20).near(&store, &cache, WINDOW, &object(n));
                assert_eq!(near, found, "object {n} of {count}, not to be had from the store");
            }
            assert_eq!(store.calls().gets, gets, "{count} objects, no more requests");
        }
    }

    #[test]
    fn a_long_index_far_away_is_read_in_few_parts() {
        // Objects all over the window, and in its first fifth alone.
        for (count, most) in [(490_000, 4), (100_000, 10)] {
            let (store, (cache, _keeper)) = (store(count), cache());
            for n in [2, count + 1 - count % 2, 2 * count - 2] {
                let before = store.calls().gets;
                let indexes = Indexes::new(8 << 20);
                let found = indexes.find(&store, Some(&cache), WINDOW, &object(n)).expect("whole");
                assert_eq!(found.is_some(), n % 2 == 0);
                let gets = store.calls().gets - before;
                assert!(gets <= most, "{gets} requests for object {n} of {count}");
            }
        }
    }

    #[test]
    fn promise_s12_damaged_parts_of_an_index_are_neither_used_nor_cached() {
        let (whole, (cache, _keeper)) = (store(5000), cache());
        let name = names::window(WINDOW.0, WINDOW.1);
        let mut bytes = whole.get(&name).expect("there").to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let damaged = store(0);
        damaged.put(&name, bytes.into()).expect("put");
        let indexes = Indexes::new(1 << 20);
        let found = indexes.find(&damaged, Some(&cache), WINDOW, &object(9998));
        assert!(matches!(found, Err(LocateError::Damaged { place, .. }) if place == name));
        assert!(!cache.holds(CacheKey::Window(WINDOW.0, WINDOW.1), last as u64..last as u64 + 1));
        assert!(indexes.find(&damaged, Some(&cache), WINDOW, &object(0)).expect("another part").is_some());
        assert!(indexes.find(&whole, Some(&cache), WINDOW, &object(9998)).expect("read again").is_some());
    }

    #[test]
    fn a_copy_of_an_index_that_is_not_what_it_should_be_is_fetched_again() {
        let (store, (cache, _keeper)) = (store(5000), cache());
        cache.put(CacheKey::Window(WINDOW.0, WINDOW.1), Class::Indexes, 0, vec![3; 400_000].into());
        for _ in 0..2 {
            let indexes = Indexes::new(1 << 20);
            assert!(indexes.find(&store, Some(&cache), WINDOW, &object(9998)).expect("whole").is_some());
        }
        assert_eq!(store.calls().gets, 1, "it was fetched once");
    }
}
