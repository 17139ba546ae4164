//! Mending random damage of maps that a random history left: the check finds nothing afterwards, what was not hit is as it was, no
//! data turns into a hole, and mending what was mended changes nothing. A failure prints the seed; `SKYLOG_SEED=n` runs that
//! one alone, `SKYLOG_HISTORIES=n` runs more.

mod model;

use bytes::Bytes;
use model::driver::{Driver, Mount};
use model::generate::generate;
use model::op::Who;
use model::time_of;
use skylog::base::clock::Time;
use skylog::base::random::SeededRandom;
use skylog::check::check_map;
use skylog::format::batch::TreeId;
use skylog::format::checkpoint::Birth;
use skylog::format::ids::{InodeNo, ObjectId};
use skylog::format::inode::{CookieValue, Extent, Inode, NameValue};
use skylog::format::key::{self, Key};
use skylog::format::usage::Usage;
use skylog::fs::{Cx, DiskSpace, Fs, Options, Stop, root_inode};
use skylog::journal::Writer;
use skylog::map::db::{Db, Pins, Room, Wait};
use skylog::repair::mend::{AfterLoss, Edits, KeyRange, Known, Mended, mend};
use skylog::rig;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

type Map = BTreeMap<Bytes, Bytes>;
/// Path and sentences.
type Told = BTreeMap<InodeNo, (Option<String>, Vec<String>)>;

/// A filesystem core over maps in memory.
struct Bare {
    db: Arc<Db>,
    fs: Fs,
    writer: Writer,
}

impl Bare {
    fn new() -> Bare {
        let (db, writer) = rig::bare();
        let options = Options {
            write_bytes_max: 1 << 20,
            space: Box::new(|| DiskSpace { total: 1 << 40, free: 1 << 39, available: 1 << 39 }),
        };
        let bare = Bare { fs: Fs::new(db.clone(), options), db, writer };
        let pins = Pins::new();
        let mut tx = bare.db.begin(&pins);
        tx.put(TreeId::Files, key::inode(InodeNo::ROOT), root_inode(Time::default(), 0o755, 0, 0).encode());
        tx.put(TreeId::Files, key::usage(), Usage::EMPTY.encode());
        tx.commit(Room::Ordinary).expect("committed");
        bare
    }

    fn map(&self) -> Map {
        let pins = Pins::new();
        let rows = self.db.begin(&pins).scan(TreeId::Files, &[], &[0xff; 9], usize::MAX);
        rows.expect("all of it is in memory").into_iter().collect()
    }
}

impl Mount for Bare {
    fn run<T>(&mut self, who: Who, now: Time, mut op: impl FnMut(&Fs, &Cx) -> Result<T, Stop>) -> Result<T, i32> {
        let mut cx = Cx { uid: who.uid, gid: who.gid, now, caller: who.caller(), ..Cx::default() };
        loop {
            match op(&self.fs, &cx) {
                Ok(value) => return Ok(value),
                Err(Stop::Error(e)) => return Err(e.errno()),
                Err(Stop::Wait(Wait::Objects(ids))) => {
                    while self.writer.step() == skylog::journal::Progress::Worked {}
                    for id in ids {
                        cx.pins.pin_object(id, self.db.locate().fetch(&id).expect("the journal has it"));
                    }
                }
                Err(Stop::Wait(wait)) => panic!("nothing else is waited for, but {wait:?}"),
            }
        }
    }
}

/// What a random history leaves, orphans too.
fn valid_map(random: &SeededRandom) -> Map {
    let mut bare = Bare::new();
    let mut driver = Driver::default();
    for (i, op) in generate(random, 250).iter().enumerate() {
        let _ = driver.apply(&mut bare, time_of(i as u64 + 1), op);
    }
    let map = bare.map();
    assert_eq!(check_map(&map, true), []);
    map
}

/// The objects that a map names, with their lengths.
fn objects(map: &Map) -> BTreeMap<ObjectId, u32> {
    let mut objects = BTreeMap::new();
    for (_, _, extent) in extents(map) {
        let end = extent.object_offset + extent.len;
        let len: &mut u32 = objects.entry(extent.object).or_default();
        *len = (*len).max(end);
    }
    objects
}

fn extents(map: &Map) -> impl Iterator<Item = (InodeNo, u64, Extent)> + '_ {
    map.iter().filter_map(|(key, value)| match Key::decode(key) {
        Ok(Key::Extent(ino, at)) => Some((ino, at, Extent::decode(value).ok()?)),
        _ => None,
    })
}

/// A map with all that is known beside it.
struct World {
    map: Map,
    objects: BTreeMap<ObjectId, u32>,
    births: BTreeMap<InodeNo, Vec<Birth>>,
    lost: Vec<KeyRange>,
    inode_max: u64,
}

impl World {
    fn new(map: Map) -> World {
        let objects = objects(&map);
        let inode_max = map.keys().filter_map(|key| inode_of(key)).max().map_or(1, |ino| ino.0);
        World { map, objects, births: BTreeMap::new(), lost: Vec::new(), inode_max }
    }

    fn mend(&self) -> (Mended, Told) {
        let known = Known {
            whole: &|object| self.objects.get(object).copied(),
            births: &|ino| self.births.get(&ino).cloned().unwrap_or_default(),
            counted: true,
            inode_max: self.inode_max,
            lost: &[],
            after_loss: &AfterLoss::new(),
            now: Time::default(),
        };
        let mut told = BTreeMap::new();
        let mut source = |each: &mut dyn FnMut(Bytes, Bytes)| {
            self.map.iter().for_each(|(key, value)| each(key.clone(), value.clone()));
            Ok::<_, Infallible>(self.lost.clone())
        };
        let Ok(mended) = mend(&mut source, &known, &mut |touched| {
            assert!(told.insert(touched.ino, (touched.path, touched.what)).is_none(), "told twice");
        });
        assert_eq!(mended.touched, told.len() as u64);
        (mended, told)
    }

    /// The map after it was mended; what is wrong with it is nothing, and mending it again changes nothing.
    fn mended(&self, when: &str) -> (World, Told) {
        let (mended, told) = self.mend();
        let map = edited(&self.map, &mended.edits);
        assert_eq!(check_map(&map, true), [], "{when}, edits {:#?}", shown(&mended.edits));
        let (objects, births) = (self.objects.clone(), self.births.clone());
        // Nothing is missing in what was mended.
        let after = World { map, objects, births, lost: Vec::new(), inode_max: mended.inode_max };
        let (again, told_again) = after.mend();
        assert_eq!(again.edits, Edits::new(), "{when}, once more: {told_again:#?}");
        assert_eq!(again.touched, 0, "{when}: {told_again:#?}");
        (after, told)
    }
}

fn shown(edits: &Edits) -> Vec<String> {
    edits.iter().map(|(key, value)| format!("{:?} {}", Key::decode(key), value.is_some())).collect()
}

fn edited(map: &Map, edits: &Edits) -> Map {
    let mut map = map.clone();
    for (key, value) in edits {
        match value {
            Some(value) => drop(map.insert(key.clone(), value.clone())),
            None => drop(map.remove(key)),
        }
    }
    map
}

fn inode_of(key: &[u8]) -> Option<InodeNo> {
    match Key::decode(key).ok()? {
        Key::Inode(ino) | Key::Inline(ino) | Key::Name(ino, _) | Key::Cookie(ino, _) => Some(ino),
        Key::Xattr(ino, _) | Key::Extent(ino, _) | Key::Orphan(ino) => Some(ino),
        Key::Usage | Key::Limit => None,
    }
}

/// Inodes that damage of an entry is damage of.
fn hit_by(key: &Bytes, value: &Bytes) -> BTreeSet<InodeNo> {
    let child = match Key::decode(key) {
        Ok(Key::Name(..)) => NameValue::decode(value).ok().map(|value| value.ino),
        Ok(Key::Cookie(..)) => CookieValue::decode(value).ok().map(|value| value.ino),
        _ => None,
    };
    inode_of(key).into_iter().chain(child).collect()
}

/// Damage under way.
struct Damage<'r> {
    random: &'r SeededRandom,
    world: World,
    hit: BTreeSet<InodeNo>,
}

impl Damage<'_> {
    fn below(&self, n: usize) -> usize {
        usize::try_from(self.random.below(n as u64)).expect("small")
    }

    fn any_key(&self) -> Bytes {
        self.world.map.keys().nth(self.below(self.world.map.len())).expect("below").clone()
    }

    fn set(&mut self, key: Bytes, value: Option<Bytes>) {
        for value in self.world.map.get(&key).into_iter().chain(&value) {
            self.hit.extend(hit_by(&key, value));
        }
        match value {
            Some(value) => drop(self.world.map.insert(key, value)),
            None => drop(self.world.map.remove(&key)),
        }
    }

    fn drop_range(&mut self, from: Bytes, to: Bytes) {
        let keys: Vec<Bytes> = self.world.map.range(from.clone()..to.clone()).map(|(key, _)| key.clone()).collect();
        keys.into_iter().for_each(|key| self.set(key, None));
        self.world.lost.push(KeyRange { from, to });
        self.world.lost.sort_unstable_by(|a, b| a.from.cmp(&b.from));
        // In order and apart.
        let mut apart: Vec<KeyRange> = Vec::new();
        for range in std::mem::take(&mut self.world.lost) {
            match apart.last_mut() {
                Some(before) if before.to >= range.from => before.to = before.to.clone().max(range.to),
                _ => apart.push(range),
            }
        }
        self.world.lost = apart;
    }

    fn drop_some(&mut self) {
        let from = self.below(self.world.map.len());
        let len = 1 + self.below(20);
        let keys: Vec<&Bytes> = self.world.map.keys().skip(from).take(len + 1).collect();
        let end = Bytes::from_static(&[0xff; 9]);
        let (from, to) = (keys[0].clone(), keys.get(len).map_or(end, |key| (*key).clone()));
        self.drop_range(from, to);
    }

    fn lose_object(&mut self) {
        let object = *self.world.objects.keys().nth(self.below(self.world.objects.len())).expect("below");
        match self.below(2) {
            0 => drop(self.world.objects.remove(&object)),
            _ => {
                let len = self.below(self.world.objects[&object] as usize) as u32;
                self.world.objects.insert(object, len);
            }
        }
        self.hit.extend(extents(&self.world.map).filter(|(_, _, e)| e.object == object).map(|(ino, ..)| ino));
    }

    fn flip(&mut self) {
        let key = self.any_key();
        let mut value = self.world.map[&key].to_vec();
        if value.is_empty() {
            return;
        }
        let at = self.below(value.len());
        value[at] ^= 1 << self.below(8);
        self.set(key, Some(value.into()));
    }

    fn garbage(&mut self) {
        let bytes = |len: usize| (0..len).map(|_| self.below(256) as u8).collect::<Vec<u8>>();
        let value = bytes(self.below(40));
        let mut key = match self.below(3) {
            0 => self.any_key().to_vec(),
            1 => bytes(1 + self.below(30)),
            _ => key::extent(InodeNo(1 + self.below(20) as u64), self.random.below(1 << 40)).to_vec(),
        };
        if self.below(2) == 0 {
            let at = self.below(key.len());
            key[at] = self.below(256) as u8;
        }
        self.set(key.into(), Some(value.into()));
    }

    /// A directory gets a second name, perhaps inside itself.
    fn second_name(&mut self) {
        let dirs = directories(&self.world.map);
        let [dir, child] = [0, 1].map(|_| dirs[self.below(dirs.len())]);
        let (name, cookie) = (Bytes::from(format!("again {child}")), 1 << 30 | child.0);
        let value = NameValue { ino: child, kind: libc::DT_DIR, cookie };
        self.set(key::name(dir, &name), Some(value.encode()));
        self.set(key::cookie(dir, cookie), Some(CookieValue { ino: child, kind: libc::DT_DIR, name }.encode()));
        if self.below(2) == 0 {
            // And loses its first one.
            let named = |(key, value): (&Bytes, &Bytes)| match (Key::decode(key), NameValue::decode(value)) {
                (Ok(Key::Name(dir, name)), Ok(value)) if value.ino == child && !name.starts_with(b"again") => {
                    Some((dir, name, value.cookie))
                }
                _ => None,
            };
            if let Some((dir, name, cookie)) = self.world.map.iter().find_map(named) {
                self.set(key::name(dir, &name), None);
                self.set(key::cookie(dir, cookie), None);
            }
        }
    }

    fn impossible_name(&mut self) {
        let name = [&b"."[..], b"..", b"a/b", b"nul\0"][self.below(4)];
        let (dir, ino) = (InodeNo(1 + self.below(5) as u64), InodeNo(1 + self.below(30) as u64));
        self.set(key::name(dir, name), Some(NameValue { ino, kind: libc::DT_REG, cookie: 77 }.encode()));
    }

    fn anything(&mut self) {
        match self.below(12) {
            0..=2 => {
                let key = self.any_key();
                let after = Bytes::from([&key[..], b"\0"].concat());
                self.drop_range(key, after);
            }
            3..=4 => self.drop_some(),
            5..=6 => self.flip(),
            7 => self.garbage(),
            8 => self.second_name(),
            9 => self.impossible_name(),
            10 => {
                // Nobody says that it is missing.
                let key = self.any_key();
                self.set(key, None);
            }
            _ if self.world.objects.is_empty() => {}
            _ => self.lose_object(),
        }
    }
}

fn directories(map: &Map) -> Vec<InodeNo> {
    let dir = |(key, value): (&Bytes, &Bytes)| match (Key::decode(key), Inode::decode(value)) {
        (Ok(Key::Inode(ino)), Ok(inode)) if inode.mode & libc::S_IFMT == libc::S_IFDIR => Some(ino),
        _ => None,
    };
    let found: Vec<InodeNo> = map.iter().filter_map(dir).collect();
    if found.is_empty() { vec![InodeNo::ROOT] } else { found }
}

/// What no damage hit is as it was: attributes, contents, and the names in directories that were not hit.
fn assert_kept(before: &Map, after: &Map, hit: &BTreeSet<InodeNo>, when: &str) {
    let directories: BTreeSet<InodeNo> = directories(before).into_iter().collect();
    for (key, value) in before {
        let Some(ino) = inode_of(key).filter(|ino| !hit.contains(ino)) else { continue };
        match Key::decode(key).expect("a valid map") {
            Key::Name(..) if hit.contains(&NameValue::decode(value).expect("valid").ino) => {}
            Key::Cookie(..) if hit.contains(&CookieValue::decode(value).expect("valid").ino) => {}
            Key::Inode(_) if directories.contains(&ino) => {
                let was = Inode::decode(value).expect("valid");
                let is = after.get(key).map(|value| Inode::decode(value).expect("mended"));
                let is = is.unwrap_or_else(|| panic!("{when}: directory {ino} is gone"));
                // What is in it may have been hit, or it may have got what was.
                let is = Inode { nlink: was.nlink, next_cookie: was.next_cookie, parent: was.parent, ..is };
                assert_eq!(is, was, "{when}: directory {ino}");
            }
            decoded => assert_eq!(after.get(key), Some(value), "{when}: {decoded:?}"),
        }
    }
}

/// The seeds to run.
fn seeds(histories: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().expect("a number"));
    match number("SKYLOG_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("SKYLOG_HISTORIES").unwrap_or(histories)).collect(),
    }
}

fn is_single() -> bool {
    std::env::var("SKYLOG_SEED").is_ok()
}

fn births_of(map: &Map, objects: &BTreeMap<ObjectId, u32>) -> BTreeMap<InodeNo, Vec<Birth>> {
    let mut births: BTreeMap<InodeNo, Vec<Birth>> = BTreeMap::new();
    let mut known = BTreeSet::new();
    for (ino, offset, Extent { len, object, .. }) in extents(map) {
        // As a window has it that was shipped: of a part of an object it does not say where that is.
        let offset = if objects.get(&object) == Some(&len) { offset } else { u64::MAX };
        if let Some(len) = objects.get(&object).copied().filter(|_| known.insert(object)) {
            births.entry(ino).or_default().push(Birth { ino, offset, object, len });
        }
    }
    births
}

#[test]
fn what_is_whole_is_left_alone() {
    for seed in seeds(6) {
        let world = World::new(valid_map(&SeededRandom::new(seed)));
        let (mended, told) = world.mend();
        assert_eq!((mended.edits, told.len()), (Edits::new(), 0), "seed {seed}");
    }
}

#[test]
fn promise_g8_any_damage_is_mended_and_what_it_did_not_hit_is_as_it_was() {
    let (mut edits, mut untouched) = (0, 0);
    for seed in seeds(15) {
        let random = SeededRandom::new(seed);
        let map = valid_map(&random);
        for round in 0..25 {
            let mut world = World::new(map.clone());
            if round % 2 == 0 {
                world.births = births_of(&map, &world.objects);
            }
            let mut damage = Damage { random: &random, world, hit: BTreeSet::new() };
            for _ in 0..=damage.below(8) {
                damage.anything();
            }
            let Damage { world, hit, .. } = damage;
            let when = format!("seed {seed}, round {round}");
            let (after, told) = world.mended(&when);
            edits += told.len();
            assert_kept(&map, &after.map, &hit, &when);
            let all = map.keys().filter_map(|key| inode_of(key)).collect::<BTreeSet<_>>();
            untouched += all.difference(&hit).count();
            for (ino, (path, what)) in &told {
                assert!(!what.is_empty());
                let is_there = after.map.contains_key(&key::inode(*ino));
                let is_orphan = after.map.contains_key(&key::orphan(*ino));
                assert_eq!(path.is_some(), is_there && !is_orphan, "{when}: inode {ino} {what:?}");
            }
        }
    }
    assert!(edits > 500 && untouched > 500 || is_single(), "{edits} touched, {untouched} left alone");
}

/// What is at some bytes of a file, if anything is stored there: of which object, and where in it.
fn at_bytes(map: &Map, ino: InodeNo, places: &BTreeSet<u64>) -> BTreeMap<u64, (ObjectId, u32)> {
    let of_file = extents(map).filter(|(of, ..)| *of == ino);
    let bytes = of_file.flat_map(|(_, at, e)| {
        let here = places.range(at..at + u64::from(e.len)).copied();
        here.map(move |place| (place, (e.object, e.object_offset + u32::try_from(place - at).expect("short"))))
    });
    bytes.collect()
}

/// Where anything begins or ends in a file.
fn edges<'a>(maps: impl IntoIterator<Item = &'a Map>, ino: InodeNo) -> BTreeSet<u64> {
    let of_file = maps.into_iter().flat_map(extents).filter(|(of, ..)| *of == ino);
    of_file.flat_map(|(_, at, e)| [at, at + u64::from(e.len) / 2, at + u64::from(e.len) - 1]).collect()
}

/// Whatever of the map is gone, as long as it is known where something may be missing: each byte that a file had stored is there, or
/// named as lost, or the file does not reach there any more; none is in a hole, and none is another one.
#[test]
fn no_data_turns_into_a_hole_or_into_other_data() {
    let (mut whole, mut lost, mut back) = (0u64, 0u64, 0u64);
    for seed in seeds(10) {
        let random = SeededRandom::new(seed + 1000);
        let map = valid_map(&random);
        for round in 0..10 {
            let mut world = World::new(map.clone());
            if round % 2 == 0 {
                world.births = births_of(&map, &world.objects);
            }
            let mut damage = Damage { random: &random, world, hit: BTreeSet::new() };
            for _ in 0..=damage.below(4) {
                match damage.below(3) {
                    0 if !damage.world.objects.is_empty() => damage.lose_object(),
                    _ => damage.drop_some(),
                }
            }
            let when = format!("seed {seed}, round {round}");
            let left: BTreeSet<InodeNo> = damage.world.map.keys().filter_map(|key| inode_of(key)).collect();
            let (after, told) = damage.world.mended(&when);
            for (ino, was) in regular_files(&map) {
                let Some(is) = regular_files(&after.map).remove(&ino) else { continue };
                let places = edges([&map, &after.map], ino);
                let (before, found) = (at_bytes(&map, ino, &places), at_bytes(&after.map, ino, &places));
                for (at, byte) in before.iter().filter(|(at, _)| **at < is.size) {
                    match found.get(at) {
                        Some((object, _)) if *object == ObjectId::LOST => lost += 1,
                        Some(same) if same == byte => whole += 1,
                        other => {
                            panic!("{when}: byte {at} of inode {ino} was {byte:?}, is {other:?}: {:?}", told[&ino])
                        }
                    }
                }
                let stray =
                    found.iter().find(|(at, (object, _))| *object != ObjectId::LOST && !before.contains_key(at));
                assert_eq!(stray, None, "{when}: inode {ino} was never written there");
                back += u64::from(!left.contains(&ino) || is.mode != was.mode);
                let inode_stayed = damage.world.map.contains_key(&key::inode(ino));
                assert!(!inode_stayed || is.size == was.size, "{when}: inode {ino} has another size");
            }
        }
    }
    let enough = whole > 2_000 && lost > 200 && back > 0;
    assert!(enough || is_single(), "{whole} places whole, {lost} lost, {back} files made anew");
}

fn regular_files(map: &Map) -> BTreeMap<InodeNo, Inode> {
    let file = |(key, value): (&Bytes, &Bytes)| match (Key::decode(key), Inode::decode(value)) {
        (Ok(Key::Inode(ino)), Ok(inode)) if inode.mode & libc::S_IFMT == libc::S_IFREG => Some((ino, inode)),
        _ => None,
    };
    map.iter().filter_map(file).collect()
}
