//! What ties inodes together: names, link counts, parents, orphans.

use crate::format::ids::InodeNo;
use crate::format::inode::{Inode, NameValue};
use std::collections::{BTreeMap, BTreeSet};

/// The type of an inode as a directory entry shows it (`d_type`).
pub(super) fn kind_of(mode: u32) -> u8 {
    u8::try_from((mode & libc::S_IFMT) >> 12).expect("four bits")
}

/// What an inode says of itself.
#[derive(Clone, Copy)]
struct Own {
    kind: u8,
    nlink: u32,
    parent: InodeNo,
}

#[derive(Default)]
struct Link {
    own: Option<Own>,
    names: u32,
    /// Names in it that say they are directories.
    subdirectories: u32,
    /// A directory that names it, and the type it says.
    named: Option<(InodeNo, u8)>,
    /// Another type that some name says.
    other_kind: Option<(InodeNo, u8)>,
    orphan: bool,
}

/// All inodes and the names that lead to them.
#[derive(Default)]
pub(super) struct Links {
    by_inode: BTreeMap<InodeNo, Link>,
    names: u64,
}

impl Links {
    pub fn inode(&mut self, ino: InodeNo, inode: &Inode) {
        let own = Own { kind: kind_of(inode.mode), nlink: inode.nlink, parent: inode.parent };
        self.by_inode.entry(ino).or_default().own = Some(own);
    }

    pub fn orphan(&mut self, ino: InodeNo) {
        self.by_inode.entry(ino).or_default().orphan = true;
    }

    pub fn name(&mut self, dir: InodeNo, value: &NameValue) {
        self.names += 1;
        if value.kind == libc::DT_DIR {
            self.by_inode.entry(dir).or_default().subdirectories += 1;
        }
        let link = self.by_inode.entry(value.ino).or_default();
        link.names += 1;
        let (_, kind) = *link.named.get_or_insert((dir, value.kind));
        if kind != value.kind {
            link.other_kind = Some((dir, value.kind));
        }
    }

    pub fn inodes(&self) -> u64 {
        self.by_inode.values().filter(|link| link.own.is_some()).count() as u64
    }

    pub fn names(&self) -> u64 {
        self.names
    }

    pub fn inode_max(&self) -> u64 {
        self.by_inode.keys().next_back().map_or(0, |ino| ino.0)
    }

    /// (place, what is wrong).
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        for (ino, link) in &self.by_inode {
            let found = match link.own {
                Some(own) => link.problems(*ino, own),
                None => link.problems_without_inode(),
            };
            problems.extend(found.into_iter().map(|what| (format!("inode {ino}"), what)));
        }
        if self.by_inode.get(&InodeNo::ROOT).is_none_or(|root| root.own.is_none()) {
            problems.push(("inode 1".to_owned(), "there is no root directory".to_owned()));
        }
        problems.extend(self.circles());
        problems
    }

    /// Directories whose way up does not end at the root.
    fn circles(&self) -> Vec<(String, String)> {
        let mut reached = BTreeSet::from([InodeNo::ROOT]);
        let mut problems = Vec::new();
        for ino in self.by_inode.keys() {
            let mut way = BTreeSet::new();
            let mut at = *ino;
            while let Some(parent) = self.named_directory(at).filter(|_| !reached.contains(&at)) {
                if !way.insert(at) {
                    problems.push((format!("inode {ino}"), "its way up goes in a circle".to_owned()));
                    break;
                }
                at = parent;
            }
            reached.extend(way);
        }
        problems
    }

    fn named_directory(&self, ino: InodeNo) -> Option<InodeNo> {
        let link = self.by_inode.get(&ino)?;
        let own = link.own.filter(|own| own.kind == libc::DT_DIR && link.names > 0)?;
        Some(own.parent)
    }
}

impl Link {
    fn problems(&self, ino: InodeNo, own: Own) -> Vec<String> {
        let mut problems = Vec::new();
        for (dir, kind) in [self.named, self.other_kind].into_iter().flatten() {
            if kind != own.kind {
                problems.push(format!("is of type {}, a name in directory {dir} says {kind}", own.kind));
            }
        }
        match (self.orphan, own.nlink) {
            (true, 1..) => problems.push(format!("is marked as an orphan and has {} links", own.nlink)),
            (false, 0) => problems.push("has no links and is not marked as an orphan".to_owned()),
            _ => {}
        }
        match own.kind {
            libc::DT_DIR => self.directory_problems(ino, own, &mut problems),
            _ if own.nlink != self.names => {
                problems.push(format!("has {} links, {} names lead to it", own.nlink, self.names));
            }
            _ if own.parent != InodeNo::NONE => problems.push("has a parent and is no directory".to_owned()),
            _ => {}
        }
        problems
    }

    fn directory_problems(&self, ino: InodeNo, own: Own, problems: &mut Vec<String>) {
        let living = own.nlink > 0;
        let links = if living { 2 + self.subdirectories } else { self.subdirectories };
        if own.nlink != links {
            problems.push(format!("has {} links, by its subdirectories it has {links}", own.nlink));
        }
        let names = u32::from(living && ino != InodeNo::ROOT);
        if self.names != names {
            problems.push(format!("a directory that {} names lead to, not {names}", self.names));
        }
        let parent = if ino == InodeNo::ROOT { Some(InodeNo::ROOT) } else { self.named.map(|(dir, _)| dir) };
        if let Some(parent) = parent.filter(|parent| *parent != own.parent) {
            problems.push(format!("its parent is {}, it is named in {parent}", own.parent));
        }
    }

    fn problems_without_inode(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some((dir, _)) = self.named {
            problems.push(format!("does not exist, yet directory {dir} has a name for it"));
        }
        if self.orphan {
            problems.push("does not exist, yet is marked as an orphan".to_owned());
        }
        problems
    }
}
