//! What the store and the state directory still say of a filesystem, whatever of them is damaged. Only reads.
//!
//! An error of the disk, or a store that does not answer, ends it: that is no damage, and the next try may find all of it.

//!
//! In order: the superblock; the newest generation, around what cannot be read of it; the manifest, checkpoints and journal of the
//! state directory; whether that is still the writer's, for else it is left alone; then a place to start from, and all batches
//! behind it in the order of their Lsns, each from wherever it is left.
//!
//! **Memory** grows with the number of objects in journal and logs, some 40 bytes each, with the number of groups of the
//! journal and of publications, some 100 bytes each, and with what the overlays keep, as in a mount. One publication is held at a time.

mod apply;
mod configuration;
mod contents;
mod generations;
mod local;
mod owner;
mod scan;
mod shelf;
mod spans;
mod starts;

pub use contents::{Contents, Entry, Source};

use super::{Damaged, RepairError};
use crate::format::ids::{Lsn, NodePtr, Uuid};
use crate::format::names::{self, DAMAGED, Parsed};
use crate::format::publication::{GENERATION_MAX, Position, WindowEntry};
use crate::format::repair_file::{REPAIR_FILE, RepairFile};
use crate::format::space::{self, Mark};
use crate::format::superblock::Superblock;
use crate::map::Overlay;
use crate::media::Media;
use crate::repair::mend::AfterLoss;
use crate::store::Store;
use apply::Applying;
pub use configuration::append_only;
use configuration::configuration;
use generations::{Published, read_generations};
use local::Local;
use shelf::Shelf;
use spans::{Route, Span, What};
use starts::{Candidate, Nodes, choose};
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

/// What is left of a filesystem, as a repair begins with it.
pub struct Evidence {
    /// The store's configuration; put together anew if it was damaged, which `damaged` says then.
    pub superblock: Superblock,
    /// Where the maps start.
    pub start: Start,
    /// All later batches that are left, over the start: files and space, in the order of `TreeId`.
    pub overlays: [Overlay; 2],
    /// What was written, and lies in the journal or in logs.
    pub contents: Contents,
    /// Windows, as bases, increments and checkpoints list them; one entry for each end, in order.
    pub windows: Vec<WindowEntry>,
    /// What part the state directory has in this.
    pub state: StatePart,
    /// What was published last, as far as it can be read, came from it.
    pub published_last: bool,
    /// The numbers at which there must be closing objects, each created if absent, in this order; the generation of the repair is the
    /// one after that of the last. The last is won ([`crate::ship::fence::win`]). Others are there only where the generation itself is
    /// damaged, and are taken ([`crate::ship::fence::take`]).
    pub close: Vec<Position>,
    /// The highest number of a checkpoint seen anywhere.
    pub checkpoint_max: u64,
    /// The highest number of an inode in batches, and the highest that may have been given by them.
    pub inode_max: u64,
    /// The highest epoch seen anywhere.
    pub epoch_max: u32,
    /// The highest epoch of which something was written that counts, as far as batches, windows and the state directory say.
    pub epoch: u32,
    /// The last batch seen anywhere: the next one is behind its position.
    pub end: Lsn,
    /// Batches that are nowhere any more: after the first, up to and with the second. What came after all that is left cannot be
    /// counted where nothing says that it was there; then only `damaged` tells of it.
    pub lost: Vec<(Lsn, Lsn)>,
    /// Which files those of them may have changed that lie between others.
    pub after_loss: AfterLoss,
    /// What is damaged, missing or foreign, each thing once.
    pub damaged: Vec<Damaged>,
}

/// Where the maps start: both trees, as of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The roots, in the order of `TreeId`, `None` for an empty tree; nothing at all if they are lost, and the trees are to be put
    /// together from whatever nodes there are.
    pub roots: Option<[Option<NodePtr>; 2]>,
    /// The last batch in them; zero if they are lost.
    pub lsn: Lsn,
    /// The number of the checkpoint.
    pub checkpoint: u64,
}

/// What part a state directory has in a repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatePart {
    /// There is none, or it holds nothing.
    None,
    /// It is the writer's: what it holds counts.
    Owner,
    /// It is not, for this reason: it is not read from, and stays as it is.
    Outlived(String),
}

/// Told which step is at work and how far it has come: (step, done, total); a total of 0 is unknown.
type ProgressFn<'a> = dyn FnMut(&'static str, u64, u64) + 'a;

/// Reads all that is left. An error of the disk or of the store ends it; so does a store in which nothing is ours, or what only
/// a newer program can read.
pub fn gather(
    store: &Arc<dyn Store>,
    state: Option<&Arc<dyn Media>>,
    progress: &mut ProgressFn<'_>,
) -> Result<Evidence, RepairError> {
    let mut damaged = Vec::new();
    let mut listing = generations::list(&**store)?;
    // What is wrong with the manifest counts only if the state directory does.
    let mut unread = Vec::new();
    let manifest = state.map(|state| local::manifest(&**state, &mut unread)).transpose()?.flatten();
    let known = manifest.as_ref().and_then(Option::as_ref);
    let superblock = configuration(&**store, state, known, &mut listing, &mut damaged)?;
    let filesystem = superblock.uuid;
    let repairs = repairs(&**store, state)?;
    let (mut remote_shelf, mut shelf) = (Shelf::default(), Shelf::default());
    let mut told = |done, total| progress("publications", done, total);
    let mut published = read_generations(store, filesystem, &repairs, listing, &mut remote_shelf, &mut told)?;
    let local = match (state, manifest) {
        (Some(state), Some(manifest)) => {
            let mut told = |done, total| progress("journal", done, total);
            Some(Local::read(state, manifest, filesystem, &mut shelf, &mut told)?)
        }
        _ => None,
    };
    let part = owner::part(local.as_ref(), &published, &mut shelf, &**store)?;
    let published_last = owner::published_last(local.as_ref(), &published);
    published.epoch_max = published.epoch_max.max(newest_named(&**store)?);
    let local = local.filter(|_| part == StatePart::Owner);
    match &local {
        Some(_) => damaged.append(&mut unread),
        None => shelf.clear(),
    }
    shelf.append(remote_shelf, &mut published.spans);
    let gathered = Gathered { store, superblock, published, local, part, published_last, shelf, damaged };
    gathered.put_together(progress)
}

/// The repairs that came to no end, as far as they are known: what they published says nothing of who has the filesystem.
fn repairs(store: &dyn Store, state: Option<&Arc<dyn Media>>) -> Result<HashSet<Uuid>, RepairError> {
    let mut repairs = HashSet::new();
    store.walk(DAMAGED.trim_end_matches('/'), &mut |name| {
        let id = name.strip_prefix(DAMAGED).and_then(|rest| rest.split_once('/'));
        repairs.extend(id.and_then(|(id, _)| u128::from_str_radix(id, 16).ok()).map(Uuid));
        ControlFlow::Continue(())
    })?;
    if let Some(Ok(bytes)) = state.map(|state| local::read(&**state, REPAIR_FILE)).transpose()?.flatten() {
        repairs.extend(RepairFile::decode(&bytes).map(|file| file.id));
    }
    Ok(repairs)
}

/// The newest epoch in the names of segments and windows, whoever put them: the repair uses none of their names.
fn newest_named(store: &dyn Store) -> Result<u32, RepairError> {
    let mut newest = 0;
    for folder in ["seg", "win"] {
        store.walk(folder, &mut |name| {
            let epoch = match names::parse(name) {
                Some(Parsed::Segment(no)) => no.epoch,
                Some(Parsed::Window(_, end)) => end.epoch,
                _ => 0,
            };
            // Nobody ever has one that no generation could follow.
            if u64::from(epoch) < GENERATION_MAX {
                newest = newest.max(epoch);
            }
            ControlFlow::Continue(())
        })?;
    }
    Ok(newest)
}

/// All that was read.
struct Gathered<'a> {
    store: &'a Arc<dyn Store>,
    superblock: Superblock,
    published: Published,
    /// The state directory, if it counts.
    local: Option<Local>,
    part: StatePart,
    published_last: bool,
    shelf: Shelf,
    damaged: Vec<Damaged>,
}

impl Gathered<'_> {
    fn put_together(mut self, progress: &mut ProgressFn<'_>) -> Result<Evidence, RepairError> {
        let mut spans = std::mem::take(&mut self.published.spans);
        spans.extend(self.local.iter_mut().flat_map(|local| std::mem::take(&mut local.spans)));
        spans::sort(&mut spans);
        let candidates = self.candidates();
        let media = self.local.as_ref().map(|local| local.media.clone());
        let mut nodes = Nodes::in_order(media.as_ref(), self.store);
        let known = self.known_checkpoint();
        let durable = self.local.as_ref().map_or(Lsn::ZERO, Local::durable);
        let end = self.published.end.max(durable).max(known);
        let mut told = |done, total| progress("trees", done, total);
        let (start, route) = choose(&candidates, &spans, (known, end), &mut nodes, &mut told)?;
        if let Some([_, space]) = start.roots {
            let mark = space::mark(Mark::Inode);
            if let Some(Some(value)) = nodes.value(space, &mark)? {
                self.shelf.space(&mark, &value);
            }
        }
        let (overlays, after_loss) = self.apply(&spans, &route, progress)?;
        Ok(Evidence { overlays, after_loss, ..self.finish(start, route) })
    }

    /// Where the maps may start, the best place first.
    fn candidates(&self) -> Vec<Candidate> {
        let local = self.local.iter().flat_map(|local| &local.checkpoints).map(|checkpoint| Candidate {
            roots: checkpoint.roots,
            lsn: checkpoint.lsn,
            checkpoint: checkpoint.number,
            is_behind: false,
        });
        let newest = self.published.headers.iter().map(|header| header.at.generation).max().unwrap_or(0);
        let bases = self.published.bases.iter().map(|base| Candidate {
            roots: base.roots,
            lsn: base.lsn,
            checkpoint: base.checkpoint,
            is_behind: base.generation < newest,
        });
        local.chain(bases).collect()
    }

    /// Up to here some checkpoint was, whatever is left of it.
    fn known_checkpoint(&self) -> Lsn {
        let manifest = self.local.as_ref().and_then(|local| local.manifest.as_ref());
        let point = manifest.and_then(|manifest| manifest.checkpoint).map(|point| point.lsn);
        point.unwrap_or_default().max(self.published.shipped)
    }

    fn apply(
        &mut self,
        spans: &[Span],
        route: &Route,
        progress: &mut ProgressFn<'_>,
    ) -> Result<([Overlay; 2], AfterLoss), RepairError> {
        let media = self.local.as_ref().map(|local| &*local.media);
        let mut applying = Applying::new(&**self.store, media, &self.shelf.sources, spans, route);
        let total = route.steps.len() as u64;
        if let Some(local) = self.local.as_ref().filter(|_| spans.iter().any(|span| span.what == What::Journal)) {
            local.remains.each(&mut |left| {
                progress("batches", applying.steps_done(), total);
                applying.journal(left.batch)
            })?;
        }
        applying.finish()
    }

    /// All but what the batches make.
    fn finish(self, start: Start, route: Route) -> Evidence {
        let Gathered { superblock, published, local, part, published_last, shelf, mut damaged, .. } = self;
        let mut windows = published.windows;
        windows.extend(local.iter().flat_map(|local| &local.checkpoints).flat_map(|c| c.windows.iter().cloned()));
        windows.sort_by_key(|window| (window.end, window.start));
        windows.dedup_by_key(|window| (window.end, window.start));
        damaged.extend(published.damaged);
        let (mut checkpoint_max, mut epoch_max) = (published.checkpoint_max, published.epoch_max);
        let mut end = published.end.max(shelf.end).max(start.lsn);
        let of_windows = windows.iter().flat_map(|window| {
            let segments = window.segments.iter().map(|segment| segment.segment.epoch);
            segments.chain([window.end.epoch])
        });
        let mut epoch = of_windows.max().unwrap_or(0);
        if let Some(local) = local {
            epoch = epoch.max(local.epoch);
            checkpoint_max = checkpoint_max.max(local.checkpoint_max);
            epoch_max = epoch_max.max(local.epoch);
            end = end.max(local.remains.last);
            damaged.extend(local.damaged);
        }
        epoch = epoch.max(end.epoch);
        epoch_max = epoch_max.max(epoch);
        damaged.sort();
        damaged.dedup();
        Evidence {
            superblock,
            start,
            overlays: Default::default(),
            windows,
            state: part,
            published_last,
            close: close_behind(published.close, epoch_max),
            checkpoint_max,
            inode_max: shelf.inode_max,
            epoch_max,
            epoch,
            end,
            lost: route.lost,
            after_loss: AfterLoss::new(),
            contents: shelf.finish(),
            damaged,
        }
    }
}

/// No generation is made whose number is that of an epoch which was somebody's: that one may have written segments in it.
fn close_behind(mut close: Vec<Position>, epoch_max: u32) -> Vec<Position> {
    let epoch = u64::from(epoch_max);
    if close.last().is_none_or(|last| last.generation < epoch) {
        close.push(Position { generation: epoch, number: 0 });
    }
    close
}
