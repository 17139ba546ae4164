//! Finding objects in window indexes, of which only the parts that are asked for come into memory: a window of small
//! writes has an index larger than all that may be kept.

use super::LocateError;
use super::cache::{ByteLru, CacheKey};
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

/// What is kept of an index. All of it was verified.
#[derive(Clone)]
enum Kept {
    Header(Arc<WindowHeader>),
    Part(Bytes),
}

/// Parts of window indexes in memory.
pub(super) struct Indexes {
    kept: Mutex<ByteLru<Kept>>,
}

/// Why an index said nothing.
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
        Indexes { kept: Mutex::new(ByteLru::new(bytes_max)) }
    }

    /// Where the index of a window says an object is. Blocks on the store.
    pub fn find(
        &self,
        store: &dyn Store,
        (start, end): (Lsn, Lsn),
        object: &ObjectId,
    ) -> Result<Option<(SegmentNo, IndexEntry)>, LocateError> {
        let index = Index { store, name: names::window(start, end), end };
        let found = self.look(&index, object);
        found.map_err(|failure| match failure {
            Failure::Format(e) => LocateError::Damaged { place: index.name, reason: e.to_string() },
            Failure::Store(e) => e.into(),
        })
    }

    /// Where an object is, if what says so is in memory.
    pub fn resident(&self, end: Lsn, object: &ObjectId) -> Option<(SegmentNo, IndexEntry)> {
        let Some(Kept::Header(header)) = self.kept.lock().get(&CacheKey::Index(end)) else { return None };
        let at_hand = |block: Range<u64>| {
            let place = Place::of(&header, &block);
            self.kept_block(end, &place).ok_or(FormatError::Value("not in memory"))
        };
        let row = header.find(*object, at_hand).ok()??;
        Some((header.segments[row.segment as usize], row))
    }

    fn look(&self, index: &Index<'_>, object: &ObjectId) -> Result<Option<(SegmentNo, IndexEntry)>, Failure> {
        let header = self.header(index)?;
        let row = header.find(*object, |block| self.block(index, &header, block))?;
        Ok(row.map(|row| (header.segments[row.segment as usize], row)))
    }

    fn header(&self, index: &Index<'_>) -> Result<Arc<WindowHeader>, Failure> {
        let key = CacheKey::Index(index.end);
        if let Some(Kept::Header(header)) = self.kept.lock().get(&key) {
            return Ok(header);
        }
        let header = Arc::new(index.read_header()?);
        self.kept.lock().put(key, Kept::Header(header.clone()), header.len());
        Ok(header)
    }

    /// The bytes of one block, out of the part that it lies in.
    fn block(&self, index: &Index<'_>, header: &WindowHeader, block: Range<u64>) -> Result<Bytes, Failure> {
        let place = Place::of(header, &block);
        if let Some(bytes) = self.kept_block(index.end, &place) {
            return Ok(bytes);
        }
        let bytes = index.read_part(header, place.part)?;
        self.kept.lock().put(CacheKey::IndexPart(index.end, place.part), Kept::Part(bytes.clone()), bytes.len() as u64);
        Ok(bytes.slice(place.within))
    }

    fn kept_block(&self, end: Lsn, place: &Place) -> Option<Bytes> {
        match self.kept.lock().get(&CacheKey::IndexPart(end, place.part)) {
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
    name: String,
    end: Lsn,
}

impl Index<'_> {
    fn read_header(&self) -> Result<WindowHeader, Failure> {
        let read = |len: u64| self.store.get_range(&self.name, 0..len);
        let header = match WindowHeader::decode(&read(WINDOW_HEADER_BYTES as u64)?) {
            Err(FormatError::TooShort { need, .. }) => WindowHeader::decode(&read(need)?)?,
            header => header?,
        };
        match header.end == self.end {
            true => Ok(header),
            false => Err(FormatError::Value("the index of another window").into()),
        }
    }

    /// Some blocks together, each verified: what is kept is never looked at with suspicion again.
    fn read_part(&self, header: &WindowHeader, part: u32) -> Result<Bytes, Failure> {
        let first = part * PART_BLOCKS;
        let last = (first + PART_BLOCKS).min(header.blocks()) - 1;
        let range = header.block_range(first).start..header.block_range(last).end;
        let bytes = self.store.get_range(&self.name, range.clone())?;
        for number in first..=last {
            let block = header.block_range(number);
            let at = |offset: u64| usize::try_from(offset - range.start).expect("a part is short");
            let block = bytes.get(at(block.start)..at(block.end)).unwrap_or_default();
            header.decode_block(number, block)?;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::chunk::ChunkHeader;
    use crate::format::ids::{InodeNo, Uuid};
    use crate::format::window::WindowIndex;
    use crate::media::sim::CallLog;
    use crate::media::sim::Nth;
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
                let found = indexes.find(&store, (at(9), at(1_000_000)), &object(n)).expect("whole");
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
        assert!(indexes.find(&store, window, &object(40_000)).expect("found by less than ten reads").is_some());
        store.set_down(true);
        for n in 40_000..40_100 {
            let found = indexes.find(&store, window, &object(n)).expect("at hand");
            assert_eq!(indexes.resident(window.1, &object(n)), found);
        }
        assert!(indexes.find(&store, window, &object(3)).is_err(), "the store is not asked at all");
        assert!(indexes.resident(window.1, &object(3)).is_none());
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
        let found = indexes.find(&damaged, window, &object(9998));
        assert!(matches!(found, Err(LocateError::Damaged { place, .. }) if place == name));
        assert!(indexes.find(&damaged, window, &object(0)).expect("another part").is_some());
        assert!(indexes.find(&whole, window, &object(9998)).expect("read again").is_some());
    }
}
