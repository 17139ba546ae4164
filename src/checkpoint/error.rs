//! What keeps the checkpointer from going on.

use crate::format::FormatError;
use crate::journal::{JournalError, ManifestError};
use crate::locate::LocateError;
use crate::map::{MapError, Stop};
use std::io;

/// Why the checkpointer did not go on.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A node could not be read or written.
    #[error(transparent)]
    Map(#[from] MapError),
    /// An object could not be found.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// The journal said no.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The manifest could not be changed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A batch of the space tree could not be logged.
    #[error("the journal takes no batch: {0:?}")]
    Stopped(Stop),
    /// A file of the state directory could not be read or written.
    #[error("{0}: {1}")]
    File(String, io::Error),
    /// Stored bytes are not what they should be.
    #[error("{0}")]
    Damaged(String),
}

impl CheckpointError {
    /// Whether something is nowhere, or is not what it was, that another writer deletes when it has taken over.
    pub(super) fn may_be_deleted(&self) -> bool {
        match self {
            CheckpointError::Map(e) => matches!(e, MapError::Missing { .. }),
            CheckpointError::Locate(e) => matches!(e, LocateError::Nowhere { .. } | LocateError::Damaged { .. }),
            _ => false,
        }
    }

    pub(super) fn from_format(e: FormatError) -> CheckpointError {
        CheckpointError::Damaged(format!("space tree: {e}"))
    }

    pub(super) fn disk(e: io::Error) -> CheckpointError {
        CheckpointError::File("state directory".to_owned(), e)
    }
}
