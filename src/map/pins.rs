//! What was fetched for one waiting operation. It holds what the cache may already have dropped again, so that an
//! operation started again always gets further than before.

use crate::format::ids::{NodePtr, ObjectId};
use crate::format::node::Node;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;

/// Nodes and objects one waiting operation holds until it ends.
#[derive(Default)]
pub struct Pins {
    nodes: HashMap<NodePtr, Arc<Node>>,
    objects: HashMap<ObjectId, Bytes>,
}

impl Pins {
    /// Nothing is pinned.
    pub fn new() -> Pins {
        Pins::default()
    }

    /// Keeps a node until the operation ends.
    pub fn pin_node(&mut self, ptr: NodePtr, node: Arc<Node>) {
        self.nodes.insert(ptr, node);
    }

    /// Keeps an object until the operation ends.
    pub fn pin_object(&mut self, id: ObjectId, data: Bytes) {
        self.objects.insert(id, data);
    }

    /// The node, if it was pinned.
    pub fn node(&self, ptr: &NodePtr) -> Option<&Arc<Node>> {
        self.nodes.get(ptr)
    }

    /// The object, if it was pinned.
    pub fn object(&self, id: &ObjectId) -> Option<&Bytes> {
        self.objects.get(id)
    }

    /// The stored bytes held, for the cap on what waiting operations hold.
    pub fn bytes(&self) -> u64 {
        let nodes: u64 = self.nodes.keys().map(|ptr| u64::from(ptr.len)).sum();
        nodes + self.objects.values().map(|data| data.len() as u64).sum::<u64>()
    }
}
