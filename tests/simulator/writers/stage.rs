//! What all machines of a history share: the store, the clock, the dice, the truth about who wrote what.

use super::figures::Figures;
use super::truth::{LifeNo, Truth};
use super::turns::Turns;
use super::wire::Sent;
use parking_lot::Mutex;
use skylog::base::clock::SimClock;
use skylog::base::random::{Random, SeededRandom};
use skylog::media::sim::StoreCall;
use skylog::recovery::Tuning;
use skylog::store::sim::SimStore;
use skylog::store::{Created, Store};
use std::sync::Arc;

/// One in so many; 0 for never.
#[derive(Clone, Copy, Debug)]
pub struct OneIn(pub u64);

impl OneIn {
    pub fn comes(self, random: &SeededRandom) -> bool {
        self.0 > 0 && random.below(self.0) == 0
    }
}

/// How much goes wrong in a history.
#[derive(Clone, Copy, Debug)]
pub struct Odds {
    /// A machine is stopped in a call to the store.
    pub pause: OneIn,
    /// A call fails.
    pub fault: OneIn,
}

/// What all share.
pub struct Stage {
    pub turns: Turns,
    pub store: SimStore,
    pub clock: Arc<SimClock>,
    pub random: SeededRandom,
    pub tuning: Tuning,
    pub odds: Odds,
    pub truth: Mutex<Truth>,
    adrift: Mutex<Vec<Sent>>,
    figures: Mutex<Figures>,
    /// One history is looked at: what happens is printed.
    loud: bool,
}

impl Stage {
    /// A stage with a new filesystem in the store.
    pub fn new(machines: usize, random: SeededRandom, tuning: Tuning, odds: Odds, store: SimStore) -> Stage {
        Stage {
            turns: Turns::new(machines),
            truth: Mutex::new(Truth::new(&store)),
            store,
            clock: Arc::new(SimClock::default()),
            random,
            tuning,
            odds,
            adrift: Mutex::default(),
            figures: Mutex::default(),
            loud: crate::env("SKYLOG_SIM_WRITERS") == Some(1),
        }
    }

    pub fn below(&self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).expect("few")
    }

    pub fn one_in(&self, n: u64) -> bool {
        self.random.below(n) == 0
    }

    pub fn seed(&self) -> u64 {
        self.random.u64()
    }

    /// Prints what happens, if one history is looked at.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.loud {
            println!("{}", what());
        }
    }

    pub fn count(&self, add: impl FnOnce(&mut Figures)) {
        add(&mut self.figures.lock());
    }

    pub fn figures(&self) -> Figures {
        self.figures.lock().clone()
    }

    /// A call is on its way.
    pub fn send(&self, sent: Sent) {
        self.adrift.lock().push(sent);
    }

    /// One of the calls on their way arrives; `false` if there is none. Some arrive more than once.
    pub fn land(&self) -> bool {
        let sent = {
            let mut adrift = self.adrift.lock();
            if adrift.is_empty() {
                return false;
            }
            let at = self.below(adrift.len());
            if self.one_in(6) { adrift[at].clone() } else { adrift.swap_remove(at) }
        };
        self.tell(|| "late:".to_owned());
        let changed = self.arrive(sent.life, &sent.call, true);
        let numbered = matches!(&sent.call, StoreCall::Create { name, .. } if name.starts_with("gen/"));
        self.count(|figures| {
            figures.landed += 1;
            figures.landed_numbers += u64::from(numbered && changed);
        });
        true
    }

    /// Forgets what is on its way, now and then: it never arrives.
    pub fn lose_adrift(&self) {
        self.adrift.lock().clear();
    }

    /// A call arrives in its time; whether it changed anything.
    pub fn apply(&self, life: LifeNo, call: &StoreCall) -> bool {
        self.arrive(life, call, false)
    }

    /// The same for one of which the caller may have been told something else long ago.
    pub fn arrive(&self, life: LifeNo, call: &StoreCall, late: bool) -> bool {
        let mut truth = self.truth.lock();
        truth.arrives(life, call);
        let changed = match call {
            StoreCall::Put { name, blob } => self.store.put(name, blob.bytes.clone()).map(|()| true),
            StoreCall::Create { name, blob } => {
                self.store.create(name, blob.bytes.clone()).map(|created| created == Created::New)
            }
            StoreCall::Delete { name } => self.store.delete(name).map(|()| true),
        };
        let changed = changed.expect("the shared store itself never fails");
        self.tell(|| format!("  life {life}: {call:?}, changed {changed}"));
        if let (StoreCall::Create { name, blob }, true) = (call, changed) {
            truth.created(life, name, &blob.bytes, late);
        }
        changed
    }
}
