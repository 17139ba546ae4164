//! One operation's view of the map in terms of inodes: keys and values are encoded and decoded here.
//!
//! Every inode is read and written through it, so it knows by how much the operation changes what the filesystem holds.

use super::Cx;
use super::attr::{file_type, is_dir};
use super::error::{Error, Stop, damaged};
use crate::base::clock::Time;
use crate::format::batch::TreeId;
use crate::format::ids::{InodeNo, Lsn};
use crate::format::inode::Inode;
use crate::format::key;
use crate::format::usage::UsageChange;
use crate::map::db::{self, Room, Tx, Wait};
use bytes::Bytes;

/// A transaction, and when it happens.
pub(super) struct Work<'a> {
    pub tx: Tx<'a>,
    pub now: Time,
    pub cx: &'a Cx,
    /// Few: whoever changes many inodes makes many batches.
    seen: Vec<(InodeNo, Seen)>,
    refusable: bool,
    /// Whether to wait at a limit.
    patient: bool,
}

/// The blocks of an inode before the operation and after it; `None` when there is no such inode.
#[derive(Clone, Copy)]
struct Seen {
    before: Option<u64>,
    after: Option<u64>,
}

impl<'a> Work<'a> {
    pub fn new(tx: Tx<'a>, cx: &'a Cx, patient: bool) -> Work<'a> {
        Work { tx, now: cx.now, cx, seen: Vec::new(), refusable: true, patient }
    }

    pub fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, Stop> {
        Ok(self.tx.get(TreeId::Files, key)?)
    }

    pub fn put(&mut self, key: Bytes, value: Bytes) {
        self.tx.put(TreeId::Files, key, value);
    }

    pub fn delete(&mut self, key: Bytes) {
        self.tx.delete(TreeId::Files, key);
    }

    pub fn delete_range(&mut self, (from, to): (Bytes, Bytes)) {
        self.tx.delete_range(TreeId::Files, from, to);
    }

    pub fn scan(&mut self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, Stop> {
        Ok(self.tx.scan(TreeId::Files, from, to, limit)?)
    }

    /// An inode that this operation does not change.
    pub fn glance(&mut self, ino: InodeNo) -> Result<Inode, Stop> {
        let read = self.tx.read(TreeId::Files, &key::inode(ino), |value| Inode::decode(value))?;
        let inode = read.ok_or(Error::NoSuchInode(ino))?;
        inode.map_err(|e| damaged(format_args!("inode {ino}: {e}")))
    }

    /// An inode that may be changed.
    pub fn inode(&mut self, ino: InodeNo) -> Result<Inode, Stop> {
        let inode = self.glance(ino)?;
        let blocks = Some(inode.blocks);
        self.seen(ino, Seen { before: blocks, after: blocks });
        Ok(inode)
    }

    /// Gives an inode these attributes. It was read before in this operation, or is new.
    pub fn set_inode(&mut self, ino: InodeNo, inode: &Inode) {
        self.put(key::inode(ino), inode.encode());
        self.seen(ino, Seen { before: None, after: None }).after = Some(inode.blocks);
    }

    /// Removes everything of an inode that was read before.
    fn remove_inode(&mut self, ino: InodeNo) {
        self.delete_range(key::all_of(ino));
        let never = Seen { before: None, after: None };
        let seen = self.seen(ino, never);
        debug_assert!(seen.before.or(seen.after).is_some(), "inode {ino} is removed and was never looked at");
        seen.after = None;
    }

    /// What is known of an inode; what it is when it is seen for the first time.
    fn seen(&mut self, ino: InodeNo, first: Seen) -> &mut Seen {
        let at = self.seen.iter().position(|(of, _)| *of == ino).unwrap_or_else(|| {
            self.seen.push((ino, first));
            self.seen.len() - 1
        });
        &mut self.seen[at].1
    }

    /// Says that this operation stores nothing where nothing was, so that no limit refuses it: cutting extents may round
    /// their blocks up all the same.
    pub fn always_fits(&mut self) {
        self.refusable = false;
    }

    /// An inode that must be a directory.
    pub fn dir(&mut self, ino: InodeNo) -> Result<Inode, Stop> {
        let inode = self.inode(ino)?;
        if is_dir(inode.mode) { Ok(inode) } else { Err(Error::NotDirectory(ino).into()) }
    }

    /// A directory into which names may be put.
    pub fn living_dir(&mut self, ino: InodeNo) -> Result<Inode, Stop> {
        let dir = self.dir(ino)?;
        if dir.nlink == 0 { Err(Error::Removed(ino).into()) } else { Ok(dir) }
    }

    /// An inode that must be a regular file.
    pub fn file(&mut self, ino: InodeNo) -> Result<Inode, Stop> {
        let inode = self.inode(ino)?;
        match file_type(inode.mode) {
            libc::S_IFREG => Ok(inode),
            libc::S_IFDIR => Err(Error::IsDirectory(ino).into()),
            _ => Err(Error::Invalid("not a regular file").into()),
        }
    }

    /// Removes everything of an inode whose last name is gone, or keeps it as an orphan while something still uses it.
    pub fn end_inode(&mut self, ino: InodeNo, inode: &mut Inode, used: bool) {
        inode.nlink = 0;
        inode.ctime = self.now;
        if used {
            self.set_inode(ino, inode);
            self.put(key::orphan(ino), Bytes::new());
        } else {
            self.remove_inode(ino);
        }
    }

    /// Removes everything of an orphan, and its mark. A mark without an inode goes too.
    pub fn free_orphan(&mut self, ino: InodeNo) -> Result<(), Stop> {
        match self.inode(ino) {
            Ok(_) => self.remove_inode(ino),
            Err(Stop::Error(Error::NoSuchInode(_))) => self.delete_range(key::all_of(ino)),
            Err(stop) => return Err(stop),
        }
        self.delete(key::orphan(ino));
        Ok(())
    }

    /// Makes it one batch of the log, unless the filesystem would hold more than it may.
    pub fn commit(mut self, room: Room) -> Result<Lsn, Stop> {
        self.tx.set_usage_change(self.usage_change(), self.refusable);
        match self.tx.commit(room) {
            Err(db::Stop::Limit(_)) if self.patient => Err(Stop::Wait(Wait::Pressure)),
            done => Ok(done?),
        }
    }

    fn usage_change(&self) -> UsageChange {
        let mut change = UsageChange::default();
        for (_, Seen { before, after }) in &self.seen {
            change.inodes += i64::from(after.is_some()) - i64::from(before.is_some());
            // A difference of counts below 2^63 is right whichever is larger.
            change.blocks += after.unwrap_or(0).wrapping_sub(before.unwrap_or(0)) as i64;
        }
        change
    }
}
