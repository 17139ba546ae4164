//! Reading file contents. Holes, and what was never written, read as zeros; what is lost cannot be read. An access is noted
//! elsewhere (`atime.rs`).

use super::error::{Stop, damaged, lost};
use super::extents::{Piece, Stored};
use super::work::Work;
use super::{Cx, Fs};
use crate::format::ids::InodeNo;
use bytes::Bytes;
use std::ops::Range;

/// Extents copied between two scans.
const PAGE: usize = 64;

impl Fs {
    /// Up to `len` bytes from `offset` on; fewer only at the end of the file.
    pub fn read(&self, cx: &Cx, ino: InodeNo, offset: u64, len: u32) -> Result<Vec<u8>, Stop> {
        let _held = self.locks.shared(ino);
        let mut work = self.begin(cx);
        let inode = work.file(ino)?;
        let left = inode.size.saturating_sub(offset).min(u64::from(len));
        let left = usize::try_from(left).expect("at most 32 bits");
        let mut out = Vec::with_capacity(left);
        if left == 0 {
            return Ok(out);
        }
        match work.stored(ino, &inode)? {
            Stored::Nowhere => {}
            Stored::Inline(value) => {
                let from = usize::try_from(offset).map_or(value.len(), |from| from.min(value.len()));
                out.extend_from_slice(&value[from..value.len().min(from + left)]);
            }
            Stored::Extents => work.read_extents(ino, offset, left, &mut out)?,
        }
        out.resize(left, 0);
        Ok(out)
    }
}

impl Work<'_> {
    /// Appends to `out` what extents hold in the `len` bytes from `offset` on, up to the last of them.
    fn read_extents(&mut self, ino: InodeNo, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<(), Stop> {
        let end = offset.saturating_add(len as u64);
        let mut from = offset;
        loop {
            let pieces = self.overlapping(ino, from, end, PAGE)?;
            if let Some(piece) = pieces.iter().find(|piece| piece.extent.is_lost()) {
                return Err(lost(ino, piece.at..piece.end()));
            }
            let objects = self.tx.read_objects(pieces.iter().map(|piece| piece.extent.object))?;
            for (piece, object) in pieces.iter().zip(&objects) {
                append(ino, piece, object, offset..end, out)?;
            }
            match pieces.last() {
                Some(last) if pieces.len() >= PAGE && last.end() < end => from = last.end(),
                _ => return Ok(()),
            }
        }
    }
}

/// Appends to `out`, which starts at `wanted.start` of the file, what lies before the piece as zeros, and of the piece what is
/// wanted.
fn append(ino: InodeNo, piece: &Piece, object: &Bytes, wanted: Range<u64>, out: &mut Vec<u8>) -> Result<(), Stop> {
    let from = piece.at.max(wanted.start);
    let to = piece.end().min(wanted.end);
    let index = |n: u64| usize::try_from(n).expect("inside an object or a read");
    let skipped = index(u64::from(piece.extent.object_offset) + (from - piece.at));
    let bytes = object.get(skipped..skipped + index(to - from)).ok_or_else(|| {
        let (object, have) = (piece.extent.object, object.len());
        damaged(format_args!("object {object} has {have} bytes, but inode {ino} at {from} needs more"))
    })?;
    out.resize(index(from - wanted.start), 0);
    out.extend_from_slice(bytes);
    Ok(())
}
