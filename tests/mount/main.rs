//! The real program on real mounts. Needs root, `/dev/fuse`, `unshare` and `umount`; where they are missing these tests fail.

mod helpers;
mod life;
mod requests;
mod scratch;
mod sentences;
