//! How a mount ends in the middle of a history, and how the next one begins: here, or on another machine.

use crate::book::Book;
use crate::crash::states_at_end;
use crate::model::driver::Driver;
use crate::model::op::{Call, Op, ROOT};
use crate::run::Runner;
use crate::step::{Cut, Turn};
use crate::world::{Machine, cache_disk, next_time};
use skylog::media::sim::{CallLog, Image, SimDisk};
use skylog::recovery::MountError;
use skylog::store::sim::{SimStore, StoreImage};

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
    pub fn turn(&mut self, turn: &Turn) {
        if matches!(turn, Turn::Repair { harm: Some(harm), .. } if harm.target.takes_a_drain()) {
            self.drain();
        }
        let shipped = self.book.last().shipped;
        self.driver = Driver::default();
        let old = self.instance.take().expect("mounted");
        self.figures.add(&old);
        match turn {
            Turn::Remount { seed } => {
                self.figures.unmounts += 1;
                old.close();
                let n = self.line().len();
                self.book.note(|note| note.synced = n);
                self.mount(*seed);
            }
            Turn::Kill { seed } => {
                self.figures.kills += 1;
                drop(old);
                self.mount(*seed);
            }
            Turn::KillAway { seed } => {
                self.figures.kills += 1;
                drop(old);
                self.machine.store.set_down(true);
                self.mount(*seed);
            }
            Turn::PowerCut { cut, seed } => {
                drop(old);
                self.cut_power(cut, false, *seed);
            }
            Turn::PowerCutAway { cut, seed } => {
                drop(old);
                self.cut_power(cut, true, *seed);
            }
            Turn::Moved { seed } => {
                self.figures.unmounts += 1;
                old.close();
                self.move_on(shipped, *seed);
            }
            Turn::Takeover { seed } => {
                self.figures.kills += 1;
                drop(old);
                self.move_on(shipped, *seed);
            }
            Turn::Rival { seed } => {
                self.move_on(shipped, *seed);
                // What the rival hears of late was in the store before it lost it.
                let found = self.instance().mounted.checkpointer.figures().lock().checkpoint_lsn;
                self.rival = Some((old, found));
            }
            Turn::Late { seed, first } => {
                self.figures.kills += 1;
                drop(old);
                self.late(shipped, *seed, *first);
            }
            Turn::Repair { harm, clean, seed } => self.repair(old, harm.as_ref(), *clean, *seed),
        }
    }

    /// The first machine knows nothing of the second, works on, and finds out when the store answers it.
    fn late(&mut self, shipped: usize, seed: u64, first_seed: u64) {
        let first = self.machine.clone();
        self.move_on(shipped, seed);
        first.store.set_down(true);
        let mounted = first.mount(first_seed);
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
    fn move_on(&mut self, shipped: usize, seed: u64) {
        self.end_span();
        let images = [self.machine.disk.image(), self.machine.disk.image_durable()];
        self.lost.extend(images.into_iter().filter(|disk| disk.file("MANIFEST").is_some()));
        self.machine.disk = SimDisk::new(&self.log);
        self.machine.cache = cache_disk();
        self.book.note(|note| note.synced = shipped);
        self.begin_here();
        self.mount(seed);
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
                // A repair leaves what was damaged where it is, and a copy of it.
                Err(MountError::Damaged { .. }) if self.is_harmed => {}
                Err(e) => panic!("a machine that lost the fence is refused for another reason: {e}"),
                Ok(_) => panic!("a machine that lost the fence mounts"),
            }
        }
    }

    /// The power goes now, and comes back to one of the states that are possible.
    fn cut_power(&mut self, cut: &Cut, offline: bool, seed: u64) {
        self.end_stage();
        self.rival = None;
        let stage = self.stages.last().expect("just ended");
        let span = stage.spans.last().expect("a stage ends with a span");
        let mut states = states_at_end(&span.disk, &stage.store, cut.plans);
        let crash = states.swap_remove(cut.index % states.len());
        let mut cached = span.cached.walk();
        cached.go_to(crash.after);
        let cache = cached.image(cut.cache);
        self.figures.cuts += 1;
        self.figures.bytes_lost += crash.bytes_lost;
        self.machine.cache = SimDisk::from_image(&cache, &CallLog::new());
        self.begin_stage(&crash.disk, &crash.store);
        self.machine.store.set_down(offline);
        self.begin_here();
        let late = crash.late.as_ref().filter(|_| cut.late_first);
        late.into_iter().for_each(|call| self.machine.store.land(call));
        self.mount(seed);
        crash.late.as_ref().filter(|_| late.is_none()).into_iter().for_each(|call| self.machine.store.land(call));
        self.figures.late_puts += u64::from(crash.late.is_some());
    }

    /// Goes on with what is on disk and in the store, all of it durable, and a new log.
    pub fn begin_stage(&mut self, disk: &Image, store: &StoreImage) {
        self.log = CallLog::new();
        self.machine.disk = SimDisk::from_image(disk, &self.log);
        self.machine.store = SimStore::from_image(store, &self.log);
        self.book = Book::new(&self.log, self.book.last());
    }
}

/// The disks of machines that were taken over from.
pub type Lost = Vec<Image>;
