//! The space map from scratch: what is said of segments and windows follows from a full scan of the extents and from what of
//! the objects is whole, and from nothing that was said before.
//!
//! **What a base will name is durable when [`account`] returns**, but for the indexes it hands out. Nothing that is there is
//! replaced or removed: a segment that is damaged anywhere is not used any more, and what lives in it is written into a new one.

mod dead;
mod group;
mod ledger;
mod uses;

pub use uses::{Use, Uses};

use super::RepairError;
use super::gather::Contents;
use super::objects::Objects;
use crate::base::canary::{Canary, removed};
use crate::checkpoint::jobs::segments_for;
use crate::format::ids::{Lsn, OBJECT_BYTES_MAX, ObjectId, SegmentNo, Uuid};
use crate::format::names;
use crate::format::publication::Position;
use crate::format::window::{IndexEntry, WindowIndex};
use crate::ship::ShipError;
use crate::ship::pack::{Window, pack};
use crate::store::{Store, StoreError};
use bytes::Bytes;
use group::{Group, Plan};
use ledger::Ledger;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the new generation is to be.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The filesystem.
    pub uuid: Uuid,
    /// Where its base will be; the generation is the epoch too, and nothing of that epoch is in the store yet that counts.
    pub base: Position,
    /// The checkpoint that the base publishes.
    pub checkpoint: u64,
    /// Where it ends: of its epoch, and its position is above that of every batch that was ever seen.
    pub end: Lsn,
    /// Now: nanoseconds since 1970.
    pub now: i64,
    /// All inode numbers up to this one may have been given.
    pub inode_mark: u64,
    /// Bytes at which a segment is full.
    pub segment_bytes: usize,
    /// The number of the first segment of the epoch that may be used.
    pub first_segment: u64,
    /// Store objects that were listed for deletion: a writer that was paused may still remove them, so what is needed of them is
    /// written anew.
    pub doomed: BTreeSet<String>,
}

/// A space map that agrees with the extents, and what must be in the store before a base names it.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// All entries, in the order of their keys. Segments of nodes are not in them: the base lists its own.
    pub entries: Vec<(Bytes, Bytes)>,
    /// Window indexes to create, by name; one that is there has these very bytes.
    pub indexes: Vec<(String, Bytes)>,
    /// Store objects that nothing names any more: the entries list them for deletion.
    pub dead: Vec<String>,
    /// Windows in which something lives.
    pub windows: u64,
    /// Segments of chunks in which something lives.
    pub segments: u64,
    /// Objects, and their bytes, that were written into new segments.
    pub moved: (u64, u64),
    /// The number of the first segment of the epoch that is free after it.
    pub next_segment: u64,
    /// What is put when the base is there: nothing, as long as the rules hold.
    pub late: Vec<(String, Bytes)>,
}

/// Makes a space map for files that use objects as `uses` says, each of which is whole in the store or in `contents`. Puts
/// segments for those that are not where they can stay.
pub fn account(
    store: &Arc<dyn Store>,
    objects: &Objects,
    contents: &Contents,
    uses: &Uses,
    terms: &Terms,
) -> Result<Rebuilt, RepairError> {
    let plan = Plan { objects, uses, terms };
    let read = |object: &ObjectId| match objects.place(object) {
        Some(place) => objects.read(&**store, &place),
        None => contents.get(object),
    };
    let mut account = Account {
        store: &**store,
        plan,
        read: &read,
        ledger: Ledger::default(),
        rebuilt: Rebuilt { next_segment: terms.first_segment, ..Rebuilt::default() },
    };
    let mut groups: Vec<Group> = account.plan.groups()?;
    groups.reverse();
    while let Some(group) = groups.pop() {
        let end = groups.last().map_or(terms.end, |next| next.end);
        match account.take(group)? {
            None => {}
            Some(taken) if taken.end == terms.end => {
                let name = names::window(taken.start, taken.end);
                return Err(RepairError::Refused(format!("{name} is there already, and is another one")));
            }
            Some(taken) => {
                // Its name is taken: with the next one it has another.
                let next = groups.pop().unwrap_or_else(|| taken.nothing_up_to(end));
                groups.push(taken.with(next));
            }
        }
    }
    account.finish()
}

/// What reads an object, wherever it is.
type ReadObject<'a> = dyn Fn(&ObjectId) -> Result<Bytes, RepairError> + 'a;

struct Account<'a> {
    store: &'a dyn Store,
    plan: Plan<'a>,
    read: &'a ReadObject<'a>,
    ledger: Ledger,
    rebuilt: Rebuilt,
}

impl Account<'_> {
    /// Accounts for a window; gives it back if it needs another name.
    fn take(&mut self, mut group: Group) -> Result<Option<Group>, RepairError> {
        let objects = self.plan.objects;
        if let (false, [window]) = (group.changed, &*group.windows) {
            let window = &objects.windows[*window];
            let segments =
                window.segments.iter().map(|at| (objects.segments[*at].no, objects.segments[*at].len)).collect();
            let numbers: BTreeMap<usize, u32> = (0..).zip(&window.segments).map(|(n, at)| (*at, n)).collect();
            let entry = |(segment, row): &(usize, usize)| IndexEntry {
                segment: numbers[segment],
                ..objects.segments[*segment].rows[*row].entry
            };
            let entries: Vec<IndexEntry> = window.rows.iter().map(entry).collect();
            self.ledger.take((window.start, window.end), segments, &entries, self.plan.uses);
            return Ok(None);
        }
        let (mut segments, entries) = self.kept(&group);
        let mut index = self.index(&group, &segments, entries);
        if self.is_taken(&group, &index)? {
            return Ok(Some(group));
        }
        if !group.moved.is_empty() {
            group.moved.sort_by_key(|birth| (birth.ino, birth.offset, birth.object));
            self.write_anew(&group, &mut segments, &mut index)?;
        }
        self.ledger.take((group.start, group.end), segments, &index.entries, self.plan.uses);
        self.rebuilt.indexes.push((names::window(group.start, group.end), index.encode().into()));
        Ok(None)
    }

    fn index(&self, group: &Group, segments: &[(SegmentNo, u64)], entries: Vec<IndexEntry>) -> WindowIndex {
        let segments = segments.iter().map(|(no, _)| *no).collect();
        WindowIndex { uuid: self.plan.terms.uuid, start: group.start, end: group.end, segments, entries }
    }

    /// What the segments that are kept hold of a window: each object once, also what is dead.
    fn kept(&self, group: &Group) -> (Vec<(SegmentNo, u64)>, Vec<IndexEntry>) {
        let objects = self.plan.objects;
        let mut segments = Vec::new();
        let mut entries: BTreeMap<ObjectId, IndexEntry> = BTreeMap::new();
        for (number, at) in (0..).zip(&group.kept) {
            let segment = &objects.segments[*at];
            segments.push((segment.no, segment.len));
            let belongs = |object: &ObjectId| group.start < object.lsn && object.lsn <= group.end;
            for row in segment.rows.iter().filter(|row| row.whole && belongs(&row.entry.object)) {
                let used = self.plan.uses.of(&row.entry.object).is_some();
                if !used || self.plan.is_at(&row.entry, *at) {
                    entries.entry(row.entry.object).or_insert(IndexEntry { segment: number, ..row.entry });
                }
            }
        }
        (segments, entries.into_values().collect())
    }

    /// Whether a window must not have this name, because another one has or had it. An interrupted repair may have put this
    /// very index.
    fn is_taken(&self, group: &Group, index: &WindowIndex) -> Result<bool, RepairError> {
        let (objects, name) = (self.plan.objects, (group.start, group.end));
        if !objects.listed.windows.contains(&name) {
            return Ok(objects.windows.iter().any(|window| (window.start, window.end) == name));
        }
        if !group.moved.is_empty() {
            return Ok(true);
        }
        match self.store.get(&names::window(group.start, group.end)) {
            Ok(found) => Ok(found != index.encode()),
            Err(StoreError::NotFound { .. }) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }

    /// Puts segments with what cannot stay where it is, and adds them to the index.
    fn write_anew(
        &mut self,
        group: &Group,
        segments: &mut Vec<(SegmentNo, u64)>,
        index: &mut WindowIndex,
    ) -> Result<(), RepairError> {
        let Terms { uuid, end, segment_bytes, .. } = *self.plan.terms;
        let epoch = end.epoch;
        let first = self.rebuilt.next_segment;
        let count = segments_for(&group.moved, segment_bytes, OBJECT_BYTES_MAX) as u64;
        let numbers = (first..first + count).map(|number| SegmentNo { epoch, number }).collect();
        let window = Window { filesystem: uuid, start: group.start, end: group.end, numbers, segment_bytes };
        let (store, read, late) = (self.store, self.read, &mut self.rebuilt.late);
        let mut failed = None;
        let (entry, packed) = {
            let mut fetch = |object: &ObjectId| {
                read(object).map_err(|e| {
                    let lost = ShipError::Damaged { place: format!("object {object}"), reason: e.to_string() };
                    failed = Some(e);
                    lost
                })
            };
            let packed = pack(&window, &group.moved, &mut fetch, &mut |no, bytes| {
                match removed(Canary::RepairSegmentsBeforeBase) {
                    true => late.push((names::segment(no), bytes)),
                    false => store.put(&names::segment(no), bytes)?,
                }
                Ok(())
            });
            packed.map_err(|e| failed.unwrap_or(RepairError::Ship(e)))?
        };
        self.rebuilt.next_segment += entry.segments.len() as u64;
        let packed = WindowIndex::decode(&packed).expect("it was just made");
        let before = u32::try_from(segments.len()).expect("a window has few segments");
        segments.extend(entry.segments.iter().map(|segment| (segment.segment, segment.bytes)));
        index.segments.extend(packed.segments);
        for entry in packed.entries {
            self.rebuilt.moved.0 += 1;
            self.rebuilt.moved.1 += u64::from(entry.len);
            index.entries.push(IndexEntry { segment: before + entry.segment, ..entry });
        }
        index.entries.sort_by_key(|entry| entry.object);
        Ok(())
    }

    fn finish(self) -> Result<Rebuilt, RepairError> {
        let Account { plan, ledger, mut rebuilt, .. } = self;
        rebuilt.windows = ledger.windows.len() as u64;
        rebuilt.segments = ledger.segments.len() as u64;
        rebuilt.dead = dead::names(&plan.objects.listed, &ledger, plan.terms);
        rebuilt.entries = ledger.entries(plan.uses, &rebuilt.dead, plan.terms);
        Ok(rebuilt)
    }
}
