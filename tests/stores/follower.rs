//! Mounts that follow a writer on another machine: there is nothing between the two but the bucket.
//!
//! `SKYLOG_FOLLOW_SECONDS` says how long the busy writer is followed; `scripts/follow` does so for minutes.

use super::busy::{Reader, Seen, Writer};
use super::counted::Counts;
use super::scratch::{Scratch, words};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Everything is shipped soon, and what is dead is deleted at once.
const EAGER: [&str; 4] = ["--ship-interval", "1", "--grace", "0"];
const MIB: u64 = 1 << 20;

/// Another mount of the bucket: killed when dropped.
struct Other {
    mnt: PathBuf,
    pid: i32,
}

impl Other {
    /// Mounts with a state directory of its own.
    fn new(scratch: &Scratch, name: &str, options: &[&str]) -> Other {
        let (mnt, state) = (scratch.root.join(name), scratch.root.join(format!("{name}.state")));
        fs::create_dir(&mnt).expect("a mount point");
        let place = ["--state", words(&state), &scratch.url, words(&mnt)];
        scratch.skylog(&[&["mount"], options, &place].concat()).succeeds();
        let pid = status(scratch, &mnt)["pid"].as_i64().expect("a process");
        Other { mnt, pid: i32::try_from(pid).expect("small") }
    }

    fn follower(scratch: &Scratch, name: &str) -> Other {
        Other::new(scratch, name, &["--read-only"])
    }

    fn status(&self, scratch: &Scratch) -> serde_json::Value {
        status(scratch, &self.mnt)
    }

    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid), signal).expect("it is alive");
    }

    fn umount(&self, scratch: &Scratch) {
        scratch.skylog(&["umount", words(&self.mnt)]).succeeds();
    }

    /// Memory that its process has, bytes.
    fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("it is alive");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        kill(Pid::from_raw(self.pid), Signal::SIGKILL).ok();
        Command::new("umount").arg("-lq").arg(&self.mnt).output().ok();
    }
}

fn status(scratch: &Scratch, mnt: &Path) -> serde_json::Value {
    let said = scratch.skylog(&["status", "--json", words(mnt)]).succeeds();
    serde_json::from_str(&said).expect("status prints JSON")
}

fn deleted(status: &serde_json::Value) -> u64 {
    status["counters"]["objects_deleted"].as_u64().expect("it is counted")
}

/// A writer's mount where everything of [`Writer`] is laid out and published.
fn laid_out(seed: u64) -> Scratch {
    let mut scratch = Scratch::mounted(seed, &EAGER);
    Writer::new(&scratch.mnt.join("busy")).expect("laid out");
    scratch.umount();
    scratch.mount(&EAGER);
    scratch
}

/// Changes everything until told to stop, or until the mount is gone.
fn write(root: &Path, stop: &AtomicBool) {
    let mut writer = Writer::resume(&root.join("busy")).expect("what is published is whole");
    while !stop.load(Ordering::SeqCst) && writer.step().is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a file reads so.
fn wait_for(path: &Path, contents: &str) {
    let begin = Instant::now();
    while fs::read_to_string(path).ok().as_deref() != Some(contents) {
        assert!(begin.elapsed() < super::scratch::PATIENCE, "{} never said {contents}", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_a_follower_reads_was_there_at_one_moment_through_takeover_and_deletion() {
    let seconds = std::env::var("SKYLOG_FOLLOW_SECONDS").map_or(20, |text| text.parse().expect("seconds"));
    let mut scratch = laid_out(1);
    let (first, mut pid) = (scratch.mnt.clone(), Some(scratch.detach()));
    let followers = ["one", "two"].map(|name| Other::follower(&scratch, name));
    let (stop, mut memory, mut writers) = (AtomicBool::new(false), Vec::new(), Vec::new());
    let seen = std::thread::scope(|scope| {
        let (stop, half) = (&stop, Duration::from_secs(seconds) / 2);
        let readers = followers.each_ref().map(|follower| {
            let root = follower.mnt.join("busy");
            scope.spawn(move || {
                let mut reader = Reader::new(&root).expect("it is there");
                while !stop.load(Ordering::SeqCst) {
                    reader.step().unwrap_or_else(|e| panic!("{}: {e}", root.display()));
                }
                reader.seen
            })
        });
        scope.spawn(move || write(&first, stop));
        let (begin, mut part) = (Instant::now(), 0);
        loop {
            std::thread::sleep(Duration::from_millis(500));
            memory.push(followers.iter().map(Other::resident).max().expect("there are some"));
            let is_over = readers.iter().any(|reader| reader.is_finished());
            if let Some(pid) = pid.take_if(|_| begin.elapsed() >= half || is_over) {
                // The machine of the writer dies, and another one goes on with what is published.
                kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it is alive");
                let second = Other::new(&scratch, "second", &[&EAGER[..], &["--journal-size", "64MiB"]].concat());
                let root = second.mnt.clone();
                scope.spawn(move || write(&root, stop));
                writers.push(second);
                part = memory.len();
            }
            let done = writers.last().is_some_and(|second| deleted(&second.status(&scratch)) > 0);
            if is_over || done && begin.elapsed() >= 2 * half {
                break;
            }
        }
        stop.store(true, Ordering::SeqCst);
        let seen = readers.map(|reader| reader.join().expect("each was there at one moment"));
        assert_flat(&memory, part);
        seen
    });
    let mut counts = Counts { part: "readers beside a writer", kills: writers.len() as u64, ..Counts::default() };
    for (seen, follower) in seen.iter().zip(&followers) {
        let status = follower.status(&scratch);
        let Seen { listings, files, records, states } = seen;
        println!(
            "{listings} listings of {states} states, {files} files, {records} records; {} publications, {} MiB at most",
            status["publications_read"],
            memory.iter().max().expect("some") / MIB
        );
        assert!(*states > 3 && status["last_error"].is_null(), "{seen:?} {status}");
        (counts.histories, counts.states) = (counts.histories + 1, counts.states + states);
    }
    counts.print();
    followers.iter().chain(&writers).for_each(|mount| mount.umount(&scratch));
}

/// Caches fill at first. After that, what was needed before the takeover is enough after it.
fn assert_flat(memory: &[u64], part: usize) {
    let most = |samples: &[u64]| samples.iter().max().copied().unwrap_or_default();
    let (before, after) = (most(&memory[..part]), most(&memory[part..]));
    assert!(after < 384 * MIB, "{after} bytes of memory");
    if memory.len() > 240 {
        assert!(after < before / 4 * 5, "memory grew from {before} to {after} bytes: {memory:?}");
    }
}

#[test]
fn a_change_is_seen_soon_and_an_open_file_stays_what_it_was() {
    let mut scratch = Scratch::mounted(1, &EAGER);
    let there = |name: &str| scratch.mnt.join(name);
    let old: Vec<u8> = (0..3 * MIB).map(|at| (at * 31 % 251) as u8).collect();
    fs::write(there("large"), &old).expect("it is mounted");
    fs::write(there("small"), "before").expect("it is mounted");
    scratch.skylog(&["sync", words(&scratch.mnt)]).succeeds();
    let follower = Other::follower(&scratch, "follower");
    wait_for(&follower.mnt.join("small"), "before");
    let opened = File::open(follower.mnt.join("large")).expect("it was published before");
    let (mut read, step) = (vec![0; old.len()], old.len() / 8);
    for at in (0..old.len()).step_by(step) {
        opened.read_exact_at(&mut read[at..at + step], at as u64).expect("its lease keeps it");
        // Each time all that it reads is replaced, published, and could be deleted.
        fs::write(there("large"), vec![at as u8; old.len() / 2]).expect("it is mounted");
        let text = format!("after {at}");
        fs::write(there("small"), &text).expect("it is mounted");
        let begin = Instant::now();
        wait_for(&follower.mnt.join("small"), &text);
        println!(
            "seen {} ms after it was written, with a second between two publications",
            begin.elapsed().as_millis()
        );
    }
    assert!(read == old, "one file of one moment");
    let newest = fs::read(follower.mnt.join("large")).expect("it is there");
    assert!(newest == vec![7 * step as u8; old.len() / 2]);
    drop(opened);
    let lease = scratch.names("lease/");
    assert!(!lease.is_empty(), "what it reads is kept from being deleted by an object");
    follower.umount(&scratch);
    scratch.umount();
    scratch.check();
}

#[test]
fn a_follower_stopped_for_longer_than_its_lease_says_estale_and_goes_on_with_what_is_new() {
    let mut scratch = Scratch::mounted(1, &EAGER);
    let there = scratch.mnt.join("large");
    fs::write(&there, vec![1; 4 << 20]).expect("it is mounted");
    scratch.skylog(&["sync", words(&scratch.mnt)]).succeeds();
    scratch.umount();
    scratch.mount(&EAGER);
    let follower = Other::follower(&scratch, "follower");
    let opened = File::open(follower.mnt.join("large")).expect("it is published");
    let mut first = [0; 4096];
    opened.read_exact_at(&mut first, 0).expect("it is published");
    follower.send(Signal::SIGSTOP);
    // The writer gives it the time of a lease, and then deletes what nobody can read any more.
    let (begin, mut version) = (Instant::now(), 1u8);
    let before = deleted(&scratch.status());
    while deleted(&scratch.status()) < before + 4 {
        version = version % 250 + 1;
        fs::write(&there, vec![version; 4 << 20]).expect("it is mounted");
        scratch.skylog(&["sync", words(&scratch.mnt)]).succeeds();
        std::thread::sleep(Duration::from_millis(500));
        assert!(begin.elapsed() < super::scratch::PATIENCE, "nothing is deleted: {}", scratch.log());
    }
    println!("deleted {} s after it was stopped", begin.elapsed().as_secs());
    follower.send(Signal::SIGCONT);
    let mut rest = vec![0; 1 << 20];
    let error = opened.read_exact_at(&mut rest, 1 << 20).expect_err("what it was is gone");
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
    let begin = Instant::now();
    // A state is whole; which is the newest one here shows when the file is what it is there.
    loop {
        match fs::read(follower.mnt.join("large")) {
            Ok(read) if read == vec![version; 4 << 20] => break,
            Ok(read) => assert!(read.iter().all(|byte| *byte == read[0]), "no state that ever was"),
            Err(e) => assert_eq!(e.raw_os_error(), Some(libc::ESTALE), "{e}"),
        }
        assert!(begin.elapsed() < super::scratch::PATIENCE, "it does not go on: {}", follower.status(&scratch));
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(opened);
    follower.umount(&scratch);
    scratch.umount();
}

#[test]
fn followers_keep_their_copies_beside_each_other_until_the_filesystem_is_destroyed() {
    let mut scratch = Scratch::mounted(1, &EAGER);
    fs::write(scratch.mnt.join("file"), vec![7; 100_000]).expect("it is mounted");
    scratch.umount();
    let mounts = ["one", "two"].map(|name| scratch.root.join(name));
    let states = mounts.each_ref().map(|mnt| {
        fs::create_dir(mnt).expect("a mount point");
        scratch.skylog(&["mount", "-o", "ro", &scratch.url, words(mnt)]).succeeds();
        assert!(fs::read(mnt.join("file")).expect("it is there") == vec![7; 100_000]);
        PathBuf::from(status(&scratch, mnt)["state_directory"].as_str().expect("a path"))
    });
    assert!(states[0] != states[1] && states.iter().all(|state| state.join("cache").is_dir()), "{states:?}");
    for mnt in &mounts {
        scratch.skylog(&["umount", words(mnt)]).succeeds();
    }
    scratch.mount(&EAGER);
    scratch.umount();
    scratch.skylog(&["destroy", "--yes", "--state", words(&scratch.state), &scratch.url]).succeeds();
    assert!(states.iter().all(|state| !state.exists()), "{states:?}");
}

#[test]
fn a_follower_goes_on_when_the_writer_is_killed() {
    let mut scratch = Scratch::mounted(1, &EAGER);
    fs::write(scratch.mnt.join("file"), "published").expect("it is mounted");
    let follower = Other::follower(&scratch, "follower");
    wait_for(&follower.mnt.join("file"), "published");
    scratch.kill();
    assert_eq!(fs::read_to_string(follower.mnt.join("file")).expect("the store is there"), "published");
    scratch.mount(&EAGER);
    fs::write(scratch.mnt.join("file"), "and on").expect("it is mounted");
    wait_for(&follower.mnt.join("file"), "and on");
    assert_eq!(scratch.status()["role"], "writer");
    follower.umount(&scratch);
    scratch.umount();
}
