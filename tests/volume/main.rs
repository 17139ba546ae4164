//! The threaded volume on simulated disk and store: what waiting, waking and ending add to the step functions.

mod durability;
mod follower;
mod life;
mod outage;
mod pressure;

use life::{LONG, Life, ROOT, SHORT};
use parking_lot::{Condvar, Mutex};
use skylog::base::clock::{Clock, SimClock, Time};
use skylog::format::ids::Lsn;
use skylog::fs::{Cx, Error, Fs, Stop};
use skylog::journal::SyncPolicy;
use skylog::map::Wait;
use skylog::media::sim::{CallLog, DiskFault, DiskOp, Nth, SimDisk};
use skylog::media::{File, FolderEntry, Media, Space};
use skylog::rig::{Rig, small};
use skylog::store::sim::SimStore;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

fn fail_syncs(life: &Life) {
    life.disk.fail(Nth::new(1).of(DiskOp::Sync).on("journal/").forever(), DiskFault::Failed);
}

#[test]
fn promise_r6_under_always_a_change_is_answered_once_it_survives_the_power() {
    let life = Life::new();
    life.volume.set_policy(SyncPolicy::Always);
    life.create("kept").expect("created");
    let log = CallLog::new();
    let disk = SimDisk::from_image(&life.disk.image_durable(), &log);
    let store = SimStore::from_image(&life.store.image(), &log);
    let mut after = Rig::mount(log, disk, store, life.clock.clone(), 2, &small()).expect("mounts after the power went");
    assert!(after.run(|fs, cx| fs.lookup(cx, ROOT, b"kept")).expect("looked up").is_some());
}

#[test]
fn promise_r6_under_always_a_change_that_cannot_be_made_durable_is_never_acknowledged() {
    let life = Life::new();
    life.volume.set_policy(SyncPolicy::Always);
    life.create("before").expect("created");
    fail_syncs(&life);
    // A sync in the background may be the first to fail: then the change is refused before it happens.
    let errno = life.create("lost").expect_err("its sync failed").errno();
    assert!([libc::EIO, libc::EROFS].contains(&errno), "errno {errno}");
    assert!(life.disk.failed() > 0);
    assert_eq!(life.create("later").expect_err("writing has ended").errno(), libc::EROFS);
    assert!(life.is_there("before"), "reading goes on");
    assert_eq!(life.status().state, "read-only");
}

#[test]
fn promise_x1_after_one_sync_that_failed_none_succeeds() {
    let life = Life::new();
    life.create("before").expect("created");
    life.sync().recv_timeout(LONG).expect("answered").expect("synced");
    life.disk.fail(Nth::new(1).of(DiskOp::Sync).on("journal/"), DiskFault::Failed);
    life.create("lost").expect("acknowledged before it is durable");
    for _ in 0..3 {
        life.sync()
            .recv_timeout(LONG)
            .expect("answered")
            .expect_err("the disk is well again, and what it has is unknown");
    }
}

/// A clock that moves a millisecond whenever it is read, since a simulated disk takes no time.
struct Ticking(Arc<SimClock>);

impl Clock for Ticking {
    fn now(&self) -> Time {
        self.0.now()
    }
    fn elapsed(&self) -> Duration {
        self.0.advance(Duration::from_millis(1));
        self.0.elapsed()
    }
    fn elapsed_asleep(&self) -> Duration {
        self.0.elapsed_asleep()
    }
}

#[test]
fn promise_r8_status_shows_delays_errors_and_how_far_everything_is() {
    let life = Life::with(|disk| Arc::new(disk), |clock| Arc::new(Ticking(clock)));
    life.create("file").expect("created");
    life.sync().recv_timeout(LONG).expect("answered").expect("synced");
    let status = life.status();
    assert!(status.counters.syncs > 0 && status.counters.sync_max_us >= 1000, "{status:?}");
    assert!(status.journal_used_bytes > 0 && status.journal_used_bytes <= status.journal_capacity_bytes, "{status:?}");
    assert!(status.unshipped_bytes > 0, "{status:?}");
    assert_eq!((status.state, &status.last_error), ("active", &None));

    life.volume.drain(&mut |_, _| Ok(())).expect("drained");
    let drained = life.status();
    assert_eq!(drained.unshipped_bytes, 0);
    life.clock.advance(Duration::from_secs(100));
    let older = life.status();
    assert!(drained.checkpoint_age_s < older.checkpoint_age_s && older.checkpoint_age_s >= 100, "{older:?}");

    life.store.set_down(true);
    life.create("while the store is away").expect("created");
    life.until("an error of the store", |status| status.state == "active" && status.last_error.is_some());
    life.store.set_down(false);
    life.until("over", |status| status.last_error.is_none());

    fail_syncs(&life);
    life.create("lost").expect("acknowledged before it is durable");
    life.sync().recv_timeout(LONG).expect("answered").expect_err("the disk fails");
    let status = life.status();
    assert!(status.last_error.as_ref().is_some_and(|e| e.contains("sync of journal segment")), "{status:?}");
    assert_eq!(status.state, "read-only");
}

/// A disk on which nobody gets past making a file of trees while the gate is shut.
struct Gated {
    disk: SimDisk,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    /// Whether it is shut, and whether someone stands before it.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock();
        while state.0 {
            state.1 = true;
            self.changed.wait(&mut state);
        }
    }

    fn set_shut(&self, shut: bool) {
        *self.state.lock() = (shut, false);
        self.changed.notify_all();
    }

    /// Whether someone stands before it.
    fn is_met(&self) -> bool {
        self.state.lock().1
    }
}

/// Opens the gate even if the test fails, so that the volume can end.
struct OpenAtEnd(Arc<Gate>);

impl Drop for OpenAtEnd {
    fn drop(&mut self) {
        self.0.set_shut(false);
    }
}

impl Media for Gated {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        if name.starts_with("nodes/") {
            self.gate.pass();
        }
        self.disk.create(name)
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.disk.open(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn make_dir(&self, name: &str) -> io::Result<()> {
        self.disk.make_dir(name)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn visit(&self, dir: &str, each: &mut dyn FnMut(FolderEntry<'_>)) -> io::Result<()> {
        self.disk.visit(dir, each)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }
}

#[test]
fn promise_r9_syncs_and_reads_go_on_while_the_disk_holds_up_a_checkpoint() {
    let gate = Arc::new(Gate::default());
    let seen = gate.clone();
    let life = Life::with(|disk| Arc::new(Gated { disk, gate: seen }), |clock| clock);
    let _open = OpenAtEnd(gate.clone());
    life.create("first").expect("created");
    life.sync().recv_timeout(LONG).expect("answered").expect("synced");
    gate.set_shut(true);
    life.until("a checkpoint begun", |_| gate.is_met());
    let checkpoint = life.status().checkpoint;
    life.create("second").expect("created");
    life.sync().recv_timeout(LONG).expect("a sync waits for the checkpoint").expect("synced");
    assert!(life.is_there("first") && life.is_there("second"));
    assert_eq!(life.status().checkpoint, checkpoint, "the checkpoint was not held up");
    gate.set_shut(false);
    life.until("a checkpoint", |status| status.checkpoint > checkpoint);
}

#[test]
fn an_operation_that_panics_is_answered_with_eio_and_counted_and_the_rest_goes_on() {
    let life = Life::new();
    let at_once = life.read(|_, _| -> Result<(), Stop> { panic!("meant to") });
    assert_eq!(at_once.recv_timeout(LONG).expect("answered"), Err(Error::Io));
    let mut parked = false;
    let later = life.read(move |_, _| -> Result<(), Stop> {
        assert!(!parked, "meant to");
        parked = true;
        Err(Stop::Wait(Wait::Pressure))
    });
    assert_eq!(later.recv_timeout(LONG).expect("answered"), Err(Error::Io));
    assert_eq!(life.status().counters.panics, 2);
    life.create("file").expect("created");
}

#[test]
fn an_operation_that_waits_too_long_is_answered_with_an_error() {
    for (wait, error) in [(Wait::Pressure, Error::DiskFull), (Wait::Objects(Vec::new()), Error::Io)] {
        let life = Life::new();
        let answer = life.read(move |_, _| -> Result<(), Stop> { Err(Stop::Wait(wait.clone())) });
        life.clock.advance(Duration::from_secs(119));
        assert_eq!(answer.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout), "before its time");
        life.clock.advance(Duration::from_secs(2));
        assert_eq!(answer.recv_timeout(LONG).expect("answered"), Err(error));
    }
}

#[test]
fn operations_that_wait_hold_no_more_than_the_cap() {
    let life = Life::new();
    let go = Arc::new(AtomicBool::new(false));
    let (tell, told) = channel();
    let large = go.clone();
    let op = move |_: &Fs, _: &mut Cx| match large.load(Ordering::SeqCst) {
        true => Ok(((), Lsn::ZERO)),
        false => Err(Stop::Wait(Wait::Pressure)),
    };
    life.volume.start_changing(Cx::default(), 64 << 20, op, move |result| tell.send(result).expect("someone listens"));
    std::thread::scope(|scope| {
        let (tell, next) = channel();
        let life = &life;
        scope.spawn(move || {
            let written = life.add(1, |_, _| Ok(((), Lsn::ZERO)));
            tell.send(written.recv_timeout(LONG).expect("answered")).expect("someone listens");
        });
        assert_eq!(next.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout), "taken above the cap");
        assert!(!life.is_there("anything"), "what brings nothing is taken");
        go.store(true, Ordering::SeqCst);
        assert_eq!(told.recv_timeout(LONG).expect("answered"), Ok(()));
        assert_eq!(next.recv_timeout(LONG), Ok(Ok(())), "room came, and nobody was told");
    });
}

#[test]
fn what_follows_an_answer_does_not_wait_at_the_cap_for_those_whom_its_thread_would_end() {
    let life = Life::new();
    let [go, ended]: [Arc<AtomicBool>; 2] = Default::default();
    let (fetched, volume, end) = (go.clone(), life.volume.clone(), ended.clone());
    let op = move |_: &Fs, _: &mut Cx| match fetched.load(Ordering::SeqCst) {
        true => Ok(()),
        false => Err(Stop::Wait(Wait::Nodes(Vec::new()))),
    };
    life.volume.start(Cx::default(), op, move |_| {
        volume.follow(Cx::default(), move |_, _| {
            end.store(true, Ordering::SeqCst);
            Ok(())
        });
    });
    let (tell, told) = channel();
    let op = move |_: &Fs, _: &mut Cx| match ended.load(Ordering::SeqCst) {
        true => Ok(((), Lsn::ZERO)),
        false => Err(Stop::Wait(Wait::Pressure)),
    };
    life.volume.start_changing(Cx::default(), 128 << 20, op, move |result| tell.send(result).expect("someone listens"));
    go.store(true, Ordering::SeqCst);
    assert_eq!(told.recv_timeout(LONG).expect("answered"), Ok(()));
}

#[test]
fn an_unmount_answers_everyone_who_waits_and_leaves_the_journal_whole() {
    let life = Life::new();
    life.create("file").expect("created");
    let waits = life.read(|_, _| -> Result<(), Stop> { Err(Stop::Wait(Wait::Pressure)) });
    life.volume.close().expect("ends cleanly");
    assert_eq!(waits.recv_timeout(LONG).expect("answered"), Err(Error::Io));
    let (log, disk, store) = (life.log.clone(), life.disk.clone(), life.store.clone());
    let mut again = Rig::mount(log, disk, store, life.clock.clone(), 3, &small()).expect("mounts again");
    assert!(again.run(|fs, cx| fs.lookup(cx, ROOT, b"file")).expect("looked up").is_some());
}
