//! One trial after the other: damage, and what everybody says of it.

use crate::heard;
use crate::hits::Places;
use crate::repaired::{self, Repairs};
use crate::scene::{Object, Scene};
use crate::tally::Tally;
use crate::views::{self, Machine, Tree};
use skylog::base::random::SeededRandom;
use skylog::media::Media;
use skylog::recovery::MountError;
use skylog::store::Store;
use std::cell::Cell;
use std::collections::HashSet;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes at the start and at the end of an object that are always looked at.
const HEAD: u64 = 160;
const FOOT: u64 = 72;
/// What a trial may ask of a store.
const CALLS_MAX: u64 = 5000;
/// Of so many trials, one mounts, writes, and ships what it can.
const GO_ON_EVERY: usize = 8;
/// Trials that a thread takes at a time.
const TOGETHER: usize = 16;

/// Which damage is tried.
pub struct Scope {
    pub every: u64,
    pub seed: u64,
    /// So many trials of each object are repaired at most.
    pub repairs: usize,
    pub only: Option<String>,
}

/// What happens to an object.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    Flip { at: u64, mask: u8 },
    Cut { len: u64 },
}

impl Damage {
    /// All of a scope to an object of so many bytes.
    pub fn all(len: u64, scope: &Scope) -> Vec<Damage> {
        let random = SeededRandom::new(scope.seed);
        let looked_at = |at: &u64| *at < HEAD || len - *at <= FOOT || (*at + scope.seed) % scope.every == 0;
        let of = |at: u64| {
            let first = random.below(8);
            let other = (first + 1 + random.below(7)) % 8;
            [Damage::Flip { at, mask: 1 << first }, Damage::Flip { at, mask: 1 << other }, Damage::Cut { len: at }]
        };
        (0..len).filter(looked_at).flat_map(of).collect()
    }

    pub fn apply(self, bytes: &[u8]) -> Vec<u8> {
        let at = |n: u64| usize::try_from(n).expect("small");
        match self {
            Damage::Cut { len } => bytes[..at(len)].to_vec(),
            Damage::Flip { at: place, mask } => {
                let mut flipped = bytes.to_vec();
                flipped[at(place)] ^= mask;
                flipped
            }
        }
    }

    /// Whether it changes something in a range.
    pub fn reaches(self, range: &Range<u64>) -> bool {
        match self {
            Damage::Flip { at, .. } => range.contains(&at),
            Damage::Cut { len } => len < range.end,
        }
    }

    /// Whether only bytes changed that nobody needs.
    fn is_spare(self, object: &Object) -> bool {
        matches!(self, Damage::Flip { at, .. } if object.spare.contains(&at))
    }
}

/// Damages all objects of a scene.
pub fn run(scene: &Scene, scope: &Scope) -> Tally {
    let wanted = |object: &&Object| scope.only.as_ref().is_none_or(|only| object.name.contains(only));
    let objects = scene.objects.iter().filter(wanted);
    let places = &Places::of(scene);
    let random = SeededRandom::new(scope.seed);
    let of = |object| {
        let all = Damage::all(object_len(object), scope);
        let repaired = spread(all.len(), scope.repairs, &random);
        let trial = move |(number, damage)| {
            let is_repaired = repaired.contains(&number);
            Trial { scene, places, object, damage, is_repaired }
        };
        all.into_iter().enumerate().map(trial)
    };
    let trials: Vec<Trial<'_>> = objects.flat_map(of).collect();
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut tally = Tally::default();
                loop {
                    let from = next.fetch_add(TOGETHER, Ordering::Relaxed);
                    if from >= trials.len() {
                        break;
                    }
                    for (number, trial) in trials.iter().enumerate().skip(from).take(TOGETHER) {
                        one(trial, number, &mut tally);
                    }
                }
                *all.lock().expect("no panic while it is held") += tally;
            });
        }
    });
    all.into_inner().expect("no thread panicked")
}

/// At most so many of `count` numbers, anywhere and one in each part: however many bytes are looked at, repairs are as many.
fn spread(count: usize, at_most: usize, random: &SeededRandom) -> HashSet<usize> {
    let parts = at_most.min(count);
    let one = |part: usize| {
        let (from, to) = (part * count / parts, (part + 1) * count / parts);
        from + random.below((to - from) as u64) as usize
    };
    (0..parts).map(one).collect()
}

fn object_len(object: &Object) -> u64 {
    object.bytes.len() as u64
}

fn one(trial: &Trial<'_>, number: usize, tally: &mut Tally) {
    let judged = quietly(|| trial.judge(number));
    let kind = trial.object.kind;
    let counts = tally.kinds.entry(kind).or_default();
    counts.trials += 1;
    match judged.unwrap_or_else(|panic| Err(format!("panicked: {panic}"))) {
        Ok(found) => {
            counts.named += u64::from(found.named);
            counts.right += u64::from(found.right);
            counts.unseen += u64::from(!found.named);
            counts.repairs += found.repairs;
        }
        Err(what) => tally.failure(kind, &what, trial.describe(&what)),
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// What a panic said, if there was one.
pub fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if QUIET.get() {
                log::info!("{info}");
            } else {
                before(info);
            }
        }));
    });
    heard::take();
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    QUIET.set(false);
    result.map_err(|_| heard::take().join("; "))
}

struct Trial<'a> {
    scene: &'a Scene,
    places: &'a Places,
    object: &'a Object,
    damage: Damage,
    is_repaired: bool,
}

/// What came of a trial that went as it must.
#[derive(Default)]
struct Found {
    /// Somebody named the object.
    named: bool,
    /// Somebody read everything.
    right: bool,
    /// What repairs made of it.
    repairs: Repairs,
}

impl Trial<'_> {
    fn describe(&self, what: &str) -> String {
        let Trial { scene, object, damage, .. } = self;
        format!("{}: {:?} {} {damage:?}: {what}", scene.name, object.kind, object.name)
    }

    fn machine(&self) -> Machine {
        let machine = self.scene.machine();
        let (name, bytes) = (&self.object.name, self.damage.apply(&self.object.bytes));
        if self.object.local {
            machine.disk.remove(name).expect("removed");
            machine.disk.create(name).and_then(|file| file.write_at(&bytes, 0)).expect("written");
        } else {
            machine.store.put(name, bytes.into()).expect("put");
        }
        machine
    }

    fn judge(&self, number: usize) -> Result<Found, String> {
        let (mut found, scene) = (Found::default(), self.scene);
        self.view("a mount", &mut found, &scene.local, views::local)?;
        if !self.object.local {
            self.view("a mount of the store alone", &mut found, &scene.stored, views::elsewhere)?;
            self.view("a follower", &mut found, &scene.stored, views::follow)?;
            self.check(&mut found, false)?;
        }
        self.check(&mut found, true)?;
        if number % GO_ON_EVERY == 0 {
            self.go_on()?;
        }
        if self.is_repaired {
            self.repair(&mut found)?;
        }
        if !found.named && !self.damage.is_spare(self.object) && self.object.unseen.is_none() {
            return Err("is seen by nobody".to_owned());
        }
        Ok(found)
    }

    /// Damage does not spread: whatever a mount that goes on for a while makes of it, what is read then is right or an error.
    fn go_on(&self) -> Result<(), String> {
        let machine = self.machine();
        let Ok(()) = views::go_on(&machine) else { return Ok(()) };
        for (who, see) in
            [("a mount", views::local as fn(&Machine) -> _), ("a mount of the store alone", views::elsewhere)]
        {
            let Ok(mut tree) = see(&machine) else { continue };
            // The name of what was written changes its directory.
            tree.retain(|path, node| node.is_err() || path != views::WRITTEN && path != "/");
            let expected = if who == "a mount" { &self.scene.local } else { &self.scene.stored };
            let mut later = expected.clone();
            later.remove("/");
            if who != "a mount" {
                // Some of it is shipped by now.
                let shipped = self.scene.local.iter().filter(|(path, _)| tree.contains_key(*path));
                later.extend(shipped.map(|(path, node)| (path.clone(), node.clone())));
            }
            if let Some(wrong) = views::difference(&later, &tree) {
                return Err(format!("{who}, after one that went on, finds {wrong}"));
            }
        }
        Ok(())
    }

    /// What a repair makes of it, with the state directory and, of an object of the store, without.
    fn repair(&self, found: &mut Found) -> Result<(), String> {
        for with_state in [true, false].into_iter().filter(|with_state| *with_state || !self.object.local) {
            let scene = (self.scene, self.places);
            found.repairs += repaired::judge(scene, &self.machine(), self.object, self.damage, with_state)?;
        }
        Ok(())
    }

    fn names(&self, said: &str) -> bool {
        self.object.called.iter().any(|name| said.contains(name.as_str()))
    }

    fn view(
        &self,
        who: &str,
        found: &mut Found,
        expected: &Tree,
        see: impl Fn(&Machine) -> Result<Tree, MountError>,
    ) -> Result<(), String> {
        heard::take();
        let machine = self.machine();
        let errors = match see(&machine) {
            Err(e) => vec![e.to_string()],
            Ok(tree) => {
                if let Some(wrong) = views::difference(expected, &tree) {
                    return Err(format!("{who} finds {wrong}"));
                }
                tree.into_values().filter_map(Result::err).collect()
            }
        };
        let calls = machine.store.calls().sum();
        if calls > CALLS_MAX {
            return Err(format!("{who} asks the store {calls} times"));
        }
        found.right |= errors.is_empty();
        for error in &errors {
            if !self.names(error) {
                return Err(format!("{who} fails and does not name it: {error}"));
            }
        }
        found.named |= !errors.is_empty() || heard::take().iter().any(|line| self.names(line));
        Ok(())
    }

    fn check(&self, found: &mut Found, state: bool) -> Result<(), String> {
        let report = views::checked(&self.machine(), state);
        let lines: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
        let named = lines.iter().any(|line| self.names(line));
        found.named |= named;
        match (report.is_clean(), named) {
            (false, false) => Err(format!("check (state {state}) does not name it: {lines:?}")),
            (true, _) if self.must_be_checked(state) => Err(format!("check (state {state}) is clean")),
            _ => Ok(()),
        }
    }

    /// Everything but copies and stale bytes.
    fn must_be_checked(&self, state: bool) -> bool {
        let of_no_use = self.object.unseen.is_some() || self.damage.is_spare(self.object);
        !of_no_use && (state || !self.object.local)
    }
}
