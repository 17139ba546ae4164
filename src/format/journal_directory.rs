//! The directory at the end of a sealed journal segment: where each object of the segment is. It lies in blocks before a
//! footer block, at the very end of the segment, so that opening a sealed segment reads the footer alone and finding an
//! object one block.
//!
//! Every block carries nonce, segment and its own number: the directory of what the recycled file held before cannot pass
//! for the present one.

use super::error::FormatError;
use super::ids::{JournalNo, Lsn, Nonce, OBJECT_BYTES_MAX, ObjectId};
use super::wire::{LSN_BYTES, OBJECT_ID_BYTES, PutIds, Reader, check_seal, fits, layout, seal};
use super::{chunk::check_len, group::GROUP_BLOCK};
use crate::base::canary::Canary;
use bytes::BufMut;

/// Bytes of the footer and of each block.
pub const DIRECTORY_BLOCK: usize = GROUP_BLOCK;

const BLOCK_MAGIC: u32 = u32::from_le_bytes(*b"SKjd");
const FOOTER_MAGIC: u32 = u32::from_le_bytes(*b"SKjf");

layout! {
    /// Entries follow; what they leave of the block is zero.
    mod block_at, 36 bytes { MAGIC: 4, CRC: 4, NONCE: 16, SEGMENT: 8, NUMBER: 4 }
}
layout! {
    mod entry_at, 28 bytes { OBJECT: super::OBJECT_ID_BYTES, OFFSET: 4, LEN: 4, CRC: 4 }
}
layout! {
    /// The rest of the block is zero.
    mod footer_at, 76 bytes {
        MAGIC: 4, CRC: 4, NONCE: 16, SEGMENT: 8, END: 8, SEQUENCE: 8, FIRST: super::LSN_BYTES, LAST: super::LSN_BYTES,
        COUNT: 4,
    }
}

/// Entries in a block; the last block may hold fewer.
pub const DIRECTORY_BLOCK_ENTRIES: usize = (DIRECTORY_BLOCK - block_at::SIZE) / entry_at::SIZE;

/// Where an object is in a journal segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The object.
    pub object: ObjectId,
    /// Where its bytes start in the segment.
    pub offset: u32,
    /// How many there are.
    pub len: u32,
    /// CRC32C of them.
    pub crc: u32,
}

/// What the last block of a sealed journal segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The mount that sealed the segment.
    pub nonce: Nonce,
    /// The segment.
    pub segment: JournalNo,
    /// Where its groups end, bytes.
    pub end: u64,
    /// The sequence of its last group.
    pub sequence: u64,
    /// The first Lsn in it.
    pub first: Lsn,
    /// The last Lsn in it.
    pub last: Lsn,
    /// Entries in the directory.
    pub count: u32,
}

/// Blocks of a directory of `count` entries, without the footer.
pub fn directory_blocks(count: usize) -> usize {
    count.div_ceil(DIRECTORY_BLOCK_ENTRIES)
}

/// Bytes of a directory of `count` entries and its footer.
pub fn directory_bytes(count: usize) -> usize {
    (directory_blocks(count) + 1) * DIRECTORY_BLOCK
}

/// Encodes the directory and its footer, to be written so that they end where the segment ends. `footer.count` is
/// computed.
///
/// # Panics
/// When the entries are not sorted by object.
pub fn encode_directory(footer: Footer, entries: &[DirectoryEntry]) -> Vec<u8> {
    assert!(entries.is_sorted_by(|a, b| a.object < b.object), "directory entries are sorted");
    let mut out = Vec::with_capacity(directory_bytes(entries.len()));
    for (number, entries) in entries.chunks(DIRECTORY_BLOCK_ENTRIES).enumerate() {
        encode_block(&footer, fits(number), entries, &mut out);
    }
    let start = out.len();
    out.put_u32_le(FOOTER_MAGIC);
    out.put_u32_le(0);
    out.put_u128_le(footer.nonce.0);
    out.put_u64_le(footer.segment.0);
    out.put_u64_le(footer.end);
    out.put_u64_le(footer.sequence);
    out.put_lsn(footer.first);
    out.put_lsn(footer.last);
    out.put_u32_le(fits(entries.len()));
    out.resize(start + DIRECTORY_BLOCK, 0);
    seal(&mut out[start..], footer_at::CRC);
    out
}

fn encode_block(footer: &Footer, number: u32, entries: &[DirectoryEntry], out: &mut Vec<u8>) {
    let start = out.len();
    out.put_u32_le(BLOCK_MAGIC);
    out.put_u32_le(0);
    out.put_u128_le(footer.nonce.0);
    out.put_u64_le(footer.segment.0);
    out.put_u32_le(number);
    for entry in entries {
        out.put_object(entry.object);
        out.put_u32_le(entry.offset);
        out.put_u32_le(entry.len);
        out.put_u32_le(entry.crc);
    }
    out.resize(start + DIRECTORY_BLOCK, 0);
    seal(&mut out[start..], block_at::CRC);
}

fn whole_block(bytes: &[u8]) -> Result<&[u8], FormatError> {
    match bytes.len() {
        DIRECTORY_BLOCK => Ok(bytes),
        have if have < DIRECTORY_BLOCK => {
            Err(FormatError::TooShort { need: DIRECTORY_BLOCK as u64, have: have as u64 })
        }
        found => Err(FormatError::TooBig { limit: DIRECTORY_BLOCK as u64, found: found as u64 }),
    }
}

impl Footer {
    /// Decodes the last block of a segment.
    pub fn decode(bytes: &[u8]) -> Result<Footer, FormatError> {
        let mut field = Reader::new(whole_block(bytes)?);
        field.magic("the footer of a journal segment", FOOTER_MAGIC)?;
        check_seal(bytes, footer_at::CRC, Canary::JournalFooterCrc)?;
        let _crc = field.u32()?;
        Ok(Footer {
            nonce: field.nonce()?,
            segment: JournalNo(field.u64()?),
            end: field.u64()?,
            sequence: field.u64()?,
            first: field.lsn()?,
            last: field.lsn()?,
            count: field.u32()?,
        })
    }

    /// Blocks of the directory, without the footer.
    pub fn blocks(&self) -> usize {
        directory_blocks(self.count as usize)
    }

    /// Where block `number` starts in a segment of `segment_bytes`; `None` when the segment cannot hold the directory.
    pub fn block_offset(&self, number: usize, segment_bytes: u64) -> Option<u64> {
        let start = segment_bytes.checked_sub(directory_bytes(self.count as usize) as u64)?;
        (start >= self.end).then_some(start + (number * DIRECTORY_BLOCK) as u64)
    }

    /// Decodes block `number` of the directory.
    pub fn decode_block(&self, number: usize, bytes: &[u8]) -> Result<Vec<DirectoryEntry>, FormatError> {
        let mut field = Reader::new(whole_block(bytes)?);
        field.magic("a block of a journal directory", BLOCK_MAGIC)?;
        check_seal(bytes, block_at::CRC, Canary::JournalDirectoryCrc)?;
        let _crc = field.u32()?;
        let place = (field.nonce()?, JournalNo(field.u64()?), field.u32()? as usize);
        if place != (self.nonce, self.segment, number) {
            return Err(FormatError::Value("a directory block of another segment or another place"));
        }
        let before = number.saturating_mul(DIRECTORY_BLOCK_ENTRIES);
        let count = (self.count as usize).saturating_sub(before).min(DIRECTORY_BLOCK_ENTRIES);
        let entries = (0..count).map(|_| DirectoryEntry::read(&mut field)).collect::<Result<Vec<_>, _>>()?;
        if !entries.is_sorted_by(|a, b| a.object < b.object) {
            return Err(FormatError::Key("directory entries are not in order"));
        }
        Ok(entries)
    }
}

impl DirectoryEntry {
    fn read(field: &mut Reader<'_>) -> Result<DirectoryEntry, FormatError> {
        let entry =
            DirectoryEntry { object: field.object()?, offset: field.u32()?, len: field.u32()?, crc: field.u32()? };
        check_len(entry.len, OBJECT_BYTES_MAX)?;
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::faults::assert_damage_is_found;

    fn entries(count: u32) -> Vec<DirectoryEntry> {
        let object = |n| ObjectId { lsn: Lsn { epoch: 1, pos: 5 }, n };
        (0..count).map(|n| DirectoryEntry { object: object(n), offset: 96 + n, len: 1 + n, crc: !n }).collect()
    }

    fn footer(count: u32) -> Footer {
        let (first, last) = (Lsn { epoch: 1, pos: 5 }, Lsn { epoch: 1, pos: 9 });
        Footer { nonce: Nonce(7), segment: JournalNo(3), end: 8192, sequence: 4, first, last, count }
    }

    fn block(bytes: &[u8], number: usize) -> &[u8] {
        &bytes[number * DIRECTORY_BLOCK..][..DIRECTORY_BLOCK]
    }

    #[test]
    fn directories_survive_the_trip() {
        for count in [0, 1, 145, 146, 400] {
            let bytes = encode_directory(Footer { count: 0, ..footer(0) }, &entries(count));
            assert_eq!(bytes.len(), directory_bytes(count as usize));
            let decoded = Footer::decode(&bytes[bytes.len() - DIRECTORY_BLOCK..]).expect("valid");
            assert_eq!(decoded, footer(count));
            let all = (0..decoded.blocks()).flat_map(|i| decoded.decode_block(i, block(&bytes, i)).expect("valid"));
            assert_eq!(all.collect::<Vec<_>>(), entries(count));
        }
        assert_eq!(DIRECTORY_BLOCK_ENTRIES, 145);
    }

    #[test]
    fn blocks_are_found_from_the_end_of_the_segment() {
        assert_eq!(footer(146).block_offset(0, 65536), Some(65536 - 3 * 4096));
        assert_eq!(footer(146).block_offset(1, 65536), Some(65536 - 2 * 4096));
        assert_eq!(footer(146).block_offset(0, 8192 + 2 * 4096), None, "over the groups");
        assert_eq!(footer(u32::MAX).block_offset(0, 65536), None);
    }

    #[test]
    fn promise_s4_every_flipped_bit_and_every_cut_of_a_directory_is_found() {
        let bytes = encode_directory(footer(2), &entries(2));
        assert_damage_is_found(block(&bytes, 0), |bytes| footer(2).decode_block(0, bytes));
        assert_damage_is_found(block(&bytes, 1), Footer::decode);
    }

    #[test]
    fn a_block_of_another_place_is_refused() {
        let bytes = encode_directory(footer(200), &entries(200));
        let refused = |footer: Footer, number| {
            assert!(matches!(footer.decode_block(number, block(&bytes, 0)), Err(FormatError::Value(_))));
        };
        refused(footer(200), 1);
        refused(Footer { nonce: Nonce(8), ..footer(200) }, 0);
        refused(Footer { segment: JournalNo(4), ..footer(200) }, 0);
    }

    #[test]
    fn promise_g1_directory_faults_are_told_apart() {
        let bytes = encode_directory(footer(1), &entries(1));
        let decode = |bytes: &[u8]| footer(1).decode_block(0, bytes);
        assert!(matches!(decode(&bytes[4096..]), Err(FormatError::Magic { .. })));
        assert!(matches!(decode(&bytes[..4095]), Err(FormatError::TooShort { .. })));
        assert!(matches!(decode(&bytes), Err(FormatError::TooBig { .. })));
        let resealed = |at: usize, to: [u8; 4]| {
            let mut block = block(&bytes, 0).to_vec();
            block[at..at + 4].copy_from_slice(&to);
            seal(&mut block, block_at::CRC);
            decode(&block)
        };
        let len = block_at::SIZE + entry_at::LEN;
        assert_eq!(resealed(len, [0; 4]), Err(FormatError::TooShort { need: 1, have: 0 }));
        assert_eq!(resealed(len, [1, 0, 1, 0]), Err(FormatError::TooBig { limit: 65536, found: 65537 }));
    }
}
