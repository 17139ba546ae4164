//! Where log lines go: standard error until the mount is live, then `skylog.log` in the state directory.

use log::LevelFilter;
use skylog::base::clock::{Clock, SystemClock};
use skylog::media::is_own_link;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const NAME: &str = "skylog.log";
/// A longer log is put aside as `skylog.log.1` when a daemon starts.
const BYTES_MAX: u64 = 8 << 20;

/// Starts logging to standard error. `RUST_LOG` chooses what; warnings and our own remarks otherwise.
pub fn start() {
    let mut logger = env_logger::Builder::new();
    // At "warn" fuser speaks of every mount that somebody else has unmounted.
    logger
        .filter_level(LevelFilter::Warn)
        .filter_module("skylog", LevelFilter::Info)
        .filter_module("fuser", LevelFilter::Error);
    logger.parse_default_env();
    logger.format(|out, record| {
        let time = SystemClock::new().now();
        writeln!(out, "{time} {:5} {}", record.level(), record.args())
    });
    logger.try_init().ok();
}

/// Sends standard error to the log file, and standard output nowhere.
pub fn take_over(state: &Path) {
    if let Ok(nowhere) = OpenOptions::new().write(true).open("/dev/null") {
        nix::unistd::dup2_stdout(&nowhere).ok();
    }
    if let Err(e) = redirect(&state.join(NAME)) {
        // Standard error is the terminal, or a pipe that somebody reads to its end: it must not be kept.
        log::warn!("{NAME} cannot be written, nothing is logged: {e}");
        send_errors_to(Path::new("/dev/null")).ok();
    }
}

fn redirect(path: &Path) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| found.len() > BYTES_MAX) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    send_errors_to(path)
}

fn send_errors_to(path: &Path) -> io::Result<()> {
    // A link that this user or root has put there, as to where other logs are, is meant.
    let meant = fs::symlink_metadata(path).is_ok_and(|found| is_own_link(&found));
    let flags = if meant { 0 } else { libc::O_NOFOLLOW };
    let log = OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(flags).open(path)?;
    nix::unistd::dup2_stderr(&log)?;
    Ok(())
}
