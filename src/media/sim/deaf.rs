//! Syncs that the simulated disk says yes to, and does not do, while their rule is taken away: each is told by the file it is for.

use crate::base::canary::{Canary, removed};

/// Whether a sync of this file is not done.
pub(super) fn to_file(name: &str) -> bool {
    let of = |folder: &str, ends: &str| name.starts_with(folder) && name.ends_with(ends);
    let record = || name.starts_with("ckpt/") && !name.contains('.');
    removed(Canary::NodeSync) && of("nodes/", "")
        || removed(Canary::CheckpointSync) && record()
        || removed(Canary::PlanSync) && of("ckpt/", ".plan")
        || removed(Canary::EditsSync) && of("ckpt/", ".edits")
        || removed(Canary::TailFileSync) && of("ckpt/", ".tail")
        || removed(Canary::ManifestSync) && name == "MANIFEST.new"
        || removed(Canary::CacheOwnerSync) && of("cache/", "")
        || removed(Canary::RepairNoteSync) && name == "REPAIR"
}

/// Whether a sync of this folder is not done.
pub(super) fn to_dir(name: &str) -> bool {
    removed(Canary::NodeDirSync) && name == "nodes"
}
