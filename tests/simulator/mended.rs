//! Stories of repairs, each crashed after every call. Whoever comes next repairs again, and finds all that there was; one that had
//! come to its end is mounted as it is.

use crate::crash::quietly;
use crate::oracle::check_clean;
use crate::repairs::{Harm, Target, repair_again, repair_on};
use crate::scenes::{Told, crashed_everywhere, is_whole, let_go, make, mount, sync, tuning};
use crate::world::{Machine, cache_disk};
use skylog::journal::MANIFEST;
use skylog::media::Media;
use skylog::media::sim::{CallLog, Content, Image, Limits, SimDisk};
use skylog::rig::Rig;
use skylog::store::Store;
use skylog::store::sim::{Recording, SimStore, StoreImage};
use std::collections::BTreeSet;
use std::sync::Arc;

fn limits() -> Limits {
    Limits { subsets_up_to: 4, tears_max: 1, random: 4, plans_max: 24, seed: 1 }
}

fn machine(disk: &Image, store: &StoreImage) -> Machine {
    let log = CallLog::new();
    let (disk, store) = (SimDisk::from_image(disk, &log), SimStore::from_image(store, &log));
    Machine { disk, cache: cache_disk(), store, clock: Arc::default(), tuning: tuning("alpha"), tolerant: false }
}

/// A filesystem before its repair.
struct Damage {
    disk: Image,
    store: StoreImage,
    /// What the state directory and the store have together,
    files: &'static [&'static str],
    /// and the originals that a repair keeps: objects, and files of the state directory.
    objects: Vec<String>,
    local: Vec<String>,
}

impl Damage {
    /// Two files are shipped, a third is in the journal alone. Nothing that is damaged costs any of them.
    fn to(targets: &[Target]) -> Damage {
        let mut rig = Rig::new(1, &tuning("alpha"));
        for name in ["first", "second"] {
            make(&mut rig, name);
            rig.drain();
        }
        make(&mut rig, "journalled");
        sync(&mut rig);
        rig.mounted.writer.close().expect("the journal closes");
        let (disk, whole) = (rig.disk.image(), rig.store.image());
        let harm =
            |store: StoreImage, target: &Target| Harm { target: *target, which: 1, at: 60 }.done_to(&disk, &store).1;
        let store = targets.iter().fold(whole.clone(), harm);
        let objects =
            store.names().filter(|name| store.object(name) != whole.object(name)).map(str::to_owned).collect();
        let local = disk.names().map(str::to_owned).collect();
        Damage { disk, store, files: &["first", "second", "journalled"], objects, local }
    }

    /// A state directory of which all is in the store, which another machine has had since, and which does not say so any more.
    fn to_what_is_withdrawn(harm: fn(&SimDisk)) -> Damage {
        let mut rig = Rig::new(1, &tuning("alpha"));
        for name in ["first", "second"] {
            make(&mut rig, name);
            rig.drain();
        }
        let (disk, store) = let_go(rig);
        let mut other = mount(&Image::default(), &store, "beta").expect("nobody holds it");
        make(&mut other, "theirs");
        let (_, store) = let_go(other);
        let disk = SimDisk::from_image(&disk, &CallLog::new());
        harm(&disk);
        let disk = disk.image();
        let local = disk.names().map(str::to_owned).collect();
        Damage { disk, store, files: &["first", "second", "theirs"], objects: Vec::new(), local }
    }

    /// Repairs it, crashes that after every call, and looks what is left.
    fn crashed(&self) -> Told {
        let machine = machine(&self.disk, &self.store);
        quietly(|| repair_on(&machine, 1)).map_err(|what| (0, what))?;
        let recording = Recording::of(&machine.disk, &machine.store);
        let end = recording.calls().len();
        let (mut states, mut seen) = (0, BTreeSet::new());
        for crash in recording.crashes(&limits()) {
            let ended = crash.after == end;
            if !seen.insert((crash.hash, ended)) {
                continue;
            }
            states += 1;
            let look = || {
                let place = self::machine(&crash.disk, &crash.store);
                if !ended {
                    repair_again(&place, 2);
                }
                crash.late.iter().for_each(|late| place.store.land(late));
                self.look_at(&place)
            };
            let looked = quietly(look).and_then(|looked| looked);
            looked.map_err(|e| (states, format!("after call {} ({:?}): {e}", crash.after, crash.plan)))?;
        }
        Ok(states)
    }

    fn look_at(&self, place: &Machine) -> Result<(), String> {
        check_clean("after a repair", place, true);
        let (disk, store) = (place.disk.image(), place.store.image());
        let mut rig = mount(&disk, &store, "alpha")?;
        if let Some(file) = self.files.iter().find(|file| !is_whole(&mut rig, file)) {
            return Err(format!("{file} is gone"));
        }
        let is_copy = |copy: &str, name: &str| copy.ends_with(&format!("/{name}")) && copy.starts_with("damaged");
        let is_kept = |name: &&String| {
            store.names().any(|copy| is_copy(copy, name) && store.object(copy) == self.store.object(name))
        };
        let hash = |disk: &Image, name: &str| disk.file(name).map(Content::hash);
        let stays = |name: &String| hash(&disk, name) == hash(&self.disk, name);
        let is_aside = |name: &&String| {
            disk.names().any(|copy| is_copy(copy, name) && hash(&disk, copy) == hash(&self.disk, name))
        };
        // One that found nothing to do moves nothing.
        let mut moved = self.local.iter().filter(|_| !self.local.iter().all(stays));
        match self.objects.iter().find(|name| !is_kept(name)).or(moved.find(|name| !is_aside(name))) {
            Some(name) => Err(format!("the original of {name} is not kept")),
            None => Ok(()),
        }
    }
}

/// An index and a publication are damaged.
pub fn objects() -> Told {
    Damage::to(&[Target::Index, Target::Publication]).crashed()
}

/// The superblock is damaged: it is mended early, and after that nothing is left to mend.
pub fn superblock() -> Told {
    Damage::to(&[Target::Superblock]).crashed()
}

/// The manifest is gone.
pub fn manifest_gone() -> Told {
    Damage::to_what_is_withdrawn(|disk| disk.remove(MANIFEST).expect("there")).crashed()
}

/// The manifest is damaged, and there is no journal any more.
pub fn manifest_damaged() -> Told {
    let harm = |disk: &SimDisk| {
        disk.open(MANIFEST).expect("there").write_at(&[0xff; 8], 20).expect("written");
        let names: Vec<String> = disk.image().names().map(str::to_owned).collect();
        names.iter().filter(|name| name.starts_with("journal/")).for_each(|name| disk.remove(name).expect("there"));
    };
    Damage::to_what_is_withdrawn(harm).crashed()
}

/// A writer is paused while the store alone is repaired, and then goes on.
pub fn beside_a_writer() -> Told {
    let mut writer = Rig::new(1, &tuning("alpha"));
    make(&mut writer, "first");
    writer.drain();
    let name = writer.store.list("win").expect("listed").remove(0);
    let mut bytes = writer.store.get(&name).expect("there").to_vec();
    bytes[60] ^= 0x20;
    writer.store.put(&name, bytes.into()).expect("put");
    let disk = SimDisk::new(&writer.log);
    let other = Machine { disk, store: writer.store.clone(), ..machine(&Image::default(), &writer.store.image()) };
    quietly(|| repair_on(&other, 1)).map_err(|what| (0, what))?;
    let published = writer.store.list("gen").expect("listed");
    make(&mut writer, "second");
    writer.mounted.checkpointer.wanted().checkpoint();
    for _ in 0..1000 {
        writer.step();
    }
    let mut now = writer.store.list("gen").expect("listed");
    now.retain(|name| !published.contains(name));
    match now.pop() {
        Some(name) => Err((1, format!("{name} is published beside the repaired filesystem, where nobody finds it"))),
        None => Ok(1),
    }
}

#[test]
fn repairs_may_be_crashed() {
    for story in [objects, superblock] {
        crashed_everywhere(story);
    }
}

#[test]
fn a_state_directory_that_moves_aside_without_a_repair_may_be_crashed() {
    for story in [manifest_gone, manifest_damaged] {
        let states = story().expect("survived");
        assert!(states > 5, "{states} states");
    }
}

#[test]
fn a_writer_does_not_go_on_beside_a_repaired_filesystem() {
    beside_a_writer().expect("it is fenced");
}
