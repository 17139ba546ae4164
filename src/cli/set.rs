//! `skylog set DIR SETTING`: changes a running mount.

use super::control::{Ask, Conversation};
use super::failure::{Failure, Outcome};
use super::{mount_point, size};
use skylog::format::usage::OnLimit;
use skylog::journal::SyncPolicy;
use skylog::ship::Durability;
use skylog::volume::WhenFull;
use std::path::PathBuf;

/// Change the sync policy, the durability or the ship interval of a running mount, what it does when its journal is full, or the limits of its filesystem.
#[derive(clap::Args)]
pub struct Set {
    /// The mount point.
    dir: PathBuf,
    /// `sync=always|everysec|none`, `durability=local|store`, `ship-interval=SECONDS` and `when-full=wait|enospc` for this mount; `limit-size=SIZE|none`, `limit-inodes=N|none`, `on-limit=enospc|edquot` for the filesystem.
    setting: String,
}

impl Set {
    /// Returns once the setting is in force, and a limit durable.
    pub fn run(&self) -> Outcome {
        let ask = asked(&self.setting).map_err(Failure::usage)?;
        let dir = mount_point::canonical(&self.dir)?;
        Conversation::with(&dir, &ask)?.next().map(drop)
    }
}

fn asked(setting: &str) -> Result<Ask, String> {
    let limit = |size, inodes, on_limit| Ask::Limit { size, inodes, on_limit };
    match setting.split_once('=') {
        Some(("sync", policy)) => Ok(Ask::Set { sync: policy.parse::<SyncPolicy>()?.to_string() }),
        Some(("durability", word)) => Ok(Ask::Durability { word: word.parse::<Durability>()?.to_string() }),
        Some(("ship-interval", seconds)) => Ok(Ask::ShipInterval { seconds: ship_interval(seconds)? }),
        Some(("when-full", word)) => Ok(Ask::WhenFull { word: word.parse::<WhenFull>()?.to_string() }),
        Some(("limit-size", most)) => Ok(limit(Some(size_limit(most)?), None, None)),
        Some(("limit-inodes", most)) => Ok(limit(None, Some(inode_limit(most)?), None)),
        Some(("on-limit", word)) => Ok(limit(None, None, Some(word.parse::<OnLimit>()?.word().to_owned()))),
        _ => Err(format!(
            "unknown setting {setting:?}; use sync=always, sync=everysec, sync=none, durability=local|store, ship-interval=SECONDS, when-full=wait|enospc, limit-size=SIZE, \
             limit-inodes=N or on-limit=enospc|edquot"
        )),
    }
}

/// Seconds after which a change is shipped: whole ones, at least one.
pub fn ship_interval(text: &str) -> Result<u64, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0);
    seconds.ok_or_else(|| format!("ship interval {text:?}: give a number of seconds, at least 1"))
}

/// Most bytes, or `none`, which is 0.
pub fn size_limit(text: &str) -> Result<u64, String> {
    if text == "none" { Ok(0) } else { size::parse(text) }
}

/// Most inodes, or `none`, which is 0.
pub fn inode_limit(text: &str) -> Result<u64, String> {
    if text == "none" { Ok(0) } else { text.parse().map_err(|_| format!("{text:?} is not a number of inodes")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_requests() {
        let limit = |size, inodes, word: Option<&str>| Ask::Limit { size, inodes, on_limit: word.map(str::to_owned) };
        assert_eq!(asked("sync=none"), Ok(Ask::Set { sync: "none".into() }));
        assert_eq!(asked("durability=store"), Ok(Ask::Durability { word: "store".into() }));
        assert_eq!(asked("ship-interval=30"), Ok(Ask::ShipInterval { seconds: 30 }));
        assert_eq!(asked("limit-size=1GiB"), Ok(limit(Some(1 << 30), None, None)));
        assert_eq!(asked("limit-size=none"), Ok(limit(Some(0), None, None)));
        assert_eq!(asked("limit-inodes=0"), Ok(limit(None, Some(0), None)));
        assert_eq!(asked("when-full=enospc"), Ok(Ask::WhenFull { word: "enospc".into() }));
        assert_eq!(asked("on-limit=edquot"), Ok(limit(None, None, Some("edquot"))));
        for wrong in [
            "sync",
            "sync=",
            "durability=both",
            "ship-interval=0",
            "ship-interval=-1",
            "limit-size=much",
            "limit-inodes=-1",
            "on-limit=eio",
            "when-full=eio",
            "limit=1",
            "",
        ] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }
}
