//! A repair that fails, at any call to disk and store, has lost nothing: run again, it does what it would have done.

use super::*;
use skylog::media::sim::{DiskFault, DiskOp, Nth};
use skylog::store::sim::{StoreFault, StoreOp};

fn damaged(world: &World) -> Place {
    let place = Place::from(world, true);
    let chunks = world.living("seg/").into_iter().find(|name| world.is_of_chunks(name)).expect("chunks");
    world::flip(&place.store, &chunks, 200);
    world::flip(&place.store, &world.living("gen/")[1], 150);
    place
}

/// Lets the nth call of a kind fail until a repair has no nth one any more. Returns how many repairs failed.
fn fail_each(fail: &dyn Fn(&Place, u64), struck: &dyn Fn(&Place) -> u64) -> u32 {
    let world = World::new();
    let (files, mut failed) = (world.files(true), 0);
    for nth in 1..2000 {
        let place = damaged(&world);
        fail(&place, nth);
        let first = place.repair(1, false);
        if struck(&place) == 0 {
            return failed;
        }
        place.store.heal();
        place.disk.as_ref().expect("there").heal();
        // What is on its way lands at the worst moment: while nobody expects it any more.
        place.store.land_adrift();
        failed += u32::from(first.is_err());
        let again = place.repair(2, false).unwrap_or_else(|e| panic!("call {nth} failed, then: {e}"));
        let report = match first {
            Ok(first) if again.was_clean() => first,
            _ => {
                let mut again = again;
                again.resumed |= again.was_clean();
                again
            }
        };
        place.assert_mended(&files, &report, &format!("call {nth} failed"));
    }
    panic!("a repair makes few calls");
}

fn fail_store(op: StoreOp, fault: StoreFault) -> u32 {
    fail_each(&|place, nth| place.store.fail(Nth::new(nth).of(op), fault), &|place| place.store.failed())
}

fn fail_disk(op: DiskOp, fault: DiskFault) -> u32 {
    fail_each(&|place, nth| place.disk.as_ref().expect("there").fail(Nth::new(nth).of(op), fault), &|place| {
        place.disk.as_ref().expect("there").failed()
    })
}

#[test]
fn puts_and_creates_that_fail() {
    for op in [StoreOp::Put, StoreOp::Create] {
        for fault in [StoreFault::Refused, StoreFault::AnswerLost, StoreFault::Adrift] {
            assert!(fail_store(op, fault) > 0, "{op:?} {fault:?}");
        }
    }
}

#[test]
fn reads_and_lists_that_fail() {
    for op in [StoreOp::Get, StoreOp::List] {
        assert!(fail_store(op, StoreFault::Refused) > 0, "{op:?}");
    }
}

/// What is whole is left alone, whatever fails once while that is seen.
#[test]
fn a_read_that_fails_once_is_no_reason_to_repair_what_is_whole() {
    let world = World::new();
    for fault in [StoreFault::Refused, StoreFault::Cut] {
        let mut failed = 0;
        for nth in 1.. {
            let place = Place::from(&world, true);
            place.store.fail(Nth::new(nth).of(StoreOp::Get), fault);
            let report = place.repair(1, false);
            assert!(place.log.is_empty(), "{fault:?} at read {nth}: {:?}", place.log.calls());
            if place.store.failed() == 0 {
                break;
            }
            failed += u32::from(report.is_err());
        }
        assert!(failed > 10, "{fault:?}: {failed}");
    }
}

/// Bytes that come wrong once are no damage: the repair ends, or does what it would have done.
#[test]
fn bytes_of_the_store_that_come_wrong_once_cost_no_file() {
    let world = World::new();
    let whole = damaged(&world).repair(1, false).expect("nothing fails");
    for fault in [StoreFault::Cut, StoreFault::Flipped] {
        let mut failed = 0;
        for nth in 1.. {
            let place = damaged(&world);
            place.store.fail(Nth::new(nth).of(StoreOp::Get), fault);
            let report = place.repair(1, false);
            if place.store.failed() == 0 {
                break;
            }
            match report {
                Err(_) => failed += 1,
                Ok(report) => assert_eq!(report.touched, whole.touched, "{fault:?} at read {nth}"),
            }
        }
        assert!(failed > 10, "{fault:?}: {failed}");
    }
}

/// Nodes that were not shipped yet are in the state directory alone. A read that fails once is no damage: no file goes, in
/// whichever walk it fails.
#[test]
fn a_read_of_the_disk_that_fails_once_costs_no_file() {
    let mut rig = Rig::new(21, &small());
    let mut files = Files::new();
    for n in 0..30 {
        let name = format!("file-{n}");
        world::put(&mut rig, &name, 3000);
        files.insert(name.clone(), world::contents(&name, 3000));
        if n % 10 == 9 {
            rig.drain();
        }
    }
    let (store, disk) = (rig.store.image(), rig.disk.image());
    let damaged = || {
        let place = Place::of(&store, Some(&disk));
        let name = place.store.list("win").expect("listed").pop().expect("an index");
        world::flip(&place.store, &name, 70);
        place
    };
    let whole = damaged().repair(1, false).expect("nothing fails");
    let mut failed = 0;
    for nth in 1.. {
        let place = damaged();
        let disk = place.disk.clone().expect("there");
        disk.fail(Nth::new(nth).of(DiskOp::Read), DiskFault::Failed);
        let report = place.repair(1, false);
        if disk.failed() == 0 {
            break;
        }
        disk.heal();
        match report {
            Err(_) => failed += 1,
            Ok(report) => {
                assert_eq!(report.touched, whole.touched, "read {nth}");
                let mut rig = place.mount(5, "mended");
                world::assert_files(&mut rig, &files, &report, &format!("read {nth} failed"));
            }
        }
    }
    assert!(failed > 10, "{failed}");
}

#[test]
fn calls_to_the_disk_that_fail() {
    for op in
        [DiskOp::Create, DiskOp::Write, DiskOp::Sync, DiskOp::SyncDir, DiskOp::Rename, DiskOp::Remove, DiskOp::MakeDir]
    {
        assert!(fail_disk(op, DiskFault::Failed) > 0, "{op:?}");
    }
}

/// Lets the nth read fail once in a filesystem that is whole, until there is no nth one: it is never repaired. Returns how many tries
/// ended with the error.
fn assert_left_alone(fail: &dyn Fn(&Place, u64), struck: &dyn Fn(&Place) -> u64) -> u32 {
    let (world, mut failed) = (World::new(), 0);
    for nth in 1..2000 {
        let place = Place::from(&world, true);
        fail(&place, nth);
        let report = place.repair(1, false);
        if struck(&place) == 0 {
            return failed;
        }
        match report {
            Ok(report) => assert!(report.base.is_none() && report.aside.is_none(), "read {nth}: {:?}", report.before),
            Err(_) => failed += 1,
        }
        assert!(place.log.is_empty(), "read {nth}: {:?}", place.log.calls());
    }
    panic!("a check makes few reads");
}

#[test]
fn a_filesystem_that_is_whole_is_left_alone_though_a_read_fails() {
    for fault in [StoreFault::Refused, StoreFault::Away] {
        for op in [StoreOp::Get, StoreOp::List] {
            let failed = assert_left_alone(&|place, nth| place.store.fail(Nth::new(nth).of(op), fault), &|place| {
                place.store.failed()
            });
            assert!(failed > 0, "{fault:?} {op:?}");
        }
    }
    let failed = assert_left_alone(
        &|place, nth| place.disk.as_ref().expect("there").fail(Nth::new(nth).of(DiskOp::Read), DiskFault::Failed),
        &|place| place.disk.as_ref().expect("there").failed(),
    );
    assert!(failed > 0);
}

/// What a repair comes to when a call fails and all like it after it: one clear error, or what it would have come to. When the
/// fault is gone, a second one does what the first would have done.
fn fail_for_ever(step: usize, fail: &dyn Fn(&Place, u64), struck: &dyn Fn(&Place) -> u64, says: &str) -> u32 {
    let world = World::new();
    let (files, mut failed) = (world.files(true), 0);
    for nth in (1..2000).step_by(step) {
        let place = damaged(&world);
        fail(&place, nth);
        let first = place.repair(1, false);
        if struck(&place) == 0 {
            return failed;
        }
        let said = match &first {
            Err(e) => e.to_string(),
            Ok(report) => report.unchecked.clone().unwrap_or_default(),
        };
        assert!(!said.is_empty(), "call {nth} and all after it failed, and the repair says that it is done: {first:?}");
        assert!(!said.contains('\n') && said.contains(says), "call {nth}: {said}");
        place.store.heal();
        place.disk.as_ref().expect("there").heal();
        place.store.land_adrift();
        failed += 1;
        if place.log.is_empty() {
            // All is what it was.
            continue;
        }
        let again = place.repair(2, false).unwrap_or_else(|e| panic!("call {nth} and all after it failed, then: {e}"));
        place.assert_mended(&files, &crashes::again_or_first(&place, again), &format!("from call {nth} on all failed"));
    }
    panic!("a repair makes few calls");
}

fn disk_for_ever(op: DiskOp, fault: DiskFault, says: &str) -> u32 {
    let disk = |place: &Place| place.disk.clone().expect("there");
    fail_for_ever(
        // There are many of them.
        if [DiskOp::Open, DiskOp::Read].contains(&op) { 4 } else { 1 },
        &|place, nth| disk(place).fail(Nth::new(nth).of(op).forever(), fault),
        &|place| disk(place).failed(),
        says,
    )
}

fn store_for_ever(op: StoreOp, fault: StoreFault, says: &str) -> u32 {
    fail_for_ever(
        if op == StoreOp::Get { 4 } else { 1 },
        &|place, nth| place.store.fail(Nth::new(nth).of(op).forever(), fault),
        &|place| place.store.failed(),
        says,
    )
}

const CHANGES: [DiskOp; 7] =
    [DiskOp::Create, DiskOp::Write, DiskOp::Sync, DiskOp::SyncDir, DiskOp::Rename, DiskOp::Remove, DiskOp::MakeDir];

#[test]
fn a_disk_that_fails_for_good_ends_a_repair_with_an_error() {
    for op in CHANGES {
        for fault in [DiskFault::Failed, DiskFault::Short, DiskFault::Done] {
            assert!(disk_for_ever(op, fault, "Input/output error") > 0, "{op:?} {fault:?}");
        }
    }
}

#[test]
fn a_disk_that_is_full_ends_a_repair_with_an_error() {
    for op in [DiskOp::Create, DiskOp::Write, DiskOp::Rename, DiskOp::MakeDir] {
        assert!(disk_for_ever(op, DiskFault::NoSpace, "no storage space") > 0, "{op:?}");
    }
}

#[test]
fn a_disk_that_cannot_be_read_ends_a_repair_with_an_error() {
    for op in [DiskOp::Open, DiskOp::Read, DiskOp::List] {
        assert!(disk_for_ever(op, DiskFault::Failed, "Input/output error") > 0, "{op:?}");
    }
}

#[test]
fn a_store_that_takes_nothing_more_ends_a_repair_with_an_error() {
    let faults = [
        (StoreFault::Refused, "refused"),
        (StoreFault::Full, "no room for"),
        (StoreFault::Away, "an outage"),
        (StoreFault::Adrift, "no answer"),
    ];
    for op in [StoreOp::Put, StoreOp::Create] {
        for (fault, says) in faults {
            assert!(store_for_ever(op, fault, says) > 0, "{op:?} {fault:?}");
        }
    }
}

#[test]
fn a_store_that_gives_nothing_more_ends_a_repair_with_an_error() {
    for op in [StoreOp::Get, StoreOp::List] {
        for (fault, says) in [(StoreFault::Refused, "refused"), (StoreFault::Away, "an outage")] {
            assert!(store_for_ever(op, fault, says) > 0, "{op:?} {fault:?}");
        }
    }
}
