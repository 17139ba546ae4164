//! `skylog mkfs STORE`: makes a new, empty filesystem.

use super::failure::{Failure, Outcome};
use super::remote_words::RemoteWords;
use super::store_arg::StoreArg;
use super::{output, set, size, world};
use skylog::base::clock::SystemClock;
use skylog::base::random::OsRandom;
use skylog::format::names::LOCK;
use skylog::format::usage::{OnLimit, UsageLimit};
use skylog::journal::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use skylog::recovery::{MkfsOptions, mkfs};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Bytes of a segment, unless asked otherwise.
const SEGMENT_BYTES: u64 = 64 << 20;

/// Make a new, empty filesystem in a store.
#[derive(clap::Args)]
pub struct Mkfs {
    /// The store: a directory that is empty or does not exist yet, or a URL.
    store: StoreArg,
    /// Size of journal and store segments, for the life of the filesystem (64KiB to 1GiB; default 64MiB).
    #[arg(long, value_parser = size::parse)]
    segment_size: Option<u64>,
    /// Most bytes that the files may take, `none` for no limit; `skylog set` changes it later.
    #[arg(long, value_name = "SIZE", value_parser = set::size_limit, default_value = "none", hide_default_value = true)]
    limit_size: u64,
    /// Most inodes that there may be, `none` for no limit; `skylog set` changes it later.
    #[arg(long, value_name = "N", value_parser = set::inode_limit, default_value = "none", hide_default_value = true)]
    limit_inodes: u64,
    /// What operations fail with at a limit: enospc or edquot.
    #[arg(long, value_name = "ERROR", default_value = "enospc")]
    on_limit: OnLimit,
    #[command(flatten)]
    remote: RemoteWords,
}

impl Mkfs {
    /// Makes it and says so.
    pub fn run(&self) -> Outcome {
        let store = self.store.lasting(&self.remote)?;
        let limit = UsageLimit { bytes: self.limit_size, inodes: self.limit_inodes, on_limit: self.on_limit };
        let uuid = make(&store, segment_bytes(self.segment_size)?, limit)?;
        output::line(format_args!("made a skylog filesystem in {}, {uuid}", store.url()));
        Ok(())
    }
}

/// Makes a filesystem unless there is something at that place already; returns its UUID. If that fails, all it made goes.
pub fn make(store: &StoreArg, segment_bytes: u64, limit: UsageLimit) -> Result<String, Failure> {
    store.vacant()?;
    let made = !store.folder().is_some_and(Path::exists);
    let result = store.place().make().map_err(Failure::failed).and_then(|()| fill(store, segment_bytes, limit));
    if let (Err(_), Some(folder)) = (&result, store.folder()) {
        // Only folders that are empty: what somebody else makes here at the same time stays.
        for below in [folder.join("gen/0000000001"), folder.join("gen")] {
            fs::remove_dir(below).ok();
        }
        if made {
            fs::remove_dir(folder).ok();
        }
    }
    result
}

fn fill(store: &StoreArg, segment_bytes: u64, limit: UsageLimit) -> Result<String, Failure> {
    // Nobody else makes one here at the same time.
    let lock = world::lock(store, None, "nowhere, it is being made", Duration::ZERO)?;
    store.vacant()?;
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let segment_size = u32::try_from(segment_bytes).map_err(Failure::failed)?;
    let options = MkfsOptions { segment_size, uid, gid, limit };
    let opened = store.open()?;
    let make = || mkfs(opened.as_ref(), &SystemClock::new(), &OsRandom, options).map_err(Failure::failed);
    let made = world::probe(store).and_then(|()| make());
    if let (Err(_), Some(folder)) = (&made, store.folder()) {
        fs::remove_file(folder.join(LOCK)).ok();
    }
    drop(lock);
    made.map(|superblock| superblock.uuid.to_string())
}

/// The size of segments asked for, or the usual one.
pub fn segment_bytes(asked: Option<u64>) -> Result<u64, Failure> {
    let bytes = asked.unwrap_or(SEGMENT_BYTES);
    let range = u64::from(SEGMENT_BYTES_MIN)..=u64::from(SEGMENT_BYTES_MAX);
    match range.contains(&bytes) && bytes % 4096 == 0 {
        true => Ok(bytes),
        false => Err(Failure::usage("--segment-size must be a multiple of 4KiB, from 64KiB to 1GiB")),
    }
}
