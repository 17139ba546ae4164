//! What programs store through mappings (and, with the write-back cache, write to open files), and those who must not miss it: the
//! question where a file has holes, and `skylog sync`.
//!
//! The kernel keeps such stores to itself until it writes them back, and does not do that before it asks for data or holes: a
//! `cp` of the file would take what was stored for a hole. So it is made to first: told to drop a file's cached pages, it
//! writes the changed ones. That is needed only where somebody has the file open for writing; a mapping keeps it open.
//!
//! The same thread has the kernel drop pages for `skylog evict`, and on a follower those of mapped files that have changed.
//!
//! Telling waits for writes that event threads answer, so a thread of its own does it. It ends when the frontend is gone.

use super::following::LOOK_EVERY;
use crate::format::ids::InodeNo;
use fuser::{INodeNo, Notifier};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

/// What follows once the kernel was told.
type Then = Box<dyn FnOnce() + Send>;

/// A file whose pages the kernel is told to drop.
struct Notice {
    ino: InodeNo,
    then: Then,
}

/// How often files are open for writing.
#[derive(Default)]
pub struct Writers(Mutex<HashMap<InodeNo, u64>>);

impl Writers {
    /// A file was opened with these flags.
    pub fn opened(&self, ino: InodeNo, flags: i32) {
        if flags & libc::O_ACCMODE != libc::O_RDONLY {
            *self.0.lock().entry(ino).or_default() += 1;
        }
    }

    /// The file and all its mappings made through this opening are closed.
    pub fn released(&self, ino: InodeNo, flags: i32) {
        if flags & libc::O_ACCMODE == libc::O_RDONLY {
            return;
        }
        let mut writers = self.0.lock();
        if let Some(count) = writers.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                writers.remove(&ino);
            }
        }
    }

    fn all(&self) -> Vec<InodeNo> {
        self.0.lock().keys().copied().collect()
    }

    fn has(&self, ino: InodeNo) -> bool {
        self.0.lock().contains_key(&ino)
    }
}

/// The event threads' side.
pub struct Mapped {
    pub writers: Arc<Writers>,
    inbox: Sender<Notice>,
}

/// The inbox of the thread to be. At most one entry for each request that the kernel has under way.
pub struct Inbox(Receiver<Notice>);

impl Mapped {
    pub fn new() -> (Mapped, Inbox) {
        let (inbox, receiver) = channel();
        (Mapped { writers: Arc::default(), inbox }, Inbox(receiver))
    }

    /// Goes on with `then` once nothing of the file is known to the kernel alone.
    pub fn written_back(&self, ino: InodeNo, then: impl FnOnce() + Send + 'static) {
        if !self.writers.has(ino) {
            return then();
        }
        self.tell(Notice { ino, then: Box::new(then) });
    }

    /// Goes on with `then` once the kernel keeps no pages of the file any more.
    pub fn drop_pages(&self, ino: InodeNo, then: impl FnOnce() + Send + 'static) {
        self.tell(Notice { ino, then: Box::new(then) });
    }

    fn tell(&self, notice: Notice) {
        if let Err(unsent) = self.inbox.send(notice) {
            (unsent.0.then)();
        }
    }
}

/// For those who outlive the frontend: what the kernel alone knows of any file.
#[derive(Clone)]
pub struct Unwritten(Weak<Mapped>);

impl Unwritten {
    pub(super) fn new(mapped: &Arc<Mapped>) -> Unwritten {
        Unwritten(Arc::downgrade(mapped))
    }

    /// Goes on with `then` once the kernel has sent all that it holds back: stores through mappings, and with the write-back cache
    /// what was written to open files.
    pub fn written_back(&self, then: impl FnOnce() + Send + 'static) {
        let Some(mapped) = self.0.upgrade() else { return then() };
        let mut open = mapped.writers.all();
        let Some(last) = open.pop() else { return then() };
        for ino in open {
            mapped.written_back(ino, || ());
        }
        mapped.written_back(last, then);
    }
}

impl Unwritten {
    /// Goes on with `then` once the kernel keeps no pages of a file any more, having sent what it holds back of them.
    pub fn pages_dropped(&self, ino: InodeNo, then: impl FnOnce() + Send + 'static) {
        match self.0.upgrade() {
            Some(mapped) => mapped.drop_pages(ino, then),
            None => then(),
        }
    }
}

/// What a follower has done every [`LOOK_EVERY`].
pub type Look = Box<dyn Fn() + Send>;

impl Inbox {
    /// Starts the thread.
    pub fn serve(self, notifier: Notifier, look: Option<Look>) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("mapped".to_owned()).spawn(move || {
            while let Some(Notice { ino, then }) = self.next(look.as_ref()) {
                match notifier.inval_inode(INodeNo(ino.0), 0, 0) {
                    // It knows nothing of this inode, so there is nothing to drop.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => {
                        log::warn!("inode {ino}: the kernel was not told to drop pages and write mappings back: {e}")
                    }
                    Ok(()) => {}
                }
                then();
            }
        })
    }

    /// The next notice, and what is due before it; nothing at the end.
    fn next(&self, look: Option<&Look>) -> Option<Notice> {
        let Some(look) = look else { return self.0.recv().ok() };
        loop {
            match self.0.recv_timeout(LOOK_EVERY) {
                Ok(notice) => return Some(notice),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => look(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::TryRecvError;

    #[test]
    fn all_files_open_for_writing_are_written_back_before_a_sync() {
        let (mapped, inbox) = Mapped::new();
        let mapped = Arc::new(mapped);
        let (unwritten, (said, heard)) = (Unwritten::new(&mapped), channel());
        let ask = || {
            let said = said.clone();
            unwritten.written_back(move || said.send(()).expect("heard"));
        };
        ask();
        assert_eq!(heard.try_recv(), Ok(()), "there is none");
        mapped.writers.opened(InodeNo(7), libc::O_RDWR);
        mapped.writers.opened(InodeNo(8), libc::O_WRONLY);
        ask();
        let mut asked: Vec<InodeNo> = Vec::new();
        for Notice { ino, then, .. } in inbox.0.try_iter() {
            assert!(heard.try_recv().is_err(), "not before the last");
            asked.push(ino);
            then();
        }
        asked.sort();
        assert_eq!((asked, heard.try_recv()), (vec![InodeNo(7), InodeNo(8)], Ok(())));
        drop(mapped);
        ask();
        assert_eq!(heard.try_recv(), Ok(()), "the mount is gone");
    }

    #[test]
    fn only_files_open_for_writing_are_written_back_first() {
        let (mapped, inbox) = Mapped::new();
        let (ino, (said, heard)) = (InodeNo(7), channel());
        let ask = || {
            let said = said.clone();
            mapped.written_back(ino, move || said.send(()).expect("heard"));
            heard.try_recv() == Ok(())
        };
        assert!(ask(), "nobody has it open");
        mapped.writers.opened(ino, libc::O_RDONLY);
        mapped.writers.opened(ino, libc::O_RDWR);
        mapped.writers.opened(ino, libc::O_WRONLY | libc::O_APPEND);
        assert!(!ask(), "it waits for the thread");
        mapped.writers.released(ino, libc::O_RDWR);
        assert!(!ask(), "one is left");
        mapped.writers.released(ino, libc::O_WRONLY);
        mapped.writers.released(ino, libc::O_RDONLY);
        assert!(ask(), "all are gone");
        assert_eq!(inbox.0.try_iter().map(|notice| notice.ino).collect::<Vec<_>>(), [ino, ino]);
        drop(mapped);
        assert!(matches!(inbox.0.try_recv(), Err(TryRecvError::Disconnected)), "the thread ends");
    }
}
