//! The cache on a simulated disk, its keeper stepped by hand.

mod crash;
mod disk;
mod model;
mod reading;
mod threads;

use super::*;
use crate::base::clock::SimClock;
use crate::media::LocalDisk;
use crate::media::sim::{CallLog, DiskFault, DiskOp, Nth, SimDisk};

const FILESYSTEM: Uuid = Uuid(7);
const KIB: u64 = 1 << 10;

/// A cache on a simulated disk, its keeper stepped by hand.
struct Rig {
    disk: SimDisk,
    clock: Arc<SimClock>,
    cache: Arc<Cache>,
    keeper: Keeper,
}

impl Rig {
    fn new(bytes_max: u64) -> Rig {
        Rig::on(SimDisk::new(&CallLog::new()), Limits { bytes_max, free_bytes_min: 0 })
    }

    fn on(disk: SimDisk, limits: Limits) -> Rig {
        let clock = Arc::new(SimClock::default());
        let (cache, keeper) = Cache::open(Arc::new(disk.clone()), clock.clone(), FILESYSTEM, limits).expect("a cache");
        Rig { disk, clock, cache, keeper }
    }

    /// Mounts again, on what the disk holds.
    fn again(self, limits: Limits) -> Rig {
        Rig::on(self.disk, limits)
    }

    fn put(&self, key: CacheKey, start: u64, len: u64) {
        self.cache.put(key, Class::Data, start, bytes(key, start..start + len));
    }

    fn settle(&mut self) {
        while self.keeper.step() == Progress::Worked {}
    }

    fn files(&self) -> Vec<String> {
        let mut names = self.disk.list(CACHE).expect("listed");
        names.retain(|name| name != name::OWNER);
        names
    }

    /// Bytes of the cache files, in whole blocks.
    fn on_disk(&self) -> u64 {
        let image = self.disk.image();
        let files = image.names().filter(|name| name.starts_with(CACHE) && !name.ends_with(name::OWNER));
        files.map(|name| image.file(name).expect("it is there").len().next_multiple_of(4096)).sum()
    }
}

fn segment(number: u64) -> CacheKey {
    CacheKey::Segment(SegmentNo { epoch: 1, number })
}

/// What an object holds: each byte says where it is.
fn bytes(key: CacheKey, range: Range<u64>) -> Bytes {
    let CacheKey::Segment(SegmentNo { number, .. }) = key else { panic!("these tests use segments") };
    range.map(|at| (at / 7 + number * 31 + at) as u8).collect()
}

#[test]
fn what_is_put_is_read_at_once_after_it_is_written_and_after_another_mount() {
    let mut rig = Rig::new(1 << 20);
    let limits = rig.keeper.limits();
    rig.put(segment(1), 100, 10_000);
    let expected = Some(bytes(segment(1), 200..5000));
    assert_eq!(rig.cache.read_resident(segment(1), 200..5000), expected, "while it is pending");
    assert_eq!(rig.cache.stats().pending_bytes, 3 * 4096);
    rig.settle();
    assert_eq!(rig.cache.stats().pending_bytes, 0);
    assert_eq!(rig.files(), ["data-0000000001-0000000000000001-000000000100"]);
    assert_eq!(rig.cache.read(segment(1), 200..5000), expected, "from its file");
    let rig = rig.again(limits);
    assert_eq!(rig.cache.read(segment(1), 200..5000), expected, "as an earlier mount left it");
    assert_eq!(rig.cache.stats().runs, 1);
}

#[test]
fn a_range_that_is_not_all_there_is_a_miss() {
    let mut rig = Rig::new(1 << 20);
    rig.put(segment(1), 4096, 4096);
    for settled in [false, true] {
        for missing in [4095..5000, 8000..8193, 0..1, 8192..8193] {
            assert_eq!(rig.cache.read(segment(1), missing.clone()), None, "{missing:?} {settled}");
            assert_eq!(rig.cache.read_resident(segment(1), missing.clone()), None);
            assert!(!rig.cache.holds(segment(1), missing));
        }
        assert_eq!(rig.cache.read(segment(2), 4096..5000), None);
        assert!(rig.cache.holds(segment(1), 4096..8192));
        rig.settle();
    }
    assert_eq!((rig.cache.stats().hits, rig.cache.stats().misses), (0, 10));
}

#[test]
fn neighbours_and_overlapping_runs_are_read_as_one() {
    let mut rig = Rig::new(1 << 20);
    rig.put(segment(1), 0, 5000);
    rig.settle();
    rig.put(segment(1), 5000, 5000);
    rig.settle();
    rig.put(segment(1), 8000, 9000);
    let expected = Some(bytes(segment(1), 1..16_999));
    assert_eq!(rig.cache.read(segment(1), 1..16_999), expected, "the last is pending");
    rig.settle();
    assert_eq!(rig.cache.read(segment(1), 1..16_999), expected);
    assert_eq!(rig.cache.read(segment(1), 9000..9500), Some(bytes(segment(1), 9000..9500)));
}

#[test]
fn a_run_takes_the_place_of_those_inside_it_and_one_inside_another_is_not_kept_twice() {
    let mut rig = Rig::new(1 << 20);
    for start in [0, 20_000, 40_000] {
        rig.put(segment(1), start, 8192);
    }
    rig.settle();
    rig.put(segment(1), 0, 40_001);
    rig.put(segment(1), 5000, 100);
    rig.settle();
    let name = |start: u64| format!("data-0000000001-0000000000000001-{start:012}");
    assert_eq!(rig.files(), [name(0), name(40_000)]);
    assert_eq!(rig.cache.read(segment(1), 0..48_192), Some(bytes(segment(1), 0..48_192)));
}

#[test]
fn what_is_removed_is_gone_with_its_file() {
    let mut rig = Rig::new(1 << 20);
    for start in [0, 5000, 10_000, 15_000] {
        rig.put(segment(1), start, 5000);
    }
    rig.settle();
    rig.put(segment(2), 0, 5000);
    rig.cache.remove(segment(2), 0..1);
    rig.cache.remove_damaged(segment(1), 9_999..10_001);
    assert!(!rig.cache.holds(segment(1), 9000..9001) && !rig.cache.holds(segment(2), 0..1));
    rig.settle();
    assert!(rig.cache.holds(segment(1), 0..5000) && rig.cache.holds(segment(1), 15_000..20_000));
    assert_eq!((rig.files().len(), rig.cache.stats().damaged), (2, 2));
}

#[test]
fn promise_s8_the_cache_is_never_above_its_limit_and_the_least_recently_used_goes() {
    let mut rig = Rig::new(10 * (64 * KIB + 128));
    for number in 0..25 {
        rig.put(segment(number), 0, 64 * KIB);
        if number % 3 == 0 {
            assert!(rig.cache.read(segment(0), 0..1).is_some(), "it is used again and again");
        }
        rig.settle();
        assert!(rig.on_disk() <= 640 * KIB && rig.cache.stats().used_bytes <= 10 * (64 * KIB + 128));
    }
    let kept: Vec<u64> = (0..25).filter(|number| rig.cache.holds(segment(*number), 0..64 * KIB)).collect();
    assert_eq!(kept, [0, 16, 17, 18, 19, 20, 21, 22, 23, 24]);
    assert_eq!(rig.cache.stats().evicted, 15);
}

#[test]
fn on_a_real_disk_what_was_written_is_resident() {
    let root = tempfile::tempdir_in("/var/tmp").expect("a folder on a disk");
    let disk = Arc::new(LocalDisk::new(root.path()));
    let limits = Limits { bytes_max: 1 << 20, free_bytes_min: 0 };
    let (cache, mut keeper) =
        Cache::open(disk.clone(), Arc::new(SimClock::default()), FILESYSTEM, limits).expect("a cache");
    cache.put(segment(1), Class::Nodes, 0, bytes(segment(1), 0..10_000));
    assert_eq!(keeper.step(), Progress::Worked);
    assert_eq!(keeper.step(), Progress::Idle);
    assert_eq!(cache.read_resident(segment(1), 9000..10_000), Some(bytes(segment(1), 9000..10_000)));
    drop((cache, keeper));
    let (cache, _keeper) = Cache::open(disk, Arc::new(SimClock::default()), FILESYSTEM, limits).expect("again");
    assert_eq!(cache.read_resident(segment(1), 0..1), None, "a file that is not open may have to be waited for");
    assert_eq!(cache.read(segment(1), 9000..10_000), Some(bytes(segment(1), 9000..10_000)));
    assert!(cache.read_resident(segment(1), 0..1).is_some(), "now it is open");
}

#[test]
fn a_file_that_cannot_be_read_is_a_miss_and_counted() {
    let mut rig = Rig::new(1 << 20);
    rig.put(segment(1), 0, 5000);
    rig.settle();
    rig.disk.fail(Nth::new(1).of(DiskOp::Read).on(CACHE), DiskFault::Failed);
    assert_eq!(rig.cache.read(segment(1), 0..10), None);
    assert_eq!(rig.disk.failed(), 1);
    let stats = rig.cache.stats();
    assert_eq!((stats.damaged, stats.runs, stats.misses), (1, 0, 1));
    assert!(stats.last_error.is_some());
    rig.settle();
    assert_eq!(rig.files(), [""; 0]);
    rig.put(segment(1), 0, 5000);
    rig.clock.advance(Duration::from_secs(1));
    rig.settle();
    assert_eq!(rig.cache.stats().last_error, None, "it is over");
    assert!(rig.cache.read(segment(1), 0..10).is_some());
}
