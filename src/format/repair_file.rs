//! The file `REPAIR` of a state directory: a repair was begun and is not completed. Until it is gone nothing is mounted from
//! there.

use super::ids::Uuid;
use crate::base::canary::{Canary, removed};

/// Its name in the state directory.
pub const REPAIR_FILE: &str = "REPAIR";

const FIRST: &str = "skylog-repair 1";

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepairFile {
    /// The repair: what the generation that it makes gives as its state directory.
    pub id: Uuid,
    /// No generation before this one can be the one that it makes.
    pub from: u64,
}

impl RepairFile {
    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let head = format!("{FIRST}\nid={}\nfrom={}\n", self.id, self.from);
        let crc = crc32c::crc32c(head.as_bytes());
        format!("{head}crc={crc:08x}\n").into_bytes()
    }

    /// Reads the bytes of the file; `None` if they are not those that were written: the repair had not begun with anything else.
    pub fn decode(bytes: &[u8]) -> Option<RepairFile> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.lines();
        (lines.next()? == FIRST).then_some(())?;
        let id = lines.next()?.strip_prefix("id=")?.parse().ok()?;
        let from = lines.next()?.strip_prefix("from=")?.parse().ok()?;
        let found = RepairFile { id, from };
        (found.encode() == bytes || removed(Canary::RepairFileCrc)).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repair_files_survive_the_trip_and_every_flipped_bit_and_every_cut_is_found() {
        let file = RepairFile { id: Uuid(0xabc), from: 17 };
        assert_eq!(RepairFile::decode(&file.encode()), Some(file));
        crate::format::faults::assert_damage_is_found(&file.encode(), |bytes| {
            RepairFile::decode(bytes).ok_or("damaged")
        });
    }
}
