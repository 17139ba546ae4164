//! The map of files, inode by inode. What belongs to one inode lies together, so one inode is held at a time; what ties
//! inodes together is collected in [`Links`].

use super::Check;
use super::entries::entries_that_differ;
use super::links::{Links, kind_of};
use super::maps::AFTER_ALL;
use super::objects::Objects;
use super::space::CACHE_BYTES;
use crate::format::FormatError;
use crate::format::batch::TreeId;
use crate::format::ids::InodeNo;
use crate::format::inode::{CookieValue, Extent, Inode, NameValue, Xattrs};
use crate::format::key::Key;
use crate::format::usage::{Usage, UsageLimit};
use crate::fs::{ACCESS_ACL, DEFAULT_ACL, FILE_BYTES_MAX, INLINE_BYTES_MAX, acl_permissions};
use crate::map::{MapError, NodeCache};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

/// What a problem of the whole map is named after.
pub(super) const PLACE: &str = "files tree";
/// 1 and 2 are `.` and `..`.
pub(crate) const COOKIE_FIRST: u64 = 3;

/// A place in a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub ino: InodeNo,
    /// Bytes from the file's start.
    pub at: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inode {} at offset {}", self.ino, self.at)
    }
}

/// Visits the entries of a map with keys in a range, in order.
pub(super) type Scan<'a> = dyn Fn((Bytes, Bytes), &mut dyn FnMut(&Bytes, &Bytes)) -> Result<(), MapError> + 'a;

pub(super) fn check_files(check: &mut Check<'_>) -> bool {
    // Without a state directory, what lies over the trees is in the newest checkpoint too, unless it was counted before the
    // tail came over it.
    let at_checkpoint = check.manifest.is_none() && !check.has_tail;
    let mut census = Census::new(std::mem::take(&mut check.objects), at_checkpoint);
    let cache = NodeCache::new(CACHE_BYTES);
    let (maps, nodes, counted) = (&check.maps, &check.nodes, check.counted);
    let scanned = census.run(&|range, visit| maps.scan(TreeId::Files, range, &cache, nodes, visit), counted);
    let Census { objects, links, problems, extents, bytes, lost, .. } = census;
    check.objects = objects;
    let figures = &mut check.report.figures;
    (figures.extents, figures.bytes, figures.inodes, figures.names) = (extents, bytes, links.inodes(), links.names());
    (figures.lost_ranges, figures.lost_bytes) = lost;
    check.inode_max = links.inode_max();
    for (place, what) in problems {
        check.problem(place, what);
    }
    match scanned {
        Ok(()) => true,
        Err(e) => {
            check.problem(PLACE, e.to_string());
            false
        }
    }
}

/// What is wrong with a map of files by itself, wherever its entries come from: (place, what). `counted` says whether the map
/// counts what it holds.
pub fn check_map(entries: &BTreeMap<Bytes, Bytes>, counted: bool) -> Vec<(String, String)> {
    let mut census = Census::new(Objects::default(), false);
    let scan = |(from, to): (Bytes, Bytes), visit: &mut dyn FnMut(&Bytes, &Bytes)| {
        entries.range(from..to).for_each(|(key, value)| visit(key, value));
        Ok(())
    };
    census.run(&scan, counted).expect("a map in memory can be read");
    census.problems
}

/// What was seen of one inode so far.
struct Current {
    ino: InodeNo,
    inode: Option<Inode>,
    inline: Option<u64>,
    /// Hashes of all names with what they stand for, less those of what the cookies list: 0 when they agree. So a directory
    /// of any size is compared in no memory; only one that differs is looked at entry by entry.
    entries: u64,
    has_entries: bool,
    /// The lowest and the highest cookie that a name has.
    cookies: Option<(u64, u64)>,
    /// Which extended attributes there are.
    xattrs: Xattrs,
    /// The permission bits that the access control list stands for; `None` inside when it is no such list.
    access: Option<Option<u32>>,
    /// Sum over inline value and extents.
    blocks: u64,
    /// End of the last extent.
    end: Option<u64>,
    /// The same, if its data is lost.
    lost_end: Option<u64>,
}

struct Census {
    objects: Objects,
    at_checkpoint: bool,
    links: Links,
    current: Option<Current>,
    problems: Vec<(String, String)>,
    /// Keyed anew by each check: nobody can make a directory whose differences cancel out.
    entry_hash: RandomState,
    /// Directories whose names and cookies do not agree.
    mismatched: Vec<InodeNo>,
    extents: u64,
    bytes: u64,
    /// Ranges of files whose data is lost, and their bytes.
    lost: (u64, u64),
    /// What the map says it holds.
    recorded: Option<Usage>,
    /// The sum of what the inodes say.
    blocks: u64,
}

impl Census {
    fn new(objects: Objects, at_checkpoint: bool) -> Census {
        Census {
            objects,
            at_checkpoint,
            links: Links::default(),
            current: None,
            problems: Vec::new(),
            entry_hash: RandomState::new(),
            mismatched: Vec::new(),
            extents: 0,
            bytes: 0,
            lost: (0, 0),
            recorded: None,
            blocks: 0,
        }
    }

    /// Looks at all entries, and at those that do not agree once more.
    fn run(&mut self, scan: &Scan<'_>, counted: bool) -> Result<(), MapError> {
        let all = (Bytes::new(), Bytes::copy_from_slice(&AFTER_ALL));
        let scanned = scan(all, &mut |key, value| self.row(key, value));
        self.finish_inode();
        for dir in std::mem::take(&mut self.mismatched) {
            match entries_that_differ(scan, dir) {
                Ok(found) => found.into_iter().for_each(|what| self.problem(dir, what)),
                Err(e) => self.problem(dir, e.to_string()),
            }
        }
        self.problems.extend(self.links.problems());
        if let Some(what) = self.usage_problem().filter(|_| counted) {
            self.problems.push((PLACE.to_owned(), what));
        }
        scanned
    }

    fn usage_problem(&self) -> Option<String> {
        let found = Usage { inodes: self.links.inodes(), blocks: self.blocks };
        match self.recorded {
            None => Some("its usage is not recorded".to_owned()),
            Some(recorded) if recorded != found => Some(format!(
                "is said to hold {} inodes with {} blocks, it holds {} with {}",
                recorded.inodes, recorded.blocks, found.inodes, found.blocks
            )),
            Some(_) => None,
        }
    }

    fn row(&mut self, key: &[u8], value: &[u8]) {
        let taken = Key::decode(key).and_then(|key| self.take(key, value));
        if let Err(e) = taken {
            self.problems.push((PLACE.to_owned(), format!("entry {key:02x?}: {e}")));
        }
    }

    fn take(&mut self, key: Key, value: &[u8]) -> Result<(), FormatError> {
        match key {
            Key::Orphan(ino) => self.links.orphan(ino),
            Key::Usage => self.recorded = Some(Usage::decode(value)?),
            Key::Limit => drop(UsageLimit::decode(value)?),
            Key::Inode(ino) => {
                let inode = Inode::decode(value)?;
                self.links.inode(ino, &inode);
                self.blocks = self.blocks.saturating_add(inode.blocks);
                self.enter(ino).inode = Some(inode);
            }
            Key::Inline(ino) => {
                let current = self.enter(ino);
                current.inline = Some(value.len() as u64);
                current.blocks += blocks_of(value.len() as u64);
                self.bytes += value.len() as u64;
            }
            Key::Name(ino, name) => self.name(ino, name, NameValue::decode(value)?),
            Key::Cookie(ino, cookie) => self.cookie(ino, cookie, &CookieValue::decode(value)?),
            Key::Xattr(ino, name) => {
                let current = self.enter(ino);
                current.xattrs = current.xattrs.with(Xattrs::of(&name));
                match &name[..] {
                    ACCESS_ACL => current.access = Some(acl_permissions(value)),
                    DEFAULT_ACL if acl_permissions(value).is_none() => {
                        self.problem(ino, "its default access control list is none".to_owned());
                    }
                    _ => {}
                }
            }
            Key::Extent(ino, at) => self.extent(Place { ino, at }, &Extent::decode(value)?),
        }
        Ok(())
    }

    fn enter(&mut self, ino: InodeNo) -> &mut Current {
        if self.current.as_ref().is_none_or(|current| current.ino != ino) {
            self.finish_inode();
        }
        self.current.get_or_insert_with(|| Current {
            ino,
            inode: None,
            inline: None,
            entries: 0,
            has_entries: false,
            cookies: None,
            xattrs: Xattrs::NONE,
            access: None,
            blocks: 0,
            end: None,
            lost_end: None,
        })
    }

    fn problem(&mut self, ino: InodeNo, what: String) {
        self.problems.push((format!("inode {ino}"), what));
    }

    fn name(&mut self, dir: InodeNo, name: Bytes, value: NameValue) {
        self.links.name(dir, &value);
        if !is_possible(&name) {
            self.problem(dir, format!("the name {} can be no name", text(&name)));
        }
        let hash = self.entry_hash.hash_one((value.cookie, value.ino, value.kind, &name));
        let current = self.enter(dir);
        current.has_entries = true;
        current.entries = current.entries.wrapping_add(hash);
        let (low, high) = current.cookies.unwrap_or((value.cookie, value.cookie));
        current.cookies = Some((low.min(value.cookie), high.max(value.cookie)));
    }

    fn cookie(&mut self, dir: InodeNo, cookie: u64, listed: &CookieValue) {
        let hash = self.entry_hash.hash_one((cookie, listed.ino, listed.kind, &listed.name));
        let current = self.enter(dir);
        current.has_entries = true;
        current.entries = current.entries.wrapping_sub(hash);
    }

    fn extent(&mut self, place: Place, extent: &Extent) {
        let at_checkpoint = self.at_checkpoint;
        if let Some(usage) = self.objects.name(place, extent) {
            usage.now += 1;
            usage.at_checkpoint += u32::from(at_checkpoint);
        }
        self.extents += 1;
        self.bytes += u64::from(extent.len);
        let end = place.at.saturating_add(u64::from(extent.len));
        let current = self.enter(place.ino);
        current.blocks += blocks_of(u64::from(extent.len));
        let before = current.end.replace(end);
        let lost_before = std::mem::replace(&mut current.lost_end, extent.is_lost().then_some(end));
        if extent.is_lost() {
            self.lost.0 += u64::from(lost_before != Some(place.at));
            self.lost.1 += u64::from(extent.len);
        }
        if let Some(before) = before.filter(|before| *before > place.at) {
            self.problems.push((place.to_string(), format!("the extent before it reaches to {before}")));
        }
    }

    fn finish_inode(&mut self) {
        let Some(current) = self.current.take() else { return };
        if current.entries != 0 {
            self.mismatched.push(current.ino);
        }
        let place = format!("inode {}", current.ino);
        match &current.inode {
            None => self.problems.push((place, "has contents or names and does not exist".to_owned())),
            Some(inode) => self.problems.extend(current.problems(inode).into_iter().map(|what| (place.clone(), what))),
        }
    }
}

impl Current {
    fn problems(&self, inode: &Inode) -> Vec<String> {
        let mut problems = Vec::new();
        match inode.mode & libc::S_IFMT {
            libc::S_IFDIR => self.directory_problems(inode, &mut problems),
            libc::S_IFREG => self.contents_problems(inode, &mut problems),
            libc::S_IFLNK if inode.target.is_empty() || inode.size != inode.target.len() as u64 => {
                problems.push(format!("a link of size {} with a target of {} bytes", inode.size, inode.target.len()));
            }
            libc::S_IFLNK | libc::S_IFIFO | libc::S_IFSOCK | libc::S_IFCHR | libc::S_IFBLK => {}
            other => problems.push(format!("of unknown type {other:o}")),
        }
        if self.has_entries && kind_of(inode.mode) != libc::DT_DIR {
            problems.push("has names in it and is no directory".to_owned());
        }
        if (self.inline.is_some() || self.end.is_some()) && kind_of(inode.mode) != libc::DT_REG {
            problems.push("has contents and is no regular file".to_owned());
        }
        if inode.blocks != self.blocks {
            problems.push(format!("takes {} blocks, its contents take {}", inode.blocks, self.blocks));
        }
        if inode.xattrs != self.xattrs {
            problems.push("its marks of extended attributes are not those it has".to_owned());
        }
        let mode = inode.mode & 0o777;
        match self.access {
            Some(None) => problems.push("its access control list is none".to_owned()),
            Some(Some(access)) if access != mode => {
                problems.push(format!("its access control list says {access:o}, its mode {mode:o}"));
            }
            _ => {}
        }
        problems
    }

    fn directory_problems(&self, inode: &Inode, problems: &mut Vec<String>) {
        let (low, high) = self.cookies.unwrap_or((COOKIE_FIRST, COOKIE_FIRST - 1));
        if low < COOKIE_FIRST || high >= inode.next_cookie || inode.next_cookie < COOKIE_FIRST {
            problems.push(format!("its next cookie is {}, cookies {low} to {high} are given", inode.next_cookie));
        }
        if inode.parent == InodeNo::NONE {
            problems.push("a directory without a parent".to_owned());
        }
    }

    fn contents_problems(&self, inode: &Inode, problems: &mut Vec<String>) {
        if inode.size > FILE_BYTES_MAX {
            problems.push(format!("its size of {} is more than any file has", inode.size));
        }
        if let Some(end) = self.end.filter(|end| *end > inode.size) {
            problems.push(format!("an extent reaches to {end}, its size is {}", inode.size));
        }
        let Some(inline) = self.inline else { return };
        if self.end.is_some() {
            problems.push("has an inline value and extents".to_owned());
        }
        if inline == 0 || inline > inode.size || inode.size > INLINE_BYTES_MAX {
            problems.push(format!("an inline value of {inline} bytes in a file of {}", inode.size));
        }
    }
}

/// Whether a file can have this name.
pub(crate) fn is_possible(name: &[u8]) -> bool {
    !matches!(name, b"." | b"..") && !name.iter().any(|b| *b == 0 || *b == b'/')
}

/// Units of 512 bytes.
pub(crate) fn blocks_of(len: u64) -> u64 {
    len.div_ceil(512)
}

pub(super) fn text(name: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(name))
}
