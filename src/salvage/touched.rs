//! What batches of the log touched: inodes and names, whatever became of them.

use crate::format::batch::{Batch, Edit, TreeId};
use crate::format::ids::InodeNo;
use crate::format::key::Key;
use crate::recovery::MountError;
use bytes::Bytes;
use std::collections::BTreeSet;

/// See the module.
#[derive(Default)]
pub(super) struct Touched {
    /// Inodes whose attributes, contents or extended attributes were changed.
    pub inodes: BTreeSet<InodeNo>,
    /// Names that were made or removed, with their directory.
    pub names: BTreeSet<(InodeNo, Bytes)>,
}

impl Touched {
    /// Takes in a batch.
    pub fn note(&mut self, batch: &Batch) {
        for edit in batch.edits.iter().filter(|(tree, _)| *tree == TreeId::Files).map(|(_, edit)| edit) {
            match edit {
                Edit::Put { key, .. } | Edit::Delete { key } => self.note_key(key),
                Edit::DeleteRange { from, .. } => self.note_key(from),
                Edit::OwnExtent { ino, .. } => {
                    self.inodes.insert(*ino);
                }
            }
        }
    }

    /// Takes in batches back to back, as the increment of a checkpoint holds them.
    pub fn note_all(&mut self, bytes: &Bytes) -> Result<(), MountError> {
        let mut at = 0;
        while at < bytes.len() {
            let (batch, len) = Batch::decode(bytes, at).map_err(|e| MountError::Damaged {
                place: "the changes of a checkpoint".to_owned(),
                reason: format!("a bad batch at offset {at}: {e}"),
            })?;
            self.note(&batch);
            at += len;
        }
        Ok(())
    }

    fn note_key(&mut self, key: &Bytes) {
        match Key::decode(key) {
            Ok(Key::Name(dir, name)) => {
                self.names.insert((dir, name));
            }
            Ok(Key::Inode(ino) | Key::Inline(ino) | Key::Xattr(ino, _) | Key::Extent(ino, _)) => {
                self.inodes.insert(ino);
            }
            // A position tells what its name tells; an orphan has no name; what is no key is the end of a range of some.
            Ok(Key::Cookie(..) | Key::Orphan(_) | Key::Usage | Key::Limit) | Err(_) => {}
        }
    }
}
