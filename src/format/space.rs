//! Keys and values of the space map: which segments and windows there are, how much of them lives, what is to be deleted.
//! Byte order of encoded keys is key order; numbers inside keys are big-endian for that reason.

use super::error::FormatError;
use super::ids::{Lsn, ObjectId, SegmentKind, SegmentNo};
use super::key::KEY_BYTES_MAX;
use super::wire::{COUNTED_MAX, LSN_BYTES, PutIds, Reader, SEGMENT_NO_BYTES, counted, fits, layout};
use bytes::{BufMut, Bytes};

const MARK: u8 = 1;
const SEGMENT: u8 = 2;
const WINDOW: u8 = 3;
const COUNT: u8 = 4;
const PENDING: u8 = 5;
const WAITING: u8 = 6;
const SETTLED: u8 = 7;
const PUBLISHED: u8 = 8;

/// A number that only grows. All up to the mark may have been given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Inode numbers.
    Inode,
    /// Numbers of store segments.
    Segment,
}

impl Mark {
    fn code(self) -> u8 {
        match self {
            Mark::Inode => 1,
            Mark::Segment => 2,
        }
    }
}

/// A decoded key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A high-water mark; the value is a number.
    Mark(Mark),
    /// A store segment; [`SegmentRecord`].
    Segment(SegmentNo),
    /// A shipped window, by its last Lsn; [`WindowRecord`].
    Window(Lsn),
    /// How many extents name a shared object.
    Count(ObjectId),
    /// A store object that is to be deleted, by name; [`Pending`].
    Pending(Bytes),
    /// A death of an object whose window is not recorded yet; the value is empty.
    Waiting(ObjectId),
    /// How far the settlement of checkpoints has come; [`Settled`].
    Settled,
    /// How far publications are recorded; [`Published`].
    Published,
}

impl Key {
    /// The bytes of the key.
    pub fn encode(&self) -> Bytes {
        match self {
            Key::Mark(which) => mark(*which),
            Key::Segment(number) => segment(*number),
            Key::Window(end) => window(*end),
            Key::Count(object) => count(*object),
            Key::Pending(name) => pending(name),
            Key::Waiting(object) => waiting(*object),
            Key::Settled => settled(),
            Key::Published => published(),
        }
    }

    /// Reads a key; every byte must have a meaning.
    pub fn decode(bytes: &[u8]) -> Result<Key, FormatError> {
        let (&kind, subkey) = bytes.split_first().ok_or(FormatError::TooShort { need: 1, have: 0 })?;
        match kind {
            MARK => match fixed(subkey)? {
                [1] => Ok(Key::Mark(Mark::Inode)),
                [2] => Ok(Key::Mark(Mark::Segment)),
                [found] => Err(FormatError::Kind { found: u32::from(found) }),
            },
            SEGMENT => segment_from(&fixed(subkey)?).map(Key::Segment),
            WINDOW => lsn_from(&fixed(subkey)?).map(Key::Window),
            COUNT => object_from(&fixed(subkey)?).map(Key::Count),
            PENDING if subkey.is_empty() || bytes.len() > KEY_BYTES_MAX => {
                Err(FormatError::Key("a name of no or too many bytes"))
            }
            PENDING => Ok(Key::Pending(Bytes::copy_from_slice(subkey))),
            WAITING => object_from(&fixed(subkey)?).map(Key::Waiting),
            SETTLED => fixed(subkey).map(|[]: [u8; 0]| Key::Settled),
            PUBLISHED => fixed(subkey).map(|[]: [u8; 0]| Key::Published),
            found => Err(FormatError::Kind { found: u32::from(found) }),
        }
    }
}

fn fixed<const N: usize>(subkey: &[u8]) -> Result<[u8; N], FormatError> {
    subkey.try_into().map_err(|_| FormatError::Key("a subkey of another length"))
}

fn split_u32_u64(bytes: &[u8; 12]) -> Result<(u32, u64), FormatError> {
    let [a, b, c, d, rest @ ..] = *bytes;
    Ok((u32::from_be_bytes([a, b, c, d]), counted(u64::from_be_bytes(rest), COUNTED_MAX)?))
}

fn segment_from(bytes: &[u8; SEGMENT_NO_BYTES]) -> Result<SegmentNo, FormatError> {
    let (epoch, number) = split_u32_u64(bytes)?;
    Ok(SegmentNo { epoch, number })
}

fn lsn_from(bytes: &[u8; LSN_BYTES]) -> Result<Lsn, FormatError> {
    let (epoch, pos) = split_u32_u64(bytes)?;
    Ok(Lsn { epoch, pos })
}

fn object_from(bytes: &[u8; 16]) -> Result<ObjectId, FormatError> {
    let [a, b, c, d, e, f, g, h, i, j, k, l, n @ ..] = *bytes;
    Ok(ObjectId { lsn: lsn_from(&[a, b, c, d, e, f, g, h, i, j, k, l])?, n: u32::from_be_bytes(n) })
}

/// A high-water mark.
pub fn mark(which: Mark) -> Bytes {
    Bytes::copy_from_slice(&[MARK, which.code()])
}

/// A store segment.
pub fn segment(segment: SegmentNo) -> Bytes {
    let mut key = vec![SEGMENT];
    key.put_u32(segment.epoch);
    key.put_u64(segment.number);
    key.into()
}

/// A shipped window, by its last Lsn. The window that holds an Lsn is the first one whose key is at or above
/// `window(lsn)`.
pub fn window(end: Lsn) -> Bytes {
    by_lsn(WINDOW, end).into()
}

/// How many extents name a shared object.
pub fn count(object: ObjectId) -> Bytes {
    by_object(COUNT, object)
}

/// A store object that is to be deleted.
pub fn pending(name: &[u8]) -> Bytes {
    [&[PENDING], name].concat().into()
}

/// A death that waits for the object's window.
pub fn waiting(object: ObjectId) -> Bytes {
    by_object(WAITING, object)
}

/// How far settlement has come.
pub fn settled() -> Bytes {
    Bytes::from_static(&[SETTLED])
}

/// How far publications are recorded.
pub fn published() -> Bytes {
    Bytes::from_static(&[PUBLISHED])
}

fn by_lsn(kind: u8, lsn: Lsn) -> Vec<u8> {
    let mut key = vec![kind];
    key.put_u32(lsn.epoch);
    key.put_u64(lsn.pos);
    key
}

fn by_object(kind: u8, object: ObjectId) -> Bytes {
    let mut key = by_lsn(kind, object.lsn);
    key.put_u32(object.n);
    key.into()
}

fn all_of_kind(kind: u8) -> (Bytes, Bytes) {
    (Bytes::copy_from_slice(&[kind]), Bytes::copy_from_slice(&[kind + 1]))
}

/// The range of all segments.
pub fn segments() -> (Bytes, Bytes) {
    all_of_kind(SEGMENT)
}

/// The range of all windows, oldest first.
pub fn windows() -> (Bytes, Bytes) {
    all_of_kind(WINDOW)
}

/// The range of all counts.
pub fn counts() -> (Bytes, Bytes) {
    all_of_kind(COUNT)
}

/// The range of all pending deletions.
pub fn pendings() -> (Bytes, Bytes) {
    all_of_kind(PENDING)
}

/// The range of all waiting deaths.
pub fn waitings() -> (Bytes, Bytes) {
    all_of_kind(WAITING)
}

/// A value that is one number.
pub fn encode_number(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

/// Reads a value that is one number.
pub fn decode_number(bytes: &[u8]) -> Result<u64, FormatError> {
    let mut field = Reader::new(bytes);
    let number = field.counted()?;
    field.end()?;
    Ok(number)
}

/// The value of a count.
pub fn encode_count(count: u32) -> Bytes {
    Bytes::copy_from_slice(&count.to_le_bytes())
}

/// Reads the value of a count.
pub fn decode_count(bytes: &[u8]) -> Result<u32, FormatError> {
    let mut field = Reader::new(bytes);
    let count = field.u32()?;
    field.end()?;
    Ok(count)
}

layout! {
    mod segment_at, 37 bytes {
        KIND: 1, BYTES: 8, OBJECTS: 4, LIVE_BYTES: 8, LIVE_OBJECTS: 4, WINDOW_END: super::LSN_BYTES,
    }
}

/// A store segment and how much of it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentRecord {
    /// What it packs.
    pub kind: SegmentKind,
    /// Its length.
    pub bytes: u64,
    /// Objects in it when it was recorded.
    pub objects: u32,
    /// Bytes of objects that are named by an extent.
    pub live_bytes: u64,
    /// How many such objects there are.
    pub live_objects: u32,
    /// The last Lsn of the window it was shipped with.
    pub window_end: Lsn,
}

impl SegmentRecord {
    /// A segment that has a number: the store may hold nothing of it yet, a part, or all.
    pub fn planned(kind: SegmentKind) -> SegmentRecord {
        SegmentRecord { kind, bytes: 0, objects: 0, live_bytes: 0, live_objects: 0, window_end: Lsn::ZERO }
    }

    /// Whether it has a number and nothing more: it is not shipped yet, or was given up.
    pub fn is_planned(&self) -> bool {
        *self == SegmentRecord::planned(self.kind)
    }

    /// The bytes of the value.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(segment_at::SIZE);
        out.put_u8(self.kind.code());
        out.put_u64_le(self.bytes);
        out.put_u32_le(self.objects);
        out.put_u64_le(self.live_bytes);
        out.put_u32_le(self.live_objects);
        out.put_lsn(self.window_end);
        out.into()
    }

    /// Reads the value.
    pub fn decode(bytes: &[u8]) -> Result<SegmentRecord, FormatError> {
        let mut field = Reader::new(bytes);
        let kind = SegmentKind::from_code(field.u8()?)?;
        let (bytes, objects) = (field.counted()?, field.u32()?);
        let (live_bytes, live_objects) = (field.counted()?, field.u32()?);
        let window_end = field.lsn()?;
        field.end()?;
        Ok(SegmentRecord { kind, bytes, objects, live_bytes, live_objects, window_end })
    }
}

layout! {
    /// The numbers of the segments follow.
    mod window_at, 20 bytes { START: super::LSN_BYTES, LIVE_OBJECTS: 4, SEGMENT_COUNT: 4 }
}

/// A shipped window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowRecord {
    /// Where it starts; not in it.
    pub start: Lsn,
    /// The segments that hold its objects.
    pub segments: Vec<SegmentNo>,
    /// How many of its objects are named by an extent.
    pub live_objects: u32,
}

impl WindowRecord {
    /// The bytes of the value.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(window_at::SIZE + self.segments.len() * SEGMENT_NO_BYTES);
        out.put_lsn(self.start);
        out.put_u32_le(self.live_objects);
        out.put_u32_le(fits(self.segments.len()));
        self.segments.iter().for_each(|segment| out.put_segment(*segment));
        out.into()
    }

    /// Reads the value.
    pub fn decode(bytes: &[u8]) -> Result<WindowRecord, FormatError> {
        let mut field = Reader::new(bytes);
        let (start, live_objects) = (field.lsn()?, field.u32()?);
        let count = field.count(SEGMENT_NO_BYTES)?;
        let segments = (0..count).map(|_| field.segment()).collect::<Result<_, _>>()?;
        field.end()?;
        Ok(WindowRecord { start, segments, live_objects })
    }
}

layout! {
    mod pending_at, 16 bytes { SINCE: 8, CHECKPOINT: 8 }
}

/// A store object that is to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// When it was listed: nanoseconds since 1970.
    pub since: i64,
    /// The list is in the store once this checkpoint or a later one is published.
    pub checkpoint: u64,
}

impl Pending {
    /// The value's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(pending_at::SIZE);
        out.put_i64_le(self.since);
        out.put_u64_le(self.checkpoint);
        out.into()
    }

    /// Reads a value.
    pub fn decode(bytes: &[u8]) -> Result<Pending, FormatError> {
        let mut field = Reader::new(bytes);
        let pending = Pending { since: field.i64()?, checkpoint: field.counted()? };
        field.end()?;
        Ok(pending)
    }
}

layout! {
    mod settled_at, 16 bytes { CHECKPOINT: 8, CURSOR: 8 }
}

/// How far the settlement of checkpoints has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The checkpoint whose settlement is being taken in.
    pub checkpoint: u64,
    /// How many of its records are in.
    pub cursor: u64,
}

impl Settled {
    /// The bytes of the value.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(settled_at::SIZE);
        out.put_u64_le(self.checkpoint);
        out.put_u64_le(self.cursor);
        out.into()
    }

    /// Reads the value.
    pub fn decode(bytes: &[u8]) -> Result<Settled, FormatError> {
        let mut field = Reader::new(bytes);
        let settled = Settled { checkpoint: field.counted()?, cursor: field.counted()? };
        field.end()?;
        Ok(settled)
    }
}

layout! {
    mod published_at, 36 bytes { END: super::LSN_BYTES, CHECKPOINT: 8, GENERATION: 8, NUMBER: 8 }
}

/// How far publications are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// All windows up to here are recorded.
    pub end: Lsn,
    /// The newest checkpoint that was published.
    pub checkpoint: u64,
    /// Where: the generation,
    pub generation: u64,
    /// and the number in it.
    pub number: u64,
}

impl Published {
    /// The value's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(published_at::SIZE);
        out.put_lsn(self.end);
        out.put_u64_le(self.checkpoint);
        out.put_u64_le(self.generation);
        out.put_u64_le(self.number);
        out.into()
    }

    /// Reads a value.
    pub fn decode(bytes: &[u8]) -> Result<Published, FormatError> {
        let mut field = Reader::new(bytes);
        let (end, checkpoint) = (field.lsn()?, field.counted()?);
        let published = Published { end, checkpoint, generation: field.counted()?, number: field.counted()? };
        field.end()?;
        Ok(published)
    }
}

#[cfg(test)]
mod tests;
