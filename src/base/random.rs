//! Randomness enters as an argument: production reads the kernel's, the simulator replays a seed.

use std::io::Read;
use std::sync::Mutex;

/// Where random numbers come from.
pub trait Random: Send + Sync {
    /// 64 random bits.
    fn u64(&self) -> u64;

    /// 128 random bits.
    fn u128(&self) -> u128 {
        u128::from(self.u64()) << 64 | u128::from(self.u64())
    }
}

/// The kernel's random numbers.
pub struct OsRandom;

impl Random for OsRandom {
    /// # Panics
    /// When `/dev/urandom` cannot be read: without it no nonce is safe.
    fn u64(&self) -> u64 {
        let mut bytes = [0; 8];
        let mut source = std::fs::File::open("/dev/urandom").expect("/dev/urandom opens");
        source.read_exact(&mut bytes).expect("/dev/urandom gives bytes");
        u64::from_le_bytes(bytes)
    }
}

/// The same numbers for the same seed (SplitMix64, Steele and others, OOPSLA 2014).
pub struct SeededRandom {
    state: Mutex<u64>,
    /// Given out first, the last one first.
    fed: Mutex<Vec<u64>>,
}

impl SeededRandom {
    /// A source that depends on `seed` alone.
    pub fn new(seed: u64) -> SeededRandom {
        SeededRandom { state: Mutex::new(seed), fed: Mutex::default() }
    }

    /// A source that gives out these bytes first, one a number: whoever chooses them chooses what is made of the numbers.
    pub fn fed(bytes: &[u8]) -> SeededRandom {
        let fed = bytes.iter().rev().map(|byte| u64::from(*byte)).collect();
        SeededRandom { state: Mutex::new(0), fed: Mutex::new(fed) }
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&self, bound: u64) -> u64 {
        self.u64() % bound
    }
}

impl Random for SeededRandom {
    fn u64(&self) -> u64 {
        if let Some(fed) = self.fed.lock().expect("no panic while it is held").pop() {
            return fed;
        }
        let mut state = self.state.lock().expect("no panic while the state is held");
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
