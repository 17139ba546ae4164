//! What the client's errors mean to a caller.

use crate::store::StoreError;
use object_store::Error;
use object_store::client::HttpError;

/// The error of a call.
pub fn refused(action: &'static str, name: &str, error: &Error) -> StoreError {
    if matches!(error, Error::NotFound { .. }) {
        return StoreError::NotFound { name: name.into() };
    }
    let reason = error.to_string();
    match is_away(error) {
        true => StoreError::Away { action, name: name.into(), reason },
        false => StoreError::Failed { action, name: name.into(), reason },
    }
}

/// Whether somewhere below an error there was no answer.
fn is_away(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<HttpError>() || error.source().is_some_and(is_away)
}
