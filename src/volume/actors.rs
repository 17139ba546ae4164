//! The threads: each drives one step function.

use super::{Shared, follower};
use crate::cache::{self, Keeper};
use crate::checkpoint::jobs::Report;
use crate::checkpoint::{self, Checkpointer};
use crate::follow::Follower;
use crate::format::names::SUPERBLOCK;
use crate::journal::{self, Writer};
use crate::locate::SegmentReader;
use crate::recovery::Hold;
use crate::ship::Shipper;
use crate::ship::syncer::{Step, Syncer};
use crate::store::Store;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Threads that read what operations wait for, from a store on this machine,
const FETCHERS: usize = 2;
/// and from one that is far away, where each mostly waits.
const FETCHERS_FAR: usize = 16;
/// Beside those, threads that look for it on this machine only, so that a store which does not answer keeps nobody from that.
const NEAR: usize = 2;
/// Threads that fetch ahead from a store that is far away.
const AHEAD: usize = 4;
/// The longest an idle actor sleeps before it looks around by itself.
pub(super) const IDLE: Duration = Duration::from_millis(100);
/// Operations that wait for room are tried again this often,
const PRESSED_MIN: Duration = Duration::from_millis(5);
/// and more and more seldom, up to this, while none of them finds any.
const PRESSED_MAX: Duration = Duration::from_millis(100);
/// Threads that stand in a call to a store which does not answer hold up the end no longer than this, and once more as long
/// if they cannot be called off.
const STUCK_MAX: Duration = Duration::from_secs(2);

/// How often it is seen whether a thread has ended.
const ENDING: Duration = Duration::from_millis(2);

/// All threads of a volume.
pub(super) struct Threads {
    waiters: Vec<JoinHandle<()>>,
    checkpointer: Option<JoinHandle<()>>,
    /// Those that stand in calls to the store: the shipper, or what follows.
    callers: Vec<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
    end_keeper: Arc<AtomicBool>,
    journal: Option<JoinHandle<Result<(), String>>>,
    end_journal: Arc<AtomicBool>,
    store: Arc<dyn Store>,
}

pub(super) fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::Builder::new().name(name.to_owned()).spawn(body).expect("the system gives a few threads")
}

/// An actor without which nothing goes on: its panic ends all writing, with the reason in `status`, instead of leaving
/// everyone to wait for it.
fn spawn_actor(
    name: &'static str,
    shared: &Arc<Shared>,
    body: impl FnOnce(&Shared) + Send + 'static,
) -> JoinHandle<()> {
    let shared = shared.clone();
    spawn(name, move || {
        if catch_unwind(AssertUnwindSafe(|| body(&shared))).is_err() {
            let reason = format!("the {name} thread panicked; please report what the log says");
            shared.latch(reason.clone());
            // It may be the one that answers them.
            shared.end_fsyncs(&reason);
        }
    })
}

impl Threads {
    pub fn start(
        shared: &Arc<Shared>,
        writer: Writer,
        checkpointer: Checkpointer,
        shipper: Shipper,
        syncer: Syncer,
        keeper: Option<Keeper>,
        store: Arc<dyn Store>,
    ) -> Threads {
        let mut threads = Threads::start_waiters(shared, keeper, store);
        let (journal, end) = (shared.clone(), threads.end_journal.clone());
        let checkpointer = spawn_actor("checkpoint", shared, move |shared| run_checkpointer(shared, checkpointer));
        threads.checkpointer = Some(checkpointer);
        threads.callers.push(spawn_actor("ship", shared, move |shared| run_shipper(shared, shipper)));
        threads.callers.push(spawn_actor("sync-store", shared, move |shared| run_syncer(shared, syncer)));
        threads.journal = Some(spawn("journal", move || run_journal(&journal, writer, &end)));
        threads
    }

    /// Those of a follower.
    pub fn start_follower(
        shared: &Arc<Shared>,
        follower: Follower,
        keeper: Option<Keeper>,
        store: Arc<dyn Store>,
    ) -> Threads {
        let mut threads = Threads::start_waiters(shared, keeper, store);
        threads.callers.push(follower::start(shared, follower));
        threads.callers.push(follower::renew(shared));
        threads
    }

    /// Those by which operations end that wait, and who keeps what they fetch.
    fn start_waiters(shared: &Arc<Shared>, keeper: Option<Keeper>, store: Arc<dyn Store>) -> Threads {
        let [end_keeper, end_journal] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let reader = shared.db.locate().reader();
        let (fetchers, near, ahead) = if reader.is_some() { (FETCHERS_FAR, NEAR, AHEAD) } else { (FETCHERS, 0, 0) };
        let mut waiters: Vec<_> = (0..fetchers)
            .map(|n| {
                let (shared, store) = (shared.clone(), store.clone());
                spawn(&format!("fetch-{n}"), move || fetch(&shared, &*store))
            })
            .collect();
        for n in 0..near {
            let shared = shared.clone();
            waiters.push(spawn(&format!("near-{n}"), move || fetch_near(&shared)));
        }
        for (n, reader) in std::iter::repeat_n(reader, ahead).flatten().enumerate() {
            let (shared, reader) = (shared.clone(), reader.clone());
            waiters.push(spawn(&format!("ahead-{n}"), move || fetch_ahead(&shared, &reader)));
        }
        let gated = shared.clone();
        waiters.push(spawn("gate", move || gate(&gated)));
        let end_cache = end_keeper.clone();
        Threads {
            waiters,
            checkpointer: None,
            callers: Vec::new(),
            keeper: keeper.map(|keeper| spawn("cache", move || run_keeper(keeper, &end_cache))),
            journal: None,
            end_keeper,
            end_journal,
            store,
        }
    }

    /// Ends them in order. `stopping` is set already. Calls to the store that take too long are given up; the checkpointer,
    /// which writes the local disk, is then waited for, but who stands in a call that cannot be called off is left there: it
    /// changes nothing on the local disk any more, and what it still puts into the store is adopted or ignored as after a
    /// crash.
    pub fn join(self, shared: &Shared) -> Result<(), String> {
        shared.parking.wake();
        if let Some(reader) = shared.db.locate().reader() {
            reader.wake();
        }
        let mut left = STUCK_MAX;
        await_end(&self.waiters, &mut left);
        shared.pressure.end().into_iter().for_each(|answer| answer());
        shared.desk.wake();
        shared.stored.iter().for_each(|stored| stored.wake());
        await_end(self.checkpointer.iter().chain(&self.callers), &mut left);
        self.store.abandon();
        let _ = self.checkpointer.map(JoinHandle::join);
        let mut left = STUCK_MAX;
        for thread in self.waiters.into_iter().chain(self.callers) {
            await_end([&thread], &mut left);
            match thread.is_finished() {
                true => drop(thread.join()),
                false => log::warn!("the {} thread is left where it is", thread.thread().name().unwrap_or_default()),
            }
        }
        shared.end_fsyncs("the volume is closing");
        for task in shared.parking.drain() {
            task.refuse(shared, crate::fs::Error::Io);
        }
        self.end_keeper.store(true, Ordering::SeqCst);
        if let Some(keeper) = self.keeper {
            let _ = keeper.join();
        }
        self.end_journal.store(true, Ordering::SeqCst);
        let ended = self.journal.map_or(Ok(Ok(())), JoinHandle::join);
        ended.unwrap_or_else(|_| Err("the journal thread panicked".to_owned()))
    }
}

/// Waits until the threads have ended, as long as there is time `left`.
fn await_end<'a>(threads: impl IntoIterator<Item = &'a JoinHandle<()>>, left: &mut Duration) {
    for thread in threads {
        while !thread.is_finished() && !left.is_zero() {
            thread::sleep(ENDING.min(*left));
            *left = left.saturating_sub(ENDING);
        }
    }
}

pub(super) fn stopping(shared: &Shared) -> bool {
    shared.stopping.load(Ordering::SeqCst)
}

fn fetch(shared: &Shared, store: &dyn Store) {
    while !stopping(shared) {
        match shared.parking.next_fetch(IDLE) {
            Some(task) => task.fetch_and_resume(shared),
            // Nobody needs the store now, so nobody would notice that it is back: an outage ends by itself, in `status` too.
            None if shared.health.is_away() && shared.health.may_be_asked() => drop(store.size(SUPERBLOCK)),
            None => {}
        }
    }
}

fn fetch_near(shared: &Shared) {
    while !stopping(shared) {
        if let Some(task) = shared.parking.next_near(IDLE) {
            task.resume_if_near(shared);
        }
    }
}

fn fetch_ahead(shared: &Shared, reader: &SegmentReader) {
    while !stopping(shared) {
        // A panic is the end of one fetch, not of the thread; who waits for it was answered.
        let _ = catch_unwind(AssertUnwindSafe(|| reader.fetch_ahead(IDLE)));
    }
}

/// Looks after operations that wait for room, those that wait for a store that is away, and answers that are held back.
fn gate(shared: &Shared) {
    let mut pause = PRESSED_MIN;
    while !stopping(shared) {
        let sleep = || shared.pressure.next_due(shared.clock.elapsed()).map_or(IDLE, |due| due.min(IDLE));
        let pressed = shared.parking.all_pressed(sleep);
        if let Some(journal) = shared.db.journal_of_writer() {
            shared.pressure.look(&journal.fill(), &shared.health, shared.clock.elapsed());
        }
        shared.answer_due();
        if shared.health.take_return() {
            shared.ship_again();
        }
        if pressed.is_empty() {
            continue;
        }
        // Room comes from the journal's writer or from a checkpoint; both are near.
        shared.desk.wake();
        shared.hurry_shipping();
        thread::sleep(pause);
        let answered = pressed.into_iter().filter_map(|task| task.resume(shared).then_some(())).count();
        // Or it comes from a store that may be away for a day.
        pause = if answered > 0 { PRESSED_MIN } else { (pause * 2).min(PRESSED_MAX) };
    }
}

fn run_checkpointer(shared: &Shared, mut checkpointer: Checkpointer) {
    while !stopping(shared) {
        let progress = checkpointer.step();
        shared.figures.lock().drained = checkpointer.is_drained();
        if progress == checkpoint::Progress::Idle {
            shared.desk.wait_for_report(IDLE);
        }
    }
}

fn run_shipper(shared: &Shared, mut shipper: Shipper) {
    while !stopping(shared) {
        let Some(job) = shared.desk.wait_for_job(IDLE) else { continue };
        match shipper.run(&job) {
            Ok(report) => {
                if !matches!(report, Report::Deleted(_)) {
                    shared.store_full.store(false, Ordering::Relaxed);
                    *shared.ship_error.lock() = None;
                    // It was away at the mount, or took nothing then.
                    shared.hold.iter().for_each(Hold::take);
                }
                shared.desk.report(report);
            }
            Err(e) if e.ends_writing() => return shared.end_writing(&e),
            Err(e) => {
                log::warn!("ship: {e}; it is tried again");
                shared.store_full.store(e.is_full(), Ordering::Relaxed);
                *shared.ship_error.lock() = Some(e.to_string());
                shared.desk.report(e.into_report());
            }
        }
    }
}

fn run_syncer(shared: &Shared, mut syncer: Syncer) {
    let stored = syncer.stored();
    while !stopping(shared) {
        match syncer.step() {
            Ok(Step::Worked) => {}
            Ok(Step::Idle) => stored.wait(IDLE),
            Ok(Step::Later(pause)) => stored.wait(pause.min(IDLE)),
            Err(e) if e.ends_writing() => return shared.end_writing(&e),
            Err(e) => log::warn!("sync: {e}; it is tried again"),
        }
    }
}

/// Without the keeper nothing is written to the cache any more, and nothing is evicted; that harms nobody else.
fn run_keeper(mut keeper: Keeper, end: &AtomicBool) {
    let cache = keeper.cache().clone();
    let body = || loop {
        // Asked before the step: what was put until the end is written, for the next mount.
        let ending = end.load(Ordering::SeqCst);
        if keeper.step() == cache::Progress::Idle {
            if ending {
                return;
            }
            cache.wait_for_work(IDLE);
        }
    };
    if catch_unwind(AssertUnwindSafe(body)).is_err() {
        log::error!("the cache thread panicked: nothing more is kept on local disk until the next mount");
    }
}

fn run_journal(shared: &Shared, mut writer: Writer, end: &AtomicBool) -> Result<(), String> {
    while !end.load(Ordering::SeqCst) {
        match writer.step() {
            journal::Progress::Idle => shared.db.journal().wait_for_work(IDLE),
            journal::Progress::Worked => {}
            journal::Progress::Closed => return Ok(()),
        }
    }
    writer.close().map_err(|e| e.to_string())
}
