//! Mending the map of files: what is left of it becomes a map that agrees with itself. Pure: entries come in, edits go out.

use super::Touched;
use crate::base::clock::Time;
use crate::format::checkpoint::Birth;
use crate::format::ids::{InodeNo, ObjectId};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Keys from `from` up to `to`, which is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key that may be in it.
    pub from: Bytes,
    /// Behind the last.
    pub to: Bytes,
}

/// Gives every entry that is left, in the order of the keys, each key once. Returns the ranges, in order and apart from one
/// another, in which entries may be missing. It is called several times and says the same each time.
pub type Source<'a, E> = dyn FnMut(&mut dyn FnMut(Bytes, Bytes)) -> Result<Vec<KeyRange>, E> + 'a;

/// What else is known when a map is mended.
pub struct Known<'a> {
    /// How long an object is that is whole; `None` for one that is lost.
    pub whole: &'a dyn Fn(&ObjectId) -> Option<u32>,
    /// Where the objects that are whole and were written to an inode were in it when they were shipped; `len` is of the extent.
    pub births: &'a dyn Fn(InodeNo) -> Vec<Birth>,
    /// Whether the map counts what it holds.
    pub counted: bool,
    /// The highest number that may have been given to an inode.
    pub inode_max: u64,
    /// What is made anew is made now.
    pub now: Time,
}

/// How a map is mended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// What changes: the new value of a key, or `None` for one that goes.
    pub edits: BTreeMap<Bytes, Option<Bytes>>,
    /// How many files are not what they were, or may not be.
    pub touched: u64,
    /// The highest number of an inode, with those that were made.
    pub inode_max: u64,
}

/// Told of each file that is touched, in the order of the inodes.
pub type Tell<'a> = dyn FnMut(Touched) + 'a;
