//! Taking a filesystem over from the store alone: newest generation, its base, its increments, local state made of all that,
//! and a closing object that fences whoever wrote it.
//!
//! Whatever can fail comes before the closing object, so that a takeover which fails has fenced nobody for nothing. What the
//! other writer publishes meanwhile is found at the number that was to be won, and read then.

use super::numbers::{Numbers, base_of, first_free, generations, no_generation};
use super::tail::Tail;
use super::{Fetcher, HoldError, Holding, MountError, Reader, Tuning, World, apply, damaged, put_mark};
use crate::base::clock::Time;
use crate::checkpoint::files;
use crate::checkpoint::merge::{Merged, merge_all};
use crate::checkpoint::nodes::{NodeStore, NodeWriter};
use crate::checkpoint::space::node_segment;
use crate::format::batch::{Edit, TreeId};
use crate::format::checkpoint::{Checkpoint, Settle, TailFile};
use crate::format::ids::{Lsn, NodePtr, Nonce, SegmentNo, Uuid};
use crate::format::manifest::{CommitPoint, Manifest};
use crate::format::names::{self, SUPERBLOCK};
use crate::format::publication::{Base, Body, Closing, Position, Publication, WindowEntry};
use crate::format::space::{self, Mark, Published};
use crate::format::superblock::Superblock;
use crate::journal::{JournalError, MANIFEST, ManifestStore};
use crate::map::{Frozen, Merge, NodeCache, Overlay, View, reachable_within};
use crate::media::Media;
use crate::ship::fence::{self, Win, behind_gap};
use crate::store::Store;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::Arc;

/// How often local state is made anew because a window was published meanwhile,
const TRIES: u32 = 8;
/// and how often a number is lost to a writer that publishes one log increment after the other.
const RACES: u32 = 256;

/// Numbers set aside for the node segments of the takeover itself.
const NUMBERS: u64 = 65536;

/// Told after each publication: may make trees of the changes so far.
type Fold<'f> = dyn FnMut(&mut Remote) -> Result<(), MountError> + 'f;

/// What the store's newest generation says.
pub struct Remote {
    /// The base's roots, or, if `folded`, those of trees that are here.
    pub roots: [Option<NodePtr>; 2],
    /// The increments' changes that `roots` do not have.
    pub overlays: [Overlay; 2],
    /// The epoch that is likely to be won next. Sure is only what `free` says at the end.
    likely: u32,
    /// The epoch that the trees were made in which changes have become already.
    folded: Option<u32>,
    /// Windows that are listed; the space tree may record them or not.
    pub windows: Vec<WindowEntry>,
    /// The node segments of the base, with their sizes.
    node_segments: Vec<(SegmentNo, u64)>,
    /// What the space tree has yet to be told of the newest publication's checkpoint.
    pub settlement: Vec<Settle>,
    /// The newest publication's checkpoint.
    pub checkpoint: u64,
    /// The last batch of the newest window.
    pub end: Lsn,
    /// What log increments carry beyond it.
    pub tail: Tail,
    /// The first free number: in this generation, or the next one's first if this one is closed.
    pub free: Position,
}

/// Reads the newest generation: base and increments up to the first gap or a closing object. All changes of the increments are
/// in memory.
pub fn read_remote(store: &dyn Store, filesystem: Uuid, fetcher: &Fetcher) -> Result<Remote, MountError> {
    read_folding(store, filesystem, fetcher, &mut |_| Ok(()))
}

fn read_folding(
    store: &dyn Store,
    filesystem: Uuid,
    fetcher: &Fetcher,
    fold: &mut Fold<'_>,
) -> Result<Remote, MountError> {
    let listed = generations(store)?;
    let mut newest = *listed.last_key_value().ok_or_else(no_generation)?.0;
    loop {
        let found = read_from(store, filesystem, fetcher, &listed, newest, fold);
        // What was read of a generation that has ended meanwhile may be full of holes.
        let free = found.as_ref().map_or(Position { generation: newest, number: 1 }, |remote| remote.free);
        match behind_gap(store, free)? {
            Some(later) => newest = later.generation,
            None => return found,
        }
    }
}

fn read_from(
    store: &dyn Store,
    filesystem: Uuid,
    fetcher: &Fetcher,
    listed: &BTreeMap<u64, u64>,
    newest: u64,
    fold: &mut Fold<'_>,
) -> Result<Remote, MountError> {
    let (mut numbers, base) = base_of(store, fetcher, listed, newest)?;
    // Generations behind it were closed before they had a base.
    let is_behind = numbers.generation < newest;
    let likely = u32::try_from(newest + u64::from(is_behind) + 1).unwrap_or(u32::MAX);
    let mut remote = read_generation(&mut numbers, filesystem, base, (likely, fold))?;
    if is_behind {
        remote.free = first_free(store, newest)?;
    }
    Ok(remote)
}

fn read_generation(
    numbers: &mut Numbers<'_>,
    filesystem: Uuid,
    base: Publication,
    (likely, fold): (u32, &mut Fold<'_>),
) -> Result<Remote, MountError> {
    let Publication { uuid, generation, checkpoint, end, .. } = base;
    let name = names::publication(generation, 0);
    if uuid != filesystem {
        return Err(damaged(&name, format!("belongs to filesystem {uuid}, {SUPERBLOCK} says {filesystem}")));
    }
    let Body::Base(Base { roots, windows, node_segments, settlement, log }) = base.body else {
        return Err(damaged(&name, "is not a base"));
    };
    if u64::from(end.epoch) > generation {
        return Err(damaged(
            &name,
            format!("ends at {end}, which no writer of generation {generation} can have written"),
        ));
    }
    let tail = Tail::of_base(Position { generation, number: 0 }, end, log)?;
    let (overlays, free) = (Default::default(), Position { generation, number: 1 });
    let folded = None;
    let mut remote =
        Remote { roots, overlays, likely, folded, windows, node_segments, settlement, checkpoint, end, tail, free };
    remote.take_all(numbers, fold)?;
    numbers.check_end()?;
    Ok(remote)
}

impl Remote {
    /// A base cannot record its own node segments; unless an increment does, they are recorded here: the next base need not
    /// upload them again, and lists those it no longer reaches for deletion.
    fn put_node_segments(&self, overlays: &mut [Overlay; 2]) {
        for (no, bytes) in &self.node_segments {
            let edit = Edit::Put { key: space::segment(*no), value: node_segment(*bytes).encode() };
            overlays[TreeId::Space as usize].apply(self.end, &edit);
        }
    }

    /// Goes on to the first gap, or behind a closing object.
    fn take_all(&mut self, numbers: &mut Numbers<'_>, fold: &mut Fold<'_>) -> Result<(), MountError> {
        while let Some(next) = numbers.next()? {
            if !self.take(next)? {
                break;
            }
            fold(self)?;
        }
        Ok(())
    }

    /// Reads what has come to the number that was free, and behind it.
    pub fn go_on(&mut self, store: &dyn Store, filesystem: Uuid, fetcher: &Fetcher) -> Result<(), MountError> {
        self.go_on_folding(store, filesystem, fetcher, &mut |_| Ok(()))
    }

    fn go_on_folding(
        &mut self,
        store: &dyn Store,
        filesystem: Uuid,
        fetcher: &Fetcher,
        fold: &mut Fold<'_>,
    ) -> Result<(), MountError> {
        let read = match self.free.number {
            0 => Ok(()),
            _ => self.take_all(&mut Numbers::new(store, fetcher, self.free, 0), fold),
        };
        // Another generation may have a base already; and what came late to a number that was deleted fits nowhere.
        if self.free.number == 0 || read.is_err() && behind_gap(store, self.free)?.is_some() {
            *self = read_folding(store, filesystem, fetcher, fold)?;
            return Ok(());
        }
        read
    }

    /// Goes on by one publication; `false` at a closing object.
    fn take(&mut self, next: Publication) -> Result<bool, MountError> {
        let Publication { generation, number, start, end, checkpoint, .. } = next;
        let name = names::publication(generation, number);
        match next.body {
            Body::Closing(_) => {
                self.free = Position { generation: generation + 1, number: 0 };
                return Ok(false);
            }
            Body::Base(_) => return Err(damaged(&name, "a base in the middle of a generation")),
            Body::Log(log) => {
                self.tail.take(Position { generation, number }, self.end, log)?;
                self.free.number += 1;
                return Ok(true);
            }
            Body::Increment(increment) => {
                if start != self.end {
                    return Err(damaged(&name, format!("starts at {start}, the one before ends at {}", self.end)));
                }
                for batch in increment.batches() {
                    apply(&mut self.overlays, batch.map_err(|e| damaged(&name, e))?);
                }
                self.windows.extend(increment.windows);
                self.settlement = increment.settlement;
            }
        }
        self.end = end;
        self.tail.supersede(end);
        self.checkpoint = checkpoint;
        self.free.number += 1;
        Ok(true)
    }
}

/// Whether a manifest may be there: it names a checkpoint, also where the last sync of its making failed.
fn has_manifest(media: &dyn Media) -> bool {
    !matches!(media.open(MANIFEST), Err(e) if e.kind() == ErrorKind::NotFound)
}

/// Makes local state of the newest generation, and wins it. Says how often changes became trees before all were read.
pub(super) fn take_over(
    world: &World,
    tuning: &Tuning,
    superblock: &Superblock,
    nodes: &Arc<NodeStore>,
    cache: &Arc<NodeCache>,
    fetcher: &Fetcher,
) -> Result<(ManifestStore, u64), MountError> {
    let taking = Taking { world, tuning, superblock, nodes, cache, fetcher, next: Cell::new(0), folds: Cell::new(0) };
    taking.remove_leftovers()?;
    let taken = taking.run();
    if taken.is_err() && !has_manifest(&*world.media) {
        // Without a manifest nobody looks at what is there; only the room is lost.
        if let Err(e) = taking.remove_leftovers() {
            log::warn!("what a takeover that failed has left stays until the next mount: {e}");
        }
    }
    taken.map(|manifest| (manifest, taking.folds.get()))
}

fn epoch_after(at: Position) -> Result<u32, MountError> {
    u32::try_from(at.generation + 1).map_err(|_| damaged("gen/", "too many generations"))
}

/// Creates the closing object at the first free number; `false` if somebody else was faster. The number of the generation
/// after it becomes the epoch: no two winners share one.
fn win(
    world: &World,
    tuning: &Tuning,
    superblock: &Superblock,
    state: Uuid,
    remote: &Remote,
) -> Result<bool, MountError> {
    let at = remote.free;
    let epoch = epoch_after(at)?;
    let closing = Publication {
        uuid: superblock.uuid,
        state,
        nonce: Nonce(world.random.u128()),
        epoch,
        generation: at.generation,
        number: at.number,
        wall: world.clock.now().as_nanos(),
        checkpoint: remote.checkpoint,
        start: remote.end,
        end: remote.end,
        body: Body::Closing(Closing { next_epoch: epoch, owner: tuning.owner.describe() }),
    };
    match fence::win(&*world.store, &closing)? {
        Win::Won => Ok(true),
        Win::Lost(found) => found.map_or(Ok(()), |found| overtaken(tuning, &found, epoch)).map(|()| false),
    }
}

/// Fails if it is another mount that has the number, of which nobody has been told; not the writer until now, which ends a
/// generation in its own epoch.
fn overtaken(tuning: &Tuning, found: &Publication, epoch: u32) -> Result<(), MountError> {
    match &found.body {
        Body::Closing(other) if found.epoch == epoch && tuning.holding != Holding::Untold => {
            let by = format!("{}, at {}", other.owner, Time::from_nanos(found.wall));
            Err(HoldError::Overtaken { by }.into())
        }
        _ => Ok(()),
    }
}

struct Taking<'a> {
    world: &'a World,
    tuning: &'a Tuning,
    superblock: &'a Superblock,
    nodes: &'a Arc<NodeStore>,
    cache: &'a Arc<NodeCache>,
    fetcher: &'a Fetcher,
    /// The least number of the next node segment: none is given twice.
    next: Cell<u64>,
    folds: Cell<u64>,
}

/// A checkpoint in the state directory that no manifest names yet.
struct Made {
    checkpoint: Checkpoint,
    /// The epoch that its node segments are named by.
    epoch: u32,
    /// How many folds there had been: a later one may have removed its nodes.
    folds: u64,
}

impl Taking<'_> {
    fn run(&self) -> Result<ManifestStore, MountError> {
        let (store, state) = (&*self.world.store, Uuid(self.world.random.u128()));
        let mut remote = self.read()?;
        let (mut made, mut tries) = (self.make_checkpoint(&mut remote)?, 1);
        for _ in 0..RACES {
            self.check_room(&remote.tail)?;
            if win(self.world, self.tuning, self.superblock, state, &remote)? {
                return self.commit(made, &remote, state);
            }
            remote.go_on_folding(store, self.superblock.uuid, self.fetcher, &mut |remote| {
                self.fold(remote, remote.likely)
            })?;
            if !self.is_of(&made, &remote)? {
                if tries == TRIES {
                    break;
                }
                tries += 1;
                files::remove_all(&*self.world.media)?;
                match remote.folded {
                    Some(folded) if folded != epoch_after(remote.free)? => remote = self.read()?,
                    _ => self.keep_folded(&remote)?,
                }
                made = self.make_checkpoint(&mut remote)?;
            }
        }
        Err(MountError::Contended)
    }

    /// What the store says, with no more than so many changes in memory. Trees that were made of changes lie in
    /// the epoch that is to be won.
    fn read(&self) -> Result<Remote, MountError> {
        let mut epoch = None;
        for _ in 0..TRIES {
            let mut fold = |remote: &mut Remote| self.fold(remote, remote.likely.max(epoch.unwrap_or(0)));
            let remote = read_folding(&*self.world.store, self.superblock.uuid, self.fetcher, &mut fold)?;
            let wanted = epoch_after(remote.free)?;
            if remote.folded.is_none_or(|folded| folded == wanted) {
                self.keep_folded(&remote)?;
                return Ok(remote);
            }
            // The generation ended behind them, so that somebody else may have this epoch.
            self.nodes.retain(&BTreeSet::new())?;
            epoch = Some(wanted);
        }
        Err(MountError::Contended)
    }

    /// Makes trees of the changes if they take too much memory. Nobody names these trees before all is read.
    fn fold(&self, remote: &mut Remote, epoch: u32) -> Result<(), MountError> {
        let bytes = remote.overlays.iter().map(Overlay::bytes).sum::<u64>();
        if bytes <= self.tuning.fold_bytes {
            return Ok(());
        }
        let epoch = remote.folded.unwrap_or(epoch);
        // Before anything is removed.
        self.folds.set(self.folds.get() + 1);
        if remote.folded.is_none() {
            // What was made of a generation that turned out not to be the newest.
            self.nodes.retain(&BTreeSet::new())?;
        }
        let layers = std::mem::take(&mut remote.overlays).map(Arc::new);
        let mut next = self.next.get();
        remote.roots = self.merge(remote, &layers, Default::default(), (epoch, &mut next))?.roots;
        remote.folded = Some(epoch);
        self.next.set(next);
        self.keep_folded(remote)
    }

    /// Removes node segments that are here, but for those that such trees lie in and copies of what the store has.
    fn keep_folded(&self, remote: &Remote) -> Result<(), MountError> {
        let mut keep = BTreeSet::new();
        if let Some(epoch) = remote.folded {
            keep.extend(self.nodes.local_segments()?.into_keys().filter(|no| no.epoch != epoch));
            for root in remote.roots {
                keep.extend(reachable_within(root, &**self.nodes, &|no| no.epoch == epoch)?);
            }
        }
        Ok(self.nodes.retain(&keep)?)
    }

    /// Whether that is what the store says now. More log increments change nothing but the tail.
    fn is_of(&self, made: &Made, remote: &Remote) -> Result<bool, MountError> {
        let is_here = made.folds == self.folds.get();
        Ok(is_here && made.epoch == epoch_after(remote.free)? && made.checkpoint.lsn == remote.end)
    }

    /// The journal takes the tail, whatever its size, if the disk does.
    fn check_room(&self, tail: &Tail) -> Result<(), MountError> {
        let need = tail.bytes().saturating_add(tail.bytes() / 4);
        if need == 0 {
            return Ok(());
        }
        let available = self.world.media.space()?.available;
        if need > available {
            let what = format!("the store holds {need} bytes that it must take, {available} are free");
            return Err(JournalError::DiskFull(what).into());
        }
        Ok(())
    }

    /// The manifest never names a checkpoint whose tail is not durable.
    fn commit(&self, made: Made, remote: &Remote, state: Uuid) -> Result<ManifestStore, MountError> {
        let Made { mut checkpoint, epoch, .. } = made;
        if checkpoint.tail.map(|tail| tail.end) != remote.tail.end() {
            checkpoint.tail = self.write_tail(remote)?;
            files::write_record(&*self.world.media, &checkpoint)?;
        }
        let manifest = Manifest {
            next_checkpoint: checkpoint.number + 1,
            checkpoint: Some(CommitPoint { number: checkpoint.number, lsn: checkpoint.lsn }),
            ..Manifest::new(self.superblock.uuid, state, epoch, u64::from(epoch))
        };
        Ok(ManifestStore::create(self.world.media.clone(), manifest)?)
    }

    fn write_tail(&self, remote: &Remote) -> Result<Option<TailFile>, MountError> {
        remote.tail.write(&*self.world.media, &*self.world.store, remote.end, remote.checkpoint)
    }

    /// Without a manifest there is nothing that counts; a takeover that was interrupted may have used the same names.
    fn remove_leftovers(&self) -> Result<(), MountError> {
        self.nodes.retain(&BTreeSet::new())?;
        Ok(files::remove_all(&*self.world.media)?)
    }

    /// Merges base and increments into a local checkpoint. What the writer before us merged but did not settle is left to
    /// the ordinary pass, as if we had made its checkpoint ourselves.
    fn make_checkpoint(&self, remote: &mut Remote) -> Result<Made, MountError> {
        let epoch = epoch_after(remote.free)?;
        self.fetcher.interiors(remote.roots, self.nodes, self.cache);
        let reader = Reader { cache: self.cache, nodes: self.nodes, fetcher: self.fetcher };
        let space = View { overlay: &remote.overlays[1], layers: &[], root: remote.roots[1] };
        let mark = reader.value(&space, &space::mark(Mark::Segment), space::decode_number)?.unwrap_or(0);
        let mark = mark.max(self.next.get());
        let published = reader.value(&space, &space::published(), Published::decode)?;
        let recorded = published.map_or(Lsn::ZERO, |p| p.end);
        let mut own: [Overlay; 2] = Default::default();
        put_mark(&mut own, remote.end, Mark::Segment, mark + NUMBERS);
        remote.put_node_segments(&mut own);

        // They are needed again if a window is published meanwhile.
        let layers = std::mem::take(&mut remote.overlays).map(Arc::new);
        let mut next = mark;
        let merged = self.merge(remote, &layers, own, (epoch, &mut next))?;
        self.next.set(next);
        remote.overlays = layers.map(|layer| Arc::into_inner(layer).expect("the merge is over"));
        let mut checkpoint = Checkpoint {
            uuid: self.superblock.uuid,
            number: remote.checkpoint,
            lsn: remote.end,
            previous_lsn: remote.end,
            roots: merged.roots,
            wall: self.world.clock.now().as_nanos(),
            settlement: remote.settlement.clone(),
            windows: remote.windows.iter().filter(|w| w.end > recorded).cloned().collect(),
            tail: None,
        };
        checkpoint.tail = self.write_tail(remote)?;
        files::write_record(&*self.world.media, &checkpoint)?;
        // What the mount will read, so that it is here when the writer before us is fenced.
        let nothing = Overlay::new();
        let view = |tree: TreeId| View { overlay: &nothing, layers: &[], root: checkpoint.roots[tree as usize] };
        reader.needed(&view(TreeId::Files), &view(TreeId::Space))?;
        Ok(Made { checkpoint, epoch, folds: self.folds.get() })
    }

    /// `own` changes lie over those of the increments; node segments are numbered from `next` on.
    fn merge(
        &self,
        remote: &Remote,
        layers: &[Arc<Overlay>; 2],
        own: [Overlay; 2],
        (epoch, next): (u32, &mut u64),
    ) -> Result<Merged, MountError> {
        let [own_files, own_space] = own.map(Arc::new);
        let frozen = Frozen {
            lsn: remote.end,
            layers: [vec![layers[0].clone(), own_files], vec![layers[1].clone(), own_space]],
            roots: remote.roots,
        };
        let first = *next;
        let mut take = || {
            *next += 1;
            assert!(*next <= first + NUMBERS, "a takeover needs few node segments");
            SegmentNo { epoch, number: *next - 1 }
        };
        let policy = &self.tuning.policy;
        let leaves = self.fetcher.ahead_of(&frozen, self.nodes, self.cache)?;
        let trees = Merge { source: &leaves, cache: Some(self.cache), shape: policy.shape };
        let mut writer = NodeWriter::new(&*self.world.media, self.superblock.uuid, &mut take, policy.segment_bytes);
        let merged = merge_all(&frozen, remote.end, &trees, &mut writer)?;
        writer.finish()?;
        Ok(merged)
    }
}
