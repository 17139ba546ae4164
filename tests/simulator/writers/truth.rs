//! Who wrote what, and what of it a reader of the store must see: exactly the operations that were published along one chain
//! of writers, each of which went on from what the one before it had published.
//!
//! Every numbered object is looked at in the moment it arrives in the store. It must be the next one; its writer must have
//! begun with all that was published before; and what it adds is visible from then on, for ever.

use crate::book::digest;
use crate::model::{Id, Model};
use skylog::format::batch::{Batch, encode_edits};
use skylog::format::ids::{InodeNo, Lsn};
use skylog::format::publication::{Body, Log, Position, Publication};
use skylog::media::sim::{StoreCall, hash_of};
use skylog::store::sim::SimStore;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A mount, or a try to mount; 0 made the filesystem.
pub type LifeNo = usize;

/// The state after an operation.
#[derive(Clone)]
pub struct Step {
    /// Which operation of the history.
    pub op: u64,
    pub model: Arc<Model>,
    pub digest: u64,
    /// The newest batch after it.
    pub lsn: Lsn,
    /// Whether that is a batch of this operation, and a reader sees what it did.
    pub wrote: bool,
    /// What it made, and the number that got.
    pub born: Option<(Id, InodeNo)>,
}

/// The operations that lead to a state, from the empty filesystem on.
#[derive(Clone)]
pub struct Line(pub Vec<Step>);

impl Line {
    /// The number of operations.
    pub fn len(&self) -> usize {
        self.0.len() - 1
    }

    pub fn last(&self) -> &Step {
        self.0.last().expect("a line begins with the empty filesystem")
    }

    /// The last of the first `n` operations that changed anything.
    pub fn last_change(&self, n: usize) -> usize {
        (1..=n).rev().find(|n| self.0[*n].wrote).unwrap_or(0)
    }

    /// How many operations are in what ends with this batch.
    fn shown(&self, end: Lsn) -> usize {
        self.0.partition_point(|step| step.lsn <= end) - 1
    }

    /// The same up to operation `n`, after which the process ended.
    fn cut(&self, n: usize) -> Line {
        let mut line = Line(self.0[..=n].to_vec());
        let last = line.0.last_mut().expect("not empty");
        let mut model = Model::clone(&last.model);
        model.crash();
        last.model = Arc::new(model);
        line
    }

    fn starts_with(&self, other: &[Step]) -> bool {
        other.len() <= self.0.len() && self.0.iter().zip(other).all(|(a, b)| a.op == b.op)
    }

    /// The latest of these states that looks like this.
    fn find(&self, digest: u64, from: usize, to: usize) -> Option<usize> {
        (from..=to.min(self.len())).rev().find(|n| self.0[*n].digest == digest)
    }
}

/// What a machine holds on its disk while nothing runs there.
#[derive(Clone, Debug)]
pub struct Held {
    /// Who wrote it.
    pub life: LifeNo,
    /// So many of its operations survive,
    pub from: usize,
    /// and so many were begun.
    pub to: usize,
    /// It, or what it was made of, is an earlier copy.
    pub old: bool,
}

/// One mount.
pub struct Life {
    /// The takeover that it, or the mounts before it on this disk, began with.
    pub root: LifeNo,
    /// What it has done; nothing before it has mounted or won.
    line: Option<Line>,
    /// An operation on its way.
    pending: Option<Step>,
    /// So many operations survive any crash.
    synced: usize,
    /// From an earlier copy of a disk.
    pub old: bool,
    /// Operations that an fsync waits for, and their newest batch.
    fsyncs: Vec<(usize, Lsn)>,
}

/// What is published.
struct Visible {
    /// Operations of this life,
    life: LifeNo,
    /// so many.
    n: usize,
    /// Where the next numbered object goes.
    next: Position,
    /// The newest generation with a base.
    base: u64,
    /// Operations that windows of it hold.
    windows: usize,
    /// Windows and logs of it reach up to here.
    reached: Lsn,
    /// Who may publish, by the takeover it began with.
    owner: LifeNo,
}

/// The whole history.
pub struct Truth {
    lives: Vec<Life>,
    visible: Visible,
    ops: u64,
    /// Operations whose fsync was answered.
    acknowledged: BTreeSet<u64>,
    /// What each published number of an inode was made by,
    numbers: BTreeMap<InodeNo, u64>,
    /// and each published batch.
    batches: BTreeMap<Lsn, u64>,
    /// What each batch says that a log carried.
    said: BTreeMap<Lsn, u128>,
    pub published: u64,
    pub logs: u64,
    /// Closing objects that nobody reads.
    pub strays: u64,
    pub closings: u64,
    /// Objects that were deleted so far.
    pub deletes: u64,
    /// Operations that no reader will see.
    pub unshipped: u64,
}

impl Truth {
    /// An empty filesystem that somebody made.
    pub fn new(store: &SimStore) -> Truth {
        let model = crate::world::new_model();
        let digest = digest(&model.tree());
        let step = Step { op: 0, model: Arc::new(model), digest, lsn: Lsn::ZERO, wrote: false, born: None };
        let maker =
            Life { root: 0, line: Some(Line(vec![step])), pending: None, synced: 0, old: false, fsyncs: Vec::new() };
        let numbered = store.image().names().filter(|name| name.starts_with("gen/")).count();
        assert_eq!(numbered, 2, "a new filesystem has a base, and an increment");
        let next = Position { generation: 1, number: 2 };
        Truth {
            lives: vec![maker],
            visible: Visible { life: 0, n: 0, next, base: 1, windows: 0, reached: Lsn::ZERO, owner: 0 },
            ops: 0,
            acknowledged: BTreeSet::new(),
            numbers: BTreeMap::new(),
            batches: BTreeMap::new(),
            said: BTreeMap::new(),
            published: 0,
            logs: 0,
            strays: 0,
            closings: 0,
            deletes: 0,
            unshipped: 0,
        }
    }

    /// A mount is tried on what a disk holds, or on nothing.
    pub fn begin(&mut self, held: Option<&Held>) -> LifeNo {
        let life = self.lives.len();
        let (root, old) = held.map_or((life, false), |held| (self.lives[held.life].root, held.old));
        self.lives.push(Life { root, line: None, pending: None, synced: 0, old, fsyncs: Vec::new() });
        life
    }

    pub fn life(&self, life: LifeNo) -> &Life {
        &self.lives[life]
    }

    /// What it has done so far.
    pub fn line(&self, life: LifeNo) -> &Line {
        self.lives[life].line.as_ref().expect("it has begun")
    }

    /// The steps that are visible.
    fn seen(&self) -> &[Step] {
        &self.line(self.visible.life).0[..=self.visible.n]
    }

    /// What a reader must see: the tree, and the number of every node.
    pub fn seen_last(&self) -> &Step {
        self.seen().last().expect("the empty filesystem at least")
    }

    /// The numbers of all nodes that visible operations made.
    pub fn seen_numbers(&self) -> BTreeMap<Id, InodeNo> {
        self.seen().iter().filter_map(|step| step.born).collect()
    }

    /// Whether another writer has taken over from this one.
    pub fn is_superseded(&self, life: LifeNo) -> bool {
        self.visible.owner != self.lives[life].root
    }

    /// A call is about to arrive.
    pub fn arrives(&mut self, life: LifeNo, call: &StoreCall) {
        let StoreCall::Delete { name } = call else { return };
        self.deletes += 1;
        if let Some(at) = position(name) {
            let base = self.visible.base;
            assert!(at.generation < base, "life {life} deletes {name}, and the newest base is in generation {base}");
        }
    }

    /// A call created an object.
    pub fn created(&mut self, life: LifeNo, name: &str, bytes: &bytes::Bytes, late: bool) {
        let Some(at) = position(name) else { return };
        let next = self.visible.next;
        let found = Publication::decode(bytes).expect("what is published can be read");
        if at < next && (late || matches!(found.body, Body::Closing(_)) && self.lives[life].line.is_none()) {
            // Of a takeover that found the number free before it was deleted: it must see that it has not won. Or the number was
            // taken before, and deleted, and a copy of some call comes late: nobody reads that generation any more.
            assert!(at.generation < self.visible.base || late, "{name} is still read");
            self.strays += 1;
            return;
        }
        assert_eq!(at, next, "life {life} creates {name}, the next number is {next:?}");
        assert_eq!((found.generation, found.number), (at.generation, at.number), "{name}");
        self.visible.next = Position { number: at.number + 1, ..at };
        match &found.body {
            Body::Closing(_) => {
                self.closings += 1;
                self.visible.next = Position { generation: at.generation + 1, number: 0 };
                if self.is_superseded(life) {
                    self.taken_over(life);
                }
            }
            Body::Base(base) => {
                assert_eq!(at.number, 0, "{name} is a base");
                let carried = base.log.batches().last().map(|batch| batch.expect("a batch").batch.lsn);
                self.visible.base = at.generation;
                self.visible.windows = 0;
                self.claim_all(name, &base.log);
                self.publish(life, name, found.end.max(carried.unwrap_or(Lsn::ZERO)));
            }
            Body::Increment(_) => {
                assert_eq!(at.generation, self.visible.base, "{name} is an increment");
                let n = self.line(life).last_change(self.line(life).shown(found.end));
                assert!(n >= self.visible.windows, "{name} goes back behind the window before it");
                self.visible.windows = n;
                // What logs said after its end stays.
                self.visible.reached = self.visible.reached.max(found.end);
                self.publish(life, name, self.visible.reached);
            }
            Body::Log(log) => {
                self.claim_all(name, log);
                assert_eq!(at.generation, self.visible.base, "{name} is a log");
                // A log or a window whose answer was lost may have gone further: then this one adds nothing.
                self.visible.reached = self.visible.reached.max(found.end);
                self.logs += 1;
                self.publish(life, name, self.visible.reached);
            }
        }
    }

    /// A log carries a batch: under its Lsn none ever carried anything else.
    fn claim(&mut self, name: &str, batch: &Batch) {
        let edits: Vec<_> = batch.edits.iter().filter(|(tree, edit)| Log::carries(*tree, edit)).cloned().collect();
        if edits.is_empty() {
            return;
        }
        let hash = hash_of(&encode_edits(&edits));
        let before = *self.said.entry(batch.lsn).or_insert(hash);
        assert_eq!(before, hash, "{name}: batch {} said something else before", batch.lsn);
    }

    fn claim_all(&mut self, name: &str, log: &Log) {
        for batch in log.batches() {
            self.claim(name, &batch.expect("a batch").batch);
        }
    }

    /// A closing object of another: it goes on from what is published.
    fn taken_over(&mut self, life: LifeNo) {
        let before = self.lives.iter().filter(|l| l.root == self.visible.owner).filter_map(|l| l.line.as_ref());
        let most = before.map(Line::len).max().unwrap_or(0);
        self.unshipped += most.saturating_sub(self.visible.n) as u64;
        let line = self.line(self.visible.life).cut(self.visible.n);
        assert_eq!(self.lives[life].root, life, "only a mount without local state takes over");
        self.lives[life].synced = line.len();
        self.lives[life].line = Some(line);
        self.visible.owner = life;
    }

    /// Everything up to `end` is visible from now on.
    fn publish(&mut self, life: LifeNo, name: &str, end: Lsn) {
        self.published += 1;
        assert!(!self.is_superseded(life), "{name}: life {life} publishes, and has been taken over from");
        let line = self.line(life);
        // What changed nothing after that is everywhere and nowhere.
        let n = line.last_change(line.shown(end));
        let was = self.visible.n;
        assert!(line.starts_with(self.seen()), "{name}: life {life} does not go on from what was published");
        assert!(n >= was, "{name}: life {life} publishes {n} operations, {was} were published");
        let new: Vec<Step> = line.0[was + 1..=n].to_vec();
        for step in new {
            if step.wrote {
                let before = self.batches.insert(step.lsn, step.op);
                assert_eq!(before, None, "batch {} is of two operations, one of them {}", step.lsn, step.op);
            }
            if let Some((_, ino)) = step.born {
                let before = self.numbers.insert(ino, step.op);
                assert_eq!(before, None, "inode {ino:?} was made twice, by operation {} too", step.op);
            }
        }
        self.visible.life = life;
        self.visible.n = n;
    }

    /// An operation begins; what it is applied to.
    pub fn start(&mut self, life: LifeNo) -> Model {
        self.ops += 1;
        let mut model = Model::clone(&self.line(life).last().model);
        model.go_on(self.ops, self.ops * 8);
        model
    }

    /// It leads here, if it goes through.
    pub fn expect(&mut self, life: LifeNo, model: Model) {
        let digest = digest(&model.tree());
        let lsn = Lsn { epoch: u32::MAX, pos: u64::MAX };
        self.lives[life].pending =
            Some(Step { op: self.ops, model: Arc::new(model), digest, lsn, wrote: false, born: None });
    }

    /// It went through.
    pub fn done(&mut self, life: LifeNo, lsn: Lsn, wrote: bool, born: Option<(Id, InodeNo)>) {
        let life = &mut self.lives[life];
        let step = life.pending.take().expect("it was begun");
        let line = life.line.as_ref().expect("mounted");
        // What no reader can tell from what was before may be lost unseen.
        let wrote = wrote && step.digest != line.last().digest;
        life.line.as_mut().expect("mounted").0.push(Step { lsn, wrote, born, ..step });
    }

    /// It was refused, and changed nothing.
    pub fn refused(&mut self, life: LifeNo) {
        self.lives[life].pending = None;
    }

    /// Everything up to here survives any crash of the machine.
    pub fn durable(&mut self, life: LifeNo, upto: Lsn) {
        let n = self.line(life).shown(upto);
        let life = &mut self.lives[life];
        life.synced = life.synced.max(n);
    }

    /// An fsync of everything so far.
    pub fn ask(&mut self, life: LifeNo, upto: Lsn) {
        let n = self.line(life).len();
        self.lives[life].fsyncs.push((n, upto));
    }

    /// Answers each fsync that waits for no more than this; how many.
    pub fn answer(&mut self, life: LifeNo, upto: Lsn) -> u64 {
        let waiting = std::mem::take(&mut self.lives[life].fsyncs);
        let (answered, left): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(_, lsn)| *lsn <= upto);
        self.lives[life].fsyncs = left;
        answered.iter().for_each(|(n, _)| self.acknowledge(life, *n));
        answered.len() as u64
    }

    /// The first `n` operations of a life were acknowledged: every reader sees them, now and for ever.
    pub fn acknowledge(&mut self, life: LifeNo, n: usize) {
        let line = self.line(life);
        let n = line.last_change(n);
        let seen = self.seen();
        let is_seen = n < seen.len() && line.0[..=n].iter().zip(seen).all(|(a, b)| a.op == b.op);
        let op = line.0[n].op;
        assert!(is_seen, "life {life}: an fsync up to operation {op} is answered, and no reader sees it");
        let ops: Vec<u64> = line.0[..=n].iter().map(|step| step.op).collect();
        self.acknowledged.extend(ops);
    }

    /// Nothing that was acknowledged is missing.
    pub fn check(&self) {
        let seen: BTreeSet<u64> = self.seen().iter().map(|step| step.op).collect();
        let missing: Vec<&u64> = self.acknowledged.difference(&seen).collect();
        assert!(missing.is_empty(), "acknowledged, and no reader sees them: {missing:?}");
    }

    /// A mount came up, and this is what it found.
    pub fn mounted(&mut self, life: LifeNo, held: Option<&Held>, found: u64, last: Lsn) {
        let Some(held) = held else {
            let expected = self.line(life).last().digest;
            assert_eq!(found, expected, "life {life} took over, and finds something else than was published then");
            return;
        };
        let Held { life: before, from, to, .. } = *held;
        let n = self.line(before).find(found, from, to);
        let n = n.unwrap_or_else(|| {
            let elsewhere = self.line(before).find(found, 0, usize::MAX);
            panic!("life {life} finds no state between {from} and {to} of life {before}, but {elsewhere:?}");
        });
        let mut line = self.line(before).cut(n);
        if let [.., earlier, step] = &mut line.0[..] {
            // The process may have died in it, and nothing came after.
            step.wrote = step.digest != earlier.digest;
        }
        // Batches that only the process knew are gone, and their Lsns go to others.
        line.0.iter_mut().for_each(|step| step.lsn = step.lsn.min(last));
        if !held.old && !self.is_superseded(life) {
            let seen = self.seen().len() - 1;
            assert!(n >= seen, "life {life} finds {n} operations in its journal, the store has {seen}");
        }
        self.lives[life].synced = n;
        self.lives[life].line = Some(line);
    }

    /// A process is gone; what its disk holds, if it had come so far.
    pub fn bury(&mut self, life: LifeNo) -> Option<Held> {
        let one = &mut self.lives[life];
        one.fsyncs.clear();
        let line = one.line.as_mut()?;
        line.0.extend(one.pending.take());
        Some(Held { life, from: one.synced, to: line.len(), old: one.old })
    }

    /// Fsyncs that wait.
    pub fn waiting(&self, life: LifeNo) -> u64 {
        self.lives[life].fsyncs.len() as u64
    }

    /// The newest state that was published at or after `from` operations and looks like this.
    pub fn find_seen(&self, digest: u64, from: usize) -> Option<usize> {
        let seen = self.seen();
        (from..seen.len()).rev().find(|n| seen[*n].digest == digest)
    }

    /// Operations that readers see.
    pub fn seen_len(&self) -> usize {
        self.visible.n
    }

    /// So many operations survive.
    pub fn synced(&self, life: LifeNo) -> usize {
        self.lives[life].synced
    }
}

/// The number of a numbered object.
fn position(name: &str) -> Option<Position> {
    let (generation, number) = name.strip_prefix("gen/")?.split_once('/')?;
    Some(Position { generation: generation.parse().ok()?, number: number.parse().ok()? })
}
