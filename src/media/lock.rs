//! The lock that keeps two daemons off one state directory, and off one store that is a folder (promise G10).
//!
//! A kernel lock (`flock`) on a file holds off others on this machine and ends with its process, however that dies. The
//! file's text says who holds it, for people and for machines that share the folder over a network but not its locks.

use super::local::{LocalDisk, options, read_plain};
use super::sys;
pub use crate::format::lease::Owner;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

impl Owner {
    /// This process.
    pub fn this_process(mount_point: &str) -> io::Result<Owner> {
        let pid = std::process::id();
        let Seen::Started(started) = look(pid) else {
            return Err(io::Error::other("/proc does not show this process"));
        };
        Ok(Owner {
            host: kernel("hostname")?,
            boot: kernel("random/boot_id")?,
            pid,
            started,
            mount_point: mount_point.into(),
        })
    }

    /// The same for those who look at it from anywhere. Many machines have one name, and what a process number means ends where its
    /// namespace does; so the boot also tells the machine and the namespace.
    pub fn seen_anywhere(mount_point: &str) -> io::Result<Owner> {
        let here = Owner::this_process(mount_point)?;
        let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let pids = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Ok(Owner { boot: format!("{} {} {}", here.boot, pids.display(), machine.trim()), ..here })
    }

    /// What is known here of an owner, both of them made by [`Owner::seen_anywhere`]. In doubt it is elsewhere.
    pub fn standing_anywhere(&self, here: &Owner) -> Standing {
        if self.boot == here.boot {
            return self.standing(here);
        }
        let [theirs, ours] = [self, here].map(|owner| owner.boot.splitn(3, ' ').collect::<Vec<_>>());
        match (&theirs[..], &ours[..]) {
            ([then, _, theirs], [now, _, ours]) if then != now && theirs == ours && !ours.is_empty() => {
                if self.host == here.host { Standing::Dead } else { Standing::Elsewhere }
            }
            _ => Standing::Elsewhere,
        }
    }

    /// Whether only that other machine can tell if this owner lives.
    pub fn is_elsewhere(&self, here: &Owner) -> bool {
        matches!(self.standing(here), Standing::Elsewhere)
    }

    fn encode(&self) -> String {
        let Owner { host, boot, pid, started, mount_point } = self;
        format!("host={host}\nboot={boot}\npid={pid}\nstarted={started}\nmount={mount_point}")
    }

    fn decode(text: &str) -> Option<Owner> {
        let mut lines = text.splitn(5, '\n');
        let mut value = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix('=');
        Some(Owner {
            host: value("host")?.into(),
            boot: value("boot")?.into(),
            pid: value("pid")?.parse().ok()?,
            started: value("started")?.parse().ok()?,
            mount_point: value("mount")?.into(),
        })
    }

    /// What is known here of the owner, whether or not it has a kernel lock.
    pub fn standing(&self, here: &Owner) -> Standing {
        if self.boot == here.boot {
            return match look(self.pid) {
                _ if (self.pid, self.started) == (here.pid, here.started) => Standing::Dead,
                Seen::Started(at) if at == self.started => Standing::Lives,
                Seen::Started(_) | Seen::Ended => Standing::Dead,
                // It may be the owner, or another process that has its number by now.
                Seen::Hidden => Standing::Elsewhere,
            };
        }
        if self.host == here.host { Standing::Dead } else { Standing::Elsewhere }
    }
}

/// The longest text of a lock that is believed, bytes.
const TEXT_BYTES_MAX: u64 = 64 << 10;

/// What this machine knows of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its process has ended, or was of an earlier boot of this machine.
    Dead,
    /// Its process runs on this machine.
    Lives,
    /// It cannot be told here: only the other machine can, or `/proc` hides the process.
    Elsewhere,
}

/// Why a lock was not given or not broken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Someone has it.
    #[error("it is in use by {owner}")]
    Held {
        /// Who, in words.
        owner: String,
    },
    /// The lock file cannot be used.
    #[error("lock file: {0}")]
    Io(#[from] io::Error),
}

/// A lock that is held; dropping it releases it.
#[derive(Debug)]
pub struct LockGuard {
    file: File,
}

impl Drop for LockGuard {
    /// The text goes first, while the kernel lock still holds others off. If it stays, the next one sees a dead owner.
    fn drop(&mut self) {
        if let Err(e) = self.file.set_len(0) {
            log::warn!("the lock's text stays: {e}");
        }
    }
}

impl LocalDisk {
    /// Takes the lock file `name` for `owner`, or says who has it. The text of a dead process of this machine is
    /// replaced; that of another machine holds until [`LocalDisk::break_lock`].
    pub fn lock(&self, name: &str, owner: &Owner) -> Result<LockGuard, LockError> {
        let path = self.path(name)?;
        loop {
            let mut file = options().create(true).truncate(false).open(&path)?;
            let found = seize(&mut file)?;
            // Its last holder may have removed the file just before it let go: then the lock is another file's.
            if !is_at(&file, &path)? {
                continue;
            }
            if let Some(found) = found.as_ref().filter(|found| !matches!(found.standing(owner), Standing::Dead)) {
                return Err(LockError::Held { owner: found.describe() });
            }
            if let Err(e) = name_owner(&mut file, owner) {
                // A full disk, mostly. Nobody else gets in before the file is gone.
                fs::remove_file(&path).ok();
                return Err(e.into());
            }
            return Ok(LockGuard { file });
        }
    }

    /// Whom the lock file `name` names, whether it is held or not.
    pub fn lock_owner(&self, name: &str) -> Result<Option<Owner>, LockError> {
        match read_plain(&self.path(name)?, TEXT_BYTES_MAX) {
            Ok(text) => Ok(Owner::decode(&String::from_utf8_lossy(&text))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Clears the lock file `name` and returns whose it was; refuses while the owner lives: its kernel lock is held, or
    /// its process runs on this machine. Whether another machine's owner lives is for the caller to know.
    pub fn break_lock(&self, name: &str, by: &Owner) -> Result<Option<Owner>, LockError> {
        let mut file = match options().open(self.path(name)?) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let found = seize(&mut file)?;
        if let Some(owner) = found.as_ref().filter(|o| matches!(o.standing(by), Standing::Lives)) {
            return Err(LockError::Held { owner: owner.describe() });
        }
        file.set_len(0)?;
        file.sync_all()?;
        Ok(found)
    }
}

fn name_owner(file: &mut File, owner: &Owner) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(owner.encode().as_bytes())?;
    file.sync_all()
}

/// Whether a path still leads to an open file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Takes the kernel lock and reads the text; `None` when it names nobody (a text cut short by a crash of its writer
/// names nobody either: without the kernel lock no one on this machine holds it).
fn seize(file: &mut File) -> Result<Option<Owner>, LockError> {
    let got = sys::try_lock(file)?;
    let mut text = Vec::new();
    Read::by_ref(file).take(TEXT_BYTES_MAX).read_to_end(&mut text)?;
    let owner = Owner::decode(&String::from_utf8_lossy(&text));
    match (got, owner) {
        (true, owner) => Ok(owner),
        (false, Some(owner)) => Err(LockError::Held { owner: owner.describe() }),
        (false, None) => Err(LockError::Held { owner: "a process that is just starting or stopping".into() }),
    }
}

fn kernel(what: &str) -> io::Result<String> {
    Ok(fs::read_to_string(format!("/proc/sys/kernel/{what}"))?.trim().to_owned())
}

/// Whether a process of this number runs. One that has ended, and whose parent has not asked how, does not.
pub fn process_runs(pid: u32) -> bool {
    !matches!(look(pid), Seen::Ended)
}

/// What this machine shows of a process.
enum Seen {
    /// There is none of that number, or it has ended and waits for its parent, and holds nothing any more.
    Ended,
    /// It runs since then, in clock ticks since the boot.
    Started(u64),
    /// It runs, and nobody is told more.
    Hidden,
}

/// Looks at a process. A `/proc` that hides what others run (`hidepid`) hides the daemons of the same user too, for nobody may look
/// into them; so what is not shown there may run, and only the kernel's word that there is no such process is taken for an end.
fn look(pid: u32) -> Seen {
    let shown = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    if let Some(seen) = shown.and_then(|stat| read_stat(&stat)) {
        return seen;
    }
    // Zero and below mean groups of processes.
    match i32::try_from(pid) {
        Ok(pid @ 1..) if kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH) => Seen::Hidden,
        _ => Seen::Ended,
    }
}

/// When it started is field 22 of its `stat`, counted after the name, which may itself hold blanks and brackets.
fn read_stat(stat: &str) -> Option<Seen> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    match fields.next()? {
        "Z" | "X" => Some(Seen::Ended),
        _ => Some(Seen::Started(fields.nth(18)?.parse().ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (tempfile::TempDir, LocalDisk) {
        let root = tempfile::tempdir().expect("a folder for the test");
        let disk = LocalDisk::new(root.path());
        (root, disk)
    }

    fn me() -> Owner {
        Owner::this_process("/mnt/a b\nc").expect("known")
    }

    fn started(pid: u32) -> u64 {
        match look(pid) {
            Seen::Started(at) => at,
            _ => panic!("process {pid} runs"),
        }
    }

    fn plant(disk: &LocalDisk, owner: &Owner) {
        fs::write(disk.root().join("lock"), owner.encode()).expect("written");
    }

    #[test]
    fn promise_g10_one_holder_with_a_clear_owner() {
        let (_root, disk) = disk();
        let held = disk.lock("lock", &me()).expect("free");
        let error = disk.lock("lock", &me()).expect_err("held").to_string();
        assert!(error.contains(&format!("process {} on", me().pid)) && error.contains("/mnt/a b\nc"), "{error}");
        assert!(matches!(disk.break_lock("lock", &me()), Err(LockError::Held { .. })));
        drop(held);
        disk.lock("lock", &me()).expect("free again");
    }

    #[test]
    fn an_owner_is_dead_only_where_machine_boot_and_space_of_processes_say_so() {
        let here = Owner::seen_anywhere("/mnt").expect("known");
        let here = Owner { boot: "now pid:[1] machine".into(), ..here };
        let at = |boot: &str| Owner { boot: boot.into(), pid: 1, started: started(1), ..here.clone() };
        let gone = |boot: &str| Owner { started: u64::MAX, ..at(boot) };
        for (owner, expected) in [
            (at("now pid:[1] machine"), Standing::Lives),
            (gone("now pid:[1] machine"), Standing::Dead),
            (here.clone(), Standing::Dead),
            (at("before pid:[1] machine"), Standing::Dead),
            (at("before pid:[2] machine"), Standing::Dead),
            // A container beside this one, or a machine that has the same name.
            (gone("now pid:[2] machine"), Standing::Elsewhere),
            (gone("before pid:[1] other"), Standing::Elsewhere),
            // A clone, told by its name.
            (Owner { host: "clone".into(), ..gone("before pid:[1] machine") }, Standing::Elsewhere),
            (gone("before"), Standing::Elsewhere),
            (gone(""), Standing::Elsewhere),
        ] {
            assert_eq!(owner.standing_anywhere(&here), expected, "{owner:?}");
        }
        let nameless = Owner { boot: "now pid:[1] ".into(), ..here.clone() };
        assert_eq!(gone("before pid:[1] ").standing_anywhere(&nameless), Standing::Elsewhere);
        assert_eq!(gone("now pid:[1] ").standing_anywhere(&nameless), Standing::Dead);
    }

    #[test]
    fn promise_g10_a_dead_owner_of_this_machine_is_replaced() {
        let (_root, disk) = disk();
        for dead in [
            Owner { started: me().started + 1, ..me() },
            Owner { boot: "before".into(), ..me() },
            Owner { host: "renamed".into(), pid: u32::MAX, ..me() },
        ] {
            plant(&disk, &dead);
            disk.lock("lock", &me()).expect("its owner is dead");
        }
        fs::write(disk.root().join("lock"), "host=cut sho").expect("written");
        disk.lock("lock", &me()).expect("names nobody");
    }

    #[test]
    fn promise_g10_break_lock_frees_another_machines_lock_but_never_a_live_owners() {
        let (_root, disk) = disk();
        let elsewhere = Owner { host: "elsewhere".into(), boot: "other".into(), ..me() };
        plant(&disk, &elsewhere);
        assert!(matches!(disk.lock("lock", &me()), Err(LockError::Held { .. })));
        assert!(elsewhere.is_elsewhere(&me()) && !me().is_elsewhere(&me()));
        assert_eq!(disk.lock_owner("lock").expect("read"), Some(elsewhere.clone()));
        assert_eq!(disk.break_lock("lock", &me()).expect("broken"), Some(elsewhere));
        assert_eq!(disk.lock_owner("lock").expect("read"), None);
        disk.lock("lock", &me()).expect("free");

        // A process that surely runs, though it holds no kernel lock (as over a network without locks).
        let init = Owner { pid: 1, started: started(1), ..me() };
        plant(&disk, &init);
        assert!(matches!(disk.lock("lock", &me()), Err(LockError::Held { .. })));
        assert!(matches!(disk.break_lock("lock", &me()), Err(LockError::Held { .. })));
        assert_eq!(disk.break_lock("none", &me()).expect("nothing to break"), None);
    }
}
