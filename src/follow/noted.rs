//! What batches say beyond their edits: which inodes they change, and what the filesystem holds and may hold after them.

use super::changed::Changed;
use crate::format::FormatError;
use crate::format::batch::{Batch, Edit, TreeId};
use crate::format::key;
use crate::format::usage::{Usage, UsageLimit};
use crate::map::Overlay;

/// See the module.
#[derive(Default)]
pub(super) struct Noted {
    pub changed: Changed,
    pub usage: Option<Usage>,
    pub usage_limit: Option<UsageLimit>,
}

impl Noted {
    /// A batch's changes of files over others, noted.
    pub fn apply(&mut self, layer: &mut Overlay, batch: Batch) -> Result<(), FormatError> {
        let (lsn, headers) = (batch.lsn, batch.headers());
        for (_, edit) in batch.edits.into_iter().filter(|(tree, _)| *tree == TreeId::Files) {
            self.note(&edit)?;
            layer.apply(lsn, &edit.resolve(lsn, &headers));
        }
        Ok(())
    }

    fn note(&mut self, edit: &Edit) -> Result<(), FormatError> {
        self.changed.note(edit);
        match edit {
            Edit::Put { key, value } if *key == key::usage() => self.usage = Some(Usage::decode(value)?),
            Edit::Put { key, value } if *key == key::limit() => self.usage_limit = Some(UsageLimit::decode(value)?),
            _ => {}
        }
        Ok(())
    }

    /// These batches were followed by others.
    pub fn follow_by(&mut self, newer: &Noted) {
        self.usage = newer.usage.or(self.usage);
        self.usage_limit = newer.usage_limit.or(self.usage_limit);
    }
}
