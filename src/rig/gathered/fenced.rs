//! Whose the state directory is, and which numbers must be won; and what is no damage at all.

use super::super::tails::elsewhere;
use super::*;
use crate::format::ids::{Nonce, Uuid};
use crate::format::names::{self, SUPERBLOCK};
use crate::format::publication::{Closing, Publication};
use crate::journal::MANIFEST;
use crate::media::sim::{DiskFault, DiskOp, Nth};
use crate::recovery::MountError;
use crate::ship::ShipError;
use crate::ship::fence::{self, Win};
use crate::store::StoreError;
use crate::store::sim::{StoreFault, StoreOp};

fn used(seed: u64) -> Rig {
    let mut rig = Rig::new(seed, &small());
    for n in 0..4 {
        put(&mut rig, &format!("window {n}"), 5000);
        rig.drain();
    }
    put(&mut rig, "in the journal", 4000);
    sync(&mut rig);
    rig
}

/// The same with something else in the place of a file of the state directory.
fn with_file(images: &Images, name: &str, bytes: &[u8]) -> Images {
    let (disk, _) = images.open();
    let disk = disk.expect("a disk");
    disk.remove(name).expect("removed");
    disk.create(name).expect("made").write_at(bytes, 0).expect("written");
    Images { disk: Some(disk.image()), store: images.store.clone() }
}

fn outlived(images: &Images) -> String {
    let found = images.found();
    let StatePart::Outlived(reason) = found.state.clone() else { panic!("{:?}", found.state) };
    let alone = images.store_alone();
    let expected = alone.found();
    assert!(images.entries(&found) == alone.entries(&expected), "what the store has, and nothing else");
    assert_eq!((found.close, found.end), (expected.close, expected.end));
    assert_eq!(found.contents.lens().count(), expected.contents.lens().count());
    assert!(found.damaged.iter().all(|damaged| !damaged.local), "{:?}", found.damaged);
    reason
}

#[test]
fn a_state_directory_that_somebody_took_over_from_is_left_alone_also_without_its_manifest() {
    let rig = used(1);
    let disk = Some(rig.disk.image());
    let mut other = elsewhere(&rig.store.image(), 20, &small()).expect("taken over");
    let images = Images { disk: disk.clone(), store: other.store.image() };
    assert!(outlived(&images).contains("came after it"));
    put(&mut other, "new", 3000);
    other.drain();
    let images = Images { disk, store: other.store.image() };
    assert!(outlived(&images).contains("came after it"));
    assert!(outlived(&with_file(&images, MANIFEST, b"?")).contains("MANIFEST is lost"));
    // It is a closing object alone that says so.
    let (_, store) = images.open();
    let newest = images.store.names().filter(|name| name.starts_with("gen/")).max().expect("there")[..14].to_owned();
    for name in images.store.names().filter(|name| name.starts_with(&newest)) {
        store.put(name, Bytes::from_static(b"damaged")).expect("put");
    }
    let images = Images { store: store.image(), ..images };
    assert!(outlived(&images).contains("came after it"));
}

#[test]
fn an_old_copy_of_a_state_directory_is_left_alone() {
    for only_here in [1, 12] {
        let mut rig = used(1);
        rig.drain();
        let copy = rig.disk.image();
        put(&mut rig, "published", 3000);
        rig.drain();
        let Rig { log, store, clock, .. } = rig;
        let before = store.image();
        store.set_down(true);
        let mut old =
            Rig::mount(log.clone(), SimDisk::from_image(&copy, &log), store, clock, 7, &small()).expect("mounts");
        for n in 0..only_here {
            put(&mut old, &format!("only here {n}"), 3000);
            old.mounted.checkpointer.wanted().checkpoint();
            (0..30).for_each(|_| drop(old.step()));
        }
        let images = Images { disk: Some(old.disk.image()), store: before };
        assert!(outlived(&images).contains("old copy"), "{only_here}");
    }
}

#[test]
fn a_repair_that_came_to_no_end_has_taken_nothing_from_anybody() {
    let rig = used(1);
    let images = Images::of(&rig);
    let before = images.found();
    let (_, store) = images.open();
    let repair = Uuid(77);
    store.put(&names::damaged(repair, "report"), Bytes::from_static(b"a report")).expect("put");
    assert!(matches!(fence::win(&store, &closing(&rig, before.close[0], repair)), Ok(Win::Won)));
    let images = Images { store: store.image(), ..images };
    let found = images.found();
    assert_eq!((&found.state, &found.damaged, &found.lost), (&StatePart::Owner, &vec![], &vec![]));
    assert_eq!(found.close, [Position { generation: before.close[0].generation + 1, number: 0 }]);
    // Nobody else's closing object is passed over so.
    store.delete(&names::damaged(repair, "report")).expect("deleted");
    assert!(outlived(&Images { store: store.image(), ..images }).contains("came after it"));
}

fn closing(rig: &Rig, at: Position, state: Uuid) -> Publication {
    let manifest = rig.mounted.db.journal().manifest().current();
    let epoch = u32::try_from(at.generation + 1).expect("few");
    Publication {
        uuid: manifest.uuid,
        state,
        nonce: Nonce(state.0 + u128::from(at.generation)),
        epoch,
        generation: at.generation,
        number: at.number,
        wall: 0,
        checkpoint: 9,
        start: Lsn::ZERO,
        end: Lsn::ZERO,
        body: Body::Closing(Closing { next_epoch: epoch, owner: "a repair".to_owned() }),
    }
}

/// As a repair does it.
fn win(rig: &Rig, at: Position, is_last: bool) -> bool {
    let closing = closing(rig, at, Uuid(77));
    let won = if is_last { fence::win(&rig.store, &closing) } else { fence::take(&rig.store, &closing) };
    matches!(won, Ok(Win::Won))
}

/// The writer that lives: what it publishes next fails, because it is fenced.
fn is_fenced(rig: &mut Rig) -> bool {
    put(rig, "after", 100);
    rig.mounted.checkpointer.wanted().checkpoint();
    for _ in 0..200 {
        rig.step_journal();
        rig.step_checkpointer();
        if let Some(job) = rig.mounted.desk.take_job() {
            match rig.mounted.shipper.run(&job) {
                Ok(report) => rig.mounted.desk.report(report),
                Err(e) => return matches!(e, ShipError::Fenced { .. }),
            }
        }
    }
    panic!("it publishes nothing");
}

/// Whatever is missing or damaged in the newest generation: who wins the numbers that are named has fenced the writer, and nobody
/// who looks at the store goes on before the repair does.
#[test]
fn the_numbers_that_are_named_fence_the_writer_whatever_is_missing() {
    let names: Vec<String> = {
        let rig = used(1);
        rig.store.image().names().filter(|name| name.starts_with("gen/0000000002/")).map(str::to_owned).collect()
    };
    assert!(names.len() >= 4, "{names:?}");
    for (at, name) in names.iter().enumerate() {
        for is_gone in [true, false] {
            // That the newest one is gone nobody can know; then the writer learns it with its next generation.
            if is_gone && at == names.len() - 1 {
                continue;
            }
            let mut rig = used(1);
            match is_gone {
                true => rig.store.delete(name).expect("deleted"),
                false => rig.store.put(name, Bytes::from_static(b"damaged")).expect("put"),
            }
            let found = Images::of(&rig).found();
            assert_eq!(found.state, StatePart::Owner);
            assert!(found.damaged.iter().any(|damaged| damaged.place == *name), "{name}: {:?}", found.damaged);
            assert_eq!(found.close.len() > 1, is_gone || at == names.len() - 1, "{name}: {:?}", found.close);
            for at in &found.close {
                assert!(
                    matches!(fence::win(&rig.store, &closing(&rig, *at, Uuid(77))), Ok(Win::Won)),
                    "{name}: {at:?}"
                );
                let taken = elsewhere(&rig.store.image(), 5, &small()).err().map(|e| e.to_string());
                assert!(taken.is_some(), "{name}: taken over in the middle of it");
            }
            assert!(is_fenced(&mut rig), "{name}");
        }
    }
}

/// Where a writer stands before what is foreign, it is fenced all the same; and where it has lost its generation to somebody of whom
/// nothing can be read any more.
#[test]
fn foreign_generations_keep_nobody_from_being_fenced() {
    for (name, wins) in [
        ("gen/0000000003/0000000000", &[(3, 1), (4, 0)][..]),
        ("gen/0000000009/0000000004", &[(3, 0), (9, 5), (10, 0)]),
        ("gen/0000000002/0000000999", &[(2, 1000), (3, 0)]),
    ] {
        let mut rig = used(1);
        let free = super::super::tails::free(&rig.store);
        rig.store.put(name, Bytes::from_static(b"a letter")).expect("put");
        let found = Images::of(&rig).found();
        assert_eq!((&found.state, &found.lost), (&StatePart::Owner, &vec![]), "{name}");
        let expected = std::iter::once((free.generation, free.number)).chain(wins.iter().copied());
        let close: Vec<(u64, u64)> = found.close.iter().map(|at| (at.generation, at.number)).collect();
        assert_eq!(close, expected.collect::<Vec<_>>(), "{name}");
        for at in &found.close {
            assert!(win(&rig, *at, found.close.last() == Some(at)), "{name}: {at:?}");
        }
        assert!(is_fenced(&mut rig), "{name}");
    }
    // Names that no publication can have are none, for a mount too.
    let rig = used(1);
    for name in ["gen/9999999999/0000000000", "gen/7/1", "gen/0000000007/1"] {
        rig.store.put(name, Bytes::from_static(b"a letter")).expect("put");
    }
    assert_same(&Images { disk: Some(rig.disk.image()), store: used(1).store.image() }, "before");
    assert_eq!(Images::of(&rig).found().close, Images::of(&used(1)).found().close);
    assert!(elsewhere(&rig.store.image(), 5, &small()).is_ok());
}

#[test]
fn a_store_that_is_away_and_a_disk_that_fails_are_no_damage() {
    let images = Images::of(&used(1));
    let (mut failed, mut refused) = (0, 0);
    for nth in 1.. {
        let (disk, store) = images.open();
        let disk = disk.expect("a disk");
        store.fail(Nth::new(nth).of(StoreOp::Get), StoreFault::Refused);
        let shared: Arc<dyn Store> = Arc::new(store.clone());
        let media: Arc<dyn Media> = Arc::new(disk.clone());
        let gathered = gather(&shared, Some(&media), &mut |_, _, _| {});
        if store.failed() == 0 {
            break;
        }
        assert!(
            matches!(gathered, Err(RepairError::Store(StoreError::Failed { .. }) | RepairError::Ship(_))),
            "GET {nth}"
        );
        refused += 1;
    }
    for nth in 1.. {
        let (disk, store) = images.open();
        let disk = disk.expect("a disk");
        disk.fail(Nth::new(nth).of(DiskOp::Read), DiskFault::Failed);
        let shared: Arc<dyn Store> = Arc::new(store);
        let media: Arc<dyn Media> = Arc::new(disk.clone());
        let gathered = gather(&shared, Some(&media), &mut |_, _, _| {});
        if disk.failed() == 0 {
            break;
        }
        let is_disk =
            matches!(gathered, Err(RepairError::Disk(_) | RepairError::Journal(_) | RepairError::Checkpoint(_)));
        assert!(is_disk, "read {nth}: {:?}", gathered.err());
        failed += 1;
    }
    assert!(refused > 5 && failed > 10, "{refused} calls to the store, {failed} reads");
    let (_, store) = images.open();
    store.set_down(true);
    let shared: Arc<dyn Store> = Arc::new(store);
    let away = gather(&shared, None, &mut |_, _, _| {}).err();
    assert!(matches!(&away, Some(RepairError::Store(e)) if e.is_away()), "{away:?}");
}

#[test]
fn a_store_in_which_nothing_is_ours_is_none_and_what_is_foreign_or_newer_is_not_repaired() {
    let rig = used(1);
    let images = Images::of(&rig);
    let refused = |disk: Option<&Image>, store: &SimStore| {
        let images = Images { disk: disk.cloned(), store: store.image() };
        images.gather().err().expect("refused").to_string()
    };
    let empty = SimStore::new(&CallLog::new());
    assert!(refused(None, &empty).contains("no skylog filesystem"));
    assert!(refused(images.disk.as_ref(), &empty).contains("no skylog filesystem"));
    empty.put(SUPERBLOCK, Bytes::from_static(b"{}")).expect("put");
    empty.put("gen/0000000001/0000000000", Bytes::from_static(b"a letter")).expect("put");
    empty.put("seg/letter.txt", Bytes::from_static(b"a letter")).expect("put");
    assert!(refused(None, &empty).contains("no skylog filesystem"));
    // Another filesystem's state directory.
    let other = used(50);
    assert!(refused(Some(&other.disk.image()), &rig.store).contains("belongs to filesystem"));
    let (_, store) = images.open();
    let text = String::from_utf8(store.get(SUPERBLOCK).expect("there").to_vec()).expect("text");
    let newer = text.replace("\"skylog\": 1", "\"skylog\": 2");
    let body = &newer[..newer.find("  \"crc\"").expect("a checksum")];
    let sealed = format!("{body}  \"crc\": \"{:08x}\"\n}}\n", crc32c::crc32c(body.as_bytes()));
    store.put(SUPERBLOCK, sealed.into()).expect("put");
    assert!(refused(images.disk.as_ref(), &store).contains("version 2"));
    // The same without the right checksum is damage.
    store.put(SUPERBLOCK, newer.into()).expect("put");
    let found = Images { store: store.image(), ..images }.found();
    assert_eq!(found.superblock.uuid, rig.mounted.superblock.uuid);
}

#[test]
fn a_missing_publication_is_never_taken_for_the_end_of_a_generation() {
    let rig = used(1);
    let name = names::publication(2, 2);
    assert!(rig.store.get(&names::publication(2, 3)).is_ok());
    rig.store.delete(&name).expect("deleted");
    let refused = elsewhere(&rig.store.image(), 5, &small()).err();
    assert!(matches!(&refused, Some(MountError::Damaged { place, .. }) if *place == name), "{refused:?}");
}
