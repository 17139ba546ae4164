//! Listing directories, in the order of cookies. A listing goes on after the last cookie seen, whatever changed meanwhile.

use super::attr::Attr;
use super::entries::{COOKIE_FIRST, check_name, is_dot};
use super::error::{Error, Stop, damaged};
use super::work::Work;
use super::{Cx, Fs};
use crate::format::ids::InodeNo;
use crate::format::inode::CookieValue;
use crate::format::key::{self, Key};
use crate::map::Seen;
use bytes::Bytes;
use std::sync::Arc;

const COOKIE_SELF: u64 = 1;
const COOKIE_PARENT: u64 = 2;

/// One name of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// What it stands for.
    pub ino: InodeNo,
    /// Its type (`d_type`).
    pub kind: u8,
    /// Its place; a listing goes on after it.
    pub cookie: u64,
    /// The name.
    pub name: Bytes,
}

impl Fs {
    /// Up to `max` names after the cookie `after` (0: from the start), `.` and `..` first; none at the end.
    pub fn readdir(&self, cx: &Cx, ino: InodeNo, after: u64, max: usize) -> Result<Vec<DirEntry>, Stop> {
        let _held = self.locks.shared(ino);
        self.begin(cx).list(ino, after, max)
    }

    /// As [`Fs::readdir`], with attributes. Counts a look-up of each entry but `.` and `..`; [`Fs::forget`] those not passed on.
    pub fn readdir_plus(&self, cx: &Cx, ino: InodeNo, after: u64, max: usize) -> Result<Vec<(DirEntry, Attr)>, Stop> {
        let _held = self.locks.shared(ino);
        let mut work = self.begin(cx);
        let mut out = Vec::new();
        for entry in work.list(ino, after, max)? {
            let attr = Attr::of(entry.ino, &work.glance(entry.ino)?);
            out.push((entry, attr));
        }
        for (entry, attr) in &out {
            if entry.cookie >= COOKIE_FIRST {
                self.uses.add_lookup(attr.ino);
            }
        }
        Ok(out)
    }
}

impl Fs {
    /// As [`Fs::readdir_plus`] on a follower: the names of the state that `cx` reads, and attributes as they are in the newest, or
    /// as they were if the inode is gone.
    pub fn readdir_plus_in(
        &self,
        cx: &Cx,
        ino: InodeNo,
        after: u64,
        max: usize,
        newest: &Arc<Seen>,
    ) -> Result<Vec<(DirEntry, Attr)>, Stop> {
        let _held = self.locks.shared(ino);
        let (mut then, mut now) = (self.begin(cx), Work::new(self.db.begin_at(&cx.pins, Some(newest)), cx, false));
        let mut out = Vec::new();
        for entry in then.list(ino, after, max)? {
            let inode = match now.glance(entry.ino) {
                Err(Stop::Error(Error::NoSuchInode(_))) => then.glance(entry.ino)?,
                found => found?,
            };
            out.push((entry, inode));
        }
        let out = out.into_iter().map(|(entry, inode)| {
            let attr = Attr::of(entry.ino, &inode);
            if entry.cookie >= COOKIE_FIRST {
                self.uses.add_lookup(attr.ino);
            }
            (entry, attr)
        });
        Ok(out.collect())
    }
}

impl Work<'_> {
    /// The entries but `.` and `..`.
    pub fn list_members(&mut self, ino: InodeNo, after: u64, max: usize) -> Result<Vec<DirEntry>, Stop> {
        self.list(ino, after.max(COOKIE_PARENT), max)
    }

    fn list(&mut self, ino: InodeNo, after: u64, max: usize) -> Result<Vec<DirEntry>, Stop> {
        let dir = self.dir(ino)?;
        let dot = |ino, cookie, name| DirEntry { ino, kind: libc::DT_DIR, cookie, name: Bytes::from_static(name) };
        let dots = [dot(ino, COOKIE_SELF, b"."), dot(dir.parent, COOKIE_PARENT, b"..")];
        let mut out: Vec<DirEntry> = dots.into_iter().filter(|entry| entry.cookie > after).take(max).collect();
        let (from, to) = key::cookies_from(ino, after.max(COOKIE_PARENT));
        for (key, value) in self.scan(&from, &to, max - out.len())? {
            out.push(decode(ino, &key, &value)?);
        }
        Ok(out)
    }
}

fn decode(dir: InodeNo, key: &[u8], value: &[u8]) -> Result<DirEntry, Stop> {
    let bad = |e| damaged(format_args!("an entry of directory {dir}: {e}"));
    let CookieValue { ino, kind, name } = CookieValue::decode(value).map_err(bad)?;
    match Key::decode(key).map_err(bad)? {
        Key::Cookie(of, cookie) if of == dir && check_name(&name).is_ok() && !is_dot(&name) => {
            Ok(DirEntry { ino, kind, cookie, name })
        }
        // What it would mean to those who are shown it is not in this directory.
        Key::Cookie(of, _) if of == dir => {
            Err(damaged(format_args!("directory {dir} holds {:?}, which is no name", String::from_utf8_lossy(&name))))
        }
        other => Err(damaged(format_args!("{other:?} among the entries of directory {dir}"))),
    }
}
