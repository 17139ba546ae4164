//! A check of a store that is far away asks side by side, and for more than it needs next: it must find what a check finds that asks
//! one thing after the other, and with few requests.

use super::counting::Counting;
use super::*;
use skylog::base::random::SeededRandom;

/// Some files in many checkpoints: trees with several levels, in many node segments, some of which are in the state
/// directory alone.
fn lived() -> Rig {
    let mut rig = Rig::new(31, &small());
    let dirs: Vec<InodeNo> = (0..4).map(|n| mkdir(&mut rig, ROOT, &format!("dir-{n}"))).collect();
    for n in 0..180 {
        let ino = create(&mut rig, dirs[n % dirs.len()], &format!("file-{n}"));
        write(&mut rig, ino, 0, 100 + n * 17);
        if n % 30 == 29 {
            rig.drain();
        }
    }
    for n in (0..180).step_by(7) {
        unlink(&mut rig, dirs[n % dirs.len()], &format!("file-{n}"));
    }
    rig.drain();
    rig
}

/// What a check finds whose store answers so many requests side by side, and how many it took.
fn found(store: &SimStore, disk: Option<&Image>, depth: Depth, at_once: usize) -> (Report, u64) {
    let counting = Counting::of(store, at_once);
    let disk = disk.map(|image| Arc::new(SimDisk::from_image(image, &CallLog::new())) as Arc<dyn Media>);
    let report = check(&(counting.clone() as Arc<dyn Store>), disk, depth, &mut |_, _, _| {});
    (report, counting.requests())
}

fn assert_same(store: &SimStore, disk: Option<&Image>, when: &str) -> Report {
    for depth in [Depth::Metadata, Depth::Data] {
        let ((near, _), (far, _)) = (found(store, disk, depth, 1), found(store, disk, depth, 5));
        let lines = |report: &Report| report.problems.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(lines(&near), lines(&far), "{when}, {depth:?}");
        assert_eq!(
            (&near.skipped, &near.notes, &near.figures),
            (&far.skipped, &far.notes, &far.figures),
            "{when}, {depth:?}"
        );
        if depth == Depth::Data {
            return far;
        }
    }
    unreachable!("the last depth returns")
}

#[test]
fn a_whole_filesystem_is_checked_with_a_fraction_of_the_requests() {
    let rig = lived();
    let ((near, one_by_one), (far, together)) =
        (found(&rig.store, None, Depth::Data, 1), found(&rig.store, None, Depth::Data, 5));
    assert_clean(&near, "near");
    assert_clean(&far, "far");
    assert_eq!(near.figures, far.figures);
    assert!(together * 3 < one_by_one, "{together} requests, {one_by_one} one by one");
}

#[test]
fn whatever_is_damaged_a_check_of_a_store_far_away_finds_what_one_nearby_finds() {
    let rig = lived();
    let (random, disk) = (SeededRandom::new(77), rig.disk.image());
    let names: Vec<String> = rig.store.list("").expect("listed");
    assert!(names.len() > 20, "{names:?}");
    let mut damaged = 0;
    for (n, name) in names.iter().enumerate() {
        let how = ["flipped", "cut", "gone", "empty"][n % 4];
        let store = SimStore::from_image(&rig.store.image(), &CallLog::new());
        let mut bytes = store.get(name).expect("there").to_vec();
        let at = random.below(bytes.len() as u64) as usize;
        match how {
            "flipped" => bytes[at] ^= 1 << random.below(8),
            "cut" => bytes.truncate(at),
            _ => bytes.clear(),
        }
        store.put(name, bytes.into()).expect("put");
        if how == "gone" {
            store.delete(name).expect("deleted");
        }
        let disk = Some(&disk).filter(|_| n % 3 == 0);
        let report = assert_same(&store, disk, &format!("{name} {how} at {at}, state directory: {}", disk.is_some()));
        damaged += usize::from(!report.is_clean());
    }
    assert!(damaged > names.len() / 2, "{damaged} of {} objects told", names.len());
}
