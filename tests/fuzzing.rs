//! The bodies of all fuzz targets, for whoever has no fuzzer: fed with samples that are changed by chance, a number of times, or with
//! `SKYLOG_FUZZ_SECONDS=n` each for so long. Prints executions per target. `scripts/fuzz` calls it.

#[path = "../fuzz/bodies.rs"]
mod bodies;
mod samples;
#[path = "../fuzz/structured.rs"]
mod structured;

use skylog::base::random::{Random, SeededRandom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Executions of a target that decodes, and of one that runs a filesystem, unless told otherwise.
const DECODED: u64 = 2000;
const LIVED: u64 = 12;

/// Changes bytes as a fuzzer does.
fn mutated(seed: &[u8], others: &[Vec<u8>], random: &SeededRandom) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    let place = |len: usize| (random.u64() % (len as u64 + 1)) as usize;
    for _ in 0..=random.below(4) {
        let at = place(bytes.len());
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.extend((0..random.below(9)).map(|_| random.u64() as u8)),
            2 => {
                let other = &others[place(others.len() - 1)];
                let from = place(other.len());
                let end = bytes.len().min(at + other.len() - from);
                bytes[at..end].copy_from_slice(&other[from..from + end - at]);
            }
            3 => {
                bytes.iter_mut().skip(at).take(4).for_each(|byte| *byte = [0, 1, 0x7f, 0xff][random.below(4) as usize])
            }
            _ => bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << random.below(8)),
        }
    }
    bytes
}

/// Runs a body until the time or the number is over. Returns how often, and how often it got somewhere.
fn run(name: &str, body: fn(&[u8]) -> usize, seeds: &[Vec<u8>], most: u64) -> (u64, u64) {
    let seconds =
        std::env::var("SKYLOG_FUZZ_SECONDS").ok().map(|n| n.parse().expect("SKYLOG_FUZZ_SECONDS is a number"));
    let seed = std::env::var("SKYLOG_FUZZ_SEED").ok().map_or(1, |n| n.parse().expect("SKYLOG_FUZZ_SEED is a number"));
    let (random, begin) = (SeededRandom::new(seed), Instant::now());
    let (mut executions, mut reached) = (0, 0);
    while seconds.map_or(executions < most, |seconds| begin.elapsed() < Duration::from_secs(seconds)) {
        let bytes = mutated(&seeds[random.below(seeds.len() as u64) as usize], seeds, &random);
        let ran = catch_unwind(AssertUnwindSafe(|| body(&bytes)));
        reached += u64::from(ran.unwrap_or_else(|_| panic!("{name} panics on {bytes:?}")) > 0);
        executions += 1;
    }
    println!("{name:20} {executions:>9} executions, {reached:>9} got somewhere");
    (executions, reached)
}

#[test]
fn no_target_panics_on_what_a_fuzzer_would_try() {
    samples::all().iter().for_each(|sample| (sample.check)(&sample.bytes));
    let mut samples: Vec<Vec<u8>> = samples::all().into_iter().map(|sample| sample.bytes).collect();
    // Its target begins with the footer.
    let directory = samples::all().into_iter().find(|sample| sample.file == "journal_directory.bin").expect("a sample");
    let (blocks, footer) = directory.bytes.split_at(directory.bytes.len() / 2);
    samples.push([footer, blocks].concat());
    for (name, body) in bodies::ALL {
        let (executions, _) = run(name, body, &samples, DECODED);
        assert!(executions > 0, "{name} did not run");
    }
    let random = SeededRandom::new(7);
    let seeds: Vec<Vec<u8>> =
        (0..50).map(|_| (0..random.below(200) + 1).map(|_| random.u64() as u8).collect()).collect();
    for (name, body) in structured::ALL {
        let (executions, reached) = run(name, body, &seeds, LIVED);
        assert!(executions > 0 && reached > 0, "{name} did nothing");
    }
}

#[test]
fn every_structured_body_has_a_fuzz_target() {
    for (name, _) in structured::ALL {
        let target = format!("{}/fuzz/fuzz_targets/{name}.rs", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&target).unwrap_or_else(|e| panic!("{target}: {e}"));
        assert!(text.contains(&format!("structured::{name}(data)")), "{target}");
    }
}
