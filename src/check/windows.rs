//! Shipped windows: the index is read whole, the segments as [`super::segments`] does, and what the space tree says of them is
//! compared with what a full scan of the extents found.

use super::Check;
use super::segments::{Expected, Found, read_segment, what_of};
use super::space::PLACE;
use super::tables::check_tables;
use crate::format::ids::Lsn;
use crate::format::names;
use crate::format::window::{IndexEntry, WindowIndex};

/// A window and what must be true of it.
struct Window {
    start: Lsn,
    end: Lsn,
    segments: Vec<Expected>,
    /// Whether the space tree records it; else only a publication lists it.
    recorded: bool,
}

pub(super) fn check_windows(check: &mut Check<'_>) -> bool {
    let windows = windows(check);
    check.report.figures.windows = windows.len() as u64;
    for (done, window) in windows.iter().enumerate() {
        check.step(done as u64, windows.len() as u64);
        match read_index(check, window) {
            Ok(index) => check_window(check, window, &index),
            Err(what) => {
                check.problem(names::window(window.start, window.end), what);
                let lost = check.objects.uses.range_mut(first_after(window.start)..first_after(window.end));
                lost.for_each(|(_, usage)| usage.found = true);
            }
        }
    }
    true
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

fn read_index(check: &Check<'_>, window: &Window) -> Result<WindowIndex, String> {
    let bytes = check.store.get(&names::window(window.start, window.end)).map_err(what_of)?;
    let index = WindowIndex::decode(&bytes).map_err(|e| e.to_string())?;
    if index.uuid != check.uuid {
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

fn check_window(check: &mut Check<'_>, window: &Window, index: &WindowIndex) {
    let mut found: Vec<Found> = window.segments.iter().map(|expected| read_segment(check, expected)).collect();
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
