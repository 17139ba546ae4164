//! POSIX access control lists in the form of their extended attributes: checked, written, and kept in step with the mode. Pure.
//!
//! The form: version 2 as `u32`, then for each entry tag `u16`, permissions `u16`, id `u32`, all little-endian. Entries come in
//! the order owner, users, owning group, groups, mask, others; with users or groups there is a mask. The owner's entry equals
//! the owner's bits of the mode, that of others the bits of others, and the mask, or without one the owning group's entry,
//! equals the group's bits.

use bytes::{BufMut, Bytes};

/// The longest list, bytes: the kernel hands on no more.
pub(super) const ACL_BYTES_MAX: usize = 4096;

const VERSION: u32 = 2;
const ENTRY_BYTES: usize = 8;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
/// The id of entries that are for nobody in particular, and of nobody.
const NO_ID: u32 = u32::MAX;

/// What is wrong with a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Written in another version of the form.
    Version,
    /// Longer than [`ACL_BYTES_MAX`].
    TooLong,
    /// Not a list, or one that the rules forbid.
    Invalid,
}

/// The permission bits that go with a stored list; `None` when it is not one.
pub fn acl_permissions(bytes: &[u8]) -> Option<u32> {
    Some(Acl::parse(bytes).ok()??.permissions())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

/// A valid list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl {
    entries: Vec<Entry>,
}

impl Acl {
    /// Reads a list; one without entries is none.
    pub fn parse(bytes: &[u8]) -> Result<Option<Acl>, Fault> {
        let (version, rest) = bytes.split_first_chunk().ok_or(Fault::Invalid)?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(Fault::Version);
        }
        if bytes.len() > ACL_BYTES_MAX {
            return Err(Fault::TooLong);
        }
        let entries = rest.chunks(ENTRY_BYTES).map(|bytes| bytes.try_into().map(Entry::read));
        let entries = entries.collect::<Result<Vec<_>, _>>().map_err(|_| Fault::Invalid)?;
        if entries.is_empty() {
            return Ok(None);
        }
        let acl = Acl { entries };
        if acl.is_valid() { Ok(Some(acl)) } else { Err(Fault::Invalid) }
    }

    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(4 + self.entries.len() * ENTRY_BYTES);
        out.put_u32_le(VERSION);
        for entry in &self.entries {
            out.put_u16_le(entry.tag);
            out.put_u16_le(entry.perm);
            out.put_u32_le(entry.id);
        }
        out.into()
    }

    /// Whether the entries are those that a list may have, in their order.
    fn is_valid(&self) -> bool {
        let (mut last, mut named) = (0, false);
        for Entry { tag, perm, id } in &self.entries {
            let follows = match *tag {
                USER_OBJ => last == 0,
                USER => matches!(last, USER_OBJ | USER) && *id != NO_ID,
                GROUP_OBJ => matches!(last, USER_OBJ | USER),
                GROUP => matches!(last, GROUP_OBJ | GROUP) && *id != NO_ID,
                MASK => matches!(last, GROUP_OBJ | GROUP),
                OTHER => last == MASK || last == GROUP_OBJ && !named,
                _ => false,
            };
            if !follows || perm & !0o7 != 0 {
                return false;
            }
            named |= matches!(*tag, USER | GROUP);
            last = *tag;
        }
        last == OTHER
    }

    /// Whether the list says no more than permission bits can say.
    pub fn is_mode(&self) -> bool {
        self.entries.len() == 3
    }

    /// The permission bits that go with the list.
    pub fn permissions(&self) -> u32 {
        let perm = |tag| self.entries.iter().find(|entry| entry.tag == tag).map(|entry| u32::from(entry.perm));
        let group = perm(MASK).or(perm(GROUP_OBJ)).unwrap_or(0);
        perm(USER_OBJ).unwrap_or(0) << 6 | group << 3 | perm(OTHER).unwrap_or(0)
    }

    /// The list after its file got these permission bits.
    pub fn chmod(mut self, mode: u32) -> Acl {
        self.each_class(|perm, bits| *perm = bits, mode);
        self
    }

    /// The list that a new file gets from its directory's default list: what the creator does not ask for nobody gets.
    pub fn inherited(mut self, mode: u32) -> Acl {
        self.each_class(|perm, bits| *perm &= bits, mode);
        self
    }

    /// Calls `change` for each entry that stands for a class of the mode, with the bits of that class.
    fn each_class(&mut self, change: impl Fn(&mut u16, u16), mode: u32) {
        let bits = |shift: u32| u16::try_from(mode >> shift & 0o7).expect("three bits");
        let masked = self.entries.iter().any(|entry| entry.tag == MASK);
        for entry in &mut self.entries {
            match entry.tag {
                USER_OBJ => change(&mut entry.perm, bits(6)),
                MASK => change(&mut entry.perm, bits(3)),
                GROUP_OBJ if !masked => change(&mut entry.perm, bits(3)),
                OTHER => change(&mut entry.perm, bits(0)),
                _ => {}
            }
        }
    }
}

impl Entry {
    fn read(bytes: &[u8; ENTRY_BYTES]) -> Entry {
        let [t0, t1, p0, p1, id @ ..] = *bytes;
        let tag = u16::from_le_bytes([t0, t1]);
        let id = if matches!(tag, USER | GROUP) { u32::from_le_bytes(id) } else { NO_ID };
        Entry { tag, perm: u16::from_le_bytes([p0, p1]), id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let entries = entries.iter().map(|(tag, perm, id)| Entry { tag: *tag, perm: *perm, id: *id }).collect();
        Acl { entries }.encode().to_vec()
    }

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl::parse(&list(entries)).expect("valid").expect("not empty")
    }

    const FULL: [(u16, u16, u32); 6] = [
        (USER_OBJ, 7, NO_ID),
        (USER, 6, 1000),
        (GROUP_OBJ, 7, NO_ID),
        (GROUP, 5, 7),
        (MASK, 6, NO_ID),
        (OTHER, 1, NO_ID),
    ];

    #[test]
    fn a_list_survives_the_trip_and_cuts_are_found() {
        let bytes = list(&FULL);
        assert_eq!(acl(&FULL).encode(), bytes);
        for len in 0..bytes.len() {
            match Acl::parse(&bytes[..len]) {
                Ok(found) => assert!(found.is_none() && len == 4),
                Err(fault) => assert_eq!(fault, Fault::Invalid, "cut at {len}"),
            }
        }
        assert_eq!(Acl::parse(&[1, 0, 0, 0]), Err(Fault::Version));
        let mut long = list(&FULL);
        long.resize(4 + 512 * ENTRY_BYTES, 0);
        assert_eq!(Acl::parse(&long), Err(Fault::TooLong));
    }

    #[test]
    fn only_lists_that_the_rules_allow_are_taken() {
        let wrong =
            |entries: &[(u16, u16, u32)]| assert_eq!(Acl::parse(&list(entries)), Err(Fault::Invalid), "{entries:?}");
        let (owner, group, mask, other) = ((USER_OBJ, 7, 0), (GROUP_OBJ, 5, 0), (MASK, 5, 0), (OTHER, 4, 0));
        acl(&[owner, group, other]);
        acl(&[owner, group, mask, other]);
        wrong(&[owner, group]);
        wrong(&[owner, other]);
        wrong(&[group, owner, other]);
        wrong(&[owner, group, other, other]);
        wrong(&[owner, owner, group, other]);
        wrong(&[owner, (USER, 7, 5), group, other]);
        wrong(&[owner, group, (GROUP, 7, 5), other]);
        wrong(&[owner, group, (USER, 7, 5), mask, other]);
        wrong(&[owner, (USER, 7, NO_ID), group, mask, other]);
        wrong(&[owner, group, mask, mask, other]);
        wrong(&[owner, group, (OTHER, 8, 0)]);
        wrong(&[owner, group, other, (0x40, 0, 0)]);
    }

    #[test]
    fn the_mask_is_the_groups_bits_where_there_is_one() {
        assert_eq!((acl(&FULL).permissions(), acl(&FULL).is_mode()), (0o761, false));
        let plain = acl(&[(USER_OBJ, 6, 0), (GROUP_OBJ, 4, 0), (OTHER, 0, 0)]);
        assert_eq!((plain.permissions(), plain.is_mode()), (0o640, true));
        let changed = acl(&FULL).chmod(0o2714);
        assert_eq!(changed.permissions(), 0o714);
        assert_eq!((changed.entries[1].perm, changed.entries[2].perm, changed.entries[3].perm), (6, 7, 5));
        assert_eq!(plain.chmod(0o135).permissions(), 0o135);
    }

    #[test]
    fn what_the_creator_does_not_ask_for_nobody_inherits() {
        let inherited = acl(&FULL).inherited(0o640);
        assert_eq!(inherited.permissions(), 0o640);
        assert_eq!((inherited.entries[1].perm, inherited.entries[2].perm), (6, 7), "the mask bounds them");
        assert_eq!(acl(&FULL).inherited(0o666).permissions(), 0o660);
    }
}
