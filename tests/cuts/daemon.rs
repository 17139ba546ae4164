//! skylog on a filesystem that may lose its power.

use crate::disk::words;
use crate::run;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SKYLOG: &str = env!("CARGO_BIN_EXE_skylog");

/// A mounted filesystem, its store and its state in one folder.
pub struct Daemon {
    child: Child,
    pub mnt: PathBuf,
}

/// Makes a filesystem whose segments are so small that a short run fills several.
pub fn mkfs(store: &Path) {
    run(SKYLOG, &["mkfs", "--segment-size", "1MiB", words(store)]);
}

/// Everything is whole.
pub fn check(store: &Path) {
    run(SKYLOG, &["check", "--data", words(store)]);
}

impl Daemon {
    /// Mounts.
    pub fn start(store: &Path, mnt: &Path) -> Daemon {
        std::fs::create_dir_all(mnt).expect("a mount point");
        let mut command = Command::new(SKYLOG);
        command.args(["mount", "--foreground", "--journal-size", "16MiB", "--ship-interval", "1", "--grace", "0"]);
        let child = command.args([store, mnt]).stderr(Stdio::null()).spawn().expect("the program starts");
        let mut daemon = Daemon { child, mnt: mnt.to_path_buf() };
        let begin = Instant::now();
        while !is_mounted(mnt) {
            if let Some(status) = daemon.child.try_wait().expect("it is ours") {
                panic!("the mount failed: {status}");
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "nothing is mounted after a minute");
            std::thread::sleep(Duration::from_millis(5));
        }
        daemon
    }

    /// Its machine has no power.
    pub fn kill(mut self) {
        self.child.kill().expect("it lives");
        self.child.wait().expect("it is ours");
    }

    /// Unmounts.
    pub fn end(mut self) {
        run(SKYLOG, &["umount", words(&self.mnt)]);
        let status = self.child.wait().expect("it is ours");
        assert!(status.success(), "the daemon: {status}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Dead already, unless a test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = Command::new("umount").args(["-l", words(&self.mnt)]).stderr(Stdio::null()).status();
    }
}

fn is_mounted(mnt: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("there are mounts");
    mounts.lines().any(|line| line.split(' ').nth(1) == Some(words(mnt)))
}
