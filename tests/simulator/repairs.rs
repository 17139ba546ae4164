//! `skylog check --repair` between two mounts, as an operation like any other: of a filesystem that is whole, which it leaves
//! alone; and of one in which something is damaged that costs nothing of any file. What it does is in the log of calls, so
//! that it is crashed after each of them; whoever comes next repairs again, and finds what was promised.

use crate::Scope;
use crate::replay::{failure, record, replay};
use crate::run::Runner;
use crate::step::{Step, Turn};
use crate::world::{Instance, Machine};
use serde::{Deserialize, Serialize};
use skylog::base::random::SeededRandom;
use skylog::check::{Depth, check};
use skylog::checkpoint::{files::CHECKPOINTS, nodes::NODES};
use skylog::format::names::SUPERBLOCK;
use skylog::format::repair_file::REPAIR_FILE;
use skylog::journal::{FOLDER, MANIFEST};
use skylog::media::Media;
use skylog::media::sim::{CallLog, Image, SimDisk};
use skylog::recovery::MountError;
use skylog::repair::{Means, Report, repair};
use skylog::store::Store;
use skylog::store::sim::{SimStore, StoreImage};
use std::sync::Arc;

/// What is damaged. Beside it there is all that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The manifest: the newest checkpoint and the journal are found without it.
    Manifest,
    /// The newest checkpoint: the store's base, and the journal back to it.
    Checkpoint,
    /// A local node, when all of them are in the store.
    Node,
    /// A journal slot, when all that it holds is in the store.
    Slot,
    /// A window index: segments describe themselves.
    Index,
    /// A publication of the newest generation: the state directory has all that it says.
    Publication,
    /// The base of the newest generation, likewise.
    Base,
    /// The superblock: everything else says what it says.
    Superblock,
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target::Manifest,
    Target::Checkpoint,
    Target::Node,
    Target::Slot,
    Target::Index,
    Target::Publication,
    Target::Base,
    Target::Superblock,
];

/// One byte that is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Harm {
    pub target: Target,
    /// Which of several of that kind.
    pub which: u64,
    /// The place in it.
    pub at: u64,
}

impl Target {
    /// Whether it is in the store.
    pub fn is_stored(self) -> bool {
        matches!(self, Target::Index | Target::Publication | Target::Base | Target::Superblock)
    }

    /// Whether the store alone has all that it takes as well.
    pub fn costs_the_store_nothing(self) -> bool {
        !self.is_stored() || self == Target::Index
    }

    /// Whether it costs nothing only when everything is in the store.
    pub fn takes_a_drain(self) -> bool {
        matches!(self, Target::Node | Target::Slot)
    }

    /// Which of all names of objects or files are of this kind.
    fn of(self, names: &[String]) -> Vec<&String> {
        let folder = |folder: &str| names.iter().filter(|name| name.starts_with(folder)).collect::<Vec<_>>();
        let last =
            |names: Vec<&'_ String>| names.last().map(|name| name.rsplit_once('/').expect("a folder").0.to_owned());
        match self {
            Target::Manifest => folder(MANIFEST).into_iter().filter(|name| *name == MANIFEST).collect(),
            Target::Checkpoint => folder(CHECKPOINTS).pop().into_iter().collect(),
            Target::Node => folder(NODES),
            Target::Slot => folder(FOLDER),
            Target::Index => folder("win/"),
            Target::Publication => last(folder("gen/")).map_or(Vec::new(), |newest| folder(&newest)),
            Target::Base => {
                last(folder("gen/")).and_then(|newest| folder(&newest).first().copied()).into_iter().collect()
            }
            Target::Superblock => folder(SUPERBLOCK),
        }
    }
}

impl Harm {
    /// The same state directory and store, with this damaged, if there is one.
    pub fn done_to(&self, disk: &Image, store: &StoreImage) -> (Image, StoreImage) {
        let names: Vec<String> = match self.target.is_stored() {
            true => store.names().map(str::to_owned).collect(),
            false => disk.names().map(str::to_owned).collect(),
        };
        let of = self.target.of(&names);
        let Some(name) = of.get(usize::try_from(self.which % of.len().max(1) as u64).expect("few")) else {
            return (disk.clone(), store.clone());
        };
        let (disk, store) = (SimDisk::from_image(disk, &CallLog::new()), SimStore::from_image(store, &CallLog::new()));
        match self.target.is_stored() {
            true => {
                let mut bytes = store.get(name).expect("there").to_vec();
                let at = usize::try_from(self.at % bytes.len() as u64).expect("short");
                bytes[at] ^= 0x20;
                store.put(name, bytes.into()).expect("put");
            }
            false => {
                let file = disk.open(name).expect("there");
                let at = self.at % file.len().expect("known").max(1);
                let mut byte = [0];
                file.read_at(&mut byte, at).expect("read");
                file.write_at(&[byte[0] ^ 0x20], at).expect("written");
            }
        }
        (disk.image(), store.image())
    }
}

/// Repairs what a machine has.
pub fn repair_on(machine: &Machine, seed: u64) -> Report {
    let has_state = machine.disk.image().names().next().is_some();
    let means = Means {
        store: Arc::new(machine.store.clone()),
        state: has_state.then(|| Arc::new(machine.disk.clone()) as Arc<dyn Media>),
        clock: machine.clock.clone(),
        random: Arc::new(SeededRandom::new(seed)),
        owner: machine.tuning.owner.clone(),
        holding: machine.tuning.holding,
        not_append_only: true,
        segment_bytes: machine.tuning.policy.segment_bytes,
        shape: machine.tuning.policy.shape,
    };
    let report = repair(&means, false, &mut |_, _, _| {}).unwrap_or_else(|e| panic!("the repair failed: {e}"));
    let after = report.after.as_ref().map_or(&report.before, |after| after);
    assert!(after.is_clean(), "after the repair: {:?}, skipped {:?}", after.problems, after.skipped);
    report
}

/// Repairs what an interrupted repair left. Until then nobody mounts it.
pub fn repair_again(machine: &Machine, seed: u64) -> Report {
    if machine.disk.image().file(REPAIR_FILE).is_some() {
        let there = || (machine.disk.image().hash(), machine.store.image().hash());
        let before = there();
        match machine.mount(seed) {
            // Without the superblock nothing is known of it.
            Err(MountError::Unrepaired | MountError::Superblock(_)) => {}
            Err(e) => panic!("a mount in the middle of a repair is refused for another reason: {e}"),
            Ok(_) => panic!("mounted in the middle of a repair"),
        }
        assert!(there() == before, "a mount that was refused changed something");
    }
    repair_on(machine, seed)
}

impl Runner {
    /// The mount ends, something is damaged or not, and is repaired; then it is mounted again.
    pub fn repair(&mut self, old: Instance, harm: Option<&Harm>, clean: bool, seed: u64) {
        match clean {
            true => {
                old.close();
                let n = self.line().len();
                self.book.note(|note| note.synced = n);
                self.figures.unmounts += 1;
            }
            false => {
                drop(old);
                self.figures.kills += 1;
            }
        }
        self.machine.store.heal();
        self.machine.store.set_down(false);
        let was = self.machine.disk.image();
        // What a state directory makes needless is no damage to whoever has it, though it is to who has the store alone.
        let harm = harm.filter(|harm| self.is_seen(harm));
        if let Some(harm) = harm {
            self.damage(harm);
        }
        let calls = self.log.len();
        let report = repair_on(&self.machine, seed);
        let made = (self.log.len() - calls) as u64;
        self.figures.repairs += 1;
        if report.was_clean() {
            assert_eq!(made, 0, "there was nothing to repair");
        } else {
            assert!(harm.is_some(), "nothing was damaged: {:?}", report.before.problems);
            assert!(report.base.is_some(), "it was damaged, and is not repaired");
            self.figures.mended += 1;
            self.figures.repair_calls += made;
        }
        self.book.note(|note| note.repair = None);
        self.mount(seed);
        if report.base.is_some() {
            let n = self.line().len();
            self.book.note(|note| note.shipped = n);
            // The state directory as it was, from a backup, is fenced, where it is seen that it is.
            if harm.is_some_and(|harm| [Target::Index, Target::Superblock].contains(&harm.target)) {
                self.lost.push(was);
            }
            self.check_fence();
        }
    }

    /// Whether the check sees the damage, with the state directory.
    fn is_seen(&self, harm: &Harm) -> bool {
        let (disk, store) = harm.done_to(&self.machine.disk.image(), &self.machine.store.image());
        let store: Arc<dyn Store> = Arc::new(SimStore::from_image(&store, &CallLog::new()));
        let state: Arc<dyn Media> = Arc::new(SimDisk::from_image(&disk, &CallLog::new()));
        !check(&store, Some(state), Depth::Data, &mut |_, _, _| {}).is_clean()
    }

    /// What is damaged is so at once, and for good; calls that are on their way never arrive.
    fn damage(&mut self, harm: &Harm) {
        self.end_stage();
        self.rival = None;
        self.is_harmed |= harm.target.is_stored();
        let (disk, store) = harm.done_to(&self.machine.disk.image(), &self.machine.store.image());
        self.begin_stage(&disk, &store);
        self.book.note(|note| note.repair = Some(harm.target));
        self.begin_here();
    }
}

/// Each of them is damaged in a history, so that there is something to repair, and the repair is crashed after every call.
#[test]
fn each_kind_of_damage_is_repaired_and_its_repair_crashed() {
    let scope = Scope { seed: 1, histories: 1, crash: None, plans: 6, sample: 8 };
    for target in TARGETS {
        // Not every byte of a slot counts; and there is a window index when something was shipped.
        let is_mended = (0..100).any(|n| {
            let mut history = record(2 + n % 5);
            let turns = |step: &Step| matches!(step, Step::Turn(Turn::Repair { .. }));
            history.steps.retain(|step| !turns(step));
            history.steps.truncate(90);
            history.steps.extend((n % 2 == 1).then_some(Step::Drain));
            let harm = Some(Harm { target, which: n, at: 40 + 97 * n });
            history.steps.push(Step::Turn(Turn::Repair { harm, clean: n % 2 == 0, seed: n }));
            let mended = replay(&history).figures.mended;
            mended > 0 && {
                assert_eq!(failure(&history, &scope), None, "{}", history.to_text());
                true
            }
        });
        assert!(is_mended, "{target:?} was never damaged so that the check found it");
    }
}
