//! Shipped windows: the index is read whole, the segments as [`super::segments`] does, and what the space tree says of them is
//! compared with what a full scan of the extents found.

use super::segments::{Expected, Found, Read, read_segment, take_segment, what_of};
use super::space::PLACE;
use super::tables::check_tables;
use super::{Check, Depth};
use crate::base::threads::side_by_side;
use crate::format::ids::{Lsn, Uuid};
use crate::format::names;
use crate::format::window::{IndexEntry, WindowIndex};
use crate::store::Store;

/// Objects in windows that are read together: their indexes are in memory.
const OBJECTS_TOGETHER: u64 = 1 << 18;
/// Bytes of segments that are in memory at a time where all are read.
const BYTES_AT_ONCE: u64 = 64 << 20;

/// A window and what must be true of it.
struct Window {
    start: Lsn,
    end: Lsn,
    segments: Vec<Expected>,
    /// Whether the space tree records it; else only a publication lists it.
    recorded: bool,
}

/// The index, and what reading each segment gave; or why the index cannot be read.
type ReadWindow = Result<(WindowIndex, Vec<Option<Result<Read, String>>>), String>;

pub(super) fn check_windows(check: &mut Check<'_>) -> bool {
    let windows = windows(check);
    check.report.figures.windows = windows.len() as u64;
    let mut done = 0;
    while done < windows.len() {
        let at_once = check.store.side_by_side();
        let some = &windows[done..done + read_together(&windows[done..], at_once)];
        for (window, read) in some.iter().zip(read_windows(check, some)) {
            check.step(done as u64, windows.len() as u64);
            check_window(check, window, read);
            done += 1;
        }
    }
    true
}

/// How many of the next windows are read together: at least one, and no more than that if it has very many objects.
fn read_together(windows: &[Window], at_once: usize) -> usize {
    let mut objects = 0;
    let few = windows.iter().take_while(|window| {
        // What is in a segment that is dead nothing says but the index.
        let of_segment = |s: &Expected| s.bytes.map_or(OBJECTS_TOGETHER / 4, |_| u64::from(s.objects));
        objects += window.segments.iter().map(of_segment).sum::<u64>();
        objects <= OBJECTS_TOGETHER
    });
    few.take(at_once).count().max(1)
}

/// Reads indexes and segments of windows, as many side by side as the store takes.
fn read_windows(check: &Check<'_>, windows: &[Window]) -> Vec<ReadWindow> {
    let (store, depth, uuid) = (&*check.store, check.depth, check.uuid);
    let at_once = store.side_by_side();
    let indexes = side_by_side(at_once, windows, |window| read_index(store, uuid, window));
    let wanted = windows.iter().zip(&indexes).filter(|(_, index)| index.is_ok());
    let wanted: Vec<&Expected> = wanted.flat_map(|(window, _)| &window.segments).collect();
    let longest = wanted.iter().filter_map(|segment| segment.bytes).max().unwrap_or(0).max(1);
    let at_once = match depth {
        Depth::Metadata => at_once,
        Depth::Data => at_once.min(usize::try_from(BYTES_AT_ONCE / longest).unwrap_or(at_once)),
    };
    let mut read = side_by_side(at_once, &wanted, |segment| read_segment(store, depth, segment)).into_iter();
    let indexed = windows.iter().zip(indexes);
    indexed.map(|(window, index)| Ok((index?, read.by_ref().take(window.segments.len()).collect()))).collect()
}

fn first_after(lsn: Lsn) -> crate::format::ids::ObjectId {
    crate::format::ids::ObjectId { lsn: Lsn { pos: lsn.pos + 1, ..lsn }, n: 0 }
}

fn windows(check: &Check<'_>) -> Vec<Window> {
    let space = &check.space;
    let mut windows = Vec::new();
    for (end, record) in &space.windows {
        let segments = record.segments.iter().map(|no| match space.segments.get(no) {
            Some(s) => Expected {
                no: *no,
                bytes: Some(s.bytes),
                objects: s.objects,
                live_bytes: s.live_bytes,
                live_objects: s.live_objects,
            },
            None => Expected { no: *no, bytes: None, objects: 0, live_bytes: 0, live_objects: 0 },
        });
        windows.push(Window { start: record.start, end: *end, segments: segments.collect(), recorded: true });
    }
    for entry in &check.listed {
        let segments = entry.segments.iter().map(|s| Expected {
            no: s.segment,
            bytes: Some(s.bytes),
            objects: s.objects,
            live_bytes: s.bytes,
            live_objects: s.objects,
        });
        windows.push(Window { start: entry.start, end: entry.end, segments: segments.collect(), recorded: false });
    }
    windows
}

fn read_index(store: &dyn Store, uuid: Uuid, window: &Window) -> Result<WindowIndex, String> {
    let bytes = store.get(&names::window(window.start, window.end)).map_err(what_of)?;
    let index = WindowIndex::decode(&bytes).map_err(|e| e.to_string())?;
    if index.uuid != uuid {
        return Err(format!("belongs to filesystem {}", index.uuid));
    }
    if (index.start, index.end) != (window.start, window.end) {
        return Err(format!("says it is window {}-{}", index.start, index.end));
    }
    if !index.segments.iter().eq(window.segments.iter().map(|s| &s.no)) {
        return Err("names other segments than the record of its window".to_owned());
    }
    Ok(index)
}

fn check_window(check: &mut Check<'_>, window: &Window, read: ReadWindow) {
    match read {
        Ok((index, segments)) => {
            let read = window.segments.iter().zip(segments);
            let found = read.map(|(expected, read)| take_segment(check, expected, read)).collect();
            check_index(check, window, &index, found);
        }
        Err(what) => {
            check.problem(names::window(window.start, window.end), what);
            let lost = check.objects.uses.range_mut(first_after(window.start)..first_after(window.end));
            lost.for_each(|(_, usage)| usage.found = true);
        }
    }
}

fn check_index(check: &mut Check<'_>, window: &Window, index: &WindowIndex, mut found: Vec<Found>) {
    for entry in &index.entries {
        let (expected, found) = (&window.segments[entry.segment as usize], &mut found[entry.segment as usize]);
        check_entry(check, window, expected, found, entry);
    }
    for (number, (expected, found)) in window.segments.iter().zip(&found).enumerate() {
        report_damage(check, expected, found);
        check_tables(check, index, number, found);
        compare(check, window, expected, found);
    }
}

fn check_entry(check: &mut Check<'_>, window: &Window, expected: &Expected, found: &mut Found, entry: &IndexEntry) {
    let object = entry.object;
    let name = || names::window(window.start, window.end);
    if object.lsn <= window.start || object.lsn > window.end {
        check.problem(name(), format!("object {object} does not belong to it"));
    }
    found.objects += 1;
    let named = check.objects.at_checkpoint(&object) > 0;
    if named || check.unsettled.contains(&object) {
        found.live_objects += 1;
    } else {
        found.dead_bytes += u64::from(entry.len);
    }
    if !window.recorded && !named && !check.unsettled.contains(&object) {
        check.problem(PLACE, format!("object {object} is dead and would count as live once its window is recorded"));
    }
    if let Some(chunks) = &found.chunks {
        if chunks.get(&entry.chunk_offset) != Some(&entry.chunk) {
            let place = names::segment(expected.no);
            check.problem(name(), format!("{place} has no such chunk as object {object} is said to be in"));
        }
    }
    let Some(usage) = check.objects.uses.get_mut(&object) else { return };
    usage.found = true;
    let (place, end) = (usage.place, usage.end);
    if end > entry.len {
        check.problem(place.to_string(), format!("object {object} has {} bytes, {end} are used", entry.len));
    }
    if expected.bytes.is_none() {
        check
            .problem(place.to_string(), format!("object {object} is in segment {}, which counts as dead", expected.no));
    }
    let chunk = if found.lost.is_some() { 0 } else { entry.chunk_offset };
    if found.lost.is_some() || found.damaged.contains_key(&chunk) {
        found.victims.entry(chunk).or_insert((place, 0)).1 += 1;
    }
}

fn report_damage(check: &mut Check<'_>, expected: &Expected, found: &Found) {
    let place = names::segment(expected.no);
    let victims = |chunk: u64| match found.victims.get(&chunk) {
        None => "nothing in use is in it".to_owned(),
        Some((first, 1)) => format!("lost is {first}"),
        Some((first, n)) => format!("lost are {n} objects, the first of {first}"),
    };
    if let Some(what) = &found.lost {
        check.problem(&place, format!("{what}; {}", victims(0)));
    }
    for (chunk, what) in &found.damaged {
        check.problem(&place, format!("chunk at {chunk}: {what}; {}", victims(*chunk)));
    }
}

fn compare(check: &mut Check<'_>, window: &Window, expected: &Expected, found: &Found) {
    let name = names::window(window.start, window.end);
    let no = expected.no;
    let Some(bytes) = expected.bytes else { return };
    if expected.objects != found.objects {
        let what = format!("has {} objects in segment {no}, {} are recorded", found.objects, expected.objects);
        check.problem(name, what);
    }
    if !window.recorded {
        return;
    }
    let live_bytes = bytes.saturating_sub(found.dead_bytes);
    if (expected.live_objects, expected.live_bytes) != (found.live_objects, live_bytes) {
        let what = format!(
            "segment {no} is said to have {} live objects in {} bytes, by the extents it has {} in {live_bytes}",
            expected.live_objects, expected.live_bytes, found.live_objects
        );
        check.problem(PLACE, what);
    }
}
