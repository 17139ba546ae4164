//! Trees that are none.

use crate::forge::{Entry, Forge, Nodes};
use crate::{honest, life};
use bytes::Bytes;
use skylog::format::ids::NodePtr;
use skylog::store::sim::SimStore;

/// The honest store with another file tree.
fn with_files(make: impl Fn(&mut Nodes, Vec<Entry>) -> NodePtr) -> SimStore {
    with(&honest(), 0, make)
}

fn with(forge: &Forge, map: usize, make: impl Fn(&mut Nodes, Vec<Entry>) -> NodePtr) -> SimStore {
    forge.store_of(&mut |nodes| {
        let mut maps = forge.maps.clone();
        let forged = make(nodes, std::mem::take(&mut maps[map]).into_iter().collect());
        let mut roots = maps.map(|map| nodes.tree(map.into_iter().collect()));
        roots[map] = Some(forged);
        roots
    })
}

fn assert_refused(store: &SimStore) {
    let lived = life::live(store);
    assert!(!lived.refused.is_empty(), "nobody sees that: {lived:?}");
}

#[test]
fn a_tree_whose_node_is_its_own_child_is_an_error_and_nobody_goes_round() {
    for (map, level) in [(0, 1), (0, 2), (0, 200), (1, 1), (1, 2)] {
        assert_refused(&with(&honest(), map, |nodes, entries| {
            let half = entries.len() / 2;
            let first = nodes.leaf(&entries[..half]);
            nodes.circle(level, &[(entries[0].0.clone(), first)], &entries[half].0)
        }));
    }
}

#[test]
fn a_leaf_in_the_place_of_a_tree_and_a_tree_in_the_place_of_a_leaf_are_errors() {
    assert_refused(&with_files(|nodes, entries| {
        let leaf = nodes.leaf(&entries);
        nodes.interior(3, &[(entries[0].0.clone(), leaf)])
    }));
    assert_refused(&with_files(|nodes, entries| {
        let leaf = nodes.leaf(&entries);
        let below = nodes.interior(5, &[(entries[0].0.clone(), leaf)]);
        nodes.interior(1, &[(entries[0].0.clone(), below)])
    }));
}

#[test]
fn leaves_that_are_not_in_order_are_errors_and_no_scan_begins_again() {
    for cut in [1, 5, 20] {
        // The later half comes first, and the other way round, under first keys that say otherwise.
        assert_refused(&with_files(|nodes, entries| {
            let (before, after) = entries.split_at(entries.len() / cut.max(2));
            let (a, b) = (nodes.leaf(after), nodes.leaf(before));
            nodes.interior(1, &[(before[0].0.clone(), a), (after[0].0.clone(), b)])
        }));
        // The same leaf again and again.
        assert_refused(&with_files(|nodes, entries| {
            let leaf = nodes.leaf(&entries);
            let keys = entries.iter().step_by(cut).map(|(key, _)| (key.clone(), leaf));
            nodes.interior(1, &keys.collect::<Vec<_>>())
        }));
    }
    assert_refused(&with_files(|nodes, entries| {
        let leaf = nodes.leaf(&entries);
        let last = Bytes::from_static(&[0xff; 100]);
        nodes.interior(1, &[(Bytes::from_static(b"\0"), leaf), (last, leaf)])
    }));
}
