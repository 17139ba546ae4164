//! Which objects the files need: a full scan of the extents.

use crate::format::checkpoint::Birth;
use crate::format::ids::{InodeNo, ObjectId};
use crate::format::inode::Extent;
use std::collections::BTreeMap;

/// How the extents use an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// How many name it.
    pub extents: u32,
    /// The last byte of it that one of them reaches, exclusive.
    pub end: u32,
    /// The first of them.
    pub birth: Birth,
}

/// All objects in use. Some 100 bytes each.
#[derive(Debug, Default)]
pub struct Uses {
    objects: BTreeMap<ObjectId, Use>,
}

impl Uses {
    /// Takes up an extent. What names lost data names no object.
    pub fn take(&mut self, ino: InodeNo, offset: u64, extent: &Extent) {
        if extent.object == ObjectId::LOST {
            return;
        }
        let birth = Birth { ino, offset, object: extent.object, len: extent.len };
        let found = self.objects.entry(extent.object).or_insert(Use { extents: 0, end: 0, birth });
        found.extents = found.extents.saturating_add(1);
        found.end = found.end.max(extent.object_offset.saturating_add(extent.len));
    }

    /// How an object is used; `None` if it is not.
    pub fn of(&self, object: &ObjectId) -> Option<&Use> {
        self.objects.get(object)
    }

    /// All objects in use, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectId, &Use)> {
        self.objects.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ids::Lsn;

    #[test]
    fn extents_are_counted_by_object_and_lost_data_is_not() {
        let object = ObjectId { lsn: Lsn { epoch: 1, pos: 5 }, n: 2 };
        let lost = ObjectId::LOST;
        let mut uses = Uses::default();
        uses.take(InodeNo(7), 4096, &Extent { len: 100, object, object_offset: 50 });
        uses.take(InodeNo(9), 0, &Extent { len: 10, object, object_offset: 10 });
        uses.take(InodeNo(9), 10, &Extent { len: 10, object: lost, object_offset: 0 });
        let birth = Birth { ino: InodeNo(7), offset: 4096, object, len: 100 };
        assert_eq!(uses.of(&object), Some(&Use { extents: 2, end: 150, birth }));
        assert_eq!(uses.iter().count(), 1);
    }
}
