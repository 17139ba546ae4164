//! What the filesystem holds and may hold. The limit itself is kept where a batch is submitted (`map/db.rs`), for every
//! operation alike; here it is changed, and asked for room before work that takes many operations.

use super::error::{Error, Stop};
use super::statfs::BLOCK_BYTES;
use super::{Cx, Fs};
use crate::format::ids::{InodeNo, Lsn};
use crate::format::usage::{OnLimit, UsageLimit};
use crate::map::db::{Room, Wait};

/// What to change of the limit; `None` leaves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetLimit {
    /// Most bytes; 0 takes the limit away.
    pub bytes: Option<u64>,
    /// Most inodes; 0 takes the limit away.
    pub inodes: Option<u64>,
    /// What is said above it.
    pub on_limit: Option<OnLimit>,
}

impl Fs {
    /// Changes the limit and returns all of it. It may be below what there is: then nothing more is taken until enough is freed.
    pub fn set_limit(&self, cx: &Cx, set: SetLimit) -> Result<(UsageLimit, Lsn), Stop> {
        // Two changes at once must not undo each other.
        let _held = self.locks.exclusive(&[InodeNo::NONE]);
        let (Some(_), old) = self.db.usage() else { return Err(Error::NotCounted.into()) };
        let limit = UsageLimit {
            bytes: set.bytes.unwrap_or(old.bytes),
            inodes: set.inodes.unwrap_or(old.inodes),
            on_limit: set.on_limit.unwrap_or(old.on_limit),
        };
        let mut work = self.begin(cx);
        work.tx.set_usage_limit(limit);
        Ok((limit, work.commit(Room::Freeing)?))
    }

    /// Whether `bytes` more can be stored, as it looks now: neither the limit nor the disk refuses them. For work that is to be
    /// refused as a whole; what one batch stores is checked exactly when it is committed.
    pub fn check_room(&self, cx: &Cx, bytes: u64) -> Result<(), Stop> {
        if self.limit_left().is_some_and(|left| bytes > left) {
            return Err(match self.waits_for_leaving(cx) {
                true => Stop::Wait(Wait::Pressure),
                false => Error::Limit(self.db.usage().1.on_limit).into(),
            });
        }
        let space = (self.options.space)();
        // A disk that cannot say how large it is has total 0.
        if space.total > 0 && bytes > space.available {
            return Err(Error::DiskFull.into());
        }
        Ok(())
    }

    /// Whether a request that meets the limit waits. What was removed is freed when the kernel forgets it, which it is about to
    /// do and says later: without waiting, a file that replaces one just removed could be refused.
    pub(super) fn waits_for_leaving(&self, cx: &Cx) -> bool {
        cx.patient && self.uses.any_leaving()
    }

    /// How many files without a name have lost their last use so far. While this goes on, waiting makes sense.
    pub fn inodes_left(&self) -> u64 {
        self.uses.left()
    }

    /// Bytes up to the limit; `None` without one.
    pub(super) fn limit_left(&self) -> Option<u64> {
        match self.db.usage() {
            (Some(usage), limit) if limit.bytes > 0 => Some(limit.bytes.saturating_sub(usage.bytes())),
            _ => None,
        }
    }

    /// What to write instead of data that the limit has refused: less of it, what may fit, up to a whole block of the file.
    pub(super) fn fitting<'d>(&self, offset: u64, data: &'d [u8]) -> Option<&'d [u8]> {
        let shorter = (data.len() as u64 - 1).min(self.limit_left()?);
        let end = (offset + shorter) / BLOCK_BYTES * BLOCK_BYTES;
        let len = usize::try_from(end.checked_sub(offset)?).ok().filter(|len| *len > 0)?;
        Some(&data[..len])
    }
}
