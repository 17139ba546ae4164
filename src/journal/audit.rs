//! Looking at what replay accepted once more, without opening it for writing: for `skylog check`.

use super::directory::Directory;
use super::directory::from_disk;
use super::lookup::Candidate;
use super::scan::Listed;
use super::segment::Segment;
use super::{JournalError, Replayed};
use crate::format::ids::ObjectId;
use crate::format::manifest::JournalEntry;
use bytes::Bytes;

impl Replayed {
    /// How many segments hold something.
    pub fn segment_count(&self) -> u64 {
        self.segments.len() as u64
    }

    /// An object of the journal, its checksum verified; `None` if it is not here. Reads from disk.
    pub fn read(&self, id: &ObjectId) -> Result<Option<Bytes>, JournalError> {
        let at = self.segments.partition_point(|segment| segment.last < id.lsn);
        let Some(segment) = self.segments.get(at).filter(|s| s.first.is_some_and(|first| first <= id.lsn)) else {
            return Ok(None);
        };
        let candidate = Candidate::of(segment, id);
        let Some(entry) = candidate.entry(id, from_disk)? else { return Ok(None) };
        candidate.read(&entry, from_disk).map(Some)
    }

    /// Reads the groups that replay went past because the checkpoint covers them: what they hold may wait to be shipped.
    /// Returns what is wrong with them.
    pub fn audit(&self) -> Vec<JournalError> {
        let passed = self.segments.iter().filter(|segment| matches!(segment.directory, Directory::Sparse { .. }));
        passed.filter_map(|segment| audit_segment(segment).err()).collect()
    }
}

fn audit_segment(segment: &Segment) -> Result<(), JournalError> {
    let entry = JournalEntry {
        number: segment.number,
        slot: segment.slot,
        size: u64::from(segment.size),
        nonce: segment.nonce,
        end: Some(segment.recorded_end()),
    };
    let listed = Listed { entry: &entry, file: &*segment.file };
    let mut offset = 0;
    while offset < u64::from(segment.end) {
        let group = listed.group_at(offset)?.map_err(|reason| listed.damaged(offset, reason))?;
        for batch in group.batches().map_err(|reason| listed.damaged(offset, reason))? {
            for written in group.entries(&batch) {
                if Candidate::of(segment, &written.object).entry(&written.object, from_disk)? != Some(written) {
                    let reason = format!("its directory does not know object {}", written.object);
                    return Err(listed.damaged(u64::from(written.offset), reason));
                }
            }
        }
        offset += group.len;
    }
    Ok(())
}
