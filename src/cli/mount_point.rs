//! The directory a volume is mounted on: what is there now, and whether it will do.

use super::failure::{Failure, Outcome};
use nix::errno::Errno;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The type under which the kernel lists our mounts.
const FILESYSTEM: &str = "fuse.skylog";

/// A line of the kernel's list of mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountLine {
    /// The number of the filesystem, the same wherever it is mounted.
    pub device: String,
    /// Where.
    pub dir: PathBuf,
    /// Which filesystem.
    pub filesystem: String,
    /// The flags of the mount: `rw` or `ro`, `nosuid`, `relatime`, …
    pub flags: Vec<String>,
    /// Who mounted it, if it is a FUSE filesystem.
    pub owner: Option<u32>,
}

impl MountLine {
    /// Whether it is one of ours.
    pub fn is_skylog(&self) -> bool {
        self.filesystem == FILESYSTEM
    }
}

/// The mount whose root is `dir`, the topmost if there are several.
pub fn mounted_at(dir: &Path) -> Option<MountLine> {
    mounts().into_iter().rfind(|line| line.dir == dir)
}

/// The users who have a skylog volume mounted.
pub fn owners() -> Vec<u32> {
    let mut owners: Vec<u32> = mounts().iter().filter(|line| line.is_skylog()).filter_map(|line| line.owner).collect();
    owners.sort_unstable();
    owners.dedup();
    owners
}

fn mounts() -> Vec<MountLine> {
    mounts_of(Path::new("/proc/self"))
}

/// The mounts in the namespace of a process, as far as it may be asked for.
fn mounts_of(process: &Path) -> Vec<MountLine> {
    let list = fs::read(process.join("mountinfo")).unwrap_or_default();
    list.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

/// Whether a skylog volume (dead or alive) is mounted on `dir`.
pub fn is_skylog(dir: &Path) -> bool {
    mounted_at(dir).is_some_and(|line| line.is_skylog())
}

/// The path of a mount point in the form the kernel lists it, without touching the mount itself, which may be dead.
pub fn canonical(dir: &Path) -> Result<PathBuf, Failure> {
    let absolute = std::path::absolute(dir).map_err(|e| Failure::failed(format_args!("{}: {e}", dir.display())))?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else { return Ok(absolute) };
    match fs::canonicalize(&absolute) {
        Ok(path) => Ok(path),
        Err(_) => Ok(parent.canonicalize().map(|parent| parent.join(name)).unwrap_or(absolute)),
    }
}

/// Makes sure that a volume can be mounted on `dir`; a dead skylog mount in the way is removed. Returns its canonical path.
pub fn prepare(dir: &Path, may_cover: bool) -> Result<PathBuf, Failure> {
    let path = canonical(dir)?;
    clear_dead(&path)?;
    let shown = path.display();
    free(&path)?;
    match fs::metadata(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::failed(format_args!("mount point {shown} does not exist; `mkdir {shown}` makes it")));
        }
        Err(e) => return Err(Failure::failed(format_args!("mount point {shown} cannot be used: {e}"))),
        Ok(found) if !found.is_dir() => {
            return Err(Failure::failed(format_args!("mount point {shown} is not a directory")));
        }
        Ok(_) => {}
    }
    let empty = fs::read_dir(&path).map(|mut entries| entries.next().is_none()).unwrap_or(false);
    match empty || may_cover {
        true => Ok(path),
        false => Err(Failure::failed(format_args!(
            "mount point {shown} is not empty; take an empty directory, or mount over it with `-o nonempty`"
        ))),
    }
}

/// Fails when one of these folders, which a mount on `dir` would use, lies inside of it or the other way round.
pub fn outside<'a>(dir: &Path, folders: impl IntoIterator<Item = Option<&'a Path>>) -> Outcome {
    match folders.into_iter().flatten().any(|folder| folder.starts_with(dir) || dir.starts_with(folder)) {
        true => Err(Failure::failed(format_args!("{} and its store must not lie inside each other", dir.display()))),
        false => Ok(()),
    }
}

/// Fails when something is mounted on `dir`.
pub fn free(dir: &Path) -> Outcome {
    let shown = dir.display();
    if let Some(line) = mounted_at(dir) {
        let what = &line.filesystem;
        let way_out = match line.is_skylog() {
            true => format!("`skylog umount {shown}` or take another directory"),
            false => "take another directory".to_owned(),
        };
        return Err(Failure::failed(format_args!("{shown} is in use: {what} is mounted there; {way_out}")));
    }
    Ok(())
}

/// Detaches a skylog mount whose daemon is gone. True if there was one.
pub fn clear_dead(dir: &Path) -> Result<bool, Failure> {
    // `statfs` always asks the daemon; `stat` would be answered from the kernel's cache.
    let asked = || nix::sys::statvfs::statvfs(dir).err();
    let dead = is_skylog(dir) && matches!(asked(), Some(Errno::ENOTCONN | Errno::ECONNABORTED));
    if dead {
        detach(dir)
            .map_err(|e| Failure::failed(format_args!("the dead mount on {} cannot be removed: {e}", dir.display())))?;
    }
    Ok(dead)
}

/// Unmounts; fails while the mount is in use.
pub fn unmount(dir: &Path) -> io::Result<()> {
    match nix::mount::umount2(dir, nix::mount::MntFlags::UMOUNT_NOFOLLOW) {
        Err(Errno::EPERM) => fusermount(dir, "-u"),
        done => Ok(done?),
    }
}

/// Takes the mount away now; whoever has files open keeps them until closed.
pub fn detach(dir: &Path) -> io::Result<()> {
    match nix::mount::umount2(dir, nix::mount::MntFlags::MNT_DETACH) {
        Err(Errno::EPERM) => fusermount(dir, "-uz"),
        done => Ok(done?),
    }
}

/// Programs that know nothing of the store are not told its keys.
pub fn without_secrets(command: &mut std::process::Command) -> &mut std::process::Command {
    let names = std::env::vars_os().map(|(name, _)| name);
    let of_stores = |name: &OsString| {
        let name = name.to_string_lossy();
        ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|start| name.starts_with(start))
    };
    names.filter(of_stores).fold(command, |command, name| command.env_remove(name))
}

/// Users who are not root unmount through the set-user-id program of the fuse3 package.
fn fusermount(dir: &Path, flag: &str) -> io::Result<()> {
    let run = |program| without_secrets(std::process::Command::new(program).arg(flag).arg("--").arg(dir)).output();
    let output = run("fusermount3").or_else(|_| run("/bin/fusermount3"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_string())),
    }
}

/// Who keeps the mount busy: a few "name (process)" for a message.
pub fn users(dir: &Path) -> Vec<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let mut found: Vec<String> = processes.filter(|process| uses(process, dir)).filter_map(|p| name_of(&p)).collect();
    found.truncate(3);
    found
}

/// A process in another mount namespace that has a copy of a mount: a filesystem lives as long as any of its mounts.
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// "name (process)" for a message.
    pub name: String,
    /// Where the copy is, as that process sees it.
    pub dir: PathBuf,
}

/// Somebody who holds a copy of the mounts of a filesystem, the one who has been there longest.
pub fn holder(device: &str) -> Option<Holder> {
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let mut pids: Vec<u32> = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids.into_iter().find_map(|pid| {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let copy = mounts_of(&process).into_iter().find(|line| line.device == device)?;
        Some(Holder { pid, name: name_of(&process)?, dir: copy.dir })
    })
}

fn uses(process: &Path, dir: &Path) -> bool {
    let at = |link: PathBuf| fs::read_link(link).is_ok_and(|target| target.starts_with(dir));
    let fds = fs::read_dir(process.join("fd")).into_iter().flatten().filter_map(Result::ok);
    ["cwd", "root", "exe"].iter().any(|link| at(process.join(link))) || fds.map(|fd| fd.path()).any(at)
}

fn name_of(process: &Path) -> Option<String> {
    let pid = process.file_name()?.to_str()?.parse::<u32>().ok()?;
    let name = fs::read_to_string(process.join("comm")).ok()?;
    Some(format!("{} (process {pid})", name.trim()))
}

/// `36 35 98:0 /root /mnt rw,noatime shared:1 - fuse.skylog source options`
fn parse_line(line: &[u8]) -> Option<MountLine> {
    let text = String::from_utf8_lossy(line);
    let (before, after) = text.split_once(" - ")?;
    let mut fields = before.split(' ').skip(2);
    let device = fields.next()?.to_owned();
    let mut fields = fields.skip(1);
    let (dir, flags) = (unescape(fields.next()?), fields.next()?.split(',').map(String::from).collect());
    let mut after = after.split(' ');
    let filesystem = after.next()?.to_string();
    let owner = after.nth(1).into_iter().flat_map(|options| options.split(','));
    let owner = owner.filter_map(|option| option.strip_prefix("user_id=")).find_map(|uid| uid.parse().ok());
    Some(MountLine { device, dir, filesystem, flags, owner })
}

/// The kernel writes blanks and backslashes as `\040`.
fn unescape(text: &str) -> PathBuf {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).and_then(|d| std::str::from_utf8(d).ok());
        match octal.filter(|_| bytes[at] == b'\\').and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_is_read() {
        let line = parse_line(b"36 35 0:98 / /mnt/a\\040b rw,noatime shared:1 - fuse.skylog file:///s rw,user_id=1000")
            .unwrap();
        let flags = ["rw", "noatime"].map(String::from).into();
        assert_eq!(
            line,
            MountLine {
                device: "0:98".into(),
                dir: PathBuf::from("/mnt/a b"),
                filesystem: "fuse.skylog".into(),
                flags,
                owner: Some(1000)
            }
        );
        assert_eq!(parse_line(b""), None);
    }

    #[test]
    fn a_directory_that_is_no_mount_point_is_told_apart() {
        assert!(mounted_at(Path::new("/proc")).is_some());
        assert!(!is_skylog(Path::new("/proc")));
    }
}
