//! The real program on real mounts. Needs root, `/dev/fuse`, `unshare`, `umount` and `python3`; where they are missing these tests fail.

mod after_death;
mod attributes;
#[path = "../busy/mod.rs"]
mod busy;
mod copies;
#[path = "../exposition/mod.rs"]
mod exposition;
mod follower;
mod helpers;
mod leases;
mod life;
mod limits;
mod metrics;
mod options;
mod outage;
mod private;
mod ranges;
mod repair;
mod requests;
mod salvage;
mod scratch;
mod sentences;
mod service;
mod users;
