//! A machine that follows the writers: each state that it reads is one that was published, none is older than the one before,
//! and one that it goes on reading stays as it was, whoever writes and deletes meanwhile, as long as its lease holds.

use super::stage::Stage;
use crate::book::digest;
use crate::model::driver::{Driver, Mount};
use crate::model::op::Who;
use skylog::base::clock::Time;
use skylog::base::random::{Random, SeededRandom};
use skylog::cache;
use skylog::follow::{self, Opened, Progress};
use skylog::fs::{self, Cx, DiskSpace, Fs, Options};
use skylog::map::Seen;
use skylog::media::sim::{CallLog, SimDisk};
use skylog::recovery::World;
use skylog::volume::resolve;
use std::sync::Arc;

/// What makes its dice others than those of the history.
const READER_DICE: u64 = 0x7265_6164;
/// Rounds after which a read is stuck.
const ROUNDS_MAX: u32 = 3000;

/// The machine, on which a follower is mounted or not.
pub struct Reader {
    random: SeededRandom,
    mounted: Option<Follower>,
}

/// A mount that follows.
struct Follower {
    opened: Opened,
    fs: Fs,
    /// So many operations were in the newest state that was read.
    seen: usize,
    /// A state that someone holds open, and what was read of it.
    held: Option<(Arc<Seen>, u64)>,
}

/// Reads one state.
struct Reads<'a> {
    follower: &'a Follower,
    state: Arc<Seen>,
}

impl Reader {
    /// In one history of three there is one.
    pub fn of(seed: u64) -> Option<Reader> {
        let random = SeededRandom::new(!seed ^ READER_DICE);
        (random.below(3) == 0).then(|| Reader { random, mounted: None })
    }

    /// Something goes on there, or nothing.
    pub fn go_on(&mut self, stage: &Stage) {
        let what = self.random.below(24);
        let Some(follower) = &mut self.mounted else {
            if what < 2 {
                self.mounted = Some(Follower::mount(stage, self.random.u64()));
            }
            return;
        };
        match what {
            0..=9 => follower.step(stage),
            10..=11 => drop(follower.look(stage)),
            12..=13 => follower.hold(stage),
            14..=15 => follower.look_again(stage),
            16 if self.random.below(8) == 0 => {
                follower.opened.renewal.release();
                self.mounted = None;
            }
            17 if self.random.below(8) == 0 => self.mounted = None,
            _ => {}
        }
    }

    /// Everything is published and nothing goes on: in the end it sees all.
    pub fn finish(&mut self, stage: &Stage) {
        let Some(follower) = &mut self.mounted else { return };
        for _ in 0..200 {
            stage.clock.advance(follow::POLL);
            follower.step(stage);
        }
        follower.look(stage);
        assert_eq!(follower.seen, stage.truth.lock().seen_len(), "a follower does not get to the end");
    }
}

impl Follower {
    fn mount(stage: &Stage, seed: u64) -> Follower {
        let disk = Arc::new(SimDisk::new(&CallLog::new()));
        let world = World {
            media: disk.clone(),
            cache_media: disk,
            store: Arc::new(stage.store.clone()),
            clock: stage.clock.clone(),
            random: Arc::new(SeededRandom::new(seed)),
            known: None,
        };
        let opened = follow::open(&world, &stage.tuning).unwrap_or_else(|e| panic!("a follower cannot mount: {e}"));
        let fs = Fs::new(opened.db.clone(), Options { write_bytes_max: 1 << 20, space: Box::new(DiskSpace::default) });
        stage.count(|figures| figures.follows += 1);
        Follower { opened, fs, seen: 0, held: None }
    }

    /// All that it can do now.
    fn step(&mut self, stage: &Stage) {
        self.opened.renewal.step();
        while self.opened.keeper.as_mut().is_some_and(|keeper| keeper.step() == cache::Progress::Worked) {}
        loop {
            match self.opened.follower.step() {
                Progress::Idle => return,
                Progress::Worked => {}
                Progress::Advanced(_) => stage.count(|figures| figures.advanced += 1),
            }
        }
    }

    fn newest(&self) -> Arc<Seen> {
        self.opened.db.seen().expect("a follower reads states")
    }

    /// What a state holds; nothing when the lease was lost under which it may be read.
    fn read(&self, state: &Arc<Seen>) -> Option<u64> {
        let mut reads = Reads { follower: self, state: state.clone() };
        match Driver::default().tree(&mut reads) {
            Ok(tree) => Some(digest(&tree)),
            Err(errno) => {
                assert!(state.is_lost(), "a state that is held cannot be read: errno {errno}");
                None
            }
        }
    }

    /// Reads the newest state it has.
    fn look(&mut self, stage: &Stage) -> Option<u64> {
        let found = self.read(&self.newest())?;
        let n = stage.truth.lock().find_seen(found, self.seen);
        let n = n.unwrap_or_else(|| panic!("a follower sees what was never published, or is older than {}", self.seen));
        self.seen = n;
        stage.count(|figures| figures.followed += 1);
        Some(found)
    }

    fn hold(&mut self, stage: &Stage) {
        let state = self.newest();
        self.held = self.look(stage).map(|found| (state, found));
    }

    /// Reads a state again that someone holds open.
    fn look_again(&mut self, stage: &Stage) {
        let Some((state, before)) = self.held.take() else { return };
        match self.read(&state) {
            Some(found) => {
                assert_eq!(found, before, "a state that a follower holds changed");
                stage.count(|figures| figures.held += 1);
                self.held = Some((state, before));
            }
            None => stage.count(|figures| figures.leases_lost += 1),
        }
    }
}

impl Mount for Reads<'_> {
    fn run<T>(&mut self, who: Who, now: Time, mut op: impl FnMut(&Fs, &Cx) -> Result<T, fs::Stop>) -> Result<T, i32> {
        let seen = Some(self.state.clone());
        let mut cx = Cx { uid: who.uid, gid: who.gid, now, caller: who.caller(), seen, ..Cx::default() };
        let Opened { db, nodes, renewal, .. } = &self.follower.opened;
        for _ in 0..ROUNDS_MAX {
            let wait = match op(&self.follower.fs, &cx) {
                Ok(value) => return Ok(value),
                Err(fs::Stop::Error(error)) => return Err(error.errno()),
                Err(fs::Stop::Wait(wait)) => wait,
            };
            if let Err(e) = resolve(&wait, db, nodes, &mut cx.pins) {
                // Nothing fails on its way to the store: what is missing is gone.
                renewal.confirm();
                assert!(self.state.is_lost(), "what a state names that is held is gone: {e}");
                return Err(libc::ESTALE);
            }
        }
        panic!("a read of a follower waits for ever");
    }
}

/// Histories within which it must be found.
const HISTORIES_MAX: u64 = 3000;

#[test]
fn a_deletion_of_what_a_follower_may_read_is_missed() {
    let rule = skylog::base::canary::Canary::LeaseBeforeDelete;
    let found = (1..=HISTORIES_MAX).find_map(|seed| super::run_one(seed, Some(rule)).err());
    let found = found.unwrap_or_else(|| panic!("without {rule:?} nothing went wrong in {HISTORIES_MAX} histories"));
    println!("without {rule:?}: {}", found.lines().take(3).collect::<Vec<_>>().join(" "));
}
