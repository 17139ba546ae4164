//! A disk that is full, fails, belongs to others too, or was another filesystem's.

use super::*;

fn on_disk_of(capacity: u64, free_bytes_min: u64) -> Rig {
    let disk = SimDisk::new(&CallLog::new());
    disk.set_capacity(capacity);
    Rig::on(disk, Limits { bytes_max: 1 << 40, free_bytes_min })
}

fn available(rig: &Rig) -> u64 {
    rig.disk.space().expect("known").available
}

#[test]
fn promise_x11_the_cache_leaves_so_much_of_the_disk_free() {
    let mut rig = on_disk_of(1 << 20, 256 * KIB);
    for number in 0..40 {
        rig.put(segment(number), 0, 64 * KIB);
        rig.settle();
        assert!(available(&rig) >= 256 * KIB, "after {number}");
    }
    assert!(rig.cache.holds(segment(39), 0..64 * KIB) && rig.cache.stats().runs == 11, "it goes on with what it may");
}

#[test]
fn promise_x11_what_others_put_on_the_disk_the_cache_gives_back_and_takes_again() {
    let mut rig = on_disk_of(1 << 20, 256 * KIB);
    for number in 0..11 {
        rig.put(segment(number), 0, 64 * KIB);
    }
    rig.settle();
    let journal = rig.disk.create("journal").expect("made");
    journal.write_at(&vec![1; 256 << 10], 0).expect("there is room for that");
    assert!(available(&rig) < 256 * KIB);
    rig.clock.advance(Duration::from_secs(1));
    rig.settle();
    assert!(available(&rig) >= 256 * KIB, "nobody put anything, and still it gave back");
    assert!(rig.cache.holds(segment(10), 0..1) && !rig.cache.holds(segment(0), 0..1));

    for kib in [500, 700, 900] {
        journal.write_at(&vec![1; kib << 10], 0).expect("there is room for that");
        rig.clock.advance(Duration::from_secs(1));
        rig.settle();
    }
    rig.put(segment(20), 0, 64 * KIB);
    rig.settle();
    assert_eq!((rig.cache.stats().runs, rig.on_disk()), (0, 0), "not even the newest is kept");
    assert!(rig.cache.stats().last_error.is_some_and(|error| error.contains("free")));
    assert_eq!(rig.cache.read(segment(20), 0..1), None);

    drop(journal);
    rig.disk.remove("journal").expect("removed");
    rig.put(segment(21), 0, 64 * KIB);
    rig.settle();
    assert_eq!((rig.cache.stats().runs, rig.cache.stats().last_error), (1, None), "it heals by itself");
}

#[test]
fn promise_g6_a_run_that_cannot_be_written_leaves_no_partial_file_and_reads_go_on() {
    for fault in [DiskFault::NoSpace, DiskFault::Short, DiskFault::Failed, DiskFault::Done] {
        for op in [DiskOp::Create, DiskOp::Write] {
            let mut rig = Rig::new(1 << 20);
            rig.put(segment(1), 0, 10_000);
            rig.settle();
            rig.disk.fail(Nth::new(1).of(op).on(CACHE), fault);
            rig.put(segment(2), 0, 10_000);
            rig.settle();
            assert_eq!(rig.disk.failed(), 1);
            let stats = rig.cache.stats();
            assert_eq!(
                (rig.files().len(), stats.dropped, stats.used_bytes),
                (1, 1, 3 * 4096 + 128),
                "{op:?} {fault:?}"
            );
            assert!(stats.last_error.is_some());
            assert_eq!(rig.cache.read(segment(2), 0..1), None);
            assert_eq!(rig.cache.read(segment(1), 0..10_000), Some(bytes(segment(1), 0..10_000)));

            rig.put(segment(3), 0, 10_000);
            rig.settle();
            assert_eq!((rig.cache.stats().dropped, rig.files().len()), (2, 1), "nothing is tried for a while");
            rig.clock.advance(Duration::from_secs(1));
            rig.put(segment(2), 0, 10_000);
            rig.settle();
            assert_eq!((rig.files().len(), rig.cache.stats().last_error), (2, None), "it heals by itself");
        }
    }
}

#[test]
fn promise_s8_a_file_that_cannot_be_removed_counts_until_it_is() {
    let mut rig = Rig::new(2 * (8 * KIB + 128));
    for number in 0..2 {
        rig.put(segment(number), 0, 8 * KIB);
    }
    rig.settle();
    rig.disk.fail(Nth::new(1).of(DiskOp::Remove).forever(), DiskFault::Failed);
    for number in 2..5 {
        rig.put(segment(number), 0, 8 * KIB);
        rig.settle();
        assert!(rig.on_disk() <= 16 * KIB && rig.cache.stats().used_bytes == 2 * (8 * KIB + 128));
        rig.clock.advance(Duration::from_secs(1));
    }
    rig.disk.heal();
    rig.clock.advance(Duration::from_secs(1));
    rig.settle();
    rig.put(segment(5), 0, 8 * KIB);
    rig.settle();
    assert!(rig.cache.holds(segment(5), 0..8 * KIB));
    assert_eq!(rig.files().len() as u64, rig.cache.stats().runs);
}

#[test]
fn a_file_that_is_gone_or_cut_short_is_a_miss_and_fetched_again() {
    for cut in [false, true] {
        let mut rig = Rig::new(1 << 20);
        rig.put(segment(1), 0, 10_000);
        rig.settle();
        let limits = rig.keeper.limits();
        let mut rig = rig.again(limits);
        let name = format!("{CACHE}/{}", rig.files()[0]);
        rig.disk.remove(&name).expect("it was there");
        if cut {
            rig.disk.create(&name).expect("made").write_at(&bytes(segment(1), 0..9000), 0).expect("written");
        }
        assert_eq!(rig.cache.read(segment(1), 0..10_000), None);
        assert_eq!((rig.cache.stats().damaged, rig.cache.stats().last_error), (1, None));
        rig.put(segment(1), 0, 10_000);
        rig.settle();
        assert_eq!(rig.cache.read(segment(1), 0..10_000), Some(bytes(segment(1), 0..10_000)));
        assert_eq!((rig.files().len(), rig.cache.stats().used_bytes), (1, 3 * 4096 + 128));
    }
}

#[test]
fn promise_s8_a_lowered_limit_holds_from_the_start_and_the_newest_stay() {
    let mut rig = Rig::new(1 << 20);
    for number in 0..10 {
        rig.put(segment(number), 0, 16 * KIB);
        rig.settle();
    }
    let rig = rig.again(Limits { bytes_max: 3 * (16 * KIB + 128), free_bytes_min: 0 });
    assert_eq!(rig.on_disk(), 48 * KIB);
    assert!((7..10).all(|number| rig.cache.holds(segment(number), 0..16 * KIB)));
}

#[test]
fn the_cache_of_another_filesystem_is_emptied_and_strangers_are_left_alone() {
    let mut rig = Rig::new(1 << 20);
    rig.put(segment(1), 0, 5000);
    rig.settle();
    let limits = rig.keeper.limits();
    for (name, ours) in [("data-1-2-3", true), ("README", false), ("database", false)] {
        rig.disk.create(&format!("{CACHE}/{name}")).expect("made");
        let rig = Rig::on(rig.disk.clone(), limits);
        assert_eq!(rig.files().iter().any(|found| found == name), !ours, "{name}");
        assert!(rig.cache.holds(segment(1), 0..5000));
    }
    let media = Arc::new(rig.disk.clone());
    let (cache, _keeper) = Cache::open(media, rig.clock.clone(), Uuid(8), limits).expect("a cache");
    assert!(!cache.holds(segment(1), 0..1));
    assert_eq!(rig.files(), ["README", "database"]);
}

#[test]
fn an_owner_that_cannot_be_read_is_nobody() {
    let mut rig = Rig::new(1 << 20);
    rig.put(segment(1), 0, 5000);
    rig.settle();
    let limits = rig.keeper.limits();
    rig.disk.fail(Nth::new(1).of(DiskOp::Read), DiskFault::Failed);
    let rig = Rig::on(rig.disk.clone(), limits);
    assert_eq!((rig.disk.failed(), rig.files().len()), (1, 0));
    rig.put(segment(1), 0, 5000);
    assert!(rig.cache.holds(segment(1), 0..5000));
}

#[test]
fn nodes_and_indexes_outlive_data_unless_they_take_more_than_half() {
    let run = |number| segment(number);
    let weight = 8 * KIB + 128;
    let mut rig = Rig::new(10 * weight);
    let mut put = |number: u64, class| {
        rig.cache.put(run(number), class, 0, bytes(run(number), 0..8 * KIB));
        while rig.keeper.step() == Progress::Worked {}
    };
    (0..4).for_each(|number| put(number, Class::Nodes));
    put(4, Class::Indexes);
    (5..30).for_each(|number| put(number, Class::Data));
    let held = |from: u64, to: u64| (from..to).filter(|number| rig.cache.holds(run(*number), 0..1)).count();
    assert_eq!((held(0, 5), held(5, 30), held(25, 30)), (5, 5, 5), "half of it is theirs");
    let mut put = |number: u64, class| {
        rig.cache.put(run(number), class, 0, bytes(run(number), 0..8 * KIB));
        while rig.keeper.step() == Progress::Worked {}
    };
    (30..60).for_each(|number| put(number, Class::Nodes));
    let held = |from: u64, to: u64| (from..to).filter(|number| rig.cache.holds(run(*number), 0..1)).count();
    assert_eq!((held(25, 30), held(55, 60)), (5, 5), "and no more: data keeps the other");
}

#[test]
fn promise_x8_there_are_never_more_runs_than_a_number() {
    let mut state = State::new(1 << 40);
    let most = RUNS_MAX.max((1 << 40) / RUN_BYTES_MEAN_MIN);
    let mut small = State::new(1 << 30);
    for number in 0..RUNS_MAX {
        assert!(small.fits(1, u64::MAX));
        small.adopt(RunKey { key: segment(number), start: 0 }, Class::Data, 1);
        state.adopt(RunKey { key: segment(number), start: 0 }, Class::Data, 1);
    }
    assert!(!small.fits(1, u64::MAX) && small.fits(0, u64::MAX) && state.fits(1, u64::MAX) && most > RUNS_MAX);
    small.evict(Class::Data, 1, 1 << 30).expect("something can go");
    small.removed(4096);
    assert!(small.fits(1, u64::MAX));
}
