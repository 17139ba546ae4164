//! What one operation adds to the log.

use super::ids::InodeNo;
use bytes::Bytes;

/// Which of the two ordered maps an edit changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TreeId {
    /// All metadata of files.
    Files,
    /// The space tree: segments, windows, counts, pending deletions, high-water marks.
    Space,
}

/// One change to an ordered map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// The key has this value from now on.
    Put {
        /// Encoded key.
        key: Bytes,
        /// Encoded value.
        value: Bytes,
    },
    /// The key is gone.
    Delete {
        /// Encoded key.
        key: Bytes,
    },
    /// All keys in `from..to` are gone.
    DeleteRange {
        /// First key of the range.
        from: Bytes,
        /// First key after it.
        to: Bytes,
    },
    /// A put of an extent over the whole of object `n` of this very batch, whose Lsn is not known when the edit is made.
    /// Applying it makes the ordinary extent entry (see [`super::key`]).
    OwnExtent {
        /// The file.
        ino: InodeNo,
        /// Where in the file the extent starts, bytes.
        offset: u64,
        /// Which of the batch's objects, from 0; the extent is as long as the object.
        n: u32,
    },
}
