//! Rules that a test build can take away one at a time, to prove that the simulator sees each of them missing. Without
//! the feature `canaries` every rule holds and nothing of this is left in the program.

/// A rule that can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// A journal segment is synced before its batches are called durable.
    SegmentSync,
    /// The folder of the manifest is synced after the manifest was renamed into place.
    ManifestDirSync,
    /// What recovery accepted of the journal is synced before the first new operation.
    TailSync,
    /// Every mount marks its groups with a nonce of its own.
    Nonce,
    /// Store segments are durable before the index of a window names them.
    SegmentsBeforeIndex,
    /// A window is shipped, and recorded by a durable batch, before the journal it covers is reclaimed. Without it a
    /// checkpoint is enough. (That the batch is durable cannot be taken away alone and be seen: one that is logged and not
    /// durable is no danger as long as the publication it records is found again.)
    WindowBeforeReclaim,
    /// A checkpoint's Lsn is durable before the checkpoint may be a root.
    DurableBeforeCheckpoint,
    /// A published increment lists a store object as pending deletion before it is deleted.
    PendingBeforeDelete,
    /// No follower may read a state in which a store object lived before it is deleted.
    LeaseBeforeDelete,
    /// A mount whose store was away finds out what is published, and whether it is still the writer, before it ships.
    ResumeBeforeJobs,
    /// What a takeover found in log increments is durable beside its checkpoint before the manifest names that.
    TailFileSync,
    /// What a cache file gives back is verified before it is used.
    CopyVerified,
    /// What a log increment carries is durable in the journal before it is sent.
    LogAfterDurable,
    /// An fsync is answered only when the store has said that it has what it covers.
    AnswerAfterStore,
    /// A new generation starts with what log increments of the one before carried.
    BaseCarriesTail,
    /// A number of a generation is created only if there is none.
    NumbersOnce,
    /// Who finds another's object at the number it wants has lost.
    OthersFence,
    /// What is found at a number is compared with what was to be put there.
    AnswerReadBack,
    /// A walk that ends at a gap looks whether a later generation is there.
    LookBehindGap,
    /// A walk asks for each number; what is listed does not count.
    WalkAsks,
    /// Number 0 of a generation is never deleted,
    FirstNumberStays,
    /// nor is the number before its closing object,
    LastNumberStays,
    /// nor the closing object.
    ClosingStays,
}

/// Whether the rule is taken away on this thread.
#[cfg(not(feature = "canaries"))]
pub const fn removed(_rule: Canary) -> bool {
    false
}

#[cfg(feature = "canaries")]
pub use switch::{removed, with_removed};

#[cfg(feature = "canaries")]
mod switch {
    use super::Canary;
    use std::cell::Cell;

    thread_local! {
        static REMOVED: Cell<Option<Canary>> = const { Cell::new(None) };
    }

    /// Whether the rule is taken away on this thread.
    pub fn removed(rule: Canary) -> bool {
        REMOVED.get() == Some(rule)
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
