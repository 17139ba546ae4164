//! What is in the simulated store at one moment. Copies share all of it until one changes.

use crate::media::sim::{Blob, StoreCall, hash_of, mix};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is in a store.
#[derive(Clone, Default)]
pub struct StoreImage {
    objects: Arc<BTreeMap<Arc<str>, Blob>>,
    sum: u128,
}

impl StoreImage {
    /// A hash of every name and byte.
    pub fn hash(&self) -> u128 {
        self.sum
    }

    /// The names of all objects, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.objects.keys().map(|name| &**name)
    }

    /// What an object holds.
    pub fn object(&self, name: &str) -> Option<&Bytes> {
        self.objects.get(name).map(|blob| &blob.bytes)
    }

    /// Makes a change; `false` when there was nothing to change, as when the object to be created is there.
    pub fn apply(&mut self, call: &StoreCall) -> bool {
        match call {
            StoreCall::Create { name, .. } if self.objects.contains_key(name) => false,
            StoreCall::Put { name, blob } | StoreCall::Create { name, blob } => {
                self.take(name);
                self.sum = self.sum.wrapping_add(share(name, blob));
                Arc::make_mut(&mut self.objects).insert(Arc::clone(name), blob.clone());
                true
            }
            StoreCall::Delete { name } => self.take(name),
        }
    }

    fn take(&mut self, name: &str) -> bool {
        if !self.objects.contains_key(name) {
            return false;
        }
        let old = Arc::make_mut(&mut self.objects).remove(name).expect("just seen");
        self.sum = self.sum.wrapping_sub(share(name, &old));
        true
    }
}

/// What an object adds to the hash of all.
fn share(name: &str, blob: &Blob) -> u128 {
    mix(hash_of(name.as_bytes()) ^ blob.hash, 3)
}

impl std::fmt::Debug for StoreImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.objects.iter()).finish()
    }
}
