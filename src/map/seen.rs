//! What a follower reads: published states, each whole and unchanging, of which the newest is replaced by the next.

use super::db::Stop;
use super::overlay::Overlay;
use super::view::View;
use crate::format::batch::TreeId;
use crate::format::ids::{Lsn, NodePtr, ObjectId};
use crate::format::publication::Position;
use crate::format::usage::{Usage, UsageLimit};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

static NOTHING: Overlay = Overlay::new();

/// One published state. Who holds it reads it, whatever is published meanwhile; and as long as somebody does, the lease keeps
/// from being deleted what it needs.
pub struct Seen {
    /// Changes over the tree, newest first.
    pub layers: Vec<Arc<Overlay>>,
    /// The tree of the base; `None` is an empty one.
    pub root: Option<NodePtr>,
    /// Objects that no window holds yet: they came whole.
    pub objects: CameWhole,
    /// The newest batch of the state.
    pub last: Lsn,
    /// The publication it comes from.
    pub position: Position,
    /// The checkpoint that was published with it.
    pub checkpoint: u64,
    /// When that publication was written: nanoseconds since 1970, by the writer's clock.
    pub wall: i64,
    /// What the files take; `None` when it is not counted.
    pub usage: Option<Usage>,
    /// What they may take.
    pub usage_limit: UsageLimit,
    /// For how long it may be read.
    pub term: Arc<Term>,
}

impl Seen {
    /// Whether the lease that kept this state from being deleted was lost. Then it is never read again.
    pub fn is_lost(&self) -> bool {
        self.term.is_over()
    }

    /// Bytes of its layers and objects in memory, much of which it may share with other states.
    pub fn bytes(&self) -> u64 {
        self.objects.bytes() + self.layers.iter().map(|layer| layer.bytes()).sum::<u64>()
    }

    pub(super) fn view(&self, tree: TreeId) -> Result<View<'_>, Stop> {
        self.check()?;
        match tree {
            TreeId::Files => Ok(View { overlay: &NOTHING, layers: &self.layers, root: self.root }),
            TreeId::Space => Err(Stop::Damaged("a follower has no space tree".to_owned())),
        }
    }

    pub(super) fn check(&self) -> Result<(), Stop> {
        if self.is_lost() { Err(Stop::LeaseLost) } else { Ok(()) }
    }
}

/// Objects that came whole with the batches that made them: runs in the order of their batches, shared between states.
#[derive(Clone, Default)]
pub struct CameWhole {
    /// Each with its last batch.
    runs: Vec<(Lsn, Arc<Run>)>,
}

struct Run {
    objects: HashMap<ObjectId, Bytes>,
    bytes: u64,
}

impl CameWhole {
    /// The object, if it is one of them.
    pub fn get(&self, id: &ObjectId) -> Option<&Bytes> {
        let at = self.runs.partition_point(|(last, _)| *last < id.lsn);
        self.runs.get(at)?.1.objects.get(id)
    }

    /// Adds those of the batches up to `last`, which come after all others.
    pub fn add(&mut self, last: Lsn, objects: HashMap<ObjectId, Bytes>) {
        if !objects.is_empty() {
            let bytes = objects.values().map(|object| object.len() as u64).sum();
            self.runs.push((last, Arc::new(Run { objects, bytes })));
        }
    }

    /// Drops those that a window holds which ends there; a run that goes on behind it stays whole.
    pub fn forget(&mut self, window: Lsn) {
        self.runs.retain(|(last, _)| *last > window);
    }

    /// Bytes of all.
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|(_, run)| run.bytes).sum()
    }
}

/// For how long states may be read: as long as one lease is held. Once over, it is over for ever.
pub struct Term {
    over: AtomicBool,
    holds: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Term {
    /// A term that lasts until `holds` says no for the first time. It is asked by every request, so it must be quick.
    pub fn new(holds: impl Fn() -> bool + Send + Sync + 'static) -> Term {
        Term { over: AtomicBool::new(false), holds: Box::new(holds) }
    }

    /// Ends it.
    pub fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        if self.over.load(Ordering::SeqCst) {
            return true;
        }
        let over = !(self.holds)();
        if over {
            self.end();
        }
        over
    }
}

/// The newest state, and those that somebody still reads.
pub(super) struct Followed {
    newest: RwLock<Arc<Seen>>,
    in_use: Mutex<Vec<Weak<Seen>>>,
}

impl Followed {
    pub fn new(seen: Arc<Seen>) -> Followed {
        let in_use = Mutex::new(vec![Arc::downgrade(&seen)]);
        Followed { newest: RwLock::new(seen), in_use }
    }

    pub fn newest(&self) -> Arc<Seen> {
        self.newest.read().clone()
    }

    pub fn advance(&self, seen: Arc<Seen>) {
        let mut in_use = self.in_use.lock();
        in_use.retain(|seen| seen.strong_count() > 0);
        in_use.push(Arc::downgrade(&seen));
        drop(in_use);
        *self.newest.write() = seen;
    }

    /// The states that somebody reads or may begin to read, oldest first.
    pub fn in_use(&self) -> Vec<Arc<Seen>> {
        let mut in_use = self.in_use.lock();
        in_use.retain(|seen| seen.strong_count() > 0);
        in_use.iter().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(pos: u64) -> Arc<Seen> {
        let last = Lsn { epoch: 1, pos };
        Arc::new(Seen {
            layers: Vec::new(),
            root: None,
            objects: CameWhole::default(),
            last,
            position: Position { generation: 1, number: pos },
            checkpoint: pos,
            wall: 0,
            usage: None,
            usage_limit: UsageLimit::default(),
            term: Arc::new(Term::new(|| true)),
        })
    }

    #[test]
    fn states_that_somebody_holds_are_known_and_no_others() {
        let followed = Followed::new(seen(1));
        let held = followed.newest();
        for pos in 2..100 {
            followed.advance(seen(pos));
        }
        let numbers = || followed.in_use().iter().map(|seen| seen.checkpoint).collect::<Vec<_>>();
        assert_eq!(numbers(), [1, 99]);
        drop(held);
        assert_eq!(numbers(), [99]);
        assert_eq!(followed.in_use.lock().len(), 1, "the list does not grow");
    }

    #[test]
    fn a_term_that_has_ended_never_begins_again() {
        let holds = Arc::new(AtomicBool::new(true));
        let asked = holds.clone();
        let term = Term::new(move || asked.load(Ordering::SeqCst));
        assert!(!term.is_over());
        holds.store(false, Ordering::SeqCst);
        assert!(term.is_over());
        holds.store(true, Ordering::SeqCst);
        assert!(term.is_over());
    }
}
