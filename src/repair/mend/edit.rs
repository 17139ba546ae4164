//! The last look at a map of files: every entry that changes. What belongs to an inode is decided when all of it was seen.

use super::census::{COOKIE_MAX, decode, is_something};
use super::contents::{Fill, LOST_EXTENTS_MAX, LOST_EXTENTS_OF_HOLES, Out, Sweep, born_at};
use super::fixes::{Done, Is};
use super::links::{Fate, Links, Own, Plan, Stays};
use super::paths::Paths;
use super::{Edits, KeyRange, Known};
use crate::check::{COOKIE_FIRST, blocks_of, kind_of};
use crate::format::ids::InodeNo;
use crate::format::inode::{CookieValue, Extent, Inode, NameValue, Xattrs};
use crate::format::key::{self, Key};
use crate::format::usage::Usage;
use crate::fs::{ACCESS_ACL, DEFAULT_ACL, FILE_BYTES_MAX, INLINE_BYTES_MAX, acl_permissions};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::ops::Range;

/// What is known of all inodes by now, and what is made of it.
pub(super) struct Editor<'a> {
    known: &'a Known<'a>,
    links: &'a Links,
    plan: &'a Plan,
    ranges: &'a [KeyRange],
    edits: &'a mut Edits,
    done: &'a mut Done,
    paths: &'a mut Paths,
    /// Of all that were seen.
    pub usage: Usage,
    /// How many extents may still be made for what is lost.
    lost_left: u64,
    current: Option<Current>,
    /// Those without attributes that are done.
    anew: BTreeSet<InodeNo>,
}

/// An inode under way.
pub(super) struct Current {
    own: Own,
    inode: Option<Inode>,
    /// The bytes of the attributes as they are.
    was: Option<Bytes>,
    /// Whether it is looked at closely.
    changes: bool,
    cookie_high: u64,
    inline: Option<Bytes>,
    xattrs: Xattrs,
    access: Option<u32>,
    sweep: Sweep,
    /// Of the directory of what was found: names that are not free.
    taken: BTreeSet<Bytes>,
    /// Names of which only the first stays, and which were met.
    met: BTreeSet<InodeNo>,
}

impl<'a> Editor<'a> {
    pub fn new(
        known: &'a Known<'a>,
        (links, plan): (&'a Links, &'a Plan),
        ranges: &'a [KeyRange],
        (edits, done): (&'a mut Edits, &'a mut Done),
        paths: &'a mut Paths,
    ) -> Editor<'a> {
        let usage = Usage { inodes: 0, blocks: 0 };
        let (current, anew) = (None, BTreeSet::new());
        Editor { known, links, plan, ranges, edits, done, paths, usage, lost_left: LOST_EXTENTS_MAX, current, anew }
    }

    /// The next entry.
    pub fn row(&mut self, key: Bytes, value: &Bytes) {
        let Some(decoded) = decode(&key) else { return };
        let ino = match &decoded {
            Key::Orphan(_) | Key::Usage | Key::Limit => return,
            Key::Inode(ino) | Key::Inline(ino) | Key::Name(ino, _) => *ino,
            Key::Cookie(ino, _) | Key::Xattr(ino, _) | Key::Extent(ino, _) => *ino,
        };
        if self.current.as_ref().is_none_or(|current| current.own.ino != ino) {
            self.finish_inode();
            let Some(own) = self.links.own(ino) else {
                // It was not there before: nobody can rely on it.
                self.done.plain(ino, Is::Garbage);
                self.edits.insert(key, None);
                return;
            };
            self.begin(*own);
        }
        let mut current = self.current.take().expect("just begun");
        if current.own.gone {
            self.edits.insert(key, None);
        } else {
            self.take(&mut current, decoded, key, value);
        }
        self.current = Some(current);
    }

    fn begin(&mut self, own: Own) {
        let changes = self.plan.changed.contains(&own.ino);
        self.current = Some(Current {
            own,
            inode: None,
            was: None,
            changes,
            cookie_high: COOKIE_FIRST - 1,
            inline: None,
            xattrs: Xattrs::NONE,
            access: None,
            sweep: Sweep::new(own.ino, FILE_BYTES_MAX),
            taken: BTreeSet::new(),
            met: BTreeSet::new(),
        });
    }

    fn take(&mut self, current: &mut Current, decoded: Key, key: Bytes, value: &Bytes) {
        let (ino, kind) = (current.own.ino, current.own.kind);
        match decoded {
            Key::Inode(_) => {
                let inode = Inode::decode(value).ok().filter(is_something);
                if let Some(inode) = &inode {
                    // What takes nothing lost, with a batch, that it had less: whatever is there is of before that.
                    let end =
                        if self.known.after_loss.contains_key(&ino) && inode.blocks == 0 { 0 } else { inode.size };
                    current.sweep = Sweep::new(ino, end);
                }
                (current.inode, current.was) = (inode, Some(value.clone()));
            }
            Key::Name(_, name) => match NameValue::decode(value) {
                Ok(value) if kind == libc::DT_DIR => self.name(current, name, value),
                _ => self.stray(ino, key),
            },
            Key::Cookie(..) if kind == libc::DT_DIR => {}
            Key::Cookie(..) => self.stray(ino, key),
            _ if !current.changes => {}
            Key::Inline(_) if kind == libc::DT_REG => current.inline(key, value, self.edits, self.done),
            Key::Extent(_, at) if kind == libc::DT_REG => {
                let mut out = Out { edits: self.edits, done: self.done };
                current.sweep.extent(at, Extent::decode(value).ok(), self.known.whole, &mut out);
            }
            Key::Xattr(_, name) => current.xattr(&name, key, value, self.edits, self.done),
            _ => self.stray(ino, key),
        }
    }

    fn stray(&mut self, ino: InodeNo, key: Bytes) {
        self.done.plain(ino, Is::Stray);
        self.edits.insert(key, None);
    }

    /// A name in a directory, which has a cookie that agrees.
    fn name(&mut self, current: &mut Current, name: Bytes, value: NameValue) {
        let dir = current.own.ino;
        let fate = self.plan.names.get(&(dir, value.ino)).copied();
        let stays = match fate.map(|fate| fate.stays) {
            None | Some(Stays::All) => true,
            Some(Stays::First) => current.met.insert(value.ino),
            Some(Stays::None) => false,
        };
        if !stays {
            let Fate { why, .. } = fate.expect("it says so");
            self.done.note(dir, why, || format!("\"{}\" for inode {}", name.escape_ascii(), value.ino));
            self.edits.insert(key::name(dir, &name), None);
            self.edits.insert(key::cookie(dir, value.cookie), None);
            return;
        }
        current.cookie_high = current.cookie_high.max(value.cookie);
        if let Some(fate) = fate.filter(|fate| fate.kind != value.kind) {
            self.put_entry(dir, &name, NameValue { kind: fate.kind, ..value });
        }
        if self.plan.found.as_ref().is_some_and(|found| found.ino == dir) && name.starts_with(b"#") {
            current.taken.insert(name.clone());
        }
        self.paths.name(dir, value.ino, &name);
    }

    fn put_entry(&mut self, dir: InodeNo, name: &Bytes, value: NameValue) {
        let NameValue { ino, kind, cookie } = value;
        self.edits.insert(key::name(dir, name), Some(value.encode()));
        self.edits.insert(key::cookie(dir, cookie), Some(CookieValue { ino, kind, name: name.clone() }.encode()));
    }

    /// Ends the inode under way.
    pub fn finish_inode(&mut self) {
        let Some(mut current) = self.current.take() else { return };
        if current.own.gone {
            return;
        }
        if !current.own.exists {
            self.anew.insert(current.own.ino);
        }
        let mut inode = current.inode.clone().unwrap_or_default();
        if current.changes {
            let old = current.inode.clone();
            inode = self.mended(&mut current);
            self.note_differences(&current, old.as_ref(), &inode);
            let bytes = inode.encode();
            if current.was.as_ref() != Some(&bytes) {
                self.edits.insert(key::inode(current.own.ino), Some(bytes));
            }
        }
        self.usage.inodes += 1;
        self.usage.blocks = self.usage.blocks.saturating_add(inode.blocks);
    }

    /// Makes those of which no key is left.
    pub fn make_missing(&mut self) {
        self.finish_inode();
        for ino in &self.plan.changed {
            let own = *self.links.own(*ino).expect("it was added");
            if !own.exists && !self.anew.contains(ino) {
                self.begin(own);
                self.finish_inode();
            }
        }
    }

    /// The attributes as they are to be.
    fn mended(&mut self, current: &mut Current) -> Inode {
        let own = current.own;
        let mut inode = current.inode.clone().unwrap_or_else(|| self.new_inode(own.kind));
        inode.mode = inode.mode & 0o7777 | u32::from(own.kind) << 12;
        inode.nlink = own.links();
        inode.parent = if own.kind == libc::DT_DIR { own.parent } else { InodeNo::NONE };
        if own.ino == InodeNo::ROOT {
            inode.parent = InodeNo::ROOT;
        }
        inode.xattrs = current.xattrs;
        if let Some(access) = current.access {
            inode.mode = inode.mode & !0o777 | access;
        }
        if own.kind != libc::DT_LNK {
            inode.target = Bytes::new();
        }
        match own.kind {
            libc::DT_DIR => {
                self.add_entries(current, &mut inode);
                inode.blocks = 0;
            }
            libc::DT_REG => {
                inode.next_cookie = 0;
                self.contents(current, &mut inode);
            }
            _ => {
                (inode.next_cookie, inode.blocks) = (0, 0);
                if own.kind == libc::DT_LNK {
                    inode.size = inode.target.len() as u64;
                }
            }
        }
        inode
    }

    fn new_inode(&self, kind: u8) -> Inode {
        let now = self.known.now;
        let mode = if kind == libc::DT_DIR { 0o700 } else { 0o600 };
        Inode { mode, atime: now, mtime: now, ctime: now, btime: now, ..Inode::default() }
    }

    /// Sets the next cookie, and gives those a name who have none.
    fn add_entries(&mut self, current: &mut Current, inode: &mut Inode) {
        let dir = current.own.ino;
        let next = if inode.next_cookie < COOKIE_MAX { inode.next_cookie } else { COOKIE_FIRST };
        inode.next_cookie = next.max(current.cookie_high + 1);
        let Some(found) = &self.plan.found else { return };
        if let (InodeNo::ROOT, Some(name)) = (dir, &found.new) {
            let value = NameValue { ino: found.ino, kind: libc::DT_DIR, cookie: inode.next_cookie };
            self.put_entry(dir, name, value);
            inode.next_cookie += 1;
            self.paths.name(dir, found.ino, name);
        }
        if found.ino != dir {
            return;
        }
        for ino in &found.members {
            let kind = self.links.own(*ino).expect("it is there").kind;
            let name = free_name(*ino, &current.taken);
            self.put_entry(dir, &name, NameValue { ino: *ino, kind, cookie: inode.next_cookie });
            inode.next_cookie += 1;
            self.paths.name(dir, *ino, &name);
            current.taken.insert(name);
        }
    }

    /// Ends the contents of a regular file.
    fn contents(&mut self, current: &mut Current, inode: &mut Inode) {
        let ino = current.own.ino;
        let known_size = current.inode.is_some();
        let mut out = Out { edits: self.edits, done: self.done };
        current.sweep.finish(&mut out);
        let size = inode.size;
        if inode.size > FILE_BYTES_MAX {
            out.done.note(ino, Is::Beyond, || format!("a size of {}", inode.size));
            inode.size = current.sweep.end;
        }
        let mut unmapped = offsets(self.ranges, ino);
        let had = inode.blocks;
        let misses = current.misses(self.known, inode, &mut out);
        if let Some(value) = current.inline.take() {
            let fits = !known_size || size <= INLINE_BYTES_MAX && !misses;
            if current.sweep.is_empty() && (fits || unmapped.is_empty() && !misses) {
                let len = if known_size && fits { size } else { INLINE_BYTES_MAX };
                let kept = value.slice(..value.len().min(usize::try_from(len).expect("a tiny file")));
                inode.size = if known_size && fits { size } else { kept.len() as u64 };
                inode.blocks = blocks_of(kept.len() as u64);
                if kept != value {
                    out.done.plain(ino, Is::Inline);
                    out.edits.insert(key::inline(ino), Some(kept).filter(|kept| !kept.is_empty()));
                }
                return;
            }
            out.done.plain(ino, Is::Inline);
            out.edits.insert(key::inline(ino), None);
        }
        // Where some came back that were there earlier, others may be gone that take as much.
        let missing = had.checked_sub(current.sweep.came).filter(|_| known_size && !current.sweep.mixed);
        let all = 0..FILE_BYTES_MAX;
        if !known_size && unmapped.is_empty() && !misses && current.sweep.is_empty() {
            // Nobody said that anything is missing, and everything is.
            unmapped.push(all.clone());
        }
        let lost = if misses { std::slice::from_ref(&all) } else { &unmapped };
        if missing != Some(0) && !lost.is_empty() {
            let births = (self.known.births)(ino).into_iter().filter_map(|birth| born_at(&birth, self.known.whole));
            let size = if known_size { inode.size } else { births.map(|at| at.end).max().unwrap_or(0) };
            let Known { births, whole, lost: batches, .. } = *self.known;
            let most = if misses { LOST_EXTENTS_OF_HOLES.min(self.lost_left) } else { self.lost_left };
            let mut lost_left = most;
            let mut fill = Fill { lost, unmapped: &unmapped, batches, births, whole, lost_left: &mut lost_left };
            let size = current.sweep.fill(&mut fill, size, missing, &mut out);
            self.lost_left -= most - lost_left;
            inode.size = if known_size { size } else { current.sweep.end };
        } else if !known_size {
            inode.size = current.sweep.end;
        }
        inode.blocks = current.sweep.blocks;
    }

    /// What is told of attributes that are not what they were.
    fn note_differences(&mut self, current: &Current, old: Option<&Inode>, new: &Inode) {
        let (ino, Some(old)) = (current.own.ino, old) else { return };
        let different = [
            (Is::Type, kind_of(old.mode) != kind_of(new.mode)),
            (Is::Marks, old.xattrs != new.xattrs),
            (Is::Acl, old.mode & 0o777 != new.mode & 0o777),
            (Is::Target, current.own.kind == libc::DT_LNK && old.size != new.size),
            (Is::Blocks, old.blocks != new.blocks),
            (
                Is::Cookie,
                current.own.kind == libc::DT_DIR && !(current.cookie_high + 1..COOKIE_MAX).contains(&old.next_cookie),
            ),
            (Is::Inline, current.own.kind == libc::DT_REG && old.size != new.size),
            (Is::Parent, current.own.kind != libc::DT_DIR && old.parent != new.parent),
        ];
        different.into_iter().filter(|(_, differs)| *differs).for_each(|(fix, _)| self.done.plain(ino, fix));
    }
}

impl Current {
    fn inline(&mut self, key: Bytes, value: &Bytes, edits: &mut Edits, done: &mut Done) {
        let len = value.len() as u64;
        let fits = self.inode.as_ref().is_some_and(|inode| {
            inode.size <= INLINE_BYTES_MAX && (1..=inode.size).contains(&len) && inode.blocks == blocks_of(len)
        });
        if value.is_empty() {
            done.plain(self.own.ino, Is::Inline);
            edits.insert(key, None);
            return;
        }
        if fits {
            // Then nothing else belongs to it.
            self.sweep = Sweep::new(self.own.ino, 0);
        }
        self.inline = Some(value.clone());
    }

    /// Whether contents of it may have been in a batch that is lost. What says how much it takes is of after that batch then, so its
    /// holes are holes if the rest adds up to it.
    fn misses(&mut self, known: &Known<'_>, inode: &Inode, out: &mut Out<'_>) -> bool {
        let (ino, had, sweep) = (self.own.ino, inode.blocks, &self.sweep);
        let Some(inline_is_older) = known.after_loss.get(&ino) else { return false };
        let mut takes = sweep.came;
        if let Some(value) = &self.inline {
            takes += blocks_of(value.len() as u64);
            if had == 0 {
                self.inline = None;
                out.done.plain(ino, Is::Inline);
                out.edits.insert(key::inline(ino), None);
            }
        }
        let misses = match &self.inline {
            Some(value) if sweep.is_empty() && inode.size <= INLINE_BYTES_MAX => {
                *inline_is_older && (value.len() as u64) < inode.size
            }
            _ => had != sweep.blocks,
        };
        if misses || sweep.mixed || takes != had {
            out.done.plain(ino, Is::Missed);
        }
        misses
    }

    fn xattr(&mut self, name: &Bytes, key: Bytes, value: &Bytes, edits: &mut Edits, done: &mut Done) {
        let permissions = acl_permissions(value);
        match &name[..] {
            ACCESS_ACL | DEFAULT_ACL if permissions.is_none() => {
                done.plain(self.own.ino, Is::Acl);
                edits.insert(key, None);
                return;
            }
            ACCESS_ACL => self.access = permissions,
            _ => {}
        }
        self.xattrs = self.xattrs.with(Xattrs::of(name));
    }
}

/// A name for an inode that no other has.
fn free_name(ino: InodeNo, taken: &BTreeSet<Bytes>) -> Bytes {
    let first: Bytes = format!("#{ino}").into();
    let further = (2u64..).map(|n| Bytes::from(format!("#{ino}-{n}")));
    std::iter::once(first).chain(further).find(|name| !taken.contains(name)).expect("names do not end")
}

/// The offsets at which extents of a file may be missing, and what these may hold.
fn offsets(ranges: &[KeyRange], ino: InodeNo) -> Vec<Range<u64>> {
    let (first, last) = key::extents_of(ino);
    let mut found: Vec<Range<u64>> = Vec::new();
    for KeyRange { from, to } in ranges.iter().filter(|range| range.from < last && range.to > first) {
        let offset = |key: &Bytes| match &key[..] {
            key if key <= &first[..] => 0,
            key if key >= &last[..] => u64::MAX,
            key => {
                let mut bytes = [0; 8];
                let subkey = &key[first.len()..];
                let len = subkey.len().min(8);
                bytes[..len].copy_from_slice(&subkey[..len]);
                u64::from_be_bytes(bytes)
            }
        };
        // The last that is missing may reach as far as any.
        let range = offset(from)..offset(to).saturating_add(crate::format::ids::OBJECT_BYTES_MAX as u64 - 1);
        match found.last_mut() {
            Some(before) if before.end >= range.start => before.end = before.end.max(range.end),
            _ => found.push(range),
        }
    }
    found
}
