//! What is known of one call of a caller's while it runs: what it asked on the wire so far, and what came back last. The
//! client's own errors keep no status that a program could read.

use crate::store::counters::FailureKind;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;

tokio::task_local! {
    /// The call that this task works for.
    static CURRENT: Arc<Call>;
}

/// What came back of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The store spoke.
    Status {
        host: String,
        status: u16,
        /// Its name for what is wrong; may be empty, as may be its words.
        code: String,
        words: String,
        /// The region it said that the bucket is in.
        region: Option<String>,
    },
    /// Nobody did.
    Nothing { kind: FailureKind, host: String, words: String },
}

/// A call.
#[derive(Default)]
pub struct Call {
    asked: Mutex<HashSet<String>>,
    answer: Mutex<Option<Answer>>,
}

impl Call {
    /// Runs what the call is to do.
    pub async fn run<T>(self: &Arc<Call>, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self.clone(), work).await
    }

    /// The call that this task works for.
    pub fn current() -> Option<Arc<Call>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Notes a request, and says whether this call made the same one before.
    pub fn asks(&self, request: String) -> bool {
        !self.asked.lock().insert(request)
    }

    pub fn answered(&self, answer: Answer) {
        *self.answer.lock() = Some(answer);
    }

    /// What came back last.
    pub fn answer(&self) -> Option<Answer> {
        self.answer.lock().clone()
    }

    /// The status that came back last.
    pub fn status(&self) -> Option<u16> {
        match &*self.answer.lock() {
            Some(Answer::Status { status, .. }) => Some(*status),
            _ => None,
        }
    }
}
