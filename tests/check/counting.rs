//! A store that counts what a check reads of it.

use bytes::Bytes;
use skylog::store::sim::SimStore;
use skylog::store::{Created, Store, StoreError};
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what is read.
pub struct Counting {
    store: SimStore,
    at_once: usize,
    requests: AtomicU64,
    of_segments: AtomicU64,
    bytes_of_segments: AtomicU64,
}

impl Counting {
    /// With more than one answer at a time it is a store that is far away.
    pub fn of(store: &SimStore, at_once: usize) -> Arc<Counting> {
        let (requests, of_segments, bytes_of_segments) = Default::default();
        Arc::new(Counting { store: store.clone(), at_once, requests, of_segments, bytes_of_segments })
    }

    /// All requests that read objects, or their size.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Those for segments, with the bytes that came.
    pub fn of_segments(&self) -> (u64, u64) {
        (self.of_segments.load(Ordering::Relaxed), self.bytes_of_segments.load(Ordering::Relaxed))
    }

    fn count(&self, name: &str, bytes: u64) {
        let ours = u64::from(name.starts_with("seg/"));
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.of_segments.fetch_add(ours, Ordering::Relaxed);
        self.bytes_of_segments.fetch_add(ours * bytes, Ordering::Relaxed);
    }
}

impl Store for Counting {
    fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        self.store.get(name).inspect(|bytes| self.count(name, bytes.len() as u64))
    }
    fn get_some(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.store.get_some(name, range).inspect(|bytes| self.count(name, bytes.len() as u64))
    }
    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.count(name, 0);
        self.store.size(name)
    }
    fn put(&self, name: &str, _: Bytes) -> Result<(), StoreError> {
        unreachable!("a check writes nothing: {name}")
    }
    fn create(&self, name: &str, _: Bytes) -> Result<Created, StoreError> {
        unreachable!("a check writes nothing: {name}")
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        unreachable!("a check writes nothing: {name}")
    }
    fn walk(&self, prefix: &str, each: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.store.walk(prefix, each)
    }
    fn side_by_side(&self) -> usize {
        self.at_once
    }
    fn publish_local(&self, _: &Path, name: &str) -> Result<bool, StoreError> {
        unreachable!("a check writes nothing: {name}")
    }
}
