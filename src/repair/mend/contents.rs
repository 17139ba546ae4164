//! The extents of one file, in order: made whole, apart from one another, and inside the file; what is missing is named as lost, or
//! put back from what segments say.

use super::Edits;
use super::fixes::{Done, Is};
use crate::check::blocks_of;
use crate::format::checkpoint::Birth;
use crate::format::ids::{InodeNo, Lsn, OBJECT_BYTES_MAX, ObjectId};
use crate::format::inode::Extent;
use crate::format::key;
use crate::fs::FILE_BYTES_MAX;
use std::ops::Range;

/// Bytes in an object, as an offset.
const OBJECT_BYTES: u64 = OBJECT_BYTES_MAX as u64;
/// At most so many extents are made, in all files, for contents of which nothing is known but that they are lost: 64 GiB. Else a
/// size that makes no sense would be an extent for each 64 KiB of it.
pub(super) const LOST_EXTENTS_MAX: u64 = 1 << 20;
/// Of these one file gets so many at most that only a lost batch says to miss something, of unknown place: 1 GiB. All holes of a
/// sparse file are such places, and others need some.
pub(super) const LOST_EXTENTS_OF_HOLES: u64 = LOST_EXTENTS_MAX / 64;

/// An extent and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    at: u64,
    extent: Extent,
    /// The key under which it stands.
    key: u64,
    /// It does not stand there like this.
    changed: bool,
}

impl Piece {
    fn end(&self) -> u64 {
        self.at + u64::from(self.extent.len)
    }

    /// What of it is not in `range`.
    fn without(self, range: &Range<u64>) -> impl Iterator<Item = Piece> + use<> {
        let end = self.end();
        let apart = range.end <= self.at || range.start >= end;
        let parts = match apart {
            true => [Some(self), None],
            false => [self.part(self.at, range.start.min(end)), self.part(range.end.max(self.at), end)],
        };
        parts.into_iter().flatten()
    }

    fn part(self, from: u64, to: u64) -> Option<Piece> {
        let len = u32::try_from(to.checked_sub(from)?).expect("inside a piece");
        let skipped = u32::try_from(from - self.at).expect("inside a piece");
        let object_offset = if self.extent.is_lost() { 0 } else { self.extent.object_offset + skipped };
        (len > 0).then_some(Piece {
            at: from,
            extent: Extent { len, object_offset, ..self.extent },
            changed: true,
            ..self
        })
    }
}

/// The extents of a file under way. They come in the order of their keys.
pub(super) struct Sweep {
    ino: InodeNo,
    /// No contents are kept from here on.
    end_max: u64,
    /// Those that a later one may overlap; apart from one another.
    open: Vec<Piece>,
    /// What all those take that are done.
    pub blocks: u64,
    /// What those took that came.
    pub came: u64,
    /// Some that came cannot have been there together.
    pub mixed: bool,
    /// Where the last of them ends.
    pub end: u64,
    /// Where nothing is, up to there.
    gaps: Vec<Range<u64>>,
}

/// What is told of what happens.
pub(super) struct Out<'a> {
    pub edits: &'a mut Edits,
    pub done: &'a mut Done,
}

impl Sweep {
    pub fn new(ino: InodeNo, end_max: u64) -> Sweep {
        Sweep {
            ino,
            end_max: end_max.min(FILE_BYTES_MAX),
            open: Vec::new(),
            blocks: 0,
            came: 0,
            mixed: false,
            end: 0,
            gaps: Vec::new(),
        }
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.blocks == 0 && self.open.is_empty()
    }

    /// The next extent; `None` is one that makes no sense.
    pub fn extent(
        &mut self,
        at: u64,
        extent: Option<Extent>,
        whole: &dyn Fn(&ObjectId) -> Option<u32>,
        out: &mut Out<'_>,
    ) {
        self.finish_before(at, out);
        self.came += extent.map_or(0, |extent| blocks_of(u64::from(extent.len)));
        if at >= self.end_max {
            self.mixed = true;
            out.done.note(self.ino, Is::Beyond, || format!("byte {at} and more"));
            out.edits.insert(key::extent(self.ino, at), None);
            return;
        }
        let unknown = Extent::lost(OBJECT_BYTES_MAX as u32);
        let piece = Piece { at, extent: extent.unwrap_or(unknown), key: at, changed: false };
        let (end, have) = (piece.end(), self.whole_part(&piece, whole));
        let mut parts: Vec<Piece> = match extent {
            Some(_) if have == piece.extent.len => vec![piece],
            Some(extent) => {
                let from = at + u64::from(have);
                out.done.note(self.ino, Is::Lost, || format!("bytes {from} to {end}, object {}", extent.object));
                let lost = Piece { at: from, extent: Extent::lost(extent.len - have), changed: true, ..piece };
                piece.part(at, from).into_iter().chain([lost]).collect()
            }
            None => {
                out.done.note(self.ino, Is::Lost, || format!("from byte {at} on, how many is not known"));
                vec![Piece { changed: true, ..piece }]
            }
        };
        if end > self.end_max && extent.is_some() {
            self.mixed = true;
            out.done.note(self.ino, Is::Beyond, || format!("bytes {} to {end}", self.end_max));
        }
        parts = parts.into_iter().flat_map(|part| part.without(&(self.end_max..u64::MAX))).collect();
        if parts != [piece] {
            out.edits.insert(key::extent(self.ino, at), None);
        }
        for part in parts {
            self.lay(part, out);
        }
    }

    /// How many of the piece's bytes are whole, from its start.
    fn whole_part(&self, piece: &Piece, whole: &dyn Fn(&ObjectId) -> Option<u32>) -> u32 {
        let Extent { len, object_offset, object } = piece.extent;
        if piece.extent.is_lost() {
            return len;
        }
        whole(&object).map_or(0, |have| have.saturating_sub(object_offset).min(len))
    }

    /// Lays a piece over those that are open; where two lie, that stays which was written later.
    fn lay(&mut self, piece: Piece, out: &mut Out<'_>) {
        let range = piece.at..piece.end();
        let (mut kept, mut rest) = (Vec::new(), vec![piece]);
        for old in std::mem::take(&mut self.open) {
            let under = old.at..old.end();
            if under.end <= range.start || under.start >= range.end {
                kept.push(old);
                continue;
            }
            let (from, to) = (under.start.max(range.start), under.end.min(range.end));
            // What is lost and of unknown length overlaps what follows it without being wrong.
            if !(old.extent.is_lost() && old.changed) {
                self.mixed = true;
                out.done.note(self.ino, Is::Overlap, || format!("bytes {from} to {to}"));
            }
            if old.extent.object >= piece.extent.object {
                kept.push(old);
                rest = rest.into_iter().flat_map(|part| part.without(&under)).collect();
            } else {
                self.cut(&old, out);
                kept.extend(old.without(&range));
            }
        }
        if rest != [piece] {
            self.cut(&piece, out);
        }
        kept.extend(rest);
        kept.sort_unstable_by_key(|piece| piece.at);
        self.open = kept;
    }

    /// A piece that stands in the map does not stay as it is.
    fn cut(&self, piece: &Piece, out: &mut Out<'_>) {
        if !piece.changed {
            out.edits.insert(key::extent(self.ino, piece.key), None);
        }
    }

    fn finish_before(&mut self, at: u64, out: &mut Out<'_>) {
        let open = std::mem::take(&mut self.open);
        for piece in open {
            // They are apart and in order, so no one that is done lies behind one that is not.
            if piece.end() <= at { self.finish_one(piece, out) } else { self.open.push(piece) }
        }
    }

    fn finish_one(&mut self, piece: Piece, out: &mut Out<'_>) {
        if piece.changed {
            out.edits.insert(key::extent(self.ino, piece.at), Some(piece.extent.encode()));
        }
        if piece.at > self.end {
            self.gaps.push(self.end..piece.at);
        }
        self.blocks += blocks_of(u64::from(piece.extent.len));
        self.end = piece.end();
    }

    /// There are no more extents.
    pub fn finish(&mut self, out: &mut Out<'_>) {
        self.finish_before(u64::MAX, out);
    }

    /// Puts something where contents may be missing: into the gaps of a file of `size` bytes that lie in `lost`. `missing` is how
    /// many blocks are not there, if that is known. Returns the size of the file: less, where its end cannot be named as lost.
    pub fn fill(&mut self, fill: &mut Fill<'_>, size: u64, missing: Option<u64>, out: &mut Out<'_>) -> u64 {
        if size > self.end {
            self.gaps.push(self.end..size);
        }
        let mut holes = common(&self.gaps, fill.lost);
        let born = self.born(fill, &mut holes);
        let blocks: u64 = born.iter().map(|piece| blocks_of(u64::from(piece.extent.len))).sum();
        let mut put = born;
        if missing.is_some_and(|missing| blocks > missing) {
            // Some of it is older than what was there; nobody knows which.
            put.clear();
            holes = common(&self.gaps, fill.lost);
        } else if !put.is_empty() {
            out.done.note(self.ino, Is::Births, || {
                format!("{} pieces from byte {} on", put.len(), put.iter().map(|piece| piece.at).min().unwrap_or(0))
            });
        }
        let mut named = size;
        if missing != Some(blocks) || put.is_empty() {
            named = self.name_as_lost(&holes, fill, &mut put, out);
        }
        for piece in put {
            self.blocks += blocks_of(u64::from(piece.extent.len));
            self.end = self.end.max(piece.end());
            out.edits.insert(key::extent(self.ino, piece.at), Some(piece.extent.encode()));
        }
        // Behind the last hole nothing else is to be kept.
        if holes.last().is_some_and(|hole| hole.end == size) { named.max(self.end) } else { size }
    }

    /// What segments say of the holes; takes it out of them. What was written later counts.
    fn born(&self, fill: &Fill<'_>, holes: &mut Vec<Range<u64>>) -> Vec<Piece> {
        let mut births = (fill.births)(self.ino);
        births.sort_unstable_by_key(|birth| std::cmp::Reverse(birth.object));
        let mut put = Vec::new();
        for birth in &births {
            let Some(range) = born_at(birth, fill.whole) else { continue };
            let extent = Extent { len: birth.len, object: birth.object, object_offset: 0 };
            let piece = Piece { at: birth.offset, extent, key: birth.offset, changed: true };
            let mut here = common(holes, std::slice::from_ref(&range));
            if !fill.is_of_lost_batch(&birth.object) {
                here = common(&here, fill.unmapped);
            }
            put.extend(here.iter().filter_map(|part| piece.part(part.start, part.end)));
            for part in &here {
                *holes = holes.iter().flat_map(|hole| outside(hole, part)).collect();
            }
        }
        put
    }

    /// Puts pieces that are lost into the holes; says where that ended.
    fn name_as_lost(&self, holes: &[Range<u64>], fill: &mut Fill<'_>, put: &mut Vec<Piece>, out: &mut Out<'_>) -> u64 {
        let mut named = 0;
        for hole in holes {
            let mut at = hole.start;
            while at < hole.end && *fill.lost_left > 0 {
                let to = (at - at % OBJECT_BYTES).saturating_add(OBJECT_BYTES).min(hole.end);
                let extent = Extent::lost(u32::try_from(to - at).expect("at most an object"));
                put.push(Piece { at, extent, key: at, changed: true });
                *fill.lost_left -= 1;
                at = to;
            }
            if at > hole.start {
                out.done
                    .note(self.ino, Is::Lost, || format!("bytes {} to {at}, of which nothing is known", hole.start));
            }
            if at < hole.end {
                out.done.note(self.ino, Is::Holes, || format!("bytes {at} to {}", hole.end));
            }
            named = at;
        }
        named
    }
}

/// Where the whole of an object was in its file, if that is known.
pub(super) fn born_at(birth: &Birth, whole: &dyn Fn(&ObjectId) -> Option<u32>) -> Option<Range<u64>> {
    let end = birth.offset.checked_add(u64::from(birth.len)).filter(|end| *end <= FILE_BYTES_MAX)?;
    (whole(&birth.object) == Some(birth.len)).then_some(birth.offset..end)
}

/// What gaps are filled with.
pub(super) struct Fill<'a> {
    /// Where extents of the file may be missing,
    pub lost: &'a [Range<u64>],
    /// and where of that because a part of the map is lost: there it may be whatever was written.
    pub unmapped: &'a [Range<u64>],
    /// Elsewhere only what these batches had: what is older and not in the map was overwritten before them, or cut off.
    pub batches: &'a [(Lsn, Lsn)],
    pub births: &'a dyn Fn(InodeNo) -> Vec<Birth>,
    pub whole: &'a dyn Fn(&ObjectId) -> Option<u32>,
    /// How many extents may still be made for what is lost.
    pub lost_left: &'a mut u64,
}

impl Fill<'_> {
    /// Positions say what came after what, and epochs that it is of the same history.
    fn is_of_lost_batch(&self, object: &ObjectId) -> bool {
        let Lsn { epoch, pos } = object.lsn;
        let holds =
            |(from, to): &(Lsn, Lsn)| (from.epoch..=to.epoch).contains(&epoch) && from.pos < pos && pos <= to.pos;
        self.batches.iter().any(holds)
    }
}

/// What lies in both; each list in order and apart.
fn common(some: &[Range<u64>], others: &[Range<u64>]) -> Vec<Range<u64>> {
    let both = |a: &Range<u64>, b: &Range<u64>| a.start.max(b.start)..a.end.min(b.end);
    let mut found = Vec::new();
    let mut first = 0;
    for range in some {
        first += others[first..].partition_point(|other| other.end <= range.start);
        let here = others[first..].iter().take_while(|other| other.start < range.end);
        found.extend(here.map(|other| both(range, other)));
    }
    found.retain(|range| range.start < range.end);
    found
}

/// What of `range` is not in `hole`.
fn outside(range: &Range<u64>, hole: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let (from, to) = (hole.start.clamp(range.start, range.end), hole.end.clamp(range.start, range.end));
    let parts = if from < to { [range.start..from, to..range.end] } else { [range.clone(), range.end..range.end] };
    parts.into_iter().filter(|part| part.start < part.end)
}
