//! The plan of a window: the objects that are live at its end and were born in it, in the order in which they are to be
//! packed. It lies beside the checkpoint that ends the window until the window is shipped.

use crate::base::canary::Canary;
use crate::format::blocks::{self, Record};
use crate::format::chunk::check_len;
use crate::format::error::FormatError;
use crate::format::ids::{InodeNo, Lsn, OBJECT_BYTES_MAX, ObjectId, Uuid};
use crate::format::wire::{LSN_BYTES, OBJECT_ID_BYTES, PutIds, Reader, VERSION, check_seal, fits, layout, seal};
use bytes::BufMut;
use std::ops::Range;

const MAGIC: u32 = u32::from_le_bytes(*b"SKpl");

layout! {
    /// Blocks of births follow. The checksum is of the header; each block has its own.
    mod at, 56 bytes {
        MAGIC: 4, CRC: 4, VERSION: 2, RESERVED: 2, UUID: 16, START: super::LSN_BYTES, END: super::LSN_BYTES, COUNT: 4,
    }
}
layout! {
    mod birth_at, 36 bytes { INO: 8, OFFSET: 8, OBJECT: super::OBJECT_ID_BYTES, LEN: 4 }
}

/// A live object and the extent under which it was born.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    /// The file.
    pub ino: InodeNo,
    /// Where the extent starts in the file.
    pub offset: u64,
    /// The object.
    pub object: ObjectId,
    /// Bytes of the extent that names it there; the object may be longer.
    pub len: u32,
}

impl Record for Birth {
    const CHECKED: Canary = Canary::PlanBlockCrc;
    const BYTES: usize = birth_at::SIZE;

    fn encode_to(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.ino.0);
        out.put_u64_le(self.offset);
        out.put_object(self.object);
        out.put_u32_le(self.len);
    }

    fn read(field: &mut Reader<'_>) -> Result<Birth, FormatError> {
        let (ino, offset) = (InodeNo(field.u64()?), field.u64()?);
        let (object, len) = (field.object()?, field.u32()?);
        check_len(len, OBJECT_BYTES_MAX)?;
        Ok(Birth { ino, offset, object, len })
    }
}

/// What starts a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanHeader {
    /// The filesystem.
    pub uuid: Uuid,
    /// Where the window starts; not in it.
    pub start: Lsn,
    /// Where it ends; in it.
    pub end: Lsn,
    /// Births in the plan.
    pub count: u32,
}

/// Bytes of a [`PlanHeader`].
const HEADER_BYTES: u64 = at::SIZE as u64;

impl PlanHeader {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(at::SIZE);
        out.put_u32_le(MAGIC);
        out.put_u32_le(0);
        out.put_u16_le(VERSION);
        out.put_u16_le(0);
        out.put_u128_le(self.uuid.0);
        out.put_lsn(self.start);
        out.put_lsn(self.end);
        out.put_u32_le(self.count);
        seal(&mut out, at::CRC);
        out
    }

    /// Reads the header from the start of a plan.
    pub fn decode(bytes: &[u8]) -> Result<PlanHeader, FormatError> {
        let header = Reader::new(bytes).take(at::SIZE.min(bytes.len()))?;
        let mut field = Reader::new(header);
        field.magic("a window plan", MAGIC)?;
        let _crc = field.u32()?;
        field.version()?;
        field.zeros(2)?;
        let (uuid, start, end, count) = (field.uuid()?, field.lsn()?, field.lsn()?, field.u32()?);
        check_seal(header, at::CRC, Canary::PlanCrc)?;
        Ok(PlanHeader { uuid, start, end, count })
    }

    /// Blocks of births.
    pub fn blocks(&self) -> u32 {
        blocks::block_count(self.count)
    }

    /// Where block `number` lies in the plan.
    pub fn block_range(&self, number: u32) -> Range<u64> {
        let range = blocks::block_range::<Birth>(number, self.count);
        HEADER_BYTES + range.start..HEADER_BYTES + range.end
    }

    /// Decodes block `number` from exactly its bytes.
    pub fn decode_block(&self, number: u32, bytes: &[u8]) -> Result<Vec<Birth>, FormatError> {
        let births: Vec<Birth> = blocks::decode_block(bytes, self.end, number, self.count)?;
        check_order(&births)?;
        Ok(births)
    }
}

/// A whole plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The filesystem.
    pub uuid: Uuid,
    /// Where the window starts; not in it.
    pub start: Lsn,
    /// Where it ends; in it.
    pub end: Lsn,
    /// The births, in the order of inode number and offset.
    pub births: Vec<Birth>,
}

impl Plan {
    /// The bytes of the file.
    ///
    /// # Panics
    /// When the births are not in order.
    pub fn encode(&self) -> Vec<u8> {
        assert_eq!(check_order(&self.births), Ok(()), "births are sorted");
        let count = fits(self.births.len());
        let mut out = PlanHeader { uuid: self.uuid, start: self.start, end: self.end, count }.encode();
        blocks::encode_blocks(self.end, &self.births, &mut out);
        out
    }

    /// Reads the bytes of the file.
    pub fn decode(bytes: &[u8]) -> Result<Plan, FormatError> {
        let PlanHeader { uuid, start, end, count } = PlanHeader::decode(bytes)?;
        let births = blocks::decode_blocks(Reader::starting_at(bytes, at::SIZE), end, count)?;
        check_order(&births)?;
        Ok(Plan { uuid, start, end, births })
    }
}

fn check_order(births: &[Birth]) -> Result<(), FormatError> {
    match births.is_sorted_by_key(|birth| (birth.ino, birth.offset)) {
        true => Ok(()),
        false => Err(FormatError::Key("births are not in order")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::faults::{assert_cuts_are_found, assert_damage_is_found};

    fn plan(count: u32) -> Plan {
        let object = |n| ObjectId { lsn: Lsn { epoch: 1, pos: 7 }, n };
        let birth = |n| Birth { ino: InodeNo(5), offset: u64::from(n) << 16, object: object(n), len: 1 + n };
        let (start, end) = (Lsn { epoch: 1, pos: 3 }, Lsn { epoch: 1, pos: 9 });
        Plan { uuid: Uuid(5), start, end, births: (0..count).map(birth).collect() }
    }

    #[test]
    fn plans_survive_the_trip_whole_and_in_blocks() {
        for count in [0, 1, 64, 65, 300] {
            let bytes = plan(count).encode();
            assert_eq!(Plan::decode(&bytes), Ok(plan(count)));
            let header = PlanHeader::decode(&bytes[..at::SIZE]).expect("valid");
            let range = |number| header.block_range(number).start as usize..header.block_range(number).end as usize;
            let births = (0..header.blocks()).flat_map(|n| header.decode_block(n, &bytes[range(n)]).expect("valid"));
            assert_eq!(births.collect::<Vec<_>>(), plan(count).births);
        }
    }

    #[test]
    fn promise_s4_every_flipped_bit_and_every_cut_of_a_plan_is_found() {
        assert_damage_is_found(&plan(3).encode(), Plan::decode);
        assert_cuts_are_found(&plan(66).encode(), Plan::decode);
    }

    #[test]
    fn a_block_of_another_place_or_plan_is_refused() {
        let bytes = plan(200).encode();
        let header = PlanHeader::decode(&bytes).expect("valid");
        let first = &bytes[at::SIZE..header.block_range(0).end as usize];
        assert!(matches!(header.decode_block(1, first), Err(FormatError::Value(_))));
        let other = PlanHeader { end: Lsn { epoch: 2, pos: 9 }, ..header };
        assert!(matches!(other.decode_block(0, first), Err(FormatError::Value(_))));
        assert!(header.decode_block(9, first).is_err() && header.decode_block(u32::MAX, &[]).is_err());
    }
}
