//! What a run exercised: printed, and a zero of any fails it.

use crate::world::Instance;
use std::fmt;

macro_rules! figures {
    ($($field:ident: $text:literal,)*) => {
        /// Counts of everything that must have happened.
        #[derive(Clone, Debug, Default)]
        pub struct Figures { $(pub $field: u64,)* }

        impl std::ops::AddAssign<&Figures> for Figures {
            fn add_assign(&mut self, other: &Figures) {
                $(self.$field += other.$field;)*
            }
        }

        impl Figures {
            /// Each with its name.
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$(($text, self.$field),)*]
            }
        }
    };
}

figures! {
    histories: "histories",
    operations: "operations",
    syncs: "syncs",
    stored_asked: "syncs that waited for the store",
    stored: "of these, answered",
    logs: "log increments",
    switches: "policy switches",
    durabilities: "durability switches",
    overtook: "operations that overtook others",
    warmed: "objects brought into the cache by hand",
    dropped: "objects dropped from it by hand",
    unmounts: "unmounts",
    kills: "processes killed",
    cuts: "power cuts",
    repairs: "repairs",
    mended: "of these, of something damaged",
    repair_calls: "calls of repairs crashed",
    again: "repairs of what an interrupted one left",
    mounts: "mounts",
    takeovers: "takeovers",
    folds: "trees made of changes before a takeover had read all",
    offline: "mounts without the store",
    fenced: "fenced machines refused",
    checkpoints: "checkpoints",
    windows: "windows shipped",
    bases: "bases",
    reclaims: "reclaims",
    recycled: "recycled segments",
    deleted: "store objects deleted",
    calls: "calls crashed",
    judged: "states judged",
    recoveries: "recoveries",
    recovery_calls: "calls of recoveries crashed",
    deeper_calls: "of these, of recoveries from a crash of one",
    takeover_calls: "calls of takeovers crashed",
    drained: "states drained and audited",
    bytes_lost: "dirty bytes lost",
    names_lost: "names lost",
    faults: "calls to the store made to fail",
    late_puts: "late puts landed",
    cache_hits: "reads from cache files",
    evicted: "cache files evicted",
    damaged: "cache files found damaged",
    copies: "times that copies of nodes went",
}

impl Figures {
    /// Adds what a mount did.
    pub fn add(&mut self, instance: &Instance) {
        let figures = instance.mounted.checkpointer.figures();
        let figures = figures.lock();
        self.checkpoints += figures.checkpoints;
        self.windows += figures.windows_shipped;
        self.deleted += figures.objects_deleted;
        self.recycled += instance.mounted.db.journal().stats().recycled;
        self.bases += instance.bases;
        self.folds += instance.mounted.taken_over.map_or(0, |taken| taken.folds);
        let synced = instance.mounted.syncer.stored().figures();
        self.stored += synced.answered;
        self.logs += synced.increments;
        self.add_cache(instance);
    }

    /// Adds what its cache files did.
    pub fn add_cache(&mut self, instance: &Instance) {
        let Some(keeper) = &instance.mounted.keeper else { return };
        let stats = keeper.cache().stats();
        self.cache_hits += stats.hits;
        self.evicted += stats.evicted;
        self.damaged += stats.damaged;
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in self.named() {
            writeln!(f, "{count:>10} {name}")?;
        }
        Ok(())
    }
}
