//! Access times, on mounts that keep them: noted after the answer was given, and only when the old one says too little.

use super::error::{Error, Stop};
use super::{Cx, Fs};
use crate::base::clock::Time;
use crate::format::ids::InodeNo;
use crate::format::inode::Inode;
use crate::map::db::{Room, Wait};

/// An access time older than this is renewed, seconds.
const STALE_SECONDS: i64 = 24 * 60 * 60;

impl Fs {
    /// Notes that an inode was read. Not worth waiting for room, and no error for anybody: then the access goes unnoted.
    pub fn note_access(&self, cx: &Cx, ino: InodeNo) -> Result<(), Stop> {
        let is_due = |inode: &Inode| is_stale(inode, cx.now);
        {
            let _held = self.locks.shared(ino);
            if !is_due(&self.begin(cx).inode(ino)?) {
                return Ok(());
            }
        }
        let _held = self.locks.exclusive(&[ino]);
        let mut work = self.begin(cx);
        let mut inode = work.inode(ino)?;
        if is_due(&inode) {
            inode.atime = cx.now;
            work.set_inode(ino, &inode);
        }
        match work.commit(Room::Ordinary) {
            Err(Stop::Wait(Wait::Pressure) | Stop::Error(Error::DiskFull | Error::ReadOnly(_))) | Ok(_) => Ok(()),
            Err(stop) => Err(stop),
        }
    }
}

/// Whether the time tells less than "not read since the last change, or for a day".
fn is_stale(inode: &Inode, now: Time) -> bool {
    let Inode { atime, mtime, ctime, .. } = inode;
    atime <= mtime || atime <= ctime || now.secs.saturating_sub(atime.secs) >= STALE_SECONDS
}
