//! What the disk of cache files may hold at each moment of a history. Its calls are in a log of their own: no promise
//! hangs on them, so a crash is not tried after each, but every crash of the others finds some state of it.

use skylog::media::sim::{Call, CallLog, Image, Limits, Plan, Platter, SimDisk};
use std::sync::Arc;

/// States of the disk at one moment that a crash may find.
const PLANS_MAX: u64 = 12;

/// Remembers how far a disk of cache files had come when.
pub struct Cached {
    disk: SimDisk,
    /// The log of the history.
    log: Arc<CallLog>,
    /// Calls of the history, and calls of this disk.
    moments: Vec<(usize, usize)>,
}

impl Cached {
    /// For a disk with a log of its own, beside the log of a history.
    pub fn new(disk: &SimDisk, log: &Arc<CallLog>) -> Cached {
        let mut cached = Cached { disk: disk.clone(), log: log.clone(), moments: vec![(0, 0)] };
        cached.look();
        cached
    }

    /// Notes what was done to the disk. Late is not wrong: nothing there is synced, so it may look as it did before.
    pub fn look(&mut self) {
        let calls = self.disk.log().len();
        if self.moments.last().is_some_and(|(_, before)| *before < calls) {
            self.moments.push((self.log.len(), calls));
        }
    }

    /// The states from the first moment on.
    pub fn walk(&self) -> Walk<'_> {
        Walk { cached: self, calls: self.disk.log().calls(), platter: Platter::new(self.disk.start()), applied: 0 }
    }
}

/// The states of a disk of cache files, moment after moment.
pub struct Walk<'a> {
    cached: &'a Cached,
    calls: Vec<Call>,
    platter: Platter,
    applied: usize,
}

impl Walk<'_> {
    /// On to the moment after so many calls of the history, which is not before the last one.
    pub fn go_to(&mut self, after: usize) {
        let moments = &self.cached.moments;
        let index = moments.partition_point(|(at, _)| *at <= after).saturating_sub(1);
        let upto = moments[index].1;
        for call in &self.calls[self.applied.min(upto)..upto] {
            if let Call::Disk(_, call) = call {
                self.platter.apply(call);
            }
        }
        self.applied = self.applied.max(upto);
    }

    /// What a machine finds there after a crash: a new disk, all of it, or what was kept, lost and torn.
    pub fn image(&self, seed: u64) -> Image {
        let limits = Limits { subsets_up_to: 4, tears_max: 4, random: 24, plans_max: PLANS_MAX as usize, seed };
        let whole = || {
            let mut states = self.platter.crashes(&limits, seed);
            states.find(|state| state.plan == Plan::Everything).map(|state| state.image)
        };
        match seed % 4 {
            0 => Image::default(),
            1 => whole().unwrap_or_else(|| self.platter.durable()),
            _ => {
                let index = usize::try_from(seed / 4 % PLANS_MAX).expect("few");
                let state = self.platter.crashes(&limits, seed).nth(index).map(|state| state.image);
                state.unwrap_or_else(|| self.platter.durable())
            }
        }
    }
}
