//! Interior nodes: the first key of each child, and where the child is.

use super::page::{KIND_INTERIOR, Page, PageBuilder};
use crate::format::error::FormatError;
use crate::format::ids::NodePtr;
use crate::format::wire::Reader;
use bytes::Bytes;

/// A decoded interior node.
#[derive(Clone, Debug)]
pub struct Interior {
    page: Page,
}

impl Interior {
    pub(super) fn new(page: Page) -> Result<Interior, FormatError> {
        for entry in 0..page.len() {
            if page.entry(entry).is_run {
                return Err(FormatError::Value("a run in an interior node"));
            }
            let mut field = Reader::new(page.value_bytes(entry));
            NodePtr::read(&mut field)?;
            field.end()?;
        }
        Ok(Interior { page })
    }

    /// How many children there are; never 0.
    #[expect(clippy::len_without_is_empty, reason = "an interior node is never empty")]
    pub fn len(&self) -> usize {
        self.page.len()
    }

    /// Levels below this one.
    pub fn level(&self) -> u8 {
        self.page.level()
    }

    /// The first key that child `i` may hold.
    ///
    /// # Panics
    /// When `i` is not below [`Interior::len`].
    pub fn first_key(&self, i: usize) -> Bytes {
        self.page.key(i).into()
    }

    /// Where child `i` is.
    ///
    /// # Panics
    /// When `i` is not below [`Interior::len`].
    pub fn child(&self, i: usize) -> NodePtr {
        NodePtr::read(&mut Reader::new(self.page.value_bytes(i))).expect("checked when decoded")
    }

    /// The child that holds `key` if the tree does: the last one that starts at or below it, or the first of all.
    pub fn child_for(&self, key: &[u8]) -> usize {
        match self.page.search(key) {
            Ok(i) => i,
            Err(above) => above.saturating_sub(1),
        }
    }
}

/// Builds an interior node from children in key order.
pub struct InteriorBuilder {
    page: PageBuilder,
}

impl InteriorBuilder {
    /// A builder without children, for a node with `level` levels below it.
    ///
    /// # Panics
    /// When `level` is 0: those are leaves.
    pub fn new(level: u8) -> InteriorBuilder {
        assert!(level > 0, "an interior node at the lowest level");
        InteriorBuilder { page: PageBuilder::new(KIND_INTERIOR, level) }
    }

    /// Children pushed.
    pub fn len(&self) -> usize {
        self.page.len()
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.page.len() == 0
    }

    /// Bytes of the node as it is.
    pub fn size(&self) -> usize {
        self.page.size()
    }

    /// Bytes of the node after one more child. Finish first when this is above the target.
    pub fn size_with(&self, first_key: &[u8]) -> usize {
        self.page.size_with(first_key, super::NODE_PTR_BYTES)
    }

    /// Adds a child.
    ///
    /// # Panics
    /// When the key is not above all before.
    pub fn push(&mut self, first_key: &[u8], child: NodePtr) {
        let mut value = Vec::with_capacity(super::NODE_PTR_BYTES);
        child.encode_to(&mut value);
        self.page.push(first_key, &value);
    }

    /// The bytes of the node.
    ///
    /// # Panics
    /// When nothing was pushed.
    pub fn finish(self) -> Vec<u8> {
        self.page.finish()
    }
}
