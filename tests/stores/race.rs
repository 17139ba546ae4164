//! Several writers for one filesystem: of those that mount at the same moment one writes, and one that was stopped in the middle changes
//! nothing when it goes on after a takeover.
//!
//! `SKYLOG_RACE_ROUNDS` says how many rounds each test has.

use super::counted::Counts;
use super::place::{Place, Tree};
use super::scratch::Scratch;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Mounts at the same moment.
const MOUNTS: usize = 8;
/// What the soak calls this.
const PART: &str = "several writers of one bucket";

fn rounds(usual: u64) -> u64 {
    std::env::var("SKYLOG_RACE_ROUNDS").map_or(usual, |text| text.parse().expect("a number of rounds"))
}

fn write(path: PathBuf, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// What is in the store, as one who has nothing but that sees it.
fn look(scratch: &Scratch, name: &str) -> Tree {
    // Without --takeover: whoever wrote last has let go.
    let mut fresh = Place::mounted(scratch, name, &[]);
    let tree = fresh.tree();
    fresh.umount(scratch).succeeds();
    tree
}

/// All mounts are started together; each that succeeds writes and syncs, and is drained by its unmount, all at once.
fn race(seed: u64, options: &[&str]) {
    let scratch = Scratch::new(seed);
    scratch.make();
    let (mut shipped, mut counts) = (Tree::new(), Counts { part: PART, ..Counts::default() });
    for round in 0..rounds(5) {
        let mut places: Vec<Place> = (0..MOUNTS).map(|n| Place::new(&scratch, &format!("r{round}.{n}"))).collect();
        let mounts: Vec<_> = places.iter().map(|place| place.start(&scratch, options)).collect();
        for (place, mount) in places.iter_mut().zip(mounts) {
            let said = place.ends(&scratch, mount);
            if !place.is_mounted() {
                let sentence = said.fails();
                assert!(sentence.contains("--takeover"), "refused for another reason: {sentence}");
            }
        }
        let mut mounted: Vec<_> = places.into_iter().enumerate().filter(|(_, place)| place.is_mounted()).collect();
        for (n, place) in &mounted {
            let name = format!("round {round} by {n}");
            if let Err(e) = write(place.mnt.join(&name), &name) {
                // One that knows already that it has lost.
                assert!([libc::EROFS, libc::EIO].map(Some).contains(&e.raw_os_error()), "{name}: {e}");
            }
        }
        let umounts: Vec<_> = mounted.iter().map(|(_, place)| place.start_umount(&scratch)).collect();
        let mut drained = Vec::new();
        for ((n, place), umount) in mounted.iter_mut().zip(umounts) {
            let said = place.ends_umount(&scratch, umount);
            match said.is_success() {
                true => drained.push(format!("round {round} by {n}")),
                false => {
                    let sentence = said.fails();
                    assert!(sentence.contains("taken over") && sentence.contains("skylog salvage"), "{sentence}");
                }
            }
        }
        let [winner] = &drained[..] else { panic!("round {round}: these were drained: {drained:?}") };
        shipped.insert(winner.clone(), winner.clone().into_bytes());
        assert_eq!(look(&scratch, &format!("r{round}.look")), shipped);
        (counts.histories, counts.states) = (counts.histories + 1, counts.states + 1);
    }
    scratch.skylog(&["check", "--data", &scratch.url]).succeeds();
    counts.print();
}

#[test]
fn of_eight_mounts_at_once_that_take_over_one_writes() {
    race(1, &["--takeover"]);
}

#[test]
fn of_eight_mounts_at_once_one_writes() {
    race(2, &[]);
}

/// Files with a number each, one after the other, each synced, until the writer is one no longer. Returns how many were synced.
fn load(folder: PathBuf) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        for n in 0.. {
            if write(folder.join(format!("{n:06}")), &contents(n)).is_err() {
                return n;
            }
        }
        unreachable!("the numbers do not end")
    })
}

fn contents(n: u64) -> String {
    // Some are in the increment, and some in segments.
    format!("{n} ").repeat(if n % 3 == 0 { 2000 } else { 20 })
}

/// Of the files of a load there are the first ones, whole; the last may be in the making.
fn assert_prefix(tree: &Tree, folder: &str) {
    let files: BTreeMap<_, _> = tree.iter().filter(|(name, _)| name.starts_with(folder)).collect();
    for (n, (name, bytes)) in (0..).zip(&files) {
        assert_eq!(**name, format!("{folder}/{n:06}"), "a file is missing");
        let whole = contents(n).into_bytes();
        assert!(
            **bytes == whole || (n + 1 == files.len() as u64 && whole.starts_with(bytes)),
            "{name} is not what it was"
        );
    }
}

#[test]
fn a_writer_that_was_stopped_and_goes_on_after_a_takeover_changes_nothing() {
    let scratch = Scratch::new(3);
    scratch.make();
    let (mut random, mut stored) = (0x9e37_79b9_7f4a_7c15_u64, 0);
    let mut counts = Counts { part: PART, ..Counts::default() };
    for round in 0..rounds(4) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let folder = format!("load {round}");
        // The first one goes on while the second is at work, or when nobody is; its fsync asks the store, or its own disk.
        let (early, durability) = (round % 2 == 0, if round / 2 % 2 == 0 { "store" } else { "local" });
        let options = ["--ship-interval", "1", "--durability", durability];
        let mut first = Place::mounted(&scratch, &format!("first.{round}"), &options);
        fs::create_dir(first.mnt.join(&folder)).expect("a mount");
        let loading = load(first.mnt.join(&folder));
        // Somewhere between two requests to the store.
        let target = scratch.counts().of("", "") + 5 + (random >> 33) % 40;
        let begin = Instant::now();
        while scratch.counts().of("", "") < target {
            assert!(begin.elapsed() < Duration::from_secs(120), "nothing is shipped: {}", first.status(&scratch));
            std::thread::yield_now();
        }
        first.signal(Signal::SIGSTOP);

        let mut second = Place::new(&scratch, &format!("second.{round}"));
        let sentence = second.mount(&scratch, &[]).fails();
        assert!(sentence.contains(&format!("held by process {} on", first.pid())), "{sentence}");
        second.mount(&scratch, &["--takeover", "--ship-interval", "1"]).succeeds();
        assert_prefix(&second.tree(), &folder);
        let write_more = |from: u64| {
            for n in from..from + 20 {
                write(second.mnt.join(format!("second {round} {n}")), &contents(n)).expect("it is the writer");
            }
        };
        write_more(0);
        if early {
            first.signal(Signal::SIGCONT);
            write_more(20);
            first.until_fenced(&scratch);
            write_more(40);
        }
        let tree = second.tree();
        second.umount(&scratch).succeeds();
        if !early {
            first.signal(Signal::SIGCONT);
            first.until_fenced(&scratch);
        }
        let synced = loading.join().expect("it does not panic");
        if durability == "store" {
            stored += synced;
            let whole = |n: &u64| {
                tree.get(&format!("{folder}/{n:06}")).is_some_and(|found| *found == contents(*n).into_bytes())
            };
            assert_eq!(
                (0..synced).find(|n| !whole(n)),
                None,
                "round {round}: of {synced} synced files this one is lost"
            );
        }
        assert!(look(&scratch, &format!("look.{round}")) == tree, "round {round}: what others see has changed");
        scratch.skylog(&["check", "--data", &scratch.url]).succeeds();

        let sentence = first.umount(&scratch).fails();
        let salvage = format!("skylog salvage {} OUT", first.state.display());
        assert!(sentence.contains("stay in the journal") && sentence.contains(&salvage), "{sentence}");
        let sentence = first.mount(&scratch, &["--takeover"]).fails();
        assert!(sentence.contains("taken over") && sentence.contains(&salvage), "{sentence}");
        assert!(
            look(&scratch, &format!("late.{round}")) == tree,
            "round {round}: a mount that was refused changed something"
        );
        (counts.histories, counts.states) = (counts.histories + 1, counts.states + 2);
    }
    counts.print();
    assert!(stored > 0, "no fsync ever asked the store");
}
