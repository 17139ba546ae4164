//! Who uses a filesystem: the writer's hold, and the leases by which followers keep what they read from being deleted.
//!
//! Each holder has a name, `who`, and a sequence of numbered objects under it, created if absent. The newest number counts. So
//! a holder says it goes on by creating the next number, and whoever may end that creates the next number in its place.

use super::error::FormatError;
use super::ids::Uuid;
use super::wire::{COUNTED_MAX, Reader, VERSION, check_seal, fits, layout, seal};
use crate::base::canary::Canary;
use bytes::BufMut;

const MAGIC: u32 = u32::from_le_bytes(*b"SKle");

layout! {
    /// Three texts follow, each a length, u16, and UTF-8: host, boot, mount point.
    mod at, 96 bytes {
        MAGIC: 4, CRC: 4, VERSION: 2, KIND: 1, STATE: 1, UUID: 16, WHO: 16, NUMBER: 8, EPOCH: 4, PID: 4, STARTED: 8,
        SINCE: 8, WALL: 8, CHECKPOINT: 8, SECONDS: 4,
    }
}

/// The longest text in a lease, bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// For how many seconds one number of a follower's lease counts.
pub const FOLLOWER_SECONDS: u32 = 60;

/// The highest number of a lease. No holder comes to it by going on, and nobody could win the number after it: a holder that has it
/// has ended, whatever is there. Names with higher ones are not ours.
pub const LEASE_NUMBER_MAX: u64 = COUNTED_MAX;

/// A process that uses a filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Name of the machine.
    pub host: String,
    /// Boot of that machine; another one means that all its processes of then are dead.
    pub boot: String,
    /// The process.
    pub pid: u32,
    /// When the process started, in clock ticks since the boot: tells it from a later one of the same pid.
    pub started: u64,
    /// Where it serves the filesystem.
    pub mount_point: String,
}

impl Owner {
    /// The only process of a machine that exists in a test or in the simulator.
    pub fn of_test(host: &str) -> Owner {
        Owner { host: host.into(), boot: host.into(), pid: 1, started: 1, mount_point: "/mnt".into() }
    }

    /// One line for a message.
    pub fn describe(&self) -> String {
        format!("process {} on {}, mounted at {}", self.pid, self.host, self.mount_point)
    }
}

/// What a holder does with the filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseKind {
    /// It writes. Its hold is a hint for people and is not renewed; the fence is the proof.
    Writer,
    /// It reads what is published.
    Follower,
}

/// What the newest number of a holder says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// It uses the filesystem.
    Held,
    /// It says itself that it does so no longer.
    Released,
    /// Another one says that it may do so no longer; the owner is that other one.
    Closed,
}

/// One numbered object of a holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The filesystem.
    pub filesystem: Uuid,
    /// The holder: of a writer its state directory, of a follower random for each mount.
    pub who: Uuid,
    /// The number, from 1.
    pub number: u64,
    /// What the holder does.
    pub kind: LeaseKind,
    /// What is said of it.
    pub state: LeaseState,
    /// Who wrote this number: the holder, and of a [`LeaseState::Closed`] the one that closed it.
    pub owner: Owner,
    /// Since when the holder is there: nanoseconds since 1970.
    pub since: i64,
    /// When this number was written: nanoseconds since 1970.
    pub wall: i64,
    /// For how many seconds this number counts from when its creation began; 0 for as long as it is the newest.
    pub seconds: u32,
    /// Of a follower the oldest published checkpoint whose state it reads, 0 while that may be any; of a writer 0.
    pub checkpoint: u64,
    /// Of a writer its epoch, of a follower 0.
    pub epoch: u32,
}

impl LeaseKind {
    fn code(self) -> u8 {
        match self {
            LeaseKind::Writer => 1,
            LeaseKind::Follower => 2,
        }
    }

    fn from_code(code: u8) -> Result<LeaseKind, FormatError> {
        match code {
            1 => Ok(LeaseKind::Writer),
            2 => Ok(LeaseKind::Follower),
            found => Err(FormatError::Kind { found: u32::from(found) }),
        }
    }
}

impl LeaseState {
    fn code(self) -> u8 {
        match self {
            LeaseState::Held => 1,
            LeaseState::Released => 2,
            LeaseState::Closed => 3,
        }
    }

    fn from_code(code: u8) -> Result<LeaseState, FormatError> {
        match code {
            1 => Ok(LeaseState::Held),
            2 => Ok(LeaseState::Released),
            3 => Ok(LeaseState::Closed),
            found => Err(FormatError::Kind { found: u32::from(found) }),
        }
    }
}

impl Lease {
    /// The bytes of the object. Texts are for people: one that is too long is cut.
    pub fn encode(&self) -> Vec<u8> {
        let Lease { kind, state, owner, .. } = self;
        let mut out = Vec::with_capacity(at::SIZE + 256);
        out.put_u32_le(MAGIC);
        out.put_u32_le(0);
        out.put_u16_le(VERSION);
        out.put_u8(kind.code());
        out.put_u8(state.code());
        out.put_u128_le(self.filesystem.0);
        out.put_u128_le(self.who.0);
        out.put_u64_le(self.number);
        out.put_u32_le(self.epoch);
        out.put_u32_le(owner.pid);
        out.put_u64_le(owner.started);
        out.put_i64_le(self.since);
        out.put_i64_le(self.wall);
        out.put_u64_le(self.checkpoint);
        out.put_u32_le(self.seconds);
        debug_assert_eq!(out.len(), at::SIZE, "the layout is what is written");
        for text in [&owner.host, &owner.boot, &owner.mount_point] {
            let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end));
            let text = &text[..end.unwrap_or(0)];
            out.put_u16_le(fits(text.len()));
            out.put_slice(text.as_bytes());
        }
        seal(&mut out, at::CRC);
        out
    }

    /// Reads the bytes of the object.
    pub fn decode(bytes: &[u8]) -> Result<Lease, FormatError> {
        let mut field = Reader::new(bytes);
        field.magic("a lease", MAGIC)?;
        let _crc = field.u32()?;
        field.version()?;
        let (kind, state) = (field.u8()?, field.u8()?);
        check_seal(bytes, at::CRC, Canary::LeaseCrc)?;
        let (kind, state) = (LeaseKind::from_code(kind)?, LeaseState::from_code(state)?);
        let (filesystem, who, number, epoch) = (field.uuid()?, field.uuid()?, field.counted()?, field.u32()?);
        let (pid, started, since, wall) = (field.u32()?, field.u64()?, field.i64()?, field.i64()?);
        let (checkpoint, seconds) = (field.counted()?, field.u32()?);
        let (host, boot, mount_point) = (text(&mut field)?, text(&mut field)?, text(&mut field)?);
        field.end()?;
        let owner = Owner { host, boot, pid, started, mount_point };
        Ok(Lease { filesystem, who, number, kind, state, owner, since, wall, seconds, checkpoint, epoch })
    }
}

fn text(field: &mut Reader<'_>) -> Result<String, FormatError> {
    let len = usize::from(field.u16()?);
    if len > TEXT_BYTES_MAX {
        return Err(FormatError::TooBig { limit: TEXT_BYTES_MAX as u64, found: len as u64 });
    }
    let text =
        std::str::from_utf8(field.take(len)?).map_err(|_| FormatError::Value("a lease whose owner is not text"))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::faults::assert_damage_is_found;

    fn sample(kind: LeaseKind, state: LeaseState) -> Lease {
        let (host, boot, mount_point) = ("host.example".into(), "boot".into(), "/mnt/a b".into());
        Lease {
            filesystem: Uuid(1),
            who: Uuid(2),
            number: 3,
            kind,
            state,
            owner: Owner { host, boot, pid: 4711, started: 99, mount_point },
            since: 5,
            wall: -6,
            seconds: 60,
            checkpoint: 7,
            epoch: 8,
        }
    }

    #[test]
    fn leases_survive_the_trip() {
        for kind in [LeaseKind::Writer, LeaseKind::Follower] {
            for state in [LeaseState::Held, LeaseState::Released, LeaseState::Closed] {
                let lease = sample(kind, state);
                assert_eq!(Lease::decode(&lease.encode()), Ok(lease));
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_lease_is_found() {
        assert_damage_is_found(&sample(LeaseKind::Follower, LeaseState::Held).encode(), Lease::decode);
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_between_characters() {
        let mut lease = sample(LeaseKind::Writer, LeaseState::Held);
        lease.owner.mount_point = "x".to_owned() + &"ü".repeat(TEXT_BYTES_MAX);
        let found = Lease::decode(&lease.encode()).expect("decodes");
        assert_eq!(found.owner.mount_point, lease.owner.mount_point[..TEXT_BYTES_MAX - 1]);
    }
}
