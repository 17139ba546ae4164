//! Readers and the keeper at the same time, on a real disk.

use super::*;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

const LIMIT: u64 = 2 << 20;
const ROUNDS: u64 = 500;

/// They stop after so many rounds and have seen enough, or after so many more.
const ROUNDS_MAX: u64 = 1_000_000;
const ENOUGH: u64 = 100;

/// What the folder and all in it take.
fn taken(root: &Path) -> u64 {
    let folder = root.join(CACHE);
    let sizes = std::fs::read_dir(&folder).expect("listed").filter_map(|entry| entry.ok()?.metadata().ok());
    sizes.map(|file| file.blocks() * 512).sum()
}

#[test]
fn promise_s8_readers_beside_the_keeper_get_every_byte_right_and_the_disk_never_more_than_the_limit() {
    let root = tempfile::tempdir_in("/var/tmp").expect("a folder on a disk");
    let limits = Limits { bytes_max: LIMIT, free_bytes_min: 0 };
    let (disk, clock) = (Arc::new(LocalDisk::new(root.path())), Arc::new(SimClock::default()));
    let (cache, mut keeper) = Cache::open(disk, clock, FILESYSTEM, limits).expect("a cache");
    let objects: Vec<Bytes> = (0..30).map(|number| bytes(segment(number), 0..520_000)).collect();
    let (end, hits, samples) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::SeqCst) {
                if keeper.step() == Progress::Idle {
                    cache.wait_for_work(Duration::from_millis(10));
                }
            }
        });
        scope.spawn(|| {
            while !end.load(Ordering::SeqCst) {
                let taken = taken(root.path());
                assert!(taken <= LIMIT, "{taken} bytes on disk");
                samples.fetch_add(1, Ordering::SeqCst);
            }
        });
        let readers: Vec<_> = (0..3_u64)
            .map(|reader| {
                let (cache, hits, samples, objects) = (&cache, &hits, &samples, &objects);
                let seen_enough = || {
                    let counts =
                        [cache.stats().evicted, hits.load(Ordering::SeqCst), samples.load(Ordering::SeqCst) * 10];
                    counts.iter().all(|count| *count >= ENOUGH)
                };
                scope.spawn(move || {
                    for round in (0..ROUNDS_MAX).take_while(|round| *round < ROUNDS || !seen_enough()) {
                        let n = (round / 3 * 7 + reader * 13) % 300;
                        let (key, start) = (segment(n / 10), n % 10 * 50_000);
                        let range = start..start + 60_000;
                        let expected = objects[n as usize / 10].slice(start as usize..range.end as usize);
                        let resident = cache.read_resident(key, range.clone());
                        match resident.or_else(|| cache.read(key, range.clone())) {
                            Some(read) => {
                                assert!(read == expected, "{range:?} of {key:?}");
                                hits.fetch_add(1, Ordering::SeqCst);
                            }
                            None => cache.put(key, Class::Data, start, expected),
                        }
                        if round % 50 == 0 {
                            cache.remove(key, start..start + 1);
                        }
                    }
                })
            })
            .collect();
        let done: Vec<_> = readers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        end.store(true, Ordering::SeqCst);
        assert!(done.iter().all(Result::is_ok), "a reader found what it must not");
    });
    let stats = cache.stats();
    assert_eq!((stats.damaged, stats.last_error), (0, None));
    let counts = (stats.evicted, hits.into_inner(), samples.into_inner());
    assert!(counts.0 >= ENOUGH && counts.1 >= ENOUGH && counts.2 * 10 >= ENOUGH, "{counts:?} prove little");
}
