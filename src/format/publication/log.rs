//! Batches that travel whole, with their data, so that they need nothing else in the store.
//!
//! They carry what files are: edits of the file map, and of the space map the mark of inode numbers alone. What else the
//! space map says is of checkpoints that may never be published. A batch of which nothing is left is not in a log, so the
//! positions have gaps.

use crate::format::batch::{Batch, Edit, TreeId, encode_edits, encode_head};
use crate::format::error::FormatError;
use crate::format::ids::Lsn;
use crate::format::space::{self, Mark};
use crate::format::wire::fits;
use bytes::Bytes;

/// A run of batches with their objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Batches as the journal holds them, head and objects, back to back; empty when nothing of the run concerns files.
    pub batches: Bytes,
}

/// A batch of a [`Log`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogBatch {
    /// What it says; its objects lie in `encoded`.
    pub batch: Batch,
    /// Its bytes, head and objects.
    pub encoded: Bytes,
}

impl LogBatch {
    /// The stored bytes of an object.
    ///
    /// # Panics
    /// When the batch has no object `n`.
    pub fn object(&self, n: usize) -> Bytes {
        let object = self.batch.objects[n];
        self.encoded.slice(object.offset..object.offset + object.header.stored_len as usize)
    }

    /// The batch that `bytes` begin with, which is later than `last`. The checksums of its objects are verified.
    pub fn first_of(bytes: &Bytes, last: Lsn) -> Result<LogBatch, FormatError> {
        let (batch, used) = Batch::decode(bytes, 0)?;
        if !batch.payload_present && !batch.objects.is_empty() {
            return Err(FormatError::Value("a batch of a log without its objects"));
        }
        if batch.lsn <= last {
            return Err(FormatError::Value("batches of a log that are not in the order of their Lsns"));
        }
        let encoded = bytes.slice(..used);
        batch.verify_payload(&encoded)?;
        Ok(LogBatch { batch, encoded })
    }
}

impl Log {
    /// The batches in order; after an error nothing more comes. The checksums of the objects are verified.
    pub fn batches(&self) -> impl Iterator<Item = Result<LogBatch, FormatError>> + '_ {
        let (mut rest, mut last) = (self.batches.clone(), Lsn::ZERO);
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let next = LogBatch::first_of(&rest, last);
            match &next {
                Ok(next) => {
                    last = next.batch.lsn;
                    rest = rest.slice(next.encoded.len()..);
                }
                Err(_) => rest = Bytes::new(),
            }
            Some(next)
        })
    }

    /// What a log carries of a batch with its objects: all of it, a part under the same Lsn, or nothing.
    pub fn part_of(encoded: &Bytes) -> Result<Option<Bytes>, FormatError> {
        let (batch, used) = Batch::decode(encoded, 0)?;
        let head = match Log::edits_of(&batch.edits) {
            None => return Ok(None),
            Some(edits) if edits.len() == batch.edits.len() => return Ok(Some(encoded.slice(..used))),
            Some(edits) => encode_head(
                batch.lsn,
                fits(edits.len()),
                &encode_edits(&edits),
                &batch.headers(),
                batch.payload_present,
            ),
        };
        Ok(Some([&head[..], &encoded[batch.head_len..used]].concat().into()))
    }

    /// Whether an edit is of those that a log carries.
    pub fn carries(tree: TreeId, edit: &Edit) -> bool {
        match (tree, edit) {
            (TreeId::Files, _) => true,
            (TreeId::Space, Edit::Put { key, .. }) => *key == space::mark(Mark::Inode),
            (TreeId::Space, _) => false,
        }
    }

    fn edits_of(edits: &[(TreeId, Edit)]) -> Option<Vec<(TreeId, Edit)>> {
        let carried: Vec<_> = edits.iter().filter(|(tree, edit)| Log::carries(*tree, edit)).cloned().collect();
        (!carried.is_empty()).then_some(carried)
    }
}
