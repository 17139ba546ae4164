//! A checkpoint on local disk, a complete and consistent state: the roots of both trees as of one Lsn. Beside it lies the
//! plan of the window that ended there; beside one that a takeover made, the batches after it that log increments carried.

mod plan;

pub use plan::{Birth, Plan, PlanHeader};

use super::error::FormatError;
use super::ids::{Lsn, NodePtr, ObjectId, Uuid};
use super::node::NODE_PTR_BYTES;
use super::publication::{WindowEntry, encode_windows, read_windows};
use super::wire::{LSN_BYTES, OBJECT_ID_BYTES, PutIds, Reader, VERSION, check_seal, fits, layout, seal};
use crate::base::canary::Canary;
use bytes::BufMut;

const MAGIC: u32 = u32::from_le_bytes(*b"SKcp");

layout! {
    /// The settlement follows, then the windows as in a base, then, if there is one, the tail.
    mod at, 120 bytes {
        MAGIC: 4, CRC: 4, VERSION: 2, RESERVED: 2, UUID: 16, NUMBER: 8, LSN: super::LSN_BYTES,
        PREVIOUS_LSN: super::LSN_BYTES, WALL: 8, FILES_ROOT: super::NODE_PTR_BYTES, SPACE_ROOT: super::NODE_PTR_BYTES,
        SETTLE_COUNT: 4,
    }
}
layout! {
    mod settle_at, 20 bytes { OBJECT: super::OBJECT_ID_BYTES, DELTA: 4 }
}

/// A change, found by the merge, in how many extents name an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settle {
    /// The object.
    pub object: ObjectId,
    /// Extents that name it now, less those that did at the previous checkpoint.
    pub delta: i32,
}

/// Batches after a checkpoint that a takeover found in log increments. They lie in a file beside its record, whole and back to
/// back as in a log, and belong into the journal before any new batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailFile {
    /// The last of them.
    pub end: Lsn,
    /// Bytes of the file.
    pub bytes: u64,
}

/// A checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The filesystem.
    pub uuid: Uuid,
    /// The checkpoint's number in its state directory.
    pub number: u64,
    /// All batches up to this one are in it.
    pub lsn: Lsn,
    /// The same of the checkpoint before.
    pub previous_lsn: Lsn,
    /// When it was made: nanoseconds since 1970.
    pub wall: i64,
    /// Roots of the file map and the space map, in the order of `TreeId`; `None` for an empty tree.
    pub roots: [Option<NodePtr>; 2],
    /// What the space tree has yet to be told.
    pub settlement: Vec<Settle>,
    /// Shipped windows that the space tree has yet to be told of; only a takeover leaves any.
    pub windows: Vec<WindowEntry>,
    /// What comes after it, if a takeover found anything.
    pub tail: Option<TailFile>,
}

impl Checkpoint {
    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(at::SIZE + self.settlement.len() * settle_at::SIZE);
        out.put_u32_le(MAGIC);
        out.put_u32_le(0);
        out.put_u16_le(VERSION);
        out.put_u16_le(0);
        out.put_u128_le(self.uuid.0);
        out.put_u64_le(self.number);
        out.put_lsn(self.lsn);
        out.put_lsn(self.previous_lsn);
        out.put_i64_le(self.wall);
        self.roots.iter().for_each(|root| NodePtr::encode_root_to(*root, &mut out));
        Settle::encode_all_to(&self.settlement, &mut out);
        encode_windows(&self.windows, &mut out);
        if let Some(tail) = self.tail {
            out.put_lsn(tail.end);
            out.put_u64_le(tail.bytes);
        }
        seal(&mut out, at::CRC);
        out
    }

    /// Reads the bytes of the file.
    pub fn decode(bytes: &[u8]) -> Result<Checkpoint, FormatError> {
        let mut field = Reader::new(bytes);
        field.magic("a checkpoint", MAGIC)?;
        let _crc = field.u32()?;
        field.version()?;
        check_seal(bytes, at::CRC, Canary::CheckpointCrc)?;
        field.zeros(2)?;
        let (uuid, number) = (field.uuid()?, field.counted()?);
        let (lsn, previous_lsn, wall) = (field.lsn()?, field.lsn()?, field.i64()?);
        let roots = [NodePtr::read_root(&mut field)?, NodePtr::read_root(&mut field)?];
        let settlement = Settle::read_all(&mut field)?;
        let windows = read_windows(&mut field)?;
        let tail = TailFile::read(&mut field, lsn)?;
        field.end()?;
        Ok(Checkpoint { uuid, number, lsn, previous_lsn, wall, roots, settlement, windows, tail })
    }
}

impl TailFile {
    /// What is at the end of the record of a checkpoint at `lsn`; most have nothing there.
    fn read(field: &mut Reader<'_>, lsn: Lsn) -> Result<Option<TailFile>, FormatError> {
        if field.remaining() == 0 {
            return Ok(None);
        }
        let tail = TailFile { end: field.lsn()?, bytes: field.counted()? };
        match tail.end > lsn && tail.bytes > 0 {
            true => Ok(Some(tail)),
            false => Err(FormatError::Value("a tail with nothing in it")),
        }
    }
}

impl Settle {
    /// Writes a settlement with its count before it.
    pub(super) fn encode_all_to(settlement: &[Settle], out: &mut Vec<u8>) {
        out.put_u32_le(fits(settlement.len()));
        for settle in settlement {
            out.put_object(settle.object);
            out.put_i32_le(settle.delta);
        }
    }

    /// Reads a settlement.
    pub(super) fn read_all(field: &mut Reader<'_>) -> Result<Vec<Settle>, FormatError> {
        let count = field.count(settle_at::SIZE)?;
        (0..count).map(|_| Ok(Settle { object: field.object()?, delta: field.i32()? })).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::faults::assert_damage_is_found;
    use crate::format::ids::SegmentNo;

    fn sample() -> Checkpoint {
        let object = ObjectId { lsn: Lsn { epoch: 1, pos: 8 }, n: 2 };
        let settlement = vec![Settle { object, delta: -1 }, Settle { object, delta: 3 }];
        let root = NodePtr { segment: SegmentNo { epoch: 1, number: 4 }, offset: 108, len: 8000, crc: 7 };
        Checkpoint {
            uuid: Uuid(5),
            number: 3,
            lsn: Lsn { epoch: 1, pos: 9 },
            previous_lsn: Lsn { epoch: 1, pos: 4 },
            wall: -1,
            roots: [Some(root), None],
            settlement,
            windows: vec![WindowEntry {
                start: Lsn::ZERO,
                end: Lsn { epoch: 1, pos: 4 },
                segments: vec![],
                objects: 0,
            }],
            tail: None,
        }
    }

    fn with_tail() -> Checkpoint {
        Checkpoint { tail: Some(TailFile { end: Lsn { epoch: 1, pos: 12 }, bytes: 7000 }), ..sample() }
    }

    #[test]
    fn checkpoints_survive_the_trip() {
        assert_eq!(Checkpoint::decode(&sample().encode()), Ok(sample()));
        let empty = Checkpoint { settlement: vec![], windows: vec![], roots: [None, None], ..sample() };
        assert_eq!(Checkpoint::decode(&empty.encode()), Ok(empty));
        assert_eq!(Checkpoint::decode(&with_tail().encode()), Ok(with_tail()));
    }

    #[test]
    fn promise_s4_every_flipped_bit_and_every_cut_of_a_checkpoint_is_found() {
        assert_damage_is_found(&sample().encode(), Checkpoint::decode);
        assert_damage_is_found(&with_tail().encode(), Checkpoint::decode);
    }

    #[test]
    fn promise_g1_checkpoint_faults_are_told_apart() {
        let changed = |at: usize, to: &[u8], reseal: bool| {
            let mut bytes = sample().encode();
            bytes[at..at + to.len()].copy_from_slice(to);
            if reseal {
                seal(&mut bytes, super::at::CRC);
            }
            Checkpoint::decode(&bytes)
        };
        assert!(matches!(changed(at::MAGIC, b"X", false), Err(FormatError::Magic { .. })));
        assert_eq!(changed(at::VERSION, &[2], false), Err(FormatError::Version { supported: 1, found: 2 }));
        assert!(matches!(changed(at::NUMBER, &[9], false), Err(FormatError::Checksum { .. })));
        assert_eq!(changed(at::SETTLE_COUNT, &[99], true), Err(FormatError::TooBig { limit: 3, found: 99 }));
        assert!(changed(at::SETTLE_COUNT, &[1], true).is_err());
        for tail in [TailFile { end: sample().lsn, bytes: 1 }, TailFile { end: Lsn { epoch: 2, pos: 10 }, bytes: 0 }] {
            let empty = Checkpoint { tail: Some(tail), ..sample() };
            assert!(matches!(Checkpoint::decode(&empty.encode()), Err(FormatError::Value(_))));
        }
        assert!(matches!(Checkpoint::decode(&[]), Err(FormatError::TooShort { .. })));
    }
}
