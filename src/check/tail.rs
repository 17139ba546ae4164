//! Batches after the checkpoint that a mount would bring into the journal: those that the store's log increments carry, or that a
//! takeover has put beside its checkpoint.

use super::Check;
use super::files::Place;
use super::maps::AFTER_ALL;
use super::space::CACHE_BYTES;
use crate::format::batch::{Batch, TreeId};
use crate::format::ids::ObjectId;
use crate::format::inode::Extent;
use crate::format::key::Key;
use crate::map::NodeCache;
use crate::recovery::{MountError, Tail, TailReader, apply};
use bytes::Bytes;

/// Lays them over the maps.
pub(super) fn check_tail(check: &mut Check<'_>) -> bool {
    let taken = match check.manifest {
        Some(_) => local(check),
        None => remote(check),
    };
    taken.map_err(|e| check.refused("tail", e)).is_ok()
}

/// What the journal has not taken in yet.
fn local(check: &mut Check<'_>) -> Result<(), MountError> {
    let (Some(state), Some(replayed)) = (&check.state, &check.replayed) else { return Ok(()) };
    let (checkpoint, last) = (check.checkpoint(), replayed.last);
    if checkpoint.tail.is_none_or(|tail| tail.end <= last) {
        return Ok(());
    }
    let Some(mut reader) = TailReader::open(&**state, checkpoint)? else { return Ok(()) };
    while let Some(next) = reader.next()? {
        if next.batch.lsn > last {
            take(check, next.batch);
        }
    }
    Ok(())
}

/// What lies over the trees up to the newest window is in the newest checkpoint too, and no more than that.
fn remote(check: &mut Check<'_>) -> Result<(), MountError> {
    let tail: Tail = std::mem::take(&mut check.remote_tail);
    if tail.end().is_none() {
        return Ok(());
    }
    count_at_checkpoint(check)?;
    check.has_tail = true;
    let (store, window) = (check.store.clone(), check.checkpoint().lsn);
    tail.each(&*store, window, &mut |next| {
        take(check, next.batch);
        Ok(())
    })
}

fn take(check: &mut Check<'_>, batch: Batch) {
    let lsn = batch.lsn;
    check.tail.extend((0..).zip(&batch.objects).map(|(n, object)| (ObjectId { lsn, n }, object.header.raw_len)));
    check.report.figures.batches += 1;
    apply(&mut check.maps.overlays, batch);
}

fn count_at_checkpoint(check: &mut Check<'_>) -> Result<(), MountError> {
    let mut objects = std::mem::take(&mut check.objects);
    let all = (Bytes::new(), Bytes::copy_from_slice(&AFTER_ALL));
    let cache = NodeCache::new(CACHE_BYTES);
    let scanned = check.maps.scan(TreeId::Files, all, &cache, &check.nodes, &mut |key, value| {
        // What cannot be read is told of when all of it is looked at.
        if let (Ok(Key::Extent(ino, at)), Ok(extent)) = (Key::decode(key), Extent::decode(value)) {
            objects.name_at_checkpoint(Place { ino, at }, &extent);
        }
    });
    check.objects = objects;
    Ok(scanned?)
}
