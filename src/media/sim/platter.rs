//! What a disk surely holds, what may or may not be on it, and so what it can hold after a power cut.

use super::content::{Content, Fill, Patch};
use super::image::Image;
use super::log::{DiskCall, FileNo};
use super::plan::{Keep, Limits, Plan, plans};
use crate::media::name::{folder_of, folders_down_to};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// The durable state of a disk and all changes that are not durable yet, in the order in which they were made.
#[derive(Clone)]
pub struct Platter {
    names: BTreeMap<Arc<str>, FileNo>,
    dirs: Arc<BTreeSet<Arc<str>>>,
    contents: BTreeMap<FileNo, Content>,
    pending: Vec<Atom>,
    /// What the file last removed held: bytes that may turn up in a file that grew.
    old: Content,
}

/// A change that a crash keeps or loses on its own.
#[derive(Clone)]
enum Atom {
    Write { file: FileNo, patch: Arc<Patch> },
    Create { name: Arc<str>, file: FileNo },
    Rename { from: Arc<str>, to: Arc<str>, file: FileNo },
    Remove { name: Arc<str> },
    MakeDir { name: Arc<str> },
}

impl Atom {
    /// The folder whose sync makes it durable; `None` for data.
    fn folder(&self) -> Option<&str> {
        match self {
            Atom::Write { .. } => None,
            Atom::Create { name, .. } | Atom::Remove { name } | Atom::MakeDir { name } => Some(folder_of(name)),
            Atom::Rename { to, .. } => Some(folder_of(to)),
        }
    }

    fn is_write_of(&self, number: FileNo) -> bool {
        matches!(self, Atom::Write { file, .. } if *file == number)
    }
}

/// How the bytes between a file's old and new length look when the length arrived and the bytes did not.
#[derive(Clone, Copy, PartialEq)]
enum Growth {
    /// The length did not arrive either.
    None,
    Zeros,
    Old,
}

/// What a disk holds after a power cut.
#[derive(Clone, Debug)]
pub struct Crashed {
    /// What a new process finds.
    pub image: Image,
    /// Bytes written and not kept.
    pub bytes_lost: u64,
    /// Creations, renames, removals and new folders not kept.
    pub names_lost: u64,
    /// Which changes were kept.
    pub plan: Plan,
}

impl Platter {
    /// A disk that holds `image`, all of it durable.
    pub fn new(image: &Image) -> Platter {
        let numbered = || (0..).map(FileNo).zip(image.files());
        Platter {
            names: numbered().map(|(file, (name, _))| (Arc::clone(name), file)).collect(),
            dirs: Arc::clone(image.dirs()),
            contents: numbered().map(|(file, (_, content))| (file, content.clone())).collect(),
            pending: Vec::new(),
            old: Content::default(),
        }
    }

    /// The next call of the run.
    pub fn apply(&mut self, call: &DiskCall) {
        match call.clone() {
            DiskCall::Create { name, file } => {
                self.contents.insert(file, Content::default());
                self.pending.push(Atom::Create { name, file });
            }
            // A file no name can lead to any more is no longer kept.
            DiskCall::Write { file, patch } if self.contents.contains_key(&file) => {
                self.pending.push(Atom::Write { file, patch });
            }
            DiskCall::Write { .. } => {}
            DiskCall::Sync { file } => self.sync(file),
            DiskCall::SyncFailed { file } => self.pending.retain(|atom| !atom.is_write_of(file)),
            DiskCall::Rename { from, to, file } => self.pending.push(Atom::Rename { from, to, file }),
            DiskCall::Remove { name } => self.pending.push(Atom::Remove { name }),
            DiskCall::MakeDir { name } => self.pending.push(Atom::MakeDir { name }),
            DiskCall::SyncDir { dir } => self.sync_dir(&dir),
        }
    }

    fn sync(&mut self, file: FileNo) {
        let Some(content) = self.contents.get_mut(&file) else { return };
        self.pending.retain(|atom| match atom {
            Atom::Write { file: other, patch } if *other == file => {
                content.apply(patch);
                false
            }
            _ => true,
        });
    }

    fn sync_dir(&mut self, dir: &str) {
        let (now, later) = self.pending.drain(..).partition(|atom| atom.folder() == Some(dir));
        self.pending = later;
        let mut dirs = Arc::clone(&self.dirs);
        for atom in &now {
            apply_name(atom, &mut self.names, &mut dirs);
        }
        self.dirs = dirs;
        self.forget_unreachable();
    }

    /// Drops files that neither a durable name nor one that may become durable leads to.
    fn forget_unreachable(&mut self) {
        let named = self.names.values().copied();
        let pending = self.pending.iter().filter_map(|atom| match atom {
            Atom::Create { file, .. } | Atom::Rename { file, .. } => Some(*file),
            Atom::Write { .. } | Atom::Remove { .. } | Atom::MakeDir { .. } => None,
        });
        let reachable: BTreeSet<FileNo> = named.chain(pending).collect();
        let old = &mut self.old;
        self.contents.retain(|file, content| {
            let keep = reachable.contains(file);
            if !keep && !content.is_empty() {
                *old = content.clone();
            }
            keep
        });
        let contents = &self.contents;
        self.pending.retain(|atom| !matches!(atom, Atom::Write { file, .. } if !contents.contains_key(file)));
    }

    /// What is surely there.
    pub fn durable(&self) -> Image {
        self.crash(&Plan::Nothing, Growth::None).0.image
    }

    /// What the disk may hold if the power goes now: distinct images, as many as `limits` allow. `point` varies the
    /// random ones.
    pub fn crashes<'a>(&'a self, limits: &Limits, point: u64) -> impl Iterator<Item = Crashed> + use<'a> {
        let writes: Vec<Option<u64>> = self.pending.iter().map(Atom::sectors).collect();
        let mut seen = HashSet::new();
        let images = plans(&writes, limits, point).into_iter().flat_map(|plan| self.crashes_of(&plan));
        images.filter(move |crashed| seen.insert(crashed.image.hash()))
    }

    fn crashes_of(&self, plan: &Plan) -> impl Iterator<Item = Crashed> + use<> {
        let (first, growth_lost) = self.crash(plan, Growth::None);
        let grown = |growth| growth_lost.then(|| self.crash(plan, growth).0);
        [Some(first), grown(Growth::Zeros), grown(Growth::Old)].into_iter().flatten()
    }

    /// How many changes are not durable.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The image a plan leaves, and whether it lost the growth of a file.
    fn crash(&self, plan: &Plan, growth: Growth) -> (Crashed, bool) {
        let mut names = std::borrow::Cow::Borrowed(&self.names);
        let mut dirs = Arc::clone(&self.dirs);
        let mut touched: Vec<(FileNo, Content)> = Vec::new();
        let (mut bytes_lost, mut names_lost, mut growth_lost) = (0, 0, false);
        for (index, atom) in self.pending.iter().enumerate() {
            let keep = plan.keep(index);
            let Atom::Write { file, patch } = atom else {
                match keep {
                    Keep::Whole => apply_name(atom, names.to_mut(), &mut dirs),
                    Keep::Nothing | Keep::Sectors(_) => names_lost += 1,
                }
                continue;
            };
            let content = self.touch(&mut touched, *file, growth);
            match keep {
                Keep::Whole => content.apply(patch),
                Keep::Nothing => bytes_lost += patch.len(),
                Keep::Sectors(set) => bytes_lost += patch.len() - content.apply_torn(patch, |n| set.has(n)),
            }
            growth_lost |= !matches!(keep, Keep::Whole) && content.len() < patch.end();
        }
        let image = self.image(&names, &dirs, &touched);
        (Crashed { image, bytes_lost, names_lost, plan: plan.clone() }, growth_lost)
    }

    /// The file as this crash builds it, from what is durable of it and, if so wanted, its last length.
    fn touch<'a>(&self, touched: &'a mut Vec<(FileNo, Content)>, file: FileNo, growth: Growth) -> &'a mut Content {
        let index = touched.iter().position(|(other, _)| *other == file).unwrap_or_else(|| {
            let mut content = self.contents[&file].clone();
            match growth {
                Growth::None => {}
                Growth::Zeros => content.grow(self.length_of(file), Fill::Zeros),
                Growth::Old => content.grow(self.length_of(file), Fill::Old(&self.old)),
            }
            touched.push((file, content));
            touched.len() - 1
        });
        &mut touched[index].1
    }

    fn length_of(&self, number: FileNo) -> u64 {
        let end = |atom: &Atom| match atom {
            Atom::Write { file, patch } if *file == number => patch.end(),
            _ => 0,
        };
        self.pending.iter().map(end).max().unwrap_or(0)
    }

    fn image(
        &self,
        names: &BTreeMap<Arc<str>, FileNo>,
        dirs: &Arc<BTreeSet<Arc<str>>>,
        touched: &[(FileNo, Content)],
    ) -> Image {
        let content = |file: &FileNo| {
            let changed = touched.iter().find(|(other, _)| other == file);
            changed.map_or_else(|| self.contents[file].clone(), |(_, content)| content.clone())
        };
        // A folder that is lost takes with it all that it held.
        let there = |folder: &str| folders_down_to(folder).all(|folder| dirs.contains(folder));
        let found = names.iter().filter(|(name, _)| there(folder_of(name)));
        let files = found.map(|(name, file)| (Arc::clone(name), content(file))).collect();
        if dirs.iter().all(|dir| there(dir)) {
            return Image::new(files, dirs);
        }
        let dirs = dirs.iter().filter(|dir| there(dir)).cloned().collect();
        Image::new(files, &Arc::new(dirs))
    }
}

impl Atom {
    fn sectors(&self) -> Option<u64> {
        match self {
            Atom::Write { patch, .. } => Some(patch.sectors()),
            _ => None,
        }
    }
}

fn apply_name(atom: &Atom, names: &mut BTreeMap<Arc<str>, FileNo>, dirs: &mut Arc<BTreeSet<Arc<str>>>) {
    match atom {
        Atom::Write { .. } => {}
        Atom::Create { name, file } => {
            names.insert(Arc::clone(name), *file);
        }
        Atom::Rename { from, to, file } => {
            if names.get(from) == Some(file) {
                names.remove(from);
            }
            names.insert(Arc::clone(to), *file);
        }
        Atom::Remove { name } => {
            names.remove(name);
        }
        Atom::MakeDir { name } => {
            Arc::make_mut(dirs).insert(Arc::clone(name));
        }
    }
}
