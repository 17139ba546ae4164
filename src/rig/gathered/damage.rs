//! Each thing damaged alone, and in pairs: what is left is found, and what is not left is told.

use super::*;
use crate::format::ids::Lsn;
use crate::format::names::SUPERBLOCK;
use crate::journal::MANIFEST;

/// What happens to a file or an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    FirstByte,
    Middle,
    LastByte,
    Cut,
    Emptied,
    Foreign,
    Removed,
}

const DAMAGES: [Damage; 7] = [
    Damage::FirstByte,
    Damage::Middle,
    Damage::LastByte,
    Damage::Cut,
    Damage::Emptied,
    Damage::Foreign,
    Damage::Removed,
];

impl Damage {
    fn of(self, bytes: &[u8]) -> Option<Vec<u8>> {
        let flipped = |at: usize| {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 0x20;
            bytes
        };
        match self {
            Damage::FirstByte => Some(flipped(0)),
            Damage::Middle => Some(flipped(bytes.len() / 2)),
            Damage::LastByte => Some(flipped(bytes.len() - 1)),
            Damage::Cut => Some(bytes[..bytes.len() / 2].to_vec()),
            Damage::Emptied => Some(Vec::new()),
            Damage::Foreign => Some(b"a letter to somebody else".repeat(9)),
            Damage::Removed => None,
        }
    }
}

/// A file in the state directory, or an object in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    name: String,
    local: bool,
}

impl Images {
    /// What a repair reads here, and is not empty.
    fn places(&self) -> Vec<Place> {
        let (disk, store) = self.open();
        let is_read = |name: &str| name == MANIFEST || name.starts_with("ckpt/") || name.starts_with("journal/");
        let place = |local: bool| move |name: &str| Place { name: name.to_owned(), local };
        let mut places: Vec<Place> =
            self.disk.iter().flat_map(|disk| disk.names()).filter(|name| is_read(name)).map(place(true)).collect();
        places.retain(|place| disk.as_ref().is_some_and(|disk| !bytes_of(disk, &place.name).is_empty()));
        let names = store.list("").expect("listed");
        places.extend(names.iter().filter(|n| n.starts_with("gen/") || *n == SUPERBLOCK).map(|n| place(false)(n)));
        places
    }

    fn damaged(&self, hits: &[(&Place, Damage)]) -> Images {
        let (disk, store) = self.open();
        for (place, damage) in hits {
            if place.local {
                let disk = disk.as_ref().expect("a disk");
                let bytes = damage.of(&bytes_of(disk, &place.name));
                disk.remove(&place.name).expect("removed");
                if let Some(bytes) = bytes {
                    disk.create(&place.name).expect("made").write_at(&bytes, 0).expect("written");
                }
            } else {
                match damage.of(&store.get(&place.name).expect("there")) {
                    Some(bytes) => store.put(&place.name, bytes.into()).expect("put"),
                    None => store.delete(&place.name).expect("deleted"),
                }
            }
        }
        Images { disk: disk.map(|disk| disk.image()), store: store.image() }
    }
}

fn bytes_of(disk: &SimDisk, name: &str) -> Vec<u8> {
    let file = disk.open(name).expect("there");
    let mut bytes = vec![0; file.len().expect("a length") as usize];
    file.read_at(&mut bytes, 0).expect("read");
    bytes
}

/// Base, increments and logs in the store; a plan that waits, and later batches, in the state directory. The last log has them too.
fn killed() -> Images {
    let mut rig = Rig::new(3, &small());
    (0..12).for_each(|n| drop(put(&mut rig, &format!("old {n}"), 3000)));
    rig.drain();
    for n in 0..2 {
        put(&mut rig, &format!("window {n}"), 9000);
        remove(&mut rig, &format!("old {n}"));
        rig.drain();
    }
    put(&mut rig, "log", 5000);
    let after = shipped(&rig);
    publish(&mut rig, after);
    remove(&mut rig, "old 7");
    rig.mounted.checkpointer.wanted().checkpoint();
    for _ in 0..40 {
        rig.step_journal();
        rig.step_checkpointer();
    }
    put(&mut rig, "later", 7000);
    sync(&mut rig);
    put(&mut rig, "latest", 100);
    publish(&mut rig, after);
    Images::of(&rig)
}

fn clean() -> Images {
    let images = killed();
    let (disk, store) = images.open();
    let disk = disk.expect("a disk");
    let mut rig = Rig::mount(disk.log().clone(), disk.clone(), store, Arc::default(), 4, &small()).expect("mounts");
    put(&mut rig, "in the journal alone", 6000);
    rig.mounted.writer.close().expect("closes");
    Images::of(&rig)
}

/// A takeover that has brought nothing into its journal yet.
fn taken_over() -> Images {
    let rig = super::super::tails::elsewhere(&killed().store, 5, &small()).expect("taken over");
    let mut names = rig.disk.image().names().map(str::to_owned).collect::<Vec<_>>();
    names.retain(|name| name.ends_with(".tail"));
    assert_eq!(names.len(), 1, "{names:?}");
    Images::of(&rig)
}

/// What was found of damaged images, against all that was there.
struct Outcome {
    is_whole: bool,
    is_told: bool,
    has_start: bool,
}

/// **Where a start is found and nothing is told to be lost, the map of files is exactly what it was**, but for what lies at the very
/// end, of which nothing says that it was there; `ends` counts the places that would.
fn outcome(images: &Images, whole: &Entries, hits: &[(&Place, Damage)], ends: usize) -> Outcome {
    let last = last_publication(images);
    let is_end = |place: &Place| {
        place.name == last || [MANIFEST, "journal"].contains(&place.name.split('/').next().unwrap_or(""))
    };
    let hit = hits.iter().filter(|(place, _)| is_end(place)).count();
    let damaged = images.damaged(hits);
    let found = damaged.gather().unwrap_or_else(|e| panic!("{hits:?}: {e}"));
    let has_start = found.start.roots.is_some();
    let entries = has_start.then(|| damaged.entries(&found));
    let is_whole = found.lost.is_empty() && entries.as_ref() == Some(whole);
    if has_start && found.lost.is_empty() && hit < ends {
        assert!(is_whole, "{hits:?}: another map, {:?}, {:?}", found.damaged, found.state);
    }
    for (object, len) in found.contents.lens() {
        assert_eq!(found.contents.get(&object).expect("readable").len(), len as usize, "{hits:?}: {object}");
    }
    let is_told = |place: &Place| found.damaged.iter().any(|d| d.place == place.name && d.local == place.local);
    let is_told = hits.iter().all(|(place, _)| is_told(place));
    assert!(
        is_whole || !found.damaged.is_empty() || hit == ends,
        "{hits:?}: something is lost, and nothing is damaged"
    );
    Outcome { is_whole, is_told, has_start }
}

fn last_publication(images: &Images) -> String {
    images.store.names().filter(|name| name.starts_with("gen/")).max().expect("a generation").to_owned()
}

fn newest_generation(images: &Images) -> String {
    last_publication(images)[..15].to_owned()
}

#[test]
fn what_one_damage_leaves_is_found_and_nothing_is_lost_where_two_places_have_it() {
    for (images, what) in [(killed(), "killed"), (clean(), "clean"), (taken_over(), "taken over")] {
        let whole = images.entries(&assert_same(&images, what));
        let newest = newest_generation(&images);
        let last = last_publication(&images);
        let (mut looked, mut lost) = (0, 0);
        for place in images.places() {
            for damage in DAMAGES {
                let found = outcome(&images, &whole, &[(&place, damage)], 2);
                looked += 1;
                lost += usize::from(!found.is_whole);
                // The state directory and the store both have all but what waits in the journal.
                assert!(found.is_whole || place.name.starts_with("journal/"), "{what}: {place:?}, {damage:?}");
                assert!(found.has_start, "{what}: {place:?}, {damage:?}");
                let matters = [SUPERBLOCK, MANIFEST].contains(&&*place.name)
                    || place.name.starts_with("ckpt/") && place.name.len() == 15
                    || place.name.ends_with(".edits")
                    || place.name.starts_with(&newest) && !(damage == Damage::Removed && place.name == last);
                assert!(found.is_told || !matters, "{what}: {place:?}, {damage:?} is not told");
            }
        }
        assert!(looked > 100, "{what}: {looked}");
        assert_eq!(lost > 0, what == "clean", "{what}: {lost} of {looked} lost something");
    }
}

#[test]
fn of_a_store_alone_each_damage_is_told_and_the_rest_is_found() {
    let images = killed().store_alone();
    let whole = images.entries(&assert_same(&images, "store alone"));
    let newest = newest_generation(&images);
    let names: Vec<&str> = images.store.names().filter(|name| name.starts_with(&newest)).collect();
    assert!(names.len() >= 4, "{names:?}");
    let mut counts = [0; 3];
    for place in images.places() {
        for damage in DAMAGES {
            let found = outcome(&images, &whole, &[(&place, damage)], 1);
            counts[if !found.has_start { 0 } else { usize::from(found.is_whole) + 1 }] += 1;
            let hidden = damage == Damage::Removed && Some(&&*place.name) == names.last();
            assert!(found.is_told || hidden || !place.name.starts_with(&newest), "{place:?}, {damage:?}");
        }
    }
    assert!(counts[1] > 10 && counts[2] > 10, "without a start, with loss, whole: {counts:?}");
}

#[test]
fn of_pairs_of_damages_nothing_wrong_is_ever_found() {
    for (images, seed) in [(killed(), 1), (clean(), 2), (taken_over(), 3), (killed().store_alone(), 4)] {
        let whole = images.entries(&images.found());
        let (places, random) = (images.places(), SeededRandom::new(seed));
        let some = |n: usize| (random.u128() % n as u128) as usize;
        let mut lost = 0;
        for _ in 0..400 {
            let (one, two) = (&places[some(places.len())], &places[some(places.len())]);
            if one == two {
                continue;
            }
            let ends = if images.disk.is_some() { 2 } else { 1 };
            let found = outcome(&images, &whole, &[(one, DAMAGES[some(7)]), (two, DAMAGES[some(7)])], ends);
            lost += usize::from(!found.is_whole);
        }
        assert!(lost > 0, "seed {seed}: no pair cost anything");
    }
}

#[test]
fn a_superblock_is_made_anew_as_it_was() {
    let images = clean();
    let expected = images.found().superblock;
    for local in [true, false] {
        for damage in DAMAGES {
            let images = if local { images.clone() } else { images.store_alone() };
            let place = Place { name: SUPERBLOCK.to_owned(), local: false };
            let found = images.damaged(&[(&place, damage)]).found();
            let made = found.superblock;
            assert_eq!((made.uuid, made.usage), (expected.uuid, expected.usage), "{damage:?}");
            assert!(made.segment_size == expected.segment_size || !local, "{damage:?}: {made:?}");
        }
    }
}

#[test]
fn batches_in_a_damaged_log_are_found_one_by_one() {
    let images = killed().store_alone();
    let all = images.found();
    let last = last_publication(&images);
    let place = Place { name: last.clone(), local: false };
    let bytes = images.store.object(&last).expect("there").len();
    let mut kept = 0;
    for at in (0..bytes).step_by(97) {
        let (_, store) = images.open();
        let mut bytes = store.get(&last).expect("there").to_vec();
        bytes[at] ^= 1;
        store.put(&last, bytes.into()).expect("put");
        let images = Images { disk: None, store: store.image() };
        let found = images.found();
        assert!(found.damaged.iter().any(|damaged| damaged.place == place.name), "at {at}");
        kept += usize::from(found.contents.lens().count() + 1 >= all.contents.lens().count());
        assert!(found.end <= all.end && found.end > Lsn::ZERO);
    }
    assert!(kept * 97 > bytes / 2, "{kept}: at most one object goes with a flipped bit, but for those in heads");
}
