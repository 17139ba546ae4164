//! Locks of inodes: a fixed number of reader-writer locks over which the inode numbers are spread.
//!
//! Order: first the lock of directory moves (rank 1), then all inode locks an operation needs at once, by stripe (rank 2). A
//! thread that asks against this order fails an assertion in debug builds. No lock is held across disk, store or wait.

use crate::format::ids::InodeNo;
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::cell::Cell;

const STRIPES: u64 = 1024;

pub(super) struct InodeLocks {
    stripes: Vec<RwLock<()>>,
    moves: Mutex<()>,
}

/// The right to read one inode.
pub(super) struct Shared<'a> {
    _guard: RwLockReadGuard<'a, ()>,
    _rank: Rank,
}

/// The right to change some inodes.
pub(super) struct Exclusive<'a> {
    _guards: Vec<RwLockWriteGuard<'a, ()>>,
    _rank: Rank,
}

/// The right to read one inode and to change another, or the same.
pub(super) struct Both<'a> {
    _read: Option<RwLockReadGuard<'a, ()>>,
    _write: RwLockWriteGuard<'a, ()>,
    _rank: Rank,
}

/// The right to give a directory another parent: while it is held, no directory's ancestors change.
pub(super) struct Moves<'a> {
    _guard: MutexGuard<'a, ()>,
    _rank: Rank,
}

impl InodeLocks {
    pub fn new() -> InodeLocks {
        InodeLocks { stripes: (0..STRIPES).map(|_| RwLock::new(())).collect(), moves: Mutex::new(()) }
    }

    pub fn shared(&self, ino: InodeNo) -> Shared<'_> {
        let rank = Rank::enter(2);
        Shared { _guard: self.stripes[stripe(ino)].read(), _rank: rank }
    }

    pub fn exclusive(&self, inos: &[InodeNo]) -> Exclusive<'_> {
        let rank = Rank::enter(2);
        let mut stripes: Vec<usize> = inos.iter().map(|ino| stripe(*ino)).collect();
        stripes.sort_unstable();
        stripes.dedup();
        Exclusive { _guards: stripes.into_iter().map(|i| self.stripes[i].write()).collect(), _rank: rank }
    }

    /// When both are spread to the same stripe, the right to change it is the right to read it.
    pub fn shared_and_exclusive(&self, read: InodeNo, write: InodeNo) -> Both<'_> {
        let rank = Rank::enter(2);
        let (read, write) = (stripe(read), stripe(write));
        let before = (read < write).then(|| self.stripes[read].read());
        let changed = self.stripes[write].write();
        let after = (read > write).then(|| self.stripes[read].read());
        Both { _read: before.or(after), _write: changed, _rank: rank }
    }

    pub fn moves(&self) -> Moves<'_> {
        let rank = Rank::enter(1);
        Moves { _guard: self.moves.lock(), _rank: rank }
    }
}

fn stripe(ino: InodeNo) -> usize {
    usize::try_from(ino.0 % STRIPES).expect("few stripes")
}

thread_local! {
    /// One bit for each rank this thread holds.
    static HELD: Cell<u8> = const { Cell::new(0) };
}

/// A rank that this thread holds.
struct Rank {
    bit: u8,
}

impl Rank {
    fn enter(rank: u8) -> Rank {
        let (held, bit) = (HELD.get(), 1 << rank);
        debug_assert!(held < bit, "lock of rank {rank} taken while those of bits {held:#b} are held");
        HELD.set(held | bit);
        Rank { bit }
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        HELD.set(HELD.get() & !self.bit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inodes_of_one_stripe_are_locked_once() {
        let locks = InodeLocks::new();
        drop(locks.exclusive(&[InodeNo(1), InodeNo(1 + STRIPES), InodeNo(1), InodeNo(0)]));
        drop(locks.shared(InodeNo(1)));
        drop(locks.shared_and_exclusive(InodeNo(1), InodeNo(1 + STRIPES)));
    }

    #[test]
    fn reading_one_inode_and_changing_another_goes_by_stripe_whichever_is_which() {
        let locks = InodeLocks::new();
        for (read, write) in [(1, 2), (2, 1), (1, 1)] {
            let both = locks.shared_and_exclusive(InodeNo(read), InodeNo(write));
            assert!(locks.stripes[stripe(InodeNo(write))].try_read().is_none(), "{write} may be changed");
            assert!(locks.stripes[stripe(InodeNo(read))].try_write().is_none(), "{read} may not change");
            assert_eq!(locks.stripes[stripe(InodeNo(read))].try_read().is_some(), read != write);
            drop(both);
        }
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "lock of rank 2 taken")]
    fn inode_locks_are_taken_all_at_once_or_not_at_all() {
        let locks = InodeLocks::new();
        let _first = locks.exclusive(&[InodeNo(1)]);
        let _second = locks.shared(InodeNo(2));
    }
}
