//! A request from its beginning to the last byte of its answer: the bodies both ways, counted and at their pace.

use super::call::{Answer, Call};
use super::pace::Pace;
use super::wire::{Trouble, Wire};
use crate::store::counters::{FailureKind, RequestKind, StoreCounters};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::client::{HttpError, HttpRequestBody};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// A request on the wire; it ends when the last of its holders is gone.
#[derive(Clone)]
pub struct Request(Arc<Inner>);

struct Inner {
    wire: Arc<Wire>,
    call: Option<Arc<Call>>,
    kind: RequestKind,
    host: String,
    /// By the clock's elapsed time.
    begun: Duration,
}

impl Request {
    pub fn begin(
        wire: &Arc<Wire>,
        call: Option<Arc<Call>>,
        kind: RequestKind,
        is_retry: bool,
        host: String,
    ) -> Request {
        wire.counters.begun(kind, is_retry);
        Request(Arc::new(Inner { begun: wire.clock.elapsed(), wire: wire.clone(), call, kind, host }))
    }

    /// The store spoke: a status, its name for what is wrong and its words, and where it says that the bucket is.
    pub fn answered(&self, status: u16, code: String, words: String, region: Option<String>) {
        let kind = match status {
            429 | 503 => Some(FailureKind::Busy),
            500.. => Some(FailureKind::Server),
            // There is no such object, or there is one already, or none of that range.
            404 | 409 | 412 | 416 => None,
            400.. => Some(FailureKind::Refused),
            _ => None,
        };
        if let Some(kind) = kind {
            self.count(kind, format!("{}: {status} {code} {words}", self.0.kind.word()));
        }
        self.tell(Answer::Status { host: self.0.host.clone(), status, code, words, region });
    }

    /// Nobody spoke, or not to the end.
    pub fn failed(&self, trouble: Trouble) -> HttpError {
        let words = trouble.to_string();
        self.count(trouble.kind, format!("{}: {words}", self.0.kind.word()));
        self.tell(Answer::Nothing { kind: trouble.kind, host: self.0.host.clone(), words });
        HttpError::new(trouble.http_kind(), trouble)
    }

    fn count(&self, kind: FailureKind, words: String) {
        self.0.wire.counters.failed(kind, self.0.wire.clock.now(), words.trim_end().to_owned());
    }

    fn tell(&self, answer: Answer) {
        if let Some(call) = &self.0.call {
            call.answered(answer);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.wire.counters.ended(self.kind, self.wire.clock.elapsed().saturating_sub(self.begun));
    }
}

/// The body of a request, piece by piece.
pub struct Sent {
    body: HttpRequestBody,
    /// What is left of the piece of memory that is being sent.
    rest: Bytes,
    left: u64,
    pause: Option<Pin<Box<Sleep>>>,
    pace: Arc<Pace>,
    counters: Arc<StoreCounters>,
    handed: Arc<AtomicU64>,
}

impl Sent {
    /// `handed` counts the bytes that are on their way.
    pub fn new(body: HttpRequestBody, wire: &Wire, handed: Arc<AtomicU64>) -> Sent {
        Sent {
            left: body.content_length() as u64,
            body,
            rest: Bytes::new(),
            pause: None,
            pace: wire.up.clone(),
            counters: wire.counters.clone(),
            handed,
        }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(cx));
            this.pause = None;
        }
        while this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(frame) => this.rest = frame?.into_data().unwrap_or_default(),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(this.pace.piece_bytes()));
        this.pause = pause(this.pace.take(piece.len()));
        this.left = this.left.saturating_sub(piece.len() as u64);
        this.counters.sent(piece.len());
        this.handed.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

fn pause(wait: Duration) -> Option<Pin<Box<Sleep>>> {
    (!wait.is_zero()).then(|| Box::pin(sleep(wait)))
}

/// The body of an answer as it comes.
pub struct Received {
    body: reqwest::Body,
    request: Request,
    pause: Option<Pin<Box<Sleep>>>,
    /// Ends when nothing came for too long.
    silence: Option<Pin<Box<Sleep>>>,
}

impl Received {
    pub fn new(body: reqwest::Body, request: Request) -> Received {
        Received { body, request, pause: None, silence: None }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        let wire = this.request.0.wire.clone();
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(cx));
            this.pause = None;
        }
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            let silence = this.silence.get_or_insert_with(|| Box::pin(sleep(wire.silence_max)));
            ready!(silence.as_mut().poll(cx));
            return Poll::Ready(Some(Err(this.request.failed(Trouble::silent(wire.silence_max)))));
        };
        this.silence = None;
        Poll::Ready(match frame {
            None => None,
            Some(Err(error)) => Some(Err(this.request.failed(Trouble::of(error)))),
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                wire.counters.received(bytes);
                this.pause = pause(wire.down.take(bytes));
                Some(Ok(frame))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
