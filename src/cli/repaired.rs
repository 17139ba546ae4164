//! What `skylog check --repair` says of what it found and did.

use super::failure::{Failure, Outcome};
use super::store_arg::StoreArg;
use super::{check, output, world};
use skylog::repair::{Report, Touched};
use std::path::Path;

/// Files that are named; the report in the store names all.
const FILES_MAX: usize = 100;

/// Says what is damaged, what becomes of which file and why, and where what was there is kept. Fails if something is left that
/// is not as it must be.
pub fn show(report: &Report, store: &StoreArg, state: Option<&Path>, dry_run: bool) -> Outcome {
    if let Some(reason) = &report.outlived {
        let state = state.map_or_else(String::new, |state| state.display().to_string());
        let then = match report.is_unusable {
            true => "moves aside, because nothing can be mounted from it".to_owned(),
            false => format!("stays as it is; `skylog salvage {state} OUT` writes out what only it has"),
        };
        output::line(format_args!("the state directory {state} is not read from: {reason}; it {then}"));
    }
    if report.was_clean() {
        check::show(&report.before);
        output::line("nothing to repair");
        return Ok(());
    }
    show_damage(report);
    show_files(report, dry_run);
    if dry_run {
        let what = match (report.resumed, report.begun && report.before.is_clean()) {
            (true, _) => "a repair was interrupted near its end, and would be brought to it".to_owned(),
            (_, true) => "a repair was interrupted, and would be done again; nothing was changed".to_owned(),
            _ => format!("{} in {}; nothing was changed", check::problems(&report.before), store.url()),
        };
        return Err(Failure::failed(what));
    }
    show_kept(report, store, state);
    if let Some(reason) = &report.unchecked {
        return Err(Failure::failed(format_args!(
            "{} is repaired, and cannot be checked now: {reason}; run: {}",
            store.url(),
            world::repair_command(store, state)
        )));
    }
    let Some(after) = &report.after else { return Ok(()) };
    check::show(after);
    match after.is_clean() {
        true => {
            output::line(format_args!("repaired {}", store.url()));
            Ok(())
        }
        false => Err(Failure::failed(format_args!(
            "{} left in {} after the repair; run: {}",
            check::problems(after),
            store.url(),
            world::repair_command(store, state)
        ))),
    }
}

fn show_damage(report: &Report) {
    for damaged in &report.damaged {
        let place = if damaged.local { "state directory: " } else { "" };
        output::line(format_args!("damaged: {place}{}: {}", damaged.place, damaged.what));
    }
    for (from, to) in &report.lost {
        output::line(format_args!("lost: all changes after {from} up to {to}"));
    }
    if report.may_miss_changes() {
        output::line("what damaged publications or the journal held may be missing, wherever it is in no other place");
    }
    if report.damaged.is_empty() {
        report.before.problems.iter().for_each(|problem| output::line(format_args!("wrong: {problem}")));
    }
}

fn show_files(report: &Report, dry_run: bool) {
    for Touched { ino, path, what } in report.touched.iter().take(FILES_MAX) {
        let path = path.as_deref().unwrap_or("(no name)");
        output::line(format_args!("file: {path} (inode {ino}): {}", what.join("; ")));
    }
    let (count, shown) = (report.touched_count, report.touched.len().min(FILES_MAX) as u64);
    if count > shown {
        output::line(format_args!("and {} files more", count - shown));
    }
    if report.touched_count > 0 || report.base.is_some() && !report.resumed {
        let verb = if dry_run { "would be" } else { "are" };
        let files = if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
        output::line(format_args!("{files} {verb} not what they were, or may not be; all others are whole"));
    }
}

fn show_kept(report: &Report, store: &StoreArg, state: Option<&Path>) {
    if let Some(taken) = &report.taken {
        output::line(taken);
    }
    if let Some(name) = &report.kept {
        let (folder, url) = (name.trim_end_matches("report"), store.url());
        output::line(format_args!("kept: copies of what was damaged in {url}/{folder}, with the report {name}"));
    }
    if let (Some(aside), Some(state)) = (&report.aside, state) {
        output::line(format_args!("kept: what the state directory held in {}", state.join(aside).display()));
    }
}
