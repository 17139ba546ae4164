//! Forgeries by chance.

use crate::forge::Forge;
use crate::{honest, life};
use bytes::Bytes;
use skylog::base::random::{Random, SeededRandom};
use skylog::format::ids::InodeNo;
use skylog::format::key::Key;
use std::panic::{AssertUnwindSafe, catch_unwind};

const CASES: u64 = 150;

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Changes a few entries.
fn forge(random: &SeededRandom) -> Forge {
    let mut forge = honest();
    for _ in 0..=random.below(4) {
        let map = &mut forge.maps[usize::from(random.below(4) == 0)];
        let nth = |map: &std::collections::BTreeMap<Bytes, Bytes>| {
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

#[test]
fn whatever_entries_say_nothing_panics_and_everything_ends() {
    let (cases, first) = (env("SKYLOG_HOSTILE_CASES").unwrap_or(CASES), env("SKYLOG_HOSTILE_SEED").unwrap_or(1));
    let (mut refused, mut read, mut failed) = (0, 0, Vec::new());
    for seed in first..first + cases {
        let store = forge(&SeededRandom::new(seed)).store();
        match catch_unwind(AssertUnwindSafe(|| life::live(&store))) {
            Ok(lived) => {
                refused += u64::from(!lived.refused.is_empty());
                read += u64::from(lived.read > 0);
            }
            Err(_) => failed.push(seed),
        }
    }
    println!("{cases} forged stores: {refused} with something refused, {read} with something read");
    assert_eq!(failed, Vec::<u64>::new(), "SKYLOG_HOSTILE_SEED=n SKYLOG_HOSTILE_CASES=1 shows one of them");
    assert!(cases < CASES || refused > cases / 4 && read > cases / 4, "the forgeries are not what they should be");
}
