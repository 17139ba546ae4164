//! A program that changes files and directories without a pause, and one that reads them through another mount. Each file and
//! each directory says by itself whether what was read was there at one moment: its parts are changed one by one, in their
//! order, from one version to the next, so at every moment the first of them have a version and all others the one before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Names in the directory that is listed; more than any one request carries.
pub const NAMES: usize = 2_100;
/// Names renamed in one step.
const NAMES_STEP: usize = 150;
/// Parts of the files that are written in place, bytes, and how many each has.
const BLOCK: usize = 128 << 10;
const BLOCKS: usize = 24;
const BLOCKS_STEP: usize = 7;
/// Files of each kind.
const IN_PLACE: usize = 2;
const REPLACED: usize = 4;
/// Bytes of a record of the log.
const RECORD: usize = 16;

/// How far something has come: the first `changed` parts have the version after this one. It only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Progress {
    version: u64,
    changed: usize,
}

impl Progress {
    /// What the versions of all parts say; an error when they never were so at the same time.
    fn of(versions: &[u64]) -> Result<Progress, String> {
        let first = *versions.first().ok_or("there is nothing")?;
        let changed = versions.iter().take_while(|version| **version == first).count();
        if changed == versions.len() {
            return Ok(Progress { version: first, changed: 0 });
        }
        match versions[changed..].iter().all(|version| version + 1 == first) {
            true => Ok(Progress { version: first - 1, changed }),
            false => Err(format!("{changed} parts of version {first}, and then {:?}", &versions[changed..])),
        }
    }

    /// The version that the next part gets, and which part that is.
    fn next(&mut self, parts: usize) -> (u64, usize) {
        let (version, part) = (self.version + 1, self.changed);
        self.changed += 1;
        if self.changed == parts {
            *self = Progress { version, changed: 0 };
        }
        (version, part)
    }
}

fn name(part: usize, version: u64) -> String {
    format!("{part:05}-{version:010}")
}

/// A part of a file: its first bytes say of which file, version and place it is, and of how many; all others follow from that.
fn block(file: usize, version: u64, part: usize, parts: usize, bytes: usize) -> Vec<u8> {
    let words = [file as u64, version, part as u64, parts as u64];
    let head: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    head.repeat(bytes / head.len())
}

/// The versions of the parts of a file that was read whole.
fn versions(file: usize, data: &[u8], bytes: usize) -> Result<Vec<u64>, String> {
    let word = |data: &[u8], at: usize| u64::from_le_bytes(data[at * 8..][..8].try_into().expect("eight bytes"));
    if data.is_empty() || data.len() % bytes != 0 {
        return Err(format!("{} bytes are no whole parts", data.len()));
    }
    let parts = data.len() / bytes;
    let one = |(part, found): (usize, &[u8])| {
        let version = word(found, 1);
        match found == block(file, version, part, parts, bytes) {
            true => Ok(version),
            false => Err(format!("part {part} of {parts} is not a part of that, it begins with {:?}", &found[..32])),
        }
    };
    data.chunks(bytes).enumerate().map(one).collect()
}

/// Replaced files are of many sizes.
fn parts_of(version: u64) -> usize {
    1 + (version * 7 % 23) as usize
}

/// The places of all that is written.
struct Places(PathBuf);

impl Places {
    fn names(&self) -> PathBuf {
        self.0.join("names")
    }

    fn in_place(&self, n: usize) -> PathBuf {
        self.0.join(format!("in-place-{n}"))
    }

    fn replaced(&self, n: usize) -> PathBuf {
        self.0.join(format!("replaced-{n}"))
    }

    fn log(&self) -> PathBuf {
        self.0.join("log")
    }
}

/// The one that writes.
pub struct Writer {
    places: Places,
    names: Progress,
    in_place: [Progress; IN_PLACE],
    replaced: [u64; REPLACED],
    records: u64,
    steps: usize,
}

impl Writer {
    /// Lays everything out in a new folder.
    pub fn new(root: &Path) -> io::Result<Writer> {
        let places = Places(root.to_path_buf());
        fs::create_dir_all(places.names())?;
        (0..NAMES).try_for_each(|part| File::create(places.names().join(name(part, 0))).map(drop))?;
        for n in 0..IN_PLACE {
            let all: Vec<u8> = (0..BLOCKS).flat_map(|part| block(n, 0, part, BLOCKS, BLOCK)).collect();
            fs::write(places.in_place(n), all)?;
        }
        fs::write(places.log(), "")?;
        let mut writer = Writer {
            places,
            names: Progress::default(),
            in_place: Default::default(),
            replaced: Default::default(),
            records: 0,
            steps: 0,
        };
        (0..REPLACED).try_for_each(|n| writer.replace(n))?;
        Ok(writer)
    }

    /// Goes on with what is there.
    pub fn resume(root: &Path) -> Result<Writer, String> {
        let places = Places(root.to_path_buf());
        let said = |e: io::Error| e.to_string();
        let names = list(&places.names())?;
        let (mut in_place, mut replaced) = ([Progress::default(); IN_PLACE], [0; REPLACED]);
        for (n, found) in in_place.iter_mut().enumerate() {
            *found = Progress::of(&versions(n, &fs::read(places.in_place(n)).map_err(said)?, BLOCK)?)?;
        }
        for (n, found) in replaced.iter_mut().enumerate() {
            *found = versions(n, &fs::read(places.replaced(n)).map_err(said)?, BLOCK / 8)?[0];
        }
        let records = fs::metadata(places.log()).map_err(said)?.len() / RECORD as u64;
        Ok(Writer { places, names, in_place, replaced, records, steps: 0 })
    }

    /// Changes a little of everything.
    pub fn step(&mut self) -> io::Result<()> {
        for _ in 0..NAMES_STEP {
            let (version, part) = self.names.next(NAMES);
            let folder = self.places.names();
            fs::rename(folder.join(name(part, version - 1)), folder.join(name(part, version)))?;
        }
        for n in 0..IN_PLACE {
            let file = OpenOptions::new().write(true).open(self.places.in_place(n))?;
            for _ in 0..BLOCKS_STEP {
                let (version, part) = self.in_place[n].next(BLOCKS);
                file.write_all_at(&block(n, version, part, BLOCKS, BLOCK), (part * BLOCK) as u64)?;
            }
        }
        self.replace(self.steps % REPLACED)?;
        self.record()?;
        self.steps += 1;
        Ok(())
    }

    fn replace(&mut self, n: usize) -> io::Result<()> {
        let version = self.replaced[n] + 1;
        let (parts, new) = (parts_of(version), self.places.0.join("new"));
        let all: Vec<u8> = (0..parts).flat_map(|part| block(n, version, part, parts, BLOCK / 8)).collect();
        fs::write(&new, all)?;
        fs::rename(new, self.places.replaced(n))?;
        self.replaced[n] = version;
        Ok(())
    }

    fn record(&mut self) -> io::Result<()> {
        let mut log = OpenOptions::new().append(true).open(self.places.log())?;
        log.write_all(record(self.records).as_bytes())?;
        self.records += 1;
        Ok(())
    }
}

fn record(number: u64) -> String {
    format!("{number:0width$}\n", width = RECORD - 1)
}

/// What a listing says.
fn list(folder: &Path) -> Result<Progress, String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut names = Vec::with_capacity(NAMES);
    for entry in entries {
        let entry = entry.map_err(|e| format!("{}: {e}", folder.display()))?;
        names.push(entry.file_name().into_string().expect("names of tests are text"));
    }
    names.sort();
    let mut versions = Vec::with_capacity(NAMES);
    for (part, name) in names.iter().enumerate() {
        let (found, version) = name.split_once('-').ok_or_else(|| format!("{name} is no name of ours"))?;
        if found.parse() != Ok(part) {
            return Err(format!("{name} in the place of part {part} of {} names", names.len()));
        }
        versions.push(version.parse().map_err(|_| format!("{name} is no name of ours"))?);
    }
    match versions.len() {
        NAMES => Progress::of(&versions),
        n => Err(format!("{n} names instead of {NAMES}")),
    }
}

/// What was read so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub listings: u64,
    pub files: u64,
    pub records: u64,
    /// Different states among the listings.
    pub states: u64,
}

/// The one that reads, elsewhere.
pub struct Reader {
    places: Places,
    names: Progress,
    in_place: [Progress; IN_PLACE],
    replaced: [u64; REPLACED],
    log: File,
    rest: Vec<u8>,
    pub seen: Seen,
}

impl Reader {
    /// Begins in a folder where everything is laid out.
    pub fn new(root: &Path) -> io::Result<Reader> {
        let places = Places(root.to_path_buf());
        let log = File::open(places.log())?;
        Ok(Reader {
            places,
            names: Progress::default(),
            in_place: Default::default(),
            replaced: Default::default(),
            log,
            rest: Vec::new(),
            seen: Seen::default(),
        })
    }

    /// Reads everything once. Fails when something never was as it was read, or has gone back.
    pub fn step(&mut self) -> Result<(), String> {
        let names = list(&self.places.names())?;
        self.seen.listings += 1;
        self.seen.states += u64::from(names != self.names);
        self.names = grown("names", self.names, names)?;
        for n in 0..IN_PLACE {
            let what = format!("in-place-{n}");
            let found = backwards(&self.places.in_place(n)).map_err(|e| format!("{what}: {e}"))?;
            let found = versions(n, &found, BLOCK).and_then(|versions| Progress::of(&versions));
            self.in_place[n] = grown(&what, self.in_place[n], found.map_err(|e| format!("{what}: {e}"))?)?;
        }
        for n in 0..REPLACED {
            let what = format!("replaced-{n}");
            let found = fs::read(self.places.replaced(n)).map_err(|e| format!("{what}: {e}"))?;
            let found = versions(n, &found, BLOCK / 8).map_err(|e| format!("{what}: {e}"))?;
            if found.iter().any(|version| *version != found[0]) || found.len() != parts_of(found[0]) {
                return Err(format!("{what}: {found:?}"));
            }
            self.replaced[n] = grown(&what, self.replaced[n], found[0])?;
        }
        self.seen.files += (IN_PLACE + REPLACED) as u64;
        self.follow_log()
    }

    /// Reads on where the log ended last, through the same opening.
    fn follow_log(&mut self) -> Result<(), String> {
        self.log.read_to_end(&mut self.rest).map_err(|e| format!("log: {e}"))?;
        let whole = self.rest.len() / RECORD * RECORD;
        for found in self.rest.drain(..whole).collect::<Vec<u8>>().chunks(RECORD) {
            if found != record(self.seen.records).as_bytes() {
                let found = String::from_utf8_lossy(found);
                return Err(format!("log: {found:?} in the place of record {}", self.seen.records));
            }
            self.seen.records += 1;
        }
        Ok(())
    }
}

fn grown<T: PartialOrd + std::fmt::Debug>(what: &str, before: T, now: T) -> Result<T, String> {
    if now < before { Err(format!("{what}: {before:?} went back to {now:?}")) } else { Ok(now) }
}

/// A file of the size of those that are written in place, its last part first, through one opening.
fn backwards(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut data = vec![0; BLOCKS * BLOCK];
    for part in (0..BLOCKS).rev() {
        file.read_exact_at(&mut data[part * BLOCK..][..BLOCK], (part * BLOCK) as u64)?;
    }
    Ok(data)
}

#[test]
fn what_never_was_at_one_moment_is_seen() {
    assert_eq!(Progress::of(&[3, 3, 2]), Ok(Progress { version: 2, changed: 2 }));
    assert_eq!(Progress::of(&[3, 3, 3]), Ok(Progress { version: 3, changed: 0 }));
    for never in [&[2, 3, 3][..], &[3, 2, 3], &[4, 2, 2], &[]] {
        Progress::of(never).expect_err("it never was");
    }
    let scratch = tempfile::tempdir().expect("a folder");
    let mut writer = Writer::new(scratch.path()).expect("laid out");
    let mut reader = Reader::new(scratch.path()).expect("laid out");
    for _ in 0..20 {
        writer.step().expect("a step");
        reader.step().expect("nobody writes meanwhile");
    }
    let seen = reader.seen;
    assert_eq!((seen.listings, seen.states, seen.files, seen.records), (20, 20, 120, 20));
    let resumed = Writer::resume(scratch.path()).expect("it is all there");
    assert_eq!((resumed.names, resumed.in_place), (writer.names, writer.in_place));
    assert_eq!((resumed.replaced, resumed.records), (writer.replaced, writer.records));
    let names = Places(scratch.path().to_path_buf()).names();
    fs::rename(names.join(name(NAMES - 1, writer.names.version)), names.join(name(NAMES - 1, 99))).expect("renamed");
    reader.step().expect_err("a name of another time");
}
