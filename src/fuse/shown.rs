//! `uid=`, `gid=` and `umask=`: whose the files look and what they allow, the same for all of them. What is kept of a file does
//! not change by being shown; the kernel decides by what it is shown.

use super::convert;
use crate::fs::Attr;
use fuser::{Errno, FileAttr};

/// What is shown in the place of what is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The owner of everything.
    pub uid: Option<u32>,
    /// The group of everything.
    pub gid: Option<u32>,
    /// Permission bits that nothing has, but symbolic links, whose bits mean nothing.
    pub umask: u32,
}

impl Shown {
    /// Attributes as the kernel gets them.
    pub fn attr(self, attr: &Attr) -> FileAttr {
        let hidden = if attr.mode & libc::S_IFMT == libc::S_IFLNK { 0 } else { self.umask };
        let (uid, gid) = (self.uid.unwrap_or(attr.uid), self.gid.unwrap_or(attr.gid));
        convert::attr(&Attr { uid, gid, mode: attr.mode & !hidden, ..*attr })
    }

    /// What is left to change of an owner and a group that shall be given: nothing where all files are shown with that very
    /// one. Any other could not be seen afterwards, and is refused.
    pub fn owner(self, uid: Option<u32>, gid: Option<u32>) -> Result<(Option<u32>, Option<u32>), Errno> {
        Ok((left(self.uid, uid)?, left(self.gid, gid)?))
    }
}

fn left(shown: Option<u32>, asked: Option<u32>) -> Result<Option<u32>, Errno> {
    match shown {
        None => Ok(asked),
        Some(shown) if asked.is_none_or(|asked| asked == shown) => Ok(None),
        Some(_) => Err(Errno::EPERM),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Time;
    use crate::format::ids::InodeNo;

    fn kept(mode: u32) -> Attr {
        let time = Time::default();
        Attr {
            ino: InodeNo(7),
            size: 0,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            mode,
            nlink: 1,
            uid: 1000,
            gid: 100,
            rdev: 0,
        }
    }

    #[test]
    fn files_are_shown_as_the_mount_says() {
        let shown = Shown { uid: Some(5), gid: None, umask: 0o027 };
        let file = shown.attr(&kept(libc::S_IFREG | 0o4755));
        assert_eq!((file.uid, file.gid, file.perm), (5, 100, 0o4750));
        assert_eq!(shown.attr(&kept(libc::S_IFLNK | 0o777)).perm, 0o777);
        let plain = Shown::default().attr(&kept(libc::S_IFREG | 0o666));
        assert_eq!((plain.uid, plain.gid, plain.perm), (1000, 100, 0o666));
    }

    #[test]
    fn only_the_owner_that_is_shown_can_be_given() {
        let shown = Shown { uid: Some(5), gid: None, umask: 0 };
        assert_eq!(shown.owner(Some(5), Some(7)).ok(), Some((None, Some(7))));
        assert_eq!(shown.owner(None, None).ok(), Some((None, None)));
        assert!(shown.owner(Some(6), None).is_err());
    }
}
