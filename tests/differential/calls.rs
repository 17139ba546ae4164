//! System calls as the kernel has them, for the one thread that makes them: credentials, root directory and umask are the
//! thread's own. Errors are error numbers.

#![expect(unsafe_code, reason = "the standard library offers neither the calls nor credentials of one thread")]

use super::step::{When, Who};
use std::ffi::CString;
use std::io;

/// What a call came to, or its error number.
pub type Answer<T = i64> = Result<T, i32>;

fn text(bytes: &[u8]) -> CString {
    CString::new(bytes).expect("paths and names have no zero byte")
}

fn word(pointer: *const impl Sized) -> libc::c_long {
    pointer as libc::c_long
}

/// Makes a system call. The arguments must be what the call expects, and pointers must live until it returns: every caller
/// is in this file.
fn call(number: libc::c_long, arguments: &[libc::c_long]) -> Answer {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    let [a, b, c, d, e, f] = all;
    // SAFETY: the callers in this file pass live buffers with their true lengths.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if answer < 0 { Err(io::Error::last_os_error().raw_os_error().expect("it failed")) } else { Ok(answer) }
}

const HERE: libc::c_long = libc::AT_FDCWD as libc::c_long;

fn long(number: impl TryInto<i64>) -> libc::c_long {
    number.try_into().ok().expect("arguments fit a register")
}

/// An unsigned number as the register that carries it.
fn bits(number: u64) -> libc::c_long {
    number as libc::c_long
}

/// Gives the calling thread a root directory, a working directory and a umask of its own.
pub fn own_root() {
    call(libc::SYS_unshare, &[long(libc::CLONE_FS)]).expect("root may unshare");
}

/// Makes `dir` the thread's root and working directory.
pub fn enter(dir: i32) {
    call(libc::SYS_fchdir, &[long(dir)]).expect("a directory");
    let here = text(b".");
    call(libc::SYS_chroot, &[word(here.as_ptr())]).expect("root may change its root");
}

/// Runs `work` with another user's credentials on this thread alone.
pub fn acting_as<T>(who: Who, work: impl FnOnce() -> T) -> T {
    if who == Who::Root {
        return work();
    }
    let (id, groups) = who.ids();
    let id = long(id);
    call(libc::SYS_setgroups, &[long(groups.len()), word(groups.as_ptr())]).expect("root may");
    call(libc::SYS_setresgid, &[id, id, 0]).expect("root may");
    call(libc::SYS_setresuid, &[id, id, 0]).expect("root may");
    let done = work();
    call(libc::SYS_setresuid, &[0, 0, 0]).expect("the saved user is root");
    call(libc::SYS_setresgid, &[0, 0, 0]).expect("root may");
    call(libc::SYS_setgroups, &[0, 0]).expect("root may");
    done
}

/// Sets the thread's umask and returns the one before.
pub fn umask(mask: u32) -> Answer {
    call(libc::SYS_umask, &[long(mask)])
}

pub fn open(path: &[u8], flags: i32, mode: u32) -> Answer<i32> {
    let path = text(path);
    let fd = call(libc::SYS_openat, &[HERE, word(path.as_ptr()), long(flags), long(mode)])?;
    Ok(i32::try_from(fd).expect("small"))
}

pub fn close(fd: i32) -> Answer {
    call(libc::SYS_close, &[long(fd)])
}

/// Reads at most `len` bytes, at an offset or at the file's position.
pub fn read(fd: i32, len: usize, at: Option<u64>) -> Answer<Vec<u8>> {
    let mut buffer = vec![0u8; len];
    let (into, room) = (word(buffer.as_mut_ptr()), long(len));
    let count = match at {
        None => call(libc::SYS_read, &[long(fd), into, room])?,
        Some(at) => call(libc::SYS_pread64, &[long(fd), into, room, bits(at)])?,
    };
    buffer.truncate(usize::try_from(count).expect("a count"));
    Ok(buffer)
}

/// Writes at an offset or at the file's position.
pub fn write(fd: i32, data: &[u8], at: Option<u64>) -> Answer {
    let (from, len) = (word(data.as_ptr()), long(data.len()));
    match at {
        None => call(libc::SYS_write, &[long(fd), from, len]),
        Some(at) => call(libc::SYS_pwrite64, &[long(fd), from, len, bits(at)]),
    }
}

pub fn seek(fd: i32, at: i64, whence: i32) -> Answer {
    call(libc::SYS_lseek, &[long(fd), at, long(whence)])
}

pub fn ftruncate(fd: i32, len: u64) -> Answer {
    call(libc::SYS_ftruncate, &[long(fd), bits(len)])
}

pub fn truncate(path: &[u8], len: u64) -> Answer {
    let path = text(path);
    call(libc::SYS_truncate, &[word(path.as_ptr()), bits(len)])
}

pub fn fallocate(fd: i32, mode: i32, at: u64, len: u64) -> Answer {
    call(libc::SYS_fallocate, &[long(fd), long(mode), bits(at), bits(len)])
}

pub fn copy_file_range(from: (i32, u64), to: (i32, u64), len: usize) -> Answer {
    let (mut from_at, mut to_at) = (from.1, to.1);
    let places = [long(from.0), word(&raw mut from_at), long(to.0), word(&raw mut to_at), long(len), 0];
    call(libc::SYS_copy_file_range, &places)
}

/// Stores `data` through a mapping of the file at an offset, shared or private, and returns what the mapping then holds. The
/// range must lie inside the file.
pub fn map(fd: i32, at: u64, data: &[u8], shared: bool) -> Answer<Vec<u8>> {
    let page = 4096;
    let skip = usize::try_from(at % page).expect("small");
    let len = skip + data.len();
    let how = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let start = call(libc::SYS_mmap, &[0, long(len), long(access), long(how), long(fd), bits(at - at % page)])?;
    // SAFETY: the mapping is `len` bytes long and inside the file, which no other thread changes.
    let mapped = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, len) };
    mapped[skip..].copy_from_slice(data);
    let seen = mapped[skip..].to_vec();
    let synced = call(libc::SYS_msync, &[start, long(len), long(libc::MS_SYNC)]);
    call(libc::SYS_munmap, &[start, long(len)]).expect("it was mapped");
    synced.map(|_| seen)
}

pub fn sync(fd: i32, data: bool) -> Answer {
    call(if data { libc::SYS_fdatasync } else { libc::SYS_fsync }, &[long(fd)])
}

pub fn mkdir(path: &[u8], mode: u32) -> Answer {
    let path = text(path);
    call(libc::SYS_mkdirat, &[HERE, word(path.as_ptr()), long(mode)])
}

/// Unlinks a name, or removes a directory.
pub fn unlink(path: &[u8], directory: bool) -> Answer {
    let path = text(path);
    call(libc::SYS_unlinkat, &[HERE, word(path.as_ptr()), if directory { long(libc::AT_REMOVEDIR) } else { 0 }])
}

pub fn rename(from: &[u8], to: &[u8], flags: u32) -> Answer {
    let (from, to) = (text(from), text(to));
    call(libc::SYS_renameat2, &[HERE, word(from.as_ptr()), HERE, word(to.as_ptr()), long(flags)])
}

pub fn link(from: &[u8], to: &[u8], follow: bool) -> Answer {
    let (from, to) = (text(from), text(to));
    let flags = if follow { libc::AT_SYMLINK_FOLLOW } else { 0 };
    call(libc::SYS_linkat, &[HERE, word(from.as_ptr()), HERE, word(to.as_ptr()), long(flags)])
}

/// Gives an open file a name, as its `/proc` link would.
pub fn link_open(fd: i32, to: &[u8]) -> Answer {
    let (from, to) = (text(b""), text(to));
    call(libc::SYS_linkat, &[long(fd), word(from.as_ptr()), HERE, word(to.as_ptr()), long(libc::AT_EMPTY_PATH)])
}

pub fn symlink(target: &[u8], path: &[u8]) -> Answer {
    let (target, path) = (text(target), text(path));
    call(libc::SYS_symlinkat, &[word(target.as_ptr()), HERE, word(path.as_ptr())])
}

pub fn readlink(path: &[u8]) -> Answer<Vec<u8>> {
    let path = text(path);
    let mut buffer = vec![0u8; 5000];
    let into = word(buffer.as_mut_ptr());
    let len = call(libc::SYS_readlinkat, &[HERE, word(path.as_ptr()), into, long(buffer.len())])?;
    buffer.truncate(usize::try_from(len).expect("a length"));
    Ok(buffer)
}

pub fn mknod(path: &[u8], mode: u32, device: (u32, u32)) -> Answer {
    let path = text(path);
    call(libc::SYS_mknodat, &[HERE, word(path.as_ptr()), long(mode), bits(libc::makedev(device.0, device.1))])
}

pub fn chmod(path: &[u8], mode: u32) -> Answer {
    let path = text(path);
    call(libc::SYS_fchmodat, &[HERE, word(path.as_ptr()), long(mode)])
}

pub fn fchmod(fd: i32, mode: u32) -> Answer {
    call(libc::SYS_fchmod, &[long(fd), long(mode)])
}

fn no_follow(follow: bool) -> libc::c_long {
    if follow { 0 } else { long(libc::AT_SYMLINK_NOFOLLOW) }
}

pub fn chown(path: &[u8], uid: u32, gid: u32, follow: bool) -> Answer {
    let path = text(path);
    call(libc::SYS_fchownat, &[HERE, word(path.as_ptr()), long(uid), long(gid), no_follow(follow)])
}

pub fn fchown(fd: i32, uid: u32, gid: u32) -> Answer {
    call(libc::SYS_fchown, &[long(fd), long(uid), long(gid)])
}

fn timespec(when: When) -> [i64; 2] {
    match when {
        When::Now => [0, libc::UTIME_NOW],
        When::Omit => [0, libc::UTIME_OMIT],
        When::At(seconds, nanos) => [seconds, i64::from(nanos)],
    }
}

pub fn utimens(path: &[u8], atime: When, mtime: When, follow: bool) -> Answer {
    let (path, times) = (text(path), [timespec(atime), timespec(mtime)]);
    call(libc::SYS_utimensat, &[HERE, word(path.as_ptr()), word(times.as_ptr()), no_follow(follow)])
}

pub fn futimens(fd: i32, atime: When, mtime: When) -> Answer {
    let times = [timespec(atime), timespec(mtime)];
    call(libc::SYS_utimensat, &[long(fd), 0, word(times.as_ptr()), 0])
}

/// A file of whose attributes is spoken.
pub enum Of<'a> {
    Path(&'a [u8]),
    Link(&'a [u8]),
    Fd(i32),
}

impl Of<'_> {
    /// Makes the one of three calls that fits, with the file as first argument.
    fn call(&self, [path, link, fd]: [libc::c_long; 3], rest: &[libc::c_long]) -> Answer {
        let with = |number, first| call(number, &[&[first], rest].concat());
        match self {
            Of::Path(name) => with(path, word(text(name).as_c_str().as_ptr())),
            Of::Link(name) => with(link, word(text(name).as_c_str().as_ptr())),
            Of::Fd(number) => with(fd, long(*number)),
        }
    }
}

pub fn set_xattr(of: &Of, name: &[u8], value: &[u8], flags: i32) -> Answer {
    let name = text(name);
    let rest = [word(name.as_ptr()), word(value.as_ptr()), long(value.len()), long(flags)];
    of.call([libc::SYS_setxattr, libc::SYS_lsetxattr, libc::SYS_fsetxattr], &rest)
}

/// The value, into a buffer of `len` bytes; with 0 its length alone is asked for.
pub fn get_xattr(of: &Of, name: &[u8], len: usize) -> Answer<(i64, Vec<u8>)> {
    let name = text(name);
    let mut buffer = vec![0u8; len];
    let rest = [word(name.as_ptr()), word(buffer.as_mut_ptr()), long(len)];
    let found = of.call([libc::SYS_getxattr, libc::SYS_lgetxattr, libc::SYS_fgetxattr], &rest)?;
    buffer.truncate(usize::try_from(found).expect("a length"));
    Ok((found, buffer))
}

/// The names, each with a zero byte behind it, into a buffer of `len` bytes.
pub fn list_xattr(of: &Of, len: usize) -> Answer<(i64, Vec<u8>)> {
    let mut buffer = vec![0u8; len];
    let rest = [word(buffer.as_mut_ptr()), long(len)];
    let found = of.call([libc::SYS_listxattr, libc::SYS_llistxattr, libc::SYS_flistxattr], &rest)?;
    buffer.truncate(usize::try_from(found).expect("a length"));
    Ok((found, buffer))
}

pub fn remove_xattr(of: &Of, name: &[u8]) -> Answer {
    let name = text(name);
    of.call([libc::SYS_removexattr, libc::SYS_lremovexattr, libc::SYS_fremovexattr], &[word(name.as_ptr())])
}

pub fn access(path: &[u8], mode: i32, flags: i32) -> Answer {
    let path = text(path);
    call(libc::SYS_faccessat2, &[HERE, word(path.as_ptr()), long(mode), long(flags)])
}

pub fn stat(of: &Of) -> Answer<libc::stat> {
    let mut found = std::mem::MaybeUninit::<libc::stat>::zeroed();
    let into = found.as_mut_ptr();
    let (dir, path, flags) = match of {
        Of::Path(path) => (libc::AT_FDCWD, text(path), 0),
        Of::Link(path) => (libc::AT_FDCWD, text(path), libc::AT_SYMLINK_NOFOLLOW),
        Of::Fd(fd) => (*fd, text(b""), libc::AT_EMPTY_PATH),
    };
    // SAFETY: `path` and `found` live until the call returns.
    let answer = unsafe { libc::fstatat(dir, path.as_ptr(), into, flags) };
    if answer < 0 {
        return Err(io::Error::last_os_error().raw_os_error().expect("it failed"));
    }
    // SAFETY: it was zeroed, and any bytes are a `stat`.
    Ok(unsafe { found.assume_init() })
}

pub fn statfs(of: &Of) -> Answer<libc::statfs> {
    let mut found = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    let into = word(found.as_mut_ptr());
    of.call([libc::SYS_statfs, libc::SYS_statfs, libc::SYS_fstatfs], &[into])?;
    // SAFETY: it was zeroed, and any bytes are a `statfs`.
    Ok(unsafe { found.assume_init() })
}

pub fn flock(fd: i32, how: i32) -> Answer {
    call(libc::SYS_flock, &[long(fd), long(how)])
}

/// Asks for a lock of the open file description, or gives it back, without waiting.
pub fn lock(fd: i32, kind: i32, at: i64, len: i64) -> Answer {
    let lock =
        libc::flock { l_type: i16::try_from(kind).expect("small"), l_whence: 0, l_start: at, l_len: len, l_pid: 0 };
    call(libc::SYS_fcntl, &[long(fd), long(libc::F_OFD_SETLK), word(&raw const lock)])
}

/// The kernel's coarse clock, from which filesystems take the times they set: seconds and nanoseconds.
pub fn coarse_clock() -> (i64, i64) {
    let mut now = [0i64; 2];
    call(libc::SYS_clock_gettime, &[long(libc::CLOCK_REALTIME_COARSE), word(now.as_mut_ptr())]).expect("a clock");
    (now[0], now[1])
}

/// A directory that is being listed.
pub struct Listing(*mut libc::DIR);

impl Listing {
    /// Lists an open directory, which is closed with the listing.
    pub fn of(fd: i32) -> Answer<Listing> {
        // SAFETY: the descriptor is the caller's to give away.
        let dir = unsafe { libc::fdopendir(fd) };
        if dir.is_null() { Err(libc::ENOTDIR) } else { Ok(Listing(dir)) }
    }

    /// The next name and type, without `.` and `..`.
    pub fn next(&mut self) -> Option<(Vec<u8>, u8)> {
        loop {
            // SAFETY: the listing is open, and its entry is copied before the next call.
            let entry = unsafe { libc::readdir64(self.0).as_ref()? };
            // SAFETY: the name ends with a zero byte.
            let name = unsafe { std::ffi::CStr::from_ptr(entry.d_name.as_ptr()) }.to_bytes().to_vec();
            if name != b"." && name != b".." {
                return Some((name, entry.d_type));
            }
        }
    }

    /// The place before the next name.
    pub fn tell(&self) -> libc::c_long {
        // SAFETY: the listing is open.
        unsafe { libc::telldir(self.0) }
    }

    /// Goes back to a told place.
    pub fn seek(&mut self, place: libc::c_long) {
        // SAFETY: the listing is open and the place was told by it.
        unsafe { libc::seekdir(self.0, place) }
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        // SAFETY: it is closed once.
        unsafe { libc::closedir(self.0) };
    }
}
