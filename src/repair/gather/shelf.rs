//! What is noted of batches while they are read: where their objects are, and the highest numbers in them.

use super::contents::{Contents, Entry, Source};
use super::spans::{Span, What};
use crate::format::batch::{Batch, Edit, TreeId};
use crate::format::ids::{InodeNo, Lsn, ObjectId};
use crate::format::journal_directory::DirectoryEntry;
use crate::format::key;
use crate::format::publication::Position;
use crate::format::space::{self, Mark, Published};
use crate::media::Media;
use crate::store::Store;
use bytes::Bytes;
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Shelf {
    pub sources: Vec<Source>,
    entries: Vec<Entry>,
    /// The highest number of an inode that was put, or that may have been given.
    pub inode_max: u64,
    pub end: Lsn,
    /// The newest record of what was published.
    pub recorded: Lsn,
}

impl Shelf {
    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Shelf::default();
    }

    /// A file of the state directory.
    pub fn local(&mut self, media: &Arc<dyn Media>, name: String) -> u32 {
        self.add(Source::Local(media.clone(), name))
    }

    /// A numbered object.
    pub fn log(&mut self, store: &Arc<dyn Store>, at: Position) -> u32 {
        self.add(Source::Log(store.clone(), at))
    }

    fn add(&mut self, source: Source) -> u32 {
        self.sources.push(source);
        u32::try_from(self.sources.len() - 1).expect("fewer sources than names that are kept")
    }

    /// Notes a batch that starts at `start` of `bytes`, which are those of a source from `base` on. Of its objects those count that
    /// are whole.
    pub fn batch(&mut self, source: u32, batch: &Batch, bytes: &Bytes, start: usize, base: u64) {
        self.note(batch);
        if !batch.payload_present {
            return;
        }
        debug_assert!(batch.objects.iter().all(|object| object.offset >= start));
        for (n, object) in (0..).zip(&batch.objects) {
            let len = object.header.stored_len;
            let stored = bytes.get(object.offset..object.offset + len as usize);
            if stored.is_some_and(|stored| object.header.verify(stored).is_ok()) {
                let (object_id, offset) = (ObjectId { lsn: batch.lsn, n }, base + object.offset as u64);
                self.entries.push(Entry { object: object_id, source, offset, len, crc: object.header.crc });
            }
        }
    }

    /// Notes a batch of the journal with its objects that are whole.
    pub fn journal(&mut self, source: u32, batch: &Batch, objects: &[DirectoryEntry]) {
        self.note(batch);
        let entry = |found: &DirectoryEntry| {
            let DirectoryEntry { object, offset, len, crc } = *found;
            Entry { object, source, offset: u64::from(offset), len, crc }
        };
        self.entries.extend(objects.iter().map(entry));
    }

    /// Notes the numbers in a batch.
    pub fn note(&mut self, batch: &Batch) {
        self.end = self.end.max(batch.lsn);
        for (tree, edit) in &batch.edits {
            match (tree, edit) {
                (TreeId::Files, Edit::Put { key, .. }) => self.inode(key),
                (TreeId::Space, Edit::Put { key, value }) => self.space(key, value),
                _ => {}
            }
        }
    }

    fn inode(&mut self, key: &[u8]) {
        if let Ok(key::Key::Inode(ino)) = key::Key::decode(key) {
            self.inode_max = self.inode_max.max(ino.0.min(InodeNo::MAX.0));
        }
    }

    /// Notes an entry of the space map.
    pub fn space(&mut self, key: &Bytes, value: &Bytes) {
        if *key == space::mark(Mark::Inode) {
            let mark = space::decode_number(value).unwrap_or(0).min(InodeNo::MAX.0);
            self.inode_max = self.inode_max.max(mark);
        } else if *key == space::published() {
            let published = Published::decode(value).map_or(Lsn::ZERO, |published| published.end);
            self.recorded = self.recorded.max(published);
        }
    }

    /// Adds what comes after all of this, and is in sources of its own, which are named by these spans.
    pub fn append(&mut self, other: Shelf, spans: &mut [Span]) {
        let before = u32::try_from(self.sources.len()).expect("fewer sources than names that are kept");
        for span in spans {
            if let What::Batches { source, .. } = &mut span.what {
                *source += before;
            }
        }
        self.sources.extend(other.sources);
        self.entries.extend(other.entries.into_iter().map(|entry| Entry { source: entry.source + before, ..entry }));
        self.inode_max = self.inode_max.max(other.inode_max);
        self.end = self.end.max(other.end);
        self.recorded = self.recorded.max(other.recorded);
    }

    /// Of an object that is in several places the one that was noted first counts.
    pub fn finish(self) -> Contents {
        Contents::new(self.entries, self.sources)
    }
}
