//! The first look at a map of files: inode by inode, what each is and whether anything about it is wrong; and what ties inodes
//! together. Nothing is mended here.

use super::Known;
use super::fixes::{Done, Is};
use super::links::{Links, Own};
use crate::check::{COOKIE_FIRST, blocks_of, is_possible, kind_of};
use crate::format::FormatError;
use crate::format::ids::InodeNo;
use crate::format::inode::{CookieValue, Extent, Inode, NameValue, Xattrs};
use crate::format::key::Key;
use crate::format::usage::{Usage, UsageLimit};
use crate::fs::{ACCESS_ACL, DEFAULT_ACL, FILE_BYTES_MAX, INLINE_BYTES_MAX, acl_permissions};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};

/// No directory gives as many positions.
pub(super) const COOKIE_MAX: u64 = 1 << 62;
/// Names that the directory of what was found may have begin so.
pub(super) const FOUND: &[u8] = b"lost+found";

/// What was seen of one inode so far.
struct Current {
    ino: InodeNo,
    inode: Option<Inode>,
    inline: Option<u64>,
    /// As the check does it: hashes of all names less those of what the cookies list.
    entries: u64,
    has_entries: bool,
    /// Some entry cannot stay as it is.
    entries_wrong: bool,
    /// The highest cookie that a name has.
    cookie_high: u64,
    xattrs: Xattrs,
    access: Option<Option<u32>>,
    blocks: u64,
    has_extents: bool,
    end: u64,
    /// Something was wrong already.
    wrong: bool,
    /// Where its names in [`Links`] begin.
    first_name: usize,
}

/// What the first look finds.
pub(super) struct Census<'a> {
    known: &'a Known<'a>,
    pub links: Links,
    pub done: Done,
    /// What is to go, whatever else happens.
    pub garbage: Vec<Bytes>,
    /// Directories whose names and cookies do not agree.
    pub mismatched: BTreeSet<InodeNo>,
    /// Names in the root that the directory of what was found may have.
    pub found: BTreeMap<Bytes, InodeNo>,
    pub recorded: Option<Usage>,
    pub usage: Usage,
    current: Option<Current>,
    entry_hash: RandomState,
}

impl<'a> Census<'a> {
    pub fn new(known: &'a Known<'a>) -> Census<'a> {
        Census {
            known,
            links: Links::default(),
            done: Done::default(),
            garbage: Vec::new(),
            mismatched: BTreeSet::new(),
            found: BTreeMap::new(),
            recorded: None,
            usage: Usage { inodes: 0, blocks: 0 },
            current: None,
            entry_hash: RandomState::new(),
        }
    }

    /// The next entry.
    pub fn row(&mut self, key: Bytes, value: &[u8]) {
        let Some(decoded) = decode(&key) else {
            self.done.note(inode_of(&key), Is::Garbage, || format!("key {key:02x?}"));
            self.garbage.push(key);
            return;
        };
        if let Err(e) = self.take(decoded, value) {
            let ino = inode_of(&key);
            // Attributes are made anew, a wrong extent is one that is lost, names and cookies are mended by one another.
            match Key::decode(&key) {
                Ok(Key::Inode(_)) => self.done.note(ino, Is::Garbage, || e.to_string()),
                Ok(Key::Limit) => {
                    self.done.plain(ino, Is::Limit);
                    self.garbage.push(key);
                }
                Ok(Key::Usage) => self.garbage.push(key),
                _ => {}
            }
        }
    }

    fn take(&mut self, key: Key, value: &[u8]) -> Result<(), FormatError> {
        match key {
            Key::Orphan(ino) => drop(self.links.marks.insert(ino)),
            Key::Usage => self.recorded = Some(Usage::decode(value)?),
            Key::Limit => drop(UsageLimit::decode(value)?),
            Key::Inode(ino) => {
                let current = self.enter(ino);
                current.inode = Some(Inode::decode(value)?);
            }
            Key::Inline(ino) => {
                let current = self.enter(ino);
                current.inline = Some(value.len() as u64);
                current.blocks += blocks_of(value.len() as u64);
            }
            Key::Name(ino, name) => {
                let decoded = NameValue::decode(value);
                self.enter(ino).has_entries = true;
                match decoded {
                    Ok(value) => self.name(ino, name, value),
                    Err(_) => self.enter(ino).entries_wrong = true,
                }
            }
            Key::Cookie(ino, cookie) => {
                let hash = CookieValue::decode(value)
                    .map(|listed| self.entry_hash.hash_one((cookie, listed.ino, listed.kind, &listed.name)));
                let current = self.enter(ino);
                current.has_entries = true;
                match hash {
                    Ok(hash) => current.entries = current.entries.wrapping_sub(hash),
                    Err(_) => current.entries_wrong = true,
                }
            }
            Key::Xattr(ino, name) => {
                let current = self.enter(ino);
                current.xattrs = current.xattrs.with(Xattrs::of(&name));
                match &name[..] {
                    ACCESS_ACL => current.access = Some(acl_permissions(value)),
                    DEFAULT_ACL => current.wrong |= acl_permissions(value).is_none(),
                    _ => {}
                }
            }
            Key::Extent(ino, at) => self.extent(ino, at, Extent::decode(value).ok()),
        }
        Ok(())
    }

    fn enter(&mut self, ino: InodeNo) -> &mut Current {
        if self.current.as_ref().is_none_or(|current| current.ino != ino) {
            self.finish_inode();
        }
        let first_name = self.links.named.len();
        self.current.get_or_insert_with(|| Current {
            ino,
            inode: None,
            inline: None,
            entries: 0,
            has_entries: false,
            entries_wrong: false,
            cookie_high: COOKIE_FIRST - 1,
            xattrs: Xattrs::NONE,
            access: None,
            blocks: 0,
            has_extents: false,
            end: 0,
            wrong: false,
            first_name,
        })
    }

    fn name(&mut self, dir: InodeNo, name: Bytes, value: NameValue) {
        let hash = self.entry_hash.hash_one((value.cookie, value.ino, value.kind, &name));
        let current = self.enter(dir);
        current.entries = current.entries.wrapping_add(hash);
        current.cookie_high = current.cookie_high.max(value.cookie);
        current.entries_wrong |= !is_possible(&name) || !(COOKIE_FIRST..COOKIE_MAX).contains(&value.cookie);
        self.links.name(dir, &value);
        if dir == InodeNo::ROOT && name.starts_with(FOUND) {
            self.found.insert(name, value.ino);
        }
    }

    fn extent(&mut self, ino: InodeNo, at: u64, extent: Option<Extent>) {
        let whole = self.known.whole;
        let current = self.enter(ino);
        let len = extent.map_or(0, |extent| u64::from(extent.len));
        let end = at.saturating_add(len);
        current.wrong |=
            extent.is_none_or(|e| !e.is_lost() && whole(&e.object).is_none_or(|have| have < e.object_offset + e.len));
        current.wrong |= current.has_extents && at < current.end;
        current.has_extents = true;
        current.blocks += blocks_of(len);
        current.end = end;
    }

    /// Ends the inode under way.
    pub fn finish_inode(&mut self) {
        let Some(current) = self.current.take() else { return };
        let (kind, mut wrong) = current.judge();
        wrong |= self
            .known
            .after_loss
            .get(&current.ino)
            .is_some_and(|inline_is_older| *inline_is_older && current.lacks_an_end());
        let inode = current.inode();
        if current.entries != 0 || current.entries_wrong {
            self.mismatched.insert(current.ino);
            self.links.named.truncate(current.first_name);
        }
        self.usage.inodes += u64::from(inode.is_some());
        self.usage.blocks = self.usage.blocks.saturating_add(inode.map_or(0, |inode| inode.blocks));
        self.links.owns.push(Own {
            ino: current.ino,
            parent: inode.map_or(InodeNo::NONE, |inode| inode.parent),
            nlink: inode.map_or(0, |inode| inode.nlink),
            names: 0,
            subdirectories: 0,
            kind,
            exists: inode.is_some(),
            has_entries: current.has_entries,
            has_contents: current.inline.is_some() || current.has_extents,
            wrong,
            gone: false,
        });
    }
}

impl Current {
    /// Its attributes. A link without a target is none, and nothing else is known of it.
    fn inode(&self) -> Option<&Inode> {
        self.inode.as_ref().filter(|inode| is_something(inode))
    }

    /// The type, 0 if it is not known; and whether anything about it is wrong.
    fn judge(&self) -> (u8, bool) {
        let Some(inode) = self.inode() else { return (0, true) };
        let contents = self.inline.is_some() || self.has_extents;
        let kind = self.kind(inode, contents);
        let wrong = self.wrong
            || kind == 0
            || kind != kind_of(inode.mode)
            || kind != libc::DT_DIR && (self.has_entries || inode.parent != InodeNo::NONE)
            || kind != libc::DT_REG && contents
            || kind == libc::DT_LNK && inode.size != inode.target.len() as u64
            || kind == libc::DT_DIR && !(self.cookie_high + 1..COOKIE_MAX).contains(&inode.next_cookie)
            || kind == libc::DT_REG && self.contents_wrong(inode)
            || inode.blocks != self.blocks
            || inode.xattrs != self.xattrs
            || self.access.is_some_and(|access| access != Some(inode.mode & 0o777));
        (kind, wrong)
    }

    /// Numbers are never given again, so what belongs to one kind of file alone tells more than a type that says otherwise.
    fn kind(&self, inode: &Inode, contents: bool) -> u8 {
        match inode.mode & libc::S_IFMT {
            libc::S_IFLNK => libc::DT_LNK,
            _ if self.has_entries && !contents => libc::DT_DIR,
            libc::S_IFDIR if self.has_entries || inode.parent != InodeNo::NONE => libc::DT_DIR,
            _ if contents && !self.has_entries => libc::DT_REG,
            libc::S_IFREG | libc::S_IFDIR | libc::S_IFIFO | libc::S_IFSOCK | libc::S_IFCHR | libc::S_IFBLK => {
                kind_of(inode.mode)
            }
            _ => 0,
        }
    }

    /// Its inline contents end before the file does: there are zeros after them, if they are those that belong to the attributes.
    fn lacks_an_end(&self) -> bool {
        self.inline.is_some_and(|len| self.inode().is_some_and(|inode| len < inode.size))
    }

    fn contents_wrong(&self, inode: &Inode) -> bool {
        let inline = self
            .inline
            .is_some_and(|len| self.has_extents || len == 0 || len > inode.size || inode.size > INLINE_BYTES_MAX);
        inline || inode.size > FILE_BYTES_MAX || self.end > inode.size
    }
}

/// Whether these can be the attributes of anything.
pub(super) fn is_something(inode: &Inode) -> bool {
    inode.mode & libc::S_IFMT != libc::S_IFLNK || !inode.target.is_empty()
}

/// A key that belongs to a file or to the filesystem.
pub(super) fn decode(key: &[u8]) -> Option<Key> {
    let key = Key::decode(key).ok()?;
    let ino = match &key {
        Key::Inode(ino) | Key::Inline(ino) | Key::Name(ino, _) | Key::Cookie(ino, _) | Key::Xattr(ino, _) => *ino,
        Key::Extent(ino, _) | Key::Orphan(ino) => *ino,
        Key::Usage | Key::Limit => InodeNo::ROOT,
    };
    (ino != InodeNo::NONE && ino <= InodeNo::MAX).then_some(key)
}

/// Whose key it is, as far as that can be told.
fn inode_of(key: &[u8]) -> InodeNo {
    let ino = key.first_chunk().map_or(InodeNo::NONE, |bytes| InodeNo(u64::from_be_bytes(*bytes)));
    if ino <= InodeNo::MAX { ino } else { InodeNo::NONE }
}
