//! Keys of the file map. Byte order of encoded keys is key order: inode number, kind, subkey. Numbers inside keys are
//! big-endian for that reason. Ranges are half open: `from` is in, `to` is not.

use super::error::FormatError;
use super::ids::InodeNo;
use super::inode::FILE_BYTES_MAX;
use super::wire::{COUNTED_MAX, counted, layout};
use bytes::{BufMut, Bytes};

layout! {
    /// Every key starts with these; the subkey follows.
    pub(crate) mod at, 9 bytes { INO: 8, KIND: 1 }
}

/// Bytes before the subkey.
const SUBKEY: usize = at::SIZE;
/// Bytes of the key of the usage.
pub const USAGE_KEY_BYTES: usize = SUBKEY;
/// The longest name of a file or an extended attribute, bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest key of either map, bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// The longest value of either map, bytes: an extended attribute may be that long.
pub const VALUE_BYTES_MAX: usize = 64 << 10;

const _: () = assert!(SUBKEY + NAME_BYTES_MAX <= KEY_BYTES_MAX);

const INODE: u8 = 1;
const INLINE: u8 = 2;
const NAME: u8 = 3;
const COOKIE: u8 = 4;
const XATTR: u8 = 5;
pub(crate) const EXTENT: u8 = 6;
/// Only under [`InodeNo::NONE`].
const ORPHAN: u8 = 1;
const USAGE: u8 = 2;
const LIMIT: u8 = 3;

/// A decoded key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// Attributes of an inode.
    Inode(InodeNo),
    /// Contents of a tiny file.
    Inline(InodeNo),
    /// An entry of a directory, by name.
    Name(InodeNo, Bytes),
    /// The same entry, by its position in the directory.
    Cookie(InodeNo, u64),
    /// An extended attribute, by name.
    Xattr(InodeNo, Bytes),
    /// File data that starts at this offset.
    Extent(InodeNo, u64),
    /// An inode without a name that may still be open.
    Orphan(InodeNo),
    /// What the filesystem holds.
    Usage,
    /// What it may hold.
    Limit,
}

impl Key {
    /// The bytes of the key.
    pub fn encode(&self) -> Bytes {
        match self {
            Key::Inode(ino) => inode(*ino),
            Key::Inline(ino) => inline(*ino),
            Key::Name(ino, n) => name(*ino, n),
            Key::Cookie(ino, position) => cookie(*ino, *position),
            Key::Xattr(ino, n) => xattr(*ino, n),
            Key::Extent(ino, offset) => extent(*ino, *offset),
            Key::Orphan(ino) => orphan(*ino),
            Key::Usage => usage(),
            Key::Limit => limit(),
        }
    }

    /// Reads a key; every byte must have a meaning.
    pub fn decode(bytes: &[u8]) -> Result<Key, FormatError> {
        let short = FormatError::TooShort { need: SUBKEY as u64, have: bytes.len() as u64 };
        let (head, subkey) = bytes.split_first_chunk::<SUBKEY>().ok_or(short)?;
        let [ino @ .., kind] = *head;
        let ino = InodeNo(u64::from_be_bytes(ino));
        if ino == InodeNo::NONE {
            return match kind {
                ORPHAN => Ok(Key::Orphan(InodeNo(number(subkey)?))),
                USAGE => empty(subkey).map(|()| Key::Usage),
                LIMIT => empty(subkey).map(|()| Key::Limit),
                _ => Err(FormatError::Kind { found: u32::from(kind) }),
            };
        }
        match kind {
            INODE => empty(subkey).map(|()| Key::Inode(ino)),
            INLINE => empty(subkey).map(|()| Key::Inline(ino)),
            NAME => Ok(Key::Name(ino, checked_name(subkey)?)),
            COOKIE => Ok(Key::Cookie(ino, counted(number(subkey)?, COUNTED_MAX)?)),
            XATTR => Ok(Key::Xattr(ino, checked_name(subkey)?)),
            EXTENT => Ok(Key::Extent(ino, counted(number(subkey)?, FILE_BYTES_MAX)?)),
            _ => Err(FormatError::Kind { found: u32::from(kind) }),
        }
    }
}

fn empty(subkey: &[u8]) -> Result<(), FormatError> {
    if subkey.is_empty() { Ok(()) } else { Err(FormatError::Key("a subkey where none belongs")) }
}

fn number(subkey: &[u8]) -> Result<u64, FormatError> {
    let bytes = subkey.try_into().map_err(|_| FormatError::Key("a number of another length than 8"))?;
    Ok(u64::from_be_bytes(bytes))
}

fn checked_name(subkey: &[u8]) -> Result<Bytes, FormatError> {
    match subkey.len() {
        1..=NAME_BYTES_MAX => Ok(Bytes::copy_from_slice(subkey)),
        _ => Err(FormatError::Key("a name of no or too many bytes")),
    }
}

fn build(ino: InodeNo, kind: u8, subkey: &[u8]) -> Bytes {
    let mut key = Vec::with_capacity(SUBKEY + subkey.len());
    key.put_u64(ino.0);
    key.put_u8(kind);
    key.put_slice(subkey);
    key.into()
}

/// Attributes of an inode.
pub fn inode(ino: InodeNo) -> Bytes {
    build(ino, INODE, &[])
}

/// Contents of a tiny file.
pub fn inline(ino: InodeNo) -> Bytes {
    build(ino, INLINE, &[])
}

/// An entry of directory `ino`, by name.
pub fn name(ino: InodeNo, name: &[u8]) -> Bytes {
    build(ino, NAME, name)
}

/// An entry of directory `ino`, by position.
pub fn cookie(ino: InodeNo, cookie: u64) -> Bytes {
    build(ino, COOKIE, &cookie.to_be_bytes())
}

/// An extended attribute.
pub fn xattr(ino: InodeNo, name: &[u8]) -> Bytes {
    build(ino, XATTR, name)
}

/// File data from `offset` on.
pub fn extent(ino: InodeNo, offset: u64) -> Bytes {
    build(ino, EXTENT, &offset.to_be_bytes())
}

/// Marks an inode without a name.
pub fn orphan(ino: InodeNo) -> Bytes {
    build(InodeNo::NONE, ORPHAN, &ino.0.to_be_bytes())
}

/// What the filesystem holds.
pub fn usage() -> Bytes {
    build(InodeNo::NONE, USAGE, &[])
}

/// What it may hold.
pub fn limit() -> Bytes {
    build(InodeNo::NONE, LIMIT, &[])
}

/// Everything under one inode.
pub fn all_of(ino: InodeNo) -> (Bytes, Bytes) {
    (build(ino, 0, &[]), build(ino, u8::MAX, &[]))
}

/// All names in a directory.
pub fn names_of(ino: InodeNo) -> (Bytes, Bytes) {
    kind_range(ino, NAME)
}

/// The entries of a directory at positions above `after`.
pub fn cookies_from(ino: InodeNo, after: u64) -> (Bytes, Bytes) {
    let end = build(ino, COOKIE + 1, &[]);
    match after.checked_add(1) {
        Some(first) => (cookie(ino, first), end),
        None => (end.clone(), end),
    }
}

/// Extents that **start** in `from_offset..to_offset`. An extent is at most `OBJECT_BYTES_MAX` long, so those that
/// overlap an offset start at most that far before it.
pub fn extents_in(ino: InodeNo, from_offset: u64, to_offset: u64) -> (Bytes, Bytes) {
    (extent(ino, from_offset), extent(ino, to_offset))
}

/// All extents of an inode.
pub fn extents_of(ino: InodeNo) -> (Bytes, Bytes) {
    kind_range(ino, EXTENT)
}

/// All extended attributes of an inode.
pub fn xattrs_of(ino: InodeNo) -> (Bytes, Bytes) {
    kind_range(ino, XATTR)
}

/// All orphan marks.
pub fn orphans() -> (Bytes, Bytes) {
    kind_range(InodeNo::NONE, ORPHAN)
}

fn kind_range(ino: InodeNo, kind: u8) -> (Bytes, Bytes) {
    (build(ino, kind, &[]), build(ino, kind + 1, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_key() -> impl Strategy<Value = Key> {
        let ino = (1..=InodeNo::MAX.0).prop_map(InodeNo);
        let name = proptest::collection::vec(any::<u8>(), 1..=NAME_BYTES_MAX).prop_map(Bytes::from);
        (ino, name, 0..=COUNTED_MAX, 0..9u8).prop_map(|(ino, name, number, which)| match which {
            0 => Key::Inode(ino),
            1 => Key::Inline(ino),
            2 => Key::Name(ino, name),
            3 => Key::Cookie(ino, number),
            4 => Key::Xattr(ino, name),
            5 => Key::Extent(ino, number),
            6 => Key::Orphan(ino),
            7 => Key::Usage,
            _ => Key::Limit,
        })
    }

    proptest! {
        #[test]
        fn keys_survive_the_trip(key in any_key()) {
            prop_assert_eq!(Key::decode(&key.encode()), Ok(key));
        }

        #[test]
        fn cut_keys_of_fixed_length_are_refused(ino in 1..1000u64, offset: u64, cut in 0..17usize) {
            let key = extent(InodeNo(ino), offset);
            prop_assert!(Key::decode(&key[..cut]).is_err());
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(key) = Key::decode(&bytes) {
                prop_assert_eq!(&key.encode()[..], &bytes[..]);
            }
        }

        #[test]
        fn byte_order_of_extents_is_offset_order(a: u64, b: u64) {
            let ino = InodeNo(7);
            prop_assert_eq!(extent(ino, a).cmp(&extent(ino, b)), a.cmp(&b));
        }
    }

    #[test]
    fn ranges_hold_what_they_say_and_nothing_else() {
        let ino = InodeNo(7);
        let inside = |(from, to): &(Bytes, Bytes), key: &Bytes| from <= key && key < to;
        let all = all_of(ino);
        for key in [inode(ino), inline(ino), name(ino, b"\xff"), cookie(ino, u64::MAX), extent(ino, u64::MAX)] {
            assert!(inside(&all, &key));
        }
        assert!(!inside(&all, &inode(InodeNo(8))) && !inside(&all, &extent(InodeNo(6), u64::MAX)));
        assert!(inside(&names_of(ino), &name(ino, &[0xff; 255])) && !inside(&names_of(ino), &cookie(ino, 0)));
        assert!(inside(&cookies_from(ino, 3), &cookie(ino, 4)) && !inside(&cookies_from(ino, 3), &cookie(ino, 3)));
        assert!(!inside(&cookies_from(ino, u64::MAX), &cookie(ino, u64::MAX)));
        assert!(inside(&extents_in(ino, 5, 9), &extent(ino, 8)) && !inside(&extents_in(ino, 5, 9), &extent(ino, 9)));
        assert!(inside(&xattrs_of(ino), &xattr(ino, &[0xff; 255])) && !inside(&xattrs_of(ino), &extent(ino, 0)));
        assert!(inside(&extents_of(ino), &extent(ino, u64::MAX)));
        assert!(inside(&orphans(), &orphan(InodeNo::MAX)) && !inside(&orphans(), &inode(InodeNo::ROOT)));
        assert!(!inside(&orphans(), &usage()) && !inside(&orphans(), &limit()));
    }

    #[test]
    fn promise_g1_key_faults_are_told_apart() {
        assert_eq!(Key::decode(&[0; 8]), Err(FormatError::TooShort { need: 9, have: 8 }));
        assert_eq!(Key::decode(&build(InodeNo(1), 9, &[])), Err(FormatError::Kind { found: 9 }));
        assert_eq!(Key::decode(&build(InodeNo::NONE, 4, &[])), Err(FormatError::Kind { found: 4 }));
        for key in
            [build(InodeNo(1), INODE, b"x"), build(InodeNo::NONE, USAGE, b"x"), build(InodeNo::NONE, LIMIT, b"x")]
        {
            assert!(matches!(Key::decode(&key), Err(FormatError::Key(_))));
        }
        assert!(matches!(Key::decode(&name(InodeNo(1), &[b'a'; 256])), Err(FormatError::Key(_))));
        assert!(Key::decode(&name(InodeNo(1), &[b'a'; 255])).is_ok());
    }
}
