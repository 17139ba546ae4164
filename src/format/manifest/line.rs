//! One line of the manifest: a word and `key=value` pairs, or a single pair whose key is the word.

use crate::format::error::FormatError;
use crate::format::wire::{COUNTED_MAX, counted};
use std::collections::BTreeSet;
use std::str::FromStr;

/// A line cut into its parts.
pub(super) struct Line<'a> {
    pub(super) number: usize,
    /// What the line is about.
    pub(super) word: &'a str,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Line<'a> {
    pub(super) fn cut(number: usize, text: &'a str) -> Result<Line<'a>, FormatError> {
        let mut tokens = text.split(' ').peekable();
        let word = tokens.peek().and_then(|first| first.split('=').next()).unwrap_or_default();
        if tokens.peek() == Some(&word) {
            tokens.next();
        }
        let mut line = Line { number, word, pairs: Vec::new() };
        let mut known = BTreeSet::new();
        for token in tokens {
            let Some((key, value)) = token.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                return Err(line.fault(format!("{token:?} is not key=value")));
            };
            if !known.insert(key) {
                return Err(line.fault(format!("key {key} is there twice")));
            }
            line.pairs.push((key, value));
        }
        Ok(line)
    }

    pub(super) fn fault(&self, reason: impl Into<String>) -> FormatError {
        fault(self.number, reason)
    }

    /// The value of a key that may be missing.
    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        self.pairs.iter().find(|(known, _)| *known == key).map(|(_, value)| *value)
    }

    /// The value of a key, which must be there and be written as it is printed.
    pub(super) fn value<T: FromStr + ToString>(&self, key: &str) -> Result<T, FormatError> {
        let text = self.text(key).ok_or_else(|| self.fault(format!("key {key} is missing")))?;
        let value = text.parse().ok().filter(|value: &T| value.to_string() == text);
        value.ok_or_else(|| self.fault(format!("{key}={text} cannot be read")))
    }

    /// The same of a number that something counts on from.
    pub(super) fn counted(&self, key: &str) -> Result<u64, FormatError> {
        let found = self.value(key)?;
        counted(found, COUNTED_MAX).map_err(|e| self.fault(format!("{key}: {e}")))
    }
}

pub(super) fn fault(line: usize, reason: impl Into<String>) -> FormatError {
    FormatError::Line { line, reason: reason.into() }
}
