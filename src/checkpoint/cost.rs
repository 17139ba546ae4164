//! What a chain of increments costs whoever mounts from the store alone, and what a base costs us: so it is decided when a
//! new base is published. The figures are estimates; `docs/shipping.md` says where they come from.

use std::time::Duration;

/// One request to a store that is far away.
const ROUND_TRIP: Duration = Duration::from_millis(50);
/// Increments, and nodes under them, that a mount reads side by side.
const SIDE_BY_SIDE: u32 = 16;
/// Bytes that a slow line takes in a second.
const UPLOAD_BYTES_PER_SECOND: u64 = 16 << 20;
/// Bases may take one part in so many of the time.
const BASE_SHARE: u32 = 10;

/// How long it takes to replay increments over their base, and how long it may.
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    /// A new base is published when it would take longer.
    pub most: Duration,
    /// What each increment takes beside its bytes: it is fetched,
    pub increment: Duration,
    /// and each tree node that it changes: the base's is fetched and written again.
    pub node: Duration,
    /// Bytes of increments that are decoded and applied in a second.
    pub bytes_per_second: u64,
}

impl Default for Replay {
    fn default() -> Replay {
        let shared = ROUND_TRIP.checked_div(SIDE_BY_SIDE).unwrap_or(ROUND_TRIP);
        Replay { most: Duration::from_secs(2), increment: shared, node: shared, bytes_per_second: 32 << 20 }
    }
}

impl Replay {
    /// A new base after so many increments, or sooner when they have many of so many bytes. For tests.
    pub fn after(increments: u64, bytes: u64) -> Replay {
        let most = Duration::from_secs(1);
        Replay { most, increment: share_of(most, increments), node: Duration::ZERO, bytes_per_second: bytes }
    }

    /// What a chain takes.
    pub fn time(&self, chain: &Chain) -> Duration {
        let times = |one: Duration, n: u64| one.saturating_mul(u32::try_from(n).unwrap_or(u32::MAX));
        let bytes = bytes_at(self.bytes_per_second, chain.bytes);
        times(self.increment, chain.increments) + times(self.node, chain.nodes) + bytes
    }

    /// Whether a chain takes too long.
    pub fn is_long(&self, chain: &Chain) -> bool {
        self.time(chain) >= self.most
    }
}

fn share_of(whole: Duration, parts: u64) -> Duration {
    let nanos = whole.as_nanos().div_ceil(u128::from(parts.max(1)));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

fn bytes_at(per_second: u64, bytes: u64) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(per_second.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Increments over one base, published or still to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// How many.
    pub increments: u64,
    /// Bytes of their changes.
    pub bytes: u64,
    /// Tree nodes that their checkpoints wrote: a node that two of them wrote counts twice.
    pub nodes: u64,
}

impl std::ops::AddAssign for Chain {
    fn add_assign(&mut self, other: Chain) {
        self.increments += other.increments;
        self.bytes += other.bytes;
        self.nodes += other.nodes;
    }
}

/// Node segments that a base would upload.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewNodes {
    /// How many,
    pub segments: u64,
    /// and their bytes.
    pub bytes: u64,
}

impl NewNodes {
    /// Whether a base may follow another so soon: a tree that changes in very many places at a time is uploaded again by each
    /// base, so long a chain it must be for that.
    pub fn are_worth_it(&self, since_last: Duration) -> bool {
        since_last >= bytes_at(UPLOAD_BYTES_PER_SECOND, self.bytes).saturating_mul(BASE_SHARE)
    }

    /// Whether one base is sooner done than an increment for each of the windows that wait; the windows themselves cost the
    /// same either way. A base begins with the end of the generation before it.
    pub fn are_cheaper_than(&self, waiting: &Chain, uploads: usize) -> bool {
        let requests = |n: u64| ROUND_TRIP.saturating_mul(u32::try_from(n).unwrap_or(u32::MAX));
        let base = requests(2 + self.segments.div_ceil(uploads.max(1) as u64));
        let increments = requests(waiting.increments);
        base + bytes_at(UPLOAD_BYTES_PER_SECOND, self.bytes)
            < increments + bytes_at(UPLOAD_BYTES_PER_SECOND, waiting.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_chain_is_long_by_number_by_bytes_or_by_the_nodes_it_changes() {
        let replay = Replay::default();
        let chain = |increments, bytes, nodes| Chain { increments, bytes, nodes };
        for (chain, long) in [
            (chain(1, 1000, 5), false),
            (chain(100, 100 * 10_000, 500), false),
            (chain(640, 0, 0), true),
            (chain(100, 100 * 10_000, 600), true),
            (chain(3, 60 * MIB, 10), false),
            (chain(3, 64 * MIB, 10), true),
        ] {
            assert_eq!(replay.is_long(&chain), long, "{chain:?}: {:?}", replay.time(&chain));
        }
    }

    #[test]
    fn the_numbers_of_tests_mean_what_they_say() {
        for most in [1, 2, 3, 7, 100] {
            let replay = Replay::after(most, MIB);
            let chain = |increments| Chain { increments, ..Chain::default() };
            assert!(replay.is_long(&chain(most)) && !replay.is_long(&chain(most - 1)), "{most}");
            assert!(replay.is_long(&Chain { bytes: MIB, ..Chain::default() }));
        }
    }

    #[test]
    fn bases_of_a_tree_that_changes_everywhere_keep_apart() {
        let (little, much) = (NewNodes { segments: 3, bytes: MIB }, NewNodes { segments: 50, bytes: 800 * MIB });
        assert!(little.are_worth_it(Duration::from_secs(1)));
        assert!(!much.are_worth_it(Duration::from_secs(300)) && much.are_worth_it(Duration::from_secs(500)));
    }

    #[test]
    fn many_windows_that_wait_go_as_one_base_unless_the_tree_is_large() {
        let waiting = Chain { increments: 20, bytes: 20 * 10_000, nodes: 0 };
        assert!(NewNodes { segments: 20, bytes: MIB }.are_cheaper_than(&waiting, 3));
        assert!(!NewNodes { segments: 20, bytes: 100 * MIB }.are_cheaper_than(&waiting, 3));
        let few = Chain { increments: 2, ..waiting };
        assert!(!NewNodes { segments: 1, bytes: 1000 }.are_cheaper_than(&few, 3));
    }
}
