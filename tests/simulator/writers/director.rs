//! One history: which machine goes on, what happens to it, and what is looked at meanwhile.

use super::figures::Figures;
use super::host::{Command, Done, Host, Slot};
use super::reader::Reader;
use super::stage::{Odds, OneIn, Stage};
use super::truth::Held;
use super::turns::DIRECTOR;
use crate::crash::quietly;
use crate::model::driver::Driver;
use crate::oracle::check_clean;
use crate::world::{Machine, cache_disk, new_store, tuning};
use parking_lot::Mutex;
use skylog::base::canary::{Canary, with_removed};
use skylog::base::clock::{Clock, SimClock};
use skylog::base::random::SeededRandom;
use skylog::media::sim::{Call, CallLog, Image, Limits, Platter, SimDisk};
use skylog::store::sim::SimStore;
use std::sync::Arc;
use std::time::Duration;

/// Turns of a history.
const TURNS: u64 = 400;
/// Turns of a long pause, at most.
const PAUSE_MAX: u64 = 160;
/// Longer than any grace time and any lease.
const LONG: Duration = Duration::from_secs(700);

/// What the director knows of a machine.
struct Player {
    slot: Arc<Mutex<Slot>>,
    /// In the middle of a command.
    busy: bool,
    /// A filesystem is mounted.
    mounted: bool,
    /// What is on its disk was refused.
    refused: bool,
    /// Nothing goes on there before this turn.
    paused: u64,
    copy: Option<(Image, Held)>,
}

/// Who decides.
pub struct Director {
    stage: Arc<Stage>,
    players: Vec<Player>,
    turn: u64,
    /// A machine that follows.
    reader: Option<Reader>,
}

/// Runs the history of a seed without a rule, or with all of them.
pub fn run(seed: u64, removed: Option<Canary>) -> Result<Figures, String> {
    run_beside(seed, removed, Reader::of(seed))
}

/// The same with a machine that follows, or none.
pub fn run_beside(seed: u64, removed: Option<Canary>, reader: Option<Reader>) -> Result<Figures, String> {
    let random = SeededRandom::new(seed);
    let machines = 2 + usize::try_from(random.below(2)).expect("few");
    let pick = |of: [u64; 4]| OneIn(of[usize::try_from(random.below(4)).expect("few")]);
    let odds = Odds { pause: pick([2, 4, 8, 8]), fault: pick([0, 12, 30, 60]) };
    let mut tuning = tuning(&random);
    tuning.cache_files = None;
    let made = new_store(&CallLog::new(), &SimClock::default(), &random);
    let store = SimStore::from_image(&made.image(), &CallLog::new());
    let stage = Arc::new(Stage::new(machines, random, tuning, odds, store));
    let slot = |_| {
        let disk = SimDisk::new(&CallLog::new());
        let slot = Slot { command: None, outcome: None, disk, held: None, life: None, wire: None, fenced: false };
        Arc::new(Mutex::new(slot))
    };
    let slots: Vec<_> = (0..machines).map(slot).collect();
    let result = std::thread::scope(|threads| {
        for (i, slot) in slots.iter().enumerate() {
            let host = Host::new(&stage, i + 1, slot);
            threads.spawn(move || match removed {
                Some(rule) => with_removed(rule, || host.live()),
                None => host.live(),
            });
        }
        let mut director = Director::new(&stage, &slots, reader);
        let result = quietly(|| director.history());
        director.end();
        result
    });
    result.map(|()| stage.figures())
}

impl Director {
    fn new(stage: &Arc<Stage>, slots: &[Arc<Mutex<Slot>>], reader: Option<Reader>) -> Director {
        let player = |slot: &Arc<Mutex<Slot>>| Player {
            slot: slot.clone(),
            busy: false,
            mounted: false,
            refused: false,
            paused: 0,
            copy: None,
        };
        Director { stage: stage.clone(), players: slots.iter().map(player).collect(), turn: 0, reader }
    }

    fn history(&mut self) {
        while self.turn < TURNS {
            self.turn += 1;
            if let Some(reader) = &mut self.reader {
                reader.go_on(&self.stage);
            }
            match self.stage.below(100) {
                0..=4 => drop(self.stage.land()),
                5..=10 => self.time_goes_on(),
                11..=12 => self.disaster(),
                13 if self.stage.one_in(3) => self.look(),
                14 => {
                    let i = self.stage.below(self.players.len());
                    self.copy(i);
                }
                _ => self.somebody_goes_on(),
            }
        }
        self.finish();
    }

    fn time_goes_on(&self) {
        let wait = [1, 60, 300, 1100, 5000, 30_000][self.stage.below(6)];
        self.stage.clock.advance(Duration::from_millis(wait));
    }

    fn somebody_goes_on(&mut self) {
        let awake: Vec<usize> = (0..self.players.len()).filter(|i| self.players[*i].paused <= self.turn).collect();
        if awake.is_empty() {
            return;
        }
        let i = awake[self.stage.below(awake.len())];
        if self.players[i].busy {
            self.resume(i);
        } else if self.players[i].mounted {
            self.work(i);
        } else if !self.is_anybody_writing() || self.stage.one_in(50) {
            self.mount(i);
        }
    }

    /// Whether a machine is there that may write, or is about to.
    fn is_anybody_writing(&self) -> bool {
        let may = |player: &Player| {
            let slot = player.slot.lock();
            player.paused <= self.turn && (player.mounted && !slot.fenced || player.busy)
        };
        self.players.iter().any(may)
    }

    /// A machine does something.
    fn work(&mut self, i: usize) {
        let fenced = self.players[i].slot.lock().fenced;
        if fenced && self.stage.one_in(6) {
            return self.kill(i, false);
        }
        let command = match self.stage.below(20) {
            0..=4 => Command::Op,
            5 => Command::Writer,
            6 => Command::Checkpointer,
            7 => Command::Shipper,
            8..=9 => Command::Syncer,
            10..=15 => Command::Go(1 + self.stage.below(6)),
            16 => Command::Want,
            17..=18 => Command::Fsync,
            _ if self.stage.one_in(6) => Command::Switch,
            _ => Command::Fsync,
        };
        self.tell(i, command);
    }

    fn mount(&mut self, i: usize) {
        if self.players[i].refused && !self.stage.one_in(4) {
            self.wipe(i);
        }
        self.tell(i, Command::Mount);
    }

    /// Gives a command, and lets the machine go as far as it gets.
    fn tell(&mut self, i: usize, command: Command) {
        self.stage.tell(|| format!("turn {}: machine {} is told {command:?}", self.turn, i + 1));
        self.players[i].slot.lock().command = Some(command);
        if matches!(command, Command::Mount) {
            self.players[i].mounted = false;
        }
        self.players[i].busy = true;
        self.resume(i);
    }

    /// Lets a machine go on.
    fn resume(&mut self, i: usize) {
        self.stage.turns.hand(DIRECTOR, i + 1);
        let Some(outcome) = self.players[i].slot.lock().outcome.take() else {
            let stopped = self.players[i].slot.lock().wire.as_ref().is_some_and(|wire| wire.take_stopped());
            if stopped {
                self.pause(i);
            }
            return;
        };
        self.players[i].busy = false;
        self.stage.tell(|| format!("turn {}: machine {}: {outcome:?}", self.turn, i + 1));
        let done = outcome.unwrap_or_else(|e| panic!("machine {}: {e}", i + 1));
        let life = self.players[i].slot.lock().life;
        let dead = self.players[i].slot.lock().wire.as_ref().is_some_and(|wire| wire.is_dead());
        if dead {
            return;
        }
        match done {
            Done::Fine => self.players[i].mounted = life.is_some(),
            Done::Refused => {
                self.players[i].refused = true;
                self.gone(i, false);
            }
            Done::Failed => self.gone(i, false),
            Done::Trouble => self.kill(i, false),
            Done::Closed => self.closed(i),
        }
    }

    /// A machine stands in a call for a long time.
    fn pause(&mut self, i: usize) {
        self.players[i].paused = self.turn + 10 + self.stage.random.below(PAUSE_MAX);
        self.stage.count(|figures| figures.pauses += 1);
        if self.stage.one_in(2) {
            self.stage.clock.advance(LONG);
        }
    }

    /// Something happens to a machine.
    fn disaster(&mut self) {
        let i = self.stage.below(self.players.len());
        match self.stage.below(15) {
            0..=4 => {
                let calls = 1 + self.stage.random.below(12);
                self.players[i].slot.lock().wire.iter().for_each(|wire| wire.stop_in(calls));
            }
            5 => self.kill(i, false),
            6 => self.kill(i, true),
            7 => {
                self.kill(i, false);
                self.wipe(i);
            }
            8..=9 => self.put_back(i),
            10 => self.race(),
            11 => {
                let slot = self.players[i].slot.lock();
                if let Some(wire) = &slot.wire {
                    let down = wire.is_down();
                    wire.set_down(!down);
                    self.stage.count(|figures| figures.outages += u64::from(!down));
                }
            }
            12 if self.players[i].mounted && !self.players[i].busy => self.tell(i, Command::Close),
            13 => self.stage.lose_adrift(),
            _ => self.players[i].paused = self.turn + self.stage.random.below(40),
        }
    }

    /// All machines that do nothing take over, at once.
    fn race(&mut self) {
        let idle: Vec<usize> = (0..self.players.len()).filter(|i| !self.players[*i].busy).collect();
        let mut racers = 0;
        for i in idle {
            if self.players[i].mounted {
                if self.stage.one_in(2) {
                    continue;
                }
                self.kill(i, false);
            }
            self.wipe(i);
            self.tell(i, Command::Mount);
            racers += u64::from(self.players[i].busy);
        }
        self.stage.count(|figures| figures.races += u64::from(racers > 1));
    }

    /// A process is gone, and with `power` all that its disk had not made durable.
    fn kill(&mut self, i: usize, power: bool) {
        let wire = self.players[i].slot.lock().wire.clone();
        let Some(wire) = wire.filter(|_| self.players[i].busy || self.players[i].mounted) else { return };
        wire.kill();
        self.stage.tell(|| format!("turn {}: machine {} dies, with its power {power}", self.turn, i + 1));
        self.stage.count(|figures| if power { figures.cuts += 1 } else { figures.kills += 1 });
        self.gone(i, power);
        if self.players[i].busy {
            // It goes on to the end of what it does, and reaches nothing any more.
            self.resume(i);
            assert!(!self.players[i].busy, "a dead machine stops nowhere");
        }
        self.tell(i, Command::Drop);
        self.players[i].mounted = false;
        self.players[i].paused = 0;
    }

    /// What is left of a process that ended.
    fn gone(&mut self, i: usize, power: bool) {
        let slot = self.players[i].slot.clone();
        let mut slot = slot.lock();
        let image = if power { self.after_cut(&slot.disk) } else { slot.disk.image() };
        slot.disk = SimDisk::from_image(&image, &CallLog::new());
        if let Some(wire) = &slot.wire {
            wire.kill();
        }
        let mut truth = self.stage.truth.lock();
        if let Some(life) = slot.life.take() {
            let unanswered = truth.waiting(life);
            self.stage.count(|figures| figures.unanswered += unanswered);
            if let Some(held) = truth.bury(life) {
                slot.held = Some(held);
            }
        }
        slot.fenced = false;
        self.players[i].mounted = false;
    }

    /// One of the states in which a power cut may leave a disk.
    fn after_cut(&self, disk: &SimDisk) -> Image {
        let mut platter = Platter::new(disk.start());
        for call in disk.log().calls() {
            if let Call::Disk(_, call) = call {
                platter.apply(&call);
            }
        }
        let limits = Limits { subsets_up_to: 3, tears_max: 4, random: 4, plans_max: 8, seed: self.stage.seed() };
        let at = self.stage.below(8);
        platter.crashes(&limits, 1).nth(at).map_or_else(|| platter.durable(), |crashed| crashed.image)
    }

    fn closed(&mut self, i: usize) {
        self.stage.count(|figures| figures.closes += 1);
        self.gone(i, false);
        // All of it was made durable.
        let slot = self.players[i].slot.clone();
        let mut slot = slot.lock();
        if let Some(held) = &mut slot.held {
            held.from = held.to;
        }
    }

    /// A new disk.
    fn wipe(&mut self, i: usize) {
        if self.players[i].busy || self.players[i].mounted {
            return;
        }
        let slot = self.players[i].slot.clone();
        let mut slot = slot.lock();
        slot.disk = SimDisk::new(&CallLog::new());
        slot.held = None;
        slot.life = None;
        slot.wire = None;
        self.players[i].refused = false;
        self.stage.tell(|| format!("turn {}: machine {} is wiped", self.turn, i + 1));
        self.stage.count(|figures| figures.wipes += 1);
    }

    /// Somebody copies the disk of a machine.
    fn copy(&mut self, i: usize) {
        let slot = self.players[i].slot.clone();
        let slot = slot.lock();
        let truth = self.stage.truth.lock();
        let image = slot.disk.image();
        if image.file("MANIFEST").is_none() || self.players[i].busy {
            return;
        }
        let held = match slot.life {
            Some(life) => {
                Held { life, from: truth.synced(life), to: truth.line(life).len(), old: truth.life(life).old }
            }
            None => slot.held.clone().expect("a manifest that somebody wrote"),
        };
        drop(truth);
        self.players[i].copy = Some((image, held));
    }

    /// An earlier copy of its disk is put back.
    fn put_back(&mut self, i: usize) {
        let Some((image, held)) = self.players[i].copy.clone() else { return };
        self.kill(i, false);
        // Nobody puts a copy back while calls of what came after it are under way: it gives the same numbers to other segments.
        self.stage.lose_adrift();
        let slot = self.players[i].slot.clone();
        let mut slot = slot.lock();
        slot.disk = SimDisk::from_image(&image, &CallLog::new());
        slot.held = Some(Held { old: true, ..held });
        slot.life = None;
        self.players[i].refused = false;
        self.stage.tell(|| format!("turn {}: machine {} gets an earlier copy", self.turn, i + 1));
        self.stage.count(|figures| figures.copies += 1);
    }

    /// What a reader of the store alone sees.
    fn look(&self) {
        let machine = self.reader();
        let mut instance = machine.mount(self.stage.seed()).unwrap_or_else(|e| panic!("a reader cannot mount: {e}"));
        let tree = instance.tree();
        let numbers = Driver::default().numbers(&mut instance).expect("numbers can be read");
        let truth = self.stage.truth.lock();
        let seen = truth.seen_last();
        let found = crate::book::digest(&tree);
        assert_eq!(found, seen.digest, "a reader sees something else than was published: {:?}", truth.seen_len());
        let born = truth.seen_numbers();
        let mut compared = 0;
        for (path, id) in seen.model.ids() {
            if let Some(number) = born.get(&id) {
                assert_eq!(numbers.get(&path), Some(number), "{path} has another number");
                compared += 1;
            }
        }
        truth.check();
        self.stage.count(|figures| {
            figures.looks += 1;
            figures.numbers += compared;
        });
    }

    /// A machine with nothing, and a copy of the store.
    fn reader(&self) -> Machine {
        let log = CallLog::new();
        let clock = Arc::new(SimClock::default());
        clock.advance(self.stage.clock.elapsed());
        Machine {
            disk: SimDisk::new(&log),
            cache: cache_disk(),
            store: SimStore::from_image(&self.stage.store.image(), &log),
            clock,
            tuning: self.stage.tuning.clone(),
            tolerant: false,
        }
    }

    /// All is well again: whoever is the writer ships everything, and everybody else has lost.
    fn finish(&mut self) {
        while !self.stage.one_in(4) && self.stage.land() {}
        for i in 0..self.players.len() {
            self.players[i].paused = 0;
            if let Some(wire) = &self.players[i].slot.lock().wire {
                wire.set_down(false);
                wire.set_calm(true);
            }
            while self.players[i].busy {
                self.resume(i);
                self.calm(i);
            }
        }
        for i in 0..self.players.len() {
            self.calm(i);
            if self.players[i].mounted {
                self.tell(i, Command::Drain);
            }
        }
        let owner = (0..self.players.len()).find(|i| self.is_owner(*i));
        let owner = owner.unwrap_or_else(|| self.take_over());
        self.look();
        if let Some(reader) = &mut self.reader {
            reader.finish(&self.stage);
        }
        let life = self.players[owner].slot.lock().life.expect("mounted");
        let truth = self.stage.truth.lock();
        let line = truth.line(life);
        assert!(
            truth.seen_len() >= line.last_change(line.len()),
            "the last writer is drained, and not all is published"
        );
        let (published, logs, closings, strays) = (truth.published, truth.logs, truth.closings, truth.strays);
        let (deletes, unshipped) = (truth.deletes, truth.unshipped);
        // Who goes on from an earlier copy gives numbers again that nothing published names: readers are right, the accounts of
        // what may be deleted need not be.
        let accounts = !truth.life(life).old;
        drop(truth);
        let reader = self.reader();
        let disk = SimDisk::from_image(&self.players[owner].slot.lock().disk.image(), &CallLog::new());
        if accounts {
            check_clean("at the end", &Machine { disk, ..reader }, true);
        }
        self.stage.count(|figures| {
            figures.histories += 1;
            figures.checks += u64::from(accounts);
            figures.published += published;
            figures.logs += logs;
            figures.strays += strays;
            figures.closings += closings;
            figures.deleted += deletes;
            figures.unshipped += unshipped;
        });
    }

    fn calm(&self, i: usize) {
        if let Some(wire) = &self.players[i].slot.lock().wire {
            wire.set_down(false);
            wire.set_calm(true);
        }
    }

    fn is_owner(&self, i: usize) -> bool {
        let slot = self.players[i].slot.lock();
        let life = slot.life.filter(|_| self.players[i].mounted && !slot.fenced);
        life.is_some_and(|life| !self.stage.truth.lock().is_superseded(life))
    }

    /// Nobody is left: somebody begins from the store alone, and changes something.
    fn take_over(&mut self) -> usize {
        self.kill(0, false);
        self.wipe(0);
        for _ in 0..8 {
            self.tell(0, Command::Mount);
            while self.players[0].busy {
                self.calm(0);
                self.resume(0);
            }
            self.calm(0);
            for command in [Command::Drain, Command::Op, Command::Drain] {
                if self.players[0].mounted {
                    self.tell(0, command);
                }
            }
            if self.players[0].mounted {
                return 0;
            }
        }
        panic!("nobody can take over");
    }

    /// Ends all threads, whatever they were doing.
    fn end(&mut self) {
        for (i, player) in self.players.iter().enumerate() {
            if let Some(wire) = &player.slot.lock().wire {
                wire.kill();
            }
            if player.busy && player.slot.lock().outcome.is_none() {
                self.stage.turns.hand(DIRECTOR, i + 1);
            }
            player.slot.lock().command = Some(Command::End);
            self.stage.turns.hand(DIRECTOR, i + 1);
        }
    }
}
