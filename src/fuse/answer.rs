//! The kinds of reply, seen as one: each can be an error.

use fuser::{
    Errno, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};

/// A reply that is still owed to the kernel. Dropped without a word it is EIO.
pub trait Answer: Send + 'static {
    /// Answers with an error.
    fn fail(self, errno: Errno);
}

macro_rules! answers {
    ($($reply:ty),*) => {
        $(impl Answer for $reply {
            fn fail(self, errno: Errno) {
                self.error(errno);
            }
        })*
    };
}

answers!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyLseek,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr
);

/// Requests that nobody waits for (`forget`).
pub struct Nobody;

impl Answer for Nobody {
    fn fail(self, _: Errno) {}
}
