//! What ties inodes together: names, link counts, parents, orphans.
//!
//! Collected as two plain lists, some 60 bytes an inode with one name, and put together at the end: inodes come in the order
//! of their numbers, names are sorted by what they lead to.

use crate::format::ids::InodeNo;
use crate::format::inode::{Inode, NameValue};
use std::collections::BTreeSet;

/// The type of an inode as a directory entry shows it (`d_type`).
pub(crate) fn kind_of(mode: u32) -> u8 {
    u8::try_from((mode & libc::S_IFMT) >> 12).expect("four bits")
}

/// What an inode says of itself.
#[derive(Clone, Copy)]
struct Own {
    ino: InodeNo,
    parent: InodeNo,
    nlink: u32,
    /// Names in it that say they are directories.
    subdirectories: u32,
    kind: u8,
}

/// What a name says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    ino: InodeNo,
    dir: InodeNo,
    kind: u8,
}

/// All inodes and the names that lead to them. They are told in the order of the map, by inode.
#[derive(Default)]
pub(super) struct Links {
    owns: Vec<Own>,
    named: Vec<Named>,
    orphans: BTreeSet<InodeNo>,
}

/// All that is known of one inode number.
struct Link<'a> {
    ino: InodeNo,
    own: Option<Own>,
    /// The names that lead to it, by directory.
    named: &'a [Named],
    orphan: bool,
}

impl Links {
    pub fn inode(&mut self, ino: InodeNo, inode: &Inode) {
        debug_assert!(self.owns.last().is_none_or(|last| last.ino < ino), "inodes come in order");
        let (nlink, parent) = (inode.nlink, inode.parent);
        self.owns.push(Own { ino, parent, nlink, subdirectories: 0, kind: kind_of(inode.mode) });
    }

    pub fn orphan(&mut self, ino: InodeNo) {
        self.orphans.insert(ino);
    }

    /// A name in a directory, whose inode came just before if it has one.
    pub fn name(&mut self, dir: InodeNo, value: &NameValue) {
        self.named.push(Named { ino: value.ino, dir, kind: value.kind });
        if let Some(own) = self.owns.last_mut().filter(|own| own.ino == dir) {
            own.subdirectories += u32::from(value.kind == libc::DT_DIR);
        }
    }

    pub fn inodes(&self) -> u64 {
        self.owns.len() as u64
    }

    pub fn names(&self) -> u64 {
        self.named.len() as u64
    }

    /// The highest inode number that exists, or that a name or a mark speaks of.
    pub fn inode_max(&self) -> u64 {
        let owns = self.owns.last().map(|own| own.ino);
        let named = self.named.iter().map(|named| named.ino).max();
        owns.max(named).max(self.orphans.last().copied()).map_or(0, |ino| ino.0)
    }

    /// (place, what is wrong).
    pub fn problems(&mut self) -> Vec<(String, String)> {
        self.named.sort_unstable();
        let mut problems = Vec::new();
        let mut directories = Vec::new();
        let mut root = false;
        self.each(&mut |link| {
            root |= link.ino == InodeNo::ROOT && link.own.is_some();
            let found = match link.own {
                Some(own) => link.problems(own),
                None => link.problems_without_inode(),
            };
            problems.extend(found.into_iter().map(|what| (format!("inode {}", link.ino), what)));
            if let Some(own) = link.own.filter(|own| own.kind == libc::DT_DIR && !link.named.is_empty()) {
                directories.push((link.ino, own.parent));
            }
        });
        if !root {
            problems.push(("inode 1".to_owned(), "there is no root directory".to_owned()));
        }
        problems.extend(circles(&directories));
        problems
    }

    /// Visits every inode number that anything speaks of, in order; names must be sorted.
    fn each(&self, visit: &mut dyn FnMut(Link<'_>)) {
        let mut owns = self.owns.iter().copied().peekable();
        let mut named = &self.named[..];
        let mut orphans = self.orphans.iter().copied().peekable();
        loop {
            let next = [owns.peek().map(|own| own.ino), named.first().map(|name| name.ino), orphans.peek().copied()];
            let Some(ino) = next.into_iter().flatten().min() else { return };
            let (here, rest) = named.split_at(named.iter().take_while(|name| name.ino == ino).count());
            named = rest;
            let (own, orphan) = (owns.next_if(|own| own.ino == ino), orphans.next_if_eq(&ino).is_some());
            visit(Link { ino, own, named: here, orphan });
        }
    }
}

/// Directories whose way up does not end at the root, of all that have a name, with their parents, by number.
fn circles(directories: &[(InodeNo, InodeNo)]) -> Vec<(String, String)> {
    let place = |ino: InodeNo| directories.binary_search_by_key(&ino, |(ino, _)| *ino).ok();
    let mut reached: Vec<bool> = directories.iter().map(|(ino, _)| *ino == InodeNo::ROOT).collect();
    let mut problems = Vec::new();
    for start in 0..directories.len() {
        let mut way = BTreeSet::new();
        let mut at = Some(start);
        while let Some(here) = at.filter(|here| !reached[*here]) {
            if !way.insert(here) {
                problems.push((format!("inode {}", directories[start].0), "its way up goes in a circle".to_owned()));
                break;
            }
            at = place(directories[here].1);
        }
        way.into_iter().for_each(|here| reached[here] = true);
    }
    problems
}

impl Link<'_> {
    fn problems(&self, own: Own) -> Vec<String> {
        let mut problems = Vec::new();
        // One of each type that names give it is enough.
        let mut told = BTreeSet::from([own.kind]);
        for name in self.named.iter().filter(|name| told.insert(name.kind)) {
            problems.push(format!("is of type {}, a name in directory {} says {}", own.kind, name.dir, name.kind));
        }
        match (self.orphan, own.nlink) {
            (true, 1..) => problems.push(format!("is marked as an orphan and has {} links", own.nlink)),
            (false, 0) => problems.push("has no links and is not marked as an orphan".to_owned()),
            _ => {}
        }
        match own.kind {
            libc::DT_DIR => self.directory_problems(own, &mut problems),
            _ if own.nlink as usize != self.named.len() => {
                problems.push(format!("has {} links, {} names lead to it", own.nlink, self.named.len()));
            }
            _ if own.parent != InodeNo::NONE => problems.push("has a parent and is no directory".to_owned()),
            _ => {}
        }
        problems
    }

    fn directory_problems(&self, own: Own, problems: &mut Vec<String>) {
        let living = own.nlink > 0;
        let links = if living { 2 + own.subdirectories } else { own.subdirectories };
        if own.nlink != links {
            problems.push(format!("has {} links, by its subdirectories it has {links}", own.nlink));
        }
        let names = usize::from(living && self.ino != InodeNo::ROOT);
        if self.named.len() != names {
            problems.push(format!("a directory that {} names lead to, not {names}", self.named.len()));
        }
        let named = || self.named.first().map(|name| name.dir);
        let parent = if self.ino == InodeNo::ROOT { Some(InodeNo::ROOT) } else { named() };
        if let Some(parent) = parent.filter(|parent| *parent != own.parent) {
            problems.push(format!("its parent is {}, it is named in {parent}", own.parent));
        }
    }

    fn problems_without_inode(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(name) = self.named.first() {
            problems.push(format!("does not exist, yet directory {} has a name for it", name.dir));
        }
        if self.orphan {
            problems.push("does not exist, yet is marked as an orphan".to_owned());
        }
        problems
    }
}

const _: () = assert!(size_of::<Own>() == 32 && size_of::<Named>() == 24, "a check's memory is mostly these");
