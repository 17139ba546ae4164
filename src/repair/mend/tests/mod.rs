//! Each kind of fix by itself, on a small map. Random damage of random maps is in `tests/mend.rs`.

mod contents;
mod links;

use super::*;
use crate::check::{blocks_of, check_map};
use crate::format::ids::Lsn;
use crate::format::inode::{CookieValue, Extent, Inode, NameValue, Xattrs};
use crate::format::usage::{Usage, UsageLimit};
use crate::fs::root_inode;
use std::collections::BTreeSet;
use std::convert::Infallible;

const ROOT: InodeNo = InodeNo::ROOT;
const DIR: InodeNo = InodeNo(2);
const FILE: InodeNo = InodeNo(3);
const LINK: InodeNo = InodeNo(4);
const TINY: InodeNo = InodeNo(5);
const ORPHAN: InodeNo = InodeNo(6);
const SUB: InodeNo = InodeNo(7);

/// An object of [`PART`] bytes.
fn object(n: u64) -> ObjectId {
    ObjectId { lsn: Lsn { epoch: 1, pos: n }, n: 0 }
}

/// The length of all objects.
const PART: u32 = 10_000;

fn whole_extent(n: u64) -> Extent {
    Extent { len: PART, object: object(n), object_offset: 0 }
}

/// A map and what is known beside it.
#[derive(Clone)]
struct World {
    map: BTreeMap<Bytes, Bytes>,
    lost_objects: BTreeSet<ObjectId>,
    births: Vec<Birth>,
    ranges: Vec<KeyRange>,
    counted: bool,
    lost: Vec<(Lsn, Lsn)>,
    after_loss: AfterLoss,
}

/// A map after it was mended.
struct After {
    map: BTreeMap<Bytes, Bytes>,
    told: BTreeMap<InodeNo, Touched>,
}

impl World {
    /// In the root a directory `dir` with a file `file` of three objects, a link `link`, a subdirectory `sub`; a tiny file `tiny`
    /// in the root, with a second name in the subdirectory; an orphan.
    fn new() -> World {
        let map = BTreeMap::new();
        let mut world = World {
            map,
            lost_objects: BTreeSet::new(),
            births: Vec::new(),
            ranges: Vec::new(),
            counted: true,
            lost: Vec::new(),
            after_loss: AfterLoss::new(),
        };
        let dir = |parent: InodeNo, nlink, next_cookie| {
            let inode = root_inode(Time::default(), 0o755, 7, 7);
            Inode { nlink, parent, next_cookie, ..inode }
        };
        let file = |nlink, size, blocks| {
            let mode = libc::S_IFREG | 0o644;
            Inode { mode, uid: 7, nlink, size, blocks, ..Inode::default() }
        };
        world.inode(ROOT, dir(ROOT, 3, 5));
        world.inode(DIR, dir(ROOT, 3, 6));
        world.inode(SUB, dir(DIR, 2, 4));
        world.inode(FILE, file(1, u64::from(3 * PART), 3 * blocks_of(u64::from(PART))));
        world.inode(TINY, file(2, 5, 1));
        world.inode(ORPHAN, file(0, 0, 0));
        let target = Bytes::from_static(b"target");
        world.inode(LINK, Inode { mode: libc::S_IFLNK | 0o777, nlink: 1, size: 6, target, ..Inode::default() });
        world.entry(ROOT, "dir", DIR, libc::DT_DIR, 3);
        world.entry(ROOT, "tiny", TINY, libc::DT_REG, 4);
        world.entry(DIR, "file", FILE, libc::DT_REG, 3);
        world.entry(DIR, "link", LINK, libc::DT_LNK, 4);
        world.entry(DIR, "sub", SUB, libc::DT_DIR, 5);
        world.entry(SUB, "tiny too", TINY, libc::DT_REG, 3);
        for n in 0..3 {
            world.put(key::extent(FILE, n * u64::from(PART)), whole_extent(n + 1).encode());
        }
        world.put(key::inline(TINY), Bytes::from_static(b"bytes"));
        world.put(key::xattr(FILE, b"user.x"), Bytes::from_static(b"v"));
        world.change(FILE, |inode| inode.xattrs = Xattrs::OTHERS);
        world.put(key::orphan(ORPHAN), Bytes::new());
        world.put(key::usage(), Usage { inodes: 7, blocks: 61 }.encode());
        world.put(key::limit(), UsageLimit::default().encode());
        world
    }

    fn put(&mut self, key: Bytes, value: Bytes) {
        self.map.insert(key, value);
    }

    fn remove(&mut self, key: &Bytes) {
        assert!(self.map.remove(key).is_some(), "it is there");
    }

    fn inode(&mut self, ino: InodeNo, inode: Inode) {
        self.put(key::inode(ino), inode.encode());
    }

    fn change(&mut self, ino: InodeNo, change: impl FnOnce(&mut Inode)) {
        let mut inode = inode_in(&self.map, ino).expect("it is there");
        change(&mut inode);
        self.inode(ino, inode);
    }

    fn name(&mut self, dir: InodeNo, name: &str, ino: InodeNo, kind: u8, cookie: u64) {
        self.put(key::name(dir, name.as_bytes()), NameValue { ino, kind, cookie }.encode());
    }

    fn cookie(&mut self, dir: InodeNo, name: &str, ino: InodeNo, kind: u8, cookie: u64) {
        let listed = CookieValue { ino, kind, name: Bytes::copy_from_slice(name.as_bytes()) };
        self.put(key::cookie(dir, cookie), listed.encode());
    }

    fn entry(&mut self, dir: InodeNo, name: &str, ino: InodeNo, kind: u8, cookie: u64) {
        self.name(dir, name, ino, kind, cookie);
        self.cookie(dir, name, ino, kind, cookie);
    }

    fn remove_entry(&mut self, dir: InodeNo, name: &str, cookie: u64) {
        self.remove(&key::name(dir, name.as_bytes()));
        self.remove(&key::cookie(dir, cookie));
    }

    /// Removes what is in a range of keys, and says so.
    fn lose(&mut self, (from, to): (Bytes, Bytes)) {
        self.map.retain(|key, _| *key < from || *key >= to);
        self.ranges.push(KeyRange { from, to });
    }

    fn mend(&self) -> (Mended, BTreeMap<InodeNo, Touched>) {
        let known = Known {
            whole: &|object| (!self.lost_objects.contains(object)).then_some(PART),
            births: &|ino| self.births.iter().filter(|birth| birth.ino == ino).copied().collect(),
            counted: self.counted,
            inode_max: 20,
            lost: &self.lost,
            after_loss: &self.after_loss,
            now: Time { secs: 99, nanos: 0 },
        };
        let mut told = BTreeMap::new();
        let mut source = |each: &mut dyn FnMut(Bytes, Bytes)| {
            self.map.iter().for_each(|(key, value)| each(key.clone(), value.clone()));
            Ok::<_, Infallible>(self.ranges.clone())
        };
        let Ok(mended) = mend(&mut source, &known, &mut |touched| drop(told.insert(touched.ino, touched)));
        (mended, told)
    }

    /// Mends it: the check finds nothing any more, and mending once more changes nothing.
    fn mended(&self) -> After {
        let (Mended { edits, .. }, told) = self.mend();
        let mut map = self.map.clone();
        for (key, value) in edits {
            match value {
                Some(value) => drop(map.insert(key, value)),
                None => drop(map.remove(&key)),
            }
        }
        assert_eq!(check_map(&map, self.counted), [], "told: {told:#?}");
        let again = World { map: map.clone(), ranges: Vec::new(), ..self.clone() };
        assert_eq!(again.mend().0.edits, Edits::new());
        After { map, told }
    }
}

fn inode_in(map: &BTreeMap<Bytes, Bytes>, ino: InodeNo) -> Option<Inode> {
    map.get(&key::inode(ino)).map(|value| Inode::decode(value).expect("attributes"))
}

impl After {
    fn inode(&self, ino: InodeNo) -> Inode {
        inode_in(&self.map, ino).unwrap_or_else(|| panic!("there is no inode {ino}: {:#?}", self.told))
    }

    fn is_gone(&self, ino: InodeNo) -> bool {
        let (from, to) = key::all_of(ino);
        self.map.range(from..to).next().is_none()
    }

    /// What a name means.
    fn find(&self, dir: InodeNo, name: &str) -> Option<InodeNo> {
        let value = self.map.get(&key::name(dir, name.as_bytes()))?;
        Some(NameValue::decode(value).expect("a name").ino)
    }

    fn found(&self) -> InodeNo {
        self.find(ROOT, "lost+found").expect("there is such a directory")
    }

    /// Where the file's extents are, how long, and of which object.
    fn extents(&self, ino: InodeNo) -> Vec<(u64, u32, u64)> {
        let (from, to) = key::extents_of(ino);
        let rows = self.map.range(from..to).map(|(key, value)| (key::Key::decode(key), Extent::decode(value)));
        let mut found = Vec::new();
        for row in rows {
            let (Ok(key::Key::Extent(_, at)), Ok(extent)) = row else { panic!("{row:?}") };
            found.push((at, extent.len, extent.object.lsn.pos));
        }
        found
    }

    /// An inode was told of, with this fix among others.
    fn assert_told(&self, ino: InodeNo, id: &str, path: Option<&str>) {
        let fix = FIXES.iter().find(|fix| fix.id == id).expect("in the table");
        let told = self.told.get(&ino).unwrap_or_else(|| panic!("inode {ino} was not told of: {:#?}", self.told));
        assert!(told.what.iter().any(|what| what.starts_with(fix.finds)), "{id} is not in {told:?}");
        assert_eq!(told.path.as_deref(), path, "{told:?}");
    }

    /// No other inode was touched.
    fn assert_touched(&self, inodes: &[InodeNo]) {
        assert_eq!(self.told.keys().copied().collect::<Vec<_>>(), inodes, "{:#?}", self.told);
    }
}

#[test]
fn what_is_whole_stays_as_it_is_and_is_looked_at_once() {
    let world = World::new();
    assert_eq!(check_map(&world.map, true), []);
    let (mended, told) = world.mend();
    assert_eq!((mended.edits, mended.touched, told.len()), (Edits::new(), 0, 0));
    let mut looks = 0;
    let known = Known {
        whole: &|_| Some(PART),
        births: &|_| Vec::new(),
        counted: true,
        inode_max: 20,
        lost: &[],
        after_loss: &AfterLoss::new(),
        now: Time::default(),
    };
    let mut source = |each: &mut dyn FnMut(Bytes, Bytes)| {
        looks += 1;
        world.map.iter().for_each(|(key, value)| each(key.clone(), value.clone()));
        Ok::<_, Infallible>(Vec::new())
    };
    let Ok(_) = mend(&mut source, &known, &mut |_| {});
    assert_eq!(looks, 1);
}

#[test]
fn an_error_of_the_source_ends_it() {
    let known = Known {
        whole: &|_| None,
        births: &|_| Vec::new(),
        counted: true,
        inode_max: 20,
        lost: &[],
        after_loss: &AfterLoss::new(),
        now: Time::default(),
    };
    assert_eq!(mend(&mut |_| Err("away"), &known, &mut |_| {}), Err("away"));
}

#[test]
fn every_fix_has_a_name_of_its_own() {
    let ids: BTreeSet<&str> = FIXES.iter().map(|fix| fix.id).collect();
    assert_eq!(ids.len(), FIXES.len());
}

#[test]
fn entries_that_make_no_sense_are_dropped() {
    let mut world = World::new();
    world.put(Bytes::from_static(b"short"), Bytes::new());
    world.put(Bytes::from([&key::inode(FILE)[..], b"x"].concat()), Bytes::new());
    world.put(key::inode(InodeNo(1 << 60)), root_inode(Time::default(), 0o755, 0, 0).encode());
    let before = World::new().map;
    let after = world.mended();
    assert_eq!(after.map, before);
    after.assert_told(FILE, "garbage", Some("/dir/file"));
    after.assert_touched(&[InodeNo::NONE, FILE]);
}

#[test]
fn usage_and_limit_are_made_right() {
    let mut world = World::new();
    world.put(key::usage(), Usage { inodes: 9, blocks: 1 }.encode());
    let after = world.mended();
    after.assert_told(InodeNo::NONE, "usage", None);
    assert_eq!(after.map, World::new().map);
    world.remove(&key::usage());
    assert_eq!(world.mended().map, World::new().map);
    world.put(key::usage(), Bytes::from_static(b"much"));
    assert_eq!(world.mended().map, World::new().map);
    world.counted = false;
    assert_eq!(world.mended().map.get(&key::usage()), None, "it does not count");
    world = World::new();
    world.put(key::limit(), Bytes::from_static(b"much"));
    let after = world.mended();
    assert_eq!(after.map.get(&key::limit()), None);
    after.assert_told(InodeNo::NONE, "limit", None);
}

#[test]
fn very_much_that_happens_to_one_file_is_told_in_short() {
    let mut world = World::new();
    let inode = Inode { size: 500 * u64::from(PART), blocks: 10_000, ..inode_in(&world.map, FILE).expect("there") };
    world.inode(FILE, inode);
    for n in 0..500 {
        world.put(key::extent(FILE, n * u64::from(PART)), whole_extent(n + 1).encode());
        world.lost_objects.insert(object(n + 1));
    }
    let after = world.mended();
    let told = after.told[&FILE].what.iter().find(|what| what.contains("lost")).expect("told");
    assert!(told.ends_with("; and 497 more)") && told.len() < 300, "{told}");
}
