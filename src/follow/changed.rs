//! What a publication changed, for those who keep copies of what was read before.

use crate::format::batch::Edit;
use crate::format::ids::InodeNo;
use std::collections::BTreeSet;

/// More inodes than this are everything.
const INODES_MAX: usize = 4096;

/// Which inodes are not what they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// These: their attributes, their contents, or the names in them.
    Inodes(BTreeSet<InodeNo>),
    /// Any may be.
    Everything,
}

impl Default for Changed {
    fn default() -> Changed {
        Changed::Inodes(BTreeSet::new())
    }
}

impl Changed {
    /// Notes what an edit of the file map changes; one that deletes keys of several inodes changes everything.
    pub(super) fn note(&mut self, edit: &Edit) {
        let Changed::Inodes(inodes) = self else { return };
        let (from, last) = match edit {
            Edit::Put { key, .. } | Edit::Delete { key } => (inode_of(key), inode_of(key)),
            Edit::DeleteRange { from, to } => (inode_of(from), last_inode(to)),
            Edit::OwnExtent { ino, .. } => (Some(*ino), Some(*ino)),
        };
        match (from, last) {
            // The numbers that the filesystem keeps of itself.
            (Some(InodeNo::NONE), Some(InodeNo::NONE)) => {}
            (Some(from), Some(last)) if from == last && inodes.len() < INODES_MAX => drop(inodes.insert(from)),
            (Some(from), Some(last)) if from == last && inodes.contains(&from) => {}
            _ => *self = Changed::Everything,
        }
    }
}

/// Keys begin with the number of their inode.
fn inode_of(key: &[u8]) -> Option<InodeNo> {
    Some(InodeNo(u64::from_be_bytes(key.first_chunk::<8>().copied()?)))
}

/// The last inode with keys before `to`.
fn last_inode(to: &[u8]) -> Option<InodeNo> {
    let inode = inode_of(to)?;
    if to.len() > 8 { Some(inode) } else { inode.0.checked_sub(1).map(InodeNo) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::key;
    use bytes::Bytes;

    fn changed(edits: Vec<Edit>) -> Changed {
        let mut changed = Changed::default();
        edits.iter().for_each(|edit| changed.note(edit));
        changed
    }

    #[test]
    fn inodes_are_read_off_the_keys() {
        let (five, six, dir) = (InodeNo(5), InodeNo(6), InodeNo(7));
        let range = |(from, to)| Edit::DeleteRange { from, to };
        let put = |key| Edit::Put { key, value: Bytes::new() };
        let edits = vec![
            put(key::inode(five)),
            put(key::usage()),
            put(key::orphan(InodeNo(9))),
            Edit::Delete { key: key::name(dir, b"gone") },
            range(key::all_of(six)),
            range(key::extents_of(five)),
        ];
        assert_eq!(changed(edits), Changed::Inodes(BTreeSet::from([five, six, dir])));
    }

    #[test]
    fn many_and_what_cannot_be_told_are_everything() {
        let put = |n| Edit::Put { key: key::inode(InodeNo(n)), value: Bytes::new() };
        assert_eq!(changed((1..10_000).map(put).collect()), Changed::Everything);
        let range = Edit::DeleteRange { from: key::inode(InodeNo(3)), to: key::inode(InodeNo(5)) };
        assert_eq!(changed(vec![range]), Changed::Everything);
        assert_eq!(changed(vec![Edit::Delete { key: Bytes::from_static(b"short") }]), Changed::Everything);
    }
}
