//! Every state in which a crash may leave one machine's disk and the store, after each call of a run.
//!
//! The states of one moment are distinct. Those of different moments need not be, and that matters: the same bytes may
//! be right before a promise was made and wrong after it. Whoever judges them may keep what recovery finds by
//! [`Crash::hash`], and must compare it with what was promised each time.

use super::{SimStore, StoreImage};
use crate::media::sim::{Blob, Call, DiskNo, Image, Limits, Plan, Platter, SimDisk, StoreCall, hash_of, mix};
use std::ops::RangeInclusive;

/// A run: how a disk and the store were at its start, and all that changed them.
pub struct Recording {
    disk: Image,
    number: DiskNo,
    store: StoreImage,
    calls: Vec<Call>,
}

impl Recording {
    /// What happened up to now.
    ///
    /// # Panics
    /// When disk and store do not share a log: there would be no order between their calls.
    pub fn of(disk: &SimDisk, store: &SimStore) -> Recording {
        assert!(std::sync::Arc::ptr_eq(disk.log(), store.log()), "one log");
        Recording {
            disk: disk.start().clone(),
            number: disk.number(),
            store: store.start().clone(),
            calls: disk.log().calls(),
        }
    }

    /// All calls in order.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// The test's own notes among the first `after` calls.
    pub fn marks(&self, after: usize) -> impl Iterator<Item = u64> + '_ {
        self.calls[..after].iter().filter_map(|call| match call {
            Call::Mark(note) => Some(*note),
            _ => None,
        })
    }

    /// Every state a crash may leave, at every moment.
    pub fn crashes(&self, limits: &Limits) -> Crashes<'_> {
        self.crashes_between(limits, 0..=self.calls.len())
    }

    /// The same for a part of the run, so that several threads may share the work. A moment is the number of calls
    /// that were made before it.
    pub fn crashes_between(&self, limits: &Limits, moments: RangeInclusive<usize>) -> Crashes<'_> {
        let mut crashes = Crashes {
            recording: self,
            limits: limits.clone(),
            platter: Platter::new(&self.disk),
            store: self.store.clone(),
            adrift: Vec::new(),
            after: 0,
            last: *moments.end(),
            ready: Vec::new().into_iter(),
            done: moments.is_empty(),
        };
        while !crashes.done && crashes.after < *moments.start() {
            crashes.step();
        }
        crashes.prepare();
        crashes
    }
}

/// What is left after a crash.
#[derive(Clone, Debug)]
pub struct Crash {
    /// How many calls of the run were made before it.
    pub after: usize,
    /// The disk.
    pub disk: Image,
    /// The store.
    pub store: StoreImage,
    /// A call of the dead process that is still on its way; to be given to [`SimStore::land`] when the next one runs.
    pub late: Option<StoreCall>,
    /// A hash of all of these but `after`.
    pub hash: u128,
    /// Bytes written and not kept.
    pub bytes_lost: u64,
    /// Changes of names not kept.
    pub names_lost: u64,
    /// Which changes of the disk were kept.
    pub plan: Plan,
}

/// The states of a run's crashes, from its start to its end.
pub struct Crashes<'a> {
    recording: &'a Recording,
    limits: Limits,
    platter: Platter,
    store: StoreImage,
    /// Calls that failed for their caller and may yet land.
    adrift: Vec<StoreCall>,
    after: usize,
    last: usize,
    ready: std::vec::IntoIter<Crash>,
    done: bool,
}

impl Iterator for Crashes<'_> {
    type Item = Crash;

    fn next(&mut self) -> Option<Crash> {
        loop {
            if let Some(crash) = self.ready.next() {
                return Some(crash);
            }
            if self.done || self.after >= self.last {
                return None;
            }
            self.step();
            self.prepare();
        }
    }
}

impl Crashes<'_> {
    /// The next call of the run.
    fn step(&mut self) {
        let Some(call) = self.recording.calls.get(self.after) else {
            self.done = true;
            return;
        };
        self.after += 1;
        match call {
            Call::Disk(number, call) if *number == self.recording.number => self.platter.apply(call),
            Call::Store(call) => {
                self.store.apply(call);
            }
            Call::Landed(call) => {
                self.store.apply(call);
                let landed = self.adrift.iter().position(|sent| sent == call).expect("it was adrift");
                self.adrift.remove(landed);
            }
            Call::Adrift(call) => self.adrift.push(call.clone()),
            Call::Disk(..) | Call::Mark(_) => {}
        }
    }

    fn prepare(&mut self) {
        if self.done {
            return;
        }
        let point = self.after as u64;
        let mut ready: Vec<Crash> = self.states(&self.store, None, &self.limits).collect();
        let in_flight = match self.recording.calls.get(self.after) {
            Some(Call::Store(call)) => Some(call),
            _ => None,
        };
        // How the disk is has little to do with what lands late: a few of its states will do.
        let few = Limits { plans_max: 8, seed: self.limits.seed ^ point, ..self.limits.clone() };
        for call in in_flight.into_iter().chain(&self.adrift) {
            ready.extend(self.states(&self.store, Some(call), &few));
        }
        for call in &self.adrift {
            let mut landed = self.store.clone();
            if landed.apply(call) {
                ready.extend(self.states(&landed, None, &few));
            }
        }
        self.ready = ready.into_iter();
    }

    fn states<'b>(
        &'b self,
        store: &'b StoreImage,
        late: Option<&'b StoreCall>,
        limits: &Limits,
    ) -> impl Iterator<Item = Crash> + use<'b> {
        let beside = mix(store.hash(), 4).wrapping_add(late.map_or(0, hash_of_call));
        self.platter.crashes(limits, self.after as u64).map(move |crashed| Crash {
            after: self.after,
            hash: mix(crashed.image.hash(), 5).wrapping_add(beside),
            disk: crashed.image,
            store: store.clone(),
            late: late.cloned(),
            bytes_lost: crashed.bytes_lost,
            names_lost: crashed.names_lost,
            plan: crashed.plan,
        })
    }
}

fn hash_of_call(call: &StoreCall) -> u128 {
    let with = |name: &str, blob: &Blob, kind| mix(hash_of(name.as_bytes()) ^ blob.hash, kind);
    match call {
        StoreCall::Put { name, blob } => with(name, blob, 6),
        StoreCall::Create { name, blob } => with(name, blob, 7),
        StoreCall::Delete { name } => mix(hash_of(name.as_bytes()), 8),
    }
}
