//! Names of the objects in the store. Numbers have a fixed width, so that the order of names is the order of numbers.

use super::ids::{Lsn, SegmentNo, Uuid};
use super::lease::LEASE_NUMBER_MAX;

/// The superblock.
pub const SUPERBLOCK: &str = "skylog.json";

/// The lock file in a store that is a folder, and in a state directory.
pub const LOCK: &str = "lock";

/// What the names of all leases start with.
pub const LEASES: &str = "lease/";

/// What the names of all begin with that repairs keep.
pub const DAMAGED: &str = "damaged/";

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

/// Lease `number` of the holder `who`.
pub fn lease(who: Uuid, number: u64) -> String {
    format!("{LEASES}{:032x}/{number:010}", who.0)
}

/// Whether this is the name of a lease.
pub fn is_lease(name: &str) -> bool {
    matches!(parse(name), Some(Parsed::Lease(..)))
}

/// What a repair keeps under a name of its own: a damaged object as it was, or the report.
pub fn damaged(repair: Uuid, name: &str) -> String {
    format!("{DAMAGED}{:032x}/{name}", repair.0)
}

/// What the name of a store object says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A store segment.
    Segment(SegmentNo),
    /// The index of the window from the first Lsn (not in it) to the second (in it).
    Window(Lsn, Lsn),
    /// The lease of a holder, and its number.
    Lease(Uuid, u64),
}

/// Reads a name that [`segment`], [`window`] or [`lease`] made; `None` for any other.
pub fn parse(name: &str) -> Option<Parsed> {
    let parsed = if let Some((epoch, number)) = name.strip_prefix("seg/").and_then(|rest| rest.split_once('/')) {
        Parsed::Segment(SegmentNo { epoch: epoch.parse().ok()?, number: number.parse().ok()? })
    } else if let Some((who, number)) = name.strip_prefix(LEASES).and_then(|rest| rest.split_once('/')) {
        let number = number.parse().ok().filter(|number| *number <= LEASE_NUMBER_MAX)?;
        Parsed::Lease(Uuid(u128::from_str_radix(who, 16).ok()?), number)
    } else {
        let (_, range) = name.strip_prefix("win/")?.split_once('/')?;
        let (start, end) = range.split_once('-')?;
        let lsn = |text: &str| {
            let (epoch, pos) = text.split_once('.')?;
            Some(Lsn { epoch: epoch.parse().ok()?, pos: pos.parse().ok()? })
        };
        Parsed::Window(lsn(start)?, lsn(end)?)
    };
    let printed = match parsed {
        Parsed::Segment(no) => segment(no),
        Parsed::Window(start, end) => window(start, end),
        Parsed::Lease(who, number) => lease(who, number),
    };
    (printed == name).then_some(parsed)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

fn is_live(name: &str) -> bool {
    !name.starts_with(DAMAGED) && is_ours(name)
}

/// Whether skylog gives this name to an object of a store.
pub fn is_ours(name: &str) -> bool {
    let digits = |text: &str, least: usize| text.len() >= least && text.bytes().all(|b| b.is_ascii_digit());
    let lsn = |text: &str| text.split_once('.').is_some_and(|(epoch, pos)| digits(epoch, 10) && digits(pos, 20));
    match *name.split('/').collect::<Vec<_>>() {
        [top] => top == SUPERBLOCK,
        ["gen", generation, number] => digits(generation, 10) && digits(number, 10),
        ["seg", epoch, number] => digits(epoch, 10) && digits(number, 16),
        ["lease", ..] => is_lease(name),
        ["damaged", repair, "report"] => is_uuid(repair),
        // Nothing in there is a copy of such a copy.
        ["damaged", repair, ..] => is_uuid(repair) && name.splitn(3, '/').nth(2).is_some_and(is_live),
        ["win", epoch, window] => {
            digits(epoch, 10) && window.split_once('-').is_some_and(|(start, end)| lsn(start) && lsn(end))
        }
        _ => false,
    }
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

    #[test]
    fn names_are_read_back_as_printed_and_no_other_way() {
        let no = SegmentNo { epoch: 3, number: 12 };
        assert_eq!(parse(&segment(no)), Some(Parsed::Segment(no)));
        let (start, end) = (Lsn { epoch: 1, pos: 5 }, Lsn { epoch: 2, pos: 9 });
        assert_eq!(parse(&window(start, end)), Some(Parsed::Window(start, end)));
        assert_eq!(lease(Uuid(0xab), 12), "lease/000000000000000000000000000000ab/0000000012");
        assert_eq!(parse(&lease(Uuid(u128::MAX), 12)), Some(Parsed::Lease(Uuid(u128::MAX), 12)));
        assert!(is_ours(&lease(Uuid(1), LEASE_NUMBER_MAX)));
        for number in [LEASE_NUMBER_MAX + 1, u64::MAX] {
            assert!(parse(&lease(Uuid(1), number)).is_none() && !is_ours(&lease(Uuid(1), number)), "{number}");
        }
        for other in ["lease/ab/0000000012", "lease/000000000000000000000000000000AB/0000000012", "lease/"] {
            assert_eq!(parse(other), None, "{other}");
        }
        for other in ["seg/3/12", "seg/", "win/0000000002/5-9", SUPERBLOCK, "", "gen/0000000001/0000000012"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn names_that_we_give_are_told_from_others() {
        let at = |pos| Lsn { epoch: 1, pos };
        let ours = [
            publication(1, 12),
            segment(SegmentNo { epoch: 1, number: 9 }),
            window(at(3), at(u64::MAX)),
            lease(Uuid(7), 3),
            damaged(Uuid(7), SUPERBLOCK),
            damaged(Uuid(7), "report"),
            damaged(Uuid(7), &publication(1, 12)),
        ];
        for name in ours.iter().map(String::as_str).chain([SUPERBLOCK]) {
            assert!(is_ours(name), "{name}");
        }
        for name in [
            "",
            "letter.txt",
            "gen/letter.txt",
            "gen/0000000001/1",
            "lease/7/0000000003",
            "seg/0000000001/000000000000000x",
            "other/seg/1",
            "damaged/7/report",
            "damaged/00000000000000000000000000000007/letter.txt",
            "damaged/00000000000000000000000000000007",
            "damaged/00000000000000000000000000000007/damaged/00000000000000000000000000000007/report",
        ] {
            assert!(!is_ours(name), "{name}");
        }
        assert!(!ours.iter().any(|name| is_ours(&format!("{name}.bak")) || is_ours(&format!("x/{name}"))));
    }
}
