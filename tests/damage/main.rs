//! Damage, everywhere: small stores and state directories with an object of every kind, cleanly closed. Each byte of each of
//! them is flipped, in two ways, and each is cut at each length; whoever reads it then, by a mount of the state directory, by one
//! of the store alone, as a follower or as `skylog check`, finds exactly what was there, or says which object is damaged. Never
//! a wrong byte, never a panic, never an endless loop. After `skylog check --repair`, with the state directory and of the store
//! alone, the check finds it whole, and so is each file of which nothing was damaged.
//!
//! `SKYLOG_DAMAGE_EVERY=n` looks at every nth byte beside those at the ends of each object; 1 is all of them.
//! `SKYLOG_DAMAGE_SEED=n` begins elsewhere and flips other bits. `SKYLOG_DAMAGE_ONLY=text` looks at objects whose names have it.
//! `SKYLOG_DAMAGE_REPAIRS=n` repairs after n trials of each object, spread over all of them, however many bytes are looked at.

#[path = "../counted/mod.rs"]
mod counted;
mod heard;
mod hits;
mod kinds;
mod repaired;
mod scene;
mod store_file;
mod sweep;
mod tally;
mod views;

use counted::Counts;
use kinds::Kind;
use sweep::Scope;
use tally::Tally;

/// Bytes that are passed over between two that are not, unless told otherwise.
const EVERY: u64 = 97;
/// So many trials of each object are repaired, unless told otherwise.
const REPAIRS: u64 = 12;

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn promise_g8_damage_of_any_byte_is_an_error_that_names_the_object_or_changes_nothing() {
    heard::listen();
    let scope = Scope {
        every: env("SKYLOG_DAMAGE_EVERY").unwrap_or(EVERY).max(1),
        seed: env("SKYLOG_DAMAGE_SEED").unwrap_or(1),
        repairs: usize::try_from(env("SKYLOG_DAMAGE_REPAIRS").unwrap_or(REPAIRS).max(1)).expect("small"),
        only: std::env::var("SKYLOG_DAMAGE_ONLY").ok(),
    };
    let mut all = Tally::default();
    let mut histories = 0;
    for scene in scene::all() {
        println!("{}: {} objects, {} bytes", scene.name, scene.objects.len(), scene.bytes());
        all += sweep::run(&scene, &scope);
        histories += 1;
    }
    all += store_file::sweep(&scope);
    println!("{all}");
    let faults = all.kinds.values().map(|counts| counts.trials).sum();
    Counts { part: "every object damaged", histories, failures: all.failed, faults, ..Counts::default() }.print();
    all.assert_no_failure();
    if scope.only.is_none() {
        for kind in Kind::ALL {
            all.assert_hit(kind);
        }
    }
}
