//! Makes stores out of entries, whatever these are, with right checksums.

use bytes::Bytes;
use skylog::format::ids::{NodePtr, SegmentKind, SegmentNo};
use skylog::format::names;
use skylog::format::node::{InteriorBuilder, LeafBuilder, Node};
use skylog::format::publication::{Base, Body, Publication};
use skylog::format::store_segment::SegmentBuilder;
use skylog::map::{MapError, NodeSource, walk};
use skylog::media::sim::CallLog;
use skylog::store::Store;
use skylog::store::sim::{SimStore, StoreImage};
use std::collections::BTreeMap;

/// Where forged nodes lie.
const SEGMENT: SegmentNo = SegmentNo { epoch: 1, number: 1 << 40 };
/// Entries of a leaf: few, so that there is a tree.
const ENTRIES: usize = 6;

/// An entry of a map: its key, and its value.
pub type Entry = (Bytes, Bytes);

/// A store, taken apart.
#[derive(Clone)]
pub struct Forge {
    /// All but the newest base.
    pub rest: StoreImage,
    /// The newest base; its roots are made anew.
    pub base: Publication,
    /// The entries of the file map and of the space map.
    pub maps: [BTreeMap<Bytes, Bytes>; 2],
    /// What comes after the base.
    pub later: Vec<(String, Bytes)>,
}

struct Source(SimStore);

impl NodeSource for Source {
    fn read_node(&self, ptr: &NodePtr) -> Result<Bytes, MapError> {
        let from = u64::from(ptr.offset);
        let read = self.0.get_range(&names::segment(ptr.segment), from..from + u64::from(ptr.len));
        read.map_err(|e| MapError::io(ptr.segment, std::io::Error::other(e)))
    }
}

impl Forge {
    /// Takes a store apart whose newest publication is a base.
    pub fn of(store: &SimStore) -> Forge {
        let rest = store.image();
        let newest = rest.names().filter(|name| name.starts_with("gen/")).max().expect("a generation");
        let base = Publication::decode(rest.object(newest).expect("listed")).expect("whole");
        let Body::Base(Base { roots, .. }) = &base.body else { panic!("{newest} is no base") };
        let maps = roots.map(|root| {
            let mut entries = BTreeMap::new();
            let mut visit = |_: &NodePtr, node: &Node| {
                if let Node::Leaf(leaf) = node {
                    entries.extend((0..leaf.len()).map(|i| (leaf.key(i), leaf.value(i))));
                }
            };
            walk(root, &Source(store.clone()), &mut visit).expect("whole");
            entries
        });
        Forge { rest, base, maps, later: Vec::new() }
    }

    /// The store with these entries.
    pub fn store(&self) -> SimStore {
        let maps = self.maps.clone();
        self.store_of(&mut |nodes| maps.clone().map(|map| nodes.tree(map.into_iter().collect())))
    }

    /// The store with trees that `make` makes.
    pub fn store_of(&self, make: &mut dyn FnMut(&mut Nodes) -> [Option<NodePtr>; 2]) -> SimStore {
        let store = SimStore::from_image(&self.rest, &CallLog::new());
        let mut base = self.base.clone();
        let mut nodes = Nodes(SegmentBuilder::new(base.uuid, SEGMENT, SegmentKind::Nodes));
        let forged = make(&mut nodes);
        let bytes = nodes.0.finish();
        if let Body::Base(base) = &mut base.body {
            base.roots = forged;
            base.node_segments = vec![(SEGMENT, bytes.len() as u64)];
        }
        store.put(&names::segment(SEGMENT), bytes.into()).expect("put");
        store.put(&names::publication(base.generation, base.number), base.encode().into()).expect("put");
        for (name, bytes) in &self.later {
            store.put(name, bytes.clone()).expect("put");
        }
        store
    }
}

/// A segment of nodes being made.
pub struct Nodes(SegmentBuilder);

impl Nodes {
    pub fn leaf(&mut self, entries: &[Entry]) -> NodePtr {
        let mut leaf = LeafBuilder::new();
        entries.iter().for_each(|(key, value)| leaf.push(key, value));
        self.0.push_node(&leaf.finish())
    }

    pub fn interior(&mut self, level: u8, children: &[(Bytes, NodePtr)]) -> NodePtr {
        let bytes = interior(level, children);
        self.0.push_node(&bytes)
    }

    /// A node whose last child is the node itself.
    pub fn circle(&mut self, level: u8, children: &[(Bytes, NodePtr)], key: &Bytes) -> NodePtr {
        // Where it lies decides whether there is a checksum that fits.
        (0..100).find_map(|_| self.try_circle(level, children, key)).expect("there is one")
    }

    fn try_circle(&mut self, level: u8, children: &[(Bytes, NodePtr)], key: &Bytes) -> Option<NodePtr> {
        let probe = self.0.push_node(&interior(level, children));
        // Frames lie between bodies, so the next one starts where this one says once its length is known.
        let with = |ptr: NodePtr| {
            let mut all = children.to_vec();
            all.push((key.clone(), ptr));
            interior(level, &all)
        };
        let len = with(probe).len() as u32;
        let offset = probe.offset + probe.len + FRAME;
        let crc = fixed_point(|crc| crc32c::crc32c(&with(NodePtr { segment: SEGMENT, offset, len, crc })));
        let own = NodePtr { segment: SEGMENT, offset, len, crc: crc? };
        assert_eq!(self.0.push_node(&with(own)), own, "it points at itself");
        Some(own)
    }

    /// A tree, as it should be.
    pub fn tree(&mut self, entries: Vec<Entry>) -> Option<NodePtr> {
        let leaves = entries.chunks(ENTRIES).map(|chunk| (chunk[0].0.clone(), self.leaf(chunk)));
        let mut level: Vec<(Bytes, NodePtr)> = leaves.collect();
        let mut height = 1;
        while level.len() > 1 {
            level = level.chunks(ENTRIES).map(|chunk| (chunk[0].0.clone(), self.interior(height, chunk))).collect();
            height += 1;
        }
        level.pop().map(|(_, ptr)| ptr)
    }
}

/// Bytes between two bodies.
const FRAME: u32 = 68;

fn interior(level: u8, children: &[(Bytes, NodePtr)]) -> Vec<u8> {
    let mut builder = InteriorBuilder::new(level);
    children.iter().for_each(|(key, ptr)| builder.push(key, *ptr));
    builder.finish()
}

/// The checksum that comes out when it is put in. A CRC is linear but for a constant, so that is a system of 32 equations.
fn fixed_point(crc_of: impl Fn(u32) -> u32) -> Option<u32> {
    let constant = crc_of(0);
    // Row n: which bits of the input make bit n of `crc_of(x) ^ x`, and what they must make.
    let mut rows = [(0u32, false); 32];
    for bit in 0..32 {
        let column = crc_of(1 << bit) ^ constant ^ (1 << bit);
        for (n, row) in rows.iter_mut().enumerate() {
            row.0 |= (column >> n & 1) << bit;
        }
    }
    for (n, row) in rows.iter_mut().enumerate() {
        row.1 = constant >> n & 1 == 1;
    }
    let mut solved = 0;
    let mut pivots = Vec::new();
    for bit in 0..32 {
        let Some(at) = (solved..32).find(|at| rows[*at].0 >> bit & 1 == 1) else { continue };
        rows.swap(solved, at);
        let (mask, value) = rows[solved];
        for (n, row) in rows.iter_mut().enumerate() {
            if n != solved && row.0 >> bit & 1 == 1 {
                *row = (row.0 ^ mask, row.1 ^ value);
            }
        }
        pivots.push(bit);
        solved += 1;
    }
    let found = pivots.iter().zip(&rows).fold(0, |found, (bit, (_, value))| found | u32::from(*value) << bit);
    (crc_of(found) == found).then_some(found)
}
