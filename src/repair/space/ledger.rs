//! The records of a space map.

use super::{Terms, Uses};
use crate::format::ids::{Lsn, SegmentKind, SegmentNo};
use crate::format::space::{self, Mark, Pending, Published, SegmentRecord, Settled, WindowRecord};
use crate::format::window::IndexEntry;
use bytes::Bytes;
use std::collections::BTreeMap;

/// What a repair found to be dead goes no sooner than 7 days after it, and then the grace time comes too: whatever it took for lost by
/// mistake can be had back until then.
const KEPT_NANOS: i64 = 7 * 24 * 3600 * 1_000_000_000;

/// Live segments and windows.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub segments: BTreeMap<SegmentNo, SegmentRecord>,
    pub windows: BTreeMap<Lsn, WindowRecord>,
}

impl Ledger {
    /// Records a window with this index over segments of these lengths; a segment in which nothing lives has no record.
    pub fn take(
        &mut self,
        (start, end): (Lsn, Lsn),
        segments: Vec<(SegmentNo, u64)>,
        index: &[IndexEntry],
        uses: &Uses,
    ) {
        let record = |len: u64| SegmentRecord {
            bytes: len,
            live_bytes: len,
            window_end: end,
            ..SegmentRecord::planned(SegmentKind::Chunks)
        };
        let mut records: Vec<SegmentRecord> = segments.iter().map(|(_, len)| record(*len)).collect();
        for entry in index {
            let record = &mut records[entry.segment as usize];
            record.objects += 1;
            match uses.of(&entry.object) {
                Some(_) => record.live_objects += 1,
                None => record.live_bytes = record.live_bytes.saturating_sub(u64::from(entry.len)),
            }
        }
        let live_objects = records.iter().map(|record| record.live_objects).sum();
        let numbers = segments.iter().map(|(no, _)| *no);
        self.segments.extend(numbers.clone().zip(records).filter(|(_, record)| record.live_objects > 0));
        self.windows.insert(end, WindowRecord { start, segments: numbers.collect(), live_objects });
    }

    /// All entries of the map, in the order of their keys.
    pub fn entries(&self, uses: &Uses, dead: &[String], terms: &Terms) -> Vec<(Bytes, Bytes)> {
        let Terms { base, checkpoint, end, now, inode_mark, .. } = *terms;
        let mut entries = vec![(space::mark(Mark::Inode), space::encode_number(inode_mark))];
        entries.extend(self.segments.iter().map(|(no, record)| (space::segment(*no), record.encode())));
        entries.extend(self.windows.iter().map(|(end, record)| (space::window(*end), record.encode())));
        let shared = uses.iter().filter(|(_, of)| of.extents > 1);
        entries.extend(shared.map(|(object, of)| (space::count(*object), space::encode_count(of.extents))));
        let pending = Pending { since: now.saturating_add(KEPT_NANOS), checkpoint }.encode();
        entries.extend(dead.iter().map(|name| (space::pending(name.as_bytes()), pending.clone())));
        entries.push((space::settled(), Settled { checkpoint, cursor: 0 }.encode()));
        let published = Published { end, checkpoint, generation: base.generation, number: base.number };
        entries.push((space::published(), published.encode()));
        entries.sort();
        entries
    }
}
