//! What a run exercised: printed, and a zero of any fails it.

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
    histories: "histories of several writers",
    operations: "operations",
    switches: "times that a machine was stopped in a call",
    pauses: "long pauses in a call",
    kills: "processes killed",
    cuts: "power cuts",
    wipes: "disks wiped",
    copies: "disks put back to an earlier copy",
    closes: "clean ends",
    restarts: "mounts from local state",
    takeovers: "mounts from the store alone",
    races: "times that several took over at once",
    fenced: "writers that found themselves fenced",
    refused_fenced: "mounts refused: taken over from",
    refused_old: "mounts refused: an old copy",
    interrupted: "mounts that trouble ended",
    refused: "calls refused",
    lost: "answers lost",
    repeated: "calls tried again by the client",
    adrift: "calls adrift",
    landed: "late calls landed",
    landed_numbers: "late numbered objects landed",
    outages: "outages",
    published: "publications",
    logs: "log increments among them",
    strays: "closing objects too late to win",
    closings: "closing objects",
    asked: "fsyncs",
    acknowledged: "fsyncs acknowledged by the store",
    stored: "of these, by log increments or their like",
    unanswered: "fsyncs that were never answered",
    unshipped: "operations that a takeover left behind",
    looks: "looks from the store alone",
    follows: "mounts of a follower",
    advanced: "times that it went on to a newer state",
    followed: "states read by it",
    held: "states read again that it held",
    leases_lost: "of these, lost with its lease",
    numbers: "inode numbers compared",
    deleted: "store objects deleted",
    checks: "checks",
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in self.named() {
            writeln!(f, "{count:>10} {name}")?;
        }
        Ok(())
    }
}
