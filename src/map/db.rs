//! Where a batch is submitted: operations read and change the two maps through a [`Tx`], and become batches of the log.
//!
//! One lock orders everything: under it a batch gets its Lsn, goes to the journal's queue and is applied to the active
//! overlays, whole. So the order in memory is the order of the log, and no reader sees half a batch. No disk or store is
//! touched while it is held.
//!
//! A follower has no log: its operations read one published state ([`Seen`]), and none of them changes anything.

use super::seen::{Followed, Seen};
use super::{NodeCache, Overlay, View};

use crate::format::batch::{Edit, TreeId, encode_edits, encode_head, put_bytes};
use crate::format::chunk::ChunkHeader;
use crate::format::ids::{InodeNo, Lsn, NodePtr, OBJECT_BYTES_MAX, ObjectId};
use crate::format::key;
use crate::format::publication::Log;
use crate::format::space::{self, Mark};
use crate::format::usage::{OnLimit, USAGE_BYTES, Usage, UsageChange, UsageLimit};
use crate::journal::{Journal, PendingBatch, Refusal};
use crate::locate::Locate;
use bytes::Bytes;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use super::Pins;
pub use crate::journal::Room;

/// What an operation must wait for, with no lock held, before it starts again from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A tree node that is not in memory.
    Node(NodePtr),
    /// Several of them.
    Nodes(Vec<NodePtr>),
    /// File data that is not in memory.
    Objects(Vec<ObjectId>),
    /// Room in the journal, its queue or the overlays.
    Pressure,
}

/// Why a transaction did not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Start again when this is there.
    Wait(Wait),
    /// The journal's disk is full; heals when there is room.
    DiskFull,
    /// The filesystem would hold more than it may.
    Limit(OnLimit),
    /// The journal has failed, or there is none; why.
    ReadOnly(String),
    /// The lease was lost that kept from being deleted what the operation reads.
    LeaseLost,
    /// Stored bytes are not what they should be; which.
    Damaged(String),
}

/// What the edit takes that puts the new usage.
const USAGE_EDIT_BYTES: usize = put_bytes(key::USAGE_KEY_BYTES, USAGE_BYTES);

/// Why a follower changes nothing.
const FOLLOWS: &str = "this mount follows the writer and changes nothing";

/// Most frozen layers that wait for their merge.
pub const LAYERS_MAX: usize = 4;

/// Most nodes that an operation asks for at once.
const WANTED_MAX: usize = 256;

/// Limits of the maps in memory.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes in all overlays together; above it operations that need space wait for the merge.
    pub overlay_bytes_max: u64,
    /// How many inode numbers are reserved at a time, ahead of use.
    pub inode_step: u64,
}

/// One of the two maps: an active overlay over frozen layers over a tree.
#[derive(Default)]
struct Stack {
    overlay: Overlay,
    layers: Vec<Arc<Overlay>>,
    root: Option<NodePtr>,
}

impl Stack {
    fn view(&self) -> View<'_> {
        View { overlay: &self.overlay, layers: &self.layers, root: self.root }
    }

    fn bytes(&self) -> u64 {
        self.overlay.bytes() + self.layers.iter().map(|l| l.bytes()).sum::<u64>()
    }
}

struct State {
    last: Lsn,
    stacks: [Stack; 2],
    inode_mark: u64,
    /// As the map of files says.
    usage: Option<Usage>,
    /// As the map of files says.
    usage_limit: UsageLimit,
}

impl State {
    /// The usage after a change, or why there will not be one. A filesystem that does not count has no limit.
    fn usage_after(&self, change: UsageChange, refusable: bool) -> Result<Option<Usage>, Stop> {
        let Some(before) = self.usage.filter(|_| !change.is_none()) else { return Ok(None) };
        let after = before.after(change);
        match refusable && self.usage_limit.refuses(before, after) {
            true => Err(Stop::Limit(self.usage_limit.on_limit)),
            false => Ok(Some(after)),
        }
    }
}

/// What recovery found: where the maps start.
#[derive(Default)]
pub struct Start {
    /// Roots of the newest checkpoint's trees, by [`TreeId`].
    pub roots: [Option<NodePtr>; 2],
    /// Replayed changes since that checkpoint.
    pub overlays: [Overlay; 2],
    /// The newest accepted batch.
    pub last: Lsn,
    /// Inode numbers below this may be in use.
    pub inode_mark: u64,
    /// What the files take; `None` when that is not counted.
    pub usage: Option<Usage>,
    /// What they may take.
    pub usage_limit: UsageLimit,
}

/// All layers frozen at one Lsn, oldest first, and the roots under them.
pub struct Frozen {
    /// Everything up to and with this batch is in the layers and the roots.
    pub lsn: Lsn,
    /// The layers of each map, by [`TreeId`], oldest first.
    pub layers: [Vec<Arc<Overlay>>; 2],
    /// The roots the layers lie on.
    pub roots: [Option<NodePtr>; 2],
}

/// The two maps and the log they are written to.
pub struct Db {
    epoch: u32,
    /// `None`: a follower.
    journal: Option<Arc<Journal>>,
    /// Of a follower: what it reads.
    followed: Option<Followed>,
    locate: Arc<Locate>,
    cache: Arc<NodeCache>,
    limits: Limits,
    next_inode: AtomicU64,
    state: RwLock<State>,
}

impl Db {
    /// The maps as recovery found them, for a writer in `epoch`.
    pub fn new(
        epoch: u32,
        start: Start,
        journal: Arc<Journal>,
        locate: Arc<Locate>,
        cache: Arc<NodeCache>,
        limits: Limits,
    ) -> Db {
        let [files, space] = start.overlays;
        let stack = |overlay, root| Stack { overlay, layers: Vec::new(), root };
        let stacks = [stack(files, start.roots[0]), stack(space, start.roots[1])];
        let next_inode = AtomicU64::new(start.inode_mark.max(InodeNo::ROOT.0 + 1));
        let Start { last, inode_mark, usage, usage_limit, .. } = start;
        let state = RwLock::new(State { last, stacks, inode_mark, usage, usage_limit });
        Db { epoch, journal: Some(journal), followed: None, locate, cache, limits, next_inode, state }
    }

    /// A map that only reads, from published states; the first is `seen`.
    pub fn follower(seen: Arc<Seen>, locate: Arc<Locate>, cache: Arc<NodeCache>) -> Db {
        let (stacks, usage_limit) = Default::default();
        let state = State { last: Lsn::ZERO, stacks, inode_mark: 0, usage: None, usage_limit };
        Db {
            epoch: 0,
            journal: None,
            followed: Some(Followed::new(seen)),
            locate,
            cache,
            limits: Limits { overlay_bytes_max: 0, inode_step: 0 },
            next_inode: AtomicU64::new(0),
            state: RwLock::new(state),
        }
    }

    /// Of a follower the newest state that it has read.
    pub fn seen(&self) -> Option<Arc<Seen>> {
        self.followed.as_ref().map(Followed::newest)
    }

    /// Of a follower the states that somebody reads or may begin to read, oldest first.
    pub fn seen_in_use(&self) -> Vec<Arc<Seen>> {
        self.followed.as_ref().map_or(Vec::new(), Followed::in_use)
    }

    /// Gives a follower a newer state: what begins from now on reads that.
    ///
    /// # Panics
    /// When this is not a follower.
    pub fn advance(&self, seen: Arc<Seen>) {
        self.followed.as_ref().expect("only a follower is given states").advance(seen);
    }

    /// Starts an operation's reads and edits. `pins` holds what was fetched for it so far.
    pub fn begin<'a>(&'a self, pins: &'a Pins) -> Tx<'a> {
        self.begin_at(pins, None)
    }

    /// The same for an operation that, on a follower, reads a state that it chose before.
    pub fn begin_at<'a>(&'a self, pins: &'a Pins, seen: Option<&Arc<Seen>>) -> Tx<'a> {
        let seen = self.followed.as_ref().map(|followed| seen.cloned().unwrap_or_else(|| followed.newest()));
        Tx {
            db: self,
            seen,
            pins,
            edits: Vec::new(),
            objects: Vec::new(),
            inode_max: 0,
            usage_change: UsageChange::default(),
            refusable: true,
            new_limit: None,
        }
    }

    /// What the files take, and what they may take; the first is `None` when it is not counted.
    pub fn usage(&self) -> (Option<Usage>, UsageLimit) {
        if let Some(seen) = self.seen() {
            return (seen.usage, seen.usage_limit);
        }
        let state = self.state.read();
        (state.usage, state.usage_limit)
    }

    /// The Lsn of the newest batch.
    pub fn last(&self) -> Lsn {
        self.seen().map_or_else(|| self.state.read().last, |seen| seen.last)
    }

    /// The writer epoch.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The log, which all have who write.
    ///
    /// # Panics
    /// When this is a follower.
    pub fn journal(&self) -> &Arc<Journal> {
        self.journal.as_ref().expect("a follower has no journal, and nobody asks it for one")
    }

    /// The log, unless this is a follower.
    pub fn journal_of_writer(&self) -> Option<&Arc<Journal>> {
        self.journal.as_ref()
    }

    /// The readers of file data.
    pub fn locate(&self) -> &Arc<Locate> {
        &self.locate
    }

    /// Tree nodes in memory.
    pub fn cache(&self) -> &Arc<NodeCache> {
        &self.cache
    }

    /// Bytes in all overlays.
    pub fn overlay_bytes(&self) -> u64 {
        self.seen().map_or_else(|| self.state.read().stacks.iter().map(Stack::bytes).sum(), |seen| seen.bytes())
    }

    /// Whether the active overlay of files holds changes: batches of the space tree alone never ask for a checkpoint.
    pub fn files_changed(&self) -> bool {
        !self.state.read().stacks[TreeId::Files as usize].overlay.is_empty()
    }

    /// Bytes in the active overlays: what changed since the last freeze.
    pub fn active_bytes(&self) -> u64 {
        self.state.read().stacks.iter().map(|stack| stack.overlay.bytes()).sum()
    }

    /// Whether the overlays are above half their cap.
    pub fn overlays_crowded(&self) -> bool {
        self.overlay_bytes() > self.limits.overlay_bytes_max / 2
    }

    /// The current roots, by [`TreeId`].
    pub fn roots(&self) -> [Option<NodePtr>; 2] {
        let state = self.state.read();
        [state.stacks[0].root, state.stacks[1].root]
    }

    /// Freezes the active overlays at the newest batch. `None` while [`LAYERS_MAX`] layers wait already.
    pub fn freeze(&self) -> Option<Frozen> {
        let mut state = self.state.write();
        if state.stacks[0].layers.len() >= LAYERS_MAX {
            return None;
        }
        for stack in &mut state.stacks {
            let overlay = std::mem::take(&mut stack.overlay);
            // Newest first, as readers look.
            stack.layers.insert(0, Arc::new(overlay));
        }
        let oldest_first = |stack: &Stack| stack.layers.iter().rev().cloned().collect();
        Some(Frozen {
            lsn: state.last,
            layers: [oldest_first(&state.stacks[0]), oldest_first(&state.stacks[1])],
            roots: [state.stacks[0].root, state.stacks[1].root],
        })
    }

    /// Puts merged trees under the maps in place of the layers they were made of.
    ///
    /// # Panics
    /// When `frozen` is not what lies lowest: roots may only follow one another.
    pub fn install(&self, frozen: &Frozen, roots: [Option<NodePtr>; 2]) {
        let mut state = self.state.write();
        for (i, stack) in state.stacks.iter_mut().enumerate() {
            assert_eq!(stack.root, frozen.roots[i], "a root was installed underneath a merge");
            let rest = stack.layers.len() - frozen.layers[i].len();
            debug_assert!(stack.layers[rest..].iter().rev().zip(&frozen.layers[i]).all(|(a, b)| Arc::ptr_eq(a, b)));
            stack.layers.truncate(rest);
            stack.root = roots[i];
        }
    }

    fn reserve(&self, cost: u64, room: Room) -> Result<(), Stop> {
        let overlay_bytes_max = match room {
            Room::Ordinary => self.limits.overlay_bytes_max,
            // What frees space may go a little further, what the merge itself needs goes through always.
            Room::Freeing => self.limits.overlay_bytes_max / 2 * 3,
            Room::Maintenance => u64::MAX,
        };
        if self.overlay_bytes() > overlay_bytes_max {
            return Err(Stop::Wait(Wait::Pressure));
        }
        self.journal().reserve(cost, room).map_err(|refusal| match refusal {
            Refusal::QueueFull | Refusal::JournalFull => Stop::Wait(Wait::Pressure),
            Refusal::DiskFull => Stop::DiskFull,
            Refusal::Latched(why) => Stop::ReadOnly(why),
        })
    }
}

/// One operation's reads and edits.
pub struct Tx<'a> {
    db: &'a Db,
    /// Of a follower: what it reads.
    seen: Option<Arc<Seen>>,
    pins: &'a Pins,
    edits: Vec<(TreeId, Edit)>,
    objects: Vec<(ChunkHeader, Bytes)>,
    inode_max: u64,
    usage_change: UsageChange,
    /// Whether the limit of usage may refuse it.
    refusable: bool,
    new_limit: Option<UsageLimit>,
}

impl Tx<'_> {
    /// The value of a key; sees this transaction's own point edits.
    pub fn get(&mut self, tree: TreeId, key: &[u8]) -> Result<Option<Bytes>, Stop> {
        self.read(tree, key, Bytes::clone)
    }

    /// The same, of which only what `read` makes of the value is needed. It is called under a lock: it decodes, no more.
    pub fn read<T>(&mut self, tree: TreeId, key: &[u8], read: impl FnOnce(&Bytes) -> T) -> Result<Option<T>, Stop> {
        for (t, edit) in self.edits.iter().rev() {
            match edit {
                Edit::Put { key: k, value } if *t == tree && k == key => return Ok(Some(read(value))),
                Edit::Delete { key: k } if *t == tree && k == key => return Ok(None),
                _ => {}
            }
        }
        let (cache, pins) = (&self.db.cache, self.pins);
        let found = self.with_view(tree, |view| view.read(cache, pins, key, read))?;
        found.map_err(|node| Stop::Wait(Wait::Node(node)))
    }

    /// Reads a map at one moment.
    fn with_view<T>(&self, tree: TreeId, read: impl FnOnce(&View<'_>) -> T) -> Result<T, Stop> {
        match &self.seen {
            Some(seen) => Ok(read(&seen.view(tree)?)),
            None => Ok(read(&self.db.state.read().stacks[tree as usize].view())),
        }
    }

    /// Up to `limit` committed entries with keys in `from..to`, ascending, all as of one Lsn.
    pub fn scan(&mut self, tree: TreeId, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, Stop> {
        let found = self.with_view(tree, |view| view.scan(&self.db.cache, self.pins, from, to, limit))?;
        found.map_err(|node| Stop::Wait(Wait::Node(node)))
    }

    /// Goes on only if the nodes with the keys in `from..to` are in memory, or waits for many of them at once. For those who
    /// scan a long range: a restart for each node would go over all that was there before, again and again.
    pub fn want_range(&self, tree: TreeId, from: &[u8], to: &[u8]) -> Result<(), Stop> {
        let missing = self.with_view(tree, |view| view.missing(&self.db.cache, self.pins, from, to, WANTED_MAX))?;
        if missing.is_empty() { Ok(()) } else { Err(Stop::Wait(Wait::Nodes(missing))) }
    }

    /// Gives a key a value.
    pub fn put(&mut self, tree: TreeId, key: Bytes, value: Bytes) {
        self.edits.push((tree, Edit::Put { key, value }));
    }

    /// Removes a key.
    pub fn delete(&mut self, tree: TreeId, key: Bytes) {
        self.edits.push((tree, Edit::Delete { key }));
    }

    /// Removes all keys in `from..to`.
    pub fn delete_range(&mut self, tree: TreeId, from: Bytes, to: Bytes) {
        self.edits.push((tree, Edit::DeleteRange { from, to }));
    }

    /// Adds an object and the extent that puts it at `offset` of the file.
    ///
    /// # Panics
    /// When the object is empty or longer than [`OBJECT_BYTES_MAX`].
    pub fn write_object(&mut self, ino: InodeNo, offset: u64, data: Bytes) {
        assert!(!data.is_empty() && data.len() <= OBJECT_BYTES_MAX, "an object of {} bytes", data.len());
        let n = u32::try_from(self.objects.len()).expect("few objects in a batch");
        self.edits.push((TreeId::Files, Edit::OwnExtent { ino, offset, n }));
        self.objects.push((ChunkHeader::raw(&data), data));
    }

    /// The bytes of objects, in the order of their names. An operation waits once for all that are not in memory.
    pub fn read_objects(&self, ids: impl Iterator<Item = ObjectId>) -> Result<Vec<Bytes>, Stop> {
        let mut missing = Vec::new();
        self.seen.as_ref().map_or(Ok(()), |seen| seen.check())?;
        let found = ids.filter_map(|id| {
            let pinned = || self.pins.object(&id).cloned();
            // Once it must wait, nothing is read twice: who fetches finds what is in memory as well.
            let resident = || missing.is_empty().then(|| self.db.locate.resident(&id)).flatten();
            let came_whole = self.seen.as_ref().and_then(|seen| seen.objects.get(&id).cloned());
            let bytes = came_whole.or_else(pinned).or_else(resident);
            if bytes.is_none() {
                missing.push(id);
            }
            bytes
        });
        let found = found.collect();
        if missing.is_empty() {
            return Ok(found);
        }
        missing.dedup();
        Err(Stop::Wait(Wait::Objects(missing)))
    }

    /// An inode number never used before. Lost, not reused, when the transaction does not commit.
    pub fn new_inode(&mut self) -> InodeNo {
        let number = self.db.next_inode.fetch_add(1, Ordering::Relaxed);
        self.inode_max = self.inode_max.max(number);
        InodeNo(number)
    }

    /// By how much the edits change what the files take. With `refusable` the batch is refused if that is more than they may.
    pub fn set_usage_change(&mut self, change: UsageChange, refusable: bool) {
        self.usage_change = change;
        self.refusable = refusable;
    }

    /// Changes what the files may take.
    pub fn set_usage_limit(&mut self, limit: UsageLimit) {
        self.put(TreeId::Files, key::limit(), limit.encode());
        self.new_limit = Some(limit);
    }

    /// Whether nothing was edited so far.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// Whether one batch can take the edits.
    pub fn fits(&self) -> bool {
        let mut edits = self.edits.clone();
        edits.push(self.inode_mark_edit());
        let lens: Vec<usize> = self.objects.iter().map(|(_, data)| data.len()).collect();
        let cost = Journal::cost(encode_edits(&edits).len() + USAGE_EDIT_BYTES, &lens);
        self.db.journal.as_ref().is_none_or(|journal| cost <= journal.batch_bytes_max())
    }

    /// Makes the edits one batch of the log. Without edits nothing is logged and the last Lsn is returned.
    ///
    /// Room is taken before the Lsn is given: a full disk or journal is noticed here, while nothing has happened yet. So is
    /// the limit of usage.
    pub fn commit(mut self, room: Room) -> Result<Lsn, Stop> {
        let db = self.db;
        if self.edits.is_empty() {
            return Ok(db.last());
        }
        let Some(journal) = &db.journal else { return Err(Stop::ReadOnly(FOLLOWS.to_owned())) };
        let mut encoded = encode_edits(&self.edits);
        let lens: Vec<usize> = self.objects.iter().map(|(_, data)| data.len()).collect();
        // Without a new inode no mark can be needed.
        let mark = (self.inode_max > 0).then(|| self.inode_mark_edit());
        let mark_bytes = mark.as_ref().map_or(Vec::new(), |edit| encode_edits(std::slice::from_ref(edit)));
        let usage_bytes = if self.usage_change.is_none() { 0 } else { USAGE_EDIT_BYTES };
        let reserved = Journal::cost(encoded.len() + mark_bytes.len() + usage_bytes, &lens);
        db.reserve(reserved, room)?;

        let mut state = db.state.write();
        let usage =
            state.usage_after(self.usage_change, self.refusable).inspect_err(|_| journal.unreserve(reserved))?;
        if let Some(usage) = usage {
            state.usage = Some(usage);
            let edit = (TreeId::Files, Edit::Put { key: key::usage(), value: usage.encode() });
            encoded.extend(encode_edits(std::slice::from_ref(&edit)));
            self.edits.push(edit);
        }
        state.usage_limit = self.new_limit.unwrap_or(state.usage_limit);
        if let Some(mark) = mark.filter(|_| self.inode_max >= state.inode_mark) {
            state.inode_mark = self.inode_max + db.limits.inode_step;
            encoded.extend(mark_bytes);
            self.edits.push(mark);
        }
        // The journal takes what the batch costs; room for an edit that it does not carry would be lost for good.
        let unused = reserved - Journal::cost(encoded.len(), &lens);
        if unused > 0 {
            journal.unreserve(unused);
        }
        let lsn = state.last.next(db.epoch);
        let headers: Vec<ChunkHeader> = self.objects.iter().map(|(header, _)| *header).collect();
        let count = u32::try_from(self.edits.len()).expect("few edits in a batch");
        let head = encode_head(lsn, count, &encoded, &headers, true);
        let concerns_files = self.edits.iter().any(|(tree, edit)| Log::carries(*tree, edit));
        journal.submit(PendingBatch { lsn, head: head.into(), objects: self.objects, concerns_files });
        for (tree, edit) in self.edits {
            state.stacks[tree as usize].overlay.apply_own(lsn, edit.resolve(lsn, &headers));
        }
        state.last = lsn;
        Ok(lsn)
    }

    /// Inode numbers are reserved durably ahead of use, in the very batch that first uses one of a new range.
    fn inode_mark_edit(&self) -> (TreeId, Edit) {
        let mark = self.inode_max + self.db.limits.inode_step;
        (TreeId::Space, Edit::Put { key: space::mark(Mark::Inode), value: space::encode_number(mark) })
    }
}
