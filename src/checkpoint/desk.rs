//! What passes between the checkpointer and others: jobs and reports of the shipper, requests, figures for people.

use super::jobs::{Follower, Job, Report};
use crate::format::ids::Lsn;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Jobs for the shipper and its reports, between two threads. At most one job at a time.
#[derive(Default)]
pub struct Desk {
    tray: Mutex<Tray>,
    job_ready: Condvar,
    report_ready: Condvar,
}

#[derive(Default)]
struct Tray {
    job: Option<Job>,
    report: Option<Report>,
    woken: bool,
}

impl Desk {
    /// The shipper takes its next job.
    pub fn take_job(&self) -> Option<Job> {
        self.tray.lock().job.take()
    }

    /// The shipper takes its next job; waits for one at most `timeout`.
    pub fn wait_for_job(&self, timeout: Duration) -> Option<Job> {
        let mut tray = self.tray.lock();
        if tray.job.is_none() {
            self.job_ready.wait_for(&mut tray, timeout);
        }
        tray.job.take()
    }

    /// The shipper reports on the job it took.
    pub fn report(&self, report: Report) {
        self.tray.lock().report = Some(report);
        self.report_ready.notify_all();
    }

    /// The owner waits at most `timeout` for a report, or to be woken.
    pub fn wait_for_report(&self, timeout: Duration) {
        let mut tray = self.tray.lock();
        if tray.report.is_none() && !tray.woken {
            self.report_ready.wait_for(&mut tray, timeout);
        }
        tray.woken = false;
    }

    /// Wakes the owner: something may be due.
    pub fn wake(&self) {
        self.tray.lock().woken = true;
        self.report_ready.notify_all();
    }

    pub(super) fn put_job(&self, job: Job) {
        self.tray.lock().job = Some(job);
        self.job_ready.notify_all();
    }

    pub(super) fn take_report(&self) -> Option<Report> {
        self.tray.lock().report.take()
    }
}

/// Numbers for people.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// The newest checkpoint's number.
    pub checkpoint: u64,
    /// When it was made: nanoseconds since 1970.
    pub checkpoint_wall: i64,
    /// Everything up to here is in it.
    pub checkpoint_lsn: Lsn,
    /// Everything up to here is in the store.
    pub shipped: Lsn,
    /// Windows that wait to be shipped.
    pub windows_waiting: u64,
    /// When the oldest change that is not in the store was noticed, by the clock that counts from no fixed moment; nothing if
    /// all are there. Changes of an earlier mount count from this one.
    pub unshipped_since: Option<Duration>,
    /// Why the newest try to ship did not go through; nothing after one that did.
    pub ship_error: Option<String>,
    /// Tries to ship that failed since the last one that did not.
    pub ship_failures: u32,
    /// Bytes put into the store in this mount, for what was shipped.
    pub bytes_shipped: u64,
    /// Bases published in this mount.
    pub bases: u64,
    /// Bytes of tree nodes in the state directory that no published base has.
    pub unshipped_node_bytes: u64,
    /// Checkpoints made in this mount.
    pub checkpoints: u64,
    /// Checkpoints that failed since the last one that was made.
    pub checkpoint_failures: u32,
    /// Windows shipped in this mount.
    pub windows_shipped: u64,
    /// Store objects deleted in this mount.
    pub objects_deleted: u64,
    /// Who follows, when it was last asked: before something was deleted.
    pub followers: Vec<Follower>,
    /// Why dead store objects stay where they are.
    pub deletion_refused: Option<String>,
    /// The store did not answer when this was mounted, and has not answered since.
    pub offline: bool,
    /// Whether everything was checkpointed, shipped and recorded after the last step.
    pub drained: bool,
    /// The last failure, until the next success.
    pub last_error: Option<String>,
}

/// With so many windows on their way nobody needs to ask for another.
const WINDOWS_WAITING: u64 = 2;

/// Where another actor asks for a window to be published.
#[derive(Clone)]
pub struct Asking {
    pub(super) wanted: Arc<Wanted>,
    pub(super) desk: Arc<Desk>,
    pub(super) figures: Arc<Mutex<Figures>>,
}

impl Asking {
    /// Asks for a checkpoint, unless enough windows are on their way; whether it did.
    pub fn checkpoint(&self) -> bool {
        if self.figures.lock().windows_waiting >= WINDOWS_WAITING {
            return false;
        }
        self.wanted.checkpoint();
        self.desk.wake();
        true
    }
}

/// Requests from outside.
#[derive(Default)]
pub struct Wanted {
    /// A checkpoint of everything so far, whatever its size or age.
    checkpoint: AtomicBool,
    /// Milliseconds of age at which changes are shipped; 0 leaves it to the policy.
    interval_ms: AtomicU64,
    /// A job that failed is to be tried now.
    retry: AtomicBool,
}

impl Wanted {
    /// Asks for a checkpoint as soon as possible.
    pub fn checkpoint(&self) {
        self.checkpoint.store(true, Ordering::SeqCst);
    }

    /// Asks for another try of a job that failed, without the rest of its pause.
    pub fn retry(&self) {
        self.retry.store(true, Ordering::SeqCst);
    }

    pub(super) fn take_retry(&self) -> bool {
        self.retry.swap(false, Ordering::SeqCst)
    }

    /// Changes at which age changes are checkpointed and shipped, in milliseconds.
    pub fn set_interval(&self, interval: Duration) {
        let ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        self.interval_ms.store(ms.max(1), Ordering::Relaxed);
    }

    pub(super) fn interval(&self) -> Option<Duration> {
        Some(self.interval_ms.load(Ordering::Relaxed)).filter(|ms| *ms > 0).map(Duration::from_millis)
    }

    pub(super) fn is_set(&self) -> bool {
        self.checkpoint.load(Ordering::SeqCst)
    }

    pub(super) fn take(&self) -> bool {
        self.checkpoint.swap(false, Ordering::SeqCst)
    }
}
