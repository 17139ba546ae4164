//! What a mount must know before it begins: the store's configuration, and that no repair is under way.

use super::{Known, MountError, World};
use crate::format::names::SUPERBLOCK;
use crate::format::repair_file::REPAIR_FILE;
use crate::format::superblock::Superblock;
use crate::media::Media;
use crate::store::{Store, StoreError};
use std::io;

/// Reads the store's configuration.
pub fn superblock(store: &dyn Store) -> Result<Superblock, MountError> {
    match store.get(SUPERBLOCK) {
        Ok(bytes) => Ok(Superblock::decode(&bytes)?),
        Err(StoreError::NotFound { .. }) => Err(MountError::NotAStore),
        Err(e) => Err(e.into()),
    }
}

/// The store's configuration; when the store is away, what the caller knows of it, and how the store does not answer.
pub(crate) fn configuration(world: &World) -> Result<(Superblock, Option<String>), MountError> {
    let before = match &world.known {
        Some(Known::Answered(superblock)) => return Ok((superblock.clone(), None)),
        Some(Known::Away(superblock, reason)) => return Ok((superblock.clone(), Some(reason.clone()))),
        Some(Known::Before(superblock)) => Some(superblock),
        None => None,
    };
    match (superblock(&*world.store), before) {
        (Err(MountError::Store(e @ StoreError::Away { .. })), Some(known)) => Ok((known.clone(), Some(e.to_string()))),
        (found, _) => Ok((found?, None)),
    }
}

pub(crate) fn not_local(what: &'static str, reason: impl ToString) -> MountError {
    MountError::NotLocal { what, reason: reason.to_string() }
}

/// Whether a repair was begun here that did not come to its end: what lies here may be what it goes on from.
pub(super) fn has_begun_repair(media: &dyn Media) -> io::Result<bool> {
    match media.open(REPAIR_FILE) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        found => found.map(|_| true),
    }
}
