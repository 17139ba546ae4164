//! Taking a filesystem over from the store alone: newest generation, its base, its increments, a closing object that
//! fences whoever wrote it, and local state made of all that.

use super::{Fetcher, MountError, Reader, Tuning, World, apply, damaged, put_mark};
use crate::base::canary::{self, Canary};
use crate::checkpoint::files;
use crate::checkpoint::merge::merge_all;
use crate::checkpoint::nodes::{NodeStore, NodeWriter};
use crate::checkpoint::space::node_segment;
use crate::format::batch::{Edit, TreeId};
use crate::format::checkpoint::{Checkpoint, Settle};
use crate::format::ids::{Lsn, NodePtr, Nonce, SegmentNo, Uuid};
use crate::format::manifest::{CommitPoint, Manifest};
use crate::format::names::{self, SUPERBLOCK};
use crate::format::publication::{Base, Body, Closing, Position, Publication, WindowEntry};
use crate::format::space::{self, Mark, Published};
use crate::format::superblock::Superblock;
use crate::journal::ManifestStore;
use crate::map::{Frozen, Merge, NodeCache, Overlay, View};
use crate::ship::ShipError;
use crate::ship::fence::{self, Win, behind_gap};
use crate::ship::publish::read;
use crate::store::Store;
use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

/// How often a lost race is tried again.
const TRIES: u32 = 8;

/// Numbers set aside for the node segments of the takeover itself.
const NUMBERS: u64 = 65536;

/// What the store's newest generation says.
pub struct Remote {
    /// The base's roots.
    pub roots: [Option<NodePtr>; 2],
    /// The increments' changes.
    pub overlays: [Overlay; 2],
    /// Windows that are listed; the space tree may record them or not.
    pub windows: Vec<WindowEntry>,
    /// The node segments of the base, with their sizes.
    node_segments: Vec<(SegmentNo, u64)>,
    /// What the space tree has yet to be told of the newest publication's checkpoint.
    pub settlement: Vec<Settle>,
    /// The newest publication's checkpoint.
    pub checkpoint: u64,
    /// The newest publication's last batch.
    pub end: Lsn,
    /// The first free number: in this generation, or the next one's first if this one is closed.
    pub free: Position,
}

/// The generations in the store, each with the highest number that is listed in it.
fn generations(store: &dyn Store) -> Result<BTreeMap<u64, u64>, MountError> {
    let mut found: BTreeMap<u64, u64> = BTreeMap::new();
    store.walk("gen", &mut |name| {
        let mut parts = name.split('/').skip(1).map(|part| part.parse().ok());
        // Foreign names are ignored.
        if let Some((generation, number)) = parts.next().flatten().zip(parts.next().flatten()) {
            let highest = found.entry(generation).or_default();
            *highest = number.max(*highest);
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// The highest generation in the store.
pub(crate) fn newest_generation(store: &dyn Store) -> Result<u64, MountError> {
    generations(store)?.last_key_value().map(|(generation, _)| *generation).ok_or_else(no_generation)
}

fn no_generation() -> MountError {
    damaged("gen/", "the store has no generation: it was never completed")
}

/// Reads the newest generation: base and increments up to the first gap or a closing object.
pub fn read_remote(store: &dyn Store, filesystem: Uuid, fetcher: &Fetcher) -> Result<Remote, MountError> {
    let listed = generations(store)?;
    let mut newest = *listed.last_key_value().ok_or_else(no_generation)?.0;
    loop {
        let found = read_from(store, filesystem, fetcher, &listed, newest);
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
) -> Result<Remote, MountError> {
    let (mut numbers, base) = base_of(store, fetcher, listed, newest)?;
    let mut remote = read_generation(&mut numbers, filesystem, base)?;
    if numbers.generation < newest {
        // Generations behind it were closed before they had a base.
        remote.free = first_free(store, newest)?;
    }
    Ok(remote)
}

/// The base of the newest generation that has one, and the numbers that follow it. Where they end at a gap, that may be the hole of
/// a generation that has ended meanwhile.
pub(crate) fn newest_base<'a>(
    store: &'a dyn Store,
    fetcher: &'a Fetcher,
) -> Result<(Numbers<'a>, Publication), MountError> {
    let listed = generations(store)?;
    let newest = *listed.last_key_value().ok_or_else(no_generation)?.0;
    base_of(store, fetcher, &listed, newest)
}

fn base_of<'a>(
    store: &'a dyn Store,
    fetcher: &'a Fetcher,
    listed: &BTreeMap<u64, u64>,
    newest: u64,
) -> Result<(Numbers<'a>, Publication), MountError> {
    let mut generation = newest;
    loop {
        let highest = listed.get(&generation).copied().unwrap_or(0);
        let mut numbers = Numbers { store, fetcher, generation, highest, next: 0, fetched: VecDeque::new() };
        match numbers.next()? {
            Some(publication) if matches!(publication.body, Body::Base(_)) => {
                return Ok((numbers, publication));
            }
            // Numbers are taken in order, and those of the newest generation are never deleted. Going on to an older one
            // would lose all that was shipped since, silently.
            None => return Err(damaged(&names::publication(generation, 0), "is missing, and later objects are there")),
            // A generation that was closed before its base: whoever won it never published. The one before holds.
            Some(publication) if matches!(publication.body, Body::Closing(_)) && generation > 1 => generation -= 1,
            Some(_) => return Err(damaged(&names::publication(generation, 0), "is neither a base nor the end of one")),
        }
    }
}

/// The objects of a generation in order, from its base on. Where they end is found by asking for them, one after the other;
/// what the list of names says is only which of them are worth asking for together.
pub(crate) struct Numbers<'a> {
    store: &'a dyn Store,
    fetcher: &'a Fetcher,
    generation: u64,
    /// The highest that is listed.
    highest: u64,
    /// The first that was not asked for.
    next: u64,
    fetched: VecDeque<Result<Option<Publication>, ShipError>>,
}

impl Numbers<'_> {
    /// The next one; `None` at the first gap, behind which nothing counts.
    pub(crate) fn next(&mut self) -> Result<Option<Publication>, MountError> {
        if canary::removed(Canary::WalkAsks) && self.next > self.highest {
            return Ok(None);
        }
        if self.fetched.is_empty() {
            let first = self.next;
            let last = (self.highest + 1).min(first + self.fetcher.at_once() as u64 - 1).max(first);
            let together: Vec<u64> = (first..=last).collect();
            let read = |number: &u64| read(self.store, Position { generation: self.generation, number: *number });
            self.fetched.extend(self.fetcher.all(&together, read));
            self.next = last + 1;
        }
        Ok(self.fetched.pop_front().expect("some were just asked for")?)
    }
}

fn first_free(store: &dyn Store, generation: u64) -> Result<Position, MountError> {
    match read(store, Position { generation, number: 0 })? {
        None => Ok(Position { generation, number: 0 }),
        Some(_) => Ok(Position { generation: generation + 1, number: 0 }),
    }
}

fn read_generation(numbers: &mut Numbers<'_>, filesystem: Uuid, base: Publication) -> Result<Remote, MountError> {
    let Publication { uuid, generation, checkpoint, end, .. } = base;
    let name = names::publication(generation, 0);
    if uuid != filesystem {
        return Err(damaged(&name, format!("belongs to filesystem {uuid}, {SUPERBLOCK} says {filesystem}")));
    }
    let Body::Base(Base { roots, windows, node_segments, settlement, log: _ }) = base.body else {
        return Err(damaged(&name, "is not a base"));
    };
    let free = Position { generation, number: 1 };
    let mut remote =
        Remote { roots, overlays: Default::default(), windows, node_segments, settlement, checkpoint, end, free };
    while let Some(next) = numbers.next()? {
        if !remote.take(next)? {
            break;
        }
    }
    Ok(remote)
}

impl Remote {
    /// A base cannot record its own node segments; unless an increment does, they are recorded here: the next base need not
    /// upload them again, and lists those it no longer reaches for deletion.
    fn put_node_segments(&mut self) {
        for (no, bytes) in &self.node_segments {
            let edit = Edit::Put { key: space::segment(*no), value: node_segment(*bytes).encode() };
            self.overlays[TreeId::Space as usize].apply(self.end, &edit);
        }
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
            // The windows that hold its batches are published all the same.
            Body::Log(_) => {
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
        self.checkpoint = checkpoint;
        self.free.number += 1;
        Ok(true)
    }
}

/// Wins the newest generation and makes local state of it.
pub(super) fn take_over(
    world: &World,
    tuning: &Tuning,
    superblock: &Superblock,
    nodes: &Arc<NodeStore>,
    cache: &Arc<NodeCache>,
    fetcher: &Fetcher,
) -> Result<ManifestStore, MountError> {
    let state = Uuid(world.random.u128());
    for _ in 0..TRIES {
        let remote = read_remote(&*world.store, superblock.uuid, fetcher)?;
        if !win(world, tuning, superblock, state, &remote)? {
            continue;
        }
        let epoch = u32::try_from(remote.free.generation + 1).map_err(|_| damaged("gen/", "too many generations"))?;
        let taking = Taking { world, tuning, superblock, nodes, cache, fetcher };
        let checkpoint = taking.make_checkpoint(remote, epoch)?;
        let manifest = Manifest {
            next_checkpoint: checkpoint.number + 1,
            checkpoint: Some(CommitPoint { number: checkpoint.number, lsn: checkpoint.lsn }),
            ..Manifest::new(superblock.uuid, state, epoch, u64::from(epoch))
        };
        return Ok(ManifestStore::create(world.media.clone(), manifest)?);
    }
    Err(MountError::Contended)
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
    let epoch = u32::try_from(at.generation + 1).map_err(|_| damaged("gen/", "too many generations"))?;
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
    Ok(matches!(fence::win(&*world.store, &closing)?, Win::Won))
}

struct Taking<'a> {
    world: &'a World,
    tuning: &'a Tuning,
    superblock: &'a Superblock,
    nodes: &'a Arc<NodeStore>,
    cache: &'a Arc<NodeCache>,
    fetcher: &'a Fetcher,
}

impl Taking<'_> {
    /// Merges base and increments into a local checkpoint. What the writer before us merged but did not settle is left to
    /// the ordinary pass, as if we had made its checkpoint ourselves.
    fn make_checkpoint(&self, mut remote: Remote, epoch: u32) -> Result<Checkpoint, MountError> {
        self.fetcher.interiors(remote.roots, self.nodes, self.cache);
        let reader = Reader { cache: self.cache, nodes: self.nodes, fetcher: self.fetcher };
        let space = View { overlay: &remote.overlays[1], layers: &[], root: remote.roots[1] };
        let mark = reader.value(&space, &space::mark(Mark::Segment), space::decode_number)?.unwrap_or(0);
        let published = reader.value(&space, &space::published(), Published::decode)?;
        let recorded = published.map_or(Lsn::ZERO, |p| p.end);
        put_mark(&mut remote.overlays, remote.end, Mark::Segment, mark + NUMBERS);
        remote.put_node_segments();

        let [files_layer, space_layer] = remote.overlays;
        let frozen = Frozen {
            lsn: remote.end,
            layers: [vec![Arc::new(files_layer)], vec![Arc::new(space_layer)]],
            roots: remote.roots,
        };
        let mut next = mark;
        let mut take = || {
            next += 1;
            assert!(next <= mark + NUMBERS, "a takeover needs few node segments");
            SegmentNo { epoch, number: next - 1 }
        };
        let policy = &self.tuning.policy;
        let media = &*self.world.media;
        let leaves = self.fetcher.ahead_of(&frozen, self.nodes, self.cache)?;
        let trees = Merge { source: &leaves, cache: Some(self.cache), shape: policy.shape };
        let mut writer = NodeWriter::new(media, self.superblock.uuid, &mut take, policy.segment_bytes);
        let merged = merge_all(&frozen, remote.end, &trees, &mut writer)?;
        writer.finish()?;
        let checkpoint = Checkpoint {
            uuid: self.superblock.uuid,
            number: remote.checkpoint,
            lsn: remote.end,
            previous_lsn: remote.end,
            roots: merged.roots,
            wall: self.world.clock.now().as_nanos(),
            settlement: remote.settlement,
            windows: remote.windows.into_iter().filter(|w| w.end > recorded).collect(),
        };
        files::write_record(media, &checkpoint)?;
        Ok(checkpoint)
    }
}
