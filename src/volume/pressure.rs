//! Steps of pressure: what is done about a journal that fills up faster than it is emptied.
//!
//! | step | when | what is done |
//! |---|---|---|
//! | shipping | more than half of it is used | it is checkpointed and shipped now (by the checkpointer, which looks at the journal itself) |
//! | slowing | more than three quarters | answers to operations that add are held back |
//! | full | no room for a write | those wait, or are refused: see [`WhenFull`] |
//!
//! **Slowing.** Together operations may bring, each second, what the store has taken or the journal has given back lately, and a
//! share of the room that is left: [`HORIZON`] would use it up. So writers that are no faster than the store never notice, and those that
//! are come down to its speed while the last room goes, instead of running into a wall. It is the answer that waits, not the
//! operation: that is done, holds no data and no lock, and comes first in, first out.

use super::health::{Health, Outage};
use crate::journal::Fill;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What is left would last for this long at the speed that is allowed beyond the store's.
const HORIZON: Duration = Duration::from_secs(5);
/// Of the room that is made so much is handed out at once: what is kept is what nobody runs out of later.
const SHARE: f64 = 0.9;
/// No answer is held back for longer.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// One that would be held back for less goes at once; the next waits for both.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// Who did not write for a while may write so much sooner afterwards.
const CREDIT: Duration = Duration::from_millis(50);
/// What an operation adds beside its data, bytes.
const OPERATION_BYTES: u64 = 512;
/// Speeds are averages over about so long.
const MEMORY: Duration = Duration::from_secs(5);
/// The journal is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What operations that add do when the journal is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// They wait until there is room.
    #[default]
    Wait,
    /// They fail with ENOSPC.
    Enospc,
}

impl fmt::Display for WhenFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WhenFull::Wait => "wait",
            WhenFull::Enospc => "enospc",
        })
    }
}

impl FromStr for WhenFull {
    type Err = String;

    fn from_str(s: &str) -> Result<WhenFull, String> {
        match s {
            "wait" => Ok(WhenFull::Wait),
            "enospc" => Ok(WhenFull::Enospc),
            other => Err(format!("unknown word {other:?}; a full journal makes writers `wait`, or fail by `enospc`")),
        }
    }
}

/// How long operations wait.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// What those do that add when the journal is full.
    pub when_full: WhenFull,
    /// How long those that need a store which does not answer wait for it; then they fail with EIO.
    pub read_timeout: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { when_full: WhenFull::default(), read_timeout: Duration::from_secs(60) }
    }
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    None,
    Shipping,
    Slowing,
    Full,
}

impl Step {
    fn of(fill: &Fill) -> Step {
        match fill {
            fill if fill.is_full => Step::Full,
            fill if fill.used_bytes > fill.capacity_bytes / 4 * 3 => Step::Slowing,
            fill if fill.used_bytes > fill.capacity_bytes / 2 => Step::Shipping,
            _ => Step::None,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Step::None => "none",
            Step::Shipping => "shipping",
            Step::Slowing => "slowing",
            Step::Full => "full",
        }
    }
}

/// An answer that is held back.
pub(super) type Answer = Box<dyn FnOnce() + Send>;

/// The pressure on the writers of one volume.
#[derive(Default)]
pub(super) struct Pressure {
    /// Whether answers are held back at all, without the lock.
    slows: AtomicBool,
    /// Whether operations that add wait for the journal to be emptied.
    full: AtomicBool,
    state: Mutex<State>,
    slowed: AtomicU64,
    refused: AtomicU64,
}

#[derive(Default)]
struct State {
    looked_at: Option<Duration>,
    taken: Meter,
    reclaimed: Meter,
    /// Bytes a second that operations may bring.
    speed: f64,
    /// When the next answer may go.
    next: Duration,
    /// Answers that are held back, and until when; later ones behind.
    held: VecDeque<(Duration, Answer)>,
    /// When the newest of them was.
    held_at: Option<Duration>,
    /// Nobody looks after them any more.
    ended: bool,
}

/// A speed, as an average of the last seconds.
#[derive(Default)]
struct Meter {
    total: u64,
    bytes: f64,
    secs: f64,
}

impl Meter {
    fn add(&mut self, total: u64, after: Duration) {
        let kept = (-after.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        self.bytes = self.bytes * kept + total.saturating_sub(self.total) as f64;
        self.secs = self.secs * kept + after.as_secs_f64();
        self.total = total;
    }

    /// Forgets what was; an idle hour says nothing about the store.
    fn restart(&mut self) {
        (self.bytes, self.secs) = (0.0, 0.0);
    }

    fn bytes_a_second(&self) -> f64 {
        if self.secs > 0.0 { self.bytes / self.secs } else { 0.0 }
    }
}

impl Pressure {
    /// Looks at the journal, now and then, and settles how fast operations may add.
    pub fn look(&self, fill: &Fill, health: &Health, now: Duration) {
        let mut state = self.state.lock();
        let after = now.saturating_sub(state.looked_at.unwrap_or(now));
        if state.looked_at.is_some() && after < LOOK_EVERY {
            return;
        }
        state.looked_at = Some(now);
        state.taken.add(health.written(), after);
        state.reclaimed.add(fill.reclaimed_bytes, after);
        let step = Step::of(fill);
        if step == Step::None {
            state.taken.restart();
            state.reclaimed.restart();
        }
        let made = match health.is_away() {
            true => 0.0,
            false => state.taken.bytes_a_second().max(state.reclaimed.bytes_a_second()),
        };
        state.speed = made * SHARE + fill.free_bytes as f64 / HORIZON.as_secs_f64();
        self.full.store(step == Step::Full, Ordering::Relaxed);
        self.slows.store(step >= Step::Slowing, Ordering::Relaxed);
    }

    /// Gives the answer to an operation that brought so much data at once; or holds it back, and then says so.
    pub fn answer(&self, now: Duration, data_bytes: usize, answer: impl FnOnce() + Send + 'static) -> bool {
        if !self.slows.load(Ordering::Relaxed) {
            answer();
            return false;
        }
        let mut state = self.state.lock();
        let at = state.next.max(now.saturating_sub(CREDIT));
        let costs = (data_bytes as u64 + OPERATION_BYTES) as f64 / state.speed.max(1.0);
        state.next = (at + Duration::from_secs_f64(costs.min(PAUSE_MAX.as_secs_f64()))).min(now + PAUSE_MAX);
        if state.ended || (at <= now + PAUSE_MIN && state.held.is_empty()) {
            drop(state);
            answer();
            return false;
        }
        self.slowed.fetch_add(1, Ordering::Relaxed);
        state.held_at = Some(now);
        state.held.push_back((at, Box::new(answer)));
        true
    }

    /// Answers whose time has come at `now`; all of them when nothing is slowed any more.
    pub fn due(&self, now: Duration) -> Vec<Answer> {
        let mut state = self.state.lock();
        let slows = self.slows.load(Ordering::Relaxed);
        let due = state.held.iter().take_while(|(at, _)| !slows || *at <= now).count();
        state.held.drain(..due).map(|(_, answer)| answer).collect()
    }

    /// All answers that are held back.
    pub fn all(&self) -> Vec<Answer> {
        self.state.lock().held.drain(..).map(|(_, answer)| answer).collect()
    }

    /// The same at the end: none is held back from now on.
    pub fn end(&self) -> Vec<Answer> {
        self.state.lock().ended = true;
        self.all()
    }

    /// How long until the next answer is due, if one is held back.
    pub fn next_due(&self, now: Duration) -> Option<Duration> {
        self.state.lock().held.front().map(|(at, _)| at.saturating_sub(now))
    }

    /// Whether answers are held back: now, or within the longest time for which one is.
    pub fn holds_back(&self, now: Duration) -> bool {
        let state = self.state.lock();
        !state.held.is_empty() || state.held_at.is_some_and(|at| now.saturating_sub(at) < PAUSE_MAX)
    }

    /// Whether the journal was full when it was last looked at.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// An operation was refused for lack of room.
    pub fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Operations whose answer was held back since the mount,
    pub fn slowed(&self) -> u64 {
        self.slowed.load(Ordering::Relaxed)
    }

    /// and those that a full journal refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// What keeps the journal from being emptied.
pub(super) enum Hindrance {
    /// The store does not answer.
    Away(Outage),
    /// It has no room.
    Full,
    /// It, or something on the way there, fails; the reason.
    Failing(String),
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hindrance::Away(outage) => write!(f, "the store does not answer: {}", outage.error),
            Hindrance::Full => write!(f, "the store has no room"),
            Hindrance::Failing(why) => write!(f, "shipping fails: {why}"),
        }
    }
}

/// The step and, if there is one, the reason in one sentence. Nobody is slowed while no answer is held back.
pub(super) fn describe(
    fill: &Fill,
    hindrance: Option<&Hindrance>,
    when_full: WhenFull,
    holds_back: bool,
) -> (Step, Option<String>) {
    let step = match Step::of(fill) {
        Step::Slowing if !holds_back => Step::Shipping,
        step => step,
    };
    let how_full = match step {
        Step::Full => "the journal is full".to_owned(),
        _ => format!("the journal is {} % full", fill.used_bytes * 100 / fill.capacity_bytes.max(1)),
    };
    let why = match hindrance {
        Some(hindrance) => hindrance.to_string(),
        None if step == Step::Shipping => "is being shipped".to_owned(),
        None => "the store takes less than is written".to_owned(),
    };
    let what = match (step, when_full, hindrance) {
        (Step::None, ..) => return (step, None),
        (Step::Shipping, ..) => "",
        (Step::Slowing, ..) => "; writers are slowed",
        (Step::Full, WhenFull::Wait, Some(Hindrance::Full)) | (Step::Full, WhenFull::Enospc, _) => {
            "; writers get ENOSPC"
        }
        (Step::Full, WhenFull::Wait, _) => "; writers wait",
    };
    (step, Some(format!("{how_full} and {why}{what}")))
}

#[cfg(test)]
mod tests;
