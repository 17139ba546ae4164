//! Taking apart what came from the store. Only whole bodies that are what their frames say come out of here.

use crate::base::canary::{Canary, removed};
use crate::cache::Class;
use crate::format::ids::{SegmentKind, SegmentNo};
use crate::format::store_segment::{FRAME_BYTES, read_frame};
use bytes::Bytes;
use std::ops::Range;

/// The stored bytes of a chunk or a node, as whoever names it knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body {
    /// Where they start in their segment.
    pub offset: u64,
    /// How many there are.
    pub len: u32,
    /// Their CRC32C.
    pub crc: u32,
}

impl Body {
    /// Where the bytes lie.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.len)
    }

    /// Where they lie with the frame in front of them.
    pub fn framed(&self) -> Range<u64> {
        self.offset.saturating_sub(FRAME_BYTES as u64)..self.range().end
    }

    /// Whether these are the bytes.
    pub fn is(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.len as usize && (crc32c::crc32c(bytes) == self.crc || removed(Canary::ChunkCrc))
    }

    /// The same for bytes of a cache file, in which anything may be.
    pub fn is_copy(&self, bytes: &[u8]) -> bool {
        self.is(bytes) || removed(Canary::CopyVerified) && bytes.len() == self.len as usize
    }
}

/// What a segment of a class packs.
pub(super) fn kind_of(class: Class) -> SegmentKind {
    match class {
        Class::Nodes => SegmentKind::Nodes,
        Class::Data | Class::Indexes => SegmentKind::Chunks,
    }
}

/// Framed bodies that follow one another, each verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub start: u64,
    pub bytes: Bytes,
}

impl Span {
    pub fn range(&self) -> Range<u64> {
        self.start..self.start + self.bytes.len() as u64
    }

    /// A part of it; `None` unless all of that is in it.
    pub fn get(&self, range: &Range<u64>) -> Option<Bytes> {
        let all = self.range();
        let index = |at: u64| usize::try_from(at - self.start).expect("a span is short");
        (all.start <= range.start && range.end <= all.end)
            .then(|| self.bytes.slice(index(range.start)..index(range.end)))
    }
}

/// What of an answer is good.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verified {
    pub spans: Vec<Span>,
    /// Bodies whose bytes are not what their frames say.
    pub damaged: u64,
}

/// What lies at a place.
enum Found {
    /// A good body, and where the next frame starts.
    Good(u64),
    /// The same, but its bytes are damaged.
    Bad(u64),
    /// A frame or body that goes on behind the end.
    Cut,
    /// No frame: the directory, or damage.
    NoFrame,
}

/// Goes over `bytes`, which lie at `start` in the segment, frame by frame. Where there is no frame it goes on at the next of
/// `wanted`: the places, in order, where the one who asked knows of a frame.
pub(super) fn verify(segment: SegmentNo, kind: SegmentKind, start: u64, bytes: &Bytes, wanted: &[u64]) -> Verified {
    let mut verified = Verified::default();
    let (mut at, mut good) = (start, start);
    let end = start + bytes.len() as u64;
    let index = |at: u64| usize::try_from(at - start).expect("an answer is short");
    let close = |good: u64, at: u64, verified: &mut Verified| {
        if good < at {
            verified.spans.push(Span { start: good, bytes: bytes.slice(index(good)..index(at)) });
        }
    };
    while at < end {
        let next = match look(segment, kind, at, &bytes[index(at)..]) {
            Found::Good(next) => {
                at = next;
                continue;
            }
            Found::Bad(next) => {
                verified.damaged += 1;
                Some(next)
            }
            Found::Cut | Found::NoFrame => wanted.iter().copied().find(|known| (at + 1..end).contains(known)),
        };
        close(good, at, &mut verified);
        at = next.unwrap_or(end);
        good = at;
    }
    close(good, at.min(end), &mut verified);
    verified
}

fn look(segment: SegmentNo, kind: SegmentKind, at: u64, bytes: &[u8]) -> Found {
    if bytes.len() < FRAME_BYTES {
        return Found::Cut;
    }
    let Ok(chunk) = read_frame(segment, kind, at, bytes) else { return Found::NoFrame };
    let end = FRAME_BYTES + chunk.stored_len as usize;
    match bytes.get(FRAME_BYTES..end) {
        None => Found::Cut,
        Some(body) if chunk.verify(body).is_ok() => Found::Good(at + end as u64),
        Some(_) => Found::Bad(at + end as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::chunk::ChunkHeader;
    use crate::format::ids::Uuid;
    use crate::format::store_segment::{SEGMENT_HEADER_BYTES, SegmentBuilder};

    const SEGMENT: SegmentNo = SegmentNo { epoch: 1, number: 4 };

    /// A segment of bodies of 1000 bytes, and where their frames start.
    fn segment() -> (Bytes, Vec<u64>) {
        let mut builder = SegmentBuilder::new(Uuid(1), SEGMENT, SegmentKind::Chunks);
        let body = |n: u8| vec![n; 1000];
        let starts = (0..5).map(|n| builder.push(ChunkHeader::raw(&body(n)), &body(n)) - FRAME_BYTES as u64).collect();
        (builder.finish().into(), starts)
    }

    fn check(start: u64, bytes: &[u8], wanted: &[u64]) -> (Vec<Range<u64>>, u64) {
        let bytes = Bytes::copy_from_slice(bytes);
        let verified = verify(SEGMENT, SegmentKind::Chunks, start, &bytes, wanted);
        (verified.spans.iter().map(Span::range).collect(), verified.damaged)
    }

    #[test]
    fn whole_bodies_come_out_and_neither_the_directory_nor_what_is_cut() {
        let (bytes, starts) = segment();
        let first = SEGMENT_HEADER_BYTES as u64;
        let all = first..starts[4] + 1068;
        assert_eq!(check(first, &bytes[first as usize..], &[]), (vec![all], 0));
        let (from, to) = (starts[1] as usize, starts[3] as usize);
        for extra in [0, 1, 67, 68, 69, 1067] {
            let span = starts[1]..starts[3];
            assert_eq!(check(starts[1], &bytes[from..to + extra], &[]), (vec![span], 0), "{extra} bytes of the next");
        }
        assert_eq!(check(starts[1], &bytes[from..from], &[]), (vec![], 0));
        assert_eq!(check(starts[1] + 1, &bytes[from + 1..to], &[]), (vec![], 0), "no frame begins there");
    }

    #[test]
    fn damage_takes_its_own_body_only() {
        let (bytes, starts) = segment();
        let (first, end) = (starts[0], starts[4] + 1068);
        for (flip, damaged, wanted) in [(starts[2] + 68, 1, vec![]), (starts[2], 0, vec![starts[3]])] {
            let mut bytes = bytes.to_vec();
            bytes[flip as usize] ^= 1;
            let found = check(first, &bytes[first as usize..end as usize], &wanted);
            assert_eq!(found, (vec![first..starts[2], starts[3]..end], damaged), "byte {flip}");
        }
    }

    #[test]
    fn a_body_of_another_segment_or_place_is_not_used() {
        let (bytes, starts) = segment();
        let other = SegmentNo { epoch: 1, number: 5 };
        let body = bytes.slice(starts[1] as usize..starts[2] as usize);
        assert_eq!(verify(other, SegmentKind::Chunks, starts[1], &body, &[]), Verified::default());
        assert_eq!(verify(SEGMENT, SegmentKind::Chunks, starts[2], &body, &[]), Verified::default());
    }
}
