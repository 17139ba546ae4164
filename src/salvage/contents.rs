//! The bytes of a file, as far as they can be had.

use super::{Found, Salvage};
use crate::format::ids::{NodePtr, ObjectId};
use crate::format::inode::Extent;
use crate::format::key::{self, Key};
use crate::recovery::MountError;
use bytes::Bytes;

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
        let whole = self.read_over(self.root, found, write);
        let Err(e) = whole else { return whole };
        let reason = format!("only what was changed is there: {e}");
        let lacks = Missing { offset: 0, len: found.inode.size, reason };
        let changed = self.read_over(None, found, write)?;
        Ok(changed.map(|missing| std::iter::once(lacks).chain(missing).collect()))
    }

    fn read_over<E>(
        &self,
        root: Option<NodePtr>,
        found: &Found,
        write: &mut dyn FnMut(Piece) -> Result<(), E>,
    ) -> Result<Result<Vec<Missing>, E>, MountError> {
        let (ino, size) = (found.ino, found.inode.size);
        if let Some(bytes) = self.get_over(root, &key::inline(ino))? {
            return Ok(write(Piece { offset: 0, bytes }).map(|()| Vec::new()));
        }
        let (mut missing, mut failed) = (Vec::new(), None);
        self.scan_over(root, key::extents_of(ino), &mut |key, value| {
            let damaged = |e| MountError::Damaged { place: format!("inode {ino}"), reason: format!("{e}") };
            let (Key::Extent(_, offset), extent) =
                (Key::decode(key).map_err(damaged)?, Extent::decode(value).map_err(damaged)?)
            else {
                return Ok(true);
            };
            // The last block of a file may have more than the file.
            let len = u64::from(extent.len).min(size.saturating_sub(offset));
            match self.object(&extent) {
                Ok(bytes) => {
                    let bytes = bytes.slice(..usize::try_from(len).unwrap_or(bytes.len()).min(bytes.len()));
                    failed = write(Piece { offset, bytes }).err();
                }
                Err(reason) => missing.push(Missing { offset, len, reason }),
            }
            Ok(failed.is_none())
        })?;
        Ok(failed.map_or(Ok(missing), Err))
    }

    /// The bytes that an extent names: in the journal, else in the store.
    fn object(&self, extent: &Extent) -> Result<Bytes, String> {
        let Extent { len, object, object_offset } = *extent;
        let bytes = self.whole(&object)?;
        let (from, to) = (object_offset as usize, object_offset as usize + len as usize);
        let cut = || format!("object {object} has {} bytes, {to} are used", bytes.len());
        (to <= bytes.len()).then(|| bytes.slice(from..to)).ok_or_else(cut)
    }

    fn whole(&self, object: &ObjectId) -> Result<Bytes, String> {
        if let Some(bytes) = self.beside.get(object) {
            return Ok(bytes.clone());
        }
        match self.replayed.read(object) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => self.locate.fetch(object).map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        }
    }
}
