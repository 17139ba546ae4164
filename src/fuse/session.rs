//! Mounting, and the session that ends when the mount is gone.

use super::counted::{Counted, Requests};
use super::mapped::Unwritten;
use super::requests::Frontend;
use super::shown::Shown;
use crate::volume::Volume;
use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Event threads, at most. More than a few fight over the one channel to the kernel.
const THREADS_MAX: usize = 4;
/// What the kernel reads ahead of a sequential reader, KiB. Only root may ask for it.
const READ_AHEAD_KIB: u32 = 1024;

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountConfig {
    /// Where.
    pub dir: PathBuf,
    /// What the kernel lists as the source: the store's URL.
    pub source: String,
    /// The kernel refuses every change.
    pub read_only: bool,
    /// Others than the user who mounts may use it.
    pub allow_other: bool,
    /// Reading is noted in access times, as `relatime` says; else never.
    pub relatime: bool,
    /// The kernel holds writes back, merges them, and sends them when it likes or when asked to sync.
    pub writeback: bool,
    /// Whose the files look, and what they allow.
    pub shown: Shown,
    /// `nodev`, `nosuid`, `noexec`, `noatime`, as far as they are set.
    pub flags: Vec<&'static str>,
}

/// A live mount.
pub struct Mounted {
    session: BackgroundSession,
    mapped: JoinHandle<()>,
    unwritten: Unwritten,
    requests: Arc<Requests>,
}

/// Mounts the volume. When this returns the mount is live.
pub fn mount(volume: Arc<Volume>, config: &MountConfig) -> io::Result<Mounted> {
    let (frontend, mapped) = Frontend::new(volume.clone(), config);
    let (requests, unwritten) = (frontend.requests.clone(), Unwritten::new(&frontend.mapped));
    let (following, told) = (frontend.following.clone(), Arc::downgrade(&frontend.mapped));
    let session = Session::new(Counted::new(frontend), &config.dir, &fuser_config(config))?.spawn()?;
    let look = following.map(|following| following.begin(session.notifier(), volume, told));
    let mapped = mapped.serve(session.notifier(), look)?;
    match raise_read_ahead(&config.dir) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            log::debug!("the kernel's read-ahead is root's to change")
        }
        Err(e) => log::info!("the kernel's read-ahead stays as it is: {e}"),
        Ok(()) => {}
    }
    Ok(Mounted { session, mapped, unwritten, requests })
}

impl Mounted {
    /// What the kernel asks of this mount, counted from its start.
    pub fn requests(&self) -> Arc<Requests> {
        self.requests.clone()
    }

    /// What only the kernel knows yet.
    pub fn unwritten(&self) -> Unwritten {
        self.unwritten.clone()
    }

    /// Returns when the mount is gone and every event thread has ended.
    pub fn wait(self) -> io::Result<()> {
        let ended = self.session.join();
        // Its inbox went with the frontend.
        self.mapped.join().map_err(|_| io::Error::other("the thread `mapped` panicked")).and(ended)
    }
}

fn fuser_config(config: &MountConfig) -> Config {
    let mut fuser = Config::default();
    fuser.n_threads = Some(std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX));
    fuser.acl = if config.allow_other { SessionACL::All } else { SessionACL::Owner };
    fuser.mount_options = options(config);
    fuser
}

fn options(config: &MountConfig) -> Vec<MountOption> {
    let asked = |word: &str| config.flags.contains(&word);
    let either = |word: &str, yes: MountOption, no: MountOption| if asked(word) { yes } else { no };
    let mut options = vec![
        MountOption::FSName(config.source.clone()),
        // As a subtype of its own fuser gives it to no kernel; as a word of ours the kernel lists `fuse.skylog`.
        MountOption::CUSTOM("subtype=skylog".into()),
        MountOption::DefaultPermissions,
        either("nodev", MountOption::NoDev, MountOption::Dev),
        either("nosuid", MountOption::NoSuid, MountOption::Suid),
        either("noexec", MountOption::NoExec, MountOption::Exec),
        either("noatime", MountOption::NoAtime, MountOption::Atime),
    ];
    options.extend(config.read_only.then_some(MountOption::RO));
    options
}

/// The kernel lets a FUSE mount read 128 KiB ahead, which keeps a disk half idle.
fn raise_read_ahead(dir: &Path) -> io::Result<()> {
    let device = fs::metadata(dir)?.dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), READ_AHEAD_KIB.to_string())
}
