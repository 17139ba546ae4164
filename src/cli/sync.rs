//! `skylog sync DIR`: makes everything written so far durable. `sync(2)` and `syncfs(2)` never reach a FUSE daemon.

use super::control::{Ask, Conversation};
use super::failure::Outcome;
use super::mount_point;
use std::path::PathBuf;

/// Make everything written to a mount so far durable.
#[derive(clap::Args)]
pub struct Sync {
    /// The mount point.
    dir: PathBuf,
}

impl Sync {
    /// Returns once all is durable.
    pub fn run(&self) -> Outcome {
        let dir = mount_point::canonical(&self.dir)?;
        Conversation::with(&dir, &Ask::Sync)?.next().map(drop)
    }
}
