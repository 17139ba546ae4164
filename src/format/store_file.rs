//! The file `store` of a state directory: which remote store the state belongs to, and the store's superblock as it was last
//! seen, so that a mount finds its state, and can start, while the store is away.

use super::superblock::{Superblock, SuperblockError};
use crate::base::canary::{Canary, removed};

/// Its name in the state directory.
pub const STORE_FILE: &str = "store";

const FIRST: &str = "skylog-store 1";
const CRC_KEY: &str = "\ncrc=";
/// A URL, an endpoint and a superblock; above this, it is something else.
const BYTES_MAX: usize = 128 << 10;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFile {
    /// The store's URL, as skylog writes it.
    pub url: String,
    /// Where the service listens, if it is not the usual place of its kind.
    pub endpoint: Option<String>,
    /// The store's superblock.
    pub superblock: Superblock,
}

/// Why the file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreFileError {
    /// Another program or a newer version wrote it.
    #[error("not a file that this version of skylog has written")]
    Foreign,
    /// The bytes were changed after they were written.
    #[error("checksum mismatch: the file was changed or damaged")]
    Checksum,
    /// A line is missing.
    #[error("the line {0:?} is missing")]
    Missing(&'static str),
    /// The copy of the superblock cannot be used.
    #[error("the copy of the superblock: {0}")]
    Superblock(#[from] SuperblockError),
}

impl StoreFile {
    /// The bytes of the file. URL and endpoint are one line each, or what is said would not be what was meant.
    pub fn encode(&self) -> Vec<u8> {
        let endpoint = self.endpoint.iter().map(|endpoint| format!("\nendpoint={endpoint}"));
        let head = format!("{FIRST}\nurl={}{}", self.url, endpoint.collect::<String>());
        assert_eq!(head.lines().count(), 2 + usize::from(self.endpoint.is_some()), "a URL is one line");
        let crc = crc32c::crc32c(head.as_bytes());
        [format!("{head}{CRC_KEY}{crc:08x}\n").as_bytes(), &self.superblock.encode()].concat()
    }

    /// Reads the bytes of the file. Lines that are not known are passed over.
    pub fn decode(bytes: &[u8]) -> Result<StoreFile, StoreFileError> {
        if bytes.len() > BYTES_MAX || !bytes.starts_with(FIRST.as_bytes()) {
            return Err(StoreFileError::Foreign);
        }
        let key = CRC_KEY.as_bytes();
        let at = bytes.windows(key.len()).position(|window| window == key).ok_or(StoreFileError::Missing("crc"))?;
        let head = std::str::from_utf8(&bytes[..at]).map_err(|_| StoreFileError::Checksum)?;
        let crc = format!("{CRC_KEY}{:08x}\n", crc32c::crc32c(head.as_bytes()));
        let (found, superblock) = bytes[at..].split_at_checked(crc.len()).ok_or(StoreFileError::Checksum)?;
        if found != crc.as_bytes() && !removed(Canary::StoreFileCrc) {
            return Err(StoreFileError::Checksum);
        }
        let line =
            |name: &str| head.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned()));
        Ok(StoreFile {
            url: line("url").ok_or(StoreFileError::Missing("url"))?,
            endpoint: line("endpoint"),
            superblock: Superblock::decode(superblock)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::faults::assert_damage_is_found;
    use crate::format::ids::Uuid;

    fn sample(endpoint: Option<&str>) -> StoreFile {
        let superblock =
            Superblock { uuid: Uuid(0xabc), created: 1, segment_size: 1 << 20, append_only: false, usage: true };
        StoreFile { url: "s3://bucket/a b".into(), endpoint: endpoint.map(String::from), superblock }
    }

    #[test]
    fn store_files_survive_the_trip() {
        for endpoint in [None, Some("http://127.0.0.1:9000")] {
            assert_eq!(StoreFile::decode(&sample(endpoint).encode()), Ok(sample(endpoint)));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_store_file_is_found() {
        assert_damage_is_found(&sample(Some("https://minio:9000")).encode(), StoreFile::decode);
    }

    #[test]
    fn lines_that_this_version_does_not_know_are_passed_over() {
        let head = format!("{FIRST}\ncolour=blue\nurl=s3://bucket/a b");
        let crc = crc32c::crc32c(head.as_bytes());
        let bytes = [format!("{head}{CRC_KEY}{crc:08x}\n").as_bytes(), &sample(None).superblock.encode()].concat();
        assert_eq!(StoreFile::decode(&bytes), Ok(sample(None)));
        assert_eq!(StoreFile::decode(b"skylog-store 2\n"), Err(StoreFileError::Foreign));
        assert_eq!(StoreFile::decode(b"skylog-store 1\nurl=x\n"), Err(StoreFileError::Missing("crc")));
    }
}
