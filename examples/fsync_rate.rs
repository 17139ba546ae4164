//! Threads that each write 4 KiB into a file of their own and fsync it, over and over.
//!
//! `fsync_rate DIR THREADS SECONDS` prints how many fsyncs returned, how many a second, and how long they took.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;
/// Blocks of a file, which are written again when it has them all.
const BLOCKS: u64 = 256;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("usage: fsync_rate DIR THREADS SECONDS");
    let dir = PathBuf::from(next());
    let threads: u64 = next().parse().expect("a number of threads");
    let seconds: f64 = next().parse().expect("a number of seconds");
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(seconds);
    let mut took: Vec<Duration> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..threads)
            .map(|n| {
                scope.spawn({
                    let dir = &dir;
                    move || write(dir, n, end)
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer ends")).collect()
    });
    let elapsed = begin.elapsed().as_secs_f64();
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    let (count, rate) = (took.len(), took.len() as f64 / elapsed);
    println!(
        "threads {threads} seconds {elapsed:.2} fsyncs {count} rate {rate:.1} p50_ms {:.1} p99_ms {:.1} max_ms {:.1}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

fn write(dir: &Path, writer: u64, end: Instant) -> Vec<Duration> {
    let file = File::create(dir.join(format!("writer-{writer}"))).expect("a file can be made");
    let mut took = Vec::new();
    while Instant::now() < end {
        let n = took.len() as u64;
        file.write_all_at(&[n as u8; BLOCK], n % BLOCKS * BLOCK as u64).expect("a write");
        let begin = Instant::now();
        file.sync_data().expect("an fsync");
        took.push(begin.elapsed());
    }
    took
}
