//! Where log lines go: standard error until the mount is live, then `skylog.log` in the state directory.

use log::LevelFilter;
use skylog::base::clock::{Clock, SystemClock};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
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
        let time = utc(SystemClock::new().now().secs);
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
    let log = OpenOptions::new().create(true).append(true).open(path)?;
    nix::unistd::dup2_stderr(&log)?;
    Ok(())
}

/// Seconds since 1970 as `2026-01-31T23:59:59Z` (days to date after Howard Hinnant's `civil_from_days`).
fn utc(secs: i64) -> String {
    let (days, rest) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_795_307_065), "2026-11-22T00:24:25Z");
    }
}
