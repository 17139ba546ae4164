//! Object tables: from what a segment says of itself a lost index is made anew, so it must say what the index says.

use super::Check;
use super::segments::Found;
use crate::format::names;
use crate::format::object_table::{TableRecord, Tables};
use crate::format::window::{IndexEntry, WindowIndex};

/// Compares the tables of segment `number` of an index with the index, if the segment was read. One that an earlier version
/// wrote has none.
pub(super) fn check_tables(check: &mut Check<'_>, index: &WindowIndex, number: usize, found: &Found) {
    let Some(tables) = &found.tables else { return };
    let no = index.segments[number];
    let entries: Vec<&IndexEntry> = index.entries.iter().filter(|entry| entry.segment as usize == number).collect();
    let mut problems = table_problems(index, &entries, tables);
    problems.extend(stray(&entries, found, tables).map(|at| format!("the body at {at} is of no use to anybody")));
    for what in problems {
        check.problem(names::segment(no), what);
    }
}

fn table_problems(index: &WindowIndex, entries: &[&IndexEntry], tables: &Tables) -> Vec<String> {
    let mut problems = Vec::new();
    let mut found = 0;
    for record in &tables.records {
        let object = record.object;
        match index.find(object) {
            Some(entry) if entries.first().is_none_or(|first| first.segment != entry.segment) => {}
            Some(entry) if is_same(record, entry) => found += 1,
            Some(_) => problems.push(format!("its object table has object {object} elsewhere than its window's index")),
            None => problems.push(format!("its object table has object {object}, which its window's index has not")),
        }
    }
    if problems.is_empty() && tables.of.is_some() && tables.damaged == 0 && found != entries.len() {
        let indexed = entries.len();
        problems
            .push(format!("its object table has {found} of the {indexed} objects that its window's index has there"));
    }
    problems
}

fn is_same(record: &TableRecord, entry: &IndexEntry) -> bool {
    let TableRecord { object, chunk_offset, offset_in_chunk, len, birth_ino, birth_offset } = *record;
    let own = (object, chunk_offset, offset_in_chunk, len, birth_ino, birth_offset);
    own == (entry.object, entry.chunk_offset, entry.offset_in_chunk, entry.len, entry.birth_ino, entry.birth_offset)
}

/// Where bodies lie that neither the index names nor are tables.
fn stray<'a>(entries: &[&IndexEntry], found: &'a Found, tables: &'a Tables) -> impl Iterator<Item = u64> + 'a {
    let chunks = found.chunks.iter().flatten();
    // If the last body is damaged nothing says how many tables there are.
    let last = chunks.clone().next_back().is_some_and(|(last, _)| found.damaged.contains_key(last));
    let known = if last { 0 } else { tables.first };
    let mut named: Vec<u64> = entries.iter().map(|entry| entry.chunk_offset).collect();
    named.sort_unstable();
    let before = chunks.take(known).map(|(at, _)| *at).filter(|at| !found.damaged.contains_key(at));
    before.filter(move |at| named.binary_search(at).is_err())
}
