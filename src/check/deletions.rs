//! What is listed for deletion, what would be if anyone knew of it, and numbers that must never be given again.

use super::nodes::{WHOLE_AT_ONCE, check_segment};
use super::space::{PLACE, store_names};
use super::{Check, files};
use crate::base::threads::side_by_side;
use crate::checkpoint::nodes::node_file;
use crate::format::ids::{InodeNo, SegmentKind, SegmentNo, Uuid};
use crate::format::names;
use crate::map::reachable_segments;
use crate::store::Store;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

pub(super) fn check_deletions(check: &mut Check<'_>) -> bool {
    check_node_segments(check);
    let reached = reached(check);
    check_pending(check, &reached);
    check_marks(check, &reached);
    count_leftovers(check, &reached);
    true
}

/// Node segments that the trees lie in.
fn reached(check: &mut Check<'_>) -> BTreeSet<SegmentNo> {
    let mut segments = BTreeSet::new();
    for (root, tree) in check.maps.roots.into_iter().zip([files::PLACE, PLACE]) {
        match reachable_segments(root, &check.nodes) {
            Ok(found) => segments.extend(found),
            Err(e) => check.problem(tree, e.to_string()),
        }
    }
    segments
}

/// Node segments in the store are as long as is recorded, and whole.
fn check_node_segments(check: &mut Check<'_>) {
    let segments = check.space.segments.iter().filter(|(_, record)| !record.is_planned());
    let nodes = segments.filter(|(_, record)| record.kind == SegmentKind::Nodes);
    let nodes = nodes.map(|(no, record)| (*no, record.bytes));
    // Those that the trees reach were read already.
    let nodes: Vec<(SegmentNo, u64)> = nodes.filter(|(no, bytes)| check.whole.get(no) != Some(bytes)).collect();
    for (round, some) in nodes.chunks(WHOLE_AT_ONCE).enumerate() {
        check.step((round * WHOLE_AT_ONCE) as u64, nodes.len() as u64);
        let (store, uuid) = (check.store.clone(), check.uuid);
        let found = side_by_side(store.side_by_side().min(WHOLE_AT_ONCE), some, |node| {
            check_node_segment(&*store, uuid, *node)
        });
        for ((no, _), found) in some.iter().zip(found) {
            if let Err(what) = found {
                check.problem(names::segment(*no), what);
            }
        }
    }
}

fn check_node_segment(store: &dyn Store, uuid: Uuid, (no, bytes): (SegmentNo, u64)) -> Result<(), String> {
    let found = store.get(&names::segment(no)).map_err(|e| e.to_string())?;
    match found.len() as u64 == bytes {
        true => check_segment(&found, uuid, no, SegmentKind::Nodes).map(drop),
        false => Err(format!("has {} bytes, {bytes} are recorded", found.len())),
    }
}

fn check_pending(check: &mut Check<'_>, reached: &BTreeSet<SegmentNo>) {
    let used = store_names(&check.space);
    let newest = check.newest.map(|at| names::publication(at.generation, 0));
    let newest = newest.and_then(|name| Some(name.rsplit_once('/')?.0.to_owned()));
    let mut problems = Vec::new();
    for name in check.space.pending.keys() {
        let in_generation = newest.as_ref().is_some_and(|newest| name.starts_with(newest.as_str()));
        if used.contains(name) || in_generation {
            problems.push((name.clone(), "is in use and listed for deletion".to_owned()));
        }
    }
    for no in reached.iter().filter(|no| check.space.pending.contains_key(&names::segment(**no))) {
        let local = check.state.as_ref().is_some_and(|state| state.open(&node_file(*no)).is_ok());
        if !local {
            problems.push((names::segment(*no), "holds nodes of the trees and is listed for deletion".to_owned()));
        }
    }
    for (place, what) in problems {
        check.problem(place, what);
    }
}

fn check_marks(check: &mut Check<'_>, reached: &BTreeSet<SegmentNo>) {
    let (inode_max, mark) = (check.inode_max, check.space.inode_mark);
    if inode_max > InodeNo::ROOT.0 && inode_max >= mark {
        check.problem(PLACE, format!("inode {inode_max} is in use, and numbers from {mark} on may be given again"));
    }
    // Numbers of other epochs are never given again, whatever they are.
    let Some(epoch) = check.manifest.as_ref().map(|manifest| manifest.epoch) else { return };
    let mut used: BTreeSet<SegmentNo> = reached.iter().chain(check.space.segments.keys()).copied().collect();
    used.extend(check.space.windows.values().flat_map(|window| window.segments.iter().copied()));
    used.extend(check.listed.iter().flat_map(|window| window.segments.iter().map(|s| s.segment)));
    let highest = used.into_iter().filter(|no| no.epoch == epoch).map(|no| no.number).max();
    let mark = check.space.segment_mark;
    if let Some(highest) = highest.filter(|highest| *highest >= mark) {
        check.problem(
            PLACE,
            format!("segment {epoch}/{highest} is in use, and numbers from {mark} on may be given again"),
        );
    }
}

/// A writer that was fenced, or died before it published, may leave objects that nobody knows. They cost space only.
fn count_leftovers(check: &mut Check<'_>, reached: &BTreeSet<SegmentNo>) {
    let mut known = store_names(&check.space);
    known.extend(check.space.pending.keys().cloned());
    known.extend(reached.iter().map(|no| names::segment(*no)));
    for window in &check.listed {
        known.insert(names::window(window.start, window.end));
        known.extend(window.segments.iter().map(|s| names::segment(s.segment)));
    }
    for folder in ["seg", "win"] {
        let mut unknown = 0;
        let walked = check.store.walk(folder, &mut |name| {
            unknown += u64::from(!known.contains(name));
            ControlFlow::Continue(())
        });
        check.report.figures.leftovers += unknown;
        if let Err(e) = walked {
            check.problem(folder, e.to_string());
        }
    }
}
