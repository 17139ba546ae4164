//! Object tables: a store segment of chunks says itself which objects are in it, so that a lost index of its window can be made
//! anew. They are the last bodies of the segment, no larger than any other, and no index names them.
//!
//! A chunk holds whatever a user wrote, also what looks like a table. Which bodies are tables follows from their places
//! alone: the last body of the segment says how many of the last ones are.

use super::chunk::check_len;
use super::error::FormatError;
use super::ids::{InodeNo, Lsn, OBJECT_BYTES_MAX, ObjectId, SegmentNo, Uuid};
use super::store_segment::{BODY_OVERHEAD_BYTES, StoreSegment};
use super::wire::{
    LSN_BYTES, OBJECT_ID_BYTES, PutIds, Reader, SEGMENT_NO_BYTES, VERSION, check_seal, fits, layout, seal,
};
use crate::base::canary::Canary;
use bytes::{BufMut, Bytes};

const MAGIC: u32 = u32::from_le_bytes(*b"SKob");

layout! {
    /// Records follow. The checksum is of all.
    mod at, 80 bytes {
        MAGIC: 4, CRC: 4, VERSION: 2, RESERVED: 2, UUID: 16, SEGMENT: super::SEGMENT_NO_BYTES, START: super::LSN_BYTES,
        END: super::LSN_BYTES, CHUNKS: 4, TABLES: 4, NUMBER: 4, COUNT: 4,
    }
}
layout! {
    mod record_at, 48 bytes {
        OBJECT: super::OBJECT_ID_BYTES, CHUNK_OFFSET: 8, OFFSET_IN_CHUNK: 4, LEN: 4, BIRTH_INO: 8, BIRTH_OFFSET: 8,
    }
}

/// The most objects in a table, and so in a chunk: a segment of one chunk is not much larger than that.
pub const TABLE_OBJECTS_MAX: usize = (OBJECT_BYTES_MAX - at::SIZE) / record_at::SIZE;
/// Bytes that an object takes in a table.
pub const TABLE_RECORD_BYTES: usize = record_at::SIZE;

/// Where in its segment an object is, and where in the files it was born.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRecord {
    /// The object.
    pub object: ObjectId,
    /// Where the stored bytes of its chunk start in the segment.
    pub chunk_offset: u64,
    /// Where in the opened chunk it starts.
    pub offset_in_chunk: u32,
    /// Its length in bytes.
    pub len: u32,
    /// The file in which it was born.
    pub birth_ino: InodeNo,
    /// Where in that file.
    pub birth_offset: u64,
}

impl TableRecord {
    fn end_in_chunk(&self) -> u64 {
        u64::from(self.offset_in_chunk) + u64::from(self.len)
    }

    fn encode_to(&self, out: &mut Vec<u8>) {
        out.put_object(self.object);
        out.put_u64_le(self.chunk_offset);
        out.put_u32_le(self.offset_in_chunk);
        out.put_u32_le(self.len);
        out.put_u64_le(self.birth_ino.0);
        out.put_u64_le(self.birth_offset);
    }

    fn read(field: &mut Reader<'_>) -> Result<TableRecord, FormatError> {
        let record = TableRecord {
            object: field.object()?,
            chunk_offset: field.u64()?,
            offset_in_chunk: field.u32()?,
            len: field.u32()?,
            birth_ino: InodeNo(field.u64()?),
            birth_offset: field.u64()?,
        };
        check_len(record.len, OBJECT_BYTES_MAX)?;
        match record.end_in_chunk() <= OBJECT_BYTES_MAX as u64 {
            true => Ok(record),
            false => Err(FormatError::Value("an object that reaches over the end of any chunk")),
        }
    }

    /// Whether it may follow another one: chunks in order, and in each the objects in order and apart.
    fn follows(&self, before: &TableRecord) -> bool {
        let (own, other) = (self.chunk_offset, before.chunk_offset);
        own > other || own == other && u64::from(self.offset_in_chunk) >= before.end_in_chunk()
    }
}

/// What all tables of a segment say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableOf {
    /// The filesystem.
    pub uuid: Uuid,
    /// The segment.
    pub segment: SegmentNo,
    /// Where the window starts that it was shipped with; not in it.
    pub start: Lsn,
    /// Where that ends; in it.
    pub end: Lsn,
    /// Chunks in the segment; the tables follow them.
    pub chunks: u32,
    /// Tables in the segment.
    pub tables: u32,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectTable {
    /// What it says together with the others of its segment.
    pub of: TableOf,
    /// Which of them it is, from 0.
    pub number: u32,
    /// Objects, in the order in which they lie in the segment.
    pub records: Vec<TableRecord>,
}

/// Bytes that the tables of a segment with so many objects add to it, with what lies around them.
pub fn tables_len(objects: usize) -> u64 {
    (table_count(objects) * (BODY_OVERHEAD_BYTES + at::SIZE) + objects * record_at::SIZE) as u64
}

/// Tables that so many objects take.
pub fn table_count(objects: usize) -> usize {
    objects.div_ceil(TABLE_OBJECTS_MAX)
}

impl ObjectTable {
    /// The bytes of the table.
    ///
    /// # Panics
    /// When it has no records or too many, or they are not in order.
    pub fn encode(&self) -> Vec<u8> {
        assert!((1..=TABLE_OBJECTS_MAX).contains(&self.records.len()), "a table of {} objects", self.records.len());
        assert_eq!(self.check(), Ok(()), "a table is well formed");
        let TableOf { uuid, segment, start, end, chunks, tables } = self.of;
        let mut out = Vec::with_capacity(at::SIZE + self.records.len() * record_at::SIZE);
        out.put_u32_le(MAGIC);
        out.put_u32_le(0);
        out.put_u16_le(VERSION);
        out.put_u16_le(0);
        out.put_u128_le(uuid.0);
        out.put_segment(segment);
        out.put_lsn(start);
        out.put_lsn(end);
        out.put_u32_le(chunks);
        out.put_u32_le(tables);
        out.put_u32_le(self.number);
        out.put_u32_le(fits(self.records.len()));
        self.records.iter().for_each(|record| record.encode_to(&mut out));
        seal(&mut out, at::CRC);
        out
    }

    /// Reads the bytes of a table.
    pub fn decode(bytes: &[u8]) -> Result<ObjectTable, FormatError> {
        let mut field = Reader::new(bytes);
        field.magic("an object table", MAGIC)?;
        let _crc = field.u32()?;
        field.version()?;
        field.zeros(2)?;
        let (uuid, segment, start, end) = (field.uuid()?, field.segment()?, field.lsn()?, field.lsn()?);
        let (chunks, tables, number) = (field.u32()?, field.u32()?, field.u32()?);
        let count = field.count(record_at::SIZE)?;
        let (need, have) = ((at::SIZE + count * record_at::SIZE) as u64, bytes.len() as u64);
        if have > need {
            return Err(FormatError::TooBig { limit: need, found: have });
        }
        check_seal(bytes, at::CRC, Canary::ObjectTableCrc)?;
        if count == 0 || count > TABLE_OBJECTS_MAX {
            return Err(FormatError::Value("a table of no or too many objects"));
        }
        let records = (0..count).map(|_| TableRecord::read(&mut field)).collect::<Result<_, _>>()?;
        field.end()?;
        let table = ObjectTable { of: TableOf { uuid, segment, start, end, chunks, tables }, number, records };
        table.check()?;
        Ok(table)
    }

    fn check(&self) -> Result<(), FormatError> {
        let TableOf { start, end, chunks, tables, .. } = self.of;
        if self.number >= tables || chunks == 0 || start >= end {
            return Err(FormatError::Value("a table of no segment"));
        }
        if !self.records.is_sorted_by(|a, b| b.follows(a)) {
            return Err(FormatError::Key("table records are not in order"));
        }
        match self.records.iter().all(|record| start < record.object.lsn && record.object.lsn <= end) {
            true => Ok(()),
            false => Err(FormatError::Value("an object of another window")),
        }
    }
}

/// The tables of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// What they say; `None` if the segment has none: one that an earlier version wrote.
    pub of: Option<TableOf>,
    /// The first body that is one; behind the last body if there is none.
    pub first: usize,
    /// The records of those that are whole, in order.
    pub records: Vec<TableRecord>,
    /// How many are not.
    pub damaged: usize,
}

impl Tables {
    /// Finds them among all bodies of a segment, in order; `None` stands for a body that is damaged. The last body decides:
    /// if it is no table, or is damaged, none is believed.
    pub fn among(uuid: Uuid, segment: SegmentNo, bodies: &[Option<Bytes>]) -> Tables {
        let none = Tables { first: bodies.len(), ..Tables::default() };
        let Some(last) = bodies.last().and_then(Option::as_ref).and_then(|body| ObjectTable::decode(body).ok()) else {
            return none;
        };
        let of = last.of;
        let all = u64::from(of.chunks) + u64::from(of.tables);
        if (of.uuid, of.segment) != (uuid, segment) || all != bodies.len() as u64 || last.number + 1 != of.tables {
            return none;
        }
        let mut tables = Tables { of: Some(of), first: of.chunks as usize, records: Vec::new(), damaged: 0 };
        for (number, body) in (0..).zip(&bodies[tables.first..]) {
            match body.as_ref().map(|body| ObjectTable::decode(body)) {
                Some(Ok(table)) if table.of == of && table.number == number => tables.records.extend(table.records),
                _ => tables.damaged += 1,
            }
        }
        tables
    }

    /// The same for a segment whose directory can be read.
    pub fn of_segment(segment: &StoreSegment, bytes: &Bytes) -> Tables {
        let bodies: Vec<Option<Bytes>> = (0..segment.entries.len()).map(|i| segment.body(bytes, i).ok()).collect();
        Tables::among(segment.header.uuid, segment.header.segment, &bodies)
    }
}

#[cfg(test)]
mod tests;
