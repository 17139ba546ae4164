//! Several things damaged at once, at random. A failure prints its seed; `SKYLOG_SEED=n` runs that one alone, `SKYLOG_HISTORIES=n`
//! runs more.

use super::*;
use skylog::base::random::SeededRandom;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn harm_object(store: &SimStore, name: &str, random: &SeededRandom) {
    let bytes = store.get(name).expect("there");
    match random.below(4) {
        0 => store.delete(name).expect("deleted"),
        1 => store.put(name, bytes.slice(..random.below(bytes.len() as u64) as usize)).expect("put"),
        _ => world::flip(store, name, random.below(bytes.len() as u64) as usize),
    }
}

fn harm_file(disk: &SimDisk, name: &str, random: &SeededRandom) {
    let len = disk.open(name).and_then(|file| file.len()).expect("there");
    match random.below(3) {
        0 => disk.remove(name).expect("removed"),
        _ if len > 0 => world::flip_file(disk, name, random.below(len)),
        _ => {}
    }
}

/// Returns whether there was something to repair.
fn damage_and_repair(world: &World, seed: u64) -> bool {
    let random = SeededRandom::new(seed);
    let with_state = random.below(2) == 0;
    let place = Place::from(world, with_state);
    let store = place.store.image();
    let objects: Vec<&str> = store.names().collect();
    for _ in 0..1 + random.below(6) {
        let name = objects[random.below(objects.len() as u64) as usize];
        if place.store.get(name).is_ok_and(|bytes| !bytes.is_empty()) {
            harm_object(&place.store, name, &random);
        }
    }
    if let Some(disk) = &place.disk {
        for _ in 0..random.below(4) {
            let image = disk.image();
            let files: Vec<&str> = image.names().collect();
            harm_file(disk, files[random.below(files.len() as u64) as usize], &random);
        }
    }
    // From here on nothing is written but by the repair.
    let place = Place::of(&place.store.image(), place.disk.as_ref().map(SimDisk::image).as_ref());
    // One in three is of a store that is far away, which is read in another way.
    place.store.set_side_by_side(if seed % 3 == 0 { 4 } else { 1 });
    let mut files = world.files(with_state);
    // Without a state directory nobody can know of the last object of a generation that it was there.
    let last = world.living("gen/").pop().expect("a generation");
    if !with_state && place.store.get(&last).is_err() {
        files.remove("logged");
    }
    let when = format!("seed {seed}");
    let report = place.repair(seed, false).unwrap_or_else(|e| panic!("{when}: {e}"));
    if report.outlived.is_some() && !report.is_unusable {
        let mut report = report;
        report.resumed = true;
        Place::of(&place.store.image(), None).assert_mended(&world.files(false), &report, &when);
        return true;
    }
    let was_clean = report.was_clean();
    let mut report = report;
    // What only an unusable state directory had is said to have moved aside with it.
    report.resumed |= report.is_unusable;
    place.assert_mended(&files, &report, &when);
    !was_clean
}

#[test]
fn whatever_is_damaged_at_once_no_byte_is_wrong_and_the_check_is_clean() {
    let world = World::new();
    if let Some(seed) = setting("SKYLOG_SEED") {
        damage_and_repair(&world, seed);
        return;
    }
    let histories = setting("SKYLOG_HISTORIES").unwrap_or(60);
    let repaired = (0..histories).filter(|seed| damage_and_repair(&world, *seed)).count() as u64;
    assert!(repaired > histories / 2, "{repaired} of {histories} had something to repair");
}
