//! What a history consists of: steps, each of which says all there is to do, so that a list of them can be done again without
//! the dice it came from, cut shorter, printed and kept.

use crate::model::op::{Call, Op};
use crate::repairs::Harm;
use crate::world::Actor;
use serde::{Deserialize, Serialize};
use skylog::journal::SyncPolicy;
use skylog::store::sim::{StoreFault, StoreOp};

/// One step. Whatever was left out before it, it can be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// An operation, from its start to its end.
    Do(Op),
    /// An operation that stands at its `wait`-th wait, from 1, while others go on.
    While { op: Op, wait: u32, steps: Vec<Step> },
    /// An fsync, which is waited for or not.
    Sync { wait: bool },
    /// An fsync of a file or, with a slash at its end, of a directory, which is waited for; of what is not there, none.
    Fsync { path: String },
    /// A checkpoint is asked for.
    Checkpoint,
    /// Another sync policy.
    Policy(#[serde(with = "PolicyOf")] SyncPolicy),
    /// From now on an fsync waits for the store, or for the journal.
    Durability { store: bool },
    /// One step of one actor.
    Act(Actor),
    /// One step of each actor of a machine that was taken over from.
    ActRival,
    /// Time goes on.
    Sleep { ms: u64 },
    /// The nth call of a kind fails.
    Fail {
        nth: u64,
        #[serde(with = "OpOf")]
        op: StoreOp,
        #[serde(with = "FaultOf")]
        how: StoreFault,
    },
    /// An outage begins or ends.
    Down(bool),
    /// Calls arrive that failed as adrift.
    Land,
    /// Nothing fails any more, and an outage ends.
    Heal,
    /// Everything is checkpointed, shipped, recorded and reclaimed.
    Drain,
    /// What all files hold is brought into the cache.
    Warm,
    /// What all files hold is dropped from the cache.
    Evict,
    /// The mount ends, and another begins.
    Turn(Turn),
}

/// How a mount ends and the next one begins. `seed` is what the next one draws its own random numbers from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Turn {
    /// Unmounted, with what is in the journal left there, and mounted again.
    Remount { seed: u64 },
    /// The process dies, the machine lives.
    Kill { seed: u64 },
    /// The process dies while the store is away.
    KillAway { seed: u64 },
    /// The power goes.
    PowerCut { cut: Cut, seed: u64 },
    /// The power goes while the store is away.
    PowerCutAway { cut: Cut, seed: u64 },
    /// Unmounted; another machine mounts.
    Moved { seed: u64 },
    /// The machine is lost; another one mounts.
    Takeover { seed: u64 },
    /// Another machine mounts while the first still works.
    Rival { seed: u64 },
    /// Another machine takes over; then the first mounts from local state alone, while the store is away.
    Late { seed: u64, first: u64 },
    /// Unmounted or killed, perhaps damaged, repaired, and mounted again.
    Repair { harm: Option<Harm>, clean: bool, seed: u64 },
}

/// Which of the states that a power cut may leave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cut {
    /// What the states are drawn from.
    pub plans: u64,
    /// Which of them.
    pub index: usize,
    /// The state of the cache files.
    pub cache: u64,
    /// What is late arrives before the next mount, else after it.
    pub late_first: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "SyncPolicy")]
enum PolicyOf {
    Always,
    EverySecond,
    None,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "StoreOp")]
enum OpOf {
    Get,
    Put,
    Create,
    Delete,
    List,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "StoreFault")]
enum FaultOf {
    Refused,
    AnswerLost,
    TriedAgain,
    Adrift,
    Away,
    Full,
    Cut,
    Flipped,
}

/// A history that can be done again.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// What the sizes of the filesystem and its random ids are drawn from.
    pub start: u64,
    pub steps: Vec<Step>,
}

impl History {
    /// One line for its start, one for each step.
    pub fn to_text(&self) -> String {
        let steps = self.steps.iter().map(|step| serde_json::to_string(step).expect("a step is plain data"));
        std::iter::once(format!("start {}", self.start)).chain(steps).collect::<Vec<_>>().join("\n")
    }

    /// What [`History::to_text`] gave; empty lines do not count.
    pub fn parse(text: &str) -> History {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let start = lines.next().and_then(|line| line.strip_prefix("start ")).expect("a history begins with its start");
        let step = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("no step: {line}: {e}"));
        History { start: start.parse().expect("a number"), steps: lines.map(step).collect() }
    }
}

/// So many moments of the model's time steps take at most: those beside an operation that stands still come before it, or after
/// it when it does not stand still so long.
pub fn moments(steps: &[Step]) -> u64 {
    let of = |step: &Step| match step {
        Step::Do(_) => 1,
        Step::While { steps, .. } => 1 + 2 * moments(steps),
        _ => 0,
    };
    steps.iter().map(of).sum()
}

/// Whether an operation may stand still while others go on, and be told from them: it is one request after its look-ups.
pub fn may_wait(call: &Call) -> bool {
    use Call::{Close, Forget, Open, ReadData, Readdir};
    !matches!(call, Open { .. } | Close { .. } | Forget | ReadData { .. } | Readdir { .. })
}

#[test]
fn a_history_is_read_as_it_was_printed() {
    for seed in [1, 6, 7] {
        let history = crate::replay::record(seed);
        assert!(history.steps.len() > 50);
        assert_eq!(History::parse(&history.to_text()), history);
    }
}
