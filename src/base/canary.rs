//! Rules that a test build can take away one at a time, to prove that some ring of tests sees each of them missing: every
//! sync, every barrier, every checksum that is compared, every rule of order that is a switch. `scripts/canaries` does so. Without
//! the feature `canaries` every rule holds and nothing of this is left in the program.
//!
//! A sync that is told by the file it is for is ignored by the simulated disk (`media/sim/deaf.rs`); where one file is synced for
//! several reasons, the switch is at the call. A checksum is not compared by its decoder.

/// What kind of rule it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something is durable before something else happens.
    Sync,
    /// One thing is done before another, or not at all.
    Order,
    /// A checksum is compared.
    Checksum,
}

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $kind:ident $name:ident: $protects:literal,)+) => {
        /// A rule that can be taken away.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Canary {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Canary {
            /// All rules.
            pub const ALL: &[Canary] = &[$(Canary::$name),+];

            /// What kind it is.
            pub const fn kind(self) -> Kind {
                match self {
                    $(Canary::$name => Kind::$kind,)+
                }
            }

            /// The rule in words.
            pub const fn says(self) -> &'static str {
                match self {
                    $(Canary::$name => concat!($($doc),+),)+
                }
            }

            /// What is lost without it.
            pub const fn protects(self) -> &'static str {
                match self {
                    $(Canary::$name => $protects,)+
                }
            }
        }
    };
}

rules! {
    // The journal.
    /// A journal segment is synced before its batches are called durable.
    Sync SegmentSync: "every fsync that was acknowledged",
    /// A full journal segment is synced before the next one is written.
    Sync SealSync: "that the log has no hole between two segments",
    /// The zeros and the length of a new journal slot are durable before the manifest names it.
    Sync SlotSync: "that a slot which the manifest names has its length and no old bytes",
    /// The name of a new journal slot is durable before the manifest names it.
    Sync SlotDirSync: "that a slot which the manifest names is there",
    /// The journal's folder is durable before the manifest names what is in it.
    Sync JournalDirSync: "that the slots of the first mount are there",
    /// What recovery accepted of the journal is synced before the first new operation.
    Sync TailSync: "what a mount has shown, and the batches that build on it",
    /// A failed write or sync of the journal ends all writing; nothing is tried again.
    Order LatchOnFailure: "that no later success hides pages that the disk has lost",
    /// From the latch on no sync succeeds, also of what is durable.
    Order NoSyncAfterLatch: "that whoever lost the fence promises nothing",
    /// Every mount marks its groups with a nonce of its own.
    Order Nonce: "that groups of an earlier life are never replayed",
    /// A hole before a group that says it was durable is damage, and not the end of the log.
    Order TailRule: "acknowledged batches behind a damaged one",
    /// A segment ends where the manifest says.
    Order RecordedEnd: "batches of a journal that was closed or mounted over",
    /// The journal reaches the checkpoint.
    Order JournalReachesCheckpoint: "that Lsns are not given twice",
    /// A mount after a writer that died forgets what is cached of its slots.
    Order ForgetCached: "that replay sees what the disk has",
    // The manifest.
    /// A new manifest is synced before it is renamed into place.
    Sync ManifestSync: "that there is a manifest, whole",
    /// The folder of the manifest is synced after the manifest was renamed into place.
    Sync ManifestDirSync: "what is removed and overwritten because the new manifest says so",
    /// When it is unknown which manifest the disk will show, none is written any more.
    Order ManifestLatch: "the files that the other one of the two names",
    /// The folders of the state directory are durable before anything is put into them.
    Sync StateFoldersSync: "that nodes and checkpoints of the first mount are there",
    /// A withdrawn manifest has its other name durably before a slot goes.
    Sync WithdrawnSync: "that an emptied state directory does not read as one that lost its journal",
    /// The slots of a withdrawn journal are gone durably before the name that allows that goes.
    Sync WithdrawnSlotsSync: "that a rest of a journal does not read as one that lost its manifest",
    // Checkpoints.
    /// A node segment is synced before the manifest names the checkpoint that reaches it.
    Sync NodeSync: "the trees of a checkpoint",
    /// The name of a node segment is durable before the manifest names the checkpoint that reaches it.
    Sync NodeDirSync: "the trees of a checkpoint",
    /// The record of a checkpoint is synced before the manifest names it.
    Sync CheckpointSync: "roots and Lsn of a checkpoint",
    /// The plan of a window is synced before the manifest names it.
    Sync PlanSync: "which objects a window ships",
    /// The changes of a window are synced before the manifest names them.
    Sync EditsSync: "what an increment replays",
    /// The names of a checkpoint's files are durable before the manifest names it.
    Sync CheckpointDirSync: "the files of a checkpoint",
    /// What a takeover found in log increments is synced beside its checkpoint before the manifest names that.
    Sync TailFileSync: "what was promised to fsyncs that waited for the store",
    /// A checkpoint's Lsn is durable before the checkpoint may be a root.
    Order DurableBeforeCheckpoint: "that no file comes from the future of the log",
    /// A node file is a copy, and may go, only when a published base has its segment.
    Order CopyAfterBase: "nodes that this machine alone has",
    // Cache files.
    /// What the files of another filesystem left is gone durably before the cache gets a new owner.
    Sync CacheEmptiedSync: "that no file of another filesystem is read",
    /// The name of a cache's owner is synced.
    Sync CacheOwnerSync: "that a mount finds its cache files again",
    /// The file with that name is durable.
    Sync CacheOwnerDirSync: "that a mount finds its cache files again",
    /// What a cache file gives back is verified before it is used.
    Checksum CopyVerified: "reads from torn, stale or flipped cache files",
    // Shipping.
    /// The numbers of planned segments are in a durable batch before the first byte goes to the store.
    Order PlannedBeforeShipped: "that no number is used twice, and nothing is left in the store that nobody lists",
    /// Store segments are durable before the index of a window names them.
    Order SegmentsBeforeIndex: "the data of a window",
    /// The index of a window is durable before a publication lists the window.
    Order IndexBeforePublication: "where the objects of a window are",
    /// The node segments of a base are durable before the base is published.
    Order NodesBeforeBase: "the trees of a base",
    /// A window is shipped, and recorded by a durable batch, before the journal it covers is reclaimed. Without it a
    /// checkpoint is enough. (That the batch is durable cannot be taken away alone and be seen: one that is logged and not
    /// durable is no danger as long as the publication it records is found again.)
    Order WindowBeforeReclaim: "data that is in the journal alone",
    /// A published increment lists a store object as pending deletion before it is deleted.
    Order PendingBeforeDelete: "objects that the newest published state still reads",
    /// No follower may read a state in which a store object lived before it is deleted.
    Order LeaseBeforeDelete: "what followers read",
    /// A mount whose store was away finds out what is published, and whether it is still the writer, before it ships.
    Order ResumeBeforeJobs: "what another machine published meanwhile",
    /// What a log increment carries is durable in the journal before it is sent.
    Order LogAfterDurable: "that no Lsn is given twice",
    /// An fsync is answered only when the store has said that it has what it covers.
    Order AnswerAfterStore: "fsyncs that wait for the store",
    /// A new generation starts with what log increments of the one before carried.
    Order BaseCarriesTail: "fsyncs that waited for the store",
    // The fence.
    /// A number of a generation is created only if there is none.
    Order NumbersOnce: "publications of others",
    /// Who finds another's object at the number it wants has lost.
    Order OthersFence: "that there is one writer",
    /// What is found at a number is compared with what was to be put there.
    Order AnswerReadBack: "that a lost answer is not taken for another writer, nor another writer for it",
    /// A walk that ends at a gap looks whether a later generation is there.
    Order LookBehindGap: "publications of the newest generation",
    /// A walk asks for each number; what is listed does not count.
    Order WalkAsks: "publications that a list does not show yet",
    /// Number 0 of a generation is never deleted.
    Order FirstNumberStays: "that a walk finds the newest generation",
    /// The number before a closing object is never deleted.
    Order LastNumberStays: "that a writer that was slow cannot fill a hole",
    /// A closing object is never deleted.
    Order ClosingStays: "that a writer that was slow cannot go on",
    // Repair.
    /// The note of a repair is synced before anything else is written.
    Sync RepairNoteSync: "what the state directory alone has, when a repair is interrupted",
    /// The name of that note is durable before anything else is written.
    Sync RepairNoteDirSync: "what the state directory alone has, when a repair is interrupted",
    /// A mount starts from no state directory that has the note of a repair.
    Order MountHeedsRepair: "what an interrupted repair goes on from",
    /// A repair that was interrupted is done again also where nothing is left to mend.
    Order RepairDoneAgain: "a filesystem of which an interrupted repair has ended the generation, later than anybody expects",
    /// A damaged superblock is copied before it is written again.
    Order CopyBeforeSuperblock: "the original of a damaged superblock",
    /// Damaged store objects are copied before the base of a repair is published.
    Order CopiesBeforeBase: "the originals of what a repair goes around",
    /// A repair wins the numbers at which others may publish before it publishes.
    Order FenceBeforeRepair: "that a writer that was paused does not go on beside a repaired filesystem",
    /// Segments that a repair makes are in the store before its base is published.
    Order RepairSegmentsBeforeBase: "data that only a journal or a log increment has",
    /// Window indexes that a repair makes are in the store before its base is published.
    Order RepairIndexesBeforeBase: "where the objects of a repaired filesystem are",
    /// The trees of a repair are in the store before its base is published.
    Order RepairNodesBeforeBase: "the trees of a repaired filesystem",
    /// Nothing of a state directory moves aside before the base of its repair is published.
    Order BaseBeforeAside: "what the state directory alone has, when a repair is interrupted",
    /// The folders for what moves aside are durable before anything moves there.
    Sync AsideMadeSync: "what is moved there",
    /// What moved aside is durable there before the note of the repair goes.
    Sync AsideSync: "that the state directory of a repaired filesystem can be mounted",
    /// That something moved away is durable before the note of the repair goes.
    Sync AsideFromSync: "that the state directory of a repaired filesystem can be mounted",
    /// A journal moves aside after everything else but the manifest.
    Order JournalMovesLate: "the other files of a state directory without a manifest, when moving them is interrupted",
    /// The manifest moves aside after everything else.
    Order ManifestMovesLast: "the other files of a state directory whose manifest is damaged, when moving them is interrupted",
    /// The note of a repair goes when all has moved aside.
    Order NoteGoesLast: "that the state directory of a repaired filesystem can be mounted",
    /// That the note is gone is durable before a repair says that it is done.
    Sync NoteGoneSync: "that a repaired filesystem can be mounted",

    // Real disks.
    /// A sync of a file of the state directory reaches the disk.
    Sync LocalSync: "everything that is called durable here",
    /// A sync of a folder of the state directory reaches the disk.
    Sync LocalDirSync: "names that are called durable here",
    /// An object is synced, with its name, before a store in a folder says that it has it.
    Sync FolderPutSync: "everything that is called shipped",
    /// The folders of an object are durable before it is put into them.
    Sync FolderMadeSync: "objects in folders that this process has made",
    /// The name of an object that is linked is synced before a store in a folder says that it has it.
    Sync FolderLinkSync: "node segments of a base",
    /// An object that is there already is synced before its finder goes on from it.
    Sync FolderExistsSync: "publications of somebody who died just then",
    /// That an object is gone is durable before its deletion is recorded.
    Sync FolderDeleteSync: "that nothing stays in the store that nobody lists",
    /// The folder of a new store is durable.
    Sync StoreMadeSync: "a new store",
    // Checksums of local state.
    /// The manifest.
    Checksum ManifestCrc: "where the journal and the checkpoint are",
    /// A group of the journal.
    Checksum GroupCrc: "batches that are replayed",
    /// The footer of a journal segment.
    Checksum JournalFooterCrc: "where an old segment ends",
    /// A block of a journal segment's directory.
    Checksum JournalDirectoryCrc: "where the objects of a segment are",
    /// An object that is read from the journal.
    Checksum JournalObjectCrc: "data that was not shipped yet",
    /// The record of a checkpoint.
    Checksum CheckpointCrc: "roots and Lsn",
    /// The header of a plan.
    Checksum PlanCrc: "what a window ships",
    /// A block of a plan.
    Checksum PlanBlockCrc: "what a window ships",
    /// The file that says which store a state directory belongs to.
    Checksum StoreFileCrc: "that a state directory is not used with another store",
    /// The note of a repair that is under way.
    Checksum RepairFileCrc: "which repair is gone on with",
    // Checksums of the store.
    /// The superblock.
    Checksum SuperblockCrc: "format version, identity and sizes",
    /// A publication.
    Checksum PublicationCrc: "roots, windows and changes of what is published",
    /// The head of a batch, in the journal, in increments and in the changes of a window.
    Checksum BatchCrc: "edits",
    /// An object in a batch of a log increment.
    Checksum PayloadCrc: "data that log increments carry",
    /// The header of a window index.
    Checksum WindowCrc: "which segments a window has",
    /// A block of a window index.
    Checksum WindowBlockCrc: "where the objects of a window are",
    /// A node of a tree.
    Checksum NodeCrc: "every tree",
    /// A chunk of file data.
    Checksum ChunkCrc: "file data",
    /// The header of a store segment.
    Checksum SegmentCrc: "which segment it is",
    /// The frame before a body in a store segment.
    Checksum FrameCrc: "where bodies are when an index is lost",
    /// The directory of a store segment.
    Checksum SegmentDirectoryCrc: "where bodies are when an index is lost",
    /// The footer of a store segment.
    Checksum SegmentFooterCrc: "where its directory is",
    /// A table of objects in a store segment.
    Checksum ObjectTableCrc: "which objects a segment has when its index is lost",
    /// A lease, or a hold.
    Checksum LeaseCrc: "what a follower may read, and who holds the filesystem",
}

/// Runs a sync unless its rule is taken away.
pub fn sync<E>(rule: Canary, sync: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    if removed(rule) { Ok(()) } else { sync() }
}

/// Whether the rule is taken away on this thread.
#[cfg(not(feature = "canaries"))]
pub const fn removed(_rule: Canary) -> bool {
    false
}

#[cfg(feature = "canaries")]
pub use switch::{removed, times_missed, with_removed};

#[cfg(feature = "canaries")]
mod switch {
    use super::Canary;
    use std::cell::Cell;

    thread_local! {
        static REMOVED: Cell<Option<Canary>> = const { Cell::new(None) };
        static MISSED: Cell<u64> = const { Cell::new(0) };
    }

    /// Whether the rule is taken away on this thread.
    pub fn removed(rule: Canary) -> bool {
        let removed = REMOVED.get() == Some(rule);
        MISSED.set(MISSED.get() + u64::from(removed));
        removed
    }

    /// How often a rule that is taken away was asked for on this thread: one that nobody came to asks nothing of a test.
    pub fn times_missed() -> u64 {
        MISSED.get()
    }

    /// Runs `run` on this thread without `rule`.
    pub fn with_removed<T>(rule: Canary, run: impl FnOnce() -> T) -> T {
        struct Restore(Option<Canary>);
        impl Drop for Restore {
            fn drop(&mut self) {
                REMOVED.set(self.0);
            }
        }
        let _restore = Restore(REMOVED.replace(Some(rule)));
        run()
    }
}
