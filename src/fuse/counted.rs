//! Every request of the kernel is counted here, by kind, on its way to the frontend. Nothing else happens here.
//!
//! What `fuser` answers by itself never arrives: the handshake, interrupts, requests it does not know.

use super::requests::Frontend;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, INodeNo, IoctlFlags, KernelConfig,
    LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek,
    ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, RequestId, TimeOrNow, WriteFlags,
};
use serde::{Serialize, Serializer};
use std::cell::Cell;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// A number that only grows, shared without a lock.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

thread_local! {
    /// The last request to forget inodes that this thread saw.
    static LAST_FORGET: Cell<Option<RequestId>> = const { Cell::new(None) };
}

/// The frontend behind a counter of what arrives.
pub struct Counted {
    frontend: Frontend,
    requests: Arc<Requests>,
}

impl Counted {
    pub fn new(frontend: Frontend) -> Counted {
        let requests = frontend.requests.clone();
        Counted { frontend, requests }
    }
}

macro_rules! counted {
    ($($kind:ident($($argument:ident: $type:ty),*);)*) => {
        /// What the kernel asked of a mount so far. Shown without the kinds that never came.
        #[derive(Debug, Default)]
        pub struct Requests {
            $($kind: Count,)*
            forget: Count,
            /// Bytes of file data in answers to reads,
            pub(super) bytes_read: Count,
            /// and in writes.
            pub(super) bytes_written: Count,
        }

        impl Requests {
            fn kinds(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($kind), self.$kind.get()),)* ("forget", self.forget.get())].into_iter()
            }
        }

        impl Filesystem for Counted {
            fn init(&mut self, request: &Request, config: &mut KernelConfig) -> io::Result<()> {
                Filesystem::init(&mut self.frontend, request, config)
            }

            fn destroy(&mut self) {
                Filesystem::destroy(&mut self.frontend);
            }

            /// Many inodes may be forgotten by one request: they come one after the other on one thread.
            fn forget(&self, request: &Request, inode: INodeNo, lookups: u64) {
                if LAST_FORGET.replace(Some(request.unique())) != Some(request.unique()) {
                    self.requests.forget.add(1);
                }
                Filesystem::forget(&self.frontend, request, inode, lookups);
            }

            $(fn $kind(&self, request: &Request, $($argument: $type),*) {
                self.requests.$kind.add(1);
                Filesystem::$kind(&self.frontend, request, $($argument),*);
            })*
        }
    };
}

counted! {
    lookup(parent: INodeNo, name: &OsStr, reply: ReplyEntry);
    getattr(inode: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr);
    setattr(
        inode: INodeNo, mode: Option<u32>, uid: Option<u32>, gid: Option<u32>, size: Option<u64>,
        atime: Option<TimeOrNow>, mtime: Option<TimeOrNow>, ctime: Option<SystemTime>, handle: Option<FileHandle>,
        crtime: Option<SystemTime>, chgtime: Option<SystemTime>, bkuptime: Option<SystemTime>,
        flags: Option<BsdFileFlags>, reply: ReplyAttr
    );
    readlink(inode: INodeNo, reply: ReplyData);
    mknod(parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry);
    mkdir(parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry);
    unlink(parent: INodeNo, name: &OsStr, reply: ReplyEmpty);
    rmdir(parent: INodeNo, name: &OsStr, reply: ReplyEmpty);
    symlink(parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry);
    rename(
        parent: INodeNo, name: &OsStr, new_parent: INodeNo, new_name: &OsStr, flags: RenameFlags, reply: ReplyEmpty
    );
    link(inode: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry);
    open(inode: INodeNo, flags: OpenFlags, reply: ReplyOpen);
    create(parent: INodeNo, name: &OsStr, mode: u32, umask: u32, flags: i32, reply: ReplyCreate);
    read(
        inode: INodeNo, handle: FileHandle, offset: u64, size: u32, flags: OpenFlags, owner: Option<LockOwner>,
        reply: ReplyData
    );
    write(
        inode: INodeNo, handle: FileHandle, offset: u64, data: &[u8], how: WriteFlags, flags: OpenFlags,
        owner: Option<LockOwner>, reply: ReplyWrite
    );
    flush(inode: INodeNo, handle: FileHandle, owner: LockOwner, reply: ReplyEmpty);
    release(
        inode: INodeNo, handle: FileHandle, flags: OpenFlags, owner: Option<LockOwner>, flush: bool, reply: ReplyEmpty
    );
    fsync(inode: INodeNo, handle: FileHandle, data_only: bool, reply: ReplyEmpty);
    opendir(inode: INodeNo, flags: OpenFlags, reply: ReplyOpen);
    readdir(inode: INodeNo, handle: FileHandle, after: u64, reply: ReplyDirectory);
    readdirplus(inode: INodeNo, handle: FileHandle, after: u64, reply: ReplyDirectoryPlus);
    releasedir(inode: INodeNo, handle: FileHandle, flags: OpenFlags, reply: ReplyEmpty);
    fsyncdir(inode: INodeNo, handle: FileHandle, data_only: bool, reply: ReplyEmpty);
    statfs(inode: INodeNo, reply: ReplyStatfs);
    setxattr(inode: INodeNo, name: &OsStr, value: &[u8], flags: i32, position: u32, reply: ReplyEmpty);
    getxattr(inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr);
    listxattr(inode: INodeNo, size: u32, reply: ReplyXattr);
    removexattr(inode: INodeNo, name: &OsStr, reply: ReplyEmpty);
    access(inode: INodeNo, mask: AccessFlags, reply: ReplyEmpty);
    getlk(
        inode: INodeNo, handle: FileHandle, owner: LockOwner, start: u64, end: u64, kind: i32, pid: u32,
        reply: ReplyLock
    );
    setlk(
        inode: INodeNo, handle: FileHandle, owner: LockOwner, start: u64, end: u64, kind: i32, pid: u32, sleep: bool,
        reply: ReplyEmpty
    );
    bmap(inode: INodeNo, block_bytes: u32, index: u64, reply: ReplyBmap);
    ioctl(
        inode: INodeNo, handle: FileHandle, flags: IoctlFlags, command: u32, data: &[u8], out_bytes: u32,
        reply: ReplyIoctl
    );
    poll(
        inode: INodeNo, handle: FileHandle, notifier: PollNotifier, events: PollEvents, flags: PollFlags,
        reply: ReplyPoll
    );
    fallocate(inode: INodeNo, handle: FileHandle, offset: u64, bytes: u64, mode: i32, reply: ReplyEmpty);
    lseek(inode: INodeNo, handle: FileHandle, offset: i64, whence: i32, reply: ReplyLseek);
    copy_file_range(
        from: INodeNo, from_handle: FileHandle, from_offset: u64, to: INodeNo, to_handle: FileHandle, to_offset: u64,
        bytes: u64, flags: CopyFileRangeFlags, reply: ReplyWrite
    );
}

impl Serialize for Requests {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let total = self.kinds().map(|(_, count)| count).sum();
        let bytes = [("bytes_read", self.bytes_read.get()), ("bytes_written", self.bytes_written.get())];
        let came = self.kinds().filter(|(_, count)| *count > 0);
        serializer.collect_map(came.chain([("total", total)]).chain(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_that_came_are_shown_with_their_total_and_bytes() {
        let requests = Requests::default();
        requests.lookup.add(2);
        requests.write.add(1);
        requests.bytes_written.add(4096);
        let shown = serde_json::to_value(&requests).unwrap();
        let expected = serde_json::json!({
            "lookup": 2, "write": 1, "total": 3, "bytes_read": 0, "bytes_written": 4096,
        });
        assert_eq!(shown, expected);
    }
}
