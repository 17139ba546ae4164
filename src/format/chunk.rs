//! The header of a chunk: how its stored bytes are to be read and their checksum. It stands in the head of a batch for
//! each of the batch's objects, and in a store segment in front of each body and in the directory.

use super::error::FormatError;
use super::ids::OBJECT_BYTES_MAX;
use super::wire::{Reader, fits, layout, same_crc};
use crate::base::canary::Canary;
use bytes::BufMut;

layout! {
    /// The seal nonce comes last because it is the one field whose size a later cipher may leave partly unused.
    pub(crate) mod at, 40 bytes { CODEC: 1, SEAL: 1, KEY_SLOT: 2, RAW_LEN: 4, STORED_LEN: 4, CRC: 4, SEAL_NONCE: 24 }
}

/// Bytes of an encoded [`ChunkHeader`].
pub const CHUNK_HEADER_BYTES: usize = at::SIZE;
/// Bytes of it without the nonce.
pub(crate) const CHUNK_BRIEF_BYTES: usize = at::SEAL_NONCE;

/// The codec of bytes stored as they are.
pub const CODEC_RAW: u8 = 0;
/// The seal of bytes that are not encrypted.
pub const SEAL_NONE: u8 = 0;

/// How the stored bytes of a chunk are to be read. What is encrypted or compressed one day fills the same fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// How the bytes are compressed; only [`CODEC_RAW`] so far.
    pub codec: u8,
    /// How they are encrypted; only [`SEAL_NONE`] so far.
    pub seal: u8,
    /// Which key they are encrypted with; 0 without encryption.
    pub key_slot: u16,
    /// Bytes after opening and decompressing.
    pub raw_len: u32,
    /// Bytes as stored.
    pub stored_len: u32,
    /// CRC32C of the stored bytes.
    pub crc: u32,
    /// Nonce of the encryption; zero without.
    pub seal_nonce: [u8; 24],
}

impl ChunkHeader {
    /// The header of bytes that are stored as they are.
    pub fn raw(stored: &[u8]) -> ChunkHeader {
        let len = fits(stored.len());
        let crc = crc32c::crc32c(stored);
        ChunkHeader {
            codec: CODEC_RAW,
            seal: SEAL_NONE,
            key_slot: 0,
            raw_len: len,
            stored_len: len,
            crc,
            seal_nonce: [0; 24],
        }
    }

    /// Appends the header to `out`.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        self.encode_brief_to(out);
        out.put_slice(&self.seal_nonce);
    }

    /// Appends the header without the nonce.
    pub(crate) fn encode_brief_to(&self, out: &mut Vec<u8>) {
        out.put_u8(self.codec);
        out.put_u8(self.seal);
        out.put_u16_le(self.key_slot);
        out.put_u32_le(self.raw_len);
        out.put_u32_le(self.stored_len);
        out.put_u32_le(self.crc);
    }

    /// Reads the header of an object or of a chunk of objects: 1 to [`OBJECT_BYTES_MAX`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<ChunkHeader, FormatError> {
        ChunkHeader::read(&mut Reader::new(bytes), OBJECT_BYTES_MAX)
    }

    /// Reads a header from the next 40 bytes; the body may have up to `bytes_max` bytes.
    pub(crate) fn read(reader: &mut Reader<'_>, bytes_max: usize) -> Result<ChunkHeader, FormatError> {
        let header = ChunkHeader::read_brief(reader, bytes_max)?;
        reader.zeros(CHUNK_HEADER_BYTES - CHUNK_BRIEF_BYTES)?;
        Ok(header)
    }

    /// Reads a header without its nonce, which is zero until there is encryption.
    pub(crate) fn read_brief(reader: &mut Reader<'_>, bytes_max: usize) -> Result<ChunkHeader, FormatError> {
        let (codec, seal, key_slot) = (reader.u8()?, reader.u8()?, reader.u16()?);
        let (raw_len, stored_len, crc) = (reader.u32()?, reader.u32()?, reader.u32()?);
        if codec != CODEC_RAW {
            return Err(FormatError::Kind { found: u32::from(codec) });
        }
        if seal != SEAL_NONE {
            return Err(FormatError::Kind { found: u32::from(seal) });
        }
        if key_slot != 0 {
            return Err(FormatError::Value("a key slot without encryption"));
        }
        check_len(raw_len, bytes_max)?;
        if stored_len != raw_len {
            return Err(FormatError::Value("raw bytes stored with another length"));
        }
        Ok(ChunkHeader { codec, seal, key_slot, raw_len, stored_len, crc, seal_nonce: [0; 24] })
    }

    /// Checks stored bytes against the header.
    pub fn verify(&self, stored: &[u8]) -> Result<(), FormatError> {
        let (need, have) = (u64::from(self.stored_len), stored.len() as u64);
        if have < need {
            return Err(FormatError::TooShort { need, have });
        }
        if have > need {
            return Err(FormatError::TooBig { limit: need, found: have });
        }
        same_crc(self.crc, crc32c::crc32c(stored), Canary::ChunkCrc)
    }
}

/// A length must be at least 1 and at most `max`.
pub(crate) fn check_len(len: u32, max: usize) -> Result<(), FormatError> {
    if len == 0 {
        return Err(FormatError::TooShort { need: 1, have: 0 });
    }
    if len as usize > max {
        return Err(FormatError::TooBig { limit: max as u64, found: u64::from(len) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(header: ChunkHeader) -> Vec<u8> {
        let mut out = Vec::new();
        header.encode_to(&mut out);
        out
    }

    #[test]
    fn a_header_survives_the_trip() {
        let header = ChunkHeader::raw(b"some data");
        assert_eq!(ChunkHeader::decode(&encoded(header)), Ok(header));
        assert_eq!(header.verify(b"some data"), Ok(()));
    }

    #[test]
    fn promise_g1_object_size_is_limited_in_both_directions() {
        let sized = |len: u32| ChunkHeader { raw_len: len, stored_len: len, ..ChunkHeader::raw(b"x") };
        assert!(ChunkHeader::decode(&encoded(sized(1))).is_ok());
        assert!(ChunkHeader::decode(&encoded(sized(64 << 10))).is_ok());
        assert_eq!(ChunkHeader::decode(&encoded(sized(0))), Err(FormatError::TooShort { need: 1, have: 0 }));
        let too_big = FormatError::TooBig { limit: 65536, found: 65537 };
        assert_eq!(ChunkHeader::decode(&encoded(sized(65537))), Err(too_big));
    }

    #[test]
    fn stored_bytes_that_differ_are_refused() {
        let header = ChunkHeader::raw(b"some data");
        assert!(matches!(header.verify(b"some dat"), Err(FormatError::TooShort { .. })));
        assert!(matches!(header.verify(b"some data!"), Err(FormatError::TooBig { .. })));
        assert!(matches!(header.verify(b"some dada"), Err(FormatError::Checksum { .. })));
    }

    #[test]
    fn fields_of_later_versions_must_be_zero() {
        let header = ChunkHeader::raw(b"x");
        for later in [
            ChunkHeader { codec: 1, ..header },
            ChunkHeader { seal: 1, ..header },
            ChunkHeader { key_slot: 1, ..header },
            ChunkHeader { seal_nonce: [1; 24], ..header },
        ] {
            assert!(ChunkHeader::decode(&encoded(later)).is_err(), "{later:?}");
        }
    }
}
