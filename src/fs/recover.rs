//! A writer's recovery: nothing is open and the kernel knows nothing, so every orphan is freed.

use super::error::{Stop, damaged};
use super::{Cx, Fs};
use crate::format::ids::{InodeNo, Lsn};
use crate::format::key::{self, Key};
use crate::map::db::Room;

/// Orphans freed in one batch: few enough for the smallest journal segments.
const STEP: usize = 64;

impl Fs {
    /// Frees some of the orphans a dead writer left and says how many; 0 means there are none any more. Call it again and
    /// again, before the first request is served. It may be stopped between two calls.
    pub fn free_orphans(&self, cx: &Cx) -> Result<(usize, Lsn), Stop> {
        debug_assert_eq!(self.uses.len(), 0, "orphans are freed before anything is used");
        let mut work = self.begin(cx);
        let (from, to) = key::orphans();
        let rows = work.scan(&from, &to, STEP)?;
        for (key, _) in &rows {
            work.free_orphan(orphan(key)?)?;
        }
        Ok((rows.len(), work.commit(Room::Freeing)?))
    }
}

fn orphan(key: &[u8]) -> Result<InodeNo, Stop> {
    match Key::decode(key).map_err(|e| damaged(format_args!("the mark of an orphan: {e}")))? {
        Key::Orphan(ino) => Ok(ino),
        other => Err(damaged(format_args!("{other:?} among the marks of orphans"))),
    }
}
