//! Reading bytes that may be anything. A [`Reader`] never panics, and no length it reads is believed beyond the bytes that
//! are there, so nothing larger than the input is ever allocated. Writing goes through [`bytes::BufMut`] on a `Vec`.

use super::error::FormatError;
use super::ids::{Lsn, Nonce, ObjectId, SegmentNo, Uuid};
use crate::base::canary::{Canary, removed};
use bytes::BufMut;

/// Names the offsets of a fixed layout: each field starts where the one before ends, and the total is asserted when
/// compiled.
macro_rules! layout {
    ($(#[$meta:meta])* $vis:vis mod $name:ident, $total:literal bytes { $($field:ident: $len:expr),* $(,)? }) => {
        $(#[$meta])*
        $vis mod $name {
            $crate::format::wire::layout!(@fields 0usize, $($field: $len,)*);
            const _: () = assert!(SIZE == $total);
        }
    };
    (@fields $at:expr, $field:ident: $len:expr, $($rest:ident: $rest_len:expr,)*) => {
        pub const $field: usize = $at;
        const _: () = assert!($field < SIZE);
        $crate::format::wire::layout!(@fields $field + $len, $($rest: $rest_len,)*);
    };
    (@fields $at:expr,) => {
        pub const SIZE: usize = $at;
    };
}
pub(crate) use layout;

/// Bytes of an encoded [`Lsn`].
pub(crate) const LSN_BYTES: usize = 4 + 8;
/// Bytes of an encoded [`SegmentNo`].
pub(crate) const SEGMENT_NO_BYTES: usize = 4 + 8;
/// Bytes of an encoded [`ObjectId`].
pub(crate) const OBJECT_ID_BYTES: usize = LSN_BYTES + 4;

/// The most that positions, counters and sums of bytes reach: what counts on from there never overflows.
pub(crate) const COUNTED_MAX: u64 = 1 << 62;

/// Takes fields from the front of a byte slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

macro_rules! integer {
    ($name:ident) => {
        pub(crate) fn $name(&mut self) -> Result<$name, FormatError> {
            Ok($name::from_le_bytes(self.array()?))
        }
    };
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// A reader of the same bytes that starts at `at`.
    pub(crate) fn starting_at(bytes: &'a [u8], at: usize) -> Reader<'a> {
        Reader { bytes, at: at.min(bytes.len()) }
    }

    /// Bytes from the start to the next field.
    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    /// Bytes not yet read.
    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..len).ok_or_else(|| self.short(len))?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let taken = self.bytes[self.at..].first_chunk::<N>().ok_or_else(|| self.short(N))?;
        self.at += N;
        Ok(*taken)
    }

    fn short(&self, len: usize) -> FormatError {
        FormatError::TooShort { need: (self.at as u64).saturating_add(len as u64), have: self.bytes.len() as u64 }
    }

    integer!(u8);
    integer!(u16);
    integer!(u32);
    integer!(u64);
    integer!(u128);
    integer!(i32);
    integer!(i64);

    /// A number that something counts on from.
    pub(crate) fn counted(&mut self) -> Result<u64, FormatError> {
        counted(self.u64()?, COUNTED_MAX)
    }

    pub(crate) fn lsn(&mut self) -> Result<Lsn, FormatError> {
        Ok(Lsn { epoch: self.u32()?, pos: self.counted()? })
    }

    pub(crate) fn object(&mut self) -> Result<ObjectId, FormatError> {
        Ok(ObjectId { lsn: self.lsn()?, n: self.u32()? })
    }

    pub(crate) fn segment(&mut self) -> Result<SegmentNo, FormatError> {
        Ok(SegmentNo { epoch: self.u32()?, number: self.counted()? })
    }

    pub(crate) fn uuid(&mut self) -> Result<Uuid, FormatError> {
        Ok(Uuid(self.u128()?))
    }

    pub(crate) fn nonce(&mut self) -> Result<Nonce, FormatError> {
        Ok(Nonce(self.u128()?))
    }

    /// Checks the magic number that starts `what`.
    pub(crate) fn magic(&mut self, what: &'static str, expected: u32) -> Result<(), FormatError> {
        match self.u32()? {
            found if found == expected => Ok(()),
            found => Err(FormatError::Magic { what, expected, found }),
        }
    }

    /// Checks a version field: 1 is the only version so far.
    pub(crate) fn version(&mut self) -> Result<(), FormatError> {
        match self.u16()? {
            VERSION => Ok(()),
            found => Err(FormatError::Version { supported: u32::from(VERSION), found: u32::from(found) }),
        }
    }

    /// Skips bytes that are zero until a later version gives them a meaning.
    pub(crate) fn zeros(&mut self, len: usize) -> Result<(), FormatError> {
        match self.take(len)?.iter().all(|&b| b == 0) {
            true => Ok(()),
            false => Err(FormatError::Value("reserved bytes are not zero")),
        }
    }

    /// A count of records of `record_bytes` each, believed only if that many can follow.
    pub(crate) fn count(&mut self, record_bytes: usize) -> Result<usize, FormatError> {
        let found = u64::from(self.u32()?);
        let limit = (self.remaining() / record_bytes) as u64;
        if found > limit {
            return Err(FormatError::TooBig { limit, found });
        }
        Ok(found as usize)
    }

    /// Ends reading: nothing may be left.
    pub(crate) fn end(&self) -> Result<(), FormatError> {
        match self.remaining() {
            0 => Ok(()),
            _ => Err(FormatError::TooBig { limit: self.at as u64, found: self.bytes.len() as u64 }),
        }
    }
}

/// The version that every binary object written today carries.
pub(crate) const VERSION: u16 = 1;

/// Puts ids in the order in which [`Reader`] takes them.
pub(crate) trait PutIds: BufMut {
    fn put_lsn(&mut self, lsn: Lsn) {
        self.put_u32_le(lsn.epoch);
        self.put_u64_le(lsn.pos);
    }

    fn put_object(&mut self, object: ObjectId) {
        self.put_lsn(object.lsn);
        self.put_u32_le(object.n);
    }

    fn put_segment(&mut self, segment: SegmentNo) {
        self.put_u32_le(segment.epoch);
        self.put_u64_le(segment.number);
    }
}

impl<T: BufMut> PutIds for T {}

/// A length that is known to fit its field.
pub(crate) fn fits<T: TryFrom<usize>>(len: usize) -> T {
    T::try_from(len).ok().expect("a length that fits its field")
}

/// A number up to `limit`.
pub(crate) fn counted(found: u64, limit: u64) -> Result<u64, FormatError> {
    if found <= limit { Ok(found) } else { Err(FormatError::TooBig { limit, found }) }
}

/// Checksum of `bytes` as if the four bytes at `crc_at` were zero.
fn crc_without(bytes: &[u8], crc_at: usize) -> u32 {
    let crc = crc32c::crc32c(&bytes[..crc_at]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &bytes[crc_at + 4..])
}

/// Writes the checksum of all of `bytes` into the four bytes at `crc_at`.
pub(crate) fn seal(bytes: &mut [u8], crc_at: usize) {
    let crc = crc_without(bytes, crc_at);
    bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Checks what [`seal`] wrote, under the name of the rule that it is checked.
pub(crate) fn check_seal(bytes: &[u8], crc_at: usize, rule: Canary) -> Result<(), FormatError> {
    let expected = Reader::starting_at(bytes, crc_at).u32()?;
    same_crc(expected, crc_without(bytes, crc_at), rule)
}

/// Compares a recorded checksum with a computed one, under the name of the rule that they are the same.
pub(crate) fn same_crc(expected: u32, found: u32, rule: Canary) -> Result<(), FormatError> {
    if expected == found || removed(rule) { Ok(()) } else { Err(FormatError::Checksum { expected, found }) }
}
