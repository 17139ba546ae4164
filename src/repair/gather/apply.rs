//! Taking the way: all batches behind the start over the maps, in the order of their Lsns.

use super::RepairError;
use super::contents::Source;
use super::spans::{Changes, Route, Span, Step, What};
use crate::checkpoint::files::read_edits;
use crate::format::batch::{Batch, Edit, TreeId};
use crate::format::ids::{InodeNo, Lsn};
use crate::format::key::Key;
use crate::format::names;
use crate::format::publication::{Body, Log};
use crate::map::Overlay;
use crate::media::Media;
use crate::recovery::apply;
use crate::repair::mend::AfterLoss;
use crate::ship::publish;
use crate::store::Store;
use bytes::Bytes;
use std::collections::HashSet;

/// A way that is being taken.
pub(super) struct Applying<'a> {
    store: &'a dyn Store,
    media: Option<&'a dyn Media>,
    sources: &'a [Source],
    spans: &'a [Span],
    steps: &'a [Step],
    next: usize,
    overlays: [Overlay; 2],
    last: Lsn,
    missed: Missed<'a>,
}

impl<'a> Applying<'a> {
    pub fn new(
        store: &'a dyn Store,
        media: Option<&'a dyn Media>,
        sources: &'a [Source],
        spans: &'a [Span],
        route: &'a Route,
    ) -> Applying<'a> {
        Applying {
            store,
            media,
            sources,
            spans,
            steps: &route.steps,
            next: 0,
            overlays: Default::default(),
            last: Lsn::ZERO,
            missed: Missed { ahead: &route.lost, is_past: false, after: AfterLoss::new(), inline: HashSet::new() },
        }
    }

    /// How many steps were taken.
    pub fn steps_done(&self) -> u64 {
        self.next as u64
    }

    /// The next batch of the journal: what the way has before it comes first; and it may have something else in its place.
    pub fn journal(&mut self, batch: Batch) -> Result<(), RepairError> {
        let lsn = batch.lsn;
        while let Some(step) = self.steps.get(self.next).filter(|step| step.after.pos < lsn.pos) {
            let is_journal = self.spans[step.span].what == What::Journal;
            if is_journal && lsn.pos <= step.upto.pos {
                self.add(batch);
                return Ok(());
            }
            self.take(step)?;
        }
        Ok(())
    }

    /// Takes what is left of the way. Says, too, which files have attributes of after a batch that is lost.
    pub fn finish(mut self) -> Result<([Overlay; 2], AfterLoss), RepairError> {
        while let Some(step) = self.steps.get(self.next) {
            self.take(step)?;
        }
        Ok((self.overlays, self.missed.after))
    }

    fn take(&mut self, step: &Step) -> Result<(), RepairError> {
        self.next += 1;
        match &self.spans[step.span].what {
            // Its batches were shown already.
            What::Journal => {}
            What::Batches { source, range } => {
                let bytes = self.sources[*source as usize].read(range.clone())?;
                each(&bytes, &mut |batch| {
                    let is_due = batch.lsn.pos > step.after.pos && batch.lsn.pos <= step.upto.pos;
                    if is_due && batch.edits.iter().all(|(tree, edit)| Log::carries(*tree, edit)) {
                        self.add(batch);
                    }
                })?;
            }
            What::Changes(changes) => {
                let bytes = self.changes(*changes)?;
                self.last = self.last.max(step.upto);
                let (last, overlays, missed) = (self.last, &mut self.overlays, &mut self.missed);
                each(&bytes, &mut |batch| {
                    missed.take(last, &batch);
                    apply_at(overlays, last, batch);
                })?;
            }
        }
        Ok(())
    }

    fn changes(&self, changes: Changes) -> Result<Bytes, RepairError> {
        match (changes, self.media) {
            (Changes::Edits(number), Some(media)) => Ok(read_edits(media, number, None)?),
            (Changes::Increment(at), _) => match publish::read(self.store, at)?.map(|publication| publication.body) {
                Some(Body::Increment(increment)) => Ok(increment.batches),
                _ => Err(changed(&names::publication(at.generation, at.number))),
            },
            (Changes::Edits(_), None) => unreachable!("files of a state directory are noted only where it counts"),
        }
    }

    /// Batches come in the order of their Lsns; one that does not, under whatever checksum, is none.
    fn add(&mut self, batch: Batch) {
        if batch.lsn > self.last {
            self.last = batch.lsn;
            self.missed.take(batch.lsn, &batch);
            apply(&mut self.overlays, batch);
        }
    }
}

/// Which files lost batches may have changed, as far as what came after these says so.
struct Missed<'a> {
    /// What is lost, and was not passed yet.
    ahead: &'a [(Lsn, Lsn)],
    is_past: bool,
    after: AfterLoss,
    /// Files whose inline contents are of after the last batch that is lost.
    inline: HashSet<InodeNo>,
}

impl Missed<'_> {
    /// The next batch that there is.
    fn take(&mut self, lsn: Lsn, batch: &Batch) {
        while let Some((_, rest)) = self.ahead.split_first().filter(|((_, to), _)| to.pos < lsn.pos) {
            (self.ahead, self.is_past) = (rest, true);
            self.inline.clear();
        }
        if !self.is_past {
            return;
        }
        for (_, edit) in batch.edits.iter().filter(|(tree, _)| *tree == TreeId::Files) {
            let (Edit::Put { key, .. } | Edit::Delete { key }) = edit else { continue };
            match (Key::decode(key), edit) {
                (Ok(Key::Inline(ino)), _) => {
                    self.inline.insert(ino);
                    self.after.entry(ino).and_modify(|inline_is_older| *inline_is_older = false);
                }
                (Ok(Key::Inode(ino)), Edit::Put { .. }) => {
                    let is_older = !self.inline.contains(&ino);
                    self.after.insert(ino, is_older);
                }
                _ => {}
            }
        }
    }
}

fn each(bytes: &Bytes, each: &mut dyn FnMut(Batch)) -> Result<(), RepairError> {
    let mut at = 0;
    while at < bytes.len() {
        let (batch, used) = Batch::decode(bytes, at).map_err(|e| changed(&format!("a batch ({e})")))?;
        at += used;
        each(batch);
    }
    Ok(())
}

fn changed(what: &str) -> RepairError {
    RepairError::Refused(format!("{what} is not what it was a moment ago: something else writes here"))
}

/// Changes that are those of all batches up to `lsn` together.
fn apply_at(overlays: &mut [Overlay; 2], lsn: Lsn, batch: Batch) {
    let headers = batch.headers();
    for (tree, edit) in batch.edits {
        let edit: Edit = edit.resolve(batch.lsn, &headers);
        overlays[tree as usize].apply(lsn, &edit);
    }
}
