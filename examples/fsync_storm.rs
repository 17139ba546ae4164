//! 64 threads that write a little and fsync, over and over, in a directory, while one thread times look-ups of names never
//! seen before and another times reads of `cold`, a file that nobody has read since the mount.
//!
//! `fsync_storm DIR SECONDS` prints what it measured; it fails when a look-up or a cold read took longer than 50 ms.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const WRITERS: u64 = 64;
const BLOCK: u64 = 4096;
const LATENCY_MAX: Duration = Duration::from_millis(50);
/// Between two probes, so that they measure the wait and are not the load.
const PAUSE: Duration = Duration::from_millis(2);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().expect("usage: fsync_storm DIR SECONDS"));
    let seconds = arguments.next().and_then(|s| s.parse().ok()).unwrap_or(20);
    let end = Instant::now() + Duration::from_secs(seconds);
    let fsyncs = AtomicU64::new(0);
    let (lookups, reads) = std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (dir, fsyncs) = (&dir, &fsyncs);
            scope.spawn(move || storm(dir, writer, end, fsyncs));
        }
        let lookups = scope.spawn(|| probe(end, |n| look_up(&dir, n)));
        let cold = File::open(dir.join("cold")).expect("the file `cold` exists");
        let reads = scope.spawn(move || read_cold(&cold, end));
        (lookups.join().expect("look-ups end"), reads.join().expect("reads end"))
    });
    println!("fsyncs: {}", fsyncs.load(Ordering::Relaxed));
    let fine = [show("look-ups", lookups), show("cold reads", reads)];
    ExitCode::from(u8::from(fine.contains(&false)))
}

fn storm(dir: &Path, writer: u64, end: Instant, fsyncs: &AtomicU64) {
    let file = File::create(dir.join(format!("writer-{writer}"))).expect("a file can be made");
    let mut n = 0;
    while Instant::now() < end {
        file.write_all_at(&[writer as u8; 200], n % 1000 * 200).expect("a write");
        file.sync_data().expect("an fsync");
        fsyncs.fetch_add(1, Ordering::Relaxed);
        n += 1;
    }
}

fn look_up(dir: &Path, n: u64) {
    let never_seen = dir.join(format!("never-seen-{n}"));
    assert!(fs::symlink_metadata(never_seen).is_err(), "nobody made this name");
}

/// Reads blocks far apart, each once: the kernel's read-ahead never has them.
fn read_cold(cold: &File, end: Instant) -> Vec<Duration> {
    let blocks = cold.metadata().expect("its length").len() / BLOCK;
    assert!(blocks > 0, "the cold file is not empty");
    // A stride coprime to the number of blocks visits each once.
    let stride = 40_503;
    probe(end, |n| {
        let mut block = [0; BLOCK as usize];
        cold.read_exact_at(&mut block, n * stride % blocks * BLOCK).expect("a cold read");
    })
}

fn probe(end: Instant, mut action: impl FnMut(u64)) -> Vec<Duration> {
    let mut took = Vec::new();
    while Instant::now() < end {
        let begin = Instant::now();
        action(took.len() as u64);
        took.push(begin.elapsed());
        std::thread::sleep(PAUSE);
    }
    took
}

/// Prints the quantiles; true if the slowest was fast enough.
fn show(what: &str, mut took: Vec<Duration>) -> bool {
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    println!("{what}: {} times, p50 {:?}, p99 {:?}, slowest {:?}", took.len(), at(0.5), at(0.99), at(1.0));
    at(1.0) <= LATENCY_MAX
}
