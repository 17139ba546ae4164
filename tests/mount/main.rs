//! The real program on real mounts. Needs root, `/dev/fuse`, `unshare`, `umount` and `python3`; where they are missing these tests fail.

mod helpers;
mod life;
mod options;
mod ranges;
mod requests;
mod scratch;
mod sentences;
mod users;
