//! Damage, everywhere: small stores and state directories with an object of every kind, cleanly closed. Each byte of each of
//! them is flipped, in two ways, and each is cut at each length; whoever reads it then, by a mount of the state directory, by one
//! of the store alone, as a follower or as `skylog check`, finds exactly what was there, or says which object is damaged. Never
//! a wrong byte, never a panic, never an endless loop.
//!
//! `SKYLOG_DAMAGE_EVERY=n` looks at every nth byte beside those at the ends of each object; 1 is all of them.
//! `SKYLOG_DAMAGE_SEED=n` begins elsewhere and flips other bits. `SKYLOG_DAMAGE_ONLY=text` looks at objects whose names have it.

#[path = "../counted/mod.rs"]
mod counted;
mod heard;
mod kinds;
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

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn promise_g8_damage_of_any_byte_is_an_error_that_names_the_object_or_changes_nothing() {
    heard::listen();
    let scope = Scope {
        every: env("SKYLOG_DAMAGE_EVERY").unwrap_or(EVERY).max(1),
        seed: env("SKYLOG_DAMAGE_SEED").unwrap_or(1),
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
