//! Who uses an inode: how often the kernel was told of it (look-ups, which it gives back with `forget`), and open handles.
//!
//! Counts are kept in memory only; a new mount starts without any, and then recovery frees every orphan. They change under the
//! inode's lock, or under the lock of the directory by whose name the inode was found, so that whoever removes the last
//! name, holding both, sees all of them.

use super::attr::file_type;
use super::error::{Error, Stop};
use super::{Cx, Fs};
use crate::format::ids::InodeNo;
use crate::format::inode::Inode;
use crate::map::db::Room;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

const SHARDS: u64 = 64;
/// A shard with room for this many is not made smaller.
const SHARD_MIN: usize = 1024;

/// Look-ups and handles of all inodes that have any.
pub(super) struct Uses {
    shards: Vec<Mutex<HashMap<InodeNo, Use>>>,
    /// Files without a name that nobody has open: the kernel is about to forget them.
    leaving: AtomicU64,
    /// Files without a name whose last use has ended.
    left: AtomicU64,
    /// Those of them that a full disk has kept from being freed.
    unfreed: Mutex<Vec<InodeNo>>,
}

/// There is one for each inode that the kernel remembers, which may be all there are: so it is small. A count that has
/// reached its highest value stays there, and with it the inode stays in use until the next mount: then nothing is freed
/// too early.
#[derive(Clone, Copy, Default)]
struct Use {
    lookups: u32,
    /// Twice the handles, and 1 if it has no name any more, so that its last user frees it.
    handles_and_orphan: u32,
}

const HANDLE: u32 = 2;
const HANDLES_MAX: u32 = u32::MAX - 1;
const ORPHAN: u32 = 1;

impl Use {
    fn handles(self) -> u32 {
        self.handles_and_orphan & !ORPHAN
    }

    fn is_orphan(self) -> bool {
        self.handles_and_orphan & ORPHAN != 0
    }

    fn add_lookup(&mut self) {
        self.lookups = self.lookups.saturating_add(1);
    }

    fn add_handle(&mut self) {
        if self.handles() < HANDLES_MAX {
            self.handles_and_orphan += HANDLE;
        }
    }

    fn less(mut self, lookups: u64, handles: u64) -> Use {
        let few = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        if self.lookups < u32::MAX {
            self.lookups = self.lookups.saturating_sub(few(lookups));
        }
        if self.handles() < HANDLES_MAX {
            let left = self.handles().saturating_sub(few(handles).saturating_mul(HANDLE) & !ORPHAN);
            self.handles_and_orphan = left | self.handles_and_orphan & ORPHAN;
        }
        self
    }

    fn is_unused(self) -> bool {
        self.lookups == 0 && self.handles() == 0
    }

    fn is_leaving(self) -> bool {
        self.is_orphan() && self.handles() == 0 && self.lookups > 0
    }
}

const _: () =
    assert!(size_of::<(InodeNo, Use)>() == 16, "two million of these are most of the memory of a large mount");

impl Uses {
    pub fn new() -> Uses {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Uses { shards, leaving: AtomicU64::new(0), left: AtomicU64::new(0), unfreed: Mutex::default() }
    }

    fn shard(&self, ino: InodeNo) -> &Mutex<HashMap<InodeNo, Use>> {
        &self.shards[usize::try_from(ino.0 % SHARDS).expect("few shards")]
    }

    fn change(&self, ino: InodeNo, change: impl FnOnce(&mut Use)) {
        let mut shard = self.shard(ino).lock();
        let entry = shard.entry(ino).or_default();
        let before = *entry;
        change(entry);
        let after = *entry;
        if after.is_unused() {
            shard.remove(&ino);
            // What the kernel remembered yesterday is no reason to hold memory today.
            if shard.capacity() > SHARD_MIN && shard.len() < shard.capacity() / 8 {
                shard.shrink_to_fit();
            }
            self.left.fetch_add(u64::from(after.is_orphan()), Ordering::Relaxed);
        }
        match (before.is_leaving(), after.is_leaving()) {
            (false, true) => drop(self.leaving.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.leaving.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
    }

    pub fn add_lookup(&self, ino: InodeNo) {
        self.change(ino, Use::add_lookup);
    }

    pub fn add_handle(&self, ino: InodeNo) {
        self.change(ino, Use::add_handle);
    }

    pub fn is_used(&self, ino: InodeNo) -> bool {
        self.shard(ino).lock().contains_key(&ino)
    }

    /// Notes that the last name of a used inode is gone.
    pub fn set_orphan(&self, ino: InodeNo) {
        self.change(ino, |entry| {
            if !entry.is_unused() {
                entry.handles_and_orphan |= ORPHAN;
            }
        });
    }

    /// Whether there are files without a name that nobody has open.
    pub fn any_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed) > 0
    }

    /// How many files without a name have lost their last use so far.
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Whether giving these back ends the last use of an orphan.
    fn would_end_orphan(&self, ino: InodeNo, lookups: u64, handles: u64) -> bool {
        let entry = self.shard(ino).lock().get(&ino).copied();
        entry.is_some_and(|entry| entry.is_orphan() && entry.less(lookups, handles).is_unused())
    }

    fn give_back(&self, ino: InodeNo, lookups: u64, handles: u64) {
        self.change(ino, |entry| {
            let (taken_lookups, taken_handles) = (u64::from(entry.lookups), u64::from(entry.handles() / HANDLE));
            let all = taken_lookups >= lookups && taken_handles >= handles;
            debug_assert!(all || entry.is_unused(), "more given back than taken of {ino}");
            *entry = entry.less(lookups, handles);
        });
    }

    /// The number of inodes in use.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

impl Fs {
    /// Opens a regular file; [`Fs::release`] ends it. The kernel has checked the permissions.
    pub fn open(&self, cx: &Cx, ino: InodeNo) -> Result<(), Stop> {
        let _held = self.locks.shared(ino);
        openable(ino, &self.begin(cx).inode(ino)?)?;
        self.uses.add_handle(ino);
        Ok(())
    }

    /// Opens a directory; [`Fs::release`] ends it.
    pub fn opendir(&self, cx: &Cx, ino: InodeNo) -> Result<(), Stop> {
        let _held = self.locks.shared(ino);
        self.begin(cx).dir(ino)?;
        self.uses.add_handle(ino);
        Ok(())
    }

    /// Ends one open of a file or directory; the last use of an orphan frees it.
    pub fn release(&self, cx: &Cx, ino: InodeNo) -> Result<(), Stop> {
        self.give_back(cx, ino, 0, 1)
    }

    /// The kernel gives back `lookups` look-ups of an inode; the last use of an orphan frees it.
    pub fn forget(&self, cx: &Cx, ino: InodeNo, lookups: u64) -> Result<(), Stop> {
        self.give_back(cx, ino, lookups, 0)
    }

    /// The number of inodes the kernel knows or holds open.
    pub fn inodes_in_use(&self) -> usize {
        self.uses.len()
    }

    /// When freeing fails for good, the use has ended all the same. An orphan that a full disk has kept is tried again when the
    /// next use of anything ends; one that cannot be freed at all stays for the next recovery.
    fn give_back(&self, cx: &Cx, ino: InodeNo, lookups: u64, handles: u64) -> Result<(), Stop> {
        self.free_kept(cx)?;
        let _held = self.locks.exclusive(&[ino]);
        let freed = if self.uses.would_end_orphan(ino, lookups, handles) { self.free_orphan(cx, ino) } else { Ok(()) };
        if !matches!(freed, Err(Stop::Wait(_))) {
            self.uses.give_back(ino, lookups, handles);
        }
        if freed == Err(Error::DiskFull.into()) {
            self.uses.unfreed.lock().push(ino);
        }
        freed
    }

    /// Frees one of the orphans that a full disk has kept. Only waiting is told: there is an operation to be done after it.
    fn free_kept(&self, cx: &Cx) -> Result<(), Stop> {
        // Whoever takes it from the list is the only one who frees it; nobody else can reach an inode without name and use.
        let Some(ino) = self.uses.unfreed.lock().pop() else { return Ok(()) };
        let freed = self.free_orphan(cx, ino);
        if matches!(freed, Err(Stop::Wait(_))) || freed == Err(Error::DiskFull.into()) {
            self.uses.unfreed.lock().push(ino);
        }
        match freed {
            Err(stop @ Stop::Wait(_)) => Err(stop),
            _ => Ok(()),
        }
    }

    fn free_orphan(&self, cx: &Cx, ino: InodeNo) -> Result<(), Stop> {
        let mut work = self.begin(cx);
        work.free_orphan(ino)?;
        work.commit(Room::Freeing).map(drop)
    }
}

fn openable(ino: InodeNo, inode: &Inode) -> Result<(), Error> {
    match file_type(inode.mode) {
        libc::S_IFREG => Ok(()),
        libc::S_IFDIR => Err(Error::IsDirectory(ino)),
        libc::S_IFLNK => Err(Error::SymbolicLink(ino)),
        _ => Err(Error::Invalid("the kernel opens fifos, sockets and devices itself")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_given_back_and_the_mark_of_an_orphan_stays() {
        let mut held = Use::default();
        (0..3).for_each(|_| held.add_lookup());
        (0..2).for_each(|_| held.add_handle());
        held.handles_and_orphan |= ORPHAN;
        assert!(!held.less(3, 1).is_unused() && !held.less(2, 2).is_unused());
        assert!(held.less(3, 2).is_unused() && held.less(3, 2).is_orphan());
        assert_eq!((held.less(1, 1).lookups, held.less(1, 1).handles()), (2, HANDLE));
    }

    #[test]
    fn a_count_that_cannot_grow_never_ends() {
        let mut full = Use { lookups: u32::MAX - 1, handles_and_orphan: HANDLES_MAX - HANDLE };
        (0..3).for_each(|_| full.add_lookup());
        (0..3).for_each(|_| full.add_handle());
        let left = full.less(u64::MAX, u64::MAX);
        assert_eq!((left.lookups, left.handles(), left.is_orphan()), (u32::MAX, HANDLES_MAX, false));
    }
}
