//! Every object of every kind, damaged, cut or gone.

use super::*;
use skylog::format::names::SUPERBLOCK;

/// A bit more than the ends of what is in it.
fn spots(len: usize) -> [usize; 5] {
    [0, 30.min(len - 1), len / 3, len / 2, len - 1]
}

/// How something is damaged.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Flipped(usize),
    Cut(usize),
    Gone,
}

fn harms(len: usize) -> Vec<Harm> {
    let flips = spots(len).map(Harm::Flipped);
    flips.into_iter().chain([Harm::Cut(len / 2), Harm::Cut(0), Harm::Gone]).collect()
}

fn harm_object(store: &SimStore, name: &str, harm: Harm) {
    let bytes = store.get(name).expect("there");
    match harm {
        Harm::Flipped(at) => world::flip(store, name, at),
        Harm::Cut(len) => store.put(name, bytes.slice(..len)).expect("put"),
        Harm::Gone => store.delete(name).expect("deleted"),
    }
}

fn each_object(folder: &str, with_state: bool) {
    let world = World::new();
    let (names, mut repaired) = (world.living(folder), 0);
    assert!(!names.is_empty(), "there is something in {folder}");
    // Without a state directory nobody can know of the last object of a generation that it was there.
    let last = world.living("gen/").pop().expect("a generation");
    for name in &names {
        for harm in harms(world.store.object(name).expect("there").len()) {
            let place = Place::from(&world, with_state);
            harm_object(&place.store, name, harm);
            let when = format!("{name} {harm:?}, with state: {with_state}");
            let mut files = world.files(with_state);
            if *name == last && matches!(harm, Harm::Gone) && !with_state {
                files.remove("logged");
            }
            let report = place.assert_repaired(&files, &when);
            repaired += u32::from(!report.was_clean());
        }
    }
    assert!(repaired as usize >= names.len(), "{repaired} were repaired in {folder}");
}

#[test]
fn publications_with_the_state_directory() {
    each_object("gen/", true);
}

#[test]
fn publications_from_the_store_alone() {
    each_object("gen/", false);
}

#[test]
fn segments_with_the_state_directory() {
    each_object("seg/", true);
}

#[test]
fn segments_from_the_store_alone() {
    each_object("seg/", false);
}

#[test]
fn window_indexes_with_the_state_directory() {
    each_object("win/", true);
}

#[test]
fn window_indexes_from_the_store_alone() {
    each_object("win/", false);
}

#[test]
fn the_superblock() {
    for with_state in [true, false] {
        each_object(SUPERBLOCK, with_state);
    }
}

fn harm_file(disk: &SimDisk, name: &str, harm: Harm) {
    let file = disk.open(name).expect("there");
    match harm {
        Harm::Flipped(at) => world::flip_file(disk, name, at as u64),
        Harm::Cut(len) => {
            let mut bytes = vec![0; len];
            file.read_at(&mut bytes, 0).expect("read");
            disk.remove(name).expect("removed");
            disk.create(name).expect("created").write_at(&bytes, 0).expect("written");
        }
        Harm::Gone => disk.remove(name).expect("removed"),
    }
}

fn each_file(folder: &str) {
    let world = World::new();
    let disk = SimDisk::from_image(&world.disk, &CallLog::new());
    let names: Vec<String> = world.disk.names().filter(|name| name.starts_with(folder)).map(str::to_owned).collect();
    assert!(!names.is_empty(), "there is something in {folder}");
    for name in &names {
        let len = disk.open(name).and_then(|file| file.len()).expect("there");
        for harm in harms(usize::try_from(len).expect("short")) {
            let place = Place::from(&world, true);
            harm_file(place.disk.as_ref().expect("there"), name, harm);
            place.assert_repaired(&world.files(true), &format!("{name} {harm:?}"));
        }
    }
}

#[test]
fn the_manifest() {
    each_file("MANIFEST");
}

#[test]
fn checkpoints() {
    each_file("ckpt/");
}

#[test]
fn local_nodes() {
    each_file("nodes/");
}

#[test]
fn the_journal() {
    each_file("journal/");
}
