//! What came lately, in memory: it is read before the cache has written it, and where the cache has no room.

use super::frames::{Body, Span};
use crate::format::ids::SegmentNo;
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Bytes kept,
const BYTES_MAX: usize = 16 << 20;
/// and answers, so that looking through them stays short.
const ANSWERS_MAX: usize = 256;

/// What one request brought, verified.
#[derive(Debug)]
pub(super) struct Landed {
    pub segment: SegmentNo,
    pub spans: Vec<Span>,
    /// Where the segment ends, if that was seen.
    pub end: Option<u64>,
}

impl Landed {
    pub fn get(&self, range: &Range<u64>) -> Option<Bytes> {
        self.spans.iter().find_map(|span| span.get(range))
    }

    /// A body with its frame; it may be another than the one that is meant.
    pub fn body(&self, body: &Body) -> Option<Bytes> {
        self.get(&body.framed()).map(|framed| framed.slice(framed.len() - body.len as usize..))
    }

    fn bytes(&self) -> usize {
        self.spans.iter().map(|span| span.bytes.len()).sum()
    }
}

#[derive(Default)]
pub(super) struct Recent {
    landed: VecDeque<Arc<Landed>>,
    bytes: usize,
}

impl Recent {
    pub fn add(&mut self, landed: Arc<Landed>) {
        self.bytes += landed.bytes();
        self.landed.push_back(landed);
        while self.bytes > BYTES_MAX || self.landed.len() > ANSWERS_MAX {
            let Some(oldest) = self.landed.pop_front() else { break };
            self.bytes -= oldest.bytes();
        }
    }

    /// The newest that holds the range.
    pub fn holds(&self, segment: SegmentNo, range: &Range<u64>) -> Option<&Arc<Landed>> {
        self.landed.iter().rev().find(|landed| landed.segment == segment && landed.get(range).is_some())
    }

    /// Drops what has bytes of the range.
    pub fn remove(&mut self, segment: SegmentNo, range: &Range<u64>) {
        let overlaps = |span: &Span| span.range().start < range.end && range.start < span.range().end;
        self.landed.retain(|landed| landed.segment != segment || !landed.spans.iter().any(overlaps));
        self.bytes = self.landed.iter().map(|landed| landed.bytes()).sum();
    }
}
