//! What runs a fuzz target where there is no fuzzer.

use skylog::base::random::{Random, SeededRandom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

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
pub fn run(name: &str, body: fn(&[u8]) -> usize, seeds: &[Vec<u8>], most: u64) -> (u64, u64) {
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
