//! Object names are ours and plain: letters, digits, `.`, `_`, `-`, with `/` between the parts. So every store takes them,
//! none leads out of a folder, and none looks like a temporary of the crate below (`name#1`).

use super::StoreError;

/// Refuses what is no such name.
pub(super) fn check(action: &'static str, name: &str) -> Result<(), StoreError> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    let good = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain);
    if name.split('/').all(good) {
        return Ok(());
    }
    Err(StoreError::Failed { action, name: name.into(), reason: "not a plain object name".into() })
}
