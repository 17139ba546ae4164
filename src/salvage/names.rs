//! From an inode to its path: names lead down only, so the way up is looked for.

use super::Salvage;
use crate::format::batch::TreeId;
use crate::format::ids::InodeNo;
use crate::format::inode::NameValue;
use crate::format::key::{self, KEY_BYTES_MAX, Key};
use crate::recovery::MountError;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Directories deeper than this are taken for a circle that damage has made.
const DEPTH_MAX: usize = 4096;

/// Paths that were found, so that none is looked for twice.
pub(super) struct Names<'a> {
    salvage: &'a Salvage,
    /// Of directories; nothing for those that no name leads to.
    dirs: BTreeMap<InodeNo, Option<Vec<u8>>>,
}

impl<'a> Names<'a> {
    pub fn new(salvage: &'a Salvage) -> Names<'a> {
        Names { salvage, dirs: BTreeMap::from([(InodeNo::ROOT, Some(Vec::new()))]) }
    }

    /// What a name of a directory leads to.
    pub fn lookup(&self, dir: InodeNo, name: &[u8]) -> Result<Option<InodeNo>, MountError> {
        let value = self.salvage.get(TreeId::Files, &key::name(dir, name))?;
        value.map(|value| decode(dir, &value)).transpose()
    }

    /// The path of a name; nothing if no path leads to its directory, or if it is no name that may stand in one.
    pub fn path(&mut self, dir: InodeNo, name: &[u8]) -> Result<Option<Vec<u8>>, MountError> {
        if name == b"." || name == b".." || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
            return Ok(None);
        }
        Ok(self.dir(dir, 0)?.map(|mut path| {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            path
        }))
    }

    fn dir(&mut self, ino: InodeNo, depth: usize) -> Result<Option<Vec<u8>>, MountError> {
        if let Some(known) = self.dirs.get(&ino) {
            return Ok(known.clone());
        }
        let mut found = None;
        if let Some(parent) = self.salvage.inode(ino)?.map(|inode| inode.parent).filter(|_| depth < DEPTH_MAX) {
            if let (Some(_), Some(name)) = (self.dir(parent, depth + 1)?, self.name_in(parent, ino)?) {
                found = self.path(parent, &name)?;
            }
        }
        self.dirs.insert(ino, found.clone());
        Ok(found)
    }

    /// The name of a directory in its parent.
    fn name_in(&self, parent: InodeNo, ino: InodeNo) -> Result<Option<Bytes>, MountError> {
        let mut found = None;
        let mut look = |key: &Bytes, value: &Bytes| {
            if let (Ok(Key::Name(_, name)), true) = (Key::decode(key), decode(parent, value)? == ino) {
                found = Some(name);
            }
            Ok(found.is_none())
        };
        let whole = self.salvage.scan(TreeId::Files, key::names_of(parent), &mut look);
        if whole.is_err() {
            self.salvage.scan_changes(TreeId::Files, key::names_of(parent), &mut look)?;
        }
        if found.is_none() {
            whole?;
        }
        Ok(found)
    }

    /// Looks at every name of the filesystem for those that lead to some inodes.
    pub fn find(
        &self,
        wanted: &BTreeSet<InodeNo>,
        entries: &mut BTreeMap<InodeNo, BTreeSet<(InodeNo, Bytes)>>,
    ) -> Result<(), MountError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let all = (Bytes::new(), Bytes::from_static(&[0xff; KEY_BYTES_MAX + 1]));
        self.salvage.scan(TreeId::Files, all, &mut |key, value| {
            if let Ok(Key::Name(dir, name)) = Key::decode(key) {
                let ino = decode(dir, value)?;
                if wanted.contains(&ino) {
                    entries.entry(ino).or_default().insert((dir, name));
                }
            }
            Ok(true)
        })
    }
}

fn decode(dir: InodeNo, value: &[u8]) -> Result<InodeNo, MountError> {
    let damaged = |e| MountError::Damaged { place: format!("a name in directory {dir}"), reason: format!("{e}") };
    NameValue::decode(value).map(|value| value.ino).map_err(damaged)
}
