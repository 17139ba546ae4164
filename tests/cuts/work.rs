//! Writers whose every operation is known: what a folder holds says after how many of them it was.

use crate::Dice;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Writers at the same time.
pub const WRITERS: usize = 3;
/// Operations of one step.
const STEP: u64 = 6;
/// A file is removed so many steps after it was made.
const LIVES: u64 = 16;
/// Bytes of files: inline, one object, several.
const SIZES: [usize; 4] = [300, 5_000, 100_000, 20_000];

/// What somebody is told when an fsync was acknowledged: which writer, and how many of its operations that covers.
pub type Told<'a> = &'a (dyn Fn(usize, u64) + Sync);

fn contents(writer: usize, step: u64, salt: u64) -> Vec<u8> {
    let mut dice = Dice::new((writer as u64) << 40 | step << 4 | salt);
    let size = SIZES[(step % SIZES.len() as u64) as usize];
    (0..size.div_ceil(8)).flat_map(|_| dice.below(u64::MAX).to_le_bytes()).take(size).collect()
}

/// What a folder holds after so many operations of its writer.
fn state(writer: usize, operations: u64) -> BTreeMap<String, Vec<u8>> {
    let (steps, rest) = (operations / STEP, operations % STEP);
    let mut files = BTreeMap::new();
    let first = if rest == 0 { steps.saturating_sub(LIVES) } else { (steps + 1).saturating_sub(LIVES + 1) };
    for step in first..steps {
        files.insert(format!("file-{step}"), contents(writer, step, 0));
    }
    if steps > 0 {
        files.insert("current".to_owned(), contents(writer, steps - 1, 1));
    }
    if rest >= 1 {
        files.insert(format!("file-{steps}"), Vec::new());
    }
    if rest >= 2 {
        files.insert(format!("file-{steps}"), contents(writer, steps, 0));
    }
    match rest {
        3 => drop(files.insert("new".to_owned(), Vec::new())),
        4 => drop(files.insert("new".to_owned(), contents(writer, steps, 1))),
        5 => drop(files.insert("current".to_owned(), contents(writer, steps, 1))),
        _ => {}
    }
    files
}

/// One writer and its folder.
pub struct Writer {
    number: usize,
    folder: PathBuf,
    /// Operations begun, and those that an fsync acknowledged.
    begun: AtomicU64,
    owed: AtomicU64,
}

impl Writer {
    /// Writers with folders in `root`; their folders are durable.
    pub fn all(root: &Path, round: u64) -> Vec<Writer> {
        let one = |number| {
            let folder = root.join(format!("round-{round}-writer-{number}"));
            fs::create_dir(&folder).expect("a folder");
            Writer { number, folder, begun: AtomicU64::new(0), owed: AtomicU64::new(0) }
        };
        let writers = (0..WRITERS).map(one).collect();
        File::open(root).and_then(|root| root.sync_all()).expect("synced");
        writers
    }

    /// Works until it is told to stop, or an operation fails because the power is gone. `told` hears of each fsync that returned,
    /// `early` of each operation that did.
    pub fn work(&self, stop: &AtomicBool, seed: u64, told: Told<'_>, early: Told<'_>) -> Option<io::Error> {
        let mut dice = Dice::new(seed + self.number as u64);
        for step in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let done = self.step(step).and_then(|()| {
                early(self.number, self.begun());
                if dice.below(8) == 0 { self.sync(step, told) } else { Ok(()) }
            });
            if let Err(e) = done {
                return Some(e);
            }
        }
        None
    }

    fn begin(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
    }

    fn step(&self, step: u64) -> io::Result<()> {
        self.make(&format!("file-{step}"), &contents(self.number, step, 0))?;
        self.make("new", &contents(self.number, step, 1))?;
        self.begin();
        fs::rename(self.folder.join("new"), self.folder.join("current"))?;
        self.begin();
        match step.checked_sub(LIVES) {
            Some(old) => fs::remove_file(self.folder.join(format!("file-{old}"))),
            None => Ok(()),
        }
    }

    fn make(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        self.begin();
        let mut file = File::create_new(self.folder.join(name))?;
        self.begin();
        match file.write(contents)? {
            all if all == contents.len() => Ok(()),
            _ => panic!("a write of {} bytes is one operation", contents.len()),
        }
    }

    fn sync(&self, step: u64, told: Told<'_>) -> io::Result<()> {
        let covered = self.begun.load(Ordering::SeqCst);
        let what = if step % 2 == 0 { self.folder.clone() } else { self.folder.join(format!("file-{step}")) };
        File::open(what)?.sync_all()?;
        self.owed.store(covered, Ordering::SeqCst);
        told(self.number, covered);
        Ok(())
    }

    /// Operations that are owed to the writer by now.
    pub fn owed(&self) -> u64 {
        self.owed.load(Ordering::SeqCst)
    }

    /// Operations begun.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// After how many operations the folder is what it is on another mount of the filesystem; at least so many are owed.
    pub fn judge(&self, mount: &Path, owed: u64) -> Result<u64, String> {
        let folder = mount.join(self.folder.file_name().expect("it has a name"));
        let found = read(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let any = |n: &u64| state(self.number, *n) == found;
        if let Some(n) = (owed..=self.begun()).find(any) {
            return Ok(n);
        }
        let names: Vec<String> = found.iter().map(|(name, data)| format!("{name}: {}", data.len())).collect();
        let what = match (0..owed).rev().find(any) {
            Some(n) => format!("is as after {n} operations"),
            None => format!("is as it never was: {names:?}"),
        };
        Err(format!("the folder of writer {} {what}, {owed} are owed of {}", self.number, self.begun()))
    }
}

fn read(folder: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let one = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?))
    };
    fs::read_dir(folder)?.map(one).collect()
}

#[test]
fn states_are_told_apart() {
    let states: Vec<_> = (0..200).map(|n| state(1, n)).collect();
    let same = |n: &usize| states[*n] == states[n + 1];
    // The last operation of a step does nothing as long as there is nothing to remove.
    assert_eq!((0..199).filter(same).collect::<Vec<_>>(), (0..16).map(|step| step * 6 + 5).collect::<Vec<_>>());
}
