//! Writing file contents: one batch for one write. Old extents under the new data are trimmed or deleted in the same batch.

use super::error::{Error, Stop};
use super::extents::Stored;
use super::work::Work;
use super::{Cx, FILE_BYTES_MAX, Fs, INLINE_BYTES_MAX, Options};
use crate::format::ids::{InodeNo, Lsn};
use crate::format::inode::Inode;
use crate::format::key;
use crate::map::db::Room;
use bytes::Bytes;

/// A write goes over at most this many old extents; a longer one is cut short.
pub(super) const OLD_EXTENTS_MAX: usize = 2048;

impl Options {
    /// How many old extents a write may go over, and how many a copy may share. Their edits (some 20 bytes each, or 50), an
    /// inline value that is moved, and the inode stay together below [`Options::write_bytes_max`], so a batch takes at most
    /// twice that; it must be 4 KiB or more.
    pub(super) fn old_extents_max(&self) -> usize {
        (self.write_bytes_max / 128).clamp(2, OLD_EXTENTS_MAX)
    }
}

impl Fs {
    /// Writes data at an offset, beyond the end too. Returns how many bytes were written, at least one if there are any.
    pub fn write(&self, cx: &Cx, ino: InodeNo, offset: u64, data: &[u8]) -> Result<(u32, Lsn), Stop> {
        self.write_bytes(cx, ino, offset, &Bytes::copy_from_slice(data))
    }

    /// The same with data that is shared instead of copied.
    pub fn write_bytes(&self, cx: &Cx, ino: InodeNo, offset: u64, data: &Bytes) -> Result<(u32, Lsn), Stop> {
        let mut data = data.clone();
        let _held = self.locks.exclusive(&[ino]);
        loop {
            match self.write_locked(cx, ino, offset, &data) {
                Err(stop @ Stop::Error(Error::Limit(_))) => {
                    data = data.slice_ref(self.fitting(offset, &data).ok_or(stop)?);
                }
                done => return done,
            }
        }
    }

    fn write_locked(&self, cx: &Cx, ino: InodeNo, offset: u64, data: &Bytes) -> Result<(u32, Lsn), Stop> {
        let mut work = self.begin(cx);
        let mut inode = work.file(ino)?;
        if data.is_empty() {
            return Ok((0, work.commit(Room::Ordinary)?));
        }
        let present = cx.present(&inode, offset, data);
        if present.is_empty() {
            return Ok((short(data.len()), work.commit(Room::Ordinary)?));
        }
        let late = data.len() - present.len();
        let data = self.writable(offset, &present)?;
        let written = work.write(ino, &mut inode, offset, &data, self.options.old_extents_max())?;
        inode.size = inode.size.max(offset + written);
        work.contents_changed(ino, &mut inode);
        work.set_inode(ino, &inode);
        let lsn = work.commit(Room::Ordinary)?;
        let late = if written == present.len() as u64 { late } else { 0 };
        Ok((short(late) + u32::try_from(written).expect("a write is short"), lsn))
    }

    /// As much of `data` as one write may write there.
    fn writable(&self, offset: u64, data: &Bytes) -> Result<Bytes, Stop> {
        let room = FILE_BYTES_MAX.checked_sub(offset).filter(|room| *room > 0).ok_or(Error::TooBig)?;
        let len = data.len().min(self.options.write_bytes_max).min(usize::try_from(room).unwrap_or(usize::MAX));
        Ok(data.slice(..len))
    }
}

fn short(len: usize) -> u32 {
    u32::try_from(len).expect("a write is short")
}

impl Cx {
    /// What of `data` is still to be written. A store to a mapping never makes a file longer: what lies past its end was stored
    /// before it was truncated, and counts as written. A kernel that holds writes back is another matter.
    fn present(&self, inode: &Inode, offset: u64, data: &Bytes) -> Bytes {
        let stored = self.written_back && !self.keeps_times;
        let room = if stored { inode.size.saturating_sub(offset) } else { u64::MAX };
        data.slice(..data.len().min(usize::try_from(room).unwrap_or(usize::MAX)))
    }
}

impl Work<'_> {
    /// Stores data; says how much of it.
    pub fn write(
        &mut self,
        ino: InodeNo,
        inode: &mut Inode,
        offset: u64,
        data: &Bytes,
        old_extents_max: usize,
    ) -> Result<u64, Stop> {
        let end = offset + data.len() as u64;
        let fits = inode.size.max(end) <= INLINE_BYTES_MAX;
        match self.stored(ino, inode)? {
            Stored::Nowhere if fits => self.write_inline(ino, inode, offset, data, &Bytes::new()),
            Stored::Inline(old) if fits => self.write_inline(ino, inode, offset, data, &old),
            Stored::Nowhere => self.add_extents(ino, inode, offset, data),
            Stored::Inline(old) => self.write_beyond_inline(ino, inode, offset, data, &old),
            Stored::Extents => return self.overwrite(ino, inode, offset, data, old_extents_max),
        }
        Ok(data.len() as u64)
    }

    fn write_inline(&mut self, ino: InodeNo, inode: &mut Inode, offset: u64, data: &[u8], old: &[u8]) {
        let from = usize::try_from(offset).expect("a tiny file");
        let mut value = old.to_vec();
        value.resize(value.len().max(from + data.len()), 0);
        value[from..from + data.len()].copy_from_slice(data);
        self.set_inline(ino, inode, value);
    }

    /// The write makes the file too long for an inline value, so it reaches beyond the old one.
    fn write_beyond_inline(&mut self, ino: InodeNo, inode: &mut Inode, offset: u64, data: &Bytes, old: &Bytes) {
        self.set_inline(ino, inode, Vec::new());
        match usize::try_from(offset) {
            Ok(kept) if kept <= old.len() => {
                let joined = [&old[..kept], data].concat();
                self.add_extents(ino, inode, 0, &joined.into());
            }
            _ => {
                self.add_extents(ino, inode, 0, old);
                self.add_extents(ino, inode, offset, data);
            }
        }
    }

    fn overwrite(
        &mut self,
        ino: InodeNo,
        inode: &mut Inode,
        offset: u64,
        data: &Bytes,
        old_extents_max: usize,
    ) -> Result<u64, Stop> {
        let end = offset + data.len() as u64;
        // No extent reaches past the size, so appending looks for none.
        let clears = offset < inode.size;
        let to = if clears { self.clear(ino, inode, offset, end, old_extents_max)? } else { end };
        let written = to - offset;
        self.add_extents(ino, inode, offset, &data.slice(..usize::try_from(written).expect("a write is short")));
        Ok(written)
    }

    /// Turns an inline value into an extent, for a file that grows without being written.
    pub fn inline_to_extent(&mut self, ino: InodeNo, inode: &mut Inode, old: &Bytes) {
        self.delete(key::inline(ino));
        inode.blocks = 0;
        self.add_extents(ino, inode, 0, old);
    }
}
