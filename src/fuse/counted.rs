//! Every request of the kernel is counted here, by kind, on its way to the frontend, and timed until it is answered. Nothing else
//! happens here.
//!
//! The clock starts on the event thread. Whoever will answer takes it from there ([`Timed::take`]) and drops it with the answer; what
//! nobody has taken was answered at once.
//!
//! What `fuser` answers by itself never arrives: the handshake, interrupts, requests it does not know.

use super::requests::Frontend;
use crate::base::clock::{Clock, SystemClock};
use crate::base::metrics::{Histogram, Latencies};
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

/// Requests of one kind.
#[derive(Debug, Default)]
struct OfKind {
    begun: Count,
    latency: Histogram,
}

/// The clock of one request; it stops when this is dropped.
pub(super) struct Timed {
    requests: Arc<Requests>,
    of: fn(&Requests) -> &OfKind,
    /// Starts with the request.
    since: SystemClock,
}

impl Timed {
    /// The clock of the request that this thread has just brought, if nobody else has taken it.
    pub fn take() -> Option<Timed> {
        UNDER_WAY.take()
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        (self.of)(&self.requests).latency.add(self.since.elapsed());
    }
}

thread_local! {
    /// The request that this thread is bringing to the frontend.
    static UNDER_WAY: Cell<Option<Timed>> = const { Cell::new(None) };
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
            $($kind: OfKind,)*
            /// Nobody waits for an answer to these.
            forget: Count,
            /// Bytes of file data in answers to reads,
            pub(super) bytes_read: Count,
            /// and in writes.
            pub(super) bytes_written: Count,
        }

        impl Requests {
            fn kinds(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($kind), self.$kind.begun.get()),)* ("forget", self.forget.get())].into_iter()
            }

            /// How long requests of each kind took from their arrival to their answer; without the kinds that never came.
            pub fn latencies(&self) -> impl Iterator<Item = (&'static str, Latencies)> {
                let all = [$((stringify!($kind), self.$kind.latency.latencies()),)*];
                all.into_iter().filter(|(_, latencies)| latencies.count() > 0)
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
                self.requests.$kind.begun.add(1);
                self.requests.begin(|requests| &requests.$kind);
                Filesystem::$kind(&self.frontend, request, $($argument),*);
                drop(Timed::take());
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

impl Requests {
    fn begin(self: &Arc<Self>, of: fn(&Requests) -> &OfKind) {
        UNDER_WAY.set(Some(Timed { requests: self.clone(), of, since: SystemClock::new() }));
    }

    /// How many of each kind arrived, without the kinds that never came.
    pub fn begun(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.kinds().filter(|(_, count)| *count > 0)
    }

    /// Bytes of file data in answers to reads, and in writes.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_read.get(), self.bytes_written.get())
    }
}

impl Serialize for Requests {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let total = self.kinds().map(|(_, count)| count).sum();
        let bytes = [("bytes_read", self.bytes_read.get()), ("bytes_written", self.bytes_written.get())];
        serializer.collect_map(self.begun().chain([("total", total)]).chain(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_that_came_are_shown_with_their_total_and_bytes() {
        let requests = Requests::default();
        requests.lookup.begun.add(2);
        requests.write.begun.add(1);
        requests.bytes_written.add(4096);
        let shown = serde_json::to_value(&requests).unwrap();
        let expected = serde_json::json!({
            "lookup": 2, "write": 1, "total": 3, "bytes_read": 0, "bytes_written": 4096,
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_request_is_timed_until_who_took_its_clock_drops_it() {
        let requests = Arc::new(Requests::default());
        let timed = |requests: &Requests| requests.latencies().map(|(kind, l)| (kind, l.count())).collect::<Vec<_>>();
        requests.begin(|requests| &requests.fsync);
        let taken = Timed::take().expect("it has begun");
        assert!(Timed::take().is_none(), "one takes it");
        assert_eq!(timed(&requests), []);
        drop(taken);
        assert_eq!(timed(&requests), [("fsync", 1)]);
    }
}
