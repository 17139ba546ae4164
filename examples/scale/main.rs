//! The work behind `scripts/scale`: makes, reads and verifies trees and files of any size, and watches the memory of a
//! process meanwhile. Everything is computed from names and numbers, so nothing but the mount has to remember it.
//!
//! Prints one figure a line, `name: value`; fails when something reads differently from what was written.

mod bytes;
mod names;
mod watch;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: scale wide DIR FILES sequential|scattered PID | deep DIR FILES FOLDERS | \
                     verify DIR FILES FOLDERS SAMPLES | churn DIR WRITES | churned DIR WRITES | sparse FILE MIB | \
                     big FILE MIB | random FILE WRITES MIB | same FILE WRITES MIB | watch PID|self FILE COMMAND…";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["wide", dir, files, order, pid] => names::wide(Path::new(dir), number(files), order == "scattered", pid),
        ["deep", dir, files, folders] => names::deep(Path::new(dir), number(files), number(folders)),
        ["verify", dir, files, folders, samples] => {
            names::verify(Path::new(dir), number(files), number(folders), number(samples))
        }
        ["churn", dir, writes] => names::churn(Path::new(dir), number(writes)),
        ["churned", dir, writes] => names::churned(Path::new(dir), number(writes)),
        ["sparse", file, mib] => bytes::sparse(Path::new(file), number(mib)),
        ["big", file, mib] => bytes::big(Path::new(file), number(mib)),
        ["random", file, writes, mib] => bytes::random(Path::new(file), number(writes), number(mib)),
        ["same", file, writes, mib] => bytes::same(Path::new(file), number(writes), number(mib)),
        ["watch", pid, out, ..] if words.len() > 3 => return watch::watch(pid, Path::new(out), &words[3..]),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("scale: {why}");
            ExitCode::FAILURE
        }
    }
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("{word} is no number; {USAGE}"))
}

/// A failed call, with what it was about.
fn failed<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> String {
    move |e| format!("{what}: {e}")
}

fn figure(name: &str, value: impl std::fmt::Display) {
    println!("{name}: {value}");
}

/// A number that depends on all bits of `n` (the finaliser of SplitMix64).
fn mixed(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Fills `out` with bytes that depend on `seed` alone.
fn fill(seed: u64, out: &mut [u8]) {
    let mut n = mixed(seed);
    for piece in out.chunks_mut(8) {
        n = n.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        piece.copy_from_slice(&n.to_le_bytes()[..piece.len()]);
    }
}
