//! Layer 1: bytes and structs. Pure, and no decoder can panic.

pub mod batch;
pub mod chunk;
pub mod error;
#[cfg(test)]
mod faults;
pub mod group;
pub mod ids;
pub mod inode;
pub mod key;
pub mod node;
mod wire;

pub use error::{Damage, FormatError};
