//! Power cuts on real filesystems: below the mount lie ext4 and xfs in a file of their own, and the power goes in two ways.
//!
//! [`shutdown`] has the kernel stop the filesystem at once, without writing what it holds back. [`recorder`] stands below the
//! filesystem, in place of a disk: it notes every write, every flush and every fsync that was acknowledged, in their order, and
//! images are made of that as a disk may hold them when the power goes: all that was flushed, and a random part of the rest.
//!
//! Each time skylog is mounted on what is left. Everything that an fsync acknowledged is there, and what each writer did is there up
//! to one of its operations: see [`work`].
//!
//! `SKYLOG_CUT_ROUNDS=n` cuts more or fewer times, `SKYLOG_CUT_SEED=n` starts with another seed.

#[path = "../counted/mod.rs"]
mod counted;
mod daemon;
mod disk;
mod recorder;
mod shutdown;
mod work;

use std::process::Command;

/// A number from the environment.
fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn seed() -> u64 {
    env("SKYLOG_CUT_SEED").unwrap_or(1)
}

/// Runs a command of the system, which succeeds; what it printed.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}: {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Numbers that follow from a seed (xorshift, Marsaglia 2003).
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}
