//! Forgeries by chance.

use crate::{chance, honest, life};
use skylog::base::random::SeededRandom;
use std::panic::{AssertUnwindSafe, catch_unwind};

const CASES: u64 = 150;

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn whatever_entries_say_nothing_panics_and_everything_ends() {
    let (cases, first) = (env("SKYLOG_HOSTILE_CASES").unwrap_or(CASES), env("SKYLOG_HOSTILE_SEED").unwrap_or(1));
    let (mut refused, mut read, mut failed) = (0, 0, Vec::new());
    for seed in first..first + cases {
        let store = chance::forge(honest(), &SeededRandom::new(seed)).store();
        match catch_unwind(AssertUnwindSafe(|| life::live(&store))) {
            Ok(lived) => {
                refused += u64::from(!lived.refused.is_empty());
                read += u64::from(lived.read > 0);
            }
            Err(_) => failed.push(seed),
        }
    }
    println!("{cases} forged stores: {refused} with something refused, {read} with something read");
    assert_eq!(failed, Vec::<u64>::new(), "SKYLOG_HOSTILE_SEED=n SKYLOG_HOSTILE_CASES=1 shows one of them");
    assert!(cases < CASES || refused > cases / 4 && read > cases / 4, "the forgeries are not what they should be");
}
