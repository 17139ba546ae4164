//! How many trials there were, and what came of them.

use crate::kinds::Kind;
use crate::repaired::Repairs;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

/// Kinds of failures that are printed.
const SHOWN: usize = 40;

/// Trials of one kind.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    pub trials: u64,
    /// Somebody said that the object is damaged.
    pub named: u64,
    /// Somebody read all there is, exactly.
    pub right: u64,
    /// Nobody saw it.
    pub unseen: u64,
    /// What repairs made of it.
    pub repairs: Repairs,
}

/// All trials.
#[derive(Default)]
pub struct Tally {
    pub kinds: BTreeMap<Kind, Counts>,
    /// By what is alike in them: one, and how many there were.
    pub failures: BTreeMap<String, (String, u64)>,
    pub failed: u64,
}

impl Tally {
    pub fn failure(&mut self, kind: Kind, what: &str, how: String) {
        self.failed += 1;
        let alike: String = what.chars().filter(|c| !c.is_ascii_digit()).take(60).collect();
        self.failures.entry(format!("{kind:?}: {alike}")).or_insert((how, 0)).1 += 1;
    }

    pub fn assert_no_failure(&self) {
        for (how, count) in self.failures.values().take(SHOWN) {
            println!("{count} times as in {how}");
        }
        assert_eq!(self.failed, 0, "see above");
    }

    /// A kind of which no trial was made, or none that was seen where it must be, proves nothing.
    pub fn assert_hit(&self, kind: Kind) {
        let counts = self.kinds.get(&kind).copied().unwrap_or_default();
        assert!(counts.trials > 0, "no trial of {kind:?}");
        assert!(counts.named > 0 || kind.unseen().is_some(), "no damage of {kind:?} was named");
        if kind.unrepaired().is_none() {
            assert!(counts.repairs.runs > 0, "no damage of {kind:?} was repaired");
            assert!(counts.repairs.made > 0 || kind.unseen().is_some(), "nothing was repaired of {kind:?}");
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        for (kind, counts) in other.kinds {
            let sum = self.kinds.entry(kind).or_default();
            sum.trials += counts.trials;
            sum.named += counts.named;
            sum.right += counts.right;
            sum.unseen += counts.unseen;
            sum.repairs += counts.repairs;
        }
        self.failed += other.failed;
        for (alike, (how, count)) in other.failures {
            self.failures.entry(alike).or_insert((how, 0)).1 += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = ["trials", "named", "right", "unseen", "repairs", "made", "whole", "touched", "EIO"];
        writeln!(f, "{:16}{}", "damage of", headings.map(|heading| format!("{heading:>9}")).concat())?;
        let mut sum = [0; 9];
        for (kind, counts) in &self.kinds {
            let columns = counts.columns();
            writeln!(f, "{:16}{}", format!("{kind:?}"), columns.map(|count| format!("{count:>9}")).concat())?;
            sum.iter_mut().zip(columns).for_each(|(sum, count)| *sum += count);
        }
        write!(f, "{:16}{}, {} failed", "all", sum.map(|count| format!("{count:>9}")).concat(), self.failed)
    }
}

impl Counts {
    fn columns(&self) -> [u64; 9] {
        let Counts { trials, named, right, unseen, repairs } = *self;
        let Repairs { runs, made, whole, touched, ranges } = repairs;
        [trials, named, right, unseen, runs, made, whole, touched, ranges]
    }
}
