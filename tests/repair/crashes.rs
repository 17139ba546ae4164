//! A repair that is interrupted, after any call to disk and store, is run again and comes to the same.

use super::*;
use skylog::checkpoint::nodes::{read_file, write_file};
use skylog::format::names::SUPERBLOCK;
use skylog::format::repair_file::REPAIR_FILE;
use skylog::media::sim::Limits;
use skylog::recovery::MountError;
use skylog::store::sim::{Crash, Recording};
use std::collections::BTreeSet;

const LIMITS: Limits = Limits { subsets_up_to: 3, tears_max: 2, random: 2, plans_max: 12, seed: 1 };

/// A filesystem of which a chunk, a node, an index and a publication are damaged; with a state directory its checkpoint, too.
fn damaged(world: &World, with_state: bool) -> Place {
    let place = Place::from(world, with_state);
    let of_chunks = |chunks: bool| world.living("seg/").into_iter().find(|name| world.is_of_chunks(name) == chunks);
    world::flip(&place.store, &of_chunks(true).expect("chunks"), 200);
    world::flip(&place.store, &of_chunks(false).expect("nodes"), 300);
    world::flip(&place.store, &world.living("win/")[0], 70);
    world::flip(&place.store, &world.living("gen/")[1], 150);
    if let Some(disk) = &place.disk {
        let checkpoint = world.disk.names().find(|name| name.starts_with("ckpt/")).expect("a checkpoint");
        world::flip_file(disk, checkpoint, 50);
    }
    // What is damaged is durable, and the log of calls begins behind it.
    Place::of(&place.store.image(), place.disk.as_ref().map(SimDisk::image).as_ref())
}

/// The states that a repair may leave when it is interrupted.
fn interrupted(place: &Place) -> Recording {
    place.repair(1, false).expect("nothing fails");
    let disk = place.disk.clone().unwrap_or_else(|| SimDisk::new(&place.log));
    Recording::of(&disk, &place.store)
}

fn place_after(crash: &Crash, with_state: bool) -> Place {
    Place::of(&crash.store, with_state.then_some(&crash.disk))
}

fn crash_everywhere(with_state: bool) -> usize {
    let world = World::new();
    let damaged = damaged(&world, with_state);
    crash_each(&world, &damaged, with_state)
}

fn crash_each(world: &World, damaged: &Place, with_state: bool) -> usize {
    let files = world.files(with_state);
    let recording = interrupted(damaged);
    let mut seen = BTreeSet::new();
    for crash in recording.crashes(&LIMITS).filter(|crash| seen.insert(crash.hash)) {
        let place = place_after(&crash, with_state);
        let when = format!("after call {} ({:?})", crash.after, crash.plan);
        let again = place.repair(2, false).unwrap_or_else(|e| panic!("{when}: {e}"));
        if let Some(late) = &crash.late {
            // It comes after all was done.
            place.store.land(late);
        }
        place.assert_mended(&files, &again_or_first(&place, again), &when);
    }
    seen.len()
}

/// A repair that found all done says nothing of the files: what it said when it did it is in the store.
pub fn again_or_first(place: &Place, mut again: Report) -> Report {
    if again.was_clean() {
        let names = place.store.list("damaged").expect("listed");
        assert!(names.iter().any(|name| name.ends_with("/report")), "the report is there");
        again.resumed = true;
    }
    again
}

#[test]
fn a_repair_that_was_interrupted_anywhere_is_done_again_with_the_state_directory() {
    let states = crash_everywhere(true);
    assert!(states > 60, "{states} states");
}

#[test]
fn a_repair_that_was_interrupted_anywhere_is_done_again_from_the_store_alone() {
    let states = crash_everywhere(false);
    assert!(states > 20, "{states} states");
}

/// The superblock is mended first, and then nothing is left to mend; but the end of the generation may be on its way, and would take
/// the filesystem from this state directory after the repair was run again. Found by a history of the simulator, seed 20262777.
#[test]
fn a_repair_that_was_interrupted_with_nothing_left_to_mend_is_done_again() {
    let world = World::new();
    let place = Place::from(&world, true);
    world::flip(&place.store, SUPERBLOCK, 90);
    let damaged = Place::of(&place.store.image(), place.disk.as_ref().map(SimDisk::image).as_ref());
    let states = crash_each(&world, &damaged, true);
    assert!(states > 20, "{states} states");
}

/// What was published last comes late, where the end of the generation was to be: all is read anew, and nothing is wrong any more.
/// But this repair may have sent something by then.
#[test]
fn a_repair_that_somebody_was_faster_than_goes_on_though_nothing_is_left_to_mend() {
    let world = World::new();
    let place = Place::from(&world, true);
    let last = world.living("gen/").pop().expect("published");
    let late = place.store.get(&last).expect("there");
    place.store.delete(&last).expect("gone");
    world::flip(&place.store, SUPERBLOCK, 90);
    let mut tries = 0;
    let report = repair(&place.means(1, small().holding), false, &mut |pass, _, _| {
        if pass == "copies" {
            tries += 1;
            place.store.put(&last, late.clone()).expect("put");
        }
    });
    let report = report.expect("repaired");
    assert_eq!(tries, 2, "somebody was faster");
    assert!(report.before.is_clean() && report.begun && report.base.is_some(), "{report:#?}");
    place.assert_mended(&world.files(true), &report, "done anew");
}

/// The superblock is mended first, so a later try does not find it damaged any more, but other things; its report is not the only one.
#[test]
fn what_an_earlier_try_found_stays_in_the_report() {
    let world = World::new();
    let place = Place::from(&world, true);
    let index = world.living("win/").swap_remove(0);
    world::flip(&place.store, SUPERBLOCK, 90);
    world::flip(&place.store, &index, 70);
    let damaged = Place::of(&place.store.image(), place.disk.as_ref().map(SimDisk::image).as_ref());
    let (mut mended, mut longest) = (0, 0);
    for crash in interrupted(&damaged).crashes(&LIMITS) {
        let place = place_after(&crash, true);
        let is_mended = place.store.get(SUPERBLOCK).expect("there") == *world.store.object(SUPERBLOCK).expect("there");
        let again = place.repair(2, false).expect("repaired");
        let Some(kept) = again.kept.filter(|_| is_mended && !again.resumed) else { continue };
        place.repair(3, false).expect("nothing fails");
        let text = String::from_utf8(place.store.get(&kept).expect("there").to_vec()).expect("text");
        for (name, what) in [(SUPERBLOCK, "the first try found"), (&index, "both found")] {
            assert!(text.contains(&format!("\n{name}: ")), "after call {}: {what} {name}: {text}", crash.after);
        }
        mended += 1;
        longest = longest.max(text.matches("\nDamaged:\n").count());
    }
    assert!(mended > 5 && longest == 2, "the superblock was mended in {mended} states; {longest} reports in one");
}

/// The repair of what an interrupted repair left is interrupted as well: a part of all states.
#[test]
fn a_repair_that_was_interrupted_twice_is_done_again() {
    let world = World::new();
    let files = world.files(true);
    let first = interrupted(&damaged(&world, true));
    let limits = Limits { plans_max: 2, ..LIMITS };
    let mut states = 0;
    for crash in first.crashes(&limits).step_by(7) {
        let place = place_after(&crash, true);
        place.repair(2, false).expect("nothing fails");
        let second = Recording::of(place.disk.as_ref().expect("there"), &place.store);
        for crash in second.crashes(&limits).step_by(5) {
            let place = place_after(&crash, true);
            let again = place.repair(3, false).expect("nothing fails");
            place.assert_mended(&files, &again_or_first(&place, again), "interrupted twice");
            states += 1;
        }
    }
    assert!(states > 20, "{states} states");
}

/// Also where nothing but the note is there: not a folder is made.
#[test]
fn a_mount_that_finds_a_repair_under_way_changes_nothing() {
    let world = World::new();
    let recording = interrupted(&damaged(&world, true));
    let note = recording.crashes(&LIMITS).find_map(|crash| {
        let disk = SimDisk::from_image(&crash.disk, &CallLog::new());
        read_file(&disk, REPAIR_FILE).ok().filter(|note| !note.is_empty())
    });
    let disk = SimDisk::new(&CallLog::new());
    write_file(&disk, REPAIR_FILE, &note.expect("noted")).expect("written");
    let log = CallLog::new();
    let (disk, store) = (SimDisk::from_image(&disk.image(), &log), SimStore::from_image(&world.store, &log));
    let mounted = Rig::mount(log.clone(), disk, store, Arc::default(), 9, &small());
    assert!(matches!(mounted, Err(MountError::Unrepaired)), "{:?}", mounted.err());
    assert!(log.is_empty(), "{:?}", log.calls());
}

/// Until it is completed nobody works with what is there: what only the state directory holds would be shipped, or go.
#[test]
fn a_mount_that_finds_a_repair_under_way_says_so_and_names_the_command() {
    let world = World::new();
    let recording = interrupted(&damaged(&world, true));
    let mut refused = 0;
    for crash in recording.crashes(&Limits { plans_max: 2, ..LIMITS }) {
        if !crash.disk.names().any(|name| name == "REPAIR") {
            continue;
        }
        let log = CallLog::new();
        let disk = SimDisk::from_image(&crash.disk, &log);
        let store = SimStore::from_image(&crash.store, &log);
        let mounted = Rig::mount(log, disk, store, Arc::default(), 9, &small());
        let said = mounted.err().expect("refused").to_string();
        assert!(said.contains("repair") && said.contains("skylog check --repair STORE"), "{said}");
        refused += 1;
    }
    assert!(refused > 10, "{refused} were refused");
}
