//! How much room batches take. What a batch costs is counted at worst, and what a segment offers at least, so the sum of
//! the costs that were granted can always be placed, whatever groups the batches end up in.

use crate::format::batch::BATCH_HEAD_BYTES;
use crate::format::chunk::CHUNK_HEADER_BYTES;
use crate::format::group::{GROUP_BLOCK, GROUP_OVERHEAD, padded_len};
use crate::format::journal_directory::{DIRECTORY_BLOCK, DIRECTORY_BLOCK_ENTRIES, directory_bytes};

/// Bytes of the directory that an object takes, at worst.
const ENTRY_COST: u64 = DIRECTORY_BLOCK.div_ceil(DIRECTORY_BLOCK_ENTRIES) as u64;

/// What a batch of `edits_len` bytes of edits and objects of these lengths takes at worst: alone in its group.
pub(super) fn cost(edits_len: usize, objects: &[usize]) -> u64 {
    let head = BATCH_HEAD_BYTES + edits_len + objects.len() * CHUNK_HEADER_BYTES;
    cost_encoded(head + objects.iter().sum::<usize>(), objects.len())
}

/// The same for a batch whose length is known.
pub(super) fn cost_encoded(batch_len: usize, objects: usize) -> u64 {
    padded_len(batch_len) as u64 + objects as u64 * ENTRY_COST
}

/// The most that one batch may cost: a quarter of a segment. So no batch, and no object, spans segments, and the end of
/// a segment that the next batch does not fit in is never more than that.
pub(super) fn batch_bytes_max(segment_bytes: u32) -> u64 {
    u64::from(segment_bytes / 4)
}

/// What the largest batches of ordinary operations cost, a write of 1 MiB: without room for one the journal counts as full.
pub(super) fn batch_bytes_large(segment_bytes: u32) -> u64 {
    batch_bytes_max(segment_bytes).min(2 << 20)
}

/// How many bytes of batches fit in a group that starts at `end` of a segment whose directory is to hold `objects` entries.
pub(super) fn payload_room(segment_bytes: u32, end: u32, objects: usize) -> usize {
    let room = (segment_bytes as usize).saturating_sub(directory_bytes(objects)).saturating_sub(end as usize);
    (room - room % GROUP_BLOCK).saturating_sub(GROUP_OVERHEAD)
}

/// The sum of costs that a segment surely takes: it is left when a batch does not fit, and wastes at most that batch.
pub(super) fn guaranteed(segment_bytes: u32, end: u32, objects: usize) -> u64 {
    // The directory's blocks are at most one more than the objects' costs add up to.
    let directory = objects as u64 * ENTRY_COST + DIRECTORY_BLOCK as u64;
    let tail = directory_bytes(0) as u64 + directory;
    u64::from(segment_bytes).saturating_sub(u64::from(end)).saturating_sub(tail + batch_bytes_max(segment_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;

    /// Places batches as the writer does at its worst, one group each, and checks that what was guaranteed found room.
    #[test]
    fn what_was_granted_always_finds_room() {
        let random = SeededRandom::new(7);
        for _ in 0..2000 {
            let segment = 64 << 10 << random.below(3);
            let (mut end, mut objects, mut placed) = (0u32, 0usize, 0u64);
            let granted = guaranteed(segment, 0, 0);
            loop {
                let count = random.below(40) as usize;
                let len = random.below(9000) as usize + count * 41;
                let cost = cost_encoded(len, count);
                if cost > batch_bytes_max(segment) {
                    continue;
                }
                if payload_room(segment, end, objects + count) < len {
                    assert!(placed >= granted, "{placed} of {granted} were placed in a segment of {segment}");
                    break;
                }
                end += u32::try_from(padded_len(len)).expect("small");
                objects += count;
                placed += cost;
                let left = guaranteed(segment, end, objects);
                assert!(left + placed >= granted, "a placed batch used up more than its cost");
            }
        }
    }

    #[test]
    fn a_batch_costs_at_least_what_it_takes() {
        let edits = vec![0; 300];
        assert!(cost(edits.len(), &[4096, 1]) >= (300 + 4097 + 2 * 40 + 100) as u64);
        assert_eq!(cost(10, &[]) % GROUP_BLOCK as u64, 0);
    }
}
