//! Histories from a seed: operations, between them everything that goes on in the background, and in the middle ends of the
//! mount. The dice only say which step comes next; what was done is a list of steps (see [`crate::step`]).

use crate::middle::Middle;
use crate::model::Model;
use crate::model::generate::{Generator, Sizes};
use crate::model::op::Op;
use crate::repairs::{Harm, TARGETS};
use crate::run::{Recorded, Runner};
use crate::step::{Cut, Step, Turn, may_wait};
use crate::world::Actor;
use parking_lot::Mutex;
use skylog::base::random::{Random, SeededRandom};
use skylog::journal::SyncPolicy;
use skylog::store::sim::{StoreFault, StoreOp};

/// Operations of a history.
pub const OPS: usize = 50;

/// What makes the dice for the store others than those for cache files. With this none of the histories that failed once has
/// any.
const STORE_DICE: u64 = 9;
/// The same for all that came later.
const MORE_DICE: u64 = 0x6d6f_7265;
/// The same for repairs.
const REPAIR_DICE: u64 = 0x6d65_6e64;

/// The steps of a history, as far as it has come.
pub type Script = Mutex<Vec<Step>>;

/// Whether fsyncs of a history wait for the store at its start.
pub fn waits_for_store(seed: u64) -> bool {
    store_dice(seed).is_some()
}

fn store_dice(seed: u64) -> Option<SeededRandom> {
    Some(SeededRandom::new(!seed ^ STORE_DICE)).filter(|random| random.below(4) == 0)
}

/// Who throws the dice for a history.
struct Dice<'s> {
    seed: u64,
    runner: Runner,
    random: SeededRandom,
    /// The dice of cache files, thrown apart: then a seed still means the history that it always meant.
    cache: SeededRandom,
    /// The same for fsyncs that wait for the store, in histories that begin with such.
    store: Option<SeededRandom>,
    /// The same for several operations at once, and for what came into histories last; in every other one.
    more: Option<SeededRandom>,
    /// The same for the repair, in every other one.
    repair: Option<SeededRandom>,
    script: &'s Script,
}

/// Runs the history of a seed.
pub fn run(seed: u64) -> Recorded {
    run_into(seed, &Script::default())
}

/// The same, and leaves its steps also when it fails on the way.
pub fn run_into(seed: u64, script: &Script) -> Recorded {
    let more = Some(SeededRandom::new(!seed ^ MORE_DICE)).filter(|random| random.below(2) == 0);
    let repair = Some(SeededRandom::new(!seed ^ REPAIR_DICE)).filter(|random| random.below(2) == 0);
    Dice::new(seed, more, repair, script).run()
}

/// The history that a seed meant before there were several operations at once, and repairs.
pub fn run_plain(seed: u64) -> Recorded {
    Dice::new(seed, None, None, &Script::default()).run()
}

fn pick<T: Copy>(random: &SeededRandom, from: &[T]) -> T {
    from[usize::try_from(random.below(from.len() as u64)).expect("few")]
}

impl<'s> Dice<'s> {
    fn new(seed: u64, more: Option<SeededRandom>, repair: Option<SeededRandom>, script: &'s Script) -> Dice<'s> {
        let random = SeededRandom::new(seed);
        let runner = Runner::new(seed, &random);
        Dice { seed, runner, random, cache: SeededRandom::new(!seed), store: store_dice(seed), more, repair, script }
    }

    fn run(mut self) -> Recorded {
        let first = 12 + self.below(18);
        let second = first + 1 + self.below(30);
        let third = self.repair.as_ref().map(|random| random.below(OPS as u64));
        for op in 0..OPS as u64 {
            if Some(op) == third {
                self.repair();
            }
            if op == first {
                self.middle(Middle::of(self.seed));
            } else if op == second {
                let number = self.below(6);
                self.middle(Middle::second(self.seed, number));
            }
            self.event();
            self.another_event();
            self.op();
            self.churn(5);
        }
        self.finish()
    }

    fn perform(&mut self, step: Step) {
        self.script.lock().push(step.clone());
        self.runner.perform(&step);
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One operation, or several at once.
    fn op(&mut self) {
        match &self.more {
            Some(more) if more.below(4) == 0 => {
                let mut model = Model::clone(self.runner.line().last());
                let step = several(more, &mut model, 0).expect("some operation may wait");
                self.perform(step);
            }
            _ => {
                let model = Model::clone(self.runner.line().last());
                let op = Generator::over(&self.random, model, Sizes::SMALL).op();
                self.perform(Step::Do(op));
            }
        }
    }

    /// Something goes on in the background.
    fn churn(&mut self, most: u64) {
        for _ in 0..self.below(most + 1) {
            let step = match self.below(12) {
                0..=3 => Step::Act(Actor::Writer),
                4..=6 => Step::Act(Actor::Checkpointer),
                7..=8 => Step::Act(Actor::Shipper),
                9 => Step::ActRival,
                _ => Step::Sleep { ms: pick(&self.random, &[1, 60, 300, 1100]) },
            };
            self.perform(step);
            if self.cache.below(3) == 0 {
                self.perform(Step::Act(Actor::Keeper));
            }
            let syncs = self.store.as_ref().is_some_and(|random| random.below(2) == 0);
            if syncs || self.more.as_ref().is_some_and(|more| more.below(6) == 0) {
                self.perform(Step::Act(Actor::Syncer));
            }
        }
    }

    /// Sometimes a sync, a checkpoint, another policy, or trouble with the store.
    fn event(&mut self) {
        let step = match self.below(42) {
            0..=4 => Step::Sync { wait: true },
            5..=7 => Step::Sync { wait: false },
            8..=11 => Step::Checkpoint,
            12..=13 => {
                Step::Policy(pick(&self.random, &[SyncPolicy::Always, SyncPolicy::EverySecond, SyncPolicy::None]))
            }
            14..=16 => {
                let op = pick(&self.random, &[StoreOp::Put, StoreOp::Create, StoreOp::Delete]);
                let how = pick(&self.random, &[StoreFault::Refused, StoreFault::AnswerLost, StoreFault::Adrift]);
                Step::Fail { nth: 1 + self.below(3), op, how }
            }
            40 => Step::Down(true),
            41 => Step::Down(false),
            17..=18 => Step::Land,
            _ => return,
        };
        self.perform(step);
    }

    /// What came into histories last: maintenance by hand, another durability, ends of the mount at any time.
    fn another_event(&mut self) {
        let Some(more) = &self.more else { return };
        let step = match more.below(40) {
            0..=1 => Step::Durability { store: more.below(2) == 0 },
            2..=3 => Step::Warm,
            4..=5 => Step::Evict,
            6 => {
                let op = pick(more, &[StoreOp::Put, StoreOp::Create, StoreOp::Delete]);
                Step::Fail { nth: 1 + more.below(3), op, how: StoreFault::TriedAgain }
            }
            7 => {
                // `skylog umount`: it waits until all is in the store. Then it is mounted again.
                let seed = more.u64();
                self.perform(Step::Drain);
                Step::Turn(Turn::Remount { seed })
            }
            8 => Step::Turn(Turn::Remount { seed: more.u64() }),
            9 => Step::Turn(Turn::Kill { seed: more.u64() }),
            _ => return,
        };
        self.perform(step);
    }

    /// Ends the mount in one way or another, and mounts again.
    fn middle(&mut self, middle: Middle) {
        if middle == Middle::Moved || self.one_in(3) {
            self.perform(Step::Drain);
        }
        self.perform(Step::Heal);
        if self.one_in(2) {
            // What was done last is written and not synced, unless the policy says so.
            self.op();
            self.perform(Step::Sleep { ms: 300 });
            self.perform(Step::Act(Actor::Writer));
        }
        if middle == Middle::Offline {
            return self.offline();
        }
        let cut = (middle == Middle::PowerCut).then(|| self.cut());
        let seed = self.random.u64();
        let turn = match middle {
            Middle::Remount => Turn::Remount { seed },
            Middle::Kill => Turn::Kill { seed },
            Middle::PowerCut => Turn::PowerCut { cut: cut.expect("just drawn"), seed },
            Middle::Moved => Turn::Moved { seed },
            Middle::Takeover => Turn::Takeover { seed },
            Middle::Rival => Turn::Rival { seed },
            Middle::Late => Turn::Late { seed, first: self.random.u64() },
            Middle::Offline => unreachable!("done above"),
        };
        self.perform(Step::Turn(turn));
    }

    /// Ends the mount, perhaps damages something, and repairs.
    fn repair(&mut self) {
        let random = self.repair.take().expect("drawn");
        if random.below(3) == 0 {
            self.perform(Step::Drain);
        }
        let harm = (random.below(6) > 0).then(|| Harm {
            target: pick(&random, &TARGETS),
            which: random.below(1 << 20),
            at: random.below(1 << 20),
        });
        let turn = Turn::Repair { harm, clean: random.below(2) == 0, seed: random.u64() };
        self.perform(Step::Turn(turn));
    }

    /// Mounted without the store, once or twice, and used; it comes back now or later.
    fn offline(&mut self) {
        for _ in 0..1 + self.below(2) {
            let turn = match self.one_in(2) {
                true => {
                    let cut = self.cut();
                    Turn::PowerCutAway { cut, seed: self.random.u64() }
                }
                false => Turn::KillAway { seed: self.random.u64() },
            };
            self.perform(Step::Turn(turn));
            for _ in 0..self.below(5) {
                self.op();
                self.churn(5);
            }
        }
        if self.one_in(2) {
            self.perform(Step::Down(false));
        }
    }

    /// Which of the states the power leaves.
    fn cut(&self) -> Cut {
        let plans = self.below(1 << 60);
        let Runner { machine, .. } = &self.runner;
        let states = crate::crash::states_at_end(&machine.disk, &machine.store, plans);
        let index = usize::try_from(self.below(states.len() as u64)).expect("few");
        let cache = self.cache.u64();
        let late_first = states[index].late.is_some() && self.one_in(2);
        Cut { plans, index, cache, late_first }
    }

    /// Goes on until everything that a history must have has happened.
    fn finish(mut self) -> Recorded {
        self.perform(Step::Drain);
        for _ in 0..60 {
            if self.runner.is_whole() {
                return self.runner.end();
            }
            (0..4).for_each(|_| self.op());
            self.perform(Step::Drain);
        }
        panic!("a history without all that it must have: {}", self.runner.figures);
    }
}

/// An operation that may stand still, and what goes on meanwhile; `model` is what all of them leave if none of them waits.
fn several(random: &SeededRandom, model: &mut Model, depth: u32) -> Option<Step> {
    let op = waiting_op(random, model)?;
    let mut steps = Vec::new();
    for _ in 0..1 + random.below(3) {
        let step = match random.below(8) {
            0..=3 if depth < 2 && random.below(3) == 0 => several(random, model, depth + 1),
            0..=3 => waiting_op(random, model).map(|op| {
                let _ = model.apply(&op);
                Step::Do(op)
            }),
            4 => Some(Step::Act(pick(random, &[Actor::Writer, Actor::Checkpointer, Actor::Shipper, Actor::Syncer]))),
            5 => Some(Step::Sleep { ms: pick(random, &[1, 60, 1100]) }),
            6 => Some(Step::Sync { wait: random.below(2) == 0 }),
            _ => Some(Step::Checkpoint),
        };
        steps.extend(step);
    }
    let _ = model.apply(&op);
    Some(Step::While { op, wait: pick(random, &[1, 1, 1, 2, 3]), steps })
}

/// An operation of the kind that may wait, on files that are not open.
fn waiting_op(random: &SeededRandom, model: &Model) -> Option<Op> {
    let mut closed = model.clone();
    closed.crash();
    let op = || Generator::over(random, closed.clone(), Sizes::SMALL).op();
    (0..20).map(|_| op()).find(|op| may_wait(&op.call))
}
