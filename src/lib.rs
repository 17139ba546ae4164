//! skylog: an ordinary directory whose contents live in an object store.
//!
//! Modules from bottom to top; an import may only point down:
//! [`base`], [`mod@format`], [`media`] and [`store`], [`journal`] and [`cache`], [`locate`] and [`map`], [`fs`], then [`checkpoint`],
//! [`ship`], [`recovery`], [`follow`], [`check`], [`salvage`] and [`repair`], then [`volume`], which puts them together, and
//! [`fuse`], which the kernel talks to.
//!
//! A whole filesystem on simulated disk and store, every actor stepped by hand:
//!
//! ```
//! use skylog::format::ids::InodeNo;
//! use skylog::rig::{Rig, small};
//!
//! let mut rig = Rig::new(1, &small());
//! let (file, _) = rig.run(|fs, cx| fs.create(cx, InodeNo::ROOT, b"hello", 0o644))?;
//! rig.run(|fs, cx| fs.write(cx, file.ino, 0, b"world"))?;
//! rig.drain(); // journal, checkpoint, store: all of it
//! assert_eq!(rig.run(|fs, cx| fs.read(cx, file.ino, 0, 100))?, b"world");
//! # Ok::<(), skylog::fs::Error>(())
//! ```

pub mod base;
pub mod cache;
pub mod check;
pub mod checkpoint;
pub mod follow;
pub mod format;
pub mod fs;
pub mod fuse;
pub mod journal;
pub mod locate;
pub mod map;
pub mod media;
pub mod recovery;
pub mod repair;
pub mod rig;
pub mod salvage;
pub mod ship;
pub mod store;
pub mod volume;
