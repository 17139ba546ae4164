//! What makes a generation in the store: a base, increments after it, a closing object at its end. Each carries who wrote
//! it and which Lsns it covers, so that a writer whose answer was lost can read back whether the object is its own.
//!
//! A base never names a segment, and an increment never a window, that is not durable in the store. Log increments name
//! nothing: their batches come whole. Their ends run ahead of the windows', so the ends of a generation do not rise.

mod body;
mod log;

pub use body::{Base, Body, Closing, Increment, WindowEntry, WindowSegment};
pub(super) use body::{encode_windows, read_windows};
pub use log::{Log, LogBatch};

use super::error::FormatError;
use super::ids::{Lsn, Nonce, Uuid};
use super::wire::{COUNTED_MAX, LSN_BYTES, PutIds, Reader, VERSION, check_seal, counted, layout, seal};
use crate::base::canary::Canary;
use bytes::{BufMut, Bytes};

const MAGIC: u32 = u32::from_le_bytes(*b"SKpu");

layout! {
    /// The body follows. The length is that of the whole object, so that one that is cut short says so.
    mod at, 128 bytes {
        MAGIC: 4, CRC: 4, VERSION: 2, KIND: 1, RESERVED: 1, LENGTH: 8, UUID: 16, STATE: 16, NONCE: 16, EPOCH: 4,
        GENERATION: 8, NUMBER: 8, WALL: 8, CHECKPOINT: 8, START: super::LSN_BYTES, END: super::LSN_BYTES,
    }
}

/// The most generations that a store can have: the number of each but the first is the epoch of a writer.
pub const GENERATION_MAX: u64 = u32::MAX as u64 - 1;

/// The most objects of a generation.
pub const NUMBER_MAX: u64 = COUNTED_MAX;

/// A number in a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The generation.
    pub generation: u64,
    /// The number in it.
    pub number: u64,
}

/// A numbered object of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The filesystem.
    pub uuid: Uuid,
    /// The state directory of the writer.
    pub state: Uuid,
    /// The writer's mount.
    pub nonce: Nonce,
    /// The writer's epoch.
    pub epoch: u32,
    /// The generation.
    pub generation: u64,
    /// The object's number in it; 0 for the base.
    pub number: u64,
    /// When it was written: nanoseconds since 1970.
    pub wall: i64,
    /// The newest checkpoint that is published with it.
    pub checkpoint: u64,
    /// Where the Lsns it covers start; not covered.
    pub start: Lsn,
    /// Where they end; covered.
    pub end: Lsn,
    /// What it says.
    pub body: Body,
}

impl Publication {
    /// The bytes of the object.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(at::SIZE + self.body.size_hint());
        out.put_u32_le(MAGIC);
        out.put_u32_le(0);
        out.put_u16_le(VERSION);
        out.put_u8(self.body.kind());
        out.put_u8(0);
        out.put_u64_le(0);
        out.put_u128_le(self.uuid.0);
        out.put_u128_le(self.state.0);
        out.put_u128_le(self.nonce.0);
        out.put_u32_le(self.epoch);
        out.put_u64_le(self.generation);
        out.put_u64_le(self.number);
        out.put_i64_le(self.wall);
        out.put_u64_le(self.checkpoint);
        out.put_lsn(self.start);
        out.put_lsn(self.end);
        self.body.encode_to(&mut out);
        let length = out.len() as u64;
        out[at::LENGTH..at::LENGTH + 8].copy_from_slice(&length.to_le_bytes());
        seal(&mut out, at::CRC);
        out
    }

    /// Reads the bytes of the object; the batches of an increment and of a log are a slice of them.
    pub fn decode(bytes: &Bytes) -> Result<Publication, FormatError> {
        let mut field = Reader::new(bytes);
        field.magic("an object of a generation", MAGIC)?;
        let _crc = field.u32()?;
        field.version()?;
        let kind = field.u8()?;
        field.zeros(1)?;
        let (length, have) = (field.u64()?, bytes.len() as u64);
        if have < length {
            return Err(FormatError::TooShort { need: length, have });
        }
        if have > length {
            return Err(FormatError::TooBig { limit: length, found: have });
        }
        check_seal(bytes, at::CRC, Canary::PublicationCrc)?;
        let (uuid, state, nonce) = (field.uuid()?, field.uuid()?, field.nonce()?);
        let (epoch, generation) = (field.u32()?, counted(field.u64()?, GENERATION_MAX)?);
        let (number, wall) = (field.counted()?, field.i64()?);
        let (checkpoint, start, end) = (field.counted()?, field.lsn()?, field.lsn()?);
        let body = Body::decode(kind, bytes.slice(field.offset()..))?;
        Ok(Publication { uuid, state, nonce, epoch, generation, number, wall, checkpoint, start, end, body })
    }
}

#[cfg(test)]
mod tests;
