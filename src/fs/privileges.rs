//! What a file loses when its contents or its owner change: set-user-id, set-group-id, and a program's capabilities.

use super::attr::is_dir;
use super::caller::Rights;
use super::work::Work;
use crate::format::ids::InodeNo;
use crate::format::inode::Inode;

const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;

impl Work<'_> {
    /// Notes a change of a file's contents. Set-id bits stay if the caller has `CAP_FSETID`; capabilities only if this is no
    /// write of now, as with every filesystem whose files are mapped.
    pub fn contents_changed(&mut self, ino: InodeNo, inode: &mut Inode) {
        if !self.cx.keeps_times {
            inode.mtime = self.now;
            inode.ctime = self.now;
        }
        if !self.cx.written_back {
            self.drop_capability(ino, inode);
        }
        self.drop_set_id(inode);
    }

    /// Takes the set-id bits that a caller without `CAP_FSETID` does not keep.
    pub fn drop_set_id(&self, inode: &mut Inode) {
        if inode.mode & SET_ID != 0 && !is_dir(inode.mode) && !self.cx.has(Rights::FSETID) {
            inode.mode = self.without_set_id(inode);
        }
    }

    /// Another owner or group takes the bits and capabilities of everything but directories, whoever asks. Call it while the
    /// inode has its old group still.
    pub fn owner_changes(&mut self, ino: InodeNo, inode: &mut Inode) {
        if !is_dir(inode.mode) {
            self.drop_capability(ino, inode);
            inode.mode = self.without_set_id(inode);
        }
    }

    /// Set-group-id without execution by the group is no privilege; those who may give it keep it.
    fn without_set_id(&self, inode: &Inode) -> u32 {
        let mode = inode.mode & !libc::S_ISUID;
        let plain = mode & libc::S_ISGID == 0;
        let keeps = plain || mode & libc::S_IXGRP == 0 && self.cx.may_set_group_id(inode.gid);
        if keeps { mode } else { mode & !libc::S_ISGID }
    }
}
