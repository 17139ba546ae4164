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

/// Has the system start to write a range to the disk, so that a sync to come has less to wait for. Promises nothing.
pub(super) fn start_write_out(file: &File, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (libc::off64_t::try_from(offset), libc::off64_t::try_from(len)) else { return };
    #[expect(unsafe_code, reason = "the standard library does not offer sync_file_range")]
    // SAFETY: sync_file_range takes no pointers, and the descriptor is open while `file` is borrowed.
    let code = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
    // Not every filesystem takes the hint. What the disk refuses the sync will tell: an error is kept until then.
    let _ = code;
}

/// Keeps the C library's allocator from holding much more than what is allocated. To be called before the first thread starts.
///
/// By itself it gives each thread an arena of its own, up to eight a processor, and raises the size from which memory is
/// mapped, and given back when freed, to 32 MiB. What the threads of a mount pass to one another then leaves holes
/// everywhere: anonymous memory was twice of what it is with these limits.
#[cfg(target_env = "gnu")]
pub fn limit_heap() {
    const ARENAS_MAX: usize = 4;
    const MAPPED_FROM_BYTES: libc::c_int = 2 << 20;
    const FREE_TOP_BYTES: libc::c_int = 16 << 20;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let arenas = libc::c_int::try_from(processors.min(ARENAS_MAX)).expect("few arenas");
    let limits = [
        (libc::M_ARENA_MAX, arenas),
        (libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES),
        (libc::M_TRIM_THRESHOLD, FREE_TOP_BYTES),
    ];
    for (which, value) in limits {
        #[expect(unsafe_code, reason = "the standard library does not offer mallopt")]
        // SAFETY: mallopt takes no pointers; values it does not like it refuses.
        let code = unsafe { libc::mallopt(which, value) };
        if code == 0 {
            log::warn!("the allocator does not take limit {which}: it may hold more memory than it must");
        }
    }
}

/// Other C libraries have no such arenas.
#[cfg(not(target_env = "gnu"))]
pub fn limit_heap() {}
