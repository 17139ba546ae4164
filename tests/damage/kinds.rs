//! Kinds of objects, and what of each nobody reads.

use skylog::format::ids::SegmentKind;
use skylog::format::lease::{Lease, LeaseKind};
use skylog::format::names::{self, Parsed, SUPERBLOCK};
use skylog::format::publication::{Body, Publication};
use skylog::format::store_segment::StoreSegment;
use skylog::journal::MANIFEST;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Superblock,
    Base,
    Increment,
    LogIncrement,
    Closing,
    ChunkSegment,
    NodeSegment,
    WindowIndex,
    WriterLease,
    FollowerLease,
    Manifest,
    Checkpoint,
    Plan,
    Edits,
    Tail,
    JournalSealed,
    JournalLive,
    JournalFree,
    Nodes,
    CacheOwner,
    CacheData,
    CacheNodes,
    CacheIndex,
    StoreFile,
}

impl Kind {
    pub const ALL: [Kind; 24] = [
        Kind::Superblock,
        Kind::Base,
        Kind::Increment,
        Kind::LogIncrement,
        Kind::Closing,
        Kind::ChunkSegment,
        Kind::NodeSegment,
        Kind::WindowIndex,
        Kind::WriterLease,
        Kind::FollowerLease,
        Kind::Manifest,
        Kind::Checkpoint,
        Kind::Plan,
        Kind::Edits,
        Kind::Tail,
        Kind::JournalSealed,
        Kind::JournalLive,
        Kind::JournalFree,
        Kind::Nodes,
        Kind::CacheOwner,
        Kind::CacheData,
        Kind::CacheNodes,
        Kind::CacheIndex,
        Kind::StoreFile,
    ];

    /// That of an object of the store.
    pub fn in_store(name: &str, bytes: &bytes::Bytes) -> Kind {
        if name == SUPERBLOCK {
            return Kind::Superblock;
        }
        if name.starts_with("gen/") {
            return match Publication::decode(bytes).expect("whole").body {
                Body::Base(_) => Kind::Base,
                Body::Increment(_) => Kind::Increment,
                Body::Log(_) => Kind::LogIncrement,
                Body::Closing(_) => Kind::Closing,
            };
        }
        match names::parse(name).unwrap_or_else(|| panic!("what is {name}?")) {
            Parsed::Segment(_) => match StoreSegment::parse(bytes).expect("whole").header.kind {
                SegmentKind::Chunks => Kind::ChunkSegment,
                SegmentKind::Nodes => Kind::NodeSegment,
            },
            Parsed::Window(..) => Kind::WindowIndex,
            Parsed::Lease(..) => match Lease::decode(bytes).expect("whole").kind {
                LeaseKind::Writer => Kind::WriterLease,
                LeaseKind::Follower => Kind::FollowerLease,
            },
        }
    }

    /// That of a file of the state directory; journal segments are told apart by the manifest.
    pub fn on_disk(name: &str) -> Option<Kind> {
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
        Some(match (folder, file) {
            ("", MANIFEST) => Kind::Manifest,
            ("ckpt", file) if file.ends_with(".plan") => Kind::Plan,
            ("ckpt", file) if file.ends_with(".edits") => Kind::Edits,
            ("ckpt", file) if file.ends_with(".tail") => Kind::Tail,
            ("ckpt", _) => Kind::Checkpoint,
            ("nodes", _) => Kind::Nodes,
            ("cache", "filesystem") => Kind::CacheOwner,
            ("cache", file) if file.starts_with("data-") => Kind::CacheData,
            ("cache", file) if file.starts_with("nodes-") => Kind::CacheNodes,
            ("cache", file) if file.starts_with("index-") => Kind::CacheIndex,
            _ => return None,
        })
    }

    /// Why damage of this kind may be seen by nobody, if it may.
    pub fn unseen(self) -> Option<&'static str> {
        match self {
            Kind::CacheOwner | Kind::CacheData | Kind::CacheNodes | Kind::CacheIndex => {
                Some("a copy: what does not pass the checks of its original is removed and fetched again")
            }
            Kind::JournalFree => Some("stale bytes of a segment that is to be used again"),
            _ => None,
        }
    }

    /// Why damage of this kind is not repaired, if it is not.
    pub fn unrepaired(self) -> Option<&'static str> {
        match self {
            Kind::StoreFile => Some("a copy of what the store says: without it the next mount makes it again"),
            _ => None,
        }
    }
}
