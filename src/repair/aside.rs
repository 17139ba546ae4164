//! What a repair keeps of what was there: copies of damaged store objects and a report beside them in the store, and the
//! state directory's files in a folder of their own. And the note in the state directory that a repair is under way.
//!
//! Order: the note, then the copies; then the new generation; and only when its base is durable the files of the state
//! directory move, the manifest after all others, and the note goes. Leases that cannot be read are closed in between. Each
//! step may be done again.

use super::{Damaged, Means, RepairError};
use crate::base::canary::{Canary, removed, sync};
use crate::checkpoint::files::CHECKPOINTS;
use crate::checkpoint::nodes::{NODES, read_file, write_file};
use crate::format::ids::Uuid;
use crate::format::names;
use crate::format::publication::{Body, Position, Publication};
use crate::format::repair_file::{REPAIR_FILE, RepairFile};
use crate::journal::{FOLDER, MANIFEST, ManifestError, ManifestStore};
use crate::media::Media;
use crate::recovery::WITHDRAWN;
use crate::ship::ShipError;
use crate::ship::leases::Leases;
use crate::ship::publish::read;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::sync::Arc;

/// The name of a report among the objects of a repair.
pub(super) const REPORT: &str = "report";

/// Notes that a repair is under way; durable when this returns.
pub(super) fn note(state: &dyn Media, file: RepairFile) -> io::Result<()> {
    write_file(state, REPAIR_FILE, &file.encode())?;
    sync(Canary::RepairNoteDirSync, || state.sync_dir(""))
}

/// What was noted by a repair that did not come to its end. `Some(None)` is one that had not begun with anything else.
pub(super) fn noted(state: &dyn Media) -> io::Result<Option<Option<RepairFile>>> {
    match read_file(state, REPAIR_FILE) {
        Ok(bytes) => Ok(Some(RepairFile::decode(&bytes))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The repair has come to its end.
pub(super) fn forget(state: &dyn Media) -> io::Result<()> {
    match state.remove(REPAIR_FILE) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    sync(Canary::NoteGoneSync, || state.sync_dir(""))
}

/// The base that a repair made, if it is in the store: after that the repair only has to come to its end.
pub(super) fn base_of(store: &dyn Store, repair: RepairFile) -> Result<Option<Publication>, RepairError> {
    let mut generations = BTreeSet::new();
    store.walk("gen", &mut |name| {
        let generation = name.split('/').nth(1).and_then(|generation| generation.parse::<u64>().ok());
        generations.extend(generation.filter(|generation| *generation >= repair.from));
        ControlFlow::Continue(())
    })?;
    for generation in generations {
        match read(store, Position { generation, number: 0 }) {
            Ok(Some(found)) if found.state == repair.id && matches!(found.body, Body::Base(_)) => {
                return Ok(Some(found));
            }
            // Whatever is damaged there is not what this repair has made.
            Ok(_) | Err(ShipError::Damaged { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(None)
}

/// Copies damaged store objects, as far as there is something to copy. What is gone is only in the report. What cannot be copied
/// ends the repair: its original may be deleted afterwards.
pub(super) fn copy_objects(store: &dyn Store, repair: Uuid, damaged: &BTreeSet<Damaged>) -> Result<(), RepairError> {
    let places: BTreeSet<&str> = damaged.iter().filter(|damaged| !damaged.local).map(|d| d.place.as_str()).collect();
    for place in places.into_iter().filter(|place| names::is_ours(place)) {
        match store.get(place) {
            // One that is there is a copy that an earlier try made.
            Ok(bytes) => drop(store.create(&names::damaged(repair, place), bytes)?),
            Err(StoreError::NotFound { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Puts the report beside the copies, behind that of an earlier try of the repair, which found what this one may not find any more.
/// Returns its name.
pub(super) fn put_report(store: &dyn Store, repair: Uuid, text: String) -> Result<String, RepairError> {
    let name = names::damaged(repair, REPORT);
    let text = match store.get(&name) {
        Ok(earlier) => behind(&String::from_utf8_lossy(&earlier), text),
        Err(StoreError::NotFound { .. }) => text,
        Err(e) => return Err(e.into()),
    };
    store.put(&name, Bytes::from(text))?;
    Ok(name)
}

/// One text behind the other, unless it says the same but for its first line, which has the time.
fn behind(earlier: &str, text: String) -> String {
    let said = text.split_once('\n').map_or(&*text, |(_, said)| said);
    if earlier.contains(said) { earlier.to_owned() } else { format!("{earlier}\n{text}") }
}

/// Closes every lease that cannot be read, as a writer does: a follower that still lives finds out, and starts anew. Copies of
/// them are kept by then.
pub(super) fn close_leases(means: &Means, filesystem: Uuid) -> Result<(), RepairError> {
    let Means { store, clock, owner, .. } = means;
    let mut leases = Leases::new(filesystem);
    leases.look(&**store, &**clock)?;
    for holder in leases.holders().filter(|holder| holder.newest.is_err()) {
        // One that was faster has put a number there that can be read.
        leases.close(&**store, holder.who, owner, clock.now())?;
    }
    Ok(())
}

/// Whether no manifest says what a state directory holds, and something is there: nothing can be mounted from it, or in it.
pub(super) fn is_unusable(state: &Arc<dyn Media>) -> Result<bool, RepairError> {
    match ManifestStore::load(state.clone()) {
        Ok(Some(_)) => Ok(false),
        Ok(None) => Ok(!list(&**state, FOLDER)?.is_empty()),
        Err(ManifestError::Damaged(_)) => Ok(true),
        // What cannot be read now may be whole.
        Err(e) => Err(e.into()),
    }
}

/// The folder of a state directory that takes what was there before a repair.
pub fn local_folder(repair: Uuid) -> String {
    format!("damaged-{repair}")
}

/// Moves all that a mount would read of a state directory into a folder of its own. Says whether anything was there. Where a repair
/// is noted, whoever comes to a half of it goes on; where none is, a journal or a damaged manifest says so, and these go last.
pub(super) fn move_state(state: &dyn Media, repair: Uuid, also: &BTreeSet<String>) -> io::Result<bool> {
    let mut names: Vec<String> = Vec::new();
    for folder in [CHECKPOINTS, NODES, FOLDER] {
        names.extend(list(state, folder)?.iter().map(|name| format!("{folder}/{name}")));
    }
    let is_ours = |name: &str| also.contains(name) || [MANIFEST, "MANIFEST.new", WITHDRAWN].contains(&name);
    names.extend(list(state, "")?.into_iter().filter(|name| is_ours(name)));
    let rank = |name: &str| match name {
        MANIFEST if removed(Canary::ManifestMovesLast) => 0,
        MANIFEST => 3,
        name if folder_of(name) == FOLDER && removed(Canary::JournalMovesLate) => 0,
        name if folder_of(name) == FOLDER => 2,
        _ => 1,
    };
    names.sort_by_key(|name| rank(name));
    for together in names.chunk_by(|a, b| rank(a) == rank(b) && folder_of(a) == folder_of(b)) {
        move_files(state, &local_folder(repair), together)?;
    }
    Ok(!names.is_empty())
}

/// Moves files of one folder; durable when this returns.
fn move_files(state: &dyn Media, aside: &str, names: &[String]) -> io::Result<()> {
    let from = folder_of(&names[0]);
    let to = if from.is_empty() { aside.to_owned() } else { format!("{aside}/{from}") };
    state.make_dir(&to)?;
    sync(Canary::AsideMadeSync, || {
        state.sync_dir(aside)?;
        state.sync_dir("")
    })?;
    names.iter().try_for_each(|name| state.rename(name, &format!("{aside}/{name}")))?;
    sync(Canary::AsideSync, || state.sync_dir(&to))?;
    sync(Canary::AsideFromSync, || state.sync_dir(from))
}

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn list(state: &dyn Media, folder: &str) -> io::Result<Vec<String>> {
    match state.list(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed,
    }
}
