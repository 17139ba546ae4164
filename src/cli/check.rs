//! `skylog check STORE`: verifies everything, offline, without changing anything; with `--repair` it makes a damaged filesystem
//! whole as far as that can be.

use super::failure::{Failure, Outcome};
use super::progress::Progress;
use super::remote_words::RemoteWords;
use super::site::Site;
use super::store_arg::{Found, StoreArg};
use super::{output, repaired, size, state_dir, world};
use skylog::base::clock::SystemClock;
use skylog::base::random::OsRandom;
use skylog::check::{Depth, Figures, Report, check};
use skylog::map::Shape;
use skylog::media::{LocalDisk, Media, Owner};
use skylog::recovery::Holding;
use skylog::repair::{Means, RepairError, repair};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Verify what is stored: checksums, the order of trees, link counts, extents, and the accounting of space against a full scan.
///
/// Of the contents of files in the store it verifies that they are there, and where; with --data every byte, also of the frames
/// around them and of the tables of objects. With --repair, what is damaged is copied aside, and the filesystem is made anew of
/// all that is left; what is lost is said by file. It may be interrupted and run again.
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
    /// Read every byte, and repair what is damaged.
    #[arg(long)]
    repair: bool,
    /// Say what would be repaired, and change nothing.
    #[arg(long, requires = "repair")]
    dry_run: bool,
    /// Repair it also if another machine holds it, and take it from there.
    #[arg(long, requires = "repair")]
    takeover: bool,
    /// Repair it also if its superblock is lost, which would say if nothing of it may ever be deleted: it does not.
    #[arg(long, requires = "repair")]
    not_append_only: bool,
    #[command(flatten)]
    remote: RemoteWords,
}

impl Check {
    /// Prints every problem found, and how much was looked at, or what was repaired.
    pub fn run(&self) -> Outcome {
        let store = self.store.lasting(&self.remote)?;
        let state = self.state_of(&store)?.filter(|state| state.is_dir());
        let doing = if self.repair { "nowhere, it is being repaired" } else { "nowhere, it is being checked" };
        let _lock = world::lock(&store, state.as_deref(), doing, Duration::ZERO)?;
        let media = state.as_ref().map(|state| Arc::new(LocalDisk::new(state)) as Arc<dyn Media>);
        match self.repair {
            true => self.repair(&store, state.as_deref(), media),
            false => self.check(&store, media),
        }
    }

    /// Where the local state lies. Whatever is damaged, the superblock included, a check looks at it.
    fn state_of(&self, store: &StoreArg) -> Result<Option<PathBuf>, Failure> {
        let given = self.state.as_deref();
        match store.look()? {
            Found::Nothing if !store.has_generations()? => Err(store.missing()),
            Found::Nothing | Found::Damaged(_) => Site::state_without_superblock(store, given),
            Found::Away(reason) => Err(Failure::failed(reason)),
            found => {
                let site = Site::found(store, found, given)?;
                state_dir::existing_or_damaged(&site, given.is_some())?;
                Ok(Some(site.state))
            }
        }
    }

    fn check(&self, store: &StoreArg, state: Option<Arc<dyn Media>>) -> Outcome {
        let progress = Progress::steps("checking");
        let depth = if self.data { Depth::Data } else { Depth::Metadata };
        let report = check(&store.open()?, state, depth, &mut |pass, done, total| progress.step(pass, done, total));
        progress.end();
        show(&report);
        match report.is_clean() {
            true => Ok(()),
            false => Err(Failure::failed(format_args!(
                "{} in {}{}; to repair it, run: {}",
                problems(&report),
                store.url(),
                only(&report),
                world::repair_command(store, self.state.as_deref())
            ))),
        }
    }

    fn repair(&self, store: &StoreArg, state: Option<&Path>, media: Option<Arc<dyn Media>>) -> Outcome {
        let means = Means {
            store: store.open()?,
            state: media,
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(OsRandom),
            owner: Owner::seen_anywhere("nowhere, it is being repaired").map_err(Failure::failed)?,
            holding: if self.takeover { Holding::TakesOver } else { Holding::Asks },
            not_append_only: self.not_append_only,
            segment_bytes: usize::try_from(world::STORE_SEGMENT_BYTES).map_err(Failure::failed)?,
            shape: Shape::default(),
        };
        let progress = Progress::steps("repairing");
        let repaired = repair(&means, self.dry_run, &mut |pass, done, total| progress.step(pass, done, total));
        progress.end();
        let report = repaired.map_err(|e| self.refused(store, &e))?;
        repaired::show(&report, store, state, self.dry_run)
    }

    fn refused(&self, store: &StoreArg, error: &RepairError) -> Failure {
        let failure = match error {
            RepairError::Refused(_) | RepairError::Hold(_) | RepairError::Mount(_) => Failure::failed(error),
            _ => Failure::failed(format_args!("{error}; nothing is lost by that: run it again")),
        };
        let takeover = world::repair_command(store, self.state.as_deref()) + " --takeover";
        world::with_command(
            store,
            self.state.as_deref(),
            failure.saying("skylog mount --takeover STORE DIR", &takeover),
        )
    }
}

/// Every problem, how much was looked at, and what else is to be known.
pub fn show(report: &Report) {
    report.problems.iter().for_each(output::line);
    if report.unlisted > 0 {
        output::line(format_args!("and {} more", report.unlisted));
    }
    if !report.skipped.is_empty() {
        output::line(format_args!("not checked because of these: {}", report.skipped.join(", ")));
    }
    output::line(format_args!("looked at {}", looked_at(&report.figures)));
    if report.figures.unread_bytes > 0 {
        let unread = size::show(report.figures.unread_bytes);
        output::line(format_args!(
            "contents of files were not read ({unread} in the store), nor the frames around them and the tables of objects: \
             --data verifies them"
        ));
    }
    if let Some(lost) = lost(&report.figures) {
        output::line(lost);
    }
    report.notes.iter().for_each(|note| output::line(format_args!("note: {note}")));
}

/// The only problem there is, for who sees the sentence alone.
fn only(report: &Report) -> String {
    match &report.problems[..] {
        [problem] => format!(": {problem}"),
        _ => String::new(),
    }
}

/// How many there are, in words.
pub fn problems(report: &Report) -> String {
    match report.problems.len() as u64 + report.unlisted {
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
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
