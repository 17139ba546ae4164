//! The writer is killed, all that is local is wiped, and what the store has is mounted: what was owed is there, and what is there
//! is a state that the writer went through.

use super::scratch::Scratch;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Kills in a test.
const ROUNDS: u64 = 4;
/// Threads that sync, each in a folder of its own.
const CAREFUL: u64 = 3;
/// Names that such a thread replaces in turn.
const SLOTS: u64 = 8;
/// Files that [`Steps`] leaves behind.
const KEPT: u64 = 20;

fn contents(n: u64, len: u64) -> Vec<u8> {
    let line = format!("this is version {n}\n");
    line.bytes().cycle().take(usize::try_from(len).expect("short")).collect()
}

/// Changes in a fixed order, each of them one operation: what is there tells how many were made.
struct Steps {
    folder: PathBuf,
    /// Those that returned.
    done: AtomicU64,
}

impl Steps {
    fn length(k: u64) -> u64 {
        1000 + k % 7 * 9000
    }

    fn step(&self, n: u64) -> io::Result<()> {
        let (k, name) = (n / 4, |word: &str, k: u64| self.folder.join(format!("{word} {k}")));
        match n % 4 {
            0 => File::create_new(name("new", k)).map(drop),
            1 => {
                let data = contents(k, Steps::length(k));
                let written = OpenOptions::new().write(true).open(name("new", k))?.write_at(&data, 0)?;
                assert_eq!(written, data.len(), "one write is one operation");
                Ok(())
            }
            2 => fs::rename(name("new", k), name("whole", k)),
            _ if k >= KEPT => fs::remove_file(name("whole", k - KEPT)),
            _ => Ok(()),
        }
    }

    /// What is there after so many.
    fn after(count: u64) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for n in count.saturating_sub(4 * (KEPT + 2))..count {
            let k = n / 4;
            match n % 4 {
                0 => drop(files.insert(format!("new {k}"), Vec::new())),
                1 => drop(files.insert(format!("new {k}"), contents(k, Steps::length(k)))),
                2 => {
                    files.remove(&format!("new {k}"));
                    files.insert(format!("whole {k}"), contents(k, Steps::length(k)));
                }
                _ => drop(k.checked_sub(KEPT).map(|gone| files.remove(&format!("whole {gone}")))),
            }
        }
        files
    }

    /// How many were made; all that were `owed`, and no more than were begun.
    fn count(&self, owed: u64) -> u64 {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.folder).expect("the folder is there") {
            let entry = entry.expect("an entry");
            found.insert(
                entry.file_name().into_string().expect("text"),
                fs::read(entry.path()).expect("it can be read"),
            );
        }
        let done = self.done.load(Ordering::SeqCst);
        let count = (owed..=done + 1).rev().find(|count| Steps::after(*count) == found);
        count.unwrap_or_else(|| {
            let names: Vec<&String> = found.keys().collect();
            panic!("what is there is none of the states from {owed} to {}: {names:?}", done + 1)
        })
    }
}

/// Versions of files, each replaced at once and synced, file and folder.
struct Careful {
    folder: PathBuf,
    /// The version that is synced, by name; the next one may be there.
    owed: Mutex<BTreeMap<String, u64>>,
    next: AtomicU64,
}

impl Careful {
    fn step(&self, work: &Work) -> io::Result<()> {
        let n = self.next.load(Ordering::SeqCst);
        let (slot, new) = (format!("slot {}", n % SLOTS), self.folder.join("new"));
        let file = File::create(&new)?;
        file.write_at(&contents(n, n % 5 * 20_000 + 20), 0)?;
        file.sync_all()?;
        fs::rename(&new, self.folder.join(&slot))?;
        let mark = work.acknowledged.fetch_add(1, Ordering::SeqCst) + 1;
        File::open(&self.folder)?.sync_all()?;
        work.synced.fetch_max(mark, Ordering::SeqCst);
        self.owed.lock().expect("no panic").insert(slot, n);
        self.next.store(n + 1, Ordering::SeqCst);
        Ok(())
    }

    /// Every name has the version that was synced, or the one on its way. Returns how many there are.
    fn verify(&self) -> usize {
        let mut owed = self.owed.lock().expect("no panic");
        let next = self.next.load(Ordering::SeqCst);
        for (slot, version) in owed.iter_mut() {
            let found = fs::read(self.folder.join(slot)).unwrap_or_else(|e| panic!("{slot} was synced: {e}"));
            let on_its_way = (next % SLOTS == slot[5..].parse::<u64>().expect("a number")).then_some(next);
            let may_be = [Some(*version), on_its_way];
            let is = may_be.into_iter().flatten().find(|n| contents(*n, n % 5 * 20_000 + 20) == found);
            *version = is.unwrap_or_else(|| panic!("{slot} has {} bytes that are not version {version}", found.len()));
        }
        owed.len()
    }
}

/// All that works in a filesystem.
struct Work {
    steps: Steps,
    careful: Vec<Careful>,
    /// Changes that returned,
    acknowledged: AtomicU64,
    /// and those that had when the last fsync that returned was called.
    synced: AtomicU64,
    stop: AtomicBool,
}

impl Work {
    fn new(root: &Path) -> Arc<Work> {
        let folder = |name: String| {
            let folder = root.join(name);
            fs::create_dir(&folder).expect("a new folder");
            folder
        };
        let careful = (0..CAREFUL).map(|n| Careful {
            folder: folder(format!("careful {n}")),
            owed: Mutex::default(),
            next: AtomicU64::new(0),
        });
        let careful = careful.collect();
        let steps = Steps { folder: folder("steps".into()), done: AtomicU64::new(0) };
        File::open(root).and_then(|root| root.sync_all()).expect("the folders are synced");
        let (acknowledged, synced) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Work { steps, careful, acknowledged, synced, stop: AtomicBool::new(false) })
    }

    /// Works until the filesystem is gone.
    fn start(self: &Arc<Work>, syncs: bool) -> Vec<JoinHandle<()>> {
        self.stop.store(false, Ordering::SeqCst);
        let mut threads = Vec::new();
        let work = self.clone();
        threads.push(thread::spawn(move || {
            while !work.stop.load(Ordering::SeqCst) && work.steps.step(work.steps.done.load(Ordering::SeqCst)).is_ok() {
                work.steps.done.fetch_add(1, Ordering::SeqCst);
                work.acknowledged.fetch_add(1, Ordering::SeqCst);
            }
        }));
        for n in (0..self.careful.len()).filter(|_| syncs) {
            let work = self.clone();
            threads.push(thread::spawn(move || {
                while !work.stop.load(Ordering::SeqCst) {
                    if work.careful[n].step(&work).is_err() {
                        return;
                    }
                }
            }));
        }
        threads
    }

    fn dirty(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst) - self.synced.load(Ordering::SeqCst)
    }
}

/// Waits for something that is certain to come.
fn until(scratch: &Scratch, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(120), "it does not come: {}", scratch.log());
        thread::sleep(Duration::from_millis(5));
    }
}

/// A place in the log, as `status` says it.
fn place(status: &serde_json::Value, name: &str) -> (u64, u64) {
    let text = status[name].as_str().expect("a place in the log");
    let (epoch, pos) = text.split_once('.').expect("epoch and position");
    (epoch.parse().expect("a number"), pos.parse().expect("a number"))
}

/// Kills the daemon in the middle of work, and mounts what the store has.
fn kill_and_mount_elsewhere(scratch: &mut Scratch, work: &Work, threads: Vec<JoinHandle<()>>, options: &[&str]) {
    until(scratch, || work.dirty() > 0);
    scratch.kill();
    work.stop.store(true, Ordering::SeqCst);
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    scratch.wipe();
    scratch.mount(options);
}

#[test]
fn with_durability_store_every_fsync_is_there_after_the_machine_is_lost() {
    let options = ["-o", "durability=store", "--ship-interval", "5"];
    let mut scratch = Scratch::mounted(1, &options);
    let work = Work::new(&scratch.mnt);
    let (mut synced, mut lost) = (0, 0);
    for round in 1..=ROUNDS {
        let threads = work.start(true);
        let enough = work.careful.iter().map(|careful| careful.next.load(Ordering::SeqCst)).sum::<u64>() + 20 * round;
        until(&scratch, || {
            work.careful.iter().map(|careful| careful.next.load(Ordering::SeqCst)).sum::<u64>() > enough
        });
        kill_and_mount_elsewhere(&mut scratch, &work, threads, &options);
        synced += work.careful.iter().map(Careful::verify).sum::<usize>();
        let (done, count) = (work.steps.done.load(Ordering::SeqCst), work.steps.count(0));
        lost += done.saturating_sub(count);
        work.steps.done.store(count, Ordering::SeqCst);
        work.synced.store(work.acknowledged.load(Ordering::SeqCst), Ordering::SeqCst);
    }
    assert!(synced > 0 && lost > 0, "{synced} names synced, {lost} steps lost: nothing was at risk");
    scratch.umount();
    scratch.check();
}

#[test]
fn without_durability_store_what_was_shipped_is_there_and_exactly_a_prefix() {
    let options = ["--ship-interval", "1"];
    let mut scratch = Scratch::mounted(2, &options);
    let work = Work::new(&scratch.mnt);
    let mut lost = 0;
    for round in 0..ROUNDS {
        let threads = work.start(false);
        // Steps that had returned, and the newest batch after that: once that is shipped, they are owed.
        let (mut asked, mut owed, mut shipped) = (Vec::new(), 0, 0);
        until(&scratch, || {
            let done = work.steps.done.load(Ordering::SeqCst);
            let status = scratch.status();
            asked.push((place(&status, "last"), done));
            let in_store = place(&status, "shipped");
            let now_owed = asked.iter().rev().find(|(last, _)| *last <= in_store).map_or(0, |(_, done)| *done);
            shipped += u64::from(now_owed > owed);
            owed = owed.max(now_owed);
            shipped > 1 + round % 2
        });
        kill_and_mount_elsewhere(&mut scratch, &work, threads, &options);
        let (done, count) = (work.steps.done.load(Ordering::SeqCst), work.steps.count(owed));
        lost += done.saturating_sub(count);
        work.steps.done.store(count, Ordering::SeqCst);
        work.synced.store(work.acknowledged.load(Ordering::SeqCst), Ordering::SeqCst);
    }
    assert!(lost > 0, "nothing was at risk");
    scratch.umount();
    scratch.check();
}
