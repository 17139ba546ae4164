//! `skylog break-lock STORE`: frees a lock whose owner died on a machine that cannot be asked any more.

use super::failure::{Failure, Outcome};
use super::state_dir;
use super::store_arg::StoreArg;
use super::world::LOCK;
use skylog::media::{LocalDisk, Owner};
use std::path::PathBuf;

/// Free the mount lock of a store whose owner is dead; refuses while it lives.
#[derive(clap::Args)]
pub struct BreakLock {
    /// The store: a directory or a URL.
    store: StoreArg,
    /// The state directory, if it is not the store's own.
    #[arg(long)]
    state: Option<PathBuf>,
}

impl BreakLock {
    /// Breaks the lock and says whose it was.
    pub fn run(&self) -> Outcome {
        let superblock = self.store.superblock()?;
        let state = state_dir::existing(&self.store, self.state.as_deref(), superblock.uuid)?;
        let here = Owner::this_process("break-lock").map_err(Failure::failed)?;
        let broken = LocalDisk::new(&state).break_lock(LOCK, &here);
        match broken.map_err(|e| Failure::failed(format_args!("{e}; unmount there instead")))? {
            Some(owner) => println!("broke the lock of {}", owner.describe()),
            None => println!("there was no lock"),
        }
        Ok(())
    }
}
