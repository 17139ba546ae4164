//! Where the maps start: the state directory as a mount would read it, or the store as a takeover would.

use super::Check;
use crate::checkpoint::files::{checkpoint_file, read_checkpoint};
use crate::format::checkpoint::Checkpoint;
use crate::journal::{FOLDER, JournalError, MANIFEST, ManifestError, ManifestStore, replay};
use crate::media::Media;
use crate::recovery::{Fetcher, apply, read_remote};
use std::io::ErrorKind;
use std::sync::Arc;

/// A state directory without a manifest holds nothing yet: a mount would take the store over.
pub(super) fn check_manifest(check: &mut Check<'_>) -> bool {
    let Some(state) = check.state.clone() else { return true };
    let manifest = match ManifestStore::load(state.clone()) {
        Ok(Some(manifest)) => manifest.current(),
        // What a mount would refuse, for a journal may be the only copy of something.
        Ok(None) => {
            let journal = journal_problem(&*state);
            let is_empty = journal.is_none();
            journal.into_iter().for_each(|(place, what)| check.problem(place, what));
            return is_empty;
        }
        Err(ManifestError::Damaged(e)) => {
            check.problem(MANIFEST, e.to_string());
            return false;
        }
        Err(e) => {
            check.problem(MANIFEST, e.to_string());
            return false;
        }
    };
    if manifest.uuid != check.uuid {
        let what = format!("belongs to filesystem {}, the store to {}", manifest.uuid, check.uuid);
        check.problem(MANIFEST, what);
        return false;
    }
    check.manifest = Some(Arc::unwrap_or_clone(manifest));
    true
}

/// A journal that nothing says how to read, or a folder of which nobody knows whether it has one.
fn journal_problem(state: &dyn Media) -> Option<(&'static str, String)> {
    match state.list(FOLDER) {
        Ok(names) if names.is_empty() => None,
        Ok(_) => Some((MANIFEST, "is missing, and journal segments are there".to_owned())),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => Some((FOLDER, e.to_string())),
    }
}

pub(super) fn check_checkpoint(check: &mut Check<'_>) -> bool {
    let found = match &check.manifest {
        Some(_) => local_checkpoint(check),
        None => remote_checkpoint(check),
    };
    if let Some(checkpoint) = &found {
        check.maps.roots = checkpoint.roots;
    }
    check.checkpoint = found;
    check.checkpoint.is_some()
}

fn local_checkpoint(check: &mut Check<'_>) -> Option<Checkpoint> {
    let (state, manifest) = (check.state.clone()?, check.manifest.clone()?);
    let Some(point) = manifest.checkpoint else {
        check.problem(MANIFEST, "it names no checkpoint");
        return None;
    };
    let file = checkpoint_file(point.number);
    let checkpoint = match read_checkpoint(&*state, point.number) {
        Ok(checkpoint) => checkpoint,
        Err(e) => {
            check.problem(file, e.to_string());
            return None;
        }
    };
    if checkpoint.uuid != check.uuid {
        check.problem(&file, format!("belongs to filesystem {}", checkpoint.uuid));
    }
    if checkpoint.lsn != point.lsn {
        check.problem(&file, format!("is at {}, {MANIFEST} says {}", checkpoint.lsn, point.lsn));
    }
    if manifest.next_checkpoint <= point.number {
        check.problem(MANIFEST, format!("the next checkpoint would be {} again", manifest.next_checkpoint));
    }
    Some(checkpoint)
}

fn remote_checkpoint(check: &mut Check<'_>) -> Option<Checkpoint> {
    match read_remote(&*check.store, check.uuid, &Fetcher::new(check.store.side_by_side())) {
        Ok(remote) => {
            check.maps.overlays = remote.overlays;
            check.remote_tail = remote.tail;
            Some(Checkpoint {
                uuid: check.uuid,
                number: remote.checkpoint,
                lsn: remote.end,
                previous_lsn: remote.end,
                roots: remote.roots,
                wall: 0,
                settlement: remote.settlement,
                windows: remote.windows,
                tail: None,
            })
        }
        Err(e) => {
            check.refused("gen/", e);
            None
        }
    }
}

/// Replays without accepting, then reads what replay went past because the checkpoint covers it.
pub(super) fn check_journal(check: &mut Check<'_>) -> bool {
    let (Some(state), Some(manifest)) = (check.state.clone(), check.manifest.clone()) else { return true };
    let from = check.checkpoint().lsn;
    let (pass, progress) = (check.pass, &mut *check.progress);
    let overlays = &mut check.maps.overlays;
    let replayed =
        replay(state.clone(), &manifest, from, &mut |done, total| progress(pass, done, total), &mut |batch| {
            apply(overlays, batch);
            Ok::<(), JournalError>(())
        });
    let replayed = match replayed {
        Ok(replayed) => replayed,
        Err(e) => {
            check.problem(place_of(&e), reason_of(&e));
            return false;
        }
    };
    for error in replayed.audit() {
        check.problem(place_of(&error), reason_of(&error));
    }
    check.report.figures.journal_segments = replayed.segment_count();
    check.report.figures.batches = replayed.batches;
    check.replayed = Some(replayed);
    true
}

fn place_of(error: &JournalError) -> String {
    match error {
        JournalError::Damaged { segment, offset, .. } => format!("journal segment {segment} at offset {offset}"),
        JournalError::Missing { file } | JournalError::WrongSize { file, .. } | JournalError::Io { file, .. } => {
            file.clone()
        }
        _ => "journal".to_owned(),
    }
}

fn reason_of(error: &JournalError) -> String {
    match error {
        JournalError::Damaged { reason, .. } => reason.clone(),
        JournalError::Missing { .. } => "is missing".to_owned(),
        JournalError::WrongSize { expected, found, .. } => {
            format!("has {found} bytes where {MANIFEST} says {expected}")
        }
        other => other.to_string(),
    }
}
