//! Files whose every byte is known: written, changed, read and removed, while the store works or fails.
//!
//! A call that ends with EIO did nothing; whether it may is the test's business. A call that succeeds did all it says, and what
//! is read is what was written: anything else is an error that ends the test.

use nix::fcntl::OFlag;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// No file is larger.
const BYTES_MAX: u64 = 200_000;

/// A folder and what is in it.
pub struct Load {
    folder: PathBuf,
    files: BTreeMap<String, Vec<u8>>,
    random: u64,
    named: u64,
    pub done: Done,
}

/// What came of the calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Calls that succeeded.
    pub calls: u64,
    /// Calls that ended with EIO.
    pub failed: u64,
    /// How long the slowest call took.
    pub slowest: Duration,
}

/// What is wrong, in words.
type Wrong = String;

impl Load {
    /// A new folder; the same seed does the same.
    pub fn new(folder: &Path, seed: u64) -> Load {
        fs::create_dir(folder).expect("a new folder");
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Load { folder: folder.into(), files: BTreeMap::new(), random, named: 0, done: Done::default() }
    }

    /// Writes this many files of this size, all of which succeeds.
    pub fn fill(&mut self, files: usize, bytes: usize) {
        for _ in 0..files {
            let (name, data) = (self.fresh_name(), self.bytes(bytes));
            fs::write(self.folder.join(&name), &data).expect("the store is not needed");
            self.files.insert(name, data);
        }
    }

    /// One call or a few on one file, of any kind.
    pub fn step(&mut self) -> Result<(), Wrong> {
        let existing = self.any_name();
        match (self.below(100), existing) {
            (0..30, _) | (_, None) => self.create(),
            (30..50, Some(name)) => self.overwrite(&name),
            (50..55, Some(name)) => self.truncate(&name),
            (55..62, Some(name)) => self.rename(&name),
            (62..75, Some(name)) => self.remove(&name),
            (75.., Some(name)) => self.compare(&name),
        }
    }

    /// Reads a part of any file.
    pub fn look(&mut self) -> Result<(), Wrong> {
        let name = self.any_name().ok_or("no file")?;
        let size = self.files[&name].len() as u64;
        let at = self.below(size.max(1));
        let mut part = vec![0; self.below(100_000) as usize + 1];
        let path = self.folder.join(&name);
        let Some(found) = self.call(&name, || direct(&path)?.read_at(&mut part, at))? else { return Ok(()) };
        let wanted = &self.files[&name][at as usize..];
        // The kernel may give less than was asked for, never nothing before the end.
        let whole = found > 0 || wanted.is_empty();
        same(&name, at, &part[..found], &wanted[..found.min(wanted.len())], whole)
    }

    /// Everything is there, nothing else is, and every byte is right.
    pub fn verify(&mut self) -> Result<usize, Wrong> {
        let listed = fs::read_dir(&self.folder).and_then(|entries| {
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<io::Result<Vec<_>>>()
        });
        let mut listed = listed.map_err(|e| format!("{}: {e}", self.folder.display()))?;
        listed.sort_unstable();
        let names: Vec<String> = self.files.keys().cloned().collect();
        if listed != names {
            let (extra, lost): (Vec<_>, Vec<_>) = (
                listed.iter().filter(|name| !self.files.contains_key(*name)).collect(),
                names.iter().filter(|name| !listed.contains(name)).collect(),
            );
            return Err(format!("{}: these must not be there: {extra:?}; these must: {lost:?}", self.folder.display()));
        }
        for name in &names {
            let failed = self.done.failed;
            self.compare(name)?;
            if self.done.failed > failed {
                return Err(format!("{name}: EIO, and the store is there"));
            }
        }
        Ok(names.len())
    }

    fn create(&mut self) -> Result<(), Wrong> {
        let size = [0, 1, 1000, 4096, 20_000, 65_537, BYTES_MAX][self.below(7) as usize];
        let (name, data) = (self.fresh_name(), self.bytes(size as usize));
        let path = self.folder.join(&name);
        let Some(file) = self.call(&name, || File::create_new(&path))? else { return Ok(()) };
        self.files.insert(name.clone(), Vec::new());
        self.write(&name, &file, 0, &data)?;
        if self.below(4) == 0 {
            self.call(&name, || file.sync_all())?;
        }
        Ok(())
    }

    fn overwrite(&mut self, name: &str) -> Result<(), Wrong> {
        let path = self.folder.join(name);
        let Some(file) = self.call(name, || OpenOptions::new().write(true).open(&path))? else { return Ok(()) };
        let size = self.files[name].len() as u64;
        let at = self.below(size + 1);
        let length = self.below(60_000).min(BYTES_MAX - at.min(BYTES_MAX));
        let data = self.bytes(length as usize);
        self.write(name, &file, at, &data)
    }

    /// Writes in as many calls as the kernel makes of it.
    fn write(&mut self, name: &str, file: &File, at: u64, data: &[u8]) -> Result<(), Wrong> {
        let mut written = 0;
        while written < data.len() {
            let place = at + written as u64;
            let Some(n) = self.call(name, || file.write_at(&data[written..], place))? else { return Ok(()) };
            let contents = self.files.get_mut(name).expect("it is there");
            let end = place as usize + n;
            contents.resize(contents.len().max(end), 0);
            contents[place as usize..end].copy_from_slice(&data[written..written + n]);
            written += n;
        }
        Ok(())
    }

    fn truncate(&mut self, name: &str) -> Result<(), Wrong> {
        let path = self.folder.join(name);
        let size = self.below(BYTES_MAX);
        let file = self.call(name, || OpenOptions::new().write(true).open(&path))?;
        let Some(file) = file else { return Ok(()) };
        if self.call(name, || file.set_len(size))?.is_some() {
            self.files.get_mut(name).expect("it is there").resize(size as usize, 0);
        }
        Ok(())
    }

    fn rename(&mut self, name: &str) -> Result<(), Wrong> {
        let new = self.fresh_name();
        let (from, to) = (self.folder.join(name), self.folder.join(&new));
        if self.call(name, || fs::rename(&from, &to))?.is_some() {
            let data = self.files.remove(name).expect("it is there");
            self.files.insert(new, data);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), Wrong> {
        let path = self.folder.join(name);
        if self.call(name, || fs::remove_file(&path))?.is_some() {
            self.files.remove(name);
        }
        Ok(())
    }

    /// Reads a whole file.
    fn compare(&mut self, name: &str) -> Result<(), Wrong> {
        let path = self.folder.join(name);
        let Some(mut file) = self.call(name, || direct(&path))? else { return Ok(()) };
        let (mut data, mut part) = (Vec::new(), vec![0; 1 << 17]);
        loop {
            match self.call(name, || file.read(&mut part))? {
                Some(0) => return same(name, 0, &data, &self.files[name], true),
                Some(n) => data.extend_from_slice(&part[..n]),
                None => return Ok(()),
            }
        }
    }

    /// Makes a call, with an eye on the time; `None` is EIO.
    fn call<T>(&mut self, name: &str, call: impl FnOnce() -> io::Result<T>) -> Result<Option<T>, Wrong> {
        let begin = Instant::now();
        let result = call();
        self.done.slowest = self.done.slowest.max(begin.elapsed());
        match result {
            Ok(value) => {
                self.done.calls += 1;
                Ok(Some(value))
            }
            Err(e) if e.raw_os_error() == Some(libc::EIO) => {
                self.done.failed += 1;
                Ok(None)
            }
            Err(e) => Err(format!("{name}: {e}")),
        }
    }

    fn any_name(&mut self) -> Option<String> {
        let at = self.below(self.files.len().max(1) as u64) as usize;
        self.files.keys().nth(at).cloned()
    }

    fn fresh_name(&mut self) -> String {
        self.named += 1;
        format!("file {}", self.named)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// Opened so that the kernel's copy of the contents answers nothing.
fn direct(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_DIRECT.bits()).open(path)
}

fn same(name: &str, at: u64, found: &[u8], wanted: &[u8], whole: bool) -> Result<(), Wrong> {
    if found == wanted && whole {
        return Ok(());
    }
    let differs = found.iter().zip(wanted).position(|(a, b)| a != b);
    Err(format!(
        "WRONG BYTES: {name}: {} bytes from {at}, {} expected, first difference {differs:?}",
        found.len(),
        wanted.len()
    ))
}
