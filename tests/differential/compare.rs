//! Runs a sequence on both filesystems, each in a directory of its own, and lays what was seen side by side.

use super::calls;
use super::ground::Ground;
use super::known::{Difference, Known};
use super::perform::{Look, Outcome, Performer};
use super::step::Step;
use super::tree::{self, Facts, Tree};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

/// What one filesystem showed.
pub struct Record {
    outcomes: Vec<Outcome>,
    tree: Tree,
    stable: bool,
}

/// Facts that only the same filesystem must say again.
const OWN: [&str; 4] = ["inode", "exact mtime", "exact ctime", "exact atime"];

impl Record {
    /// Of each step, whether its call succeeded.
    pub fn succeeded(&self) -> Vec<bool> {
        self.outcomes.iter().map(|outcome| outcome.result.is_ok()).collect()
    }

    /// The files, without what was open.
    pub fn files(self) -> Tree {
        self.tree.into_iter().filter(|(path, _)| !path.starts_with("slot ")).collect()
    }
}

/// Runs steps in a new directory and looks at what they left. The thread has a root of its own (`calls::own_root`).
fn record(dir: &Path, steps: &[Step], look: Look, skip: &dyn Fn(&Step) -> bool) -> Record {
    std::fs::create_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    inside(dir, || {
        calls::chmod(b".", 0o777).expect("it is ours");
        let mut performer = Performer::default();
        let outcomes = performer.perform(steps, look, skip);
        let stable = performer.inodes_are_stable();
        Record { outcomes, tree: tree::snapshot(&performer.open_files()), stable }
    })
}

/// Does something with `dir` as the thread's root, and comes back even when it panics.
fn inside<T>(dir: &Path, work: impl FnOnce() -> T) -> T {
    struct Back(File);
    impl Drop for Back {
        fn drop(&mut self) {
            calls::enter(self.0.as_raw_fd());
        }
    }
    let _back = Back(File::open("/").expect("the root opens"));
    let dir = File::open(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    calls::enter(dir.as_raw_fd());
    work()
}

/// What lies in a directory now.
pub fn look_again(dir: &Path) -> Tree {
    inside(dir, || tree::snapshot(&[]))
}

/// Runs a sequence on both; the differences that no row covers, and the record of the mount.
pub fn run(ground: &Ground, name: &str, steps: &[Step], look: Look, known: &Known) -> (Vec<String>, Record) {
    let mount = record(&ground.mount().join(name), steps, look, &|_| false);
    let ext4 = record(&ground.ext4().join(name), steps, look, &|step| known.refusal(step).is_some());
    let mut found = Vec::new();
    for n in 0..steps.len() {
        compare_step(steps, n, &mount.outcomes[n], &ext4.outcomes[n], known, &mut found);
    }
    compare_trees(steps, (&mount.tree, &ext4.tree), known, &mut found);
    for (side, record) in [("the mount", &mount), ("ext4", &ext4)] {
        if !record.stable {
            found.push(format!("{side}: an open file has another inode number than before"));
        }
    }
    (found, mount)
}

fn compare_step(steps: &[Step], n: usize, mount: &Outcome, ext4: &Outcome, known: &Known, found: &mut Vec<String>) {
    let step = &steps[n];
    if let Some(number) = known.refusal(step) {
        match mount.result {
            Err(said) if said == number => known.note_refusal(step),
            other => found.push(format!("step {} {:?}: to be refused with {number}: {other:?}", n, step)),
        }
        return;
    }
    let mut note = |fact, mount: String, ext4: String| {
        let difference = Difference { step: Some((n, step)), steps, path: "", fact, mount, ext4 };
        if !known.covers(&difference) {
            found.push(say(&difference));
        }
    };
    if mount.result != ext4.result {
        note("result", format!("{:?}", mount.result), format!("{:?}", ext4.result));
    } else {
        compare_facts(&mount.facts, &ext4.facts, &mut note);
    }
}

fn compare_facts(mount: &Facts, ext4: &Facts, note: &mut dyn FnMut(&'static str, String, String)) {
    for (fact, value) in mount.iter().filter(|(fact, _)| !OWN.contains(fact)) {
        match ext4.iter().find(|(other, _)| other == fact) {
            Some((_, other)) if other == value => {}
            other => note(fact, value.clone(), other.map_or("nothing".into(), |(_, other)| other.clone())),
        }
    }
    for (fact, value) in ext4 {
        if !mount.iter().any(|(other, _)| other == fact) {
            note(fact, "nothing".into(), value.clone());
        }
    }
}

fn compare_trees(steps: &[Step], (mount, ext4): (&Tree, &Tree), known: &Known, found: &mut Vec<String>) {
    let nothing = Facts::new();
    let mut paths: Vec<&String> = mount.keys().chain(ext4.keys()).collect();
    paths.sort();
    paths.dedup();
    for path in paths {
        let mut note = |fact, mount, ext4| {
            let difference = Difference { step: None, steps, path, fact, mount, ext4 };
            if !known.covers(&difference) {
                found.push(say(&difference));
            }
        };
        match (mount.get(path), ext4.get(path)) {
            (Some(mount), Some(ext4)) => compare_facts(mount, ext4, &mut note),
            (mount, ext4) => {
                note(
                    "existence",
                    format!("{:?}", mount.unwrap_or(&nothing)),
                    format!("{:?}", ext4.unwrap_or(&nothing)),
                );
            }
        }
    }
}

fn say(difference: &Difference) -> String {
    let place = match difference.step {
        Some((n, step)) => format!("step {n} {step:?}"),
        None => format!("at the end, {}", difference.path),
    };
    format!("{place}: {}: mount {}, ext4 {}", difference.fact, difference.mount, difference.ext4)
}

/// What of a tree is not as it was, on the same filesystem.
pub fn changes(before: &Tree, now: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, facts) in before {
        match now.get(path) {
            Some(again) if again == facts => {}
            Some(again) => {
                let other = facts.iter().zip(again).find(|(a, b)| a != b);
                found.push(format!("{path}: was, is: {other:?}"));
            }
            None => found.push(format!("{path} is gone")),
        }
    }
    found.extend(now.keys().filter(|path| !before.contains_key(*path)).map(|path| format!("{path} is new")));
    found
}

/// Leaves out steps as long as the sequence still shows a difference.
pub fn shrink(steps: &[Step], mut differs: impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let mut steps = steps.to_vec();
    let mut chunk = steps.len() / 2;
    while chunk > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + chunk).min(steps.len()));
            if differs(&fewer) {
                steps = fewer;
            } else {
                at += chunk;
            }
        }
        chunk /= 2;
    }
    steps
}
