//! One line of `scripts/bench`, run by system calls alone: `workload LINE DIR [NAME=NUMBER]…`.
//!
//! Prints `ops N`, `seconds S` and, where it matters, `bytes N`, `p50_us U`, `p99_us U`: only what is timed counts, not what
//! prepares it. It knows nothing of the filesystem below `DIR`. The lines of a group find what the lines before them left.

mod data;
mod names;

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Numbers that the caller may change.
struct Sizes(HashMap<String, u64>);

impl Sizes {
    fn get(&self, name: &str, usual: u64) -> u64 {
        self.0.get(name).copied().unwrap_or(usual)
    }
}

/// What a line measured.
#[derive(Default)]
struct Measured {
    ops: u64,
    bytes: u64,
    time: Duration,
    /// How long each operation took; empty where that is not asked.
    latencies: Vec<Duration>,
}

impl Measured {
    /// Runs something and measures it; it says how many operations and bytes it was.
    fn of(run: impl FnOnce() -> (u64, u64)) -> Measured {
        let begin = Instant::now();
        let (ops, bytes) = run();
        Measured { ops, bytes, time: begin.elapsed(), latencies: Vec::new() }
    }

    fn print(mut self) {
        println!("ops {}\nseconds {:.6}\nbytes {}", self.ops, self.time.as_secs_f64(), self.bytes);
        if !self.latencies.is_empty() {
            self.latencies.sort_unstable();
            let at = |part: usize| self.latencies[(self.latencies.len() - 1) * part / 100].as_micros();
            println!("p50_us {}\np99_us {}", at(50), at(99));
        }
    }
}

/// A fast generator of numbers that are random enough to choose places.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            let j = usize::try_from(self.below(i as u64 + 1)).expect("an index");
            list.swap(i, j);
        }
    }
}

fn run(line: &str, dir: &Path, sizes: &Sizes) -> Option<Measured> {
    Some(match line {
        "seq-write" => data::write_in_order(dir, sizes),
        "seq-read-cold" | "seq-read-warm" => data::read_in_order(dir),
        "fsync-1" => data::write_and_sync(dir, 1, sizes),
        "fsync-4" => data::write_and_sync(dir, 4, sizes),
        "fsync-16" => data::write_and_sync(dir, 16, sizes),
        "rand-read-cold" => data::read_anywhere(dir, false, sizes),
        "rand-read-warm" => data::read_anywhere(dir, true, sizes),
        "rand-write" => data::write_anywhere(dir, sizes),
        "create-1" => names::create(dir, 1, sizes),
        "create-4" => names::create(&dir.join("by four"), 4, sizes),
        "stat-new" => names::stat(dir, sizes),
        "readdir" => names::list(dir),
        "open-read" => names::open_and_read(dir, sizes),
        "overwrite" => names::overwrite(dir, sizes),
        "rename" => names::rename(dir, sizes),
        "unlink" => names::unlink(dir, sizes),
        _ => return None,
    })
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(line), Some(dir)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: workload LINE DIR [NAME=NUMBER]...");
        return ExitCode::from(2);
    };
    let sizes = arguments.map(|argument| {
        let (name, number) = argument.split_once('=').expect("NAME=NUMBER");
        (name.to_owned(), number.parse().expect("a number"))
    });
    match run(&line, Path::new(&dir), &Sizes(sizes.collect())) {
        Some(measured) => measured.print(),
        None => {
            eprintln!("no line is called {line}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
