//! `skylog break-lock STORE`: frees a lock whose owner died on a machine that cannot be asked any more, and ends the leases of the
//! dead. A remote store has no lock itself, for its writers are kept apart by the fence; what is locked is its state directory.

use super::failure::{Failure, Outcome};
use super::remote_words::RemoteWords;
use super::site::Site;
use super::store_arg::StoreArg;
use super::users::Users;
use super::{ask, output, state_dir};
use skylog::format::names::LOCK;
use skylog::media::{LocalDisk, LockError, Owner, Standing};
use std::path::{Path, PathBuf};

/// Free the mount lock of a store whose owner is dead; refuses while it lives. Of a remote store, that of its state directory on this
/// machine: what another machine holds `skylog mount --takeover` mounts. The leases by which dead mounts on other machines keep what they
/// read from being deleted end too; one that lives all the same says ESTALE for what it has open, and goes on with a new lease.
#[derive(clap::Args)]
pub struct BreakLock {
    /// The store: a directory or a URL.
    store: StoreArg,
    /// The state directory, if it is not the store's own.
    #[arg(long)]
    state: Option<PathBuf>,
    /// Do not ask whether the owner on another machine is dead.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    remote: RemoteWords,
}

impl BreakLock {
    /// Breaks the locks and says whose they were.
    pub fn run(&self) -> Outcome {
        let store = self.store.lasting(&self.remote)?;
        let site = Site::of(&store, self.state.as_deref())?;
        state_dir::existing(&site, self.state.is_some())?;
        let here = Owner::this_process("break-lock").map_err(Failure::failed)?;
        let folders = [store.folder(), Some(site.state.as_path())];
        let locks = folders.into_iter().flatten().filter(|folder| folder.is_dir());
        let mut broken = Vec::new();
        for folder in locks {
            broken.extend(self.break_in(folder, &here)?);
        }
        broken.dedup();
        broken.iter().for_each(|owner| output::line(format_args!("broke the lock of {}", owner.describe())));
        let ended = if site.away.is_some() { 0 } else { self.end_leases(&store, &site)? };
        match broken.is_empty() {
            true if ended > 0 => {}
            true if store.is_remote() => output::line(format_args!(
                "there was no lock on this machine, and a remote store has none; what another machine holds `skylog mount --takeover` mounts"
            )),
            true => output::line(format_args!("there was no lock")),
            false => {}
        }
        Ok(())
    }

    /// Ends the leases of those who are dead, as far as that is known here or said by the user; a writer on another machine is left to
    /// who takes its place. One that lives all the same notices,
    /// says ESTALE for what it had open, and takes a new lease. Returns how many have ended or were left alone.
    fn end_leases(&self, store: &StoreArg, site: &Site) -> Result<usize, Failure> {
        let users = Users::of(store, site.superblock.uuid)?;
        let all = users.all();
        for user in &all {
            let words = &user.words;
            match user.standing {
                Standing::Lives => {
                    output::line(format_args!("left alone: {words}; it lives, unmount it there"));
                    continue;
                }
                // Without it anybody would mount, and fence a writer that lives, without a word.
                Standing::Elsewhere if user.writes => {
                    output::line(format_args!("left alone: {words}; `skylog mount --takeover` takes its place"));
                    continue;
                }
                Standing::Elsewhere if !self.yes => {
                    let question = format!("Only you can know whether this one is dead: {words}. This ends its lease");
                    if !ask::agreed(&question)? {
                        return Err(Failure::failed("the lease was left alone"));
                    }
                }
                Standing::Elsewhere | Standing::Dead => {}
            }
            match users.close(user.who)? {
                true => output::line(format_args!("ended the lease of {words}")),
                false => output::line(format_args!("left alone: {words}; it has just renewed its lease")),
            }
        }
        if let Some(what) = users.unknown() {
            output::line(format_args!("{what}; a mount for writing removes those that have ended"));
        }
        Ok(all.len())
    }

    fn break_in(&self, folder: &Path, here: &Owner) -> Result<Option<Owner>, Failure> {
        let (disk, shown) = (LocalDisk::new(folder), folder.display());
        let failed = |e: LockError| match e {
            LockError::Held { .. } => Failure::failed(format_args!("{shown}: {e}; unmount there instead")),
            e => Failure::failed(format_args!("{shown}: {e}")),
        };
        if let Some(owner) = disk.lock_owner(LOCK).map_err(failed)?.filter(|owner| owner.is_elsewhere(here)) {
            let question =
                format!("Only you can know whether {} is dead; two at once destroy the filesystem", owner.describe());
            if !self.yes && !ask::agreed(&question)? {
                return Err(Failure::failed("the lock was left alone"));
            }
        }
        disk.break_lock(LOCK, here).map_err(failed)
    }
}
