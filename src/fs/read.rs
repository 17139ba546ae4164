//! Reading file contents. Holes, and what was never written, read as zeros. An access is noted elsewhere (`atime.rs`).

use super::error::{Stop, damaged};
use super::extents::{Piece, Stored};
use super::work::Work;
use super::{Cx, Fs};
use crate::format::ids::InodeNo;

/// Extents copied between two scans.
const PAGE: usize = 64;

impl Fs {
    /// Up to `len` bytes from `offset` on; fewer only at the end of the file.
    pub fn read(&self, cx: &Cx, ino: InodeNo, offset: u64, len: u32) -> Result<Vec<u8>, Stop> {
        let _held = self.locks.shared(ino);
        let mut work = self.begin(cx);
        let inode = work.file(ino)?;
        let left = inode.size.saturating_sub(offset).min(u64::from(len));
        let mut out = vec![0; usize::try_from(left).expect("at most 32 bits")];
        if out.is_empty() {
            return Ok(out);
        }
        match work.stored(ino, &inode)? {
            Stored::Nowhere => {}
            Stored::Inline(value) => {
                let from = usize::try_from(offset).map_or(value.len(), |from| from.min(value.len()));
                let bytes = &value[from..value.len().min(from + out.len())];
                out[..bytes.len()].copy_from_slice(bytes);
            }
            Stored::Extents => work.read_extents(ino, offset, &mut out)?,
        }
        Ok(out)
    }
}

impl Work<'_> {
    /// Fills `out`, which is all zeros, with what extents hold from `offset` on.
    fn read_extents(&mut self, ino: InodeNo, offset: u64, out: &mut [u8]) -> Result<(), Stop> {
        let end = offset.saturating_add(out.len() as u64);
        let mut from = offset;
        loop {
            let pieces = self.overlapping(ino, from, end, PAGE)?;
            self.tx.want_objects(pieces.iter().map(|piece| piece.extent.object))?;
            for piece in &pieces {
                self.copy_piece(ino, piece, offset, out)?;
            }
            match pieces.last() {
                Some(last) if pieces.len() >= PAGE && last.end() < end => from = last.end(),
                _ => return Ok(()),
            }
        }
    }

    fn copy_piece(&mut self, ino: InodeNo, piece: &Piece, offset: u64, out: &mut [u8]) -> Result<(), Stop> {
        let from = piece.at.max(offset);
        let to = piece.end().min(offset.saturating_add(out.len() as u64));
        let index = |n: u64| usize::try_from(n).expect("inside an object or a read");
        let skipped = index(u64::from(piece.extent.object_offset) + (from - piece.at));
        let bytes = self.tx.read_object(&piece.extent.object)?;
        let wanted = bytes.get(skipped..skipped + index(to - from)).ok_or_else(|| {
            let (object, have) = (piece.extent.object, bytes.len());
            damaged(format_args!("object {object} has {have} bytes, but inode {ino} at {from} needs more"))
        })?;
        out[index(from - offset)..index(to - offset)].copy_from_slice(wanted);
        Ok(())
    }
}
