//! Layer 0: what every layer may lean on and the simulator replaces: time and randomness.

pub mod canary;
pub mod clock;
#[cfg(test)]
pub mod heard;
pub mod random;
pub mod trouble;
