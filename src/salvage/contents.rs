//! The bytes of a file, as far as they can be had.

use super::{Found, Salvage, damaged};
use crate::format::batch::TreeId;
use crate::format::ids::ObjectId;
use crate::format::inode::Extent;
use crate::format::key::{self, Key};
use crate::recovery::MountError;
use bytes::Bytes;
use std::cell::Cell;

/// Some bytes of a file.
pub struct Piece {
    /// Where they belong in the file.
    pub offset: u64,
    /// The bytes.
    pub bytes: Bytes,
}

/// Bytes of a file that cannot be had.
#[derive(Debug, PartialEq, Eq)]
pub struct Missing {
    /// Where they belong in the file.
    pub offset: u64,
    /// How many.
    pub len: u64,
    /// Why.
    pub reason: String,
}

impl Salvage {
    /// Gives all bytes of a regular file to `write`, in order, but for holes. Says which of them cannot be had; ends with the
    /// first error of `write`.
    pub fn read<E>(
        &self,
        found: &Found,
        write: &mut dyn FnMut(Piece) -> Result<(), E>,
    ) -> Result<Result<Vec<Missing>, E>, MountError> {
        let (ino, size) = (found.ino, found.inode.size);
        // Where the tree cannot be asked it cannot be asked for extents either, and that is told below.
        if let Ok(Some(bytes)) = self.get(TreeId::Files, &key::inline(ino)) {
            return Ok(write(Piece { offset: 0, bytes }).map(|()| Vec::new()));
        }
        let (mut missing, mut failed) = (Vec::new(), None);
        let at = Cell::new(0);
        let mut extent = |key: &Bytes, value: &Bytes| {
            let (Key::Extent(_, offset), extent) =
                (Key::decode(key).map_err(damaged)?, Extent::decode(value).map_err(damaged)?)
            else {
                return Ok(true);
            };
            // The last block of a file may have more than the file.
            let len = u64::from(extent.len).min(size.saturating_sub(offset));
            at.set(offset + len);
            match self.object(&extent) {
                Ok(bytes) => {
                    let bytes = bytes.slice(..usize::try_from(len).unwrap_or(bytes.len()).min(bytes.len()));
                    failed = write(Piece { offset, bytes }).err();
                }
                Err(reason) => missing.push(Missing { offset, len, reason }),
            }
            Ok(failed.is_none())
        };
        if let Err(e) = self.scan(TreeId::Files, key::extents_of(ino), &mut extent) {
            // What was changed lately is here all the same; what lies between is not to be known.
            let from = at.get();
            let rest = (key::extent(ino, from), key::extents_of(ino).1);
            self.scan_changes(TreeId::Files, rest, &mut extent)?;
            missing.push(Missing { offset: from, len: size.saturating_sub(from), reason: format!("some of it: {e}") });
        }
        Ok(failed.map_or(Ok(missing), Err))
    }

    /// The bytes that an extent names: in the journal, else in the store.
    fn object(&self, extent: &Extent) -> Result<Bytes, String> {
        if extent.is_lost() {
            return Err("lost before a repair".to_owned());
        }
        let Extent { len, object, object_offset } = *extent;
        let bytes = self.whole(&object)?;
        let (from, to) = (object_offset as usize, object_offset as usize + len as usize);
        let cut = || format!("object {object} has {} bytes, {to} are used", bytes.len());
        (to <= bytes.len()).then(|| bytes.slice(from..to)).ok_or_else(cut)
    }

    fn whole(&self, object: &ObjectId) -> Result<Bytes, String> {
        if let Some(bytes) = self.tail.get(object) {
            return Ok(bytes.clone());
        }
        match self.replayed.read(object) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => self.locate.fetch(object).map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        }
    }
}
