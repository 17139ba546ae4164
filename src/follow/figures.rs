//! What is told of a follower.

use crate::format::ids::Lsn;
use crate::format::publication::Position;
use crate::map::Seen;
use std::time::Duration;

/// What is told of a follower.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The newest publication that it has read.
    pub position: Position,
    /// The checkpoint that was published with it.
    pub checkpoint: u64,
    /// The newest batch.
    pub last: Lsn,
    /// When that publication was written: nanoseconds since 1970, by the writer's clock.
    pub wall: i64,
    /// When the store last said that there is nothing newer, by [`crate::base::clock::Clock::elapsed`].
    pub current_at: Duration,
    /// Publications read after the first state.
    pub publications: u64,
    /// How often the newest generation was opened anew.
    pub reopened: u64,
    /// Leases that were lost.
    pub leases_lost: u64,
    /// Layers of the newest state.
    pub layers: usize,
    /// Bytes of its layers, and of objects that came whole.
    pub bytes: u64,
    /// Windows known.
    pub windows: usize,
    /// Why it does not go on, if it does not.
    pub error: Option<String>,
}

impl Figures {
    pub(super) fn new(seen: &Seen, now: Duration) -> Figures {
        let mut figures = Figures {
            position: seen.position,
            checkpoint: 0,
            last: Lsn::ZERO,
            wall: 0,
            current_at: now,
            publications: 0,
            reopened: 0,
            leases_lost: 0,
            layers: 0,
            bytes: 0,
            windows: 0,
            error: None,
        };
        figures.show(seen);
        figures
    }

    pub(super) fn show(&mut self, seen: &Seen) {
        self.position = seen.position;
        self.checkpoint = seen.checkpoint;
        self.last = seen.last;
        self.wall = seen.wall;
        self.layers = seen.layers.len();
        self.bytes = seen.bytes();
    }
}
