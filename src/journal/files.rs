//! The files of segments that nobody writes: opened when they are read, and only so many at a time, however many segments a
//! journal has. The segment that is written keeps its file open until it is sealed and synced, so no error of its disk is
//! missed between two handles.

use super::segment::slot_name;
use crate::media::{File, Media};
use lru::LruCache;
use parking_lot::Mutex;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// Files kept open at a time.
pub(super) const OPEN_FILES: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// The slot files of a journal.
pub(super) struct Files {
    media: Arc<dyn Media>,
    open: Mutex<LruCache<u32, Arc<dyn File>>>,
}

impl Files {
    pub fn new(media: Arc<dyn Media>) -> Arc<Files> {
        Arc::new(Files { media, open: Mutex::new(LruCache::new(OPEN_FILES)) })
    }

    /// A slot file that can be read for as long as it exists.
    pub fn file(self: &Arc<Files>, slot: u32) -> Arc<dyn File> {
        Arc::new(SlotFile { files: Arc::clone(self), slot })
    }

    /// The file is about to be removed.
    pub fn forget(&self, slot: u32) {
        self.open.lock().pop(&slot);
    }

    fn open(&self, slot: u32) -> io::Result<Arc<dyn File>> {
        if let Some(file) = self.open.lock().get(&slot) {
            return Ok(Arc::clone(file));
        }
        let file = self.media.open(&slot_name(slot))?;
        self.open.lock().put(slot, Arc::clone(&file));
        Ok(file)
    }
}

struct SlotFile {
    files: Arc<Files>,
    slot: u32,
}

impl File for SlotFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.files.open(self.slot)?.read_at(buf, offset)
    }

    /// A file that is not open might have to be waited for.
    fn read_resident_at(&self, buf: &mut [u8], offset: u64) -> bool {
        let file = self.files.open.lock().get(&self.slot).map(Arc::clone);
        file.is_some_and(|file| file.read_resident_at(buf, offset))
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::Error::other("a segment that is not being written"))
    }

    fn sync(&self) -> io::Result<()> {
        self.files.open(self.slot)?.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.files.open(self.slot)?.len()
    }

    fn forget_cached(&self) -> io::Result<()> {
        self.files.open(self.slot)?.forget_cached()
    }
}
