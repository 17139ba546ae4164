//! Stores behind a network: S3 and what speaks like it, Google Cloud Storage, Azure. Where one is, how to talk to it, and
//! the store itself. What a user says wins over the environment, which wins over the profile file, which wins over what the
//! machine itself is allowed to.

mod body;
mod build;
mod call;
mod env;
mod keys;
mod limits;
mod pace;
mod profile;
mod refusal;
mod store;
mod wire;
mod words;

#[cfg(test)]
mod server;
#[cfg(test)]
pub mod tests;

pub use store::RemoteStore;

use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

/// Who keeps a remote store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteKind {
    /// Amazon S3, or a service that speaks like it.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

impl RemoteKind {
    /// The kind that a URL's scheme stands for.
    fn of_scheme(scheme: &str) -> Option<RemoteKind> {
        match scheme {
            "s3" | "s3a" => Some(RemoteKind::S3),
            "gs" => Some(RemoteKind::Google),
            "az" | "azure" | "abfs" | "abfss" => Some(RemoteKind::Azure),
            _ => None,
        }
    }

    fn scheme(self) -> &'static str {
        match self {
            RemoteKind::S3 => "s3",
            RemoteKind::Google => "gs",
            RemoteKind::Azure => "az",
        }
    }
}

/// Where a remote store is: a bucket, and what the names of its objects begin with. Shows as its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemotePlace {
    kind: RemoteKind,
    /// The bucket or container; for Azure maybe `container@account.blob.core.windows.net`.
    bucket: String,
    /// Names joined by `/`, with none at either end; may be empty.
    prefix: String,
}

impl RemotePlace {
    /// Reads `scheme://bucket/prefix`; `None` when it is no such place.
    pub(super) fn parse(scheme: &str, rest: &str) -> Option<RemotePlace> {
        let kind = RemoteKind::of_scheme(scheme)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix: Vec<&str> = prefix.split('/').filter(|part| !part.is_empty()).collect();
        let host = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_' | b'$');
        let account = |c: u8| c == b'@' && kind == RemoteKind::Azure;
        let bucket_is_good = !bucket.is_empty() && bucket.bytes().all(|c| host(c) || account(c));
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b'=' | b'+' | b'@' | b'~');
        let good = |part: &&str| *part != "." && *part != ".." && part.bytes().all(plain);
        let there = bucket_is_good && prefix.iter().all(good);
        there.then(|| RemotePlace { kind, bucket: bucket.to_owned(), prefix: prefix.join("/") })
    }

    /// Who keeps it.
    pub fn kind(&self) -> RemoteKind {
        self.kind
    }

    /// The bucket, or container.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Where the service is, if the options, the environment or a profile say so.
    pub fn endpoint(&self, options: &RemoteOptions) -> Option<String> {
        build::endpoint(self, options, &env::Env::of_process())
    }

    /// What all names begin with, without a `/` at either end; may be empty.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl fmt::Display for RemotePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.kind.scheme(), self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// How the address of an object is formed from an endpoint and a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// `https://endpoint/bucket/name`.
    PathStyle,
    /// `https://bucket.endpoint/name`.
    VirtualHosted,
}

/// How to talk to a remote store. Holds no secret: those come from the environment, a profile file, or the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteOptions {
    /// Base URL of the service, `http://` or `https://`; else what the environment or the profile says, else the kind's own.
    /// One with `http://` means: without TLS.
    pub endpoint: Option<String>,
    /// Region of an S3 bucket; else what the environment or the profile says, else `us-east-1`.
    pub region: Option<String>,
    /// Form of S3 addresses; else what the environment says, else path style at an endpoint, virtual hosted at Amazon.
    pub addressing: Option<Addressing>,
    /// Section of the AWS files to take keys from, even if the environment has keys.
    pub profile: Option<String>,
    /// Requests that send an object, at the same time.
    pub uploads: NonZeroUsize,
    /// Other requests, at the same time.
    pub downloads: NonZeroUsize,
    /// Bytes sent per second, all requests together; `None`: as fast as it goes.
    pub upload_bytes_per_second: Option<NonZeroU64>,
    /// Bytes received per second, all requests together; `None`: as fast as it goes.
    pub download_bytes_per_second: Option<NonZeroU64>,
    /// A request on which no byte moved for that long has failed; at least 100 ms. A call that is tried again ends within two
    /// and a half times that, and what its bytes take on a slow line.
    pub request_timeout: Duration,
}

impl Default for RemoteOptions {
    fn default() -> RemoteOptions {
        RemoteOptions {
            endpoint: None,
            region: None,
            addressing: None,
            profile: None,
            uploads: const { NonZeroUsize::new(8).unwrap() },
            downloads: const { NonZeroUsize::new(16).unwrap() },
            upload_bytes_per_second: None,
            download_bytes_per_second: None,
            request_timeout: Duration::from_secs(30),
        }
    }
}
