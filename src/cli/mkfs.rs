//! `skylog mkfs STORE`: makes a new, empty filesystem.

use super::failure::{Failure, Outcome};
use super::store_arg::StoreArg;
use super::{size, world};
use skylog::base::clock::SystemClock;
use skylog::base::random::OsRandom;
use skylog::journal::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use skylog::recovery::{MkfsOptions, mkfs};
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
}

impl Mkfs {
    /// Makes it and says so.
    pub fn run(&self) -> Outcome {
        let uuid = make(&self.store, self.segment_size)?;
        println!("made a skylog filesystem in {}, {uuid}", self.store.url());
        Ok(())
    }
}

/// Makes a filesystem unless there is something at that place already; returns its UUID.
pub fn make(store: &StoreArg, segment_bytes: Option<u64>) -> Result<String, Failure> {
    let segment_size = segment_size(segment_bytes.unwrap_or(SEGMENT_BYTES))?;
    if let Some(why) = store.occupied() {
        return Err(Failure::failed(why));
    }
    store.place().make().map_err(Failure::failed)?;
    // Nobody else makes one here at the same time.
    let _lock = world::lock(store, None, "nowhere, it is being made", Duration::ZERO)?;
    if let Some(why) = store.occupied() {
        return Err(Failure::failed(why));
    }
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let options = MkfsOptions { segment_size, uid, gid };
    let made = mkfs(store.open()?.as_ref(), &SystemClock::new(), &OsRandom, options);
    made.map(|superblock| superblock.uuid.to_string()).map_err(Failure::failed)
}

fn segment_size(bytes: u64) -> Result<u32, Failure> {
    let fits = |n: &u32| (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(n) && n % 4096 == 0;
    let wrong = || Failure::usage("--segment-size must be a multiple of 4KiB, from 64KiB to 1GiB");
    u32::try_from(bytes).ok().filter(fits).ok_or_else(wrong)
}
