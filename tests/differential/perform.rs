//! Performs steps on one filesystem and notes what came of each. It knows nothing of the other filesystem.

use super::calls::{self, Answer, Listing, Of};
use super::step::{At, Call, SLOTS, Step, bytes_of, pattern};
use super::tree::{self, Facts, fact};

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The call's result: a number, or an error number.
    pub result: Answer,
    /// What else can be seen: bytes, attributes, times that changed.
    pub facts: Facts,
}

/// The kernel reads this value, so it must be one.
const CAPABILITY: &str = "security.capability";

/// A file held open.
struct Open {
    fd: i32,
    ino: u64,
}

/// One sequence on one filesystem.
#[derive(Default)]
pub struct Performer {
    slots: [Option<Open>; SLOTS],
}

/// How closely a sequence is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// After each step, which times of which files changed.
    pub times: bool,
}

type Seen = Answer<(i64, Facts)>;

fn plain(answer: Answer) -> Seen {
    answer.map(|number| (number, Facts::new()))
}

fn data(answer: Answer<Vec<u8>>) -> Seen {
    let said = |bytes: Vec<u8>| (bytes.len() as i64, vec![fact("data", tree::short(&bytes))]);
    answer.map(said)
}

impl Performer {
    /// Performs all steps in the thread's working directory, which is empty and also its root. Steps that are known to be
    /// refused on a mount are `skip`ped on the filesystem beside it.
    pub fn perform(&mut self, steps: &[Step], look: Look, skip: &dyn Fn(&Step) -> bool) -> Vec<Outcome> {
        let mut before = look.times.then(|| tree::times(&self.open_files()));
        let mut outcomes = Vec::new();
        for step in steps {
            if skip(step) {
                outcomes.push(Outcome { result: Ok(0), facts: vec![fact("skipped", "")] });
                continue;
            }
            if let Some(times) = &before {
                tree::wait_for_clock(times);
            }
            let mut outcome = self.step(step);
            if let Some(times) = &mut before {
                let after = tree::times(&self.open_files());
                outcome.facts.extend(tree::changed(times, &after));
                *times = after;
            }
            outcomes.push(outcome);
        }
        outcomes
    }

    /// Open slots: number and descriptor.
    pub fn open_files(&self) -> Vec<(usize, i32)> {
        self.slots.iter().enumerate().filter_map(|(slot, open)| Some((slot, open.as_ref()?.fd))).collect()
    }

    /// Every open file still has the inode number it was opened with.
    pub fn inodes_are_stable(&self) -> bool {
        let same = |open: &Open| calls::stat(&Of::Fd(open.fd)).is_ok_and(|stat| stat.st_ino == open.ino);
        self.slots.iter().flatten().all(same)
    }

    fn step(&mut self, step: &Step) -> Outcome {
        let seen = calls::acting_as(step.who, || self.call(&step.call));
        match seen {
            Ok((number, facts)) => Outcome { result: Ok(number), facts },
            Err(number) => Outcome { result: Err(number), facts: Facts::new() },
        }
    }

    fn fd(&self, slot: usize) -> Answer<i32> {
        self.slots[slot].as_ref().map(|open| open.fd).ok_or(libc::EBADF)
    }

    /// Makes a call of the three sorts that name a file.
    fn of<T>(&self, at: &At, work: impl FnOnce(&Of) -> Answer<T>) -> Answer<T> {
        match at {
            At::Path(path) => work(&Of::Path(&bytes_of(path))),
            At::Link(path) => work(&Of::Link(&bytes_of(path))),
            At::Slot(slot) => work(&Of::Fd(self.fd(*slot)?)),
        }
    }

    fn call(&mut self, call: &Call) -> Seen {
        match call {
            Call::Open { .. } | Call::Close { .. } => self.opening(call),
            Call::Read { .. } | Call::Pread { .. } | Call::Write { .. } | Call::Pwrite { .. } | Call::Seek { .. } => {
                self.contents(call)
            }
            Call::Truncate { .. } | Call::Fallocate { .. } | Call::CopyRange { .. } | Call::Sync { .. } => {
                self.extents(call)
            }
            Call::MapWrite { slot, at, len, seed } => self.map(*slot, *at, &pattern(*len, *seed), true),
            Call::MapPrivate { slot, at, len } => self.map(*slot, *at, &pattern(*len, 77), false),
            Call::Flock { slot, how } => plain(calls::flock(self.fd(*slot)?, *how)),
            Call::Lock { slot, kind, at, len } => plain(calls::lock(self.fd(*slot)?, *kind, *at, *len)),
            Call::Chmod { .. }
            | Call::Chown { .. }
            | Call::Utimens { .. }
            | Call::Stat { .. }
            | Call::Statfs { .. } => self.attributes(call),
            Call::SetXattr { .. }
            | Call::SetAcl { .. }
            | Call::GetXattr { .. }
            | Call::ListXattr { .. }
            | Call::RemoveXattr { .. } => self.xattrs(call),
            _ => self.names(call),
        }
    }

    fn opening(&mut self, call: &Call) -> Seen {
        match call {
            Call::Open { slot, path, flags, mode } => {
                let fd = calls::open(&bytes_of(path), *flags, *mode)?;
                let ino = calls::stat(&Of::Fd(fd))?.st_ino;
                if let Some(old) = self.slots[*slot].replace(Open { fd, ino }) {
                    calls::close(old.fd)?;
                }
                Ok((0, Facts::new()))
            }
            Call::Close { slot } => {
                let open = self.slots[*slot].take().ok_or(libc::EBADF)?;
                plain(calls::close(open.fd))
            }
            other => unreachable!("{other:?} opens nothing"),
        }
    }

    fn contents(&self, call: &Call) -> Seen {
        match call {
            Call::Read { slot, len } => data(calls::read(self.fd(*slot)?, *len, None)),
            Call::Pread { slot, at, len } => data(calls::read(self.fd(*slot)?, *len, Some(*at))),
            Call::Write { slot, len, seed } => plain(calls::write(self.fd(*slot)?, &pattern(*len, *seed), None)),
            Call::Pwrite { slot, at, len, seed } => {
                plain(calls::write(self.fd(*slot)?, &pattern(*len, *seed), Some(*at)))
            }
            Call::Seek { slot, at, whence } => self.seek(self.fd(*slot)?, *at, *whence),
            other => unreachable!("{other:?} moves no bytes"),
        }
    }

    /// Places in a directory mean something only to the filesystem that told them. Where data is found may differ, and is not
    /// to make later steps differ.
    fn seek(&self, fd: i32, at: i64, whence: i32) -> Seen {
        if calls::stat(&Of::Fd(fd))?.st_mode & libc::S_IFMT == libc::S_IFDIR {
            return Ok((0, Facts::new()));
        }
        let before = calls::seek(fd, 0, libc::SEEK_CUR);
        let found = calls::seek(fd, at, whence);
        if found.is_ok() && matches!(whence, libc::SEEK_DATA | libc::SEEK_HOLE) {
            assert_eq!(calls::seek(fd, 0, libc::SEEK_CUR), found, "the file's position is what was found");
            calls::seek(fd, before?, libc::SEEK_SET)?;
        }
        plain(found)
    }

    fn extents(&self, call: &Call) -> Seen {
        match call {
            Call::Truncate { at: At::Slot(slot), len } => plain(calls::ftruncate(self.fd(*slot)?, *len)),
            Call::Truncate { at: At::Path(path) | At::Link(path), len } => {
                plain(calls::truncate(&bytes_of(path), *len))
            }
            Call::Fallocate { slot, mode, at, len } => plain(calls::fallocate(self.fd(*slot)?, *mode, *at, *len)),
            Call::CopyRange { from, to, from_at, to_at, len } => {
                plain(calls::copy_file_range((self.fd(*from)?, *from_at), (self.fd(*to)?, *to_at), *len))
            }
            Call::Sync { slot, data } => plain(calls::sync(self.fd(*slot)?, *data)),
            other => unreachable!("{other:?} changes no extents"),
        }
    }

    /// Stores inside the file only: past its end a store would raise a signal.
    fn map(&self, slot: usize, at: u64, bytes: &[u8], shared: bool) -> Seen {
        let fd = self.fd(slot)?;
        let stat = calls::stat(&Of::Fd(fd))?;
        let inside = u64::try_from(stat.st_size).expect("sizes are positive").saturating_sub(at);
        let len = bytes.len().min(usize::try_from(inside).unwrap_or(usize::MAX));
        if len == 0 || stat.st_mode & libc::S_IFMT != libc::S_IFREG {
            return Ok((0, Facts::new()));
        }
        data(calls::map(fd, at, &bytes[..len], shared))
    }

    fn attributes(&self, call: &Call) -> Seen {
        match call {
            Call::Chmod { at, mode } => match at {
                At::Slot(slot) => plain(calls::fchmod(self.fd(*slot)?, *mode)),
                At::Path(path) | At::Link(path) => plain(calls::chmod(&bytes_of(path), *mode)),
            },
            Call::Chown { at, uid, gid } => match at {
                At::Slot(slot) => plain(calls::fchown(self.fd(*slot)?, *uid, *gid)),
                At::Path(path) => plain(calls::chown(&bytes_of(path), *uid, *gid, true)),
                At::Link(path) => plain(calls::chown(&bytes_of(path), *uid, *gid, false)),
            },
            Call::Utimens { at, atime, mtime } => match at {
                At::Slot(slot) => plain(calls::futimens(self.fd(*slot)?, *atime, *mtime)),
                At::Path(path) => plain(calls::utimens(&bytes_of(path), *atime, *mtime, true)),
                At::Link(path) => plain(calls::utimens(&bytes_of(path), *atime, *mtime, false)),
            },
            Call::Stat { at } => Ok((0, tree::stat_facts(&self.of(at, calls::stat)?))),
            Call::Statfs { at } => Ok((0, tree::statfs_facts(&self.of(at, calls::statfs)?))),
            other => unreachable!("{other:?} has no attributes"),
        }
    }

    fn xattrs(&self, call: &Call) -> Seen {
        match call {
            Call::SetXattr { at, name, len, seed, flags } => {
                let value = if name == CAPABILITY { tree::capability(*seed) } else { pattern(*len, *seed) };
                let name = bytes_of(name);
                plain(self.of(at, |of| calls::set_xattr(of, &name, &value, *flags)))
            }
            Call::SetAcl { at, default, entries } => {
                let name: &[u8] = if *default { tree::DEFAULT_ACL } else { tree::ACCESS_ACL };
                plain(self.of(at, |of| calls::set_xattr(of, name, &tree::acl(entries), 0)))
            }
            Call::GetXattr { at, name, len } => {
                let name = bytes_of(name);
                let (found, value) = self.of(at, |of| calls::get_xattr(of, &name, *len))?;
                Ok((found, vec![fact("value", tree::short(&value))]))
            }
            Call::ListXattr { at, len } => {
                let (found, names) = self.of(at, |of| calls::list_xattr(of, *len))?;
                Ok((found, vec![fact("names", tree::sorted_names(&names))]))
            }
            Call::RemoveXattr { at, name } => {
                let name = bytes_of(name);
                plain(self.of(at, |of| calls::remove_xattr(of, &name)))
            }
            other => unreachable!("{other:?} is about no xattr"),
        }
    }

    fn names(&self, call: &Call) -> Seen {
        match call {
            Call::Mkdir { path, mode } => plain(calls::mkdir(&bytes_of(path), *mode)),
            Call::Rmdir { path } => plain(calls::unlink(&bytes_of(path), true)),
            Call::Unlink { path } => plain(calls::unlink(&bytes_of(path), false)),
            Call::Rename { from, to, flags } => plain(calls::rename(&bytes_of(from), &bytes_of(to), *flags)),
            Call::Link { from, to } => match from {
                At::Slot(slot) => plain(calls::link_open(self.fd(*slot)?, &bytes_of(to))),
                At::Path(path) => plain(calls::link(&bytes_of(path), &bytes_of(to), true)),
                At::Link(path) => plain(calls::link(&bytes_of(path), &bytes_of(to), false)),
            },
            Call::Symlink { target, path } => plain(calls::symlink(&bytes_of(target), &bytes_of(path))),
            Call::Readlink { path } => data(calls::readlink(&bytes_of(path))),
            Call::Mknod { path, mode, device } => plain(calls::mknod(&bytes_of(path), *mode, *device)),
            Call::Access { path, mode, flags } => plain(calls::access(&bytes_of(path), *mode, *flags)),
            Call::List { path } => {
                let mut listing = open_listing(path)?;
                let mut entries: Vec<_> = std::iter::from_fn(|| listing.next()).collect();
                entries.sort();
                Ok((entries.len() as i64, vec![fact("entries", tree::entries_text(&entries))]))
            }
            Call::ListWhile { path, entries, make, remove } => list_while(path, *entries, make, remove),
            Call::Umask { mask } => plain(calls::umask(*mask)),
            other => unreachable!("{other:?} is dealt with elsewhere"),
        }
    }
}

impl Drop for Performer {
    fn drop(&mut self) {
        for (_, fd) in self.open_files() {
            calls::close(fd).ok();
        }
        calls::umask(0o022).ok();
    }
}

fn open_listing(path: &str) -> Answer<Listing> {
    Listing::of(calls::open(&bytes_of(path), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NONBLOCK, 0)?)
}

/// Names that stay are listed exactly once, whatever happens to others between the reads; from a told place the same ones
/// follow again.
fn list_while(path: &str, before: usize, make: &str, remove: &str) -> Seen {
    let mut listing = open_listing(path)?;
    let mut seen: Vec<_> = (0..before).map_while(|_| listing.next()).collect();
    let place = listing.tell();
    let inside = |name: &str| bytes_of(&format!("{path}/{name}"));
    let made = calls::mknod(&inside(make), libc::S_IFREG | 0o644, (0, 0));
    let removed = calls::unlink(&inside(remove), false);
    let rest: Vec<_> = std::iter::from_fn(|| listing.next()).collect();
    listing.seek(place);
    let again: Vec<_> = std::iter::from_fn(|| listing.next()).collect();
    let touched = |name: &[u8]| name == bytes_of(make) || name == bytes_of(remove);
    let stayed = |list: &[(Vec<u8>, u8)]| {
        let mut list: Vec<_> = list.iter().filter(|(name, _)| !touched(name)).cloned().collect();
        list.sort();
        list
    };
    let same_again = stayed(&rest) == stayed(&again);
    seen.extend(rest);
    let twice = |name: &str| seen.iter().filter(|(found, _)| *found == bytes_of(name)).count() > 1;
    Ok((
        0,
        vec![
            fact("stayed", tree::entries_text(&stayed(&seen))),
            fact("same again", same_again),
            fact("touched twice", twice(make) || twice(remove)),
            fact("made", format!("{made:?}")),
            fact("removed", format!("{removed:?}")),
        ],
    ))
}
