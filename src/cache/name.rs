//! Names of cache files. A name says which bytes of which store object the file holds, and what they are for.

use super::state::RunKey;
use super::{CACHE, CacheKey, Class};
use crate::format::ids::{Lsn, SegmentNo};

/// The file that says whose cache this is.
pub(super) const OWNER: &str = "filesystem";

const CLASSES: [(Class, &str); 3] = [(Class::Data, "data"), (Class::Nodes, "nodes"), (Class::Indexes, "index")];

/// Whether a file in [`CACHE`] has a name that we give, or gave.
pub fn is_cache_file(name: &str) -> bool {
    let of_class = |(_, word): &(Class, &str)| {
        let rest = name.strip_prefix(word).and_then(|rest| rest.strip_prefix('-'));
        rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'-' | b'.')))
    };
    name == OWNER || CLASSES.iter().any(of_class)
}

/// The name of a run's file in its folder.
pub(super) fn file(run: &RunKey, class: Class) -> String {
    let (_, word) = CLASSES[class as usize];
    let start = run.start;
    match run.key {
        CacheKey::Segment(SegmentNo { epoch, number }) => format!("{word}-{epoch:010}-{number:016}-{start:012}"),
        CacheKey::Window(a, b) => {
            format!("{word}-{:010}.{:020}-{:010}.{:020}-{start:012}", a.epoch, a.pos, b.epoch, b.pos)
        }
    }
}

/// The same below the root of the disk.
pub(super) fn of(run: &RunKey, class: Class) -> String {
    format!("{CACHE}/{}", file(run, class))
}

/// The run that a name means.
pub(super) fn parse(name: &str) -> Option<(RunKey, Class)> {
    let mut parts = name.split('-');
    let (word, first, second, start) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let (class, _) = CLASSES.into_iter().find(|(_, known)| *known == word)?;
    let key = match (lsn(first), lsn(second)) {
        (Some(start), Some(end)) => CacheKey::Window(start, end),
        _ => CacheKey::Segment(SegmentNo { epoch: first.parse().ok()?, number: second.parse().ok()? }),
    };
    let run = RunKey { key, start: start.parse().ok()? };
    (file(&run, class) == name).then_some((run, class))
}

fn lsn(text: &str) -> Option<Lsn> {
    let (epoch, pos) = text.split_once('.')?;
    Some(Lsn { epoch: epoch.parse().ok()?, pos: pos.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_as_printed_and_no_other_way() {
        let segment = CacheKey::Segment(SegmentNo { epoch: 3, number: u64::MAX });
        let window = CacheKey::Window(Lsn { epoch: 1, pos: 7 }, Lsn { epoch: u32::MAX, pos: u64::MAX });
        for key in [segment, window] {
            for (class, _) in CLASSES {
                let run = RunKey { key, start: 65_536 };
                let name = file(&run, class);
                assert_eq!(parse(&name), Some((run, class)), "{name}");
                assert!(is_cache_file(&name), "{name}");
            }
        }
        let name = "data-0000000003-0000000000000004-000000000005";
        assert!(parse(name).is_some());
        for other in ["data-3-4-5", "data-0000000003-0000000000000004", &format!("{name}-"), &format!("{name}-1"), ""] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn only_names_that_we_give_are_ours() {
        for ours in ["filesystem", "data-0000000003-0000000000000004-000000000005", "nodes-1-2-3", "index-1.2-3.4-5"] {
            assert!(is_cache_file(ours), "{ours}");
        }
        for foreign in ["", "data", "data-", "data-2026.txt", "database-1", "1-2-3", "lost+found", "index.html"] {
            assert!(!is_cache_file(foreign), "{foreign}");
        }
    }
}
