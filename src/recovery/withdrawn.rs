//! A state directory of which nothing is needed any more: all that it holds is in the store, and the filesystem is somebody else's.
//!
//! A journal without its manifest is not to be told from one that has lost it, and is never removed. So the manifest gets another name
//! first, which says that the journal may go; and that name is the last to go.

use crate::base::canary::{Canary, sync};
use crate::journal::{FOLDER, MANIFEST};
use crate::media::Media;
use std::io::{self, ErrorKind};

/// The name of a manifest whose state directory is no more.
pub const WITHDRAWN: &str = "MANIFEST.withdrawn";

/// Makes a state directory as good as new.
pub(super) fn withdraw(media: &dyn Media) -> io::Result<()> {
    media.rename(MANIFEST, WITHDRAWN)?;
    sync(Canary::WithdrawnSync, || media.sync_dir(""))?;
    clear(media)
}

/// Goes on with what a crash stopped, if anything.
pub(super) fn clear(media: &dyn Media) -> io::Result<()> {
    if !exists(media, WITHDRAWN)? {
        return Ok(());
    }
    // The journal went before there was another manifest. So slots that are there are that manifest's: the directory is a copy, or
    // was put together by hand.
    if exists(media, MANIFEST)? {
        return media.remove(WITHDRAWN);
    }
    let slots = slots(media)?;
    slots.iter().try_for_each(|name| media.remove(&format!("{FOLDER}/{name}")))?;
    if !slots.is_empty() {
        sync(Canary::WithdrawnSlotsSync, || media.sync_dir(FOLDER))?;
    }
    // That it is gone is durable with the next manifest, which is in the same folder, and until then means what it meant.
    media.remove(WITHDRAWN)
}

fn exists(media: &dyn Media, name: &str) -> io::Result<bool> {
    match media.open(name) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        found => found.map(|_| true),
    }
}

/// Whether there is a journal, which may be the only copy of something.
pub(super) fn has_journal(media: &dyn Media) -> io::Result<bool> {
    Ok(!slots(media)?.is_empty())
}

fn slots(media: &dyn Media) -> io::Result<Vec<String>> {
    match media.list(FOLDER) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::sim::{CallLog, SimDisk};

    #[test]
    fn a_journal_with_its_manifest_is_not_cleared_whatever_lies_beside_it() {
        let disk = SimDisk::new(&CallLog::new());
        disk.make_dir(FOLDER).expect("made");
        let slot = format!("{FOLDER}/slot-000001");
        for name in [MANIFEST, WITHDRAWN, &slot] {
            disk.create(name).expect("new");
        }
        clear(&disk).expect("cleared");
        assert!(has_journal(&disk).expect("listed"));
        assert_eq!(disk.list("").expect("listed"), [MANIFEST]);

        disk.create(WITHDRAWN).expect("new");
        disk.remove(MANIFEST).expect("there");
        clear(&disk).expect("cleared");
        assert!(!has_journal(&disk).expect("listed"));
        assert!(disk.list("").expect("listed").is_empty());
    }
}
