//! Layer 8: the frontend, the only place that names `fuser`. It translates a request, makes one call of the volume, and moves
//! the reply into what answers later. Event threads never wait; a method that thinks belongs in `fs/`.
//!
//! What is asked of the kernel, and why:
//! - long lifetimes of entries and attributes, negative entries, caches kept across opens: this daemon is the only writer;
//! - no write-back cache, unless the user asks: the kernel would hold data back for half a minute and reorder it against rename
//!   and mkdir. With it the kernel decides on size and times of regular files and sends them by `setattr`;
//! - real `open`, and truncation apart from it (no `ATOMIC_O_TRUNC`): the kernel looks whether the file is a running program
//!   between the two, so truncation as a part of `open` would end the program before the caller is refused;
//! - no `opendir`, no `flush`: they would carry nothing;
//! - but of a follower, where another machine writes: lifetimes of a second, `opendir`, and no cached pages but those of
//!   mappings (`following.rs`);
//! - set-id bits and capabilities of programs are taken away by `fs/` on every write, truncation and change of owner
//!   (`HANDLE_KILLPRIV_V2`): the kernel then asks for `security.capability` once, not before every write;
//! - access control lists that the kernel obeys (`POSIX_ACL`), unless the mount itself says who may, and the umask left to `fs/`, which alone knows whether a default
//!   list takes its place (`DONT_MASK`). `SETXATTR_EXT` must not be asked for: fuser does not know the longer request.

mod answer;
mod caller;
mod convert;
mod counted;
mod filesystem;
mod following;
mod handles;
mod listing;
mod mapped;
mod requests;
mod session;
mod shown;

pub use counted::Requests;
pub use mapped::Unwritten;
pub use session::{MountConfig, Mounted, mount};
pub use shown::Shown;

use requests::Frontend;

use fuser::{Generation, InitFlags, KernelConfig};
use std::time::Duration;

/// How long the kernel may believe an entry or attribute without asking again.
const LIFETIME: Duration = Duration::from_secs(3600);
/// Inode numbers are never used again, so every inode is of its number's first generation.
const GENERATION: Generation = Generation(0);
/// The largest write the kernel sends as one request, bytes; the volume may ask for less.
const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Requests of read-ahead and the like that the kernel sends without waiting for answers.
const BACKGROUND_MAX: u16 = 64;

/// What is asked of the kernel if it knows it.
const CAPABILITIES: [InitFlags; 7] = [
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_DONT_MASK,
];

/// Agrees with the kernel on how to talk.
fn negotiate(config: &mut KernelConfig, frontend: &Frontend) {
    let follows = frontend.following.is_some();
    let writeback = (frontend.writeback && !follows).then_some(InitFlags::FUSE_WRITEBACK_CACHE);
    // An access control list would give what the mount says that nobody has.
    let lists = (frontend.shown == Shown::default()).then_some(InitFlags::FUSE_POSIX_ACL);
    let handles = match follows {
        true => InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
        false => InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    };
    for capability in CAPABILITIES.into_iter().chain(writeback).chain(lists).chain([handles]) {
        if let Err(missing) = config.add_capabilities(capability) {
            log::info!("the kernel does not know {missing:?}");
        }
    }
    let write = u32::try_from(frontend.volume.write_bytes_max()).unwrap_or(WRITE_BYTES_MAX).min(WRITE_BYTES_MAX);
    if let Err(nearest) = config.set_max_write(write) {
        log::warn!("writes of {write} bytes are not possible, {nearest} would be");
    }
    if let Err(nearest) = config.set_max_background(BACKGROUND_MAX) {
        log::warn!("{BACKGROUND_MAX} requests in the background are not possible, {nearest} would be");
    }
}
