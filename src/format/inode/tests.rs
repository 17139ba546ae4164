//! Values have no checksum of their own, so a flipped bit may give another valid value; none may panic, and no cut of a
//! value of fixed length may pass.

use super::*;
use crate::format::faults::{assert_cuts_are_found, assert_flips_are_found};
use crate::format::ids::Lsn;
use crate::format::wire::COUNTED_MAX;
use proptest::prelude::*;

fn any_time() -> impl Strategy<Value = Time> {
    (any::<i64>(), 0..1_000_000_000u32).prop_map(|(secs, nanos)| Time { secs, nanos })
}

fn any_inode() -> impl Strategy<Value = Inode> {
    let owner = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
    let times = (any_time(), any_time(), any_time(), any_time());
    let rare = (0..3u32, 0..3u32, 0..3u64, 0..3u64);
    let target = proptest::collection::vec(any::<u8>(), 0..9).prop_map(Bytes::from);
    (owner, (0..=FILE_BYTES_MAX, 0..=COUNTED_MAX), times, rare, target).prop_map(
        |(owner, (size, blocks), times, rare, target)| {
            let (mode, uid, gid, nlink) = owner;
            let (atime, mtime, ctime, btime) = times;
            let (rdev, flags, parent, next_cookie) = rare;
            let parent = InodeNo(parent);
            let t = Inode { mode, uid, gid, nlink, size, blocks, atime, mtime, ctime, btime, ..Inode::default() };
            Inode { rdev, flags, parent, next_cookie, target, ..t }
        },
    )
}

proptest! {
    #[test]
    fn inodes_survive_the_trip(inode in any_inode()) {
        prop_assert_eq!(Inode::decode(&inode.encode()), Ok(inode));
    }

    #[test]
    fn any_bytes_decode_to_what_encodes_to_them_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        if let Ok(inode) = Inode::decode(&bytes) {
            prop_assert_eq!(&inode.encode()[..], &bytes[..]);
        }
        if let Ok(extent) = Extent::decode(&bytes) {
            prop_assert_eq!(&extent.encode()[..], &bytes[..]);
        }
    }
}

fn extent() -> Extent {
    Extent { len: 4096, object: ObjectId { lsn: Lsn { epoch: 2, pos: 77 }, n: 3 }, object_offset: 512 }
}

#[test]
fn directory_values_survive_the_trip() {
    let value = NameValue { ino: InodeNo(9), kind: 4, cookie: 17 };
    assert_eq!(NameValue::decode(&value.encode()), Ok(value));
    let value = CookieValue { ino: InodeNo(9), kind: 8, name: Bytes::from_static(b"name") };
    assert_eq!(CookieValue::decode(&value.encode()), Ok(value));
    assert_eq!(Extent::decode(&extent().encode()), Ok(extent()));
}

#[test]
fn damaged_values_never_panic_and_cuts_are_found() {
    let inode = Inode { rdev: 5, flags: 1, parent: InodeNo::ROOT, next_cookie: 3, ..Inode::default() };
    assert_flips_are_found(&inode.encode(), |at| at == 0, Inode::decode);
    assert_cuts_are_found(&inode.encode(), Inode::decode);
    let value = NameValue { ino: InodeNo(9), kind: 4, cookie: 17 };
    assert_flips_are_found(&value.encode(), |_| false, NameValue::decode);
    assert_cuts_are_found(&value.encode(), NameValue::decode);
    let value = CookieValue { ino: InodeNo(9), kind: 8, name: Bytes::from_static(b"n") };
    assert_flips_are_found(&value.encode(), |_| false, CookieValue::decode);
    assert_cuts_are_found(&value.encode(), CookieValue::decode);
    assert_flips_are_found(&extent().encode(), |_| false, Extent::decode);
    assert_cuts_are_found(&extent().encode(), Extent::decode);
}

#[test]
fn promise_g1_extents_are_limited_in_both_directions() {
    let decode = |len, object_offset| Extent::decode(&Extent { len, object_offset, ..extent() }.encode());
    assert!(decode(1, 65535).is_ok() && decode(65536, 0).is_ok());
    assert_eq!(decode(0, 0), Err(FormatError::TooShort { need: 1, have: 0 }));
    assert_eq!(decode(65536, 1), Err(FormatError::TooBig { limit: 65536, found: 65537 }));
    assert_eq!(decode(u32::MAX, u32::MAX).map_err(|e| matches!(e, FormatError::TooBig { .. })), Err(true));
}

#[test]
fn values_that_no_writer_makes_are_refused() {
    let encoded = Inode { target: Bytes::from(vec![b'a'; TARGET_BYTES_MAX]), ..Inode::default() }.encode();
    assert!(Inode::decode(&encoded).is_ok());
    let longer = [&encoded[..], b"a"].concat();
    assert!(matches!(Inode::decode(&longer), Err(FormatError::TooBig { .. })));

    let mut late = Inode::default().encode().to_vec();
    late[inode_at::BTIME + 8..][..4].copy_from_slice(&1_000_000_000u32.to_le_bytes());
    assert!(matches!(Inode::decode(&late), Err(FormatError::Value(_))));

    let no_ino = NameValue { ino: InodeNo::NONE, kind: 4, cookie: 3 };
    assert!(matches!(NameValue::decode(&no_ino.encode()), Err(FormatError::Value(_))));
    let no_kind = NameValue { ino: InodeNo::ROOT, kind: 3, cookie: 3 };
    assert_eq!(NameValue::decode(&no_kind.encode()), Err(FormatError::Kind { found: 3 }));
    let long = CookieValue { ino: InodeNo::ROOT, kind: 4, name: Bytes::from(vec![b'a'; 256]) };
    assert_eq!(CookieValue::decode(&long.encode()), Err(FormatError::TooBig { limit: 255, found: 256 }));
}
