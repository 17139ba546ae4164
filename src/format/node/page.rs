//! What leaves and interior nodes share: sorted entries whose keys have their common prefix taken out, behind a table of
//! offsets, so that entry `i` is found without reading the others.
//!
//! ```text
//! header | common prefix | offset of each entry, u32 | entries: suffix length and flag, u16; suffix; value
//! ```

use crate::format::error::FormatError;
use crate::format::key::KEY_BYTES_MAX;
use crate::format::wire::{Reader, fits, layout};
use bytes::{BufMut, Bytes};
use std::cmp::Ordering;

const MAGIC: u32 = u32::from_le_bytes(*b"SKno");
pub(super) const KIND_LEAF: u8 = 1;
pub(super) const KIND_INTERIOR: u8 = 2;

layout! {
    mod at, 12 bytes { MAGIC: 4, KIND: 1, LEVEL: 1, PREFIX_LEN: 2, ENTRIES: 4 }
}

const SLOT_BYTES: usize = 4;
/// Suffix length and flag.
const ENTRY_HEAD_BYTES: usize = 2;
/// Set in an entry's suffix length when its value is a run of extents.
const RUN: u16 = 0x8000;

const _: () = assert!(KEY_BYTES_MAX < RUN as usize);

/// What kind of node bytes seem to be, by one look at their head.
pub(super) fn kind_of(bytes: &[u8]) -> Option<u8> {
    bytes.get(at::KIND).copied()
}

/// A node whose bounds and key order are verified.
#[derive(Clone, Debug)]
pub(super) struct Page {
    bytes: Bytes,
    kind: u8,
    level: u8,
    prefix_len: usize,
    entries: usize,
}

/// One entry of a page.
pub(super) struct Entry<'a> {
    pub(super) suffix: &'a [u8],
    pub(super) is_run: bool,
    value_at: usize,
    value_end: usize,
}

impl Page {
    pub(super) fn decode(bytes: Bytes) -> Result<Page, FormatError> {
        if bytes.len() > super::NODE_BYTES_MAX {
            return Err(FormatError::TooBig { limit: super::NODE_BYTES_MAX as u64, found: bytes.len() as u64 });
        }
        let mut field = Reader::new(&bytes);
        field.magic("a tree node", MAGIC)?;
        let (kind, level) = (field.u8()?, field.u8()?);
        let prefix_len = usize::from(field.u16()?);
        let entries = field.count(SLOT_BYTES + ENTRY_HEAD_BYTES)?;
        if entries == 0 {
            return Err(FormatError::Value("a node without entries"));
        }
        field.take(prefix_len)?;
        field.take(entries * SLOT_BYTES)?;
        let page = Page { kind, level, prefix_len, entries, bytes };
        page.check_entries()?;
        Ok(page)
    }

    /// Entries must follow one another without gaps, up to the end, and their keys must increase.
    fn check_entries(&self) -> Result<(), FormatError> {
        if self.slot(0) != self.slots_at() + self.entries * SLOT_BYTES {
            return Err(FormatError::Value("the first entry is not where the offsets end"));
        }
        let mut before: Option<&[u8]> = None;
        for i in 0..self.entries {
            let (from, to) = (self.slot(i), self.slot(i + 1));
            if to > self.bytes.len() || to < from.saturating_add(ENTRY_HEAD_BYTES) {
                return Err(FormatError::Value("entry offsets do not increase"));
            }
            let suffix_len = usize::from(self.entry_head(from) & !RUN);
            if to - from - ENTRY_HEAD_BYTES < suffix_len {
                return Err(FormatError::TooShort { need: suffix_len as u64, have: (to - from) as u64 });
            }
            let suffix = self.entry(i).suffix;
            match self.prefix_len + suffix.len() {
                1..=KEY_BYTES_MAX => {}
                found => return Err(FormatError::TooBig { limit: KEY_BYTES_MAX as u64, found: found as u64 }),
            }
            if before.is_some_and(|before| before >= suffix) {
                return Err(FormatError::Key("keys are not in order"));
            }
            before = Some(suffix);
        }
        Ok(())
    }

    pub(super) fn kind(&self) -> u8 {
        self.kind
    }

    pub(super) fn level(&self) -> u8 {
        self.level
    }

    pub(super) fn len(&self) -> usize {
        self.entries
    }

    fn slots_at(&self) -> usize {
        at::SIZE + self.prefix_len
    }

    /// Where entry `i` starts; for `i` one too many, where the last one ends.
    fn slot(&self, i: usize) -> usize {
        if i == self.entries {
            return self.bytes.len();
        }
        let slot = &self.bytes[self.slots_at() + i * SLOT_BYTES..];
        u32::from_le_bytes([slot[0], slot[1], slot[2], slot[3]]) as usize
    }

    fn entry_head(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    pub(super) fn entry(&self, i: usize) -> Entry<'_> {
        let (from, value_end) = (self.slot(i), self.slot(i + 1));
        let head = self.entry_head(from);
        let suffix_at = from + ENTRY_HEAD_BYTES;
        let value_at = suffix_at + usize::from(head & !RUN);
        Entry { suffix: &self.bytes[suffix_at..value_at], is_run: head & RUN != 0, value_at, value_end }
    }

    fn prefix(&self) -> &[u8] {
        &self.bytes[at::SIZE..at::SIZE + self.prefix_len]
    }

    /// The whole key of entry `i`.
    pub(super) fn key(&self, i: usize) -> Vec<u8> {
        let suffix = self.entry(i).suffix;
        let mut key = Vec::with_capacity(self.prefix_len + suffix.len());
        key.extend_from_slice(self.prefix());
        key.extend_from_slice(suffix);
        key
    }

    /// The value of entry `i`, without a copy.
    pub(super) fn value(&self, i: usize) -> Bytes {
        let entry = self.entry(i);
        self.bytes.slice(entry.value_at..entry.value_end)
    }

    pub(super) fn value_bytes(&self, i: usize) -> &[u8] {
        let entry = self.entry(i);
        &self.bytes[entry.value_at..entry.value_end]
    }

    /// The first entry whose key is `key` or above, and whether it is `key`.
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        let shared = key.len().min(prefix.len());
        match key[..shared].cmp(&prefix[..shared]) {
            Ordering::Less => return Err(0),
            Ordering::Greater => return Err(self.entries),
            Ordering::Equal if shared < prefix.len() => return Err(0),
            Ordering::Equal => {}
        }
        let rest = &key[shared..];
        let (mut low, mut high) = (0, self.entries);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.entry(middle).suffix.cmp(rest) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }
}

/// Collects sorted entries for one page.
pub(super) struct PageBuilder {
    kind: u8,
    level: u8,
    /// Keys and values, each entry's key and then its value.
    data: Vec<u8>,
    entries: Vec<Collected>,
    prefix_len: usize,
}

struct Collected {
    key_at: usize,
    value_at: usize,
    is_run: bool,
}

impl PageBuilder {
    pub(super) fn new(kind: u8, level: u8) -> PageBuilder {
        PageBuilder { kind, level, data: Vec::new(), entries: Vec::new(), prefix_len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn key_of(&self, entry: &Collected) -> &[u8] {
        &self.data[entry.key_at..entry.value_at]
    }

    /// The key of the entry pushed last.
    pub(super) fn last_key(&self) -> Option<&[u8]> {
        self.entries.last().map(|entry| self.key_of(entry))
    }

    fn prefix_len_with(&self, key: &[u8]) -> usize {
        match self.entries.first() {
            Some(first) => {
                let shared = self.key_of(first).iter().zip(key).take_while(|(a, b)| a == b).count();
                shared.min(self.prefix_len)
            }
            None => key.len(),
        }
    }

    /// Bytes of the page as it is.
    pub(super) fn size(&self) -> usize {
        size_of(self.entries.len(), self.data.len(), self.prefix_len)
    }

    /// Bytes of the page after one more entry, which may shorten the common prefix of all.
    pub(super) fn size_with(&self, key: &[u8], value_len: usize) -> usize {
        size_of(self.entries.len() + 1, self.data.len() + key.len() + value_len, self.prefix_len_with(key))
    }

    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) {
        assert!((1..=KEY_BYTES_MAX).contains(&key.len()), "a key of {} bytes", key.len());
        assert!(self.last_key().is_none_or(|last| last < key), "keys are pushed in order");
        self.prefix_len = self.prefix_len_with(key);
        let key_at = self.data.len();
        self.data.extend_from_slice(key);
        self.entries.push(Collected { key_at, value_at: self.data.len(), is_run: false });
        self.data.extend_from_slice(value);
    }

    /// Replaces the value of the entry pushed last by a run.
    pub(super) fn make_run(&mut self, run: &[u8]) {
        let last = self.entries.last_mut().expect("an entry was pushed");
        last.is_run = true;
        self.data.truncate(last.value_at);
        self.data.extend_from_slice(run);
    }

    /// # Panics
    /// When nothing was pushed: an empty tree has no node.
    pub(super) fn finish(self) -> Vec<u8> {
        let first = self.entries.first().expect("a node has entries");
        let mut out = Vec::with_capacity(self.size());
        out.put_u32_le(MAGIC);
        out.put_u8(self.kind);
        out.put_u8(self.level);
        out.put_u16_le(fits(self.prefix_len));
        out.put_u32_le(fits(self.entries.len()));
        out.put_slice(&self.key_of(first)[..self.prefix_len]);
        let slots_at = out.len();
        out.put_bytes(0, self.entries.len() * SLOT_BYTES);
        let ends = self.entries.iter().skip(1).map(|next| next.key_at).chain([self.data.len()]);
        for (i, (entry, end)) in self.entries.iter().zip(ends).enumerate() {
            let slot = slots_at + i * SLOT_BYTES;
            let offset: u32 = fits(out.len());
            out[slot..slot + SLOT_BYTES].copy_from_slice(&offset.to_le_bytes());
            let suffix = &self.key_of(entry)[self.prefix_len..];
            out.put_u16_le(fits::<u16>(suffix.len()) | if entry.is_run { RUN } else { 0 });
            out.put_slice(suffix);
            out.put_slice(&self.data[entry.value_at..end]);
        }
        assert!(out.len() <= super::NODE_BYTES_MAX, "a node of {} bytes", out.len());
        out
    }
}

/// Bytes of a page with this many entries, whose keys and values take `data_len` and share a prefix.
fn size_of(entries: usize, data_len: usize, prefix_len: usize) -> usize {
    let slots_and_heads = entries * (SLOT_BYTES + ENTRY_HEAD_BYTES);
    at::SIZE + prefix_len + slots_and_heads + data_len - entries * prefix_len
}
