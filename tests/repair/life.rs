//! What comes after a repair: another machine, another repair.

use super::*;
use skylog::recovery::MountError;

/// Whoever had it before and is paused, or away, has lost it: the repair fenced it.
#[test]
fn a_writer_that_lived_when_the_store_alone_was_repaired_is_fenced_and_keeps_what_it_has() {
    let world = World::new();
    let log = CallLog::new();
    let mut writer = {
        let (store, disk) = (SimStore::from_image(&world.store, &log), SimDisk::from_image(&world.disk, &log));
        Rig::mount(log.clone(), disk, store, Arc::default(), 3, &small()).expect("mounts")
    };
    let chunks = world.living("seg/").into_iter().find(|name| world.is_of_chunks(name)).expect("chunks");
    world::flip(&writer.store, &chunks, 200);
    let place = Place { log, store: writer.store.clone(), disk: None, not_append_only: true };
    let report = place.repair(1, false).expect("nothing fails");
    assert!(report.base.is_some());
    world::put(&mut writer, "after", 5000);
    writer.mounted.checkpointer.wanted().checkpoint();
    for _ in 0..1000 {
        writer.step();
    }
    let (disk, store) = (writer.disk.image(), writer.store.image());
    place.assert_mended(&world.files(false), &report, "the writer tried to go on");
    let log = CallLog::new();
    let (disk, store) = (SimDisk::from_image(&disk, &log), SimStore::from_image(&store, &log));
    let again = Rig::mount(log, disk, store, Arc::default(), 4, &small());
    assert!(matches!(again, Err(MountError::Fenced(_))), "{:?}", again.err());
}

/// Another machine, which took the filesystem over, wrote a file, and let go.
fn elsewhere(world: &World) -> Rig {
    let log = CallLog::new();
    let (store, disk) = (SimStore::from_image(&world.store, &log), SimDisk::new(&log));
    let mut rig = Rig::mount(log, disk, store, Arc::default(), 3, &small()).expect("taken over");
    world::put(&mut rig, "elsewhere", 5000);
    rig.drain();
    rig.mounted.writer.close().expect("closed");
    rig
}

/// A state directory that is not the writer's any more is left alone, and the store alone is repaired.
#[test]
fn a_state_directory_that_was_fenced_is_left_alone() {
    let world = World::new();
    let other = elsewhere(&world);
    let place = Place::of(&other.store.image(), Some(&world.disk));
    let chunks = world.living("seg/").into_iter().find(|name| world.is_of_chunks(name)).expect("chunks");
    world::flip(&place.store, &chunks, 200);
    let report = place.repair(1, false).expect("nothing fails");
    assert!(report.outlived.is_some() && report.base.is_some(), "{report:#?}");
    assert_eq!(place.disk.as_ref().expect("there").image().hash(), world.disk.hash(), "nothing of it changed");
    let mut files = world.files(false);
    files.insert("elsewhere".to_owned(), world::contents("elsewhere", 5000));
    Place::of(&place.store.image(), None).assert_mended(&files, &report, "repaired");
}

/// What one repair made can be damaged, too.
#[test]
fn what_was_repaired_is_damaged_and_repaired_again() {
    let world = World::new();
    let place = Place::from(&world, true);
    let before = world.living("seg/");
    world::flip(&place.store, &before[0], 200);
    let first = place.assert_repaired(&world.files(true), "once");
    let made = place.store.list("seg").expect("listed");
    let made: Vec<&String> = made.iter().filter(|name| !world.store.names().any(|old| old == **name)).collect();
    assert!(!made.is_empty());
    for name in made {
        let place = Place::of(&place.store.image(), None);
        world::flip(&place.store, name, 300);
        let mut report = place.repair(8, false).expect("nothing fails");
        report.touched.extend(first.touched.clone());
        place.assert_mended(&world.files(true), &report, &format!("{name} after a repair"));
    }
}

/// An interrupted destroy or whoever looks for what is ours knows what a repair has kept.
#[test]
fn what_a_repair_keeps_has_names_of_ours() {
    let world = World::new();
    let place = Place::from(&world, false);
    place.store.delete(&world.living("win/")[0]).expect("deleted");
    world::flip(&place.store, &world.living("seg/")[0], 200);
    place.repair(1, false).expect("nothing fails");
    let kept = place.store.list("damaged").expect("listed");
    assert!(kept.len() >= 2, "{kept:?}");
    for name in kept {
        assert!(skylog::format::names::is_ours(&name), "{name}");
    }
}

/// A repair that came to its end has the filesystem: who had it before may not bring back what is in an old journal.
#[test]
fn a_state_directory_from_before_a_repair_is_left_alone_by_the_next_one() {
    let world = World::new();
    let place = Place::from(&world, false);
    world::flip(&place.store, &world.living("seg/")[0], 200);
    let first = place.assert_repaired(&world.files(false), "the store alone");
    let later = Place::of(&place.store.image(), Some(&world.disk));
    let made = later.store.list("win").expect("listed").pop().expect("an index");
    world::flip(&later.store, &made, 70);
    let mut report = later.repair(2, false).expect("nothing fails");
    assert!(report.outlived.is_some(), "{report:#?}");
    assert_eq!(later.disk.as_ref().expect("there").image().hash(), world.disk.hash(), "nothing of it changed");
    report.touched.extend(first.touched);
    Place::of(&later.store.image(), None).assert_mended(&world.files(false), &report, "repaired again");
}

/// What may never be replaced is not repaired.
#[test]
fn promise_g9_what_is_append_only_is_refused_and_nothing_is_written() {
    use skylog::format::names::SUPERBLOCK;
    use skylog::format::superblock::Superblock;
    let world = World::new();
    let place = Place::from(&world, true);
    let superblock = Superblock::decode(&place.store.get(SUPERBLOCK).expect("there")).expect("whole");
    let superblock = Superblock { append_only: true, ..superblock };
    place.store.put(SUPERBLOCK, superblock.encode().into()).expect("put");
    world::flip(&place.store, &world.living("seg/")[0], 200);
    let before = place.log.len();
    let refused = place.repair(1, false).expect_err("refused").to_string();
    assert!(refused.contains("append only"), "{refused}");
    assert_eq!(place.log.len(), before);
}

/// The rule of a mount: who holds it elsewhere is asked for, and named.
#[test]
fn what_another_machine_holds_is_repaired_only_if_it_is_taken_over() {
    let world = World::new();
    let place = Place::from(&world, false);
    let name = hold_elsewhere(&place);
    world::flip(&place.store, &world.living("seg/")[0], 200);
    let before = place.log.len();
    let refused = place.repair_as(1, false, Holding::Asks).expect_err("refused");
    assert!(matches!(refused, RepairError::Hold(_)) && refused.to_string().contains("elsewhere"), "{refused}");
    assert_eq!(place.log.len(), before, "nothing is written");
    let report = place.repair_as(2, false, Holding::TakesOver).expect("taken over");
    assert!(report.taken.as_ref().is_some_and(|taken| taken.contains("elsewhere")), "{:?}", report.taken);
    assert!(place.store.get(&name).is_err(), "it is not held any more");
    place.assert_mended(&world.files(false), &report, "taken over");
}

/// The newest that can be read is of before the repair, whose base is damaged since: whoever had the filesystem then has it no more.
#[test]
fn a_state_directory_from_before_a_repair_is_left_alone_though_the_base_of_the_repair_is_damaged() {
    let world = World::new();
    let place = Place::from(&world, false);
    world::flip(&place.store, &world.living("seg/")[0], 200);
    place.assert_repaired(&world.files(false), "the store alone");
    let later = Place::of(&place.store.image(), Some(&world.disk));
    let base = later.store.list("gen").expect("listed").pop().expect("a base");
    world::flip(&later.store, &base, 70);
    let report = later.repair(2, true).expect("nothing fails");
    assert!(report.outlived.is_some(), "{report:#?}");
}

/// Makes the world's store lose all publications whose name begins so, and says which files lose data by it.
fn lost_without(world: &World, prefix: &str, with_state: bool) -> Vec<String> {
    let place = Place::from(world, with_state);
    for name in place.store.list("gen").expect("listed").iter().filter(|name| name.starts_with(prefix)) {
        place.store.delete(name).expect("deleted");
    }
    let before = place.store.image();
    let report = place.repair(1, false).expect("nothing fails");
    for name in before.names() {
        let is_same = place.store.get(name).ok().as_ref() == before.object(name);
        assert!(is_same || name == "superblock", "{name} is another one");
    }
    place.assert_mended(&world.files(with_state), &report, prefix);
    let lost = report.touched.iter().filter(|touched| touched.what.iter().any(|what| what.contains("lost")));
    lost.map(|touched| format!("{touched:?}")).collect()
}

/// That nothing says any more what was published takes no data from the files, which name it.
#[test]
fn data_in_whole_segments_is_not_lost_though_the_generations_are_gone() {
    let world = World::new();
    let newest = &world.living("gen/")[0];
    let newest = newest.rsplit_once('/').expect("a number").0;
    for prefix in ["gen/", newest] {
        let lost = lost_without(&world, prefix, true);
        assert!(lost.is_empty(), "{prefix}: {lost:#?}");
    }
}

/// Whoever holds it is asked for where no publication says that the state directory is the newest writer's.
#[test]
fn without_publications_the_one_who_holds_it_is_asked_for() {
    let world = World::new();
    let place = Place::from(&world, true);
    hold_elsewhere(&place);
    world::flip(&place.store, &world.living("seg/")[0], 200);
    assert!(place.repair_as(1, true, Holding::Asks).is_ok(), "the fence says whose it is");
    for name in place.store.list("gen").expect("listed") {
        place.store.delete(&name).expect("deleted");
    }
    let refused = place.repair_as(1, true, Holding::Asks).expect_err("refused");
    assert!(matches!(refused, RepairError::Hold(_)), "{refused}");
}

/// Says in the store that another machine holds the filesystem; where it says so.
fn hold_elsewhere(place: &Place) -> String {
    use skylog::format::ids::Uuid;
    use skylog::format::lease::{Lease, LeaseKind, LeaseState, Owner};
    use skylog::format::names::{self, SUPERBLOCK};
    use skylog::format::superblock::Superblock;
    let superblock = Superblock::decode(&place.store.get(SUPERBLOCK).expect("there")).expect("whole");
    let (who, owner) = (Uuid(5), Owner::of_test("elsewhere"));
    let lease = Lease {
        filesystem: superblock.uuid,
        who,
        number: 1,
        kind: LeaseKind::Writer,
        state: LeaseState::Held,
        owner,
        since: 0,
        wall: 0,
        seconds: 0,
        checkpoint: 0,
        epoch: 99,
    };
    let name = names::lease(who, 1);
    place.store.put(&name, lease.encode().into()).expect("put");
    name
}

/// A mount without a lasting state that ends before it has published leaves a generation which has nothing but its end. There may be
/// any number of them, and behind them is what counts.
#[test]
fn generations_that_were_closed_before_they_had_a_base_hide_nothing() {
    use skylog::format::ids::{Nonce, Uuid};
    use skylog::format::names;
    use skylog::format::publication::{Body, Closing, Publication};
    let world = World::new();
    let place = Place::from(&world, false);
    let last = place.store.list("gen").expect("listed").pop().expect("a publication");
    let newest = Publication::decode(&place.store.get(&last).expect("there")).expect("whole");
    for n in 0..70 {
        let (generation, number) =
            if n == 0 { (newest.generation, newest.number + 1) } else { (newest.generation + n, 0) };
        let epoch = u32::try_from(generation + 1).expect("small");
        let body = Body::Closing(Closing { next_epoch: epoch, owner: "ended".to_owned() });
        let (state, nonce) = (Uuid(1000 + u128::from(n)), Nonce(5000 + u128::from(n)));
        let closing = Publication { state, nonce, epoch, generation, number, start: newest.end, body, ..newest };
        place.store.put(&names::publication(generation, number), closing.encode().into()).expect("put");
    }
    let chunks = world.living("seg/").into_iter().find(|name| world.is_of_chunks(name)).expect("chunks");
    world::flip(&place.store, &chunks, 200);
    let report = place.assert_repaired(&world.files(false), "closed again and again");
    assert!(!report.may_miss_changes() && report.lost.is_empty(), "{report:#?}");
}

/// A state directory that was fenced is not taken for one without a manifest because a read fails.
#[test]
fn a_state_directory_that_was_fenced_stays_though_a_read_of_its_manifest_fails() {
    use skylog::media::sim::{DiskFault, DiskOp, Nth};
    let world = World::new();
    let other = elsewhere(&world).store.image();
    let mut failed = 0;
    for nth in 1.. {
        let place = Place::of(&other, Some(&world.disk));
        world::flip(&place.store, &world.living("seg/")[0], 200);
        let disk = place.disk.as_ref().expect("there");
        disk.fail(Nth::new(nth).of(DiskOp::Read), DiskFault::Failed);
        let report = place.repair(1, false);
        let struck = disk.failed() > 0;
        disk.heal();
        assert_eq!(disk.image().hash(), world.disk.hash(), "read {nth}: it was changed: {report:?}");
        if !struck {
            break;
        }
        failed += u32::from(report.is_err());
    }
    assert!(failed > 0);
}

/// Whatever a repair took for dead by mistake can be had back for a week, also where the grace time is nothing.
#[test]
fn what_a_repair_makes_dead_stays_for_seven_days_after_it() {
    const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
    let world = World::new();
    let place = Place::from(&world, false);
    let chunks = world.living("seg/").into_iter().find(|name| world.is_of_chunks(name)).expect("chunks");
    world::flip(&place.store, &chunks, 200);
    place.repair(1, false).expect("nothing fails");
    let before: Vec<String> = place.store.list("seg").expect("listed");
    let mut rig = place.mount(5, "mended");
    let left = |rig: &Rig| before.iter().filter(|name| rig.world.store.get(name).is_ok()).count();
    for (days, all_there) in [(0, true), (6, true), (2, false)] {
        rig.advance(DAY * days);
        world::put(&mut rig, &format!("after-{days}"), 5000);
        rig.drain();
        assert_eq!(left(&rig) == before.len(), all_there, "{days} days later");
    }
    assert!(rig.world.store.get(&chunks).is_err(), "it is gone after that");
    Place::of(&rig.store.image(), Some(&rig.disk.image())).assert_clean("a week later");
}

/// Nothing else says it than the superblock, and a copy of that in the state directory.
#[test]
fn promise_g9_what_may_be_append_only_is_refused_where_its_superblock_does_not_say() {
    use skylog::format::names::SUPERBLOCK;
    use skylog::format::superblock::Superblock;
    let world = World::new();
    let repaired = |append_only: bool, said: bool, harm: &dyn Fn(&mut Vec<u8>)| {
        let mut place = Place::from(&world, false);
        place.not_append_only = said;
        let superblock = Superblock::decode(&place.store.get(SUPERBLOCK).expect("there")).expect("whole");
        let mut bytes = Superblock { append_only, ..superblock }.encode();
        harm(&mut bytes);
        match bytes.is_empty() {
            true => place.store.delete(SUPERBLOCK).expect("deleted"),
            false => place.store.put(SUPERBLOCK, bytes.into()).expect("put"),
        }
        let before = place.log.len();
        let report = place.repair(1, false);
        assert!(report.is_ok() || place.log.len() == before, "nothing is written");
        report
    };
    let len = world.store.object(SUPERBLOCK).expect("there").len() + 1;
    for at in 0..len {
        for said in [false, true] {
            let report = repaired(true, said, &|bytes| {
                let at = at.min(bytes.len() - 1);
                bytes[at] ^= 4;
            });
            let is_told = report.as_ref().is_err_and(|e| e.to_string().contains("--not-append-only"));
            assert!(said || report.is_err(), "byte {at}");
            assert!(!(said && is_told), "byte {at}: {report:?}");
        }
    }
    assert!(repaired(true, false, &|bytes| bytes.clear()).is_err(), "it is gone");
    assert!(repaired(false, true, &|bytes| bytes.clear()).is_ok(), "it is gone, and the user says what it was");
    assert!(repaired(false, false, &|bytes| bytes[10] ^= 4).is_ok(), "the text says that it is not");
}
