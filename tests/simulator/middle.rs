//! How a mount ends in the middle of a history, and how the next one begins: here, or on another machine.

use crate::book::Book;
use crate::crash::any_at_end;
use crate::model::driver::Driver;
use crate::model::op::{Call, Op, ROOT};
use crate::run::Runner;
use crate::world::{Actor, Machine, cache_disk, next_time};
use skylog::base::random::Random;
use skylog::media::sim::{CallLog, Image, SimDisk};
use skylog::recovery::MountError;
use skylog::store::sim::SimStore;
use std::time::Duration;

/// What happens in the middle of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Middle {
    /// Unmounted and mounted again.
    Remount,
    /// The process dies, the machine lives.
    Kill,
    /// The power goes.
    PowerCut,
    /// Unmounted; another machine mounts.
    Moved,
    /// The machine is lost; another one mounts.
    Takeover,
    /// Another machine mounts while the first still works.
    Rival,
    /// The process or the power goes while the store is away: mounted from local state alone.
    Offline,
    /// Another machine takes over; then the first mounts from local state alone, while the store is away.
    Late,
}

impl Middle {
    /// The first of the history of a seed: each of them comes up.
    pub fn of(seed: u64) -> Middle {
        use Middle::{Kill, Late, Moved, Offline, PowerCut, Remount, Rival, Takeover};
        match seed % 8 {
            6 => Offline,
            7 => Late,
            _ => [Remount, Kill, PowerCut, Moved, Takeover, Rival][usize::try_from(seed % 6).expect("few")],
        }
    }

    /// The second, by a random number below 6. Histories that had no outage at a mount before stay as they were.
    pub fn second(seed: u64, number: u64) -> Middle {
        let number = if seed % 8 > 5 && number < 2 { number + 6 } else { number };
        Middle::of(number)
    }
}

impl Runner {
    /// Ends the mount in one way or another, and mounts again.
    pub fn middle(&mut self, middle: Middle) {
        if middle == Middle::Moved || self.one_in(3) {
            self.drain();
        }
        self.machine.store.heal();
        self.machine.store.set_down(false);
        if self.one_in(2) {
            // What was done last is written and not synced, unless the policy says so.
            self.op();
            self.machine.clock.advance(Duration::from_millis(300));
            self.step(Actor::Writer);
        }
        let shipped = self.book.last().shipped;
        self.driver = Driver::default();
        let old = self.instance.take().expect("mounted");
        self.figures.add(&old);
        match middle {
            Middle::Remount => {
                old.close();
                let n = self.line().len();
                self.book.note(|note| note.synced = n);
                self.mount();
            }
            Middle::Kill => {
                drop(old);
                self.mount();
            }
            Middle::PowerCut => {
                drop(old);
                self.cut_power(false);
            }
            Middle::Moved => {
                old.close();
                self.move_on(shipped);
            }
            Middle::Takeover => {
                drop(old);
                self.move_on(shipped);
            }
            Middle::Rival => {
                self.move_on(shipped);
                // What the rival hears of late was in the store before it lost it.
                let found = self.instance().mounted.checkpointer.figures().lock().checkpoint_lsn;
                self.rival = Some((old, found));
            }
            Middle::Offline => {
                drop(old);
                self.offline();
            }
            Middle::Late => {
                drop(old);
                self.late(shipped);
            }
        }
    }

    /// Mounted without the store, once or twice, and used; it comes back now or later.
    fn offline(&mut self) {
        for _ in 0..1 + self.below(2) {
            self.instance = None;
            self.driver = Driver::default();
            match self.one_in(2) {
                true => self.cut_power(true),
                false => {
                    self.machine.store.set_down(true);
                    self.mount();
                }
            }
            for _ in 0..self.below(5) {
                self.op();
                self.churn(5);
            }
        }
        if self.one_in(2) {
            self.machine.store.set_down(false);
        }
    }

    /// The first machine knows nothing of the second, works on, and finds out when the store answers it.
    fn late(&mut self, shipped: usize) {
        let first = self.machine.clone();
        self.move_on(shipped);
        first.store.set_down(true);
        let mounted = first.mount(self.random.u64());
        let found = self.instance().mounted.checkpointer.figures().lock().checkpoint_lsn;
        match mounted {
            Ok(mut instance) => {
                let make = Call::Create { path: "/made too late".to_owned(), mode: 0o644 };
                // Whether it can be made there does not matter.
                let _ = Driver::default().apply(
                    &mut instance,
                    next_time(self.line().last()),
                    &Op { who: ROOT, call: make },
                );
                instance.mounted.checkpointer.wanted().checkpoint();
                self.figures.offline += 1;
                self.rival = Some((instance, found));
            }
            Err(MountError::NotLocal { .. }) => {}
            Err(e) => panic!("the mount without the store failed: {e}"),
        }
        first.store.set_down(false);
    }

    /// Mounts on a fresh disk.
    fn move_on(&mut self, shipped: usize) {
        self.end_span();
        let images = [self.machine.disk.image(), self.machine.disk.image_durable()];
        self.lost.extend(images.into_iter().filter(|disk| disk.file("MANIFEST").is_some()));
        self.machine.disk = SimDisk::new(&self.log);
        self.machine.cache = cache_disk();
        self.book.note(|note| note.synced = shipped);
        self.begin_here();
        self.mount();
        self.figures.takeovers += 1;
        let n = self.line().len();
        self.book.note(|note| note.shipped = n);
        self.check_fence();
    }

    /// What machines have that were taken over from may not be mounted any more, however much later.
    pub fn check_fence(&mut self) {
        for disk in &self.lost {
            let log = CallLog::new();
            let store = SimStore::from_image(&self.machine.store.image(), &log);
            let disk = SimDisk::from_image(disk, &log);
            let machine = Machine { disk, cache: cache_disk(), store, ..self.machine.clone() };
            match machine.mount(1) {
                Err(MountError::Fenced(_)) => self.figures.fenced += 1,
                Err(e) => panic!("a machine that lost the fence is refused for another reason: {e}"),
                Ok(_) => panic!("a machine that lost the fence mounts"),
            }
        }
    }

    /// The power goes now, and comes back to one of the states that are possible.
    fn cut_power(&mut self, offline: bool) {
        self.end_stage();
        self.rival = None;
        let stage = self.stages.last().expect("just ended");
        let crash = any_at_end(stage, &self.random);
        let mut cached = stage.spans.last().expect("a stage ends with a span").cached.walk();
        cached.go_to(crash.after);
        let cache = cached.image(self.cache_random.u64());
        self.figures.bytes_lost += crash.bytes_lost;
        self.log = CallLog::new();
        self.machine.disk = SimDisk::from_image(&crash.disk, &self.log);
        self.machine.cache = SimDisk::from_image(&cache, &CallLog::new());
        self.machine.store = SimStore::from_image(&crash.store, &self.log);
        self.machine.store.set_down(offline);
        self.book = Book::new(&self.log, self.book.last());
        self.begin_here();
        let late = crash.late.as_ref().filter(|_| self.one_in(2));
        late.into_iter().for_each(|call| self.machine.store.land(call));
        self.mount();
        crash.late.as_ref().filter(|_| late.is_none()).into_iter().for_each(|call| self.machine.store.land(call));
        self.figures.late_puts += u64::from(crash.late.is_some());
    }
}

/// The disks of machines that were taken over from.
pub type Lost = Vec<Image>;
