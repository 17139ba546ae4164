//! The batches that log increments carry beyond the newest window: they lie over it as layers of their own, with their objects,
//! and give way to the window that holds them.
//!
//! They are bounded by what a writer publishes this way before it publishes a window (`journal/tail.rs`).

use super::layers::Layers;
use super::noted::Noted;
use crate::format::FormatError;
use crate::format::batch::Batch;
use crate::format::ids::{Lsn, ObjectId};
use crate::format::publication::{Log, LogBatch};
use crate::map::{CameWhole, Overlay};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};

/// Most layers of it.
const LAYERS_MAX: usize = 3;

/// See the module.
pub(super) struct Tail {
    /// In the order of their Lsns, all behind the newest window.
    batches: VecDeque<(Lsn, Bytes)>,
    /// Windows and logs reach up to here. Not known between a base and the first log increment after it: logs of the generation
    /// before may have reached further than the last batch that they carried.
    reached: Option<Lsn>,
    pub layers: Layers,
    pub objects: CameWhole,
    /// What they say of the filesystem as a whole.
    pub noted: Noted,
}

/// A layer of some batches, and their objects.
#[derive(Default)]
struct Read {
    batches: Vec<(Lsn, Bytes)>,
    layer: Overlay,
    objects: HashMap<ObjectId, Bytes>,
    noted: Noted,
}

impl Read {
    fn add(&mut self, next: LogBatch) -> Result<(), FormatError> {
        let lsn = next.batch.lsn;
        if !next.batch.edits.iter().all(|(tree, edit)| Log::carries(*tree, edit)) {
            return Err(FormatError::Value("a batch of a log that changes what none may"));
        }
        for n in 0..next.batch.objects.len() {
            let name = u32::try_from(n).map_err(|_| FormatError::Value("too many objects in a batch"))?;
            self.objects.insert(ObjectId { lsn, n: name }, next.object(n));
        }
        self.batches.push((lsn, next.encoded.clone()));
        self.noted.apply(&mut self.layer, next.batch)
    }
}

impl Tail {
    /// What a base carries that ends at `end`.
    pub fn of_base(end: Lsn, log: &Log) -> Result<Tail, FormatError> {
        let mut tail = Tail {
            batches: VecDeque::new(),
            reached: None,
            layers: Layers::new(LAYERS_MAX),
            objects: CameWhole::default(),
            noted: Noted::default(),
        };
        tail.add(end, log)?;
        Ok(tail)
    }

    /// Goes on by a log increment with the Lsns (`start`, `end`]; the newest window ends at `window`. Returns what it changes.
    /// After an error nothing has changed.
    pub fn take(&mut self, (start, end): (Lsn, Lsn), window: Lsn, log: &Log) -> Result<Noted, FormatError> {
        if self.reached.is_some_and(|reached| reached < start) {
            return Err(FormatError::Value("a log that begins behind what comes before it"));
        }
        let noted = self.add(window, log)?;
        self.reached = Some(self.reached.map_or(end, |reached| reached.max(end)));
        Ok(noted)
    }

    fn add(&mut self, window: Lsn, log: &Log) -> Result<Noted, FormatError> {
        let (before, mut read) = (self.last().unwrap_or(window), Read::default());
        for batch in log.batches() {
            let batch = batch?;
            if batch.batch.lsn > before {
                read.add(batch)?;
            }
        }
        let Read { batches, layer, objects, noted } = read;
        if let Some((last, _)) = batches.last() {
            self.objects.add(*last, objects);
        }
        self.batches.extend(batches);
        self.layers.push(layer);
        self.noted.follow_by(&noted);
        Ok(noted)
    }

    /// A window that ends there has what the tail has up to there.
    pub fn supersede(&mut self, window: Lsn) -> Result<(), FormatError> {
        self.reached = self.reached.map(|reached| reached.max(window));
        if self.batches.front().is_none_or(|(lsn, _)| *lsn > window) {
            return Ok(());
        }
        self.batches.retain(|(lsn, _)| *lsn > window);
        self.objects.forget(window);
        (self.layers, self.noted) = (Layers::new(LAYERS_MAX), Noted::default());
        let mut layer = Overlay::new();
        for (_, encoded) in &self.batches {
            let (batch, _) = Batch::decode(encoded, 0)?;
            self.noted.apply(&mut layer, batch)?;
        }
        self.layers.push(layer);
        Ok(())
    }

    /// The last batch, if there is any.
    pub fn last(&self) -> Option<Lsn> {
        self.batches.back().map(|(lsn, _)| *lsn)
    }
}
