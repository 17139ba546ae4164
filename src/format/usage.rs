//! How much a filesystem holds, and how much it may hold: two values of the file map (see [`super::key`]).

use super::error::FormatError;
use super::wire::{Reader, layout};
use bytes::{BufMut, Bytes};

layout! {
    mod usage_at, 16 bytes { INODES: 8, BLOCKS: 8 }
}
layout! {
    mod limit_at, 17 bytes { BYTES: 8, INODES: 8, ON_LIMIT: 1 }
}

/// Bytes of an encoded [`Usage`].
pub const USAGE_BYTES: usize = usage_at::SIZE;
/// Bytes of an encoded [`UsageLimit`].
pub const LIMIT_BYTES: usize = limit_at::SIZE;
/// Bytes in one of the blocks that are counted.
const BLOCK_BYTES: u64 = 512;

/// What a filesystem holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Inodes that exist: the root and files without a name too.
    pub inodes: u64,
    /// The sum of their `blocks`, in units of 512 bytes.
    pub blocks: u64,
}

/// By how much an operation changes a [`Usage`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageChange {
    /// Inodes made, less those removed.
    pub inodes: i64,
    /// Blocks of 512 bytes taken, less those given back.
    pub blocks: i64,
}

impl Usage {
    /// What a filesystem with nothing but its root directory holds.
    pub const EMPTY: Usage = Usage { inodes: 1, blocks: 0 };

    /// The blocks as bytes.
    pub fn bytes(&self) -> u64 {
        self.blocks.saturating_mul(BLOCK_BYTES)
    }

    /// What it is after a change.
    pub fn after(self, change: UsageChange) -> Usage {
        Usage {
            inodes: self.inodes.saturating_add_signed(change.inodes),
            blocks: self.blocks.saturating_add_signed(change.blocks),
        }
    }

    /// The bytes of the value.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(USAGE_BYTES);
        out.put_u64_le(self.inodes);
        out.put_u64_le(self.blocks);
        out.into()
    }

    /// Reads the value.
    pub fn decode(bytes: &[u8]) -> Result<Usage, FormatError> {
        let mut field = Reader::new(bytes);
        let usage = Usage { inodes: field.counted()?, blocks: field.counted()? };
        field.end()?;
        Ok(usage)
    }
}

impl UsageChange {
    /// Whether nothing changes.
    pub fn is_none(&self) -> bool {
        *self == UsageChange::default()
    }
}

/// What an operation fails with that would go above a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLimit {
    /// ENOSPC: the limit is the size of the filesystem.
    #[default]
    NoSpace,
    /// EDQUOT: the limit is a quota.
    Quota,
}

impl OnLimit {
    /// The word for it on the command line.
    pub fn word(self) -> &'static str {
        match self {
            OnLimit::NoSpace => "enospc",
            OnLimit::Quota => "edquot",
        }
    }
}

impl std::str::FromStr for OnLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<OnLimit, String> {
        let known = [OnLimit::NoSpace, OnLimit::Quota].into_iter().find(|on_limit| on_limit.word() == text);
        known.ok_or_else(|| format!("{text:?} is neither enospc nor edquot"))
    }
}

/// How much a filesystem may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageLimit {
    /// Most bytes of all blocks together; 0 is no limit.
    pub bytes: u64,
    /// Most inodes; 0 is no limit.
    pub inodes: u64,
    /// What is said above it.
    pub on_limit: OnLimit,
}

impl UsageLimit {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        self.bytes == 0 && self.inodes == 0
    }

    /// Whether a change from `before` to `after` is refused: what grows must stay within its limit.
    pub fn refuses(&self, before: Usage, after: Usage) -> bool {
        let above = |limit: u64, before: u64, after: u64| limit != 0 && after > before && after > limit;
        above(self.bytes, before.bytes(), after.bytes()) || above(self.inodes, before.inodes, after.inodes)
    }

    /// The bytes of the value.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(LIMIT_BYTES);
        out.put_u64_le(self.bytes);
        out.put_u64_le(self.inodes);
        out.put_u8(match self.on_limit {
            OnLimit::NoSpace => 1,
            OnLimit::Quota => 2,
        });
        out.into()
    }

    /// Reads the value.
    pub fn decode(bytes: &[u8]) -> Result<UsageLimit, FormatError> {
        let mut field = Reader::new(bytes);
        let (bytes, inodes) = (field.u64()?, field.u64()?);
        let on_limit = match field.u8()? {
            1 => OnLimit::NoSpace,
            2 => OnLimit::Quota,
            found => return Err(FormatError::Kind { found: u32::from(found) }),
        };
        field.end()?;
        Ok(UsageLimit { bytes, inodes, on_limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::wire::COUNTED_MAX;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn usage_survives_the_trip(inodes in 0..=COUNTED_MAX, blocks in 0..=COUNTED_MAX) {
            let usage = Usage { inodes, blocks };
            prop_assert_eq!(Usage::decode(&usage.encode()), Ok(usage));
        }

        #[test]
        fn limits_survive_the_trip(bytes: u64, inodes: u64, quota: bool) {
            let limit = UsageLimit { bytes, inodes, on_limit: if quota { OnLimit::Quota } else { OnLimit::NoSpace } };
            prop_assert_eq!(UsageLimit::decode(&limit.encode()), Ok(limit));
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            if let Ok(usage) = Usage::decode(&bytes) {
                prop_assert_eq!(&usage.encode()[..], &bytes[..]);
            }
            if let Ok(limit) = UsageLimit::decode(&bytes) {
                prop_assert_eq!(&limit.encode()[..], &bytes[..]);
            }
        }
    }

    #[test]
    fn promise_g1_faults_of_usage_and_limit_are_told_apart() {
        assert_eq!(Usage::decode(&[0; 15]), Err(FormatError::TooShort { need: 16, have: 15 }));
        assert_eq!(Usage::decode(&[0; 17]), Err(FormatError::TooBig { limit: 16, found: 17 }));
        assert_eq!(UsageLimit::decode(&[0; 17]), Err(FormatError::Kind { found: 0 }));
    }

    #[test]
    fn only_what_grows_above_its_limit_is_refused() {
        let limit = UsageLimit { bytes: 10 * 512, inodes: 5, on_limit: OnLimit::NoSpace };
        let usage = |inodes, blocks| Usage { inodes, blocks };
        assert!(!limit.refuses(usage(4, 9), usage(5, 10)), "up to the limit");
        assert!(limit.refuses(usage(5, 10), usage(5, 11)) && limit.refuses(usage(5, 10), usage(6, 10)));
        assert!(limit.refuses(usage(1, 0), usage(1, 11)), "across it");
        assert!(limit.refuses(usage(5, 10), usage(6, 1)), "freeing one does not pay for the other");
        assert!(!limit.refuses(usage(9, 20), usage(9, 20)) && !limit.refuses(usage(9, 20), usage(8, 19)));
        let none = UsageLimit::default();
        assert!(!none.refuses(usage(0, 0), usage(u64::MAX, u64::MAX)));
    }
}
