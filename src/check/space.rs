//! The records of the space tree, read into memory, and whether each makes sense beside the others.

use super::Check;
use super::maps::AFTER_ALL;
use crate::format::FormatError;
use crate::format::batch::TreeId;
use crate::format::ids::{Lsn, ObjectId, SegmentKind, SegmentNo};
use crate::format::space::{
    Key, Mark, Pending, Published, SegmentRecord, Settled, WindowRecord, decode_count, decode_number,
};
use crate::map::NodeCache;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Nodes in memory while a map is read, bytes.
pub(super) const CACHE_BYTES: u64 = 16 << 20;

/// Everything the space tree says.
#[derive(Default)]
pub(super) struct Space {
    pub inode_mark: u64,
    pub segment_mark: u64,
    pub segments: BTreeMap<SegmentNo, SegmentRecord>,
    pub windows: BTreeMap<Lsn, WindowRecord>,
    pub counts: BTreeMap<ObjectId, u32>,
    pub pending: BTreeMap<String, Pending>,
    pub waiting: BTreeSet<ObjectId>,
    pub settled: Option<Settled>,
    pub published: Published,
}

impl Space {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), FormatError> {
        match Key::decode(key)? {
            Key::Mark(Mark::Inode) => self.inode_mark = decode_number(value)?,
            Key::Mark(Mark::Segment) => self.segment_mark = decode_number(value)?,
            Key::Segment(no) => drop(self.segments.insert(no, SegmentRecord::decode(value)?)),
            Key::Window(end) => drop(self.windows.insert(end, WindowRecord::decode(value)?)),
            Key::Count(object) => drop(self.counts.insert(object, decode_count(value)?)),
            Key::Pending(name) => {
                let name = String::from_utf8(name.to_vec()).map_err(|_| FormatError::Key("a name that is not text"))?;
                self.pending.insert(name, Pending::decode(value)?);
            }
            Key::Waiting(object) if value.is_empty() => drop(self.waiting.insert(object)),
            Key::Waiting(_) => return Err(FormatError::Value("a mark with a value")),
            Key::Settled => self.settled = Some(Settled::decode(value)?),
            Key::Published => self.published = Published::decode(value)?,
        }
        Ok(())
    }

    /// The recorded window that holds a batch: (start, end).
    pub fn window_of(&self, lsn: Lsn) -> Option<(Lsn, Lsn)> {
        let (end, record) = self.windows.range(lsn..).next()?;
        (record.start < lsn).then_some((record.start, *end))
    }
}

/// What a problem of the space tree is named after.
pub(super) const PLACE: &str = "space tree";

pub(super) fn check_space(check: &mut Check<'_>) -> bool {
    let mut found = Space::default();
    let mut problems = Vec::new();
    let cache = NodeCache::new(CACHE_BYTES);
    let all = (Bytes::new(), Bytes::copy_from_slice(&AFTER_ALL));
    let scanned = check.maps.scan(TreeId::Space, all, &cache, &check.nodes, &mut |key, value| {
        if let Err(e) = found.take(key, value) {
            problems.push(format!("entry {key:02x?}: {e}"));
        }
    });
    if let Err(e) = scanned {
        check.problem(PLACE, e.to_string());
        return false;
    }
    let sound = problems.is_empty();
    problems.extend(window_problems(&found));
    problems.extend(segment_problems(&found));
    let checkpoint = check.checkpoint();
    if let Some(settled) = found.settled {
        let whole = settled.checkpoint == checkpoint.number && settled.cursor > checkpoint.settlement.len() as u64;
        if settled.checkpoint > checkpoint.number || whole {
            problems.push(format!("settled up to {settled:?}, beyond checkpoint {}", checkpoint.number));
        }
    }
    if found.published.end > checkpoint.lsn || found.published.checkpoint > checkpoint.number {
        problems.push(format!("published up to {:?}, beyond checkpoint {}", found.published, checkpoint.number));
    }
    for what in problems {
        check.problem(PLACE, what);
    }
    check.space = found;
    sound
}

fn window_problems(space: &Space) -> Vec<String> {
    let mut problems = Vec::new();
    let mut previous = Lsn::ZERO;
    for (end, window) in &space.windows {
        if window.start < previous || window.start >= *end {
            problems.push(format!("window {}-{end} overlaps the one that ends at {previous}", window.start));
        }
        if *end > space.published.end {
            problems
                .push(format!("window {}-{end} ends after what was published, {}", window.start, space.published.end));
        }
        previous = *end;
        let live: u64 =
            window.segments.iter().filter_map(|no| space.segments.get(no)).map(|s| u64::from(s.live_objects)).sum();
        if live != u64::from(window.live_objects) {
            let found = window.live_objects;
            problems.push(format!("window {}-{end} has {found} live objects, its segments have {live}", window.start));
        }
    }
    problems
}

fn segment_problems(space: &Space) -> Vec<String> {
    let mut problems = Vec::new();
    for (no, record) in space.segments.iter().filter(|(_, record)| !record.is_planned()) {
        match record.kind {
            SegmentKind::Nodes if record.live_bytes != record.bytes => {
                problems.push(format!("node segment {no} of {} bytes has {} live", record.bytes, record.live_bytes));
            }
            SegmentKind::Nodes => {}
            SegmentKind::Chunks => {
                let window = space.windows.get(&record.window_end);
                if !window.is_some_and(|window| window.segments.contains(no)) {
                    problems.push(format!("segment {no} belongs to no window"));
                }
                if record.live_objects == 0 {
                    problems.push(format!("segment {no} has no live objects and is not listed for deletion"));
                }
            }
        }
    }
    problems
}

/// The windows' key space is not used here; segments and windows by their store names are.
pub(super) fn store_names(space: &Space) -> BTreeSet<String> {
    let segments = space.segments.keys().map(|no| crate::format::names::segment(*no));
    let windows = space.windows.iter().map(|(end, window)| crate::format::names::window(window.start, *end));
    segments.chain(windows).collect()
}
