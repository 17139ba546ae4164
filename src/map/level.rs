//! One level of a tree being built: the node being filled, and the full one before it, which is not written yet so that a
//! small rest can share evenly with it.

use super::build::Shape;
use crate::format::ids::NodePtr;
use crate::format::node::{InteriorBuilder, LeafBuilder};
use bytes::Bytes;

/// What a node is made of.
pub(super) trait Item: Clone {
    /// Encodes a node, and knows how long it is so far.
    type Builder;
    /// An interior node of one child would only make the tree deeper.
    const COUNT_MIN: usize;
    fn builder(level: u8) -> Self::Builder;
    fn push(&self, builder: &mut Self::Builder);
    fn size(builder: &Self::Builder) -> usize;
    fn size_with(&self, builder: &Self::Builder) -> usize;
    fn finish(builder: Self::Builder) -> Vec<u8>;
    fn first_key(&self) -> &Bytes;
}

/// What leaves are made of.
#[derive(Clone)]
pub(super) struct Entry {
    pub key: Bytes,
    pub value: Bytes,
}

impl Item for Entry {
    type Builder = LeafBuilder;
    const COUNT_MIN: usize = 1;

    fn builder(_level: u8) -> LeafBuilder {
        LeafBuilder::new()
    }
    fn push(&self, builder: &mut LeafBuilder) {
        builder.push(&self.key, &self.value);
    }
    fn size(builder: &LeafBuilder) -> usize {
        builder.size()
    }
    fn size_with(&self, builder: &LeafBuilder) -> usize {
        builder.size_with(&self.key, &self.value)
    }
    fn finish(builder: LeafBuilder) -> Vec<u8> {
        builder.finish()
    }
    fn first_key(&self) -> &Bytes {
        &self.key
    }
}

/// What interior nodes are made of.
#[derive(Clone)]
pub(super) struct Child {
    pub first_key: Bytes,
    pub ptr: NodePtr,
}

impl Item for Child {
    type Builder = InteriorBuilder;
    const COUNT_MIN: usize = 2;

    fn builder(level: u8) -> InteriorBuilder {
        InteriorBuilder::new(level)
    }
    fn push(&self, builder: &mut InteriorBuilder) {
        builder.push(&self.first_key, self.ptr);
    }
    fn size(builder: &InteriorBuilder) -> usize {
        builder.size()
    }
    fn size_with(&self, builder: &InteriorBuilder) -> usize {
        builder.size_with(&self.first_key)
    }
    fn finish(builder: InteriorBuilder) -> Vec<u8> {
        builder.finish()
    }
    fn first_key(&self) -> &Bytes {
        &self.first_key
    }
}

/// One node to be.
pub(super) struct Part<T: Item> {
    items: Vec<T>,
    builder: T::Builder,
}

impl<T: Item> Part<T> {
    fn new(level: u8) -> Part<T> {
        Part { items: Vec::new(), builder: T::builder(level) }
    }

    fn of(level: u8, items: impl Iterator<Item = T>) -> Part<T> {
        let mut part = Part::new(level);
        items.for_each(|item| part.push(item));
        part
    }

    /// The first key and the bytes of the node.
    pub fn encode(self) -> (Bytes, Vec<u8>) {
        (self.items[0].first_key().clone(), T::finish(self.builder))
    }

    fn push(&mut self, item: T) {
        item.push(&mut self.builder);
        self.items.push(item);
    }

    fn bytes(&self) -> usize {
        T::size(&self.builder)
    }
}

/// One level of a tree being built.
pub(super) struct Level<T: Item> {
    level: u8,
    shape: Shape,
    held: Option<Part<T>>,
    current: Part<T>,
}

impl<T: Item> Level<T> {
    pub fn new(level: u8, shape: Shape) -> Level<T> {
        Level { level, shape, held: None, current: Part::new(level) }
    }

    /// Adds an item; hands out a node that is complete by that.
    pub fn push(&mut self, item: T) -> Option<Part<T>> {
        let full = self.is_full_for(&item).then(|| self.take_current());
        self.current.push(item);
        full.and_then(|full| self.held.replace(full))
    }

    pub fn is_empty(&self) -> bool {
        self.current.items.is_empty()
    }

    /// Whether [`Level::close`] makes only nodes that have enough in them (or none).
    pub fn is_closable(&self) -> bool {
        self.held.is_some() || self.is_empty() || self.has_enough()
    }

    /// Takes out all there is, as at most two nodes.
    pub fn close(&mut self) -> Vec<Part<T>> {
        let enough = self.has_enough();
        let current = self.take_current();
        match self.held.take() {
            None if current.items.is_empty() => vec![],
            None => vec![current],
            Some(held) if enough => vec![held, current],
            Some(held) => self.share(held, current),
        }
    }

    /// The one item there is, if there is just one.
    pub fn only(&self) -> Option<&T> {
        match &self.current.items[..] {
            [item] if self.held.is_none() => Some(item),
            _ => None,
        }
    }

    /// Takes out the last item; there must be one.
    pub fn pop(&mut self) -> T {
        let mut items = self.take_current().items;
        let item = items.pop().expect("a left neighbour lies above");
        self.current = match self.held.take() {
            Some(held) if items.is_empty() => held,
            held => {
                self.held = held;
                Part::of(self.level, items.into_iter())
            }
        };
        item
    }

    /// Puts the items of a complete node before what is there, which must be less than a node.
    pub fn put_before(&mut self, items: impl Iterator<Item = T>) {
        debug_assert!(self.held.is_none(), "a level that holds a full node needs no neighbour");
        let part = Part::of(self.level, items);
        if self.is_empty() {
            self.current = part;
        } else {
            self.held = Some(part);
        }
    }

    /// A node with little in it takes an item that makes it too long, up to twice the length.
    fn is_full_for(&self, item: &T) -> bool {
        let bytes = item.size_with(&self.current.builder);
        let limit = if self.has_enough() { self.shape.node_bytes } else { 2 * self.shape.node_bytes };
        self.current.items.len() >= T::COUNT_MIN && bytes > limit
    }

    fn has_enough(&self) -> bool {
        self.current.items.len() >= T::COUNT_MIN && self.current.bytes() >= self.shape.node_bytes / 3
    }

    fn take_current(&mut self) -> Part<T> {
        std::mem::replace(&mut self.current, Part::new(self.level))
    }

    /// Lays a full node and a small rest into one node, or two of the same length; leaves them as they are if their keys
    /// have so little in common that this makes a far too long node.
    fn share(&self, held: Part<T>, rest: Part<T>) -> Vec<Part<T>> {
        let half = (held.bytes() + rest.bytes()) / 2;
        let all = || held.items.iter().chain(&rest.items).cloned();
        let count = held.items.len() + rest.items.len();
        let one = Part::of(self.level, all());
        if one.bytes() <= self.shape.node_bytes || count < 2 * T::COUNT_MIN {
            return vec![one];
        }
        let [mut left, mut right] = [Part::new(self.level), Part::new(self.level)];
        for (at, item) in all().enumerate() {
            let may_be_left = at < T::COUNT_MIN || (left.bytes() < half && at < count - T::COUNT_MIN);
            if may_be_left && right.items.is_empty() { left.push(item) } else { right.push(item) }
        }
        let limit = 2 * self.shape.node_bytes;
        if left.bytes().max(right.bytes()) <= limit.max(held.bytes()) { vec![left, right] } else { vec![held, rest] }
    }
}
