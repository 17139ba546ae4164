//! What `statfs` says.

use super::{Cx, Fs, NAME_BYTES_MAX, Stop};
use crate::map::db::Wait;

/// The unit in which space is reported, bytes.
pub(super) const BLOCK_BYTES: u64 = 4096;
/// The number of free inodes that is reported where nothing limits them but space.
const FILES_FREE: u64 = 1 << 40;

/// Room for data, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    /// In all.
    pub total: u64,
    /// Not in use.
    pub free: u64,
    /// Not in use, and open to others than root.
    pub available: u64,
}

/// The answer to `statfs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatFs {
    /// Bytes of a block.
    pub block_size: u32,
    /// Blocks in all.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Blocks free for others than root.
    pub blocks_available: u64,
    /// Inodes in all.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// The longest name, bytes.
    pub name_max: u32,
}

impl Fs {
    /// Space and inodes. With a limit that is the size of the filesystem, and `blocks_free` what it leaves; no more of that is
    /// available than the disk has. Under a limit what was just removed is waited for.
    pub fn statfs(&self, cx: &Cx) -> Result<StatFs, Stop> {
        if self.waits_for_leaving(cx) && !self.db.usage().1.is_none() {
            return Err(Stop::Wait(Wait::Pressure));
        }
        Ok(self.statfs_now())
    }

    fn statfs_now(&self) -> StatFs {
        let mut space = (self.options.space)();
        let (usage, limit) = self.db.usage();
        if let Some(left) = self.limit_left() {
            space = DiskSpace { total: limit.bytes, free: left, available: left.min(space.available) };
        }
        let used = usage.map_or(0, |usage| usage.inodes);
        let (files, files_free) = match limit.inodes {
            0 => (used + FILES_FREE, FILES_FREE),
            limit => (limit, limit.saturating_sub(used)),
        };
        StatFs {
            block_size: u32::try_from(BLOCK_BYTES).expect("small"),
            blocks: space.total / BLOCK_BYTES,
            blocks_free: space.free / BLOCK_BYTES,
            blocks_available: space.available / BLOCK_BYTES,
            files,
            files_free,
            name_max: u32::try_from(NAME_BYTES_MAX).expect("small"),
        }
    }
}
