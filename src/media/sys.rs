//! The system calls the standard library does not offer; the only file with `unsafe`.

use super::Space;
use std::ffi::CString;
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Size and free room of the disk that holds `path`.
pub(super) fn space(path: &Path) -> Result<Space> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(Error::other)?;
    let mut answer = MaybeUninit::<libc::statvfs>::uninit();
    #[expect(unsafe_code, reason = "the standard library does not offer statvfs")]
    // SAFETY: `path` is NUL-terminated and lives through the call; `answer` is writable and of the type asked for.
    let code = unsafe { libc::statvfs(path.as_ptr(), answer.as_mut_ptr()) };
    if code != 0 {
        return Err(Error::last_os_error());
    }
    #[expect(unsafe_code, reason = "statvfs fills memory the compiler cannot see filled")]
    // SAFETY: statvfs returned 0, so it filled all of `answer`.
    let answer = unsafe { answer.assume_init() };
    let block = answer.f_frsize;
    let bytes = |blocks: u64| blocks.saturating_mul(block);
    Ok(Space { total: bytes(answer.f_blocks), free: bytes(answer.f_bfree), available: bytes(answer.f_bavail) })
}

/// Takes the exclusive lock on an open file without waiting; `Ok(false)` when another holds it. It is released when
/// the file is closed, also by the death of the process.
pub(super) fn try_lock(file: &File) -> Result<bool> {
    loop {
        #[expect(unsafe_code, reason = "File::try_lock needs a newer compiler than the one promised")]
        // SAFETY: flock takes no pointers, and the descriptor is open while `file` is borrowed.
        let code = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
        if code == 0 {
            return Ok(true);
        }
        let error = Error::last_os_error();
        match error.kind() {
            ErrorKind::WouldBlock => return Ok(false),
            ErrorKind::Interrupted => {}
            _ => return Err(error),
        }
    }
}

/// Reads exactly `buf.len()` bytes at `offset` if they all are in the system's page cache; `false` if not, and for any error.
pub(crate) fn read_resident(file: &File, buf: &mut [u8], offset: u64) -> bool {
    let Ok(offset) = libc::off64_t::try_from(offset) else { return false };
    let parts = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    #[expect(unsafe_code, reason = "the standard library does not offer preadv2")]
    // SAFETY: `parts` describes `buf`, which is writable and borrowed for the whole call; the descriptor is open while `file` is
    // borrowed.
    let read = unsafe { libc::preadv64v2(file.as_raw_fd(), &raw const parts, 1, offset, libc::RWF_NOWAIT) };
    usize::try_from(read).is_ok_and(|read| read == buf.len())
}
