//! A state directory before it is opened: whose it is, and how it is taken away without touching what is not ours.

use super::failure::{Failure, Outcome};
use super::site::Site;
use skylog::cache::{CACHE, is_cache_file};
use skylog::format::ids::Uuid;
use skylog::format::names::LOCK;
use skylog::format::repair_file::REPAIR_FILE;
use skylog::format::store_file::STORE_FILE;
use skylog::journal::{MANIFEST, ManifestStore};
use skylog::media::LocalDisk;
use skylog::recovery::WITHDRAWN;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

/// Folders of a state directory, each with what tells the names of files that we put there.
const FOLDERS: [(&str, IsOurs); 4] =
    [("journal", is_slot), ("nodes", is_node_segment), ("ckpt", is_checkpoint), (CACHE, is_cache_file)];
type IsOurs = fn(&str) -> bool;

/// Files of a state directory. The lock is the last to go.
const FILES: [&str; 9] =
    [MANIFEST, "MANIFEST.new", WITHDRAWN, REPAIR_FILE, STORE_FILE, "store.new", "skylog.log", "skylog.log.1", LOCK];

/// What the folders that a repair moved things into are called, before the repair's UUID.
const ASIDE: &str = "damaged-";

/// The filesystem that a state directory belongs to; `None` when it holds none.
pub fn filesystem(state: &Path) -> Result<Option<Uuid>, Failure> {
    let manifest = ManifestStore::load(Arc::new(LocalDisk::new(state)));
    let manifest = manifest.map_err(|e| Failure::failed(format_args!("{}: {e}", state.display())))?;
    Ok(manifest.map(|manifest| manifest.current().uuid))
}

/// Fails unless a state directory will do for a command that works on an existing one. A directory that the user named must hold
/// a state of this very filesystem; the usual one may also be missing, or hold nothing yet.
pub fn existing(site: &Site, named: bool) -> Outcome {
    existing_or_damaged(site, named)?;
    match named && filesystem(&site.state)?.is_none() {
        true => Err(not_a_state(&site.state)),
        false => Ok(()),
    }
}

/// As [`existing`], for a command that looks at damage: the manifest may be damaged too, or gone from beside a journal.
pub fn existing_or_damaged(site: &Site, named: bool) -> Outcome {
    let (state, uuid) = (&site.state, site.superblock.uuid);
    match filesystem(state) {
        Ok(Some(found)) if found != uuid => Err(belongs_elsewhere(state, found, uuid)),
        Ok(None) if named && is_new(state) => Err(not_a_state(state)),
        _ => Ok(()),
    }
}

fn not_a_state(state: &Path) -> Failure {
    Failure::failed(format_args!("{} is not a state directory of skylog (it has no {MANIFEST})", state.display()))
}

/// Whether a mount may keep its state here: in a directory of this filesystem, in a new one, or in one that is empty.
pub fn usable(state: &Path, uuid: Option<Uuid>) -> Outcome {
    let shown = state.display();
    match (filesystem(state)?, uuid) {
        (Some(found), Some(uuid)) if found == uuid => return Ok(()),
        (Some(found), Some(uuid)) => return Err(belongs_elsewhere(state, found, uuid)),
        (Some(found), None) => {
            return Err(Failure::failed(format_args!(
                "the state directory {shown} belongs to filesystem {found}; take another"
            )));
        }
        (None, _) => {}
    }
    let entries = match fs::read_dir(state) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Failure::failed(format_args!("state directory {shown}: {e}"))),
    };
    let ours = |name: &str| {
        FILES.contains(&name)
            || FOLDERS.iter().any(|(folder, _)| *folder == name)
            || is_aside(name)
            || name == "lost+found"
    };
    let mut names = entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned());
    match names.find(|name| !ours(name)) {
        None => Ok(()),
        Some(name) => Err(Failure::failed(format_args!(
            "{shown} holds other files ({name}); take an empty or new directory for the state"
        ))),
    }
}

/// Whether a state directory holds nothing yet that may be the only copy of something: no manifest, and no file of a journal, of
/// nodes or of checkpoints. What cannot be looked at is not new.
pub fn is_new(state: &Path) -> bool {
    let is_empty = |(folder, _): (&str, IsOurs)| match fs::read_dir(state.join(folder)) {
        Ok(mut entries) => folder == CACHE || entries.next().is_none(),
        Err(e) => e.kind() == ErrorKind::NotFound,
    };
    let noted = [MANIFEST, REPAIR_FILE].iter().any(|name| may_exist(&state.join(name)));
    !noted && FOLDERS.into_iter().all(is_empty)
}

/// After a mount that failed in a state directory that was new to it: what it put there is taken away, and the directory if
/// the mount made it. Once there is a filesystem in it, it stays.
pub fn abandon(state: &Path, made: bool) {
    if may_exist(&state.join(MANIFEST)) {
        return;
    }
    if let Err(e) = clear(state) {
        log::warn!("{}: what the failed mount made stays: {e}", state.display());
    }
    if made {
        fs::remove_dir(state).ok();
    }
}

fn may_exist(path: &Path) -> bool {
    !matches!(path.try_exists(), Ok(false))
}

/// Removes all we ever put into a state directory, and the directory if nothing else is left in it.
pub fn remove(state: &Path) -> io::Result<()> {
    clear_aside(state)?;
    clear(state)?;
    fs::remove_dir(state).ok();
    Ok(())
}

fn clear(state: &Path) -> io::Result<()> {
    for (folder, is_ours) in FOLDERS {
        remove_files(&state.join(folder), is_ours)?;
    }
    for file in FILES {
        gone(fs::remove_file(state.join(file)))?;
    }
    Ok(())
}

/// Removes what repairs have moved aside: it has the names that it had.
fn clear_aside(state: &Path) -> io::Result<()> {
    for entry in fs::read_dir(state).into_iter().flatten().filter_map(Result::ok) {
        let is_folder = entry.file_type().is_ok_and(|found| found.is_dir());
        if is_folder && entry.file_name().to_str().is_some_and(is_aside) {
            clear(&entry.path())?;
            fs::remove_dir(entry.path()).ok();
        }
    }
    Ok(())
}

fn remove_files(folder: &Path, is_ours: IsOurs) -> io::Result<()> {
    // A link in the place of the folder leads to what is not ours.
    if !fs::symlink_metadata(folder).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name().to_str().is_some_and(is_ours) {
            gone(fs::remove_file(entry.path()))?;
        }
    }
    fs::remove_dir(folder).ok();
    Ok(())
}

fn gone(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn belongs_elsewhere(state: &Path, found: Uuid, expected: Uuid) -> Failure {
    Failure::failed(format_args!(
        "the state directory {} belongs to filesystem {found}, not {expected}; give another one with --state DIR",
        state.display()
    ))
}

fn is_aside(name: &str) -> bool {
    name.strip_prefix(ASIDE).is_some_and(|id| id.parse::<Uuid>().is_ok())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_slot(name: &str) -> bool {
    name.strip_prefix("slot-").is_some_and(is_number)
}

fn is_node_segment(name: &str) -> bool {
    let name = name.strip_suffix(".part").unwrap_or(name);
    name.split_once('-').is_some_and(|(epoch, number)| is_number(epoch) && is_number(number))
}

fn is_checkpoint(name: &str) -> bool {
    is_number([".plan", ".edits", ".tail"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_give_are_ours() {
        for ours in ["slot-000001", "slot-1234567"] {
            assert!(is_slot(ours), "{ours}");
        }
        for ours in ["0000000001-0000000000000002", "0000000001-0000000000000002.part"] {
            assert!(is_node_segment(ours), "{ours}");
        }
        for ours in ["0000000001", "0000000001.plan", "0000000001.edits", "0000000001.tail"] {
            assert!(is_checkpoint(ours), "{ours}");
        }
        for foreign in ["", "slot-", "diary-2026", "2026.txt", "-", "1-", "notes.plan", ".plan"] {
            assert!(!is_slot(foreign) && !is_node_segment(foreign) && !is_checkpoint(foreign), "{foreign}");
        }
    }
}
