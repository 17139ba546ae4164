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

    /// Writes all of it, durably.
    pub fn write(&mut self, salvage: &Salvage) -> Result<Written, Failure> {
        let findings = salvage.findings();
        self.say(&format!(
            "# filesystem {}, batches after {} up to {}\n",
            salvage.filesystem(),
            salvage.range().0,
            salvage.range().1
        ))?;
        for missed in &findings.missed {
            self.missed(missed)?;
        }
        for found in findings.found {
            // The others are worth as much.
            if let Err(e) = self.found(salvage, found) {
                self.missed(e.sentence())?;
            }
        }
        for path in &findings.removed {
            self.written.removed += 1;
            self.line("removed", path, "")?;
        }
        for (path, found) in std::mem::take(&mut self.directories).into_iter().rev() {
            if let Err(e) = File::open(&path).and_then(|dir| attributes(&dir, &found)) {
                self.missed(failed(&path, &e).sentence())?;
            }
        }
        let synced = self.list.flush().and_then(|()| self.list.get_ref().sync_all());
        synced.and_then(|()| sync_folder(&self.files)).map_err(|e| failed(&self.files, &e))?;
        Ok(std::mem::take(&mut self.written))
    }

    fn found(&mut self, salvage: &Salvage, found: Found) -> Result<(), Failure> {
        let unnamed = format!(".unnamed/{}", found.ino).into_bytes();
        let first = found.paths.first().unwrap_or(&unnamed).clone();
        let path = self.place(&first)?;
        match found.inode.mode & libc::S_IFMT {
            libc::S_IFREG => self.file(salvage, &found, &path, &first)?,
            libc::S_IFDIR => {
                fs::create_dir_all(&path).map_err(|e| failed(&path, &e))?;
                self.written.directories += 1;
                self.line("directory", &first, "")?;
                self.directories.push((path, found));
                return Ok(());
            }
            libc::S_IFLNK => {
                symlink(OsStr::from_bytes(&found.inode.target), &path).map_err(|e| failed(&path, &e))?;
                self.written.others += 1;
                self.line("symlink", &first, "")?;
            }
            _ => {
                self.written.others += 1;
                let what = format!("mode {:o}, device {:#x}: not made here", found.inode.mode, found.inode.rdev);
                return self.line("special", &first, &what);
            }
        }
        for other in found.paths.iter().skip(1) {
            let link = self.place(other)?;
            fs::hard_link(&path, &link).map_err(|e| failed(&link, &e))?;
            self.line("link", other, &format!("to {}", shown(&first)))?;
        }
        Ok(())
    }

    fn file(&mut self, salvage: &Salvage, found: &Found, path: &Path, name: &[u8]) -> Result<(), Failure> {
        let file = File::create_new(path).map_err(|e| failed(path, &e))?;
        let read = salvage.read(found, &mut |piece| file.write_all_at(&piece.bytes, piece.offset));
        let read = read.map(|written| written.map_err(|e| failed(path, &e)));
        file.set_len(found.inode.size).and_then(|()| attributes(&file, found)).map_err(|e| failed(path, &e))?;
        file.sync_all().map_err(|e| failed(path, &e))?;
        self.written.files += 1;
        self.written.bytes += found.inode.size;
        let mut said = format!("{} bytes", found.inode.size);
        let lacks = match read {
            Ok(missing) => Some(missing?).filter(|missing| !missing.is_empty()).map(|missing| told(&missing)),
            Err(e) => Some(format!("what was not read: {e}")),
        };
        if let Some(lacks) = lacks {
            self.written.incomplete += 1;
            said += &format!("; zeros instead of {lacks}");
        }
        self.line("file", name, &said)
    }

    /// Where something goes; the directories on the way are made.
    fn place(&self, path: &[u8]) -> Result<PathBuf, Failure> {
        let path = self.files.join(OsStr::from_bytes(path));
        let parent = path.parent().unwrap_or(&self.files);
        fs::create_dir_all(parent).map_err(|e| failed(parent, &e))?;
        Ok(path)
    }

    /// What is not there, or not as it was.
    fn missed(&mut self, what: &str) -> Result<(), Failure> {
        self.written.incomplete += 1;
        self.line("missed", what.as_bytes(), "")
    }

    fn line(&mut self, what: &str, path: &[u8], more: &str) -> Result<(), Failure> {
        let tab = if more.is_empty() { "" } else { "\t" };
        self.say(&format!("{what}\t{}{tab}{more}\n", shown(path)))
    }

    fn say(&mut self, text: &str) -> Result<(), Failure> {
        self.list.write_all(text.as_bytes()).map_err(|e| Failure::failed(format_args!("the list: {e}")))
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

/// Permissions and times as they were, owners where that is allowed; by the open file, for it may be one that nobody may open then.
/// Nothing becomes set-id by being salvaged.
fn attributes(file: &File, found: &Found) -> io::Result<()> {
    let inode = &found.inode;
    file.set_times(FileTimes::new().set_accessed(wall(inode.atime)).set_modified(wall(inode.mtime)))?;
    if nix::unistd::geteuid().is_root() {
        fchown(file, Some(inode.uid), Some(inode.gid))?;
    }
    file.set_permissions(Permissions::from_mode(inode.mode & 0o777))
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
