//! Where the local state of stores that are no folder lies: a directory for each filesystem, named by its UUID. In each lies
//! a file `store` that says which store it belongs to, so that it is found when the store does not answer. Beside them lie the
//! directories of followers.

use super::failure::{Failure, Outcome};
use super::store_arg::StoreArg;
use skylog::format::ids::Uuid;
use skylog::format::store_file::{STORE_FILE, StoreFile};
use skylog::media::read_plain;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The state directory of a filesystem, unless the user names one.
pub fn state_of(uuid: Uuid) -> Result<PathBuf, Failure> {
    Ok(root()?.join(uuid.to_string()))
}

/// The longest file `store` that is believed, bytes.
const BYTES_MAX: u64 = 1 << 20;

/// The name of a follower's own directory is that of the filesystem, this, and a number.
const FOLLOWER: &str = ".follow-";

/// The directory of a follower of a filesystem, unless the user names one: there is one for each that runs at the same time.
pub fn follower_of(uuid: Uuid, n: u32) -> Result<PathBuf, Failure> {
    Ok(root()?.join(format!("{uuid}{FOLLOWER}{n}")))
}

/// The directories that followers of a filesystem have left.
pub fn followers_of(uuid: Uuid) -> Result<Vec<PathBuf>, Failure> {
    let (entries, ours) = (fs::read_dir(root()?), format!("{uuid}{FOLLOWER}"));
    let entries = entries.into_iter().flatten().filter_map(Result::ok);
    let found = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&ours));
    Ok(found.map(|entry| entry.path()).collect())
}

/// Below it lie the state directories of this user's filesystems: `/var/lib/skylog` for root, else
/// `$XDG_STATE_HOME/skylog` (`~/.local/state/skylog`).
fn root() -> Result<PathBuf, Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/skylog"));
    }
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let home = || nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.dir);
    let below_home = || Some(variable("HOME").or_else(home)?.join(".local/state"));
    let state = variable("XDG_STATE_HOME").or_else(below_home);
    state.map(|state| state.join("skylog")).ok_or_else(|| {
        Failure::failed("there is no place for the local state: HOME is not set; give one with --state DIR")
    })
}

/// What the file `store` of a state directory says; `None` if it has none.
pub fn read(state: &Path) -> Result<Option<StoreFile>, Failure> {
    let path = state.join(STORE_FILE);
    let wrong = |e: &dyn std::fmt::Display| {
        Failure::failed(format_args!("{}: {e}; without this file a mount makes it again", path.display()))
    };
    match read_plain(&path, BYTES_MAX) {
        Ok(bytes) => StoreFile::decode(&bytes).map(Some).map_err(|e| wrong(&e)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(wrong(&e)),
    }
}

/// The state directories of this user that belong to a store, and what they say of it. A bucket of the same name at another
/// service is another store.
pub fn find(store: &StoreArg) -> Result<Vec<(PathBuf, StoreFile)>, Failure> {
    let entries = fs::read_dir(root()?).into_iter().flatten().filter_map(Result::ok);
    let entries = entries.filter(|entry| !entry.file_name().to_string_lossy().contains(FOLLOWER));
    // A damaged one is named by the mount that uses it, and does not stand in the way of others.
    let named = entries.filter_map(|entry| Some((entry.path(), read(&entry.path()).ok().flatten()?)));
    let (url, endpoint) = (store.url(), store.endpoint());
    Ok(named.filter(|(_, file)| file.url == url && file.endpoint == endpoint).collect())
}

/// Writes down, durably, which store a state directory belongs to, unless it is there already.
pub fn record(state: &Path, file: &StoreFile) -> Outcome {
    if read(state).is_ok_and(|found| found.as_ref() == Some(file)) {
        return Ok(());
    }
    write(state, &file.encode()).map_err(|e| Failure::failed(format_args!("state directory {}: {e}", state.display())))
}

fn write(state: &Path, bytes: &[u8]) -> io::Result<()> {
    let (path, new) = (state.join(STORE_FILE), state.join(format!("{STORE_FILE}.new")));
    // Whatever stands there is not written through.
    fs::remove_file(&new).or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
    let mut out = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(new, path)?;
    File::open(state)?.sync_all()
}

/// Makes a state directory, for its owner alone, and its name durable; nothing to do if it is there.
pub fn make(state: &Path) -> io::Result<()> {
    let new: Vec<&Path> = state.ancestors().take_while(|folder| !folder.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(state)?;
    new.into_iter().try_for_each(|made| File::open(made.parent().unwrap_or(made))?.sync_all())
}

/// A directory of this user's that others may read or write, because of how it was made or copied here, is for its owner alone from
/// now on. Nothing depends on it: on a disk that keeps no modes, or that lets nobody change them, it stays what it is.
pub fn close_to_others(state: &Path) {
    let (shown, own) = (state.display(), nix::unistd::geteuid().as_raw());
    let (owner, mode) = match fs::metadata(state) {
        Ok(found) => (found.uid(), found.permissions().mode() & 0o7777),
        Err(e) => return log::warn!("{shown} is not looked at: {e}"),
    };
    if owner != own && owner != 0 {
        log::warn!("{shown} belongs to user {owner}, who can put anything into what is mounted from it");
    }
    if mode & 0o077 == 0 {
        return;
    }
    if owner != own {
        return log::warn!("{shown} is open to others (mode {mode:o}), and is not ours to close");
    }
    match fs::set_permissions(state, Permissions::from_mode(mode & 0o7700)) {
        Ok(()) => log::warn!("{shown} was open to others (mode {mode:o}) and is closed to them now"),
        Err(e) => log::warn!("{shown} is open to others (mode {mode:o}) and cannot be closed to them: {e}"),
    }
}
