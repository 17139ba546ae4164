//! Followers of stores that take longer to read than a lease lasts, or give nothing that can be opened.

use super::*;
use crate::base::clock::{Clock, SimClock};
use crate::format::names::LEASES;
use crate::store::sim::SimStore;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use std::ops::{ControlFlow, Range};

/// A store that takes its time for each publication.
struct Slow {
    store: SimStore,
    clock: Arc<SimClock>,
}

impl Store for Slow {
    fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        if name.starts_with("gen/") {
            self.clock.advance(Duration::from_secs(10));
        }
        self.store.get(name)
    }
    fn create(&self, name: &str, bytes: Bytes) -> Result<Created, StoreError> {
        self.store.create(name, bytes)
    }
    fn get_some(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.store.get_some(name, range)
    }
    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.store.size(name)
    }
    fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.store.put(name, bytes)
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.store.delete(name)
    }
    fn walk(&self, prefix: &str, each: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.store.walk(prefix, each)
    }
    fn publish_local(&self, file: &std::path::Path, name: &str) -> Result<bool, StoreError> {
        self.store.publish_local(file, name)
    }
}

/// Names under which leases were taken.
fn holders(rig: &Rig) -> BTreeSet<String> {
    let names = rig.world.store.list(LEASES).expect("listed");
    names.iter().filter_map(|name| name.split('/').nth(1)).map(str::to_owned).collect()
}

#[test]
fn what_takes_longer_to_open_than_a_lease_lasts_is_opened() {
    let mut rig = Rig::new(70, &keeping());
    for n in 0..12 {
        put(&mut rig, "file", &[n; 100]);
        rig.drain();
    }
    assert!(newest(&rig).number > 8, "{} publications", newest(&rig).number);
    let before = rig.clock.elapsed();
    rig.world.store = Arc::new(Slow { store: rig.store.clone(), clock: rig.clock.clone() });
    let mut reader = Reader::open(&rig, 71, &keeping()).expect("opens");
    assert!(rig.clock.elapsed() - before > Duration::from_secs(80));
    assert!(!reader.seen().is_lost());
    assert_eq!(reader.tree(None), tree_of_writer(&mut rig));
    // The same with a lease in place of one that was lost.
    rig.advance(Duration::from_secs(100));
    assert!(reader.seen().is_lost());
    assert_eq!(reader.step(), [Changed::Everything]);
    assert!(!reader.seen().is_lost());
    assert_eq!(reader.opened.follower.figures().lock().leases_lost, 1);
}

#[test]
fn who_finds_nothing_to_open_takes_no_more_leases() {
    let mut rig = Rig::new(72, &keeping());
    put(&mut rig, "file", b"first");
    rig.drain();
    let mut reader = Reader::open(&rig, 73, &keeping()).expect("opens");
    let before = holders(&rig);
    rig.advance(Duration::from_secs(100));
    let (name, store) = (names::publication(newest(&rig).generation, 0), rig.world.store.clone());
    let whole = store.get(&name).expect("there");
    store.put(&name, Bytes::from_static(b"nothing that can be read")).expect("put");
    for _ in 0..30 {
        rig.advance(POLL);
        assert_eq!(reader.step(), []);
    }
    assert_eq!(holders(&rig).difference(&before).count(), 1);
    store.put(&name, whole).expect("put");
    rig.advance(POLL);
    assert_eq!(reader.step(), [Changed::Everything]);
    assert_eq!(reader.tree(None), tree_of_writer(&mut rig));
    assert_eq!(holders(&rig).difference(&before).count(), 1);
}
