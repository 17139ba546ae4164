//! The table of what can be wrong with a map of files and what is done about it; and what was done, file by file.

use super::{Tell, Touched};
use crate::format::ids::InodeNo;
use std::collections::BTreeMap;

/// One kind of fix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fix {
    /// Its name.
    pub id: &'static str,
    /// What is wrong.
    pub finds: &'static str,
    /// What is done about it.
    pub does: &'static str,
}

macro_rules! fixes {
    ($($name:ident = $id:literal: $finds:literal => $does:literal,)*) => {
        /// All of them by name; each is its place in [`FIXES`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Is { $($name,)* }

        /// All that can be fixed.
        pub const FIXES: &[Fix] = &[$(Fix { id: $id, finds: $finds, does: $does },)*];
    };
}

fixes! {
    Garbage = "garbage": "an entry makes no sense" => "it was dropped",
    Inode = "inode": "its attributes are lost" => "they were made anew from what is known, for root alone",
    Gone = "gone": "its attributes are lost, and nothing tells what it was" => "what is left of it was removed, with its names",
    Type = "type": "its type is none, or another than its name says" => "the two agree now",
    Entries = "entries": "the names and the order of a directory do not agree" => "each was mended by the other",
    Impossible = "impossible": "a name that no file can have" => "it was removed",
    Dangling = "dangling": "a name for what does not exist" => "it was removed",
    Second = "second": "a directory with several names" => "it kept one",
    Circle = "circle": "directories that contain each other" => "one was taken out",
    Nameless = "nameless": "no name leads to it" => "it was given one in the directory of what was found",
    Orphans = "orphans": "it has no name, or is marked to have none, and not both" => "the mark is right now",
    Root = "root": "there is no root directory" => "it was made anew",
    Found = "found": "files without names need a place" => "this directory was made, or given more names",
    Links = "links": "a wrong number of links" => "it was counted anew",
    Parent = "parent": "a wrong directory above it" => "it is the one that has its name",
    Cookie = "cookie": "positions of new names in it that are not free" => "they are now",
    Blocks = "blocks": "a wrong sum of what it takes" => "it was counted anew",
    Marks = "marks": "marks of extended attributes that are not those it has" => "they are right now",
    Acl = "acl": "an access control list that is none, or another than its mode" => "it was dropped, or the mode follows it",
    Target = "target": "a symbolic link as long as its target is not" => "its size is right now",
    Stray = "stray": "names in what is no directory, or contents of what is no regular file" => "they were dropped",
    Inline = "inline": "contents beside its attributes that do not fit them" => "they were cut, or its size follows them",
    Overlap = "overlap": "two pieces of contents in one place" => "the newer one stays",
    Beyond = "beyond": "contents or a size beyond its end" => "they were cut off",
    Lost = "lost": "contents that are lost" => "they cannot be read until something else is written there",
    Births = "births": "it is not known any more where its contents are" => "what the store's segments say is there was put back; it may be older than the last change",
    Holes = "holes": "more contents are missing than can be named" => "the rest of it was cut off, or reads as zeros",
    Older = "older": "a tree node with a part of it is lost" => "what older nodes had of that was put back; it may be older than it was, or have been removed",
    Missed = "missed": "a batch of changes of it may be lost" => "what that was to change may be what it was before, or cannot be read",
    Usage = "usage": "a wrong sum of all files" => "it was counted anew",
    Limit = "limit": "the limit of the filesystem makes no sense" => "there is none now",
}

/// Of one kind of fix to one file so many details are told.
const DETAILS_MAX: usize = 3;

/// How often one kind of fix was made to a file.
#[derive(Default)]
struct Times {
    count: u64,
    details: Vec<String>,
}

/// What was done to which inode. Some hundred bytes for each that was touched, however much was done to it.
#[derive(Default)]
pub(super) struct Done(BTreeMap<InodeNo, BTreeMap<Is, Times>>);

impl Done {
    /// Something was done to an inode.
    pub fn note(&mut self, ino: InodeNo, fix: Is, detail: impl FnOnce() -> String) {
        let times = self.0.entry(ino).or_default().entry(fix).or_default();
        times.count += 1;
        if times.details.len() < DETAILS_MAX {
            let detail = detail();
            if !detail.is_empty() {
                times.details.push(detail);
            }
        }
    }

    /// The same, without a detail.
    pub fn plain(&mut self, ino: InodeNo, fix: Is) {
        self.note(ino, fix, String::new);
    }

    /// The same, however often it is said.
    pub fn note_once(&mut self, ino: InodeNo, fix: Is) {
        self.0.entry(ino).or_default().entry(fix).or_default().count = 1;
    }

    /// All that were touched.
    pub fn inodes(&self) -> impl Iterator<Item = InodeNo> + '_ {
        self.0.keys().copied()
    }

    /// Tells of each inode that was touched, with its path; how many they were.
    pub fn tell(self, path: &dyn Fn(InodeNo) -> Option<String>, tell: &mut Tell<'_>) -> u64 {
        let touched = self.0.len() as u64;
        for (ino, fixes) in self.0 {
            let what = fixes.into_iter().map(|(fix, times)| sentence(FIXES[fix as usize], &times)).collect();
            tell(Touched { ino, path: path(ino), what });
        }
        touched
    }
}

fn sentence(fix: Fix, times: &Times) -> String {
    let Fix { finds, does, .. } = fix;
    let more = times.count - times.details.len() as u64;
    match (times.details.join("; "), more) {
        (details, _) if details.is_empty() => format!("{finds}: {does}"),
        (details, 0) => format!("{finds}: {does} ({details})"),
        (details, more) => format!("{finds}: {does} ({details}; and {more} more)"),
    }
}
