//! Layer 1: bytes and structs. Pure, and no decoder can panic.
//!
//! `docs/format.md` describes every layout.

pub mod batch;
mod blocks;
pub mod checkpoint;
pub mod chunk;
pub mod error;
#[cfg(test)]
mod faults;
pub mod group;
pub mod ids;
pub mod inode;
pub mod journal_directory;
pub mod key;
pub mod lease;
pub mod manifest;
pub mod names;
pub mod node;
pub mod object_table;
pub mod publication;
pub mod repair_file;
pub mod space;
pub mod store_file;
pub mod store_segment;
pub mod superblock;
pub mod usage;
pub mod window;
mod wire;

pub use error::{Damage, FormatError};
