//! What goes over the wire to a remote store, counted. Each count is of requests on the wire, not of calls: a call that was
//! tried three times is three requests, two of them retries.

use crate::base::clock::Time;
use crate::base::metrics::{Histogram, Latencies};
use parking_lot::Mutex;
use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// An object's bytes.
    Get,
    /// Whether an object is there, and its length.
    Head,
    /// A page of names.
    List,
    /// To keep an object, or a part of one.
    Put,
    /// To begin or end an object in parts; also what gets keys from the machine.
    Post,
    /// To remove an object.
    Delete,
}

impl RequestKind {
    /// All kinds, in the order of [`StoreFigures::requests`].
    pub const ALL: [RequestKind; 6] = [
        RequestKind::Get,
        RequestKind::Head,
        RequestKind::List,
        RequestKind::Put,
        RequestKind::Post,
        RequestKind::Delete,
    ];

    /// One lower-case word.
    pub fn word(self) -> &'static str {
        ["get", "head", "list", "put", "post", "delete"][self as usize]
    }
}

/// Why a request on the wire failed. An answer such as "there is no such object" is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection.
    Connect,
    /// Nothing moved for too long.
    Timeout,
    /// The connection broke.
    Cut,
    /// The store asks to slow down: 429, 503.
    Busy,
    /// Another trouble of the store: 5xx.
    Server,
    /// The store says no: 4xx.
    Refused,
}

impl FailureKind {
    /// All kinds, in the order of [`StoreFigures::failures`].
    pub const ALL: [FailureKind; 6] = [
        FailureKind::Connect,
        FailureKind::Timeout,
        FailureKind::Cut,
        FailureKind::Busy,
        FailureKind::Server,
        FailureKind::Refused,
    ];

    /// One lower-case word.
    pub fn word(self) -> &'static str {
        ["connect", "timeout", "cut", "busy", "server", "refused"][self as usize]
    }
}

/// Requests of one kind at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFigures {
    /// How many were begun.
    pub begun: u64,
    /// How long those took that have ended, from the request to the end of its answer.
    pub latency: Latencies,
}

/// The last failure of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastFailure {
    /// When.
    pub at: Time,
    /// Of what kind.
    pub kind: FailureKind,
    /// In words, on one line.
    pub words: String,
}

/// All counts at a moment, since the store was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreFigures {
    /// By [`RequestKind::ALL`].
    pub requests: [RequestFigures; 6],
    /// Requests beyond the first of what a call asked for; they are in `requests` too.
    pub retries: u64,
    /// By [`FailureKind::ALL`].
    pub failures: [u64; 6],
    /// Bytes of objects and of requests' bodies sent.
    pub bytes_up: u64,
    /// Bytes of answers' bodies received.
    pub bytes_down: u64,
    /// The last failure, if there was one.
    pub last_failure: Option<LastFailure>,
}

impl StoreFigures {
    /// The requests of a kind.
    pub fn of(&self, kind: RequestKind) -> &RequestFigures {
        &self.requests[kind as usize]
    }

    /// The failures of a kind.
    pub fn failed(&self, kind: FailureKind) -> u64 {
        self.failures[kind as usize]
    }

    /// Requests of all kinds.
    pub fn requests_begun(&self) -> u64 {
        self.requests.iter().map(|of| of.begun).sum()
    }
}

#[derive(Default)]
struct OfKind {
    begun: AtomicU64,
    latency: Histogram,
}

/// The counts of a remote store; any thread may read them at any time.
#[derive(Default)]
pub struct StoreCounters {
    requests: [OfKind; 6],
    retries: AtomicU64,
    failures: [AtomicU64; 6],
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    last_failure: Mutex<Option<LastFailure>>,
}

impl StoreCounters {
    /// All counts now; each is right, but not all of the very same moment.
    pub fn figures(&self) -> StoreFigures {
        let of_kind = |kind: &OfKind| RequestFigures { begun: get(&kind.begun), latency: kind.latency.latencies() };
        StoreFigures {
            requests: array::from_fn(|n| of_kind(&self.requests[n])),
            retries: get(&self.retries),
            failures: array::from_fn(|n| get(&self.failures[n])),
            bytes_up: get(&self.bytes_up),
            bytes_down: get(&self.bytes_down),
            last_failure: self.last_failure.lock().clone(),
        }
    }

    /// Bytes moved so far, both ways.
    pub(super) fn bytes_moved(&self) -> u64 {
        get(&self.bytes_up) + get(&self.bytes_down)
    }

    pub(super) fn begun(&self, kind: RequestKind, is_retry: bool) {
        add(&self.requests[kind as usize].begun, 1);
        add(&self.retries, is_retry.into());
    }

    pub(super) fn ended(&self, kind: RequestKind, took: Duration) {
        self.requests[kind as usize].latency.add(took);
    }

    pub(super) fn failed(&self, kind: FailureKind, at: Time, words: String) {
        add(&self.failures[kind as usize], 1);
        *self.last_failure.lock() = Some(LastFailure { at, kind, words });
    }

    pub(super) fn sent(&self, bytes: usize) {
        add(&self.bytes_up, bytes as u64);
    }

    pub(super) fn received(&self, bytes: usize) {
        add(&self.bytes_down, bytes as u64);
    }
}

fn get(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_took_is_counted_with_its_kind() {
        let counters = StoreCounters::default();
        counters.ended(RequestKind::Put, Duration::from_millis(2));
        let figures = counters.figures();
        let put = &figures.of(RequestKind::Put).latency;
        assert_eq!((put.count(), put.sum), (1, Duration::from_millis(2)));
        assert_eq!(figures.of(RequestKind::Get), &RequestFigures::default());
    }

    #[test]
    fn kinds_are_counted_apart_and_the_last_failure_is_kept() {
        let counters = StoreCounters::default();
        for (n, kind) in RequestKind::ALL.into_iter().enumerate() {
            counters.begun(kind, n == 2);
            assert_eq!(kind as usize, n, "{}", kind.word());
        }
        for (n, kind) in FailureKind::ALL.into_iter().enumerate() {
            counters.failed(kind, Time::default(), kind.word().into());
            assert_eq!((kind as usize, counters.figures().failed(kind)), (n, 1));
        }
        let figures = counters.figures();
        assert_eq!((figures.requests_begun(), figures.retries), (6, 1));
        assert_eq!(figures.last_failure.expect("failed").words, "refused");
    }
}
