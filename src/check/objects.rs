//! Every object that an extent names, and whether it can be read.

use super::Check;
use super::files::Place;
use crate::format::ids::{Lsn, ObjectId};
use crate::format::inode::Extent;
use std::collections::BTreeMap;

/// How an object is used.
pub(super) struct Use {
    /// Extents that name it at the checkpoint.
    pub at_checkpoint: u32,
    /// Extents that name it now.
    pub now: u32,
    /// The last byte of it that an extent reaches, exclusive.
    pub end: u32,
    /// An extent that names it.
    pub place: Place,
    /// Whether it is in a window, whole, or named in a problem of its window.
    pub found: bool,
}

/// All objects in use, at the checkpoint or now.
#[derive(Default)]
pub(super) struct Objects {
    pub uses: BTreeMap<ObjectId, Use>,
}

impl Objects {
    /// The object that an extent names; `None` if its data is lost.
    pub fn name(&mut self, place: Place, extent: &Extent) -> Option<&mut Use> {
        if extent.is_lost() {
            return None;
        }
        let new = Use { at_checkpoint: 0, now: 0, end: 0, place, found: false };
        let object = self.uses.entry(extent.object).or_insert(new);
        object.end = object.end.max(extent.object_offset + extent.len);
        Some(object)
    }

    /// Takes in an extent at the checkpoint.
    pub fn name_at_checkpoint(&mut self, place: Place, extent: &Extent) {
        if let Some(object) = self.name(place, extent) {
            object.at_checkpoint += 1;
        }
    }

    /// How many extents named the object at the checkpoint.
    pub fn at_checkpoint(&self, object: &ObjectId) -> u32 {
        self.uses.get(object).map_or(0, |object| object.at_checkpoint)
    }
}

/// What no window has must be in the journal, and in the plan of a window if the checkpoint has it.
pub(super) fn check_objects(check: &mut Check<'_>) -> bool {
    check.births.sort_by_key(|birth| birth.object);
    let objects = std::mem::take(&mut check.objects);
    let total = objects.uses.len() as u64;
    check.report.figures.objects = total;
    for (done, (object, usage)) in objects.uses.iter().enumerate().filter(|(_, (_, usage))| !usage.found) {
        check.step(done as u64, total);
        if let Err(what) = check_journalled(check, object, usage) {
            check.problem(usage.place.to_string(), what);
        }
    }
    check_births(check, &objects);
    check.objects = objects;
    true
}

/// What was live at the end of a window is shipped with it, even if it is dead by now.
fn check_births(check: &mut Check<'_>, objects: &Objects) {
    let mut problems = Vec::new();
    for birth in check.births.iter().filter(|birth| !objects.uses.contains_key(&birth.object)) {
        if check.is_shipped(birth.object.lsn) {
            continue;
        }
        let read = check.replayed.as_ref().map(|replayed| replayed.read(&birth.object));
        match read {
            None | Some(Ok(Some(_))) => {}
            Some(Ok(None)) => problems.push((birth.object, "is not in the journal".to_owned())),
            Some(Err(e)) => problems.push((birth.object, e.to_string())),
        }
    }
    for (object, what) in problems {
        check.problem(format!("object {object}"), format!("{what}, and its window waits to be shipped"));
    }
}

impl Check<'_> {
    /// Whether a window in the store holds what is live of a batch.
    pub(super) fn is_shipped(&self, lsn: Lsn) -> bool {
        let listed = self.listed.iter().any(|window| window.start < lsn && lsn <= window.end);
        listed || lsn <= self.space.published.end
    }
}

fn check_journalled(check: &Check<'_>, object: &ObjectId, usage: &Use) -> Result<(), String> {
    if let Some((start, end)) = check.space.window_of(object.lsn) {
        return Err(format!("object {object} is not in its window {start}-{end}"));
    }
    if let Some(window) = check.listed.iter().find(|w| w.start < object.lsn && object.lsn <= w.end) {
        return Err(format!("object {object} is not in its window {}-{}", window.start, window.end));
    }
    if let Some(len) = check.tail.get(object) {
        return match *len >= usage.end {
            true => Ok(()),
            false => Err(format!("object {object} has {len} bytes, {} are used", usage.end)),
        };
    }
    let Some(replayed) = &check.replayed else { return Err(format!("object {object} is in no window")) };
    let planned = check.births.binary_search_by_key(object, |birth| birth.object).is_ok();
    if usage.at_checkpoint > 0 && !planned {
        return Err(format!(
            "object {object} is in no window and in no plan of one: it would be lost with the journal"
        ));
    }
    match replayed.read(object) {
        Ok(Some(bytes)) if bytes.len() as u64 >= u64::from(usage.end) => Ok(()),
        Ok(Some(bytes)) => Err(format!("object {object} has {} bytes, {} are used", bytes.len(), usage.end)),
        Ok(None) => Err(format!("object {object} is neither in the journal nor in a window")),
        Err(e) => Err(format!("object {object}: {e}")),
    }
}
