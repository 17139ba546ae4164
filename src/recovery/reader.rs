//! Reading the maps while a filesystem is being mounted.

use super::{Fetcher, MountError, damaged};
use crate::checkpoint::nodes::NodeStore;
use crate::format::FormatError;
use crate::format::ids::{InodeNo, Lsn, NodePtr};
use crate::format::key;
use crate::format::space::{self, Mark, WindowRecord};
use crate::format::usage::{Usage, UsageLimit};
use crate::map::{NodeCache, Pins, View};

/// Nodes that are asked for together.
const NODES_TOGETHER: usize = 256;

/// What of the maps must be known before the first operation.
pub(super) struct Needed {
    pub usage: Option<Usage>,
    pub usage_limit: UsageLimit,
    pub inode_mark: u64,
    pub windows: Vec<(Lsn, Lsn)>,
}

/// Reads maps before there is a [`crate::map::Db`]; waits for what is not in memory.
pub(crate) struct Reader<'a> {
    /// Nodes in memory.
    pub cache: &'a NodeCache,
    /// Where nodes come from.
    pub nodes: &'a NodeStore,
    /// Brings many of them.
    pub fetcher: &'a Fetcher,
}

impl Reader<'_> {
    /// A key's value, decoded.
    pub fn value<T>(
        &self,
        view: &View<'_>,
        key: &[u8],
        decode: impl Fn(&[u8]) -> Result<T, FormatError>,
    ) -> Result<Option<T>, MountError> {
        let found = self.fetching(|pins| view.get(self.cache, pins, key))?;
        found.map(|value| decode(&value).map_err(|e| damaged("metadata tree", e))).transpose()
    }

    pub(super) fn needed(&self, files: &View<'_>, space: &View<'_>) -> Result<Needed, MountError> {
        Ok(Needed {
            usage: self.value(files, &key::usage(), Usage::decode)?,
            usage_limit: self.value(files, &key::limit(), UsageLimit::decode)?.unwrap_or_default(),
            inode_mark: self.inode_mark(space)?,
            windows: self.windows(space)?,
        })
    }

    /// Inode numbers are never used again, so where there are none left there is no filesystem that could be written.
    fn inode_mark(&self, space: &View<'_>) -> Result<u64, MountError> {
        let mark = self.value(space, &space::mark(Mark::Inode), space::decode_number)?.unwrap_or(0);
        match mark < InodeNo::MAX.0 {
            true => Ok(mark),
            false => Err(damaged("space tree", format!("inode numbers up to {mark} are in use"))),
        }
    }

    /// All recorded windows: (end, start).
    pub fn windows(&self, view: &View<'_>) -> Result<Vec<(Lsn, Lsn)>, MountError> {
        let (mut from, to) = space::windows();
        let mut pins = Pins::default();
        loop {
            let missing = view.missing(self.cache, &pins, &from, &to, NODES_TOGETHER);
            if missing.is_empty() {
                break;
            }
            let fetched = self.fetcher.all(&missing, |ptr| self.cache.fetch(ptr, self.nodes));
            for (ptr, node) in missing.into_iter().zip(fetched) {
                pins.pin_node(ptr, node?);
            }
        }
        let mut found = Vec::new();
        loop {
            let rows = self.fetching_with(&mut pins, |pins| view.scan(self.cache, pins, &from, &to, 1024))?;
            let Some((last, _)) = rows.last() else { return Ok(found) };
            from = [last, &b"\0"[..]].concat().into();
            for (key, value) in rows {
                let space::Key::Window(end) = space::Key::decode(&key).map_err(|e| damaged("space tree", e))? else {
                    return Err(damaged("space tree", "a foreign key among windows"));
                };
                let record = WindowRecord::decode(&value).map_err(|e| damaged("space tree", e))?;
                found.push((end, record.start));
            }
        }
    }

    fn fetching<T>(&self, read: impl FnMut(&Pins) -> Result<T, NodePtr>) -> Result<T, MountError> {
        self.fetching_with(&mut Pins::default(), read)
    }

    fn fetching_with<T>(
        &self,
        pins: &mut Pins,
        mut read: impl FnMut(&Pins) -> Result<T, NodePtr>,
    ) -> Result<T, MountError> {
        loop {
            match read(pins) {
                Ok(value) => return Ok(value),
                Err(ptr) => pins.pin_node(ptr, self.cache.fetch(&ptr, self.nodes)?),
            }
        }
    }
}
