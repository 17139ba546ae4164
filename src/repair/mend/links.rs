//! What ties inodes together, as compact as the check has it; and how it is made to agree: which inodes there are and of what
//! type, which names stay, who is found without any.
//!
//! Memory: some 40 bytes an inode and 24 a name; beside that what is to be mended.

use super::KeyRange;
use super::census::FOUND;
use super::fixes::{Done, Is};
use crate::format::ids::InodeNo;
use crate::format::inode::NameValue;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// What an inode is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub ino: InodeNo,
    /// As it says itself; then the directory that has its name.
    pub parent: InodeNo,
    /// As it says itself.
    pub nlink: u32,
    /// Names that lead to it and stay.
    pub names: u32,
    /// Of those in it, the ones that are directories.
    pub subdirectories: u32,
    /// Its type, as in `d_type`; 0 if it is not known.
    pub kind: u8,
    /// Whether its attributes are there.
    pub exists: bool,
    pub has_entries: bool,
    pub has_contents: bool,
    /// Something about it is wrong, whatever others say of it.
    pub wrong: bool,
    /// Nothing of it stays.
    pub gone: bool,
}

/// What a name says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    pub ino: InodeNo,
    pub dir: InodeNo,
    pub kind: u8,
}

const _: () = assert!(size_of::<Own>() == 40 && size_of::<Named>() == 24, "the memory of mending is mostly these");

/// All inodes, in the order of their numbers, and all names.
#[derive(Default)]
pub(super) struct Links {
    pub owns: Vec<Own>,
    pub named: Vec<Named>,
    /// Inodes that are marked as orphans.
    pub marks: BTreeSet<InodeNo>,
}

/// Which of the names stay that lead from one directory to one inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stays {
    All,
    First,
    None,
}

/// What becomes of the names that lead from one directory to one inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    pub stays: Stays,
    /// The type that those that stay get.
    pub kind: u8,
    /// Why those go that do not stay.
    pub why: Is,
}

/// The directory of what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub ino: InodeNo,
    /// Its name in the root, if it is made.
    pub new: Option<Bytes>,
    /// Whom it gets.
    pub members: Vec<InodeNo>,
}

/// How the links are mended.
#[derive(Default)]
pub(super) struct Plan {
    /// Inodes that change, or whose directory entries do.
    pub changed: BTreeSet<InodeNo>,
    /// By directory and inode.
    pub names: BTreeMap<(InodeNo, InodeNo), Fate>,
    /// Marks of orphans that are put, or go.
    pub marks: BTreeMap<InodeNo, bool>,
    pub found: Option<Found>,
}

impl Plan {
    /// Whether nothing is to be mended.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.marks.is_empty()
    }
}

fn new_own(ino: InodeNo) -> Own {
    Own {
        ino,
        parent: InodeNo::NONE,
        nlink: 0,
        names: 0,
        subdirectories: 0,
        kind: 0,
        exists: false,
        has_entries: false,
        has_contents: false,
        wrong: true,
        gone: false,
    }
}

impl Links {
    /// A name in a directory.
    pub fn name(&mut self, dir: InodeNo, value: &NameValue) {
        self.named.push(Named { ino: value.ino, dir, kind: value.kind });
    }

    /// The highest number that anything speaks of.
    pub fn inode_max(&self) -> u64 {
        let owns = self.owns.iter().map(|own| own.ino).max();
        let named = self.named.iter().map(|named| named.ino).max();
        owns.max(named).max(self.marks.last().copied()).map_or(0, |ino| ino.0)
    }

    fn place(&self, ino: InodeNo) -> Option<usize> {
        self.owns.binary_search_by_key(&ino, |own| own.ino).ok()
    }

    /// An inode of which something is there.
    pub fn own(&self, ino: InodeNo) -> Option<&Own> {
        self.place(ino).map(|at| &self.owns[at])
    }

    /// The inodes that stay and of which a key may lie in a range.
    pub fn inodes_in<'a>(&'a self, range: &KeyRange) -> impl Iterator<Item = InodeNo> + use<'a> {
        let number = |key: &[u8]| key.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let (first, last) = (number(&range.from), number(&range.to));
        // What is shorter than a number ends before the keys of that number, or behind all of them.
        let last = match range.to.len() {
            0..8 if range.to.iter().any(|byte| *byte != 0) => u64::MAX,
            8 => last.saturating_sub(1),
            _ => last,
        };
        let from = self.owns.partition_point(|own| own.ino.0 < first);
        let inside = self.owns[from..].iter().take_while(move |own| own.ino.0 <= last);
        inside.filter(|own| !own.gone && own.ino != InodeNo::NONE).map(|own| own.ino)
    }

    /// An inode that stays.
    pub fn living(&self, ino: InodeNo) -> Option<&Own> {
        self.own(ino).filter(|own| !own.gone)
    }

    /// Something about an inode turned out to be wrong.
    pub fn is_wrong(&mut self, ino: InodeNo) {
        if let Some(place) = self.place(ino) {
            self.owns[place].wrong = true;
        }
    }

    fn is_dir(&self, ino: InodeNo) -> bool {
        self.living(ino).is_some_and(|own| own.kind == libc::DT_DIR)
    }

    /// The names that lead to an inode; they must be sorted.
    pub fn names_of(&self, ino: InodeNo) -> &[Named] {
        let from = self.named.partition_point(|named| named.ino < ino);
        let len = self.named[from..].partition_point(|named| named.ino == ino);
        &self.named[from..][..len]
    }

    /// Makes the links agree. `born` says whether something is known of the contents of a file without attributes, `also` are
    /// files of which nothing but that is known; `found` are the names in the root that begin like that of the directory
    /// for what is found; numbers above `inode_max` were never given.
    pub fn resolve(
        &mut self,
        born: &dyn Fn(InodeNo) -> bool,
        also: &[InodeNo],
        found: &BTreeMap<Bytes, InodeNo>,
        inode_max: u64,
        done: &mut Done,
    ) -> Plan {
        self.named.sort_unstable();
        let mut plan = Plan::default();
        self.complete(also);
        self.decide_types(born, done);
        self.choose_names(&mut plan, done);
        self.break_circles(&mut plan, done);
        let members = self.find_nameless(&mut plan, done);
        self.choose_found(members, found, inode_max, &mut plan, done);
        self.count_subdirectories(&plan);
        self.note_changes(&mut plan, done);
        plan
    }

    /// Adds those inodes of which only a name or a birth is known, and the root.
    fn complete(&mut self, also: &[InodeNo]) {
        let also: BTreeSet<InodeNo> = also.iter().copied().collect();
        let named = self.named.iter().map(|named| named.ino);
        let all = named.chain(also.iter().copied()).chain([InodeNo::ROOT]);
        let missing: BTreeSet<InodeNo> = all.filter(|ino| self.own(*ino).is_none()).collect();
        self.owns.extend(missing.iter().map(|ino| Own { has_contents: also.contains(ino), ..new_own(*ino) }));
        self.owns.sort_unstable_by_key(|own| own.ino);
    }

    /// Gives each inode a type, or says that nothing of it stays.
    fn decide_types(&mut self, born: &dyn Fn(InodeNo) -> bool, done: &mut Done) {
        for at in 0..self.owns.len() {
            let own = self.owns[at];
            if own.ino == InodeNo::ROOT {
                let fix = match own.kind {
                    _ if !own.exists => Some(Is::Root),
                    libc::DT_DIR => (own.parent != InodeNo::ROOT).then_some(Is::Parent),
                    _ => Some(Is::Type),
                };
                fix.into_iter().for_each(|fix| done.plain(own.ino, fix));
                let wrong = own.wrong || fix.is_some();
                self.owns[at] = Own { kind: libc::DT_DIR, parent: InodeNo::ROOT, wrong, ..own };
            } else if own.kind == 0 {
                self.decide_type(at, born, done);
            }
        }
    }

    fn decide_type(&mut self, at: usize, born: &dyn Fn(InodeNo) -> bool, done: &mut Done) {
        let own = self.owns[at];
        let mut named = self.names_of(own.ino).iter().map(|named| named.kind);
        let kind = match () {
            () if own.has_entries => Some(libc::DT_DIR),
            () if own.has_contents => Some(libc::DT_REG),
            () if own.exists => Some(named.find(|kind| *kind != libc::DT_LNK).unwrap_or(libc::DT_REG)),
            () if named.len() == 0 => born(own.ino).then_some(libc::DT_REG),
            () => named.find(|kind| match *kind {
                libc::DT_DIR | libc::DT_FIFO | libc::DT_SOCK => true,
                libc::DT_REG => born(own.ino),
                _ => false,
            }),
        };
        let fix = match kind {
            None => Is::Gone,
            Some(_) if own.exists => Is::Type,
            Some(_) => Is::Inode,
        };
        done.plain(own.ino, fix);
        self.owns[at].gone = kind.is_none();
        self.owns[at].kind = kind.unwrap_or(0);
    }

    /// Decides which names stay.
    fn choose_names(&mut self, plan: &mut Plan, done: &mut Done) {
        let mut from = 0;
        while from < self.named.len() {
            let ino = self.named[from].ino;
            let len = self.named[from..].partition_point(|named| named.ino == ino);
            let names = &self.named[from..from + len];
            from += len;
            let place = self.place(ino).expect("each that is named was added");
            let own = self.owns[place];
            let valid: Vec<Named> = names.iter().copied().filter(|named| self.is_dir(named.dir)).collect();
            if own.gone || ino == InodeNo::ROOT {
                let why = if own.gone { Is::Dangling } else { Is::Second };
                for named in valid {
                    plan.names.insert((named.dir, ino), Fate { stays: Stays::None, kind: own.kind, why });
                }
                continue;
            }
            for named in valid.iter().filter(|named| named.kind != own.kind) {
                done.plain(ino, Is::Type);
                plan.names.insert((named.dir, ino), Fate { stays: Stays::All, kind: own.kind, why: Is::Type });
            }
            self.owns[place].names = u32::try_from(valid.len()).unwrap_or(u32::MAX);
            if own.kind == libc::DT_DIR {
                let home = valid.iter().find(|named| named.dir == own.parent).or(valid.first()).map(|named| named.dir);
                self.keep_one(place, home, &valid, plan, done);
            }
        }
    }

    /// A directory has one name.
    fn keep_one(&mut self, place: usize, home: Option<InodeNo>, valid: &[Named], plan: &mut Plan, done: &mut Done) {
        let own = &mut self.owns[place];
        let Some(home) = home else { return };
        if valid.len() > 1 {
            done.plain(own.ino, Is::Second);
            for named in valid {
                let stays = if named.dir == home { Stays::First } else { Stays::None };
                plan.names.insert((named.dir, own.ino), Fate { stays, kind: own.kind, why: Is::Second });
            }
        }
        if own.parent != home {
            if own.exists {
                done.plain(own.ino, Is::Parent);
            }
            own.wrong = true;
        }
        (own.parent, own.names) = (home, 1);
    }

    /// Takes one directory out of each circle.
    fn break_circles(&mut self, plan: &mut Plan, done: &mut Done) {
        // 0: not looked at; else in which round, the root's being the first.
        let mut round = vec![0u32; self.owns.len()];
        let root = self.place(InodeNo::ROOT).expect("it was added");
        round[root] = 1;
        for start in 0..self.owns.len() {
            let this = u32::try_from(start + 2).expect("fewer inodes than that");
            let mut at = start;
            while round[at] == 0 && self.owns[at].kind == libc::DT_DIR && self.owns[at].names > 0 {
                round[at] = this;
                at = self.place(self.owns[at].parent).expect("it has the name");
            }
            if round[at] != this || self.owns[at].kind != libc::DT_DIR || self.owns[at].names == 0 {
                continue;
            }
            // `at` is in the circle; of those in it the lowest number is taken out.
            let (mut lowest, mut here) = (at, self.place(self.owns[at].parent).expect("it has the name"));
            while here != at {
                lowest = lowest.min(here);
                here = self.place(self.owns[here].parent).expect("it has the name");
            }
            let own = &mut self.owns[lowest];
            done.plain(own.ino, Is::Circle);
            let fate = Fate { stays: Stays::None, kind: own.kind, why: Is::Circle };
            plan.names.insert((own.parent, own.ino), fate);
            own.names = 0;
        }
    }

    /// Who stays and has no name, and is no orphan; and sets the marks of orphans right.
    fn find_nameless(&mut self, plan: &mut Plan, done: &mut Done) -> Vec<InodeNo> {
        let mut nameless = Vec::new();
        for own in self.owns.iter().filter(|own| !own.gone && own.ino != InodeNo::ROOT) {
            let marked = self.marks.contains(&own.ino);
            let was_removed = if own.exists { own.nlink == 0 } else { marked };
            let orphan = own.names == 0 && was_removed && !own.has_entries;
            if own.names == 0 && !orphan {
                done.plain(own.ino, Is::Nameless);
                nameless.push(own.ino);
            }
            if orphan != marked {
                done.plain(own.ino, Is::Orphans);
                plan.marks.insert(own.ino, orphan);
            }
        }
        for ino in &self.marks {
            if *ino == InodeNo::ROOT || self.living(*ino).is_none() {
                done.plain(*ino, Is::Orphans);
                plan.marks.insert(*ino, false);
            }
        }
        for ino in &nameless {
            let place = self.place(*ino).expect("it is one of them");
            self.owns[place].names = 1;
        }
        nameless
    }

    /// Finds or makes the directory for those without a name.
    fn choose_found(
        &mut self,
        members: Vec<InodeNo>,
        names: &BTreeMap<Bytes, InodeNo>,
        inode_max: u64,
        plan: &mut Plan,
        done: &mut Done,
    ) {
        if members.is_empty() {
            return;
        }
        let candidates = (1u64..).map(|n| match n {
            1 => Bytes::from_static(FOUND),
            n => [FOUND, format!("-{n}").as_bytes()].concat().into(),
        });
        let usable = |ino: InodeNo| {
            let here = self.is_dir(ino) && self.own(ino).is_some_and(|own| own.parent == InodeNo::ROOT);
            let fate = plan.names.get(&(InodeNo::ROOT, ino));
            here && !members.contains(&ino) && fate.is_none_or(|fate| fate.stays == Stays::All)
        };
        let goes = |ino: InodeNo| plan.names.get(&(InodeNo::ROOT, ino)).is_some_and(|fate| fate.stays == Stays::None);
        let mut made = None;
        for name in candidates {
            match names.get(&name) {
                Some(ino) if usable(*ino) => {
                    made = Some((*ino, None));
                    break;
                }
                Some(ino) if !goes(*ino) => {}
                _ => {
                    made = Some((InodeNo(self.inode_max().max(inode_max) + 1), Some(name)));
                    break;
                }
            }
        }
        let (ino, new) = made.expect("names do not end");
        done.note(ino, Is::Found, || format!("{} of them", members.len()));
        for member in &members {
            let place = self.place(*member).expect("it is one of them");
            let own = &mut self.owns[place];
            if own.kind == libc::DT_DIR {
                own.parent = ino;
            }
        }
        if new.is_some() {
            let own = Own { parent: InodeNo::ROOT, names: 1, kind: libc::DT_DIR, ..new_own(ino) };
            self.owns.push(own);
            plan.changed.insert(InodeNo::ROOT);
        }
        plan.changed.insert(ino);
        plan.changed.extend(&members);
        plan.found = Some(Found { ino, new, members });
    }

    fn count_subdirectories(&mut self, plan: &Plan) {
        for at in 0..self.owns.len() {
            let own = self.owns[at];
            let counts = own.kind == libc::DT_DIR && own.names > 0 && own.ino != InodeNo::ROOT;
            if let Some(place) = self.place(own.parent).filter(|_| counts) {
                self.owns[place].subdirectories += 1;
            }
        }
        debug_assert!(plan.found.as_ref().is_none_or(|found| self.own(found.ino).is_some()));
    }

    fn note_changes(&self, plan: &mut Plan, done: &mut Done) {
        plan.changed.extend(plan.names.keys().map(|(dir, _)| *dir));
        for own in &self.owns {
            let links = own.exists && !own.gone && own.nlink != own.links();
            let found = plan.found.as_ref().is_some_and(|found| [InodeNo::ROOT, found.ino].contains(&own.ino));
            if links && !found && !plan.marks.contains_key(&own.ino) {
                done.plain(own.ino, Is::Links);
            }
            if own.wrong || own.gone || links {
                plan.changed.insert(own.ino);
            }
        }
    }
}

impl Own {
    /// The number of links that it has.
    pub fn links(&self) -> u32 {
        match (self.kind, self.names) {
            (libc::DT_DIR, 0) if self.ino != InodeNo::ROOT => self.subdirectories,
            (libc::DT_DIR, _) => self.subdirectories.saturating_add(2),
            (_, names) => names,
        }
    }
}
