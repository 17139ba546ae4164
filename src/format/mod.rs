//! Layer 1: bytes and structs. Pure, and no decoder can panic.

pub mod batch;
pub mod ids;
pub mod key;
