//! Damage for the tests of every decoder: each bit flipped, each length cut.

use std::fmt::Debug;

/// Every flipped bit and every cut must be an error, and nothing may panic.
pub(crate) fn assert_damage_is_found<T: Debug, E>(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<T, E>) {
    assert!(decode(bytes).is_ok(), "undamaged bytes decode");
    assert_flips_are_found(bytes, |_| true, &decode);
    assert_cuts_are_found(bytes, &decode);
}

/// Every flipped bit must be an error in bytes for which `guarded` holds; elsewhere it only must not panic.
pub(crate) fn assert_flips_are_found<T: Debug, E>(
    bytes: &[u8],
    guarded: impl Fn(usize) -> bool,
    decode: impl Fn(&[u8]) -> Result<T, E>,
) {
    let mut flipped = bytes.to_vec();
    for at in 0..bytes.len() {
        for mask in [1u8, 2, 4, 8, 16, 32, 64, 128, 255] {
            flipped[at] ^= mask;
            let decoded = decode(&flipped);
            assert!(decoded.is_err() || !guarded(at), "byte {at} flipped by {mask:#x} gives {:?}", decoded.ok());
            flipped[at] ^= mask;
        }
    }
}

/// Every cut must be an error.
pub(crate) fn assert_cuts_are_found<T: Debug, E>(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<T, E>) {
    for len in 0..bytes.len() {
        let decoded = decode(&bytes[..len]);
        assert!(decoded.is_err(), "{len} of {} bytes give {:?}", bytes.len(), decoded.ok());
    }
}
