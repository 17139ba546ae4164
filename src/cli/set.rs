//! `skylog set DIR sync=POLICY`: changes a running mount.

use super::control::{Ask, Conversation};
use super::failure::{Failure, Outcome};
use super::mount_point;
use skylog::journal::SyncPolicy;
use std::path::PathBuf;

/// Change the sync policy of a running mount.
#[derive(clap::Args)]
pub struct Set {
    /// The mount point.
    dir: PathBuf,
    /// `sync=always`, `sync=everysec` or `sync=none`; what was pending is synced after the change.
    setting: String,
}

impl Set {
    /// Returns once the policy is in force.
    pub fn run(&self) -> Outcome {
        let Some(("sync", policy)) = self.setting.split_once('=') else {
            return Err(Failure::usage(format_args!(
                "unknown setting {:?}; use sync=always, sync=everysec or sync=none",
                self.setting
            )));
        };
        let policy: SyncPolicy = policy.parse().map_err(Failure::usage)?;
        let dir = mount_point::canonical(&self.dir)?;
        Conversation::with(&dir, &Ask::Set { sync: policy.to_string() })?.next().map(drop)
    }
}
