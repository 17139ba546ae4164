//! Going over a whole tree.

use super::{MapError, NodeSource, read_node_at};
use crate::format::ids::{NodePtr, SegmentNo};
use crate::format::node::Node;
use std::collections::BTreeSet;

/// Visits every node of a tree, each before its children, from left to right.
pub fn walk(
    root: Option<NodePtr>,
    source: &dyn NodeSource,
    visit: &mut dyn FnMut(&NodePtr, &Node),
) -> Result<(), MapError> {
    let mut waiting: Vec<(NodePtr, Option<u8>)> = root.into_iter().map(|root| (root, None)).collect();
    while let Some((ptr, level)) = waiting.pop() {
        let node = read_node_at(source, &ptr, level)?;
        visit(&ptr, &node);
        if let Node::Interior(interior) = &node {
            let below = Some(interior.level() - 1);
            waiting.extend((0..interior.len()).rev().map(|i| (interior.child(i), below)));
        }
    }
    Ok(())
}

/// The node segments a tree lies in. Reads no leaf, except a root that is one.
pub fn reachable_segments(root: Option<NodePtr>, source: &dyn NodeSource) -> Result<BTreeSet<SegmentNo>, MapError> {
    reachable_within(root, source, &|_| true)
}

/// The same, of the node segments that `within` names. What is under a node in any other is not looked at.
pub fn reachable_within(
    root: Option<NodePtr>,
    source: &dyn NodeSource,
    within: &dyn Fn(&SegmentNo) -> bool,
) -> Result<BTreeSet<SegmentNo>, MapError> {
    let mut segments = BTreeSet::new();
    let root = root.into_iter().filter(|ptr| within(&ptr.segment));
    let mut waiting: Vec<(NodePtr, Option<u8>)> = root.map(|root| (root, None)).collect();
    while let Some((ptr, level)) = waiting.pop() {
        segments.insert(ptr.segment);
        if let Node::Interior(interior) = read_node_at(source, &ptr, level)? {
            let children = (0..interior.len()).map(|i| interior.child(i)).filter(|child| within(&child.segment));
            if interior.level() == 1 {
                segments.extend(children.map(|child| child.segment));
            } else {
                waiting.extend(children.rev().map(|child| (child, Some(interior.level() - 1))));
            }
        }
    }
    Ok(segments)
}
