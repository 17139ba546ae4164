//! Entries changed by chance, or by whoever feeds it.

use super::forge::Forge;
use bytes::Bytes;
use skylog::base::random::{Random, SeededRandom};
use skylog::format::ids::InodeNo;
use skylog::format::key::Key;
use std::collections::BTreeMap;

/// Changes a few entries.
pub fn forge(mut forge: Forge, random: &SeededRandom) -> Forge {
    for _ in 0..=random.below(4) {
        let map = &mut forge.maps[usize::from(random.below(4) == 0)];
        let nth = |map: &BTreeMap<Bytes, Bytes>| {
            let at = usize::try_from(random.below(map.len() as u64)).expect("few");
            map.iter().nth(at).map(|(key, value)| (key.clone(), value.clone())).expect("one of them")
        };
        let (key, value) = nth(map);
        let (other_key, other_value) = nth(map);
        match random.below(8) {
            0 => drop(map.remove(&key)),
            1 => drop(map.insert(key, other_value)),
            2 => drop(map.insert(changed(random, &key), value)),
            3 => drop(map.insert(of_another(&key, &other_key), value)),
            _ => drop(map.insert(key, changed(random, &value))),
        }
    }
    forge
}

/// The key under the inode of another.
fn of_another(key: &Bytes, other: &Bytes) -> Bytes {
    match (Key::decode(key), Key::decode(other)) {
        (Ok(Key::Name(_, name)), Ok(Key::Inode(ino))) => Key::Name(ino, name).encode(),
        (Ok(Key::Extent(_, at)), Ok(Key::Inode(ino))) => Key::Extent(ino, at).encode(),
        (Ok(Key::Inode(_)), _) => Key::Orphan(InodeNo(2)).encode(),
        _ => other.clone(),
    }
}

/// A field overwritten with something far off, a bit flipped, a cut, an end added.
fn changed(random: &SeededRandom, bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    let at = usize::try_from(random.below(bytes.len() as u64 + 1)).expect("short");
    let far = [0, 1, 2, 0x7fff_ffff, 0xffff_ffff, 1 << 47, 1 << 48, 1 << 63, u64::MAX, random.u64()];
    let far = far[usize::try_from(random.below(far.len() as u64)).expect("few")];
    match random.below(5) {
        0 => bytes.truncate(at.max(1)),
        1 => bytes.extend_from_slice(&far.to_le_bytes()[..1 + at % 8]),
        2 => bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << random.below(8)),
        n => {
            let field = if n == 3 { far.to_le_bytes() } else { far.to_be_bytes() };
            let width = [1, 2, 4, 8][usize::try_from(random.below(4)).expect("few")];
            let from = if n == 3 { 0 } else { 8 - width };
            let end = bytes.len().min(at + width);
            bytes[at.min(end)..end].copy_from_slice(&field[from..from + end - at.min(end)]);
        }
    }
    bytes.truncate(500);
    if bytes.is_empty() { Bytes::from_static(b"\x01") } else { bytes.into() }
}
