//! What went through the proxy.

use super::http::Head;
use std::collections::BTreeMap;

/// Requests, bytes and faults since the start.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Requests by `METHOD kind`; the kind is the folder of the store's layout, `list`, or `other`.
    pub requests: BTreeMap<String, u64>,
    /// Answers by status, the proxy's own among them.
    pub answers: BTreeMap<u16, u64>,
    /// Requests that met a fault, by its word.
    pub injected: BTreeMap<&'static str, u64>,
    /// Bytes from clients, heads included.
    pub bytes_up: u64,
    /// Bytes to clients, heads included.
    pub bytes_down: u64,
}

impl Counts {
    /// Requests with this method, of this kind of object; "" is any.
    pub fn of(&self, method: &str, kind: &str) -> u64 {
        let fits = |key: &str| {
            key.split_once(' ')
                .is_some_and(|(m, k)| (method.is_empty() || m == method) && (kind.is_empty() || k == kind))
        };
        self.requests.iter().filter(|(key, _)| fits(key)).map(|(_, n)| n).sum()
    }

    /// Faults that happened.
    pub fn faults(&self) -> u64 {
        self.injected.values().sum()
    }
}

/// Method and kind of object.
pub fn kind(request: &Head) -> String {
    let (path, query) = request.target().split_once('?').unwrap_or((request.target(), ""));
    let folder = path.split('/').find(|part| ["seg", "win", "gen", "snap", "lease"].contains(part));
    let listing = request.method() == "GET"
        && query.split('&').any(|word| word.starts_with("list-type") || word.starts_with("prefix="));
    let kind = match folder {
        _ if listing => "list",
        Some(folder) => folder,
        None => "other",
    };
    format!("{} {kind}", request.method())
}
