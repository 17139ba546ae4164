//! Cache files that somebody else made: names at the ends of their numbers, lengths and times that no file of ours has.

use skylog::base::clock::{SimClock, Time};
use skylog::base::random::{Random, SeededRandom};
use skylog::cache::{CACHE, Cache, CacheKey, Class, Limits, Progress};
use skylog::format::ids::{Lsn, SegmentNo, Uuid};
use skylog::media::sim::{CallLog, SimDisk};
use skylog::media::{File, FolderEntry, Media, Space};
use std::io::Result;
use std::sync::Arc;

const FILESYSTEM: Uuid = Uuid(7);
const BYTES_MAX: u64 = 1 << 20;
/// A keeper that has worked so often without a rest never rests.
const STEPS_MAX: usize = 10_000;

/// A disk that says of its files what chance says.
struct Liar {
    disk: SimDisk,
    seed: u64,
}

impl Media for Liar {
    fn create(&self, name: &str) -> Result<Arc<dyn File>> {
        self.disk.create(name)
    }
    fn open(&self, name: &str) -> Result<Arc<dyn File>> {
        self.disk.open(name)
    }
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> Result<()> {
        self.disk.remove(name)
    }
    fn make_dir(&self, name: &str) -> Result<()> {
        self.disk.make_dir(name)
    }
    fn list(&self, dir: &str) -> Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn visit(&self, dir: &str, each: &mut dyn FnMut(FolderEntry<'_>)) -> Result<()> {
        let random = SeededRandom::new(self.seed);
        self.disk.visit(dir, &mut |entry| {
            let secs = [0, 1, i64::MIN, i64::MAX, 18_446_744_073][random.below(5) as usize];
            let nanos = [0, 709_551_615, 999_999_999][random.below(3) as usize];
            let bytes = [entry.bytes, 4096, 1 << 41, 1 << 63, u64::MAX][random.below(5) as usize];
            each(FolderEntry { bytes, used: Time { secs, nanos }, ..entry });
        })
    }
    fn sync_dir(&self, dir: &str) -> Result<()> {
        self.disk.sync_dir(dir)
    }
    fn space(&self) -> Result<Space> {
        self.disk.space()
    }
}

fn number(random: &SeededRandom) -> u64 {
    [0, 1, 2, 4096, 1 << 32, (1 << 62) + 1, u64::MAX - 1, u64::MAX][random.below(8) as usize]
}

fn key(random: &SeededRandom) -> CacheKey {
    let lsn = || Lsn { epoch: random.below(3) as u32, pos: number(random) };
    match random.below(2) {
        0 => CacheKey::Segment(SegmentNo { epoch: random.below(2) as u32, number: number(random) }),
        _ => CacheKey::Window(lsn(), lsn()),
    }
}

/// A name as ours are, or nearly so.
fn name(random: &SeededRandom) -> String {
    let word = ["data", "nodes", "index", "filesystem"][random.below(4) as usize];
    let (epoch, end) = (random.below(3), random.below(3));
    let (a, b, start) = (number(random), number(random), number(random));
    let mut name = match random.below(4) {
        0 => format!("{word}-{epoch}-{a}-{start}"),
        1 => format!("{word}-{epoch:010}.{a:020}-{end:010}.{b:020}-{start:012}"),
        _ => format!("{word}-{epoch:010}-{a:016}-{start:012}"),
    };
    if random.below(6) == 0 {
        let at = random.below(name.len() as u64) as usize;
        let other = ["", "-", ".", "99", "x"][random.below(5) as usize];
        name.replace_range(at..=at, other);
    }
    name
}

/// A folder of cache files is taken up, used, and kept within its limit.
pub fn cache_files(data: &[u8]) -> usize {
    let random = SeededRandom::fed(data);
    let disk = SimDisk::new(&CallLog::new());
    disk.make_dir(CACHE).expect("made");
    let put = |name: &str, bytes: &[u8]| {
        disk.create(&format!("{CACHE}/{name}")).and_then(|file| file.write_at(bytes, 0)).ok();
    };
    let owner = if random.below(8) == 0 { "nobody".to_owned() } else { FILESYSTEM.to_string() };
    put("filesystem", owner.as_bytes());
    (0..random.below(24)).for_each(|_| put(&name(&random), &vec![1; random.below(3) as usize * 3000]));
    let media = Arc::new(Liar { disk, seed: random.u64() });
    let limits = Limits { bytes_max: BYTES_MAX, free_bytes_min: 0 };
    let (cache, mut keeper) =
        Cache::open(media, Arc::new(SimClock::default()), FILESYSTEM, limits).expect("the disk is well");
    let taken_up = cache.stats().runs;
    for _ in 0..random.below(30) {
        let (key, start, len) = (key(&random), number(&random), random.below(9000));
        let end = start.saturating_add(len);
        match random.below(4) {
            0 if start < 1 << 62 => cache.put(key, Class::Data, start, vec![2; len as usize].into()),
            1 => drop(cache.remove(key, start..end)),
            2 => drop(cache.holds(key, start..end)),
            _ => drop(cache.read(key, start..end)),
        }
    }
    let worked = (0..STEPS_MAX).take_while(|_| keeper.step() == Progress::Worked).count();
    assert!(worked < STEPS_MAX, "the keeper never rests");
    let used = cache.stats().used_bytes;
    assert!(used <= BYTES_MAX, "{used} bytes are kept");
    usize::from(taken_up > 0)
}
