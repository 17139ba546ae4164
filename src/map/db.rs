//! The commit point: operations read and change the two maps through a [`Tx`].

pub use super::Pins;
use crate::format::batch::{Edit, TreeId};
use crate::format::ids::{InodeNo, Lsn, NodePtr, ObjectId};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};

/// What an operation must wait for, with no lock held, before it starts again from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A tree node that is not in memory.
    Node(NodePtr),
    /// File data that is not in memory.
    Object(ObjectId),
    /// Room in the journal or its queue.
    Pressure,
}

/// Why a transaction did not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Start again when this is there.
    Wait(Wait),
    /// The journal's disk is full; heals when there is room.
    DiskFull,
    /// The journal has failed; why.
    ReadOnly(String),
    /// Stored bytes are not what they should be; which.
    Damaged(String),
}

/// What a batch may use of the journal's last room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// An operation that needs space.
    Ordinary,
    /// An operation that frees space.
    Freeing,
}

#[derive(Default)]
struct State {
    trees: [BTreeMap<Bytes, Bytes>; 2],
    objects: HashMap<ObjectId, Bytes>,
    last: Lsn,
    next_inode: u64,
}

/// The two maps.
pub struct Db {
    state: Mutex<State>,
}

impl Db {
    /// An empty filesystem in memory.
    #[expect(clippy::new_without_default, reason = "provisional")]
    pub fn new() -> Db {
        Db { state: Mutex::new(State { next_inode: 2, ..State::default() }) }
    }

    /// Starts an operation's reads and edits.
    pub fn begin<'a>(&'a self, pins: &'a Pins) -> Tx<'a> {
        let _ = pins;
        Tx { db: self, edits: Vec::new(), objects: Vec::new() }
    }

    /// The Lsn of the newest batch.
    pub fn last(&self) -> Lsn {
        self.state.lock().last
    }
}

/// One operation's reads and edits.
pub struct Tx<'a> {
    db: &'a Db,
    edits: Vec<(TreeId, Edit)>,
    objects: Vec<Bytes>,
}

impl Tx<'_> {
    /// The value of a key; sees this transaction's own point edits.
    pub fn get(&mut self, tree: TreeId, key: &[u8]) -> Result<Option<Bytes>, Stop> {
        for (t, edit) in self.edits.iter().rev() {
            match edit {
                Edit::Put { key: k, value } if *t == tree && k == key => return Ok(Some(value.clone())),
                Edit::Delete { key: k } if *t == tree && k == key => return Ok(None),
                _ => {}
            }
        }
        Ok(self.db.state.lock().trees[tree as usize].get(key).cloned())
    }

    /// Up to `limit` committed entries with keys in `from..to`, ascending.
    pub fn scan(&mut self, tree: TreeId, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, Stop> {
        let state = self.db.state.lock();
        let range = state.trees[tree as usize].range(Bytes::copy_from_slice(from)..Bytes::copy_from_slice(to));
        Ok(range.take(limit).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    /// Gives a key a value.
    pub fn put(&mut self, tree: TreeId, key: Bytes, value: Bytes) {
        self.edits.push((tree, Edit::Put { key, value }));
    }

    /// Removes a key.
    pub fn delete(&mut self, tree: TreeId, key: Bytes) {
        self.edits.push((tree, Edit::Delete { key }));
    }

    /// Removes all keys in `from..to`.
    pub fn delete_range(&mut self, tree: TreeId, from: Bytes, to: Bytes) {
        self.edits.push((tree, Edit::DeleteRange { from, to }));
    }

    /// Adds an object of at most [`crate::format::ids::OBJECT_BYTES_MAX`] bytes and the extent that puts it at `offset` of the file.
    pub fn write_object(&mut self, ino: InodeNo, offset: u64, data: Bytes) {
        let n = u32::try_from(self.objects.len()).expect("few objects in a batch");
        self.edits.push((TreeId::Files, Edit::OwnExtent { ino, offset, n }));
        self.objects.push(data);
    }

    /// An object's bytes.
    pub fn read_object(&mut self, id: &ObjectId) -> Result<Bytes, Stop> {
        self.db.state.lock().objects.get(id).cloned().ok_or_else(|| Stop::Damaged(format!("object {id} is nowhere")))
    }

    /// An inode number never used before.
    pub fn new_inode(&mut self) -> InodeNo {
        let mut state = self.db.state.lock();
        state.next_inode += 1;
        InodeNo(state.next_inode - 1)
    }

    /// Makes the edits one batch of the log. Without edits nothing is logged and the last Lsn is returned.
    pub fn commit(self, room: Room) -> Result<Lsn, Stop> {
        let _ = room;
        let mut state = self.db.state.lock();
        if self.edits.is_empty() {
            return Ok(state.last);
        }
        let lsn = state.last.next(1);
        state.last = lsn;
        for (n, data) in self.objects.iter().enumerate() {
            state.objects.insert(ObjectId { lsn, n: u32::try_from(n).expect("few") }, data.clone());
        }
        for (tree, edit) in self.edits {
            let map = &mut state.trees[tree as usize];
            match edit {
                Edit::Put { key, value } => drop(map.insert(key, value)),
                Edit::Delete { key } => drop(map.remove(&key)),
                Edit::DeleteRange { from, to } => map.retain(|k, _| *k < from || *k >= to),
                Edit::OwnExtent { .. } => {
                    todo_extent(map, &edit, lsn, &self.objects);
                }
            }
        }
        Ok(lsn)
    }
}

/// Provisional: the key and value of an extent as in the working notes (28-byte value).
fn todo_extent(map: &mut BTreeMap<Bytes, Bytes>, edit: &Edit, lsn: Lsn, objects: &[Bytes]) {
    let Edit::OwnExtent { ino, offset, n } = edit else { return };
    let mut key = ino.0.to_be_bytes().to_vec();
    key.push(6);
    key.extend(offset.to_be_bytes());
    let mut value = Vec::new();
    value.extend(u32::try_from(objects[*n as usize].len()).expect("small").to_le_bytes());
    value.extend(lsn.epoch.to_le_bytes());
    value.extend(lsn.pos.to_le_bytes());
    value.extend(n.to_le_bytes());
    value.extend(0u32.to_le_bytes());
    map.insert(key.into(), value.into());
}
