//! Names in directories: for each a name key, for looking up, and a cookie key, for listing in a stable order.
//!
//! A cookie is never given twice in a directory, so a listing that goes on after a cookie meets each name that was there all
//! the time exactly once, whatever is added and removed meanwhile.

use super::NAME_BYTES_MAX;
use super::error::{Error, Stop, damaged};
use super::work::Work;
use crate::format::batch::TreeId;
use crate::format::ids::InodeNo;
use crate::format::inode::{CookieValue, Inode, NameValue};
use crate::format::key;
use bytes::Bytes;

/// The cookie of the first name of a directory; 1 and 2 are `.` and `..`.
pub(super) const COOKIE_FIRST: u64 = 3;

/// Whether a name is `.` or `..`.
pub(super) fn is_dot(name: &[u8]) -> bool {
    name == b"." || name == b".."
}

/// Refuses what can be no name at all.
pub(super) fn check_name(name: &[u8]) -> Result<(), Error> {
    match name.len() {
        0 => Err(Error::NoSuchName),
        1..=NAME_BYTES_MAX if name.iter().any(|b| *b == 0 || *b == b'/') => Err(Error::Invalid("a name with / or NUL")),
        1..=NAME_BYTES_MAX => Ok(()),
        found => Err(Error::NameTooLong { found, limit: NAME_BYTES_MAX }),
    }
}

impl Work<'_> {
    /// What a name in a directory stands for.
    pub fn entry(&mut self, dir: InodeNo, name: &[u8]) -> Result<Option<NameValue>, Stop> {
        let read = self.tx.read(TreeId::Files, &key::name(dir, name), |value| NameValue::decode(value))?;
        let what = |e| damaged(format_args!("name {:?} in directory {dir}: {e}", String::from_utf8_lossy(name)));
        read.transpose().map_err(what)
    }

    /// Puts a name at the end of a directory's listing.
    pub fn add_entry(
        &mut self,
        (dir_no, dir): (InodeNo, &mut Inode),
        name: &[u8],
        ino: InodeNo,
        kind: u8,
    ) -> Result<(), Stop> {
        let cookie = dir.next_cookie;
        if cookie < COOKIE_FIRST || cookie == u64::MAX {
            return Err(damaged(format_args!("directory {dir_no} has {cookie} as its next cookie")));
        }
        dir.next_cookie += 1;
        self.put_entry(dir_no, name, NameValue { ino, kind, cookie });
        Ok(())
    }

    /// Gives a name its place and meaning; what had this place or this name has it no more.
    pub fn put_entry(&mut self, dir: InodeNo, name: &[u8], value: NameValue) {
        let listed = CookieValue { ino: value.ino, kind: value.kind, name: Bytes::copy_from_slice(name) };
        self.put(key::cookie(dir, value.cookie), listed.encode());
        self.put(key::name(dir, name), value.encode());
    }

    pub fn remove_entry(&mut self, dir: InodeNo, name: &[u8], cookie: u64) {
        self.delete(key::name(dir, name));
        self.delete(key::cookie(dir, cookie));
    }

    pub fn is_empty_dir(&mut self, dir: InodeNo) -> Result<bool, Stop> {
        let (from, to) = key::names_of(dir);
        Ok(self.scan(&from, &to, 1)?.is_empty())
    }

    /// Notes a change of a directory's names.
    pub fn touch_dir(&self, dir: &mut Inode) {
        dir.mtime = self.now;
        dir.ctime = self.now;
    }
}
