//! `skylog warm DIR PATH…`: brings copies of files here, to read them without the store.

use super::control::Ask;
use super::failure::Outcome;
use super::{copies, output, size};
use std::path::PathBuf;

/// Fetch what files hold into the cache, of directories all that lies below them.
#[derive(clap::Args)]
pub struct Warm {
    /// The mount point.
    dir: PathBuf,
    /// Files and directories in it.
    #[arg(required = true)]
    path: Vec<PathBuf>,
}

impl Warm {
    /// Returns once all of it is here; says how much that was.
    pub fn run(&self) -> Outcome {
        let ask = |inodes| Ask::Warm { inodes };
        let (before, after) = copies::converse(&self.dir, &self.path, "fetching", ask)?;
        let fetched = after.here_bytes.saturating_sub(before.here_bytes);
        let there = after.here_bytes - fetched;
        let mut said = format!(
            "{}: {fetched} bytes ({}) fetched, {there} bytes ({}) were here",
            copies::files(&after),
            size::show(fetched),
            size::show(there)
        );
        if after.journal_bytes > 0 {
            said += &format!(", {} bytes are in the journal, which is here", after.journal_bytes);
        }
        if after.no_room_bytes > 0 {
            said += &format!("; the cache had no room for {} bytes", after.no_room_bytes);
        }
        output::line(said);
        Ok(())
    }
}
