//! Names and positions, each its own type, so that one is never taken for another.

use super::error::FormatError;
use std::fmt;
use std::str::FromStr;

/// A text does not name what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {0}")]
pub struct BadName(&'static str);

/// The number of an inode. The high 16 bits are reserved for snapshots in the mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeNo(pub u64);

impl InodeNo {
    /// The root directory.
    pub const ROOT: InodeNo = InodeNo(1);
    /// Keys that belong to no inode (orphans, pending deletions) live under this number.
    pub const NONE: InodeNo = InodeNo(0);
    /// The largest number given to a file.
    pub const MAX: InodeNo = InodeNo((1 << 48) - 1);
}

impl fmt::Display for InodeNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Identity and position of a batch. Positions grow by one from batch to batch, also across epochs; a new epoch never
/// reuses an Lsn, because the epoch differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn {
    /// The writer epoch; 0 only in [`Lsn::ZERO`].
    pub epoch: u32,
    /// The batch's number, from 1.
    pub pos: u64,
}

impl Lsn {
    /// Before every batch.
    pub const ZERO: Lsn = Lsn { epoch: 0, pos: 0 };

    /// The next Lsn of a writer in `epoch`.
    pub fn next(self, epoch: u32) -> Lsn {
        debug_assert!(epoch >= self.epoch, "epochs never go back");
        Lsn { epoch, pos: self.pos + 1 }
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.pos)
    }
}

impl FromStr for Lsn {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Lsn, BadName> {
        let (epoch, pos) = text.split_once('.').ok_or(BadName("an Lsn"))?;
        let lsn = Lsn {
            epoch: epoch.parse().map_err(|_| BadName("an Lsn"))?,
            pos: pos.parse().map_err(|_| BadName("an Lsn"))?,
        };
        as_printed(lsn, text, "an Lsn")
    }
}

/// Only the one way in which an id is printed names it.
fn as_printed<T: fmt::Display>(id: T, text: &str, what: &'static str) -> Result<T, BadName> {
    if id.to_string() == text { Ok(id) } else { Err(BadName(what)) }
}

/// A run of file data, at most [`OBJECT_BYTES_MAX`] long, named for ever by the batch that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// The batch.
    pub lsn: Lsn,
    /// Which of the batch's objects, from 0.
    pub n: u32,
}

impl ObjectId {
    /// What an extent names whose data is lost. It is no object: no batch has its Lsn.
    pub const LOST: ObjectId = ObjectId { lsn: Lsn::ZERO, n: 0 };
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.lsn, self.n)
    }
}

/// Bytes in an object, a chunk and an extent: the unit of reading.
pub const OBJECT_BYTES_MAX: usize = 64 << 10;

/// A store segment: (writer epoch, number in it). Never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNo {
    /// The writer epoch that made it.
    pub epoch: u32,
    /// Its number in that epoch.
    pub number: u64,
}

impl fmt::Display for SegmentNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.number)
    }
}

/// A journal segment's number; increasing over the life of a state directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JournalNo(pub u64);

impl fmt::Display for JournalNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Random name of one mount: nothing stale in a recycled journal segment can carry it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce(pub u128);

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Nonce {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Nonce, BadName> {
        let bits = u128::from_str_radix(text, 16).map_err(|_| BadName("a nonce"))?;
        as_printed(Nonce(bits), text, "a nonce")
    }
}

/// 128 random bits that name a filesystem or a state directory.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Uuid(pub u128);

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let h = format!("{:032x}", self.0);
        write!(f, "{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
    }
}

impl FromStr for Uuid {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Uuid, BadName> {
        let bits = u128::from_str_radix(&text.replace('-', ""), 16).map_err(|_| BadName("a UUID"))?;
        as_printed(Uuid(bits), text, "a UUID")
    }
}

/// What a store segment packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentKind {
    /// Chunks of file data.
    Chunks,
    /// Tree nodes.
    Nodes,
}

impl SegmentKind {
    pub(crate) fn code(self) -> u8 {
        match self {
            SegmentKind::Chunks => 1,
            SegmentKind::Nodes => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Result<SegmentKind, FormatError> {
        match code {
            1 => Ok(SegmentKind::Chunks),
            2 => Ok(SegmentKind::Nodes),
            found => Err(FormatError::Kind { found: u32::from(found) }),
        }
    }
}

/// Where a tree node lies: a store segment of nodes, the byte range in it, and the checksum of those bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodePtr {
    /// The node segment.
    pub segment: SegmentNo,
    /// Where the node starts in it.
    pub offset: u32,
    /// How long it is.
    pub len: u32,
    /// CRC32C of its bytes.
    pub crc: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_as_printed_and_no_other_way() {
        let (uuid, nonce, lsn) = (Uuid(0xabcd << 64 | 7), Nonce(0xef), Lsn { epoch: 3, pos: 41 });
        assert_eq!(uuid.to_string().parse(), Ok(uuid));
        assert_eq!(nonce.to_string().parse(), Ok(nonce));
        assert_eq!(lsn.to_string().parse(), Ok(lsn));
        assert!(uuid.to_string().to_uppercase().parse::<Uuid>().is_err());
        assert!("".parse::<Uuid>().is_err() && "ef".parse::<Nonce>().is_err());
        for text in ["", "3", "3.", ".41", "+3.41", "03.41", "3.41 ", "3.4.1"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }
}
