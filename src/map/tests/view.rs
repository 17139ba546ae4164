//! Reads name the node they lack, and no node they do not need.

use crate::map::testing::*;
use crate::map::*;

const SHAPE: Shape = Shape { node_bytes: 1024 };

fn tree(nodes: &MemoryNodes) -> Option<NodePtr> {
    let edits: Vec<_> = (0..20_000u32).map(|i| put(&i.to_be_bytes(), &i.to_le_bytes())).collect();
    merge_into(nodes, None, SHAPE, None, &[&overlay(&edits)]).0
}

/// How many nodes a read lacks before it succeeds with nothing but pins to hold them.
fn fetches<T>(nodes: &MemoryNodes, read: impl Fn(&NodeCache, &Pins) -> Result<T, NodePtr>) -> (T, usize) {
    let (nothing, mut pins) = (NodeCache::new(0), Pins::new());
    for count in 0.. {
        match read(&nothing, &pins) {
            Ok(found) => return (found, count),
            Err(missing) => pins.pin_node(missing, nothing.fetch(&missing, nodes).unwrap()),
        }
    }
    unreachable!()
}

#[test]
fn a_get_lacks_one_node_a_level_and_none_if_a_layer_knows() {
    let nodes = MemoryNodes::default();
    let root = tree(&nodes);
    let active = overlay(&[delete(&5u32.to_be_bytes())]);
    let view = View { overlay: &active, layers: &[], root };
    let (found, count) = fetches(&nodes, |cache, pins| view.get(cache, pins, &7u32.to_be_bytes()));
    assert_eq!((found.as_deref(), count), (Some(&7u32.to_le_bytes()[..]), 3));
    assert_eq!(fetches(&nodes, |cache, pins| view.get(cache, pins, &5u32.to_be_bytes())), (None, 0));
}

#[test]
fn a_scan_reads_no_node_of_a_deleted_range_and_none_behind_its_end() {
    let nodes = MemoryNodes::default();
    let root = tree(&nodes);
    let active = overlay(&[delete_range(&100u32.to_be_bytes(), &19_900u32.to_be_bytes())]);
    let view = View { overlay: &active, layers: &[], root };
    let (from, to) = (90u32.to_be_bytes(), 19_910u32.to_be_bytes());
    let (found, count) = fetches(&nodes, |cache, pins| view.scan(cache, pins, &from, &to, 1000));
    assert_eq!(found.len(), 20);
    assert!(count <= 8, "{count} nodes read");
    let (from, to) = (100u32.to_be_bytes(), 19_900u32.to_be_bytes());
    assert_eq!(fetches(&nodes, |cache, pins| view.scan(cache, pins, &from, &to, 1000)), (vec![], 0));
}

#[test]
fn a_scan_that_is_full_lacks_no_further_node() {
    let nodes = MemoryNodes::default();
    let root = tree(&nodes);
    let empty = Overlay::new();
    let view = View { overlay: &empty, layers: &[], root };
    let mut leaf_len = 0;
    walk(root, &nodes, &mut |_, node| {
        if let crate::format::node::Node::Leaf(leaf) = node
            && leaf_len == 0
        {
            leaf_len = leaf.len();
        }
    })
    .unwrap();
    let scan = |limit| fetches(&nodes, |cache, pins| view.scan(cache, pins, &[0], &[0xff], limit)).1;
    assert_eq!(scan(leaf_len), 3);
    assert_eq!(scan(leaf_len + 1), 4);
    let end = u32::try_from(leaf_len).unwrap().to_be_bytes();
    assert_eq!(fetches(&nodes, |cache, pins| view.scan(cache, pins, &[0], &end, 10_000)).1, 3);
}

#[test]
fn the_newest_layer_has_the_word() {
    let nodes = MemoryNodes::default();
    let root = tree(&nodes);
    let key = 7u32.to_be_bytes();
    let older = std::sync::Arc::new(overlay(&[put(&key, b"older")]));
    let newer = std::sync::Arc::new(overlay(&[delete_range(&[0], &[1])]));
    let active = overlay(&[put(&key, b"active")]);
    let empty = Overlay::new();
    let cache = NodeCache::new(0);
    let get = |overlay, layers: &[_]| View { overlay, layers, root }.get(&cache, &Pins::new(), &key);
    assert_eq!(get(&active, &[newer.clone(), older.clone()]), Ok(Some("active".into())));
    assert_eq!(get(&empty, &[newer.clone(), older.clone()]), Ok(None));
    assert_eq!(get(&empty, &[older, newer]), Ok(Some("older".into())));
}

#[test]
fn the_nodes_of_a_long_range_are_named_many_at_once_and_hold_all_that_a_scan_needs() {
    let nodes = MemoryNodes::default();
    let root = tree(&nodes);
    let active = overlay(&[delete_range(&5000u32.to_be_bytes(), &15_000u32.to_be_bytes())]);
    for (overlay, from, to, entries) in [
        (&Overlay::new(), 0u32, 20_000u32, 20_000),
        (&Overlay::new(), 777, 9000, 8223),
        (&active, 0, 20_000, 10_000),
        (&active, 5000, 15_000, 0),
    ] {
        let view = View { overlay, layers: &[], root };
        let (from, to) = (from.to_be_bytes(), to.to_be_bytes());
        let (nothing, mut pins) = (NodeCache::new(0), Pins::new());
        let (mut waits, mut fetched) = (0, 0);
        loop {
            let missing = view.missing(&nothing, &pins, &from, &to, 100);
            if missing.is_empty() {
                break;
            }
            assert!(missing.len() <= 100);
            (waits, fetched) = (waits + 1, fetched + missing.len());
            for ptr in missing {
                pins.pin_node(ptr, nothing.fetch(&ptr, &nodes).unwrap());
            }
        }
        let found = view.scan(&nothing, &pins, &from, &to, usize::MAX).map(|found| found.len());
        assert_eq!(found, Ok(entries), "nothing is lacking");
        let needed = fetches(&nodes, |cache, pins| view.scan(cache, pins, &from, &to, usize::MAX)).1;
        assert!(fetched <= needed + 2, "{fetched} nodes are fetched, a scan needs {needed}");
        assert!(waits <= 3 + fetched / 100, "{waits} waits for {fetched} nodes");
    }
}
