//! Names of the objects in the store. Numbers have a fixed width, so that the order of names is the order of numbers.

use super::ids::{Lsn, SegmentNo};

/// The superblock.
pub const SUPERBLOCK: &str = "skylog.json";

/// The lock file in a store that is a folder, and in a state directory.
pub const LOCK: &str = "lock";

/// Object `number` of a generation; 0 is its base.
pub fn publication(generation: u64, number: u64) -> String {
    format!("gen/{generation:010}/{number:010}")
}

/// A store segment.
pub fn segment(segment: SegmentNo) -> String {
    format!("seg/{:010}/{:016}", segment.epoch, segment.number)
}

/// The index of the window from `start` (not in it) to `end` (in it).
pub fn window(start: Lsn, end: Lsn) -> String {
    let Lsn { epoch, pos } = end;
    format!("win/{epoch:010}/{:010}.{:020}-{epoch:010}.{pos:020}", start.epoch, start.pos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_their_numbers() {
        assert_eq!(publication(1, 12), "gen/0000000001/0000000012");
        assert!(publication(9, 0) < publication(10, 0) && publication(1, 9) < publication(1, 10));
        let [a, b] = [9, 10].map(|number| segment(SegmentNo { epoch: 1, number }));
        assert!(a < b && a == "seg/0000000001/0000000000000009");
        let [a, b] = [9, 10].map(|pos| window(Lsn { epoch: 1, pos }, Lsn { epoch: 2, pos: pos + 5 }));
        assert!(a < b);
        assert_eq!(a, "win/0000000002/0000000001.00000000000000000009-0000000002.00000000000000000014");
    }
}
