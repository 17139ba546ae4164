//! Objects that the journal or logs hold whole: where they are, not what they are.

use crate::base::canary::{Canary, removed};
use crate::checkpoint::nodes::read_file;
use crate::format::ids::ObjectId;
use crate::format::names;
use crate::format::publication::Position;
use crate::media::Media;
use crate::repair::RepairError;
use crate::store::Store;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// What was written, as far as it lies in the journal, in logs, or beside a checkpoint. Some 40 bytes an object.
#[derive(Default)]
pub struct Contents {
    /// Each object once, in order.
    entries: Vec<Entry>,
    sources: Vec<Source>,
}

/// An object that was whole when it was looked at.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name.
    pub object: ObjectId,
    /// Which of the sources holds it,
    pub source: u32,
    /// and where in that, bytes.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
    /// CRC32C of them.
    pub crc: u32,
}

/// Something that holds objects.
pub enum Source {
    /// A file of the state directory.
    Local(Arc<dyn Media>, String),
    /// A numbered object of a generation.
    Log(Arc<dyn Store>, Position),
}

impl Contents {
    /// Of an object that is at several places the first one counts.
    pub fn new(mut entries: Vec<Entry>, sources: Vec<Source>) -> Contents {
        entries.sort_by_key(|entry| entry.object);
        entries.dedup_by_key(|entry| entry.object);
        entries.shrink_to_fit();
        Contents { entries, sources }
    }

    /// Every object, in order, with its length in bytes.
    pub fn lens(&self) -> impl Iterator<Item = (ObjectId, u32)> + '_ {
        self.entries.iter().map(|entry| (entry.object, entry.len))
    }

    /// How long an object is; `None` if it is not here.
    pub fn len_of(&self, object: &ObjectId) -> Option<u32> {
        self.find(object).map(|entry| entry.len)
    }

    /// The bytes of an object that is here, read again and verified.
    pub fn get(&self, object: &ObjectId) -> Result<Bytes, RepairError> {
        let refused = |what: &str| RepairError::Refused(format!("object {object} {what}"));
        let entry = self.find(object).ok_or_else(|| refused("is in neither journal nor log"))?;
        let range = entry.offset..entry.offset + u64::from(entry.len);
        let bytes = self.sources[entry.source as usize].read(range)?;
        if crc32c::crc32c(&bytes) != entry.crc && !removed(Canary::JournalObjectCrc) {
            return Err(refused("changed while the repair ran: something else writes here, or the disk fails"));
        }
        Ok(bytes)
    }

    fn find(&self, object: &ObjectId) -> Option<&Entry> {
        self.entries.binary_search_by_key(object, |entry| entry.object).ok().map(|at| &self.entries[at])
    }
}

impl Source {
    /// Its name, and whether it is a file of the state directory.
    pub fn place(&self) -> (String, bool) {
        match self {
            Source::Local(_, name) => (name.clone(), true),
            Source::Log(_, at) => (names::publication(at.generation, at.number), false),
        }
    }

    /// All of it.
    pub fn whole(&self) -> Result<Bytes, RepairError> {
        Ok(match self {
            Source::Local(media, name) => read_file(&**media, name)?,
            Source::Log(store, at) => store.get(&names::publication(at.generation, at.number))?,
        })
    }

    /// Some of it.
    pub fn read(&self, range: Range<u64>) -> Result<Bytes, RepairError> {
        match self {
            Source::Local(media, name) => {
                let mut bytes = vec![0; usize::try_from(range.end - range.start).expect("it was in memory before")];
                media.open(name)?.read_at(&mut bytes, range.start)?;
                Ok(bytes.into())
            }
            Source::Log(store, at) => Ok(store.get_range(&names::publication(at.generation, at.number), range)?),
        }
    }
}
