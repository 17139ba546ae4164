//! What came of a call that failed, as one sentence.

use super::call::Answer;
use super::keys::NO_KEYS;
use super::words::{deepest, one_line};
use super::{RemoteKind, RemotePlace};
use crate::store::StoreError;
use crate::store::counters::FailureKind;
use object_store::Error;
use std::time::Duration;

/// Why a call ended without a result.
#[derive(Debug)]
pub enum Trouble {
    /// The client's own words.
    Client(Error),
    /// It took too long, whatever the reason.
    Deadline(Duration),
    /// The store gave other than what it promised.
    Short(String),
    /// Other calls wait for the store, and nothing moves.
    Queue(Duration),
    /// The mount ends.
    Abandoned,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Client(error)
    }
}

/// What a caller hears.
enum Verdict {
    NotFound,
    Full,
    Away(String),
    Failed(String),
}

/// The error of a call to the store at `place`, by what came back last on the wire.
pub fn refused(
    action: &'static str,
    name: &str,
    place: &RemotePlace,
    trouble: &Trouble,
    answer: Option<Answer>,
) -> StoreError {
    let name = name.to_owned();
    match verdict(action, place, trouble, answer) {
        Verdict::NotFound => StoreError::NotFound { name },
        Verdict::Full => StoreError::Full { name },
        Verdict::Away(reason) => StoreError::Away { action, name, reason },
        Verdict::Failed(reason) => StoreError::Failed { action, name, reason },
    }
}

fn verdict(action: &str, place: &RemotePlace, trouble: &Trouble, answer: Option<Answer>) -> Verdict {
    let error = match trouble {
        Trouble::Deadline(after) => return Verdict::Away(format!("gave up after {} s", after.as_secs())),
        Trouble::Queue(after) => {
            return Verdict::Away(format!("no request of this store moved for {} s", after.as_secs()));
        }
        Trouble::Abandoned => return Verdict::Away("the mount ends, and nobody waits for it any more".into()),
        Trouble::Short(words) => return Verdict::Away(words.clone()),
        Trouble::Client(error) => error,
    };
    let reads = matches!(action, "get" | "delete");
    match answer {
        Some(Answer::Nothing { host, .. } | Answer::Status { host, .. }) if is_of_machine(&host) => {
            let of_other =
                || format!("there are no keys for {place}: neither the environment nor this machine has them");
            Verdict::Failed(if place.kind() == RemoteKind::S3 { NO_KEYS.into() } else { of_other() })
        }
        Some(Answer::Nothing { kind: FailureKind::Connect, host, words }) => {
            let unknown = words.contains("UnknownIssuer");
            let advice = if unknown { "; to trust it, name a file of certificates in AWS_CA_BUNDLE" } else { "" };
            Verdict::Away(format!("no connection to {host}: {words}{advice}"))
        }
        Some(Answer::Nothing { host, words, .. }) => Verdict::Away(format!("{host}: {words}")),
        Some(Answer::Status { status: 404, code, .. }) if reads && !is_bucket(&code) => Verdict::NotFound,
        // An upload in parts that ended for another reason than ours.
        Some(Answer::Status { status: 404, code, .. }) if action == "put" && !is_bucket(&code) => {
            Verdict::Away(format!("the store lost the upload ({code})"))
        }
        Some(Answer::Status { status, code, words, region, .. }) if status >= 300 => {
            of_status(place, status, &said(status, &code, &words), &code, region)
        }
        _ if matches!(error, Error::NotFound { .. }) && reads => Verdict::NotFound,
        // It never came to a request, or the store's answer made no sense.
        _ => Verdict::Failed(one_line(&deepest(error))),
    }
}

fn of_status(place: &RemotePlace, status: u16, said: &str, code: &str, region: Option<String>) -> Verdict {
    let bucket = place.bucket();
    let what = if place.kind() == RemoteKind::Azure { "container" } else { "bucket" };
    match (status, region) {
        (404, _) => Verdict::Failed(format!("there is no {what} {bucket}; make it, or correct the name")),
        (301 | 307 | 400, Some(region)) => {
            Verdict::Failed(format!("the {what} {bucket} is in the region {region}; say `--region {region}`"))
        }
        (301 | 302 | 307 | 308, None) => {
            Verdict::Failed(format!("the {what} {bucket} is elsewhere ({said}); correct the region or the endpoint"))
        }
        _ if matches!(code, "RequestTimeTooSkewed" | "RequestExpired") => {
            Verdict::Failed(format!("{said}; set this machine's clock"))
        }
        (401 | 403, _) => Verdict::Failed(format!("access denied to {what} {bucket} ({said}); check the credentials")),
        (507, _) => Verdict::Full,
        _ if matches!(code, "XMinioStorageFull" | "QuotaExceeded") => Verdict::Full,
        (501, _) => Verdict::Failed(format!("the store does not know this request ({said})")),
        // What was sent did not come for too long.
        _ if code == "RequestTimeout" => Verdict::Away(format!("the store answers {said}")),
        (408 | 425 | 429 | 500.., _) => Verdict::Away(format!("the store answers {said}")),
        _ => Verdict::Failed(format!("the store refuses: {said}")),
    }
}

fn said(status: u16, code: &str, words: &str) -> String {
    let mut said = status.to_string();
    for more in [code, words].into_iter().filter(|more| !more.is_empty()) {
        said.push(' ');
        said.push_str(more);
    }
    said
}

fn is_bucket(code: &str) -> bool {
    matches!(code, "NoSuchBucket" | "ContainerNotFound")
}

/// Where a machine of a cloud gets its own keys.
fn is_of_machine(host: &str) -> bool {
    matches!(host, "169.254.169.254" | "169.254.170.2" | "metadata.google.internal" | "metadata")
}
