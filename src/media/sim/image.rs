//! What is on a simulated disk at one moment. Copies share nearly all of it.

use super::content::{Content, hash_of, mix};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is on a disk.
#[derive(Clone, Default)]
pub struct Image {
    files: Arc<BTreeMap<Arc<str>, Content>>,
    dirs: Arc<BTreeSet<Arc<str>>>,
    hash: u128,
}

impl Image {
    pub(super) fn new(files: BTreeMap<Arc<str>, Content>, dirs: &Arc<BTreeSet<Arc<str>>>) -> Image {
        let of_files = files.iter().map(|(name, content)| mix(hash_of(name.as_bytes()) ^ content.hash(), 1));
        let of_dirs = dirs.iter().map(|name| mix(hash_of(name.as_bytes()), 2));
        let hash = of_files.chain(of_dirs).fold(0, u128::wrapping_add);
        Image { files: Arc::new(files), dirs: Arc::clone(dirs), hash }
    }

    /// A hash of every name and byte.
    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// The names of all files, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(|name| &**name)
    }

    /// The names of all folders, sorted, without the root.
    pub fn folders(&self) -> impl Iterator<Item = &str> {
        self.dirs.iter().map(|name| &**name)
    }

    /// What a file holds.
    pub fn file(&self, name: &str) -> Option<&Content> {
        self.files.get(name)
    }

    pub(super) fn files(&self) -> &BTreeMap<Arc<str>, Content> {
        &self.files
    }

    pub(super) fn dirs(&self) -> &Arc<BTreeSet<Arc<str>>> {
        &self.dirs
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lengths = self.files.iter().map(|(name, content)| (name, content.len()));
        f.debug_map().entries(lengths).finish()
    }
}
