//! A group: the batches that one write adds to a journal segment. Groups start and end at block boundaries, so a durable
//! block is never written again.
//!
//! A group says where and when it was written (nonce, sequence, segment, offset); all of that is under its checksum, so
//! nothing stale in a recycled segment can pass for it. It ends in bytes that are never zero, so a group whose end was
//! lost to zeros is told from one that is whole without trusting the checksum alone.

use super::error::FormatError;
use super::ids::{JournalNo, Lsn, Nonce};
use super::wire::{LSN_BYTES, PutIds, Reader, check_seal, fits, layout, seal};
use crate::base::canary::Canary;
use bytes::BufMut;
use std::ops::Range;

/// Groups start at multiples of this.
pub const GROUP_BLOCK: usize = 4096;

const MAGIC: u32 = u32::from_le_bytes(*b"SKgr");
const TRAILER: [u8; 8] = *b"SKgroup.";

layout! {
    /// Nonce and sequence come early: they are what a scan looks at first.
    mod at, 96 bytes {
        MAGIC: 4, CRC: 4, NONCE: 16, SEQUENCE: 8, SEGMENT: 8, OFFSET: 8, DURABLE: super::LSN_BYTES,
        FIRST: super::LSN_BYTES, WALL: 8, BATCHES: 4, PAYLOAD_LEN: 4, RESERVED: 8,
    }
}

/// Bytes of the header.
pub const GROUP_HEADER_BYTES: usize = at::SIZE;
/// Bytes that a group adds to its batches before it is padded to a block.
pub const GROUP_OVERHEAD: usize = GROUP_HEADER_BYTES + TRAILER.len();
/// The most bytes of batches in a group. Far above what is ever written at once; it bounds what a scan of stale bytes reads.
pub const GROUP_PAYLOAD_MAX: usize = 256 << 20;

/// The header of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// The mount that wrote it.
    pub nonce: Nonce,
    /// Its number in that mount, from 1.
    pub sequence: u64,
    /// The journal segment it was written to.
    pub segment: JournalNo,
    /// Where in the segment it starts, bytes.
    pub offset: u64,
    /// What was durable when it was written. Damage below is never taken for a torn tail.
    pub durable: Lsn,
    /// The Lsn of its first batch.
    pub first: Lsn,
    /// When it was written: nanoseconds since 1970.
    pub wall: i64,
    /// How many batches it holds.
    pub batches: u32,
    /// Bytes of all its batches. [`encode_group`] computes it.
    pub payload_len: u32,
}

/// What the first block says of a group, not verified: enough to decide whether to read the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupPeek {
    /// The nonce that the block claims.
    pub nonce: Nonce,
    /// The sequence that it claims.
    pub sequence: u64,
    /// The journal segment that it claims to be in,
    pub segment: JournalNo,
    /// and where in that.
    pub offset: u64,
    /// Bytes of the whole group, up to the next block boundary.
    pub padded_len: usize,
}

/// Bytes of a group over `payload_len` bytes of batches, up to the next block boundary.
pub fn padded_len(payload_len: usize) -> usize {
    (GROUP_OVERHEAD + payload_len).next_multiple_of(GROUP_BLOCK)
}

/// Encodes a group over the concatenation of `payload`; `header.payload_len` is computed.
pub fn encode_group(header: GroupHeader, payload: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_group_to(&mut out, header, payload);
    out
}

/// The same into a buffer that was used before; what it held is gone.
pub fn encode_group_to(out: &mut Vec<u8>, header: GroupHeader, payload: &[&[u8]]) {
    let payload_len = payload.iter().map(|part| part.len()).sum();
    assert!(payload_len <= GROUP_PAYLOAD_MAX, "a group of {payload_len} bytes");
    let padded = padded_len(payload_len);
    out.clear();
    out.reserve(padded);
    out.put_u32_le(MAGIC);
    out.put_u32_le(0);
    out.put_u128_le(header.nonce.0);
    out.put_u64_le(header.sequence);
    out.put_u64_le(header.segment.0);
    out.put_u64_le(header.offset);
    out.put_lsn(header.durable);
    out.put_lsn(header.first);
    out.put_i64_le(header.wall);
    out.put_u32_le(header.batches);
    out.put_u32_le(fits(payload_len));
    out.put_u64_le(0);
    for part in payload {
        out.put_slice(part);
    }
    out.resize(padded - TRAILER.len(), 0);
    out.put_slice(&TRAILER);
    seal(out, at::CRC);
}

/// Reads from the first block how long the group is, without verifying anything but the magic and the length's limit.
pub fn peek(first_block: &[u8]) -> Result<GroupPeek, FormatError> {
    let header = decode_header(first_block)?;
    let padded_len = padded_len(header.payload_len as usize);
    let GroupHeader { nonce, sequence, segment, offset, .. } = header;
    Ok(GroupPeek { nonce, sequence, segment, offset, padded_len })
}

/// Decodes the group at the start of `bytes`. Returns its header, where its batches are, and its padded length.
pub fn decode_group(bytes: &[u8]) -> Result<(GroupHeader, Range<usize>, usize), FormatError> {
    let header = decode_header(bytes)?;
    let padded = padded_len(header.payload_len as usize);
    let short = FormatError::TooShort { need: padded as u64, have: bytes.len() as u64 };
    let group = bytes.get(..padded).ok_or(short)?;
    check_seal(group, at::CRC, Canary::GroupCrc)?;
    if !group.ends_with(&TRAILER) {
        return Err(FormatError::Value("a group without its trailer"));
    }
    Ok((header, at::SIZE..at::SIZE + header.payload_len as usize, padded))
}

fn decode_header(bytes: &[u8]) -> Result<GroupHeader, FormatError> {
    let mut field = Reader::new(bytes);
    field.magic("a group", MAGIC)?;
    let _crc = field.u32()?;
    let header = GroupHeader {
        nonce: field.nonce()?,
        sequence: field.u64()?,
        segment: JournalNo(field.u64()?),
        offset: field.u64()?,
        durable: field.lsn()?,
        first: field.lsn()?,
        wall: field.i64()?,
        batches: field.u32()?,
        payload_len: field.u32()?,
    };
    field.zeros(8)?;
    if header.payload_len as usize > GROUP_PAYLOAD_MAX {
        return Err(FormatError::TooBig { limit: GROUP_PAYLOAD_MAX as u64, found: u64::from(header.payload_len) });
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::faults::{assert_cuts_are_found, assert_flips_are_found};

    fn header() -> GroupHeader {
        let (durable, first) = (Lsn { epoch: 2, pos: 9 }, Lsn { epoch: 2, pos: 11 });
        let (nonce, segment) = (Nonce(77), JournalNo(5));
        GroupHeader { nonce, sequence: 3, segment, offset: 8192, durable, first, wall: -5, batches: 2, payload_len: 0 }
    }

    #[test]
    fn groups_survive_the_trip_and_fill_whole_blocks() {
        for len in [0, 1, 3992, 3993, 9000] {
            let payload = vec![0xab; len];
            let (left, right) = payload.split_at(len / 3);
            let bytes = encode_group(header(), &[left, right]);
            assert_eq!(bytes.len() % GROUP_BLOCK, 0);
            let (decoded, range, padded) = decode_group(&bytes).expect("valid");
            assert_eq!(decoded, GroupHeader { payload_len: fits(len), ..header() });
            assert_eq!((&bytes[range], padded), (&payload[..], bytes.len()));
            let peeked = peek(&bytes[..GROUP_BLOCK]).expect("valid");
            let (nonce, segment) = (Nonce(77), JournalNo(5));
            assert_eq!(peeked, GroupPeek { nonce, sequence: 3, segment, offset: 8192, padded_len: bytes.len() });
        }
        assert_eq!((padded_len(3992), padded_len(3993)), (4096, 8192));
    }

    #[test]
    fn promise_s4_every_flipped_bit_and_every_cut_of_a_group_is_found() {
        let bytes = encode_group(header(), &[b"batches"]);
        assert_flips_are_found(&bytes, |_| true, decode_group);
        assert_cuts_are_found(&bytes, decode_group);
    }

    #[test]
    fn a_group_whose_end_was_lost_to_zeros_is_found() {
        let mut bytes = encode_group(header(), &[&[0; 6000]]);
        let torn = bytes.len() - TRAILER.len();
        bytes[torn..].fill(0);
        seal(&mut bytes, at::CRC);
        assert!(matches!(decode_group(&bytes), Err(FormatError::Value(_))));
    }

    #[test]
    fn promise_g1_group_faults_are_told_apart() {
        let bytes = encode_group(header(), &[b"batches"]);
        let changed = |at: usize, to: u8| {
            let mut changed = bytes.clone();
            changed[at] = to;
            decode_group(&changed).map(|_| ())
        };
        assert!(matches!(changed(at::MAGIC, 0), Err(FormatError::Magic { .. })));
        assert!(matches!(changed(at::CRC, !bytes[at::CRC]), Err(FormatError::Checksum { .. })));
        assert!(matches!(changed(at::PAYLOAD_LEN + 3, 0xff), Err(FormatError::TooBig { .. })));
        assert!(matches!(changed(at::PAYLOAD_LEN + 2, 1), Err(FormatError::TooShort { .. })));
        assert!(matches!(changed(at::RESERVED, 1), Err(FormatError::Value(_))));
        assert!(matches!(decode_group(&[]), Err(FormatError::TooShort { need: 4, have: 0 })));
    }
}
