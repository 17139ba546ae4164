//! skylog: an ordinary directory whose contents live in an object store.

pub mod base;
pub mod format;
pub mod fs;
pub mod journal;
pub mod map;
pub mod media;
pub mod store;
