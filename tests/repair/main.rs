//! Repairs of whole filesystems in the rig: whatever is damaged or gone, with the state directory and from the store alone, what is
//! left afterwards is a filesystem that the check finds whole, in which every file is what it was, or is named in the report and
//! gives EIO where its data is lost; never a wrong byte.

mod crashes;
mod each;
mod failing;
mod life;
mod missed;
mod random;
mod world;

use skylog::check::{Depth, check};
use skylog::media::Media;
use skylog::media::sim::{CallLog, Image, SimDisk};
use skylog::recovery::Holding;
use skylog::repair::{Means, RepairError, Report, repair};
use skylog::rig::{Rig, small};
use skylog::store::Store;
use skylog::store::sim::{SimStore, StoreImage};
use std::sync::Arc;
use world::{Files, World, assert_files};

/// A damaged filesystem, or what a repair made of one.
struct Place {
    log: Arc<CallLog>,
    store: SimStore,
    disk: Option<SimDisk>,
    /// What the user says of it.
    not_append_only: bool,
}

impl Place {
    fn of(store: &StoreImage, disk: Option<&Image>) -> Place {
        let log = CallLog::new();
        let store = SimStore::from_image(store, &log);
        let disk = disk.map(|disk| SimDisk::from_image(disk, &log));
        Place { log, store, disk, not_append_only: true }
    }

    /// With the state directory, or the store alone.
    fn from(world: &World, with_state: bool) -> Place {
        Place::of(&world.store, with_state.then_some(&world.disk))
    }

    fn media(&self) -> Option<Arc<dyn Media>> {
        self.disk.clone().map(|disk| Arc::new(disk) as Arc<dyn Media>)
    }

    fn repair(&self, seed: u64, dry_run: bool) -> Result<Report, RepairError> {
        self.repair_as(seed, dry_run, small().holding)
    }

    fn repair_as(&self, seed: u64, dry_run: bool, holding: Holding) -> Result<Report, RepairError> {
        repair(&self.means(seed, holding), dry_run, &mut |_, _, _| {})
    }

    fn means(&self, seed: u64, holding: Holding) -> Means {
        let tuning = small();
        Means {
            store: Arc::new(self.store.clone()),
            state: self.media(),
            clock: Arc::new(skylog::base::clock::SimClock::default()),
            random: Arc::new(skylog::base::random::SeededRandom::new(seed)),
            owner: tuning.owner,
            holding,
            not_append_only: self.not_append_only,
            segment_bytes: tuning.policy.segment_bytes,
            shape: tuning.policy.shape,
        }
    }

    fn assert_clean(&self, when: &str) {
        let store: Arc<dyn Store> = Arc::new(self.store.clone());
        let report = check(&store, self.media(), Depth::Data, &mut |_, _, _| {});
        let lines: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
        assert!(report.is_clean(), "{when}: {lines:#?}, skipped {:?}", report.skipped);
    }

    /// Mounts what is there, on the disk that is there or on a new one.
    fn mount(&self, seed: u64, when: &str) -> Rig {
        let log = CallLog::new();
        let store = SimStore::from_image(&self.store.image(), &log);
        let disk = match &self.disk {
            Some(disk) => SimDisk::from_image(&disk.image(), &log),
            None => SimDisk::new(&log),
        };
        Rig::mount(log, disk, store, Arc::default(), seed, &small())
            .unwrap_or_else(|e| panic!("{when}: what was repaired cannot be mounted: {e}"))
    }

    /// Repairs, and looks at all that must be so afterwards.
    fn assert_repaired(&self, files: &Files, when: &str) -> Report {
        let report = self.repair(77, false).unwrap_or_else(|e| panic!("{when}: {e}"));
        assert!(report.after.as_ref().is_none_or(|after| after.is_clean()), "{when}: the repair says so too");
        self.assert_mended(files, &report, when);
        report
    }

    fn assert_mended(&self, files: &Files, report: &Report, when: &str) {
        self.assert_clean(when);
        let mut rig = self.mount(5, when);
        assert_files(&mut rig, files, report, when);
        // Life goes on.
        world::put(&mut rig, "after the repair", 5000);
        rig.drain();
        let again = Place::of(&rig.store.image(), Some(&rig.disk.image()));
        again.assert_clean(&format!("{when}, written to"));
        Place::of(&rig.store.image(), None).assert_clean(&format!("{when}, written to, store alone"));
    }
}

#[test]
fn a_filesystem_that_is_whole_is_left_alone() {
    let world = World::new();
    for with_state in [true, false] {
        let place = Place::from(&world, with_state);
        let report = place.repair(1, false).expect("nothing fails");
        assert!(report.was_clean() && report.base.is_none(), "{report:?}");
        assert!(place.log.is_empty(), "nothing is written: {:?}", place.log.calls());
    }
}

/// Two objects of different kinds, from the store alone.
#[test]
fn a_damaged_chunk_and_a_damaged_publication_are_repaired_from_the_store_alone() {
    let world = World::new();
    let place = Place::from(&world, false);
    let chunk = world.living("seg/").into_iter().find(|name| world.is_of_chunks(name)).expect("a segment of chunks");
    let increment = world.living("gen/").pop().expect("a publication");
    world::flip(&place.store, &chunk, 200);
    world::flip(&place.store, &increment, 150);
    let report = place.assert_repaired(&world.files(false), "a chunk and a publication");
    let kept = report.kept.expect("kept");
    for name in [&chunk, &increment] {
        let copy = kept.replace("report", name);
        assert_eq!(place.store.get(&copy).expect("copied"), place.store.get(name).expect("there"), "G8: {name}");
        assert!(report.damaged.iter().any(|damaged| damaged.place == *name), "{name} is named");
    }
    let text = String::from_utf8(place.store.get(&kept).expect("a report").to_vec()).expect("text");
    assert!(text.contains(&chunk) && text.contains(&increment), "{text}");
}

#[test]
fn a_dry_run_says_what_there_is_to_repair_and_changes_nothing() {
    let world = World::new();
    for with_state in [true, false] {
        let place = Place::from(&world, with_state);
        let chunk =
            world.living("seg/").into_iter().find(|name| world.is_of_chunks(name)).expect("a segment of chunks");
        world::flip(&place.store, &chunk, 200);
        let before = place.log.len();
        let dry = place.repair(1, true).expect("nothing fails");
        assert!(!dry.was_clean() && dry.base.is_none() && dry.kept.is_none());
        assert_eq!(place.log.len(), before, "nothing is written");
        let wet = place.repair(2, false).expect("nothing fails");
        assert_eq!((dry.damaged, dry.touched), (wet.damaged, wet.touched), "what it says is what is done");
    }
}
