//! `skylog.json`: what says that a folder is a skylog store, and which program can read it. It is JSON, so that anyone can
//! look; its last member is the checksum of all bytes before it, so that a flipped bit is never taken for another store.

use super::ids::Uuid;
use crate::base::canary::{Canary, removed};
use serde_json::{Map, Value, json};

const VERSION: u64 = 1;
/// What the checksum's member starts with; it is the last one.
const CRC_MEMBER: &str = "  \"crc\": \"";
/// In the list `incompatible`: the map of files counts what it holds, and whoever writes must go on counting.
const USAGE: &str = "usage";
/// A superblock is a few lines; above this, it is something else.
const BYTES_MAX: usize = 64 << 10;

/// The superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The filesystem.
    pub uuid: Uuid,
    /// When it was made: seconds since 1970.
    pub created: i64,
    /// Bytes in a journal segment.
    pub segment_size: u64,
    /// Whether nothing may ever be deleted.
    pub append_only: bool,
    /// Whether the map of files counts what it holds. Filesystems made before that was known do not.
    pub usage: bool,
}

/// Why a superblock cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    /// It is not JSON at all.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// It is JSON, but not a superblock.
    #[error("not the superblock of a skylog store")]
    NotSkylog,
    /// A newer program made it.
    #[error("format version {found}; this program knows versions up to {supported}")]
    Newer {
        /// The newest version known here.
        supported: u64,
        /// The version found.
        found: u64,
    },
    /// It uses something that this program does not know and must not ignore.
    #[error("the store uses the feature {0:?}, which this program does not know")]
    Incompatible(String),
    /// A member is missing or is not what it should be.
    #[error("member {0:?} is missing or cannot be read")]
    Member(&'static str),
    /// The bytes were changed after they were written.
    #[error("checksum mismatch: the file was changed or damaged")]
    Checksum,
}

impl Superblock {
    /// The bytes of the object.
    pub fn encode(&self) -> Vec<u8> {
        let text = format!(
            "{{\n  \"skylog\": {VERSION},\n  \"uuid\": \"{}\",\n  \"created\": {},\n  \"segment_size\": {},\n  \
             \"features\": {},\n  \"incompatible\": {},\n  \"key_slots\": [],\n",
            self.uuid,
            self.created,
            self.segment_size,
            json!({ "append_only": self.append_only }),
            json!(self.usage.then_some(USAGE).as_slice()),
        );
        let crc = crc32c::crc32c(text.as_bytes());
        format!("{text}{CRC_MEMBER}{crc:08x}\"\n}}\n").into_bytes()
    }

    /// Whether the bytes end in the right checksum of what is before it, whatever that says.
    pub fn is_sealed(bytes: &[u8]) -> bool {
        check_crc(bytes).is_ok()
    }

    /// Reads the bytes of the object. A newer version or an unknown feature is said before damage is looked for: their
    /// checksum may be computed in another way.
    pub fn decode(bytes: &[u8]) -> Result<Superblock, SuperblockError> {
        if bytes.len() > BYTES_MAX {
            return Err(SuperblockError::NotSkylog);
        }
        let value: Value = serde_json::from_slice(bytes).map_err(|e| SuperblockError::NotJson(e.to_string()))?;
        let members = value.as_object().ok_or(SuperblockError::NotSkylog)?;
        match members.get("skylog").ok_or(SuperblockError::NotSkylog)?.as_u64() {
            Some(VERSION) => {}
            Some(found) if found > VERSION => return Err(SuperblockError::Newer { supported: VERSION, found }),
            _ => return Err(SuperblockError::Member("skylog")),
        }
        refuse_all_but(&[USAGE], members, "incompatible")?;
        refuse_all_but(&[], members, "key_slots")?;
        check_crc(bytes)?;
        let features = members.get("features").and_then(Value::as_object);
        let append_only = features.and_then(|features| features.get("append_only")).and_then(Value::as_bool);
        let uuid = members.get("uuid").and_then(Value::as_str).and_then(|text| text.parse().ok());
        Ok(Superblock {
            uuid: uuid.ok_or(SuperblockError::Member("uuid"))?,
            created: members.get("created").and_then(Value::as_i64).ok_or(SuperblockError::Member("created"))?,
            segment_size: segment_size(members)?,
            append_only: append_only.ok_or(SuperblockError::Member("features"))?,
            usage: members["incompatible"].as_array().is_some_and(|list| list.iter().any(|entry| entry == USAGE)),
        })
    }
}

fn segment_size(members: &Map<String, Value>) -> Result<u64, SuperblockError> {
    let size = members.get("segment_size").and_then(Value::as_u64);
    size.filter(|size| *size > 0).ok_or(SuperblockError::Member("segment_size"))
}

/// A list of which this version knows some entries.
fn refuse_all_but(known: &[&str], members: &Map<String, Value>, name: &'static str) -> Result<(), SuperblockError> {
    let list = members.get(name).and_then(Value::as_array).ok_or(SuperblockError::Member(name))?;
    match list.iter().find(|entry| !entry.as_str().is_some_and(|entry| known.contains(&entry))) {
        None => Ok(()),
        Some(Value::String(feature)) => Err(SuperblockError::Incompatible(feature.clone())),
        Some(_) => Err(SuperblockError::Incompatible(name.to_owned())),
    }
}

/// The checksum is of the raw bytes before its member, and what follows is written in one way only.
fn check_crc(bytes: &[u8]) -> Result<(), SuperblockError> {
    let member = CRC_MEMBER.as_bytes();
    let covered = bytes.windows(member.len()).rposition(|window| window == member).ok_or(SuperblockError::Checksum)?;
    let tail = format!("{CRC_MEMBER}{:08x}\"\n}}\n", crc32c::crc32c(&bytes[..covered]));
    if bytes[covered..] == *tail.as_bytes() || removed(Canary::SuperblockCrc) {
        Ok(())
    } else {
        Err(SuperblockError::Checksum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::faults::assert_damage_is_found;

    fn sample() -> Superblock {
        Superblock {
            uuid: Uuid(0xabc),
            created: 1_700_000_000,
            segment_size: 64 << 20,
            append_only: false,
            usage: false,
        }
    }

    fn text() -> String {
        String::from_utf8(sample().encode()).expect("text")
    }

    /// The error after a change that a newer program or a person made, checksum included.
    fn refusal(from: &str, to: &str) -> SuperblockError {
        let text = text();
        assert!(text.contains(from), "{from:?} is in the sample");
        let changed = text.replacen(from, to, 1);
        let body = &changed[..changed.find(CRC_MEMBER).expect("a checksum")];
        let sealed = format!("{body}{CRC_MEMBER}{:08x}\"\n}}\n", crc32c::crc32c(body.as_bytes()));
        Superblock::decode(sealed.as_bytes()).expect_err("a fault")
    }

    #[test]
    fn superblocks_survive_the_trip() {
        for (append_only, usage) in [(false, false), (true, false), (false, true), (true, true)] {
            let superblock = Superblock { append_only, usage, ..sample() };
            assert_eq!(Superblock::decode(&superblock.encode()), Ok(superblock));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_superblock_is_found() {
        assert_damage_is_found(&sample().encode(), Superblock::decode);
    }

    #[test]
    fn foreign_newer_and_damaged_superblocks_are_told_apart() {
        assert!(matches!(Superblock::decode(b"hello"), Err(SuperblockError::NotJson(_))));
        assert!(matches!(Superblock::decode(b""), Err(SuperblockError::NotJson(_))));
        assert_eq!(Superblock::decode(b"[]"), Err(SuperblockError::NotSkylog));
        assert_eq!(Superblock::decode(b"{\"name\": 1}"), Err(SuperblockError::NotSkylog));
        let newer = refusal("\"skylog\": 1", "\"skylog\": 2");
        assert_eq!(newer, SuperblockError::Newer { supported: 1, found: 2 });
        let feature = refusal("\"incompatible\": []", "\"incompatible\": [\"zstd\"]");
        assert_eq!(feature, SuperblockError::Incompatible("zstd".into()));
        let feature = refusal("\"incompatible\": []", "\"incompatible\": [\"usage\", \"zstd\"]");
        assert_eq!(feature, SuperblockError::Incompatible("zstd".into()));
        let slot = refusal("\"key_slots\": []", "\"key_slots\": [{}]");
        assert_eq!(slot, SuperblockError::Incompatible("key_slots".into()));
        assert_eq!(refusal("\"segment_size\": 6", "\"size\": 6"), SuperblockError::Member("segment_size"));
        assert_eq!(refusal("00abc\"", "00ABC\""), SuperblockError::Member("uuid"));
        let edited = text().replace("1700000000", "1700000001");
        assert_eq!(Superblock::decode(edited.as_bytes()), Err(SuperblockError::Checksum));
    }

    #[test]
    fn members_that_this_version_does_not_know_are_ignored() {
        let body = text().replace("  \"created\"", "  \"comment\": \"x\",\n  \"created\"");
        let body = &body[..body.find(CRC_MEMBER).expect("a checksum")];
        let sealed = format!("{body}{CRC_MEMBER}{:08x}\"\n}}\n", crc32c::crc32c(body.as_bytes()));
        assert_eq!(Superblock::decode(sealed.as_bytes()), Ok(sample()));
    }
}
