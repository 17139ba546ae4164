//! What a simulated file holds: 4 KiB blocks that copies share, and a hash kept up to date with every change, so that
//! thousands of crash images of one moment cost little more than their differences.

use bytes::Bytes;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

const BLOCK: usize = 4096;
/// The unit a disk writes at once; what is larger may be torn at its edges.
pub const SECTOR: u64 = 512;

/// A hash of some bytes, good enough to tell states apart; no defence against anyone who wants two alike.
pub fn hash_of(bytes: &[u8]) -> u128 {
    let (mut a, mut b) = (0x9E37_79B9_7F4A_7C15_u64, 0xD1B5_4A32_D192_ED03_u64);
    let mut words = bytes.chunks_exact(16);
    for pair in &mut words {
        (a, b) = stir(a, b, pair);
    }
    let mut rest = [0; 16];
    rest[..words.remainder().len()].copy_from_slice(words.remainder());
    (a, b) = stir(a, b, &rest);
    mix(u128::from(a) << 64 | u128::from(b), bytes.len() as u64)
}

fn stir(a: u64, b: u64, pair: &[u8]) -> (u64, u64) {
    let word = |at: usize| u64::from_le_bytes(pair[at..at + 8].try_into().expect("eight bytes"));
    let (x, y) = (word(0), word(8));
    let fold = |p: u64, q: u64| {
        let product = u128::from(p) * u128::from(q);
        product as u64 ^ (product >> 64) as u64
    };
    (
        fold(a ^ x, y ^ 0xA076_1D64_78BD_642F).wrapping_add(b),
        fold(b ^ y, x ^ 0xE703_7ED1_A0B4_28DB).wrapping_add(a.rotate_left(23)),
    )
}

/// A hash of a hash and a number: two hashes summed must not cancel because their places were swapped.
pub fn mix(hash: u128, number: u64) -> u128 {
    let x = (hash ^ u128::from(number).wrapping_mul(0x9FB2_1C65_1E98_DF25_8D8A_F3C0_64A1_2B67))
        .wrapping_mul(0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645);
    (x ^ (x >> 67)).wrapping_mul(0x5851_F42D_4C95_7F2D_1405_7B7E_F767_814F)
}

#[derive(Clone)]
struct Block {
    hash: u128,
    bytes: [u8; BLOCK],
}

impl Block {
    fn new(bytes: [u8; BLOCK]) -> Arc<Block> {
        Arc::new(Block { hash: hash_of(&bytes), bytes })
    }
}

static ZEROS: LazyLock<Arc<Block>> = LazyLock::new(|| Block::new([0; BLOCK]));

/// One write, cut at the borders of blocks once, so that laying it into many images is cheap.
pub struct Patch {
    offset: u64,
    len: u64,
    pieces: Vec<Piece>,
}

struct Piece {
    index: usize,
    within: Range<usize>,
    cover: Cover,
}

enum Cover {
    /// The block as it will be.
    Whole(Arc<Block>),
    /// Bytes for a part of the block.
    Part(Bytes),
}

impl Patch {
    /// The write of `bytes` at `offset`.
    pub(super) fn new(bytes: &[u8], offset: u64) -> Patch {
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let position = usize::try_from(offset).expect("a simulated file is small") + at;
            let (index, start) = (position / BLOCK, position % BLOCK);
            let end = BLOCK.min(start + bytes.len() - at);
            let piece = &bytes[at..at + end - start];
            let cover = match piece.try_into() {
                Ok(whole) => Cover::Whole(Block::new(whole)),
                Err(_) => Cover::Part(Bytes::copy_from_slice(piece)),
            };
            pieces.push(Piece { index, within: start..end, cover });
            at += end - start;
        }
        Patch { offset, len: bytes.len() as u64, pieces }
    }

    /// How many bytes it writes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it writes nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it ends in the file.
    pub fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// How many sectors it touches: a crash may keep each of them on its own.
    pub fn sectors(&self) -> u64 {
        self.end().div_ceil(SECTOR).saturating_sub(self.offset / SECTOR)
    }
}

impl std::fmt::Debug for Patch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..{}", self.offset, self.end())
    }
}

/// What grows a file whose new bytes never arrived.
#[derive(Clone, Copy)]
pub(super) enum Fill<'a> {
    Zeros,
    /// What had been on the disk there before, such as a file removed since.
    Old(&'a Content),
}

/// What a file holds. Bytes of the last block beyond the length are always zero. Files never shrink.
#[derive(Clone, Default)]
pub struct Content {
    len: u64,
    blocks: Arc<Vec<Arc<Block>>>,
    sum: u128,
}

impl Content {
    /// The length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A hash of all bytes and the length.
    pub fn hash(&self) -> u128 {
        mix(self.sum, self.len)
    }

    /// All bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = vec![0; usize::try_from(self.len).expect("a simulated file is small")];
        assert!(self.read(&mut all, 0), "the whole file is there");
        all
    }

    /// Fills `buf` from `offset`; `false` when the file ends before.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> bool {
        if offset.saturating_add(buf.len() as u64) > self.len {
            return false;
        }
        let mut at = 0;
        while at < buf.len() {
            let position = usize::try_from(offset).expect("below the length") + at;
            let (index, start) = (position / BLOCK, position % BLOCK);
            let count = (BLOCK - start).min(buf.len() - at);
            buf[at..at + count].copy_from_slice(&self.blocks[index].bytes[start..start + count]);
            at += count;
        }
        true
    }

    /// Lays a write into the file.
    pub(super) fn apply(&mut self, patch: &Patch) {
        self.reserve(patch.end());
        self.len = self.len.max(patch.end());
        for piece in &patch.pieces {
            match &piece.cover {
                Cover::Whole(block) => self.replace(piece.index, Arc::clone(block)),
                Cover::Part(bytes) => self.change(piece.index, |old| old[piece.within.clone()].copy_from_slice(bytes)),
            }
        }
    }

    /// Lays those sectors of a write into the file that `keeps` says (0 is the first it touches), and returns how many
    /// bytes that were. The file ends where the last kept one does, unless it was longer.
    pub(super) fn apply_torn(&mut self, patch: &Patch, keeps: impl Fn(u64) -> bool) -> u64 {
        let first = patch.offset / SECTOR;
        let mut kept = 0;
        for piece in &patch.pieces {
            let base = (piece.index * BLOCK) as u64;
            let bytes = match &piece.cover {
                Cover::Whole(block) => &block.bytes[..],
                Cover::Part(bytes) => bytes,
            };
            let mut at = piece.within.start;
            while at < piece.within.end {
                let end = ((at / SECTOR as usize + 1) * SECTOR as usize).min(piece.within.end);
                if keeps((base + at as u64) / SECTOR - first) {
                    let from = at - piece.within.start;
                    self.reserve(base + end as u64);
                    self.len = self.len.max(base + end as u64);
                    self.change(piece.index, |old| old[at..end].copy_from_slice(&bytes[from..from + end - at]));
                    kept += (end - at) as u64;
                }
                at = end;
            }
        }
        kept
    }

    /// Makes the file longer without a write.
    pub(super) fn grow(&mut self, len: u64, fill: Fill<'_>) {
        let from = self.len;
        if len <= from {
            return;
        }
        self.reserve(len);
        self.len = len;
        if let Fill::Old(old) = fill {
            let junk: Vec<u8> = (from..len).map(|at| old.byte(at).unwrap_or(0xA5)).collect();
            self.apply(&Patch::new(&junk, from));
        }
    }

    fn byte(&self, at: u64) -> Option<u8> {
        let mut one = [0];
        self.read(&mut one, at).then_some(one[0])
    }

    /// Zero blocks up to `len`; the length itself stays.
    fn reserve(&mut self, len: u64) {
        let wanted = usize::try_from(len).expect("a simulated file is small").div_ceil(BLOCK);
        if wanted > self.blocks.len() {
            for index in self.blocks.len()..wanted {
                self.sum = self.sum.wrapping_add(mix(ZEROS.hash, index as u64));
            }
            Arc::make_mut(&mut self.blocks).resize(wanted, Arc::clone(&ZEROS));
        }
    }

    fn change(&mut self, index: usize, edit: impl FnOnce(&mut [u8; BLOCK])) {
        let mut bytes = self.blocks[index].bytes;
        edit(&mut bytes);
        self.replace(index, Block::new(bytes));
    }

    fn replace(&mut self, index: usize, block: Arc<Block>) {
        let (old, new) = (self.blocks[index].hash, block.hash);
        self.sum = self.sum.wrapping_sub(mix(old, index as u64)).wrapping_add(mix(new, index as u64));
        Arc::make_mut(&mut self.blocks)[index] = block;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(writes: &[(u64, Vec<u8>)]) -> Content {
        let mut content = Content::default();
        for (offset, bytes) in writes {
            content.apply(&Patch::new(bytes, *offset));
        }
        content
    }

    proptest! {
        #[test]
        fn a_file_holds_what_was_written_and_its_hash_says_so(
            writes in proptest::collection::vec((0..20_000_u64, proptest::collection::vec(any::<u8>(), 1..9000)), 1..6)
        ) {
            let content = written(&writes);
            let mut model = Vec::new();
            for (offset, bytes) in &writes {
                let offset = usize::try_from(*offset).expect("small");
                model.resize(model.len().max(offset + bytes.len()), 0);
                model[offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            prop_assert_eq!(&content.to_vec(), &model);
            prop_assert_eq!(content.hash(), written(&[(0, model.clone())]).hash());
            model[0] ^= 1;
            prop_assert_ne!(content.hash(), written(&[(0, model)]).hash());
        }
    }

    #[test]
    fn a_copy_does_not_see_later_writes() {
        let mut content = written(&[(0, vec![1; 10_000])]);
        let copy = content.clone();
        content.apply(&Patch::new(&[2; 5000], 100));
        assert_eq!(copy.to_vec(), vec![1; 10_000]);
        assert_ne!(copy.hash(), content.hash());
    }

    #[test]
    fn a_torn_write_keeps_just_the_sectors_it_is_told() {
        let patch = Patch::new(&[7; 4096 + 200], 400);
        assert_eq!(patch.sectors(), 10);
        let mut content = Content::default();
        assert_eq!(content.apply_torn(&patch, |sector| sector == 0 || sector == 2), 112 + 512);
        let bytes = content.to_vec();
        assert_eq!(bytes.len(), 1536);
        assert!(bytes.iter().enumerate().all(|(at, b)| (*b == 7) == ((400..512).contains(&at) || at >= 1024)));
        assert_eq!(content.apply_torn(&patch, |_| true), 4296);
        assert_eq!(content.hash(), written(&[(400, vec![7; 4296])]).hash());
    }

    #[test]
    fn growth_that_never_arrived_is_zeros_or_old_bytes() {
        let old = written(&[(0, vec![3; 6000])]);
        for (fill, at_5000, at_7000) in [(Fill::Zeros, 0, 0), (Fill::Old(&old), 3, 0xA5)] {
            let mut content = written(&[(0, vec![1; 100])]);
            content.grow(8000, fill);
            let bytes = content.to_vec();
            assert_eq!((bytes.len(), bytes[99], bytes[5000], bytes[7000]), (8000, 1, at_5000, at_7000));
        }
    }

    #[test]
    fn a_length_alone_changes_the_hash() {
        let short = written(&[(0, vec![0; 10])]);
        let long = written(&[(0, vec![0; 11])]);
        assert_ne!(short.hash(), long.hash());
        assert_ne!(hash_of(b""), hash_of(b"\0"));
    }
}
