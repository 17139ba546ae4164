//! Decoded nodes, least recently used out first, never more bytes than the limit.
//!
//! Reads of the map only [`NodeCache::get`]; [`NodeCache::fetch`] may block and belongs to the fetcher. Fetches of the
//! same node at the same time are one read.
//!
//! Locks: a shard's `nodes` and its `flights` are leaves of the lock order and never held together or across a read.

use super::{MapError, NodeSource, read_node};
use crate::format::ids::NodePtr;
use crate::format::node::Node;
use bytes::Bytes;
use lru::LruCache;
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A decoded node beside its bytes: entry offsets, its place in the LRU and in the hash table.
const NODE_OVERHEAD_BYTES: u64 = 1024;

/// Shards are only worth their lock when each holds a good number of nodes.
const SHARD_BYTES_MIN: u64 = 1 << 20;
const SHARDS_MAX: u64 = 16;

/// A cache of decoded nodes with a hard limit in bytes.
pub struct NodeCache {
    shards: Vec<Shard>,
    hasher: RandomState,
    hits: AtomicU64,
    misses: AtomicU64,
}

struct Shard {
    nodes: Mutex<Nodes>,
    flights: Mutex<HashMap<NodePtr, Arc<Flight>>>,
}

struct Nodes {
    lru: LruCache<NodePtr, Arc<Node>>,
    bytes: u64,
    bytes_max: u64,
}

/// One fetch under way; those who come later wait for its answer.
#[derive(Default)]
struct Flight {
    answer: Mutex<Option<Result<Arc<Node>, MapError>>>,
    landed: Condvar,
}

impl NodeCache {
    /// A cache that holds at most `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> NodeCache {
        let count = (bytes_max / SHARD_BYTES_MIN).clamp(1, SHARDS_MAX);
        let shards = (0..count).map(|_| Shard::new(bytes_max / count)).collect();
        NodeCache { shards, hasher: RandomState::new(), hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// The node, if it is at hand.
    pub fn get(&self, ptr: &NodePtr) -> Option<Arc<Node>> {
        let found = self.shard(ptr).nodes.lock().lru.get(ptr).cloned();
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// The node, if it is at hand; counts nothing and leaves its age as it is.
    pub fn peek(&self, ptr: &NodePtr) -> Option<Arc<Node>> {
        self.shard(ptr).nodes.lock().lru.peek(ptr).cloned()
    }

    /// The node, read from `source` if it is not at hand. Blocks.
    pub fn fetch(&self, ptr: &NodePtr, source: &dyn NodeSource) -> Result<Arc<Node>, MapError> {
        let shard = self.shard(ptr);
        let (flight, ours) = shard.join(ptr);
        if !ours {
            return flight.wait();
        }
        let landing = Landing { shard, flight: &flight, ptr };
        // Looked up after the flight is ours: who lands a node inserts it first.
        let at_hand = shard.nodes.lock().lru.get(ptr).cloned();
        let answer = match at_hand {
            Some(node) => Ok(node),
            None => read_node(source, ptr).map(|node| self.insert(*ptr, node)),
        };
        landing.land(answer.clone());
        answer
    }

    /// The node if it is at hand, or `read` gives its bytes. Waits for nobody else who reads it.
    pub fn fetch_near(&self, ptr: &NodePtr, read: impl FnOnce() -> Option<Bytes>) -> Option<Arc<Node>> {
        let at_hand = self.shard(ptr).nodes.lock().lru.get(ptr).cloned();
        at_hand.or_else(|| Some(self.insert(*ptr, Node::read(ptr, read()?).ok()?)))
    }

    /// Adds a node just made or read.
    pub fn insert(&self, ptr: NodePtr, node: Node) -> Arc<Node> {
        let node = Arc::new(node);
        self.shard(&ptr).nodes.lock().insert(ptr, node.clone());
        node
    }

    /// Bytes held now.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.nodes.lock().bytes).sum()
    }

    /// How many look-ups found their node.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// How many look-ups did not.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    fn shard(&self, ptr: &NodePtr) -> &Shard {
        let at = self.hasher.hash_one(ptr) % self.shards.len() as u64;
        &self.shards[at as usize]
    }
}

impl Shard {
    fn new(bytes_max: u64) -> Shard {
        let nodes = Nodes { lru: LruCache::unbounded(), bytes: 0, bytes_max };
        Shard { nodes: Mutex::new(nodes), flights: Mutex::new(HashMap::new()) }
    }

    /// The fetch of `ptr` under way, or a new one, which is then the caller's to land.
    fn join(&self, ptr: &NodePtr) -> (Arc<Flight>, bool) {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(ptr) {
            return (flight.clone(), false);
        }
        let flight = Arc::new(Flight::default());
        flights.insert(*ptr, flight.clone());
        (flight, true)
    }
}

impl Nodes {
    fn insert(&mut self, ptr: NodePtr, node: Arc<Node>) {
        if weight(&ptr) > self.bytes_max {
            return;
        }
        match self.lru.push(ptr, node) {
            Some((old, _)) => debug_assert_eq!(old, ptr, "an unbounded list evicts nothing by itself"),
            None => self.bytes += weight(&ptr),
        }
        while self.bytes > self.bytes_max {
            let (old, _) = self.lru.pop_lru().expect("bytes are held by nodes");
            self.bytes -= weight(&old);
        }
    }
}

fn weight(ptr: &NodePtr) -> u64 {
    u64::from(ptr.len) + NODE_OVERHEAD_BYTES
}

impl Flight {
    fn wait(&self) -> Result<Arc<Node>, MapError> {
        let mut answer = self.answer.lock();
        loop {
            match &*answer {
                Some(answer) => return answer.clone(),
                None => self.landed.wait(&mut answer),
            }
        }
    }
}

/// Ends a fetch even when the source panics: those who wait get an error, not an endless wait.
struct Landing<'a> {
    shard: &'a Shard,
    flight: &'a Flight,
    ptr: &'a NodePtr,
}

impl Landing<'_> {
    fn land(self, answer: Result<Arc<Node>, MapError>) {
        *self.flight.answer.lock() = Some(answer);
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.shard.flights.lock().remove(self.ptr);
        let gave_up = || MapError::io(self.ptr.segment, io::Error::other("the fetch of a node was given up"));
        self.flight.answer.lock().get_or_insert_with(|| Err(gave_up()));
        self.flight.landed.notify_all();
    }
}
