//! Which leaves a merge is going to read: so that they can be fetched side by side before it reads one after the other.

use super::changes::Changes;
use super::overlay::Overlay;
use super::{MapError, misplaced};
use crate::format::ids::NodePtr;
use crate::format::node::{Interior, Node};
use bytes::Bytes;
use std::sync::Arc;

/// Interior nodes looked at together.
const TOGETHER: usize = 256;

/// Reads nodes, in the order in which they are asked for.
pub type ReadNodes<'a> = dyn FnMut(&[NodePtr]) -> Result<Vec<Arc<Node>>, MapError> + 'a;

/// A subtree that some change lies in, with the bounds of its keys.
struct Part {
    ptr: NodePtr,
    from: Bytes,
    to: Option<Bytes>,
}

/// The leaves under `root` that changes in `layers` (oldest first) lie in, in key order: what a merge of these layers reads,
/// perhaps with a few neighbours. `read` is asked for interior nodes, level by level.
pub fn touched_leaves(
    root: Option<NodePtr>,
    layers: &[&Overlay],
    read: &mut ReadNodes<'_>,
) -> Result<Vec<NodePtr>, MapError> {
    let layers: Vec<&Overlay> = layers.iter().rev().copied().collect();
    let mut level: Vec<Part> = root.into_iter().map(|ptr| Part { ptr, from: Bytes::new(), to: None }).collect();
    let mut expected: Option<u8> = None;
    loop {
        let mut below = Vec::new();
        let (mut are_leaves, mut next) = (true, 0);
        for parts in level.chunks(TOGETHER) {
            let ptrs: Vec<NodePtr> = parts.iter().map(|part| part.ptr).collect();
            for (part, node) in parts.iter().zip(read(&ptrs)?) {
                // Only the root of a tree that has no other node.
                let Node::Interior(interior) = &*node else { return Ok(vec![part.ptr]) };
                if let Some(expected) = expected.filter(|expected| *expected != interior.level()) {
                    return Err(misplaced(&part.ptr, expected.into(), interior.level()));
                }
                are_leaves = interior.level() == 1;
                next = interior.level() - 1;
                children(interior, part, &layers, &mut below);
            }
        }
        if are_leaves {
            return Ok(below.into_iter().map(|part| part.ptr).collect());
        }
        (level, expected) = (below, Some(next));
    }
}

fn children(interior: &Interior, part: &Part, layers: &[&Overlay], below: &mut Vec<Part>) {
    for at in 0..interior.len() {
        // What lies before the first child belongs to it.
        let from = if at == 0 { part.from.clone() } else { interior.first_key(at) };
        let to = if at + 1 < interior.len() { Some(interior.first_key(at + 1)) } else { part.to.clone() };
        if Changes::new(layers.to_vec(), &from).touch(&from, to.as_deref()) {
            below.push(Part { ptr: interior.child(at), from, to });
        }
    }
}
