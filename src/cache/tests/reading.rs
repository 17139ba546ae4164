//! What happens to a run while it is read or written, told by a disk that calls back in the middle of its calls.

use super::*;
use crate::media::{FolderEntry, Space};

/// A disk that does something before it reads or removes.
struct Told {
    disk: SimDisk,
    before: Arc<Mutex<Before>>,
}

type Hook = Box<dyn FnMut() + Send>;

#[derive(Default)]
struct Before {
    open: Option<Hook>,
    read: Option<Hook>,
    write: Option<Hook>,
    remove: Option<Hook>,
}

struct ToldFile {
    file: Arc<dyn File>,
    before: Arc<Mutex<Before>>,
}

fn call(hook: Option<Hook>) {
    if let Some(mut hook) = hook {
        hook();
    }
}

impl Told {
    fn wrap(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(ToldFile { file, before: self.before.clone() })
    }
}

impl File for ToldFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let hook = self.before.lock().read.take();
        call(hook);
        self.file.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let hook = self.before.lock().write.take();
        call(hook);
        self.file.write_at(buf, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

impl Media for Told {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.disk.create(name).map(|file| self.wrap(file))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let hook = self.before.lock().open.take();
        call(hook);
        self.disk.open(name).map(|file| self.wrap(file))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        let hook = self.before.lock().remove.take();
        call(hook);
        self.disk.remove(name)
    }
    fn make_dir(&self, name: &str) -> io::Result<()> {
        self.disk.make_dir(name)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn visit(&self, dir: &str, each: &mut dyn FnMut(FolderEntry<'_>)) -> io::Result<()> {
        self.disk.visit(dir, each)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }
}

/// A cache on such a disk; the keeper can be stepped from within a call.
struct Story {
    disk: SimDisk,
    before: Arc<Mutex<Before>>,
    cache: Arc<Cache>,
    keeper: Arc<Mutex<Keeper>>,
}

const RUN: u64 = 8 * KIB;
const WEIGHT: u64 = RUN + 128;

impl Story {
    fn new(runs: u64) -> Story {
        let disk = SimDisk::new(&CallLog::new());
        let before = Arc::default();
        let media = Arc::new(Told { disk: disk.clone(), before: Arc::clone(&before) });
        let limits = Limits { bytes_max: runs * WEIGHT, free_bytes_min: 0 };
        let (cache, keeper) = Cache::open(media, Arc::new(SimClock::default()), FILESYSTEM, limits).expect("a cache");
        Story { disk, before, cache, keeper: Arc::new(Mutex::new(keeper)) }
    }

    fn put(&self, number: u64) {
        self.cache.put(segment(number), Class::Data, 0, bytes(segment(number), 0..RUN));
    }

    fn settle(&self) {
        while self.keeper.lock().step() == Progress::Worked {}
    }

    fn expect(&self, number: u64) {
        assert_eq!(self.cache.read(segment(number), 0..RUN), Some(bytes(segment(number), 0..RUN)), "segment {number}");
    }

    fn files(&self) -> usize {
        self.disk.list(CACHE).expect("listed").len() - 1
    }
}

#[test]
fn promise_s8_what_is_being_read_is_not_evicted() {
    let story = Story::new(3);
    (0..3).for_each(|number| story.put(number));
    story.settle();
    let (cache, keeper) = (story.cache.clone(), story.keeper.clone());
    let disk = story.disk.clone();
    story.before.lock().read = Some(Box::new(move || {
        for number in 3..10 {
            cache.put(segment(number), Class::Data, 0, bytes(segment(number), 0..RUN));
            while keeper.lock().step() == Progress::Worked {}
            assert!(disk.open("cache/data-0000000001-0000000000000000-000000000000").is_ok(), "it is being read");
            assert!(cache.stats().used_bytes <= 3 * WEIGHT);
        }
    }));
    story.expect(0);
    assert!(story.before.lock().read.is_none(), "all this happened in the middle of the read");
    assert_eq!((story.cache.stats().evicted, story.files()), (7, 3));
    assert!(story.cache.holds(segment(0), 0..RUN) && story.cache.holds(segment(9), 0..RUN));
}

#[test]
fn promise_s8_a_removed_file_counts_until_its_last_reader_has_closed_it() {
    let story = Story::new(2);
    story.put(0);
    story.put(1);
    story.settle();
    let (cache, keeper, disk) = (story.cache.clone(), story.keeper.clone(), story.disk.clone());
    story.before.lock().read = Some(Box::new(move || {
        cache.remove(segment(0), 0..RUN);
        assert!(!cache.holds(segment(0), 0..RUN));
        while keeper.lock().step() == Progress::Worked {}
        assert!(disk.open("cache/data-0000000001-0000000000000000-000000000000").is_ok(), "it is being read");
        assert_eq!(cache.stats().used_bytes, 2 * WEIGHT);
        // What is put again under the same name waits; for the other there is room only without segment 1.
        cache.put(segment(0), Class::Data, 0, bytes(segment(0), 0..RUN));
        cache.put(segment(2), Class::Data, 0, bytes(segment(2), 0..RUN));
        while keeper.lock().step() == Progress::Worked {}
        assert!(disk.open("cache/data-0000000001-0000000000000000-000000000000").is_ok(), "it is being read");
        assert_eq!(cache.stats().used_bytes, 2 * WEIGHT);
        assert!(!cache.holds(segment(1), 0..RUN) && cache.holds(segment(0), 0..RUN));
    }));
    story.expect(0);
    story.settle();
    assert_eq!((story.cache.stats().used_bytes, story.files(), story.cache.stats().pending_bytes), (2 * WEIGHT, 2, 0));
    story.expect(0);
    story.expect(2);
}

#[test]
fn a_run_that_is_removed_while_it_is_opened_is_not_kept_open() {
    let story = Story::new(1 + OPEN_MAX as u64);
    for number in 0..=OPEN_MAX as u64 {
        story.put(number);
        story.settle();
    }
    let first = RunKey { key: segment(0), start: 0 };
    assert!(story.cache.state.lock().is_closed(&first), "the others were written after it");
    let cache = story.cache.clone();
    story.before.lock().open = Some(Box::new(move || {
        cache.remove(segment(0), 0..RUN);
    }));
    story.expect(0);
    assert!(story.cache.state.lock().is_closed(&first), "it would take room until it is closed");
    story.settle();
    assert_eq!(story.files(), OPEN_MAX);
}

#[test]
fn promise_s8_who_reads_or_puts_never_waits_for_what_the_keeper_writes_or_evicts() {
    let story = Story::new(1);
    story.put(0);
    story.settle();
    story.put(1);
    let met = Arc::new(Mutex::new(0));
    let within = |cache: &Arc<Cache>| {
        let (cache, met) = (cache.clone(), met.clone());
        let hook: Hook = Box::new(move || {
            assert!(cache.state.try_lock().is_some(), "no lock is held across a call to the disk");
            assert!(cache.read(segment(1), 0..RUN).is_some() && cache.read_resident(segment(1), 0..RUN).is_some());
            *met.lock() += 1;
        });
        Some(hook)
    };
    story.before.lock().remove = within(&story.cache);
    story.before.lock().write = within(&story.cache);
    story.settle();
    assert_eq!(*met.lock(), 2, "both happened");
    story.expect(1);
}

#[test]
fn a_run_that_is_removed_while_it_is_written_leaves_nothing_and_can_be_put_again() {
    for again in [false, true] {
        let story = Story::new(3);
        let cache = story.cache.clone();
        story.before.lock().write = Some(Box::new(move || {
            cache.remove(segment(0), 0..1);
            if again {
                cache.put(segment(0), Class::Data, 0, bytes(segment(0), 0..RUN));
            }
        }));
        story.put(0);
        story.settle();
        assert_eq!(story.cache.holds(segment(0), 0..RUN), again);
        let runs = u64::from(again);
        let stats = story.cache.stats();
        assert_eq!((story.files() as u64, stats.runs, stats.used_bytes), (runs, runs, runs * WEIGHT));
    }
}

#[test]
fn promise_s8_too_much_pending_is_dropped_and_counted() {
    let story = Story::new(1 << 20);
    let run = 1 << 20;
    let all = bytes(segment(0), 0..run);
    for number in 0..40 {
        story.cache.put(segment(number), Class::Data, 0, all.clone());
        assert!(story.cache.stats().pending_bytes <= PENDING_BYTES_MAX);
    }
    let stats = story.cache.stats();
    assert_eq!((stats.runs, stats.dropped), (32, 8));
    assert!(story.cache.holds(segment(31), 0..run) && !story.cache.holds(segment(32), 0..run));
    story.settle();
    assert_eq!((story.files(), story.cache.stats().pending_bytes), (32, 0));
}

#[test]
fn promise_g12_open_files_are_bounded() {
    let story = Story::new(1000);
    for number in 0..3 * OPEN_MAX as u64 {
        story.put(number);
        story.settle();
    }
    for number in 0..3 * OPEN_MAX as u64 {
        story.expect(number);
    }
    assert_eq!(story.disk.open_files_max(), OPEN_MAX + 1, "one more while it takes the place of another");
}
