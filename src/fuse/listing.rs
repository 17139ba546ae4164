//! Directory listings with attributes. Every entry the kernel takes counts as a look-up that it gives back one day; what did
//! not fit into its buffer is given back at once.

use super::convert::ino;
use super::requests::Frontend;
use super::{GENERATION, LIFETIME};
use crate::base::clock::Time;
use crate::fs::{Attr, Cx, DirEntry};
use crate::volume::Volume;
use fuser::{FileAttr, INodeNo, ReplyDirectoryPlus, Request};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Entries fetched for one request, at first and at most.
const ENTRIES_FIRST: usize = 32;
const ENTRIES_MAX: usize = 1024;
/// Cookies up to this one are `.` and `..`, which count as no look-up.
const DOTS: u64 = 2;

/// How many entries to fetch: nobody tells how large the kernel's buffer is, but the last answer shows it.
pub struct Fetch(AtomicUsize);

impl Fetch {
    pub fn new() -> Fetch {
        Fetch(AtomicUsize::new(ENTRIES_FIRST))
    }

    pub(super) fn entries(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Of `fetched` entries `taken` fitted.
    pub(super) fn learn(&self, fetched: usize, taken: usize) {
        let last = self.entries();
        if taken < fetched {
            self.0.store(taken + 1, Ordering::Relaxed);
        } else if fetched >= last {
            self.0.store((last * 2).min(ENTRIES_MAX), Ordering::Relaxed);
        }
    }
}

impl Frontend {
    /// Answers `readdirplus`.
    pub fn list(&self, request: &Request, inode: INodeNo, after: u64, reply: ReplyDirectoryPlus) {
        let (max, fetch, volume) = (self.fetch.entries(), self.fetch.clone(), self.volume.clone());
        let shown = self.shown;
        let Cx { uid, gid, now, .. } = self.cx(request);
        self.read(
            request,
            ino(inode),
            reply,
            move |fs, cx| fs.readdir_plus(cx, ino(inode), after, max),
            move |mut reply, entries| {
                let taken =
                    entries.iter().take_while(|(entry, attr)| !add(&mut reply, entry, &shown.attr(attr))).count();
                fetch.learn(entries.len(), taken);
                reply.ok();
                give_back(&volume, (uid, gid, now), &entries[taken..]);
            },
        );
    }
}

/// Entries that the kernel did not get are no look-ups.
pub(super) fn give_back(volume: &Volume, (uid, gid, now): (u32, u32, Time), left: &[(DirEntry, Attr)]) {
    for (entry, _) in left.iter().filter(|(entry, _)| entry.cookie > DOTS) {
        let inode = entry.ino;
        volume.follow(Cx { uid, gid, now, ..Cx::default() }, move |fs, cx| fs.forget(cx, inode, 1));
    }
}

/// Adds an entry to the answer; true if there was no room for it.
fn add(reply: &mut ReplyDirectoryPlus, entry: &DirEntry, attr: &FileAttr) -> bool {
    reply.add(attr.ino, entry.cookie, OsStr::from_bytes(&entry.name), &LIFETIME, attr, GENERATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fetch_grows_while_all_fits_and_shrinks_to_what_fitted() {
        let fetch = Fetch::new();
        fetch.learn(32, 32);
        assert_eq!(fetch.entries(), 64);
        fetch.learn(64, 25);
        assert_eq!(fetch.entries(), 26);
        fetch.learn(10, 10);
        assert_eq!(fetch.entries(), 26, "a short directory says nothing");
    }
}
