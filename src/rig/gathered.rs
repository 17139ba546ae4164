//! What a repair finds of a filesystem: all of it where nothing is damaged, and the rest of it where something is.

mod damage;
mod fenced;

use super::tails::{publish, put, remove, shipped, sync};
use super::{Rig, small};
use crate::base::random::{Random, SeededRandom};
use crate::check::Nodes;
use crate::format::batch::TreeId;
use crate::format::ids::{Lsn, ObjectId};
use crate::format::inode::Extent;
use crate::format::key::{KEY_BYTES_MAX, Key};
use crate::format::publication::{Body, Position};
use crate::map::{NodeCache, Pins, Stop, View};
use crate::media::Media;
use crate::media::sim::{CallLog, Image, SimDisk};
use crate::recovery::{Mounted, World, mount};
use crate::repair::RepairError;
use crate::repair::gather::{Evidence, StatePart, gather};
use crate::ship::publish::read;
use crate::store::Store;
use crate::store::sim::{SimStore, StoreImage};
use crate::volume::resolve;
use bytes::Bytes;
use std::sync::Arc;

type Entries = Vec<(Bytes, Bytes)>;

/// Disk, if there is one, and store.
#[derive(Clone)]
struct Images {
    disk: Option<Image>,
    store: StoreImage,
}

impl Images {
    /// As they are now: a process that is killed leaves this.
    fn of(rig: &Rig) -> Images {
        Images { disk: Some(rig.disk.image()), store: rig.store.image() }
    }

    fn store_alone(&self) -> Images {
        Images { disk: None, store: self.store.clone() }
    }

    fn open(&self) -> (Option<SimDisk>, SimStore) {
        let log = CallLog::new();
        (self.disk.as_ref().map(|disk| SimDisk::from_image(disk, &log)), SimStore::from_image(&self.store, &log))
    }

    /// Gathers, and makes sure that nothing was changed.
    fn gather(&self) -> Result<Evidence, RepairError> {
        let (disk, store) = self.open();
        let media = disk.clone().map(|disk| Arc::new(disk) as Arc<dyn Media>);
        let shared: Arc<dyn Store> = Arc::new(store.clone());
        let gathered = gather(&shared, media.as_ref(), &mut |_, _, _| {});
        assert_eq!(store.image().hash(), self.store.hash(), "the store stays as it is");
        assert_eq!(disk.map(|disk| disk.image().hash()), self.disk.as_ref().map(Image::hash), "and the disk");
        gathered
    }

    fn found(&self) -> Evidence {
        self.gather().unwrap_or_else(|e| panic!("{e}"))
    }

    /// The map of files that was gathered, whose nodes are all there.
    fn entries(&self, evidence: &Evidence) -> Entries {
        let (disk, store) = self.open();
        let disk = disk.filter(|_| evidence.state == StatePart::Owner);
        let nodes = Nodes::new(disk.map(|disk| Arc::new(disk) as Arc<dyn Media>), Arc::new(store));
        let (cache, mut pins) = (NodeCache::new(8 << 20), Pins::new());
        let root = evidence.start.roots.expect("a start")[0];
        let view = View { overlay: &evidence.overlays[0], layers: &[], root };
        loop {
            match view.scan(&cache, &pins, &[], &[0xff; KEY_BYTES_MAX + 1], usize::MAX) {
                Ok(rows) => return rows,
                Err(ptr) => pins.pin_node(ptr, cache.fetch(&ptr, &nodes).expect("every node is there")),
            }
        }
    }

    /// What a mount recovers.
    fn mount(&self) -> (Mounted, Entries) {
        let (disk, store) = self.open();
        let disk: Arc<dyn Media> = Arc::new(disk.unwrap_or_else(|| SimDisk::new(&CallLog::new())));
        let world = World {
            media: disk.clone(),
            cache_media: disk,
            known: super::known(&store),
            store: Arc::new(store),
            clock: Arc::new(crate::base::clock::SimClock::default()),
            random: Arc::new(SeededRandom::new(99)),
        };
        let mounted = mount(&world, &small(), &mut |_, _| {}).unwrap_or_else(|e| panic!("{e}"));
        let entries = entries_of(&mounted);
        (mounted, entries)
    }
}

fn entries_of(mounted: &Mounted) -> Entries {
    let mut pins = Pins::new();
    loop {
        let read = mounted.db.begin(&pins).scan(TreeId::Files, &[], &[0xff; KEY_BYTES_MAX + 1], usize::MAX);
        match read {
            Ok(rows) => return rows,
            Err(Stop::Wait(wait)) => {
                resolve(&wait, &mounted.db, &mounted.nodes, &mut pins).unwrap_or_else(|e| panic!("{e}"))
            }
            Err(_) => panic!("a map that cannot be read"),
        }
    }
}

fn objects_in(entries: &Entries) -> Vec<ObjectId> {
    let object = |(key, value): &(Bytes, Bytes)| match Key::decode(key) {
        Ok(Key::Extent(..)) => Some(Extent::decode(value).expect("an extent").object),
        _ => None,
    };
    let mut objects: Vec<ObjectId> = entries.iter().filter_map(object).collect();
    objects.sort();
    objects.dedup();
    objects
}

/// What is gathered of something whole is what a mount recovers.
fn assert_same(images: &Images, when: &str) -> Evidence {
    let found = images.found();
    assert!(found.damaged.is_empty(), "{when}: {:?}", found.damaged);
    assert!(found.lost.is_empty(), "{when}: {:?}", found.lost);
    let (mounted, expected) = images.mount();
    assert!(images.entries(&found) == expected, "{when}: another map of files");
    for object in objects_in(&expected) {
        let read = mounted.db.journal().read(&object).expect("readable");
        let gathered = found.contents.len_of(&object).map(|_| found.contents.get(&object).expect("readable"));
        if read.is_some() {
            assert_eq!(gathered, read, "{when}: object {object}");
        }
    }
    assert_eq!(
        found
            .contents
            .lens()
            .map(|(object, _)| object)
            .filter(|o| *o > ObjectId { lsn: found.end, n: u32::MAX })
            .count(),
        0
    );
    let inodes = expected.iter().filter_map(|(key, _)| match Key::decode(key) {
        Ok(Key::Inode(ino)) => Some(ino.0),
        _ => None,
    });
    let highest = inodes.max().expect("a root");
    assert!(found.inode_max >= highest, "{when}: inode {highest}, highest {}", found.inode_max);
    assert!(found.end >= mounted.db.last() || images.disk.is_none(), "{when}: {} {}", found.end, mounted.db.last());
    let free = super::tails::free(&SimStore::from_image(&images.store, &CallLog::new()));
    assert_eq!(found.close.len(), 1, "{when}");
    assert!(found.close[0] == free || found.close[0].number == 0, "{when}: {:?}, free {free:?}", found.close);
    found
}

/// Whether the newest generation has begun; before that nobody publishes a log.
fn has_base(rig: &Rig) -> bool {
    let free = super::tails::free(&rig.store);
    let newest = read(&rig.store, Position { number: free.number - 1, ..free }).expect("whole").expect("there");
    !matches!(newest.body, Body::Closing(_))
}

/// Does something, chosen by chance.
fn act(rig: &mut Rig, random: &SeededRandom, names: &mut Vec<String>) {
    match random.u128() % 12 {
        0..5 => {
            let name = format!("file {}", random.u128() % 1000);
            if !names.contains(&name) {
                put(rig, &name, 1 + (random.u128() % 20_000) as usize);
                names.push(name);
            }
        }
        5 | 6 if !names.is_empty() => {
            let at = (random.u128() % names.len() as u128) as usize;
            remove(rig, &names.swap_remove(at));
        }
        7 => drop(sync(rig)),
        8 => rig.drain(),
        9 => {
            rig.mounted.checkpointer.wanted().checkpoint();
            for _ in 0..random.u128() % 12 {
                rig.step();
            }
        }
        10 if has_base(rig) && shipped(rig) > Lsn::ZERO => {
            let after = shipped(rig);
            publish(rig, after);
        }
        _ => drop((0..random.u128() % 6).map(|_| rig.step()).last()),
    }
}

#[test]
fn of_a_whole_filesystem_all_is_found_as_a_mount_recovers_it() {
    let (mut killed, mut with_journal) = (0, 0);
    for seed in 0..12 {
        let random = SeededRandom::new(seed);
        let (mut rig, mut names) = (Rig::new(seed + 100, &small()), Vec::new());
        for step in 0..24 {
            act(&mut rig, &random, &mut names);
            if step % 6 != 5 {
                continue;
            }
            let images = Images::of(&rig);
            let when = format!("seed {seed}, step {step}");
            let found = assert_same(&images, &format!("{when}, killed"));
            assert_eq!(found.state, StatePart::Owner);
            with_journal += usize::from(found.contents.lens().count() > 0);
            let cut = Images { disk: Some(rig.disk.image_durable()), ..images.clone() };
            assert_same(&cut, &format!("{when}, power gone"));
            let alone = assert_same(&images.store_alone(), &format!("{when}, store alone"));
            assert_eq!(alone.state, StatePart::None);
            killed += 1;
            rig = match random.u128() % 3 {
                0 => rig.remount(1000 * seed + step, &small()).expect("mounts again"),
                1 => {
                    names.clear();
                    super::tails::elsewhere(&images.store, 1000 * seed + step, &small()).expect("taken over")
                }
                _ => rig,
            };
        }
        rig.mounted.writer.close().expect("closes");
        assert_same(&Images::of(&rig), &format!("seed {seed}, clean"));
    }
    assert!(killed == 48 && with_journal > 20, "{killed} states, {with_journal} with objects in journal or logs");
}
