//! What the kinds of numbered objects say after their common header.

use super::log::Log;
use crate::format::batch::Batch;
use crate::format::checkpoint::Settle;
use crate::format::error::FormatError;
use crate::format::ids::{Lsn, NodePtr, SegmentNo};
use crate::format::node::NODE_PTR_BYTES;
use crate::format::wire::{LSN_BYTES, PutIds, Reader, SEGMENT_NO_BYTES, fits, layout};
use bytes::{BufMut, Bytes};

const BASE: u8 = 1;
const INCREMENT: u8 = 2;
const CLOSING: u8 = 3;
const LOG: u8 = 4;

layout! {
    /// The windows follow, then a count, u32, and the node segments, then the settlement, then
    /// the log.
    mod base_at, 52 bytes { FILES_ROOT: super::NODE_PTR_BYTES, SPACE_ROOT: super::NODE_PTR_BYTES, WINDOW_COUNT: 4 }
}
layout! {
    /// The window's segments follow.
    mod window_at, 32 bytes { START: super::LSN_BYTES, END: super::LSN_BYTES, OBJECTS: 4, SEGMENT_COUNT: 4 }
}
layout! {
    mod window_segment_at, 24 bytes { SEGMENT: super::SEGMENT_NO_BYTES, BYTES: 8, OBJECTS: 4 }
}
layout! {
    mod node_segment_at, 20 bytes { SEGMENT: super::SEGMENT_NO_BYTES, BYTES: 8 }
}

/// The longest description of a writer, bytes.
const OWNER_BYTES_MAX: usize = 4096;

/// What a numbered object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A complete state.
    Base(Base),
    /// What came after.
    Increment(Increment),
    /// Nothing comes after.
    Closing(Closing),
    /// An increment that carries its batches whole, with their data. It supplements: the window that holds the batches is
    /// published all the same, and what of a log is not newer than the newest window counts no more.
    Log(Log),
}

/// A checkpoint published in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// Roots of the file map and the space map, in the order of `TreeId`; `None` for an empty tree.
    pub roots: [Option<NodePtr>; 2],
    /// Windows newer than its space tree.
    pub windows: Vec<WindowEntry>,
    /// The segments that hold its nodes, and their lengths in bytes.
    pub node_segments: Vec<(SegmentNo, u64)>,
    /// What the space tree has yet to be told of the checkpoint's merge.
    pub settlement: Vec<Settle>,
    /// Batches after its end that log increments of the generation before it carried, which nobody may read any more.
    pub log: Log,
}

/// A numbered run of batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Increment {
    /// The window that holds the objects of the batches; empty when they have none.
    pub windows: Vec<WindowEntry>,
    /// What the space tree has yet to be told of the merge of the checkpoint at the window's end.
    pub settlement: Vec<Settle>,
    /// Heads of batches without payload, back to back.
    pub batches: Bytes,
}

/// The end of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// The epoch of the writer that takes over.
    pub next_epoch: u32,
    /// Who that is, for people.
    pub owner: String,
}

/// A shipped window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowEntry {
    /// Where it starts; not in it.
    pub start: Lsn,
    /// Where it ends; in it.
    pub end: Lsn,
    /// The segments that hold its objects.
    pub segments: Vec<WindowSegment>,
    /// Objects in it.
    pub objects: u32,
}

/// A segment of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSegment {
    /// The segment.
    pub segment: SegmentNo,
    /// Its length in bytes.
    pub bytes: u64,
    /// Objects of the window in it.
    pub objects: u32,
}

impl Body {
    pub(super) fn kind(&self) -> u8 {
        match self {
            Body::Base(_) => BASE,
            Body::Increment(_) => INCREMENT,
            Body::Closing(_) => CLOSING,
            Body::Log(_) => LOG,
        }
    }

    pub(super) fn size_hint(&self) -> usize {
        match self {
            Body::Base(base) => {
                base_at::SIZE + base.node_segments.len() * node_segment_at::SIZE + base.log.batches.len()
            }
            Body::Increment(increment) => increment.batches.len() + 1024,
            Body::Closing(closing) => closing.owner.len() + 8,
            Body::Log(log) => log.batches.len(),
        }
    }

    pub(super) fn encode_to(&self, out: &mut Vec<u8>) {
        match self {
            Body::Base(base) => base.encode_to(out),
            Body::Increment(increment) => {
                encode_windows(&increment.windows, out);
                Settle::encode_all_to(&increment.settlement, out);
                out.put_slice(&increment.batches);
            }
            Body::Closing(closing) => {
                assert!(closing.owner.len() <= OWNER_BYTES_MAX, "an owner of {} bytes", closing.owner.len());
                out.put_u32_le(closing.next_epoch);
                out.put_slice(closing.owner.as_bytes());
            }
            Body::Log(log) => out.put_slice(&log.batches),
        }
    }

    pub(super) fn decode(kind: u8, bytes: Bytes) -> Result<Body, FormatError> {
        match kind {
            BASE => Base::decode(bytes).map(Body::Base),
            INCREMENT => Increment::decode(bytes).map(Body::Increment),
            CLOSING => Closing::decode(&bytes).map(Body::Closing),
            LOG => Ok(Body::Log(Log { batches: bytes })),
            found => Err(FormatError::Kind { found: u32::from(found) }),
        }
    }
}

impl Base {
    fn encode_to(&self, out: &mut Vec<u8>) {
        self.roots.iter().for_each(|root| NodePtr::encode_root_to(*root, out));
        encode_windows(&self.windows, out);
        out.put_u32_le(fits(self.node_segments.len()));
        for (segment, bytes) in &self.node_segments {
            out.put_segment(*segment);
            out.put_u64_le(*bytes);
        }
        Settle::encode_all_to(&self.settlement, out);
        out.put_slice(&self.log.batches);
    }

    fn decode(bytes: Bytes) -> Result<Base, FormatError> {
        let mut field = Reader::new(&bytes);
        let roots = [NodePtr::read_root(&mut field)?, NodePtr::read_root(&mut field)?];
        let windows = read_windows(&mut field)?;
        let count = field.count(node_segment_at::SIZE)?;
        let node_segments =
            (0..count).map(|_| Ok((field.segment()?, field.counted()?))).collect::<Result<_, FormatError>>()?;
        let settlement = Settle::read_all(&mut field)?;
        let log = Log { batches: bytes.slice(field.offset()..) };
        Ok(Base { roots, windows, node_segments, settlement, log })
    }
}

impl Increment {
    fn decode(bytes: Bytes) -> Result<Increment, FormatError> {
        let mut field = Reader::new(&bytes);
        let windows = read_windows(&mut field)?;
        if windows.len() > 1 {
            return Err(FormatError::TooBig { limit: 1, found: windows.len() as u64 });
        }
        let settlement = Settle::read_all(&mut field)?;
        Ok(Increment { windows, settlement, batches: bytes.slice(field.offset()..) })
    }

    /// The batches in order; after an error nothing more comes.
    pub fn batches(&self) -> impl Iterator<Item = Result<Batch, FormatError>> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            if at >= self.batches.len() {
                return None;
            }
            match Batch::decode(&self.batches, at) {
                Ok((batch, used)) => {
                    at += used;
                    Some(Ok(batch))
                }
                Err(error) => {
                    at = self.batches.len();
                    Some(Err(error))
                }
            }
        })
    }
}

impl Closing {
    fn decode(bytes: &[u8]) -> Result<Closing, FormatError> {
        let mut field = Reader::new(bytes);
        let next_epoch = field.u32()?;
        let owner = field.take(field.remaining())?;
        if owner.len() > OWNER_BYTES_MAX {
            return Err(FormatError::TooBig { limit: OWNER_BYTES_MAX as u64, found: owner.len() as u64 });
        }
        let owner = std::str::from_utf8(owner).map_err(|_| FormatError::Value("an owner that is not text"))?;
        Ok(Closing { next_epoch, owner: owner.to_owned() })
    }
}

/// Writes windows with their count before them.
pub(in crate::format) fn encode_windows(windows: &[WindowEntry], out: &mut Vec<u8>) {
    out.put_u32_le(fits(windows.len()));
    for window in windows {
        out.put_lsn(window.start);
        out.put_lsn(window.end);
        out.put_u32_le(window.objects);
        out.put_u32_le(fits(window.segments.len()));
        for segment in &window.segments {
            out.put_segment(segment.segment);
            out.put_u64_le(segment.bytes);
            out.put_u32_le(segment.objects);
        }
    }
}

/// Reads windows.
pub(in crate::format) fn read_windows(field: &mut Reader<'_>) -> Result<Vec<WindowEntry>, FormatError> {
    let count = field.count(window_at::SIZE)?;
    (0..count).map(|_| read_window(field)).collect()
}

fn read_window(field: &mut Reader<'_>) -> Result<WindowEntry, FormatError> {
    let (start, end, objects) = (field.lsn()?, field.lsn()?, field.u32()?);
    let count = field.count(window_segment_at::SIZE)?;
    let segments = (0..count)
        .map(|_| Ok(WindowSegment { segment: field.segment()?, bytes: field.counted()?, objects: field.u32()? }))
        .collect::<Result<_, FormatError>>()?;
    if start >= end {
        return Err(FormatError::Value("a window that ends where it starts or before"));
    }
    Ok(WindowEntry { start, end, segments, objects })
}
