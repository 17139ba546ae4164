//! Which mounts live on this machine: one small file for each, so that `skylog status DIR` finds the daemon of DIR.
//!
//! The files lie in `/run/skylog` (root), else in the first of these that can be had: `$XDG_RUNTIME_DIR/skylog`, `/run/user/UID/skylog`,
//! `$XDG_STATE_HOME/skylog` (`~/.local/state/skylog`), `/tmp/skylog-UID`. Their name is a hash of the mount point. A file left
//! behind by a killed daemon does no harm: its socket answers nobody.

use super::failure::Failure;
use super::mount_options::MountOptions;
use super::mount_point::{self, MountLine};
use super::world;
use nix::unistd::User;
use serde::{Deserialize, Serialize};
use skylog::format::names::LOCK;
use skylog::media::{LockGuard, Owner, process_runs};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Keeps other daemons off a mount point, also before anything is mounted there.
pub struct Claim {
    path: PathBuf,
    _lock: LockGuard,
}

/// The name of a socket, with its folders, is shorter than this, bytes.
const SOCKET_NAME_MAX: usize = 108;

/// How long a killed daemon may take to die.
const DYING_MAX: Duration = Duration::from_secs(10);

/// A claim is waited for this long: whoever tidies up holds it for a moment.
const CLAIM_PATIENCE: Duration = Duration::from_secs(1);

impl Claim {
    /// Claims a mount point; fails with a sentence that names who has it.
    pub fn on(dir: &Path, patience: Duration) -> Result<Claim, Failure> {
        let shown = dir.display();
        let folder = own_folder().map_err(|e| Failure::failed(format_args!("{shown} cannot be registered: {e}")))?;
        let path = path_for(&folder, dir, LOCK);
        Claim::take(path, &shown.to_string(), patience.max(CLAIM_PATIENCE))
    }

    fn take(path: PathBuf, dir: &str, patience: Duration) -> Result<Claim, Failure> {
        let owner = Owner::this_process(dir).map_err(Failure::failed)?;
        let (folder, name) = (path.parent().unwrap_or(&path), path.file_name().unwrap_or_default());
        let what = format!("the mount point {dir}");
        let lock = world::lock_folder(folder, &name.to_string_lossy(), &what, &owner, patience)?;
        Ok(Claim { path, _lock: lock })
    }
}

impl Drop for Claim {
    /// The file goes while its lock is still held.
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok();
    }
}

/// What a daemon writes down about its mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Registration {
    /// The mount point, canonical.
    pub dir: PathBuf,
    /// The store's URL.
    pub store: String,
    /// The state directory.
    pub state: PathBuf,
    /// The daemon.
    pub pid: u32,
    /// What was asked of the mount.
    #[serde(default)]
    pub options: MountOptions,
    /// It follows a writer and changes nothing.
    #[serde(default)]
    pub follows: bool,
}

impl Registration {
    /// Writes this registration down, under the mount point's name.
    pub fn write(&self) -> io::Result<()> {
        let folder = own_folder()?;
        sweep(&folder);
        let path = path_for(&folder, &self.dir, "json");
        let temporary = path.with_extension("new");
        fs::write(&temporary, serde_json::to_vec(self)?)?;
        fs::rename(temporary, path)
    }

    /// Where the daemon listens: a short path, because a socket's name holds at most 107 bytes.
    pub fn socket(&self) -> io::Result<PathBuf> {
        Ok(path_for(&own_folder()?, &self.dir, "sock"))
    }

    /// Takes registration and socket away; what is already gone is fine.
    pub fn remove(&self) {
        if let Ok(folder) = own_folder() {
            fs::remove_file(path_for(&folder, &self.dir, "json")).ok();
            fs::remove_file(path_for(&folder, &self.dir, "sock")).ok();
        }
    }
}

/// The registration of a mount point, and the folder it was found in.
pub fn find_mount(dir: &Path) -> Option<(PathBuf, Registration)> {
    folders().into_iter().find_map(|folder| {
        let found = read(&path_for(&folder, dir, "json")).filter(|r| r.dir == dir)?;
        Some((path_for(&folder, dir, "sock"), found))
    })
}

/// The registration of a mount of a store, of the one that writes if there is one, and its socket.
pub fn find_store(url: &str) -> Option<(PathBuf, Registration)> {
    let all = folders().into_iter().flat_map(|folder| {
        let found = registrations(&folder).into_iter().filter(|r| r.store == url && process_runs(r.pid));
        found.map(move |found| (path_for(&folder, &found.dir, "sock"), found)).collect::<Vec<_>>()
    });
    all.min_by_key(|(_, found)| found.follows)
}

/// A daemon that did not sign off was killed, and may not be quite dead yet: how long to wait for that.
pub fn patience(dir: &Path) -> Duration {
    find_mount(dir).map_or(Duration::ZERO, |_| DYING_MAX)
}

/// The folder this user's daemons register in; made on first use, for its owner alone.
fn own_folder() -> io::Result<PathBuf> {
    let mut last = io::Error::from(ErrorKind::NotFound);
    for folder in own_folders(user()) {
        match make_private(&folder) {
            Ok(()) => return Ok(folder),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn make_private(folder: &Path) -> io::Result<()> {
    if let Some(above) = folder.parent() {
        // What a user's home lacks of `.local/state` is made, and what the system owns is there.
        fs::create_dir_all(above)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let found = fs::symlink_metadata(folder)?;
    match found.is_dir() && found.uid() == user() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{} belongs to somebody else", folder.display()))),
    }
}

/// Where registrations may be: this user's own folders first; root also sees everyone's, and everyone asks for root's.
fn folders() -> Vec<PathBuf> {
    let own = own_folders(user());
    match user() {
        0 => own.into_iter().chain(others()).filter(|folder| folder.is_dir()).collect(),
        _ => own.into_iter().chain(own_folders(0)).collect(),
    }
}

/// Where a user's daemons may register, the best first.
fn own_folders(uid: u32) -> Vec<PathBuf> {
    if uid == 0 {
        return vec![PathBuf::from("/run/skylog")];
    }
    // Another user's variables are not known.
    let variable = |name| std::env::var_os(name).filter(|_| uid == user()).map(PathBuf::from);
    let home = || User::from_uid(uid.into()).ok().flatten().map(|user| user.dir);
    let session = PathBuf::from(format!("/run/user/{uid}"));
    let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME").or_else(home)?.join(".local/state")));
    let folders = [variable("XDG_RUNTIME_DIR"), session.is_dir().then_some(session), state];
    let folders =
        folders.into_iter().flatten().filter(|folder| folder.is_absolute()).map(|folder| folder.join("skylog"));
    let private = PathBuf::from(format!("/tmp/skylog-{uid}"));
    folders
        .filter(|folder| path_for(folder, Path::new("/"), "sock").as_os_str().len() < SOCKET_NAME_MAX)
        .chain([private])
        .collect()
}

/// The folders of those other users who have something mounted, or had it last.
fn others() -> Vec<PathBuf> {
    let below = |dir: &str| fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).map(|e| e.path());
    let sessions = below("/run/user").map(|p| p.join("skylog"));
    let private = below("/tmp").filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("skylog-")));
    let homes = mount_point::owners().into_iter().filter(|uid| *uid != 0).flat_map(own_folders);
    sessions.chain(private).chain(homes).collect()
}

/// Takes away what killed daemons left, unless their dead mount is still there to be explained.
fn sweep(folder: &Path) {
    let left = |found: &Registration| !process_runs(found.pid) && !mount_point::is_skylog(&found.dir);
    for found in registrations(folder).into_iter().filter(left) {
        found.remove();
    }
    // A claim that can be had was left behind; dropping it takes it away.
    for path in files(folder, LOCK) {
        drop(Claim::take(path, "nowhere, it is being tidied up", Duration::ZERO));
    }
}

fn registrations(folder: &Path) -> Vec<Registration> {
    files(folder, "json").iter().filter_map(|path| read(path)).collect()
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let names = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    names.filter(|path| path.extension().is_some_and(|e| e == extension)).collect()
}

fn user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn path_for(folder: &Path, dir: &Path, extension: &str) -> PathBuf {
    folder.join(format!("{:016x}.{extension}", hash(dir.as_os_str().as_encoded_bytes())))
}

fn read(path: &Path) -> Option<Registration> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// FNV-1a, 64 bits: the same in every version of the program.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The socket of the daemon of a mount point, or the sentence that says why there is none.
pub fn socket_of(dir: &Path) -> Result<(PathBuf, Registration), Failure> {
    find_mount(dir).ok_or_else(|| {
        let shown = dir.display();
        match mount_point::mounted_at(dir).filter(MountLine::is_skylog).map(|line| line.owner.unwrap_or(0)) {
            Some(owner) if owner != user() => Failure::failed(format_args!(
                "{shown} is the mount of user {owner}; only that user and root may do this, `su` or `sudo` first"
            )),
            Some(_) => Failure::failed(format_args!(
                "the daemon of {shown} is registered where this command does not look, XDG_RUNTIME_DIR or HOME were others; `umount {shown}` or `fusermount3 -u {shown}` unmounts"
            )),
            None => Failure::failed(format_args!("{shown} is not a skylog mount; `skylog mount STORE {shown}` mounts one")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(b"/mnt"), 0xce6b_489c_78c9_71c3);
        assert_ne!(hash(b"/mnt/a"), hash(b"/mnt/b"));
    }

    #[test]
    fn names_of_sockets_stay_short() {
        let long = PathBuf::from("/").join("x".repeat(4000));
        assert!(path_for(Path::new("/run/skylog"), &long, "sock").as_os_str().len() < SOCKET_NAME_MAX);
    }

    #[test]
    fn root_looks_where_a_user_without_a_session_registers() {
        let folders = own_folders(65534);
        assert_eq!(folders.last(), Some(&PathBuf::from("/tmp/skylog-65534")));
        assert!(folders.len() > 1, "the home of nobody is missing in {folders:?}");
        assert_eq!(own_folders(0), [PathBuf::from("/run/skylog")]);
    }
}
