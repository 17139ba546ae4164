//! A store made by somebody who means harm: every checksum is right, and what stands behind them is not. Whatever it says, nothing
//! panics, goes round for ever or takes memory without end; what can be read is read, the rest is an error.
//!
//! `SKYLOG_HOSTILE_CASES=n` makes so many stores by chance, `SKYLOG_HOSTILE_SEED=n` others.

mod chance;
mod circles;
mod crowd;
mod forge;
mod life;
mod numbers;
mod random;

use forge::Forge;

/// The store that all forgeries begin with.
fn honest() -> Forge {
    thread_local! {
        static HONEST: Forge = Forge::of(&life::honest_store());
    }
    HONEST.with(Forge::clone)
}

#[test]
fn a_store_that_is_put_together_again_as_it_was_is_read_as_it_was() {
    let lived = life::live(&honest().store());
    assert_eq!(lived.refused, Vec::<String>::new(), "nothing is refused");
    assert!(lived.read > 10 && lived.changed > 10, "{lived:?}");
}
