//! Leaves: keys and values of a map. Entry numbers count what a reader sees: each extent of a run is an entry.

use super::page::{KIND_LEAF, Page, PageBuilder};
use super::run::Run;
use crate::format::error::FormatError;
use crate::format::key::VALUE_BYTES_MAX;
use bytes::Bytes;

/// A decoded leaf.
#[derive(Clone, Debug)]
pub struct Leaf {
    page: Page,
    /// For each encoded entry the number of its first visible one. `None` when no entry is a run: then they are the same.
    starts: Option<Box<[u32]>>,
    len: usize,
}

impl Leaf {
    pub(super) fn new(page: Page) -> Result<Leaf, FormatError> {
        let mut leaf = Leaf { len: page.len(), starts: None, page };
        if (0..leaf.page.len()).any(|entry| leaf.page.entry(entry).is_run) {
            leaf.number_entries()?;
        }
        if (0..leaf.page.len()).any(|entry| leaf.page.value_bytes(entry).len() > VALUE_BYTES_MAX) {
            return Err(FormatError::Value("a value above 64 KiB"));
        }
        Ok(leaf)
    }

    /// Checks the runs and numbers what they stand for.
    fn number_entries(&mut self) -> Result<(), FormatError> {
        let mut starts = Vec::with_capacity(self.page.len());
        let mut next = 0;
        for entry in 0..self.page.len() {
            starts.push(next);
            next += 1;
            if !self.page.entry(entry).is_run {
                continue;
            }
            let run = Run::decode(&self.page.key(entry), self.page.value_bytes(entry))?;
            next += run.count - 1;
            let follower = entry + 1;
            if follower < self.page.len() && self.page.key(follower)[..] <= run.key(run.count - 1)[..] {
                return Err(FormatError::Key("a run of extents reaches over the next key"));
            }
        }
        self.starts = Some(starts.into());
        self.len = next as usize;
        Ok(())
    }

    /// How many entries there are; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a leaf is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Which encoded entry holds entry `i`, and which extent of a run it is there.
    fn place(&self, i: usize) -> (usize, u32) {
        match &self.starts {
            None => (i, 0),
            Some(starts) => {
                let entry = starts.partition_point(|&start| start as usize <= i) - 1;
                (entry, i as u32 - starts[entry])
            }
        }
    }

    fn start(&self, entry: usize) -> usize {
        match &self.starts {
            None => entry,
            Some(starts) => starts.get(entry).map_or(self.len, |&start| start as usize),
        }
    }

    fn run(&self, entry: usize) -> Option<Run> {
        let is_run = self.page.entry(entry).is_run;
        is_run.then(|| Run::decode(&self.page.key(entry), self.page.value_bytes(entry)).expect("checked when decoded"))
    }

    /// The key of entry `i`.
    ///
    /// # Panics
    /// When `i` is not below [`Leaf::len`].
    pub fn key(&self, i: usize) -> Bytes {
        let (entry, j) = self.place(i);
        match self.run(entry) {
            Some(run) => Bytes::copy_from_slice(&run.key(j)),
            None => self.page.key(entry).into(),
        }
    }

    /// The value of entry `i`: a slice of the node, except for an extent of a run.
    ///
    /// # Panics
    /// When `i` is not below [`Leaf::len`].
    pub fn value(&self, i: usize) -> Bytes {
        let (entry, j) = self.place(i);
        match self.run(entry) {
            Some(run) => run.value(j),
            None => self.page.value(entry),
        }
    }

    /// The value of `key`, if it is here.
    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        match self.search(key) {
            Ok(i) => Some(self.value(i)),
            Err(_) => None,
        }
    }

    /// The first entry whose key is `key` or above; [`Leaf::len`] if there is none.
    pub fn lower_bound(&self, key: &[u8]) -> usize {
        self.search(key).unwrap_or_else(|i| i)
    }

    /// The entry with this key, or where it would be.
    fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let above = match self.page.search(key) {
            Ok(entry) => return Ok(self.start(entry)),
            Err(above) => above,
        };
        // The key may lie inside a run that starts below it.
        let Some((entry, run)) = above.checked_sub(1).and_then(|entry| Some((entry, self.run(entry)?))) else {
            return Err(self.start(above));
        };
        let j = run.lower_bound(key);
        let i = self.start(entry) + j as usize;
        if j < run.count && run.key(j)[..] == *key { Ok(i) } else { Err(i) }
    }
}

/// Builds a leaf from sorted entries.
pub struct LeafBuilder {
    page: PageBuilder,
    /// The run that the entry pushed last is, or could become.
    run: Option<Run>,
    entries: usize,
}

impl Default for LeafBuilder {
    fn default() -> LeafBuilder {
        LeafBuilder::new()
    }
}

impl LeafBuilder {
    /// A builder without entries.
    pub fn new() -> LeafBuilder {
        LeafBuilder { page: PageBuilder::new(KIND_LEAF, 0), run: None, entries: 0 }
    }

    /// Entries pushed.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Bytes of the leaf as it is.
    pub fn size(&self) -> usize {
        self.page.size()
    }

    /// Bytes of the leaf after one more entry, at most. Finish first when this is above the target: an entry with a key
    /// unlike the others makes all of them longer.
    pub fn size_with(&self, key: &[u8], value: &[u8]) -> usize {
        self.page.size_with(key, value.len())
    }

    /// Adds an entry.
    ///
    /// # Panics
    /// When the key is not above all before, or key or value are longer than allowed.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        assert!(value.len() <= VALUE_BYTES_MAX, "a value of {} bytes", value.len());
        self.entries += 1;
        if let Some(run) = self.run.and_then(|run| run.continued_by(key, value)) {
            self.page.make_run(&run.encode());
            self.run = Some(run);
            return;
        }
        if let Some(run) = self.run {
            assert!(run.key(run.count - 1)[..] < *key, "keys are pushed in order");
        }
        self.page.push(key, value);
        self.run = Run::starting_with(key, value);
    }

    /// The bytes of the leaf.
    ///
    /// # Panics
    /// When nothing was pushed: an empty tree has no node.
    pub fn finish(self) -> Vec<u8> {
        self.page.finish()
    }
}
