//! The trees of a filesystem read around damage: what a repair begins with.

use super::clean::act;
use super::*;
use bytes::Bytes;
use skylog::base::random::SeededRandom;
use skylog::format::batch::TreeId;
use skylog::format::ids::{NodePtr, SegmentKind, SegmentNo};
use skylog::format::names::{self, Parsed};
use skylog::format::node::Node;
use skylog::format::publication::{Body, Position};
use skylog::format::store_segment::StoreSegment;
use skylog::map::Overlay;
use skylog::recovery::superblock;
use skylog::repair::tree::{Lost, Trees};
use skylog::ship::publish::read;
use std::collections::BTreeMap;

type Entries = BTreeMap<Bytes, Bytes>;

const TREES: [TreeId; 2] = [TreeId::Files, TreeId::Space];

/// A filesystem with a past, all of it shipped, and a base that is the newest of its state.
fn with_a_past(seed: u64) -> (SimStore, [Option<NodePtr>; 2]) {
    let random = SeededRandom::new(seed);
    let mut tuning = small();
    tuning.policy.replay = skylog::checkpoint::Replay::after(0, 0);
    let mut rig = Rig::new(seed, &tuning);
    let (mut files, mut serial) = (Vec::new(), 0);
    for _ in 0..12 {
        for _ in 0..20 {
            act(&mut rig, &random, &mut files, &mut serial);
        }
        rig.drain();
    }
    let store = SimStore::from_image(&rig.store.image(), &CallLog::new());
    let mut bases = store.list("gen").expect("listed").into_iter().filter(|name| name.ends_with("/0000000000"));
    let generation = bases.next_back().and_then(|name| name.split('/').nth(1)?.parse().ok()).expect("a base");
    let base = read(&store, Position { generation, number: 0 }).expect("whole").expect("there");
    let Body::Base(base) = base.body else { panic!("no base") };
    (store, base.roots)
}

fn left(store: &SimStore, tree: TreeId, root: Option<Option<NodePtr>>) -> (Entries, Vec<Lost>) {
    let uuid = superblock(store).expect("whole").uuid;
    let trees = Trees::new(uuid, None, Arc::new(store.clone()));
    let mut found = Entries::new();
    let lost = trees.each(tree, root, &Overlay::new(), &mut |key, value| {
        assert!(found.insert(key, value).is_none(), "each key comes once");
    });
    (found, lost.expect("nothing fails but by damage"))
}

/// Every node in the store: its segment, where it is in it, its level.
fn nodes(store: &SimStore) -> Vec<(SegmentNo, usize, u8)> {
    let mut found = Vec::new();
    for name in store.list("seg").expect("listed") {
        let Some(Parsed::Segment(no)) = names::parse(&name) else { continue };
        let bytes = store.get(&name).expect("there");
        let segment = StoreSegment::parse(&bytes).expect("whole");
        let is_nodes = segment.header.kind == SegmentKind::Nodes;
        for (i, entry) in segment.entries.iter().enumerate().filter(|_| is_nodes) {
            let node = Node::decode(segment.body(&bytes, i).expect("whole")).expect("a node");
            found.push((no, usize::try_from(entry.offset).expect("small"), node.level()));
        }
    }
    found
}

#[test]
fn whatever_node_is_damaged_nothing_else_is_lost() {
    let (store, roots) = with_a_past(5);
    let whole = TREES.map(|tree| left(&store, tree, Some(roots[tree as usize])));
    assert!(whole.iter().all(|(entries, lost)| entries.len() > 10 && lost.is_empty()));
    let all = nodes(&store);
    assert!(all.iter().any(|(_, _, level)| *level == 2), "trees of three levels");
    let mut hits = 0;
    for (no, at, level) in all {
        let copy = SimStore::from_image(&store.image(), &CallLog::new());
        let mut bytes = copy.get(&names::segment(no)).expect("there").to_vec();
        bytes[at + 3] ^= 1;
        copy.put(&names::segment(no), bytes.into()).expect("put");
        for tree in TREES {
            let (entries, before) = (&whole[tree as usize].0, format!("{tree:?}: {no} at {at}, level {level}"));
            let (found, lost) = left(&copy, tree, Some(roots[tree as usize]));
            let in_lost = |key: &Bytes| lost.iter().any(|lost| lost.from <= *key && *key < lost.to);
            hits += lost.len();
            for (key, value) in entries.iter().filter(|(key, _)| level > 0 || !in_lost(key)) {
                assert_eq!(found.get(key), Some(value), "{before}: {key:?}");
            }
            assert!(found.keys().all(|key| entries.contains_key(key) || in_lost(key)), "{before}");
            // The same when nobody knows where the tree begins.
            let (bare, _) = left(&copy, tree, None);
            for (key, value) in entries.iter().filter(|(key, _)| level > 0 || !in_lost(key)) {
                assert_eq!(bare.get(key), Some(value), "{before}, no root: {key:?}");
            }
        }
    }
    assert!(hits > 20, "{hits} nodes were of use");
}
