//! Layer 6: following what another machine writes, by the store alone.

pub mod lease;
