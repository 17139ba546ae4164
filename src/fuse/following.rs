//! What the frontend does differently for a follower: everything is read from published states, what is open from one of them
//! (see `handles.rs`), and the kernel believes nothing for longer than a second.

use super::GENERATION;
use super::convert;
use super::handles::{Handles, Reading, Version};
use super::mapped::{Look, Mapped};
use super::requests::Frontend;
use crate::format::ids::InodeNo;
use crate::fs::{Attr, Cx, DirEntry, Error, Fs, Stop};
use crate::map::Seen;
use crate::volume::Volume;
use fuser::{
    Errno, FileHandle, FopenFlags, INodeNo, LockOwner, Notifier, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyOpen, Request,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

/// How long the kernel may believe an entry or attribute of a follower without asking again.
pub const LIFETIME: Duration = Duration::from_secs(1);
/// What may no longer be so is believed for no time at all.
const NO_TIME: Duration = Duration::ZERO;
/// How often it is looked whether mapped files have changed.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What a follower's frontend has beside a writer's.
#[derive(Clone, Default)]
pub struct Following {
    pub handles: Arc<Handles>,
    /// There once the mount is live.
    pub kernel: Arc<OnceLock<Notifier>>,
}

impl Following {
    /// Has the kernel ask for the attributes of an inode again. It keeps the pages, so this waits for nobody.
    fn forget_attributes(&self, ino: InodeNo) {
        if let Some(Err(e)) = self.kernel.get().map(|kernel| kernel.inval_inode(INodeNo(ino.0), -1, 0)) {
            log::debug!("inode {ino}: the kernel keeps its attributes for a second: {e}");
        }
    }

    /// The mount is live: what is to be done now and then.
    pub fn begin(self, kernel: Notifier, volume: Arc<Volume>, mapped: Weak<Mapped>) -> Look {
        self.kernel.get_or_init(|| kernel);
        Box::new(move || self.look(&volume, &mapped))
    }

    /// Gives up states that were read for too long, and has the kernel drop the pages of mapped files that have changed.
    fn look(&self, volume: &Volume, mapped: &Weak<Mapped>) {
        let Some(newest) = volume.seen() else { return };
        for ino in self.handles.age(&newest, volume.elapsed()) {
            let (handles, mapped) = (self.handles.clone(), mapped.clone());
            let done = move |found: Result<Attr, Error>| {
                // What cannot be asked now, or is not there any more, may be mapped on as it is.
                let Ok(version) = found.map(|a| -> Version { (a.mtime, a.ctime, a.size, a.blocks) }) else { return };
                if let Some(mapped) = mapped.upgrade().filter(|_| handles.has_changed(ino, version)) {
                    mapped.drop_pages(ino, || ());
                }
            };
            let cx = Cx { now: volume.now(), seen: Some(newest.clone()), ..Cx::default() };
            volume.start(cx, move |fs, cx| fs.getattr(cx, ino), done);
        }
    }
}

/// The newest state; there is one in each follower.
fn newest(volume: &Volume) -> Result<Arc<Seen>, Errno> {
    volume.seen().ok_or(Errno::EIO)
}

macro_rules! or_fail {
    ($found:expr, $reply:ident) => {
        match $found {
            Ok(found) => found,
            Err(errno) => return $reply.error(errno),
        }
    };
}

impl Frontend {
    /// How long the kernel may believe an entry or attribute.
    pub(super) fn lifetime(&self) -> Duration {
        if self.following.is_some() { LIFETIME } else { super::LIFETIME }
    }

    /// Opens a file, or a directory.
    pub(super) fn open_following(
        &self,
        following: &Following,
        request: &Request,
        inode: INodeNo,
        open: fn(&Fs, &Cx, InodeNo) -> Result<(), Stop>,
        flags: FopenFlags,
        reply: ReplyOpen,
    ) {
        let ino = convert::ino(inode);
        let seen = or_fail!(newest(&self.volume), reply);
        let mut cx = self.cx(request);
        cx.seen = Some(seen.clone());
        let (following, now) = (following.clone(), self.volume.elapsed());
        let opened = self.answer(reply, move |reply: ReplyOpen, ()| {
            // A size that the kernel remembers from before may not be that of the state.
            following.forget_attributes(ino);
            reply.opened(following.handles.open(ino, seen, now), flags);
        });
        self.volume.start(cx, move |fs, cx| open(fs, cx, ino), opened);
    }

    /// Attributes in the newest state. What is open and no longer in it has those it had last.
    pub(super) fn getattr_following(&self, following: &Following, request: &Request, ino: InodeNo, reply: ReplyAttr) {
        let (handles, shown) = (following.handles.clone(), self.shown);
        let get = move |fs: &Fs, cx: &mut Cx| match fs.getattr(cx, ino) {
            Err(Stop::Error(Error::NoSuchInode(_))) => {
                cx.seen = Some(handles.of(ino).ok_or(Error::NoSuchInode(ino))?);
                let last = fs.getattr(cx, ino);
                cx.seen = None;
                Ok((Attr { nlink: 0, ..last? }, NO_TIME))
            }
            found => Ok((found?, LIFETIME)),
        };
        self.ask(request, reply, get, move |reply, (attr, lifetime)| reply.attr(&lifetime, &shown.attr(&attr)));
    }

    /// Reads a file: for `read(2)`, which names whose locks it obeys, the state of its opening; else pages for the kernel.
    pub(super) fn read_following(
        &self,
        following: &Following,
        request: &Request,
        (inode, handle): (InodeNo, FileHandle),
        (offset, bytes): (u64, u32),
        owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let newest = or_fail!(newest(&self.volume), reply);
        let (handles, now) = (following.handles.clone(), self.volume.elapsed());
        let is_read = owner.is_some();
        let Reading { seen, may_be_gone } = or_fail!(
            match is_read {
                true => handles.read(handle, &newest, now),
                false =>
                    handles.pages(handle, offset, bytes, &newest, now).map(|seen| Reading { seen, may_be_gone: false }),
            },
            reply
        );
        let mut cx = self.cx(request);
        cx.seen = Some(seen);
        let (requests, handles_of) = (self.requests.clone(), handles.clone());
        let read = move |fs: &Fs, cx: &mut Cx| match fs.read(cx, inode, offset, bytes) {
            Err(Stop::Error(Error::NoSuchInode(_))) if may_be_gone => Ok(Vec::new()),
            // What is mapped and not there any more has the bytes of the last state that is open.
            Err(Stop::Error(Error::NoSuchInode(_))) if !is_read => {
                let last = handles_of.of(inode).ok_or(Error::NoSuchInode(inode))?;
                let newest = cx.seen.replace(last);
                let read = fs.read(cx, inode, offset, bytes);
                cx.seen = newest;
                read
            }
            read => read,
        };
        let say = move |reply: ReplyData, data: Vec<u8>| {
            if is_read && data.is_empty() && bytes > 0 {
                handles.ended(handle);
            }
            requests.bytes_read.add(data.len() as u64);
            reply.data(&data);
        };
        self.volume.start(cx, read, self.answer(reply, say));
    }

    /// Lists names, all of one state.
    pub(super) fn readdir_following(
        &self,
        following: &Following,
        request: &Request,
        (inode, handle): (InodeNo, FileHandle),
        after: u64,
        reply: ReplyDirectory,
    ) {
        let newest = or_fail!(newest(&self.volume), reply);
        let mut cx = self.cx(request);
        cx.seen = Some(or_fail!(following.handles.list(handle, after, &newest, self.volume.elapsed()), reply));
        let max = super::filesystem::ENTRIES;
        let list = move |fs: &Fs, cx: &mut Cx| fs.readdir(cx, inode, after, max);
        self.volume.start(cx, list, self.answer(reply, super::filesystem::say_names));
    }

    /// Lists names, all of one state, with attributes as they are in the newest: the kernel takes them for that. An entry of an
    /// older state is believed for no time at all.
    pub(super) fn list_following(
        &self,
        following: &Following,
        request: &Request,
        (inode, handle): (InodeNo, FileHandle),
        after: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let newest = or_fail!(newest(&self.volume), reply);
        let seen = or_fail!(following.handles.list(handle, after, &newest, self.volume.elapsed()), reply);
        let lifetime = if Arc::ptr_eq(&seen, &newest) { LIFETIME } else { NO_TIME };
        let (max, fetch, shown) = (self.fetch.entries(), self.fetch.clone(), self.shown);
        let (volume, Cx { uid, gid, now, .. }) = (self.volume.clone(), self.cx(request));
        let list = move |fs: &Fs, cx: &mut Cx| {
            cx.seen = Some(seen.clone());
            fs.readdir_plus_in(cx, inode, after, max, &newest)
        };
        let say = move |mut reply: ReplyDirectoryPlus, entries: Vec<(DirEntry, Attr)>| {
            let add = |reply: &mut ReplyDirectoryPlus, entry: &DirEntry, attr: &Attr| {
                let (name, attr) = (OsStr::from_bytes(&entry.name), shown.attr(attr));
                reply.add(attr.ino, entry.cookie, name, &lifetime, &attr, GENERATION)
            };
            let taken = entries.iter().take_while(|(entry, attr)| !add(&mut reply, entry, attr)).count();
            fetch.learn(entries.len(), taken);
            reply.ok();
            super::listing::give_back(&volume, (uid, gid, now), &entries[taken..]);
        };
        self.ask(request, reply, list, say);
    }
}
