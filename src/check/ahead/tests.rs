//! A tree in a store that answers several requests side by side, which are counted.

use crate::check::Nodes;
use crate::format::ids::{NodePtr, SegmentKind, SegmentNo, Uuid};
use crate::format::names;
use crate::format::node::Node;
use crate::format::store_segment::SegmentBuilder;
use crate::map::{MapError, NewTree, NodeSink, NodeSource, Shape, reachable_segments, verify, walk};
use crate::media::Media;
use crate::media::sim::{CallLog, Nth, SimDisk};
use crate::store::sim::{SimStore, StoreFault, StoreOp};
use crate::store::{Created, Store, StoreError};
use bytes::Bytes;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const UUID: Uuid = Uuid(1);
const SEGMENTS: u64 = 3;

/// A store that answers four requests side by side, and counts them.
struct Far {
    store: SimStore,
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Far {
    fn of(store: &SimStore) -> Arc<Far> {
        Arc::new(Far { store: store.clone(), requests: 0.into(), bytes: 0.into() })
    }

    /// Requests and bytes so far.
    fn figures(&self) -> (u64, u64) {
        (self.requests.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

impl Store for Far {
    fn get_some(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.store.get_some(name, range).inspect(|bytes| {
            self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        })
    }
    fn side_by_side(&self) -> usize {
        4
    }
    fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        unreachable!("nodes are ranges: {name}")
    }
    fn size(&self, name: &str) -> Result<u64, StoreError> {
        unreachable!("nobody asks how long it is: {name}")
    }
    fn put(&self, name: &str, _: Bytes) -> Result<(), StoreError> {
        unreachable!("a reader writes nothing: {name}")
    }
    fn create(&self, name: &str, _: Bytes) -> Result<Created, StoreError> {
        unreachable!("a reader writes nothing: {name}")
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        unreachable!("a reader writes nothing: {name}")
    }
    fn walk(&self, prefix: &str, _: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(), StoreError> {
        unreachable!("nobody lists: {prefix}")
    }
    fn publish_local(&self, _: &Path, name: &str) -> Result<bool, StoreError> {
        unreachable!("a reader writes nothing: {name}")
    }
}

/// Puts the nodes of a tree into segments by turns, as if each had been written by another merge.
struct Spread(Vec<SegmentBuilder>, usize);

impl NodeSink for Spread {
    fn append(&mut self, node: &[u8]) -> Result<NodePtr, MapError> {
        self.1 += 1;
        let at = self.1 % self.0.len();
        Ok(self.0[at].push_node(node))
    }
}

struct Tree {
    store: SimStore,
    root: NodePtr,
    nodes: Vec<NodePtr>,
    leaves: Vec<NodePtr>,
    /// Of all nodes.
    bytes: u64,
}

fn tree(entries: u64) -> Tree {
    let store = SimStore::new(&CallLog::new());
    let builder = |number| SegmentBuilder::new(UUID, SegmentNo { epoch: 1, number }, SegmentKind::Nodes);
    let mut sink = Spread((0..SEGMENTS).map(builder).collect(), 0);
    let mut tree = NewTree::new(&mut sink, Shape { node_bytes: 512 });
    for n in 0..entries {
        tree.add(format!("key {n:08}").into(), format!("the value of key {n}").into()).expect("added");
    }
    let root = tree.finish().expect("finished").expect("not empty");
    for (number, builder) in (0..).zip(sink.0) {
        store.put(&names::segment(SegmentNo { epoch: 1, number }), builder.finish().into()).expect("put");
    }
    let near = Nodes::new(None, Arc::new(store.clone()));
    let (mut nodes, mut leaves) = (Vec::new(), Vec::new());
    walk(Some(root), &near, &mut |ptr, node| {
        nodes.push(*ptr);
        leaves.extend(matches!(node, Node::Leaf(_)).then_some(*ptr));
    })
    .expect("whole");
    let bytes = nodes.iter().map(|ptr| u64::from(ptr.len)).sum();
    Tree { store, root, nodes, leaves, bytes }
}

fn read_all(nodes: &Nodes, tree: &Tree) -> Vec<(Bytes, Bytes)> {
    let mut found = Vec::new();
    let problems = verify(Some(tree.root), nodes, &mut |key, value| found.push((key.clone(), value.clone())));
    assert_eq!(problems, Vec::<String>::new());
    found
}

#[test]
fn a_tree_that_is_read_in_order_comes_by_few_requests_and_once() {
    let tree = tree(40_000);
    let near = Nodes::new(None, Arc::new(tree.store.clone()));
    let far = Far::of(&tree.store);
    assert_eq!(read_all(&Nodes::new(None, far.clone()), &tree), read_all(&near, &tree));
    let (requests, bytes) = far.figures();
    let count = tree.nodes.len() as u64;
    assert!(count > 2000, "{count} nodes");
    assert!(requests < count / 20, "{requests} requests for {count} nodes");
    // What frames them is read along, and leaves between nodes above them, which are close to each other in so small nodes.
    assert!(bytes < tree.bytes * 2, "{bytes} bytes for {} of nodes", tree.bytes);
}

#[test]
fn the_segments_of_a_tree_are_found_without_its_leaves() {
    let tree = tree(40_000);
    let (near, far) = (Nodes::new(None, Arc::new(tree.store.clone())), Far::of(&tree.store));
    let nodes = Nodes::new(None, far.clone());
    let found = reachable_segments(Some(tree.root), &nodes).expect("whole");
    assert_eq!(found, reachable_segments(Some(tree.root), &near).expect("whole"));
    assert_eq!(found.len() as u64, SEGMENTS);
    let interiors = tree.nodes.len() - tree.leaves.len();
    let (requests, _) = far.figures();
    assert!(requests < interiors as u64 / 2, "{requests} requests for {interiors} nodes");
}

#[test]
fn leaps_are_answered_by_single_nodes() {
    let tree = tree(10_000);
    let far = Far::of(&tree.store);
    let nodes = Nodes::new(None, far.clone());
    read_all(&nodes, &tree);
    // The interior nodes above them are known; the leaves are read from right to left, and not all.
    let before = far.figures();
    let wanted: Vec<&NodePtr> = tree.leaves.iter().rev().step_by(3).collect();
    for ptr in &wanted {
        assert!(Node::read(ptr, nodes.read_node(ptr).expect("there")).is_ok());
    }
    let (requests, bytes) = far.figures();
    let expected: u64 = wanted.iter().map(|ptr| u64::from(ptr.len)).sum();
    assert_eq!((requests - before.0, bytes - before.1), (wanted.len() as u64, expected));
}

#[test]
fn what_the_state_directory_has_is_not_asked_for() {
    let tree = tree(10_000);
    let disk = SimDisk::new(&CallLog::new());
    disk.make_dir("nodes").expect("made");
    let local = SegmentNo { epoch: 1, number: 1 };
    let file = disk.create(&crate::checkpoint::nodes::node_file(local)).expect("created");
    file.write_at(&tree.store.get(&names::segment(local)).expect("there"), 0).expect("written");
    tree.store.delete(&names::segment(local)).expect("deleted");
    let far = Far::of(&tree.store);
    let nodes = Nodes::new(Some(Arc::new(disk)), far.clone());
    assert_eq!(read_all(&nodes, &tree).len(), 10_000);
    let remote: u64 = tree.nodes.iter().filter(|ptr| ptr.segment != local).map(|ptr| u64::from(ptr.len)).sum();
    let (requests, bytes) = far.figures();
    assert!(requests < tree.nodes.len() as u64 / 10, "{requests} requests");
    assert!(bytes < remote * 2, "{bytes} bytes for {remote}");
}

#[test]
fn what_does_not_come_with_others_is_asked_for_alone_and_says_why() {
    let tree = tree(10_000);
    for kind in ["flipped", "cut", "gone"] {
        let victim = tree.leaves[tree.leaves.len() / 2];
        let name = names::segment(victim.segment);
        let store = SimStore::from_image(&tree.store.image(), &CallLog::new());
        let mut bytes = store.get(&name).expect("there").to_vec();
        match kind {
            "flipped" => bytes[victim.offset as usize] ^= 1,
            "cut" => bytes.truncate(victim.offset as usize + 5),
            _ => bytes.clear(),
        }
        store.put(&name, bytes.into()).expect("put");
        if kind == "gone" {
            store.delete(&name).expect("deleted");
        }
        let read = |nodes: &Nodes| {
            let mut entries = 0;
            (verify(Some(tree.root), nodes, &mut |_, _| entries += 1), entries)
        };
        let (near, far) = (Nodes::new(None, Arc::new(store.clone())), Nodes::new(None, Far::of(&store)));
        let (found, wanted) = (read(&far), read(&near));
        assert!(!wanted.0.is_empty(), "{kind}: something is wrong");
        assert_eq!(found, wanted, "{kind}");
    }
}

/// However much of it is damaged or gone, no byte is fetched again and again.
#[test]
fn a_segment_that_is_lost_is_not_guessed_at_for_ever() {
    let tree = tree(40_000);
    // Not that of the root, under which nothing else would be looked at.
    let lost = tree.leaves.iter().find(|ptr| ptr.segment != tree.root.segment).expect("there are several");
    let name = names::segment(lost.segment);
    for is_gone in [false, true] {
        let store = SimStore::from_image(&tree.store.image(), &CallLog::new());
        let len = store.get(&name).expect("there").len();
        store.put(&name, vec![0; len].into()).expect("put");
        if is_gone {
            store.delete(&name).expect("deleted");
        }
        let far = Far::of(&store);
        let lost = verify(Some(tree.root), &Nodes::new(None, far.clone()), &mut |_, _| {}).len();
        assert!(lost > 300, "{lost}");
        let (requests, bytes) = far.figures();
        assert!(requests < lost as u64 + tree.nodes.len() as u64 / 10, "{requests} requests, {lost} nodes are lost");
        assert!(bytes < 3 * tree.bytes, "{bytes} bytes for {} of nodes", tree.bytes);
    }
}

#[test]
fn a_store_that_does_not_answer_is_asked_for_single_nodes_for_a_while() {
    let tree = tree(10_000);
    let far = Far::of(&tree.store);
    let nodes = Nodes::new(None, far.clone());
    assert!(nodes.read_node(&tree.root).is_ok());
    tree.store.set_down(true);
    let before = far.figures().0;
    let asked: Vec<&NodePtr> = tree.nodes[1..].iter().take(50).collect();
    assert!(asked.iter().all(|ptr| nodes.read_node(ptr).is_err()));
    let requests = far.figures().0 - before;
    assert!(requests < 50 + 10, "{requests} requests");
    tree.store.set_down(false);
    assert_eq!(read_all(&nodes, &tree).len(), 10_000);
}

#[test]
fn a_request_for_many_that_fails_loses_nothing() {
    let tree = tree(10_000);
    for fault in [StoreFault::Refused, StoreFault::Cut, StoreFault::Flipped] {
        let store = SimStore::from_image(&tree.store.image(), &CallLog::new());
        let far = Far::of(&store);
        let nodes = Nodes::new(None, far.clone());
        // The first is the root, alone; then come many.
        store.fail(Nth::new(2).of(StoreOp::Get), fault);
        assert_eq!(read_all(&nodes, &tree).len(), 10_000, "{fault:?}");
        assert_eq!(store.failed(), 1, "{fault:?}");
    }
}
