//! The table of umount(8): without a line in it, `umount DIR` does not ask which type a FUSE mount is of and never calls our
//! helper, and so returns before everything is in the store. Only mount(8) and umount(8) write this table.
//!
//! Nothing here may fail a mount: without the line the daemon still ships everything, after umount(8) has returned.

use super::mount_point;
use std::path::Path;
use std::process::{Command, Stdio};

/// What umount(8) looks for; without it there is nothing to be called.
const HELPER: &str = "/sbin/umount.fuse.skylog";

/// Enters a mount that root has made.
pub fn enter(dir: &Path, source: &str) {
    if nix::unistd::geteuid().is_root() && Path::new(HELPER).exists() {
        let words = ["-i", "-f", "--no-canonicalize", "-t", "fuse.skylog", "-o", "uhelper=skylog", "--", source];
        run(Command::new("mount").args(words).arg(dir));
    }
}

/// Takes the line of a mount that is gone away.
pub fn leave(dir: &Path) {
    if nix::unistd::geteuid().is_root() && Path::new(HELPER).exists() && mount_point::mounted_at(dir).is_none() {
        run(Command::new("umount").args(["-i", "--fake", "--no-canonicalize", "--"]).arg(dir));
    }
}

fn run(command: &mut Command) {
    let nobody = mount_point::without_secrets(command).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match nobody.status() {
        Ok(status) if status.success() => {}
        Ok(status) => log::info!("the table of umount(8) is not changed: {status}"),
        Err(e) => log::info!("the table of umount(8) is not changed: {e}"),
    }
}
