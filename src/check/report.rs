//! What a check found.

use std::fmt;

/// At most this many problems of one pass are kept; the rest is counted.
const PROBLEMS_MAX: usize = 1000;

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The pass that found it; see [`super::PASSES`].
    pub pass: &'static str,
    /// The store object, file or inode.
    pub place: String,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.place, self.what, self.pass)
    }
}

/// How much was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Publications of the newest generation.
    pub publications: u64,
    /// Journal segments that hold something.
    pub journal_segments: u64,
    /// Batches after the checkpoint.
    pub batches: u64,
    /// Entries in the trees of the checkpoint.
    pub tree_entries: u64,
    /// Node segments whose every byte was read.
    pub node_segments: u64,
    /// Inodes.
    pub inodes: u64,
    /// Names in directories.
    pub names: u64,
    /// Extents.
    pub extents: u64,
    /// Objects that are named by an extent.
    pub objects: u64,
    /// Bytes of file contents, without holes.
    pub bytes: u64,
    /// Ranges of files whose data was lost before a repair. They are no problem: the files say so themselves.
    pub lost_ranges: u64,
    /// Bytes in them, which [`Figures::bytes`] counts too.
    pub lost_bytes: u64,
    /// Windows.
    pub windows: u64,
    /// Store segments of file data.
    pub segments: u64,
    /// Chunks in them.
    pub chunks: u64,
    /// Stored bytes of these chunks that were not read.
    pub unread_bytes: u64,
    /// Store objects that nothing names, left by writers that died.
    pub leftovers: u64,
}

/// What a check found, and how much it looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, in the order in which it was found.
    pub problems: Vec<Problem>,
    /// Problems that are not listed because a pass found too many.
    pub unlisted: u64,
    /// Passes that could not run because of what others found.
    pub skipped: Vec<&'static str>,
    /// What somebody should know and is no problem: nothing is wrong by it, and no repair would change it.
    pub notes: Vec<String>,
    /// How much was looked at.
    pub figures: Figures,
}

impl Report {
    /// Whether nothing is wrong, whatever is noted.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty() && self.skipped.is_empty()
    }

    /// Adds a problem, once.
    pub(super) fn add(&mut self, problem: Problem) {
        let mut known = 0;
        for other in &self.problems {
            if other.place == problem.place && other.what == problem.what {
                return;
            }
            known += usize::from(other.pass == problem.pass);
        }
        if known < PROBLEMS_MAX {
            self.problems.push(problem);
        } else {
            self.unlisted += 1;
        }
    }
}
