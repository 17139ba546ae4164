//! What can be wrong with bytes, each fault its own variant, and where it was found.

use std::fmt;

/// What a decoder expected and what it found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes are not what they should be at all: another file, or nothing was ever written there.
    #[error("not {what}: expected magic {expected:#010x}, found {found:#010x}")]
    Magic {
        /// What should have been there.
        what: &'static str,
        /// The magic number of it.
        expected: u32,
        /// What is there instead.
        found: u32,
    },
    /// The bytes end early, or a length is below the least allowed.
    #[error("too short: {need} bytes needed, {have} there")]
    TooShort {
        /// Bytes needed.
        need: u64,
        /// Bytes there.
        have: u64,
    },
    /// A length or count is above what is allowed, or above what the bytes can hold.
    #[error("too big: {found}, the limit is {limit}")]
    TooBig {
        /// The most allowed.
        limit: u64,
        /// What was found.
        found: u64,
    },
    /// The bytes were changed after they were written.
    #[error("checksum mismatch: recorded {expected:#010x}, computed {found:#010x}")]
    Checksum {
        /// The checksum that was recorded with the bytes.
        expected: u32,
        /// The checksum of the bytes as they are.
        found: u32,
    },
    /// Written by a newer program.
    #[error("format version {found}; this program knows versions up to {supported}")]
    Version {
        /// The newest version known here.
        supported: u32,
        /// The version found.
        found: u32,
    },
    /// A tag that says what follows has no meaning.
    #[error("unknown kind {found}")]
    Kind {
        /// The tag.
        found: u32,
    },
    /// A map key is malformed, or keys are out of order.
    #[error("bad key: {0}")]
    Key(&'static str),
    /// A value is outside what it may be.
    #[error("bad value: {0}")]
    Value(&'static str),
    /// A line of a text file is wrong.
    #[error("line {line}: {reason}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl FormatError {
    /// Says where the fault is: `place` names the file or object, `offset` is in bytes from its start.
    pub fn at(self, place: impl Into<String>, offset: u64) -> Damage {
        Damage { place: place.into(), offset, error: self }
    }
}

/// A fault and its place, for reports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Damage {
    /// The file or store object.
    pub place: String,
    /// Bytes from its start to what is damaged.
    pub offset: u64,
    /// What is wrong.
    #[source]
    pub error: FormatError,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}: {}", self.place, self.offset, self.error)
    }
}
