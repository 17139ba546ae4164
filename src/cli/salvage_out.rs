//! The directory that `skylog salvage` writes: `files/` with what was salvaged under its own paths, and `list`.

use super::failure::Failure;
use super::size;
use skylog::base::clock::Time;
use skylog::salvage::{Found, Missing, Salvage};
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How much was written.
#[derive(Default)]
pub struct Written {
    pub files: u64,
    pub bytes: u64,
    pub directories: u64,
    pub others: u64,
    pub removed: u64,
    pub incomplete: u64,
}

/// See the module.
pub struct Out {
    files: PathBuf,
    list: BufWriter<File>,
    written: Written,
    /// Directories get their attributes when all is in them: their path, and what they should have.
    directories: Vec<(PathBuf, Found)>,
}

impl Out {
    /// In a directory that is empty.
    pub fn new(out: &Path) -> Result<Out, Failure> {
        let (files, list) = (out.join("files"), out.join("list"));
        let made = fs::create_dir(&files).and_then(|()| File::create_new(&list));
        let list = made.map_err(|e| Failure::failed(format_args!("{}: {e}", out.display())))?;
        Ok(Out { files, list: BufWriter::new(list), written: Written::default(), directories: Vec::new() })
    }

    /// Writes all of it, durably. What cannot be written is a line of the list, and keeps nothing else from it.
    pub fn write(&mut self, salvage: &Salvage) -> Result<Written, Failure> {
        let findings = salvage.findings();
        let (from, to) = salvage.range();
        self.say(&format!("# filesystem {}, batches after {from} up to {to}\n", salvage.filesystem()))?;
        for what in &findings.unknown {
            self.written.incomplete += 1;
            self.say(&format!("unknown\t{}\n", what.escape_debug()))?;
        }
        for found in findings.found {
            self.found(salvage, found)?;
        }
        for path in &findings.removed {
            self.written.removed += 1;
            self.line("removed", path, "")?;
        }
        for (path, found) in std::mem::take(&mut self.directories).into_iter().rev() {
            let name = found.paths.first().cloned().unwrap_or_default();
            if let Err(e) = File::open(&path).and_then(|dir| attributes(&dir, &found)) {
                self.line("directory", &name, &format!("its attributes could not be set: {e}"))?;
            }
        }
        let synced = self.list.flush().and_then(|()| self.list.get_ref().sync_all());
        synced.and_then(|()| sync_folder(&self.files)).map_err(|e| failed(&self.files, &e))?;
        Ok(std::mem::take(&mut self.written))
    }

    fn found(&mut self, salvage: &Salvage, found: Found) -> Result<(), Failure> {
        let unnamed = format!(".unnamed/{}", found.ino).into_bytes();
        let first = found.paths.first().unwrap_or(&unnamed).clone();
        match self.make(salvage, &found, &first) {
            Ok(()) => {}
            Err(e) => {
                self.written.incomplete += 1;
                return self.line("failed", &first, &e.to_string());
            }
        }
        for other in found.paths.iter().skip(1) {
            let linked = self.place(&first).and_then(|path| fs::hard_link(path, self.place(other)?));
            match linked {
                Ok(()) => self.line("link", other, &format!("to {}", shown(&first)))?,
                Err(e) => self.line("failed", other, &format!("link to {}: {e}", shown(&first)))?,
            }
        }
        if is_dir(&found) {
            self.directories.push((self.files.join(OsStr::from_bytes(&first)), found));
        }
        Ok(())
    }

    fn make(&mut self, salvage: &Salvage, found: &Found, name: &[u8]) -> io::Result<()> {
        let path = self.place(name)?;
        let said = match found.inode.mode & libc::S_IFMT {
            libc::S_IFREG => return self.file(salvage, found, &path, name),
            libc::S_IFDIR => {
                make_folder(&path)?;
                self.written.directories += 1;
                self.line("directory", name, "")
            }
            libc::S_IFLNK => {
                symlink(OsStr::from_bytes(&found.inode.target), &path)?;
                self.written.others += 1;
                self.line("symlink", name, "")
            }
            _ => {
                self.written.others += 1;
                let what = format!("mode {:o}, device {:#x}: not made here", found.inode.mode, found.inode.rdev);
                self.line("special", name, &what)
            }
        };
        said.map_err(io::Error::other)
    }

    fn file(&mut self, salvage: &Salvage, found: &Found, path: &Path, name: &[u8]) -> io::Result<()> {
        let file = File::create_new(path)?;
        let read = salvage.read(found, &mut |piece| file.write_all_at(&piece.bytes, piece.offset));
        let missing = read.map_err(io::Error::other)??;
        file.set_len(found.inode.size)?;
        file.sync_all()?;
        self.written.files += 1;
        self.written.bytes += found.inode.size;
        let mut said = format!("{} bytes", found.inode.size);
        if !missing.is_empty() {
            self.written.incomplete += 1;
            said += &format!("; zeros instead of {}", told(&missing));
        }
        if let Err(e) = attributes(&file, found) {
            said += &format!("; its attributes could not be set: {e}");
        }
        self.line("file", name, &said).map_err(io::Error::other)
    }

    /// Where something goes; the directories on the way are made. Names come from whoever made the state directory: none leads
    /// out of here, neither by itself nor through a link that was salvaged before.
    fn place(&self, path: &[u8]) -> io::Result<PathBuf> {
        let mut at = self.files.clone();
        let mut parts = path.split(|byte| *byte == b'/').peekable();
        while let Some(part) = parts.next() {
            if matches!(part, b"" | b"." | b"..") {
                return Err(io::Error::other("it leads out of here"));
            }
            at.push(OsStr::from_bytes(part));
            if parts.peek().is_some() {
                make_folder(&at)?;
            }
        }
        Ok(at)
    }

    fn line(&mut self, what: &str, path: &[u8], more: &str) -> Result<(), Failure> {
        let tab = if more.is_empty() { "" } else { "\t" };
        self.say(&format!("{what}\t{}{tab}{more}\n", shown(path)))
    }

    fn say(&mut self, text: &str) -> Result<(), Failure> {
        self.list.write_all(text.as_bytes()).map_err(|e| Failure::failed(format_args!("the list: {e}")))
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && fs::symlink_metadata(path)?.is_dir() => Ok(()),
        made => made,
    }
}

/// What is missing of a file: the first ranges, and how much in all.
fn told(missing: &[Missing]) -> String {
    let bytes: u64 = missing.iter().map(|range| range.len).sum();
    let first = &missing[0];
    format!(
        "{} in {} ranges, first {} bytes at {}: {}",
        size::show(bytes),
        missing.len(),
        first.len,
        first.offset,
        first.reason
    )
}

/// A path as one word of one line.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}

/// Permissions and times as they were, owners where that is allowed. Nothing becomes set-id by being salvaged.
fn attributes(file: &File, found: &Found) -> io::Result<()> {
    let inode = &found.inode;
    if nix::unistd::geteuid().is_root() {
        fchown(file, Some(inode.uid), Some(inode.gid))?;
    }
    let times = FileTimes::new().set_accessed(wall(inode.atime)).set_modified(wall(inode.mtime));
    file.set_times(times)?;
    file.set_permissions(Permissions::from_mode(inode.mode & 0o777))
}

fn is_dir(found: &Found) -> bool {
    found.inode.mode & libc::S_IFMT == libc::S_IFDIR
}

fn wall(time: Time) -> SystemTime {
    let (secs, nanos) = (Duration::from_secs(time.secs.unsigned_abs()), Duration::from_nanos(u64::from(time.nanos)));
    if time.secs < 0 { UNIX_EPOCH - secs + nanos } else { UNIX_EPOCH + secs + nanos }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn failed(path: &Path, e: &io::Error) -> Failure {
    Failure::failed(format_args!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_the_directory_that_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let (out, elsewhere) = (folder.path().join("out"), folder.path().join("elsewhere"));
        fs::create_dir(&out).and_then(|()| fs::create_dir(&elsewhere)).expect("made");
        let out = Out::new(&out).expect("made");
        symlink(&elsewhere, out.place(b"link").expect("a place")).expect("linked");
        for path in [&b"link/file"[..], b"link/deep/file", b"../file", b"a/../../file", b"/etc/file", b"a//file", b""] {
            assert!(out.place(path).is_err(), "{}", String::from_utf8_lossy(path));
        }
        assert!(make_folder(&out.files.join("link")).is_err(), "a link is no directory");
        assert_eq!(fs::read_dir(&elsewhere).expect("there").count(), 0);
        assert!(out.place(b"a/b/file").expect("a place").starts_with(&out.files));
    }
}
