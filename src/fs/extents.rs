//! Where a file's contents are: nowhere (all holes), in an inline value, or in extents; and how extents make room for others.
//!
//! `blocks` is 0 exactly when nothing is stored, so a new file costs no look-up of contents.

use super::INLINE_BYTES_MAX;
use super::error::{Stop, damaged};
use super::work::Work;
use crate::format::batch::TreeId;
use crate::format::ids::{InodeNo, OBJECT_BYTES_MAX};
use crate::format::inode::{Extent, Inode};
use crate::format::key::{self, Key};
use bytes::Bytes;

/// Bytes in an object, as an offset.
pub(super) const OBJECT_BYTES: u64 = OBJECT_BYTES_MAX as u64;
/// Extents read from the map at a time.
const PAGE: usize = 1024;

/// Where a file's contents are.
pub(super) enum Stored {
    /// The file is one hole.
    Nowhere,
    /// Its first bytes; the rest is a hole.
    Inline(Bytes),
    /// In extents.
    Extents,
}

/// An extent and where in the file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub at: u64,
    pub extent: Extent,
}

impl Piece {
    fn decode(ino: InodeNo, key: &[u8], value: &[u8]) -> Result<Piece, Stop> {
        let bad = |e| damaged(format_args!("extent of inode {ino}: {e}"));
        let extent = Extent::decode(value).map_err(bad)?;
        match Key::decode(key).map_err(bad)? {
            Key::Extent(of, at) if of == ino && at.checked_add(u64::from(extent.len)).is_some() => {
                Ok(Piece { at, extent })
            }
            other => Err(damaged(format_args!("{other:?} among the extents of inode {ino}"))),
        }
    }

    pub fn end(&self) -> u64 {
        self.at + u64::from(self.extent.len)
    }

    fn blocks(&self) -> u64 {
        blocks_of(u64::from(self.extent.len))
    }

    /// The part in `from..to`, which it has a byte of.
    pub fn within(self, from: u64, to: u64) -> Piece {
        let piece = if self.at < from { self.tail(from) } else { self };
        if piece.end() > to { piece.head(to) } else { piece }
    }

    /// The part before `end`, which lies inside the piece.
    fn head(&self, end: u64) -> Piece {
        let len = u32::try_from(end - self.at).expect("inside a piece");
        Piece { at: self.at, extent: Extent { len, ..self.extent } }
    }

    /// The part from `start` on, which lies inside the piece.
    fn tail(&self, start: u64) -> Piece {
        let cut = u32::try_from(start - self.at).expect("inside a piece");
        let object_offset = self.extent.object_offset + cut;
        Piece { at: start, extent: Extent { len: self.extent.len - cut, object_offset, ..self.extent } }
    }
}

/// Whether these neighbours, in order, hold every byte of `from..to`.
fn covers(pieces: &[Piece], from: u64, to: u64) -> bool {
    let end = pieces.iter().fold(from, |end, piece| if piece.at <= end { end.max(piece.end()) } else { end });
    end >= to
}

/// Units of 512 bytes that `len` bytes take.
pub(super) fn blocks_of(len: u64) -> u64 {
    len.div_ceil(512)
}

/// Cuts `data` where the file offset, which starts at `offset`, is a multiple of the object size.
pub(super) fn aligned(offset: u64, data: &Bytes) -> impl Iterator<Item = (u64, Bytes)> + use<> {
    let mut rest = data.clone();
    let mut at = offset;
    std::iter::from_fn(move || {
        let room = usize::try_from(OBJECT_BYTES - at % OBJECT_BYTES).expect("an object is small");
        let piece = rest.split_to(room.min(rest.len()));
        let start = at;
        at = at.saturating_add(piece.len() as u64);
        (!piece.is_empty()).then_some((start, piece))
    })
}

impl Work<'_> {
    pub fn stored(&mut self, ino: InodeNo, inode: &Inode) -> Result<Stored, Stop> {
        if inode.blocks == 0 {
            return Ok(Stored::Nowhere);
        }
        if inode.size <= INLINE_BYTES_MAX {
            if let Some(value) = self.get(&key::inline(ino))? {
                return Ok(Stored::Inline(value));
            }
        }
        Ok(Stored::Extents)
    }

    /// Replaces the inline value; an empty one is not kept.
    pub fn set_inline(&mut self, ino: InodeNo, inode: &mut Inode, value: Vec<u8>) {
        inode.blocks = blocks_of(value.len() as u64);
        if value.is_empty() {
            self.delete(key::inline(ino));
        } else {
            self.put(key::inline(ino), value.into());
        }
    }

    /// Writes data where no extent is (any more).
    pub fn add_extents(&mut self, ino: InodeNo, inode: &mut Inode, offset: u64, data: &Bytes) {
        for (at, piece) in aligned(offset, data) {
            inode.blocks = inode.blocks.saturating_add(blocks_of(piece.len() as u64));
            self.tx.write_object(ino, at, piece);
        }
    }

    /// The extents that start in `from..to`, the first `limit` of them.
    pub fn starting_in(&mut self, ino: InodeNo, from: u64, to: u64, limit: usize) -> Result<Vec<Piece>, Stop> {
        let (from, to) = key::extents_in(ino, from, to);
        let rows = self.scan(&from, &to, limit)?;
        rows.iter().map(|(key, value)| Piece::decode(ino, key, value)).collect()
    }

    /// The extent that starts before `at` and reaches beyond it.
    fn straddling(&mut self, ino: InodeNo, at: u64) -> Result<Option<Piece>, Stop> {
        let mut last = None;
        let mut from = at.saturating_sub(OBJECT_BYTES - 1);
        loop {
            let page = self.starting_in(ino, from, at, PAGE)?;
            last = page.last().copied().or(last);
            match page.last() {
                Some(piece) if page.len() == PAGE => from = piece.at + 1,
                _ => return Ok(last.filter(|piece| piece.end() > at)),
            }
        }
    }

    /// The extents that hold bytes of `from..to`, in order, at most about `limit`; what is left out lies behind them.
    pub fn overlapping(&mut self, ino: InodeNo, from: u64, to: u64, limit: usize) -> Result<Vec<Piece>, Stop> {
        let mut pieces = self.starting_in(ino, from, to, limit)?;
        if pieces.first().is_none_or(|first| first.at > from) {
            if let Some(piece) = self.straddling(ino, from)? {
                pieces.insert(0, piece);
            }
        }
        Ok(pieces)
    }

    /// Makes room for a write over `from..to`. Where too many old ones lie there for one batch it stops earlier, and says where.
    pub fn clear(
        &mut self,
        ino: InodeNo,
        inode: &mut Inode,
        from: u64,
        mut to: u64,
        limit: usize,
    ) -> Result<u64, Stop> {
        let mut pieces = self.overlapping(ino, from, to, limit)?;
        if pieces.len() >= limit.max(2) {
            to = pieces.pop().map_or(to, |piece| piece.at);
        }
        if covers(&pieces, from, to) {
            self.always_fits();
        }
        for piece in pieces {
            inode.blocks = inode.blocks.saturating_sub(piece.blocks());
            if piece.at < from {
                self.keep(ino, inode, piece.head(from));
            } else if piece.at > from && piece.at % OBJECT_BYTES != 0 {
                // A write's extents start at `from` and at each multiple of the object size, and replace what has their key.
                self.delete(key::extent(ino, piece.at));
            }
            if piece.end() > to {
                self.keep(ino, inode, piece.tail(to));
            }
        }
        Ok(to)
    }

    /// Removes all extents, and parts of extents, in `from..to`: in one range, however many there are.
    pub fn cut(&mut self, ino: InodeNo, inode: &mut Inode, from: u64, to: u64) -> Result<(), Stop> {
        if from == 0 && to >= inode.size {
            inode.blocks = 0;
            self.delete_range(key::extents_of(ino));
            return Ok(());
        }
        let across_from = self.straddling(ino, from)?;
        let across_to = self.straddling(ino, to)?;
        // Count whichever side is likely the shorter one.
        inode.blocks = if to.min(inode.size).saturating_sub(from) <= inode.size / 2 {
            let gone = self.blocks_in(ino, from, to)? + across_from.map_or(0, |piece| piece.blocks());
            inode.blocks.saturating_sub(gone)
        } else {
            self.blocks_in(ino, 0, across_from.map_or(from, |piece| piece.at))? + self.blocks_in(ino, to, u64::MAX)?
        };
        self.delete_range(key::extents_in(ino, from, to));
        if let Some(piece) = across_from {
            self.keep(ino, inode, piece.head(from));
        }
        if let Some(piece) = across_to {
            self.keep(ino, inode, piece.tail(to));
        }
        Ok(())
    }

    /// Asks for the map's nodes with the extents of `from..to`, many at a time: a restart goes over all that was there before,
    /// so one for each node would take time that grows with the square of their number.
    pub fn want_extents(&mut self, ino: InodeNo, from: u64, to: u64) -> Result<(), Stop> {
        let (from, to) = key::extents_in(ino, from, to);
        Ok(self.tx.want_range(TreeId::Files, &from, &to)?)
    }

    /// Puts a part of an extent where none is (any more).
    pub fn keep(&mut self, ino: InodeNo, inode: &mut Inode, piece: Piece) {
        inode.blocks = inode.blocks.saturating_add(piece.blocks());
        self.put(key::extent(ino, piece.at), piece.extent.encode());
    }

    /// The blocks of all extents that start in `from..to`.
    pub fn blocks_in(&mut self, ino: InodeNo, mut from: u64, to: u64) -> Result<u64, Stop> {
        self.want_extents(ino, from, to)?;
        let mut blocks = 0;
        loop {
            let page = self.starting_in(ino, from, to, PAGE)?;
            blocks += page.iter().map(Piece::blocks).sum::<u64>();
            match page.last() {
                Some(piece) if page.len() == PAGE => from = piece.at + 1,
                _ => return Ok(blocks),
            }
        }
    }
}
