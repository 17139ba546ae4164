//! Numbers at their ends, names that are none, and what does not fit together.

use crate::forge::Forge;
use crate::{honest, life};
use bytes::Bytes;
use skylog::format::batch::{Edit, TreeId, encode_edits, encode_head};
use skylog::format::ids::{InodeNo, Lsn};
use skylog::format::inode::{CookieValue, Extent, Inode, NameValue};
use skylog::format::key::{self, Key};
use skylog::format::names;
use skylog::format::publication::{Body, Increment, Publication};
use skylog::format::space::{self, Mark};
use skylog::media::sim::StoreCall;
use skylog::store::Store;

const ENDS: [u64; 6] = [0, 1, 1 << 32, i64::MAX as u64, 1 << 63, u64::MAX];

/// Changes every inode.
fn with_inodes(change: impl Fn(&mut Inode)) -> Forge {
    let mut forge = honest();
    for (key, value) in &mut forge.maps[0] {
        if let Ok(Key::Inode(_)) = Key::decode(key) {
            let mut inode = Inode::decode(value).expect("whole");
            change(&mut inode);
            *value = inode.encode();
        }
    }
    forge
}

#[test]
fn sizes_counts_and_links_at_their_ends_are_survived() {
    for end in ENDS {
        life::live(&with_inodes(|inode| inode.size = end).store());
        life::live(&with_inodes(|inode| inode.blocks = end).store());
        life::live(&with_inodes(|inode| inode.nlink = end as u32).store());
        life::live(&with_inodes(|inode| inode.rdev = end as u32).store());
        life::live(&with_inodes(|inode| inode.mode = end as u32).store());
        if end > 0 {
            life::live(&with_inodes(|inode| inode.parent = InodeNo(end)).store());
            life::live(&with_inodes(|inode| inode.next_cookie = end).store());
        }
    }
    life::live(&with_inodes(|inode| inode.target = Bytes::from_static(b"/etc/passwd")).store());
}

#[test]
fn files_that_are_directories_and_links_that_are_files_are_survived() {
    for kind in [libc::S_IFDIR, libc::S_IFREG, libc::S_IFLNK, libc::S_IFIFO, libc::S_IFCHR, libc::S_IFMT] {
        life::live(&with_inodes(|inode| inode.mode = inode.mode & 0o7777 | kind).store());
    }
}

#[test]
fn extents_beyond_everything_and_over_each_other_are_survived() {
    for end in ENDS {
        let mut forge = honest();
        let extents: Vec<_> =
            forge.maps[0].iter().filter(|(key, _)| matches!(Key::decode(key), Ok(Key::Extent(..)))).collect();
        let extents: Vec<(Bytes, Bytes)> =
            extents.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        for (key, value) in extents {
            let (Ok(Key::Extent(ino, at)), Ok(extent)) = (Key::decode(&key), Extent::decode(&value)) else { continue };
            forge.maps[0].insert(key::extent(ino, end), value.clone());
            forge.maps[0].insert(key::extent(ino, end.wrapping_sub(1)), value.clone());
            for near in 1..200 {
                forge.maps[0].insert(key::extent(ino, at + near), Extent { len: 60_000, ..extent }.encode());
            }
            forge.maps[0].insert(key, Extent { object_offset: 5536, len: 60_000, ..extent }.encode());
        }
        life::live(&forge.store());
    }
}

#[test]
fn names_that_are_none_are_never_shown() {
    for name in [&b"a/b"[..], b"..", b".", b"nul\0nul", b"/", b"../../etc/passwd"] {
        let mut forge = honest();
        let named: Vec<(InodeNo, Bytes, NameValue)> = forge.maps[0]
            .iter()
            .filter_map(|(key, value)| match Key::decode(key) {
                Ok(Key::Name(dir, old)) => Some((dir, old, NameValue::decode(value).ok()?)),
                _ => None,
            })
            .collect();
        for (dir, old, value) in named.into_iter().take(3) {
            forge.maps[0].remove(&key::name(dir, &old));
            forge.maps[0].insert(key::name(dir, name), value.encode());
            let listed = CookieValue { ino: value.ino, kind: value.kind, name: Bytes::copy_from_slice(name) };
            forge.maps[0].insert(key::cookie(dir, value.cookie), listed.encode());
        }
        let lived = life::live(&forge.store());
        assert!(!lived.refused.is_empty(), "{name:?} is accepted");
        for shown in &lived.shown {
            assert!(
                !shown.iter().any(|byte| matches!(byte, b'/' | 0)) && !matches!(&shown[..], b"." | b".."),
                "{shown:?}"
            );
        }
    }
}

#[test]
fn directories_that_hold_each_other_are_survived() {
    let mut forge = honest();
    let dirs: Vec<(InodeNo, Bytes, NameValue)> = forge.maps[0]
        .iter()
        .filter_map(|(key, value)| match Key::decode(key) {
            Ok(Key::Name(dir, name)) => Some((dir, name, NameValue::decode(value).ok()?)),
            _ => None,
        })
        .filter(|(_, _, value)| value.kind == libc::DT_DIR)
        .collect();
    for (_, _, inner) in &dirs {
        for (n, (outer, _, value)) in dirs.iter().enumerate() {
            let (name, cookie) = (format!("circle {n}"), 1000 + n as u64);
            let value = NameValue { cookie, ..*value };
            for dir in [inner.ino, *outer] {
                forge.maps[0].insert(key::name(dir, name.as_bytes()), value.encode());
                let listed = CookieValue { ino: value.ino, kind: value.kind, name: name.clone().into() };
                forge.maps[0].insert(key::cookie(dir, cookie), listed.encode());
            }
        }
    }
    for (key, value) in &mut forge.maps[0] {
        if let (Ok(Key::Inode(ino)), Ok(mut inode)) = (Key::decode(key), Inode::decode(value)) {
            if inode.next_cookie > 0 && ino != InodeNo::ROOT {
                inode.parent = ino;
                *value = inode.encode();
            }
        }
    }
    life::live(&forge.store());
}

#[test]
fn marks_and_records_at_their_ends_are_survived() {
    for end in ENDS {
        for which in [Mark::Inode, Mark::Segment] {
            let mut forge = honest();
            forge.maps[1].insert(space::mark(which), space::encode_number(end));
            life::live(&forge.store());
        }
        for (kind, at) in (1..=8).flat_map(|kind| (0..60).step_by(4).map(move |at| (kind, at))) {
            let mut forge = honest();
            for (key, value) in forge.maps[1].iter_mut().filter(|(key, _)| key[0] == kind) {
                let _ = key;
                let mut bytes = value.to_vec();
                let field = end.to_le_bytes();
                if let Some(place) = bytes.get_mut(at..at + 8) {
                    place.copy_from_slice(&field);
                }
                *value = bytes.into();
            }
            if forge.maps[1] != honest().maps[1] {
                life::live(&forge.store());
            }
        }
    }
}

/// The base, said to be elsewhere.
fn moved(change: impl Fn(&mut Publication)) -> Forge {
    let mut forge = honest();
    let old = names::publication(forge.base.generation, forge.base.number);
    forge.rest.apply(&StoreCall::Delete { name: old.as_str().into() });
    change(&mut forge.base);
    forge
}

#[test]
fn generations_numbers_and_lsns_at_their_ends_are_survived() {
    for end in ENDS {
        life::live(&moved(|base| base.generation = end).store());
        life::live(&moved(|base| base.number = end).store());
        life::live(&moved(|base| base.checkpoint = end).store());
        life::live(&moved(|base| base.epoch = end as u32).store());
        life::live(&moved(|base| base.wall = end as i64).store());
        life::live(&moved(|base| base.end.pos = end).store());
        life::live(&moved(|base| base.end.epoch = end as u32).store());
        let store = honest().store();
        let base = honest().base;
        for (generation, number) in [(end, 0), (base.generation, end), (end, end)] {
            store.put(&names::publication(generation, number), base.encode().into()).expect("put");
            life::live(&store);
        }
    }
}

#[test]
fn increments_that_change_what_they_should_not_are_survived() {
    let (from, _) = key::all_of(InodeNo(2));
    let all = Bytes::from_static(&[0xff; 200]);
    let edits = [
        Edit::DeleteRange { from: from.clone(), to: from },
        Edit::DeleteRange { from: Bytes::from_static(b"\0"), to: all.clone() },
        Edit::Put { key: all.clone(), value: Bytes::from_static(b"value") },
        Edit::Put { key: Bytes::from_static(b"\x01"), value: Bytes::new() },
        Edit::Delete { key: key::inode(InodeNo::ROOT) },
        Edit::Delete { key: key::usage() },
        Edit::OwnExtent { ino: InodeNo(2), offset: u64::MAX, n: 0 },
        Edit::OwnExtent { ino: InodeNo(u64::MAX), offset: 0, n: u32::MAX },
    ];
    for edit in edits {
        for tree in [TreeId::Files, TreeId::Space] {
            for pos in [1, u64::MAX] {
                let mut forge = honest();
                let base = &forge.base;
                let end = Lsn { epoch: base.end.epoch, pos: base.end.pos.saturating_add(pos) };
                let edits = [(tree, edit.clone())];
                let batches = Bytes::from(encode_head(end, 1, &encode_edits(&edits), &[], false));
                let body = Body::Increment(Increment { windows: Vec::new(), settlement: Vec::new(), batches });
                let increment = Publication { number: 1, start: base.end, end, body, ..base.clone() };
                let name = names::publication(increment.generation, 1);
                forge.later.push((name, increment.encode().into()));
                life::live(&forge.store());
            }
        }
    }
}
