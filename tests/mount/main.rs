//! The real program on real mounts. Needs root, `/dev/fuse`, `unshare` and `umount`; where they are missing these tests fail.

mod life;
mod limits;
mod scratch;
mod sentences;
