//! `skylog destroy STORE`: removes a filesystem. The configuration goes first, so that what an interruption leaves is no
//! filesystem any more; only names that skylog gives are touched.

use super::failure::{Failure, Outcome};
use super::store_arg::{SUPERBLOCK, StoreArg};
use super::{ask, output, state_dir, world};
use skylog::format::names::LOCK;
use skylog::store::{PROBE, Store, StoreError};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Names of objects in memory at a time.
const PAGE: usize = 1000;

/// Remove a filesystem and all it holds.
#[derive(clap::Args)]
pub struct Destroy {
    /// The store: a directory or a URL.
    store: StoreArg,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// The state directory, if it is not the store's own.
    #[arg(long)]
    state: Option<PathBuf>,
}

/// Folders of a store.
const STORE_FOLDERS: [&str; 5] = ["gen", "seg", "win", "snap", "lease"];

impl Destroy {
    /// Asks, then removes.
    pub fn run(&self) -> Outcome {
        let superblock = self.store.superblock()?;
        let state = state_dir::existing(&self.store, self.state.as_deref(), superblock.uuid)?;
        let question = format!("This removes {} ({}) and all files in it", self.store.url(), superblock.uuid);
        if !self.yes && !ask::agreed(&question)? {
            return Err(Failure::failed("nothing was removed"));
        }
        let in_use = state.is_dir().then_some(state.as_path());
        let lock = world::lock(&self.store, in_use, "nowhere, it is being destroyed", Duration::ZERO)?;
        remove_objects(self.store.open()?.as_ref()).map_err(Failure::failed)?;
        state_dir::remove(&state).map_err(|e| Failure::failed(format_args!("{}: {e}", state.display())))?;
        if let Some(folder) = self.store.folder() {
            fs::remove_file(folder.join(LOCK)).ok();
            remove_empty(folder);
        }
        drop(lock);
        output::line(format_args!("removed {}", self.store.url()));
        Ok(())
    }
}

fn remove_objects(store: &dyn Store) -> Result<(), StoreError> {
    store.delete(SUPERBLOCK)?;
    for folder in STORE_FOLDERS {
        remove_page_by_page(store, folder, |_| true)?;
    }
    remove_page_by_page(store, "", |name| name.starts_with(PROBE))
}

/// However many there are, few names are in memory at a time.
fn remove_page_by_page(store: &dyn Store, folder: &str, of: impl Fn(&str) -> bool) -> Result<(), StoreError> {
    loop {
        let mut page = Vec::new();
        store.walk(folder, &mut |name| {
            if of(name) {
                page.push(name.to_owned());
            }
            if page.len() < PAGE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if page.is_empty() {
            return Ok(());
        }
        page.iter().try_for_each(|name| store.delete(name))?;
    }
}

/// Takes away the folders that are empty now; whatever else the user keeps there stays.
fn remove_empty(store: &Path) {
    for folder in STORE_FOLDERS {
        let above = store.join(folder);
        for below in fs::read_dir(&above).into_iter().flatten().filter_map(Result::ok) {
            fs::remove_dir(below.path()).ok();
        }
        fs::remove_dir(above).ok();
    }
    fs::remove_dir(store).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use skylog::base::clock::SimClock;
    use skylog::base::random::SeededRandom;
    use skylog::media::sim::{Call, CallLog, Nth, StoreCall};
    use skylog::recovery::{MkfsOptions, MountError, mkfs, superblock};
    use skylog::store::sim::{SimStore, StoreFault, StoreOp};

    /// A store with a new filesystem.
    fn made() -> SimStore {
        let store = SimStore::new(&CallLog::new());
        let options = MkfsOptions { segment_size: 1 << 20, ..MkfsOptions::default() };
        mkfs(&store, &SimClock::default(), &SeededRandom::new(1), options).expect("made");
        store.put("letter.txt", "mine".into()).expect("put");
        store
    }

    #[test]
    fn promise_g11_the_configuration_is_destroyed_first() {
        let store = made();
        let before = store.log().len();
        remove_objects(&store).expect("removed");
        let calls = store.log().calls().split_off(before);
        let first = calls.iter().map(|call| match call {
            Call::Store(StoreCall::Delete { name }) => name.to_string(),
            other => panic!("{other:?} while destroying"),
        });
        assert_eq!(first.collect::<Vec<_>>()[0], SUPERBLOCK);
        assert_eq!(store.image().names().collect::<Vec<_>>(), ["letter.txt"]);
    }

    #[test]
    fn promise_g11_a_destruction_that_is_interrupted_leaves_no_filesystem() {
        let deletions = made().image().names().count() - 1;
        for nth in 1..=deletions {
            let store = made();
            store.fail(Nth::new(nth as u64).of(StoreOp::Delete), StoreFault::Refused);
            remove_objects(&store).expect_err("refused");
            match (nth, superblock(&store)) {
                (1, Ok(_)) => assert_eq!(store.image().names().count(), deletions + 1, "nothing is gone"),
                (2.., Err(MountError::NotAStore)) => {}
                (_, found) => panic!("after deletion {nth} was refused: {found:?}"),
            }
        }
    }

    #[test]
    fn promise_g12_a_store_of_many_objects_is_removed_page_by_page_and_what_is_not_ours_stays() {
        let store = SimStore::new(&CallLog::new());
        let put = |name: &str| store.put(name, "x".into()).expect("put");
        (0..2 * PAGE + 7).for_each(|n| put(&format!("seg/0000000001/{n:016}")));
        for name in ["skylog.json", "gen/0000000001/0000000000", "somebody/else", &format!("{PROBE}1")] {
            put(name);
        }
        remove_objects(&store).expect("removed");
        assert_eq!(store.list("").expect("listed"), ["somebody/else"]);
    }
}
