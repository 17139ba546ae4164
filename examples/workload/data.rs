//! Lines about file contents: in order and anywhere, synced and not.

use super::{Measured, Random, Sizes};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
const BLOCK: usize = 4096;
/// The file that is written and read in order.
const LARGE: &str = "large";

/// Bytes that no filesystem can make smaller.
fn noise(len: usize) -> Vec<u8> {
    let mut random = Random(len as u64 + 1);
    (0..len).map(|_| random.below(256) as u8).collect()
}

/// How long a line with no natural end runs.
fn duration(sizes: &Sizes) -> Duration {
    Duration::from_millis(sizes.get("ms", 1000))
}

fn filled(path: &Path, mib: u64) -> File {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).expect("created");
    let block = noise(MIB);
    for _ in 0..mib {
        file.write_all(&block).expect("written");
    }
    file.sync_all().expect("synced");
    file
}

pub fn write_in_order(dir: &Path, sizes: &Sizes) -> Measured {
    let (mib, path, block) = (sizes.get("mib", 1024), dir.join(LARGE), noise(MIB));
    fs::remove_file(&path).ok();
    Measured::of(|| {
        let mut file = File::create(&path).expect("created");
        for _ in 0..mib {
            file.write_all(&block).expect("written");
        }
        file.sync_all().expect("synced");
        (mib, mib << 20)
    })
}

pub fn read_in_order(dir: &Path) -> Measured {
    let mut block = vec![0; MIB];
    Measured::of(|| {
        let mut file = File::open(dir.join(LARGE)).expect("seq-write has made it");
        let (mut ops, mut bytes) = (0, 0);
        loop {
            let read = file.read(&mut block).expect("read");
            if read == 0 {
                return (ops, bytes);
            }
            ops += 1;
            bytes += read as u64;
        }
    })
}

/// Each job has a file of its own.
pub fn write_and_sync(dir: &Path, jobs: u64, sizes: &Sizes) -> Measured {
    let (mib, span) = (sizes.get("job-mib", 16), duration(sizes));
    let files: Vec<File> = (0..jobs).map(|job| filled(&dir.join(format!("job {job}")), mib)).collect();
    let start = Barrier::new(files.len());
    let begin = Instant::now();
    let latencies: Vec<Duration> = thread::scope(|scope| {
        let jobs = files.iter().zip(1..).map(|(file, seed)| {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                sync_again_and_again(file, mib, Random(seed), span)
            })
        });
        let jobs: Vec<_> = jobs.collect();
        jobs.into_iter().flat_map(|job| job.join().expect("a job ends")).collect()
    });
    let ops = latencies.len() as u64;
    Measured { ops, bytes: ops * BLOCK as u64, time: begin.elapsed(), latencies }
}

fn sync_again_and_again(file: &File, mib: u64, mut random: Random, span: Duration) -> Vec<Duration> {
    let (block, end) = (noise(BLOCK), Instant::now() + span);
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let begin = Instant::now();
        file.write_all_at(&block, random.below(mib << 8) * BLOCK as u64).expect("written");
        file.sync_data().expect("synced");
        latencies.push(begin.elapsed());
    }
    latencies
}

/// Cold, in the file of [`write_in_order`], each block at most about once; warm, in a part of it that was read before.
pub fn read_anywhere(dir: &Path, warm: bool, sizes: &Sizes) -> Measured {
    let file = File::open(dir.join(LARGE)).expect("seq-write has made it");
    let blocks = file.metadata().expect("known").len() / BLOCK as u64;
    let blocks = if warm { blocks.min(16 << 10) } else { blocks };
    let mut block = vec![0; BLOCK];
    for n in 0..if warm { blocks } else { 0 } {
        file.read_exact_at(&mut block, n * BLOCK as u64).expect("read");
    }
    let (end, mut random) = (Instant::now() + duration(sizes), Random(7));
    Measured::of(|| {
        let mut ops = 0;
        while Instant::now() < end {
            file.read_exact_at(&mut block, random.below(blocks) * BLOCK as u64).expect("read");
            ops += 1;
        }
        (ops, ops * BLOCK as u64)
    })
}

pub fn write_anywhere(dir: &Path, sizes: &Sizes) -> Measured {
    let mib = sizes.get("rand-mib", 64);
    let file = filled(&dir.join("anywhere"), mib);
    let (end, mut random, block) = (Instant::now() + duration(sizes), Random(9), noise(BLOCK));
    Measured::of(|| {
        let mut ops = 0;
        while Instant::now() < end {
            file.write_all_at(&block, random.below(mib << 8) * BLOCK as u64).expect("written");
            ops += 1;
        }
        (ops, ops * BLOCK as u64)
    })
}
