//! One operation's view of the map in terms of inodes: keys and values are encoded and decoded here.

use super::Cx;
use super::attr::{file_type, is_dir};
use super::error::{Error, Stop, damaged};
use crate::base::clock::Time;
use crate::format::batch::TreeId;
use crate::format::ids::{InodeNo, Lsn};
use crate::format::inode::Inode;
use crate::format::key;
use crate::map::db::{Room, Tx};
use bytes::Bytes;

/// A transaction, and when it happens.
pub(super) struct Work<'a> {
    pub tx: Tx<'a>,
    pub now: Time,
    pub cx: &'a Cx,
}

impl Work<'_> {
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

    pub fn inode(&mut self, ino: InodeNo) -> Result<Inode, Stop> {
        let value = self.get(&key::inode(ino))?.ok_or(Error::NoSuchInode(ino))?;
        Inode::decode(&value).map_err(|e| damaged(format_args!("inode {ino}: {e}")))
    }

    pub fn set_inode(&mut self, ino: InodeNo, inode: &Inode) {
        self.put(key::inode(ino), inode.encode());
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
            self.delete_range(key::all_of(ino));
        }
    }

    /// Removes everything of an orphan, and its mark.
    pub fn free_orphan(&mut self, ino: InodeNo) {
        self.delete_range(key::all_of(ino));
        self.delete(key::orphan(ino));
    }

    pub fn commit(self, room: Room) -> Result<Lsn, Stop> {
        Ok(self.tx.commit(room)?)
    }
}
