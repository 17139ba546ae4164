//! Records of fixed size in blocks, each with its own checksum, so that a long list can be read in parts and searched
//! without being read whole. A block says which list it belongs to and which of its blocks it is.

use super::error::FormatError;
use super::ids::Lsn;
use super::wire::{LSN_BYTES, PutIds, Reader, check_seal, fits, layout, seal};
use crate::base::canary::Canary;
use bytes::BufMut;
use std::ops::Range;

/// Records in a block; the last block of a list may hold fewer.
pub const BLOCK_RECORDS: u32 = 64;

layout! {
    mod at, 20 bytes { CRC: 4, NUMBER: 4, LIST: super::LSN_BYTES }
}

/// A record of fixed size.
pub(crate) trait Record: Sized {
    /// The rule that the checksum of a block is checked.
    const CHECKED: Canary;
    /// Bytes of an encoded record.
    const BYTES: usize;
    fn encode_to(&self, out: &mut Vec<u8>);
    fn read(field: &mut Reader<'_>) -> Result<Self, FormatError>;
}

/// Blocks that `count` records take.
pub(crate) fn block_count(count: u32) -> u32 {
    count.div_ceil(BLOCK_RECORDS)
}

/// Records in block `number` of a list of `count`.
fn records_in(number: u32, count: u32) -> u32 {
    count.saturating_sub(number.saturating_mul(BLOCK_RECORDS)).min(BLOCK_RECORDS)
}

/// Where block `number` lies, from the start of the first block; empty beyond the last.
pub(crate) fn block_range<R: Record>(number: u32, count: u32) -> Range<u64> {
    let whole = at::SIZE as u64 + u64::from(BLOCK_RECORDS) * R::BYTES as u64;
    let start = u64::from(number) * whole;
    match records_in(number, count) {
        0 => start..start,
        records => start..start + at::SIZE as u64 + u64::from(records) * R::BYTES as u64,
    }
}

/// Bytes that all blocks of `count` records take.
pub(crate) fn bytes_of<R: Record>(count: u32) -> u64 {
    u64::from(block_count(count)) * at::SIZE as u64 + u64::from(count) * R::BYTES as u64
}

/// How many records are in blocks of so many bytes; `None` if no number takes just as many.
pub(crate) fn count_in<R: Record>(bytes: u64) -> Option<u32> {
    let whole = at::SIZE as u64 + u64::from(BLOCK_RECORDS) * R::BYTES as u64;
    let (blocks, rest) = (bytes / whole, bytes % whole);
    let last = rest.saturating_sub(at::SIZE as u64) / R::BYTES as u64;
    let count = u32::try_from(blocks.checked_mul(u64::from(BLOCK_RECORDS))?.checked_add(last)?).ok()?;
    (bytes_of::<R>(count) == bytes).then_some(count)
}

/// Appends the records in blocks. `list` is the Lsn at which the whole list ends; no two lists of a kind share it.
pub(crate) fn encode_blocks<R: Record>(list: Lsn, records: &[R], out: &mut Vec<u8>) {
    for (number, records) in records.chunks(BLOCK_RECORDS as usize).enumerate() {
        let start = out.len();
        out.put_u32_le(0);
        out.put_u32_le(fits(number));
        out.put_lsn(list);
        records.iter().for_each(|record| record.encode_to(out));
        seal(&mut out[start..], at::CRC);
    }
}

/// Decodes block `number` of a list of `count` records from exactly its bytes.
pub(crate) fn decode_block<R: Record>(bytes: &[u8], list: Lsn, number: u32, count: u32) -> Result<Vec<R>, FormatError> {
    let range = block_range::<R>(number, count);
    let (need, have) = (range.end - range.start, bytes.len() as u64);
    if have < need.max(at::SIZE as u64) {
        return Err(FormatError::TooShort { need, have });
    }
    if have > need {
        return Err(FormatError::TooBig { limit: need, found: have });
    }
    check_seal(bytes, at::CRC, R::CHECKED)?;
    let mut field = Reader::starting_at(bytes, at::NUMBER);
    if field.u32()? != number || field.lsn()? != list {
        return Err(FormatError::Value("a block of another list or another place"));
    }
    (0..records_in(number, count)).map(|_| R::read(&mut field)).collect()
}

/// Record `number` of a block that was verified before.
pub(crate) fn record<R: Record>(block: &[u8], number: u32) -> Result<R, FormatError> {
    R::read(&mut Reader::starting_at(block, at::SIZE + number as usize * R::BYTES))
}

/// How many records are in a block of this length.
pub(crate) fn records_of<R: Record>(block: &[u8]) -> u32 {
    u32::try_from(block.len().saturating_sub(at::SIZE) / R::BYTES).unwrap_or(0)
}

/// Decodes all blocks of a list of `count` records, which are the rest of the reader's bytes.
pub(crate) fn decode_blocks<R: Record>(mut field: Reader<'_>, list: Lsn, count: u32) -> Result<Vec<R>, FormatError> {
    let (need, have) = (bytes_of::<R>(count), field.remaining() as u64);
    if have < need {
        return Err(FormatError::TooShort { need, have });
    }
    let mut records = Vec::with_capacity(count as usize);
    for number in 0..block_count(count) {
        let range = block_range::<R>(number, count);
        let block = field.take((range.end - range.start) as usize)?;
        records.append(&mut decode_block(block, list, number, count)?);
    }
    field.end()?;
    Ok(records)
}
