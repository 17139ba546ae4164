//! Neighbouring extents of one file as one entry. A file written in order has extents of equal length over objects with
//! consecutive names; a run says that once. Runs exist only inside an encoded leaf: whoever reads the leaf sees extents.

use crate::format::error::FormatError;
use crate::format::ids::{OBJECT_BYTES_MAX, ObjectId};
use crate::format::inode::{EXTENT_BYTES, Extent};
use crate::format::key::EXTENT;
use crate::format::wire::{OBJECT_ID_BYTES, PutIds, Reader, layout};
use bytes::{BufMut, Bytes};

/// The most extents in a run.
pub const RUN_EXTENTS_MAX: u32 = 4096;

/// Bytes of an extent key before the file offset.
const OFFSET_AT: usize = 9;
const EXTENT_KEY_BYTES: usize = OFFSET_AT + 8;

layout! {
    mod at, 28 bytes { COUNT: 4, EXTENT_LEN: 4, LAST_LEN: 4, FIRST: super::OBJECT_ID_BYTES }
}

/// Two or more extents: extent `j` covers object `n + j` from its start, at `offset + j * extent_len`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Inode number and kind.
    file: [u8; OFFSET_AT],
    /// Where the first extent starts in the file.
    offset: u64,
    pub(super) count: u32,
    extent_len: u32,
    /// Length of the last extent, which may be shorter.
    last_len: u32,
    first: ObjectId,
}

impl Run {
    /// The run of one that an entry could start, if it is an extent over an object from the object's start.
    pub(super) fn starting_with(key: &[u8], value: &[u8]) -> Option<Run> {
        let (file, offset) = split_key(key)?;
        let extent = Extent::decode(value).ok().filter(|extent| extent.object_offset == 0)?;
        let (extent_len, last_len) = (extent.len, extent.len);
        Some(Run { file, offset, count: 1, extent_len, last_len, first: extent.object })
    }

    /// The run with one more extent, if the entry continues it.
    pub(super) fn continued_by(&self, key: &[u8], value: &[u8]) -> Option<Run> {
        let next = Run::starting_with(key, value)?;
        let covered = u64::from(self.count) * u64::from(self.extent_len);
        let continues = self.last_len == self.extent_len
            && self.count < RUN_EXTENTS_MAX
            && next.last_len <= self.extent_len
            && next.file == self.file
            && Some(next.offset) == self.offset.checked_add(covered)
            && next.first.lsn == self.first.lsn
            && Some(next.first.n) == self.first.n.checked_add(self.count);
        continues.then_some(Run { count: self.count + 1, last_len: next.last_len, ..*self })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(at::SIZE);
        out.put_u32_le(self.count);
        out.put_u32_le(self.extent_len);
        out.put_u32_le(self.last_len);
        out.put_object(self.first);
        out
    }

    /// Reads a run under the key of its first extent, and checks that no extent of it is out of range.
    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Run, FormatError> {
        let (file, offset) = split_key(key).ok_or(FormatError::Key("a run under a key of another kind"))?;
        let mut field = Reader::new(value);
        let (count, extent_len, last_len) = (field.u32()?, field.u32()?, field.u32()?);
        let first = field.object()?;
        field.end()?;
        if count < 2 {
            return Err(FormatError::TooShort { need: 2, have: u64::from(count) });
        }
        if count > RUN_EXTENTS_MAX {
            return Err(FormatError::TooBig { limit: u64::from(RUN_EXTENTS_MAX), found: u64::from(count) });
        }
        if last_len == 0 || last_len > extent_len || extent_len as usize > OBJECT_BYTES_MAX {
            return Err(FormatError::Value("lengths of a run of extents"));
        }
        let run = Run { file, offset, count, extent_len, last_len, first };
        let last_start = u64::from(count - 1) * u64::from(extent_len);
        if offset.checked_add(last_start).is_none() || first.n.checked_add(count - 1).is_none() {
            return Err(FormatError::Value("a run of extents that ends out of range"));
        }
        Ok(run)
    }

    /// The key of extent `j`.
    pub(super) fn key(&self, j: u32) -> [u8; EXTENT_KEY_BYTES] {
        let offset = self.offset + u64::from(j) * u64::from(self.extent_len);
        let mut key = [0; EXTENT_KEY_BYTES];
        key[..OFFSET_AT].copy_from_slice(&self.file);
        key[OFFSET_AT..].copy_from_slice(&offset.to_be_bytes());
        key
    }

    /// The value of extent `j`.
    pub(super) fn value(&self, j: u32) -> Bytes {
        let len = if j + 1 == self.count { self.last_len } else { self.extent_len };
        let object = ObjectId { lsn: self.first.lsn, n: self.first.n + j };
        Extent { len, object, object_offset: 0 }.encode()
    }

    /// The first extent whose key is `key` or above; `count` if there is none.
    pub(super) fn lower_bound(&self, key: &[u8]) -> u32 {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if &self.key(middle)[..] < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

fn split_key(key: &[u8]) -> Option<([u8; OFFSET_AT], u64)> {
    let (file, offset) = key.split_first_chunk::<OFFSET_AT>()?;
    let offset = u64::from_be_bytes(offset.try_into().ok()?);
    (file[OFFSET_AT - 1] == EXTENT).then_some((*file, offset))
}

const _: () =
    assert!(at::SIZE > EXTENT_BYTES && at::SIZE < 2 * EXTENT_BYTES, "a run of two is smaller than two extents");
