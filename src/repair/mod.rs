//! Layer 6: `skylog check --repair`: a filesystem of what is left of a damaged one. Offline.
//!
//! All that is stored is read, from the state directory and from the store, around whatever is damaged; what is left is mended
//! so that it agrees with itself; and that is written into the store as a generation of its own, whose base holds freshly built
//! trees. Nothing that is there is changed or removed by it: before the base is there, nobody names what was written, and
//! after it the generations before are history. So a repair may end anywhere, and be run again.
//!
//! **What nobody is given is a wrong byte.** Data that is lost is named as lost by the extents that had it, and reading it fails.

mod aside;
pub mod gather;
pub mod mend;
pub mod objects;
mod order;
mod report;
pub mod space;
pub mod tree;
mod watched;
mod write;

pub use aside::local_folder;
pub use order::{PASSES, Pass, repair};
pub use report::Report;

use crate::base::clock::Clock;
use crate::base::random::Random;
use crate::checkpoint::CheckpointError;
use crate::format::ids::InodeNo;
use crate::format::lease::Owner;
use crate::journal::{JournalError, ManifestError};
use crate::map::{MapError, Shape};
use crate::media::Media;
use crate::recovery::{HoldError, Holding, MountError};
use crate::ship::ShipError;
use crate::store::{Store, StoreError};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// What a repair works on, and with.
pub struct Means {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The state directory, if there is one.
    pub state: Option<Arc<dyn Media>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// The process that repairs.
    pub owner: Owner,
    /// How it deals with others who hold the filesystem.
    pub holding: Holding,
    /// Somebody says that it is not append-only, should nothing else say so any more.
    pub not_append_only: bool,
    /// Bytes at which a store segment is full.
    pub segment_bytes: usize,
    /// How big tree nodes get.
    pub shape: Shape,
}

/// Told which pass runs and how far it has come: (pass, done, total); a total of 0 is unknown.
pub type Progress<'a> = dyn FnMut(&'static str, u64, u64) + 'a;

/// Something stored that is not as it was written, or is gone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damaged {
    /// The name of the store object, or of the file in the state directory.
    pub place: String,
    /// Whether it is a file in the state directory.
    pub local: bool,
    /// What is wrong with it.
    pub what: String,
}

/// A file that is not after a repair what it was, or may not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Its inode.
    pub ino: InodeNo,
    /// Where it is after the repair, if it is there.
    pub path: Option<String>,
    /// What happened to it, and why: sentences without a full stop.
    pub what: Vec<String>,
}

/// Bytes that are read again at a time.
const CONFIRM_BYTES: usize = 8 << 20;

/// Whether a range of a store object, or all of it, is still what was read and found damaged. Bytes that come wrong once are no damage,
/// and what is whole must not be given up for them: then the repair ends.
fn confirm(store: &dyn Store, name: &str, range: Option<Range<u64>>, read: &[u8]) -> Result<(), RepairError> {
    let start = range.as_ref().map_or(0, |range| range.start);
    // One byte more tells where all of it ends.
    let end = range.map_or(start + read.len() as u64 + 1, |range| range.end);
    let mut rest = read;
    for from in (start..end).step_by(CONFIRM_BYTES) {
        let again = store.get_some(name, from..end.min(from + CONFIRM_BYTES as u64))?;
        rest = rest.strip_prefix(&*again).ok_or_else(|| differs(name))?;
    }
    if rest.is_empty() { Ok(()) } else { Err(differs(name)) }
}

fn differs(name: &str) -> RepairError {
    let what = "reads differently each time: something else writes there, or disk or store fail";
    RepairError::Refused(format!("{name} {what}; run it again"))
}

/// Why a repair ended early. All that was stored is there; when it is run again, it goes on, or starts over.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// It is not for us to repair.
    #[error("it is not repaired: {0}")]
    Refused(String),
    /// Somebody else holds it.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// The store did not do what was asked. That is no damage.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state directory could not be read or written.
    #[error("state directory: {0}")]
    Disk(#[from] io::Error),
    /// What recovery found, and it is no damage.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A tree could not be read or built.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A window could not be packed, or the generation not be won.
    #[error(transparent)]
    Ship(#[from] ShipError),
    /// The journal could not be read, and that is no damage.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The manifest could not be read, and that is no damage.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A checkpoint could not be read, and that is no damage.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}
