//! Every fault of the proxy under load, each on a mount of its own, all side by side: no wrong byte, no call that hangs, and
//! when the fault ends all heals by itself: everything reaches the store, from which alone it is all there.
//!
//! `SKYLOG_FAULT_SECONDS` says how long each lasts, 20 by default; `SKYLOG_FAULT=lost` runs one alone; `SKYLOG_FAULT_SEED`.

use super::counted::Counts;
use super::load::{Done, Load};
use super::scratch::Scratch;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What happens, one after the other for the same time.
const CASES: [(&str, &[&str]); 14] = [
    ("refuse", &["refuse=1000", "refuse=500"]),
    ("delay", &["delay=400"]),
    ("stall", &["stall=60"]),
    ("cut-request", &["cut-request=400"]),
    ("cut-answer", &["cut-answer=400"]),
    ("500", &["500=400", "500=1000"]),
    ("503", &["503=1000", "503=400"]),
    ("429", &["429=500"]),
    ("short", &["short=400"]),
    ("lie", &["lie=400"]),
    ("flip", &["flip=400"]),
    ("lost", &["lost=400"]),
    ("late", &["late=400"]),
    (
        "all",
        &[
            "refuse=40 delay=40 cut-request=40 cut-answer=40 500=40 503=40 429=40 short=40 lie=40 flip=40 lost=40 late=40",
        ],
    ),
];

/// No call may take longer: the deadline of a read that waits for the store, and what a busy machine adds.
const CALL_MAX: Duration = Duration::from_secs(90);
/// Between two calls of one thread, so that all mounts of this machine get their turn.
const PAUSE: Duration = Duration::from_millis(20);
/// A cache much smaller than the files, and shipping all the time.
const OPTIONS: [&str; 2] = ["--cache-size=16MiB", "--ship-interval=1"];
/// What can only be read from the store when the fault begins.
const COLD_FILES: usize = 48;
const COLD_BYTES: usize = 500_000;

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")),
        Err(_) => default,
    }
}

#[test]
fn promise_x9_every_fault_of_the_store_heals_and_no_byte_is_ever_wrong() {
    let seconds = Duration::from_secs(number("SKYLOG_FAULT_SECONDS", 20));
    let seed = number("SKYLOG_FAULT_SEED", 1);
    let only = std::env::var("SKYLOG_FAULT").ok();
    let cases: Vec<_> = CASES.iter().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name)).collect();
    assert!(!cases.is_empty(), "SKYLOG_FAULT names no fault");
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let started: Vec<_> =
            cases.iter().map(|(name, plans)| scope.spawn(move || (name, case(plans, seconds, seed)))).collect();
        started.into_iter().map(|thread| thread.join()).collect()
    });
    let (mut failures, mut histories, mut faults) = (Vec::new(), 0, 0);
    for outcome in outcomes {
        match outcome {
            Ok((name, Ok((injected, figures)))) => {
                eprintln!("{name}: {injected} faults {figures}");
                (histories, faults) = (histories + 1, faults + injected);
            }
            Ok((name, Err(why))) => failures.push(format!("{name}: {why}")),
            // What a thread panicked with is on standard error already.
            Err(_) => failures.push("a case panicked".into()),
        }
    }
    let failed = failures.len() as u64;
    let part = "every fault of a store";
    Counts { part, histories: histories + failed, failures: failed, faults, ..Counts::default() }.print();
    assert!(failures.is_empty(), "seed {seed}:\n{}", failures.join("\n"));
}

/// One fault from beginning to end; how often it was injected and other figures, or what is wrong.
fn case(plans: &[&str], seconds: Duration, seed: u64) -> Result<(u64, String), String> {
    let mut scratch = Scratch::mounted(seed, &[]);
    let mut cold = Load::new(&scratch.mnt.join("cold"), seed);
    cold.fill(COLD_FILES, COLD_BYTES);
    scratch.umount();
    scratch.wipe();
    scratch.mount(&OPTIONS);
    let mut hot = Load::new(&scratch.mnt.join("hot"), seed + 1);

    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let wrong = [scope.spawn(|| until(&over, || hot.step())), scope.spawn(|| until(&over, || cold.look()))];
        for plan in plans {
            scratch.plan(plan);
            let begin = Instant::now();
            let share = seconds / u32::try_from(plans.len()).expect("few");
            while begin.elapsed() < share && !wrong.iter().any(|thread| thread.is_finished()) {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        over.store(true, Ordering::Relaxed);
        wrong.into_iter().try_for_each(|thread| thread.join().expect("it reports"))
    })
    .map_err(|why| format!("during the fault: {why}\n{}", scratch.log()))?;
    let (written, looked) = (hot.done, cold.done);
    let injected = scratch.counts();
    scratch.plan("");
    during(&written, &looked, injected.faults())?;

    let from_here = |hot: &mut Load, cold: &mut Load, place: &str| -> Result<usize, String> {
        Ok(hot.verify().map_err(|why| format!("{place}: {why}"))?
            + cold.verify().map_err(|why| format!("{place}: {why}"))?)
    };
    from_here(&mut hot, &mut cold, "after the fault, mounted as before")?;
    scratch.umount();
    scratch.wipe();
    scratch.mount(&OPTIONS);
    let names = from_here(&mut hot, &mut cold, "from the store alone")?;
    scratch.umount();
    scratch.proxy.settle();
    scratch.check();
    let figures = format!("{:?}; writing {written:?}; reading {looked:?}; {names} files whole", injected.injected);
    Ok((injected.faults(), figures))
}

/// What must be so while the fault lasts, whichever it is.
fn during(written: &Done, looked: &Done, faults: u64) -> Result<(), String> {
    if faults == 0 {
        return Err("nothing was injected; the run proves nothing".into());
    }
    if written.calls == 0 || looked.calls == 0 {
        return Err(format!("no call succeeded: writing {written:?}, reading {looked:?}"));
    }
    let slowest = written.slowest.max(looked.slowest);
    if slowest > CALL_MAX {
        return Err(format!("a call took {slowest:?}"));
    }
    Ok(())
}

fn until(over: &AtomicBool, mut step: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    while !over.load(Ordering::Relaxed) {
        step()?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
