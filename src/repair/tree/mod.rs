//! What is left of a map: its tree, read around damage, with later changes over it.
//!
//! Each node is tried in the state directory and in the store. A node that neither has whole, or that does not fit where it
//! stands (its level, its first key, keys behind its end), is a **lost range** of keys. For the first lost range every node
//! segment of both is scanned once; `plan.rs` has the rule by which nodes that were found make up for a lost range, and its
//! limits. What a scan remembers of a node is its place and its span, some 200 bytes; contents are read again when they are
//! given out. So memory grows with the number of nodes, and not with what is in them.
//!
//! **Nothing here believes a count or a pointer.** Levels fall by one from node to child, and the keys of a child lie between
//! its separators, so no node is entered twice and nothing goes round; a node is at most 256 KiB long; a segment is
//! read a window at a time.
//!
//! A store that does not answer ends it: that is no damage.

mod copies;
mod frames;
mod lineage;
mod plan;
mod scan;
#[cfg(test)]
mod tests;
mod walk;

use super::{Damaged, RepairError, differs};
use crate::format::batch::TreeId;
use crate::format::ids::{NodePtr, Uuid};
use crate::format::key::KEY_BYTES_MAX;
use crate::map::{Laid, Overlay};
use crate::media::Media;
use crate::store::Store;
use bytes::Bytes;
use copies::Copies;
use scan::Scanned;
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use walk::Walk;

/// A range of keys whose node is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The first key that may be missing, or be what it was once.
    pub from: Bytes,
    /// Behind the last.
    pub to: Bytes,
    /// The segment with the node; "root" when nothing says where the tree begins.
    pub place: String,
    /// What is wrong there.
    pub what: String,
    /// Entries that were found for it elsewhere, before later changes were laid over them. They may be those that it had, older
    /// ones, or some that had been deleted.
    pub returned: u64,
}

/// Reads trees around damage. What it says is the same each time, as long as what is stored is.
pub struct Trees {
    copies: Copies,
    /// All nodes of all segments, once there was need for it.
    scanned: OnceCell<Scanned>,
    /// What each walk gave, by its root, so that the next one must give the same.
    given: RefCell<HashMap<Walked, u64>>,
}

/// A walk that is made more than once.
type Walked = (bool, Option<Option<NodePtr>>);

/// The keys a map may have: from, and behind the last. Keys of files begin with the number of an inode, whose first byte is 0;
/// keys of space with a kind that is not. So nodes of the two are told apart.
fn bounds(tree: TreeId) -> (Bytes, Bytes) {
    match tree {
        TreeId::Files => (Bytes::new(), Bytes::from_static(&[1])),
        TreeId::Space => (Bytes::from_static(&[1]), Bytes::from_static(&[0xff; KEY_BYTES_MAX + 1])),
    }
}

impl Trees {
    /// The trees of a filesystem, of which nodes lie in the state directory, if there is one, and in the store.
    pub fn new(uuid: Uuid, state: Option<Arc<dyn Media>>, store: Arc<dyn Store>) -> Trees {
        Trees { copies: Copies::new(uuid, state, store), scanned: OnceCell::new(), given: RefCell::default() }
    }

    /// Gives every entry of a map, in the order of the keys: those of the tree under `root` with `overlay` over them, or what is left
    /// of them. A `root` of `None` is one that is lost; `Some(None)` is an empty tree. Returns what is lost, in the order of the
    /// keys.
    ///
    /// # Errors
    /// When disk or store fail in another way than by damage, and when a walk that was made before gives something else now: what
    /// was concluded from it would not fit what is built.
    pub fn each(
        &self,
        tree: TreeId,
        root: Option<Option<NodePtr>>,
        overlay: &Overlay,
        each: &mut dyn FnMut(Bytes, Bytes),
    ) -> Result<Vec<Lost>, RepairError> {
        let mut laid = Laid::new(overlay);
        let mut all = DefaultHasher::new();
        let mut give = |key: Bytes, value: Bytes| {
            (&key, &value).hash(&mut all);
            laid.entry(key, value, each);
        };
        let mut walk = Walk::new(&self.copies, &self.scanned, &mut give);
        let (from, to) = bounds(tree);
        match root {
            Some(Some(root)) => walk.root(&root, &from, &to)?,
            Some(None) => {}
            None => walk.lose(None, (&from, &to), ("root".to_owned(), "nothing says where it is".to_owned()))?,
        }
        let lost = walk.finish();
        for Lost { from, to, returned, .. } in &lost {
            (from, to, returned).hash(&mut all);
        }
        let all = all.finish();
        if *self.given.borrow_mut().entry((tree == TreeId::Files, root)).or_insert(all) != all {
            return Err(differs("its tree"));
        }
        laid.finish(each);
        Ok(lost)
    }

    /// The segments and files in which damage was met so far.
    pub fn damaged(&self) -> Vec<Damaged> {
        self.copies.damaged()
    }
}
