//! What a volume runs in, and how large its parts are, from the command line.

use super::failure::{Failure, Outcome};
use super::state_root;
use super::store_arg::StoreArg;
use skylog::base::clock::SystemClock;
use skylog::base::random::OsRandom;
use skylog::checkpoint::{Policy, Replay};
use skylog::format::names::LOCK;
use skylog::format::superblock::Superblock;
use skylog::journal;
use skylog::locate::CacheBytes;
use skylog::map::{Limits, Shape};
use skylog::media::{LocalDisk, LockError, LockGuard, Owner, is_own_folder};
use skylog::recovery::{Holding, MountError, Tuning, World};
use skylog::store::probe_create;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// Local disk for the journal, unless asked otherwise: a burst of half of it is taken before anything must be shipped.
const JOURNAL_BYTES: u64 = 2 << 30;
/// Of it operations that only add leave an eighth to those that free, but no more than this: it is made ready ahead.
const RESERVE_BYTES_MAX: u64 = 128 * MIB;
/// Batches in memory that are not written yet.
const QUEUE_BYTES_MAX: u64 = 32 * MIB;
/// Changes in memory that are in no tree yet.
const OVERLAY_BYTES_MAX: u64 = 48 * MIB;
/// Tree nodes, file data and window indexes in memory.
const NODE_CACHE_BYTES: u64 = 48 * MIB;
const CACHE: CacheBytes = CacheBytes { data: 48 * MIB, indexes: 16 * MIB };
/// A dead store object is kept this long, unless asked otherwise.
const GRACE: Duration = Duration::from_secs(3600);
/// Changes older than this are brought into a checkpoint, and shipped: soon, where the machine may be lost and the store is
/// not; but a folder of the same machine keeps nothing safer than the journal does.
const SHIP_INTERVAL: Duration = Duration::from_secs(5);
const SHIP_INTERVAL_FOLDER: Duration = Duration::from_secs(60);
/// A store segment is full at this size, whatever the size of journal segments.
pub const STORE_SEGMENT_BYTES: u64 = 16 * MIB;
/// Store segments that are uploaded to a remote store at a time, while another one is made: no more than it may take requests.
const UPLOADS: usize = 3;

/// The parts of a mount that the user may size.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    /// Local disk for the journal, bytes.
    pub journal_bytes: Option<u64>,
    /// How long dead store objects are kept.
    pub grace: Option<Duration>,
    /// The age at which changes are shipped.
    pub ship_interval: Option<Duration>,
    /// Requests that send an object at a time, if the store is not on this machine.
    pub uploads: Option<usize>,
}

/// The machine's disk, clock and randomness, and the store.
pub fn world(store: &StoreArg, state: &Path) -> Result<World, Failure> {
    Ok(World {
        media: Arc::new(LocalDisk::new(state)),
        cache_media: Arc::new(LocalDisk::new(state)),
        store: store.open()?,
        clock: Arc::new(SystemClock::new()),
        random: Arc::new(OsRandom),
        known: None,
    })
}

/// What keeps others off while we use a store.
pub struct Locks {
    _store: Option<LockGuard>,
    _state: Option<LockGuard>,
}

/// Takes the lock of a store that is a folder, and that of the state directory, which is made if it does not exist. Fails
/// with a sentence that names the owner, if that does not give them up within `patience`.
pub fn lock(store: &StoreArg, state: Option<&Path>, mount_point: &str, patience: Duration) -> Result<Locks, Failure> {
    let owner = Owner::this_process(mount_point).map_err(Failure::failed)?;
    let take = |folder: &Path, what: &str| {
        lock_folder(folder, LOCK, &format!("{what} {}", folder.display()), &owner, patience)
    };
    let of_store = store.folder().map(|folder| take(folder, "the store")).transpose()?;
    if let Some(state) = state {
        let shown = state.display();
        state_root::make(state).map_err(|e| Failure::failed(format_args!("state directory {shown}: {e}")))?;
    }
    let of_state = state.map(|state| take(state, "the state directory")).transpose()?;
    Ok(Locks { _store: of_store, _state: of_state })
}

/// Takes the lock `name` in a folder that exists; `what` is its name for people.
pub fn lock_folder(
    folder: &Path,
    name: &str,
    what: &str,
    owner: &Owner,
    patience: Duration,
) -> Result<LockGuard, Failure> {
    let (disk, end) = (LocalDisk::new(folder), Instant::now() + patience);
    loop {
        match disk.lock(name, owner) {
            Err(LockError::Held { .. }) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
            taken => return taken.map_err(|e| Failure::failed(format_args!("{what} cannot be had: {e}"))),
        }
    }
}

/// Fails if a folder of a store is a link that somebody else has put there: nothing is written through it, so nothing may be accepted.
pub fn refuse_foreign_links(store: &StoreArg) -> Outcome {
    for path in store.folder().into_iter().flat_map(|folder| STORE_FOLDERS.map(|name| folder.join(name))) {
        match is_own_folder(&path) {
            Ok(true) => {}
            Err(e) if e.kind() == ErrorKind::NotFound && !path.is_symlink() => {}
            Ok(false) => {
                return Err(Failure::failed(format_args!(
                    "{} is not a folder, nor a link of this user's or root's to a folder of theirs; put the folder itself there",
                    path.display()
                )));
            }
            Err(e) => return Err(Failure::failed(format_args!("{}: {e}", path.display()))),
        }
    }
    Ok(())
}

/// Folders of a store that a mount writes to.
const STORE_FOLDERS: [&str; 4] = ["gen", "seg", "win", "lease"];

/// Makes sure that the store keeps writers apart.
pub fn probe(store: &StoreArg) -> Outcome {
    let verdict = probe_create(store.open()?.as_ref(), &OsRandom);
    verdict.map_err(|why| Failure::failed(format_args!("{} cannot be used: {why}", store.url())))
}

/// What a sentence about damage names for a command, whatever the filesystem.
const REPAIR: &str = "skylog check --repair STORE";

/// The same for this filesystem; `given` is the state directory that the user named.
pub fn repair_command(store: &StoreArg, given: Option<&Path>) -> String {
    let state = given.map_or_else(String::new, |state| format!(" --state {}", state.display()));
    format!("skylog check --repair {}{state}", store.shown())
}

/// A failure that may be about damage, with the command that repairs this filesystem.
pub fn with_command(store: &StoreArg, given: Option<&Path>, failure: Failure) -> Failure {
    failure.saying(REPAIR, &repair_command(store, given))
}

/// Why a volume does not open, with the command that says more about damage, and repairs it.
pub fn refused(store: &StoreArg, given: Option<&Path>, error: &MountError) -> Failure {
    let damage = matches!(error, MountError::Checkpoint(_) | MountError::Map(_));
    let sentence = error.to_string();
    let failure = match damage && !sentence.contains("skylog check") {
        true => Failure::failed(format_args!("{sentence}; run: {REPAIR}")),
        false => Failure::failed(sentence),
    };
    with_command(store, given, failure)
}

/// The size of the journal, if segments of that size fit into it.
pub fn journal_bytes(segment_bytes: u64, asked: Option<u64>) -> Result<u64, Failure> {
    let (journal_bytes, least) = (asked.unwrap_or(JOURNAL_BYTES), 4 * segment_bytes);
    if journal_bytes < least {
        let least = super::size::show(least);
        return Err(Failure::usage(format_args!("--journal-size must be at least four segments, {least}")));
    }
    Ok(journal_bytes)
}

/// Objects and tree nodes that a mount from the store alone fetches at a time.
const FETCHES: usize = 16;

/// All sizes of a mount.
pub fn tuning(superblock: &Superblock, sizes: Sizes, owner: Owner) -> Result<Tuning, Failure> {
    let segment_bytes = u32::try_from(superblock.segment_size).map_err(Failure::failed)?;
    let journal_bytes = journal_bytes(superblock.segment_size, sizes.journal_bytes)?;
    Ok(Tuning {
        journal: journal::Config {
            segment_bytes,
            journal_bytes,
            queue_bytes_max: QUEUE_BYTES_MAX.min(journal_bytes / 4),
            reserve_bytes: (journal_bytes / 8).min(RESERVE_BYTES_MAX),
        },
        limits: Limits { overlay_bytes_max: OVERLAY_BYTES_MAX, inode_step: 1 << 16 },
        node_cache_bytes: NODE_CACHE_BYTES,
        cache: CACHE,
        cache_files: None,
        fold_bytes: OVERLAY_BYTES_MAX,
        fetches: FETCHES,
        policy: Policy {
            age_max: sizes.ship_interval.unwrap_or(if sizes.uploads.is_some() {
                SHIP_INTERVAL
            } else {
                SHIP_INTERVAL_FOLDER
            }),
            grace: sizes.grace.unwrap_or(GRACE),
            replay: Replay::default(),
            uploads: sizes.uploads.map_or(1, |most| most.min(UPLOADS)),
            // Not as small as the smallest journal segments: the record of a window is one batch, whatever its segments.
            segment_bytes: (superblock.segment_size * 64).min(STORE_SEGMENT_BYTES) as usize,
            shape: Shape::default(),
        },
        owner,
        holding: Holding::Asks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use skylog::format::ids::Uuid;

    #[test]
    fn no_more_segments_are_uploaded_at_a_time_than_the_store_may_take() {
        let superblock = Superblock { uuid: Uuid(1), created: 0, segment_size: MIB, append_only: false, usage: true };
        for (uploads, expected) in [(None, 1), (Some(1), 1), (Some(2), 2), (Some(8), 3)] {
            let tuning =
                tuning(&superblock, Sizes { uploads, ..Sizes::default() }, Owner::of_test("here")).expect("sizes");
            assert_eq!(tuning.policy.uploads, expected, "{uploads:?}");
        }
    }
}
