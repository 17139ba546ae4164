//! The requests of the kernel, each translated into one call.

use super::answer::Nobody;
use super::convert::{self, ino, name};
use super::requests::{Frontend, Target};
use super::shown::Shown;
use super::{GENERATION, negotiate};
use crate::fs::{Attr, Cx, DirEntry, Fs, SetAttr};
use bytes::Bytes;
use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, IoctlFlags, KernelConfig, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// There is no state behind an open file of a writer.
const HANDLE: FileHandle = FileHandle(0);
/// Directory entries fetched for one request: a little more than fit into the kernel's smallest buffer.
pub(super) const ENTRIES: usize = 128;

fn open_flags() -> FopenFlags {
    FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH
}

/// Each opening on a follower reads one state, so what one has read is not for another.
fn open_flags_following() -> FopenFlags {
    FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH
}

pub(super) fn say_entry(shown: Shown, lifetime: Duration) -> impl FnOnce(ReplyEntry, Attr) {
    move |reply, attr| reply.entry(&lifetime, &shown.attr(&attr), GENERATION)
}

pub(super) fn say_attr(shown: Shown, lifetime: Duration) -> impl FnOnce(ReplyAttr, Attr) {
    move |reply, attr| reply.attr(&lifetime, &shown.attr(&attr))
}

/// Names of a directory, as many as fit.
pub(super) fn say_names(mut reply: ReplyDirectory, entries: Vec<DirEntry>) {
    for e in entries {
        if reply.add(INodeNo(e.ino.0), e.cookie, convert::entry_type(e.kind), OsStr::from_bytes(&e.name)) {
            break;
        }
    }
    reply.ok();
}

/// Bytes for a buffer of `size`; a buffer of none asks how many there are.
fn say_xattr(reply: ReplyXattr, size: u32, bytes: &[u8]) {
    match (size, u32::try_from(bytes.len())) {
        (0, Ok(len)) => reply.size(len),
        (_, Ok(len)) if len <= size => reply.data(bytes),
        _ => reply.error(Errno::ERANGE),
    }
}

fn say_ok(reply: ReplyEmpty, (): ()) {
    reply.ok();
}

impl Filesystem for Frontend {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate(config, self);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, entry: &OsStr, reply: ReplyEntry) {
        let (entry, shown, lifetime) = (name(entry), self.shown, self.lifetime());
        self.ask(
            request,
            reply,
            move |fs, cx| fs.lookup(cx, ino(parent), &entry),
            move |reply, found| match found {
                Some(attr) => say_entry(shown, lifetime)(reply, attr),
                None => reply.entry(&lifetime, &convert::no_such_name(), GENERATION),
            },
        );
    }

    fn forget(&self, request: &Request, inode: INodeNo, lookups: u64) {
        self.ask(request, Nobody, move |fs, cx| fs.forget(cx, ino(inode), lookups), |_, ()| ());
    }

    fn getattr(&self, request: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        if let Some(following) = &self.following {
            return self.getattr_following(following, request, ino(inode), reply);
        }
        self.ask(request, reply, move |fs, cx| fs.getattr(cx, ino(inode)), self.say_attr());
    }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (uid, gid) = match self.shown.owner(uid, gid) {
            Ok(owner) => owner,
            Err(refused) => return reply.error(refused),
        };
        let (atime, mtime) = (atime.map(convert::set_time), mtime.map(convert::set_time));
        let set = SetAttr { mode, uid, gid, size, atime, mtime, ctime: ctime.map(convert::asked_time) };
        self.change(request, reply, move |fs, cx| fs.setattr(cx, ino(inode), set), self.say_attr());
    }

    fn readlink(&self, request: &Request, inode: INodeNo, reply: ReplyData) {
        let read = move |fs: &Fs, cx: &mut Cx| fs.readlink(cx, ino(inode));
        self.read(request, ino(inode), reply, read, |reply, target| reply.data(&target));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        entry: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let entry = name(entry);
        let make = move |fs: &Fs, cx: &mut Cx| {
            cx.umask = umask;
            fs.mknod(cx, ino(parent), &entry, mode, rdev)
        };
        self.add(request, reply, make, self.say_entry());
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, entry: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let entry = name(entry);
        let make = move |fs: &Fs, cx: &mut Cx| {
            cx.umask = umask;
            fs.mkdir(cx, ino(parent), &entry, mode)
        };
        self.add(request, reply, make, self.say_entry());
    }

    fn unlink(&self, request: &Request, parent: INodeNo, entry: &OsStr, reply: ReplyEmpty) {
        let entry = name(entry);
        self.change(request, reply, move |fs, cx| fs.unlink(cx, ino(parent), &entry), say_ok);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, entry: &OsStr, reply: ReplyEmpty) {
        let entry = name(entry);
        self.change(request, reply, move |fs, cx| fs.rmdir(cx, ino(parent), &entry), say_ok);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, entry: &OsStr, target: &Path, reply: ReplyEntry) {
        let (entry, target) = (name(entry), Bytes::copy_from_slice(target.as_os_str().as_bytes()));
        self.add(request, reply, move |fs, cx| fs.symlink(cx, ino(parent), &entry, &target), self.say_entry());
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        entry: &OsStr,
        new_parent: INodeNo,
        new_entry: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to, flags) = ((ino(parent), name(entry)), (ino(new_parent), name(new_entry)), flags.bits());
        self.change(request, reply, move |fs, cx| fs.rename(cx, from.0, &from.1, to.0, &to.1, flags), say_ok);
    }

    fn link(&self, request: &Request, inode: INodeNo, parent: INodeNo, entry: &OsStr, reply: ReplyEntry) {
        let entry = name(entry);
        self.add(request, reply, move |fs, cx| fs.link(cx, ino(inode), ino(parent), &entry), self.say_entry());
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if let Some(following) = &self.following {
            return self.open_following(following, request, inode, Fs::open, open_flags_following(), reply);
        }
        let writers = self.mapped.writers.clone();
        self.ask(
            request,
            reply,
            move |fs, cx| fs.open(cx, ino(inode)),
            move |reply: ReplyOpen, ()| {
                writers.opened(ino(inode), flags.0);
                reply.opened(HANDLE, open_flags());
            },
        );
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        entry: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (entry, writers) = (name(entry), self.mapped.writers.clone());
        let (shown, lifetime) = (self.shown, self.lifetime());
        let make = move |fs: &Fs, cx: &mut Cx| {
            cx.umask = umask;
            fs.create(cx, ino(parent), &entry, mode)
        };
        self.add(request, reply, make, move |reply, attr| {
            writers.opened(attr.ino, flags);
            reply.created(&lifetime, &shown.attr(&attr), GENERATION, HANDLE, open_flags());
        });
    }

    fn read(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if let Some(following) = &self.following {
            return self.read_following(following, request, (ino(inode), handle), (offset, size), owner, reply);
        }
        let requests = self.requests.clone();
        let read = move |fs: &Fs, cx: &mut Cx| fs.read(cx, ino(inode), offset, size);
        let say = move |reply: ReplyData, data: Vec<u8>| {
            requests.bytes_read.add(data.len() as u64);
            reply.data(&data);
        };
        match flags.0 & libc::O_NOATIME {
            0 => self.read(request, ino(inode), reply, read, say),
            _ => self.ask(request, reply, read, say),
        }
    }

    fn write(
        &self,
        request: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let to = Target {
            offset,
            written_back: flags.contains(WriteFlags::FUSE_WRITE_CACHE),
            keeps_set_id: !flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
        };
        Frontend::write(self, request, ino(inode), to, data, reply);
    }

    /// Never asked again after the first answer, and not at all for files opened with `FOPEN_NOFLUSH`.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        flags: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        match &self.following {
            Some(following) => following.handles.close(handle),
            None => self.mapped.writers.released(ino(inode), flags.0),
        }
        self.ask(request, reply, move |fs, cx| fs.release(cx, ino(inode)), say_ok);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(reply);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(reply);
    }

    /// Never asked again by the kernel of a writer, which then keeps directories cached by itself.
    fn opendir(&self, request: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match &self.following {
            Some(following) => {
                self.open_following(following, request, inode, Fs::opendir, FopenFlags::empty(), reply);
            }
            None => reply.error(Errno::ENOSYS),
        }
    }

    fn readdir(&self, request: &Request, inode: INodeNo, handle: FileHandle, after: u64, reply: ReplyDirectory) {
        if let Some(following) = &self.following {
            return self.readdir_following(following, request, (ino(inode), handle), after, reply);
        }
        let list = move |fs: &Fs, cx: &mut Cx| fs.readdir(cx, ino(inode), after, ENTRIES);
        self.read(request, ino(inode), reply, list, say_names);
    }

    fn readdirplus(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        after: u64,
        reply: ReplyDirectoryPlus,
    ) {
        match &self.following {
            Some(following) => self.list_following(following, request, (ino(inode), handle), after, reply),
            None => self.list(request, inode, after, reply),
        }
    }

    fn releasedir(&self, request: &Request, inode: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        if let Some(following) = &self.following {
            following.handles.close(handle);
            return self.ask(request, reply, move |fs, cx| fs.release(cx, ino(inode)), say_ok);
        }
        reply.ok();
    }

    fn statfs(&self, request: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.ask(
            request,
            reply,
            |fs, cx| fs.statfs(cx),
            |reply, s| {
                let (size, name) = (s.block_size, s.name_max);
                reply.statfs(s.blocks, s.blocks_free, s.blocks_available, s.files, s.files_free, size, name, size);
            },
        );
    }

    /// The kernel checks permissions by itself (`default_permissions`).
    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn setxattr(
        &self,
        request: &Request,
        inode: INodeNo,
        entry: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let (entry, value) = (name(entry), Bytes::copy_from_slice(value));
        self.add(request, reply, move |fs, cx| fs.set_xattr(cx, ino(inode), &entry, &value, flags), say_ok);
    }

    fn getxattr(&self, request: &Request, inode: INodeNo, entry: &OsStr, size: u32, reply: ReplyXattr) {
        let entry = name(entry);
        let get = move |fs: &Fs, cx: &mut Cx| fs.get_xattr(cx, ino(inode), &entry);
        self.ask(request, reply, get, move |reply, value| say_xattr(reply, size, &value));
    }

    fn listxattr(&self, request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        let list = move |fs: &Fs, cx: &mut Cx| fs.list_xattrs(cx, ino(inode));
        self.ask(request, reply, list, move |reply, names| say_xattr(reply, size, &names));
    }

    fn removexattr(&self, request: &Request, inode: INodeNo, entry: &OsStr, reply: ReplyEmpty) {
        let entry = name(entry);
        self.change(request, reply, move |fs, cx| fs.remove_xattr(cx, ino(inode), &entry), say_ok);
    }

    fn fallocate(
        &self,
        request: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.add(request, reply, move |fs, cx| fs.fallocate(cx, ino(inode), offset, length, mode), say_ok);
    }

    fn lseek(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        match convert::seek(offset, whence) {
            Ok((offset, what)) => self.seek(request, (ino(inode), handle), offset, what, reply),
            Err(errno) => reply.error(errno),
        }
    }

    fn copy_file_range(
        &self,
        request: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        to_inode: INodeNo,
        _: FileHandle,
        to_offset: u64,
        length: u64,
        flags: fuser::CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        if flags.bits() != 0 {
            return reply.error(Errno::EINVAL);
        }
        let (from, to) = (convert::place(inode, offset), convert::place(to_inode, to_offset));
        let op = move |fs: &Fs, cx: &mut Cx| fs.copy_file_range(cx, from, to, length);
        self.add(request, reply, op, |reply, n| reply.written(n));
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn bmap(&self, _: &Request, _: INodeNo, _: u32, _: u64, reply: ReplyBmap) {
        reply.error(Errno::ENOSYS);
    }
}
