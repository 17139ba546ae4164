//! Why an operation failed, and its errno.

use crate::format::ids::InodeNo;
use crate::format::usage::OnLimit;
use crate::map::db::{self, Wait};
use std::fmt::Display;
use std::ops::Range;

/// Why an operation failed. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such name in the directory.
    #[error("no such name")]
    NoSuchName,
    /// The kernel speaks of an inode that is gone.
    #[error("inode {0} does not exist")]
    NoSuchInode(InodeNo),
    /// The directory or file has no name any more, so nothing can be put into it and no name given to it.
    #[error("inode {0} was removed")]
    Removed(InodeNo),
    /// The name is taken.
    #[error("the name exists")]
    NameExists,
    /// A directory is needed.
    #[error("inode {0} is not a directory")]
    NotDirectory(InodeNo),
    /// Something else than a directory is needed.
    #[error("inode {0} is a directory")]
    IsDirectory(InodeNo),
    /// A directory must be empty to be removed or replaced.
    #[error("directory {0} is not empty")]
    NotEmpty(InodeNo),
    /// A directory has one name only.
    #[error("directory {0} cannot have a second name")]
    DirectoryLink(InodeNo),
    /// The file has as many names as it can have.
    #[error("inode {0} has too many links")]
    TooManyLinks(InodeNo),
    /// A symbolic link cannot be opened.
    #[error("inode {0} is a symbolic link")]
    SymbolicLink(InodeNo),
    /// A name or target is too long.
    #[error("a name of {found} bytes is longer than {limit}")]
    NameTooLong {
        /// Its length.
        found: usize,
        /// The longest allowed.
        limit: usize,
    },
    /// The name is `.` or `..` where it must not be.
    #[error("the name is . or ..")]
    DotName,
    /// The inode has no such extended attribute.
    #[error("no such extended attribute")]
    NoSuchXattr,
    /// The inode has this extended attribute already.
    #[error("the extended attribute exists")]
    XattrExists,
    /// No extended attribute can have this name.
    #[error("the name of an extended attribute has 1 to 255 bytes")]
    XattrName,
    /// A value, or a list of names, is too long.
    #[error("{found} bytes are more than {limit}")]
    ValueTooBig {
        /// Its length.
        found: usize,
        /// The most allowed.
        limit: usize,
    },
    /// The value is too long for this filesystem's small journal segments.
    #[error("a value of {0} bytes does not fit into a batch of this filesystem's journal")]
    NoRoomInSegment(usize),
    /// Only directories have a default access control list.
    #[error("inode {0} is not a directory and has no default access control list")]
    NoDefaultAcl(InodeNo),
    /// A size or offset beyond the largest file.
    #[error("beyond the largest file")]
    TooBig,
    /// There is no data, or no hole, at or after the offset.
    #[error("nothing of that kind at or after the offset")]
    NothingThere,
    /// A fifo has no offsets.
    #[error("inode {0} has no offsets")]
    NotSeekable(InodeNo),
    /// Only regular files have space that can be allocated.
    #[error("inode {0} is not a regular file")]
    NotAllocatable(InodeNo),
    /// What this filesystem does not do; what.
    #[error("{0} is not supported")]
    NotSupported(&'static str),
    /// Arguments that make no sense together; why.
    #[error("{0}")]
    Invalid(&'static str),
    /// The filesystem would hold more than it may.
    #[error("the limit of the filesystem is reached")]
    Limit(OnLimit),
    /// There is nothing to compare a limit with.
    #[error(
        "this filesystem was made by a version that did not count what it holds; copy it into a new one to limit it"
    )]
    NotCounted,
    /// The journal's disk is full.
    #[error("the disk of the journal is full")]
    DiskFull,
    /// The journal has failed, so nothing can be changed; why.
    #[error("read-only: {0}")]
    ReadOnly(String),
    /// The lease was lost that kept from being deleted what the operation reads.
    #[error("the lease was lost that kept this state of the filesystem from being deleted")]
    LeaseLost,
    /// Stored bytes are damaged, or could not be had; which and why was logged.
    #[error("input or output failed")]
    Io,
}

impl Error {
    /// The number the kernel is told.
    pub fn errno(&self) -> i32 {
        match self {
            Error::NoSuchName | Error::Removed(_) => libc::ENOENT,
            Error::NoSuchInode(_) | Error::LeaseLost => libc::ESTALE,
            Error::NameExists => libc::EEXIST,
            Error::NotDirectory(_) => libc::ENOTDIR,
            Error::IsDirectory(_) => libc::EISDIR,
            Error::NotEmpty(_) => libc::ENOTEMPTY,
            Error::DirectoryLink(_) => libc::EPERM,
            Error::TooManyLinks(_) => libc::EMLINK,
            Error::SymbolicLink(_) => libc::ELOOP,
            Error::NameTooLong { .. } => libc::ENAMETOOLONG,
            Error::DotName => libc::EBUSY,
            Error::NoSuchXattr => libc::ENODATA,
            Error::XattrExists => libc::EEXIST,
            Error::XattrName => libc::ERANGE,
            Error::ValueTooBig { .. } => libc::E2BIG,
            Error::NoRoomInSegment(_) => libc::ENOSPC,
            Error::NoDefaultAcl(_) => libc::EACCES,
            Error::TooBig => libc::EFBIG,
            Error::NothingThere => libc::ENXIO,
            Error::NotSeekable(_) => libc::ESPIPE,
            Error::NotAllocatable(_) => libc::ENODEV,
            Error::NotSupported(_) => libc::EOPNOTSUPP,
            Error::Invalid(_) => libc::EINVAL,
            Error::DiskFull | Error::Limit(OnLimit::NoSpace) => libc::ENOSPC,
            Error::Limit(OnLimit::Quota) => libc::EDQUOT,
            Error::NotCounted => libc::EOPNOTSUPP,
            Error::ReadOnly(_) => libc::EROFS,
            Error::Io => libc::EIO,
        }
    }
}

/// Why an operation did not go on to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Call again when this is there; nothing has happened.
    Wait(Wait),
    /// It failed.
    Error(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Error(error)
    }
}

impl From<db::Stop> for Stop {
    fn from(stop: db::Stop) -> Stop {
        match stop {
            db::Stop::Wait(wait) => Stop::Wait(wait),
            db::Stop::DiskFull => Error::DiskFull.into(),
            db::Stop::Limit(on_limit) => Error::Limit(on_limit).into(),
            db::Stop::LeaseLost => Error::LeaseLost.into(),
            db::Stop::ReadOnly(why) => Error::ReadOnly(why).into(),
            db::Stop::Damaged(what) => damaged(what),
        }
    }
}

/// Logs which bytes of a file a repair could not bring back; reading them fails with EIO.
pub(super) fn lost(ino: InodeNo, Range { start, end }: Range<u64>) -> Stop {
    log::error!(
        "inode {ino}: bytes {start} to {end} were lost before a repair; they can be read once they are written anew"
    );
    Error::Io.into()
}

/// Logs what is damaged; the operation fails with EIO and the rest of the filesystem serves on.
pub(super) fn damaged(what: impl Display) -> Stop {
    log::error!("damaged metadata or data: {what}");
    Error::Io.into()
}
