//! Files that hold a filesystem, and their mounts.

use crate::run;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Filesystems that skylog is put on.
pub const KINDS: [&str; 2] = ["ext4", "xfs"];
/// The smallest that both may have.
const BYTES: u64 = 320 << 20;

/// A path as an argument.
pub fn words(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

/// A new file with an empty filesystem in it.
pub fn format(kind: &str, image: &Path) {
    run("truncate", &["-s", &BYTES.to_string(), words(image)]);
    make(kind, image);
}

/// An empty filesystem in a file or on a disk.
pub fn make(kind: &str, on: &Path) {
    let quiet_and_sure = if kind == "ext4" { "-F" } else { "-f" };
    run(&format!("mkfs.{kind}"), &["-q", quiet_and_sure, words(on)]);
}

/// A mounted filesystem; unmounted when dropped.
pub struct Mount {
    pub at: PathBuf,
}

impl Mount {
    /// Mounts a file that holds a filesystem, or a disk.
    pub fn new(on: &Path, at: &Path) -> Mount {
        std::fs::create_dir_all(at).expect("a mount point");
        let options: &[&str] = if on.starts_with("/dev") { &[] } else { &["-o", "loop"] };
        run("mount", &[options, &[words(on), words(at)]].concat());
        Mount { at: at.to_path_buf() }
    }

    /// The power is gone, as far as this filesystem knows: nothing that it holds is written any more, its own log neither.
    pub fn cut(&self) {
        run("xfs_io", &["-x", "-c", "shutdown", words(&self.at)]);
    }

    /// Unmounts.
    pub fn end(self) {
        run("umount", &[words(&self.at)]);
        std::mem::forget(self);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Only where a test failed. Whether it helps is not asked.
        let _ = Command::new("umount").args(["-l", words(&self.at)]).status();
    }
}
