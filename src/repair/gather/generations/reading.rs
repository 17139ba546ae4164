//! Reading the publications of the newest generation; of those before it as far as it has no base.

use super::listing::Listing;
use crate::format::batch::Batch;
use crate::format::ids::{Lsn, NodePtr, Nonce, Uuid};
use crate::format::names;
use crate::format::publication::{Body, Increment, Log, Position, Publication, WindowEntry};
use crate::repair::gather::scan::{Scan, scan};
use crate::repair::gather::shelf::Shelf;
use crate::repair::gather::spans::{Changes, Span, What};
use crate::repair::{Damaged, RepairError, confirm};
use crate::store::{Store, StoreError};
use bytes::Bytes;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

/// So many generations are looked through for one of which something can be read, or for a base.
const GENERATIONS_MAX: usize = 64;

/// What is left of what was published.
#[derive(Default)]
pub(in crate::repair::gather) struct Published {
    /// Bases, the newest first.
    pub bases: Vec<BaseFound>,
    /// Batches that increments and logs have.
    pub spans: Vec<Span>,
    /// Windows that are listed.
    pub windows: Vec<WindowEntry>,
    /// Everything that can be read, in order; repairs that came to no end are not in it.
    pub headers: Vec<Header>,
    /// The last closing object: where, and the epoch that it made.
    pub closing: Option<(Position, u32)>,
    /// A generation that was begun in this epoch, as the closing object before it says, and of which nothing can be read.
    pub begun: Option<(u64, u32)>,
    /// The numbers that are to be won.
    pub close: Vec<Position>,
    /// The highest of each.
    pub checkpoint_max: u64,
    pub epoch_max: u32,
    pub end: Lsn,
    /// Where windows reach.
    pub shipped: Lsn,
    pub damaged: Vec<Damaged>,
}

/// A base that can be read.
#[derive(Clone, Copy, Debug)]
pub(in crate::repair::gather) struct BaseFound {
    pub generation: u64,
    pub roots: [Option<NodePtr>; 2],
    pub lsn: Lsn,
    pub checkpoint: u64,
}

/// Who published what.
#[derive(Clone, Copy, Debug)]
pub(in crate::repair::gather) struct Header {
    pub at: Position,
    pub state: Uuid,
    pub nonce: Nonce,
    pub epoch: u32,
    pub wall: i64,
    pub checkpoint: u64,
    pub end: Lsn,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::repair::gather) enum Kind {
    Base,
    Increment,
    Log,
    Closing,
}

/// What is at a number.
enum Found {
    Missing,
    Damaged { what: String, bytes: Bytes },
    Good(Box<Publication>, Bytes),
}

/// How far the publications of a generation are known to reach.
struct Reach {
    /// The windows.
    windows: Lsn,
    /// Windows and logs.
    all: Lsn,
    /// Something that may have been a log could not be read: then the next log may begin later.
    is_unsure: bool,
}

/// Reads the newest generation of which anything is left, and of those before it all that is needed for a base.
pub(in crate::repair::gather) fn read_generations(
    store: &Arc<dyn Store>,
    filesystem: Uuid,
    repairs: &HashSet<Uuid>,
    mut listing: Listing,
    shelf: &mut Shelf,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Published, RepairError> {
    let mut reader = Reader { store, filesystem, repairs, shelf, published: Published::default() };
    let newest = loop {
        match reader.newest_readable(&mut listing, progress)? {
            // Somebody has gone on meanwhile.
            Some((newest, ..)) if reader.has_begun(newest + 1, &mut listing)? => {
                reader.shelf.clear();
                reader.published = Published::default();
            }
            newest => break newest,
        }
    };
    let (newest, readable, is_closed) = newest.unwrap_or((0, 0, false));
    reader.published.close = listing.close(newest, readable, is_closed)?;
    reader.tell_missing(&listing, newest);
    let before = listing.newest_first().into_iter().filter(|generation| *generation < newest);
    let mut begun = 0;
    for generation in before {
        if !reader.published.bases.is_empty() {
            break;
        }
        if begun == GENERATIONS_MAX {
            let what =
                format!("the newest {GENERATIONS_MAX} generations that were begun have no base that can be read");
            return Err(RepairError::Refused(what));
        }
        let end = reader.generation(generation, &mut listing, progress)?;
        // One that was closed before it had a base is a mount that did not come far. There may be any number of them.
        begun += usize::from(end != Some((0, true)));
    }
    Ok(reader.published)
}

struct Reader<'a> {
    store: &'a Arc<dyn Store>,
    filesystem: Uuid,
    repairs: &'a HashSet<Uuid>,
    shelf: &'a mut Shelf,
    published: Published,
}

impl Reader<'_> {
    /// The newest generation of which anything can be read, the last such number in it, and whether that is its closing object.
    fn newest_readable(
        &mut self,
        listing: &mut Listing,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Option<(u64, u64, bool)>, RepairError> {
        let mut above = None;
        for generation in listing.newest_first().into_iter().take(GENERATIONS_MAX) {
            if let Some((number, is_closed)) = self.generation(generation, listing, progress)? {
                let last = self.published.closing.filter(|_| is_closed && above == Some(generation + 1));
                self.published.begun = last.map(|(at, epoch)| (at.generation + 1, epoch));
                return Ok(Some((generation, number, is_closed)));
            }
            above = listing.numbers(&**self.store, generation)?.contains(&0).then_some(generation);
        }
        match listing.newest_first().len() > GENERATIONS_MAX {
            true => Err(RepairError::Refused("gen/ holds too many objects that are no publications".to_owned())),
            false => Ok(None),
        }
    }

    fn has_begun(&self, generation: u64, listing: &mut Listing) -> Result<bool, RepairError> {
        if listing.newest_first().contains(&generation) {
            return Ok(false);
        }
        match self.store.size(&names::publication(generation, 0)) {
            Ok(_) => listing.add(generation),
            Err(StoreError::NotFound { .. }) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
        Ok(true)
    }

    /// Reads all of a generation. Returns the last number that can be read, and whether it closes the generation.
    fn generation(
        &mut self,
        generation: u64,
        listing: &mut Listing,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Option<(u64, bool)>, RepairError> {
        let numbers: Vec<u64> = listing.numbers(&**self.store, generation)?.iter().copied().collect();
        let mut reach = Reach { windows: Lsn::ZERO, all: Lsn::ZERO, is_unsure: false };
        let (mut last, mut next) = (None, 0);
        for (done, number) in (1..).zip(&numbers) {
            let at = Position { generation, number: *number };
            reach.is_unsure |= *number != next;
            next = number + 1;
            match self.read(at)? {
                Found::Missing => {
                    self.tell(at, "was listed and is gone".to_owned());
                    reach.is_unsure = true;
                }
                Found::Damaged { what, bytes } => {
                    self.tell(at, what);
                    self.rest(at, &bytes);
                    reach.is_unsure = true;
                }
                Found::Good(publication, bytes) => {
                    last = Some((*number, matches!(publication.body, Body::Closing(_))));
                    self.take(*publication, &bytes, &mut reach);
                }
            }
            progress(done, numbers.len() as u64);
        }
        Ok(last)
    }

    fn read(&self, at: Position) -> Result<Found, RepairError> {
        let bytes = match self.store.get(&names::publication(at.generation, at.number)) {
            Ok(bytes) => bytes,
            Err(StoreError::NotFound { .. }) => return Ok(Found::Missing),
            Err(e) => return Err(e.into()),
        };
        let decoded = Publication::decode(&bytes);
        if decoded.is_err() {
            confirm(&**self.store, &names::publication(at.generation, at.number), None, &bytes)?;
        }
        let what = match decoded {
            Err(e) => e.to_string(),
            Ok(found) if found.uuid != self.filesystem => {
                // It has nothing for us.
                return Ok(Found::Damaged {
                    what: format!("belongs to filesystem {}", found.uuid),
                    bytes: Bytes::new(),
                });
            }
            Ok(found) if (found.generation, found.number) != (at.generation, at.number) => {
                format!("says it is number {} of generation {}", found.number, found.generation)
            }
            Ok(found) => match is_sound(&found) {
                Ok(()) => return Ok(Found::Good(Box::new(found), bytes)),
                Err(what) => what,
            },
        };
        Ok(Found::Damaged { what, bytes })
    }

    fn take(&mut self, publication: Publication, bytes: &Bytes, reach: &mut Reach) {
        let Publication { state, nonce, epoch, generation, number, wall, checkpoint, start, end, body, .. } =
            publication;
        let at = Position { generation, number };
        let kind = match &body {
            Body::Base(_) => Kind::Base,
            Body::Increment(_) => Kind::Increment,
            Body::Closing(_) => Kind::Closing,
            Body::Log(_) => Kind::Log,
        };
        // With its base a repair has come to its end: the filesystem is what that says. One that did not says in its closing object up
        // to where the state directory reached from which it was made, and nothing of that was published.
        if kind == Kind::Base || !self.repairs.contains(&state) {
            self.published.headers.push(Header { at, state, nonce, epoch, wall, checkpoint, end, kind });
            self.published.end = self.published.end.max(end);
        }
        self.published.checkpoint_max = self.published.checkpoint_max.max(checkpoint);
        self.published.epoch_max = self.published.epoch_max.max(epoch);
        match body {
            Body::Base(base) => {
                let found = BaseFound { generation, roots: base.roots, lsn: end, checkpoint };
                self.published.bases.push(found);
                self.published.windows.extend(base.windows);
                (reach.windows, reach.all) = (end, end);
                self.log(at, &base.log, end, bytes, reach);
            }
            Body::Increment(increment) => {
                increment.batches().flatten().for_each(|batch| self.shelf.note(&batch));
                self.published.windows.extend(increment.windows);
                let what = What::Changes(Changes::Increment(at));
                self.published.spans.push(Span { from: start, to: end, what });
                (reach.windows, reach.all) = (end, reach.all.max(end));
            }
            Body::Log(log) => {
                self.log(at, &log, end, bytes, reach);
                reach.all = reach.all.max(end);
            }
            Body::Closing(closing) => {
                self.published.closing = self.published.closing.max(Some((at, closing.next_epoch)));
                self.published.epoch_max = self.published.epoch_max.max(closing.next_epoch);
            }
        }
        self.published.shipped = self.published.shipped.max(reach.windows);
    }

    /// Notes what a log carries: all batches up to `upto`, or further, that are not in what comes before it.
    fn log(&mut self, at: Position, log: &Log, upto: Lsn, bytes: &Bytes, reach: &mut Reach) {
        let source = self.shelf.log(self.store, at);
        if log.batches.is_empty() {
            // Nothing concerned files.
            let what = What::Batches { source, range: 0..0 };
            self.published.spans.extend((!reach.is_unsure).then_some(Span { from: reach.all, to: upto, what }));
            return;
        }
        let body = bytes.len() - log.batches.len()..bytes.len();
        let found = Scan { bytes, range: body.clone(), before: (!reach.is_unsure).then_some(reach.all) };
        let (mut spans, mut end) = (Vec::new(), 0);
        scan(&found, &mut |batch, start, span| {
            self.shelf.batch(source, batch, bytes, start, 0);
            end = span.range.end;
            add(&mut spans, source, span);
        });
        match spans.last_mut() {
            Some(last) if end == body.end => last.to = last.to.max(upto),
            _ => self.tell(at, "some of its batches are damaged".to_owned()),
        }
        let last = spans.last().map_or(reach.all, |span| span.to);
        (reach.all, reach.is_unsure) = (reach.all.max(last), end != body.end);
        self.published.end = self.published.end.max(last);
        self.published.spans.extend(spans);
    }

    /// Takes whole batches out of an object that is damaged: those of a log. What an increment says has a meaning only as a whole.
    fn rest(&mut self, at: Position, bytes: &Bytes) {
        let source = self.shelf.log(self.store, at);
        let mut spans = Vec::new();
        scan(&Scan { bytes, range: 0..bytes.len(), before: None }, &mut |batch, start, span| {
            if batch.payload_present && batch.edits.iter().all(|(tree, edit)| Log::carries(*tree, edit)) {
                self.shelf.batch(source, batch, bytes, start, 0);
                add(&mut spans, source, span);
            }
        });
        self.published.spans.extend(spans);
    }

    fn tell_missing(&mut self, listing: &Listing, newest: u64) {
        let mut next = 0;
        for run in listing.runs(newest) {
            let at = Position { generation: newest, number: next };
            match run.start() - next {
                0 => {}
                1 => self.tell(at, "is missing, and later objects are there".to_owned()),
                _ => self.tell(
                    at,
                    format!("is missing, as all up to number {}, and later objects are there", run.start() - 1),
                ),
            }
            next = run.end() + 1;
        }
    }

    fn tell(&mut self, at: Position, what: String) {
        let place = names::publication(at.generation, at.number);
        self.published.damaged.push(Damaged { place, local: false, what });
    }
}

/// Adds a batch to the spans: to the one that it goes on, or as one of its own.
fn add(spans: &mut Vec<Span>, source: u32, found: crate::repair::gather::scan::Run) {
    let range = found.range.start as u64..found.range.end as u64;
    join(spans, source, found.from, found.to, range);
}

/// The same in parts of so many bytes at the most: they are read into memory.
const PART_BYTES: u64 = 8 << 20;

/// Adds batches at a place of a source.
pub(in crate::repair::gather) fn join(spans: &mut Vec<Span>, source: u32, from: Lsn, to: Lsn, at: Range<u64>) {
    if let Some(Span { to: last, what: What::Batches { source: same, range }, .. }) = spans.last_mut() {
        if *same == source && *last == from && range.end == at.start && at.end - range.start <= PART_BYTES {
            (*last, range.end) = (to, at.end);
            return;
        }
    }
    spans.push(Span { from, to, what: What::Batches { source, range: at } });
}

/// What recovery would refuse though the checksum is right.
fn is_sound(publication: &Publication) -> Result<(), String> {
    let Publication { number, start, end, .. } = *publication;
    match &publication.body {
        Body::Base(_) if number > 0 => Err("a base in the middle of a generation".to_owned()),
        Body::Increment(_) | Body::Log(_) if end <= start => Err(format!("ends at {end}, where it starts or before")),
        Body::Increment(increment) => changes_are_sound(increment, start, end),
        _ => Ok(()),
    }
}

fn changes_are_sound(increment: &Increment, start: Lsn, end: Lsn) -> Result<(), String> {
    let is_inside = |batch: &Batch| batch.lsn > start && batch.lsn <= end;
    for batch in increment.batches() {
        let batch = batch.map_err(|e| format!("a bad batch: {e}"))?;
        if !is_inside(&batch) {
            return Err(format!("batch {} is outside of {start}-{end}", batch.lsn));
        }
    }
    Ok(())
}
