//! What was read of a filesystem so far: a base, and the publications after it, each taken whole or not at all.

use super::changed::Changed;
use super::layers::Layers;
use super::noted::Noted;
use super::tail::Tail;
use crate::format::FormatError;
use crate::format::batch::TreeId;
use crate::format::ids::{Lsn, NodePtr, Uuid};
use crate::format::key;
use crate::format::names::{self, SUPERBLOCK};
use crate::format::publication::{Base, Body, Increment, Position, Publication, WindowEntry};
use crate::format::usage::{Usage, UsageLimit};
use crate::map::{Overlay, Seen, Term, View};
use crate::recovery::{MountError, Reader, damaged};
use std::sync::Arc;

/// Most layers of windows; the tail adds a few.
const LAYERS_MAX: usize = 5;

/// A published state, and how the next one is made of it.
pub(super) struct State {
    filesystem: Uuid,
    root: Option<NodePtr>,
    layers: Layers,
    /// Where the windows end.
    end: Lsn,
    /// What lies behind them.
    tail: Tail,
    /// The newest publication that counts.
    at: Position,
    /// Where the next one will be.
    pub next: Position,
    checkpoint: u64,
    wall: i64,
    /// At the end of the windows.
    usage: Option<Usage>,
    usage_limit: UsageLimit,
}

/// What taking a publication came to.
pub(super) enum Taken {
    /// A base: all windows that hold something, as (end, start), and what may differ from before.
    Base(Vec<(Lsn, Lsn)>, Changed),
    /// More changes, and the window that they came with.
    Changes(Vec<WindowEntry>, Changed),
    /// The end of a generation; the state is what it was.
    Closed,
}

impl State {
    /// The state that a base publishes, and its windows.
    pub fn of_base(
        filesystem: Uuid,
        base: Publication,
        trees: &Reader<'_>,
    ) -> Result<(State, Vec<(Lsn, Lsn)>), MountError> {
        let Publication { uuid, generation, number, checkpoint, end, wall, .. } = base;
        let name = names::publication(generation, number);
        if uuid != filesystem {
            return Err(damaged(&name, format!("belongs to filesystem {uuid}, {SUPERBLOCK} says {filesystem}")));
        }
        let Body::Base(Base { roots, windows: unrecorded, log, .. }) = base.body else {
            return Err(damaged(&name, "is not a base"));
        };
        let tail = Tail::of_base(end, &log).map_err(|e| damaged(&name, e))?;
        trees.fetcher.interiors(roots, trees.nodes, trees.cache);
        let nothing = Overlay::new();
        let [files, space] = roots.map(|root| View { overlay: &nothing, layers: &[], root });
        let usage = trees.value(&files, &key::usage(), Usage::decode)?;
        let usage_limit = trees.value(&files, &key::limit(), UsageLimit::decode)?.unwrap_or_default();
        let mut windows = trees.windows(&space)?;
        windows.extend(unrecorded.iter().filter(|entry| entry.objects > 0).map(|entry| (entry.end, entry.start)));
        let at = Position { generation, number };
        let next = Position { generation, number: number + 1 };
        let (root, layers) = (roots[0], Layers::new(LAYERS_MAX));
        let state = State { filesystem, root, layers, end, tail, at, next, checkpoint, wall, usage, usage_limit };
        Ok((state, windows))
    }

    /// Goes on by the publication at [`State::next`]. After an error nothing has changed.
    pub fn take(&mut self, next: Publication, trees: &Reader<'_>) -> Result<Taken, MountError> {
        let Publication { uuid, generation, number, .. } = next;
        let name = names::publication(generation, number);
        if uuid != self.filesystem {
            return Err(damaged(&name, format!("belongs to filesystem {uuid}, not {}", self.filesystem)));
        }
        match &next.body {
            Body::Closing(_) => {
                self.next = Position { generation: generation + 1, number: 0 };
                Ok(Taken::Closed)
            }
            Body::Base(_) if number > 0 => Err(damaged(&name, "a base in the middle of a generation")),
            Body::Base(_) => self.take_base(next, trees),
            _ if number == 0 => Err(damaged(&name, "is neither a base nor the end of a generation")),
            Body::Increment(_) => self.take_increment(next),
            Body::Log(_) => self.take_log(next),
        }
    }

    fn take_base(&mut self, next: Publication, trees: &Reader<'_>) -> Result<Taken, MountError> {
        let name = names::publication(next.generation, next.number);
        let (state, windows) = State::of_base(self.filesystem, next, trees)?;
        if state.last() < self.last() {
            let reason = format!("ends at {}, and what was published before at {}", state.last(), self.last());
            return Err(damaged(&name, reason));
        }
        let same = state.last() == self.last();
        let changed = if same { Changed::default() } else { Changed::Everything };
        *self = state;
        Ok(Taken::Base(windows, changed))
    }

    fn take_increment(&mut self, next: Publication) -> Result<Taken, MountError> {
        let Publication { generation, number, start, end, checkpoint, wall, .. } = next;
        let name = names::publication(generation, number);
        let Body::Increment(increment) = next.body else { return Err(damaged(&name, "is not an increment")) };
        if start != self.end || end < start {
            return Err(damaged(&name, format!("goes from {start} to {end}, the one before ends at {}", self.end)));
        }
        let known = self.last();
        let (layer, noted) = self.changes(&increment, known).map_err(|e| damaged(&name, e))?;
        self.tail.supersede(end).map_err(|e| damaged(&name, e))?;
        self.layers.push(layer);
        self.usage = noted.usage.or(self.usage);
        self.usage_limit = noted.usage_limit.unwrap_or(self.usage_limit);
        self.end = end;
        self.passed(generation, number, checkpoint, wall);
        Ok(Taken::Changes(increment.windows, noted.changed))
    }

    fn take_log(&mut self, next: Publication) -> Result<Taken, MountError> {
        let Publication { generation, number, start, end, checkpoint, wall, .. } = next;
        let name = names::publication(generation, number);
        let Body::Log(log) = next.body else { return Err(damaged(&name, "is not a log increment")) };
        let noted = self.tail.take((start, end), self.end, &log).map_err(|e| damaged(&name, e))?;
        self.passed(generation, number, checkpoint, wall);
        Ok(Taken::Changes(Vec::new(), noted.changed))
    }

    fn passed(&mut self, generation: u64, number: u64, checkpoint: u64, wall: i64) {
        self.at = Position { generation, number };
        self.next = Position { generation, number: number + 1 };
        self.checkpoint = checkpoint;
        self.wall = wall;
    }

    /// The changes of a window; what the tail has of them up to `known` is no news.
    fn changes(&self, increment: &Increment, known: Lsn) -> Result<(Overlay, Noted), FormatError> {
        let (mut layer, mut all, mut last) = (Overlay::new(), Noted::default(), self.end);
        let mut news = Changed::default();
        for batch in increment.batches() {
            let batch = batch?;
            // A long window is several batches at its end.
            if batch.lsn <= self.end || batch.lsn < last {
                return Err(FormatError::Value("batches that do not follow one another"));
            }
            last = batch.lsn;
            if batch.lsn > known {
                batch.edits.iter().filter(|(tree, _)| *tree == TreeId::Files).for_each(|(_, edit)| news.note(edit));
            }
            all.apply(&mut layer, batch)?;
        }
        Ok((layer, Noted { changed: news, ..all }))
    }

    /// The newest batch of the state.
    pub fn last(&self) -> Lsn {
        self.tail.last().map_or(self.end, |last| last.max(self.end))
    }

    /// The generation that it comes from.
    pub fn generation(&self) -> u64 {
        self.at.generation
    }

    /// The state, for those who read it.
    pub fn seen(&self, term: &Arc<Term>) -> Seen {
        Seen {
            layers: self.tail.layers.all().iter().chain(self.layers.all()).cloned().collect(),
            root: self.root,
            objects: self.tail.objects.clone(),
            last: self.last(),
            position: self.at,
            checkpoint: self.checkpoint,
            wall: self.wall,
            usage: self.tail.noted.usage.or(self.usage),
            usage_limit: self.tail.noted.usage_limit.unwrap_or(self.usage_limit),
            term: term.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
