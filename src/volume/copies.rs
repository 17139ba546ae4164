//! Bringing what files hold into the cache, and dropping it there. Metadata comes by the walk itself.
//!
//! One thread asks for one object after the other: read in order, the reader fetches ahead, many objects by one request and several
//! requests at a time. Threads that take turns would look to it like reading at random.

use super::Volume;
use crate::format::ids::{InodeNo, ObjectId};
use crate::fs::{Contents, Cx, DirEntry, Error, Fs, Stop};
use crate::locate::{Evicted, LocateError, Nearest, Warmed};
use crate::map::Seen;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, mpsc};

/// Objects of a file looked up at a time.
const BATCH: usize = 64;
/// Names of a directory read at a time.
const PAGE: usize = 512;

/// What was found, brought or dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copies {
    /// Files of any kind but directories; one with two names counts twice.
    pub files: u64,
    /// Bytes that these hold, holes and what lies beside the attributes not counted.
    pub bytes: u64,
    /// Those that have a copy on local disk,
    pub here_bytes: u64,
    /// and those that are in the journal.
    pub journal_bytes: u64,
    /// Those for which the cache had no room.
    pub no_room_bytes: u64,
    /// What was dropped took so much of the cache.
    pub freed_bytes: u64,
}

impl Copies {
    fn add(&mut self, other: Copies) {
        let Copies { files, bytes, here_bytes, journal_bytes, no_room_bytes, freed_bytes } = other;
        self.files += files;
        self.bytes += bytes;
        self.here_bytes += here_bytes;
        self.journal_bytes += journal_bytes;
        self.no_room_bytes += no_room_bytes;
        self.freed_bytes += freed_bytes;
    }
}

/// How far it is; an error ends it.
pub type Step<'a> = dyn FnMut(&Copies) -> Result<(), String> + 'a;

/// What happens to one object of so many bytes.
type Deed<'a> = dyn Fn(&ObjectId, u64) -> Result<Copies, LocateError> + 'a;

impl Volume {
    /// How many bytes the cache may take, if there is one.
    pub fn cache_limit(&self) -> Option<u64> {
        self.cache.as_ref().map(|cache| cache.stats().limit_bytes)
    }

    /// Where what these inodes hold is, and what lies below them; nothing is brought but what says so.
    pub fn survey(&self, inodes: &[InodeNo], step: &mut Step<'_>) -> Result<Copies, String> {
        let locate = self.shared.db.locate();
        let deed = |object: &ObjectId, bytes| {
            Ok(match locate.nearest(object)? {
                Nearest::Here => Copies { here_bytes: bytes, ..Copies::default() },
                Nearest::InJournal => Copies { journal_bytes: bytes, ..Copies::default() },
                Nearest::InStore => Copies::default(),
            })
        };
        self.visit(inodes, &deed, &mut |_| (), step)
    }

    /// Brings what these inodes hold into the cache, and what lies below them.
    pub fn warm(&self, inodes: &[InodeNo], step: &mut Step<'_>) -> Result<Copies, String> {
        let locate = self.shared.db.locate();
        let deed = |object: &ObjectId, bytes| {
            Ok(match locate.warm(object)? {
                Warmed::Cached => Copies { here_bytes: bytes, ..Copies::default() },
                Warmed::InJournal => Copies { journal_bytes: bytes, ..Copies::default() },
                Warmed::NoRoom => Copies { no_room_bytes: bytes, ..Copies::default() },
                Warmed::NoCache => Copies::default(),
            })
        };
        self.visit(inodes, &deed, &mut |_| (), step)
    }

    /// Drops the copies of what these inodes hold, and what lies below them; `drop_pages` is called for each file before that.
    pub fn evict(
        &self,
        inodes: &[InodeNo],
        drop_pages: &mut dyn FnMut(InodeNo),
        step: &mut Step<'_>,
    ) -> Result<Copies, String> {
        let locate = self.shared.db.locate();
        let deed = |object: &ObjectId, bytes| {
            Ok(match locate.evict(object)? {
                Evicted::Dropped(freed) => Copies { freed_bytes: freed, ..Copies::default() },
                Evicted::InJournal => Copies { journal_bytes: bytes, ..Copies::default() },
                Evicted::NoCache => Copies::default(),
            })
        };
        self.visit(inodes, &deed, drop_pages, step)
    }

    /// Does the deed to every object of every file, in their order; `begin` is called for each file first.
    fn visit(
        &self,
        inodes: &[InodeNo],
        deed: &Deed<'_>,
        begin: &mut dyn FnMut(InodeNo),
        step: &mut Step<'_>,
    ) -> Result<Copies, String> {
        let mut visit = Visit { volume: self, deed, begin, step, all: Copies::default() };
        visit.walk(inodes)?;
        Ok(visit.all)
    }

    /// Runs an operation that reads, of a follower this state or the newest, and waits for it.
    fn ask<T: Send + 'static>(
        &self,
        seen: Option<Arc<Seen>>,
        op: impl FnMut(&Fs, &mut Cx) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, Error> {
        let (tell, told) = mpsc::sync_channel(1);
        let cx = Cx { now: self.shared.clock.now(), seen, ..Cx::default() };
        self.start(cx, op, move |result| drop(tell.send(result)));
        told.recv().unwrap_or(Err(Error::Io))
    }
}

fn sentence(error: &LocateError) -> String {
    match error.is_away() {
        true => format!("the store does not answer, run it again when it does: {error}"),
        false => error.to_string(),
    }
}

/// A walk through the files.
struct Visit<'a, 'b> {
    volume: &'a Volume,
    deed: &'a Deed<'a>,
    begin: &'a mut dyn FnMut(InodeNo),
    step: &'a mut Step<'b>,
    all: Copies,
}

impl Visit<'_, '_> {
    /// Memory is bounded by the depth of the tree.
    fn walk(&mut self, inodes: &[InodeNo]) -> Result<(), String> {
        for inode in inodes {
            let ino = *inode;
            let Some(attr) = there(self.volume.ask(None, move |fs, cx| fs.getattr(cx, ino)))? else { continue };
            if attr.mode & libc::S_IFMT != libc::S_IFDIR {
                self.file(ino)?;
                continue;
            }
            let mut open = vec![(ino, 0)];
            while let Some((dir, after)) = open.pop() {
                let members = self.volume.ask(None, move |fs, cx| fs.members(cx, dir, after, PAGE));
                let members: Vec<DirEntry> = there(members)?.unwrap_or_default();
                let Some(last) = members.last() else { continue };
                open.push((dir, last.cookie));
                let (below, files): (Vec<_>, Vec<_>) = members.iter().partition(|entry| entry.kind == libc::DT_DIR);
                files.into_iter().try_for_each(|entry| self.file(entry.ino))?;
                // The first of them is next.
                open.extend(below.into_iter().rev().map(|entry| (entry.ino, 0)));
            }
        }
        (self.step)(&self.all)
    }

    fn file(&mut self, ino: InodeNo) -> Result<(), String> {
        self.all.files += 1;
        (self.begin)(ino);
        // Held, so that nothing of it is deleted meanwhile.
        let seen = self.volume.seen();
        let mut from = Some(0);
        while let Some(at) = from {
            let contents = self.volume.ask(seen.clone(), move |fs, cx| fs.contents(cx, ino, at, BATCH));
            let Contents { objects, next } = there(contents)?.unwrap_or_default();
            for (object, bytes) in objects {
                let bytes = u64::from(bytes);
                self.all.bytes += bytes;
                let came_whole = seen.as_ref().is_some_and(|seen| seen.objects.get(&object).is_some());
                self.all.add(match came_whole {
                    true => Copies { here_bytes: bytes, ..Copies::default() },
                    false => (self.deed)(&object, bytes).map_err(|e| sentence(&e))?,
                });
            }
            (self.step)(&self.all)?;
            from = next;
        }
        Ok(())
    }
}

/// What was removed meanwhile is not there, which is no error.
fn there<T>(answer: Result<T, Error>) -> Result<Option<T>, String> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(Error::NoSuchInode(_)) => Ok(None),
        Err(Error::Io) => Err("what lies there could not be read; `skylog status` says why".to_owned()),
        Err(e) => Err(e.to_string()),
    }
}
