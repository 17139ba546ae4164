//! Which of the changes that are not durable a crash keeps: every subset of a few, a chosen and a random part of many.

use crate::base::random::{Random, SeededRandom};

/// How many crash images of one moment are looked at.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Up to so many pending changes: every subset.
    pub subsets_up_to: usize,
    /// In how many places the last write is torn.
    pub tears_max: u64,
    /// How many random choices where not every subset is taken; an eighth of that otherwise.
    pub random: u64,
    /// How many plans in all; of more, a random part is taken.
    pub plans_max: usize,
    /// What the random choices depend on.
    pub seed: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { subsets_up_to: 8, tears_max: 128, random: 64, plans_max: 1024, seed: 1 }
    }
}

/// Which pending changes a crash keeps; they are counted from the oldest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// None.
    Nothing,
    /// All: the same as if only the process died.
    Everything,
    /// Those whose bit is set.
    Subset(u64),
    /// All but one.
    AllBut(usize),
    /// One alone.
    Only(usize),
    /// So many of the oldest.
    First(usize),
    /// All, but of this write just the first sectors.
    Torn {
        /// The write.
        write: usize,
        /// How many sectors of it.
        sectors: u64,
    },
    /// Each kept, lost or torn at random.
    Random(u64),
}

/// What is kept of one change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Keep {
    Nothing,
    Whole,
    /// Of a write; a change of names is not kept.
    Sectors(Sectors),
}

/// A set of sectors of one write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sectors {
    First(u64),
    /// A coin for each run of `unit` sectors.
    Random {
        seed: u64,
        unit: u64,
    },
}

impl Sectors {
    pub(super) fn has(self, sector: u64) -> bool {
        match self {
            Sectors::First(count) => sector < count,
            Sectors::Random { seed, unit } => dice(seed, sector / unit) & 1 == 0,
        }
    }
}

impl Plan {
    pub(super) fn keep(&self, index: usize) -> Keep {
        let whole = |kept: bool| if kept { Keep::Whole } else { Keep::Nothing };
        match *self {
            Plan::Nothing => Keep::Nothing,
            Plan::Everything => Keep::Whole,
            Plan::Subset(bits) => whole(bits >> index & 1 == 1),
            Plan::AllBut(lost) => whole(index != lost),
            Plan::Only(kept) => whole(index == kept),
            Plan::First(count) => whole(index < count),
            Plan::Torn { write, sectors } if write == index => Keep::Sectors(Sectors::First(sectors)),
            Plan::Torn { .. } => Keep::Whole,
            Plan::Random(seed) => match dice(seed, index as u64) % 8 {
                0..3 => Keep::Whole,
                3..6 => Keep::Nothing,
                // Disks tear at 512 bytes or at 4 KiB.
                coin => Keep::Sectors(Sectors::Random {
                    seed: dice(!seed, index as u64),
                    unit: if coin == 6 { 1 } else { 8 },
                }),
            },
        }
    }
}

/// A number that depends on two others.
fn dice(seed: u64, index: u64) -> u64 {
    SeededRandom::new(seed ^ index.wrapping_mul(0xD6E8_FEB8_6659_FD93)).u64()
}

/// The plans for a moment. `writes` has an entry for each pending change: its sectors if it is a write.
pub(super) fn plans(writes: &[Option<u64>], limits: &Limits, point: u64) -> Vec<Plan> {
    let count = writes.len();
    if count == 0 {
        return vec![Plan::Nothing];
    }
    let few = count <= limits.subsets_up_to.min(63);
    let mut plans = vec![Plan::Nothing, Plan::Everything];
    if few {
        plans.extend((1..(1 << count) - 1).map(Plan::Subset));
    } else {
        plans.extend((0..count).flat_map(|index| [Plan::AllBut(index), Plan::Only(index)]));
        plans.extend((2..count - 1).map(Plan::First));
    }
    plans.extend(tears(writes, limits.tears_max));
    if writes.iter().any(Option::is_some) || !few {
        let random = if few { limits.random / 8 } else { limits.random };
        plans.extend((0..random).map(|n| Plan::Random(dice(limits.seed ^ point, n))));
    }
    thin_out(&mut plans, limits, point);
    plans
}

/// The last write cut after each of its sectors, or after as many as allowed, evenly spread.
fn tears(writes: &[Option<u64>], tears_max: u64) -> impl Iterator<Item = Plan> {
    let last = writes.iter().enumerate().rev().find_map(|(write, sectors)| sectors.map(|sectors| (write, sectors)));
    let (write, sectors) = last.unwrap_or((0, 1));
    let cuts = sectors - 1;
    let taken = cuts.min(tears_max);
    (1..=taken).map(move |n| Plan::Torn { write, sectors: (n * cuts).div_ceil(taken) })
}

/// Keeps the first two and a random choice of the others.
fn thin_out(plans: &mut Vec<Plan>, limits: &Limits, point: u64) {
    let wanted = limits.plans_max.max(2);
    if plans.len() > wanted {
        let random = SeededRandom::new(limits.seed.rotate_left(32) ^ point);
        for place in 2..wanted {
            let from = place as u64 + random.below((plans.len() - place) as u64);
            plans.swap(place, usize::try_from(from).expect("below the length"));
        }
        plans.truncate(wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(plan: &Plan, count: usize) -> Vec<bool> {
        (0..count).map(|index| plan.keep(index) == Keep::Whole).collect()
    }

    #[test]
    fn of_a_few_changes_every_subset_is_taken() {
        let all: std::collections::BTreeSet<Vec<bool>> =
            plans(&[None; 8], &Limits::default(), 0).iter().map(|plan| kept(plan, 8)).collect();
        assert_eq!(all.len(), 256);
        assert_eq!(plans(&[], &Limits::default(), 0), [Plan::Nothing]);
    }

    #[test]
    fn of_many_changes_none_all_each_alone_each_missing_and_every_prefix_are_taken() {
        let plans = plans(&[Some(1); 20], &Limits::default(), 0);
        let taken: Vec<Vec<bool>> = plans.iter().map(|plan| kept(plan, 20)).collect();
        for index in 0..20 {
            assert!(taken.contains(&(0..20).map(|n| n < index).collect()), "the first {index}");
            assert!(taken.contains(&(0..20).map(|n| n == index).collect()), "only {index}");
            assert!(taken.contains(&(0..20).map(|n| n != index).collect()), "all but {index}");
        }
        assert!(taken.contains(&vec![true; 20]));
        assert_eq!(plans.iter().filter(|plan| matches!(plan, Plan::Random(_))).count(), 64);
    }

    #[test]
    fn the_last_write_is_torn_after_each_sector() {
        let taken = plans(&[Some(3), Some(8), None], &Limits::default(), 0);
        for sectors in 1..8 {
            assert!(taken.contains(&Plan::Torn { write: 1, sectors }));
        }
        let taken = plans(&[Some(1000)], &Limits { tears_max: 10, ..Limits::default() }, 0);
        assert_eq!(taken.iter().filter(|plan| matches!(plan, Plan::Torn { .. })).count(), 10);
    }

    #[test]
    fn random_plans_keep_lose_and_tear_and_depend_on_the_seed_alone() {
        let seeds = |seed| plans(&[Some(16); 12], &Limits { seed, ..Limits::default() }, 7);
        assert_eq!(seeds(1), seeds(1));
        assert_ne!(seeds(1), seeds(2));
        let found: Vec<Keep> =
            seeds(1).iter().filter(|p| matches!(p, Plan::Random(_))).flat_map(|p| (0..12).map(|i| p.keep(i))).collect();
        let torn = |unit: u64| {
            let set = |keep: &&Keep| matches!(keep, Keep::Sectors(Sectors::Random { unit: u, .. }) if *u == unit);
            found.iter().filter(set).count()
        };
        let whole = found.iter().filter(|keep| **keep == Keep::Whole).count();
        assert!(whole > 200 && torn(1) > 50 && torn(8) > 50, "{whole} {} {}", torn(1), torn(8));
    }

    #[test]
    fn too_many_plans_are_thinned_out_but_never_none_and_all() {
        let few = plans(&[Some(1); 500], &Limits { plans_max: 50, ..Limits::default() }, 3);
        assert_eq!(few.len(), 50);
        assert_eq!(few[..2], [Plan::Nothing, Plan::Everything]);
    }
}
