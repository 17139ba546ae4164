//! `skylog destroy STORE`: removes a filesystem. The configuration goes first, so that what an interruption leaves is no
//! filesystem any more; only names that skylog gives are touched.

use super::failure::{Failure, Outcome};
use super::progress::Progress;
use super::remote_words::RemoteWords;
use super::site::Site;
use super::store_arg::{Found, SUPERBLOCK, StoreArg};
use super::users::Users;
use super::{ask, follower, output, state_dir, world};
use skylog::format::names::{self, LOCK};
use skylog::media::Standing;
use skylog::store::{Store, StoreError, is_probe};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Names of objects in memory at a time.
const PAGE: usize = 1000;

/// Remote objects that are deleted at the same time.
const DELETES: usize = 16;

/// Remove a filesystem and all it holds.
#[derive(clap::Args)]
pub struct Destroy {
    /// The store: a directory or a URL.
    store: StoreArg,
    /// Do not ask, not even when another machine uses the filesystem.
    #[arg(long)]
    yes: bool,
    /// The state directory, if it is not the usual one.
    #[arg(long)]
    state: Option<PathBuf>,
    #[command(flatten)]
    remote: RemoteWords,
}

/// Folders of a store.
const STORE_FOLDERS: [&str; 6] = ["gen", "seg", "win", "snap", "lease", "damaged"];

impl Destroy {
    /// Asks, then removes.
    pub fn run(&self) -> Outcome {
        let store = self.store.lasting(&self.remote)?;
        match store.look()? {
            Found::Nothing if store.is_remote() => self.remove_rest(&store),
            Found::Away(reason) => Err(Failure::failed(reason)),
            found => self.remove(&store, &Site::found(&store, found, self.state.as_deref())?),
        }
    }

    fn remove(&self, store: &StoreArg, site: &Site) -> Outcome {
        state_dir::existing(site, self.state.is_some())?;
        let (url, state) = (store.url(), site.state.as_path());
        self.refuse_to_harm(store, site)?;
        self.ask(&format!("This removes {url} ({}) and all files in it", site.superblock.uuid))?;
        let in_use = state.is_dir().then_some(state);
        let lock = world::lock(store, in_use, "nowhere, it is being destroyed", Duration::ZERO)?;
        remove_from(store)?;
        state_dir::remove(state).map_err(|e| Failure::failed(format_args!("{}: {e}", state.display())))?;
        if let Some(folder) = store.folder() {
            fs::remove_file(folder.join(LOCK)).ok();
            remove_empty(folder);
        }
        drop(lock);
        follower::remove_copies(site.superblock.uuid)?;
        output::line(format_args!("removed {url}"));
        Ok(())
    }

    /// What others use is not removed, unless that was meant.
    fn refuse_to_harm(&self, store: &StoreArg, site: &Site) -> Outcome {
        if self.yes {
            return Ok(());
        }
        let users = Users::of(store, site.superblock.uuid)?;
        let alive = users.all().into_iter().find(|user| user.standing != Standing::Dead);
        match (alive, users.unknown()) {
            (None, None) => Ok(()),
            (None, Some(what)) => Err(Failure::failed(format_args!(
                "it cannot be told who uses the filesystem, {what}; remove it all the same with --yes"
            ))),
            (Some(user), _) => Err(Failure::failed(format_args!(
                "{} is in use by {}; unmount it there, or remove it all the same with --yes",
                store.url(),
                user.words
            ))),
        }
    }

    /// Without a network in between a destruction is not interrupted easily; here it is gone on with.
    fn remove_rest(&self, store: &StoreArg) -> Outcome {
        let url = store.url();
        let opened = store.open()?;
        let left = count(opened.as_ref()).map_err(|e| store.refused(e))?;
        if left == 0 {
            return Err(store.missing());
        }
        self.ask(&format!("{url} is no filesystem any more. This removes the {left} objects that are left of one"))?;
        remove_from(store)?;
        output::line(format_args!("removed what was left in {url}"));
        Ok(())
    }

    fn ask(&self, question: &str) -> Outcome {
        match self.yes || ask::agreed(question)? {
            true => Ok(()),
            false => Err(Failure::failed("nothing was removed")),
        }
    }
}

fn remove_from(store: &StoreArg) -> Outcome {
    let at_once = if store.is_remote() { DELETES } else { 1 };
    let progress = Progress::steps("removing");
    let removed =
        remove_objects(store.open()?.as_ref(), at_once, &mut |done, total| progress.step("removing", done, total));
    progress.end();
    removed.map_err(|e| store.refused(e))
}

/// Whether we have given an object of a store this name.
fn is_ours(name: &str) -> bool {
    is_probe(name) || names::is_ours(name)
}

/// How many objects of ours there are.
fn count(store: &dyn Store) -> Result<u64, StoreError> {
    let mut ours = 0;
    store.walk("", &mut |name| {
        ours += u64::from(is_ours(name));
        ControlFlow::Continue(())
    })?;
    Ok(ours)
}

fn remove_objects(store: &dyn Store, at_once: usize, progress: &mut dyn FnMut(u64, u64)) -> Result<(), StoreError> {
    let (total, mut done) = (count(store)?, 0);
    store.delete(SUPERBLOCK)?;
    // However many there are, few names are in memory at a time.
    loop {
        let page = page(store)?;
        if page.is_empty() {
            return Ok(());
        }
        delete_all(store, &page, at_once)?;
        done += page.len() as u64;
        progress(done, total);
    }
}

fn page(store: &dyn Store) -> Result<Vec<String>, StoreError> {
    let mut page = Vec::new();
    store.walk("", &mut |name| {
        if is_ours(name) {
            page.push(name.to_owned());
        }
        if page.len() < PAGE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(page)
}

fn delete_all(store: &dyn Store, names: &[String], at_once: usize) -> Result<(), StoreError> {
    let delete = |part: &[String]| part.iter().try_for_each(|name| store.delete(name));
    thread::scope(|scope| {
        let parts = names.chunks(names.len().div_ceil(at_once));
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || delete(part))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a thread that deletes does not panic"))
    })
}

/// Takes away the folders that are empty now; whatever else the user keeps there stays.
fn remove_empty(store: &Path) {
    STORE_FOLDERS.iter().for_each(|folder| remove_empty_below(&store.join(folder)));
    fs::remove_dir(store).ok();
}

fn remove_empty_below(folder: &Path) {
    for below in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        // A link leads to what is not ours.
        if below.file_type().is_ok_and(|found| found.is_dir()) {
            remove_empty_below(&below.path());
        }
    }
    fs::remove_dir(folder).ok();
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

    fn remove(store: &SimStore) -> Result<(), StoreError> {
        remove_objects(store, 1, &mut |_, _| ())
    }

    #[test]
    fn promise_g11_the_configuration_is_destroyed_first() {
        let store = made();
        let before = store.log().len();
        remove(&store).expect("removed");
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
            remove(&store).expect_err("refused");
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
        let probe = format!("probe-{:032x}", 1);
        for name in ["skylog.json", "gen/0000000001/0000000000", "somebody/else", "probe-", "probe-cafe", &probe] {
            put(name);
        }
        remove(&store).expect("removed");
        assert_eq!(store.list("").expect("listed"), ["probe-", "probe-cafe", "somebody/else"]);
    }
}
