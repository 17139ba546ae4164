//! The newest generation in the store, and whether the state directory still owns it.

use super::Check;
use super::space::PLACE;
use crate::base::threads::side_by_side;
use crate::format::FormatError;
use crate::format::ids::{Lsn, Nonce, SegmentNo};
use crate::format::names;
use crate::format::publication::{Body, Log, LogBatch, Position, Publication};
use crate::journal::Replayed;
use crate::recovery::{Fetcher, PublicationsAhead, newest_generation, next_position};
use crate::ship::publish::{Identity, Past, Publisher, read};
use std::collections::HashMap;

/// After every batch.
const AFTER_ALL: Lsn = Lsn { epoch: u32::MAX, pos: u64::MAX };

/// Walks the newest generation that has a base, as a takeover would.
pub(super) fn check_publications(check: &mut Check<'_>) -> bool {
    let mut generation = match newest_generation(&*check.store) {
        Ok(generation) => generation,
        Err(e) => {
            check.refused("gen/", e);
            return false;
        }
    };
    loop {
        let Some(found) = publication(check, Position { generation, number: 0 }) else { return false };
        match found {
            Some(base) if matches!(base.body, Body::Base(_)) => return walk(check, base),
            None => {
                check.problem(names::publication(generation, 0), "is missing, and later objects are there");
                return false;
            }
            Some(_) if generation > 1 => generation -= 1,
            _ => {
                check.problem("gen/", "no generation has a base");
                return false;
            }
        }
    }
}

/// The publication at a number, `Some(None)` if there is none there; `None` after a problem.
fn publication(check: &mut Check<'_>, at: Position) -> Option<Option<Publication>> {
    match read(&*check.store, at) {
        Ok(found) => Some(found),
        Err(e) => {
            check.refused(&names::publication(at.generation, at.number), e.into());
            None
        }
    }
}

fn walk(check: &mut Check<'_>, base: Publication) -> bool {
    let mut at = Position { generation: base.generation, number: 0 };
    let (mut end, mut checkpoint) = (Lsn::ZERO, base.checkpoint);
    let (fetcher, mut ahead) = (Fetcher::new(check.store.side_by_side()), PublicationsAhead::default());
    let mut next = Some(base);
    while let Some(publication) = next {
        check.report.figures.publications += 1;
        check.newest = Some(at);
        let place = names::publication(at.generation, at.number);
        for what in problems_of(&publication, end, checkpoint) {
            check.problem(&place, what);
        }
        if publication.uuid != check.uuid {
            check.problem(&place, format!("belongs to filesystem {}", publication.uuid));
        }
        checkpoint = checkpoint.max(publication.checkpoint);
        if !matches!(publication.body, Body::Log(_)) {
            end = publication.end;
        }
        match publication.body {
            Body::Base(base) => check_sizes(check, &place, &base.node_segments),
            Body::Increment(_) | Body::Log(_) => {}
            Body::Closing(_) => return true,
        }
        at.number += 1;
        next = match ahead.next(&*check.store.clone(), &fetcher, at) {
            Ok(found) => found,
            Err(e) => {
                check.refused(&names::publication(at.generation, at.number), e);
                return false;
            }
        };
    }
    !check_gap(check, at)
}

/// Numbers are taken in order, one at a time, so after the first free one there is nothing. Says whether there is.
fn check_gap(check: &mut Check<'_>, at: Position) -> bool {
    let free = names::publication(at.generation, at.number);
    let folder = free.rsplit_once('/').map_or("gen", |(folder, _)| folder);
    let listed = match check.store.list(folder) {
        Ok(listed) => listed,
        Err(e) => {
            check.problem(folder, e.to_string());
            return true;
        }
    };
    let later = listed.into_iter().find(|name| *name > free);
    if let Some(later) = &later {
        check.problem(&free, format!("is missing, and {later} is there"));
    }
    later.is_some()
}

/// The node segments of a base are there, as long as it says.
fn check_sizes(check: &mut Check<'_>, place: &str, expected: &[(SegmentNo, u64)]) {
    let store = check.store.clone();
    let sizes = side_by_side(store.side_by_side(), expected, |(no, _)| store.size(&names::segment(*no)));
    for ((no, bytes), size) in expected.iter().zip(sizes) {
        match size {
            Ok(found) if found == *bytes => {}
            Ok(found) => check.problem(names::segment(*no), format!("has {found} bytes where {place} says {bytes}")),
            Err(e) => check.problem(names::segment(*no), format!("{e}, yet {place} names it")),
        }
    }
}

fn log_problems(log: &Log, start: Lsn, end: Lsn) -> Vec<String> {
    let problem = |batch: Result<LogBatch, FormatError>| match batch {
        Err(e) => Some(format!("a bad batch: {e}")),
        Ok(LogBatch { batch, .. }) if batch.lsn <= start || batch.lsn > end => {
            Some(format!("batch {} is outside of {start}-{end}", batch.lsn))
        }
        Ok(LogBatch { batch, .. }) => {
            let carried = batch.edits.iter().all(|(tree, edit)| Log::carries(*tree, edit));
            (!carried).then(|| format!("batch {} changes what no log may change", batch.lsn))
        }
    };
    log.batches().filter_map(problem).collect()
}

fn problems_of(publication: &Publication, end: Lsn, checkpoint: u64) -> Vec<String> {
    let Publication { start, end: own_end, checkpoint: own, number, .. } = *publication;
    let mut problems = Vec::new();
    // A log that finds its number taken goes behind what it was made before.
    if own < checkpoint && !matches!(publication.body, Body::Log(_)) {
        problems.push(format!("publishes checkpoint {own} after checkpoint {checkpoint}"));
    }
    match &publication.body {
        Body::Base(_) if number > 0 => problems.push("a base in the middle of a generation".to_owned()),
        Body::Base(base) => problems.extend(log_problems(&base.log, own_end, AFTER_ALL)),
        Body::Closing(_) => {}
        Body::Log(_) if own_end <= start => {
            problems.push(format!("ends at {own_end}, where it starts or before"));
        }
        Body::Log(log) => problems.extend(log_problems(log, start, own_end)),
        Body::Increment(increment) => {
            if start != end {
                problems.push(format!("starts at {start}, the one before ends at {end}"));
            }
            if own_end <= start {
                problems.push(format!("ends at {own_end}, where it starts or before"));
            }
            for window in increment.windows.iter().filter(|w| (w.start, w.end) != (start, own_end)) {
                problems.push(format!("its window {}-{} is not its Lsns {start}-{own_end}", window.start, window.end));
            }
            for batch in increment.batches() {
                match batch {
                    Ok(batch) if batch.lsn > start && batch.lsn <= own_end => {}
                    Ok(batch) => problems.push(format!("batch {} is outside of {start}-{own_end}", batch.lsn)),
                    Err(e) => problems.push(format!("a bad batch: {e}")),
                }
            }
        }
    }
    problems
}

/// What the state directory publishes next must be free, or its own. What it published and did not record yet is adopted,
/// as a mount would.
pub(super) fn check_fence(check: &mut Check<'_>) -> bool {
    let published = check.space.published;
    let mut listed = check.checkpoint().windows.clone();
    if let (Some(manifest), Some(media)) = (check.manifest.clone(), check.state.clone()) {
        check_recorded(check);
        let identity = Identity {
            filesystem: check.uuid,
            state: manifest.state,
            nonce: Nonce(0),
            epoch: manifest.epoch,
            owner: String::new(),
        };
        let next = next_position(&manifest, Some(published));
        let lasts = check.replayed.as_ref().map_or_else(HashMap::new, Replayed::lasts);
        let past = Past::new(media, &manifest, Some(published)).holding(lasts);
        match Publisher::new(check.store.clone(), identity, next, past).resume() {
            Ok(found) => {
                for publication in found {
                    match publication.body {
                        Body::Increment(increment) => listed.extend(increment.windows),
                        Body::Base(base) => listed.extend(base.windows),
                        Body::Closing(_) | Body::Log(_) => {}
                    }
                }
            }
            Err(e) => {
                check.refused("state directory", e.into());
                return false;
            }
        }
    }
    listed.retain(|window| window.end > published.end && window.objects > 0);
    listed.sort_by_key(|window| window.end);
    listed.dedup();
    check.listed = listed;
    true
}

/// What the space tree says was published is there.
fn check_recorded(check: &mut Check<'_>) {
    let published = check.space.published;
    let at = Position { generation: published.generation, number: published.number };
    if published.generation > 0 && check.newest.is_some_and(|newest| newest < at) {
        let name = names::publication(at.generation, at.number);
        check.problem(name, format!("is missing, yet the {PLACE} says that it was published"));
    }
}
