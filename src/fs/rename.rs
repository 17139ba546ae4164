//! Rename: one batch, whatever it moves or replaces.
//!
//! A name keeps its place in the listing when it is replaced or stays in its directory, so that a listing in progress meets the
//! new name once, and a loop over a directory that renames what it finds comes to an end. Exchanged names keep their places too.

use super::attr::{entry_kind, is_dir, is_dir_kind};
use super::create::New;
use super::entries::{check_name, is_dot};
use super::error::{Error, Stop, damaged};
use super::locks::{Exclusive, Moves};
use super::work::Work;
use super::{Cx, Fs};
use crate::format::ids::{InodeNo, Lsn};
use crate::format::inode::{Inode, NameValue};
use crate::map::db::Room;

const KNOWN_FLAGS: u32 = libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE | libc::RENAME_WHITEOUT;
/// Directories below each other; more are taken for a circle.
const DEPTH_MAX: usize = 1 << 20;

/// A name in a directory.
#[derive(Clone, Copy)]
struct Place<'n> {
    dir: InodeNo,
    name: &'n [u8],
}

/// What is renamed and what it replaces, all locked.
struct Found<'a> {
    work: Work<'a>,
    source: NameValue,
    target: Option<NameValue>,
    _held: Exclusive<'a>,
    _moves: Option<Moves<'a>>,
}

/// The two directories, which may be one, as they will be.
struct Dirs {
    from: Inode,
    /// `None` when it is the same.
    to: Option<Inode>,
}

impl Dirs {
    fn target(&mut self) -> &mut Inode {
        self.to.as_mut().unwrap_or(&mut self.from)
    }

    /// Counts a subdirectory in the second, `to`, and no longer in the first.
    fn move_subdirectory(&mut self, to: InodeNo) -> Result<(), Error> {
        self.from.nlink = self.from.nlink.saturating_sub(1);
        let above = self.target();
        above.nlink = above.nlink.checked_add(1).ok_or(Error::TooManyLinks(to))?;
        Ok(())
    }

    fn swap(&mut self) {
        if let Some(to) = &mut self.to {
            std::mem::swap(&mut self.from, to);
        }
    }
}

impl Fs {
    /// Moves a name, or exchanges two. `flags` as of `renameat2`.
    pub fn rename(
        &self,
        cx: &Cx,
        parent: InodeNo,
        name: &[u8],
        new_parent: InodeNo,
        new_name: &[u8],
        flags: u32,
    ) -> Result<((), Lsn), Stop> {
        let asked = |flag| flags & flag != 0;
        let exchange = asked(libc::RENAME_EXCHANGE);
        if asked(!KNOWN_FLAGS) || exchange && asked(libc::RENAME_NOREPLACE | libc::RENAME_WHITEOUT) {
            return Err(Error::Invalid("flags of rename that are unknown, or not possible together").into());
        }
        check_name(name)?;
        check_name(new_name)?;
        if is_dot(name) || is_dot(new_name) {
            return Err(Error::DotName.into());
        }
        let (from, to) = (Place { dir: parent, name }, Place { dir: new_parent, name: new_name });
        let found = self.lock_rename(cx, from, to)?;
        if found.target.is_some() && asked(libc::RENAME_NOREPLACE) {
            return Err(Error::NameExists.into());
        }
        match found.target {
            _ if !exchange => self.rename_locked(found, from, to, asked(libc::RENAME_WHITEOUT)),
            Some(target) => found.exchange(from, to, target),
            None => Err(Error::NoSuchName.into()),
        }
    }

    /// Looks both names up and locks both directories and what the names stand for.
    fn lock_rename<'a>(&'a self, cx: &'a Cx, from: Place<'_>, to: Place<'_>) -> Result<Found<'a>, Stop> {
        loop {
            let source = self.peek(cx, from.dir, from.name)?.ok_or(Error::NoSuchName)?;
            let target = self.peek(cx, to.dir, to.name)?;
            // What stands at the new name moves only in an exchange, but then it may be a directory too.
            let some_dir = is_dir_kind(source.kind) || target.is_some_and(|target| is_dir_kind(target.kind));
            let moves = (from.dir != to.dir && some_dir).then(|| self.locks.moves());
            let mut inos = vec![from.dir, to.dir, source.ino];
            inos.extend(target.map(|entry| entry.ino));
            let held = self.locks.exclusive(&inos);
            let mut work = self.begin(cx);
            let again = (work.entry(from.dir, from.name)?, work.entry(to.dir, to.name)?);
            // Another cookie is fine, another inode needs another lock.
            match again {
                (Some(now), there) if now.ino == source.ino && there.map(|t| t.ino) == target.map(|t| t.ino) => {
                    return Ok(Found { work, source: now, target: there, _held: held, _moves: moves });
                }
                _ => {}
            }
        }
    }

    fn rename_locked(
        &self,
        found: Found<'_>,
        from: Place<'_>,
        to: Place<'_>,
        whiteout: bool,
    ) -> Result<((), Lsn), Stop> {
        let Found { mut work, source, target, _held, _moves } = found;
        let mut inode = work.inode(source.ino)?;
        let moved_dir = is_dir(inode.mode);
        let mut dirs = work.dirs(from.dir, to.dir)?;
        if moved_dir && from.dir != to.dir && work.is_below(to.dir, source.ino)? {
            return Err(Error::Invalid("a directory cannot move below itself").into());
        }
        if target.is_some_and(|target| target.ino == source.ino) {
            return Ok(((), work.commit(Room::Ordinary)?));
        }
        let replaced = match &target {
            Some(target) => Some(self.replace(&mut work, &mut dirs, moved_dir, target.ino)?),
            None => None,
        };
        let kept = if whiteout { Some(work.whiteout(&dirs.from, from, &source)?) } else { None };
        work.move_entry(&mut dirs, from, to, &source, target.as_ref(), kept)?;
        if moved_dir && from.dir != to.dir {
            dirs.move_subdirectory(to.dir)?;
            inode.parent = to.dir;
        }
        inode.ctime = work.now;
        work.set_inode(source.ino, &inode);
        work.set_dirs(dirs, from.dir, to.dir);
        let lsn = work.commit(if replaced.is_some() { Room::Freeing } else { Room::Ordinary })?;
        if let (Some(true), Some(target)) = (replaced, target) {
            self.uses.set_orphan(target.ino);
        }
        Ok(((), lsn))
    }

    /// Takes the name from what stands where the new name will be; says whether that is an orphan from now on.
    fn replace(&self, work: &mut Work<'_>, dirs: &mut Dirs, moved_dir: bool, ino: InodeNo) -> Result<bool, Stop> {
        let mut inode = work.inode(ino)?;
        match (moved_dir, is_dir(inode.mode)) {
            (true, false) => return Err(Error::NotDirectory(ino).into()),
            (false, true) => return Err(Error::IsDirectory(ino).into()),
            (true, true) if !work.is_empty_dir(ino)? => return Err(Error::NotEmpty(ino).into()),
            (true, true) => dirs.target().nlink = dirs.target().nlink.saturating_sub(1),
            (false, false) => {}
        }
        Ok(self.drop_link(work, ino, &mut inode))
    }
}

impl Found<'_> {
    /// Lets two names change places.
    fn exchange(self, from: Place<'_>, to: Place<'_>, target: NameValue) -> Result<((), Lsn), Stop> {
        let Found { mut work, source, _held, _moves, .. } = self;
        if source.ino == target.ino {
            return Ok(((), work.commit(Room::Ordinary)?));
        }
        let mut dirs = work.dirs(from.dir, to.dir)?;
        work.exchange_one(&mut dirs, &source, from.dir, to.dir)?;
        dirs.swap();
        work.exchange_one(&mut dirs, &target, to.dir, from.dir)?;
        dirs.swap();
        work.put_entry(to.dir, to.name, NameValue { cookie: target.cookie, ..source });
        work.put_entry(from.dir, from.name, NameValue { cookie: source.cookie, ..target });
        work.set_dirs(dirs, from.dir, to.dir);
        Ok(((), work.commit(Room::Ordinary)?))
    }
}

impl Work<'_> {
    /// What moves from one directory to another while something else comes back.
    fn exchange_one(&mut self, dirs: &mut Dirs, what: &NameValue, from: InodeNo, to: InodeNo) -> Result<(), Stop> {
        let mut inode = self.inode(what.ino)?;
        if from != to && is_dir(inode.mode) {
            if self.is_below(to, what.ino)? {
                return Err(Error::Invalid("a directory cannot move below itself").into());
            }
            dirs.move_subdirectory(to)?;
            inode.parent = to;
        }
        inode.ctime = self.now;
        self.set_inode(what.ino, &inode);
        Ok(())
    }

    /// Puts a whiteout in the place of what is renamed.
    fn whiteout(&mut self, dir: &Inode, from: Place<'_>, source: &NameValue) -> Result<NameValue, Stop> {
        let (ino, inode) = self.new_inode(&New::whiteout(), from.dir, dir)?;
        Ok(NameValue { ino, kind: entry_kind(inode.mode), cookie: source.cookie })
    }

    fn dirs(&mut self, from: InodeNo, to: InodeNo) -> Result<Dirs, Stop> {
        let dirs = Dirs { from: self.dir(from)?, to: if from == to { None } else { Some(self.living_dir(to)?) } };
        Ok(dirs)
    }

    fn set_dirs(&mut self, mut dirs: Dirs, from: InodeNo, to: InodeNo) {
        self.touch_dir(&mut dirs.from);
        self.set_inode(from, &dirs.from);
        if let Some(dir) = &mut dirs.to {
            self.touch_dir(dir);
            self.set_inode(to, dir);
        }
    }

    fn move_entry(
        &mut self,
        dirs: &mut Dirs,
        from: Place<'_>,
        to: Place<'_>,
        source: &NameValue,
        target: Option<&NameValue>,
        kept: Option<NameValue>,
    ) -> Result<(), Stop> {
        match kept {
            Some(kept) => self.put_entry(from.dir, from.name, kept),
            None => self.remove_entry(from.dir, from.name, source.cookie),
        }
        let (ino, kind) = (source.ino, source.kind);
        let cookie = match target {
            Some(target) => Some(target.cookie),
            None => (from.dir == to.dir && kept.is_none()).then_some(source.cookie),
        };
        match cookie {
            Some(cookie) => self.put_entry(to.dir, to.name, NameValue { ino, kind, cookie }),
            None => self.add_entry((to.dir, dirs.target()), to.name, ino, kind)?,
        }
        Ok(())
    }

    /// Whether `ino` is `dir` or lies somewhere under it. Parents do not change meanwhile: the lock of moves is held.
    fn is_below(&mut self, mut ino: InodeNo, dir: InodeNo) -> Result<bool, Stop> {
        for _ in 0..DEPTH_MAX {
            if ino == dir {
                return Ok(true);
            }
            if ino == InodeNo::ROOT {
                return Ok(false);
            }
            ino = self.dir(ino)?.parent;
        }
        Err(damaged(format_args!("directory {dir} has no way up to the root")))
    }
}
