//! `skylog evict DIR PATH…`: drops the copies of files that are here.

use super::control::Ask;
use super::failure::Outcome;
use super::{copies, output, size};
use std::path::PathBuf;

/// Drop what the cache and the kernel keep of files, of directories all that lies below them; the store has it.
#[derive(clap::Args)]
pub struct Evict {
    /// The mount point.
    dir: PathBuf,
    /// Files and directories in it. Small files that lie in one cache file go together.
    #[arg(required = true)]
    path: Vec<PathBuf>,
}

impl Evict {
    /// Returns once it is dropped; says how much that freed.
    pub fn run(&self) -> Outcome {
        let ask = |inodes| Ask::Evict { inodes };
        let (_, after) = copies::converse(&self.dir, &self.path, "dropping", ask)?;
        let freed = after.freed_bytes;
        let mut said = format!("{}: {freed} bytes ({}) of the cache freed", copies::files(&after), size::show(freed));
        if after.journal_bytes > 0 {
            said += &format!(", {} bytes stay: only the journal has them", after.journal_bytes);
        }
        output::line(said);
        Ok(())
    }
}
