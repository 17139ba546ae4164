//! Histories done again from their steps; and the shortest that still fails, found by leaving steps out.

use crate::Scope;
use crate::crash::{explore, quietly};
use crate::dice::{self, Script};
use crate::oracle::Judge;
use crate::run::{Recorded, Runner};
use crate::step::{History, Step};
use skylog::base::random::SeededRandom;

/// How often a shorter history is tried, at most.
pub const TRIES: u32 = 400;

/// The steps of the history of a seed, as far as it comes.
pub fn record(seed: u64) -> History {
    let script = Script::default();
    // Why it ends is asked when it is done again.
    let _ = quietly(|| dice::run_into(seed, &script));
    History { start: seed, steps: script.into_inner() }
}

/// Does a history again.
pub fn replay(history: &History) -> Recorded {
    let mut runner = Runner::new(history.start, &SeededRandom::new(history.start));
    history.steps.iter().for_each(|step| runner.perform(step));
    runner.end()
}

/// What is wrong with a history, if anything is.
pub fn failure(history: &History, scope: &Scope) -> Option<String> {
    let recorded = match quietly(|| replay(history)) {
        Ok(recorded) => recorded,
        Err(e) => return Some(format!("the history itself: {e}")),
    };
    let mut judge = Judge::new(&recorded, scope.sample);
    explore(&recorded, &mut judge, scope.plans, None).err().map(|failure| failure.what)
}

/// A history that fails, with as many steps left out as may be, and how it fails.
pub struct Shrunk {
    pub history: History,
    pub what: String,
    pub tries: u32,
}

/// Leaves steps out of a history that fails, first many at once and from its end, then one by one, as long as it fails.
/// `None` if it does not fail.
pub fn shrink(history: &History, fails: &dyn Fn(&History) -> Option<String>) -> Option<Shrunk> {
    let what = fails(history)?;
    let mut best = Shrunk { history: history.clone(), what, tries: 0 };
    let mut chunk = history.steps.len().div_ceil(2).max(1);
    loop {
        let before = best.history.steps.len();
        best.drop_chunks(chunk, fails);
        best.flatten(fails);
        let shorter = best.history.steps.len() < before;
        if best.tries >= TRIES || chunk == 1 && !shorter {
            return Some(best);
        }
        chunk = if chunk == 1 { 1 } else { chunk.div_ceil(2) };
    }
}

impl Shrunk {
    /// Tries without each run of so many steps, from the end on.
    fn drop_chunks(&mut self, chunk: usize, fails: &dyn Fn(&History) -> Option<String>) {
        let mut end = self.history.steps.len();
        while end > 0 && self.tries < TRIES {
            let from = end.saturating_sub(chunk);
            let mut shorter = self.history.clone();
            shorter.steps.drain(from..end);
            self.take_if_failing(shorter, fails);
            end = from.min(self.history.steps.len());
        }
    }

    /// Tries with the operations that stand still in one piece, and those beside them left out.
    fn flatten(&mut self, fails: &dyn Fn(&History) -> Option<String>) {
        for at in 0..self.history.steps.len() {
            if let (Step::While { op, .. }, true) = (&self.history.steps[at], self.tries < TRIES) {
                let mut simpler = self.history.clone();
                simpler.steps[at] = Step::Do(op.clone());
                self.take_if_failing(simpler, fails);
            }
        }
    }

    fn take_if_failing(&mut self, history: History, fails: &dyn Fn(&History) -> Option<String>) {
        self.tries += 1;
        if let Some(what) = fails(&history) {
            self.history = history;
            self.what = what;
        }
    }
}

impl std::fmt::Display for Shrunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "shrunk to {} steps in {} tries; it fails so: {}",
            self.history.steps.len(),
            self.tries,
            self.what
        )?;
        writeln!(f, "to see it again: SKYLOG_SIM_REPLAY=FILE with these lines, which are a fixed test too")?;
        write!(f, "{}", self.history.to_text())
    }
}
