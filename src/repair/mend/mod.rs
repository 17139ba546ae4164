//! Mending the map of files: what is left of it becomes a map that agrees with itself. Pure: entries come in, edits go out.
//!
//! [`FIXES`] is the table of what can be wrong. Looks at the map, in order: [`census`] finds what each inode is and what is wrong
//! with it; [`entries`], only where names and cookies of a directory do not agree, mends these by each other; then [`links`]
//! decides, without the map, which inodes and names stay and who has none; [`edit`], only where something is wrong, says what
//! changes. A map that is whole is looked at once, and nothing changes; so is a mended one.
//!
//! **No reader is given what is not known to be there**: contents that are lost are named as lost, a hole in a file of which
//! extents may be missing, with a tree node or with a batch, counts as lost unless what is there adds up to what the file takes,
//! what segments say of a lost batch counts there, and what they say of older ones does not: it was overwritten or cut off by then;
//! and a file without attributes of whose contents nothing is known is removed, not made empty.
//!
//! **Memory**: some 40 bytes an inode and 24 a name; one directory whose halves do not agree; and what is mended.

mod census;
mod contents;
mod edit;
mod entries;
mod fixes;
mod links;
mod paths;
#[cfg(test)]
mod tests;

pub use fixes::{FIXES, Fix};

use super::Touched;
use crate::base::clock::Time;
use crate::format::checkpoint::Birth;
use crate::format::ids::{InodeNo, Lsn, ObjectId};
use crate::format::key;
use bytes::Bytes;
use census::Census;
use edit::Editor;
use fixes::Is;
use links::Links;
use paths::Paths;
use std::collections::BTreeMap;

/// Files whose attributes are of after a batch that is lost, and for each whether its inline contents are of before it. What that batch
/// had of such a file may be missing, though no part of the tree is.
pub type AfterLoss = BTreeMap<InodeNo, bool>;

/// The new value of a key, or `None` for one that goes.
pub type Edits = BTreeMap<Bytes, Option<Bytes>>;

/// Of so many numbers at most it is asked whether something is known of a file of that number of which no key is left.
const ASKED_MAX: u64 = 1 << 24;

/// Keys from `from` up to `to`, which is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key that may be in it.
    pub from: Bytes,
    /// Behind the last.
    pub to: Bytes,
}

/// Gives every entry that is left, in the order of the keys, each key once. Returns the ranges in which entries may be missing. It
/// is called several times and says the same each time.
pub type Source<'a, E> = dyn FnMut(&mut dyn FnMut(Bytes, Bytes)) -> Result<Vec<KeyRange>, E> + 'a;

/// What else is known when a map is mended.
pub struct Known<'a> {
    /// How long an object is that is whole; `None` for one that is lost.
    pub whole: &'a dyn Fn(&ObjectId) -> Option<u32>,
    /// Where the objects that were written to an inode were in it when they were shipped: `offset` is of the object's first byte, `len`
    /// its length. One of which that is not known is left out, or has an offset that no file has.
    pub births: &'a dyn Fn(InodeNo) -> Vec<Birth>,
    /// Whether the map counts what it holds.
    pub counted: bool,
    /// The highest number that may have been given to an inode.
    pub inode_max: u64,
    /// Batches that are lost: after the first, up to and with the second.
    pub lost: &'a [(Lsn, Lsn)],
    /// Which files one of them may have changed.
    pub after_loss: &'a AfterLoss,
    /// What is made anew is made now.
    pub now: Time,
}

/// How a map is mended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// What changes.
    pub edits: Edits,
    /// How many files are not what they were, or may not be.
    pub touched: u64,
    /// The highest number of an inode, with those that were made.
    pub inode_max: u64,
}

/// Told of each file that is touched, in the order of the inodes.
pub type Tell<'a> = dyn FnMut(Touched) + 'a;

/// Mends a map. Tells of each file that is not what it was, or may not be; a filesystem's own matters are told of as inode 0.
pub fn mend<E>(source: &mut Source<'_, E>, known: &Known<'_>, tell: &mut Tell<'_>) -> Result<Mended, E> {
    let mut census = Census::new(known);
    let mut ranges = source(&mut |key, value| census.row(key, &value))?;
    ranges.sort_unstable_by(|a, b| a.from.cmp(&b.from));
    census.finish_inode();
    let mut edits: Edits = std::mem::take(&mut census.garbage).into_iter().map(|key| (key, None)).collect();
    entries::mend_entries(&mut census, source, &mut edits)?;
    let Census { mut links, mut done, found, recorded, mut usage, .. } = census;
    let born = |ino| (known.births)(ino).iter().any(|birth| contents::born_at(birth, known.whole).is_some());
    let also = born_alone(&links, &ranges, known, &born);
    let plan = links.resolve(&born, &also, &found, known.inode_max, &mut done);
    for ino in ranges.iter().flat_map(|range| links.inodes_in(range)) {
        done.note_once(ino, Is::Older);
    }
    let mut paths = Paths::new(&links, &plan, done.inodes().chain(plan.changed.iter().copied()));
    // For the names of those that are told of, too.
    if !plan.is_empty() || done.inodes().any(|ino| ino != InodeNo::NONE) {
        let mut more = Edits::new();
        let mut editor = Editor::new(known, (&links, &plan), &ranges, (&mut more, &mut done), &mut paths);
        laid_over(source, &edits, &mut |key, value| editor.row(key, &value))?;
        editor.make_missing();
        usage = editor.usage;
        edits.append(&mut more);
        let marks = plan.marks.iter().map(|(ino, put)| (key::orphan(*ino), put.then(Bytes::new)));
        edits.extend(marks);
    }
    if known.counted && recorded != Some(usage) {
        if edits.is_empty() {
            done.plain(InodeNo::NONE, Is::Usage);
        }
        edits.insert(key::usage(), Some(usage.encode()));
    }
    let inode_max = links.inode_max().max(known.inode_max);
    let touched = done.tell(&|ino| paths.path(ino), tell);
    Ok(Mended { edits, touched, inode_max })
}

/// Files of which nothing is left but what segments say of their contents.
fn born_alone(links: &Links, ranges: &[KeyRange], known: &Known<'_>, born: &dyn Fn(InodeNo) -> bool) -> Vec<InodeNo> {
    let mut asked = 0;
    let mut found = Vec::new();
    for KeyRange { from, to } in ranges {
        let first = from.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let all = (first.max(1)..=known.inode_max).map(InodeNo);
        let inside = all.skip_while(|ino| key::inode(*ino) < *from).take_while(|ino| key::inode(*ino) < *to);
        for ino in inside {
            asked += 1;
            if asked > ASKED_MAX {
                return found;
            }
            if links.own(ino).is_none() && born(ino) {
                found.push(ino);
            }
        }
    }
    found
}

/// Gives the entries of a map with edits laid over them.
fn laid_over<E>(source: &mut Source<'_, E>, edits: &Edits, each: &mut dyn FnMut(Bytes, Bytes)) -> Result<(), E> {
    let mut edits = edits.iter().peekable();
    source(&mut |key, value| {
        while let Some((edited, new)) = edits.next_if(|(edited, _)| **edited <= key) {
            if let Some(new) = new {
                each(edited.clone(), new.clone());
            }
            if *edited == key {
                return;
            }
        }
        each(key, value);
    })?;
    edits.filter_map(|(key, new)| Some((key, new.as_ref()?))).for_each(|(key, new)| each(key.clone(), new.clone()));
    Ok(())
}
