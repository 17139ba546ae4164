//! The real program on S3, through a proxy that makes network and store fail. Needs root, `/dev/fuse` and moto; where they are
//! missing these tests fail.

#[path = "../busy/mod.rs"]
mod busy;
mod commands;
#[path = "../counted/mod.rs"]
mod counted;
mod durability;
#[path = "../exposition/mod.rs"]
mod exposition;
mod faults;
mod follower;
mod full;
mod held;
mod load;
mod outage;
mod place;
mod proxy;
mod proxy_faults;
mod race;
mod readme;
mod refusals;
mod scratch;
mod secrets;
mod seeing;
mod server;
mod wiped;
