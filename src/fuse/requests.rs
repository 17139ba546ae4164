//! From a request to its answer: who asks and when, one call of the volume, and the reply given by whoever completes it. A
//! panic on the way is caught, logged and counted, in an operation by the volume and in an answer here; it never ends an event
//! thread.

use super::answer::Answer;
use super::caller;
use super::convert;
use super::counted::{Requests, Timed};
use super::filesystem::{say_attr, say_entry};
use super::following::Following;
use super::listing::Fetch;
use super::mapped::{Inbox, Mapped};
use super::session::MountConfig;
use super::shown::Shown;
use crate::format::ids::{InodeNo, Lsn};
use crate::fs::{Attr, Caller, Cx, Error, Fs, Seek, Stop};
use crate::volume::Volume;
use bytes::Bytes;
use fuser::{Errno, FileHandle, ReplyAttr, ReplyEntry, ReplyLseek, ReplyWrite, Request};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// The frontend of one mount.
pub struct Frontend {
    pub(super) volume: Arc<Volume>,
    pub(super) fetch: Arc<Fetch>,
    pub(super) requests: Arc<Requests>,
    pub(super) mapped: Arc<Mapped>,
    pub(super) shown: Shown,
    /// The kernel holds writes back.
    pub(super) writeback: bool,
    /// Whether reading is noted in access times.
    relatime: bool,
    /// There for a follower.
    pub(super) following: Option<Following>,
}

/// Where and how something is written.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub offset: u64,
    /// The data comes from the kernel's cache, long after the user was told that it is written.
    pub written_back: bool,
    /// The kernel says whether the writer keeps set-id bits: of pages written back late it alone knows.
    pub keeps_set_id: bool,
}

impl Frontend {
    /// The frontend, and the inbox of the thread that it needs.
    pub fn new(volume: Arc<Volume>, config: &MountConfig) -> (Frontend, Inbox) {
        let (mapped, inbox) = Mapped::new();
        let following = volume.seen().map(|_| Following::default());
        let frontend = Frontend {
            volume,
            fetch: Arc::new(Fetch::new()),
            requests: Arc::default(),
            mapped: Arc::new(mapped),
            shown: config.shown,
            writeback: config.writeback,
            relatime: config.relatime,
            following,
        };
        (frontend, inbox)
    }

    /// Who asks, and when.
    pub(super) fn cx(&self, request: &Request) -> Cx {
        let caller = Caller { thread: request.pid(), look_up: caller::rights };
        let (uid, gid, now) = (request.uid(), request.gid(), self.volume.now());
        // A kernel that holds writes back sets the times of contents when they change, and sends them apart.
        Cx { uid, gid, now, caller, keeps_times: self.writeback, ..Cx::default() }
    }

    /// An operation that changes nothing: `op` runs, perhaps more than once, and `say` answers with its result.
    pub fn ask<R: Answer, T: Send + 'static>(
        &self,
        request: &Request,
        reply: R,
        op: impl FnMut(&Fs, &mut Cx) -> Result<T, Stop> + Send + 'static,
        say: impl FnOnce(R, T) + Send + 'static,
    ) {
        self.volume.start(self.cx(request), op, self.answer(reply, say));
    }

    /// Says what was found under a name.
    pub(super) fn say_entry(&self) -> impl FnOnce(ReplyEntry, Attr) + use<> {
        say_entry(self.shown, self.lifetime())
    }

    /// Says attributes.
    pub(super) fn say_attr(&self) -> impl FnOnce(ReplyAttr, Attr) + use<> {
        say_attr(self.shown, self.lifetime())
    }

    /// An operation that changes something: answered when the sync policy allows.
    pub fn change<R: Answer, T: Send + 'static>(
        &self,
        request: &Request,
        reply: R,
        op: impl FnMut(&Fs, &mut Cx) -> Result<(T, Lsn), Stop> + Send + 'static,
        say: impl FnOnce(R, T) + Send + 'static,
    ) {
        match self.following {
            Some(_) => reply.fail(Errno::EROFS),
            None => self.volume.start_changing(self.cx(request), 0, op, self.answer(reply, say)),
        }
    }

    /// The same for one that adds: answered later when the journal fills up faster than it is emptied.
    pub fn add<R: Answer, T: Send + 'static>(
        &self,
        request: &Request,
        reply: R,
        op: impl FnMut(&Fs, &mut Cx) -> Result<(T, Lsn), Stop> + Send + 'static,
        say: impl FnOnce(R, T) + Send + 'static,
    ) {
        match self.following {
            Some(_) => reply.fail(Errno::EROFS),
            None => self.volume.start_adding(self.cx(request), 0, op, self.answer(reply, say)),
        }
    }

    /// An operation that reads a file, a directory or a link: as [`Frontend::ask`], and once it is answered the access is
    /// noted on a mount that keeps access times.
    pub fn read<R: Answer, T: Send + 'static>(
        &self,
        request: &Request,
        inode: InodeNo,
        reply: R,
        op: impl FnMut(&Fs, &mut Cx) -> Result<T, Stop> + Send + 'static,
        say: impl FnOnce(R, T) + Send + 'static,
    ) {
        if !self.relatime {
            return self.ask(request, reply, op, say);
        }
        let (volume, cx) = (self.volume.clone(), self.cx(request));
        self.ask(request, reply, op, move |reply, value| {
            say(reply, value);
            volume.follow(cx, move |fs, cx| fs.note_access(cx, inode));
        });
    }

    /// A write: a change that holds its data until it is answered. What one batch cannot take goes into further ones: the
    /// kernel does not ask again for the rest of a page it writes back. When one of these fails, the answer is how much was
    /// written; but for pages written back it is the error, since the kernel would take the rest for written.
    pub fn write(&self, request: &Request, ino: InodeNo, to: Target, data: &[u8], reply: ReplyWrite) {
        if self.following.is_some() {
            return reply.error(Errno::EROFS);
        }
        let mut cx = self.cx(request);
        cx.written_back = to.written_back;
        if to.keeps_set_id {
            cx.caller = Caller::PRIVILEGED;
        }
        let data = Bytes::copy_from_slice(data);
        let bytes = data.len();
        self.requests.bytes_written.add(bytes as u64);
        let (mut done, mut last) = (0, None);
        let op = move |fs: &Fs, cx: &mut Cx| {
            loop {
                let rest = data.slice(done as usize..);
                match (fs.write_bytes(cx, ino, to.offset + u64::from(done), &rest), last) {
                    (Ok((written, lsn)), _) => {
                        done += written;
                        last = Some(lsn);
                        if written == 0 || done as usize >= data.len() {
                            return Ok((done, lsn));
                        }
                    }
                    (Err(Stop::Error(_)), Some(lsn)) if !to.written_back => return Ok((done, lsn)),
                    (Err(stop), _) => return Err(stop),
                }
            }
        };
        self.volume.start_adding(cx, bytes, op, self.answer(reply, |reply, n| reply.written(n)));
    }

    /// Looks for data or for a hole.
    pub fn seek(
        &self,
        request: &Request,
        (ino, handle): (InodeNo, FileHandle),
        offset: u64,
        what: Seek,
        reply: ReplyLseek,
    ) {
        let (volume, mut cx) = (self.volume.clone(), self.cx(request));
        if let Some(following) = &self.following {
            match following.handles.state(handle) {
                Ok(seen) => cx.seen = Some(seen),
                Err(errno) => return reply.error(errno),
            }
        }
        let say = |reply: ReplyLseek, found: u64| reply.offset(i64::try_from(found).unwrap_or(i64::MAX));
        let done = self.answer(reply, say);
        self.mapped.written_back(ino, move || volume.start(cx, move |fs, cx| fs.seek(cx, ino, offset, what), done));
    }

    /// Answers once everything acknowledged so far is durable, which on a follower is nothing.
    pub fn sync(&self, reply: fuser::ReplyEmpty) {
        if self.following.is_some() {
            return reply.ok();
        }
        let timed = Timed::take();
        self.volume.sync(move |synced| {
            match synced {
                Ok(()) => reply.ok(),
                // The reason was logged where it happened, and `status` shows it.
                Err(_) => reply.error(Errno::EIO),
            }
            drop(timed);
        });
    }

    /// What answers in the end.
    pub(super) fn answer<R: Answer, T>(
        &self,
        reply: R,
        say: impl FnOnce(R, T) + Send + 'static,
    ) -> impl FnOnce(Result<T, Error>) + Send + 'static {
        let (volume, timed) = (self.volume.clone(), Timed::take());
        move |result| {
            let said = catch_unwind(AssertUnwindSafe(|| match result {
                Ok(value) => say(reply, value),
                Err(error) => reply.fail(convert::errno(&error)),
            }));
            if let Err(panic) = said {
                note(&volume, panic.as_ref());
            }
            drop(timed);
        }
    }
}

fn note(volume: &Volume, panic: &(dyn Any + Send)) {
    volume.count_panic();
    let words = panic.downcast_ref::<&str>().copied();
    let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no words");
    log::error!("a request panicked and is answered with EIO: {words}");
}
