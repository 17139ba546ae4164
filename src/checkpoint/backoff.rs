//! When a checkpoint that failed is tried again.
//!
//! Twice soon; from the third failure in a row on after 1, 2, 4 … 60 minutes, so that a disk that is full or ill is not worn out
//! by attempts that nobody needs yet. When somebody needs one it is sooner: whoever asks for a checkpoint gets an attempt
//! at once, and while changes wait for the room that it would give there is one every few seconds.

use std::time::Duration;

/// Between attempts at least.
const SOON: Duration = Duration::from_secs(1);
/// Between attempts while changes wait for room.
const PRESSED: Duration = Duration::from_secs(5);
/// Failures in a row from which on the pauses grow,
const PATIENT_FROM: u32 = 3;
/// beginning with this
const PAUSE_MIN: Duration = Duration::from_secs(60);
/// and doubling up to this.
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// How much the next attempt is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Haste {
    /// Nobody waits.
    None,
    /// Changes wait for room.
    Room,
    /// Somebody asked for it.
    Asked,
}

/// The failures in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    failed_at: Duration,
}

impl Backoff {
    pub fn failures(&self) -> u32 {
        self.failures
    }

    pub fn failed(&mut self, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.failed_at = now;
    }

    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// How long after the last failure another attempt is made.
    pub fn pause(&self, haste: Haste) -> Duration {
        let patient = match self.failures.checked_sub(PATIENT_FROM) {
            None => SOON,
            Some(times) => PAUSE_MIN.saturating_mul(1 << times.min(16)).min(PAUSE_MAX),
        };
        match haste {
            Haste::None => patient,
            Haste::Room => patient.min(PRESSED),
            Haste::Asked => patient.min(SOON),
        }
    }

    pub fn is_over(&self, now: Duration, haste: Haste) -> bool {
        now >= self.failed_at + self.pause(haste)
    }
}
