//! Layer 6: `skylog check`: whether all that is stored is whole, and whether it agrees with itself. Offline; only reads.
//!
//! With a state directory that holds a filesystem it checks what a mount would recover from it: the checkpoint with the
//! journal replayed over it. Without one it checks what a mount would take over: the store's newest generation.
//!
//! [`PASSES`] is the table of what is done, in order; a pass runs when those it needs found nothing that makes its own
//! findings meaningless. Each reads only and may be run again.
//!
//! **What is legitimately in flight** and no problem: the newest checkpoint's settlement, of which the space tree holds
//! the part that the `settled` record says; deaths that wait for their window to be recorded; windows that a publication
//! lists and the space tree does not record yet; planned segments, whether in the store or not; store objects that are
//! listed for deletion, whether there or gone; changes of files after the checkpoint, whose deaths the next merge settles
//! — so live bytes are compared with the extents **at the checkpoint**.
//!
//! **How deep**: [`Depth::Metadata`] verifies all but the bodies of segments with file data, their frames and object tables, so that a check of a store that is
//! far away takes two requests a segment and not all that is stored. [`Depth::Data`] reads every byte.
//!
//! **Side by side**: of a store that is far away, nodes that are needed soon, publications, windows and segments are asked for together,
//! as many as it answers at a time; what is found, and in which order, is the same.
//!
//! **Memory** grows with the number of inodes and of objects, some 100 bytes each, and holds one store segment and one
//! window index at a time; of a store that is far away 64 MiB of segments, or one, of publications as
//! much, and 40 MiB of nodes.

mod ahead;
mod deletions;
mod entries;
mod files;
mod generation;
mod leases;
mod links;
mod local;
mod maps;
mod nodes;
mod objects;
mod plans;
mod report;
mod segments;
mod settlement;
mod space;
mod tables;
mod tail;
mod windows;

pub use files::check_map;
pub(crate) use files::{COOKIE_FIRST, blocks_of, is_possible};
pub(crate) use links::kind_of;
pub use report::{Figures, Problem, Report};

use crate::format::checkpoint::{Birth, Checkpoint};
use crate::format::ids::{ObjectId, SegmentNo, Uuid};
use crate::format::manifest::Manifest;
use crate::format::names::SUPERBLOCK;
use crate::format::publication::{Position, WindowEntry};
use crate::journal::Replayed;
use crate::media::Media;
use crate::recovery::{MountError, Tail, superblock};
use crate::store::Store;
use maps::Maps;
pub(crate) use nodes::Nodes;
use objects::Objects;
use space::Space;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a check reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Everything but the bodies of store segments with file data: of these segments the header, the directory, the footer and the
    /// length. Neither the file data is read, nor the frames between (by which a mount of the store alone finds a body), nor the
    /// tables of objects.
    Metadata,
    /// Every byte.
    Data,
}

/// A step of a check.
pub struct Pass {
    /// Its name.
    pub id: &'static str,
    /// The passes whose success it leans on.
    pub needs: &'static [&'static str],
    /// What it looks at.
    pub does: &'static str,
    /// Says whether passes that need it may run.
    run: fn(&mut Check<'_>) -> bool,
}

/// All passes in the order in which they run.
pub const PASSES: &[Pass] = &[
    Pass { id: "superblock", needs: &[], does: "format version, features, UUID", run: check_superblock },
    Pass {
        id: "publications",
        needs: &["superblock"],
        does: "the newest generation: order, Lsns, checksums, every batch; node segments of its base",
        run: generation::check_publications,
    },
    Pass {
        id: "leases",
        needs: &["superblock"],
        does: "who uses the filesystem: the newest lease of each",
        run: leases::check_leases,
    },
    Pass { id: "manifest", needs: &["superblock"], does: "the state directory's manifest", run: local::check_manifest },
    Pass {
        id: "checkpoint",
        needs: &["manifest"],
        does: "the newest checkpoint: the state directory's, else the store's",
        run: local::check_checkpoint,
    },
    Pass {
        id: "journal",
        needs: &["checkpoint"],
        does: "every group of the journal, and replay without accepting it",
        run: local::check_journal,
    },
    Pass {
        id: "plans",
        needs: &["journal"],
        does: "windows that wait to be shipped: plan, changes, and every object in the journal",
        run: plans::check_plans,
    },
    Pass {
        id: "trees",
        needs: &["checkpoint"],
        does: "order and checksums of both trees, every byte of their node segments",
        run: maps::check_trees,
    },
    Pass {
        id: "tail",
        needs: &["trees", "journal"],
        does: "what log increments carry beyond the newest window, where the journal does not have it",
        run: tail::check_tail,
    },
    Pass { id: "space", needs: &["tail"], does: "the records of the space tree", run: space::check_space },
    Pass {
        id: "fence",
        needs: &["space"],
        does: "whether the state directory still owns the newest generation",
        run: generation::check_fence,
    },
    Pass {
        id: "files",
        needs: &["tail"],
        does: "every inode: attributes, names and cookies, contents, blocks; the usage of all",
        run: files::check_files,
    },
    Pass {
        id: "settlement",
        needs: &["space", "fence", "files"],
        does: "counts of shared objects and waiting deaths against all extents",
        run: settlement::check_settlement,
    },
    Pass {
        id: "windows",
        needs: &["settlement"],
        does: "window indexes, every live segment, its chunks if data is read, live bytes and objects against all extents",
        run: windows::check_windows,
    },
    Pass {
        id: "objects",
        needs: &["windows", "plans"],
        does: "every object that an extent names is somewhere, whole if data is read",
        run: objects::check_objects,
    },
    Pass {
        id: "deletions",
        needs: &["space", "fence"],
        does: "nothing in use is listed for deletion, live node segments, leftovers, high-water marks",
        run: deletions::check_deletions,
    },
];

/// Checks a store, with the state directory if there is one; a state directory without a manifest is none. `progress` is
/// told which pass runs and how far it has come: (pass, done, total); a total of 0 is unknown.
pub fn check(
    store: &Arc<dyn Store>,
    state: Option<Arc<dyn Media>>,
    depth: Depth,
    progress: &mut dyn FnMut(&'static str, u64, u64),
) -> Report {
    let nodes = Nodes::new(state.clone(), store.clone());
    let mut check = Check {
        store: store.clone(),
        state,
        depth,
        nodes,
        progress,
        pass: "",
        report: Report::default(),
        uuid: Uuid(0),
        counted: false,
        newest: None,
        manifest: None,
        checkpoint: None,
        replayed: None,
        remote_tail: Tail::default(),
        has_tail: false,
        tail: BTreeMap::new(),
        maps: Maps::default(),
        births: Vec::new(),
        space: Space::default(),
        listed: Vec::new(),
        objects: Objects::default(),
        inode_max: 0,
        whole: BTreeMap::new(),
        unsettled: BTreeSet::new(),
    };
    let mut usable: Vec<&str> = Vec::new();
    for pass in PASSES {
        if pass.needs.iter().all(|id| usable.contains(id)) {
            check.pass = pass.id;
            check.step(0, 0);
            if (pass.run)(&mut check) {
                usable.push(pass.id);
            }
        } else {
            check.report.skipped.push(pass.id);
        }
    }
    check.report
}

/// A check under way: what the passes learned so far.
struct Check<'a> {
    store: Arc<dyn Store>,
    state: Option<Arc<dyn Media>>,
    depth: Depth,
    nodes: Nodes,
    progress: &'a mut dyn FnMut(&'static str, u64, u64),
    pass: &'static str,
    report: Report,
    uuid: Uuid,
    /// Whether the map of files counts what it holds.
    counted: bool,
    /// The newest publication of the newest generation that has a base.
    newest: Option<Position>,
    /// Of the state directory, if there is one.
    manifest: Option<Manifest>,
    /// Where the maps start. Taken over from the store if there is no state directory.
    checkpoint: Option<Checkpoint>,
    /// What the state directory's journal holds.
    replayed: Option<Replayed>,
    /// What comes after the store's newest window, if there is no state directory.
    remote_tail: Tail,
    /// Something of it lies over the maps.
    has_tail: bool,
    /// Objects that come after the checkpoint and are not in the journal, with their lengths.
    tail: BTreeMap<ObjectId, u32>,
    maps: Maps,
    /// What the windows that wait to be shipped will hold.
    births: Vec<Birth>,
    space: Space,
    /// Windows that are in the store and that the space tree does not record yet.
    listed: Vec<WindowEntry>,
    objects: Objects,
    inode_max: u64,
    /// Node segments in the store of which every byte was read and is right, with how many these are.
    whole: BTreeMap<SegmentNo, u64>,
    /// Objects whose death is known and not yet in the records of their segments.
    unsettled: BTreeSet<ObjectId>,
}

impl Check<'_> {
    fn problem(&mut self, place: impl Into<String>, what: impl Into<String>) {
        self.report.add(Problem { pass: self.pass, place: place.into(), what: what.into() });
    }

    fn note(&mut self, what: String) {
        self.report.notes.push(what);
    }

    /// A problem that recovery would refuse to mount for.
    fn refused(&mut self, place: &str, error: MountError) {
        match error {
            MountError::Damaged { place, reason } => self.problem(place, reason),
            other => self.problem(place, other.to_string()),
        }
    }

    fn step(&mut self, done: u64, total: u64) {
        (self.progress)(self.pass, done, total);
    }

    /// Where the maps start; passes that need it run after it was found.
    fn checkpoint(&self) -> &Checkpoint {
        self.checkpoint.as_ref().expect("the pass `checkpoint` came before")
    }
}

fn check_superblock(check: &mut Check<'_>) -> bool {
    match superblock(&*check.store) {
        Ok(superblock) => {
            check.uuid = superblock.uuid;
            check.counted = superblock.usage;
            true
        }
        Err(e) => {
            check.refused(SUPERBLOCK, e);
            false
        }
    }
}
