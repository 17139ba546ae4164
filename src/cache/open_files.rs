//! Cache files that are open: the few read or written last.

use super::OPEN_MAX;
use super::state::RunKey;
use crate::media::File;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::Arc;

const MAX: NonZeroUsize = NonZeroUsize::new(OPEN_MAX).expect("not zero");

/// A file that nobody looks up any more; it is closed when this and what readers hold is dropped.
pub(super) type Closed = Option<Arc<dyn File>>;

/// The open files.
pub(super) struct OpenFiles(LruCache<RunKey, Arc<dyn File>>);

impl OpenFiles {
    pub fn new() -> OpenFiles {
        OpenFiles(LruCache::new(MAX))
    }

    pub fn get(&mut self, run: &RunKey) -> Option<Arc<dyn File>> {
        self.0.get(run).cloned()
    }

    pub fn put(&mut self, run: RunKey, file: Arc<dyn File>) -> Closed {
        self.0.push(run, file).map(|(_, closed)| closed)
    }

    pub fn close(&mut self, run: &RunKey) -> Closed {
        self.0.pop(run)
    }
}
