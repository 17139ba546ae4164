//! What one operation adds to the log: a head with the edits and the headers of the objects, then, in the journal, the
//! objects' bytes. An increment carries heads alone.
//!
//! The checksum covers the head; each object has its own in its header, so an object can be moved without its batch.

use super::chunk::{CHUNK_HEADER_BYTES, ChunkHeader, check_len};
use super::error::FormatError;
use super::ids::{InodeNo, Lsn, OBJECT_BYTES_MAX, ObjectId};
use super::inode::Extent;
use super::key::{self, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use super::wire::{LSN_BYTES, PutIds, Reader, check_seal, fits, layout, seal};
use crate::base::canary::{Canary, removed};
use bytes::{BufMut, Bytes};

/// Which of the two ordered maps an edit changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TreeId {
    /// All metadata of files.
    Files,
    /// The space tree: segments, windows, counts, pending deletions, high-water marks.
    Space,
}

/// One change to an ordered map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// The key has this value from now on.
    Put {
        /// Encoded key.
        key: Bytes,
        /// Encoded value.
        value: Bytes,
    },
    /// The key is gone.
    Delete {
        /// Encoded key.
        key: Bytes,
    },
    /// All keys in `from..to` are gone.
    DeleteRange {
        /// First key of the range.
        from: Bytes,
        /// First key after it.
        to: Bytes,
    },
    /// A put of an extent over the whole of object `n` of this very batch, whose Lsn is not known when the edit is made.
    /// Applying it makes the ordinary extent entry (see [`super::key`]).
    OwnExtent {
        /// The file.
        ino: InodeNo,
        /// Where in the file the extent starts, bytes.
        offset: u64,
        /// Which of the batch's objects, from 0; the extent is as long as the object.
        n: u32,
    },
}

impl Edit {
    /// What the edit does once the batch has its Lsn: an [`Edit::OwnExtent`] becomes the put of the ordinary extent entry.
    ///
    /// # Panics
    /// When the edit names an object that the batch does not have; [`Batch::decode`] refuses such a batch.
    pub fn resolve(self, lsn: Lsn, objects: &[ChunkHeader]) -> Edit {
        match self {
            Edit::OwnExtent { ino, offset, n } => {
                let object = ObjectId { lsn, n };
                let extent = Extent { len: objects[n as usize].raw_len, object, object_offset: 0 };
                Edit::Put { key: key::extent(ino, offset), value: extent.encode() }
            }
            other => other,
        }
    }
}

const MAGIC: u32 = u32::from_le_bytes(*b"SKba");
/// The objects' bytes follow the head.
const FLAG_PAYLOAD: u16 = 1 << 0;

layout! {
    /// The head starts with these; then come the edits, then a chunk header for each object.
    mod at, 36 bytes {
        MAGIC: 4, CRC: 4, LSN: super::LSN_BYTES, FLAGS: 2, RESERVED: 2, EDIT_COUNT: 4, EDITS_LEN: 4, OBJECT_COUNT: 4,
    }
}

/// Bytes of the head before the edits.
pub const BATCH_HEAD_BYTES: usize = at::SIZE;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DELETE_RANGE: u8 = 3;
const OWN_EXTENT: u8 = 4;
/// Set in an edit's tag when it changes the space tree.
const SPACE: u8 = 0x80;

layout! {
    mod put_at, 7 bytes { TAG: 1, KEY_LEN: 2, VALUE_LEN: 4 }
}
layout! {
    mod own_extent_at, 21 bytes { TAG: 1, INO: 8, OFFSET: 8, N: 4 }
}
/// The shortest edit: tag, key length, a key of one byte.
const EDIT_BYTES_MIN: usize = 1 + 2 + 1;

/// Encodes edits in order.
///
/// # Panics
/// When a key or value is longer than [`Batch::decode`] takes: such a batch could never be replayed.
pub fn encode_edits(edits: &[(TreeId, Edit)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(edits.iter().map(|(_, edit)| edit_bytes(edit)).sum());
    for (tree, edit) in edits {
        assert_replayable(edit);
        let tree = match tree {
            TreeId::Files => 0,
            TreeId::Space => SPACE,
        };
        match edit {
            Edit::Put { key, value } => {
                out.put_u8(tree | PUT);
                out.put_u16_le(fits(key.len()));
                out.put_u32_le(fits(value.len()));
                out.put_slice(key);
                out.put_slice(value);
            }
            Edit::Delete { key } => {
                out.put_u8(tree | DELETE);
                out.put_u16_le(fits(key.len()));
                out.put_slice(key);
            }
            Edit::DeleteRange { from, to } => {
                out.put_u8(tree | DELETE_RANGE);
                out.put_u16_le(fits(from.len()));
                out.put_u16_le(fits(to.len()));
                out.put_slice(from);
                out.put_slice(to);
            }
            Edit::OwnExtent { ino, offset, n } => {
                out.put_u8(tree | OWN_EXTENT);
                out.put_u64_le(ino.0);
                out.put_u64_le(*offset);
                out.put_u32_le(*n);
            }
        }
    }
    out
}

fn assert_replayable(edit: &Edit) {
    let key_fits = |key: &Bytes| assert!((1..=KEY_BYTES_MAX).contains(&key.len()), "a key of {} bytes", key.len());
    match edit {
        Edit::Put { key, value } => {
            key_fits(key);
            assert!(value.len() <= VALUE_BYTES_MAX, "a value of {} bytes", value.len());
        }
        Edit::Delete { key } => key_fits(key),
        Edit::DeleteRange { from, to } => {
            key_fits(from);
            key_fits(to);
            assert!(from <= to, "a range that ends before it starts");
        }
        Edit::OwnExtent { .. } => {}
    }
}

/// Bytes of an encoded [`Edit::Put`].
pub const fn put_bytes(key_len: usize, value_len: usize) -> usize {
    put_at::SIZE + key_len + value_len
}

/// Bytes of an encoded edit.
fn edit_bytes(edit: &Edit) -> usize {
    match edit {
        Edit::Put { key, value } => put_bytes(key.len(), value.len()),
        Edit::Delete { key } => 1 + 2 + key.len(),
        Edit::DeleteRange { from, to } => 1 + 2 + 2 + from.len() + to.len(),
        Edit::OwnExtent { .. } => own_extent_at::SIZE,
    }
}

/// Encodes the head of a batch: `edits` are `edit_count` edits from [`encode_edits`]. With `payload_present` the objects'
/// stored bytes are to follow back to back, in the order of their headers.
pub fn encode_head(lsn: Lsn, edit_count: u32, edits: &[u8], objects: &[ChunkHeader], payload_present: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(at::SIZE + edits.len() + objects.len() * CHUNK_HEADER_BYTES);
    out.put_u32_le(MAGIC);
    out.put_u32_le(0);
    out.put_lsn(lsn);
    out.put_u16_le(if payload_present { FLAG_PAYLOAD } else { 0 });
    out.put_u16_le(0);
    out.put_u32_le(edit_count);
    out.put_u32_le(fits(edits.len()));
    out.put_u32_le(fits(objects.len()));
    out.put_slice(edits);
    for object in objects {
        object.encode_to(&mut out);
    }
    seal(&mut out, at::CRC);
    out
}

/// What one operation adds to the log; replayed whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its identity and position.
    pub lsn: Lsn,
    /// The changes, to be made in this order.
    pub edits: Vec<(TreeId, Edit)>,
    /// The objects it brings: object `n` of the batch is `objects[n]`.
    pub objects: Vec<ObjectAt>,
    /// Whether the objects' bytes follow the head.
    pub payload_present: bool,
    /// Bytes of the head.
    pub head_len: usize,
}

/// An object of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectAt {
    /// How to read its bytes.
    pub header: ChunkHeader,
    /// Where its bytes start in the buffer that the batch was decoded from; meaningless when no payload is present.
    pub offset: usize,
}

/// The fixed part of a head, its checksum already verified.
struct Head {
    lsn: Lsn,
    payload_present: bool,
    edit_count: usize,
    edits_len: usize,
    object_count: usize,
}

impl Batch {
    /// Decodes the batch that starts at `at` in `buffer`; keys and values are slices of the buffer. Returns also how many
    /// bytes the batch takes, its payload included. The payload's checksums are not verified here: see
    /// [`Batch::verify_payload`].
    pub fn decode(buffer: &Bytes, at: usize) -> Result<(Batch, usize), FormatError> {
        let bytes = buffer.get(at..).ok_or(FormatError::TooShort { need: at as u64, have: buffer.len() as u64 })?;
        let (head, head_len) = Head::decode(bytes)?;
        let edits_at = at + self::at::SIZE;
        let headers_at = edits_at + head.edits_len;
        let edits = decode_edits(buffer, edits_at, &head)?;
        let mut objects = Vec::with_capacity(head.object_count);
        let mut headers = Reader::starting_at(buffer, headers_at);
        let mut end = at + head_len;
        for _ in 0..head.object_count {
            let header = ChunkHeader::read(&mut headers, OBJECT_BYTES_MAX)?;
            objects.push(ObjectAt { header, offset: end });
            end += if head.payload_present { header.stored_len as usize } else { 0 };
        }
        if end > buffer.len() {
            return Err(FormatError::TooShort { need: (end - at) as u64, have: bytes.len() as u64 });
        }
        let batch = Batch { lsn: head.lsn, edits, objects, payload_present: head.payload_present, head_len };
        Ok((batch, end - at))
    }

    /// The first batch at `from` or behind it whose head is whole: for what lies around damage. Returns also where it starts, and
    /// how many bytes it takes. Bytes of what is no head after all are taken from `budget`, and what claims more is passed over:
    /// else it could be made to take for ever.
    pub fn find(buffer: &Bytes, from: usize, budget: &mut u64) -> Option<(Batch, usize, usize)> {
        let magic = MAGIC.to_le_bytes();
        let mut at = from;
        while let Some(next) = buffer.get(at..)?.windows(magic.len()).position(|bytes| bytes == magic) {
            at += next;
            let claimed = Head::claimed_len(&buffer[at..]);
            if claimed <= *budget {
                match Batch::decode(buffer, at) {
                    Ok((batch, used)) => return Some((batch, at, used)),
                    Err(_) => *budget -= claimed,
                }
            }
            at += 1;
        }
        None
    }

    /// Checks the checksum of every object in the buffer that the batch was decoded from.
    pub fn verify_payload(&self, buffer: &[u8]) -> Result<(), FormatError> {
        if !self.payload_present {
            return Ok(());
        }
        for object in &self.objects {
            let stored = Reader::starting_at(buffer, object.offset).take(object.header.stored_len as usize)?;
            match object.header.verify(stored) {
                Err(FormatError::Checksum { .. }) if removed(Canary::PayloadCrc) => {}
                verified => verified?,
            }
        }
        Ok(())
    }

    /// The headers of the objects, as [`Edit::resolve`] wants them.
    pub fn headers(&self) -> Vec<ChunkHeader> {
        self.objects.iter().map(|object| object.header).collect()
    }
}

impl Head {
    /// How long a head says that it is.
    fn claimed_len(bytes: &[u8]) -> u64 {
        let lens = || -> Result<u64, FormatError> {
            let mut field = Reader::new(bytes.get(at::EDITS_LEN..).unwrap_or_default());
            let (edits, objects) = (u64::from(field.u32()?), u64::from(field.u32()?));
            Ok(at::SIZE as u64 + edits + objects * CHUNK_HEADER_BYTES as u64)
        };
        lens().unwrap_or(0).min(bytes.len() as u64)
    }

    /// Reads the fixed part, and verifies the checksum of the whole head. Returns the length of the head.
    fn decode(bytes: &[u8]) -> Result<(Head, usize), FormatError> {
        let mut field = Reader::new(bytes);
        field.magic("a batch", MAGIC)?;
        let _crc = field.u32()?;
        let lsn = field.lsn()?;
        let flags = field.u16()?;
        field.zeros(2)?;
        let edit_count = field.u32()? as usize;
        let edits_len = field.u32()? as usize;
        let object_count = field.u32()? as usize;
        let need = at::SIZE as u64 + edits_len as u64 + object_count as u64 * CHUNK_HEADER_BYTES as u64;
        let have = bytes.len() as u64;
        let whole = usize::try_from(need).ok().and_then(|len| bytes.get(..len));
        let whole = whole.ok_or(FormatError::TooShort { need, have })?;
        check_seal(whole, at::CRC, Canary::BatchCrc)?;
        if flags & !FLAG_PAYLOAD != 0 {
            return Err(FormatError::Kind { found: u32::from(flags) });
        }
        let limit = edits_len / EDIT_BYTES_MIN;
        if edit_count > limit {
            return Err(FormatError::TooBig { limit: limit as u64, found: edit_count as u64 });
        }
        let payload_present = flags & FLAG_PAYLOAD != 0;
        Ok((Head { lsn, payload_present, edit_count, edits_len, object_count }, whole.len()))
    }
}

fn decode_edits(buffer: &Bytes, at: usize, head: &Head) -> Result<Vec<(TreeId, Edit)>, FormatError> {
    let end = at + head.edits_len;
    let mut field = Reader::starting_at(&buffer[..end], at);
    let mut edits = Vec::with_capacity(head.edit_count);
    for _ in 0..head.edit_count {
        edits.push(decode_edit(buffer, &mut field, head.object_count)?);
    }
    field.end()?;
    Ok(edits)
}

fn decode_edit(buffer: &Bytes, field: &mut Reader<'_>, object_count: usize) -> Result<(TreeId, Edit), FormatError> {
    let tag = field.u8()?;
    let tree = if tag & SPACE == 0 { TreeId::Files } else { TreeId::Space };
    let edit = match tag & !SPACE {
        PUT => {
            let (key_len, value_len) = (field.u16()?, field.u32()?);
            if value_len as usize > VALUE_BYTES_MAX {
                return Err(FormatError::TooBig { limit: VALUE_BYTES_MAX as u64, found: u64::from(value_len) });
            }
            let key = take_key(buffer, field, key_len)?;
            Edit::Put { key, value: take(buffer, field, value_len as usize)? }
        }
        DELETE => {
            let key_len = field.u16()?;
            Edit::Delete { key: take_key(buffer, field, key_len)? }
        }
        DELETE_RANGE => {
            let (from_len, to_len) = (field.u16()?, field.u16()?);
            let from = take_key(buffer, field, from_len)?;
            let to = take_key(buffer, field, to_len)?;
            if from > to {
                return Err(FormatError::Key("a range that ends before it starts"));
            }
            Edit::DeleteRange { from, to }
        }
        OWN_EXTENT if tree == TreeId::Files => {
            let (ino, offset, n) = (InodeNo(field.u64()?), field.u64()?, field.u32()?);
            if n as usize >= object_count {
                return Err(FormatError::Value("an extent over an object that the batch does not have"));
            }
            Edit::OwnExtent { ino, offset, n }
        }
        _ => return Err(FormatError::Kind { found: u32::from(tag) }),
    };
    Ok((tree, edit))
}

fn take(buffer: &Bytes, field: &mut Reader<'_>, len: usize) -> Result<Bytes, FormatError> {
    let from = field.offset();
    field.take(len)?;
    Ok(buffer.slice(from..from + len))
}

fn take_key(buffer: &Bytes, field: &mut Reader<'_>, len: u16) -> Result<Bytes, FormatError> {
    check_len(u32::from(len), KEY_BYTES_MAX)?;
    take(buffer, field, usize::from(len))
}

#[cfg(test)]
mod tests;
