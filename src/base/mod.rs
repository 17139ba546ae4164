//! Layer 0: what every layer may lean on: time and randomness, which the simulator replaces, and how things are counted.

pub mod canary;
pub mod clock;
#[cfg(test)]
pub mod heard;
pub mod metrics;
pub mod random;
pub mod threads;
pub mod trouble;
