//! Names on a disk: relative paths with `/` between folders. What could lead out of the root is refused here, once, for
//! the local and the simulated disk.

use std::io::{Error, ErrorKind, Result};

/// Refuses what is not the plain name of a file or folder below the root.
pub(super) fn check(name: &str) -> Result<()> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if name.split('/').all(plain) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, format!("{name:?} is not a plain name below the root")))
}

/// Like [`check`]; the empty name means the root.
pub(super) fn check_folder(name: &str) -> Result<()> {
    if name.is_empty() { Ok(()) } else { check(name) }
}

/// The folder that holds a name; `""` is the root.
pub(super) fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The folder itself and those above it, the outermost first, without the root.
pub(super) fn folders_down_to(name: &str) -> impl Iterator<Item = &str> {
    let ends = name.match_indices('/').map(|(at, _)| at);
    ends.chain(std::iter::once(name.len())).map(|end| &name[..end]).filter(|folder| !folder.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_out_of_the_root_is_refused() {
        for bad in ["", "/etc", "../x", "a/../b", "a//b", "a/", "./a", "a\0b"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        for good in ["MANIFEST", "journal/slot-000001", "nodes/1-2", "a..b"] {
            assert!(check(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn folders_are_named_from_the_outermost() {
        assert_eq!(folders_down_to("a/b/c").collect::<Vec<_>>(), ["a", "a/b", "a/b/c"]);
        assert_eq!(folders_down_to("").count(), 0);
    }
}
