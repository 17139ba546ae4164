//! Which windows there are to be. What is whole stays as it is. Where an index has to be made anew, or an object has to be
//! written anew, the window needs another name, for the names of indexes are created once, and whoever has read one may remember
//! it: it is folded with the next window, and that again if need be, at last with the repair's own, whose end is new.

use super::{Terms, Uses};
use crate::format::checkpoint::Birth;
use crate::format::ids::{Lsn, ObjectId};
use crate::format::names;
use crate::format::window::{BIRTH_UNKNOWN, IndexEntry};
use crate::repair::RepairError;
use crate::repair::objects::{Objects, Place, Row};
use std::collections::{BTreeMap, BTreeSet};

/// A window as it is to be.
#[derive(Debug)]
pub(super) struct Group {
    pub start: Lsn,
    pub end: Lsn,
    /// The windows it is made of.
    pub windows: Vec<usize>,
    /// Segments that are kept: each holds something that lives.
    pub kept: BTreeSet<usize>,
    /// Objects that are written into new segments.
    pub moved: Vec<Birth>,
    /// It needs an index of its own.
    pub changed: bool,
}

/// What is planned from.
pub(super) struct Plan<'a> {
    pub objects: &'a Objects,
    pub uses: &'a Uses,
    pub terms: &'a Terms,
}

impl Plan<'_> {
    /// Where an object in use is, if it can stay there: in a segment that is kept, in a window that holds its batch.
    fn kept_place(&self, object: &ObjectId) -> Option<Place> {
        let window = |place: &Place| self.objects.segments[place.segment].window;
        let holds = |window: usize| {
            let window = &self.objects.windows[window];
            window.start < object.lsn && object.lsn <= window.end
        };
        let place = self.objects.place(object)?;
        (self.is_kept(place.segment) && window(&place).is_some_and(holds)).then_some(place)
    }

    fn is_kept(&self, segment: usize) -> bool {
        let segment = &self.objects.segments[segment];
        segment.fault.is_none() && !self.terms.doomed.contains(&names::segment(segment.no))
    }

    /// All windows in order, apart from one another, before any is given another name.
    pub fn groups(&self) -> Result<Vec<Group>, RepairError> {
        let mut live: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        let mut homeless = Vec::new();
        for (object, of) in self.uses.iter() {
            match (self.kept_place(object), self.objects.place(object)) {
                (Some(place), _) => {
                    let window = self.objects.segments[place.segment].window.expect("places are in windows");
                    live.entry(window).or_default().insert(place.segment);
                }
                (None, Some(place)) => homeless.push(birth_of(self.objects.row(&place))),
                (None, None) => homeless.push(of.birth),
            }
        }
        let mut groups = self.apart(live)?;
        // In the order of their objects.
        self.house(homeless, &mut groups);
        Ok(groups)
    }

    fn apart(&self, live: BTreeMap<usize, BTreeSet<usize>>) -> Result<Vec<Group>, RepairError> {
        let mut groups: Vec<Group> = Vec::new();
        for (number, kept) in live {
            let window = &self.objects.windows[number];
            if window.end >= self.terms.end {
                let name = names::window(window.start, window.end);
                return Err(RepairError::Refused(format!("{name} ends behind every batch there can be")));
            }
            let changed = !self.stays(number, &kept);
            let (start, end) = (window.start, window.end);
            groups.push(Group { start, end, windows: vec![number], kept, moved: Vec::new(), changed });
        }
        groups.sort_by_key(|group| (group.end, group.start));
        let mut apart: Vec<Group> = Vec::new();
        for mut group in groups {
            while apart.last().is_some_and(|before| before.end > group.start) {
                group = apart.pop().expect("just seen").with(group);
            }
            apart.push(group);
        }
        Ok(apart)
    }

    /// Whether a window can stay as it is: its index says of all that lives where it is.
    fn stays(&self, number: usize, kept: &BTreeSet<usize>) -> bool {
        let window = &self.objects.windows[number];
        let is_right = |(segment, row): &(usize, usize)| {
            let row = &self.objects.segments[*segment].rows[*row];
            let whole = row.whole || !kept.contains(segment);
            whole && (self.uses.of(&row.entry.object).is_none() || self.is_at(&row.entry, *segment))
        };
        let doomed = self.terms.doomed.contains(&names::window(window.start, window.end));
        window.whole
            && !doomed
            && kept.iter().all(|kept| window.segments.contains(kept))
            && window.rows.iter().all(is_right)
    }

    /// Whether that is the place that counts of an object.
    pub fn is_at(&self, entry: &IndexEntry, segment: usize) -> bool {
        self.kept_place(&entry.object).is_some_and(|place| {
            let other = &self.objects.row(&place).entry;
            let same = (other.chunk_offset, other.offset_in_chunk) == (entry.chunk_offset, entry.offset_in_chunk);
            place.segment == segment && same
        })
    }

    /// What is written anew belongs to the window that holds its batch; to the next one, if none does; behind the last, to the
    /// repair's own.
    fn house(&self, homeless: Vec<Birth>, groups: &mut Vec<Group>) {
        for birth in homeless {
            let lsn = birth.object.lsn;
            let at = groups.partition_point(|group| group.end < lsn);
            if at == groups.len() {
                let start = before(lsn);
                let (windows, kept, moved) = (Vec::new(), BTreeSet::new(), Vec::new());
                groups.push(Group { start, end: self.terms.end, windows, kept, moved, changed: true });
            }
            let group = &mut groups[at];
            group.start = group.start.min(before(lsn));
            group.moved.push(birth);
            group.changed = true;
        }
    }
}

impl Group {
    /// Nothing, behind this one.
    pub fn nothing_up_to(&self, end: Lsn) -> Group {
        let (windows, kept, moved) = (Vec::new(), BTreeSet::new(), Vec::new());
        Group { start: self.end, end, windows, kept, moved, changed: true }
    }

    /// The two as one.
    pub fn with(mut self, other: Group) -> Group {
        self.start = self.start.min(other.start);
        self.end = self.end.max(other.end);
        self.windows.extend(other.windows);
        self.kept.extend(other.kept);
        self.moved.extend(other.moved);
        self.changed = true;
        self
    }
}

/// Where an object was born, as far as that is to be believed: an older program's index, which no table confirms, said where an
/// extent began instead, and a table that is written now would confirm it.
fn birth_of(row: &Row) -> Birth {
    let IndexEntry { object, len, birth_ino: ino, birth_offset, .. } = row.entry;
    let offset = if row.in_table { birth_offset } else { BIRTH_UNKNOWN };
    Birth { ino, offset, object, len }
}

/// An Lsn before this one, and not before any batch that is.
fn before(lsn: Lsn) -> Lsn {
    match lsn.pos {
        0 => Lsn { epoch: lsn.epoch.saturating_sub(1), pos: u64::MAX },
        pos => Lsn { epoch: lsn.epoch, pos: pos - 1 },
    }
}
