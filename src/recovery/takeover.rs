//! Taking a filesystem over from the store alone: newest generation, its base, its increments, local state made of all that,
//! and a closing object that fences whoever wrote it.
//!
//! Whatever can fail comes before the closing object, so that a takeover which fails has fenced nobody for nothing. What the
//! other writer publishes meanwhile is found at the number that was to be won, and read then.

use super::tail::Tail;
use super::{Fetcher, HoldError, Holding, MountError, Reader, Tuning, World, apply, damaged, put_mark};
use crate::base::canary::{self, Canary};
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
use crate::format::publication::{Base, Body, Closing, GENERATION_MAX, NUMBER_MAX, Position, Publication, WindowEntry};
use crate::format::space::{self, Mark, Published};
use crate::format::superblock::Superblock;
use crate::journal::{JournalError, MANIFEST, ManifestStore};
use crate::map::{Frozen, Merge, NodeCache, Overlay, View};
use crate::media::Media;
use crate::ship::ShipError;
use crate::ship::fence::{self, Win, behind_gap};
use crate::ship::publish::read;
use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::sync::Arc;

/// How often local state is made anew because a window was published meanwhile,
const TRIES: u32 = 8;
/// and how often a number is lost to a writer that publishes one log increment after the other.
const RACES: u32 = 256;

/// So many generations are looked at, the newest ones: each but one of them was closed before it had a base.
const GENERATIONS_KEPT: usize = 65536;

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
    /// The last batch of the newest window.
    pub end: Lsn,
    /// What log increments carry beyond it.
    pub tail: Tail,
    /// The first free number: in this generation, or the next one's first if this one is closed.
    pub free: Position,
}

/// The generations in the store, each with the highest number that is listed in it.
fn generations(store: &dyn Store) -> Result<BTreeMap<u64, u64>, MountError> {
    let mut found: BTreeMap<u64, u64> = BTreeMap::new();
    store.walk("gen", &mut |name| {
        let mut parts = name.split('/').skip(1).map(|part| part.parse().ok());
        // Foreign names are ignored: those that no publication has, or that nothing would come after.
        let is_ours =
            |at: &(u64, u64)| at.0 <= GENERATION_MAX && at.1 <= NUMBER_MAX && names::publication(at.0, at.1) == name;
        if let Some((generation, number)) = parts.next().flatten().zip(parts.next().flatten()).filter(is_ours) {
            let highest = found.entry(generation).or_default();
            *highest = number.max(*highest);
            // Only the newest ones matter, however many names there are.
            if found.len() > GENERATIONS_KEPT {
                found.pop_first();
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// The highest number of the highest generation in the store.
pub(super) fn newest_publication(store: &dyn Store) -> Result<Position, MountError> {
    let newest = generations(store)?.pop_last();
    newest.map(|(generation, number)| Position { generation, number }).ok_or_else(no_generation)
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

/// The base of generation `newest`, or of the last one before it that has one if it was closed without, and the numbers that
/// follow it. Where they end at a gap, that may be the hole of a generation that has ended meanwhile.
pub(crate) fn newest_base<'a>(
    store: &'a dyn Store,
    fetcher: &'a Fetcher,
    newest: u64,
) -> Result<(Numbers<'a>, Publication), MountError> {
    base_of(store, fetcher, &generations(store)?, newest)
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
        let mut numbers = Numbers::new(store, fetcher, Position { generation, number: 0 }, highest);
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
    /// How many are asked for together that are not listed: more and more, for a writer may be at work.
    unlisted: u64,
    /// How many were there.
    taken: u64,
    fetched: VecDeque<Result<Option<Publication>, ShipError>>,
}

impl<'a> Numbers<'a> {
    fn new(store: &'a dyn Store, fetcher: &'a Fetcher, from: Position, highest: u64) -> Numbers<'a> {
        let Position { generation, number: next } = from;
        Numbers { store, fetcher, generation, highest, next, unlisted: 1, taken: next, fetched: VecDeque::new() }
    }

    /// The next one; `None` at the first gap, behind which nothing counts.
    pub(crate) fn next(&mut self) -> Result<Option<Publication>, MountError> {
        if canary::removed(Canary::WalkAsks) && self.next > self.highest {
            return Ok(None);
        }
        if self.fetched.is_empty() {
            let (first, at_once) = (self.next, self.fetcher.at_once() as u64);
            let count = match self.highest.checked_sub(first) {
                Some(listed) => (listed + 2).min(at_once),
                None => self.unlisted.min(at_once),
            };
            if first > self.highest {
                self.unlisted = (self.unlisted * 2).min(at_once);
            }
            let last = first + count - 1;
            let together: Vec<u64> = (first..=last).collect();
            let read = |number: &u64| read(self.store, Position { generation: self.generation, number: *number });
            self.fetched.extend(self.fetcher.all(&together, read));
            self.next = last + 1;
        }
        let found = self.fetched.pop_front().expect("some were just asked for")?;
        self.taken += u64::from(found.is_some());
        Ok(found)
    }

    /// Numbers are taken in order: where a later one is listed than there is a way to, some of what was published is missing, and
    /// whoever went on without it would lose it silently.
    fn check_end(&self) -> Result<(), MountError> {
        match self.taken > self.highest {
            true => Ok(()),
            false => {
                let place = names::publication(self.generation, self.taken);
                Err(damaged(&place, "is missing, or comes after the end, and later objects are there"))
            }
        }
    }
}

/// The first free number of a generation that has no base: it may be closed.
pub(crate) fn first_free(store: &dyn Store, generation: u64) -> Result<Position, MountError> {
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
    let mut remote = Remote { roots, overlays, windows, node_segments, settlement, checkpoint, end, tail, free };
    remote.take_all(numbers)?;
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
    fn take_all(&mut self, numbers: &mut Numbers<'_>) -> Result<(), MountError> {
        while let Some(next) = numbers.next()? {
            if !self.take(next)? {
                break;
            }
        }
        Ok(())
    }

    /// Reads what has come to the number that was free, and behind it.
    pub fn go_on(&mut self, store: &dyn Store, filesystem: Uuid, fetcher: &Fetcher) -> Result<(), MountError> {
        let read = match self.free.number {
            0 => Ok(()),
            _ => self.take_all(&mut Numbers::new(store, fetcher, self.free, 0)),
        };
        // Another generation may have a base already; and what came late to a number that was deleted fits nowhere.
        if self.free.number == 0 || read.is_err() && behind_gap(store, self.free)?.is_some() {
            *self = read_remote(store, filesystem, fetcher)?;
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

/// Makes local state of the newest generation, and wins it.
pub(super) fn take_over(
    world: &World,
    tuning: &Tuning,
    superblock: &Superblock,
    nodes: &Arc<NodeStore>,
    cache: &Arc<NodeCache>,
    fetcher: &Fetcher,
) -> Result<ManifestStore, MountError> {
    let taking = Taking { world, tuning, superblock, nodes, cache, fetcher };
    taking.remove_leftovers()?;
    let taken = taking.run();
    if taken.is_err() && !has_manifest(&*world.media) {
        // Without a manifest nobody looks at what is there; only the room is lost.
        if let Err(e) = taking.remove_leftovers() {
            log::warn!("what a takeover that failed has left stays until the next mount: {e}");
        }
    }
    taken
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
}

/// A checkpoint in the state directory that no manifest names yet.
struct Made {
    checkpoint: Checkpoint,
    /// The epoch that its node segments are named by.
    epoch: u32,
}

impl Made {
    /// Whether it is what the store says now. More log increments change nothing but the tail.
    fn is_of(&self, remote: &Remote) -> Result<bool, MountError> {
        Ok(self.epoch == epoch_after(remote.free)? && self.checkpoint.lsn == remote.end)
    }
}

impl Taking<'_> {
    fn run(&self) -> Result<ManifestStore, MountError> {
        let (store, state) = (&*self.world.store, Uuid(self.world.random.u128()));
        let mut remote = read_remote(store, self.superblock.uuid, self.fetcher)?;
        let (mut made, mut tries) = (self.make_checkpoint(&mut remote)?, 1);
        for _ in 0..RACES {
            self.check_room(&remote.tail)?;
            if win(self.world, self.tuning, self.superblock, state, &remote)? {
                return self.commit(made, &remote, state);
            }
            remote.go_on(store, self.superblock.uuid, self.fetcher)?;
            if !made.is_of(&remote)? {
                if tries == TRIES {
                    break;
                }
                tries += 1;
                self.remove_leftovers()?;
                made = self.make_checkpoint(&mut remote)?;
            }
        }
        Err(MountError::Contended)
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
        let Made { mut checkpoint, epoch } = made;
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
        let published = reader.value(&space, &space::published(), Published::decode)?;
        let recorded = published.map_or(Lsn::ZERO, |p| p.end);
        let mut own: [Overlay; 2] = Default::default();
        put_mark(&mut own, remote.end, Mark::Segment, mark + NUMBERS);
        remote.put_node_segments(&mut own);

        // They are needed again if a window is published meanwhile.
        let layers = std::mem::take(&mut remote.overlays).map(Arc::new);
        let merged = self.merge(remote, &layers, own, (epoch, mark))?;
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
        Ok(Made { checkpoint, epoch })
    }

    /// `own` changes lie over those of the increments; node segments are numbered from `mark` on.
    fn merge(
        &self,
        remote: &Remote,
        layers: &[Arc<Overlay>; 2],
        own: [Overlay; 2],
        (epoch, mark): (u32, u64),
    ) -> Result<Merged, MountError> {
        let [own_files, own_space] = own.map(Arc::new);
        let frozen = Frozen {
            lsn: remote.end,
            layers: [vec![layers[0].clone(), own_files], vec![layers[1].clone(), own_space]],
            roots: remote.roots,
        };
        let mut next = mark;
        let mut take = || {
            next += 1;
            assert!(next <= mark + NUMBERS, "a takeover needs few node segments");
            SegmentNo { epoch, number: next - 1 }
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
