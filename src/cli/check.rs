//! `skylog check STORE`: verifies everything, offline, without changing anything.

use super::failure::{Failure, Outcome};
use super::progress::Progress;
use super::remote_words::RemoteWords;
use super::site::Site;
use super::store_arg::StoreArg;
use super::{output, size, state_dir, world};
use skylog::check::{Depth, Figures, check};
use skylog::media::{LocalDisk, Media};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Verify what is stored: checksums, the order of trees, link counts, extents, and the accounting of space against a full scan.
///
/// Of the contents of files in the store it verifies that they are there, and where; with --data every byte.
#[derive(clap::Args)]
pub struct Check {
    /// The store: a directory or a URL. It must not be mounted.
    store: StoreArg,
    /// The state directory, if it is not the store's own.
    #[arg(long)]
    state: Option<PathBuf>,
    /// Read and verify the contents of files, too: every byte in the store.
    #[arg(long)]
    data: bool,
    #[command(flatten)]
    remote: RemoteWords,
}

impl Check {
    /// Prints every problem found, and how much was looked at.
    pub fn run(&self) -> Outcome {
        let store = self.store.lasting(&self.remote)?;
        let site = Site::online(&store, self.state.as_deref())?;
        state_dir::existing_or_damaged(&site, self.state.is_some())?;
        let state = site.state.is_dir().then_some(site.state);
        let _lock = world::lock(&store, state.as_deref(), "nowhere, it is being checked", Duration::ZERO)?;
        let media = state.map(|state| Arc::new(LocalDisk::new(&state)) as Arc<dyn Media>);
        let progress = Progress::steps("checking");
        let depth = if self.data { Depth::Data } else { Depth::Metadata };
        let report = check(&store.open()?, media, depth, &mut |pass, done, total| progress.step(pass, done, total));
        progress.end();
        for problem in &report.problems {
            output::line(format_args!("{problem}"));
        }
        if report.unlisted > 0 {
            output::line(format_args!("and {} more", report.unlisted));
        }
        if !report.skipped.is_empty() {
            output::line(format_args!("not checked because of these: {}", report.skipped.join(", ")));
        }
        output::line(format_args!("looked at {}", looked_at(&report.figures)));
        if report.figures.unread_bytes > 0 {
            let unread = size::show(report.figures.unread_bytes);
            output::line(format_args!("contents of files were not read ({unread} in the store): --data verifies them"));
        }
        if let Some(lost) = lost(&report.figures) {
            output::line(lost);
        }
        let problems = report.problems.len() as u64 + report.unlisted;
        match report.is_clean() {
            true => Ok(()),
            false if problems == 1 => Err(Failure::failed(format_args!("1 problem in {}", store.url()))),
            false => Err(Failure::failed(format_args!("{problems} problems in {}", store.url()))),
        }
    }
}

/// What is no problem any more, since a repair has said so, and still is a loss.
fn lost(figures: &Figures) -> Option<String> {
    let Figures { lost_ranges: ranges, lost_bytes: bytes, .. } = *figures;
    let what = if ranges == 1 { "1 range".to_owned() } else { format!("{ranges} ranges") };
    (ranges > 0)
        .then(|| format!("lost before a repair: {what} of files with {}, which cannot be read", size::show(bytes)))
}

fn looked_at(figures: &Figures) -> String {
    let Figures { inodes, names, extents, bytes, segments, chunks, .. } = figures;
    let Figures { journal_segments, batches, node_segments, windows, publications, .. } = figures;
    format!(
        "{inodes} inodes, {names} names, {extents} extents with {}; {segments} segments with {chunks} chunks, {windows} \
         windows, {node_segments} node segments, {publications} publications; {batches} batches after the checkpoint in \
         {journal_segments} journal segments",
        size::show(*bytes)
    )
}
