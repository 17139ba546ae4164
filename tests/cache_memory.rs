//! What the cache keeps in memory for each run, measured alone in a process: its disk holds nothing.

use bytes::Bytes;
use skylog::base::clock::{SimClock, Time};
use skylog::cache::{Cache, CacheKey, Class, Limits, Progress};
use skylog::format::ids::{SegmentNo, Uuid};
use skylog::media::{File, FolderEntry, Media, Space};
use std::io;
use std::sync::Arc;

const RUNS: u64 = 100_000;
/// What so many may take.
const MEMORY_MAX: u64 = 30 << 20;
const FILESYSTEM: Uuid = Uuid(1);

/// A disk that takes everything, keeps nothing, and says that it holds so many runs of one block.
struct Nowhere {
    runs: u64,
}

struct Nothing;

impl File for Nothing {
    fn read_at(&self, buf: &mut [u8], _: u64) -> io::Result<()> {
        buf.copy_from_slice(FILESYSTEM.to_string().as_bytes());
        Ok(())
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(FILESYSTEM.to_string().len() as u64)
    }
}

impl Media for Nowhere {
    fn create(&self, _: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(Nothing))
    }
    fn open(&self, _: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(Nothing))
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn make_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, _: &str) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn visit(&self, _: &str, each: &mut dyn FnMut(FolderEntry<'_>)) -> io::Result<()> {
        for n in 0..self.runs {
            let at = scattered(n);
            let name = format!("data-0000000001-{:016}-{:012}", at / 64, at % 64 * 8192);
            each(FolderEntry { name: &name, bytes: 4096, used: Time::from_nanos(i64::try_from(n).expect("small")) });
        }
        Ok(())
    }
    fn sync_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn space(&self) -> io::Result<Space> {
        Ok(Space { total: 1 << 50, free: 1 << 50, available: 1 << 50 })
    }
}

/// The numbers below [`RUNS`], in no order.
fn scattered(n: u64) -> u64 {
    n * 7919 % RUNS
}

/// Memory of this process that no file backs, bytes.
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("it is there");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

#[test]
fn promise_x8_a_hundred_thousand_runs_take_less_than_30_mib_of_memory() {
    let open = |runs| {
        let limits = Limits { bytes_max: 10 << 30, free_bytes_min: 0 };
        Cache::open(Arc::new(Nowhere { runs }), Arc::new(SimClock::default()), FILESYSTEM, limits).expect("a cache")
    };
    let before = anonymous();
    let found = open(RUNS);
    let taken_up = anonymous().saturating_sub(before);
    assert_eq!(found.0.stats().runs, RUNS);
    assert!(taken_up < MEMORY_MAX, "{taken_up} bytes for what earlier mounts left");

    let before = anonymous();
    let (cache, mut keeper) = open(0);
    let block = Bytes::from(vec![1; 4096]);
    for at in (0..RUNS / 4).map(scattered) {
        let key = CacheKey::Segment(SegmentNo { epoch: 1, number: at / 64 });
        cache.put(key, Class::Data, at % 64 * 8192, block.clone());
        while keeper.step() == Progress::Worked {}
    }
    assert_eq!((cache.stats().runs, cache.stats().pending_bytes), (RUNS / 4, 0));
    let put = anonymous().saturating_sub(before);
    assert!(put < MEMORY_MAX / 4, "{put} bytes for what was put");
    println!("{} and {} bytes a run", taken_up / RUNS, put * 4 / RUNS);
}
