//! The memory of a process while a command runs.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(100);

/// Runs a command and writes to `out` how long it took (seconds) and the most anonymous memory that the process `pid`, or
/// the command itself, had in any sample (KiB). Ends as the command does.
pub fn watch(pid: &str, out: &Path, command: &[&str]) -> ExitCode {
    let begin = Instant::now();
    let mut child = match Command::new(command[0]).args(&command[1..]).spawn() {
        Ok(child) => child,
        Err(e) => {
            eprintln!("scale: {}: {e}", command[0]);
            return ExitCode::FAILURE;
        }
    };
    let watched = if pid == "self" { child.id().to_string() } else { pid.to_owned() };
    let (most, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let ended = thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(anonymous_kib(&watched).unwrap_or(0), Ordering::Relaxed);
                thread::park_timeout(EVERY);
            }
        });
        let ended = child.wait();
        over.store(true, Ordering::Relaxed);
        sampler.thread().unpark();
        ended
    });
    let seconds = begin.elapsed().as_secs_f64();
    let most = most.load(Ordering::Relaxed);
    if let Err(e) = fs::write(out, format!("{seconds:.2} {most}\n")) {
        eprintln!("scale: {}: {e}", out.display());
        return ExitCode::FAILURE;
    }
    match ended {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn anonymous_kib(pid: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Processor time that a process has used, in ticks.
pub fn ticks(pid: &str) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}
