//! The node cache keeps its limit, and one fetch serves all who wait for it.

use crate::map::testing::*;
use crate::map::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

/// A tree of a few hundred leaves, and all its nodes.
fn tree(nodes: &MemoryNodes) -> Vec<NodePtr> {
    let edits: Vec<_> = (0..20_000u32).map(|i| put(&i.to_be_bytes(), &[7; 40])).collect();
    let (root, _, _) = merge_into(nodes, None, Shape { node_bytes: 4096 }, None, &[&overlay(&edits)]);
    let mut all = Vec::new();
    walk(root, nodes, &mut |ptr, _| all.push(*ptr)).unwrap();
    all
}

#[test]
fn the_node_cache_never_holds_more_than_its_limit() {
    let nodes = MemoryNodes::default();
    let all = tree(&nodes);
    let total: u64 = all.iter().map(|ptr| u64::from(ptr.len)).sum();
    for limit in [0, 1000, 20_000, total / 3, 10 * total] {
        let cache = NodeCache::new(limit);
        for ptr in all.iter().chain(&all) {
            cache.fetch(ptr, &nodes).unwrap();
            assert!(cache.bytes() <= limit, "{} bytes held, {limit} allowed", cache.bytes());
        }
        assert_eq!(limit > total, all.iter().all(|ptr| cache.get(ptr).is_some()));
    }
}

#[test]
fn the_node_cache_drops_what_was_used_longest_ago() {
    let nodes = MemoryNodes::default();
    let all = tree(&nodes);
    let cache = NodeCache::new(60_000);
    for ptr in &all[1..] {
        cache.fetch(&all[0], &nodes).unwrap();
        cache.fetch(ptr, &nodes).unwrap();
    }
    assert!(cache.get(&all[0]).is_some());
    assert!(cache.get(&all[1]).is_none());
    assert_eq!((cache.hits(), cache.misses()), (1, 1));
}

/// A source that lets nobody go before all readers have arrived.
struct Slow<'a> {
    nodes: &'a MemoryNodes,
    reads: AtomicU64,
}

impl NodeSource for Slow<'_> {
    fn read_node(&self, ptr: &NodePtr) -> Result<Bytes, MapError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(std::time::Duration::from_millis(50));
        self.nodes.read_node(ptr)
    }
}

#[test]
fn fetches_of_one_node_at_one_time_are_one_read() {
    let nodes = MemoryNodes::default();
    let ptr = tree(&nodes)[0];
    let source = Slow { nodes: &nodes, reads: AtomicU64::new(0) };
    let cache = NodeCache::new(1 << 20);
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                cache.fetch(&ptr, &source).unwrap();
            });
        }
    });
    assert_eq!(source.reads.load(Ordering::SeqCst), 1);
}

#[test]
fn a_damaged_or_missing_node_is_named_and_not_kept() {
    let nodes = MemoryNodes::default();
    let all = tree(&nodes);
    let cache = NodeCache::new(1 << 20);
    nodes.damage(&all[1]);
    let error = cache.fetch(&all[1], &nodes).err().unwrap();
    assert!(matches!(&error, MapError::Damaged { ptr, .. } if *ptr == all[1]), "{error}");
    assert!(cache.get(&all[1]).is_none());
    nodes.retain(&Default::default());
    let error = cache.fetch(&all[1], &nodes).err().unwrap();
    assert!(matches!(error, MapError::Missing { segment } if segment == all[1].segment), "{error}");
}

struct Panics;

impl NodeSource for Panics {
    fn read_node(&self, _: &NodePtr) -> Result<Bytes, MapError> {
        panic!("a broken source");
    }
}

#[test]
fn a_fetch_that_panics_leaves_nobody_waiting() {
    let nodes = MemoryNodes::default();
    let ptr = tree(&nodes)[0];
    let cache = Arc::new(NodeCache::new(1 << 20));
    let broken = cache.clone();
    std::thread::spawn(move || broken.fetch(&ptr, &Panics).is_ok()).join().unwrap_err();
    assert!(cache.fetch(&ptr, &nodes).is_ok());
}
