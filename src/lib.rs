//! skylog: an ordinary directory whose contents live in an object store.
//!
//! Modules from bottom to top; an import may only point down:
//! [`base`], [`format`], [`media`] and [`store`], [`journal`], [`locate`] and [`map`], [`fs`], then [`checkpoint`],
//! [`ship`], [`recovery`] and [`check`], then [`volume`], which puts them together, and [`fuse`], which the kernel talks to.

pub mod base;
pub mod check;
pub mod checkpoint;
pub mod format;
pub mod fs;
pub mod fuse;
pub mod journal;
pub mod locate;
pub mod map;
pub mod media;
pub mod recovery;
pub mod rig;
pub mod ship;
pub mod store;
pub mod volume;
