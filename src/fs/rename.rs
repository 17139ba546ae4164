//! Rename: one batch, whatever it moves or replaces.
//!
//! A name keeps its place in the listing when it is replaced or stays in its directory, so that a listing in progress meets the
//! new name once, and a loop over a directory that renames what it finds comes to an end.

use super::attr::is_dir;
use super::entries::{check_name, is_dot};
use super::error::{Error, Stop, damaged};
use super::locks::{Exclusive, Moves};
use super::work::Work;
use super::{Cx, Fs};
use crate::format::ids::{InodeNo, Lsn};
use crate::format::inode::{Inode, NameValue};
use crate::map::db::Room;

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
}

impl Fs {
    /// Moves a name. `flags` as of `renameat2`; of these only `RENAME_NOREPLACE`.
    pub fn rename(
        &self,
        cx: &Cx,
        parent: InodeNo,
        name: &[u8],
        new_parent: InodeNo,
        new_name: &[u8],
        flags: u32,
    ) -> Result<((), Lsn), Stop> {
        if flags & !libc::RENAME_NOREPLACE != 0 {
            return Err(Error::Invalid("an unknown flag of rename").into());
        }
        check_name(name)?;
        check_name(new_name)?;
        if is_dot(name) || is_dot(new_name) {
            return Err(Error::DotName.into());
        }
        let (from, to) = (Place { dir: parent, name }, Place { dir: new_parent, name: new_name });
        let found = self.lock_rename(cx, from, to)?;
        if found.target.is_some() && flags & libc::RENAME_NOREPLACE != 0 {
            return Err(Error::NameExists.into());
        }
        self.rename_locked(found, from, to)
    }

    /// Looks both names up and locks both directories and what the names stand for.
    fn lock_rename<'a>(&'a self, cx: &'a Cx, from: Place<'_>, to: Place<'_>) -> Result<Found<'a>, Stop> {
        loop {
            let source = self.peek(cx, from.dir, from.name)?.ok_or(Error::NoSuchName)?;
            let target = self.peek(cx, to.dir, to.name)?;
            let moves_dir = from.dir != to.dir && super::attr::is_dir_kind(source.kind);
            let moves = moves_dir.then(|| self.locks.moves());
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

    fn rename_locked(&self, found: Found<'_>, from: Place<'_>, to: Place<'_>) -> Result<((), Lsn), Stop> {
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
        work.move_entry(&mut dirs, from, to, &source, target.as_ref())?;
        if moved_dir && from.dir != to.dir {
            dirs.from.nlink = dirs.from.nlink.saturating_sub(1);
            let above = dirs.target();
            above.nlink = above.nlink.checked_add(1).ok_or(Error::TooManyLinks(to.dir))?;
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

impl Work<'_> {
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
    ) -> Result<(), Stop> {
        self.remove_entry(from.dir, from.name, source.cookie);
        let (ino, kind) = (source.ino, source.kind);
        let cookie = match target {
            Some(target) => Some(target.cookie),
            None => (from.dir == to.dir).then_some(source.cookie),
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
